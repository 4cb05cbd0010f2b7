"""Two processes at the same rows, thousands of times; and workers that are cut off, silently."""

from __future__ import annotations

import sys
from typing import Final

import psycopg
import pytest

from campaigns import partition, race
from campaigns.load import deadlocks
from servers.postgres import Server

from .saying import said_by

RACES: Final = 10_000
PLACES: Final = 3_000
TURNS: Final = 500
LIMITS: Final = 200
BATCHES: Final = 20
SLOW_SECONDS: Final = 10.0
"""What a busy machine may add to what is promised."""


@pytest.mark.timeout(600)
def test_races_have_one_winner(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"races": RACES, "places": PLACES, "turns": TURNS, "limits": LIMITS}
    options = [word for name, size in sizes.items() for word in (f"--{name}", size)]
    counts = race.Counts(**said_by("campaigns.race", *options, "--batches", BATCHES))
    with capsys.disabled():
        print("\n  " + counts.lines().replace("\n", "\n  "), file=sys.stderr, flush=True)
    wanted = {"claims": RACES, "leases": PLACES, "keys": PLACES, "turns": TURNS}
    for name, count in wanted.items():
        won = getattr(counts, f"{name}_won")
        assert getattr(counts, name) == sum(won) == count, name
        assert min(won) > 0, f"{name}: only one of them was there"
    assert counts.turns_twice == counts.claims_twice == counts.leases_twice == 0
    assert counts.keys_differ == counts.limits_twice == 0
    assert (counts.limits, counts.limit_most) == (LIMITS, race.CAPACITY)
    assert counts.batches == 2 * BATCHES
    assert counts.stored == {str(race.BATCH - 1): 2 * BATCHES}, "499 of each"
    assert counts.stale == {"fenced": 2 * BATCHES}
    assert set(counts.deadlocks.values()) == {0} and len(counts.deadlocks) == 6
    assert counts.defects == [] and counts.verified > RACES + 2 * PLACES


def test_a_deadlock_would_be_counted(postgres: Server) -> None:
    """The zero above is not one that nobody counts."""
    url = postgres.database()
    with (
        psycopg.connect(url) as one,
        psycopg.connect(url) as other,
        psycopg.connect(url, autocommit=True) as setup,
    ):
        setup.execute("CREATE TABLE pair AS SELECT generate_series(1, 2) AS id")
        for connection, id, timeout in ((one, 1, "60s"), (other, 2, "10ms")):
            connection.execute(f"SET deadlock_timeout = '{timeout}'")
            connection.execute("UPDATE pair SET id = id WHERE id = %s", [id])
        one.pgconn.send_query(b"UPDATE pair SET id = id WHERE id = 2")
        with pytest.raises(psycopg.errors.DeadlockDetected):  # once the first one waits, too
            other.execute("UPDATE pair SET id = id WHERE id = 1")
        while one.pgconn.get_result() is not None:
            pass
    assert deadlocks(url) == 1
    postgres.drop(url)


@pytest.mark.timeout(600)
def test_a_worker_that_is_cut_off_writes_nothing_late(capsys: pytest.CaptureFixture[str]) -> None:
    said = said_by("campaigns.partition", "--rounds", 2)
    rounds = [partition.Round(**one) for one in said["counts"].pop("rounds")]
    counts = partition.Counts(rounds=rounds, **said["counts"])
    with capsys.disabled():
        print("\n  " + counts.lines().replace("\n", "\n  "), file=sys.stderr, flush=True)
    assert said["broken"] == []
    assert [one.how for one in rounds] == ["held", "swallowed"]
    for one in rounds:
        assert one.in_flight >= partition.HOLDS_LEAST and one.late_bytes > 0
        assert one.takeover_s <= partition.LEASE_SECONDS + 1 + SLOW_SECONDS
        assert one.late_starts == 0, "a body began after somebody else had taken over"
    stopped = [one.stopped_s for one in rounds if one.stopped_s is not None]
    assert stopped and max(stopped) <= partition.LEASE_SECONDS + SLOW_SECONDS
    assert set(counts.refused) <= {"fenced", "moved", "already_final", "unknown"}
    assert sum(n for why, n in counts.refused.items() if why != "unknown") > 0, "nothing was late"
    assert counts.losses >= 2 and counts.taken >= 2 * partition.HOLDS_LEAST
    assert counts.older_fences == counts.lost == counts.doubled == counts.repeated == 0
    assert counts.acknowledged > 50 and counts.recorded > 500
    assert counts.checked["repeated"] > 500 and counts.checked["acked_result"] > 20
