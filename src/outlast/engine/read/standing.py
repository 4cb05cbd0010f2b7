"""Where an execution stands that waits for a worker: whose turn it is, who holds what it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from outlast.lifecycle import Execution, Reason, State, reason_of
from outlast.store.protocol import Standing, Store

NAMED_MAX: Final = 5
"""Holders that are named."""
_FAMILY_MAX: Final = 100
"""How far up its family is looked at."""


def standing(store: Store, record: Execution, owner: str | None) -> Reason | None:
    """Say what of the capacity an execution waits for; None where it waits for something else.

    ``owner`` is the process that runs the engine of this store, or None.
    """
    reason = reason_of(record)
    if record.state not in (State.QUEUED, State.BLOCKED) or reason is None:
        return None
    found = store.capacity.standing(record.id)
    if found is None:
        return None
    if found.gate is None:
        return _in_queue(record, reason, found)
    if record.cancel_at is not None:
        return reason
    return _at_gate(store, record, reason, found, owner)


def _in_queue(record: Execution, reason: Reason, found: Standing) -> Reason | None:
    queue, setting = record.queue, found.queue
    place = f"; it is number {found.place} there"
    if setting.paused_at is not None:
        why = f": {setting.why}" if setting.why else ""
        text = f"{setting.paused_by} paused the queue {queue}{why}{place}"
        do = f"outlast queue resume {queue}"
        return Reason("queue_paused", text, reason.since, None, do)
    if setting.capacity is not None and len(found.holders) >= setting.capacity:
        held = _named(found.holders)
        text = f"the queue {queue} runs {setting.capacity} at a time, now{held}{place}"
        return Reason("queue_full", text, reason.since, None, f"outlast queue limit {queue} …")
    return None


def _at_gate(
    store: Store, record: Execution, reason: Reason, found: Standing, owner: str | None
) -> Reason:
    text, hint = reason.text, reason.hint
    if found.capacity is not None:
        inside = f"now{_named(found.holders)}" if found.holders else "and nobody is inside now"
        text = f"the limit {found.gate} lets {found.capacity} in at a time, {inside}"
        hint = f"outlast limit set {found.gate} …"
    text += f"; it is number {found.place} in line"
    ancestor = _ancestor_in(store, record, found.holders)
    if ancestor is not None:
        text = (
            f"{ancestor}, which made it and may wait for it, holds the limit {found.gate} that it "
            f"needs itself: with {found.capacity} in at a time neither can go on"
        )
        hint = f"outlast cancel {record.id}, or outlast limit set {found.gate} …"
        return Reason("limit_deadlock", text, reason.since, None, hint)
    if found.queue.paused_at is not None:
        text += f"; its queue {record.queue} is paused, too"
    if owner is None:
        text += "; no engine runs on this store"
    until = (record.detail or {}).get("until")
    return Reason(reason.code, text, reason.since, until if isinstance(until, int) else None, hint)


def _ancestor_in(store: Store, record: Execution, holders: Sequence[str]) -> str | None:
    """Find a holder that made this execution, at however many removes."""
    parent = record.parent_id
    for _ in range(_FAMILY_MAX):
        if parent is None or parent in holders:
            return parent
        (found,) = store.get([parent])
        parent = None if found is None else found.parent_id
    return None


def _named(holders: Sequence[str]) -> str:
    more = len(holders) - NAMED_MAX
    return " " + ", ".join(holders[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


__all__ = ["standing"]
