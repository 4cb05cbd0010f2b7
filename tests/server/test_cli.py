"""The command line against a server: the same commands, with --store http://…."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from outlast.cli.app import run
from servers.postgres import free_port

APP = """
from outlast import ask, sleep, step, stream, task


@step
async def add(a: int, b: int) -> int:
    return a + b


@task
async def total(a: int, b: int = 2) -> int:
    await stream("said", a)
    return await add(a, b)


@task
async def asks(name: str) -> str:
    return "sent" if await ask(f"Send {name}?", bool, to="ops") else "kept"


@task
async def rests() -> None:
    await sleep("1d")
"""
TOKEN = "a token of twenty characters"


@dataclass
class Terminal:
    """A terminal in a directory, with a server that runs in another process."""

    directory: Path
    url: str
    process: subprocess.Popen[str]

    def __call__(self, *words: str, code: int = 0) -> str:
        """Run a command, in this process: it is quicker."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.directory)
            patch.setenv("OUTLAST_STORE", self.url)
            patch.setenv("OUTLAST_TOKEN", TOKEN)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                ended = run(words)
        assert ended == code, (words, out.getvalue(), err.getvalue())
        return (out if code == 0 else err).getvalue()

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "-o", "json"))


def end(process: subprocess.Popen[str]) -> int:
    process.terminate()
    assert process.stdout is not None
    process.stdout.close()
    return process.wait(100)


def begin(directory: Path, *more: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "outlast.cli", "dev", "app.py", "--port", "0", "-o", "json", *more],
        cwd=directory,
        env={**os.environ, "OUTLAST_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said: dict[str, Any] = json.loads(process.stdout.readline())
    return process, said


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    directory = tmp_path_factory.mktemp("served")
    (directory / "app.py").write_text(APP)
    process, said = begin(directory)
    try:
        yield Terminal(directory, said["url"], process)
    finally:
        assert end(process) == 0


def test_run_waits_for_the_end(terminal: Terminal) -> None:
    assert terminal("run", "app.py:total", "--a", "1").strip().endswith("3")
    said = [
        json.loads(line) for line in terminal("run", "app.py:total", "1", "-o", "json").splitlines()
    ]
    kinds = [one.get("kind") for one in said]
    assert kinds[0] == "create" and "finish" in kinds


def test_look_decide_and_control(terminal: Terminal) -> None:
    id = terminal("start", "app.py:asks", "--name", "Ada", "-o", "ids").strip()
    while terminal.json("show", id)["state"] != "awaiting_input":
        time.sleep(0.02)  # sleeps: for another process
    assert "Send Ada?" in terminal("inbox") and "ops must answer" in terminal("why", id)
    assert id in terminal("ls", "--state", "awaiting_input")
    assert "wait" in terminal("events", id)
    terminal("pause", id, "--why", "lunch")
    assert terminal.json("show", id)["state"] == "paused"
    terminal("resume", id)
    terminal("label", id, "team=ops")
    terminal("priority", id, "7")
    terminal("answer", id, "yes")
    assert "sent" in terminal("watch", id)
    shown = terminal.json("show", id[-6:])
    assert shown["labels"] == {"team": "ops"} and shown["result"] == "sent"
    assert "succeeded" in terminal("show", id, "--as", "julep")
    made = terminal("rerun", id, "-o", "ids").strip()
    terminal("cancel", made, "--why", "left")
    assert "cancelled" in terminal("tree", made)
    assert "transition_refused" in terminal("pause", made, code=5)
    assert "not_found" in terminal("show", "ex_00000000000000000000", code=4)


def test_rules_and_what_only_the_file_can_do(terminal: Terminal) -> None:
    terminal("queue", "pause", "slow", "--why", "deploy")
    assert "paused" in terminal("queue", "ls")
    terminal("queue", "resume", "slow")
    terminal("limit", "set", "mail", "2")
    assert "mail" in terminal("limit", "ls")
    terminal("limit", "set", "mail", "none")
    terminal("budget", "set", "task:total", "usd=50")
    assert "50" in terminal("budget", "ls")
    terminal("schedule", "create", "nightly", "app.py:total", "--cron", "0 7 * * *", "--", "1")
    assert "nightly" in terminal("schedule", "ls")
    assert len(terminal("schedule", "next", "nightly").splitlines()) == 5
    terminal("schedule", "pause", "nightly")
    terminal("schedule", "trigger", "nightly")
    terminal("schedule", "cancel", "nightly")
    id = terminal("start", "app.py:rests", "-o", "ids").strip()
    terminal("cancel", "--task", "rests", "--yes")
    assert terminal.json("show", id)["state"] == "cancelled"
    total = terminal("start", "app.py:total", "5", "-o", "ids").strip()
    terminal("watch", total)
    assert terminal("stream", total, "said").strip() == "5"
    assert "cannot_load" in terminal("db", "verify", code=2)


def test_a_server_that_is_killed_goes_on_and_watchers_with_it(tmp_path: Path) -> None:
    """kill -9 while somebody watches: the watcher sees the rest from the next server, once each."""
    (tmp_path / "app.py").write_text(APP)
    port = str(free_port())
    process, said = begin(tmp_path, "--port", port)
    terminal = Terminal(tmp_path, said["url"], process)
    id = terminal("start", "app.py:asks", "--name", "Ada", "-o", "ids").strip()
    while terminal.json("show", id)["state"] != "awaiting_input":
        time.sleep(0.02)  # sleeps: for another process
    watcher = subprocess.Popen(
        [sys.executable, "-m", "outlast.cli", "watch", id, "-o", "json"],
        cwd=tmp_path,
        env={**os.environ, "OUTLAST_STORE": terminal.url, "OUTLAST_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdout is not None
    lines = [watcher.stdout.readline()]
    process.send_signal(signal.SIGKILL)
    assert end(process) == -signal.SIGKILL
    process, _ = begin(tmp_path, "--port", port)
    try:
        terminal("answer", id, "yes")
        lines += watcher.stdout.readlines()
        watcher.stdout.close()
        assert watcher.wait(100) == 0
        rows = [one for one in map(json.loads, lines) if one.get("type") == "transition"]
        assert [one["seq"] for one in rows] == list(range(1, len(rows) + 1))
        assert rows[-1]["to"] == "succeeded"
    finally:
        assert end(process) == 0


def test_without_a_token_nothing_is_done(terminal: Terminal) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "outlast.cli", "ls", "--store", terminal.url],
        env={name: value for name, value in os.environ.items() if name != "OUTLAST_TOKEN"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3 and "unauthenticated" in done.stderr


def test_a_task_is_started_by_its_name_without_its_code(terminal: Terminal) -> None:
    elsewhere = terminal.directory / "elsewhere"
    elsewhere.mkdir()
    away = Terminal(elsewhere, terminal.url, terminal.process)
    assert json.loads(away("run", "total", "1", "--b", "4", "-q")) == 5
    assert json.loads(away("run", "total", "--json", '{"a": 3}', "-q")) == 5
    id = away("start", "asks", "--name", "5", "-o", "ids").strip()
    assert "Send 5?" in away("show", id)
    assert "total needs a" in away("run", "total", code=2)
    assert "did you mean a" in away("start", "total", "--aa", "1", code=2)
    assert "one is no JSON" in away("start", "total", "one", code=2)
    assert "too many" in away("start", "total", "1", "2", "3", code=2)
    assert "not_found" in away("start", "nothing", code=4)
