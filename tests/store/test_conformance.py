"""Every store passes the one suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.store import open_store
from outlast.store.memory import MemoryStore
from outlast.store.protocol import Store
from outlast.testing.conformance import StoreConformance, T
from outlast.testing.conformance_access import AccessConformance, deed
from outlast.testing.conformance_budgets import BudgetConformance
from outlast.testing.conformance_capacity import CapacityConformance
from outlast.testing.conformance_epochs import EpochConformance
from outlast.testing.conformance_feed import FeedConformance
from outlast.testing.conformance_going_on import GoingOnConformance
from outlast.testing.conformance_labels import LabelsConformance
from outlast.testing.conformance_members import MembersConformance
from outlast.testing.conformance_observe import ObserveConformance
from outlast.testing.conformance_people import PeopleConformance
from outlast.testing.conformance_schedules import ScheduleConformance
from outlast.testing.conformance_streams import StreamsConformance
from outlast.testing.conformance_structure import StructureConformance
from outlast.testing.conformance_tenants import Beside, TenantsConformance
from outlast.testing.conformance_webhooks import WebhooksConformance
from servers.oldest import oldest
from servers.postgres import Server, debians
from tests.postgres.emptying import empty_postgres
from tests.store.short import VERBS, called_by, chosen, short


class Suite(
    StoreConformance,
    StructureConformance,
    StreamsConformance,
    ScheduleConformance,
    LabelsConformance,
    FeedConformance,
    MembersConformance,
    PeopleConformance,
    BudgetConformance,
    CapacityConformance,
    GoingOnConformance,
    AccessConformance,
    ObserveConformance,
    TenantsConformance,
    EpochConformance,
    WebhooksConformance,
):
    """All there is."""


def opened_beside(store: Store, open: Beside) -> Iterator[Beside]:
    """Open other tenants of a database, made where they are not there, and close them at the end."""
    stores: list[Store] = []

    def beside(name: str) -> Store:
        if store.tenants.get(name) is None:
            store.tenants.add(name, T, deed("tenant"))
        stores.append(open(name))
        return stores[-1]

    yield beside
    for one in stores:
        one.close()


class TestMemory(Suite):
    @pytest.fixture
    def store(self) -> Iterator[Store]:
        store = open_store("memory:", owner="w1", now=1)
        yield store
        store.close()

    @pytest.fixture
    def beside(self, store: Store) -> Iterator[Beside]:
        assert isinstance(store, MemoryStore)
        yield from opened_beside(store, lambda name: MemoryStore(tenant=name, beside=store))


class TestPostgres(Suite):
    @pytest.fixture
    def store(self, postgres_store: str) -> Iterator[Store]:
        store = open_store(postgres_store, owner="w1", now=1)
        yield store
        store.close()

    @pytest.fixture
    def beside(self, store: Store, postgres_store: str) -> Iterator[Beside]:
        yield from opened_beside(
            store, lambda name: open_store(postgres_store, owner="w1", now=1, tenant=name)
        )


@pytest.fixture(scope="module")
def older_postgres() -> Iterator[str]:
    """The address of a store on the oldest PostgreSQL there is, for one test after another."""
    found = oldest() or debians()
    if not found:
        pytest.skip("neither PostgreSQL 14 could be fetched, nor has Debian one here")
    with Server(found[0]) as server:
        url = server.url("postgres", by_socket=True)
        open_store(url, owner="w0", now=1).close()
        yield url


class TestOlderPostgres(
    short(Suite),  # type: ignore[misc]
    StoreConformance,
    MembersConformance,
    BudgetConformance,
    EpochConformance,
):
    """Every verb on PostgreSQL 14, or what Debian has, and all of what writes and locks most."""

    @pytest.fixture
    def store(self, older_postgres: str) -> Iterator[Store]:
        empty_postgres(older_postgres)
        store = open_store(older_postgres, owner="w1", now=1)
        yield store
        store.close()

    @pytest.fixture
    def beside(self, store: Store, older_postgres: str) -> Iterator[Beside]:
        yield from opened_beside(
            store, lambda name: open_store(older_postgres, owner="w1", now=1, tenant=name)
        )


class TestSqlite(Suite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = open_store(f"sqlite:///{tmp_path}/outlast.db", owner="w1", now=1)
        yield store
        store.close()

    @pytest.fixture
    def beside(self, store: Store) -> Iterator[Beside]:
        yield from opened_beside(
            store, lambda name: open_store(store.url, owner="w1", now=1, tenant=name)
        )


UNTRIED = {
    *("backup", "close", "hurry"),  # of a file; at the end of every test; of connections alone
    *("capacity.defects", "schedules.defects"),  # by verify, which calls them
    *("dependents", "health"),  # by the table of readings of the tests of tenants
    "epochs.keeping",  # of a server alone; by tests/postgres/test_failover.py
}
"""Verbs that no test of the suite names; whoever adds one adds a test of it, or a reason here."""


def test_the_short_form_calls_every_verb() -> None:
    called = {verb for test in chosen(Suite).values() for verb in called_by(test)}
    assert called == VERBS - UNTRIED
    assert 30 < len(chosen(Suite)) < 100
