"""What an engine counts of itself: plain numbers, for whoever shows them.

Theory of operation. Transitions are counted by the store's word for them, after their commit: so a
number never counts what was rolled back, nor the same row twice, whatever is replayed. Everything
else is measured where it happens. Each number is written by one thread only (the journal's, the
loop's, or that which renews the lease), and read by any; so there are no locks. What runs for every
row or step here is a few additions, as one engine does a hundred thousand of them in ten seconds.

Tasks are few, as they are code; those behind the first :data:`TASKS_MAX` are counted together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from operator import attrgetter
from threading import Lock
from typing import Final

from outlast.lifecycle import Execution, Kind, State, Transition
from outlast.store.protocol import Answer

TASKS_MAX: Final = 200
"""Tasks that are counted each by itself."""
OTHERS: Final = "(others)"
"""What the tasks behind them are counted as."""
FAST: Final = (
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
)  # fmt: skip
"""Bounds, in seconds, for what the engine and the store do."""
SLOW: Final = (
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0,
    86_400.0,
)  # fmt: skip
"""Bounds, in seconds, for what users' code does, and how long executions take."""
SIZES: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_000)
"""Bounds for numbers of items."""
FRESH_MAX: Final = 1_000
"""Quantities that are kept before they are sorted in."""
MANY: Final = 32
"""Rows from which on they are counted together; to begin that is dearer than to count a few."""
_STEP: Final = Kind.STEP
_CREATE: Final = Kind.CREATE
_edge_of: Final = attrgetter("kind", "from_state", "to_state")


class Spread:
    """How a quantity spreads: how many were up to each bound, and their sum.

    Args:
        bounds: the upper bounds, rising; what is above the last one is counted apart.
        scale: what a quantity is divided by before it is shown, 1,000,000 for microseconds.
    """

    __slots__ = ("_counts", "_folding", "_fresh", "_steps", "_total", "add", "bounds", "scale")

    def __init__(self, bounds: Sequence[float], scale: int = 1) -> None:
        self.bounds, self.scale = bounds, scale
        self._steps = [round(bound * scale) if scale > 1 else bound for bound in bounds]
        self._counts = [0] * (len(bounds) + 1)
        self._total: float = 0
        self._fresh: list[float] = []
        self._folding = Lock()
        self.add: Callable[[float], None] = self._fresh.append
        """Count one. It is an append and no more: they are sorted in when somebody looks."""

    @property
    def is_full(self) -> bool:
        """Whether it is time to sort in what has come."""
        return len(self._fresh) >= FRESH_MAX

    def fold(self) -> tuple[list[int], float]:
        """Sort in what has come.

        Returns:
            How many were up to each bound and above the one before, at last those above all; and
            the sum of all, as they were given.
        """
        with self._folding:
            fresh = self._fresh
            count = len(fresh)  # more may come meanwhile, behind these
            some = sorted(fresh[:count])
            del fresh[:count]
            self._total += sum(some)
            done = 0
            for place, bound in enumerate(self._steps):
                upto = bisect_right(some, bound, done)
                self._counts[place] += upto - done
                done = upto
            self._counts[-1] += count - done
            return list(self._counts), self._total


class Tally:
    """What one engine has counted since it was made.

    Attributes:
        edges: transitions by kind and both states.
        started, ended: executions by task, and by task and state.
        lasted: how long those that ended took from their birth on, by task.
        delayed: how long they had waited before their code began, by task.
        steps: how long attempts of steps took, by the task that called them.
        commits, batches: how long commits took, and how many items they had.
        claims: how long claims took.
        claimed: how many executions they gave.
        renewals: how long renewals of the lease took.
        late_renewals: how many of them came too late, or failed.
        refused: items that the store refused, by its word for it.
    """

    def __init__(self) -> None:
        self.edges: Counter[tuple[Kind, State | None, State]] = Counter()
        self.started: Counter[str] = Counter()
        self.ended: Counter[tuple[str, State]] = Counter()
        self.lasted: dict[str, Spread] = {}
        self.delayed: dict[str, Spread] = {}
        self.steps: dict[str, Spread] = {}
        self.commits, self.batches = Spread(FAST), Spread(SIZES)
        self.claims, self.claimed = Spread(FAST), 0
        self.renewals, self.late_renewals = Spread(FAST), 0
        self.refused: Counter[str] = Counter()
        self._names: dict[str, str] = {}

    def committed(self, rows: Sequence[Transition], ended: Sequence[Execution]) -> None:
        """Count what the store has committed; see ``Store.hear``."""
        edges = self.edges
        if len(rows) >= MANY:
            edges.update(map(_edge_of, rows))
        else:
            for row in rows:
                edges[_edge_of(row)] += 1
        steps = False
        for row in rows:
            kind = row.kind
            if kind is _STEP:
                steps = True
            elif kind is _CREATE:
                self.started[self.name_of(str((row.data or {}).get("task", "")))] += 1
        if steps:
            _fold_full(self.steps)
        for record in ended:
            name = self.name_of(record.task)
            self.ended[name, record.state] += 1
            _spread(self.lasted, name).add(record.updated_at - record.created_at)
            if record.started_at is not None:
                _spread(self.delayed, name).add(record.started_at - record.created_at)
        if ended:
            _fold_full(self.lasted)
            _fold_full(self.delayed)

    def wrote(self, seconds: float, answers: Sequence[Answer]) -> None:
        """Count a commit of the journal."""
        self.commits.add(seconds)
        self.batches.add(len(answers))
        if self.commits.is_full:
            self.commits.fold()
            self.batches.fold()
        for answer in answers:
            if answer.refused is not None:
                self.refused[answer.refused] += 1

    def took(self, seconds: float, claimed: int) -> None:
        """Count a claim."""
        self.claims.add(seconds)
        self.claimed += claimed
        if self.claims.is_full:
            self.claims.fold()

    def renewed(self, seconds: float) -> None:
        """Count a renewal of the lease."""
        self.renewals.add(seconds)
        if self.renewals.is_full:
            self.renewals.fold()

    def spans_of(self, task: str) -> Spread:
        """Give where the attempts of steps that a task calls are counted."""
        return _spread(self.steps, self.name_of(task))

    def name_of(self, task: str) -> str:
        """Give the name that a task is counted under."""
        name = self._names.get(task)
        if name is None:
            name = task if len(self._names) < TASKS_MAX else OTHERS
            if name is task:
                self._names[task] = name
        return name


def _fold_full(spreads: dict[str, Spread]) -> None:
    """Sort in what has come, where it has become much; others may make further ones meanwhile."""
    for spread in tuple(spreads.values()):
        if spread.is_full:
            spread.fold()


def _spread(spreads: dict[str, Spread], name: str) -> Spread:
    spread = spreads.get(name)
    if spread is None:
        spread = spreads[name] = Spread(SLOW, 1_000_000)
    return spread


__all__ = ["FAST", "OTHERS", "SIZES", "SLOW", "TASKS_MAX", "Spread", "Tally"]
