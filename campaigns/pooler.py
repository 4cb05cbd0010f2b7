"""A pooler in transaction mode, as small as can be: what PgBouncer does, for where there is none.

Each client's transaction gets whichever connection to the server is free, from its first message
to the ``ReadyForQuery`` that says that nothing is open. So nothing of a session outlives it:
prepared statements are there or not, as chance has it, and whoever listens hears what is meant for
others, or nothing. A client needs no password; the server's connections have theirs.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections import deque
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

import psycopg

from campaigns.proxy import IN_CLEAR
from campaigns.wire import CANCEL, ENCRYPTION, STARTUP, Frames

_TOLD: Final = (
    "server_version",
    "server_encoding",
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "integer_datetimes",
    "standard_conforming_strings",
)
_IDLE: Final = b"I"
AGAIN_SECONDS: Final = 0.05


def _message(letter: bytes, body: bytes) -> bytes:
    return letter + struct.pack("!i", len(body) + 4) + body


class _Server(asyncio.Protocol):
    """A connection to the server; has one client at a time, or none."""

    transport: asyncio.Transport

    def __init__(self, pooler: Pooler) -> None:
        self._pooler = pooler
        self._frames = Frames(front=False)
        self.client: _Client | None = None
        self.owed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        for message in self._frames.feed(data):
            client = self.client
            if client is not None:
                client.transport.write(message.data)
            if message.kind == "Ready" and self.owed:
                self.owed -= 1
                if not self.owed and message.body == _IDLE:
                    self._pooler.free(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._pooler.gone(self)


class _Client(asyncio.Protocol):
    """A client's connection."""

    transport: asyncio.Transport

    def __init__(self, pooler: Pooler) -> None:
        self._pooler = pooler
        self._frames = Frames(front=True)
        self.server: _Server | None = None
        self.waiting: list[Any] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        for message in self._frames.feed(data):
            if message.kind == STARTUP:
                self.transport.write(self._pooler.greeting())
            elif message.kind == ENCRYPTION:
                self.transport.write(b"N")
            elif message.kind in (CANCEL, "Terminate"):
                self.transport.close()
            else:
                self.waiting.append(message)
        if self.waiting:
            self._pooler.serve(self)

    def pass_on(self) -> None:
        """Send what waits to the server that this client has now."""
        assert self.server is not None
        messages, self.waiting = self.waiting, []
        self.server.owed += sum(one.kind in ("Sync", "Query") for one in messages)
        self.server.transport.write(b"".join(one.data for one in messages))

    def connection_lost(self, _: Exception | None) -> None:
        self._pooler.left(self)


class Pooler:
    """A pooler before one database.

    Attributes:
        transactions: how often a client was given a server's connection.
        switches: how often that was another one than it had before.
    """

    def __init__(self, direct: str, size: int) -> None:
        self._direct, self._size = direct, size
        self.transactions = self.switches = 0
        self.port = 0
        self._free: deque[_Server] = deque()
        self._line: deque[_Client] = deque()
        self._kept: list[psycopg.Connection[Any]] = []
        self._servers: set[_Server] = set()
        self._last: dict[_Client, _Server] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._told: list[tuple[str, str]] = []
        self._is_over = False

    async def open(self) -> Self:
        """Connect to the server, and listen."""
        for _ in range(self._size):
            await self._add()
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Client(self), "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        """End everything."""
        self._is_over = True
        for task in list(self._tasks):
            task.cancel()
        assert self._listener is not None
        self._listener.close()
        for server in list(self._servers):
            server.transport.abort()
        for client in list(self._last):
            client.transport.abort()
        await asyncio.sleep(0)
        for connection in self._kept:
            connection.close()

    async def _add(self) -> None:
        """Log in once more, by the driver, and take its socket over."""
        connection = await asyncio.to_thread(self._log_in)
        self._kept.append(connection)  # it must not be closed while its socket is used
        told = ((name, connection.info.parameter_status(name)) for name in _TOLD)
        self._told = [(name, value) for name, value in told if value is not None]
        own = socket.socket(fileno=socket.dup(connection.fileno()))
        own.setblocking(False)
        server = _Server(self)
        await asyncio.get_running_loop().create_connection(lambda: server, sock=own)
        self._servers.add(server)
        self.free(server)

    async def _come_back(self) -> None:
        """Log in once more, however long the server is not there."""
        while not self._is_over:
            try:
                await self._add()
            except psycopg.OperationalError:
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                return

    def _log_in(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._direct, autocommit=True)

    def greeting(self) -> bytes:
        """Say what a server says to who has come in."""
        told = b"".join(
            _message(b"S", name.encode() + b"\0" + value.encode() + b"\0")
            for name, value in self._told
        )
        key = _message(b"K", struct.pack("!i", secrets.randbits(31)) + secrets.token_bytes(4))
        return _message(b"R", struct.pack("!i", 0)) + told + key + _message(b"Z", _IDLE)

    def serve(self, client: _Client) -> None:
        """Pass on what a client has said, as soon as there is a server for it."""
        if client.server is not None:
            client.pass_on()
        elif self._free:
            self._give(client, self._free.popleft())
        elif client not in self._line:
            self._line.append(client)

    def _give(self, client: _Client, server: _Server) -> None:
        client.server, server.client = server, client
        self.transactions += 1
        self.switches += self._last.get(client, server) is not server
        self._last[client] = server
        client.pass_on()

    def free(self, server: _Server) -> None:
        """A server's connection has no transaction any more: the next one may have it."""
        if server.client is not None:
            server.client.server = None
            server.client = None
        if self._line:
            self._give(self._line.popleft(), server)
        else:
            self._free.append(server)

    def left(self, client: _Client) -> None:
        """A client has gone; what it was in the middle of is broken off with its connection."""
        self._last.pop(client, None)
        if client in self._line:
            self._line.remove(client)
        if client.server is not None:
            server, client.server = client.server, None
            server.client = None
            server.transport.abort()

    def gone(self, server: _Server) -> None:
        """A server's connection has ended: so does its client's, and another one is made."""
        self._servers.discard(server)
        if server in self._free:
            self._free.remove(server)
        if server.client is not None:
            server.client.server = None
            server.client.transport.abort()
        if not self._is_over:
            task = asyncio.get_running_loop().create_task(self._come_back())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


def through(direct: str, port: int, more: str = "") -> str:
    """Give the address of a database through a pooler."""
    parts = urlsplit(direct)
    account = parts.netloc.rpartition("@")[0]
    query = "&".join(filter(None, (IN_CLEAR, more)))
    return urlunsplit(parts._replace(netloc=f"{account}@127.0.0.1:{port}", query=query))


__all__ = ["Pooler", "through"]
