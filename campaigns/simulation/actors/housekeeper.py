"""Who has what ended long ago deleted, now and then, while others look, wait and go on."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Final

from campaigns.simulation.actors.actor import Actor
from outlast.errors import OutlastError

if TYPE_CHECKING:
    from campaigns.simulation.world.market import Market
    from campaigns.simulation.world.node import SimEngine

TIMES: Final = 6
HOUR_US: Final = 3_600_000_000


class Housekeeper(Actor):
    """Asks workers to delete what is due."""

    def __init__(self, market: Market, dice: Random) -> None:
        self._market = market
        if market.kept_us is None:
            return
        instants = [int(market.horizon_us * dice.random()) for _ in range(TIMES)]
        after = [market.horizon_us + int(30_000_000 * dice.random()), 50 * HOUR_US]
        for at in [*instants, *after]:
            market.later(at, self._ask)

    def _ask(self) -> None:
        market = self._market

        async def make(engine: SimEngine) -> int:
            now = engine.clock.now()
            await engine.prune()
            return now

        def heard(at: Any, error: BaseException | None) -> None:
            if error is None:
                market.count("prunings")
                market.auditor.purges.pruned(at)
            elif not isinstance(error, OutlastError):
                raise error

        market.ask(make, heard, lambda: None)
