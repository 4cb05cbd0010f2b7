"""How cases are drawn by a seed: so many, the same each time, and none is kept or made small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given
from hypothesis.strategies import SearchStrategy


def drawn(cases: SearchStrategy[Any], each: int, seed: int) -> Callable[[Any], Callable[[], None]]:
    """Give what makes a function of a case one that is called with so many cases."""

    def make(take: Callable[[Any], None]) -> Callable[[], None]:
        settings = hypothesis.settings(
            max_examples=each,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        return hypothesis.seed(seed)(settings(given(case=cases)(take)))

    return make
