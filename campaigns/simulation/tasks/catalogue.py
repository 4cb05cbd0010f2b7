"""All actions that a program can be made of, and how they are drawn."""

from __future__ import annotations

from random import Random
from typing import Final

from campaigns.simulation.tasks.action import Action
from campaigns.simulation.tasks.leaves import LEAVES
from campaigns.simulation.tasks.nodes import NODES

ACTIONS: Final[tuple[type[Action], ...]] = (*LEAVES, *NODES)
"""All that a program can be made of."""


def choices(*, node: bool, steady: bool, plain: bool) -> list[type[Action]]:
    """Give the actions for a place in a program, each as often as it weighs.

    Args:
        node: those with parts, or those without.
        steady: only those that make the same calls however long things take.
        plain: only those that a ``def`` task can do.
    """
    return [
        action
        for action in ACTIONS
        if action.is_node is node
        and (action.is_steady or not steady)
        and (action.run_def is not Action.run_def or not plain)
        for _ in range(action.weight)
    ]


NAPS_US: Final = (0, 0, 0, 1_000, 5_000, 15_000, 40_000, 300_000, 2_500_000, 3_600_000_000)


def draw_nap(dice: Random) -> int:
    """Draw how long something takes; now and then an hour."""
    return NAPS_US[int(len(NAPS_US) * dice.random() ** 1.3)]
