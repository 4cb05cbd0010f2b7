"""The examples of docs/guides/testing.md and examples/testing do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from outlast import testing
from outlast.errors import WaitTimeout

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "testing.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))


def test_the_page_runs(pytester: pytest.Pytester) -> None:
    assert len(BLOCKS) == PAGE.count("```python") == 6
    for name, code in BLOCKS.items():
        (pytester.path / name).write_text(code, "utf-8")
    pytester.makeini("[pytest]\naddopts = --strict-markers\nfilterwarnings = error")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=sum(code.count("def test_") for code in BLOCKS.values()))
    result.stdout.fnmatch_lines(["*test_no_crash_changes_anything: * crash points tried"])


def test_the_example_runs_and_is_that_of_the_page(pytester: pytest.Pytester) -> None:
    example = ROOT / "examples" / "testing"
    assert (example / "parcel.py").read_text("utf-8").endswith(BLOCKS["parcel.py"])
    for file in example.glob("*.py"):
        (pytester.path / file.name).write_text(file.read_text("utf-8"), "utf-8")
    pytester.makeini("[pytest]\nfilterwarnings = error")
    pytester.runpytest_subprocess().assert_outcomes(passed=4)


def test_the_errors_that_the_page_shows(outlast_engine: testing.VirtualEngine) -> None:
    code: dict[str, object] = {}
    exec(BLOCKS["parcel.py"], code)  # the page's own task
    h = outlast_engine.start(code["send_parcel"], "O-1")  # type: ignore[arg-type]
    with pytest.raises(WaitTimeout) as caught:
        h.result()
    for part in ("what", "where", "why", "do"):
        assert getattr(caught.value, part) in PAGE


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in testing.__all__:
        assert getattr(testing, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute conformance_of"):
        _ = testing.conformance_of
