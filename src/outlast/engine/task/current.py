"""What runs here: the execution whose code this is, the step whose body it is, the open engine."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Protocol

from outlast.errors import NoEngine, OutsideExecution


class AnyScope(Protocol):
    """What task code needs of its execution; there is one for ``async def`` and one for ``def``."""

    is_async: bool
    slot: int | None
    """The slot of the schedule that it was made for; None when it was made by no slot."""

    def changed(self, name: str) -> bool:
        """Say whether this execution has the edit of this name."""

    def call(
        self, kind: str, name: str, digest: int, payload: Any, *, explicit_key: str | None = None
    ) -> Any:
        """Make a durable call: an awaitable in ``async def`` code, its result in ``def`` code."""

    def emit(self, name: str, payload: bytes) -> Any:
        """Append to a stream; gives what may be awaited, or None."""

    def report(self, done: float, total: float | None, text: str | None) -> Any:
        """Say how far it is; gives what may be awaited, or None."""

    def jot(self, payload: bytes) -> None:
        """Take a line that its code logs; it never fails."""

    def is_past(self) -> bool:
        """Tell whether its code says again what it has said before."""

    def names(self) -> Mapping[str, object]:
        """Name what a line of its code is about: execution, task, attempt, worker."""

    def now(self) -> int:
        """Give the time of the last thing that was delivered, in microseconds since 1970."""


@dataclass(frozen=True, slots=True)
class StepInfo:
    """About the step whose body is running.

    Attributes:
        execution_id: the execution it belongs to.
        key: its identity there.
        attempt: which attempt this is, from 1.
        idempotency_key: the same in every attempt of this step and in no other: give it to
            services that can recognise a repeated request. A recovery of the execution goes on
            under the same keys; a rerun and a fork have keys of their own.
        identity: the execution that the keys are named after, where it is another one.
        last_heartbeat: what :func:`outlast.heartbeat` was last told in an earlier attempt, or None.
    """

    execution_id: str
    key: str
    attempt: int
    identity: str | None = None
    last_heartbeat: Any = None

    @property
    def idempotency_key(self) -> str:
        """Name this step for services outside."""
        return f"{self.identity or self.execution_id}:{self.key}"


current_scope: Final[ContextVar[AnyScope | None]] = ContextVar("outlast_scope", default=None)


class AnyBody(Protocol):
    """What code in a step's body can ask of it, and tell it."""

    def info(self) -> StepInfo:
        """Tell about the step."""

    def beat(self, details: bytes | None) -> None:
        """Take a sign of life, and what it says."""

    def spend(self, amounts: Mapping[str, int]) -> None:
        """Count what was spent."""

    def emit(self, name: str, payload: bytes) -> Any:
        """Append to a stream; gives what may be awaited, or None."""

    def report(self, done: float, total: float | None, text: str | None) -> Any:
        """Say how far it is; gives what may be awaited, or None."""

    def jot(self, payload: bytes) -> None:
        """Take a line that its code logs; it never fails."""

    def names(self) -> Mapping[str, object]:
        """Name what a line of its code is about: execution, task, step, attempt, worker."""


current_step: Final[ContextVar[AnyBody | None]] = ContextVar("outlast_step", default=None)
"""The step's body that this is."""

is_child = False
"""Whether this process runs steps for the engine of another one."""

current_engine: Final[ContextVar[Any]] = ContextVar("outlast_engine", default=None)
"""The engine whose steps' bodies run here: there may be several, each of another tenant."""

_engines: Final[list[Any]] = []


def the_scope(what: str) -> AnyScope:
    """Give the execution whose code is running.

    Raises:
        OutsideExecution: none is.
    """
    scope = current_scope.get()
    if scope is None:
        raise OutsideExecution(
            f"{what} was called where no execution runs",
            do="call it in a task's own code; not in a step, nor outside an engine",
        )
    return scope


def the_engine() -> Any:
    """Give the engine that runs this code; for all other code the one that was opened last.

    Code of an engine that was closed gets no other one: it may be another tenant's.

    Raises:
        NoEngine: none is open, or the one whose code this is was closed.
    """
    own = current_engine.get()
    if own is not None and own in _engines:
        return own
    if own is not None or not _engines:
        raise NoEngine(
            "no engine is open",
            do='with Engine("sqlite:///outlast.db"): …, or outlast run FILE:TASK',
        )
    return _engines[-1]


def opened(engine: Any) -> None:
    """Make this the engine that tasks are started on."""
    _engines.append(engine)


def closed(engine: Any) -> None:
    """Take an engine away again."""
    if engine in _engines:
        _engines.remove(engine)
