"""Turns: who waits longer, or matters more, is taken first; and beginnings are spaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from campaigns.simulation.rules.seen import Seen
from campaigns.simulation.rules.topic import Topic
from campaigns.simulation.tasks.programs import PACE_US
from outlast.lifecycle import Execution, Kind, State, Transition

if TYPE_CHECKING:
    from campaigns.simulation.rules.auditor import Auditor
    from campaigns.simulation.world.clockwork import Process

STEP_US: Final = 60_000_000
"""What a step of priority is worth, in waiting."""
_SUSPECT: Final = 3


class Turns(Topic):
    """At each claim nobody is left behind whose turn is before that of one who is taken."""

    def called(self, process: Process, verb: str, args: tuple[Any, ...], result: Any) -> None:
        """Look at a claim."""
        if verb != "claim" or not result:
            return
        versions: Any = args[5] if len(args) > 5 else ()
        lines: dict[str, dict[str, Execution]] = {}
        for seen in self.auditor.seen.values():
            one = seen.record
            if _waits(one) and one.task in args[1] and _may_have(one, versions):
                lines.setdefault(one.queue, {})[one.id] = one
        for waiting in lines.values():
            self._look(waiting, [one.execution.id for one in result])

    def _look(self, waiting: dict[str, Execution], claimed: list[str]) -> None:
        """Compare those of one queue that were taken with those that were left."""
        taken = [waiting.pop(id) for id in claimed if id in waiting]
        if not taken or not waiting:
            return
        last, first = max(taken, key=_turn), min(waiting.values(), key=_turn)
        self.auditor.counts["turns"] += 1
        self.auditor.counts["turns_by_age"] += last.priority < first.priority
        said = (_turn(last), "and left", _turn(first))
        self.auditor.check("turns", _turn(last) < _turn(first), "took", *said)


class Paces(Topic):
    """Knows when each rate opens again, by the clocks of those who claim."""

    def __init__(self, auditor: Auditor) -> None:
        super().__init__(auditor)
        self._opens_at = 0

    def row(self, seen: Seen, row: Transition) -> None:
        """A claim of what has not begun, or is tried anew, takes from its rate."""
        if row.kind is not Kind.CLAIM or seen.record.task != "sim_paced":
            return
        if self.auditor.is_skewed or any(one.kind is Kind.CLAIM for one in seen.rows):
            return
        self.auditor.counts["paced"] += 1
        id = row.execution_id
        self.auditor.check("rates", row.at >= self._opens_at, id, row.at, self._opens_at)
        self._opens_at = row.at + PACE_US


def _waits(record: Execution) -> bool:
    return record.state is State.QUEUED and record.gates is None and record.idle_claims < _SUSPECT


def _may_have(record: Execution, versions: Any) -> bool:
    return record.pin is None or (record.task, record.pin) in versions


def _turn(record: Execution) -> tuple[int, str]:
    since: Any = (record.detail or {}).get("since", record.state_at)
    return int(since) - record.priority * STEP_US, record.id
