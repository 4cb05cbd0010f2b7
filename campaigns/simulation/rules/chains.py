"""Executions that go on as new ones: nothing of what one left unread is lost on the way.

An execution and those as which it goes on are a chain. What was sent to any of them counts for all.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from outlast.lifecycle import Kind, Transition
from outlast.lifecycle.record import continued_as

if TYPE_CHECKING:
    from campaigns.simulation.rules.auditor import Auditor
    from campaigns.simulation.rules.seen import Seen


RULE: Final = "chains"
TASK: Final = "sim_goes_on"
_KEPT: Final = ("parent_id", "parent_key", "root_id", "origin", "labels", "queue", "priority")


class Chains:
    """Applies the rule for :class:`~campaigns.simulation.invariants.Auditor`."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor
        self._before: dict[str, str] = {}

    def _check(self, holds: bool, *said: object) -> None:
        self._auditor.check(RULE, holds, *said)

    def born(self, seen: Seen, row: Transition) -> None:
        """See of whom a new execution is the continuation, and what it has of that one's birth."""
        said: Any = row.data or {}
        source_id = said.get("continued_from")
        if source_id is None:
            return
        id, source = row.execution_id, self._auditor.seen.get(source_id)
        self._check(source is not None, id, "goes on from", source_id, "which is not there")
        assert source is not None
        self._check(source_id not in self._before.values(), source_id, "goes on twice")
        self._before[id] = source_id
        was: Any = source.rows[0].data or {}
        same = all(said.get(name) == was.get(name) for name in _KEPT)
        self._check(same, id, said, "and", source_id, was)
        old, new = (msgspec.json.decode(one.payload or b"{}") for one in (source.rows[0], row))
        self._check(new["seed"] == old["seed"] and new["left"] == old.get("left", 2) - 1, old, new)

    def at_end(self) -> None:
        """See that each has its successor, and that all signals that it left unread are there."""
        for id, source_id in self._before.items():
            source, seen = self._auditor.seen[source_id], self._auditor.seen[id]
            self._check(continued_as(source.record) == id, source_id, "goes on as", id)
            left = msgspec.json.decode(source.rows[0].payload or b"{}").get("left", 2)
            unread = Counter(
                (row.key, row.payload)
                for row in source.rows
                if row.kind is Kind.SIGNAL_RECEIVED and row.key != f"s{left}"
            )
            came = Counter(
                (row.key, row.payload)
                for row in seen.rows
                if row.kind is Kind.SIGNAL_RECEIVED and "inbox" not in (row.data or {})
            )
            self._check(not unread - came, source_id, "has lost", unread - came)
            self._auditor.counts["continuations"] += 1
            self._auditor.counts["signals_carried"] += unread.total()
        for id, seen in self._auditor.seen.items():
            successor = continued_as(seen.record)
            if successor is not None:
                self._check(self._before.get(successor) == id, id, "goes on as", successor)

    def of(self, id: str) -> list[str]:
        """Name all of the chain that an execution belongs to."""
        found = [id]
        while found[-1] in self._before:
            found.append(self._before[found[-1]])
        after = {before: one for one, before in self._before.items()}
        while id in after:
            id = after[id]
            found.append(id)
        return found
