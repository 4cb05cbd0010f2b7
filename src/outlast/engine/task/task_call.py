"""Calls of tasks in a task's code: what they ask for, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from outlast.codec import digest
from outlast.engine.task.results import value_of
from outlast.errors import UsageError
from outlast.lifecycle import State

if TYPE_CHECKING:
    from outlast.engine.task.registry import StartOptions, Task


class ChildEnd(NamedTuple):
    """What a child came to, as its parent's log says it."""

    id: str
    state: str
    payload: bytes | None
    data: Any
    digest: int | None


class ChildCall:
    """What a call of a task in a task asks for."""

    __slots__ = ("options", "payload", "task")

    def __init__(self, task: Task[Any, Any], options: StartOptions, payload: bytes) -> None:
        self.task, self.options, self.payload = task, options, payload

    def come_to(self, end: ChildEnd) -> tuple[Any, BaseException | None]:
        """Give what the call gives, or what it raises."""
        try:
            state, name = State(end.state), self.task.name
            return value_of(state, end.payload, end.data, self.task, end.id, name), None
        except Exception as error:  # noqa: BLE001 - whatever the child raised is the call's outcome
            return None, error


class Started(msgspec.Struct, frozen=True):
    """An execution that a task has started and does not wait for.

    Attributes:
        id: its name in the store.
    """

    id: str


class StartCall(ChildCall):
    """What a start of a task in a task asks for: an execution that goes its own way."""

    __slots__ = ()

    def read(self, data: bytes) -> Started:
        """Give what the call gives, from its row."""
        return msgspec.json.decode(data, type=Started)


class ContinueAsNew(BaseException):
    """Ends a task's code: it goes on as a new execution. For ``except`` of nobody."""

    def __init__(self, call: ChildCall) -> None:
        super().__init__(f"{call.task.name} goes on as a new execution")
        self.call = call


def call_task(
    scope: Any,
    kind: str,
    task: Task[Any, Any],
    options: StartOptions,
    args: tuple[Any, ...],
    kwargs: Any,
) -> Any:
    """Make the durable call of a task in a task's code: a coroutine, or its result in ``def`` code.

    Raises:
        UsageError, WrongArguments, BadPayload: as :func:`request_of`.
    """
    return scope.call(*request_of(kind, task, options, args, kwargs))


def request_of(
    kind: str,
    task: Task[Any, Any],
    options: StartOptions,
    args: tuple[Any, ...],
    kwargs: Any,
) -> tuple[str, str, int, ChildCall]:
    """Give what a scope needs to call a task: as a ``child``, or to ``start`` it.

    Raises:
        UsageError: the options have a key, or name what must have ended before.
        WrongArguments, BadPayload: at the call, before anything runs.
    """
    if options.key is not None or options.after:
        raise UsageError(
            f"{task.name} was called in a task with a key of its own, or after others",
            why="the call itself is its key, and the order of the calls its order",
            do=f"call {task.name} without them, or start it outside or in a step",
        )
    payload = task.input.bind(args, kwargs)
    make = ChildCall if kind == "child" else StartCall
    return kind, task.name, digest(payload), make(task, options, payload)
