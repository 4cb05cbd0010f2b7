"""Executions made of others: what they may know of their sources.

A descendant is born with copies of what its source had learned. Each must be what the source has,
byte for byte; a fork has none from its step on, a recovery none that failed. What is copied is
reused by the very same call, and its body never runs again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from outlast.engine.control.descent import Mode
from outlast.engine.replay.script import REUSABLE, is_reusable
from outlast.lifecycle import Kind, State, Transition

if TYPE_CHECKING:
    from campaigns.simulation.rules.auditor import Auditor
    from campaigns.simulation.rules.seen import Seen


RULE: Final = "descents"


@dataclass
class _Past:
    """What one descendant has of its source."""

    source: Seen
    mode: str
    step_seq: int | None
    copies: dict[int, Transition] = field(default_factory=dict)
    calls: dict[tuple[str | None, int | None], int] = field(default_factory=dict)
    spent: set[int] = field(default_factory=set)


class Family:
    """Applies the rule for :class:`~campaigns.simulation.invariants.Auditor`."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor
        self._pasts: dict[str, _Past] = {}

    def _check(self, holds: bool, *said: object) -> None:
        self._auditor.check(RULE, holds, *said)

    def born(self, seen: Seen, row: Transition) -> None:
        """See of whom an execution was made, and that it may be."""
        origin: Any = (row.data or {}).get("from")
        if origin is None:
            return
        id, source = row.execution_id, self._auditor.seen.get(origin["id"])
        self._check(source is not None, id, "was made of", origin["id"], "which is not there")
        assert source is not None
        birth = source.rows[0]
        self._check(row.payload == birth.payload, id, "has another input than", source.record.id)
        self._check((row.data or {})["task"] == (birth.data or {})["task"], id, "is another task")
        if origin["mode"] == Mode.RECOVER:
            failed = source.record.is_final and source.record.state is not State.SUCCEEDED
            self._check(failed, id, "recovers", source.record.id, source.record.state)
        step_seq = None
        if origin["mode"] == Mode.FORK:
            outcomes = [
                one.seq
                for one in source.rows
                if one.key == origin["step"] and one.kind in _OUTCOMES
            ]
            step_seq = outcomes[-1] if outcomes else source.rows[-1].seq + 1
        self._pasts[id] = _Past(source, origin["mode"], step_seq)
        seen.instants |= source.instants
        seen.instants.add(origin.get("began_at", row.at))
        self._auditor.counts["descendants"] += 1

    def copied(self, row: Transition) -> bool:
        """See that a copy is what the source has; gives whether the row is one."""
        if not is_reusable(row):
            return False
        past, said = self._pasts[row.execution_id], row.data or {}
        seq, kind = int(str(said[REUSABLE])), said["kind"]
        of = past.source.rows[seq - 1]
        original = of
        if kind in ("step", "child") and "reused" in (of.data or {}):
            original = past.source.rows[int(str((of.data or {})["reused"])) - 1]
        where = (row.execution_id, row.seq, row.key)
        self._check(row.key == of.key and row.payload == original.payload, *where, of.kind, of.key)
        self._check(kind == "point" or of.kind in _OUTCOMES or is_reusable(of), *where, of.kind)
        if past.mode == Mode.RECOVER:
            self._check(not said.get("failed"), *where, "failed, and is kept")
        if past.step_seq is not None:
            self._check(seq < past.step_seq, *where, "is behind the step", past.step_seq)
        self._check(past.mode != Mode.RERUN, *where, "is known to a rerun")
        past.copies[row.seq] = row
        if kind == "step":
            past.calls[row.key, row.digest] = row.seq
        self._auditor.counts["copies"] += 1
        return True

    def reused(self, seen: Seen, row: Transition) -> bool:
        """See that what is reused is there; gives whether the row reuses a copy."""
        number = int(str((row.data or {}).get("reused", 0)))
        past = self._pasts.get(row.execution_id)
        copy = None if past is None else past.copies.get(number)
        if past is None or copy is None:
            return False
        where = (row.execution_id, row.seq, row.key, "reuses", number, copy.key)
        self._check(row.key == copy.key, *where)
        self._check(number not in past.spent, *where, "for the second time")
        past.spent.add(number)
        self._auditor.counts["copies_reused"] += 1
        return True

    def ran(self, row: Transition) -> None:
        """See that a step that has run now was not known."""
        past = self._pasts.get(row.execution_id)
        if past is None or "reused" in (row.data or {}):
            return
        known = past.calls.get((row.key, row.digest))
        self._check(known is None, row.execution_id, row.key, "has run, and is known by", known)

    def tries_again(self, id: str) -> None:
        """The whole task is tried again, and may come by all of it once more."""
        if id in self._pasts:
            self._pasts[id].spent.clear()

    def child_of(self, row: Transition) -> str | None:
        """Name the child whose end a row that reuses a copy tells of."""
        number = int(str((row.data or {}).get("reused", 0)))
        past = self._pasts.get(row.execution_id)
        if past is None or number not in past.copies:
            return None
        return str((past.copies[number].data or {})["child"])


_OUTCOMES: Final = frozenset(
    {Kind.STEP, Kind.TIMER_FIRED, Kind.INPUT_RECEIVED, Kind.SIGNAL_RECEIVED, Kind.CHILD_FINISHED}
)
