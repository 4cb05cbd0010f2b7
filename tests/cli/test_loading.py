"""Finding tasks by file and by module."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.cli.loading import load_module, load_task
from outlast.errors import CannotLoad, UnknownTask, UsageError

ONE = "from outlast import task\n@task(name='{name}')\nasync def work() -> None: ...\n"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_the_only_task_needs_no_name(directory: Path) -> None:
    (directory / "loading_one.py").write_text(ONE.format(name="loading_one"))
    assert load_task("loading_one.py").name == "loading_one"
    assert load_task("./loading_one.py:work") is load_task(
        f"{directory}/loading_one.py:loading_one"
    )
    assert load_task("loading_one:work").name == "loading_one"


def test_a_file_may_be_named_like_a_module_of_python(directory: Path) -> None:
    (directory / "json.py").write_text(ONE.format(name="loading_json"))
    assert load_task("json.py:work").name == "loading_json"
    assert sys.modules["json"].__name__ == "json"
    assert sys.modules["json"].__file__ != str(directory / "json.py")


def test_a_file_imports_its_neighbours(directory: Path) -> None:
    (directory / "loading_near.py").write_text("VALUE = 5\n")
    (directory / "loading_far.py").write_text(
        "from loading_near import VALUE\n" + ONE.format(name="loading_far")
    )
    assert load_task("loading_far.py").name == "loading_far"


def test_tasks_that_are_only_imported_are_found_by_name(directory: Path) -> None:
    (directory / "loading_base.py").write_text(ONE.format(name="loading_base"))
    (directory / "loading_top.py").write_text("from loading_base import work\n")
    assert load_task("loading_top.py:work").name == "loading_base"


def test_a_module_that_lacks_a_module_is_told_as_such(directory: Path) -> None:
    (directory / "loading_lacks.py").write_text("import no_such_thing\n")
    for source in ("loading_lacks.py", "loading_lacks"):
        with pytest.raises(CannotLoad, match="no_such_thing"):
            load_module(source)
    assert "loading_lacks" not in sys.modules
    with pytest.raises(CannotLoad, match="there is no module loading_nowhere") as raised:
        load_module("loading_nowhere")
    assert "installed" in raised.value.why
    (directory / "loading_file.py").write_text("")
    with pytest.raises(CannotLoad) as raised:
        load_module("sub.loading_file")
    assert raised.value.do


def test_no_task_or_too_many(directory: Path) -> None:
    (directory / "loading_none.py").write_text("")
    (directory / "loading_two.py").write_text(
        ONE.format(name="loading_a") + ONE.format(name="loading_b").replace("work", "play")
    )
    with pytest.raises(UnknownTask, match="no task"):
        load_task("loading_none.py")
    with pytest.raises(UsageError, match="2 tasks") as raised:
        load_task("loading_two.py")
    assert "outlast run loading_two.py:play" in raised.value.do
