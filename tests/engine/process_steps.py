"""Steps for processes: a module of its own, as each of those processes imports it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from outlast import Fatal, Retry, RetryAfter, heartbeat, progress, step, stream, this_step


@dataclass
class Order:
    """Something with types of its own."""

    number: int
    price: Decimal
    at: datetime


class Refused(Exception):
    """An error of the user's."""

    def __init__(self, code: int) -> None:
        super().__init__(f"refused with {code}")
        self.code = code


@step(on="process")
def doubled(order: Order) -> Order:
    """Double a price."""
    return Order(order.number, order.price * 2, order.at.astimezone(UTC))


@step(on="process")
def pid() -> int:
    """Say which process this is."""
    return os.getpid()


@step(on="process")
def told() -> list[object]:
    """Say what this step knows of itself."""
    info = this_step()
    return [info.execution_id, info.key, info.attempt, info.idempotency_key]


@step(on="process")
def refuses(code: int) -> None:
    """Raise an error with an attribute."""
    raise Refused(code)


@step(on="process", retries=Retry(3, base="1ms"))
def fatal(place: str) -> None:
    """Raise what ends all retries, and count the attempts."""
    _note(place)
    raise Fatal("never again")


@step(on="process", retries=Retry(1, base="1ms"))
def after(place: str) -> int:
    """Ask for a delay, once."""
    if _note(place) == 1:
        raise RetryAfter(0.2)
    return this_step().attempt


def die(how: str) -> None:
    """End this process in one of many ways."""
    if how == "exit":
        os._exit(3)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    elif how == "segv":
        ctypes.string_at(0)
    elif how == "close":
        os.closerange(3, 256)
        time.sleep(60)  # sleeps: until it is ended
    elif how == "garbage":
        for descriptor in range(3, 256):
            try:
                os.write(descriptor, b"this is no answer")
            except OSError:
                continue


@step(on="process")
def dies(how: str) -> str:
    """End this process."""
    die(how)
    return how


@step(on="process", retries=Retry(2, base="1ms"))
def dies_twice(place: str) -> int:
    """End this process in two attempts, saying how far it came."""
    heartbeat({"attempt": this_step().attempt})
    if _note(place) < 3:
        os._exit(1)
    return int(this_step().last_heartbeat["attempt"])


@step(on="process", retries=Retry(100, base="1ms", cap="1ms"))
def dies_always(place: str) -> int:
    """Be killed in 100 attempts."""
    if _note(place) <= 100:
        os.kill(os.getpid(), signal.SIGKILL)
    return this_step().attempt


@step(on="process", grace="200ms")
def computes(place: str) -> int:
    """Compute in C, where no signal handler of Python's can run."""
    _note(place)
    return sum(range(10**15))


@step(on="process", grace="200ms", timeout="1s", retries=Retry(3, base="1ms"))
def ignores(place: str) -> None:
    """Ignore every request to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _note(place)
    while True:
        time.sleep(60)


@step(on="process", grace="10s")
def cleans_up(place: str) -> None:
    """Clean up when it is stopped."""
    try:
        _note(place)
        time.sleep(60)
    finally:
        Path(f"{place}.clean").touch()


@step(on="process", grace="300ms")
def has_children(place: str) -> None:
    """Start a process that starts another; both would live on, and ignore SIGTERM."""
    program = "import os, signal, sys, time; signal.signal(15, signal.SIG_IGN); "
    inner = program + "open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(600)"
    outer = program + (
        "import subprocess; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); "
        "subprocess.run([sys.executable, '-c', sys.argv[2], sys.argv[1]])"
    )
    subprocess.Popen([sys.executable, "-c", outer, place, inner])
    _note(place)
    while len(Path(place).read_text().split()) < 3:
        time.sleep(0.01)
    Path(f"{place}.ready").touch()
    sum(range(10**15))


@step(on="process", heartbeat="3s", grace="1s")
def silent(place: str) -> None:
    """Say something, and then nothing."""
    heartbeat("here")
    _note(place)
    time.sleep(60)


@step(on="process", queue_timeout="150ms")
def hasty() -> None:
    """Want a process at once."""


@step(on="process")
def too_much() -> str:
    """Give more than may be stored."""
    return "x" * 10_000


def _note(place: str) -> int:
    """Write our process's id into a file; gives how many there are."""
    with open(place, "a", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    return len(Path(place).read_text().split())


@step(on="process")
def talk(words: list[str]) -> int:
    """Say something into a stream, and how far it is."""
    for place, word in enumerate(words):
        stream("draft", word)
        progress(place + 1, len(words))
    return len(words)
