"""Leases in simulated worlds: the membership of production, on threads that the dice move.

Each process renews on a thread of its own, that is: whenever the dice let it. The store's clock is
the true time, that of the watchdog as well; the clocks on the wall are wrong. Nothing beats for
ever, or no world would come to rest: when the weather has cleared, leases are longer than a life.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, Final

from campaigns.simulation.world.clockwork import Process
from campaigns.simulation.world.disk import Frozen
from outlast.engine.cluster.fleet import TOPICS, Fleet
from outlast.engine.cluster.membership import Membership

LONG_US: Final = 10**15
LEASES_US: Final = (150_000, 400_000, 1_500_000, 6_000_000)
HINTS_LOST: Final = 0.4
AGAIN_SECONDS: Final = 0.05


class SimMembership(Membership):
    """The lease of a simulated process, whose thread is simulated."""

    process: Process
    is_calm = False

    def now(self) -> float:
        """Give the true time: no process can turn that back."""
        return self.process.clockwork.now_us / 1e6

    def start(self) -> None:
        """Begin to renew."""
        self._lane = self.process.new_thread("lease")
        self._lane.works.add(0, self._step)

    def joined(self, name: str, lease_us: int, sent_at: float) -> None:
        """Have a lease; one that was asked for in bad weather may be too short for a life."""
        super().joined(name, lease_us, sent_at)
        if self.is_calm and lease_us < LONG_US:
            self.beat_soon()

    def beat_soon(self) -> None:
        """Renew at once, and with a lease that outlives the world."""
        self.is_calm = True
        self._lane.works.add(0, self._step)

    def _step(self) -> None:
        self._lane.now(self._renew)

    def _renew(self) -> None:
        if self._is_over:
            return
        if self.is_calm:
            self.lease_us = LONG_US
            self._sent_at = float("-inf")  # it is high time
        before = self.renewals
        try:
            delay = self.beat()
        except Frozen:
            delay = 0.0  # it was stopped before the call, and makes it when it goes on
        else:
            if self.is_calm and self.renewals > before:
                return
        if self.is_calm:
            delay = AGAIN_SECONDS  # it is about to come back by another name
        self._lane.works.add(max(1_000, int(delay * 1e6)), self._step)

    def stop(self) -> None:
        """Renew no more."""
        self._is_over = True


class SimFleet(Fleet):
    """What an engine does beside others, with all that beats for ever moved by the world."""

    membership: SimMembership  # type: ignore[mutable-override]

    def __init__(self, engine: Any, lease_us: int, dice: Random) -> None:
        self.hint_dice = dice
        self.looks = asyncio.Event()
        super().__init__(engine, lease_us, runs=True)
        self._dice = dice

    def _make_membership(self, engine: Any, lease_us: int) -> Membership:
        membership = SimMembership(
            engine.store, lease_us, engine.clock, self._renewed, self._refused
        )
        membership.process = engine.process
        return membership

    def _heard(self, topic: str) -> None:
        if self.hint_dice.random() >= HINTS_LOST:
            super()._heard(topic)

    def notice(self) -> None:
        """It is time to look, hints or not."""
        for topic in TOPICS:
            self._note(topic)

    async def listen(self) -> None:
        """Wait for a hint, or for the world."""
        await self._has_news.wait()
        self._has_news.clear()
        topics, self._news = self._news, set()
        try:
            await self._engine.see_news(topics)
        except Exception:
            self._news |= topics
            self._has_news.set()
            raise

    async def take_over(self) -> None:
        """Look for leases that have run out when the world says so."""
        await self.looks.wait()
        self.looks.clear()
        self._looks = 0  # each look is a thorough one
        await self.look_for_expired()

    def clear_up(self) -> None:
        """The weather clears: have a lease for good."""
        self._engine._lease_us = LONG_US
        self.membership.beat_soon()
