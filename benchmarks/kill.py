"""Kill a child process when its store shows what it shall, and read what its bodies have noted."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from time import monotonic, sleep
from typing import Any

from benchmarks.checks import expect, look
from benchmarks.place import spawn

PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Entry:
    """A body that began: of which execution and step, in which process, when (monotonic)."""

    id: str
    key: str
    pid: int
    at: float


def read_ledger(path: Path) -> list[Entry]:
    """Read the ledger, once it is on the disk."""
    with path.open() as ledger:
        os.fsync(ledger.fileno())
        found = [line.split() for line in ledger]
    return [Entry(id, key, int(pid), float(at)) for id, key, pid, at in found]


def killed_at(
    store: str, steps: int, program: str, *arguments: object, ledger: Path | None = None
) -> set[tuple[str, str]]:
    """Start a child, and SIGKILL it once so many steps are recorded; gives the steps there are.

    Raises:
        Unverified: it ended by itself, or took too long.
    """
    child = spawn(program, *arguments, ledger=ledger)
    try:
        until = monotonic() + PATIENCE_SECONDS
        while not _is_there(store):
            _go_on(child, until)
        with look(store) as file:
            while not file.is_made() or file.step_count() < steps:
                _go_on(child, until)
            child.send_signal(signal.SIGKILL)
            child.wait()
            recorded = file.steps()
    finally:
        child.kill()
        child.communicate()
    expect(len(recorded) == len(set(recorded)), "a step is recorded twice")
    return set(recorded)


def _is_there(store: str) -> bool:
    if not store.startswith("sqlite:"):
        return True
    file = Path(store.removeprefix("sqlite:///"))
    return file.exists() and file.stat().st_size > 0


def _go_on(child: Popen[str], until: float) -> None:
    expect(child.poll() is None, "the child ended before it was killed")
    expect(monotonic() < until, "the child did not come as far as it should")
    sleep(0.003)


def wait_for_line(child: Popen[str]) -> dict[str, Any]:
    """Wait until a child has written its line of JSON and ended.

    Raises:
        Unverified: it failed.
    """
    written, _ = child.communicate(timeout=PATIENCE_SECONDS)
    lines = written.splitlines()
    expect(child.returncode == 0 and bool(lines), f"a child failed with exit {child.returncode}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found
