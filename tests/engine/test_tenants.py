"""Engines of several tenants on one store, also in one process: none sees what another one has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from outlast import Engine, step, task
from outlast.engine.guest import Guest
from outlast.errors import StoreOwned, TenantClosed, UnknownTenant, UsageError
from outlast.store import open_store
from outlast.store.protocol import Filter
from outlast.testing.conformance import T
from outlast.testing.conformance_access import deed


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    found: str = (
        f"sqlite:///{tmp_path}/outlast.db"
        if request.param == "sqlite"
        else request.getfixturevalue("postgres_store")
    )
    store = open_store(found, owner="w0", now=T)
    for name in ("acme", "umbrella"):
        store.tenants.add(name, T, deed("tenant"))
    store.close()
    return found


@pytest.fixture
def engines(url: str) -> Iterator[list[Engine]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(Engine(url, tenant=name, threads=4))
            for name in ("default", "acme", "umbrella")
        ]


@task
def leaf(word: str) -> str:
    return word


@step
def starts_another(word: str) -> str:
    return leaf.start(word).id  # from a step's body: on the engine that runs it


@task
def outer(word: str) -> str:
    return starts_another(word)


def test_what_is_started_is_of_its_engines_tenant(engines: list[Engine]) -> None:
    ids = set()
    for engine in engines:
        one = engine.start(outer, engine.tenant)
        ids.add(one.result(timeout=100))
    assert len(ids) == 3
    for engine in engines:
        found = engine.store.page(Filter())
        assert {record.task for record in found} == {"outer", "leaf"} and len(found) == 2
        assert {record.tenant for record in found} == {engine.store.tenant}
        (inner,) = [record for record in found if record.task == "leaf"]
        assert inner.id in ids, "a body starts things in its own tenant"


def test_a_guest_is_of_one_tenant(url: str, engines: list[Engine]) -> None:
    mine = engines[1].start(leaf, "x")
    assert mine.result(timeout=100) == "x"
    with Guest(url, tenant="acme") as own, Guest(url, tenant="umbrella") as other:
        assert own.record(mine.id).state == "succeeded"
        assert other.store.get([mine.id]) == [None] and other.store.page(Filter()) == []
        assert other.tenant == "umbrella"


def test_the_environment_names_a_tenant(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLAST_TENANT", "acme")
    with Engine(url) as engine, Guest(url) as guest:
        assert engine.tenant == guest.tenant == "acme" and guest.store.tenant == 2
    with Engine(url, tenant="default") as engine:
        assert engine.store.tenant == 1


def test_who_is_refused(url: str) -> None:
    with pytest.raises(UnknownTenant), Engine(url, tenant="nobody"):
        pass
    with pytest.raises(UsageError, match="no name of a tenant"):
        Engine(url, tenant="No Name")
    store = open_store(url, owner=None, now=T)
    store.tenants.close("acme", T, deed("close"))
    with pytest.raises(TenantClosed), Engine(url, tenant="acme"):
        pass
    store.close()


def test_a_tenant_that_is_closed_under_its_engine(url: str) -> None:
    with Engine(url, tenant="acme") as engine:
        assert engine.start(leaf, "before").result(timeout=100) == "before"
        store = open_store(url, owner=None, now=T)
        store.tenants.close("acme", T, deed("close"))
        with pytest.raises(TenantClosed):
            engine.start(leaf, "after")
        store.tenants.close("acme", None, deed("open"))
        assert engine.start(leaf, "again").result(timeout=100) == "again"
        store.close()


def test_one_engine_a_tenant_of_a_file(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/one.db"
    with Engine(address, tenant="default"), pytest.raises(StoreOwned), Engine(address):
        pass


def test_a_token_is_for_its_tenant(tmp_path: Path) -> None:
    """The secret is the tenant's own, so that another one's token is foreign."""
    address = f"sqlite:///{tmp_path}/one.db"
    store = open_store(address, owner="w0", now=T)
    store.tenants.add("acme", T, deed("tenant"))
    store.close()
    with Guest(address) as first, Guest(address, tenant="acme") as second:
        assert first.store.secret("tokens", b"a" * 32) != second.store.secret("tokens", b"b" * 32)


def test_memory_has_any_tenant() -> None:
    with Engine("memory:", tenant="acme") as engine:
        assert engine.start(leaf, "x").result(timeout=100) == "x"
