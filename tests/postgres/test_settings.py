"""A server whose administrator has other ideas: nothing of it changes what a store does.

Most settings are made for a role or a database, and hold for each session that does not say
otherwise. What could change an answer is set to something unusual here, all at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from outlast import Engine, State, ask, sleep, step, task
from outlast.store import copy_store, open_store
from outlast.store.protocol import Store
from outlast.testing.conformance_tenants import Beside
from servers.postgres import Server
from tests.store.short import short
from tests.store.test_conformance import Suite, opened_beside

from .emptying import empty_postgres

ODD = {
    "TimeZone": "Asia/Kathmandu",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "standard_conforming_strings": "off",
    "backslash_quote": "off",
    "escape_string_warning": "on",
    "bytea_output": "escape",
    "extra_float_digits": "-5",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "client_min_messages": "debug5",
    "client_encoding": "LATIN1",
    "search_path": "nowhere",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "1s",
    "plan_cache_mode": "force_custom_plan",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "session_replication_role": "origin",
    "row_security": "on",
    "xmlbinary": "hex",
    "lock_timeout": "50ms",
    "work_mem": "64kB",
    "default_tablespace": "",
    "default_table_access_method": "heap",
    "default_toast_compression": "pglz",
    "synchronous_commit": "off",
    "check_function_bodies": "off",
    "jit": "on",
    "jit_above_cost": "0",
}
LONG = 60


@pytest.fixture(scope="module")
def odd() -> Iterator[Server]:
    with Server() as server:
        for name, value in ODD.items():
            said = value if name in ("DateStyle", "search_path") else f"'{value}'"
            server.execute(f"ALTER ROLE outlast SET {name} = {said}")
        yield server


@pytest.fixture(scope="module")
def odd_kept(odd: Server) -> str:
    url = odd.database()
    open_store(url, owner="w0", now=1).close()
    return url


class TestOdd(short(Suite)):  # type: ignore[misc]
    """Every verb."""

    @pytest.fixture
    def store(self, odd_kept: str) -> Iterator[Store]:
        empty_postgres(odd_kept)
        store = open_store(odd_kept, owner="w1", now=1)
        yield store
        store.close()

    @pytest.fixture
    def beside(self, store: Store, odd_kept: str) -> Iterator[Beside]:
        yield from opened_beside(
            store, lambda name: open_store(odd_kept, owner="w1", now=1, tenant=name)
        )


def test_the_settings_are_in_force(odd_kept: str) -> None:
    with psycopg.connect(odd_kept) as connection:
        for name in ("TimeZone", "default_transaction_isolation", "bytea_output"):
            row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
            assert row == (ODD[name],)


@step
async def double(n: int) -> int:
    return 2 * n


@task
async def brief() -> str:
    return "done"


@task
async def whole(n: int) -> str:
    await sleep("0.3s")
    ok = await ask("Go on \\ 'now'?", bool)
    return f"{await double(n)} {ok} äöü \\ ' \" \x01"


def test_an_engine_works(odd: Server) -> None:
    url = odd.database()

    async def main() -> str:
        async with Engine(url, tasks=[whole]) as engine:
            handle = await whole.astart(3)
            async with asyncio.timeout(LONG):
                while await handle.astatus() is not State.AWAITING_INPUT:
                    await asyncio.sleep(0.01)  # sleeps: the engine parks it, and tells nobody
            await handle.aanswer(True)
            found = await handle.aresult(timeout=LONG)
            assert engine.store.verify().defects == []
            return found

    assert asyncio.run(main()) == "6 True äöü \\ ' \" \x01"
    other = odd.database()
    assert copy_store(url, other, 1).defects == []


def test_a_default_of_reading_only_is_no_obstacle(odd: Server) -> None:
    """Each transaction says that it writes; a standby, which cannot, is refused by name."""
    url = odd.database()
    name = url.rpartition("/")[2]
    odd.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")

    async def main() -> str:
        async with Engine(url, tasks=[brief], lease="1s") as engine:
            assert engine.fleet is not None and engine.fleet.membership is not None
            async with asyncio.timeout(LONG):
                while engine.fleet.membership.renewals < 2:
                    await asyncio.sleep(0.01)  # sleeps: a lease is renewed by the clock
            assert engine.fleet.losses == 0
            return await (await brief.astart()).aresult(timeout=LONG)

    assert asyncio.run(main()) == "done"


def test_texts_are_compared_by_their_bytes_in_every_database(odd_kept: str) -> None:
    """So ids and keys have one order, whatever the collation of the database is."""
    with psycopg.connect(odd_kept) as connection:
        found = connection.execute(
            "SELECT c.relname, i.collation::regcollation::text"
            "  FROM (SELECT indexrelid, unnest(indcollation) AS collation FROM pg_index) AS i"
            "  JOIN pg_class AS c ON c.oid = i.indexrelid"
            "  JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE n.nspname = 'outlast' AND i.collation <> 0"
        ).fetchall()
    assert len(found) > 80
    assert [(index, collation) for index, collation in found if collation != '"C"'] == []
