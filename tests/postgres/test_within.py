"""Starts inside a transaction of the caller's own: there with it, or not at all."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from outlast import Engine, State, task
from outlast.errors import KeyConflict, NotFound, StoreBusy, UsageError
from outlast.store import new_key, open_store
from outlast.store.protocol import Filter
from servers.postgres import Server


@task
async def double(n: int) -> int:
    return 2 * n


@task
async def nested(n: int) -> Any:
    return await double.options(connection=object()).astart(n)


@pytest.fixture
def engine(postgres_store: str) -> Iterator[Engine]:
    with Engine(postgres_store) as engine:
        yield engine


@pytest.fixture
def caller(postgres_store: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_store) as connection:
        connection.execute("CREATE TEMPORARY TABLE orders (id bigint PRIMARY KEY)")
        connection.commit()
        yield connection


def orders(caller: psycopg.Connection[Any]) -> int:
    ((count,),) = caller.execute("SELECT count(*) FROM orders").fetchall()
    return int(count)


def everything(url: str) -> list[str]:
    store = open_store(url, owner=None, now=1)
    try:
        return [one.id for one in store.page(Filter())]
    finally:
        store.close()


def test_a_commit_brings_the_execution(engine: Engine, caller: psycopg.Connection[Any]) -> None:
    caller.execute("INSERT INTO orders VALUES (1)")
    handle = double.options(connection=caller).start(21)
    with pytest.raises(NotFound):
        handle.status()
    assert caller.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    assert caller.execute("SHOW search_path").fetchall() == [('"$user", public',)]
    caller.commit()
    assert handle.result(timeout=100) == 42
    assert orders(caller) == 1


def test_temporary_tables_of_the_callers_hide_none_of_ours(
    engine: Engine, caller: psycopg.Connection[Any]
) -> None:
    """Neither from the statements, nor from the guards."""
    for name in ("execution", "transition", "edge", "holder", "line"):
        caller.execute(f"CREATE TEMPORARY TABLE {name} (LIKE outlast.{name})")
    handle = double.options(connection=caller).start(21)
    caller.commit()
    assert handle.result(timeout=100) == 42


def test_the_start_begins_the_transaction(
    engine: Engine, caller: psycopg.Connection[Any], postgres_store: str
) -> None:
    handle = double.options(connection=caller).start(1)
    assert caller.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    assert everything(postgres_store) == []
    caller.commit()
    assert handle.result(timeout=100) == 2


def test_after_a_rollback_nothing_is_there(
    engine: Engine, caller: psycopg.Connection[Any], postgres_store: str
) -> None:
    caller.execute("INSERT INTO orders VALUES (1)")
    handle = double.options(connection=caller, key="order-1").start(1)
    caller.rollback()
    with pytest.raises(NotFound):
        handle.status()
    assert everything(postgres_store) == [] and orders(caller) == 0
    assert double.options(key="order-1").start(2).result(timeout=100) == 4  # the key is free


def test_a_block_that_is_taken_back_takes_its_start_along(
    engine: Engine, caller: psycopg.Connection[Any], postgres_store: str
) -> None:
    kept = double.options(connection=caller).start(1)
    with caller.transaction(force_rollback=True):
        double.options(connection=caller).start(2)
    caller.commit()
    assert everything(postgres_store) == [kept.id]


def test_a_key_means_the_same_execution(engine: Engine, caller: psycopg.Connection[Any]) -> None:
    keyed = double.options(connection=caller, key="order-1")
    first, again = keyed.start(1), keyed.start(1)
    caller.commit()
    outside = double.options(key="order-1").start(1)
    assert first.id == again.id == outside.id == keyed.start(1).id


def test_a_taken_key_leaves_the_transaction_usable(
    engine: Engine, caller: psycopg.Connection[Any]
) -> None:
    double.options(key="order-1").start(1)
    caller.execute("INSERT INTO orders VALUES (1)")
    with pytest.raises(KeyConflict):
        double.options(connection=caller, key="order-1").start(2)
    caller.execute("INSERT INTO orders VALUES (2)")
    caller.commit()
    assert orders(caller) == 2


def test_a_key_that_a_snapshot_does_not_show_is_busy(
    engine: Engine, caller: psycopg.Connection[Any]
) -> None:
    caller.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    assert orders(caller) == 0  # the snapshot is taken here
    first = double.options(key="order-1").start(1)
    with pytest.raises(StoreBusy):
        double.options(connection=caller, key="order-1").start(1)
    caller.rollback()
    assert double.options(connection=caller, key="order-1").start(1).id == first.id


def test_a_temporary_table_is_in_nobodys_way(
    engine: Engine, caller: psycopg.Connection[Any]
) -> None:
    caller.execute("CREATE TEMPORARY TABLE execution (nothing bigint)")
    handle = double.options(connection=caller).start(3)
    caller.commit()
    assert handle.result(timeout=100) == 6


def test_what_is_sealed_is_sealed_here_too(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTLAST_KEYS", new_key("k1"))
    with Engine(postgres_url), psycopg.connect(postgres_url) as caller:
        handle = double.options(connection=caller).start(123456)
        caller.commit()
        assert handle.result(timeout=100) == 246912
        found = caller.execute(
            "SELECT payload FROM outlast.transition WHERE payload IS NOT NULL"
        ).fetchall()
    assert len(found) == 2 and not any(b"123456" in one for (one,) in found)


def test_what_cannot_be_used_is_refused(
    engine: Engine, caller: psycopg.Connection[Any], postgres_store: str, postgres: Server
) -> None:
    keyed = double.options(connection=caller)
    caller.autocommit = True
    with pytest.raises(UsageError, match="autocommit"):
        keyed.start(1)
    with caller.transaction():
        handle = keyed.start(1)
    assert handle.result(timeout=100) == 2
    caller.autocommit = False
    with caller.pipeline(), pytest.raises(UsageError, match="pipeline"):
        keyed.start(1)
    with pytest.raises(psycopg.Error):
        caller.execute("SELECT 1 / 0")
    with pytest.raises(UsageError, match="has failed"):
        keyed.start(1)
    caller.rollback()
    with pytest.raises(UsageError, match="not go together"):
        double.options(connection=caller, after=[handle]).start(1)
    with pytest.raises(UsageError, match="only a start"):
        keyed(1)
    with pytest.raises(UsageError, match="this start needs"):
        double.options(connection="connection").start(1)
    with (
        psycopg.connect(postgres.url("postgres")) as other,
        pytest.raises(UsageError, match="does not lead"),
    ):
        double.options(connection=other).start(1)
    caller.close()
    with pytest.raises(UsageError, match="closed"):
        keyed.start(1)
    assert everything(postgres_store) == [handle.id]


def test_a_tasks_own_code_cannot(engine: Engine) -> None:
    with pytest.raises(Exception, match="task's code cannot"):
        nested.start(1).result(timeout=100)


@pytest.mark.parametrize("url", ["memory:", "sqlite:///{}/outlast.db"])
def test_other_stores_have_no_such_thing(
    url: str, caller: psycopg.Connection[Any], tmp_path: Any
) -> None:
    with Engine(url.format(tmp_path)), pytest.raises(UsageError, match="only in a PostgreSQL") as e:
        double.options(connection=caller).start(1)
    assert e.value.code == "usage"


def test_a_connection_that_breaks_leaves_nothing(
    engine: Engine, caller: psycopg.Connection[Any], postgres_store: str
) -> None:
    double.options(connection=caller).start(1)
    with psycopg.connect(postgres_store, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", (caller.info.backend_pid,))
    with pytest.raises(Exception, match="connection"):
        double.options(connection=caller).start(2)
    assert caller.closed
    assert everything(postgres_store) == []


KILLED = """
    import os, signal, sys
    import psycopg
    from outlast import Engine, task

    @task
    async def double(n: int) -> int:
        return 2 * n

    with Engine(sys.argv[1]), psycopg.connect(sys.argv[1]) as connection:
        double.options(connection=connection, key="killed").start(1)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_before_its_commit_leaves_nothing(postgres_store: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), postgres_store],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    with Engine(postgres_store):
        # The server sees the end of a connection a moment later; whoever wants the key waits.
        assert double.options(key="killed").start(2).result(timeout=100) == 4
    assert len(everything(postgres_store)) == 1


def test_from_a_coroutine(postgres_store: str) -> None:
    async def main() -> None:
        async with (
            Engine(postgres_store),
            await psycopg.AsyncConnection.connect(postgres_store) as caller,
        ):
            starts = [double.options(connection=caller).astart(n) for n in range(3)]
            handles = await asyncio.gather(*starts)
            assert everything(postgres_store) == []
            await caller.commit()
            assert [await one.aresult(timeout=100) for one in handles] == [0, 2, 4]
            lost = await double.options(connection=caller).astart(4)
            await caller.rollback()
            with pytest.raises(NotFound):
                await lost.astatus()
            with pytest.raises(UsageError, match="this start needs"):
                double.options(connection=caller).start(1)
            starting = asyncio.ensure_future(double.options(connection=caller).astart(5))
            for _ in range(3):
                await asyncio.sleep(0)  # sleeps: a turn of the loop, so that it is under way
            starting.cancel()
            await asyncio.wait([starting])
            await caller.rollback()  # the connection is whole
            last = await double.options(connection=caller).astart(6)
            await caller.commit()
            assert await last.aresult(timeout=100) == 12
            assert await last.astatus() is State.SUCCEEDED

    asyncio.run(main())
