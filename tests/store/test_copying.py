"""A store copied into another kind of database: everything, or not to be opened."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import apsw
import psycopg
import pytest

from outlast import (
    Budget,
    Engine,
    Limit,
    Schedule,
    State,
    ask,
    progress,
    sleep,
    spend,
    step,
    stream,
    task,
    wait_for,
)
from outlast.errors import CannotLoad, KeyConflict, SchemaMismatch, StoreBroken, StoreOwned
from outlast.store import copy_store, new_key, open_store
from outlast.store.protocol import Filter
from outlast.store.relational.tables import MADE_BY_SCHEMA, ORDER, UNGUARDED, tables
from outlast.store.sqlite.side import SqliteSide

NOW = time.time_ns() // 1000
LONG = 100.0
PARKED = (State.AWAITING_INPUT, State.WAITING)


@step
async def double(n: int) -> int:
    return 2 * n


@task
async def child(n: int) -> int:
    return await double(n)


@task(labels={"team": "red"}, budget=Budget(usd=5))
async def whole(n: int) -> int:
    await stream("said", {"n": n, "nothing": "\0"})
    await progress(1, 2, "half")
    spend(usd=1)
    return await child(n)


@task
async def asking(n: int) -> int:
    first = await double(n)
    ok = await ask("Go on?", bool, to="ann")
    return first + (await double(100) if ok else 0)


@task
async def signalled(n: int) -> str:
    return f"{n} {await wait_for('paid', str)}"


@task
async def later() -> str:
    await sleep("2h")
    return "later"


@task(limit=Limit(1))
async def narrow() -> bool:
    return await ask("Go on?", bool)


async def fill(url: str, many: int = 3) -> dict[str, str]:
    """Do a little of everything; gives the ids of what is open."""
    async with Engine(url) as engine:
        handles = [await whole.options(key=f"k{n}").astart(n) for n in range(many)]
        for handle in handles:
            await handle.aresult(timeout=LONG)
        open_ones = {
            "asking": await asking.astart(7),
            "signalled": await signalled.astart(7),
            "later": await later.options(delay="1h").astart(),
            "narrow": await narrow.astart(),
            "blocked": await narrow.astart(),
            "after": await child.options(after=[await later.astart()]).astart(1),
        }
        await engine.schedules.acreate("nightly", later, Schedule(cron="0 7 * * *"))
        await engine.budgets.aset("tenant", usd=50, period="1d")
        await handles[0].arerun()
        for name in ("asking", "signalled"):
            async with asyncio.timeout(LONG):
                while await open_ones[name].astatus() not in PARKED:
                    await asyncio.sleep(0)
        return {name: handle.id for name, handle in open_ones.items()}


def filled(path: Path) -> tuple[str, dict[str, str]]:
    url = f"sqlite:///{path}"
    return url, asyncio.run(fill(url))


@pytest.fixture
def source(tmp_path: Path) -> str:
    return filled(tmp_path / "source.db")[0]


OPERATED = (
    ("token", "create", "ci", "--role", "submitter"),
    ("role", "grant", "group:ops", "operator"),
    ("queue", "pause", "orders", "--why", "moving"),
    ("limit", "set", "rate:mail", "100/1m"),
)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "outlast.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def dump(path: Path) -> dict[str, list[Any]]:
    connection = apsw.Connection(str(path))
    try:
        return {name: list(connection.execute(f"SELECT * FROM {name}")) for name in tables()}
    finally:
        connection.close()


def test_every_table_is_copied_and_described(postgres_url: str, tmp_path: Path) -> None:
    assert sorted((*ORDER, *MADE_BY_SCHEMA)) == sorted(tables())
    assert len(set(ORDER)) == len(ORDER) and set(ORDER) > UNGUARDED
    open_store(f"sqlite:///{tmp_path}/a.db", owner="w", now=1).close()
    open_store(postgres_url, owner="w", now=1).close()
    lite = apsw.Connection(f"{tmp_path}/a.db")
    there = {
        name
        for (name,) in lite.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        if not name.startswith("sqlite_")
    }
    assert there == set(tables())
    with psycopg.connect(postgres_url) as connection:
        for table in tables().values():
            named = list(lite.execute(f"SELECT name, pk FROM pragma_table_xinfo('{table.name}')"))
            assert tuple(name for name, _ in named) == table.columns
            keyed = sorted((place, name) for name, place in named if place)
            assert tuple(name for _, name in keyed) == table.key
            full = connection.execute(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_schema = 'outlast' AND table_name = %s"
                " AND is_generated = 'NEVER' ORDER BY ordinal_position",
                [table.name],
            )
            assert {name for (name,) in full} == set(table.columns)
    lite.close()


def test_there_and_back_nothing_is_lost(postgres_url: str, tmp_path: Path) -> None:
    url, _ = filled(tmp_path / "source.db")
    for words in OPERATED:
        command(*words, "--store", url).check_returncode()
    before = dump(tmp_path / "source.db")
    there = copy_store(url, postgres_url, NOW)
    assert there.defects == [] and not there.resumed
    filled_tables = {name for name, rows in there.rows.items() if rows}
    assert filled_tables >= {
        *("transition", "execution", "inbox", "worker", "schedule", "schedule_entry"),
        *("dependency", "budget", "spending", "budget_event", "stream_item", "progress"),
        *("question", "label", "descent"),
    }
    back = copy_store(postgres_url, f"sqlite:///{tmp_path}/back.db", NOW)
    assert back.rows == there.rows and back.defects == []
    after = dump(tmp_path / "back.db")
    assert dump(tmp_path / "source.db") == before  # the source is as it was
    before["sight"] = []  # it looks by itself
    for name in (*ORDER, "audit_head", "edge"):
        assert sorted(after[name], key=repr) == sorted(before[name], key=repr), name


def test_open_executions_go_on_where_they_were_copied_to(postgres_url: str, tmp_path: Path) -> None:
    url, ids = filled(tmp_path / "source.db")
    copy_store(url, postgres_url, NOW)
    with Engine(postgres_url) as engine:
        asking_one = engine.execution(ids["asking"])
        asking_one.answer(True)
        assert asking_one.result(timeout=LONG) == 214
        engine.execution(ids["signalled"]).signal("paid", "in full")
        assert engine.execution(ids["signalled"]).result(timeout=LONG) == "7 in full"
        engine.execution(ids["narrow"]).answer(True)
        assert engine.execution(ids["narrow"]).result(timeout=LONG) is True
        assert engine.execution(ids["later"]).status() is State.SCHEDULED
        with pytest.raises(KeyConflict):
            whole.options(key="k1").start(99)
        assert engine.store.verify().defects == []


KILLED = """
    import os, signal, sys
    from outlast.store import copy_store

    left = int(sys.argv[3])

    def tell(table, rows):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    copy_store(sys.argv[1], sys.argv[2], 1, tell)
