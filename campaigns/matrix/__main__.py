"""Ask everything of everybody: ``python -m campaigns.matrix --requests 20000``; see ``--help``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence

from campaigns.matrix.campaign import by_socket, campaign
from campaigns.matrix.crossing import Crossed, crossing
from campaigns.matrix.judging import Report


def main(words: Sequence[str]) -> int:
    """Run it; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m campaigns.matrix", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000, help="how many, at least")
    parser.add_argument("--socket", type=int, default=1_000, help="of them, over a real socket")
    parser.add_argument("--rounds", type=int, default=2, help="between tenants; 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args(words)
    began = time.perf_counter()
    straight = asyncio.run(campaign(max(1, asked.requests - asked.socket), asked.seed))
    socket = asyncio.run(by_socket(asked.socket, asked.seed)) if asked.socket else Report()
    crossed = asyncio.run(crossing(asked.seed, rounds=asked.rounds)) if asked.rounds else Crossed()
    told(straight, socket, crossed, time.perf_counter() - began, as_json=asked.json)
    return 1 if straight.failures or socket.failures or crossed.failures else 0


def told(
    straight: Report, socket: Report, crossed: Crossed, seconds: float, *, as_json: bool
) -> None:
    """Say what was found."""
    failures = straight.failures + socket.failures + crossed.failures
    statuses = straight.statuses + socket.statuses + crossed.statuses
    said = {
        "requests": straight.requests + socket.requests + crossed.requests,
        "over a socket": socket.requests,
        "for another tenant's": crossed.requests,
        "bytes looked through for another tenant's": crossed.size,
        "rows of another tenant compared": crossed.rows.total(),
        "routes by callers": len(straight.seen),
        "tricks": len(straight.tricks) - 1,
        "errors of the server's": sum(count for one, count in statuses.items() if one >= 500),
        "failures": len(failures),
        "seconds": round(seconds, 1),
        "statuses": {str(one): count for one, count in sorted(statuses.items())},
        "outcomes": dict(straight.outcomes + socket.outcomes),
    }
    if as_json:
        print(json.dumps({**said, "first failures": failures[:50]}))
        return
    for name, value in said.items():
        print(f"{name}: {value}")
    for failure in failures[:150]:
        print(failure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
