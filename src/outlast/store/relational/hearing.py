"""Who hears of what is committed: counted and traced is only what the database has for certain.

Theory of operation. A transaction gathers here what it sends; it may be begun again, or parts of it
taken back. Once it is committed, and not before, it is told. Where the commit's outcome is unknown,
nothing is told: whoever counts misses a few rows then, and never counts one that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from outlast.lifecycle import Execution, Transition
from outlast.store.protocol import Heard

T = TypeVar("T")


class Hearing:
    """What one transaction has written so far, for somebody who hears of it."""

    __slots__ = ("_fresh", "_heard")

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._fresh: list[tuple[Sequence[Transition], Sequence[Execution]]] = []

    def begin(self, act: Callable[[], T]) -> T:
        """Act, having forgotten what an earlier try has gathered."""
        self._fresh.clear()
        return act()

    def take(self, rows: Sequence[Transition], ended: Sequence[Execution]) -> None:
        """Take what was sent just now."""
        self._fresh.append((rows, ended))

    @contextmanager
    def part(self) -> Iterator[None]:
        """Run a block whose rows are taken back if it raises an error."""
        mark = len(self._fresh)
        try:
            yield
        except BaseException:
            del self._fresh[mark:]
            raise

    def tell(self) -> None:
        """Tell what was gathered, as it is committed."""
        fresh, self._fresh = self._fresh, []
        for rows, ended in fresh:
            self._heard(rows, ended)


__all__ = ["Hearing"]
