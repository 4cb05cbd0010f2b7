"""Twins: the same seed with SIGKILL and with SIGTERM must come to the same outcomes.

``python -m campaigns.twins --seed 1 --files 2`` prints how many executions were compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from campaigns.audit import Violation
from campaigns.campaign import Campaign, Counts, Options
from campaigns.zygote import ROOT

_ENDINGS: Final = ("kill", "term")


class Twins(msgspec.Struct):
    """What became of pairs of campaigns.

    Attributes:
        compared: executions that both twins of a pair had, and that nobody had cancelled.
        differing: those that ended otherwise, as sentences.
        kills, stops: how the lives ended.
    """

    compared: int = 0
    differing: list[str] = []
    kills: int = 0
    stops: int = 0


def compare(seed: int, parent: Path, lives: int) -> Twins:
    """Run both twins of a seed.

    Raises:
        Violation: a rule is broken in one of them.
    """
    outcomes: list[dict[str, tuple[str, Any]]] = []
    counts = Counts()
    for ending in _ENDINGS:
        campaign = Campaign(seed, Options(parent, lives, ending))
        outcomes.append(campaign.run())
        counts.add(campaign.counts)
    twins = Twins(kills=counts.kills, stops=counts.stops)
    killed, stopped = outcomes
    for key in killed.keys() & stopped.keys():
        one, other = killed[key], stopped[key]
        if "cancelled" in (one[0], other[0]):
            continue  # when a user cancels is no part of the seed
        twins.compared += 1
        if one != other:
            twins.differing.append(f"{key} of seed {seed}: {one} after kills, {other} after stops")
    return twins


def main() -> int:
    """Compare as a command; the exit code is 1 where a pair differs."""
    parser = argparse.ArgumentParser(prog="python -m campaigns.twins", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", type=int, default=2)
    parser.add_argument("--lives", type=int, default=25)
    parser.add_argument("--dir", type=Path, default=ROOT / ".crash")
    given = parser.parse_args()
    given.dir.mkdir(parents=True, exist_ok=True)
    total = Twins()
    for seed in range(given.seed, given.seed + given.files):
        try:
            twins = compare(seed, given.dir, given.lives)
        except Violation as violation:
            print(f"BROKEN, seed {seed}: {violation}", file=sys.stderr)
            return 1
        total.compared += twins.compared
        total.differing += twins.differing
        total.kills += twins.kills
        total.stops += twins.stops
    print(json.dumps(msgspec.to_builtins(total)))
    return 1 if total.differing else 0


if __name__ == "__main__":
    sys.exit(main())
