"""Why is it not moving? Whenever a world rests, each answer that users get must be true.

What an answer names must be there and be as it says, and nothing that could move an execution may
be lying about. That what it asks for moves it is seen by giving it just that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from campaigns.simulation.tasks import edited
from outlast.engine.read.standing import standing
from outlast.lifecycle import Kind, MessageKind, State, reason_of

if TYPE_CHECKING:
    from campaigns.simulation.rules.auditor import Auditor
    from campaigns.simulation.rules.seen import Seen


RULE: Final = "reasons"
_NAMED: Final = re.compile(r"ex_[0-9a-z]{19,}")


class Truth:
    """Applies the rule for :class:`~campaigns.simulation.invariants.Auditor`."""

    def __init__(self, auditor: Auditor) -> None:
        self.auditor = auditor

    def at_rest(self, seen: Seen, now: int) -> None:
        """See that the reason of an open execution is so: nothing fails, and all has settled."""
        auditor, record = self.auditor, seen.record
        reason = standing(auditor.reader, record, "somebody") or reason_of(record)
        said = (record.id, record.state, reason)
        auditor.check(RULE, reason is not None, *said)
        assert reason is not None
        judge = _JUDGES.get(reason.code)
        auditor.check(RULE, judge is not None, *said, "is not known to be true at rest")
        assert judge is not None
        auditor.counts[f"reason_{reason.code}"] += 1
        auditor.check(RULE, judge(self, seen, now), *said)
        for id in _NAMED.findall(reason.text):
            other = auditor.seen.get(auditor.edges.last(id).id)
            is_open = other is not None and not other.record.is_final
            auditor.check(RULE, is_open is not (reason.code == "dependency_failed"), *said)

    def is_true_of(self, seen: Seen, wait: Any, now: int) -> bool:
        """Tell whether a parked execution waits rightly for one thing."""
        kind, record = wait.get("kind"), seen.record
        if kind == "ask":
            return wait["key"] not in seen.questions and bool(wait.get("title"))
        if kind == "event":
            return not any(
                row.kind is Kind.SIGNAL_RECEIVED and row.key == wait["title"] for row in seen.rows
            )
        if kind == "child":
            child = self.auditor.seen.get(str(wait.get("child")))
            if child is None or child.record.is_final:
                return False
            return child.record.parent_id == record.id
        return record.due_at is not None and record.due_at > now

    def holds_limit(self, seen: Seen) -> bool:
        """Tell whether as many as may are inside the limit that an execution waits for."""
        found = self.auditor.reader.capacity.standing(seen.record.id)
        if found is None or found.capacity is None or len(found.holders) < found.capacity:
            return False
        holders = [self.auditor.seen[id].record for id in found.holders]
        return all(not one.is_final and (one.is_leased or one.attempt) for one in holders)

    def lacks_budget(self, seen: Seen) -> bool:
        """Tell whether less is left of a budget than an execution wants."""
        facts: Any = (seen.record.detail or {}).get("budget") or {}
        for budget in self.auditor.reader.budgets([facts["name"].rpartition(":")[0]]):
            if budget.name == facts["name"]:
                left = (budget.limit or 0) - budget.spent - budget.reserved
                return bool(left < facts["need"])
        return False


def _later(truth: Truth, seen: Seen, now: int) -> bool:
    return seen.record.due_at is not None and seen.record.due_at > now


def _waits(truth: Truth, seen: Seen, now: int) -> bool:
    waits: Any = (seen.record.detail or {}).get("waits") or ()
    return bool(waits) and all(truth.is_true_of(seen, wait, now) for wait in waits)


def _depends(truth: Truth, seen: Seen, now: int) -> bool:
    waits_on: Any = (seen.record.detail or {})["waits_on"]
    upstreams = [truth.auditor.edges.last(edge["id"]) for edge in waits_on]
    return all(not one.is_final for one in upstreams)


def _is_held(truth: Truth, seen: Seen, now: int) -> bool:
    waits_on: Any = (seen.record.detail or {})["waits_on"]
    failed = [edge for edge in waits_on if edge.get("ended")]
    upstreams = [truth.auditor.edges.last(edge["id"]) for edge in failed]
    states = [str(one.state) for one in upstreams]
    return states == [edge["ended"] for edge in failed] and str(State.SUCCEEDED) not in states


def _is_limited(truth: Truth, seen: Seen, now: int) -> bool:
    return truth.holds_limit(seen)


def _is_paused(truth: Truth, seen: Seen, now: int) -> bool:
    return any(entry.message.kind is MessageKind.PAUSE for entry in seen.inbox)


def _is_looping(truth: Truth, seen: Seen, now: int) -> bool:
    """Tell whether so many workers have taken it and died, without coming any further."""
    return f"died {seen.died} times" in str((seen.record.detail or {}).get("text"))


def _is_short(truth: Truth, seen: Seen, now: int) -> bool:
    return truth.lacks_budget(seen)


def _is_misfit(truth: Truth, seen: Seen, now: int) -> bool:
    return seen.record.task == edited.NAME  # and the rule of code has seen that it is so


_JUDGES: Final[dict[str, Callable[[Truth, Seen, int], bool]]] = {
    "start_time": _later,
    "back_off": _later,
    "dependency": _depends,
    "dependency_failed": _is_held,
    "awaiting_input": _waits,
    "waiting": _waits,
    "waiting_timer": _waits,
    "waiting_child": _waits,
    "waiting_retry": _waits,
    "limit_full": _is_limited,
    "paused": _is_paused,
    "crash_loop": _is_looping,
    "budget": _is_short,
    "code_mismatch": _is_misfit,
}
"""What must be so at rest, by the reason's code; one that is not here must not be met there."""
