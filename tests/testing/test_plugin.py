"""The plugin, as a project of somebody else's meets it: pytest in a directory of its own."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TASKS = """
    from outlast import step, task

    bodies, runs = [], []

    @step
    async def double(value: int) -> int:
        bodies.append(value)
        return 2 * value

    @task
    async def good() -> int:
        return await double(1) + await double(2)

    @task
    async def bad() -> int:
        runs.append(1)
        await double(1)
        return len(runs)
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(shop=TASKS)
    pytester.makeini("[pytest]\naddopts = --strict-markers -p no:randomly\nfilterwarnings = error")
    return pytester


def test_the_entry_point_is_the_plugin() -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"outlast": "outlast.testing.plugin"}


def test_the_fixture_is_there(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        from shop import good

        def test_one(outlast_engine):
            assert outlast_engine.start(good).result() == 6

        def test_another(outlast_engine):
            assert outlast_engine.executions() == []

        def test_the_task_alone():
            assert good.start is not None
        """
    )
    result = project.runpytest()
    result.assert_outcomes(passed=3)
    assert "crash point" not in result.stdout.str()
    result = project.runpytest("--fixtures")
    result.stdout.fnmatch_lines(["*outlast_engine*", "*time passes only in*advance*"])


def test_the_plugin_costs_nothing_where_it_is_not_used(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import sys

        def test_not_loaded():
            assert "outlast.testing.plugin" in sys.modules
            assert not [name for name in sys.modules if name.startswith("outlast.engine")]
        """
    )
    project.runpytest_subprocess().assert_outcomes(passed=1)


def test_a_marked_test_is_one_test_and_says_how_much_it_tried(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest
        from shop import good

        made = []

        @pytest.fixture
        def fresh():
            made.append(1)
            yield made
            made.append(-1)

        @pytest.fixture(scope="module")
        def once():
            made.append("module")
            yield
            assert made.count(1) == made.count(-1) == 6
            assert made.count("module") == 1

        @pytest.mark.outlast_crash_everywhere
        def test_good(outlast_engine, fresh, once, tmp_path):
            assert list(tmp_path.iterdir()) == []
            (tmp_path / "mine").touch()
            assert sum(one for one in made if one != "module") == 1
            assert outlast_engine.start(good).result() == 6

        def test_after(fresh, once):
            assert made.count(1) == 6
        """
    )
    result = project.runpytest("-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_good: 4 crash points tried"])


def test_faults_fail_it(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest
        import shop

        @pytest.fixture(scope="module")
        def wide():
            yield
            print("taken down")

        @pytest.mark.outlast_crash_everywhere
        def test_result(outlast_engine, wide):
            shop.runs.clear()
            assert outlast_engine.start(shop.bad).result() == 1

        @pytest.mark.outlast_crash_everywhere
        def test_nothing_asserted(outlast_engine):
            shop.runs.clear()
            outlast_engine.start(shop.bad).result()

        @pytest.mark.outlast_crash_everywhere
        def test_nothing_done(outlast_engine):
            pass

        @pytest.mark.outlast_crash_everywhere
        def test_no_engine():
            pass

        @pytest.mark.outlast_crash_everywhere
        def test_broken(outlast_engine):
            raise ZeroDivisionError

        @pytest.mark.outlast_crash_everywhere
        def test_skipped(outlast_engine):
            pytest.skip("not today")

        @pytest.mark.outlast_crash_everywhere
        def test_good(outlast_engine):
            assert outlast_engine.start(shop.good).result() == 6
        """
    )
    result = project.runpytest("-rA")
    result.assert_outcomes(failed=5, passed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*a crash changed what comes out; where: crash point * of ex_*",
            "*came to bad succeeded b'2' instead of bad succeeded b'1'*",
            "*there was no crash point to try*",
            "*the test does not use the fixture outlast_engine*",
            "*test_good: 4 crash points tried*",
        ]
    )
    result.stdout.fnmatch_lines(["*why: the test failed: assert 2 == 1*"])


def test_a_recorded_body_that_runs_again_fails_it(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest
        import shop
        from outlast.engine.drive.playback import Playback

        @pytest.fixture(autouse=True)
        def forgetful(monkeypatch):
            monkeypatch.setattr(Playback, "load", lambda self, *_: ([], []))

        @pytest.mark.outlast_crash_everywhere
        def test_it(outlast_engine):
            assert outlast_engine.start(shop.good).result() == 6
        """
    )
    result = project.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*a body ran again although its outcome was recorded: double#1*"])


def test_a_plain_test_is_quick(project: pytest.Pytester) -> None:
    """With the fixture's own set-up and take-down; 50 ms are promised, and some 5 are taken."""
    project.makepyfile(
        """
        import pytest
        from shop import good

        @pytest.mark.parametrize("number", range(10))
        def test_one(outlast_engine, number):
            h = outlast_engine.start(good)
            outlast_engine.advance("3d")
            assert h.result() == 6
        """
    )
    reports = project.inline_run("-p", "no:randomly").getreports("pytest_runtest_logreport")
    seconds: dict[str, float] = {}
    for report in reports:
        seconds[report.nodeid] = seconds.get(report.nodeid, 0) + report.duration
    assert len(seconds) == 10
    assert min(seconds.values()) < 0.05
