"""How many bodies may run at once whose steps do not say what they cost.

Theory of operation. What a body without ``cost=`` spends is known only at its end, so a budget
cannot set it aside. To start all that are there would spend a small budget many times over. So what
such a step has spent at most so far, in this process, is taken for what its next body will spend:
bodies run side by side as long as what is left covers all of them, and one after the other where it
does not. Of a step that nobody has seen end yet, one body runs at first. So a budget is overrun at
most by what bodies spend more than any before them, and by the last one.

A charge counts from the moment that its row is decided; what the store knows comes a little later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol

from outlast.budget import parts_of

Body = tuple[str, str]
"""The execution and the key of a body."""


class Waiting(Protocol):
    """Who waits for its turn."""

    def wake(self) -> None:
        """See whether the turn has come."""


class Pace:
    """The bodies of a process whose cost nobody knows, by the budgets that they will charge.

    Attributes:
        pending: what was charged and is not stored yet, by budget.
    """

    def __init__(self) -> None:
        self.pending: Counter[str] = Counter()
        self._largest: dict[tuple[str, str], int] = {}
        self._under_way: dict[str, dict[Body, str]] = {}
        self._waiting: dict[int, Waiting] = {}

    def admits(self, body: Body, step: str, budgets: Mapping[str, int]) -> bool:
        """Tell whether a body may start beside those under way; then it is one of them.

        Args:
            body: which.
            step: the name of its step.
            budgets: what is left of each budget, as the store knows it.
        """
        if not all(self._fits(body, step, name, left) for name, left in budgets.items()):
            return False
        for name in budgets:
            self._under_way.setdefault(name, {})[body] = step
        return True

    def _fits(self, body: Body, step: str, name: str, left: int) -> bool:
        meter = parts_of(name)[1]
        others = [of for one, of in self._under_way.get(name, {}).items() if one != body]
        mine = self._largest.get((step, meter))
        if mine is None:
            return step not in others
        if mine == 0:
            return True
        room = left - self.pending[name]
        if all(self._largest.get((other, meter)) == 0 for other in others):
            return room > 0
        return room - sum(self._largest.get((other, meter), 0) for other in others) >= mine

    def is_out(self, step: str, name: str, left: int) -> bool:
        """Tell whether nothing is left of a budget that a step is known to spend of."""
        return bool(self._largest.get((step, parts_of(name)[1]))) and left <= 0

    def ended(self, body: Body, names: Iterable[str], spent: Mapping[str, int] | None) -> None:
        """Hear that a body is under way no more, and what it spent; None: nobody knows."""
        for name in names:
            bodies = self._under_way.get(name, {})
            step = bodies.pop(body, None)
            if not bodies:
                self._under_way.pop(name, None)
            if step is not None and spent is not None:
                meter = parts_of(name)[1]
                before = self._largest.get((step, meter), 0)
                self._largest[step, meter] = max(before, spent.get(meter, 0))
        self.wake()

    def charged(self, amounts: Mapping[str, int]) -> None:
        """Hear of a charge that is on its way to the store."""
        self.pending.update(amounts)

    def stored(self, amounts: Mapping[str, int]) -> None:
        """Hear that the store has a charge, or never will."""
        for name, amount in amounts.items():
            self.pending[name] -= amount
            if not self.pending[name]:
                del self.pending[name]
        self.wake()

    def wait(self, who: Waiting) -> None:
        """Be woken when it may be one's turn."""
        self._waiting[id(who)] = who

    def wake(self) -> None:
        """Have all that wait look again."""
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            for one in waiting.values():
                one.wake()


__all__ = ["Pace"]
