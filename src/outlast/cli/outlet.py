"""Stdout and stderr while code of others runs: a reader that goes away is no error of that code.

Without this a ``print`` in a step raises ``BrokenPipeError`` when somebody leaves ``| head``, and
the execution would be recorded as failed for it.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Callable
from typing import Any, Self, TextIO

from outlast.cli.session import forget


class Outlets:
    """Puts pipes in the place of stdout and stderr that swallow what nobody reads any more.

    Attributes:
        gone: whether a reader has gone away.
    """

    def __init__(self) -> None:
        self.gone = False
        self._before: dict[str, Any] = {}

    def __enter__(self) -> Self:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if _is_pipe(stream):
                stream.flush()
                self._before[name] = stream
                setattr(sys, name, self._guarded(stream))
        return self

    def __exit__(self, *error: object) -> None:
        for name, stream in self._before.items():
            getattr(sys, name).flush()
            setattr(sys, name, stream)

    def _guarded(self, stream: TextIO) -> TextIO:
        def lost() -> None:
            self.gone = True
            forget(stream)

        return io.TextIOWrapper(
            io.BufferedWriter(_Pipe(stream.fileno(), lost)),
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=True,  # a line that was printed is not lost with the process
        )


class _Pipe(io.FileIO):
    """A pipe; what is written after its reader has gone is lost, and somebody is told once."""

    def __init__(self, descriptor: int, lost: Callable[[], None]) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._lost = lost

    def write(self, data: Any, /) -> int:
        """Write, or swallow."""
        try:
            return super().write(data)
        except BrokenPipeError:
            self._lost()
            return memoryview(data).nbytes


def _is_pipe(stream: TextIO | None) -> bool:
    try:
        mode = os.fstat(stream.fileno()).st_mode if stream is not None else 0
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
