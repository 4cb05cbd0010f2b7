"""Who starts many executions at once: by an engine, or as a process beside them."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Final

from campaigns.simulation.actors.actor import Actor
from campaigns.simulation.tasks import pinned
from campaigns.simulation.tasks.small import apart
from campaigns.simulation.world.chance import SimIds
from outlast.codec import digest
from outlast.engine.task.registry import PLAIN
from outlast.engine.write.request import birth_of_many
from outlast.errors import OutlastError
from outlast.store.protocol import CreateMany

if TYPE_CHECKING:
    from campaigns.simulation.world.market import Market
    from campaigns.simulation.world.node import SimEngine

SHARE: Final = 0.2
"""Of the worlds, those in which somebody starts many at once."""
_BESIDE: Final = 0.3
_PINNED: Final = 0.3
_IDS: Final = 1_000
"""A number that no process has."""


class Crowds(Actor):
    """Starts many executions that differ by their inputs alone; what was not heard of stays so."""

    def __init__(self, market: Market, dice: Random) -> None:
        self._market, self._dice = market, dice
        self._ids = SimIds(_IDS)
        if dice.random() < SHARE:
            for _ in range(1 + int(dice.random() * 2)):
                market.later(int(market.horizon_us * 0.7 * dice.random() ** 2), self._begin)

    def _begin(self) -> None:
        dice = self._dice
        first, count = int(dice.random() * 1_000_000), 2 + int(24 * dice.random() ** 2)
        seeds = [first + 7 * number for number in range(count)]
        self._market.count("crowds")
        if dice.random() < _BESIDE:
            self._as_guest(seeds)
        else:
            self._ask(seeds)

    def _as_guest(self, seeds: list[int]) -> None:
        market, now = self._market, self._market.now()
        birth = birth_of_many(apart, PLAIN)
        assert birth is not None
        inputs = _inputs(seeds)
        ids = self._ids.make_many(now, len(seeds))
        (answer,) = market.write(CreateMany(birth, now, ids, inputs, list(map(digest, inputs))))
        assert answer.refused is None, answer
        market.auditor.batches.started(ids, inputs)

    def _ask(self, seeds: list[int]) -> None:
        market, is_pinned = self._market, self._dice.random() < _PINNED

        async def make(engine: SimEngine) -> list[str]:
            task = engine.tasks[pinned.NAME] if is_pinned else apart
            return [one.id for one in await engine.astart_many(task, [(one,) for one in seeds])]

        def heard(ids: Any, error: BaseException | None) -> None:
            if error is None:
                market.count("crowds_acknowledged")
                market.note("started", len(ids), "from", ids[0])
                market.auditor.batches.started(ids, _inputs(seeds))
                assert market.answering is not None
                for id in ids:
                    market.auditor.failovers.started(market.answering, id)
            elif isinstance(error, OutlastError):
                lost()
            else:
                raise error

        def lost() -> None:
            market.count("crowds_unknown")

        market.ask(make, heard, lost)


def _inputs(seeds: list[int]) -> list[bytes]:
    return [apart.input.bind((seed,), {}, bytes_max=1_000) for seed in seeds]
