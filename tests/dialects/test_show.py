"""``outlast show --as``: an execution in another system's words, on the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast import Engine, State
from outlast.cli import looking
from outlast.cli.loading import load_module
from outlast.dialects import DIALECTS, project
from tests.cli.conftest import TASKS, Terminal, until

Zoo = dict[str, str]
STATES = {
    "hello": State.SUCCEEDED,
    "approve": State.AWAITING_INPUT,
    "paid": State.CANCELLED,
    "late": State.TIMED_OUT,
}


@pytest.fixture
def terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OUTLAST_STORE", raising=False)
    made = Terminal(tmp_path, capsys)
    yield made
    made.close()


@pytest.fixture
def zoo(terminal: Terminal) -> Zoo:
    """A finished execution, one with a question, a cancelled and a late one."""
    (terminal.directory / "dialect_tasks.py").write_bytes(TASKS.read_bytes())
    tasks = load_module("dialect_tasks.py")
    with Engine(terminal.url) as engine:
        handles = {
            "hello": engine.start(tasks.hello, "Ada"),
            "approve": engine.start(tasks.approve, "O-1"),
            "paid": engine.start(tasks.paid),
            "late": engine.start(tasks.late),
        }
        until(lambda: handles["paid"].status() is State.AWAITING_INPUT)
        handles["paid"].cancel("not needed")
        for name, handle in handles.items():
            until(lambda handle=handle, name=name: handle.status() is STATES[name])  # type: ignore[misc]
    return {name: handle.id for name, handle in handles.items()}


SAID = {
    ("julep", "hello"): "succeeded",
    ("julep", "approve"): "awaiting_input",
    ("julep", "paid"): "cancelled",
    ("julep", "late"): "failed",
    ("flyte", "hello"): "SUCCEEDED",
    ("flyte", "approve"): "RUNNING",
    ("flyte", "paid"): "ABORTED",
    ("flyte", "late"): "TIMED_OUT",
    ("flyte-action", "hello"): "SUCCEEDED",
    ("flyte-action", "approve"): "RUNNING",
    ("flyte-action", "paid"): "ABORTED",
    ("flyte-action", "late"): "TIMED_OUT",
    ("actionqueue", "hello"): "Completed",
    ("actionqueue", "approve"): "Suspended",
    ("actionqueue", "paid"): "Canceled",
    ("actionqueue", "late"): "Canceled",
    ("autopilotcx", "hello"): "completed",
    ("autopilotcx", "approve"): "waiting",
    ("autopilotcx", "paid"): "cancelled",
    ("autopilotcx", "late"): "cancelled",
}


def test_every_dialect_tells_the_status_and_the_transitions(terminal: Terminal, zoo: Zoo) -> None:
    for (name, which), status in SAID.items():
        shown = terminal.here("show", zoo[which], "--as", name, "-o", "json").json
        assert (shown["id"], shown["as"], shown["status"]) == (zoo[which], name, status)
        assert shown["is_final"] == (which != "approve")
        with terminal.guest() as guest:
            told = project(DIALECTS[name], guest.log(zoo[which]))
        assert [
            (one["seq"], one["from"], one["to"], one["name"]) for one in shown["transitions"]
        ] == [(one.seq, one.source, one.target, one.name) for one in told]
        text = terminal.here("show", zoo[which], "--as", name).out
        head, columns, *lines = text.splitlines()
        assert head.split() == [zoo[which], which, DIALECTS[name].label(told[-1].target)] or (
            which == "approve" and name == "flyte-action"
        )
        assert columns.split()[0] == "SEQ"
        assert len(lines) == len(told)


def test_the_words_of_an_execution_with_a_question(terminal: Terminal, zoo: Zoo) -> None:
    julep = terminal.here("show", zoo["approve"], "--as", "julep", "-o", "json").json
    assert [one["name"] for one in julep["transitions"]] == [None, "init", "step", "step", "wait"]
    action = terminal.here("show", zoo["approve"], "--as", "flyte-action", "-o", "json").json
    assert action["number"] == 4
    last = action["transitions"][-1]
    assert (last["action"], last["from"], last["to"]) == ("ask#1", None, "PAUSED")
    lines = terminal.here("show", zoo["approve"], "--as", "flyte-action").out.splitlines()
    assert lines[-1].split()[2:] == ["ask#1", "–", "PAUSED", "new_condition"]


def test_labels_are_for_people_and_values_for_programs(terminal: Terminal, zoo: Zoo) -> None:
    said = terminal.here("show", zoo["late"], "--as", "actionqueue").out
    assert "suspended  canceled   cancellation (deadline)" in said
    assert "scheduled  – (synthetic)" in said
    assert "Suspended" not in said
    assert "CANCELLED" in terminal.here("show", zoo["late"], "--as", "autopilotcx").out
    last = terminal.here("show", zoo["late"], "--as", "actionqueue", "-o", "json").json
    assert last["transitions"][-1]["reason"] == "deadline"


def test_ids_stay_ids_and_other_systems_are_refused(terminal: Terminal, zoo: Zoo) -> None:
    done = terminal.here("show", zoo["hello"], "--as", "julep", "-o", "ids")
    assert done.out.strip() == zoo["hello"]
    wrong = terminal.here("show", zoo["hello"], "--as", "temporal")
    assert wrong.code == 2
    assert "autopilotcx" in wrong.err


def test_the_command_names_every_dialect() -> None:
    assert tuple(DIALECTS) == looking.DIALECT_NAMES
