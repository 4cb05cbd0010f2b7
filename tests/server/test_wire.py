"""Connections that send too much, or nothing; strangers that come in crowds; readers shown out."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import resource
import socket
import time
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from outlast.access import Grant, Rights, Role
from outlast.errors import InternalError
from outlast.server import guard, live, wire
from outlast.server.auth import Identity

from .conftest import TOKEN, Served, Tokens, World, a_server, a_world

SECONDS: Final = 100.0
"""How long a test waits for the server to end a connection."""


def _connected(served: Served) -> socket.socket:
    parts = urlsplit(served.url)
    return socket.create_connection((parts.hostname, parts.port), SECONDS)


def _is_ended(line: socket.socket) -> bool:
    """Read until the server ends it; a server that does not makes this time out."""
    with contextlib.suppress(ConnectionError):
        while line.recv(65_536):
            pass
    return True


@pytest.mark.parametrize("head", [b"", b"GET /healthz HTTP/1.1\r\nhost: loc", b"\r\n"])
def test_a_head_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    assert wire.HEAD_SECONDS == 10
    monkeypatch.setattr(wire, "HEAD_SECONDS", 0.2)
    with a_server() as served, _connected(served) as line:
        line.sendall(head)
        assert _is_ended(line)


def test_a_head_without_an_end_is_not_kept() -> None:
    with a_server() as served, _connected(served) as line:
        with contextlib.suppress(ConnectionError):
            line.sendall(b"GET /healthz HTTP/1.1\r\nx-long: ")
            for _ in range(64):
                line.sendall(b"x" * 65_536)
        assert _is_ended(line)


def test_an_answer_under_way_outlasts_the_time_of_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_server() as served, _connected(served) as line:
        host = urlsplit(served.url).netloc
        known = f"host: {host}\r\nauthorization: Bearer {TOKEN}\r\n"
        body = json.dumps({"task": "waits", "input": {"span": "1h"}})
        line.sendall(
            f"POST /api/v1/executions HTTP/1.1\r\n{known}content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}".encode()
        )
        said = line.recv(65_536)
        assert said.startswith(b"HTTP/1.1 201"), said
        while b"\r\n\r\n" not in said or not said.endswith(b"}"):
            said += line.recv(65_536)
        id = json.loads(said.partition(b"\r\n\r\n")[2])["id"]
        monkeypatch.setattr(wire, "HEAD_SECONDS", 0.05)
        path = f"/api/v1/executions/{id}/result?wait=500ms"
        line.sendall(f"GET {path} HTTP/1.1\r\n{known}\r\n\r\n".encode())  # and a line too many
        assert line.recv(65_536).startswith(b"HTTP/1.1 202")


def test_an_idle_connection_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wire.IDLE_SECONDS == 15
    monkeypatch.setattr(wire, "IDLE_SECONDS", 0.1)
    with a_server() as served, _connected(served) as line:
        line.sendall(f"GET /healthz HTTP/1.1\r\n{_known(served)}\r\n".encode())
        assert line.recv(65_536).startswith(b"HTTP/1.1 200")
        assert _is_ended(line)


@pytest.mark.parametrize(
    ("idle_since", "ends", "looks_in"), [(None, 0, []), (90.0, 0, [5.0]), (80.0, 1, [])]
)
def test_only_idle_connections_are_ended(
    idle_since: float | None, ends: int, looks_in: list[float]
) -> None:
    ended, set_in = [], []
    line: Any = SimpleNamespace(
        _idle_timer=1,
        _idle_since=idle_since,
        _look_idle=None,
        timeout_keep_alive=15,
        timeout_keep_alive_handler=lambda: ended.append(1),
        loop=SimpleNamespace(time=lambda: 100.0, call_later=lambda span, _: set_in.append(span)),
    )
    wire.Connection._look_idle(line)
    assert (len(ended), set_in, line._idle_timer) == (ends, looks_in, None)


def test_requests_that_come_together_are_answered_in_order() -> None:
    with a_server() as served, _connected(served) as line:
        asks = [
            f"GET {path} HTTP/1.1\r\n{_known(served)}" for path in ("/healthz", "/no", "/readyz")
        ]
        line.sendall(
            ("\r\n".join([*asks[:2], asks[2] + "connection: close\r\n"]) + "\r\n").encode()
        )
        said = b""
        while part := line.recv(65_536):
            said += part
        heads = [part.split(b"\r\n")[0] for part in said.split(b"HTTP/1.1 ")[1:]]
        assert [int(head[:3]) for head in heads] == [200, 404, 200], said


def test_who_asks_for_the_head_alone_gets_no_body() -> None:
    with a_server() as served, _connected(served) as line:
        line.sendall(
            f"HEAD /healthz HTTP/1.1\r\n{_known(served)}connection: close\r\n\r\n".encode()
        )
        said = b""
        while part := line.recv(65_536):
            said += part
        assert said.startswith(b"HTTP/1.1 405") and said.endswith(b"\r\n\r\n")


def test_what_would_be_two_headers_is_none() -> None:
    async def main() -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {guard.WHOLE: lambda *all: sent.append(all) or True}
        with pytest.raises(InternalError):
            await guard.answer(scope, send, 200, {"location": "/a\r\nset-cookie: b"}, b"")
        assert sent == []
        await guard.answer(scope, send, 200, {"location": "/a"}, b"b")
        ((status, head, body),) = sent
        assert (status, body) == (200, b"b")
        assert b"location: /a\r\n" in head and head.endswith(b"\r\n\r\n")
        assert all(b"%b: %b\r\n" % one in head for one in guard.HEADERS)

    asyncio.run(main())


def test_strangers_keep_out_each_other_and_nobody_else(
    tell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "STRANGERS_MAX", 0)

    async def story(world: World) -> None:
        body = {"name": "ada", "password": "four words of mine"}
        problem = await world.post("/api/v1/session", body, 503)
        assert problem["code"] == "overloaded"
        await world.get("/api/v1/me")
        await world.get("/healthz")

    tell(story)


@pytest.mark.parametrize("after", [None, Identity("ada", rights=Rights(((Grant(Role.WORKER),),)))])
def test_live_events_end_with_what_permits_them(
    monkeypatch: pytest.MonkeyPatch, after: Identity | None
) -> None:
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.0)
    known = Tokens({TOKEN: Identity("ada"), "other": Identity("bob")})

    async def main() -> None:
        async with a_world(known) as world, asyncio.timeout(SECONDS):
            id = await world.start("waits", span="1h")
            other = {"authorization": "Bearer other"}
            began = time.monotonic()
            path = f"/api/v1/executions/{id}/events"
            reading = asyncio.create_task(world.http.get(path, headers=other))
            await world.until(id, "waiting")
            if after is None:
                del known.known["other"]
            else:
                known.known["other"] = after
            await world.post(f"/api/v1/executions/{id}/labels", {"labels": {"a": "b"}})
            answer = await reading
            assert answer.status_code in (200, 401, 403) and "event: end" not in answer.text
            assert time.monotonic() - began < SECONDS

    asyncio.run(main())


def test_the_head_of_an_answer_goes_out_with_its_body() -> None:
    """One call of the system for a short answer; and nothing is ever kept back."""

    class Wire:
        def __init__(self) -> None:
            self.sent: list[bytes] = []
            self.is_closed = False

        def write(self, data: bytes) -> None:
            self.sent.append(data)

        def close(self) -> None:
            self.is_closed = True

    async def main() -> None:
        line = Wire()
        corked = wire.Corked(line, asyncio.get_running_loop())  # type: ignore[arg-type]
        corked.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        corked.write(b"ok")
        corked.write(b"more")
        corked.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert line.sent == [
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            b"more",
            b"HTTP/1.1 100 Continue\r\n\r\n",
        ]
        corked.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert len(line.sent) == 3
        await asyncio.sleep(0)
        assert line.sent[3:] == [b"HTTP/1.1 204 No Content\r\n\r\n"]
        corked.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        corked.close()
        assert line.sent[4:] == [b"HTTP/1.1 400 Bad Request\r\n\r\n"]
        assert line.is_closed

    asyncio.run(main())


def _known(served: Served) -> str:
    return f"host: {urlsplit(served.url).netloc}\r\nauthorization: Bearer {TOKEN}\r\n"


def _asked(served: Served, request: bytes) -> bytes:
    """Send a request on a connection of its own, and read until the server ends it."""
    said = b""
    with _connected(served) as line, contextlib.suppress(ConnectionError):
        line.sendall(request)
        while part := line.recv(65_536):
            said += part
            if b"\r\n\r\n" in said and b"content-length: 0" in said:
                break
    return said


def _is_served(served: Served) -> bool:
    """Whether somebody else is answered, within generous seconds."""
    head = f"GET /api/v1/me HTTP/1.1\r\n{_known(served)}connection: close\r\n\r\n"
    return _asked(served, head.encode()).startswith(b"HTTP/1.1 200")


def test_many_that_dribble_keep_nobody_waiting() -> None:
    """Slowloris: 300 heads, and 100 bodies, of which now and then a byte comes."""
    with a_server() as served, contextlib.ExitStack() as lines:
        head = b"GET /healthz HTTP/1.1\r\nhost: loc"
        body = (
            f"POST /api/v1/executions HTTP/1.1\r\n{_known(served)}"
            "content-type: application/json\r\ncontent-length: 1000\r\n\r\n{"
        ).encode()
        dribbling = []
        for number in range(400):
            line = lines.enter_context(_connected(served))
            line.sendall(body if number % 4 == 0 else head)
            dribbling.append(line)
        for _ in range(5):
            for line in dribbling:
                with contextlib.suppress(OSError):
                    line.sendall(b" ")
            assert _is_served(served)


BOMBS: Final[dict[str, tuple[str, bytes]]] = {
    "a gzip bomb": ("content-encoding: gzip\r\n", gzip.compress(bytes(50_000_000))),
    "as deep as it is long": ("", b"[" * 1_000_000),
    "deep objects": ("", b'{"a":' * 200_000 + b"1" + b"}" * 200_000),
    "one key again and again": ("", b"{" + b'"a":1,' * 300_000 + b'"a":1}'),
    "a number without end": ("", b'{"task": ' + b"9" * 1_900_000 + b"}"),
    "text of escapes": ("", b'{"task": "' + b"\\u0041" * 300_000 + b'"}'),
    "many fields": ("", json.dumps({f"f{n}": n for n in range(100_000)}).encode()),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_and_others_are_served(bomb: str) -> None:
    more, body = BOMBS[bomb]
    with a_server() as served:
        head = (
            f"POST /api/v1/executions HTTP/1.1\r\n{_known(served)}connection: close\r\n"
            f"content-type: application/json\r\n{more}content-length: {len(body)}\r\n\r\n"
        )
        said = _asked(served, head.encode() + body)
        assert said.split()[1] in (b"400", b"413", b"422"), said[:300]
        assert _is_served(served)


def test_a_body_of_a_hundred_megabytes_is_not_read() -> None:
    with a_server() as served:
        for length in (f"content-length: {100 * 2**20}", "transfer-encoding: chunked"):
            head = (
                f"POST /api/v1/executions HTTP/1.1\r\n{_known(served)}connection: close\r\n"
                f"content-type: application/json\r\n{length}\r\n\r\n"
            ).encode()
            part = b"10000\r\n" + b" " * 65_536 + b"\r\n"
            sent = 0
            with _connected(served) as line, contextlib.suppress(ConnectionError):
                line.sendall(head)
                while sent < 100 * 2**20:
                    line.sendall(part)
                    sent += len(part)
            assert sent < 60 * 2**20, "it is cut off long before its end"
            assert _is_served(served)


def test_a_thousand_headers_are_too_many() -> None:
    with a_server() as served:
        many = "".join(f"x-{number}: {'v' * 20}\r\n" for number in range(1_000))
        head = f"GET /api/v1/me HTTP/1.1\r\n{_known(served)}connection: close\r\n{many}\r\n"
        assert _asked(served, head.encode()).startswith(b"HTTP/1.1 431")
        assert _is_served(served)


def test_a_reader_that_reads_nothing_costs_little_and_loses_nothing() -> None:
    """Others are served meanwhile; it goes on behind what it had read, without loss."""
    with a_server() as served:
        known = _known(served)

        def post(path: str, body: str) -> bytes:
            head = (
                f"POST {path} HTTP/1.1\r\n{known}connection: close\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            said = _asked(served, (head + body).encode())
            assert said.split()[1][:1] == b"2", said
            return said

        made = post("/api/v1/executions", '{"task": "waits", "input": {"span": "1d"}}')
        path = f"/api/v1/executions/{re.findall(rb'ex_[0-9a-z]+', made)[0].decode()}"
        request = f"GET {path}/events HTTP/1.1\r\n{known}"
        with _connected(served) as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            stuck.sendall(f"{request}\r\n".encode())
            first = b""
            while b"id: 1\n" not in first:
                first += stuck.recv(4_096)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for number in range(60):
                post(f"{path}/labels", json.dumps({"labels": {"n": f"{number:04}" * 15}}))
                assert number % 20 or _is_served(served)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < 64 * 1_024, "KiB: what it does not read is kept in the log alone"
        row = _asked(served, f"GET {path} HTTP/1.1\r\n{known}connection: close\r\n\r\n".encode())
        last = int(re.findall(rb'etag: "(\d+)', row)[0])
        seen = b""
        with _connected(served) as line:
            line.sendall(f"{request}last-event-id: 1\r\n\r\n".encode())
            while f"id: {last}\n".encode() not in seen:
                part = line.recv(65_536)
                assert part, "it ends before it has told all"
                seen += part
        told = [int(one) for one in re.findall(rb"^id: (\d+)$", seen, re.MULTILINE)]
        assert told == list(range(2, last + 1)) and last > 60


def test_many_connections_of_one_address_leave_room_for_others() -> None:
    """Five hundred that say nothing, from one address and known to nobody."""
    with a_server() as served, contextlib.ExitStack() as lines:
        for _ in range(500):
            lines.enter_context(_connected(served))
        for _ in range(5):
            assert _is_served(served)
