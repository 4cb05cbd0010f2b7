"""Who plans schedules, and does to them what people do."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, Final

from campaigns.simulation.tasks.small import little
from outlast.errors import OutlastError, ScheduleRefused
from outlast.schedule import (
    Schedule,
)

if TYPE_CHECKING:
    from campaigns.simulation.world.market import Market
    from campaigns.simulation.world.node import SimEngine

SHARE: Final = 0.22
"""Of the worlds, those that have schedules."""
AGAIN_US: Final = 60_000
_OPS: Final = ("pause", "resume", "trigger", "backfill", "update", "cancel")
_BEGAN: Final = datetime(2026, 1, 1, tzinfo=UTC)


# Who plans


@dataclass(frozen=True)
class Plan:
    """A schedule that somebody wants.

    Attributes:
        ops: what is done to it, and when.
    """

    name: str
    seed: int
    at_us: int
    given: dict[str, Any]
    ops: tuple[tuple[int, str], ...]


def draw_plans(dice: Random, horizon_us: int) -> list[Plan]:
    """Draw the schedules of a world."""
    if dice.random() >= SHARE:
        return []
    return [_draw_plan(number, dice, horizon_us) for number in range(1 + int(dice.random() * 2))]


def _draw_plan(number: int, dice: Random, horizon_us: int) -> Plan:
    def one_of(*values: Any) -> Any:
        return values[int(dice.random() * len(values))]

    given: dict[str, Any] = {
        "overlap": one_of("skip", "queue", "cancel_old", "allow"),
        "misfire": one_of("skip", "last", "all"),
        "grace": one_of("0s", "500ms", "2s", "30s"),
        "jitter": one_of("0s", "0s", "700ms"),
        "end": _BEGAN + timedelta(microseconds=horizon_us, seconds=4),
    }
    sort = dice.random()
    if sort < 0.6:
        given |= {"every": one_of("1s", "1s", "2s", "7s"), "count": 1 + int(dice.random() * 5)}
        if dice.random() < 0.3:
            given["start"] = _BEGAN + timedelta(seconds=3 * dice.random() - 2)
    elif sort < 0.8:
        given |= {
            "cron": one_of("* * * * * *", "*/2 * * * * *"),
            "count": 1 + int(4 * dice.random()),
        }
    else:
        given["at"] = _BEGAN + timedelta(microseconds=int(horizon_us * (1.4 * dice.random() - 0.2)))
    ops = [
        (int(horizon_us * dice.random()), _OPS[int(len(_OPS) * dice.random() ** 1.3)])
        for _ in range(int(dice.random() * 4))
    ]
    at_us = int(horizon_us * 0.4 * dice.random() ** 2)
    return Plan(f"s{number}", int(dice.random() * 1_000), at_us, given, tuple(ops))


class Planner:
    """Makes one schedule, and does to it what people do."""

    def __init__(self, market: Market, plan: Plan) -> None:
        self._market, self._plan = market, plan
        market.later(plan.at_us, self._create)
        for at_us, op in plan.ops:
            market.later(plan.at_us + at_us, lambda op=op: self.do(op))  # type: ignore[misc]

    def _create(self) -> None:
        plan = self._plan

        async def make(engine: SimEngine) -> Any:
            return await engine.schedules.acreate(
                plan.name, little, Schedule(**plan.given), plan.seed
            )

        self._ask(make, lambda: self._market.later(AGAIN_US, self._create))

    def do(self, op: str) -> None:
        """Pause it, resume it, and so on; what was not heard of is not asked again."""
        plan, name = self._plan, self._plan.name

        async def make(engine: SimEngine) -> Any:
            schedules = engine.schedules
            if op == "trigger":
                return (await schedules.atrigger(name)).id
            if op == "backfill":
                until = _BEGAN + timedelta(microseconds=engine.process.clockwork.now_us)
                made = await schedules.abackfill(name, until - timedelta(seconds=4), until)
                return [one.id for one in made]
            if op == "update":
                other = Schedule(**{**plan.given, "overlap": "allow", "misfire": "skip"})
                return await schedules.aupdate(name, little, other, plan.seed)
            return await getattr(schedules, f"a{op}")(name)

        self._market.count(f"schedule_{op}s")
        self._ask(make, lambda: None)

    def _ask(
        self, make: Callable[[SimEngine], Coroutine[Any, Any, Any]], again: Callable[[], None]
    ) -> None:
        def heard(made: Any, error: BaseException | None) -> None:
            if error is not None and not isinstance(error, OutlastError):
                raise error
            if error is None:
                ids = [made] if isinstance(made, str) else made if isinstance(made, list) else []
                for id in ids:
                    is_there = id in self._market.auditor.seen
                    self._market.auditor.check("INV-9 acknowledged", is_there, id)
            elif not isinstance(error, ScheduleRefused):
                again()

        self._market.ask(make, heard, again)
