"""The command line for tests: in this process, in another one, or in one that is looked at."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import outlast
from outlast.cli.app import run as run_here
from outlast.engine.guest import Guest
from outlast.lifecycle import State

SECONDS = 100.0
SOURCES = Path(outlast.__file__).parents[1]
TASKS = Path(__file__).parent / "tasks.py"


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it wrote on stdout, as JSON."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """What it wrote on stdout, as one JSON document a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        """What it wrote on stderr, as JSON."""
        return json.loads(self.err.strip().splitlines()[-1])


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that finds this very package, and no colours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST_")}
    path = os.pathsep.join(filter(None, [str(SOURCES), kept.get("PYTHONPATH", "")]))
    return {**kept, "PYTHONPATH": path, "PYTHONWARNINGS": "error", **more}


def request(url: str, token: str, path: str, body: Any = None) -> Any:
    """Ask a server for something, and give its answer."""
    asked = urllib.request.Request(
        f"{url}/api/v1/{path}",
        None if body is None else json.dumps(body).encode(),
        {"authorization": f"Bearer {token}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=100) as answer:
        return json.load(answer)


class Running:
    """A command that runs in a process of its own; its lines are read as they come."""

    def __init__(self, words: tuple[str, ...], directory: Path, **more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "outlast.cli", *words],
            cwd=directory,
            env=environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.seen: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._out: list[str] = []
        self._ended = 0
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, True), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, False), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, is_out: bool) -> None:
        for line in stream:
            if is_out:
                self._out.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def line_with(self, text: str) -> str:
        """Wait for a line with this text."""
        for line in self.seen:
            if text in line:
                return line
        until = time.monotonic() + SECONDS
        while self._ended < len(self._readers):
            try:
                line_or_end = self._lines.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                break
            if line_or_end is None:
                self._ended += 1
                continue
            self.seen.append(line_or_end)
            if text in line_or_end:
                return line_or_end
        raise AssertionError(f"no line with {text!r} in:\n{''.join(self.seen)}")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it, as kill -9 does."""
        self.process.kill()
        self.process.wait(SECONDS)

    def end(self) -> Done:
        """Wait for its end."""
        code = self.process.wait(SECONDS)
        for reader in self._readers:
            reader.join(SECONDS)
        while True:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                break
            if line is not None:
                self.seen.append(line)
        out = "".join(self._out)
        return Done(code, out, "".join(line for line in self.seen if line not in self._out))


class Terminal:
    """Types commands in a directory of its own, where ``tasks.py`` lies."""

    def __init__(self, directory: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.url = f"sqlite:///{directory / 'outlast.db'}"
        self._capture = capture
        self._running: list[Running] = []

    def here(self, *words: str) -> Done:
        """Run a command in this process: quick, for those that run no code of a user."""
        self._capture.readouterr()
        code = run_here(words)
        out, err = self._capture.readouterr()
        return Done(code, out, err)

    def run(self, *words: str, stdin: str = "", **more: str) -> Done:
        """Run a command in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "outlast.cli", *words],
            cwd=self.directory,
            env=environment(**more),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def spawn(self, *words: str, **more: str) -> Running:
        """Begin a command in a process of its own."""
        running = Running(words, self.directory, **more)
        self._running.append(running)
        return running

    def worker(self, *words: str) -> Running:
        """Begin an engine that serves ``tasks.py``, and wait until it does."""
        running = self.spawn("worker", "tasks.py", *words)
        running.line_with("serving")
        return running

    def guest(self) -> Guest:
        """Open the store beside whoever owns it."""
        return Guest(self.url)

    def in_state(self, id: str, *states: State) -> State:
        """Wait until an execution is in one of these states."""
        with self.guest() as guest:
            seen: State = until(lambda: (state := guest.record(id).state) in states and state)
            return seen

    def close(self) -> None:
        """End what still runs."""
        for running in self._running:
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGKILL)
                running.process.wait(SECONDS)
            running.end()
            for stream in (running.process.stdout, running.process.stderr):
                if stream is not None:
                    stream.close()


def until(condition: Callable[[], Any]) -> Any:
    """Wait until a condition holds, and give what it gave."""
    give_up_at = time.monotonic() + SECONDS
    pause = threading.Event()
    while True:
        seen = condition()
        if seen:
            return seen
        if time.monotonic() > give_up_at:
            raise AssertionError("it did not happen")
        pause.wait(0.005)


@pytest.fixture
def terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    """A terminal in an empty directory with the tasks of these tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OUTLAST_STORE", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    (tmp_path / "tasks.py").write_bytes(TASKS.read_bytes())
    made = Terminal(tmp_path, capsys)
    yield made
    made.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Give the address of a store for one test."""
    return f"sqlite:///{tmp_path}/outlast.db"


@pytest.fixture
def outlast(url: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command on that store, and give all that it says."""

    def call(*words: str, code: int = 0) -> str:
        got = run_here(["--store", url, *words])
        said = capsys.readouterr()
        assert got == code, said.err
        return said.out + said.err

    return call
