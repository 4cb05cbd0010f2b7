"""Starts inside a transaction of the caller's own: ``task.options(connection=…).start(…)``.

The birth is written through the caller's connection, and is there if, and only if, the caller's
transaction is committed: an order and the execution that fulfils it, or neither of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from outlast.engine.control.handle import Execution
from outlast.engine.task.current import current_scope
from outlast.engine.task.registry import StartOptions, Task
from outlast.engine.write.request import birth_event, read_birth
from outlast.errors import UsageError
from outlast.lifecycle import create
from outlast.store import inside_of
from outlast.store.protocol import Create, Inside

if TYPE_CHECKING:
    from outlast.engine.engine import Engine


def start_within(
    engine: Engine,
    connection: Any,
    options: StartOptions,
    task: Task[Any, Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Execution[Any]:
    """Write a birth through a ``psycopg.Connection``, in the thread of the caller.

    Raises:
        UsageError: the store is not PostgreSQL, the connection leads elsewhere or cannot be used.
        KeyConflict: the key belongs to another task or input.
        WrongArguments, BadPayload, PayloadTooLarge, StoreBusy: nothing was written.
    """
    inside = _inside(engine, connection, options, is_async=False)
    item = _birth(engine, options, task, args, kwargs)
    with connection.lock:
        begins = inside.check(connection)
    if begins:
        connection.execute("SELECT")  # the driver begins a transaction as it is told to
    with connection.lock:
        inside.check(connection)
        answer = inside.birth(connection, item)
    return Execution(engine, read_birth(answer, options.key).id, task)


async def astart_within(
    engine: Engine,
    connection: Any,
    options: StartOptions,
    task: Task[Any, Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Execution[Any]:
    """Write a birth through a ``psycopg.AsyncConnection``, as :func:`start_within`."""
    inside = _inside(engine, connection, options, is_async=True)
    item = _birth(engine, options, task, args, kwargs)
    async with connection.lock:
        begins = inside.check(connection)
    if begins:
        await connection.execute("SELECT")
    async with connection.lock:
        inside.check(connection)
        # In a thread, as it waits there; nobody else may use the connection before it has ended.
        writing = asyncio.ensure_future(asyncio.to_thread(inside.birth, connection, item))
        try:
            answer = await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise
    return Execution(engine, read_birth(answer, options.key).id, task)


def _inside(engine: Any, connection: Any, options: StartOptions, *, is_async: bool) -> Inside:
    if current_scope.get() is not None:
        raise UsageError(
            "a task's code cannot start in a caller's transaction",
            why="its starts are rows of its own log, in the engine's transactions",
            do="start without connection=, or do it in a step",
        )
    if options.after:
        raise UsageError(
            "after= and connection= do not go together",
            why="the executions before it would stand still until the caller's transaction ends",
            do="give one of them",
        )
    return inside_of(getattr(engine, "store", None), connection, is_async=is_async)


def _birth(
    engine: Engine,
    options: StartOptions,
    task: Task[Any, Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Create:
    payload = task.input.bind(args, kwargs, bytes_max=engine.payload_bytes_max)
    now = engine.clock.now()
    event = birth_event(task, payload, options, now)
    record, row = create(engine.worker.store.tenant, engine.new_id(), event, now)
    return Create(record, [row])


__all__ = ["astart_within", "start_within"]
