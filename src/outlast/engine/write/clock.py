"""Where the engine gets the time from.

Theory of operation. Engines on many machines share a store, and what one of them does by its clock
holds for all: a timer that fires, a slot of a schedule, an execution that has had its time. So none
goes by the clock of its own machine, which may be an hour off; the store's clock is the one for
all, as it is for leases. It is not asked each time. What it said lies between the moments at which
it was asked and was heard, by a clock of this machine that nobody sets; from there on that one
counts. Each later word narrows that down: the time here is moved only as far as the word demands,
so a slow answer moves nothing, and the time seldom goes back.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from outlast.store.protocol import Store

_WHICH: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """Gives the time; tests and simulations bring their own."""

    def now(self) -> int:
        """Give the instant, in microseconds since 1970."""


class WallClock:
    """The machine's clock."""

    def now(self) -> int:
        """Give the instant, in microseconds since 1970."""
        return time.time_ns() // 1000


def boot_us() -> int:
    """Give the microseconds since the machine was started, those in which it slept included."""
    return time.clock_gettime_ns(_WHICH) // 1000


class StoreClock:
    """The clock of a store that several machines share, as it is known here; for any thread."""

    def __init__(self, store: Store) -> None:
        """Ask the store for the time.

        Raises:
            OutlastError: it cannot be asked.
        """
        self._store = store
        self._ahead_us: int | None = None
        self.look()  # which may take as long as to connect
        self.look()

    def now(self) -> int:
        """Give the instant, in microseconds since 1970."""
        assert self._ahead_us is not None
        return boot_us() + self._ahead_us

    def look(self) -> None:
        """Ask the store for the time, by one of its readers.

        Raises:
            OutlastError: it cannot be asked.
        """
        asked_at = boot_us()
        said = self._store.instant(time.time_ns() // 1000)
        self.heard(said, asked_at, boot_us())

    def heard(self, said: int, asked_at: int, heard_at: int) -> None:
        """Take in what the store's clock said between two moments since the machine was started."""
        least, most = said - heard_at, said - asked_at
        before = self._ahead_us
        self._ahead_us = (least + most) // 2 if before is None else min(max(before, least), most)


def clock_of(store: Store) -> Clock:
    """Give the clock by which to write to a store.

    Raises:
        OutlastError: it is the store's own, and that cannot be asked.
    """
    return StoreClock(store) if store.is_shared else WallClock()


__all__ = ["Clock", "StoreClock", "WallClock", "boot_us", "clock_of"]
