"""What an action of task code is.

To add one, write one class in ``leaves`` or ``nodes``: a frozen dataclass deriving from
:class:`Action`, with ``run`` for ``async def`` tasks, ``run_def`` for ``def`` ones if there is such
a thing, and ``needs`` if somebody outside must do something for it. It adds its number to the
result, whichever way time takes it: so the result of a program is known beforehand. Tokens show
whose it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import outlast
from campaigns.simulation.tasks.steps import Refused, Witness

# The code of one execution


class Life:
    """What an execution has learned, shared by all its branches.

    In a task that is tried again the arguments of steps must stay the same, so that results are
    used again: it is ``silent``.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        self.tokens: list[str] = []
        self.lock = asyncio.Lock()

    def learned(self, token: str) -> None:
        """Take in what a step gave."""
        self.tokens.append(token)

    def failed(self, error: BaseException) -> None:
        """Take in what a step raised."""
        if isinstance(error, Refused):
            self.tokens.append(str(error.args[0]))

    def witness(self) -> Witness:
        """Say what everything from here on may depend on."""
        if self.silent:
            return []
        at = round(outlast.now().timestamp() * 1e6)
        return [f"n{at}", f"r{outlast.random().getrandbits(20)}", *self.tokens[-6:]]


@dataclass(frozen=True)
class Need:
    """What somebody outside must do for an execution: ``signal`` by name, ``answer`` by title."""

    kind: str
    name: str


@dataclass(frozen=True)
class Action:
    """One thing that task code does.

    Attributes:
        number: its own, and what it adds to the result.
        nap_us: how long what it does takes.
        parts: the actions inside of it.
    """

    number: int
    nap_us: int
    parts: tuple[Action, ...] = ()

    weight: ClassVar[int] = 1
    is_node: ClassVar[bool] = False
    is_steady: ClassVar[bool] = True
    """Whether it makes the same calls however long things take."""
    adds: ClassVar[bool] = True

    async def run(self, life: Life) -> int:
        """Do it in an ``async def`` task; gives what it adds."""
        raise NotImplementedError

    def run_def(self, life: Life) -> int:
        """Do it in a ``def`` task."""
        raise NotImplementedError

    @property
    def needs(self) -> tuple[Need, ...]:
        """What somebody outside must do for it."""
        return ()

    @property
    def body_us(self) -> int:
        """How long a body takes: seconds at most."""
        return min(self.nap_us, 2_500_000)

    def total(self) -> int:
        """Give what it must add."""
        return (self.number if self.adds else 0) + sum(part.total() for part in self.parts)

    def walk(self) -> Iterator[Action]:
        """Give it and all inside of it."""
        yield self
        for part in self.parts:
            yield from part.walk()
