"""Many seeds, what they counted, and what they must have counted to mean something."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from campaigns.simulation.plants import PLANTS, planted
from campaigns.simulation.rules.names import RULES
from campaigns.simulation.world.disk import Fault
from campaigns.simulation.world.outcome import Limits, Outcome
from campaigns.simulation.world.world import World, run

LEAST_PER_THOUSAND: Final = {
    "executions": 2_000,
    "children": 500,
    "transitions": 40_000,
    "bodies": 12_000,
    "replays": 2_500,
    "acknowledged": 5_000,
    "crashes": 700,
    "crashes_in_flight": 250,
    "bodies_cut": 80,
    "takeovers_in_weather": 700,
    "slandered": 150,
    "renewals": 1_500,
    "late_renewals": 20,
    "lease_takeovers": 150,
    "stale_starts": 12,
    "refused_fenced": 70,
    "refused_moved": 50,
    "stops": 200,
    "guest_writes": 800,
    "suspended": 2,
    "gated": 400,
    "gated_waits": 40,
    "raised": 60,
    "said": 500,
    "said_by_bodies": 200,
    "dependencies": 120,
    "dependency_cancels": 6,
    "reason_awaiting_input": 200,
    "reason_waiting_child": 50,
    "reason_dependency": 8,
    "reason_paused": 20,
    "reason_budget": 60,
    "schedules": 150,
    "slots_fire": 200,
    "slots_skip": 50,
    "slots_miss": 50,
    "slots_queue": 4,
    "slots_backfill": 15,
    "descendants": 150,
    "descents_recover": 15,
    "copies_reused": 150,
    "continuations": 100,
    "signals_carried": 10,
    "ended_while_parked": 100,
    "read_fails": 40,
    "failovers": 20,
    "failover_rows": 30,
    "losses_told": 5,
    "turns": 700,
    "turns_by_age": 35,
    "crowds": 120,
    "crowds_acknowledged": 70,
    "crowds_unknown": 8,
    "batches": 70,
    "batch_births": 600,
    "feed_looks": 300,
    "feed_rows": 5_000,
    "feed_gaps": 3,
    "prunings": 1_000,
    "purged": 1_000,
    "needy": 150,
    "pinned_1": 200,
    "pinned_2": 10,
    "paced": 25,
    "timed_out_steps": 80,
    "timed_out_attempts": 40,
    "timed_out_not_begun": 5,
    "deploys": 120,
    "edited": 3,
    "mismatches_bad": 1,
    **{str(fault): 60 for fault in Fault},
}
"""What a thousand seeds must at least have come to; a campaign of less than 200 is not asked."""
_ASKED_FROM: Final = 200
_TRACE_SHOWN: Final = 70


@dataclass
class Report:
    """What a campaign has come to.

    Attributes:
        seconds: of one processor.
        digest: stands for all that happened.
    """

    seeds: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    broken: list[Outcome] = field(default_factory=list)
    digest: str = ""

    def add(self, outcome: Outcome) -> None:
        """Take in a seed."""
        self.seeds += 1
        both = (self.digest + outcome.digest).encode()
        self.digest = hashlib.blake2b(both, digest_size=8).hexdigest()
        self.counts.update({str(name): count for name, count in outcome.counts.items()})
        self.checked.update(outcome.checked)
        self.kinds[outcome.kind.partition(",")[0]] += 1
        if outcome.broken is not None:
            self.broken.append(outcome)

    def missing(self) -> list[str]:
        """Name what was not done, or not checked, often enough for this to mean something."""
        if self.seeds < _ASKED_FROM:
            return []
        least = {name: count * self.seeds // 1_000 for name, count in LEAST_PER_THOUSAND.items()}
        return [
            f"{name}: {self.counts[name]} of at least {count}"
            for name, count in least.items()
            if self.counts[name] < count
        ] + [f"{rule} was never checked" for rule in RULES if not self.checked[rule]]

    def line(self) -> str:
        """Say what really happened."""
        count = self.counts
        faults = sum(count[str(fault)] for fault in Fault)
        return (
            f"{self.seeds} seeds ({_said(self.kinds)}), {count['executions']} executions, "
            f"{count['transitions']} transitions, {count['bodies']} bodies, "
            f"{count['virtual_seconds'] / 31_557_600:.1f} simulated years; "
            f"{count['crashes']} crashes ({count['crashes_in_flight']} with work in flight, "
            f"{count['bodies_cut']} bodies cut short), {count['stops']} graceful stops, "
            f"{faults} faults of the store ("
            f"{_said({str(fault): count[str(fault)] for fault in Fault})}), "
            f"{count['freezes']} freezes, {count['slandered']} live workers taken for dead, "
            f"{count['takeovers']} takeovers ({count['lease_takeovers']} by leases that ran out), "
            f"{count['renewals']} renewals and {count['late_renewals']} that came too late, "
            f"{count['stale_starts']} bodies of stale workers, "
            f"{count['refused_fenced']} fenced and {count['refused_moved']} moved writes refused; "
            f"{sum(self.checked.values())} checks of {len(self.checked)} rules, "
            f"{len(self.broken)} broken; {self.seconds:.1f} s of processor"
        )


def _said(counts: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def campaign(
    seeds: Iterable[int],
    *,
    plant: str | None = None,
    heard: Callable[[Outcome], None] | None = None,
) -> Report:
    """Run seeds until one breaks a rule; with a planted bug, one of those that must catch it."""
    report = Report()
    began = time.process_time()
    wanted = None if plant is None else PLANTS[plant].rules
    for seed in seeds:
        with planted(plant):
            outcome = run(seed)
        report.add(outcome)
        if heard is not None:
            heard(outcome)
        if outcome.broken is not None and (wanted is None or outcome.broken.rule in wanted):
            break
    report.seconds = time.process_time() - began
    return report


def shrunk(outcome: Outcome, plant: str | None = None) -> tuple[Outcome, Limits]:
    """Leave out what a failure does not need: executions, and faults at the end."""
    assert outcome.broken is not None
    best, limits = outcome, Limits()

    def still(less: Limits) -> bool:
        nonlocal best, limits
        with planted(plant):
            found = run(outcome.seed, less)
        same = found.broken is not None and found.broken.rule == best.broken.rule  # type: ignore[union-attr]
        if same and len(found.trace) <= len(best.trace):
            best, limits = found, less
        return same

    orders = {order.number for order in World(outcome.seed).orders}
    for number in sorted(orders):
        if len(orders) > 1 and still(Limits(frozenset(orders - {number}))):
            orders.discard(number)
    kept = limits.orders
    for share in (0.5, 0.25, 0.1, 0.05):
        still(Limits(kept, int(World(outcome.seed).horizon_us * share)))
    return best, limits


def told(outcome: Outcome, limits: Limits, plant: str | None, *, whole: bool = False) -> str:
    """Tell of a broken rule: what, how to see it again, and what came before."""
    lines = outcome.trace if whole else outcome.trace[-_TRACE_SHOWN:]
    left_out = f" (without {limits})" if limits != Limits() else ""
    again = f"python -m campaigns.simulation --seed {outcome.seed} --seeds 1 --trace"
    if plant is not None:
        again += f" --plant {plant}"
    return "\n".join(
        [
            f"BROKEN, seed {outcome.seed} ({outcome.kind}): {outcome.broken}",
            f"again: {again}",
            f"what happened{left_out}, by the microsecond and the process:",
            *lines,
        ]
    )


@dataclass(frozen=True)
class Catch:
    """How a planted bug was caught.

    Attributes:
        after: after how many seeds; None: it was not.
        outcome: the seed that caught it.
        others: the rules that it broke before, in other seeds.
    """

    plant: str
    after: int | None
    outcome: Outcome | None
    others: Counter[str]
    seconds: float


def catch(plant: str, first: int = 0) -> Catch:
    """Put a planted bug in, and see after how many seeds the right rule catches it."""
    least = PLANTS[plant].seeds
    report = campaign(range(first, first + least), plant=plant)
    last = report.broken[-1] if report.broken else None
    caught = (
        last
        if last is not None
        and last.broken is not None
        and (last.broken.rule in PLANTS[plant].rules)
        else None
    )
    others = Counter(
        one.broken.rule for one in report.broken if one.broken is not None and one is not caught
    )
    return Catch(plant, report.seeds if caught else None, caught, others, report.seconds)


def matrix(catches: Iterable[Catch]) -> str:
    """Write the table of what caught which planted bug."""
    rows = ["| planted bug | what it does | caught by | after |", "|---|---|---|---|"]
    for one in catches:
        rule = one.outcome.broken.rule if one.outcome and one.outcome.broken else "NOT CAUGHT"
        after = f"{one.after} seeds" if one.after != 1 else "1 seed"
        rows.append(f"| `{one.plant}` | {PLANTS[one.plant].says} | {rule} | {after} |")
    return "\n".join(rows)
