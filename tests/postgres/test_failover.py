"""A primary that dies with a tail that its standby never got: nothing stale, nothing silent.

Two real servers by streaming replication. The standby is cut off before the last things are
acknowledged, so that it lacks them for certain; then the primary is killed, and the standby
promoted. The workers have an address with both.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from outlast import Engine
from outlast.errors import StoreUnavailable
from outlast.lifecycle import Kind
from outlast.store import open_store
from servers.postgres import Server

from .fleet_app import held, quick
from .test_fleet import LONG, Worker, ledger, now, until

MANY = 12
LOST = 5


@pytest.fixture
def primary(every_postgres: Server) -> Iterator[Server]:
    """Of each version, but of one's own: it is killed."""
    with Server(every_postgres.installation) as server:
        yield server


@pytest.fixture
def standby(primary: Server) -> Iterator[Server]:
    with Server(standby_of=primary) as server:
        yield server


def both(primary: Server, standby: Server, database: str = "postgres") -> str:
    """The address of whichever of both takes writes."""
    user, _, place = primary.url(database).removeprefix("postgresql://").partition("@")
    host = place.partition(":")[0]
    hosts = f"{host}:{primary.port},{host}:{standby.port}"
    return f"postgresql://{user}@{hosts}/{database}"


def asked(server: Server, question: str) -> list[tuple[Any, ...]]:
    """Ask a server, also a standby, what it has."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        return connection.execute(question.encode()).fetchall()


def steps_on(server: Server) -> set[tuple[str, str]]:
    question = "SELECT execution_id, key FROM outlast.transition WHERE kind = 'step'"
    try:
        rows = asked(server, question)
    except psycopg.errors.UndefinedTable:
        return set()  # a standby may be behind the very making of the tables
    return {(str(id), str(key)) for id, key in rows}


def cut_off(standby: Server) -> None:
    standby.follow_no_more()
    until(lambda: not asked(standby, "SELECT 1 FROM pg_stat_wal_receiver"), "it still receives")


@pytest.fixture
def workers(primary: Server, standby: Server, tmp_path: Path) -> Iterator[list[Worker]]:
    url = both(primary, standby)
    open_store(url, owner="setup", now=now()).close()
    made = [Worker(url, tmp_path) for _ in range(2)]
    yield made
    for one in made:
        one.end()


def test_what_a_promoted_standby_lacks_is_told_and_nothing_stale_is_written(
    primary: Server,
    standby: Server,
    workers: list[Worker],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = both(primary, standby)
    gate = tmp_path / "gate"

    async def story() -> tuple[list[str], list[str]]:
        async with Engine(url, tasks=[held, quick], slots=0) as client:
            kept = [one.id for one in await client.astart_many(held, [(n,) for n in range(MANY)])]
            wanted = {(id, "before#1") for id in kept}
            await asyncio.to_thread(until, lambda: steps_on(standby) == wanted, "no replica")
            await asyncio.to_thread(cut_off, standby)
            more = [(n,) for n in range(100, 100 + LOST)]
            lost = await client.astart_many(quick, more)
            assert [await one.aresult(timeout=LONG) for one in lost] == [n for (n,) in more]
            gate.touch()
            ended = [client.execution(id) for id in kept]
            assert [await one.aresult(timeout=LONG) for one in ended] == [
                2 * n for n in range(MANY)
            ]
            gate.unlink()
            # All of that was acknowledged, and the standby has none of it.
            assert steps_on(standby) == wanted
            await asyncio.to_thread(primary.stop, signal.SIGKILL)
            await asyncio.to_thread(standby.promote)
            # This one is told with the first thing that it wants to write, and may go on then.
            with pytest.raises(StoreUnavailable):
                await client.astart(quick, 999)
            names = [await asyncio.to_thread(worker.heard) for worker in workers]
            assert all(
                said["name"] != worker.names[0] for said, worker in zip(names, workers, strict=True)
            )
            gate.touch()
            assert [await one.aresult(timeout=LONG) for one in ended] == [
                2 * n for n in range(MANY)
            ]
            again = await client.astart(quick, 1000)
            assert await again.aresult(timeout=LONG) == 1000
            return kept, [one.id for one in lost]

    with caplog.at_level(logging.WARNING, "outlast"):
        kept, lost = asyncio.run(story())
    store = open_store(url, owner=None, now=now())
    try:
        (epoch,) = store.epochs.history()
        assert (epoch.number, epoch.cause) == (1, "promoted")
        assert epoch.detail["before"]["timeline"] == 1 and epoch.detail["now"]["timeline"] == 2
        assert epoch.executions == MANY
        assert store.verify().defects == []
        # No row of a lease of before was taken afterwards.
        for id in kept:
            rows = store.log(id)
            takeover = next(row.seq for row in rows if row.kind is Kind.WORKER_LOST)
            later = [row for row in rows if row.seq > takeover and row.nonce is not None]
            assert later and all(row.fence >= epoch.floor for row in later)
        # What survived was not repeated; what was lost was, which shows that it was lost.
        found = ledger(tmp_path)
        assert [found["start", "before", n] for n in range(MANY)] == [1] * MANY
        assert [found["start", "gated", n] for n in range(MANY)] == [2] * MANY
        assert store.get(lost) == [None] * LOST
        # And it is told, by those who knew.
        losses = until(
            lambda: found if len(found := store.epochs.losses(1)) == 3 else None, "nobody says it"
        )
        assert sum(one.missing for one in losses) >= LOST
        assert sum(one.behind for one in losses) >= MANY
        assert sum(one.rows_lost for one in losses) >= 2 * MANY
        assert {id for one in losses for id in one.examples} & set(lost)
        (deed,) = store.access.audit(None, 9, newest=True)
        assert (deed.what, deed.target) == ("store.failed_over", "store")
    finally:
        store.close()
    assert "store_failed_over" in caplog.text and "acknowledged and lost" in caplog.text
