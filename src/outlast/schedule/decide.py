"""The only way to change a schedule: decide a request on its row, as it is in this transaction.

Theory of operation. A schedule's row holds the next slot nothing was decided about. Advancing it
decides the fate of every slot up to now, in order: fired, queued, skipped or missed, one entry of
the log each (late slots that share a fate share an entry), and puts ``next_slot`` behind them, in
the transaction that creates the executions. Whoever comes second finds another ``seq`` and is
refused; a crash before the commit leaves the slots where they were, one after it finds them
decided.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Any, Final

from msgspec import Struct, field
from msgspec.structs import replace

from outlast.naming import SCHEDULE_ORIGIN
from outlast.schedule.plan import Plan
from outlast.schedule.record import Entry, Request, ScheduleRecord, Wish, copy_of
from outlast.schedule.slots import fires_at, next_slot, slots_after
from outlast.schedule.table import (
    CELLS,
    Refused,
    ScheduleKind,
    ScheduleState,
    refusal,
)

WALK_MAX: Final = 2_000
"""Slots that one transaction decides about: what was missed in a long absence comes in parts."""
BACKFILL_MAX: Final = 1_000
"""Executions that one backfill makes."""


class Birth(Struct):
    """An execution to be made.

    Attributes:
        id: its id.
        slot: the slot it is for; None when somebody triggered it.
        actor: who made it: its schedule, or the person who triggered or backfilled it.
    """

    id: str
    slot: int | None
    actor: str


class Change(Struct):
    """What a request does.

    Attributes:
        after: the row; its ``seq`` counts the entries that are written.
        entries: what is added to its log; their numbers are given when they are written.
        births: executions to be made.
        cancels: executions to be cancelled.
        more: whether there is more to decide at this instant.
    """

    after: ScheduleRecord
    entries: list[Entry] = field(default_factory=list)
    births: list[Birth] = field(default_factory=list)
    cancels: list[str] = field(default_factory=list)
    more: bool = False


def slot_key(name: str, slot: int) -> str:
    """Give the key of a slot's execution: one slot, one execution, whoever makes it."""
    at = datetime.fromtimestamp(slot // 1_000_000, UTC).replace(microsecond=slot % 1_000_000)
    return f"{SCHEDULE_ORIGIN}{name}@{at.isoformat().replace('+00:00', 'Z')}"


def decide(
    record: ScheduleRecord | None, request: Request, now: int, open_ids: Sequence[str] = ()
) -> Change | Refused:
    """Decide a request.

    Args:
        record: the row as it is; None when there is none. It is not changed.
        request: what is wanted.
        now: the instant.
        open_ids: its executions that have not ended, the oldest first.
    """
    if record is None:
        draft = request.draft
        if draft is None or request.wish is Wish.UPDATE:
            return Refused("no_schedule")
        return _create(draft, None, request, now)
    now = max(now, record.updated_at)  # clocks differ and jump; a log's time never goes back
    if request.wish in (Wish.CREATE, Wish.DECLARE, Wish.UPDATE):
        assert request.draft is not None
        return _put(record, request.draft, request, now)
    step = _Step(record, request, now)
    if request.wish is Wish.ADVANCE:
        if record.seq != request.seq:
            return Refused("moved")
        return _advance(step, list(open_ids))
    kind = ScheduleKind(request.wish.value)
    refused = refusal(record.state, kind)
    if refused is not None:
        return refused
    return _BY_HAND[request.wish](step)


class _Step:
    """A change under way: every entry goes by the table."""

    def __init__(self, record: ScheduleRecord, request: Request, now: int) -> None:
        self.request, self.now = request, now
        self.after = copy_of(record)
        self.change = Change(self.after)
        self.ids = list(request.ids)
        by_clock = request.wish is Wish.ADVANCE
        self.maker = SCHEDULE_ORIGIN + record.name if by_clock else request.actor

    def enter(self, kind: ScheduleKind, **facts: Any) -> None:
        """Add an entry, and take the state that the table gives."""
        rule = CELLS[self.after.state, kind]
        actor = "engine" if self.request.wish is Wish.ADVANCE else self.request.actor
        self.change.entries.append(Entry(0, kind, self.now, actor, **facts))
        self.after.updated_at = self.now
        if rule.target is not None and rule.target is not self.after.state:
            self.after.state, self.after.state_at = rule.target, self.now
            self.after.why = self.request.why

    def fire(self, slot: int, kind: ScheduleKind = ScheduleKind.FIRE) -> str:
        """Make the execution of a slot."""
        id = self.ids.pop(0)
        self.change.births.append(Birth(id, slot, self.maker))
        self.enter(kind, slot=slot, execution_id=id)
        if kind is ScheduleKind.FIRE:
            self.after.fired += 1
            self.after.last_slot, self.after.last_execution_id = slot, id
        return id

    def miss(self, slots: Sequence[int], why: str, *, is_all: bool = True) -> None:
        """Leave slots out."""
        if slots:
            until = slots[-1] if len(slots) > 1 else None
            data = {"why": why, "slots": len(slots), "is_all": is_all}
            self.enter(ScheduleKind.MISS, slot=slots[0], until_slot=until, data=data)

    def look_ahead(self, after: int) -> None:
        """Find the next slot; without one, the schedule is exhausted."""
        self.go_to(None if self.is_used_up() else next_slot(self.after.plan, after))

    def is_used_up(self) -> bool:
        """Tell whether its count has come; a slot that waits counts as well."""
        most = self.after.plan.count_max
        taken = self.after.fired + (self.after.waiting_slot is not None)
        return most is not None and taken >= most

    def go_to(self, slot: int | None) -> None:
        """Put the next slot; None, and nothing that waits: it is exhausted."""
        after = self.after
        after.next_slot = slot
        after.next_at = None if slot is None else fires_at(after.name, after.plan, slot)
        if slot is None and after.waiting_slot is None and after.state is ScheduleState.ACTIVE:
            self.enter(ScheduleKind.EXHAUST)


# Making and planning


def _anchored(draft: ScheduleRecord, old: Plan | None, now: int) -> ScheduleRecord:
    """Give ``every`` its first slot, and keep it where the span stays: it must never drift."""
    plan = draft.plan
    if plan.every_us is None:
        return copy_of(draft)
    if plan.start_at is not None:
        anchor = plan.start_at
    elif old is not None and old.every_us == plan.every_us and old.anchor_at is not None:
        anchor = old.anchor_at
    else:
        anchor = now + plan.every_us
    return replace(draft, plan=dataclasses.replace(plan, anchor_at=anchor))


def _create(
    draft: ScheduleRecord, record: ScheduleRecord | None, request: Request, now: int
) -> Change | Refused:
    """Make a schedule; one that has ended under this name is followed by it, in the same log."""
    fresh = _anchored(draft, None, now)
    fresh.state, fresh.created_at, fresh.state_at, fresh.updated_at = (
        ScheduleState.ACTIVE,
        now,
        now,
        now,
    )
    fresh.is_declared = request.wish is Wish.DECLARE
    if record is not None:
        fresh.seq, fresh.last_slot = record.seq, record.last_slot
        fresh.last_execution_id = record.last_execution_id
    after = now - 1 if record is None else max(now - 1, record.last_slot or 0)
    if next_slot(fresh.plan, after) is None and not _is_due_once(fresh.plan, record):
        return Refused("no_slot")
    step = _Step(fresh, request, now)
    step.change.entries.append(
        Entry(0, ScheduleKind.CREATE, now, request.actor, data=fresh.plan.as_data())
    )
    if _is_due_once(fresh.plan, record):
        after = min(after, (fresh.plan.at or 0) - 1)
    step.look_ahead(after)
    return step.change


def _is_due_once(plan: Plan, record: ScheduleRecord | None) -> bool:
    """Tell whether this is one past instant: made too late, it still is a slot, and misfires."""
    return plan.at is not None and (record is None or record.last_slot != plan.at)


def _put(
    record: ScheduleRecord, draft: ScheduleRecord, request: Request, now: int
) -> Change | Refused:
    """Make, declare or plan anew a schedule whose name is taken."""
    is_same = _same(record, _anchored(draft, record.plan, now))
    if request.wish is Wish.CREATE:
        if is_same and not record.has_ended and not record.is_declared:
            return Change(copy_of(record))  # asked twice: nothing to write
        if not record.has_ended:
            return Refused("already_exists")
        return _create(draft, record, request, now)
    if request.wish is Wish.DECLARE:
        if not record.is_declared and record.has_ended:
            return _create(draft, record, request, now)  # it was retired, or made by hand
        if not record.is_declared or record.state is ScheduleState.CANCELLED:
            return Change(copy_of(record))  # an operator's word survives a redeploy
    elif record.state is ScheduleState.CANCELLED:
        return Refused("schedule_ended")
    elif record.is_declared:
        return Refused("declared")  # the next deploy would undo it
    if is_same:
        return Change(copy_of(record))
    return _replan(record, draft, request, now)


def _same(record: ScheduleRecord, other: ScheduleRecord) -> bool:
    mine = (record.task, record.plan, record.input, dict(record.options))
    return mine == (other.task, other.plan, other.input, dict(other.options))


def _replan(
    record: ScheduleRecord, draft: ScheduleRecord, request: Request, now: int
) -> Change | Refused:
    """Plan a schedule anew: where the slots stay the same, what is late stays due."""
    fresh = _anchored(draft, record.plan, now)
    step = _Step(record, request, now)
    step.after.task, step.after.plan = fresh.task, fresh.plan
    step.after.input, step.after.input_digest = fresh.input, fresh.input_digest
    step.after.options = fresh.options
    passed = max(now, record.last_slot or 0)
    has_none = step.is_used_up() or next_slot(fresh.plan, passed) is None
    if record.state is ScheduleState.EXHAUSTED and has_none:
        is_code = request.wish is Wish.DECLARE
        return Change(copy_of(record)) if is_code else Refused("no_slot")
    step.enter(ScheduleKind.UPDATE, data=fresh.plan.as_data())
    is_kept = record.next_slot is not None or record.state is ScheduleState.PAUSED
    if is_kept and _when(record.plan) == _when(fresh.plan):
        step.go_to(record.next_slot)
    else:
        step.look_ahead(passed)
    return step.change


def _when(plan: Plan) -> tuple[object, ...]:
    """Give what decides about the slots of a plan."""
    return (
        plan.every_us,
        plan.cron,
        plan.at,
        plan.anchor_at,
        plan.tz,
        plan.start_at,
        plan.end_at,
        plan.count_max,
    )


# By hand


def _pause(step: _Step) -> Change:
    step.enter(ScheduleKind.PAUSE, data=_why(step))
    return step.change


def _resume(step: _Step) -> Change:
    """Go on; what came meanwhile is missed, as somebody wanted it so."""
    after = step.after
    step.enter(ScheduleKind.RESUME, data=_why(step))
    if after.next_slot is not None:
        passed = _due_slots(after, step.now)
        is_all = len(passed) <= WALK_MAX
        step.miss(passed[:WALK_MAX], "paused", is_all=is_all)
        if passed:
            step.look_ahead(passed[-1] if is_all else step.now)
    elif after.waiting_slot is None:
        step.go_to(None)
    return step.change


def _cancel(step: _Step) -> Change:
    step.enter(ScheduleKind.CANCEL, data=_why(step))
    step.after.next_slot = step.after.next_at = step.after.waiting_slot = None
    return step.change


def _retire(step: _Step) -> Change:
    step.enter(ScheduleKind.RETIRE)
    step.after.why, step.after.is_declared = "its task declares it no more", False
    step.after.next_slot = step.after.next_at = step.after.waiting_slot = None
    return step.change


def _trigger(step: _Step) -> Change | Refused:
    if not step.ids:
        return Refused("too_many")
    id = step.ids.pop(0)
    step.change.births.append(Birth(id, None, step.maker))
    step.enter(ScheduleKind.TRIGGER, execution_id=id, data=_why(step))
    return step.change


def _backfill(step: _Step) -> Change | Refused:
    """Make the executions of past slots; the slots that are still to be decided are left alone."""
    after, request = step.after, step.request
    until = min(request.until, step.now)
    if after.state is ScheduleState.ACTIVE and after.next_slot is not None:
        until = min(until, after.next_slot - 1)
    past: list[int] = []
    for slot in slots_after(after.plan, request.since - 1):
        if slot > until:
            break
        if slot != after.waiting_slot:
            past.append(slot)
        if len(past) > min(BACKFILL_MAX, len(step.ids)):
            return Refused("too_many")  # a part would be the same part again the next time
    for slot in past:
        step.fire(slot, ScheduleKind.BACKFILL)
    return step.change


def _why(step: _Step) -> dict[str, Any] | None:
    return {"why": step.request.why} if step.request.why else None


_BY_HAND: Final = {
    Wish.PAUSE: _pause,
    Wish.RESUME: _resume,
    Wish.CANCEL: _cancel,
    Wish.RETIRE: _retire,
    Wish.TRIGGER: _trigger,
    Wish.BACKFILL: _backfill,
}


# The clock


def _due_slots(record: ScheduleRecord, now: int) -> list[int]:
    """Give the slots whose instant has come, the oldest first; one more than is decided at once."""
    assert record.next_slot is not None
    found: list[int] = []
    for slot in islice(slots_after(record.plan, record.next_slot - 1), WALK_MAX + 1):
        if fires_at(record.name, record.plan, slot) > now:
            break
        found.append(slot)
    return found


def _advance(step: _Step, open_ids: list[str]) -> Change:
    """Decide about every slot whose instant has come."""
    after, now, plan = step.after, step.now, step.after.plan
    if after.state is not ScheduleState.ACTIVE:
        return step.change
    if after.waiting_slot is not None and not open_ids:
        if not step.ids:
            step.change.more = True
            return step.change
        waited, after.waiting_slot = after.waiting_slot, None
        open_ids = [step.fire(waited)]
        if after.next_slot is None:
            step.go_to(None)  # it was the last
    if after.next_slot is None or (after.next_at or 0) > now:
        return step.change
    due = _due_slots(after, now)
    late = list(takewhile(lambda slot: now - fires_at(after.name, plan, slot) > plan.grace_us, due))
    kept = {"skip": 0, "last": 1, "all": plan.misfire_max}[plan.misfire]
    if len(due) > WALK_MAX and len(late) == len(due):
        missed = late[: len(late) - kept - 1]
        step.miss(missed, "late")
        step.look_ahead(missed[-1])
        step.change.more = True
        return step.change
    missed = late[: max(0, len(late) - kept)]
    step.miss(missed, "late")
    left = due[len(missed) :]
    passed = missed[-1] if missed else after.next_slot - 1
    for place, slot in enumerate(left):
        if step.is_used_up():
            break
        if not step.ids:
            step.change.more = True
            break
        _decide_slot(step, slot, open_ids, is_overtaken=place + 1 < len(left))
        passed = slot
    step.change.more = step.change.more or len(due) > WALK_MAX
    step.look_ahead(passed)
    if not step.change.entries:  # the zone's rules have changed, and the slot is none any more
        step.enter(ScheduleKind.UPDATE, data={"why": "its next slot has moved"})
    return step.change


def _decide_slot(step: _Step, slot: int, open_ids: list[str], *, is_overtaken: bool) -> None:
    """Decide about one slot, by the overlap policy."""
    policy = step.after.plan.overlap
    if policy == "cancel_old" and is_overtaken:
        step.enter(ScheduleKind.SKIP, slot=slot, data={"why": "overtaken"})
        return
    if policy == "cancel_old" and open_ids:
        step.change.cancels += open_ids
        open_ids.clear()
    if policy == "allow" or not open_ids:
        open_ids.append(step.fire(slot))
    elif policy == "queue" and step.after.waiting_slot is None:
        step.after.waiting_slot = slot
        step.enter(ScheduleKind.QUEUE, slot=slot, execution_id=open_ids[0])
    else:
        data = {"why": "one waits already" if policy == "queue" else "overlap"}
        step.enter(ScheduleKind.SKIP, slot=slot, execution_id=open_ids[0], data=data)


__all__ = ["BACKFILL_MAX", "WALK_MAX", "Birth", "Change", "decide", "slot_key"]
