"""What kind of world a seed is: drawn before anything happens in it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from campaigns.simulation.actors.orders import Order, draw_order
from campaigns.simulation.actors.planner import Plan as Schedules
from campaigns.simulation.actors.planner import draw_plans
from campaigns.simulation.world.disk import WEATHERS, Weather
from campaigns.simulation.world.fleet import LEASES_US

SQLITE_SHARE: Final = 0.04
SHARED_SHARE: Final = 0.75
"""Of the worlds on a store in memory, those with several workers."""
LEASED_SHARE: Final = 0.5
"""Of the worlds with several workers, those in which leases say who is dead."""
_HORIZONS_US: Final = (300_000, 2_000_000, 10_000_000, 60_000_000)
_SLOTS: Final = (1, 2, 4_000, 4_000)
_KEPT_US: Final = (*[None] * 7, 0, 0, 300_000, 20_000_000)
_WARM_COPIES: Final = (0, 2, 1_000)


@dataclass(frozen=True)
class Plan:
    """A world as it is to be.

    Attributes:
        is_on_disk: whether its store is SQLite, which one process owns.
        is_shared: whether several workers use it.
        lease_us: how long leases last; None: a failure detector says who is dead.
        places: how many workers there are.
        slots: how many executions each holds at once.
        skews: how far the clock of each is ahead.
        horizon_us: for how long faults come.
        orders, schedules: who wants what.
        warm_copies: how many parked executions each keeps in memory.
        kept_us: how long executions are kept after their end; None: for ever.
    """

    is_on_disk: bool
    is_shared: bool
    lease_us: int | None
    weather: Weather
    places: int
    slots: int
    skews: tuple[int, ...]
    horizon_us: int
    orders: tuple[Order, ...]
    schedules: tuple[Schedules, ...]
    warm_copies: int
    kept_us: int | None

    @property
    def kind(self) -> str:
        """Say what kind of world it is."""
        shared = "leased" if self.lease_us is not None else "shared"
        where = "sqlite" if self.is_on_disk else shared if self.is_shared else "owned"
        return f"{where}, {self.places} workers, {self.weather.name}"


def draw_plan(seed: int) -> Plan:
    """Draw the world of a seed."""
    dice, lease = Random(f"{seed}/plan"), Random(f"{seed}/lease")
    is_on_disk = dice.random() < SQLITE_SHARE
    is_shared = not is_on_disk and dice.random() < SHARED_SHARE
    weather = WEATHERS[int(dice.random() * len(WEATHERS))]
    places = 1 + int(dice.random() * 3) if is_shared else 1
    if is_shared and weather.slander:
        places = max(2, places)  # somebody must be there to take over
    slots = _SLOTS[int(dice.random() * len(_SLOTS))]
    skews = [int(3_000_000 * (dice.random() - 0.5)) if dice.random() < 0.2 else 0 for _ in range(3)]
    horizon_us = _HORIZONS_US[int(dice.random() * len(_HORIZONS_US))]
    orders = [
        draw_order(number, dice, horizon_us)
        for number in range(1 + int(dice.random() * (3 if is_on_disk else 5)))
    ]
    lease_us = None
    if is_shared and lease.random() < LEASED_SHARE:
        fitting = [span for span in LEASES_US if 2 * span <= horizon_us <= 60 * span]
        lease_us = fitting[int(lease.random() * len(fitting))]
    return Plan(
        is_on_disk,
        is_shared,
        lease_us,
        weather,
        places,
        slots,
        tuple(skews),
        horizon_us,
        tuple(orders),
        tuple(draw_plans(Random(f"{seed}/slots"), horizon_us)),
        Random(f"{seed}/warm").choice(_WARM_COPIES),
        Random(f"{seed}/kept").choice(_KEPT_US),
    )
