"""Limits of time: each strikes when its time is over, and never before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from campaigns.simulation.rules.seen import Seen, name_of, start_by
from campaigns.simulation.rules.topic import Topic
from campaigns.simulation.tasks.programs import ATTEMPT_US
from campaigns.simulation.tasks.steps import HASTY_US, SILENCE_US
from outlast.lifecycle import Kind, Transition

if TYPE_CHECKING:
    from campaigns.simulation.rules.auditor import Auditor
    from campaigns.simulation.world.clockwork import Process

RULE: Final = "time limits"
BEATS: Final = "heartbeats"


class Times(Topic):
    """Knows when each body began and was heard of last, by the clock of its process."""

    def __init__(self, auditor: Auditor) -> None:
        super().__init__(auditor)
        self._last: dict[tuple[str, str], int] = {}
        self._beats: dict[tuple[str, str], set[int]] = {}

    def body(self, process: Process, seen: Seen, key: str, attempt: int) -> None:
        """A body begins."""
        self._last[seen.record.id, key] = process.now()

    def beaten(self, process: Process, id: str, key: str, number: int) -> None:
        """A body says how far it is: one more than what it was told that it had said, or says."""
        said = self._beats.setdefault((id, key), {0})
        self.auditor.check(BEATS, number - 1 in said, id, key, "goes on at", number, "of", said)
        said.add(number)
        self._last[id, key] = process.now()

    def row(self, seen: Seen, row: Transition) -> None:
        """See that what was struck by a limit had used its time up."""
        payload = row.payload or b""
        if row.kind in (Kind.STEP, Kind.ATTEMPT_FAILED) and row.key is not None:
            for error, name, span in (
                (b"errors:StepTimeout", "sim_hasty", HASTY_US),
                (b"errors:HeartbeatLost", "sim_beats", SILENCE_US),
            ):
                if error in payload and name_of(row.key) == name:
                    self._struck(row, row.key, span)
        elif row.kind in (Kind.ERROR, Kind.RETRY) and b"errors:AttemptTimeout" in payload:
            tries = [n for n, one in enumerate(seen.rows) if one.kind is Kind.RETRY]
            since = seen.rows[tries[-1] + 1 if tries else 0 :]
            began = next(one.at for one in since if one.kind is Kind.START)
            self._count("attempts")
            holds = row.at >= began + ATTEMPT_US
            self.auditor.check(RULE, holds, row.execution_id, "began at", began, "struck", row.at)
        elif row.kind is Kind.DEADLINE and start_by(seen) is not None:
            self._count("not_begun")
        elif row.kind is Kind.START and not seen.starts:
            parked = seen.record.state_at  # it was taken in time, whenever its code is read
            by = start_by(seen)
            claimed = max(one.at for one in seen.rows if one.kind is Kind.CLAIM)
            self.auditor.check(RULE, by is None or claimed <= by or parked <= by, row.execution_id)

    def _struck(self, row: Transition, key: str, span: int) -> None:
        last = self._last.get((row.execution_id, key))
        if "reused" not in (row.data or {}) and last is not None:
            self._count("steps")
            holds = row.at >= last + span
            self.auditor.check(RULE, holds, row.execution_id, key, "last", last, "at", row.at)

    def _count(self, what: str) -> None:
        self.auditor.counts[f"timed_out_{what}"] += 1
