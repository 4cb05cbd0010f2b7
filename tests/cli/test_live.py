"""The live tree, on a terminal of its own; and the prompts."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outlast.cli.live import tree
from outlast.cli.prompting import read_value
from outlast.errors import UsageError
from outlast.lifecycle import State
from outlast.story import Step, Story

from .conftest import SECONDS, Terminal, environment


class Screen:
    """A command on a pseudo terminal: what it shows, and keys for it."""

    def __init__(self, directory: Path, *words: str) -> None:
        self.text = ""
        self._came = b""
        self._read_to = 0
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(directory)
            command = [sys.executable, "-m", "outlast.cli", *words]
            os.execve(
                command[0], command, environment(TERM="xterm-256color", COLUMNS="110", LINES="30")
            )
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 110, 0, 0))

    def shows(self, text: str) -> None:
        """Wait until something new shows this text."""
        until = time.monotonic() + SECONDS
        while text not in self.text[self._read_to :]:
            if not self._read(max(0.0, until - time.monotonic())):
                raise AssertionError(f"{text!r} is not in:\n{self.text}")
        self._read_to = self.text.index(text, self._read_to) + len(text)

    def press(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def end(self) -> int:
        """Wait for its end; gives its exit code."""
        until = time.monotonic() + SECONDS
        while self._read(max(0.0, until - time.monotonic())):
            pass
        _, status = os.waitpid(self._pid, 0)
        os.close(self._terminal)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self._terminal, 65_536)
        except OSError:  # the other end is closed
            return False
        self._came += data  # what comes may be half a character, or half a colour
        self.text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self._came.decode("utf-8", "ignore"))
        return bool(data)

    def close(self) -> None:
        if self._pid:
            os.kill(self._pid, 9)
            os.waitpid(self._pid, 0)
            os.close(self._terminal)


@pytest.fixture
def screens(terminal: Terminal) -> Iterator[Any]:
    """Begin commands on pseudo terminals."""
    made: list[Screen] = []

    def begin(*words: str) -> Screen:
        made.append(Screen(terminal.directory, *words))
        return made[-1]

    yield begin
    for screen in made:
        screen.close()


def test_run_shows_the_tree_and_takes_an_answer_in_place(screens: Any) -> None:
    screen = screens("run", "tasks.py:approve", "O-1")
    screen.shows("? awaiting input")
    screen.shows("ask#1")
    screen.shows('"Release O-1?"')
    screen.shows("[a]nswer")
    screen.press("a")
    screen.shows("ok [y/n]")
    screen.press("y\n")
    screen.shows('note (empty: "")')
    screen.press("fine\n")
    screen.shows("✓ succeeded")
    assert screen.end() == 0
    assert '"O-1 released: fine"' in screen.text
    assert "✓ note#1" in screen.text


def test_d_detaches(screens: Any, terminal: Terminal) -> None:
    screen = screens("run", "tasks.py:nap")
    screen.shows("⏸ timer")
    screen.press("d")
    screen.shows("detached: ex_")
    assert screen.end() == 130
    assert terminal.here("ls", "-o", "json").json["items"][0]["state"] == "waiting"


def test_ctrl_c_detaches(screens: Any) -> None:
    screen = screens("run", "tasks.py:nap")
    screen.shows("⏸ timer")
    screen.press("\x03")
    screen.shows("go on with   outlast run tasks.py:nap")
    assert screen.end() == 130


def test_c_cancels_after_asking(screens: Any) -> None:
    screen = screens("run", "tasks.py:nap")
    screen.shows("⏸ timer")
    screen.press("c")
    screen.shows("[y/N]")
    screen.press("y\n")
    screen.shows("⊘ cancelled")
    assert screen.end() == 1


def test_watch_shows_steps_under_way_and_failures(screens: Any, terminal: Terminal) -> None:
    terminal.worker()
    id = terminal.run("start", "-o", "ids", "tasks.py:fails", "no route").out.strip()
    screen = screens("watch", id)
    screen.shows("✗ failed")
    assert screen.end() == 1
    assert "✗ broken#1" in screen.text
    assert "attempt 2 (1 retry: ValueError)" in screen.text
    assert "✗ execution_failed  ValueError: no route" in screen.text


def test_run_shows_the_step_under_way_at_once(screens: Any, terminal: Terminal) -> None:
    screen = screens("run", "tasks.py:gated", "Ada")
    screen.shows("hold#1")
    (terminal.directory / "gate").touch()
    screen.shows("✓ succeeded")
    assert screen.end() == 0


def test_answer_prompts_by_the_form(screens: Any, terminal: Terminal) -> None:
    terminal.worker()
    id = terminal.run("start", "-o", "ids", "tasks.py:confirm").out.strip()
    terminal.in_state(id, State.AWAITING_INPUT)
    screen = screens("answer", id)
    screen.shows("Sure? [y/n]")
    screen.press("y\n")
    assert screen.end() == 0
    terminal.in_state(id, State.SUCCEEDED)


def test_tables_are_coloured_and_cut_to_the_width(screens: Any, terminal: Terminal) -> None:
    terminal.run("run", "-q", "tasks.py:fails", "x" * 200)
    screen = screens("ls")
    screen.shows("1 shown")
    assert screen.end() == 0
    assert all(len(line) <= 110 for line in screen.text.splitlines())


@pytest.mark.parametrize("flag", [("--no-color",), ()])
def test_a_dumb_terminal_gets_no_colours(terminal: Terminal, flag: tuple[str, ...]) -> None:
    assert "\x1b" not in terminal.run("ls", *flag, NO_COLOR="1").err


# Without a terminal


def test_a_long_tree_keeps_what_is_open_and_the_newest() -> None:
    story = Story("ex_1", task="many", state=State.RUNNING)
    for number in range(100):
        story.steps[f"s#{number}"] = Step(f"s#{number}", "done", ended_at=1)
    story.steps["s#3"].ended_at = None
    lines = [line.plain for line in tree(story, {"new#1": (1, 0)}, 10, lines_max=10)]
    assert len(lines) == 12
    assert "91 more finished steps" in lines[1]
    assert "s#3" in lines[2]
    assert any("new#1" in line for line in lines)
    assert "s#99" in lines[-2]


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "boolean"}, "YES", True),
        ({"type": "boolean"}, "off", False),
        ({"type": "string"}, "5", "5"),
        ({"type": "integer"}, "5", 5),
        ({"type": "number"}, "5.5", 5.5),
        ({"type": "array"}, "[1]", [1]),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
        ({"enum": ["red", "blue"]}, "red", "red"),
        ({"enum": [1, 2]}, "2", 2),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "null", None),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text", "text"),
        ({"$ref": "#/$defs/T", "$defs": {"T": {"type": "string"}}}, "x y", "x y"),
        ({}, '{"any": 1}', {"any": 1}),
    ],
)
def test_answers_are_read_by_their_form(schema: dict[str, Any], text: str, value: Any) -> None:
    assert read_value(schema, text) == value


def test_an_answer_that_is_no_json_is_refused() -> None:
    with pytest.raises(UsageError, match="no JSON"):
        read_value({"type": "object"}, "perhaps")
