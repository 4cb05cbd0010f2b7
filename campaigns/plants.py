"""Planted bugs: defects that a child puts into its engine, to see if the harness finds them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Plant:
    """A planted bug.

    Attributes:
        put_in: puts it into the engine of this process.
        rules: the rules of :mod:`campaigns.audit` of which at least one must catch it.
    """

    put_in: Callable[[], None]
    rules: tuple[str, ...]


def _find(name: str) -> Any:
    module, _, cls = name.partition(":")
    home: Any = importlib.import_module(f"outlast.{module}")
    return getattr(home, cls) if cls else home


def _ack_before_commit() -> None:
    """Tell the waiters that their items are stored, and store them afterwards."""
    journal = _find("engine.write.journal:Journal")
    answer = _find("store.protocol:Answer")
    create = _find("store.protocol:Create")
    original = journal._tell

    def write_batch(self: Any, waiting: Any) -> None:
        first = waiting.popleft()
        item = first[0]
        if isinstance(item, create):
            original(self, self._settle, [first], [answer(None, item.after)])
            self._store.commit([item])
        else:
            original(self, self._settle, [first], self._store.commit([item]))

    journal._write_batch = write_batch


def _skip_durable_wait() -> None:
    """Start bodies although the outcomes before them are not in the file yet."""
    owner = _find("engine.write.owner:Owner")
    owner.durable = property(lambda self: 1 << 62, lambda self, value: None)


def _replay_forgets_last_step() -> None:
    """Replay all but the last recorded step."""
    driver = _find("engine.drive.driver:Driver")
    original = driver.replay

    def replay(self: Any, rows: Any, unseen: Any) -> None:
        last = max((n for n, row in enumerate(rows) if row.kind == "step"), default=None)
        original(self, [row for n, row in enumerate(rows) if n != last], unseen)

    driver.replay = replay


def _recover_without_fence() -> None:
    """Take executions back from dead workers without raising the fence."""
    decide = _find("lifecycle.decide")
    original = decide._fence

    def fence(record: Any, event: Any) -> Any:
        number = original(record, event)
        lost = event.kind in ("worker_lost", "lease_expired")
        return record.fence if lost and number is not None else number

    decide._fence = fence


def _park_overlooks_messages() -> None:
    """Give the lease up without comparing the inbox: the classic lost wake-up."""
    owner = _find("engine.write.owner:Owner")
    original = owner.try_append

    def try_append(self: Any, event: Any, **more: Any) -> Any:
        return original(self, event, **{**more, "inbox_seen": None})

    owner.try_append = try_append


def _park_runs_clean_up() -> None:
    """Unwind parked code as a cancel does: the steps of its clean-up then really run."""
    driver, outcome = _find("engine.drive.driver:Driver"), _find("engine.replay.scope:Outcome")
    body = _find("engine.steps.body:Body")
    original = driver._leave

    def ignore(*_: Any) -> None:
        """Hear nothing."""

    def leave(self: Any, **more: Any) -> None:
        scope = self.playback.scope
        parks = self.owner.before_park is not None and scope is not None and scope.is_async
        if parks and not scope.finished:
            scope.deliver(outcome(self.record.seq, self.owner.row.at, "cancel"))
            nobody = SimpleNamespace(body_done=ignore, beaten=ignore, owner=self.owner)
            for call in scope.take_calls():
                if call.kind == "step":
                    place = (self.record.id, self.worker, scope)
                    body(call, 1, *place, nobody).start()
        original(self, **more)

    driver._leave = leave


def _stop_fails_what_runs() -> None:
    """Mark what a graceful stop interrupts as failed, as several peers do."""
    driver = _find("engine.drive.driver:Driver")
    event = _find("lifecycle:Event")
    kind = _find("lifecycle:Kind")

    def hand_back(self: Any) -> None:
        if not self.is_over and self.owner.before_park is None:
            self._end(
                event(kind.ERROR, "engine", data={"error": {"type": "stopped"}}, payload=b"{}")
            )

    driver.hand_back = hand_back


def _timer_forgotten() -> None:
    """Park for a timer without the instant at which it is due."""
    waiting = _find("engine.drive.waiting:Waiting")
    original = waiting.waits

    def waits(self: Any, scope: Any) -> Any:
        return original(self, scope)[0], None

    waiting.waits = waits


PLANTS: Final[dict[str, Plant]] = {
    "ack_before_commit": Plant(
        _ack_before_commit, ("acked_start", "acked_result", "unknown_execution")
    ),
    "skip_durable_wait": Plant(_skip_durable_wait, ("output_commit", "unknown_execution")),
    "replay_forgets_last_step": Plant(
        _replay_forgets_last_step, ("repeated", "mismatch", "verify", "result")
    ),
    "recover_without_fence": Plant(_recover_without_fence, ("life_failed", "stuck")),
    "park_overlooks_messages": Plant(_park_overlooks_messages, ("stuck",)),
    "park_runs_clean_up": Plant(_park_runs_clean_up, ("twice_in_a_life",)),
    "stop_fails_what_runs": Plant(_stop_fails_what_runs, ("result", "acked_result")),
    "timer_forgotten": Plant(_timer_forgotten, ("stuck",)),
}
"""The planted bugs by name."""
