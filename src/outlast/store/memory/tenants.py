"""Tenants in memory: a registry that the stores of one memory share, and nothing else."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from msgspec.structs import replace

from outlast.store.protocol import DEFAULT_NUMBER, DEFAULT_TENANT, Tenant

if TYPE_CHECKING:
    from outlast.access.audit import Deed
    from outlast.store.memory.access import MemoryAccess


class Registry:
    """The tenants of one memory."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.rows = {DEFAULT_TENANT: Tenant(DEFAULT_NUMBER, DEFAULT_TENANT)}

    def add(self, name: str, now: int) -> bool:
        """Make a tenant; gives whether the name was free."""
        with self.lock:
            if name in self.rows:
                return False
            self.rows[name] = Tenant(len(self.rows) + 1, name, now)
            return True


class MemoryTenants:
    """The verbs on tenants; see the protocol."""

    def __init__(self, registry: Registry, access: MemoryAccess) -> None:
        self.registry, self._access = registry, access

    def page(self) -> list[Tenant]:
        """See the protocol."""
        with self.registry.lock:
            return list(self.registry.rows.values())

    def get(self, name: str) -> Tenant | None:
        """See the protocol."""
        return self.registry.rows.get(name)

    def add(self, name: str, now: int, deed: Deed | None = None) -> bool:
        """See the protocol."""
        with self._access.lock, self.registry.lock:
            if not self.registry.add(name, now):
                return False
            if deed is not None:
                self._access.append([(deed, f"tenant:{name}", {})])
            return True

    def close(self, name: str, at: int | None, deed: Deed | None = None) -> bool:
        """See the protocol."""
        with self._access.lock, self.registry.lock:
            row = self.registry.rows.get(name)
            if row is None or name == DEFAULT_TENANT or (row.closed_at is None) == (at is None):
                return False
            self.registry.rows[name] = replace(row, closed_at=at)
            if deed is not None:
                self._access.append([(deed, f"tenant:{name}", {"closed": at is not None})])
            return True


__all__ = ["MemoryTenants", "Registry"]