"""


def killed_at(source: str, target: str, batches: int) -> int:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), source, target, str(batches)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    ).returncode


@pytest.mark.parametrize("way", ["there", "back"])
def test_a_copy_that_was_killed_goes_on(way: str, postgres_url: str, tmp_path: Path) -> None:
    url, _ = filled(tmp_path / "source.db")
    source, target = url, postgres_url
    if way == "back":
        copy_store(url, postgres_url, NOW)
        source, target = postgres_url, f"sqlite:///{tmp_path}/back.db"
    for batches in (1, 3, 4):
        assert killed_at(source, target, batches) == -signal.SIGKILL
        with pytest.raises(SchemaMismatch, match="not finished"):
            open_store(target, owner="w", now=1)
        with pytest.raises(SchemaMismatch, match="not finished"):
            open_store(target, owner=None, now=1)
    told: list[str] = []
    made = copy_store(source, target, NOW, lambda table, rows: told.append(table))
    assert made.resumed and made.defects == []
    assert "transition" not in told  # what was stored is not copied again
    assert made.rows["transition"] > 20 and told
    with Engine(target) as engine:
        assert engine.store.verify().defects == []


def test_batches_of_every_size_come_to_the_same(
    source: str, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlast.store.copying.BYTES_MAX", 0)
    monkeypatch.setattr("outlast.store.copying.ROWS_MIN", 1)
    monkeypatch.setattr("outlast.store.copying.ROWS_FIRST", 1)
    monkeypatch.setattr("outlast.store.copying.ROWS_MAX", 3)
    batches: list[int] = []
    made = copy_store(source, postgres_url, NOW, lambda table, rows: batches.append(rows))
    assert made.defects == [] and sum(batches) == sum(made.rows.values()) - sum(
        made.rows[table] for table in ("audit_head", "tenant")
    )
    assert max(batches) <= 3 and batches.count(1) > 10 and len(batches) > 20


def test_a_source_that_was_used_meanwhile_shows(source: str, postgres_url: str) -> None:
    assert killed_at(source, postgres_url, 4) == -signal.SIGKILL
    with Engine(source):
        child.start(1).result(timeout=LONG)
    with pytest.raises((StoreBroken, Exception), match=r"not equal|guard"):
        copy_store(source, postgres_url, NOW)
    with pytest.raises(SchemaMismatch, match="not finished"):
        open_store(postgres_url, owner="w", now=1)


def test_what_lives_is_not_copied(source: str, postgres_url: str, tmp_path: Path) -> None:
    with Engine(source), pytest.raises(StoreOwned):
        copy_store(source, postgres_url, NOW)
    copy_store(source, postgres_url, NOW)
    with Engine(postgres_url), pytest.raises(StoreOwned, match="workers live"):
        copy_store(postgres_url, f"sqlite:///{tmp_path}/back.db", NOW)
    copy_store(postgres_url, f"sqlite:///{tmp_path}/back.db", NOW)  # it has left


def test_nobody_writes_while_it_is_copied(source: str, postgres_url: str) -> None:
    refused: list[str] = []

    def tell(table: str, rows: int) -> None:
        if refused:
            return
        other = apsw.Connection(source.removeprefix("sqlite:///"))
        try:
            other.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            refused.append(table)
        finally:
            other.close()

    copy_store(source, postgres_url, NOW, tell)
    assert refused


def test_what_is_not_empty_is_left_alone(source: str, postgres_url: str, tmp_path: Path) -> None:
    copy_store(source, postgres_url, NOW)
    with pytest.raises(CannotLoad, match="not empty"):
        copy_store(source, postgres_url, NOW)
    other, _ = filled(tmp_path / "other.db")
    with pytest.raises(CannotLoad, match="not empty"):
        copy_store(source, other, NOW)
    with pytest.raises(SchemaMismatch, match="does not exist"):
        copy_store(f"sqlite:///{tmp_path}/nothing.db", postgres_url, NOW)
    assert killed_at(source, f"sqlite:///{tmp_path}/third.db", 2) == -signal.SIGKILL
    with pytest.raises(CannotLoad, match="of another store"):
        copy_store(other, f"sqlite:///{tmp_path}/third.db", NOW)
    with Engine(postgres_url) as engine:
        assert engine.store.verify().defects == []


def test_what_is_sealed_stays_sealed(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTLAST_KEYS", new_key("k1"))
    url, ids = filled(tmp_path / "source.db")
    assert copy_store(url, postgres_url, NOW).defects == []
    with Engine(postgres_url) as engine:
        engine.execution(ids["asking"]).answer(True)
        assert engine.execution(ids["asking"]).result(timeout=LONG) == 214


def test_executions_of_a_dead_owner_are_taken_over(postgres_url: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/source.db"
    program = """
        import os, signal, sys
        from outlast import Engine, step, task

        @step
        async def die() -> int:
            os.kill(os.getpid(), signal.SIGKILL)

        @task(name="dying")
        async def dying() -> int:
            return await die()

        with Engine(sys.argv[1]):
            dying.start().result()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), url], check=False)
    assert done.returncode == -signal.SIGKILL
    assert copy_store(url, postgres_url, NOW).defects == []

    @step
    async def die() -> int:
        return 3

    @task(name="dying")
    async def dying() -> int:
        return await die()

    with Engine(postgres_url, tasks=[dying]) as engine:
        (one,) = engine.store.page(Filter())
        assert engine.execution(one.id).result(timeout=LONG) == 3


def test_the_command_says_what_to_do_next(source: str, postgres_url: str) -> None:
    done = command("db", "copy", source, postgres_url)
    assert done.returncode == 0, done.stderr
    assert "counts and digests of all are equal" in done.stdout and "next " in done.stdout
    again = command("db", "copy", source, postgres_url, "-o", "json")
    assert again.returncode != 0 and "not empty" in again.stderr


def test_sides_know_their_place(tmp_path: Path) -> None:
    side = SqliteSide(tmp_path / "a" / ".." / "a.db")
    assert side.identity == f"sqlite:///{tmp_path}/a.db"
