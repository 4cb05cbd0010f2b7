"""A proxy that stands before a PostgreSQL server and plays a bad network, message by message.

Theory of operation. It runs on the loop of whoever makes it; each connection of a client is one
connection to the server. All that comes is cut into messages (``wire``), which are passed on as
they are. One :class:`Cut` at a time can be armed: the next message that fits breaks its connection
on both sides, before it is passed on, in its middle, or right after. Besides, everything can be
held back, swallowed or delayed, on all connections and on those that come, until it is healed:

- *held*: nothing gets through, and all of it arrives at the healing, as TCP sends again what got
  lost, so that what was written long ago comes late;
- *swallowed*: it is gone for good, and the connection stands there, open and dead.

Nobody is told, and no connection ends by it. Connections are in the clear: ``sslmode=disable``.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self
from urllib.parse import urlsplit, urlunsplit

from campaigns.wire import COMMIT, COMMITTED, ENCRYPTION, STARTUP, Frames, Message, Talk

IN_CLEAR: Final = "sslmode=disable&gssencmode=disable"


class Phase(StrEnum):
    """Where a cut falls, as seen from one message."""

    BEFORE = "before"
    MIDDLE = "middle"
    AFTER = "after"


class Weather(StrEnum):
    """What becomes of everything."""

    FAIR = "fair"
    HELD = "held"
    SWALLOWED = "swallowed"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a connection can be cut.

    Attributes:
        to_server: whether it is a message of the client.
        kind: its name, see ``wire``.
        phase: on which side of it.
    """

    to_server: bool
    kind: str
    phase: Phase

    def __str__(self) -> str:
        arrow = ">" if self.to_server else "<"
        return f"{self.phase} {arrow} {self.kind}"


@dataclass(slots=True)
class Cut:
    """A cut that is to be made, or that was made.

    Attributes:
        place: where.
        skips: how many messages that fit are let through first.
        was_in_doubt: whether the client had sent a ``COMMIT`` and had not got its answer.
        was_withheld: whether the server never got that ``COMMIT``.
    """

    place: Place
    skips: int = 0
    was_in_doubt: bool = False
    was_withheld: bool = False


@dataclass(slots=True)
class Counts:
    """What a proxy has seen and done."""

    connections: int = 0
    messages: int = 0
    cuts: Counter[Place] = field(default_factory=Counter)
    in_doubt: int = 0
    withheld: int = 0
    held: int = 0
    swallowed: int = 0


class _Side(asyncio.Protocol):
    """One of the two connections of a pair: reads here, writes to the other."""

    transport: asyncio.Transport

    def __init__(self, pair: _Pair, *, is_client: bool) -> None:
        self._pair = pair
        self.is_client = is_client
        self.frames = Frames(front=is_client)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._pair.made(self)

    def data_received(self, data: bytes) -> None:
        self._pair.received(self, data)

    def connection_lost(self, _: Exception | None) -> None:
        self._pair.lost(self)

    def pause_writing(self) -> None:
        self._pair.other(self).transport.pause_reading()

    def resume_writing(self) -> None:
        self._pair.other(self).transport.resume_reading()


