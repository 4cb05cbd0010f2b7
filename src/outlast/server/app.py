"""The app: every request goes the same way, and the route table says what happens on it.

The guard (limits, Host, Origin) → the route → who calls → may they → the forms → the handler → the
answer. Each step can only refuse; what is refused is told as a problem, and nothing was done.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from outlast.access import Permission, Rights
from outlast.engine.write.acting import acting
from outlast.errors import BadRequest, Forbidden, InternalError, NotFound, OutlastError, Overloaded
from outlast.server.auth import Authenticator, Identity, see_form
from outlast.server.call import Call, Live, Reply
from outlast.server.courier import Courier
from outlast.server.crowd import source_of
from outlast.server.guard import (
    GUARD,
    App,
    Guard,
    Receive,
    Scope,
    Send,
    Visit,
    answer,
    read_body,
)
from outlast.server.paths import Paths, path_of
from outlast.server.problem import MEDIA, headers_of, problem_of, status_of
from outlast.server.route import Route, checked
from outlast.server.route import Scope as Asked
from outlast.server.strict import converted, decoded
from outlast.server.veil import veiled

if TYPE_CHECKING:
    from outlast.engine.engine import Engine

LOCAL: Final = ("127.0.0.1", "localhost", "::1")
BACKLOG_MAX: Final = 10_000
"""Writes that may be on their way to the disk before further ones are turned away."""
_NOBODY: Final = Identity("anyone", rights=Rights())
_JSON: Final = "application/json"
_encode: Final = msgspec.json.Encoder().encode
_log: Final = logging.getLogger("outlast.server")


def create_app(
    engine: Engine,
    authenticator: Authenticator,
    *,
    hosts: Iterable[str] = LOCAL,
    origins: Iterable[str] = (),
    routes: Sequence[Route] | None = None,
) -> App:
    """Make an ASGI app of an engine.

    Args:
        engine: the engine; where it is not open, the app opens it on its own loop and closes it.
        authenticator: says who calls.
        hosts: the names and addresses by which the server may be called.
        origins: the origins of web pages that may write.
        routes: the table; by default all that there is.

    Raises:
        InternalError: a route does not say who may call it.
    """
    from outlast.server.table import ROUTES

    engine.offer_remote()
    engine.attend("webhooks", Courier(engine).run)
    table = checked(ROUTES if routes is None else routes)
    by_path: dict[str, dict[str, Route]] = {}
    for route in table:
        by_path.setdefault(route.path, {})[route.method] = route

    paths = Paths(
        {path: _Endpoint(engine, authenticator, methods) for path, methods in by_path.items()}
    )
    return Guard(_App(engine, paths), hosts, origins)


class _App:
    """Brings each request to what stands at its path."""

    def __init__(self, engine: Engine, paths: Paths[_Endpoint]) -> None:
        self._engine, self._paths = engine, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            found = self._paths.find(path_of(scope))
            if found is None:
                error = NotFound("there is nothing at this address", do="GET /openapi.json")
                await _tell(error, scope, send, None)
                return
            endpoint, scope["path_params"] = found
            await endpoint(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Receive, send: Send) -> None:
        """Open the engine where nobody has, and close it with the server."""
        await receive()
        phase = "startup"
        try:
            async with contextlib.AsyncExitStack() as stack:
                if not self._engine.is_open:
                    await stack.enter_async_context(self._engine)
                await send({"type": "lifespan.startup.complete"})
                phase = "shutdown"
                await receive()
        except BaseException as error:
            await send({"type": f"lifespan.{phase}.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.shutdown.complete"})


class _Endpoint:
    """What stands at one path: a route for each method."""

    def __init__(
        self, engine: Engine, authenticator: Authenticator, methods: Mapping[str, Route]
    ) -> None:
        self._engine, self._authenticator, self._methods = engine, authenticator, methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = Visit(scope[GUARD])
        try:
            await self._serve(visit, scope, receive, send)
        finally:
            visit.leave()

    async def _serve(self, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        route: Route | None = None
        try:
            route = self._methods.get(scope["method"])
            if route is None:
                allow = ", ".join(self._methods)
                raise BadRequest(f"only {allow} is taken here", status=405, do=allow)
            if route.permission is Permission.ANYONE and route.body is not None:
                visit.stranger()
            said = await self._answer(route, visit, scope, receive)
        except OutlastError as error:
            await _tell(error, scope, send, route)
            return
        except Exception as error:  # noqa: BLE001 - the border: nothing leaves it as a traceback
            hidden = InternalError(f"{type(error).__name__}: {error}")
            await _tell(hidden, scope, send, route, error)
            return
        if isinstance(said, Live):
            await _stream(said, scope, receive, send)
            return
        reply = said if isinstance(said, Reply) else Reply(said)
        status = reply.status or route.status
        headers = reply.headers
        body = b""
        if reply.value is not None:
            body = reply.value if isinstance(reply.value, bytes) else _encode(reply.value)
            headers.setdefault("content-type", route.media)
        await answer(scope, send, status, headers, body)

    async def _answer(self, route: Route, visit: Visit, scope: Scope, receive: Receive) -> Any:
        headers = _headers(scope)
        identity = _NOBODY
        if route.permission is not Permission.ANYONE:
            identity = await self._authenticator.authenticate(headers)
            visit.known(identity.name)
        if not self._engine.is_open:
            raise Overloaded("the engine is not open", where="server")
        call = Call(self._engine, route, identity, scope["path_params"], headers)
        call.source_of = lambda: source_of(scope, headers)
        call.authenticator = self._authenticator
        if route.scope is Asked.EXECUTION:
            await call.find()
        elif route.scope is Asked.TENANT:
            call.allow(None)
        elif route.scope is Asked.NONE:
            call.asked = True
        else:
            _see_at_all(call)
        if "idempotency-key" in headers and route.is_write and not route.key:
            raise BadRequest(
                "this route takes no Idempotency-Key", why="it could not keep what the key promises"
            )
        call.query = converted(_words(scope, route), route.query)
        if route.body is not None:
            call.body = await self._read(route, scope, headers, receive)
        if route.is_write and self._engine.journal.backlog > BACKLOG_MAX:
            raise Overloaded("the disk is behind with what came before", where="server")
        if route.is_write:
            see_form(identity, headers)
            with acting(identity.name, "api", route.name):
                said = await route.handler(call)
        else:
            said = await route.handler(call)
        call.see_asked()
        if isinstance(said, Live):
            said.counts_still = call.counts_still
        elif isinstance(said, Reply):
            said.value = await veiled(call, said.value)
        elif route.permission is not Permission.ANYONE:
            said = await veiled(call, said)
        return said

    async def _read(
        self, route: Route, scope: Scope, headers: Mapping[str, str], receive: Receive
    ) -> Any:
        data = await read_body(scope, receive)
        if not data and route.bodyless:
            return route.body()
        media = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != _JSON:
            raise BadRequest(
                "the body is to be JSON", status=415, where="content-type", do=f"say {_JSON}"
            )
        return decoded(data, route.body)


def _see_at_all(call: Call) -> None:
    """Turn away at once who lacks the permission for anything at all."""
    permission = call.route.permission
    assert permission is not None
    identity = call.identity
    if identity.tenant != call.tenant or not identity.rights.allow_somewhere(
        permission, call.tenant
    ):
        raise Forbidden(f"{call.identity.name} lacks the permission {permission}")


def _headers(scope: Scope) -> dict[str, str]:
    """Give the headers by name; of one that stands twice, nothing is taken.

    Raises:
        BadRequest: one that decides something stands twice.
    """
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1")
        if key in headers and key in _ONCE:
            raise BadRequest(f"the header {key} stands twice", where=key)
        headers[key] = value.decode("latin-1")
    return headers


_ONCE: Final = (
    "authorization", "content-type", "cookie", "x-outlast-form", "idempotency-key", "if-match",
    "last-event-id", "traceparent",
)  # fmt: skip


def _words(scope: Scope, route: Route) -> dict[str, Any]:
    """Give the parameters of the query; one that is a list may stand several times."""
    data: bytes = scope["query_string"]
    if not data:
        return {}
    from urllib.parse import parse_qsl

    try:
        pairs = parse_qsl(
            data.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=100,
        )
    except ValueError as error:
        raise BadRequest("the query cannot be read", where="query", why=str(error)) from None
    words: dict[str, Any] = {}
    lists = _lists_of(route.query)
    for name, value in pairs:
        if name in lists:
            words.setdefault(name, []).append(value)
        elif name in words:
            raise BadRequest(f"the parameter {name[:80]!a} stands twice", where="query")
        else:
            words[name] = value
    return words


def _lists_of(form: type[msgspec.Struct]) -> frozenset[str]:
    found = _LISTS.get(form)
    if found is None:
        fields = msgspec.structs.fields(form)
        found = _LISTS[form] = frozenset(
            one.encode_name for one in fields if "list[" in str(one.type)
        )
    return found


_LISTS: Final[dict[type, frozenset[str]]] = {}


async def _tell(
    error: OutlastError,
    scope: Scope,
    send: Send,
    route: Route | None,
    cause: BaseException | None = None,
) -> None:
    instance = f"urn:outlast:request:{secrets.token_hex(8)}"
    if status_of(error) == 500:
        _log.error("%s %s", instance, error, exc_info=cause or error)
    style = None if route is None else route.style
    told: Any = problem_of(error, instance=instance)
    if style is not None:
        told = style.write(error, instance)
    media = MEDIA if style is None else style.media
    headers = {"content-type": media, **headers_of(error)}
    await answer(scope, send, status_of(error), headers, _encode(told))


async def _stream(live: Live, scope: Scope, receive: Receive, send: Send) -> None:
    from outlast.server.live import serve

    guard: Guard = scope[GUARD]
    await serve(live.events, receive, send, lambda: guard.is_stopping, live.counts_still)


__all__ = ["create_app"]
