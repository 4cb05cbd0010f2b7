"""Thousands of simulated worlds; the rules hold in each, and each planted bug breaks its rule.

The campaign runs as a command of its own, as it replaces where the engine gets time, threads and
chance from. What it did is asserted, too: a check that checked nothing is no check.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from campaigns.simulation.campaign import Report, campaign, shrunk
from campaigns.simulation.plants import PLANTS
from campaigns.simulation.rules.names import RULES
from campaigns.simulation.tasks import leaves, nodes
from campaigns.simulation.tasks.action import Action
from campaigns.simulation.tasks.catalogue import ACTIONS

ROOT: Final = Path(__file__).resolve().parents[2]
SEED: Final = int(os.environ.get("OUTLAST_SIMULATION_SEED", "0"))
SEEDS: Final = 2_000


def simulate(*arguments: object, hash_seed: int = 0) -> dict[str, Any]:
    """Run ``campaigns.simulation`` and give what it prints."""
    search = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "campaigns.simulation", "--json", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": search, "PYTHONHASHSEED": str(hash_seed)},
        check=False,
    )
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.timeout(1200)
def test_two_thousand_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    said = simulate("--seeds", SEEDS, "--seed", SEED)
    with capsys.disabled():
        print(f"\n{said['line']}", file=sys.stderr, flush=True)
    assert said["broken"] == [], (
        f"python -m campaigns.simulation --seed {said['broken'][0]['seed']}"
    )
    assert said["missing"] == []
    assert said["checked"].keys() == RULES.keys()
    assert sum(said["checked"].values()) > 500 * SEEDS


@pytest.mark.timeout(600)
@pytest.mark.parametrize("plant", PLANTS)
def test_planted_bugs_are_caught(plant: str) -> None:
    said = simulate("--plant", plant, "--seeds", PLANTS[plant].seeds)
    assert said["broken"], f"{plant} was not caught in {PLANTS[plant].seeds} seeds"
    assert said["broken"][-1]["rule"] in PLANTS[plant].rules, said["broken"][-1]


def test_a_seed_does_the_same_again() -> None:
    """Also in another process, whose sets of strings have another order."""
    first, again = (simulate("--seeds", 40, hash_seed=number) for number in (1, 2))
    assert first["digest"] == again["digest"]
    assert first["counts"] == again["counts"]
    assert simulate("--seeds", 40, "--seed", 1_000)["digest"] != first["digest"]


def test_a_failure_is_made_small() -> None:
    report = campaign(range(200), plant="double_timer")
    outcome = report.broken[-1]
    small, limits = shrunk(outcome, "double_timer")
    assert small.broken is not None and outcome.broken is not None
    assert small.broken.rule == outcome.broken.rule == "timers"
    assert len(small.trace) <= len(outcome.trace)
    assert "BROKEN" in small.trace[-1]
    assert limits.orders is None or len(limits.orders) >= 1


def test_plants_are_taken_out_again() -> None:
    assert not campaign(range(20)).broken
    assert campaign(range(200), plant="early_timer").broken
    assert not campaign(range(20)).broken


def test_a_campaign_that_did_nothing_fails() -> None:
    empty = Report(seeds=1_000).missing()
    for rule in RULES:
        assert f"{rule} was never checked" in empty
    assert any(line.startswith("crashes_in_flight: 0 of") for line in empty)


def test_every_rule_that_is_named_exists() -> None:
    for name, plant in PLANTS.items():
        assert plant.rules and set(plant.rules) <= RULES.keys(), name
    assert len(PLANTS) >= 10


def test_every_action_is_used() -> None:
    made = {
        cls
        for module in (leaves, nodes)
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, Action) and cls is not Action
    }
    assert made == set(ACTIONS)
