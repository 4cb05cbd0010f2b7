"""Tenants in SQL; what the statements of all other verbs are filled in with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from outlast.store.protocol import Tenant
from outlast.store.relational.rows import Value

if TYPE_CHECKING:
    from outlast.access.audit import Deed
    from outlast.store.relational.store import RelationalStore


class RelationalTenants:
    """The verbs on tenants; see the protocol."""

    def __init__(self, store: RelationalStore) -> None:
        self._store, self._database = store, store.database

    def page(self) -> list[Tenant]:
        """See the protocol."""
        return [Tenant(*row) for row in self._database.read("tenants", {})]  # type: ignore[arg-type]

    def get(self, name: str) -> Tenant | None:
        """See the protocol."""
        found = self._database.read("tenant_by_name", {"name": name})
        return Tenant(*found[0]) if found else None  # type: ignore[arg-type]

    def add(self, name: str, now: int, deed: Deed | None = None) -> bool:
        """See the protocol."""
        bounds: dict[str, Value] = {"name": name, "created_at": now}
        return self._change(lambda: self._database.run("insert_tenant", bounds), name, deed, {})

    def close(self, name: str, at: int | None, deed: Deed | None = None) -> bool:
        """See the protocol."""
        bounds: dict[str, Value] = {"name": name, "at": at}
        facts = {"closed": at is not None}
        return self._change(lambda: self._database.run("set_closed", bounds), name, deed, facts)

    def _change(
        self, act: Callable[[], int], name: str, deed: Deed | None, facts: Mapping[str, Any]
    ) -> bool:
        def change() -> bool:
            changed = bool(act())
            if changed and deed is not None:
                self._store.audit([(deed, f"tenant:{name}", facts)])
            return changed

        return self._database.write(change)


__all__ = ["RelationalTenants"]
