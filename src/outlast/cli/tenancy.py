"""The commands about tenants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from outlast.cli.session import Session, shared
from outlast.cli.words import moment, now_us
from outlast.errors import UsageError
from outlast.naming import checked_tenant

if TYPE_CHECKING:
    from outlast.engine.guest import Guest
    from outlast.store.protocol import Tenant

_HELP = {"help_option_names": ["-h", "--help"]}


@click.group(context_settings=_HELP)
def tenant() -> None:
    """Tenants, which share a store and see nothing of each other.

    One is always there: default, which has everything where no tenant is named. The others are
    made by it. A command is about one of them: --tenant NAME, or OUTLAST_TENANT.
    """


@tenant.command()
@click.argument("name")
@shared
def add(session: Session, name: str) -> None:
    """Add a tenant; its name is of small letters, digits, "-" and "_", and stays."""
    from outlast.engine.control.tenants import added
    from outlast.engine.write.acting import deed

    checked_tenant(name)
    with _default(session, make=True) as guest:
        made = added(guest.tenants, name, now_us(), deed())
        if not session.is_remote:
            _draw_key(guest, name)
    _say(session, made, "made")


@tenant.command("ls")
@shared
def ls(session: Session) -> None:
    """List the tenants."""
    with _default(session) as guest:
        found = guest.tenants.page()
    if session.as_json:
        session.json({"items": list(map(tenant_form, found))})
    elif session.output == "ids":
        for one in found:
            session.out(one.name)
    else:
        heads = ["NAME", "NUMBER", "SINCE", "STATE"]
        session.table(heads, [[*_row(one)] for one in found])


@tenant.command()
@click.argument("name")
@shared
def close(session: Session, name: str) -> None:
    """Close a tenant: nothing is started or claimed in it; what is there can be read."""
    _set(session, name, now_us(), "closed")


@tenant.command("open")
@click.argument("name")
@shared
def open_(session: Session, name: str) -> None:
    """Open a tenant again that was closed."""
    _set(session, name, None, "open")


def _set(session: Session, name: str, at: int | None, word: str) -> None:
    from outlast.engine.control.tenants import changed, known
    from outlast.engine.write.acting import deed

    with _default(session) as guest:
        was = known(guest.tenants, name)
        now = changed(guest.tenants, name, at, deed())
    _say(session, now, f"is {word} already" if now == was else word)


@contextmanager
def _default(session: Session, *, make: bool = False) -> Iterator[Guest]:
    """Open the store for the tenant that administers the others.

    Raises:
        UsageError: another one was named.
    """
    if not session.is_default:
        raise UsageError(
            "only the default tenant knows of the others",
            where=f"--tenant {session.tenant}",
            do="leave --tenant and OUTLAST_TENANT out",
        )
    with session.guest(make=make) as guest:
        yield guest


def _draw_key(guest: Guest, name: str) -> None:
    """Have the tenant's data key drawn where payloads are sealed: nothing is ever in the clear."""
    if guest.store.sealing is not None:
        from outlast.engine.write.identity import worker_name
        from outlast.store import open_store

        open_store(guest.address, owner=worker_name(), now=now_us(), tenant=name).close()


def _say(session: Session, made: Tenant, word: str) -> None:
    if session.as_json:
        session.json(tenant_form(made))
    else:
        session.out(f"tenant {made.name} {word}")


def _row(one: Tenant) -> tuple[str, str, str, str]:
    since = "always" if not one.created_at else moment(one.created_at)
    state = "open" if one.closed_at is None else f"closed since {moment(one.closed_at)}"
    return one.name, str(one.number or ""), since, state


def tenant_form(one: Tenant) -> dict[str, Any]:
    """Write a tenant as JSON has it."""
    from outlast.forms import at

    return {
        "name": one.name,
        "number": one.number or None,
        "created_at": at(one.created_at) if one.created_at else None,
        "closed_at": None if one.closed_at is None else at(one.closed_at),
    }


__all__ = ["tenant", "tenant_form"]
