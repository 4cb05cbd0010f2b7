"""Executions whose workers have died several times are run apart from their like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.lifecycle import Kind
from outlast.store.memory import MemoryStore
from outlast.store.protocol import SUSPECT, Claims, Lease, Store
from outlast.store.sqlite import SqliteStore
from outlast.testing.conformance import Owner, T, born, codes, nonces, replace


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store: Store = MemoryStore()
    if request.param == "sqlite":
        store = SqliteStore(tmp_path / "outlast.db", owner="w0", now=T)
    yield store
    store.close()


def claim(store: Store, lease: Lease, seed: int) -> Claims:
    return store.claim(lease, ["t"], 100, T + seed, nonces(100, seed))


def test_suspects_come_one_at_a_time(store: Store) -> None:
    assert set(codes(store.commit([born(f"ex_{n}") for n in range(3)]))) == {None}
    lease = Lease("w1")
    for death in range(1, SUSPECT + 1):
        claims = claim(store, lease, death)
        assert len(claims) == 3 and not claims.is_apart, "together, at first"
        assert store.recover(["w1"], "w2", T + death, 10) == 3
    assert set(codes(store.commit([born("ex_9")]))) == {None}
    claims = claim(store, lease, 10)
    assert sorted(one.execution.idle_claims for one in claims) == [1, SUSPECT + 1]
    assert claims.is_apart
    claims_beside = claim(store, replace(lease, has_suspect=True), 11)
    assert list(claims_beside) == [] and claims_beside.is_apart
    (suspect,) = (one for one in claims if one.execution.idle_claims > SUSPECT)
    owner = Owner(suspect.execution)
    assert codes(store.commit([owner.write(Kind.START), owner.write(Kind.FINISH)])) == [None, None]
    assert len(claim(store, lease, 12)) == 1, "the next of them"
    assert store.verify().defects == []
