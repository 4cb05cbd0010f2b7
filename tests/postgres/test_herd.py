"""Many engines are killed at once and come back at once; and a server may have no room for them.

The campaign runs as a command of its own, and what it counts is asserted; ``python -m
campaigns.herd`` is the same with two hundred engines.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from campaigns.herd import CONNECTIONS_EACH, CONNECTIONS_MORE, HELD_LEAST, Counts
from outlast import Engine, task
from outlast.errors import StoreBusy
from outlast.store import open_store
from outlast.store.postgres import connect
from servers.postgres import Server

from .saying import said_by

PROCESSES, EACH = 4, 8
LONG = 60
LEAST_CHECKED = {
    "acked_start": 30,
    "acked_message": 10,
    "acked_result": 30,
    "doubled": 100,
    "repeated": 80,
    "effect": 100,
    "stuck": 30,
    "alive": PROCESSES + 2,
    "verify": 30,
}
"""How often each rule must have been applied."""


@pytest.mark.timeout(300)
def test_a_herd_of_engines_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    said = said_by("campaigns.herd", "--processes", PROCESSES, "--each", EACH)
    counts = Counts(**said["counts"])
    with capsys.disabled():
        print("\n  " + counts.lines().replace("\n", "\n  "), file=sys.stderr, flush=True)
    assert said["broken"] == []
    assert counts.lost == counts.doubled == counts.repeated == counts.deadlocks == 0
    assert counts.stale == 0
    assert counts.in_flight >= HELD_LEAST * counts.engines and counts.holders > 2
    # A server ends what it was sent before its client died, so a few need no taking over.
    assert counts.taken >= counts.in_flight / 2, "what the dead had was nobody's"
    assert counts.last_s > 0 and counts.free_s > 0
    assert counts.connections <= CONNECTIONS_EACH * counts.engines + CONNECTIONS_MORE
    for rule, least in LEAST_CHECKED.items():
        assert counts.checked.get(rule, 0) >= least, rule


# A server that is full

PLACES = 8


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    with Server(settings={"max_connections": PLACES, "superuser_reserved_connections": 0}) as one:
        yield one


@pytest.fixture
def small_url(small: Server) -> Iterator[str]:
    url = small.database()
    open_store(url, owner="setup", now=1).close()
    yield url
    small.drop(url)


@task
async def double(n: int) -> int:
    return 2 * n


def fill(url: str, stack: ExitStack) -> None:
    """Take all connections that there are."""
    for _ in range(PLACES + 1):
        try:
            stack.enter_context(psycopg.connect(url))
        except psycopg.OperationalError as error:
            assert "too many clients" in str(error)
            return
    raise AssertionError("it is not full")


def test_an_engine_waits_for_a_connection_and_comes_in(
    small_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    opened = threading.Event()
    found: list[int] = []

    def run() -> None:
        with Engine(small_url, tasks=[double]) as engine:
            found.append(engine.start(double, 4).result(timeout=LONG))
            opened.set()

    with caplog.at_level(logging.WARNING, "outlast.store"), ExitStack() as stack:
        fill(small_url, stack)
        thread = threading.Thread(target=run)
        thread.start()
        give_up_at = time.monotonic() + LONG
        while not caplog.records:
            assert time.monotonic() < give_up_at, "it says nothing"
            threading.Event().wait(0.01)
        assert any("no connection left" in record.getMessage() for record in caplog.records)
        assert not opened.is_set()
        stack.close()
        assert opened.wait(LONG)
    thread.join(LONG)
    assert found == [8]


def test_who_finds_no_place_for_long_is_told_what_to_do(
    small_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "FULL_SECONDS", 0.2)

    async def main() -> None:
        await Engine(small_url, tasks=[double]).open()

    with ExitStack() as stack:
        fill(small_url, stack)
        with pytest.raises(StoreBusy, match="no connection left") as caught:
            asyncio.run(main())
    assert "max_connections" in str(caught.value.do) and "pooler" in str(caught.value.do)


def test_an_engine_that_is_not_let_in_leaves_nothing_behind(
    small_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else those that try again would fill the server by themselves."""
    monkeypatch.setattr(connect, "FULL_SECONDS", 0.0)

    async def main() -> None:
        with psycopg.connect(small_url, autocommit=True) as watching:

            def there() -> int:
                row = watching.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                ).fetchone()
                assert row is not None
                return int(row[0])

            with ExitStack() as stack:
                for _ in range(PLACES - 2):
                    stack.enter_context(psycopg.connect(small_url))
                before = there()
                for _ in range(5):
                    with pytest.raises(StoreBusy):
                        await Engine(small_url, tasks=[double]).open()
                async with asyncio.timeout(LONG):
                    while there() != before:
                        await asyncio.sleep(0.01)  # sleeps: the server takes a moment to see it

    asyncio.run(main())
