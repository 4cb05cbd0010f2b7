"""Serve an engine: one process, one event loop, until somebody wants it to stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from outlast.errors import CannotLoad, UsageError
from outlast.server import wire
from outlast.server.app import LOCAL, create_app
from outlast.server.auth import Authenticator, FirstToken, token_path
from outlast.server.front import Front
from outlast.server.guard import Guard

if TYPE_CHECKING:
    from outlast.engine.engine import Engine
    from outlast.server.known import Provider

TOKEN_LENGTH_MIN: Final = 20
STOP_SECONDS: Final = 2
"""How long answers under way may take when the server stops; streams of events are ended."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens.

    Attributes:
        host, port: the address; port 0 takes a free one.
        hosts: the names by which it may be called, besides its own address.
        origins: the origins of web pages that may write.
        is_wide: whether an address that other machines reach was asked for in so many words.
    """

    host: str = "127.0.0.1"
    port: int = 7575
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    is_wide: bool = False

    def check(self) -> None:
        """See that nobody is let in by mistake.

        Raises:
            UsageError: other machines could reach it, and nobody has said that they may.
        """
        if not _is_local(self.host) and not self.is_wide:
            raise UsageError(
                f"other machines reach {self.host}, and the token would go over the wire in plain",
                where="--host",
                why="the server speaks HTTP without TLS",
                do="leave --host out and put a proxy with TLS before it\n"
                "--unsafe-plain, where nobody else is on the wire",
            )


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def first_token(store: str) -> tuple[Authenticator, str | None]:
    """Give who says who calls, and the token where it has just been drawn: it is shown once.

    ``OUTLAST_TOKEN`` is taken where it is set; else the one whose digest is kept beside the store.

    Raises:
        UsageError: OUTLAST_TOKEN is too short to be a secret.
        StoreReadOnly: the file of the digest cannot be used.
    """
    given = os.environ.get("OUTLAST_TOKEN")
    if given is not None:
        if len(given) < TOKEN_LENGTH_MIN:
            raise UsageError(
                "the token is too short to be a secret",
                where="OUTLAST_TOKEN",
                why=f"it has {len(given)} characters, and {TOKEN_LENGTH_MIN} are the least",
                do="leave it out: the server draws one",
            )
        return FirstToken.of(given), None
    path = token_path(store)
    if path is None:
        return FirstToken.drawn()
    return FirstToken.at(path)


async def serve(
    engine: Engine,
    authenticator: Authenticator,
    address: Address,
    on_ready: Callable[[str], None] = lambda url: None,
    until: asyncio.Future[None] | None = None,
    telling: Callable[[Engine], AbstractAsyncContextManager[object] | None] = lambda engine: None,
    *,
    make: Callable[[str], Engine] | None = None,
    wanted: Iterable[str] | None = None,
    provider: Provider | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; the engine is opened and closed with it.

    Args:
        engine: the engine.
        authenticator: says who calls.
        address: where to listen.
        on_ready: is told the URL once it answers.
        until: stops it as well, once it is done.
        telling: makes what is entered as long as an engine is open, for each that is served here.
        make: makes the engine of another tenant; None: this one alone is served.
        wanted: which tenants are served besides; None: all that are open, also later ones.
        provider: an OpenID provider, for the other tenants.

    Raises:
        UsageError, CannotLoad: it may not, or cannot, listen there.
    """
    address.check()
    listener = _listener(address)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    named: dict[str, Any] = {
        "hosts": (*LOCAL, address.host, *address.hosts),
        "origins": address.origins,
    }
    front = (
        None
        if make is None
        else Front(engine, authenticator, make, wanted, provider, telling, **named)
    )
    app = front or create_app(engine, authenticator, **named)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=wire.IDLE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        http=wire.Connection,
    )
    server = _Server(config, lambda: on_ready(url))
    if until is not None:
        until.add_done_callback(lambda _: server.stop())
    try:
        async with engine:
            await see_somebody(engine, address)
            try:
                if front is not None:
                    await front.open()
                async with telling(engine) or contextlib.nullcontext():
                    await server.serve(sockets=[listener])
            finally:
                if front is not None:
                    await front.aclose()
    finally:
        listener.close()


async def see_somebody(engine: Engine, address: Address) -> None:
    """See that a server which other machines reach knows somebody besides its first token.

    Raises:
        UsageError: it does not.
    """
    if _is_local(address.host):
        return
    access = engine.store.access
    if not await engine.worker.read(lambda: access.users() or access.tokens() or access.held()):
        raise UsageError(
            f"other machines reach {address.host}, and nobody but the first token is known",
            where="--host",
            why="what everybody shares tells nobody apart, and cannot be taken from one alone",
            do="outlast user add NAME --role admin\noutlast token create NAME --role ROLE",
        )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first signal, at once at the second; and raise it nowhere afterwards."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        with contextlib.suppress(RuntimeError, ValueError):  # not in the main thread: no signals
            for number in numbers:
                loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            with contextlib.suppress(RuntimeError, ValueError):
                for number in numbers:
                    loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Stop in order; asked again, at once."""
        if isinstance(self.config.app, Guard | Front):
            self.config.app.is_stopping = True
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._on_ready()


def _listener(address: Address) -> socket.socket:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, place = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(1_024)
        listener.setblocking(False)
    except OSError as error:
        raise CannotLoad(
            f"the server cannot listen on {address.host}:{address.port}",
            where="--host, --port",
            why=error.strerror or str(error),
            do="--port 0 takes a free one",
        ) from None
    return listener


def checked_names(names: Iterable[str], option: str) -> tuple[str, ...]:
    """Give names of hosts back, having seen that they are without scheme and port.

    Raises:
        UsageError: one is none.
    """
    found = tuple(names)
    for name in found:
        if not name or "/" in name or "*" in name:
            raise UsageError(f"{name[:80]!a} is no host's name", where=option, do="as in ops.lan")
    return found


__all__ = ["Address", "checked_names", "first_token", "see_somebody", "serve"]
