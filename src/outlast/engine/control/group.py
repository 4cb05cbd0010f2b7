"""Executions that belong together by a label: start, wait for, count, cancel them as one.

A group is nothing but a name: the label ``group``. So it outlives its engine, is there for anybody
who knows it, and lists, filters and bulk commands take it like any label.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, Final, Literal, ParamSpec, Protocol, TypeVar

from outlast.duration import Duration, microseconds
from outlast.engine.control.bulk import BulkReport
from outlast.engine.control.handle import Execution
from outlast.engine.task.registry import StartOptions, Task
from outlast.errors import UsageError, WaitTimeout
from outlast.lifecycle import OPEN, State
from outlast.lifecycle import Execution as Record
from outlast.naming import checked_labels
from outlast.store.protocol import Filter

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
LABEL: Final = "group"
PAGE: Final = 500


class Runner(Protocol):
    """The engine, as far as a group needs it."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine from a thread without a loop."""

    def execution(self, id: str) -> Execution[Any]:
        """Give the handle of an execution."""

    async def astart_with(
        self, options: StartOptions, task: Task[Any, R], args: tuple[Any, ...], kwargs: Any
    ) -> Execution[R]:
        """Start an execution."""

    async def astart_many(
        self, task: Task[Any, R], inputs: Iterable[tuple[Any, ...]], options: StartOptions = ...
    ) -> list[Execution[R]]:
        """Start many executions."""

    async def read_page(self, filter: Filter) -> list[Record]:
        """List executions."""

    async def abulk(self, action: str, filter: Filter, *, why: str | None = None) -> BulkReport:
        """Do something to many executions."""


class Group:
    """Executions under one name. Every method has an async twin, with an ``a`` before its name.

    Attributes:
        name: the value of their label ``group``.
    """

    def __init__(self, engine: Runner, name: str) -> None:
        checked_labels({LABEL: name})
        self._engine = engine
        self.name = name

    @property
    def filter(self) -> Filter:
        """What fits its members, for lists and bulk commands."""
        return Filter(labels={LABEL: self.name})

    async def astart(self, task: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> Execution[R]:
        """Start a member; see :meth:`outlast.Engine.astart`."""
        return await self._engine.astart_with(self._options(), task, args, kwargs)

    def start(self, task: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> Execution[R]:
        """Start a member, as :meth:`astart`."""
        return self._engine.run(self._engine.astart_with(self._options(), task, args, kwargs))

    async def astart_many(
        self, task: Task[Any, R], inputs: Iterable[tuple[Any, ...]]
    ) -> list[Execution[R]]:
        """Start a member for each tuple of arguments; see :meth:`outlast.Engine.astart_many`."""
        return await self._engine.astart_many(task, inputs, self._options())

    def start_many(
        self, task: Task[Any, R], inputs: Iterable[tuple[Any, ...]]
    ) -> list[Execution[R]]:
        """Start many members, as :meth:`astart_many`."""
        return self._engine.run(self.astart_many(task, inputs))

    def _options(self) -> StartOptions:
        return StartOptions(labels={LABEL: self.name})

    async def amembers(self) -> list[Execution[Any]]:
        """Give its members, in the order in which they were started."""
        found = [record.id async for record in self._records()]
        return [self._engine.execution(id) for id in reversed(found)]

    def members(self) -> list[Execution[Any]]:
        """Give its members, as :meth:`amembers`."""
        return self._engine.run(self.amembers())

    async def acounts(self) -> dict[State, int]:
        """Count its members by state; states that none is in are left out."""
        counts: dict[State, int] = {}
        async for record in self._records():
            counts[record.state] = counts.get(record.state, 0) + 1
        return counts

    def counts(self) -> dict[State, int]:
        """Count its members, as :meth:`acounts`."""
        return self._engine.run(self.acounts())

    async def await_all(self, timeout: Duration | None = None) -> dict[State, int]:
        """Wait until all members have ended, also those that join meanwhile; gives their counts.

        Raises:
            WaitTimeout: it took longer; they go on.
        """
        try:
            async with asyncio.timeout(None if timeout is None else microseconds(timeout) / 1e6):
                while waiting := [record.id async for record in self._records(OPEN)]:
                    for id in waiting:
                        await self._engine.execution(id).await_()
        except TimeoutError:
            raise WaitTimeout(
                f'group "{self.name}" has not ended in time',
                why=f"the wait was for {timeout}",
                do="wait again; its members go on",
            ) from None
        return await self.acounts()

    def wait_all(self, timeout: Duration | None = None) -> dict[State, int]:
        """Wait until all members have ended, as :meth:`await_all`."""
        return self._engine.run(self.await_all(timeout))

    async def aresults(self, *, on_error: Literal["raise", "collect"] = "raise") -> list[Any]:
        """Wait for the results of all members, in the order in which they were started.

        Args:
            on_error: ``raise`` raises the first error; ``collect`` puts each into its place.

        Raises:
            UsageError: there is no such policy.
        """
        if on_error not in ("raise", "collect"):
            raise UsageError(f'no such policy: "{on_error}"', do="raise, or collect")
        results: list[Any] = []
        for member in await self.amembers():
            try:
                results.append(await member.aresult())
            except Exception as error:
                if on_error == "raise":
                    raise
                results.append(error)
        return results

    def results(self, *, on_error: Literal["raise", "collect"] = "raise") -> list[Any]:
        """Wait for the results of all members, as :meth:`aresults`."""
        return self._engine.run(self.aresults(on_error=on_error))

    async def acancel(self, why: str | None = None) -> BulkReport:
        """Cancel the members that are open; gives an account of it."""
        return await self._engine.abulk("cancel", self.filter, why=why)

    def cancel(self, why: str | None = None) -> BulkReport:
        """Cancel the members that are open, as :meth:`acancel`."""
        return self._engine.run(self.acancel(why))

    async def _records(self, states: Iterable[State] = ()) -> AsyncIterator[Record]:
        """Read its members, the newest first."""
        before: str | None = None
        labels, wanted = {LABEL: self.name}, tuple(states)
        while True:
            page = Filter(labels=labels, states=wanted, before_id=before, limit=PAGE)
            found = await self._engine.read_page(page)
            for record in found:
                yield record
            if len(found) < PAGE:
                return
            before = found[-1].id


__all__ = ["LABEL", "Group"]
