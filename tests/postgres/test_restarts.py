"""The server, or all workers at once, end and come back under load; nobody is told.

The campaign runs as a command of its own, and what it counts is asserted.
"""

from __future__ import annotations

import sys

import pytest

from campaigns.restarts import HOLDS_LEAST, HOWS, WORKERS, Counts, Round

from .saying import said_by

LEAST_CHECKED = {
    "acked_start": 60,
    "acked_message": 20,
    "acked_result": 60,
    "doubled": 200,
    "repeated": 150,
    "effect": 200,
    "stuck": 60,
    "alive": 4,
    "verify": 60,
}
"""How often each rule must have been applied."""
ENGINES = 4
"""Engines of each process; ``python -m campaigns.restarts --engines 100`` has two hundred."""


@pytest.mark.timeout(600)
def test_work_goes_on_after_every_kind_of_restart(capsys: pytest.CaptureFixture[str]) -> None:
    said = said_by("campaigns.restarts", "--engines", ENGINES)
    rounds = [Round(**one) for one in said["counts"].pop("rounds")]
    counts = Counts(rounds=rounds, **said["counts"])
    with capsys.disabled():
        print("\n  " + counts.lines().replace("\n", "\n  "), file=sys.stderr, flush=True)
    assert said["broken"] == []
    assert counts.lost == counts.doubled == counts.repeated == counts.deadlocks == 0
    assert [one.how for one in rounds] == [*HOWS, WORKERS]
    assert all(one.in_flight >= HOLDS_LEAST for one in rounds), "nothing was under way"
    assert counts.unknown + counts.again > 0, "no restart has hit a transaction"
    assert counts.listening_lost >= 2, "the hints of others came all the while"
    assert counts.taken > 0, "what the killed workers had was nobody's"
    assert counts.acknowledged > 150 and counts.recorded > 150
    for rule, least in LEAST_CHECKED.items():
        assert counts.checked.get(rule, 0) >= least, rule
