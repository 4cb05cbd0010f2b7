"""The first row of a log that is read behind its execution, which may be deleted in between."""

from __future__ import annotations

from collections.abc import Sequence

from outlast.errors import NotFound
from outlast.lifecycle import Transition


def birth_in(id: str, log: Sequence[Transition]) -> Transition:
    """Give the first row of an execution's log.

    Raises:
        NotFound: there is none any more.
    """
    if not log:
        raise NotFound(f"there is no execution {id}", why="it was just deleted", do="outlast ls")
    return log[0]


__all__ = ["birth_in"]
