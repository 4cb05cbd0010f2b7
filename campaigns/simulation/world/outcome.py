"""What is asked of a seed, and what it has come to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from campaigns.simulation.rules.names import Violation


@dataclass(frozen=True)
class Limits:
    """What is left out of a seed, to make its failure small.

    Attributes:
        orders: the executions that there are; None: all.
        faults_until_us: when the faults stop; None: when the seed says.
    """

    orders: frozenset[int] | None = None
    faults_until_us: int | None = None


@dataclass
class Outcome:
    """What a seed has come to.

    Attributes:
        broken: the rule that was broken, and how; None: none.
        trace: what happened, a line each.
        digest: a hash of all that happened.
    """

    seed: int
    kind: str
    counts: Counter[str]
    checked: Counter[str]
    trace: list[str]
    digest: str
    broken: Violation | None = None
