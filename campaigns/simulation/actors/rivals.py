"""Who comes late and matters more, and who has waited for longer than that is worth.

A queue with one place is paused while they come, each a minute or more after the one before; then
it is their turn, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Any, Final

from campaigns.simulation.actors.actor import Actor
from campaigns.simulation.tasks.small import apart
from outlast.engine.task.registry import StartOptions
from outlast.errors import OutlastError

if TYPE_CHECKING:
    from campaigns.simulation.world.market import Market
    from campaigns.simulation.world.node import SimEngine

SHARE: Final = 0.15
"""Of the worlds, those that have them."""
QUEUE: Final = "rivals"
AGAIN_US: Final = 50_000
MINUTE_US: Final = 60_000_000


class Rivals(Actor):
    """Has executions wait for each other in a queue of their own."""

    def __init__(self, market: Market, dice: Random) -> None:
        self._market = market
        if dice.random() >= SHARE:
            return
        at = int(market.horizon_us * 0.3 * dice.random())
        market.later(at, lambda: self._ask(lambda engine: engine.queues.alimit(QUEUE, 1)))
        market.later(at, lambda: self._ask(lambda engine: engine.queues.apause(QUEUE)))
        priority = 0
        for number in range(3):
            market.later(at, self._starts(number, priority))
            priority += int(dice.random() * 4)
            at += 1_000 + int(3 * MINUTE_US * dice.random())
        at = max(at, market.horizon_us) + 1_000  # a failover after it would take it back
        market.later(at, lambda: self._ask(lambda engine: engine.queues.aresume(QUEUE)))

    def _starts(self, number: int, priority: int) -> Callable[[], None]:
        options = StartOptions(key=f"rival-{number}", queue=QUEUE, priority=priority)
        seed = (3 * number,)
        return lambda: self._ask(lambda engine: engine.astart_with(options, apart, seed, {}))

    def _ask(self, make: Callable[[SimEngine], Coroutine[Any, Any, Any]]) -> None:
        """Ask some worker, until it is heard."""
        market = self._market

        def again() -> None:
            market.later(AGAIN_US, lambda: self._ask(make))

        def heard(_: Any, error: BaseException | None) -> None:
            if isinstance(error, OutlastError):
                again()
            elif error is not None:
                raise error

        market.ask(make, heard, again)
