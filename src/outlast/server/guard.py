"""What stands before everything else: limits, the Host and Origin checks, and the headers.

None of it knows who calls; so what it turns away has cost neither a look at a token nor a read of
the store.
"""

from __future__ import annotations

import asyncio
import re
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, MutableMapping
from functools import lru_cache, partial
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from outlast.errors import BadRequest, InternalError, Overloaded
from outlast.server.problem import MEDIA, headers_of, problem_of
from outlast.server.strict import BODY_BYTES_MAX

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADER_BYTES_MAX: Final = 16_384
TARGET_BYTES_MAX: Final = 8_192
BODY_SECONDS: Final = 10.0
"""How long a body may take to come."""
INSIDE_MAX: Final = 4_000
"""Requests that are answered at once, streams of events included."""

EACH_MAX: Final = 1_500
"""Of them, those of one caller: who holds many keeps nobody else out."""

STRANGERS_MAX: Final = 100
"""Of them, those whose body or password is looked at and that bring no credential."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
GUARD: Final = "outlast.guard"
"""Where a request finds the guard: it says whether the server is about to stop."""

WHOLE: Final = "outlast.whole"
"""Where a request finds how its connection sends a whole answer at one go, if it can.

It is called with the status, the head from the first header to the empty line, and the body, and
says whether it has done it; else the answer goes the way of ASGI, in two messages.
"""

HEADERS: Final = (
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_CACHE: Final = (b"cache-control", b"no-store")
_HEAD: Final = b"".join(b"%b: %b\r\n" % one for one in HEADERS) + b"\r\n"
_NO_VALUE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Guard:
    """Wraps an app.

    Args:
        app: what is behind it.
        hosts: the names and addresses by which the server may be called, without ports.
        origins: the origins of web pages that may write, as ``https://ops.example``; those of the
            server itself always may.
    """

    def __init__(self, app: App, hosts: Iterable[str], origins: Iterable[str] = ()) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origins)
        self._inside = self._strangers = 0
        self._held: Counter[str] = Counter()
        self.is_stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or turn it away."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sender = _with_headers(send)
        try:
            self._look(scope)
            if self._inside >= INSIDE_MAX:
                raise Overloaded("the server answers as many requests as it can", where="server")
        except (BadRequest, Overloaded) as error:
            await refuse(error, scope, sender)
            return
        self._inside += 1
        scope[GUARD] = self
        try:
            await self._app(scope, receive, sender)
        finally:
            self._inside -= 1

    def _look(self, scope: Scope) -> None:
        size, named, origins = 0, [], []
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == b"host":
                named.append(value)
            elif name == b"origin":
                origins.append(value.decode("latin-1"))
        if size > HEADER_BYTES_MAX:
            raise BadRequest(
                "the headers are too long", status=431, why=f"{HEADER_BYTES_MAX:,} bytes are taken"
            )
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > TARGET_BYTES_MAX:
            raise BadRequest(
                "the address is too long", status=414, why=f"{TARGET_BYTES_MAX:,} bytes are taken"
            )
        if _CONTROL.search(scope.get("path", "")):  # the router would pass over a line's end
            raise BadRequest("the address holds a character that none has", where="path")
        host = named[0].decode("latin-1") if len(named) == 1 else ""
        if _name_of(host) not in self._hosts:
            raise BadRequest(
                "the server is not called by this name",
                status=421,
                where=f"host: {host[:80]}",
                why="a page elsewhere may have had its name turned to this address",
                do="outlast server --allow-host NAME",
            )
        if origins and scope["method"] != "GET":
            own = (f"http://{host}", f"https://{host}")
            if len(origins) > 1 or (origins[0] not in own and origins[0] not in self._origins):
                raise BadRequest(
                    "a page of another origin may change nothing here",
                    status=403,
                    where=f"origin: {origins[0][:80]}",
                    do="outlast server --allow-origin ORIGIN",
                )


class Visit:
    """One request among those that a guard has let in, counted until :meth:`leave`."""

    __slots__ = ("_guard", "_is_stranger", "_name")

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._is_stranger = False
        self._name: str | None = None

    def stranger(self) -> None:
        """Count somebody without a credential: they may keep each other waiting, and nobody else.

        Raises:
            Overloaded: there are as many as may be.
        """
        if self._guard._strangers >= STRANGERS_MAX:
            raise Overloaded("too many sign in, or answer by a token, at once", where="server")
        self._guard._strangers += 1
        self._is_stranger = True

    def known(self, name: str) -> None:
        """Count a request of a caller that is known.

        Raises:
            Overloaded: the caller has as many under way as one may.
        """
        held = self._guard._held
        count = held.get(name, 0)
        if count >= EACH_MAX:
            raise Overloaded(
                "the caller holds as many answers as one may",
                where=name,
                why=f"{EACH_MAX:,} at once, streams of events included",
            )
        held[name] = count + 1
        self._name = name

    def leave(self) -> None:
        """The request is answered."""
        if self._is_stranger:
            self._guard._strangers -= 1
        if self._name is not None:
            held = self._guard._held
            held[self._name] -= 1
            if not held[self._name]:
                del held[self._name]


@lru_cache(256)
def _name_of(host: str) -> str:
    if any(mark in host for mark in "@/?#\\"):
        return ""  # a host has none of them, whatever else is behind
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


async def read_body(scope: Scope, receive: Receive, *, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """Read a body, as far as it may go; what is too long is not read to its end.

    Raises:
        BadRequest: it is too long, or takes too long.
    """
    said = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if said.isdigit() and int(said) > bytes_max:
        raise _too_long(bytes_max)
    parts: list[bytes] = []
    size = 0
    until = None
    try:
        while True:
            # Most bodies are there already: to set a timer for those costs more than to take them.
            step: Any = receive()
            try:
                waited = step.send(None)
            except StopIteration as done:
                message = done.value
            else:
                until = until or asyncio.get_running_loop().time() + BODY_SECONDS
                async with asyncio.timeout_at(until):
                    message = await _going_on(step, waited)
            if message["type"] == "http.disconnect":
                raise BadRequest("the connection ended before the body did")
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > bytes_max:
                raise _too_long(bytes_max)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)
    except TimeoutError:
        raise BadRequest(
            "the body took too long to come", status=408, why=f"{BODY_SECONDS:g} seconds are given"
        ) from None


@types.coroutine
def _going_on(coroutine: Any, waited: Any) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that has begun to wait."""
    while True:
        try:
            sent = yield waited
        except BaseException as error:  # noqa: BLE001 - it is the coroutine's
            step = partial(coroutine.throw, error)
        else:
            step = partial(coroutine.send, sent)
        try:
            waited = step()
        except StopIteration as done:
            return done.value


