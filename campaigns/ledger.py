"""The ledger outside the database: every body notes its start and its end.

A line is one ``write`` to a file opened with ``O_APPEND``, so it is whole and survives the SIGKILL
of its process (no ``fsync``: the machine lives on). It is the only witness that the engine has no
hand in. A start names what its execution had seen when the step was called: the tokens of earlier
outcomes and the time of the last one. All of that must be in the database by then.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TOKEN: Final = re.compile(rb"T[0-9a-f]{10}")
"""What each body makes anew and returns, so that its result is recognised in the database."""
_counter: Final = itertools.count(1)
_open: Final[list[tuple[int, int]]] = []
_path: Final[list[str]] = []
_heard: Final[list[Callable[[], object]]] = []


@dataclass(frozen=True, slots=True)
class Start:
    """A body that began.

    Attributes:
        execution: the id of its execution.
        key: the step's identity there.
        attempt: which attempt, from 1.
        life: the process it ran in.
        token: what it was about to return.
        witness: tokens, and ``n`` with a time, that its execution had been given before.
    """

    execution: str
    key: str
    attempt: int
    life: int
    token: str
    witness: tuple[str, ...]


def open_ledger(path: str, life: int) -> None:
    """Open the ledger for the bodies of this process."""
    _open[:] = [(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), life)]
    _path[:] = [path]


def began(execution: str, key: str, attempt: int, witness: Sequence[str]) -> str:
    """Note the start of a body; gives its token."""
    descriptor, life = _open[0]
    token = f"T{life & 0xFFFFF:05x}{next(_counter) & 0xFFFFF:05x}"
    line = f"S\t{execution}\t{key}\t{attempt}\t{life}\t{token}\t{','.join(witness)}\n"
    os.write(descriptor, line.encode())
    if _heard:
        _heard.pop()()
    return token


def on_first_body(hear: Callable[[], object]) -> None:
    """Have a function called when the next body of this process has begun."""
    _heard[:] = [hear]


def ended(token: str) -> None:
    """Note the end of a body."""
    descriptor, _ = _open[0]
    os.write(descriptor, f"E\t{token}\n".encode())


def cut(at: int) -> None:
    """Note in a file beside it that a body was stopped, and when."""
    with open(f"{_path[0]}.cut", "a", encoding="utf-8") as cuts:
        cuts.write(f"{_open[0][1]} {at}\n")


class Reader:
    """Reads what was added to the ledger since the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0

    def more(self) -> tuple[list[Start], set[str]]:
        """Give the new starts, and the tokens of the new ends."""
        if not self._path.exists():
            return [], set()
        with self._path.open("rb") as ledger:
            ledger.seek(self._place)
            data = ledger.read()
        self._place += len(data)
        starts: list[Start] = []
        ends: set[str] = set()
        for line in data.decode().splitlines():
            kind, *parts = line.split("\t")
            if kind == "E":
                ends.add(parts[0])
                continue
            execution, key, attempt, life, token, witness = parts
            seen = tuple(one for one in witness.split(",") if one)
            starts.append(Start(execution, key, int(attempt), int(life), token, seen))
        return starts, ends
