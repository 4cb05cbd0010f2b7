"""Cut connections to PostgreSQL, message by message, under load: ``python -m campaigns.cuts``.

Two workers and two clients are processes of their own; all their connections go through a proxy
(``proxy``), which cuts one after the other: before a message, in its middle, after it. Every kind
of message gets its turn, and a share of the cuts falls where nobody can know: a ``COMMIT`` was
sent, and its answer has not come. At the end the network is fair again, everything has to come to
its end, and all is reckoned up (``reckoning``).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec

from campaigns.load import Helper, Load, Tally, told
from campaigns.mixed import PLANTS
from campaigns.proxy import CONNECTING, Chooser, Place, Proxy
from campaigns.reckoning import Reckoning
from servers.postgres import Server

WAIT_SECONDS: Final = 0.3
"""How long a cut waits for its message, before another one is tried."""
GAP_SECONDS: Final = 0.02
"""How long the load goes on between two cuts, on average."""


class Counts(Tally):
    """What a campaign did.

    Attributes:
        cuts: connections that were cut, by place.
        in_doubt: those at which the client had sent a ``COMMIT`` and had not got its answer.
        withheld: those of them at which the server had not got the ``COMMIT``.
        kinds: kinds of messages that came, as ``> Bind``; all were cut at.
        uncut: those that came and were not cut at.
    """

    cuts: dict[str, int] = msgspec.field(default_factory=dict)
    in_doubt: int = 0
    withheld: int = 0
    connections: int = 0
    messages: int = 0
    kinds: int = 0
    uncut: list[str] = msgspec.field(default_factory=list)

    @property
    def total(self) -> int:
        """How many cuts there were."""
        return sum(self.cuts.values())

    def lines(self) -> str:
        """Write what matters most."""
        return (
            f"{self.total} cuts at {len(self.cuts)} places of {self.kinds} kinds of messages, "
            f"{self.in_doubt} between COMMIT and its answer ({self.withheld} before the server had "
            f"it); {self.connections} connections, {self.messages} messages; {self.met()}\n"
            f"{self.came_to()}"
        )


class Campaign:
    """One campaign, on a server that is there, in a directory that is there."""

    def __init__(self, server: Server, folder: Path, *, seed: int, plants: list[str]) -> None:
        self.counts = Counts()
        self.reckoning = Reckoning()
        self._server, self._folder = server, folder
        self._seed, self._plants = seed, plants

    async def run(self, cuts: int, share: float, ahead: int) -> None:
        """Cut so often, and reckon up."""
        load = Load(self._server.database(), self._folder)
        async with Proxy("127.0.0.1", self._server.port) as proxy:
            url = proxy.url(load.direct)
            worker = load.plan(url, plants=self._plants)
            clients = [
                load.plan(url, plants=self._plants, ahead=ahead, name=f"c{self._seed}-{number}")
                for number in range(2)
            ]
            async with load:
                await load.start([worker, worker], clients)
                await self._cut(proxy, cuts, share, load.helpers)
                await load.settle()
            self._count(proxy)
        self.reckoning = await load.reckon(self.counts)

    async def _cut(self, proxy: Proxy, cuts: int, share: float, helpers: list[Helper]) -> None:
        chooser = Chooser(self._seed, share)
        tried: Counter[Place] = Counter()
        while proxy.counts.cuts.total() < cuts:
            if any(one.process.returncode is not None for one in helpers):
                return
            cut = chooser.next(proxy.kinds, tried)
            tried[cut.place] += 1
            if cut.place.kind not in CONNECTING:  # else it has to be there when one comes back
                await asyncio.sleep(chooser.gap(GAP_SECONDS))
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    await proxy.arm(cut)
            except TimeoutError:
                proxy.disarm()

    def _count(self, proxy: Proxy) -> None:
        counts = self.counts
        counts.cuts = {str(place): n for place, n in sorted(proxy.counts.cuts.items(), key=str)}
        counts.in_doubt, counts.withheld = proxy.counts.in_doubt, proxy.counts.withheld
        counts.connections, counts.messages = proxy.counts.connections, proxy.counts.messages
        cut_at = {(place.to_server, place.kind) for place in proxy.counts.cuts}
        counts.kinds = len(cut_at)
        counts.uncut = [name for to, name in proxy.kinds if (to, name) not in cut_at]


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign as a command; the exit code is 1 where a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m campaigns.cuts", description=__doc__)
    parser.add_argument("--cuts", type=int, default=500, help="how many cuts")
    parser.add_argument("--seed", type=int, default=1, help="of the places of the cuts")
    parser.add_argument("--share", type=float, default=0.45, help="between COMMIT and its answer")
    parser.add_argument("--ahead", type=int, default=12, help="open executions of each client")
    parser.add_argument("--plant", action="append", choices=sorted(PLANTS), help="a planted bug")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    with Server() as server, tempfile.TemporaryDirectory(prefix="outlast-cuts-") as folder:
        campaign = Campaign(server, Path(folder), seed=given.seed, plants=given.plant or [])
        asyncio.run(campaign.run(given.cuts, given.share, given.ahead))
    counts = campaign.counts
    places = "".join(f"\n  {count:4} {place}" for place, count in counts.cuts.items())
    broken = campaign.reckoning.broken
    return told(counts, counts.lines() + places, broken, as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
