"""Every error has a code, a cause and an action; every exit code is one of the table."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from outlast import errors
from outlast.cli.exits import EXITS, MEANINGS, exit_of
from outlast.cli.explain import classes, explain, explanations
from outlast.errors import NotFound, OutlastError

from .conftest import Terminal, environment

WRONG: dict[str, tuple[list[str], str, int]] = {
    "no such command": (["lss"], "usage", 2),
    "no such option": (["ls", "--wat"], "usage", 2),
    "an option without a value": (["ls", "--task"], "usage", 2),
    "no such output": (["ls", "-o", "yaml"], "usage", 2),
    "no such state": (["ls", "--state", "sleeping"], "usage", 2),
    "no such duration": (["ls", "--since", "yesterday"], "usage", 2),
    "no argument": (["show"], "usage", 2),
    "no such file": (["run", "nothing.py:hello"], "cannot_load", 2),
    "no such module": (["run", "no.such.module:hello"], "cannot_load", 2),
    "no name of a module": (["run", "..:hello"], "cannot_load", 2),
    "no such task": (["run", "tasks.py:helo"], "unknown_task", 2),
    "no task but a function": (["run", "tasks.py:begun"], "unknown_task", 2),
    "which task": (["run", "tasks.py"], "usage", 2),
    "a missing argument": (["run", "tasks.py:hello"], "wrong_arguments", 2),
    "a stranger": (["run", "tasks.py:hello", "--nmae", "Ada"], "wrong_arguments", 2),
    "one too many": (["run", "tasks.py:hello", "Ada", "yes", "more"], "wrong_arguments", 2),
    "no value": (["run", "tasks.py:hello", "--name"], "wrong_arguments", 2),
    "a wrong type": (["run", "tasks.py:hello", "Ada", "--loud=loudly"], "bad_payload", 2),
    "no JSON": (["run", "tasks.py:hello", "--json", "{"], "wrong_arguments", 2),
    "neither object nor array": (["run", "tasks.py:hello", "--json", "5"], "wrong_arguments", 2),
    "words beside a document": (
        ["run", "tasks.py:hello", "A", "--json", "{}"],
        "wrong_arguments",
        2,
    ),
    "an id that is too short": (["show", "ex"], "usage", 2),
    "no such execution": (["show", "ex_nobody"], "not_found", 4),
    "nobody at all": (["show", "last"], "not_found", 4),
    "no such code": (["explain", "no_such_code"], "not_found", 4),
    "no such directory": (["ls", "--store", "no/such/dir/x.db"], "cannot_load", 2),
    "no such backend": (["ls", "--store", "mysql://x"], "cannot_load", 2),
    "a directory": (["ls", "--store", "."], "cannot_load", 2),
    "no file yet": (["ls", "--store", "none.db"], "schema_mismatch", 7),
    "nothing to upgrade": (["db", "upgrade", "--store", "none.db"], "usage", 2),
    "no task to serve": (["worker", "empty.py"], "usage", 2),
    "code that raises": (["run", "raises.py:x"], "cannot_load", 2),
    "code that exits": (["run", "exits.py:x"], "cannot_load", 2),
    "no Python": (["run", "broken.py:x"], "cannot_load", 2),
}


@pytest.mark.parametrize("case", WRONG)
def test_every_error_has_code_cause_and_action(terminal: Terminal, case: str) -> None:
    words, code, exit_code = WRONG[case]
    terminal.here("db", "init")
    for name, text in {
        "empty.py": "",
        "raises.py": "raise RuntimeError('at import')",
        "exits.py": "raise SystemExit(3)",
        "broken.py": "def f(:\n",
    }.items():
        (terminal.directory / name).write_text(text, encoding="utf-8")
    runs_code = words[0] in ("run", "worker")
    call = terminal.run if runs_code else terminal.here
    done = call(*words)
    assert done.code == exit_code, done
    assert done.out == ""
    lines = done.err.splitlines()
    assert lines[0].startswith(f"✗ {code}  ")
    assert len(lines[0]) > len(f"✗ {code}  ")
    labels = [line.split()[0] for line in lines[1:] if line.startswith("  ") and line[2] != " "]
    assert labels == ["where", "why", "do"]
    assert "Traceback" not in done.err
    said = call(*words, "-o", "json")
    if "yaml" not in words:
        assert (said.error["code"], said.error["exit_code"]) == (code, exit_code)
        assert said.error["where"]
        assert said.error["why"]
        assert said.error["do"]
        assert all(said.error["do"])


def test_the_error_of_a_module_names_the_line(terminal: Terminal) -> None:
    (terminal.directory / "raises.py").write_text("\n\nraise RuntimeError('at import')\n")
    done = terminal.run("run", "raises.py:x")
    assert "RuntimeError: at import" in done.err
    assert 'raises.py", line 3' in done.err


def test_did_you_mean(terminal: Terminal) -> None:
    assert "Did you mean ls?" in terminal.here("lss").err
    assert "did you mean hello?" in terminal.run("run", "tasks.py:helo").err
    assert "did you mean name?" in terminal.run("run", "tasks.py:hello", "--nam", "A").err
    assert "did you mean not_found?" in terminal.here("explain", "not_fond").err
    assert "it lacks @task" in terminal.run("run", "tasks.py:begun").err


@pytest.fixture
def strange_files(terminal: Terminal) -> Terminal:
    """Files that are no database of this version."""
    (terminal.directory / "text.db").write_text("This is no database.\n" * 100)
    other = sqlite3.connect(terminal.directory / "other.db")
    other.execute("CREATE TABLE person (name TEXT)")
    other.commit()
    other.close()
    terminal.here("db", "init", "--store", "newer.db")
    newer = sqlite3.connect(terminal.directory / "newer.db")
    newer.execute("PRAGMA user_version = 999")
    newer.commit()
    newer.close()
    (terminal.directory / "empty.db").touch()
    return terminal


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("text.db", "store_broken"),
        ("other.db", "store_broken"),
        ("newer.db", "schema_mismatch"),
        ("empty.db", "schema_mismatch"),
    ],
)
def test_strange_files_are_told_and_left_alone(
    strange_files: Terminal, file: str, code: str
) -> None:
    path = strange_files.directory / file
    before = path.read_bytes()
    done = strange_files.here("ls", "-o", "json", "--store", file)
    assert (done.code, done.error["code"]) == (7, code)
    assert done.error["why"]
    assert done.error["do"]
    if file != "empty.db":
        started = strange_files.run("start", "-o", "json", "tasks.py:hello", "A", "--store", file)
        assert (started.code, started.error["code"]) == (7, code)
    assert path.read_bytes() == before


def test_a_read_only_directory(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    done = terminal.here("db", "init", "-o", "json")
    assert (done.code, done.error["code"]) == (7, "store_read_only")


def test_db_verify_finds_what_was_tampered_with(terminal: Terminal) -> None:
    terminal.run("run", "tasks.py:hello", "Ada")
    file = sqlite3.connect(terminal.directory / "outlast.db")
    for (name,) in file.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        file.execute(f"DROP TRIGGER {name}")
    file.execute("UPDATE execution SET priority = 5")
    file.commit()
    file.close()
    done = terminal.here("db", "verify")
    assert done.code == 7
    assert "its log does not fold to its row: priority" in done.out
    assert terminal.here("db", "verify", "-o", "json").json["defects"]


def test_our_own_bugs_are_told_without_a_traceback(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*words: object, **more: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("outlast.cli.session.Session.guest", broken)
    done = terminal.here("ls")
    assert done.code == 70
    assert "✗ internal_error" in done.err
    assert "ZeroDivisionError: a bug" in done.err
    assert "--debug" in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in terminal.here("ls", "--debug").err


def test_errors_are_coloured_on_a_terminal_only(terminal: Terminal) -> None:
    assert "\x1b" not in terminal.here("show", "nobody").err


# The tables


def test_every_error_has_a_row_in_both_tables() -> None:
    every = list(classes(OutlastError))
    assert len(every) == len({kind.code for kind in every})
    assert set(EXITS) == set(every)
    assert set(EXITS.values()) <= set(MEANINGS)
    explained = {one.code: one for one in explanations()}
    assert set(explained) == {kind.code for kind in every}
    assert all(one.meaning and one.why and one.do for one in explained.values())


def test_an_error_of_somebody_else_takes_its_ancestors_exit_code() -> None:
    class Stranger(errors.Refused):
        code = "stranger"

    assert exit_of(Stranger("")) == 5


def test_explain(terminal: Terminal) -> None:
    said = terminal.here("explain", "store_owned").out
    assert "Another engine owns this database file." in said
    assert "exit code 5" in said
    assert len(terminal.here("explain").out.splitlines()) == 1 + len(EXITS)
    assert terminal.here("explain", "store_owned", "-o", "json").json["exit_code"] == 5
    assert "store_owned" in terminal.here("explain", "-o", "ids").out.split()
    assert len(terminal.here("explain", "-o", "json").json) == len(EXITS)
    with pytest.raises(NotFound):
        explain("nothing")


# Streams


def test_a_closed_pipe_is_quiet(terminal: Terminal) -> None:
    terminal.run("run", "tasks.py:hello", "Ada")
    process = subprocess.Popen(
        [sys.executable, "-m", "outlast.cli", "explain"],
        cwd=terminal.directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(100) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "0<&-", "1>&- 2>&-"])
def test_closed_streams_are_no_error(terminal: Terminal, closed: str) -> None:
    terminal.here("db", "init")
    line = f'"{sys.executable}" -m outlast.cli ls {closed}'
    done = subprocess.run(
        line,
        shell=True,
        cwd=terminal.directory,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_a_full_disk_under_stdout_is_told(terminal: Terminal) -> None:
    if not Path("/dev/full").exists():
        pytest.fail("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "outlast.cli", "explain"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("✗ usage  what it printed could not be written")
    assert "No space left on device" in done.stderr
    assert done.stderr.count("✗") == 1
    assert "Traceback" not in done.stderr
