"""Mistakes in how an engine runs executions: commits, attempts, stops."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, Final

from campaigns.simulation.plants.plant import Patch, Plant, decide_module
from outlast.engine.drive.attempts import Attempts
from outlast.engine.drive.driver import Driver
from outlast.engine.replay.scope import Outcome, Scope
from outlast.engine.steps.body import Body
from outlast.engine.write.journal import Journal
from outlast.errors import OutlastError
from outlast.lifecycle import Event, Kind
from outlast.store.protocol import Answer, Create


def _ack_before_commit() -> list[Patch]:
    def write_batch(self: Any, waiting: deque[Any]) -> None:
        first = waiting.popleft()
        item = first[0]
        if isinstance(item, Create):
            self._tell(self._settle, [first], [Answer(None, item.after)])
            with suppress(OutlastError):
                self._store.commit([item])
        else:
            try:
                answers = self._store.commit([item])
            except OutlastError as error:
                answers = [Answer("unknown", error=error)]
            self._tell(self._settle, [first], answers)

    return [(Journal, "_write_batch", write_batch)]


def _attempt_counted_late() -> list[Patch]:
    plain_try, plain_start = Attempts._try_again, Attempts._start
    held: dict[tuple[int, str], Any] = {}

    def try_again(self: Any, *given: Any) -> Any:
        append = self.owner.append

        def later(event: Any, **more: Any) -> Any:
            if event.kind is not Kind.ATTEMPT_FAILED:
                return append(event, **more)
            held[id(self), event.key] = event
            return self.owner.row

        self.owner.append = later
        try:
            return plain_try(self, *given)
        finally:
            del self.owner.append

    def start(self: Any, call: Any) -> None:
        plain_start(self, call)
        event = held.pop((id(self), call.key), None)
        if event is not None and not self.owner.is_over:
            self.owner.append(event)

    return [(Attempts, "_try_again", try_again), (Attempts, "_start", start)]


def _park_runs_clean_up() -> list[Patch]:
    plain = Driver._leave

    def ignore(*_: Any) -> None:
        """Hear nothing."""

    def leave(self: Any, **more: Any) -> None:
        scope = self.playback.scope
        if self.owner.before_park is not None and isinstance(scope, Scope) and not scope.finished:
            scope.deliver(Outcome(self.record.seq, self.owner.row.at, "cancel"))
            nobody: Any = SimpleNamespace(body_done=ignore, beaten=ignore, owner=self.owner)
            for call in scope.take_calls():
                if call.kind == "step":
                    place = (self.record.id, self.worker, scope)
                    Body(call, 1, *place, nobody).start()
        plain(self, **more)

    return [(Driver, "_leave", leave)]


def _bodies_ahead_of_the_disk() -> list[Patch]:
    plain = Driver._pump

    def pump(self: Any, scope: Any) -> None:
        durable, self.owner.durable = self.owner.durable, 1 << 62
        try:
            plain(self, scope)
        finally:
            self.owner.durable = durable

    return [(Driver, "_pump", pump)]


def _stop_as_failure() -> list[Patch]:
    def hand_back(self: Any) -> None:
        if not self.is_over and self.owner.before_park is None:
            error = {"error": {"type": "stopped"}}
            self._end(Event(Kind.ERROR, "engine", data=error, payload=b"{}"))

    return [(Driver, "hand_back", hand_back)]


def _claims_not_counted() -> list[Patch]:
    plain = decide_module._EFFECTS[Kind.CLAIM]

    def claim(record: Any, event: Any, now: int, changes: Any) -> None:
        plain(record, event, now, changes)
        if record.claims:
            changes["claims"] = record.claims

    ways = {
        (state, kind): tuple(way._replace(effect=claim) for way in ways)
        if kind is Kind.CLAIM
        else ways
        for (state, kind), ways in decide_module._WAYS.items()
    }
    return [(decide_module, "_WAYS", ways)]


PLANTS: Final[dict[str, Plant]] = {
    "ack_before_commit": Plant(
        "a start is acknowledged, and then committed",
        ("INV-9 acknowledged", "INV-15 output commit"), _ack_before_commit,
    ),
    "attempt_counted_late": Plant(
        "a failed attempt is written down only when the next one has begun",
        ("INV-15 attempts",), _attempt_counted_late,
    ),
    "bodies_ahead_of_the_disk": Plant(
        "a body starts although what its execution has learned is not durable",
        ("INV-15 output commit", "INV-15 attempts"), _bodies_ahead_of_the_disk,
    ),
    "stop_as_failure": Plant(
        "what a graceful stop interrupts is written down as failed",
        ("results", "INV-9 acknowledged"), _stop_as_failure,
    ),
    "park_runs_clean_up": Plant(
        "clean-up code runs its steps while a parked execution is unwound",
        ("INV-19 inert",), _park_runs_clean_up,
    ),
    "claims_not_counted": Plant(
        "only an execution's first claim is counted",
        ("INV-11 claims",), _claims_not_counted,
    ),
}  # fmt: skip
