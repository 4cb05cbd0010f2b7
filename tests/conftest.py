"""What holds for all tests."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from outlast.engine.task import current
from outlast.engine.task.registry import TASKS, VERSIONS, Task
from outlast.store import open_store
from servers.oldest import oldest
from servers.postgres import Installation, Server, debians, installed_at
from tests.postgres.emptying import empty_postgres

# Before anything imports it: its assertions are to say what they saw.
pytest.register_assert_rewrite(
    "outlast.testing.conformance",
    "outlast.testing.conformance_schedules",
    "outlast.testing.conformance_structure",
)

# The commands that tests start find their bytecode, as an installed package has it from pip.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long an example takes says more about the machine than about the code.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")

OWN: pytest.StashKey[dict[str, Task[Any, Any]]] = pytest.StashKey()
"""The tasks that a test module has defined, or imported."""


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Keep what each module defines from the others: they may use the same names."""
    before = dict(TASKS)
    report = yield
    if isinstance(collector, pytest.Module) and report.passed:  # type: ignore[attr-defined]
        named = vars(collector.obj).values()
        imported = {one.name: one for one in named if type(one) is Task}
        collector.stash[OWN] = {**TASKS, **imported}
        TASKS.clear()
        TASKS.update(before)
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what has leave to take long: so nothing of it keeps one process when all is done.

    With two processes (``make test``) the first half of the tests is the first one's, so that no
    two of the campaigns contend with each other.
    """
    usual = float(config.getini("timeout"))

    def leave(item: pytest.Item) -> float:
        mark = item.get_closest_marker("timeout")
        return max(usual, mark.args[0]) if mark else usual

    items.sort(key=leave, reverse=True)


def pytest_collection_finish() -> None:
    """Keep the collector from what has been collected: thousands of tests, and all they import.

    They stay to the end, and a test that asks for a collection of its own few objects would wait a
    third of a second for each to be looked at.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Write out what no other process could be told: tests log halves of surrogate pairs, too."""
    report = yield
    report.sections = [  # type: ignore[attr-defined]
        (name, text.encode("utf-8", "backslashreplace").decode())
        for name, text in report.sections  # type: ignore[attr-defined]
    ]
    return report


@pytest.fixture(autouse=True, scope="module")
def _module_alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give a module its own tasks, and take away what its fixtures define."""
    tasks, versions = dict(TASKS), dict(VERSIONS)
    TASKS.update(request.node.stash.get(OWN, {}))
    yield
    TASKS.clear()
    TASKS.update(tasks)
    VERSIONS.clear()
    VERSIONS.update(versions)


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """Take away what a test leaves in this process, as the order of tests is random.

    That is the tasks it defined, which would replace others of the same name, and the engine of a
    test that plays a crash, on which the next test would start its tasks.
    """
    tasks, versions = dict(TASKS), dict(VERSIONS)
    yield
    TASKS.clear()
    TASKS.update(tasks)
    VERSIONS.clear()
    VERSIONS.update(versions)
    current._engines.clear()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL of our own, started once; a test that needs it fails where it does not start.

    ``OUTLAST_POSTGRES`` names the directory of another one's programs, for all tests.
    """
    other = os.environ.get("OUTLAST_POSTGRES")
    with Server(installed_at(Path(other), "other") if other else None) as server:
        yield server


@pytest.fixture(
    scope="session", params=[None, *debians(), *oldest()], ids=lambda one: str(one or "wheel")
)
def every_postgres(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each version there is: the wheel's, what Debian has, and 14 where it was fetched."""
    installation: Installation | None = request.param
    if installation is None:
        yield request.getfixturevalue("postgres")
        return
    with Server(installation) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Server) -> str:
    """The address of an empty database of one's own."""
    return postgres.database()


@pytest.fixture(scope="session")
def _postgres_kept(postgres: Server) -> str:
    """A database that tests use one after another: to make one takes longer than most tests."""
    name = postgres.database().rpartition("/")[2]
    url = postgres.url(name, by_socket=True)
    open_store(url, owner="w0", now=1).close()
    return url


@pytest.fixture
def postgres_store(_postgres_kept: str) -> str:
    """The address of a store with its schema and nothing in it; of one test at a time."""
    empty_postgres(_postgres_kept)
    return _postgres_kept
