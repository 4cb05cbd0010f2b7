"""Schedules: what must be so of every slot, whoever fires it and dies over it.

A checker reads each schedule's log as it grows and compares it with the plan's own row of slots and
with the executions that there are: it has a table of its own, and asks the store for nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from outlast.lifecycle import MessageKind
from outlast.naming import SCHEDULE_ORIGIN
from outlast.schedule import (
    Entry,
    ScheduleKind,
    ScheduleRecord,
    ScheduleState,
    slot_key,
    slots_after,
)
from outlast.schedule.slots import fires_at

if TYPE_CHECKING:
    from campaigns.simulation.rules.auditor import Auditor


RULE: Final = "slots"
K, S = ScheduleKind, ScheduleState

_TABLE: Final[dict[ScheduleKind, tuple[frozenset[ScheduleState | None], ScheduleState | None]]] = {
    K.CREATE: (frozenset({None, S.EXHAUSTED, S.CANCELLED}), S.ACTIVE),
    K.UPDATE: (frozenset({S.ACTIVE, S.PAUSED, S.EXHAUSTED}), None),
    K.FIRE: (frozenset({S.ACTIVE}), None),
    K.QUEUE: (frozenset({S.ACTIVE}), None),
    K.SKIP: (frozenset({S.ACTIVE}), None),
    K.MISS: (frozenset({S.ACTIVE}), None),
    K.TRIGGER: (frozenset({S.ACTIVE, S.PAUSED, S.EXHAUSTED}), None),
    K.BACKFILL: (frozenset({S.ACTIVE, S.PAUSED, S.EXHAUSTED}), None),
    K.PAUSE: (frozenset({S.ACTIVE}), S.PAUSED),
    K.RESUME: (frozenset({S.PAUSED}), S.ACTIVE),
    K.EXHAUST: (frozenset({S.ACTIVE}), S.EXHAUSTED),
    K.CANCEL: (frozenset({S.ACTIVE, S.PAUSED, S.EXHAUSTED}), S.CANCELLED),
}
_DECIDES: Final = frozenset({K.FIRE, K.QUEUE, K.SKIP, K.MISS})


# What must be so


@dataclass
class _Known:
    """What is known of one schedule, from its log and nothing else."""

    record: ScheduleRecord | None = None
    state: ScheduleState | None = None
    count: int = 0
    fired: int = 0
    waiting: int | None = None
    decided: set[int] = field(default_factory=set)
    made: dict[int, str] = field(default_factory=dict)


class SlotBook:
    """Applies the rule for :class:`~campaigns.simulation.invariants.Auditor`.

    Attributes:
        news: what has happened to schedules, for whoever writes the trace.
    """

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor
        self._known: dict[str, _Known] = {}
        self.news: list[str] = []

    def open_ones(self) -> dict[str, list[str]]:
        """Name the executions of each schedule that have not ended."""
        found: dict[str, list[str]] = {}
        for id, seen in self._auditor.seen.items():
            origin = seen.record.origin
            if origin is not None and not seen.record.is_final:
                found.setdefault(origin.removeprefix(SCHEDULE_ORIGIN), []).append(id)
        return found

    def applied(self, open_before: dict[str, list[str]]) -> None:
        """See what a write has done to schedules.

        Args:
            open_before: what :meth:`open_ones` gave before it.
        """
        for record in self._auditor.reader.schedules.page():
            known = self._known.setdefault(record.name, _Known())
            if known.record == record:
                continue
            fresh = record.seq - known.count
            newest = self._auditor.reader.schedules.log(record.name, None, fresh) if fresh else []
            change = _Change(self._auditor, known, record, newest[::-1])
            self.news += [f"{record.name} {one.seq} {one.kind} {one.slot}" for one in newest[::-1]]
            change.check(open_before.get(record.name, []))
            known.record = record

    def at_rest(self, now: int) -> list[ScheduleRecord]:
        """See that every open schedule has something to wait for; gives them."""
        records: list[ScheduleRecord] = self._auditor.reader.schedules.page((S.ACTIVE, S.PAUSED))
        open_now = self.open_ones()
        for record in records:
            waits = record.waiting_slot is not None and bool(open_now.get(record.name))
            is_ahead = record.next_at is not None and record.next_at > now
            holds = record.state is S.PAUSED or waits or is_ahead
            self._auditor.check(RULE, holds, record.name, "stands still", record)
        return records

    def at_end(self) -> None:
        """See that each slot that was fired has one execution, and each execution its slot."""
        made: dict[str, Counter[int]] = {}
        for seen in self._auditor.seen.values():
            data = seen.rows[0].data or {}
            if seen.record.origin is not None and data.get("slot") is not None:
                name = seen.record.origin.removeprefix(SCHEDULE_ORIGIN)
                made.setdefault(name, Counter())[int(str(data["slot"]))] += 1
        for name, known in self._known.items():
            mine = made.get(name, Counter())
            self._auditor.check(RULE, mine == Counter(list(known.made)), name, mine, known.made)
            self._auditor.counts["schedules"] += 1


class _Change:
    """One write to one schedule."""

    def __init__(
        self, auditor: Auditor, known: _Known, record: ScheduleRecord, entries: list[Entry]
    ) -> None:
        self._auditor = auditor
        self._known, self._record, self._entries = known, record, entries
        self._decided: list[int] = []
        self._late_kept: list[int] = []
        self._open: list[str] = []

    def _check(self, holds: bool, *said: object) -> None:
        self._auditor.check(RULE, holds, self._record.name, *said)

    def check(self, open_before: list[str]) -> None:
        """Check each entry, and then that no slot was passed over."""
        known, before = self._known, self._known.record
        self._open = list(open_before)
        for entry in self._entries:
            known.count += 1
            self._check(entry.seq == known.count, entry.seq, "after", known.count - 1)
            sources, target = _TABLE[entry.kind]
            self._check(known.state in sources, entry.kind, "in", known.state)
            self._auditor.counts[f"slots_{entry.kind}"] += 1
            judge = _JUDGES.get(entry.kind)
            if judge is not None:
                judge(self, entry)
            if target is not None:
                known.state = target
            elif entry.kind is K.UPDATE and known.state is S.EXHAUSTED:
                known.state = S.ACTIVE  # it has slots again
        self._check(known.state is self._record.state, known.state, self._record.state)
        self._check(known.waiting == self._record.waiting_slot, "waits", known.waiting)
        self._check(known.fired == self._record.fired, known.fired, self._record.fired)
        kinds = {entry.kind for entry in self._entries}
        if before is not None and not kinds & {K.CREATE, K.UPDATE}:
            self._check_order(before)
        most = self._record.plan.misfire_max if self._record.plan.misfire == "all" else 1
        self._check(len(self._late_kept) <= most, "fired late", self._late_kept)

    def _check_order(self, before: ScheduleRecord) -> None:
        """The slots decided are the next ones of the plan, and the one after them is next."""
        if before.next_slot is None:
            self._check(not self._decided, "decided about", self._decided)
            return
        expected = list(
            islice(slots_after(before.plan, before.next_slot - 1), len(self._decided) + 1)
        )
        count = len(self._decided)
        self._check(self._decided == expected[:count], self._decided, "of", expected)
        if self._record.next_slot is not None:
            kinds = [(str(entry.kind), entry.slot) for entry in self._entries]
            next_slot = self._record.next_slot
            self._check(expected[count:] == [next_slot], "next is", next_slot, expected, kinds)

    # Entries

    def _decide(self, entry: Entry, slots: Iterable[int]) -> None:
        for slot in slots:
            self._check(slot not in self._known.decided, "slot", slot, "was decided twice")
            self._known.decided.add(slot)
            self._decided.append(slot)

    def _is_late(self, slot: int, entry: Entry) -> bool:
        plan = self._record.plan
        return entry.at - fires_at(self._record.name, plan, slot) > plan.grace_us

    def _goes(self, entry: Entry) -> None:
        """A slot is fired, or is to be: it has come, and is not later than its policy allows."""
        slot, plan = entry.slot, self._record.plan
        assert slot is not None
        due = fires_at(self._record.name, plan, slot)
        self._check(due <= entry.at, entry.kind, slot, "before", due)
        if self._is_late(slot, entry):
            self._check(plan.misfire != "skip", slot, "is later than it may be")
            self._late_kept.append(slot)
        self._decide(entry, [slot])

    def fired(self, entry: Entry) -> None:
        """A slot has made its execution."""
        known, slot, plan = self._known, entry.slot, self._record.plan
        assert slot is not None and entry.execution_id is not None
        if known.waiting == slot:
            known.waiting = None
            self._check(not self._open, slot, "has waited for", self._open, "which is open")
        else:
            self._goes(entry)
        if plan.overlap in ("skip", "queue"):
            self._check(not self._open, slot, "was fired beside", self._open)
        elif plan.overlap == "cancel_old":
            for id in self._open:
                seen = self._auditor.seen[id]
                told = any(one.message.kind is MessageKind.CANCEL for one in seen.inbox)
                self._check(told or seen.record.is_final, slot, "has not cancelled", id)
        known.fired += 1
        most = plan.count_max
        self._check(most is None or known.fired <= most, known.fired, "were fired of", most)
        self._made(entry, slot)
        if not self._auditor.seen[entry.execution_id].record.is_final:
            self._open.append(entry.execution_id)

    def _made(self, entry: Entry, slot: int) -> None:
        id, known = str(entry.execution_id), self._known
        seen = self._auditor.seen.get(id)
        self._check(seen is not None, entry.kind, slot, "made", id, "which is not there")
        assert seen is not None
        birth = seen.rows[0].data or {}
        key = slot_key(self._record.name, slot)
        self._check(
            (birth.get("slot"), seen.record.key) == (slot, key), id, birth.get("slot"), slot
        )
        there = bool((entry.data or {}).get("was_there"))
        self._check(there == (slot in known.made), slot, "made", id, "and", known.made.get(slot))
        known.made[slot] = id

    def queued(self, entry: Entry) -> None:
        """A slot waits for the execution that is open."""
        self._check(self._record.plan.overlap == "queue", entry)
        self._check(self._known.waiting is None and bool(self._open), entry, self._open)
        self._goes(entry)
        self._known.waiting = entry.slot

    def skipped(self, entry: Entry) -> None:
        """A slot was left out, as an execution was open."""
        assert entry.slot is not None
        why = (entry.data or {}).get("why")
        overtaken = why == "overtaken" and any(
            one.kind is K.FIRE and (one.slot or 0) > entry.slot for one in self._entries
        )
        self._check(self._record.plan.overlap != "allow", entry)
        self._check(bool(self._open) or overtaken, entry, "and nothing was open")
        self._decide(entry, [entry.slot])

    def missed(self, entry: Entry) -> None:
        """Slots were left out, as they were too late, or somebody held the schedule."""
        data: Any = entry.data or {}
        assert entry.slot is not None
        slots = list(islice(slots_after(self._record.plan, entry.slot - 1), data["slots"]))
        self._check(slots[-1] == (entry.until_slot or entry.slot), entry, slots)
        if data["why"] == "paused":
            resumed = any(one.kind is K.RESUME for one in self._entries)
            self._check(resumed, entry, "and nobody has resumed it")
        else:
            late = all(self._is_late(slot, entry) for slot in slots)
            self._check(late, entry, "were not late")
        self._decide(entry, slots)

    def backfilled(self, entry: Entry) -> None:
        """Somebody made the execution of a past slot."""
        assert entry.slot is not None
        self._check(entry.slot <= entry.at, entry, "lies ahead")
        self._made(entry, entry.slot)

    def triggered(self, entry: Entry) -> None:
        """Somebody made an execution at once."""
        seen = self._auditor.seen.get(str(entry.execution_id))
        self._check(seen is not None and "slot" not in (seen.rows[0].data or {}), entry)

    def created(self, entry: Entry) -> None:
        """It was made, or made anew."""
        self._known.fired, self._known.waiting = 0, None
        self._known.decided.clear()  # made anew it decides anew; what it fires is there once

    def ended(self, entry: Entry) -> None:
        """Nothing is fired any more."""
        self._known.waiting = None


_JUDGES: Final[dict[ScheduleKind, Callable[[_Change, Entry], None]]] = {
    K.CREATE: _Change.created,
    K.FIRE: _Change.fired,
    K.QUEUE: _Change.queued,
    K.SKIP: _Change.skipped,
    K.MISS: _Change.missed,
    K.BACKFILL: _Change.backfilled,
    K.TRIGGER: _Change.triggered,
    K.CANCEL: _Change.ended,
}
