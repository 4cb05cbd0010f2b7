"""Thousands of SIGKILLs: nothing that was acknowledged is lost, nothing recorded runs again.

The campaign runs as a command of its own (``python -m campaigns.kill``), as its parent must have no
threads and no open database when it forks. What it counts is asserted, too: a check that checked
nothing is no check.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
SEED: Final = int(os.environ.get("OUTLAST_KILL_SEED", "1"))
KILLS: Final = 2_000

LEAST: Final = {
    "kills": KILLS,
    "kills_at_points": 400,
    "kills_in_flight": 1_200,
    "bodies_cut": 1_000,
    "stops": 60,
    "fresh": 20,
    "acknowledged": 2_500,
    "recorded": 5_000,
    "recovered": 2_000,
    "verified": 60,
    "executions": 800,
    "grown": 100,
}
"""What a campaign of so many kills must at least have come to; it goes on until it has."""
LEAST_CHECKED: Final = {
    "acked_start": 10_000,
    "acked_message": 10_000,
    "acked_result": 2_000,
    "log": 10_000,
    "repeated": 5_000,
    "twice_in_a_life": 5_000,
    "output_commit": 20_000,
    "verify": 1_000,
    "graceful": 60,
    "result": 800,
    "stuck": 800,
}
"""How often each rule must have been applied."""
PATIENCE: Final = 100
"""Seconds without a word after which a life hangs, or only waits for a processor."""


def command(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a campaign as a command."""
    search = os.pathsep.join([str(ROOT), *sys.path])
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": search},
        check=False,
    )


def campaign(*arguments: object) -> dict[str, Any]:
    """Run ``campaigns.kill`` and give what it prints."""
    done = command("campaigns.kill", "--json", *arguments)
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.timeout(1200)
def test_two_thousand_kills(capsys: pytest.CaptureFixture[str]) -> None:
    from campaigns.campaign import Counts
    from campaigns.kill import reached
    from campaigns.points import POINTS

    least = {**LEAST, **{f"points:{name}": 1 for name in POINTS}}
    least |= {f"checked:{rule}": count for rule, count in LEAST_CHECKED.items()}
    bars = [f"--least={name}={count}" for name, count in least.items()]
    said = campaign("--kills", KILLS, *bars, "--seed", SEED, "--keep", "--patience", PATIENCE)
    counts = Counts(**said["counts"])
    with capsys.disabled():
        print(f"\n{counts.line()}; {said['seconds']} s", file=sys.stderr, flush=True)
    assert said["violations"] == [], f"seed {said['violations'][0]['seed']}: {said['violations']}"
    assert counts.lost == counts.repeated == 0
    for name, count in least.items():
        assert reached(counts, name) >= count, name


@pytest.mark.timeout(600)
def test_sigterm_and_sigkill_come_to_the_same_end() -> None:
    done = command("campaigns.twins", "--seed", SEED, "--files", 3, "--lives", 20)
    assert done.returncode == 0, done.stderr + done.stdout
    said = json.loads(done.stdout)
    assert said["compared"] >= 30 and said["kills"] >= 50 and said["stops"] >= 50
    assert said["differing"] == []


PLANTED: Final = {
    "ack_before_commit": 50,
    "skip_durable_wait": 50,
    "replay_forgets_last_step": 50,
    "recover_without_fence": 50,
    "park_runs_clean_up": 50,
    "stop_fails_what_runs": 15,
    "timer_forgotten": 15,
}
"""Planted bugs, and how many lives a file has in which each must be caught."""
HANGS: Final = {"recover_without_fence": 15, "timer_forgotten": 15}
"""The seconds after which a life hangs, where that is how a bug is seen."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("plant", PLANTED)
def test_planted_bugs_are_caught(plant: str) -> None:
    from campaigns.plants import PLANTS

    more = ("--lives", PLANTED[plant], "--patience", HANGS.get(plant, PATIENCE))
    said = campaign("--kills", 300, "--seed", 1, "--plant", plant, *more)
    assert said["violations"], f"{plant} was not caught: {said['counts']}"
    assert said["violations"][0]["rule"] in PLANTS[plant].rules, said["violations"][0]


def test_the_named_points_still_exist() -> None:
    """A point whose function is gone would never be hit."""
    from campaigns.points import POINTS

    for name in POINTS:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                from campaigns.points import arm

                arm(name, 1, lambda _: None)
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0, name


def test_a_campaign_refuses_a_file_system_in_memory() -> None:
    from campaigns.kill import file_system_of

    if file_system_of(Path("/dev/shm")) == "tmpfs":
        done = command("campaigns.kill", "--kills", 1, "--dir", "/dev/shm/outlast")
        assert done.returncode == 2 and "memory" in done.stderr
