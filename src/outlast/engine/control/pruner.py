"""Housekeeping: what ended long ago is deleted, a little at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from outlast.engine.write.identity import first_id
from outlast.lifecycle import State
from outlast.retention import Retention
from outlast.store.protocol import Ended, Store

READ_MAX: Final = 1_000
"""Ended executions looked at with one read."""
PURGE_MAX: Final = 100
"""Executions deleted with one transaction, so that nobody waits long behind it."""


class Kept(Protocol):
    """A task, as far as this goes."""

    retention: Retention | None


@dataclass(slots=True)
class Rules:
    """What is kept how long.

    Attributes:
        default: for tasks that say nothing, and for those that are not known here.
        tasks: the tasks that are known, by name.
    """

    default: Retention
    tasks: Mapping[str, Kept] = field(default_factory=dict)

    def is_due(self, ended: Ended, now: int) -> bool:
        """Tell whether its time is over."""
        due_at = self.due_at(ended.task, ended.state, ended.ended_at)
        return due_at is not None and due_at <= now

    def due_at(self, task: str, state: State | None, ended_at: int) -> int | None:
        """Say from when on one may be deleted that has ended then; None: never.

        Of one whose end is not known (``state`` is None) this is the earliest that is possible.
        """
        known = self.tasks.get(task)
        retention = self.default if known is None or known.retention is None else known.retention
        kept_us = retention.shortest_us if state is None else retention.kept_us(state)
        return None if kept_us is None else ended_at + kept_us

    @property
    def shortest_us(self) -> int | None:
        """The shortest time that anything is kept; None when everything is kept."""
        all_of_them = [self.default, *(task.retention for task in self.tasks.values())]
        spans = (one.shortest_us for one in all_of_them if one is not None)
        return min((span for span in spans if span is not None), default=None)


def due(store: Store, rules: Rules, now: int, after_id: str) -> tuple[list[Ended], str | None]:
    """Give the executions of one read whose time is over, and where the next read begins.

    Ids begin with the time of birth and nothing ends before it is born: so the read stops early.
    """
    shortest_us = rules.shortest_us
    if shortest_us is None:
        return [], None
    until = now - shortest_us
    found = store.ended(after_id, first_id(until), until, READ_MAX)
    following = found[-1].id if len(found) == READ_MAX else None
    return [one for one in found if rules.is_due(one, now)], following


class Pruner:
    """Deletes what is due, beside the engine's other work."""

    def __init__(
        self,
        store: Store,
        rules: Rules,
        read: Callable[[Callable[[], Any]], Awaitable[Any]],
        write: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._store, self._rules = store, rules
        self._read, self._write = read, write

    async def run_once(self, now: int) -> int:
        """Delete everything that is due at an instant; gives how many executions."""
        deleted = 0
        after: str | None = ""
        while after is not None:
            found, after = await self._read(partial(due, self._store, self._rules, now, after))
            for ids in parts([one.id for one in found]):
                deleted += await self._write(partial(self._store.purge, ids))
        return deleted


def parts(ids: list[str]) -> Iterable[list[str]]:
    """Part ids into what one transaction deletes."""
    for place in range(0, len(ids), PURGE_MAX):
        yield ids[place : place + PURGE_MAX]


__all__ = ["PURGE_MAX", "READ_MAX", "Pruner", "Rules", "due", "parts"]
