"""Log lines of a process, as text or as JSON, each with what it is about.

``setup_logs`` is what ``--log-format`` does. Who has a logging of their own adds :class:`Ids` to a
handler: then each record that is made in task code, or in the body of a step, has ``execution``,
``task``, ``step``, ``attempt`` and ``worker``, and what is only said again in a replay is dropped.

Lines of the engine itself have a name each, ``event``, and no payloads, ever: what executions do is
told after its commit, from the loggers below ``outlast.event``.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from typing import IO, Any, Final

import msgspec

from outlast.engine.read.logs import LEVEL, ids_here, is_replayed
from outlast.engine.write.events import EVENTS
from outlast.errors import UsageError

FORMATS: Final = ("text", "json")
LEVELS: Final = ("debug", "info", "warning", "error")
IDS: Final = ("execution", "task", "step", "attempt", "worker", "tenant")
_DATA: Final = "outlast_data"
_encode: Final = msgspec.json.Encoder().encode


class Ids(logging.Filter):
    """Gives records the ids of the code that made them, and drops what a replay says again.

    Add it to a handler that is called where the record is made; a ``QueueHandler`` is.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Give a record its ids; those that it has stay."""
        for name, value in ids_here().items():
            if name not in record.__dict__:
                setattr(record, name, value)
        return not is_replayed()


class Json(logging.Formatter):
    """Writes a record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        said: dict[str, Any] = {
            "time": _instant(record.created),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "log"),
            "logger": record.name,
            "message": _message(record),
        }
        for name in IDS:
            value = getattr(record, name, None)
            if isinstance(value, str | int):
                said[name] = value
        said |= getattr(record, _DATA, {})
        if record.exc_info and record.exc_info[1] is not None:
            said["error"] = "".join(traceback.format_exception(record.exc_info[1]))
        try:
            return _encode(said).decode("utf-8")
        except (TypeError, ValueError, UnicodeError):
            return _encode({name: ascii(value) for name, value in said.items()}).decode()


class Text(logging.Formatter):
    """Writes a record for people: time, level, logger, message, and what it is about."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        about = " ".join(
            f"{name}={value}"
            for name in IDS
            if isinstance(value := getattr(record, name, None), str | int) and name != "worker"
        )
        head = f"{_instant(record.created)} {record.levelname:7} {record.name}"
        said = f"{head}  {_message(record)}" + (f"  [{about}]" if about else "")
        if record.exc_info and record.exc_info[1] is not None:
            said += "\n" + "".join(traceback.format_exception(record.exc_info[1])).rstrip()
        return said


def setup_logs(
    format: str | None, level: str | None, *, stream: IO[str] | None = None
) -> logging.Handler | None:
    """Write what this process logs, from a level on; without a format only set the level.

    Args:
        format: ``text`` or ``json``; None writes nothing besides what is set up already.
        level: ``debug``, ``info``, ``warning`` or ``error``; by default ``info``.
        stream: where to; by default stderr.

    Returns:
        The handler that was added to the root logger.

    Raises:
        UsageError: there is no such format or level.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"there is no log format {format}", do=", ".join(FORMATS))
    if level is not None and level not in LEVELS:
        raise UsageError(f"there is no log level {level}", do=", ".join(LEVELS))
    number = logging.getLevelNamesMapping()[(level or "info").upper()]
    root = logging.getLogger()
    if level is not None or root.level == logging.WARNING:
        root.setLevel(number)
        os.environ[LEVEL] = str(number)  # for the processes that steps run in
    if format is None:
        return None
    EVENTS.setLevel(number)
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.addFilter(Ids())
    handler.setFormatter(Json() if format == "json" else Text())
    root.addHandler(handler)
    return handler


def _instant(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1e6):06d}Z"


def _message(record: logging.LogRecord) -> str:
    try:
        said = record.getMessage()
    except Exception as error:  # noqa: BLE001 - the user's own __str__ may fail
        said = f"{record.msg!r} cannot be written: {type(error).__name__}: {error}"
    return said.encode("utf-8", "backslashreplace").decode()


__all__ = ["FORMATS", "LEVELS", "Ids", "Json", "Text", "setup_logs"]
