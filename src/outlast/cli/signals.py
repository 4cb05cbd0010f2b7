"""How the commands that run for long are stopped: SIGINT and SIGTERM."""

from __future__ import annotations

import os
import queue
import signal
from types import FrameType
from typing import Any, Self

from outlast.cli.exits import INTERRUPTED


class Signals:
    """SIGINT and SIGTERM as a wish to stop; the second one ends the process at once."""

    def __init__(self) -> None:
        self._came: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._number is not None:
            os._exit(INTERRUPTED)
        self._number = number
        self._came.put(number)

    def came(self) -> bool:
        """Tell whether somebody wants us to stop."""
        return self._number is not None

    def wait(self) -> int:
        """Wait until somebody does; gives the number of the signal."""
        return self._came.get()
