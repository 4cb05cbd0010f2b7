"""What code says through ``logging`` while an execution runs it: captured, kept, and read again.

Theory of operation. A handler at the root logger takes every record that is made in task code or in
the body of a step, knows by the context whose it is, and appends it to a stream of that execution
(:mod:`outlast.engine.write.emitter`), whose name no user can take. So a line rides with the next
row of the log or goes out a little later, holds up no commit and no code, is sealed, copied and
purged as all of an execution, and is lost at a kill only if nothing was recorded after it.

Task code says the same again when it is replayed. Its lines have a place: the row of the log that
the code learned of last, and a number behind that. A replay makes the same places, and the store
passes over what it has. As the place is the log's, lines may be added to code and taken from it
while its executions run; nothing depends on them.

Each try of a step, and each place of task code, has so many lines at most, each execution as well,
and no line is longer than so much; what was cut says so.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import msgspec

from outlast.engine.read.stream import Source, Stream
from outlast.engine.task.current import current_scope, current_step
from outlast.store.protocol import LOGS, StreamItem

MESSAGE_MAX: Final = 8_000
"""Characters of a message, and of the traceback that comes with it."""
NAME_MAX: Final = 200
LEVEL: Final = "OUTLAST_LOG_LEVEL"
"""From which level on, a number, the root logger of a step's own process logs."""
_encode: Final = msgspec.json.Encoder().encode
_busy: Final = threading.local()


class LogLine(msgspec.Struct, frozen=True):
    """A line that code has logged.

    Attributes:
        number: its place among the lines of its execution, from 1.
        at: when, in microseconds since 1970.
        level, logger, message: as in the record.
        step: the key of the step whose body said it; None is the task's own code.
        attempt: the how-manieth try of the step, or of the task.
        error: the traceback that came with it, or None.
        is_cut: whether the message, or the error, was longer; or, in the last line of a try, of a
            place or of the execution, that there were more.
        lost: how many before it were lost, as more came than could be written.
    """

    number: int
    at: int
    level: str
    logger: str
    message: str
    step: str | None
    attempt: int
    error: str | None = None
    is_cut: bool = False
    lost: int = 0


def line_of(item: StreamItem) -> LogLine:
    """Read a line."""
    said = item.value
    return LogLine(
        number=item.number,
        at=item.at,
        level=str(said.get("level", "INFO")),
        logger=str(said.get("logger", "")),
        message=str(said.get("message", "")),
        step=item.step or None,
        attempt=item.attempt,
        error=said.get("error"),
        is_cut=bool(said.get("cut")),
        lost=int(said.get("lost", 0)),
    )


def is_of(line: LogLine, step: str | None) -> bool:
    """Tell whether a line is of a step: by its key, ``pack#1``, or its name, ``pack``."""
    return step is None or (line.step is not None and step in (line.step, line.step.split("#")[0]))


class Lines:
    """The lines of an execution as they come, to its end; with ``for`` or ``async for``."""

    def __init__(self, source: Source, id: str, step: str | None, after: int) -> None:
        self._stream = Stream(source, id, LOGS, after)
        self._step = step

    async def __aiter__(self) -> AsyncIterator[LogLine]:
        async for item in self._stream:
            line = line_of(item)
            if is_of(line, self._step):
                yield line

    def __iter__(self) -> Iterator[LogLine]:
        for item in self._stream:
            line = line_of(item)
            if is_of(line, self._step):
                yield line


# Capturing


def written(record: logging.LogRecord) -> bytes:
    """Write a record as the item of a stream."""
    try:
        message = record.getMessage()
    except Exception as error:  # noqa: BLE001 - the user's own __str__ may fail
        message = f"{record.msg!r} cannot be written: {type(error).__name__}: {error}"
    said: dict[str, Any] = {"level": record.levelname, "logger": record.name[:NAME_MAX]}
    said["message"], cut = _short(message)
    if record.exc_info and record.exc_info[1] is not None:
        text = "".join(traceback.format_exception(record.exc_info[1]))
        said["error"] = _storable(text[-MESSAGE_MAX:])
        cut = cut or len(text) > MESSAGE_MAX
    if cut:
        said["cut"] = True
    return _encode(said)


def line_from(value: Any) -> bytes:
    """Write a line that another machine sent as the item of a stream; what does not fit is cut."""
    said = value if isinstance(value, dict) else {"message": repr(value)}
    line: dict[str, Any] = {
        "level": _storable(str(said.get("level", "INFO"))[:20]),
        "logger": _storable(str(said.get("logger", ""))[:NAME_MAX]),
    }
    line["message"], cut = _short(str(said.get("message", "")))
    if isinstance(said.get("error"), str):
        line["error"] = _storable(said["error"][-MESSAGE_MAX:])
    if cut or said.get("cut"):
        line["cut"] = True
    return _encode(line)


def _short(text: str) -> tuple[str, bool]:
    return _storable(text[:MESSAGE_MAX]), len(text) > MESSAGE_MAX


def _storable(text: str) -> str:
    """Give a text that each store can keep."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


class Capture(logging.Handler):
    """Takes the records of task code and of bodies of steps, where they are made."""

    def createLock(self) -> None:  # noqa: N802 - so the base class calls it
        """Need none: whoever takes a line has a lock."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record; whatever goes wrong is no business of the code that logs."""
        if getattr(_busy, "is_so", False):
            return
        _busy.is_so = True
        try:
            body, scope = current_step.get(), current_scope.get()
            if body is not None:
                body.jot(written(record))
            elif scope is not None:
                scope.jot(written(record))
            self._last_resort(record)
        except Exception:  # noqa: BLE001 - as above
            self.handleError(record)
        finally:
            _busy.is_so = False

    def _last_resort(self, record: logging.LogRecord) -> None:
        """Do what ``logging`` does where nobody else listens: say on stderr what is a warning."""
        last = logging.lastResort
        if last is None or record.levelno < last.level or has_others(record.name, self):
            return
        if not is_replayed():
            last.handle(record)


def has_others(name: str, handler: logging.Handler) -> bool:
    """Tell whether a logger has another handler than this one."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        if any(one is not handler for one in logger.handlers):
            return True
        if not logger.propagate:
            break
        logger = logger.parent
    return False


def is_replayed() -> bool:
    """Tell whether the code that runs here is task code that says what it has said before."""
    scope = current_scope.get()
    return current_step.get() is None and scope is not None and scope.is_past()


def ids_here() -> dict[str, Any]:
    """Name the execution, task, step and attempt that the running code is of, and its worker."""
    body, scope = current_step.get(), current_scope.get()
    if body is not None:
        return dict(body.names())
    return {} if scope is None else dict(scope.names())


_CAPTURE: Final = Capture()
_users: int = 0
_counting: Final = threading.Lock()


def begin_capture() -> None:
    """Capture from here on, until as many have ended it."""
    global _users  # noqa: PLW0603 - one handler a process, however many engines
    with _counting:
        _users += 1
        if _users == 1:
            logging.getLogger().addHandler(_CAPTURE)


def end_capture() -> None:
    """Capture no more, if nobody else does."""
    global _users  # noqa: PLW0603 - as above
    with _counting:
        _users = max(0, _users - 1)
        if not _users:
            logging.getLogger().removeHandler(_CAPTURE)


__all__ = [
    "Capture",
    "Lines",
    "LogLine",
    "begin_capture",
    "end_capture",
    "ids_here",
    "is_of",
    "is_replayed",
    "line_from",
    "line_of",
]
