"""The pytest plugin: the fixture ``outlast_engine`` and the marker ``outlast_crash_everywhere``.

A marked test is run once undisturbed and then once for each crash point of that run, each time with
all its fixtures made anew; to pytest it is one test, whose report is that of the first run that
failed, or of the last one.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from outlast.testing.crash import CrashingEngine
    from outlast.testing.virtual import VirtualEngine

pytest: Any = importlib.import_module("pytest")
"""Not a requirement of the package: whoever loads this module has it."""

MARKER: Final = "outlast_crash_everywhere"


class _Run:
    """One run of a marked test: where its engine shall die, and the engine, once it has one."""

    def __init__(self, crash_after: int | None) -> None:
        self.crash_after = crash_after
        self.engine: CrashingEngine | None = None


_RUN: Final = pytest.StashKey()
_TRIED: Final = pytest.StashKey()


def pytest_configure(config: Any) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}: run the test again with a crash of outlast_engine after every committed "
        "transition in turn; it must come out the same",
    )
    config.stash[_TRIED] = {}


@pytest.fixture  # type: ignore[untyped-decorator]
def outlast_engine(request: Any) -> Iterator[VirtualEngine]:
    """An Outlast engine in memory, whose time passes only in ``outlast_engine.advance(…)``."""
    run: _Run | None = request.node.stash.get(_RUN, None)
    if run is None:
        from outlast.testing.virtual import VirtualEngine

        with VirtualEngine() as engine:
            yield engine
        return
    from outlast.testing.crash import CrashingEngine

    run.engine = CrashingEngine(run.crash_after)
    with run.engine as engine:
        yield engine


@pytest.hookimpl(tryfirst=True)  # type: ignore[untyped-decorator]
def pytest_runtest_protocol(item: Any, nextitem: Any) -> bool | None:
    """Run a marked test as often as it has crash points, and once before."""
    if item.get_closest_marker(MARKER) is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _run_everywhere(item, nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _run_everywhere(item: Any, nextitem: Any) -> list[Any]:
    """Give the reports that stand for all runs."""
    from outlast.testing.crash import check_some, compared, differs

    reports, first = _run_once(item, item.parent, None)
    if not all(report.passed for report in reports):
        return _settled(item, nextitem, reports)
    undisturbed = first.engine
    try:
        assert undisturbed is not None, "the test does not use the fixture outlast_engine"
        check_some(undisturbed)
    except AssertionError as error:
        return _settled(item, nextitem, _failed(reports, str(error)))
    for number in range(1, undisturbed.commits + 1):
        last = number == undisturbed.commits
        reports, run = _run_once(item, nextitem if last else item.parent, number)
        failed = [report for report in reports if not report.passed]
        why: str | None = None
        if failed:
            crash = getattr(failed[0].longrepr, "reprcrash", None)
            why = f"the test failed: {getattr(crash, 'message', 'see above')}"
        elif run.engine is not None:
            why = compared(run.engine, undisturbed)
        if why is not None:
            said = differs(number, undisturbed, why)
            reports = reports if failed else _failed(reports, said)
            for report in failed:
                report.sections.append(("outlast", said))
            return reports if last else _settled(item, nextitem, reports)
    item.config.stash[_TRIED][item.nodeid] = undisturbed.commits
    for report in reports:
        report.user_properties.append(("outlast_crash_points", undisturbed.commits))
    return reports


def _run_once(item: Any, nextitem: Any, crash_after: int | None) -> tuple[list[Any], _Run]:
    runner = importlib.import_module("_pytest.runner")
    run = item.stash[_RUN] = _Run(crash_after)
    try:
        return runner.runtestprotocol(item, nextitem=nextitem, log=False), run
    finally:
        del item.stash[_RUN]


def _settled(item: Any, nextitem: Any, reports: list[Any]) -> list[Any]:
    """Take down the fixtures of wider scope that the next test does not use: no run follows."""
    try:
        item.session._setupstate.teardown_exact(nextitem)
    except Exception as error:  # noqa: BLE001 - a fixture of the user's; the test must say so
        reports[-1].outcome, reports[-1].longrepr = "failed", f"a teardown failed: {error!r}"
    return reports


def _failed(reports: list[Any], text: str) -> list[Any]:
    for report in reports:
        if report.when == "call":
            report.outcome, report.longrepr = "failed", text
    return reports


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how much was tried."""
    tried: dict[str, int] = terminalreporter.config.stash[_TRIED]
    if tried:
        terminalreporter.section("outlast", sep="-")
        for name, count in tried.items():
            terminalreporter.line(f"{name}: {count} crash points tried")
