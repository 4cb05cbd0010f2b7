"""Every example is run as its own first lines say; one is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import outlast
from outlast.engine.guest import Guest
from outlast.errors import SchemaMismatch
from outlast.lifecycle import Kind, State

EXAMPLES = Path(__file__).parents[1] / "examples"
SECONDS = 100.0


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST_")}
    path = os.pathsep.join(
        filter(None, [str(Path(outlast.__file__).parents[1]), kept.get("PYTHONPATH", "")])
    )
    return {**kept, "PYTHONPATH": path}


def begin(directory: Path, *words: str) -> subprocess.Popen[str]:
    """Begin a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "outlast.cli", *words],
        cwd=directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(directory: Path, *words: str) -> Any:
    """Run a command; gives its result."""
    return ended(begin(directory, *words))


def ended(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    return json.loads(out)


def in_state(directory: Path, state: State) -> str:
    """Wait until the newest execution of a directory's store is in a state; gives its id."""
    give_up_at = time.monotonic() + SECONDS
    pause = threading.Event()
    while time.monotonic() < give_up_at:
        try:
            with Guest(f"sqlite:///{directory / 'outlast.db'}") as guest:
                id = guest.find("last")
                if guest.record(id).state is state:
                    return id
        except (SchemaMismatch, outlast.OutlastError):
            pass  # its engine is just making the file, or has not started it yet
        pause.wait(0.01)
    raise AssertionError(f"nothing came to be {state}")


def answer(directory: Path, value: str) -> None:
    done = begin(directory, "answer", "last", value)
    _, err = done.communicate(timeout=SECONDS)
    assert done.returncode == 0, err


def example(name: str, task: str) -> str:
    return f"{EXAMPLES / name}.py:{task}"


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.stem}' in text, path


def test_hello_survives_a_kill_while_it_sleeps(tmp_path: Path) -> None:
    words = ("run", example("hello", "hello"), "--name", "Ada")
    first = begin(tmp_path, *words)
    id = in_state(tmp_path, State.WAITING)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=SECONDS)
    assert first.returncode == -signal.SIGKILL
    second = begin(tmp_path, *words)
    assert in_state(tmp_path, State.AWAITING_INPUT) == id
    answer(tmp_path, "yes")
    assert ended(second) == "HELLO, ADA!"
    with Guest(f"sqlite:///{tmp_path / 'outlast.db'}") as guest:
        log = guest.log(id)
    assert sum(row.key == "greet#1" for row in log) == 1
    naps = [
        wait["until"]
        for row in log
        if row.kind is Kind.WAIT and row.data is not None
        for wait in row.data["waits"]
        if wait["key"] == "timer#1"
    ]
    (woken,) = [row.at for row in log if row.key == "timer#1"]
    assert len(set(naps)) == 1 and woken >= naps[0]  # it was neither lost nor begun anew
    assert naps[0] - log[0].at >= 5_000_000


def test_parallel(tmp_path: Path) -> None:
    counted = run(tmp_path, "run", example("parallel", "count_words"))
    assert set(counted) == {path.name for path in EXAMPLES.glob("*.py")}
    assert all(number > 10 for number in counted.values())


def test_approval_with_an_answer(tmp_path: Path) -> None:
    words = ("run", example("approval", "refund"), "--order", "O-1", "--cents", "900")
    running = begin(tmp_path, *words)
    in_state(tmp_path, State.AWAITING_INPUT)
    answer(tmp_path, '{"approve": true, "note": "loyal customer"}')
    assert ended(running) == "9.00 paid back for O-1"


def test_approval_that_nobody_gives(tmp_path: Path) -> None:
    words = ("run", example("approval", "refund"), "O-2", "900", "--patience", "200ms")
    assert run(tmp_path, *words) == "nobody decided on O-2 within 200ms"


def test_approval_that_is_not_needed(tmp_path: Path) -> None:
    assert (
        run(tmp_path, "run", example("approval", "refund"), "O-3", "100")
        == "1.00 paid back for O-3"
    )


def test_retries(tmp_path: Path) -> None:
    assert run(tmp_path, "run", example("retries", "fetch_report")) == "report.txt"
    assert (tmp_path / "report.txt").read_text() == "the report, asked for with fetch#1"
    with Guest(f"sqlite:///{tmp_path / 'outlast.db'}") as guest:
        kinds = [row.kind for row in guest.log(guest.find("last"))]
    assert kinds.count("attempt_failed") == 2  # type: ignore[arg-type]


def test_blocking_def(tmp_path: Path) -> None:
    made = run(tmp_path, "run", example("blocking_def", "thumbnails"), "--count", "3")
    assert len(made) == len(set(made)) == 3


def test_embedded(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "embedded.py"), str(tmp_path)],
        text=True,
        env=environment(),
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "14 41\n", "")
