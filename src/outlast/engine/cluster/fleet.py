"""What an engine does because others share its store: it has a lease, takes over, and hears hints.

On a store that one engine owns nothing of this is made. The rules are in ``membership.py``; here is
what runs on the engine's loop. Hints only say when to look: whoever hears none looks at bounded
intervals, and its renewals bring what its own executions were sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from functools import partial
from typing import TYPE_CHECKING, Final

from outlast.engine.cluster.membership import (
    LOOK_SECONDS,
    TAKEN_MAX,
    THOROUGH,
    Membership,
    in_parts,
)
from outlast.engine.write.clock import StoreClock
from outlast.errors import OutlastError
from outlast.store.protocol import Renewal, WorkerRow

if TYPE_CHECKING:
    from outlast.engine.engine import Engine

CLOCK_SECONDS: Final = 60.0
"""How often an engine without a lease asks for the time; the others are told as they renew."""
POLL_SECONDS: Final = 1.0
"""How often an engine looks for itself what the others have written: the net under the hints."""
WAITING_SECONDS: Final = 0.05
"""The same at first where somebody waits for an execution that runs elsewhere; then ever longer."""
ASKED_PER_SECOND: Final = 5_000
"""Executions elsewhere whose end is looked for, in a second."""
LOOKS_PER_SECOND: Final = 200
"""How often all engines together look for what one of them hinted at, about, where there are many;
and no hint waits for the first of them for longer than some milliseconds."""
FEW: Final = 4
"""So many engines look at once."""
POLLS_PER_SECOND: Final = 50
"""How often all engines together look for themselves, where there are more than so many."""
POLL_SECONDS_MAX: Final = 4.0
TOPICS: Final = ("work", "inbox", "ended")
KEPT_US: Final = 86_400_000_000
"""How long the rows of workers that are over are kept."""


class Fleet:
    """The others, as one engine sees them. All methods are for the engine's loop.

    Attributes:
        membership: the lease; None for an engine that runs nothing and only starts and waits.
        taken: how many executions it has taken over.
        losses: how often it has lost its own lease.
    """

    def __init__(self, engine: Engine, lease_us: int, *, runs: bool) -> None:
        self.membership = self._make_membership(engine, lease_us) if runs else None
        self.taken = self.losses = 0
        self._engine = engine
        self._loop = engine.loop
        self._former: list[str] = []
        self._looks = 0
        self._dice = random.Random()
        self._news: set[str] = set()
        self._has_news = asyncio.Event()
        self._delay = WAITING_SECONDS
        self._poll_at = 0.0
        self._clock_at = self._loop.time() + CLOCK_SECONDS
        self._asked_at = float("-inf")
        self._hints = engine.store.hints(self._heard)
        if self.membership is not None:
            self.membership.start()

    def _make_membership(self, engine: Engine, lease_us: int) -> Membership:
        made = Membership(engine.store, lease_us, engine.clock, self._renewed, self._refused)
        made.tally = engine.tally
        return made

    # The lease

    async def join(self, row: WorkerRow) -> None:
        """Have a lease under a name, and take back what was held under the names before."""
        engine, membership = self._engine, self.membership
        if membership is None:
            return
        if membership.name != row.id:  # else it came to this name twice, and has joined already
            sent_at = membership.now()
            try:
                serving = await engine.journal.call(lambda: engine.store.register(row))
            except OutlastError:
                if row.id == engine.name:
                    engine.rename()  # it may be there, with a lease that began nobody knows when
                raise
            if row.id != engine.name:
                return  # it has come to a new name meanwhile, and that one joins
            membership.serving = serving
            membership.joined(row.id, row.lease_us or 0, sent_at)
            engine.store.hurry(False)
        while self._former:
            name = self._former[0]
            await engine.journal.call(partial(engine.store.leave, name, engine.clock.now()))
            await self._recover([name])
            if name in self._former:
                self._former.remove(name)

    def forsake(self, name: str) -> None:
        """Give up the leases under this name: what is in memory of them is worthless."""
        if self.membership is not None:
            self.membership.left()
            self._former.append(name)
            self._engine.store.hurry(True)  # a connection may be dead, and nobody says so

    async def drain(self) -> None:
        """Tell the others that no more is claimed here."""
        if self.membership is not None:
            self.membership.drain()

    async def leave(self) -> None:
        """Be no part of it any more."""
        self._engine.store.hurry(True)
        if self._hints is not None:
            self._hints.close()
        if self.membership is not None:
            await asyncio.to_thread(self.membership.stop)

    def let_go(self) -> None:
        """Leave without a loop: what ran here is as good as killed."""
        if self._hints is not None:
            self._hints.close()
        if self.membership is not None:
            self.membership.stop()

    def _renewed(self, renewal: Renewal) -> None:
        """Hear, in another thread, that the lease goes on."""
        self._tell(self._go_on, renewal)

    def _refused(self, name: str) -> None:
        """Hear, in another thread, that the lease is gone."""
        self._tell(self._lost, name)

    def _go_on(self, renewal: Renewal) -> None:
        worker = self._engine.worker
        worker.go_on()
        worker.read_inboxes(renewal.unread)

    def _lost(self, name: str) -> None:
        """Drop everything that was held under a name, and come back under another one."""
        if name == self._engine.name and self._engine.is_open:
            self.losses += 1
            self._engine.begin_anew()

    async def watch_lease(self) -> None:
        """Drop everything when the lease has run out, whatever the renewing thread hangs at."""
        membership = self.membership
        assert membership is not None
        left = membership.expires_in()
        if left is not None and left <= 0:
            self._lost(membership.name or "")
            left = None
        span = membership.lease_us / 1e6
        await asyncio.sleep(span / 5 if left is None else max(0.01, left))

    # Takeover

    async def take_over(self) -> None:
        """Take back the executions of workers whose leases have run out."""
        await asyncio.sleep(LOOK_SECONDS * self._dice.uniform(0.6, 1.0))
        await self.look_for_expired()

    async def look_for_expired(self) -> None:
        """Look once for leases that have run out."""
        engine, membership = self._engine, self.membership
        if membership is None or not membership.may_begin():
            return
        self._looks += 1
        thorough = self._looks % THOROUGH == 1
        look = partial(engine.store.expired, engine.clock.now(), thorough=thorough)
        dead = [name for name in await engine.worker.read(look) if name != engine.name]
        for some in in_parts(dead, self._dice):
            await self._recover(some)

    async def _recover(self, names: list[str]) -> None:
        """Take over what these hold, some at a time."""
        engine = self._engine
        taken = 1
        while taken:  # a page is short where somebody else was at it; there may be more behind it
            recover = partial(
                engine.store.recover, names, engine.name, engine.clock.now(), TAKEN_MAX
            )
            taken = await engine.journal.call(recover)
            self.taken += taken
            if taken and engine.is_open:
                engine.look()

    # Hints

    def hint(self, topic: str) -> None:
        """Tell the others."""
        if self._hints is not None:
            self._hints.send(topic)

    def _heard(self, topic: str) -> None:
        """Hear a hint, in whichever thread."""
        self._tell(self._note, topic)

    def _note(self, topic: str) -> None:
        self._news.add(topic)
        self._has_news.set()

    @property
    def _serving(self) -> int:
        """How many engines there are, as far as this one knows."""
        return 1 if self.membership is None else self.membership.serving

    def stagger(self) -> float:
        """Give the seconds, by chance, after which to look at what all engines hear of at once.

        The first one looks within some milliseconds, however many there are, and mostly the others
        find nothing left; were they all to look at each hint, two hundred would do little else.
        """
        return self._dice.uniform(0.0, max(0, self._serving - FEW) / LOOKS_PER_SECOND)

    async def _let_others_look(self) -> None:
        """Wait a little where there are many; what somebody here waits for is looked at at once."""
        wait = self.stagger()
        if not wait:
            return
        if "ended" in self._news and self._engine.is_awaiting_others:
            self._news.discard("ended")
            await self._engine.see_news({"ended"}, thoroughly=False)
        await asyncio.sleep(wait)

    async def _ask_the_time(self) -> None:
        """Follow the store's clock where no renewal tells of it."""
        clock = self._engine.clock
        if self.membership is not None or not isinstance(clock, StoreClock):
            return
        if self._loop.time() >= self._clock_at:
            await self._engine.worker.read(clock.look)
            self._clock_at = self._loop.time() + CLOCK_SECONDS

    def _tell(self, *call: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to hear
            self._loop.call_soon_threadsafe(*call)  # type: ignore[arg-type]

    def may_ask_for(self, count: int) -> bool:
        """Tell whether it is time to look for the ends of so many executions that run elsewhere.

        The more there are, the more seldom: it reads some thousands a second at most, however many
        hints come.
        """
        now = self._loop.time()
        wait = self._asked_at + count / ASKED_PER_SECOND - now
        if wait > 0:
            self._loop.call_later(wait, self._note, "ended")
            return False
        self._asked_at = now
        return True

    async def listen(self) -> None:
        """Wait for a hint, or until it is time to look anyway, and see what there is."""
        engine = self._engine
        waits = engine.is_awaiting_others
        poll = min(max(POLL_SECONDS, self._serving / POLLS_PER_SECOND), POLL_SECONDS_MAX)
        self._delay = min(2 * self._delay, POLL_SECONDS) if waits else WAITING_SECONDS
        delay = (self._delay if waits else poll) * self._dice.uniform(0.75, 1.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._has_news.wait()
                await self._let_others_look()
        is_time = self._loop.time() >= self._poll_at
        if is_time:
            self._poll_at = self._loop.time() + poll * self._dice.uniform(0.75, 1.0)
        topics, self._news = self._news, set()
        topics = topics if topics and not is_time else set(TOPICS)
        self._has_news.clear()
        try:
            await self._ask_the_time()
            await engine.see_news(topics, thoroughly=is_time)
        except OutlastError:
            self._news |= topics  # it has not seen all: it comes back
            raise


__all__ = ["KEPT_US", "Fleet"]
