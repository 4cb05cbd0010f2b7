"""The parent of all lives: it has imported the engine, and forks a child for each.

The parent is single-threaded and never opens a database: a connection that crosses a fork is a
broken one. So the file is read by children, too, which send what they found over a pipe.
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from campaigns import reading
from campaigns.life import Plan, Word, live
from campaigns.reading import Snapshot

ROOT: Final = Path(__file__).resolve().parent.parent
_IDLE_SECONDS: Final = 0.25
"""How long after its engine has opened a life is killed that was to begin a body, and has not."""


@dataclass(slots=True)
class Ending:
    """How a life went.

    Attributes:
        lines: what it told, in order.
        killed: whether a SIGKILL ended it, ours or its own.
        code: its exit code, for one that ended by itself.
        hung: whether it had to be killed because it did not end in time.
        opened: whether it had opened the engine by then.
    """

    lines: list[list[Any]] = field(default_factory=list)
    killed: bool = False
    code: int = 0
    hung: bool = False
    opened: bool = False


@dataclass(frozen=True, slots=True)
class When:
    """When a life ends.

    Attributes:
        after: seconds, then a signal is sent; None: it ends by itself, or at its point.
        since: from when they count: the fork, the moment the engine is open, or the beginning of
            the first body, which comes when it comes on a machine that others use as well.
        by: the signal.
        fresh: whether it is a fresh interpreter.
    """

    after: float | None
    since: Literal["birth", "open", "body"] = "open"
    by: signal.Signals = signal.SIGKILL
    fresh: bool = False


def run_life(plan: Plan, when: When, patience: float) -> Ending:
    """Let a child live, and end it; one that says nothing for so many seconds hangs."""
    read, write = os.pipe()
    pid = _exec(plan, write) if when.fresh else _fork(plan, read, write)
    os.close(write)
    ending = Ending()
    try:
        _attend(ending, read, pid, when, patience)
    finally:
        os.close(read)
    _, status = os.waitpid(pid, 0)
    ending.killed = os.WIFSIGNALED(status)
    ending.code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
    return ending


def _fork(plan: Plan, read: int, write: int) -> int:
    pid = os.fork()
    if pid == 0:
        os.close(read)
        live(plan, write)
    return pid


def _exec(plan: Plan, write: int) -> int:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-m", "campaigns.life"],
        stdin=subprocess.PIPE,
        stdout=write,
        cwd=ROOT,
        env=environment,
    )
    assert child.stdin is not None
    child.stdin.write(msgspec.json.encode(plan))
    child.stdin.close()
    child.returncode = 0  # it is waited for by its pid
    return child.pid


def _attend(ending: Ending, read: int, pid: int, when: When, patience: float) -> None:
    """Read what the life tells until its end, and send the signal in time."""
    poll = select.poll()
    poll.register(read, select.POLLIN | select.POLLHUP)
    now = time.monotonic()
    at = now + when.after if when.after is not None and when.since == "birth" else None
    awaits_body = when.after is not None and when.since == "body"
    give_up_at = now + patience
    rest = b""
    while True:
        now = time.monotonic()
        if at is not None and now >= at:
            os.kill(pid, when.by)
            at = None
            give_up_at = now + patience
        if now >= give_up_at:
            ending.hung = True
            os.kill(pid, signal.SIGKILL)
            give_up_at = now + patience
        until = give_up_at if at is None else min(at, give_up_at)
        if not poll.poll(max(0.0, (until - now) * 1e3)):
            continue
        data = os.read(read, 1 << 16)
        if not data:
            return  # the last line may be cut short: then nobody was told
        *lines, rest = (rest + data).split(b"\n")
        ending.lines += map(msgspec.json.decode, lines)
        if lines:
            give_up_at = time.monotonic() + patience
        said = {line[0] for line in ending.lines}
        if not ending.opened and Word.READY in said:
            ending.opened = True
            if when.after is not None and when.since == "open":
                at = time.monotonic() + when.after
            elif awaits_body:
                at = time.monotonic() + _IDLE_SECONDS
        if awaits_body and Word.BODY in said:
            awaits_body = False
            at = time.monotonic() + (when.after or 0.0)


def read_file(path: Path, seqs: dict[str, int], inboxes: dict[str, int], *, full: bool) -> Snapshot:
    """Read, in a child, what is new in a file that nobody has open; ``full`` reads everything."""

    def read() -> bytes:
        return msgspec.msgpack.encode(reading.read(path, seqs, inboxes, full=full))

    return msgspec.msgpack.decode(in_child(read), type=Snapshot)


def in_child(function: Callable[[], bytes]) -> bytes:
    """Run a function in a forked child and give what it gives.

    Raises:
        RuntimeError: it failed.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read)
            with os.fdopen(write, "wb") as pipe:
                pipe.write(function())
            code = 0
        except BaseException as error:  # noqa: BLE001 - the parent raises
            sys.stderr.write(f"a child of the campaign failed: {error!r}\n")
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"reading in a child failed with status {status}")
    return data


def when_of(dice: random.Random, *, fresh: bool = False) -> When:
    """Draw when a life is killed: mostly some milliseconds into its work, at times before."""
    if fresh:
        return When(dice.uniform(0.001, 0.04), fresh=True)
    if dice.random() < 0.12:
        return When(dice.uniform(0.001, 0.012), since="birth")
    if dice.random() < 0.5:
        return When(dice.uniform(0.0, 0.02), since="body")
    return When(dice.uniform(0.001, 0.04))
