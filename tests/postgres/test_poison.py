"""Executions that kill whoever runs them: they are found out, and nobody else comes to harm."""

from __future__ import annotations

import json
import sys

import pytest

from campaigns.poison import BOUND, POISONS, Counts
from tests.crash.test_kill import command

EACH, GOOD = 2, 60


@pytest.mark.timeout(600)
def test_poison_is_suspended_and_the_others_end(capsys: pytest.CaptureFixture[str]) -> None:
    done = command("campaigns.poison", "--json", "--each", EACH, "--good", GOOD)
    assert done.stdout, done.stderr
    counts = Counts(**json.loads(done.stdout))
    with capsys.disabled():
        print("\n  " + counts.lines().replace("\n", "\n  "), file=sys.stderr, flush=True)
    assert counts.suspended == counts.poisonous == EACH * len(POISONS)
    assert counts.ended == counts.good == GOOD
    assert counts.blamed == counts.repeated == counts.doubled == 0
    assert counts.interrupted > 0, "no good one was beside them"
    assert counts.deaths.keys() >= {"SIGKILL", "SIGABRT", "SIGSEGV", "exit 3"}
    # One step is recorded first, then come as many claims in a row that lead to nothing.
    assert max(counts.deaths_each) == BOUND + 1
    assert counts.recorded > 8 * GOOD