class _Pair:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._talk = Talk()
        self.client = _Side(self, is_client=True)
        self.server: _Side | None = None
        self._early: list[bytes] = []
        self._late: deque[tuple[_Side, bytes]] = deque()
        self._is_over = self._is_deaf = False

    def other(self, side: _Side) -> _Side:
        if side is self.client:
            assert self.server is not None
            return self.server
        return self.client

    def made(self, side: _Side) -> None:
        if side is self.client:
            self._proxy.opened(self)

    async def connect(self, host: str, port: int) -> None:
        """Reach the server, and pass on what the client has said meanwhile."""
        server = _Side(self, is_client=False)
        try:
            await asyncio.get_running_loop().create_connection(lambda: server, host, port)
        except OSError:
            self.end()
            return
        self.server = server
        early, self._early = self._early, []
        for data in early:
            self.received(self.client, data)
        if self._is_over:
            server.transport.abort()

    def received(self, side: _Side, data: bytes) -> None:
        if self._is_over:
            return
        if self.server is None:
            self._early.append(data)
            return
        proxy = self._proxy
        if proxy.weather is Weather.SWALLOWED or self._is_deaf:
            proxy.counts.swallowed += len(data)
            self._is_deaf = True  # something is missing in the middle of a conversation
        elif proxy.weather is Weather.HELD or self._late or proxy.delay_s:
            self._keep(side, data)
        else:
            self.pass_on(side, data)

    def _keep(self, side: _Side, data: bytes) -> None:
        proxy = self._proxy
        proxy.counts.held += len(data)
        self._late.append((side, data))
        if proxy.weather is Weather.FAIR:
            asyncio.get_running_loop().call_later(proxy.delay_s, self.release, 1)

    def release(self, count: int | None = None) -> None:
        """Pass on what was kept, in the order in which it came."""
        while self._late and count != 0:
            side, data = self._late.popleft()
            if not self._is_over:
                self.pass_on(side, data)
            count = None if count is None else count - 1

    def pass_on(self, side: _Side, data: bytes) -> None:
        """Pass on whole messages, up to one at which it is cut."""
        to_server = side.is_client
        out: list[bytes] = []
        target = self.other(side).transport
        for message in side.frames.feed(data):
            name = self._talk.name(message, to_server=to_server)
            assert name != ENCRYPTION, f"connect with {IN_CLEAR}"
            cut = self._proxy.cut_at(name, to_server=to_server)
            if cut is None:
                out.append(message.data)
                self._talk.passed(name)
                continue
            out.append(_part_of(message, cut.place.phase))
            if cut.place.phase is Phase.AFTER:
                self._talk.passed(name)
            target.write(b"".join(out))
            cut.was_withheld = name == COMMIT and cut.place.phase is not Phase.AFTER
            cut.was_in_doubt = self._talk.in_doubt or cut.was_withheld
            self._proxy.note(cut)
            self.end(flush=self.other(side))
            return
        if out:
            target.write(b"".join(out))

    def lost(self, side: _Side) -> None:
        """One side has ended: so does the other, after what was said before."""
        if self._proxy.weather is Weather.FAIR:
            if side is self.client or self.server is not None:
                self.release()
                self.end(flush=self.server if side is self.client else self.client)
        else:
            self._proxy.ended_in_bad_weather(self)

    def end(self, flush: _Side | None = None) -> None:
        """End both connections; to one of them what was written before still goes out."""
        if self._is_over:
            return
        self._is_over = True
        for side in (self.client, self.server):
            if side is None or not hasattr(side, "transport"):
                continue
            if side is flush:
                side.transport.close()
            else:
                side.transport.abort()
        self._proxy.closed(self)


