"""Worlds in which leases decide who is dead: membership of production, and a book of who has what.

Each process renews on a thread of its own, that is: whenever the dice let it. The store's clock is
the true time, that of the watchdog as well; the clocks on the wall are wrong. Nothing beats for
ever, or no world would come to rest: when the weather has cleared, leases are longer than a life.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, Final, Protocol

from campaigns.simulation.clockwork import Process
from campaigns.simulation.disk import Frozen
from outlast.engine.fleet import TOPICS, Fleet
from outlast.engine.membership import Membership

LONG_US: Final = 10**15
LEASES_US: Final = (150_000, 400_000, 1_500_000, 6_000_000)
HINTS_LOST: Final = 0.4
AGAIN_SECONDS: Final = 0.05
PROBE_US: Final = 2_000_000
"""How long after some trouble an engine may take to come back by another name."""


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


class Judge(Protocol):
    """Who applies rules."""

    def check(self, rule: str, holds: bool, *said: object) -> None:
        """Apply a rule."""


class Book:
    """Who has which lease until when, from what the store was told and nothing else.

    Attributes:
        until: by worker, in true time.
    """

    def __init__(self, judge: Judge, lease_us: int) -> None:
        self._judge = judge
        self._lease_us = lease_us
        self.until: dict[str, int] = {}
        self._of: dict[str, Process] = {}
        self._left: set[str] = set()
        self._troubled: dict[Process, list[tuple[int, int]]] = {}

    def applied(self, process: Process, verb: str, args: tuple[Any, ...], result: Any) -> None:
        """See what a call of the store has done to leases."""
        now = process.clockwork.now_us
        if verb == "register":
            row = args[0]
            if row.lease_us is not None and row.id not in self.until:
                self.until[row.id], self._of[row.id] = now + row.lease_us, process
        elif verb == "renew" and result is not None:
            self.until[args[0]] = now + args[1]
        elif verb == "leave" and args[0] in self.until:
            self.until[args[0]] = min(now, self.until[args[0]])
            self._left.add(args[0])

    def trouble(self, process: Process, span_us: int = 0) -> None:
        """Something has gone wrong with a process, and goes on for so long."""
        now = process.clockwork.now_us
        span = (now, max(now + span_us, process.frozen_until))
        self._troubled.setdefault(process, []).append(span)

    def taken(self, name: str | None, by: Process) -> None:
        """See that what a worker held is taken over now."""
        if name not in self.until:
            return
        now, of = by.clockwork.now_us, self._of[name]
        self._judge.check(
            "lease taken", self.until[name] <= now,
            name, "was taken over by", by.number, "before", self.until[name],
        )  # fmt: skip
        end = self.until[name]  # whoever takes it over may come much later
        begin = end - self._lease_us - PROBE_US
        self._judge.check(
            "lease kept",
            of.is_dead or name in self._left
            or any(a <= end and b >= begin for a, b in self._troubled.get(of, ())),
            name, "of process", of.number, "has run out at", end, "and nothing was wrong with it",
        )  # fmt: skip

    def began(self, process: Process, name: str) -> None:
        """See that a body starts in the loop of a process that goes by this name."""
        if process.thread is None and name in self.until:
            now = process.clockwork.now_us
            self._judge.check(
                "lease watched", now <= self.until[name],
                "a body started in process", process.number, "whose lease ended at",
                self.until[name],
            )  # fmt: skip
