"""Where the engine gets the time from."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Gives the time; tests and simulations bring their own."""

    def now(self) -> int:
        """Give the instant, in microseconds since 1970."""


class WallClock:
    """The machine's clock."""

    def now(self) -> int:
        """Give the instant, in microseconds since 1970."""
        return time.time_ns() // 1000
