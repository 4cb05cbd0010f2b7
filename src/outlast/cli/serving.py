"""The commands that serve: server, dev."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from outlast.cli.exits import OK
from outlast.cli.logs import logged
from outlast.cli.outlet import Outlets
from outlast.cli.session import Session, shared
from outlast.cli.telling import OTEL, telemetry
from outlast.errors import UsageError
from outlast.extras import needed
from outlast.naming import tenant_of

if TYPE_CHECKING:
    from outlast.engine.engine import Engine

_OPTIONS = (
    click.argument("sources", nargs=-1, required=True, metavar="FILE…"),
    click.option("--host", default="127.0.0.1", show_default=True, help="Where it listens."),
    click.option(
        "--port",
        default=7575,
        show_default=True,
        type=click.IntRange(0, 65_535),
        help="0 takes a free one.",
    ),
    click.option(
        "--allow-host",
        "hosts",
        multiple=True,
        metavar="NAME",
        help="A name by which it may be called, as behind a proxy; repeatable.",
    ),
    click.option(
        "--allow-origin",
        "origins",
        multiple=True,
        metavar="ORIGIN",
        help="A web page's origin that may write, as https://ops.example; repeatable.",
    ),
    click.option(
        "--unsafe-plain",
        is_flag=True,
        help="Listen where other machines reach it, although it speaks without TLS.",
    ),
    click.option("--oidc-issuer", metavar="URL", help="An OpenID provider, as its tokens name it."),
    click.option("--oidc-audience", metavar="TEXT", help="For whom its tokens must be meant."),
    click.option("--oidc-keys", metavar="URL", help="Where its keys are: https://…, or a file."),
    click.option(
        "--oidc-name",
        default="sub",
        show_default=True,
        metavar="CLAIM",
        help="The claim that names somebody.",
    ),
    click.option(
        "--oidc-groups",
        default="groups",
        show_default=True,
        metavar="CLAIM",
        help="The claim that lists groups, which hold roles as group:NAME.",
    ),
    click.option(
        "--slots",
        default=1_000,
        show_default=True,
        type=click.IntRange(1),
        help="Executions at once.",
    ),
    OTEL,
)


def _serving(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@_serving
@shared
@logged
def server(session: Session, sources: Sequence[str], **more: Any) -> int:
    """Serve the engine over HTTP, with the tasks in FILE, until SIGTERM or Ctrl-C.

    The first start prints a token that may do everything; it is kept as a digest only. Callers send
    it as "authorization: Bearer TOKEN"; the command line takes it from OUTLAST_TOKEN.
    """
    return _run(session, sources, **more)


@click.command()
@_serving
@shared
@logged
def dev(session: Session, sources: Sequence[str], **more: Any) -> int:
    """Run the tasks in FILE and serve them on this machine: engine, worker and server in one.

    It is outlast server, said shorter: on outlast.db in this directory, for who sits here.
    """
    return _run(session, sources, **more)


def _run(
    session: Session,
    sources: Sequence[str],
    host: str,
    port: int,
    hosts: Sequence[str],
    origins: Sequence[str],
    unsafe_plain: bool,
    slots: int,
    oidc_issuer: str | None,
    oidc_audience: str | None,
    oidc_keys: str | None,
    oidc_name: str,
    oidc_groups: str,
    otel: bool,
) -> int:
    from outlast.cli.loading import load_module
    from outlast.cli.running import quieten
    from outlast.engine.engine import Engine
    from outlast.engine.task.registry import TASKS

    with needed("server", "the server"):
        from outlast.server.known import StoreAuthenticator
        from outlast.server.oidc import OpenId
        from outlast.server.serving import Address, checked_names, first_token, serve
    address = Address(
        host, port, checked_names(hosts, "--allow-host"), tuple(origins), unsafe_plain
    )
    address.check()
    named = (oidc_issuer, oidc_audience, oidc_keys)
    if any(named) and not all(named):
        raise UsageError(
            "a provider is named by three options", do="--oidc-issuer, --oidc-audience, --oidc-keys"
        )
    provider = None
    if oidc_issuer and oidc_audience and oidc_keys:
        provider = OpenId(oidc_issuer, oidc_audience, oidc_keys, oidc_name, oidc_groups).opened()
    with Outlets():
        for source in sources:
            file, _, name = source.rpartition(":")
            load_module(file if name.isidentifier() and file else source)
        if all(name.startswith("outlast.") for name in TASKS):
            raise UsageError(
                "there is no task to serve", where=", ".join(sources), do="put @task before one"
            )
        quieten(session)
        names = session.tenants or ((tenant_of(None),) if os.environ.get("OUTLAST_TENANT") else ())
        first = "default" if "default" in names or not names else names[0]
        if len(names) > 1 and "default" not in names:
            raise UsageError(
                "several tenants are served beside the default one",
                where="--tenant",
                why="only the default tenant knows of the others",
                do="--tenant default, too; or name one alone",
            )
        engine = Engine(session.url, tenant=first, slots=slots)
        telemetry(engine, wanted=otel)  # what it needs is missed now, not once it serves

        async def serving() -> None:
            shared, token = first_token(session.url)
            authenticator = StoreAuthenticator(
                engine, shared if engine.tenant == "default" else None, provider
            )
            await serve(
                engine,
                authenticator,
                address,
                lambda url: _say(session, engine, url, token),
                telling=lambda one: telemetry(one, wanted=otel, records=one is engine),
                make=lambda name: Engine(session.url, tenant=name, slots=slots),
                wanted=names or None,
                provider=provider,
            )

        asyncio.run(serving())
    session.say("stopped")
    return OK


def _say(session: Session, engine: Engine, url: str, token: str | None) -> None:
    """Say where it listens; a token that was drawn is shown here and never again."""
    tasks = sorted(name for name in engine.tasks if not name.startswith("outlast."))
    if session.as_json:
        session.json(
            {
                "type": "server",
                "url": url,
                "token": token,
                "store": session.url,
                "pid": os.getpid(),
                "tasks": tasks,
            },
            indent=False,
        )
        return
    if session.quiet:
        return
    few = ", ".join(tasks[:8]) + (f" and {len(tasks) - 8} more" if len(tasks) > 8 else "")
    session.out(f"serving {few} on {url} · {session.url} · pid {os.getpid()} · Ctrl-C stops it")
    if token is not None:
        session.out(f"token {token}")
        session.say("it may do everything, and is shown only now: export OUTLAST_TOKEN=…")


__all__ = ["dev", "server"]
