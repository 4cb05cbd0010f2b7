"""Undo what was done, where a later part fails: compensation, as ordinary durable calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, Self

from outlast.engine.task.current import the_scope
from outlast.engine.task.registry import AsyncStep, DefStep, Task, TaskWithOptions
from outlast.errors import UndoFailed, WrongColour

P = ParamSpec("P")
_Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class _Undos:
    """What is to be undone, the last thing first."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def _note(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not isinstance(function, AsyncStep | DefStep | Task | TaskWithOptions):
            raise WrongColour(
                f"{getattr(function, '__name__', function)!r} is no step and no task",
                why="what undoes must be recorded, or a crash would undo it twice",
                do="put @step on it",
            )
        self._calls.append((function, args, kwargs))

    def _take(self, error: BaseException | None) -> list[_Call]:
        """Give what is to be undone now: all where the block failed or was cancelled, else nothing.

        Whatever else unwinds the block, parking above all, is no end of it.
        """
        failed = isinstance(error, Exception | asyncio.CancelledError)
        calls, self._calls = self._calls[::-1] if failed else [], []
        return calls


def _check(failures: list[BaseException], error: BaseException | None) -> None:
    if failures:
        said = "; ".join(f"{type(one).__name__}: {one}" for one in failures)
        raise UndoFailed(
            f"{len(failures)} of what was to be undone failed, all else was undone",
            why=said,
            do="see what they left behind",
        ) from error


class Saga(_Undos):
    """A block of an ``async def`` task that undoes what it did where it fails or is cancelled.

    ``async with saga() as undo:``, and after each thing done ``undo(refund, payment)``.
    """

    def __call__(self, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Note how to undo what was just done: a step or a task, and its arguments.

        Raises:
            WrongColour: it is neither.
        """
        self._note(function, args, kwargs)

    async def __aenter__(self) -> Self:
        the_scope("saga")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Undo, the last thing first, each as a durable call; one that fails stops no other.

        Raises:
            UndoFailed: some of it could not be undone; its cause is what the block failed with.
        """
        failures: list[BaseException] = []
        for function, args, kwargs in self._take(error):
            call = function.aio if isinstance(function, DefStep) else function
            try:
                await call(*args, **kwargs)
            except Exception as failure:  # noqa: BLE001 - told below, with the others
                failures.append(failure)
        _check(failures, error)


class BlockingSaga(_Undos):
    """The same for a ``def`` task: ``with saga() as undo:``."""

    def __call__(self, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Note how to undo what was just done, as :meth:`Saga.__call__`.

        Raises:
            WrongColour: it is neither a step nor a task.
        """
        self._note(function, args, kwargs)

    def __enter__(self) -> Self:
        the_scope("saga")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Undo, as :meth:`Saga.__aexit__`.

        Raises:
            UndoFailed: some of it could not be undone.
        """
        failures: list[BaseException] = []
        for function, args, kwargs in self._take(error):
            try:
                function(*args, **kwargs)
            except Exception as failure:  # noqa: BLE001 - told below, with the others
                failures.append(failure)
        _check(failures, error)


def saga() -> Saga:
    """Begin a block that undoes what it did where it fails or is cancelled.

    Raises (when it is entered):
        OutsideExecution: no execution's code runs here.
    """
    return Saga()
