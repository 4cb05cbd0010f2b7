"""Who hears what became of an owner's writes: its driver, and after its end hardly anybody.

Theory of operation. The last writes of an execution are on their way to the disk for a while after
its code has ended. What is still to be done when they are there needs none of its parts, as a rule:
so the driver lets go, and is freed where it has just run. Thousands that wait for the disk would
fill the processor's caches otherwise, and be freed from there when they are cold.
"""

from __future__ import annotations

from typing import Protocol

from outlast.engine.write.journal import Submitter
from outlast.store.protocol import Answer, Write


class Listener(Protocol):
    """What is told of executions whose driver is no more: the worker."""

    watched: int

    def changed(self, id: str) -> None:
        """Hear that its log has grown; only told while somebody watches."""

    def recorded(self, item: Write, answer: Answer) -> None:
        """Hear that it has ended, or given its lease up, and that the store has it."""

    def on_gone(self, id: str) -> None:
        """Hear that it was dropped: its end is somebody else's to tell."""


class Ear:
    """Hears what became of the writes of one owner; made for its driver.

    Args:
        listener: hears of it when the driver has let go.
        driver: hears of it until then.
    """

    __slots__ = ("_driver", "_listener")

    def __init__(self, listener: Listener, driver: Submitter) -> None:
        self._listener = listener
        self._driver: Submitter | None = driver

    def let_go(self) -> None:
        """Hear of what is under way without the driver: it has ended, and has no use for it."""
        self._driver = None

    def settled(self, item: Write, answer: Answer) -> None:
        """Hear from the journal what became of a write."""
        if self._driver is not None:
            self._driver.settled(item, answer)
            return
        listener = self._listener
        if answer.refused is not None:
            listener.on_gone(item.id)
            return
        if listener.watched:
            listener.changed(item.id)
        if item.after is not None and not item.after.is_leased:
            listener.recorded(item, answer)


__all__ = ["Ear", "Listener"]
