"""Simulate: ``python -m campaigns.simulation --seeds 2000``; see ``--help``."""

from __future__ import annotations

import argparse
import json
import sys

from campaigns.simulation.campaign import campaign, catch, matrix, shrunk, told
from campaigns.simulation.plants import PLANTS
from campaigns.simulation.world.outcome import Limits


def main(arguments: list[str] | None = None) -> int:
    """Run seeds as a command; the exit code is 1 where a rule was broken or too little done."""
    parser = argparse.ArgumentParser(
        prog="python -m campaigns.simulation",
        description="Run the engine in a simulated world, one seed after the other.",
    )
    parser.add_argument("--seeds", type=int, default=2_000, help="how many seeds")
    parser.add_argument("--seed", type=int, default=0, help="the first of them")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="put a planted bug in")
    parser.add_argument("--trace", action="store_true", help="print all that happened in each seed")
    parser.add_argument("--matrix", action="store_true", help="see which rule catches which plant")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    if given.matrix:
        catches = [catch(name, given.seed) for name in PLANTS]
        print(matrix(catches))
        return 1 if any(one.after is None for one in catches) else 0
    report = campaign(
        range(given.seed, given.seed + given.seeds),
        plant=given.plant,
        heard=(lambda outcome: print("\n".join(outcome.trace))) if given.trace else None,
    )
    missing = [] if report.broken or given.plant else report.missing()
    if given.json:
        said = {
            "line": report.line(),
            "digest": report.digest,
            "counts": report.counts,
            "checked": report.checked,
            "seconds": round(report.seconds, 1),
            "broken": [
                {"seed": one.seed, "rule": one.broken.rule, "text": str(one.broken)}
                for one in report.broken
                if one.broken is not None
            ],
            "missing": missing,
        }
        print(json.dumps(said))
    else:
        print(report.line())
        for line in missing:
            print(f"TOO LITTLE: {line}", file=sys.stderr)
        if report.broken:
            outcome = report.broken[-1]
            small = (outcome, Limits()) if given.trace else shrunk(outcome, given.plant)
            print(told(*small, given.plant), file=sys.stderr)
    return 1 if report.broken or missing else 0


if __name__ == "__main__":
    sys.exit(main())
