"""Behind a pooler in transaction mode, each transaction may be on another server's connection.

PgBouncer itself where it is installed or can be fetched (``servers/pgbouncer.py``), and our own,
which does the same, everywhere. Which of them were tried is printed: nothing is passed over in
silence.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from campaigns.load import Helper, settle
from campaigns.mixed import Plan
from campaigns.pooler import Pooler, through
from campaigns.reckoning import read_acks, reckon
from outlast.errors import CannotLoad
from outlast.store import open_store
from outlast.store.postgres import PostgresStore
from outlast.store.postgres.address import Address
from outlast.store.postgres.hints import TOPICS, PostgresHints
from outlast.store.protocol import Store
from outlast.testing.conformance import T
from outlast.testing.conformance_tenants import Beside
from servers.pgbouncer import Bouncer, pgbouncer, version_of
from servers.postgres import Server
from tests.store.short import short
from tests.store.test_conformance import Suite, opened_beside

from .emptying import empty_postgres
from .network import LONG

PROGRAM: Final = pgbouncer()
POOLERS: Final = ["own", *(["pgbouncer"] if PROGRAM else [])]
SIZE: Final = 4
"""Connections to the server: fewer than there are clients."""
ACKS: Final = 150


@contextmanager
def own_pooler(direct: str, size: int) -> Iterator[tuple[int, Pooler]]:
    """Run our own in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    pooler = Pooler(direct, size)
    asyncio.run_coroutine_threadsafe(pooler.open(), loop).result(LONG)
    try:
        yield pooler.port, pooler
    finally:
        asyncio.run_coroutine_threadsafe(pooler.close(), loop).result(LONG)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(LONG)
        loop.close()


@contextmanager
def pooled(kind: str, direct: str, size: int = SIZE) -> Iterator[tuple[str, Pooler | None]]:
    """Give the address of a database through a pooler."""
    if kind == "own":
        with own_pooler(direct, size) as (port, pooler):
            yield through(direct, port), pooler
        return
    assert PROGRAM is not None
    with Bouncer(PROGRAM, direct, size) as bouncer:
        yield through(direct, bouncer.port), None


def make_store(url: str) -> None:
    PostgresStore(url, owner="w0", now=T).close()


@pytest.fixture(scope="module")
def kept(postgres: Server) -> Iterator[str]:
    url = postgres.database(make_store)
    yield url
    postgres.drop(url)


@pytest.fixture(scope="module", params=POOLERS)
def address(request: pytest.FixtureRequest, kept: str) -> Iterator[str]:
    with pooled(request.param, kept) as (url, _):
        yield url


class TestThroughAPooler(short(Suite)):  # type: ignore[misc]
    """Every verb, through each pooler."""

    @pytest.fixture
    def store(self, address: str, kept: str) -> Iterator[Store]:
        empty_postgres(kept)
        store = PostgresStore(address, owner="w0", now=T)
        yield store
        store.close()

    @pytest.fixture
    def beside(self, store: Store, address: str) -> Iterator[Beside]:
        yield from opened_beside(
            store, lambda name: open_store(address, owner="w1", now=1, tenant=name)
        )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", POOLERS)
def test_workers_through_a_pooler(
    postgres: Server, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two workers and two clients share fewer connections than they have: all comes to its end."""
    direct = postgres.database(make_store)
    files = [tmp_path / f"acks-{n}" for n in range(2)]

    async def main(url: str) -> list[dict[str, object]]:
        plan = Plan(url, str(tmp_path / "ledger"))
        workers = [await Helper.start("worker", plan) for _ in range(2)]
        clients = []
        for number, file in enumerate(files):
            asks = Plan(url, str(tmp_path / "ledger"), name=f"c{number}", acks=str(file))
            clients.append(await Helper.start("client", asks))
        try:
            for one in (*workers, *clients):
                assert await one.heard()
            async with asyncio.timeout(LONG):
                while sum(file.exists() and len(read_acks([file])) for file in files) < ACKS:
                    await asyncio.sleep(0.05)  # sleeps: other processes write that file
            await settle(workers, clients, LONG)
        finally:
            for one in (*workers, *clients):
                await one.end()
        return [one.said for one in (*workers, *clients)]

    with pooled(kind, direct) as (url, pooler):
        said = asyncio.run(main(url))
    acks = read_acks(files)
    found = reckon(direct, tmp_path / "ledger", acks)
    what = "our own pooler" if PROGRAM is None else f"PgBouncer {version_of(PROGRAM)}"
    if kind == "own":
        assert pooler is not None
        what = f"our own pooler ({pooler.transactions} times given a connection, {pooler.switches}"
        what += " times another one than before)"
        assert pooler.switches > ACKS
    absent = "" if PROGRAM else "; THERE IS NO PGBOUNCER HERE: python -m servers.pgbouncer"
    with capsys.disabled():
        print(
            f"\n  through {what}: {len(acks)} acknowledged, {found.executions} executions, "
            f"{found.recorded} recorded steps, {len(found.broken)} rules broken{absent}",
            file=sys.stderr,
            flush=True,
        )
    assert found.broken == []
    assert all(said) and len(acks) >= ACKS and found.recorded > ACKS
    postgres.drop(direct)


@pytest.fixture
def hints() -> Iterator[Callable[[str], tuple[PostgresHints, queue.Queue[str]]]]:
    made: list[PostgresHints] = []

    def make(url: str) -> tuple[PostgresHints, queue.Queue[str]]:
        heard: queue.Queue[str] = queue.Queue()
        made.append(PostgresHints(Address.of(url), 1, heard.put))
        for _ in TOPICS:  # it is there, and what was said before is lost
            heard.get(timeout=LONG)
        return made[-1], heard

    yield make
    for one in made:
        one.close()


def test_a_pooler_is_noticed_and_nobody_listens_through_it(
    address: str,
    kept: str,
    hints: Callable[[str], tuple[PostgresHints, queue.Queue[str]]],
) -> None:
    """The connection that would listen belongs to somebody else a moment later."""
    behind, silent = hints(address)
    direct, heard = hints(kept)
    until_listening(direct, heard, behind)
    assert not behind.is_listening
    behind.send("work")
    assert heard.get(timeout=LONG) == "work"
    direct.send("ended")
    assert silent.empty()


def test_who_names_the_server_itself_hears_beside_a_pooler(
    address: str,
    kept: str,
    hints: Callable[[str], tuple[PostgresHints, queue.Queue[str]]],
) -> None:
    place = urlsplit(kept)
    beside, heard = hints(f"{address}&listen={place.hostname}:{place.port}")
    other, theirs = hints(kept)
    until_listening(other, theirs, beside)
    assert beside.is_listening
    other.send("inbox")
    assert heard.get(timeout=LONG) == "inbox"


def until_listening(one: PostgresHints, heard: queue.Queue[str], other: PostgresHints) -> None:
    """Both are there once one has heard the other."""
    other.send("ended")
    assert heard.get(timeout=LONG) == "ended"
    assert one.is_listening


def test_nobody_listens_where_the_address_says_so(
    kept: str, hints: Callable[[str], tuple[PostgresHints, queue.Queue[str]]]
) -> None:
    deaf, _ = hints(f"{kept}?listen=off")
    other, heard = hints(kept)
    until_listening(other, heard, deaf)
    assert not deaf.is_listening


@pytest.mark.parametrize("word", ["", "never", "host:", ":5432", "host:port"])
def test_a_listening_place_is_a_host_and_a_port(word: str) -> None:
    with pytest.raises(CannotLoad, match="listen"):
        Address.of(f"postgresql://a@b/c?listen={word}")
