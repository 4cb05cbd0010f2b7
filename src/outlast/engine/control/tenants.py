"""The tenants of a store, as the engine of its default tenant administers them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from outlast.engine.write.acting import deed
from outlast.errors import NameTaken, UnknownTenant, UsageError
from outlast.naming import checked_tenant
from outlast.store.protocol import DEFAULT_NUMBER, DEFAULT_TENANT, Tenant

if TYPE_CHECKING:
    from outlast.access.audit import Deed
    from outlast.engine.engine import Engine
    from outlast.store.protocol import Tenants as Verbs


class Tenants:
    """Adds, lists, closes and opens tenants; only the default tenant's engine may.

    Methods that begin with ``a`` are for asyncio, the others for threads.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def aadd(self, name: str) -> Tenant:
        """Add a tenant.

        Raises:
            UsageError: its name can be none, or this is another tenant's engine.
            NameTaken: there is one of this name.
        """
        now, done = self._engine.clock.now(), deed()
        return await self._change(lambda verbs: added(verbs, name, now, done))

    def add(self, name: str) -> Tenant:
        """Add a tenant, as :meth:`aadd`."""
        return self._engine.run(self.aadd(name))

    async def aall(self) -> list[Tenant]:
        """List the tenants."""
        verbs = self._verbs()
        return await self._engine.worker.read(verbs.page)

    def all(self) -> list[Tenant]:
        """List the tenants, as :meth:`aall`."""
        return self._engine.run(self.aall())

    async def aclose(self, name: str) -> Tenant:
        """Close a tenant: nothing is started or claimed in it; what runs goes on until it parks.

        Raises:
            UnknownTenant: there is none of this name.
            UsageError: it is the default one.
        """
        now, done = self._engine.clock.now(), deed()
        return await self._change(lambda verbs: changed(verbs, name, now, done))

    def close(self, name: str) -> Tenant:
        """Close a tenant, as :meth:`aclose`."""
        return self._engine.run(self.aclose(name))

    async def aopen(self, name: str) -> Tenant:
        """Open a tenant again.

        Raises:
            UnknownTenant: there is none of this name.
        """
        done = deed()
        return await self._change(lambda verbs: changed(verbs, name, None, done))

    def open(self, name: str) -> Tenant:
        """Open a tenant again, as :meth:`aopen`."""
        return self._engine.run(self.aopen(name))

    async def _change(self, change: Callable[[Verbs], Tenant]) -> Tenant:
        verbs = self._verbs()
        return await self._engine.journal.call(lambda: change(verbs))

    def _verbs(self) -> Verbs:
        if self._engine.store.tenant != DEFAULT_NUMBER:
            raise UsageError(
                "only the default tenant knows of the others",
                where=self._engine.tenant,
                do=f'Engine(…, tenant="{DEFAULT_TENANT}")',
            )
        return self._engine.store.tenants


def added(verbs: Verbs, name: str, now: int, done: Deed | None) -> Tenant:
    """Add a tenant to a store; see :meth:`Tenants.aadd`."""
    if not verbs.add(checked_tenant(name), now, done):
        raise NameTaken(f"there is a tenant {name} already", do="outlast tenant ls")
    return known(verbs, name)


def changed(verbs: Verbs, name: str, at: int | None, done: Deed | None) -> Tenant:
    """Close a tenant of a store, or open it; see :meth:`Tenants.aclose`."""
    if known(verbs, name).number == DEFAULT_NUMBER and at is not None:
        raise UsageError("the default tenant is never closed", why="it administers the others")
    verbs.close(name, at, done)
    return known(verbs, name)


def known(verbs: Verbs, name: str) -> Tenant:
    """Read a tenant that is there.

    Raises:
        UnknownTenant: it is not.
    """
    found = verbs.get(name)
    if found is None:
        raise UnknownTenant(f"there is no tenant {name}", do="outlast tenant ls")
    return found


__all__ = ["Tenants", "added", "changed", "known"]
