"""Connections that are cut at each message: nothing is lost, nothing is doubled.

The proxy is tried by itself first: a cut must be where it says it is. The campaign then runs as a
command of its own, and what it counts is asserted: a check that checked nothing is no check.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import psycopg
import pytest

from campaigns.cuts import Counts
from campaigns.proxy import Phase
from campaigns.wire import COMMIT, COMMITTED, Frames
from outlast.errors import StoreUnavailable
from outlast.store.postgres import PostgresStore
from outlast.testing.conformance import T, born, codes
from servers.postgres import Server

from .network import LONG, Network
from .saying import said_by
from .test_fleet import until

CUTS: Final = 500
LEAST: Final = {
    "in_doubt": CUTS // 3,
    "withheld": CUTS // 20,
    "connections": CUTS // 2,
    "unknown": CUTS // 10,
    "again": 20,
    "taken": 40,
    "acknowledged": 500,
    "executions": 250,
    "recorded": 600,
}
"""What a campaign of so many cuts must at least have come to."""
LEAST_CHECKED: Final = {
    "acked_start": 200,
    "acked_message": 80,
    "acked_result": 200,
    "doubled": 800,
    "repeated": 600,
    "effect": 800,
    "stuck": 250,
    "alive": 4,
    "verify": 250,
}
"""How often each rule must have been applied."""
ROUNDS_MAX: Final = 3
"""On a machine that is busy, so many campaigns may come to what one comes to."""
ROWS: Final = {
    "create", "claim", "start", "step", "wait", "timer_fired", "input_received", "signal_received",
    "child_finished", "finish",
}  # fmt: skip
KINDS: Final = {
    "> Startup", "> Password", "> Parse", "> Bind", "> Describe", "> Execute", "> Sync", "> COMMIT",
    "< Authentication", "< Parameter", "< BackendKey", "< Ready", "< ParseComplete",
    "< BindComplete", "< RowDescription", "< DataRow", "< CommandComplete", "< COMMIT done",
}  # fmt: skip


def make_store(url: str) -> None:
    PostgresStore(url, owner="w0", now=T).close()


@pytest.fixture
def direct(postgres: Server) -> Iterator[str]:
    url = postgres.database(make_store)
    yield url
    postgres.drop(url)


@pytest.fixture
def network(postgres: Server) -> Iterator[Network]:
    with Network(postgres.port) as network:
        yield network


def campaign(*arguments: object) -> tuple[Counts, list[list[str]]]:
    said = said_by("campaigns.cuts", *arguments)
    return Counts(**said["counts"]), said["broken"]


@pytest.mark.timeout(600)
def test_five_hundred_cuts(capsys: pytest.CaptureFixture[str]) -> None:
    counts: list[Counts] = []
    missing = ["all"]
    while missing and len(counts) < ROUNDS_MAX:
        one, broken = campaign("--cuts", CUTS, "--seed", 1 + len(counts))
        with capsys.disabled():
            print(f"\n  {one.lines()}", file=sys.stderr, flush=True)
        assert broken == []
        assert one.total == CUTS
        assert one.lost == one.doubled == one.repeated == one.deadlocks == 0
        counts.append(one)
        missing = missing_of(counts)
    assert missing == []


def missing_of(counts: list[Counts]) -> list[str]:
    """Name what has not come about, in all of them together."""
    sums = {name: sum(getattr(one, name) for one in counts) for name in LEAST}
    missing = [name for name, least in LEAST.items() if sums[name] < least]
    for rule, least in LEAST_CHECKED.items():
        if sum(one.checked.get(rule, 0) for one in counts) < least:
            missing.append(rule)
    missing += ROWS - {row for one in counts for row in one.rows}
    places = {place for one in counts for place in one.cuts}
    missing += KINDS - {place.partition(" ")[2] for place in places}
    phases = {place for place in places if place.endswith((" > COMMIT", " < COMMIT done"))}
    if len(phases) < 6:
        missing.append("before, in the middle of, or after one of them")
    return missing


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("plants", "rules"),
    [
        (["unknown_is_stored"], [{"acked_start", "acked_message"}]),
        (["key_is_forgotten", "effects_again"], [{"doubled"}, {"repeated"}]),
    ],
)
def test_planted_bugs_are_caught(plants: list[str], rules: list[set[str]]) -> None:
    named = [word for plant in plants for word in ("--plant", plant)]
    counts, broken = campaign("--cuts", 60, "--share", 0.9, "--ahead", 48, *named)
    assert counts.total == 60
    caught = {rule for rule, _ in broken}
    assert all(some & caught for some in rules), caught


@pytest.mark.parametrize(
    ("is_whole", "to_server", "kind", "phase", "stored"),
    [
        # It has not committed: it is run again, unasked. Sent whole, it may be unknown, too.
        (False, True, "Bind", Phase.BEFORE, True),
        *(
            (is_whole, *place)
            for is_whole in (False, True)
            for place in [
                (True, COMMIT, Phase.BEFORE, False),
                (True, COMMIT, Phase.MIDDLE, False),
                (True, COMMIT, Phase.AFTER, True),
                (False, COMMITTED, Phase.BEFORE, True),
                (False, COMMITTED, Phase.MIDDLE, True),
                (False, COMMITTED, Phase.AFTER, True),
            ]
        ),
    ],
)
def test_a_cut_is_where_it_says(
    network: Network,
    direct: str,
    monkeypatch: pytest.MonkeyPatch,
    is_whole: bool,
    to_server: bool,
    kind: str,
    phase: Phase,
    stored: bool,
) -> None:
    with (
        closing(PostgresStore(network.url(direct), owner="w0", now=T)) as store,
        closing(PostgresStore(direct, owner=None, now=T)) as other,
    ):
        assert codes(store.commit([born("ex_1")])) == [None]
        writer = store.server._writer
        assert writer is not None
        process = writer._pg.backend_pid
        monkeypatch.setattr(store.server, "_may_be_hasty", lambda: is_whole)
        come = network.cut(to_server, kind, phase)
        if "COMMIT" in kind:
            with pytest.raises(StoreUnavailable, match="during a commit"):
                store.commit([born("ex_2")])
        else:
            assert codes(store.commit([born("ex_2")])) == [None]
        cut = come()
        assert cut.was_in_doubt == ("COMMIT" in kind)
        assert cut.was_withheld == (kind == COMMIT and phase is not Phase.AFTER)
        until_ended(direct, process)
        if stored:
            assert codes(other.commit([born("ex_2")])) == ["already_exists"]
        else:
            assert other.get(["ex_2"]) == [None]
        assert codes(store.commit([born("ex_3")])) == [None]
        assert network.proxy.counts.cuts.total() == 1


def until_ended(url: str, process: int) -> None:
    """Wait for the process of the server that was cut off: it ends what it was sent whole."""
    with psycopg.connect(url, autocommit=True) as connection:
        until(
            lambda: (
                not connection.execute(
                    "SELECT FROM pg_stat_activity WHERE pid = %s", [process]
                ).fetchall()
            ),
            "the end of a process",
        )


def test_what_is_held_back_comes_late_and_what_is_swallowed_never(
    network: Network, direct: str
) -> None:
    held = psycopg.connect(network.url(direct), autocommit=True)
    gone = psycopg.connect(network.url(direct), autocommit=True)
    other = psycopg.connect(direct, autocommit=True)
    other.execute("CREATE TABLE seen (name text)")

    def insert(connection: psycopg.Connection[Any], name: str) -> None:
        pg = connection.pgconn
        pg.nonblocking = 1
        pg.send_query(f"INSERT INTO seen VALUES ('{name}')".encode())
        while pg.flush():
            pass

    network.do(network.proxy.swallow)
    insert(gone, "gone")
    until_swallowed(network)
    network.do(network.proxy.heal)
    network.do(network.proxy.hold)
    insert(held, "held")
    while not network.do(lambda: network.proxy.counts.held):
        pass
    assert other.execute("SELECT count(*) FROM seen").fetchone() == (0,)
    network.do(network.proxy.heal)
    pg = held.pgconn
    while pg.is_busy():  # not by waiting in libpq, which would not let the proxy's thread run
        select.select([held], [], [], LONG)
        pg.consume_input()
    result = pg.get_result()
    assert result is not None and result.command_status == b"INSERT 0 1"
    network.delay(0.05)
    with psycopg.connect(network.url(direct)) as slow:
        assert slow.execute("SELECT name FROM seen").fetchall() == [("held",)]
    for connection in (held, gone, other):
        connection.close()


def until_swallowed(network: Network) -> None:
    while not network.do(lambda: network.proxy.counts.swallowed):
        pass


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_messages_are_whole_however_they_come(size: int) -> None:
    stream = b"".join(
        (
            b"\0\0\0\x10\0\x03\0\0user\0a\0\0",
            b"P\0\0\0\x0fs\0COMMIT\0\0\0",
            b"S\0\0\0\x04",
            b"X\0\0\0\x04",
        )
    )
    frames = Frames(front=True)
    parts = [stream[at : at + size] for at in range(0, len(stream), size)]
    found = [one for part in parts for one in frames.feed(part)]
    assert [one.kind for one in found] == ["Startup", "Parse", "Sync", "Terminate"]
    assert b"".join(one.data for one in found) == stream and frames.rest == b""