def _too_long(bytes_max: int) -> BadRequest:
    return BadRequest("the body is too long", status=413, why=f"{bytes_max:,} bytes are taken")


async def refuse(error: BadRequest | Overloaded, scope: Scope, send: Send) -> None:
    """Answer with a problem."""
    problem = problem_of(error)
    headers = {"content-type": MEDIA, **headers_of(error)}
    await answer(scope, send, problem.status, headers, msgspec.json.encode(problem))


async def answer(
    scope: Scope, send: Send, status: int, headers: Mapping[str, str], body: bytes
) -> None:
    """Send a whole answer, with the headers that every one has."""
    whole: Callable[[int, bytes, bytes], bool] | None = scope.get(WHOLE)
    if whole is not None and whole(status, _head_of(headers, len(body)), body):
        return
    raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _head_of(headers: Mapping[str, str], length: int) -> bytes:
    """Write the head of an answer behind its status.

    Raises:
        InternalError: a value would be more than one header.
    """
    text = "" if "cache-control" in headers else "cache-control: no-store\r\n"
    for name, value in headers.items():
        if _NO_VALUE.search(value):
            raise InternalError("a header of an answer holds what none may", where=name)
        text += f"{name}: {value}\r\n"
    return f"{text}content-length: {length}\r\n".encode("latin-1", "replace") + _HEAD


def _with_headers(send: Send) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message["headers"])
            if not any(name == _CACHE[0] for name, _ in headers):
                headers.append(_CACHE)
            message["headers"] = [*headers, *HEADERS]
        await send(message)

    return sender


__all__ = ["App", "Guard", "Receive", "Scope", "Send", "Visit", "answer", "read_body", "refuse"]
