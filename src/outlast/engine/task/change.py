"""The marks that task code sets where it was edited: what ``changed(name)`` gives, and why.

A name is decided once for an execution. It is True for an execution whose code comes to the call
first with the edit in it, and that is written into the log as a marker; False for one whose history
shows that older code has passed the place. A False is not written: each replay finds it again, as
the rows that show it are still there.

The code asks in the middle of its run, so the answer must be known beforehand: the driver says
before each outcome whether what follows it is past (:class:`outlast.engine.replay.trail.Trail`),
and takes the markers that were set once the code rests again, before it writes any other row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from outlast.lifecycle import Kind, Transition

PREFIX: Final = "changed:"
"""What the key of a marker's row begins with."""


class Changes:
    """What an execution's code is told about its edits.

    Attributes:
        is_past: whether what the code does now was done before, maybe by older code.
        fresh: the names that were decided as True and have no row yet.
    """

    __slots__ = ("_decided", "fresh", "is_past")

    def __init__(self) -> None:
        self._decided: dict[str, bool] = {}
        self.fresh: list[str] = []
        self.is_past = False

    def ask(self, name: str) -> bool:
        """Say whether this execution has the edit of this name."""
        decided = self._decided.get(name)
        if decided is None:
            decided = self._decided[name] = not self.is_past
            if decided:
                self.fresh.append(name)
        return decided

    def load(self, rows: Iterable[Transition]) -> None:
        """Take in the markers of a log."""
        for row in rows:
            name = marker_of(row)
            if name is not None:
                self._decided[name] = True

    def take_fresh(self) -> list[str]:
        """Give the names that need a row now."""
        fresh, self.fresh = self.fresh, []
        return fresh


def marker_of(row: Transition) -> str | None:
    """Give the name whose marker a row is; None for any other row."""
    if row.kind is not Kind.ANNOTATION or row.actor != "engine" or not row.data:
        return None
    name = row.data.get("changed")
    return name if isinstance(name, str) else None


__all__ = ["PREFIX", "Changes", "marker_of"]
