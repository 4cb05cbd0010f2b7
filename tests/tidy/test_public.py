"""The public names, pinned: adding one is a decision, removing one breaks somebody's program."""

from __future__ import annotations

import re

import pytest

import outlast
from outlast import blocking

from . import ROOT

NAMES = [
    "task",
    "step",
    "Engine",
    "Client",
    "Execution",
    "Retry",
    "Limit",
    "Rate",
    "Retention",
    "Filter",
    "Schedule",
    "After",
    "Started",
    "Budget",
    "RemoteWorker",
    "sleep",
    "ask",
    "wait_for",
    "now",
    "random",
    "uuid4",
    "changed",
    "saga",
    "slot",
    "this_step",
    "heartbeat",
    "stream",
    "progress",
    "spend",
    "reserve",
    "Fatal",
    "RetryAfter",
    "OutlastError",
    "State",
    "Reason",
    "StepInfo",
    "BudgetState",
    "__version__",
]
BLOCKING = [
    "ask",
    "changed",
    "now",
    "progress",
    "random",
    "saga",
    "sleep",
    "slot",
    "stream",
    "uuid4",
    "wait_for",
]


def test_the_names_are_these() -> None:
    assert outlast.__all__ == NAMES
    assert blocking.__all__ == BLOCKING


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(outlast, name)
    assert name == "__version__" or value.__doc__


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute driver"):
        _ = outlast.driver  # type: ignore[attr-defined]


def test_the_page_of_names_describes_each_once() -> None:
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    first_cells = re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE)
    described = [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(described) == sorted(NAMES)
