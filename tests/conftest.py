"""What holds for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from outlast.engine import current
from outlast.engine.registry import TASKS

# Before anything imports it: its assertions are to say what they saw.
pytest.register_assert_rewrite(
    "outlast.testing.conformance", "outlast.testing.conformance_schedules"
)


@pytest.fixture(autouse=True, scope="module")
def _module_alone() -> Iterator[None]:
    """Take away the tasks that the fixtures of a whole module have defined."""
    tasks = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(tasks)


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """Take away what a test leaves in this process, as the order of tests is random.

    That is the tasks it defined, which would replace others of the same name, and the engine of a
    test that plays a crash, on which the next test would start its tasks.
    """
    tasks = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(tasks)
    current._engines.clear()
