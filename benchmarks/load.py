"""The load of W10, from a process of its own: bare sockets, so that it is not what is measured.

``pairs``: connections that each create an execution and read it, over and over. ``readers``:
connections that each follow the events of one execution to its end, and count them. Both say on
their last line what they did.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Final

_LENGTH: Final = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_ID: Final = re.compile(rb'"id":"([^"]+)"')
_EVENT: Final = re.compile(rb"event: (\w+)\n(?:id: (\d+)\n)?data: ")


class Answers(asyncio.Protocol):
    """One connection that waits for one answer at a time."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._wanted: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what came; an answer is whole when its body is."""
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0 or self._wanted is None:
            return
        length = _LENGTH.search(self._data, 0, end)
        assert length is not None, bytes(self._data[:200])
        whole = end + 4 + int(length[1])
        if len(self._data) >= whole:
            status, body = int(self._data[9:12]), bytes(self._data[end + 4 : whole])
            del self._data[:whole]
            wanted, self._wanted = self._wanted, None
            wanted.set_result((status, body))

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits."""
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_exception(ConnectionResetError())

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request; gives its answer: the status and the body."""
        assert self._transport is not None
        self._wanted = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._wanted


def head(method: str, path: str, host: str, token: str, more: str = "") -> str:
    """Write the head of a request, without its end."""
    return f"{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n{more}"


async def pairs(
    host: str, port: int, token: str, connections: int, count: int, body: str, acks: str = ""
) -> dict[str, object]:
    """Create and get so many executions; with ``acks``, note each that was acknowledged there."""
    loop = asyncio.get_running_loop()
    took: list[float] = []
    ids: list[str] = []
    left = iter(range(count))
    noted = os.open(acks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if acks else -1
    length = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    create = f"{head('POST', '/api/v1/executions', host, token, length)}\r\n{body}".encode()
    rest = f" HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n".encode()

    async def one() -> None:
        _, answers = await loop.create_connection(Answers, host, port)
        for _ in left:
            began = perf_counter()
            status, said = await answers.ask(create)
            took.append(perf_counter() - began)
            found = _ID.search(said)
            assert status == 201 and found is not None, (status, said)
            if noted >= 0:
                os.write(noted, found[1] + b"\n")
            began = perf_counter()
            status, said = await answers.ask(b"GET /api/v1/executions/" + found[1] + rest)
            took.append(perf_counter() - began)
            assert status == 200 and found[1] in said, (status, said)
            ids.append(found[1].decode())

    began = perf_counter()
    done = await asyncio.gather(*(one() for _ in range(connections)), return_exceptions=True)
    broken = [one for one in done if isinstance(one, BaseException)]
    if broken and not (acks and all(isinstance(one, OSError) for one in broken)):
        raise broken[0]
    seconds = perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds,
        "took": took,
        "count": len(ids),
        "unique": len(set(ids)),
        "last": ids[-1:],
        "cpu": used.ru_utime + used.ru_stime,
    }


class Reader(asyncio.Protocol):
    """One connection that follows the events of an execution to its end."""

    def __init__(self, request: bytes) -> None:
        self._request, self._data = request, bytearray()
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take what came; ``end`` is the last event."""
        self._data += data
        if not self.begun.done() and b"retry:" in self._data:
            assert self._data.startswith(b"HTTP/1.1 200"), bytes(self._data[:300])
            self.begun.set_result(None)
        if b"event: end" in self._data and not self.ended.done():
            found = _EVENT.findall(bytes(self._data))
            self.ended.set_result([int(seq) for kind, seq in found if kind == b"transition"])

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits."""
        for future in (self.begun, self.ended):
            if not future.done():
                future.set_exception(ConnectionResetError(bytes(self._data[-300:])))


async def readers(host: str, port: int, token: str, ids: list[str]) -> dict[str, object]:
    """Follow these executions, one connection each; says when all are there, and what they saw."""
    loop = asyncio.get_running_loop()
    all_of: list[Reader] = []
    for id in ids:
        request = f"{head('GET', f'/api/v1/executions/{id}/events', host, token)}\r\n".encode()
        make: Callable[[], Reader] = partial(Reader, request)
        _, reader = await loop.create_connection(make, host, port)
        await reader.begun
        all_of.append(reader)
    print(json.dumps({"begun": len(all_of)}), flush=True)
    seen = await asyncio.gather(*(reader.ended for reader in all_of))
    return {"seen": seen}


def main(kind: str, host: str, port: str, token: str, *more: str) -> None:
    """Make the load; the last line says what was done."""
    if kind == "pairs":
        connections, count, body, *acks = more
        found = asyncio.run(
            pairs(host, int(port), token, int(connections), int(count), body, *acks)
        )
    else:
        found = asyncio.run(readers(host, int(port), token, json.loads(sys.stdin.readline())))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
