"""How the commands that run for long are stopped: SIGINT and SIGTERM."""

from __future__ import annotations

import os
import queue
import signal
from types import FrameType
from typing import Any, Self

from outlast.cli.exits import INTERRUPTED


class Signals:
    """SIGINT and SIGTERM as a wish to stop; the second one ends the process at once.

    Args:
        keep: a second one is only counted: somebody else is still to be told.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self._count = 0
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
        self._count += 1
        if self._number is not None and not self._keep:
            os._exit(INTERRUPTED)
        self._number = number
        self._came.put(number)

    def came(self) -> bool:
        """Tell whether somebody wants us to stop."""
        return self._number is not None

    def count(self) -> int:
        """Tell how many times somebody wanted us to stop."""
        return self._count

    def wait(self) -> int:
        """Wait until somebody does; gives the number of the signal, or 0 after :meth:`end`."""
        return self._came.get()

    def end(self) -> None:
        """End a wait although nobody wants us to stop; from any thread."""
        self._came.put(0)
