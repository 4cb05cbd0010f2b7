"""A new version's schema: brought in when it is asked for, and never under living workers."""

from __future__ import annotations

import pytest

from outlast.errors import SchemaMismatch, StoreOwned
from outlast.store.postgres import PostgresStore, migrate
from outlast.store.postgres.address import Address
from outlast.store.protocol import WorkerRow
from outlast.testing.conformance import T

MINUTE_US = 60_000_000


def version_in(url: str) -> int | None:
    address = Address.of(url)
    with migrate.connect(address) as connection:
        return migrate.version_of(connection, address.schema)


def worker_of(name: str, lease_us: int) -> WorkerRow:
    return WorkerRow(name, "here", 1, T, T, lease_us=lease_us)


def test_an_upgrade_waits_for_workers_of_the_version_before(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = PostgresStore(postgres_url, owner="old", now=T)
    before.register(worker_of("old", MINUTE_US))
    before.register(worker_of("killed", 1))
    newest = migrate.NEWEST + 1
    more = (newest, "CREATE TABLE more (a bigint);")
    monkeypatch.setattr(migrate, "NEWEST", newest)
    monkeypatch.setattr(migrate, "MIGRATIONS", [*migrate.MIGRATIONS, more])

    with pytest.raises(SchemaMismatch, match="older"):
        PostgresStore(postgres_url, owner="new", now=T)
    with pytest.raises(StoreOwned) as refused:
        PostgresStore(postgres_url, owner="new", now=T, upgrade=True)
    assert refused.value.why is not None and refused.value.why.startswith("old: ")
    assert version_in(postgres_url) == newest - 1

    before.leave("old", T)
    before.close()
    PostgresStore(postgres_url, owner="new", now=T, upgrade=True).close()
    assert version_in(postgres_url) == newest