def _part_of(message: Message, phase: Phase) -> bytes:
    """Give what of a message still goes out."""
    if phase is Phase.BEFORE:
        return b""
    return message.data if phase is Phase.AFTER else message.data[: (len(message.data) + 1) // 2]


class Proxy:
    """Stands before one server.

    Attributes:
        counts: what it has seen and done.
        kinds: each kind of message that has come, by direction.
        weather, delay_s: what becomes of everything; see :meth:`hold` and its kin.
    """

    def __init__(self, host: str, port: int) -> None:
        self.counts = Counts()
        self.kinds: Counter[tuple[bool, str]] = Counter()
        self.weather = Weather.FAIR
        self.delay_s = 0.0
        self.port = 0
        self._target = (host, port)
        self._pairs: set[_Pair] = set()
        self._orphans: list[_Pair] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._armed: Cut | None = None
        self._made: asyncio.Future[Cut] | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> Self:
        """Listen on a port of its own, on loopback."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Pair(self).client, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        """End everything."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        self.break_all()
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def url(self, direct: str) -> str:
        """Give the address of a database of the server, through this proxy."""
        parts = urlsplit(direct)
        account = parts.netloc.rpartition("@")[0]
        query = "&".join(filter(None, (parts.query, IN_CLEAR)))
        return urlunsplit(parts._replace(netloc=f"{account}@127.0.0.1:{self.port}", query=query))

    # What it is told

    def arm(self, cut: Cut) -> asyncio.Future[Cut]:
        """Make a cut as soon as a message fits; gives it when it is made. There is one at once."""
        self._armed = cut
        self._made = asyncio.get_running_loop().create_future()
        return self._made

    def disarm(self) -> None:
        """Make no cut any more."""
        self._armed = None

    def break_all(self) -> None:
        """Break all connections there are."""
        for pair in list(self._pairs):
            pair.end()

    def hold(self) -> None:
        """Hold everything back, until it is healed."""
        self.weather = Weather.HELD

    def swallow(self) -> None:
        """Let everything vanish, until it is healed."""
        self.weather = Weather.SWALLOWED

    def heal(self) -> None:
        """Let through what comes from now on, and what was held back.

        A connection on which something was swallowed stays dead.
        """
        self.weather = Weather.FAIR
        for pair in list(self._pairs):
            pair.release()
        for pair in self._orphans:
            pair.end(flush=pair.server)
        self._orphans.clear()

    # What its connections tell

    def opened(self, pair: _Pair) -> None:
        """A client has come."""
        self.counts.connections += 1
        self._pairs.add(pair)
        task = asyncio.get_running_loop().create_task(pair.connect(*self._target))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def closed(self, pair: _Pair) -> None:
        """A connection has ended, on both sides."""
        self._pairs.discard(pair)

    def ended_in_bad_weather(self, pair: _Pair) -> None:
        """Nobody on the other side hears of an end either, before it is healed."""
        self._orphans.append(pair)

    def cut_at(self, name: str, *, to_server: bool) -> Cut | None:
        """Tell whether a connection is to be cut at this message."""
        self.counts.messages += 1
        self.kinds[to_server, name] += 1
        cut = self._armed
        if cut is None or cut.place.kind != name or cut.place.to_server is not to_server:
            return None
        if cut.skips:
            cut.skips -= 1
            return None
        self._armed = None
        return cut

    def note(self, cut: Cut) -> None:
        """A cut was made."""
        self.counts.cuts[cut.place] += 1
        self.counts.in_doubt += cut.was_in_doubt
        self.counts.withheld += cut.was_withheld
        if self._made is not None and not self._made.done():
            self._made.set_result(cut)


class Chooser:
    """Chooses where to cut next, so that every kind of message gets its turn.

    Args:
        seed: of its dice.
        share: of the cuts, how many shall fall between a ``COMMIT`` and its answer.
    """

    def __init__(self, seed: int, share: float) -> None:
        self._dice = random.Random(seed)
        self._share = share

    def next(self, kinds: Counter[tuple[bool, str]], made: Counter[Place]) -> Cut:
        """Choose one of the kinds that have come; the least cut of them."""
        if self._dice.random() < self._share:
            place = self._dice.choice(DOUBTFUL)
            return Cut(place, self._dice.randrange(3))
        places = [
            Place(to_server, kind, phase)
            for to_server, kind in kinds
            for phase in Phase
            if kind != "Terminate"
        ]
        least = min(made[place] for place in places)
        place = self._dice.choice([one for one in places if made[one] == least])
        often = kinds[place.to_server, place.kind] > 200
        return Cut(place, self._dice.randrange(8) if often else 0)

    def gap(self, mean: float) -> float:
        """Draw how long to wait until the next one."""
        return self._dice.uniform(0, 2 * mean)


CONNECTING: Final = frozenset(
    {STARTUP, "Password", "Authentication", "Parameter", "BackendKey", "Query", "Notification"}
)
"""What comes mostly where a connection is made."""
DOUBTFUL: Final = (
    Place(True, COMMIT, Phase.BEFORE),
    Place(True, COMMIT, Phase.MIDDLE),
    Place(True, COMMIT, Phase.AFTER),
    Place(False, COMMITTED, Phase.BEFORE),
    Place(False, COMMITTED, Phase.MIDDLE),
    Place(False, COMMITTED, Phase.AFTER),
)
"""Where a client cannot know what became of its transaction: it was done, but for the first two."""


__all__ = [
    "CONNECTING",
    "DOUBTFUL",
    "IN_CLEAR",
    "Chooser",
    "Counts",
    "Cut",
    "Phase",
    "Place",
    "Proxy",
    "Weather",
]
