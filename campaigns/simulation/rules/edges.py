"""What executions depend on, as their births say it: a checker that keeps no books of the store's.

Whoever begins although an upstream is open, or ended as it must not, shows at once; who should have
been taken along by an upstream that failed, at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from outlast.lifecycle import Execution, Kind, State, Transition
from outlast.lifecycle.record import continued_as

if TYPE_CHECKING:
    from campaigns.simulation.rules.auditor import Auditor
    from campaigns.simulation.rules.seen import Seen


RULE: Final = "dependencies"


class Edges:
    """Applies the rule for :class:`~campaigns.simulation.invariants.Auditor`."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor

    def claimed(self, seen: Seen, row: Transition) -> None:
        """See that an execution that a worker takes may begin."""
        if _is_forced(seen):
            return
        for edge, upstream in self._edges(seen):
            self._check(
                upstream.is_final and not _is_failure(edge, upstream),
                row.execution_id, "was claimed, and", upstream.id, "is", upstream.state, edge,
            )  # fmt: skip

    def heard(self, seen: Seen, row: Transition) -> None:
        """See that what the log is told of an upstream is so, and told once."""
        said: Any = row.data or {}
        upstream = self.last(said["upstream"])
        self._check(upstream.is_final, row.execution_id, "heard of", upstream.id, upstream.state)
        self._check(str(upstream.state) == said["state"], row.execution_id, said, upstream.state)
        told = [one for one in seen.rows if one.kind is Kind.UPSTREAM_ENDED]
        again = any((one.data or {}).get("upstream") == said["upstream"] for one in told)
        self._check(not again, row.execution_id, "heard twice of", upstream.id)

    def cancelled(self, seen: Seen, row: Transition) -> bool:
        """Tell whether a cancel came from an upstream, and see that it had to."""
        said: Any = row.data or {}
        if said.get("by") != "upstream":
            return False
        fails = [edge for edge, one in self._edges(seen) if one.is_final and _is_failure(edge, one)]
        taken = any(edge["or_else"] == "cancel" for edge in fails)
        self._check(taken, row.execution_id, "was taken along by nobody", fails)
        self._auditor.counts["dependency_cancels"] += 1
        return True

    def at_end(self, seen: Seen) -> None:
        """See that whoever had to be taken along was."""
        if _is_forced(seen) or not seen.record.is_final:
            return
        for edge, upstream in self._edges(seen):
            self._auditor.counts["dependencies"] += 1
            if not (upstream.is_final and _is_failure(edge, upstream)):
                continue
            self._auditor.counts[f"dependency_failed_{edge['or_else']}"] += 1
            self._check(
                seen.record.state in (State.CANCELLED, State.TIMED_OUT),
                seen.record.id, "is", seen.record.state, "and", upstream.id, upstream.state, edge,
            )  # fmt: skip

    def _check(self, holds: bool, *said: object) -> None:
        self._auditor.check(RULE, holds, *said)

    def _edges(self, seen: Seen) -> Iterator[tuple[Any, Execution]]:
        """Give each edge, and how the execution that it names stands: as which it went on."""
        waits_on: Any = (seen.rows[0].data or {}).get("waits_on", ()) if seen.rows else ()
        for edge in waits_on:
            yield edge, self.last(edge["id"])

    def last(self, id: str) -> Execution:
        """Give an execution, or the last one as which it went on."""
        found = self._auditor.record_of(id)
        while (successor := continued_as(found)) is not None:
            found = self._auditor.record_of(successor)
        return found


def is_held(record: Execution) -> bool:
    """Tell whether an execution is held, as something it depends on has failed."""
    waits_on: Any = (record.detail or {}).get("waits_on") or ()
    return record.state is State.SCHEDULED and any(edge.get("ended") for edge in waits_on)


def _is_failure(edge: Any, upstream: Execution) -> bool:
    return edge["need"] == "success" and upstream.state is not State.SUCCEEDED


def _is_forced(seen: Seen) -> bool:
    """Tell whether somebody has let it begin all the same."""
    return any(row.kind is Kind.PROMOTE and (row.data or {}).get("trigger") for row in seen.rows)
