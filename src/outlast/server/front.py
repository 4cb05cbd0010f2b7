"""One server for several tenants: whose a request is, and the app that answers it.

Theory of operation. Each tenant has an engine and an app of its own, which know nothing of each
other: users, tokens, limits, keys and cursors are their own, and an execution of another tenant is
not there, like one that never was. A request names its tenant by a header, and without one is the
default tenant's. A name that nobody has is answered as a wrong token is, by the same bytes, so that
nobody learns which tenants there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from outlast.accounts.desk import unknown
from outlast.errors import OutlastError, Unauthenticated
from outlast.server.app import create_app
from outlast.server.auth import Authenticator, Identity
from outlast.server.guard import App, Guard, Receive, Scope, Send
from outlast.server.known import StoreAuthenticator
from outlast.server.table import ROUTES
from outlast.store.protocol import DEFAULT_TENANT, Tenant

if TYPE_CHECKING:
    from outlast.engine.engine import Engine
    from outlast.server.call import Call
    from outlast.server.known import Provider
    from outlast.server.route import Route

HEADER: Final = "outlast-tenant"
LOOK_SECONDS: Final = 1.0
"""How often the store is asked for new tenants at most, whatever names are tried."""


def _nothing(engine: Engine) -> None:
    return None


class Front:
    """An ASGI app that brings each request to its tenant's.

    Args:
        engine: the default tenant's, or that of the only one that is served.
        authenticator: says who calls it.
        make: makes the engine of another tenant, which is not open yet.
        wanted: which tenants are served besides; None: all that are open, also later ones.
        provider: says who somebody is that has its token; of each tenant.
        telling: makes what is entered for as long as the engine of another tenant is open.
        more: what :func:`~outlast.server.app.create_app` is told.
    """

    def __init__(
        self,
        engine: Engine,
        authenticator: Authenticator,
        make: Callable[[str], Engine],
        wanted: Iterable[str] | None = None,
        provider: Provider | None = None,
        telling: Callable[[Engine], AbstractAsyncContextManager[object] | None] = _nothing,
        **more: Any,
    ) -> None:
        self._telling = telling
        self._engine, self._make, self._provider, self._more = engine, make, provider, more
        self._wanted = None if wanted is None else frozenset(wanted)
        self._first = create_app(engine, authenticator, **more)
        self._strangers = create_app(
            engine, _Nobody(), routes=[_blind(route) for route in ROUTES], **more
        )
        self._apps: dict[str, App] = {engine.tenant: self._first}
        self._stack = contextlib.AsyncExitStack()
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")

    @property
    def is_stopping(self) -> bool:
        """Whether nothing new is begun."""
        return any(app.is_stopping for app in self._guards())

    @is_stopping.setter
    def is_stopping(self, value: bool) -> None:
        for app in self._guards():
            app.is_stopping = value

    def _guards(self) -> list[Guard]:
        apps = (self._strangers, *self._apps.values())
        return [app for app in apps if isinstance(app, Guard)]

    async def open(self) -> None:
        """Open the engines of all tenants that are served; the first one is open."""
        await self._look()

    async def aclose(self) -> None:
        """Close the engines that were opened here."""
        await self._stack.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Bring a request to the app of its tenant."""
        if scope["type"] != "http":
            await self._first(scope, receive, send)
            return
        name = _named(scope, self._engine.tenant)
        app = self._apps.get(name)
        if app is None and time.monotonic() - self._looked_at > LOOK_SECONDS:
            with contextlib.suppress(OutlastError):
                await self._look()
            app = self._apps.get(name)
        await (app or self._strangers)(scope, receive, send)

    async def _look(self) -> None:
        """Open the engines of tenants that have none yet.

        Raises:
            OutlastError: one cannot be opened.
        """
        async with self._looking:
            if time.monotonic() - self._looked_at <= LOOK_SECONDS:
                return
            self._looked_at = time.monotonic()
            if self._engine.tenant != DEFAULT_TENANT:
                return  # only the default one knows of the others
            found = await self._engine.worker.read(self._engine.store.tenants.page)
            for tenant in found:
                if tenant.name not in self._apps and self._serves(tenant):
                    engine = self._make(tenant.name)
                    await self._stack.enter_async_context(engine)
                    told = self._telling(engine)
                    if told is not None:
                        await self._stack.enter_async_context(told)
                    self._engine.beside.append(engine)
                    authenticator = StoreAuthenticator(engine, None, self._provider)
                    self._apps[tenant.name] = create_app(engine, authenticator, **self._more)

    def _serves(self, tenant: Tenant) -> bool:
        if tenant.closed_at is not None:
            return False
        return self._wanted is None or tenant.name in self._wanted


class _Nobody:
    """Knows nobody, and says so as :class:`StoreAuthenticator` does."""

    async def authenticate(self, headers: Mapping[str, str]) -> Identity:
        """Say who calls.

        Raises:
            Unauthenticated: always.
        """
        if "authorization" not in headers and "cookie" not in headers:
            raise Unauthenticated("the request brings no token")
        raise unknown()


def _blind(route: Route) -> Route:
    """Give a route by which nobody can sign in, and which takes as long to say so."""
    if route.path != "/api/v1/session" or route.method != "POST":
        return route
    handler: Callable[[Call], Awaitable[Any]] = route.handler

    async def refuse(call: Call) -> Any:
        call.body = msgspec.structs.replace(call.body, name=f"\0{call.body.name}")
        return await handler(call)

    return replaced(route, refuse)


def replaced(route: Route, handler: Callable[[Call], Awaitable[Any]]) -> Route:
    """Give a route with another handler."""
    from dataclasses import replace

    return replace(route, handler=handler)


def _named(scope: Scope, default: str) -> str:
    """Give the tenant that a request names; "" where it names none that could be."""
    found = [value for name, value in scope["headers"] if name.lower() == HEADER.encode()]
    if not found:
        return default
    return str(found[0].decode("latin-1")) if len(found) == 1 else ""


__all__ = ["HEADER", "Front"]
