"""Entries of a schedule's log told to people: what became of a slot, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from outlast.duration import in_words
from outlast.schedule import Entry, ScheduleKind, ScheduleRecord, ScheduleState, slots_after
from outlast.schedule.plan import wall

_BY_HAND: Final = {
    ScheduleKind.PAUSE: "paused",
    ScheduleKind.RESUME: "resumed",
    ScheduleKind.CANCEL: "cancelled",
    ScheduleKind.CREATE: "made",
    ScheduleKind.UPDATE: "planned anew",
}
_EXACT: Final = (ScheduleKind.FIRE, ScheduleKind.BACKFILL, ScheduleKind.SKIP, ScheduleKind.QUEUE)


def sentence(entry: Entry, tz: str) -> str:
    """Tell an entry, without its place and time."""
    data: dict[str, Any] = dict(entry.data or {})
    kind, why = entry.kind, data.get("why")
    slot = "" if entry.slot is None else _shown(entry.slot, tz)
    if kind is ScheduleKind.FIRE:
        late = entry.at - (entry.slot or entry.at)
        said = f", {in_words(late)} late" if late >= 1_000_000 else ""
        there = ", which was there already" if data.get("was_there") else ""
        return f"slot {slot} fired{said}: {entry.execution_id}{there}"
    if kind is ScheduleKind.SKIP:
        if why == "overtaken":
            return f"slot {slot} skipped: a newer slot had come as well"
        more = ", and a slot waits for it already" if why == "one waits already" else ""
        return f"slot {slot} skipped: {entry.execution_id} was open{more}"
    if kind is ScheduleKind.QUEUE:
        return f"slot {slot} waits for {entry.execution_id} to end"
    if kind is ScheduleKind.MISS:
        return _missed(entry, data, slot, tz)
    if kind is ScheduleKind.TRIGGER:
        return f"triggered by {entry.actor}: {entry.execution_id}" + (f", {why}" if why else "")
    if kind is ScheduleKind.BACKFILL:
        return f"slot {slot} backfilled by {entry.actor}: {entry.execution_id}"
    if kind is ScheduleKind.EXHAUST:
        return "exhausted: there is no further slot"
    if kind is ScheduleKind.RETIRE:
        return "retired: its task declares it no more"
    by = "" if entry.actor == "code" else f" by {entry.actor}"
    return f"{_BY_HAND[kind]}{by}" + (f": {why}" if why else "")


def _missed(entry: Entry, data: dict[str, Any], slot: str, tz: str) -> str:
    reason = "it was paused" if data.get("why") == "paused" else "no engine ran in time"
    if entry.until_slot is None:
        return f"slot {slot} missed: {reason}"
    more = "" if data.get("is_all", True) else " and more"
    return (
        f"{data.get('slots')} slots{more}, {slot} to {_shown(entry.until_slot, tz)}, "
        f"missed: {reason}"
    )


def fate_of(record: ScheduleRecord, entries: Sequence[Entry], slot: int, now: int) -> str:
    """Say what became of the slot at an instant, or why there is none.

    Args:
        record: the schedule.
        entries: those of its log that are about the slot, the newest first.
        slot: the instant.
        now: the time.
    """
    tz = record.plan.tz
    chosen = _chosen(entries)
    if chosen is not None and _is_slot(record, slot, chosen):
        return sentence(chosen, tz)
    if not _is_slot(record, slot, None):
        following = next(slots_after(record.plan, slot), None)
        then = "" if following is None else f"; the next after it is {_shown(following, tz)}"
        return f"{_shown(slot, tz)} is no slot of {record.plan.in_words()}{then}"
    if slot < record.created_at:
        return f"the schedule was made later, at {_shown(record.created_at, tz)}"
    if record.state is ScheduleState.PAUSED and (record.next_slot or slot) <= slot:
        return f"it is paused since {_shown(record.state_at, tz)}" + _said(record.why)
    if record.has_ended:
        return f"it is {record.state} since {_shown(record.state_at, tz)}" + _said(record.why)
    if slot > now:
        return f"its time has not come: {in_words(slot - now)} left"
    if record.next_slot is not None and record.next_slot <= slot:
        if record.next_at is not None and record.next_at > now:
            return f"it is due at {_shown(record.next_at, tz)}, by its jitter"
        return "it is due, and no engine has fired it: outlast worker FILE"
    return "nothing is known of it: it was planned otherwise then, or its log was pruned"


def _chosen(entries: Sequence[Entry]) -> Entry | None:
    """Prefer what is about this very slot, and what made an execution."""
    for kind in (ScheduleKind.FIRE, ScheduleKind.BACKFILL, *_EXACT):
        for entry in entries:
            if entry.kind is kind:
                return entry
    return entries[0] if entries else None


def _is_slot(record: ScheduleRecord, slot: int, entry: Entry | None) -> bool:
    if entry is not None and entry.until_slot is None:
        return True
    return next(slots_after(record.plan, slot - 1), None) == slot


def _shown(at: int, tz: str) -> str:
    return f"{wall(at, tz):%Y-%m-%d %H:%M:%S%z}"


def _said(why: str | None) -> str:
    return f": {why}" if why else ""


__all__ = ["fate_of", "sentence"]
