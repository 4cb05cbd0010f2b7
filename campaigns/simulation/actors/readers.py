"""Who follows what happens to all executions: now and then, from where the last look has ended."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random
from typing import TYPE_CHECKING, Any, Final

from campaigns.simulation.actors.actor import Actor
from outlast.errors import FeedGap, OutlastError
from outlast.lifecycle import Transition

if TYPE_CHECKING:
    from campaigns.simulation.world.market import Market
    from campaigns.simulation.world.node import SimEngine

SHARE: Final = 0.25
"""Of the worlds, those in which somebody follows."""
TIMES: Final = 4
LOOK_SECONDS: Final = 0.2
"""How long one look takes."""
LAST_SECONDS: Final = 1.5


class Readers(Actor):
    """Asks a worker for what came behind a cursor, and takes nothing that it has not heard."""

    def __init__(self, market: Market, dice: Random) -> None:
        self._market = market
        self._cursor: str | None = None
        self._busy = False
        self.is_here = dice.random() < SHARE
        if self.is_here:
            for _ in range(TIMES):
                market.later(int(market.horizon_us * dice.random()), self._look)

    def finish(self) -> None:
        """Read all that is left, now that everything has ended."""
        if self.is_here:
            self._look(LAST_SECONDS)

    def _look(self, seconds: float = LOOK_SECONDS) -> None:
        market, after = self._market, self._cursor
        if self._busy:
            return
        self._busy = True

        async def make(engine: SimEngine) -> tuple[str, list[tuple[str, Transition | None]]]:
            events = engine.events(after=after)
            came: list[tuple[str, Transition | None]] = []
            if after is None:
                await events.aopen()
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        async for one in events:
                            came.append((one.execution_id, one.transition))  # noqa: PERF401 - it is cut short
            assert events.cursor is not None
            return events.cursor, came

        def heard(come: Any, error: BaseException | None) -> None:
            self._busy = False
            if error is None:
                self._cursor, came = come
                market.count("feed_looks")
                if after is None:
                    market.auditor.feed.begun()
                market.auditor.feed.told(came, market.now())
            elif isinstance(error, FeedGap):
                market.count("feed_gaps")
                market.auditor.feed.gap(market.now())
                self._cursor = None
                self._look()
            elif not isinstance(error, OutlastError):
                raise error

        def lost() -> None:
            self._busy = False

        market.ask(make, heard, lost)
