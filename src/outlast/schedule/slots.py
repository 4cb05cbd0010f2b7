"""The slots of a plan, and when each is fired."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from outlast.schedule.cron import cron_slots
from outlast.schedule.plan import LAST_US, Plan, zone_of


def slots_after(plan: Plan, after: int) -> Iterator[int]:
    """Give the slots of a plan after an instant, strictly increasing, in microseconds.

    Those before its start and after its end are left out; its maximum count is not looked at.
    """
    if plan.start_at is not None:
        after = max(after, plan.start_at - 1)
    last = LAST_US if plan.end_at is None else min(plan.end_at, LAST_US)
    return takewhile(lambda slot: slot <= last, _all_after(plan, max(after, -1)))


def _all_after(plan: Plan, after: int) -> Iterator[int]:
    if plan.at is not None:
        if plan.at > after:
            yield plan.at
    elif plan.every_us is not None:
        anchor = plan.anchor_at or 0
        slot = anchor + max(0, (after - anchor) // plan.every_us + 1) * plan.every_us
        while True:
            yield slot
            slot += plan.every_us
    elif plan.cron is not None and after < LAST_US:
        for second in cron_slots(plan.cron, zone_of(plan.tz), after // 1_000_000):
            yield second * 1_000_000


def next_slot(plan: Plan, after: int) -> int | None:
    """Give the first slot after an instant; None when there is none."""
    return next(slots_after(plan, after), None)


def fires_at(name: str, plan: Plan, slot: int) -> int:
    """Say when a slot is fired: at the slot, or as much later as its jitter says.

    The jitter of a slot is a number made of the schedule's name and the slot: every scheduler and
    every attempt comes to the same instant.
    """
    if not plan.jitter_us:
        return slot
    from hashlib import blake2b  # dear to import, and few have a jitter

    drawn = blake2b(f"{name}\0{slot}".encode(errors="surrogatepass"), digest_size=8).digest()
    return slot + int.from_bytes(drawn, "big") % (plan.jitter_us + 1)


__all__ = ["fires_at", "next_slot", "slots_after"]
