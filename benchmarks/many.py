"""Run a part of a workload in each of several processes, which begin at the same moment.

Times are monotonic, which all processes of a machine share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing import get_context
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE_SECONDS = 300.0


def together(part: Callable[..., T], arguments: Sequence[tuple[Any, ...]]) -> list[T]:
    """Call ``part(ready, *arguments)`` in a process for each; gives what each has returned.

    ``ready`` is called by each when it could begin, and returns once all have called it.

    Raises:
        RuntimeError: one of them has failed, with what it said.
    """
    context = get_context("spawn")
    barrier = context.Barrier(len(arguments))
    pipes = [context.Pipe(duplex=False) for _ in arguments]
    children = [
        context.Process(target=_called, args=(part, given, barrier, pipe[1]))
        for given, pipe in zip(arguments, pipes, strict=True)
    ]
    try:
        for child in children:
            child.start()
        said = [_said(pipe[0]) for pipe in pipes]
    finally:
        for child in children:
            child.join(PATIENCE_SECONDS)
            child.kill()
    failed = [fault for fault, _ in said if fault is not None]
    if failed:
        raise RuntimeError(failed[0])
    return [result for _, result in said]


def _said(pipe: Any) -> tuple[str | None, Any]:
    if not pipe.poll(PATIENCE_SECONDS):
        return "a process said nothing", None
    said: tuple[str | None, Any] = pipe.recv()
    return said


def _called(part: Callable[..., Any], given: tuple[Any, ...], barrier: Any, pipe: Any) -> None:
    try:
        pipe.send((None, part(lambda: barrier.wait(PATIENCE_SECONDS), *given)))
    except Exception as error:  # noqa: BLE001 - the parent raises it
        barrier.abort()
        pipe.send((repr(error), None))
