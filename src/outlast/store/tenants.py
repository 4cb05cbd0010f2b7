"""What the opening of a tenant says, the same for every store."""

from __future__ import annotations

from typing import Final

from outlast.errors import TenantClosed, UnknownTenant
from outlast.store.protocol import Tenant


def opened(tenant: Tenant | None, name: str, where: str, *, owner: bool) -> int:
    """Give a tenant's number to somebody who opens a store for it.

    Raises:
        UnknownTenant: it is not there.
        TenantClosed: it is closed, and an owner asks, who would run its executions.
    """
    if tenant is None:
        raise UnknownTenant(
            f"there is no tenant {name}", where=where, do=f"outlast tenant add {name}"
        )
    if owner and tenant.closed_at is not None:
        raise closed(name, where)
    return tenant.number


class Every:
    """A set of queues that has all there could be: in a closed tenant none gives a lease."""

    def __contains__(self, name: object) -> bool:
        return True


EVERY: Final = Every()


def closed(name: str, where: str) -> TenantClosed:
    """Say that a tenant is closed."""
    return TenantClosed(
        f"the tenant {name} is closed" if name else "the tenant is closed",
        where=where,
        why="nothing is started or run in it; what is there can be read",
        do=f"outlast tenant open {name}".rstrip(),
    )


__all__ = ["EVERY", "Every", "closed", "opened"]
