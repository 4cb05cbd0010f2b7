"""Tenants over HTTP: by those who administer the default one, and nobody else."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from outlast.duration import instant
from outlast.errors import Forbidden, NotFound
from outlast.server.call import Call
from outlast.store.protocol import DEFAULT_NUMBER, Tenant

TenantName = Annotated[str, Meta(pattern="^[a-z][a-z0-9_-]{0,62}$")]


class TenantForm(msgspec.Struct):
    """A tenant; `created_at` is null for the one that is always there."""

    name: str
    created_at: datetime | None
    closed_at: datetime | None


class TenantPage(msgspec.Struct):
    """The tenants, in the order they were made."""

    items: list[TenantForm]


class TenantBody(msgspec.Struct, forbid_unknown_fields=True):
    """A tenant to be."""

    name: TenantName


async def list_tenants(call: Call) -> TenantPage:
    """List the tenants; only for the default one's."""
    see_default(call)
    return TenantPage(list(map(_form, await call.engine.tenants.aall())))


async def add_tenant(call: Call) -> TenantForm:
    """Add a tenant; it is served from its first request on."""
    see_default(call)
    return _form(await call.engine.tenants.aadd(call.body.name))


async def close_tenant(call: Call) -> TenantForm:
    """Close a tenant: nothing is started or claimed in it; again changes nothing."""
    return _form(await call.engine.tenants.aclose(await _known(call)))


async def open_tenant(call: Call) -> TenantForm:
    """Open a tenant again; again changes nothing."""
    return _form(await call.engine.tenants.aopen(await _known(call)))


def see_default(call: Call) -> None:
    """See that the caller is of the tenant that administers the others.

    Raises:
        Forbidden: it is not.
    """
    if call.tenant != DEFAULT_NUMBER:
        raise Forbidden("only the default tenant knows of the others", where=call.identity.name)


async def _known(call: Call) -> str:
    """Give the name in the path, which is a tenant's."""
    see_default(call)
    name = call.path["name"]
    if not any(one.name == name for one in await call.engine.tenants.aall()):
        raise NotFound(f"there is no tenant {name[:80]!a}", do="GET /api/v1/tenants")
    return name


def _form(tenant: Tenant) -> TenantForm:
    return TenantForm(
        tenant.name,
        instant(tenant.created_at) if tenant.created_at else None,
        None if tenant.closed_at is None else instant(tenant.closed_at),
    )


__all__ = [
    "TenantBody",
    "TenantForm",
    "TenantPage",
    "add_tenant",
    "close_tenant",
    "list_tenants",
    "open_tenant",
    "see_default",
]
