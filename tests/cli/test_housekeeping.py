"""Copies of the file, and the deletion of what ended long ago."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Terminal


def ended(terminal: Terminal, count: int = 3) -> None:
    for number in range(count):
        assert terminal.run("run", "tasks.py:hello", f"Ada{number}").code == 0


def test_prune_says_first_and_deletes_then(terminal: Terminal) -> None:
    ended(terminal)
    assert terminal.run("db", "prune").out == "0 executions deleted\n", "30 days are kept"
    assert terminal.run("db", "prune", "--older-than", "0s", "--dry-run").out == (
        "3 executions would be deleted\n"
    )
    assert len(json.loads(terminal.run("ls", "-o", "json").out)["items"]) == 3
    said = json.loads(terminal.run("db", "prune", "--older-than", "0s", "-o", "json").out)
    assert said == {"found": 3, "deleted": 3, "dry_run": False}
    assert json.loads(terminal.run("ls", "-o", "json").out)["items"] == []
    assert terminal.run("db", "verify").code == 0


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (("--state", "failed"), 0),
        (("--state", "succeeded", "--state", "failed"), 2),
        (("--task", "hello"), 2),
        (("--task", "other"), 0),
    ],
)
def test_prune_takes_what_is_asked_for_only(
    terminal: Terminal, words: tuple[str, ...], count: int
) -> None:
    ended(terminal, 2)
    done = terminal.run("db", "prune", "--older-than", "0s", *words)
    assert done.out == f"{count} executions deleted\n"


def test_prune_refuses_states_that_nothing_ends_in(terminal: Terminal) -> None:
    ended(terminal, 1)
    done = terminal.run("db", "prune", "--state", "running", "--older-than", "0s")
    assert done.code == 2 and "succeeded" in done.err


def test_a_backup_is_verified_and_overwrites_nothing(terminal: Terminal, tmp_path: Path) -> None:
    ended(terminal)
    copy = tmp_path / "copy.db"
    done = terminal.run("db", "backup", str(copy))
    assert done.code == 0 and "3 executions, every log folds to its row" in done.out
    assert copy.stat().st_mode & 0o777 == 0o600
    listed = terminal.run("ls", "-o", "json", "--store", f"sqlite:///{copy}")
    assert len(json.loads(listed.out)["items"]) == 3
    before = copy.read_bytes()
    again = terminal.run("db", "backup", str(copy))
    assert again.code != 0 and "cannot_load" in again.err
    assert copy.read_bytes() == before
