"""How an error is told: what happened, where, why, what to do; always in this order."""

from __future__ import annotations

import errno
import re
import sys
import traceback
from typing import Final

import click

from outlast.cli.commands import COMMANDS
from outlast.cli.exits import INTERNAL, USAGE, exit_of
from outlast.cli.session import Session, encoded, forget, typed
from outlast.cli.words import lines_of, one_line, painted
from outlast.errors import (
    InternalError,
    OutlastError,
    SchemaMismatch,
    StoreBroken,
    StoreOwned,
    StoreUnavailable,
    UsageError,
)

_ID: Final = re.compile(r"ex_[0-9a-z]{20}")
_PLACE: Final = re.compile(r"\bID\b")
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
WHAT_MAX: Final = 2_000
"""Characters of what happened, for people; with ``-o json`` all of it is told."""


class Ended(Exception):
    """Ends a command with an error that belongs to an execution: exit code 1, whatever it is.

    Attributes:
        error: what is told.
        frames: the traceback of the user's own code, or "".
        code: the exit code.
    """

    def __init__(self, error: OutlastError, frames: str = "", code: int = 1) -> None:
        super().__init__(str(error))
        self.error, self.frames, self.code = error, frames, code


def tell(session: Session, error: BaseException) -> int:
    """Tell an error on stderr; gives the exit code."""
    frames = ""
    code: int | None = None
    if isinstance(error, Ended):
        frames, code = error.frames, error.code
        error = error.error
    if isinstance(error, click.ClickException):
        error = _usage(error)
    if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
        forget(sys.stdout)
        error = UsageError(
            "what it printed could not be written",
            where="stdout",
            why=error.strerror or str(error),
            do="free some room, or send the output elsewhere; executions are kept",
        )
    if not isinstance(error, OutlastError):
        cause = error
        error = InternalError(
            f"an error that nobody foresaw: {type(error).__name__}: {error}",
            do="run the same command with --debug, and report what it prints",
        )
        error.__cause__ = cause
    if session.debug:
        traceback.print_exception(error, file=sys.stderr)
    code = exit_of(error) if code is None else code
    try:
        print(text_of(session, error, frames, code), file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:  # nobody can be told; the exit code still says it
        forget(sys.stderr)
    return code


def text_of(session: Session, error: OutlastError, frames: str = "", code: int = INTERNAL) -> str:
    """Write an error: four parts for people, or one JSON object."""
    from outlast.cli.explain import texts_of  # not for commands that work

    why, remedies = texts_of(error.code)
    remedies = tuple(remedy.replace("COMMAND", _command(session)) for remedy in remedies)
    where = error.where or _where(session, error)
    found = _ID.search(f"{where} {error.what}")
    if error.do:
        remedies = tuple(error.do.splitlines())
    elif found is not None:
        remedies = tuple(_PLACE.sub(found.group(), remedy) for remedy in remedies)
    if session.as_json:
        said = {
            "code": error.code,
            "what": error.what,
            "where": where,
            "why": error.why or why,
            "do": list(remedies),
            "exit_code": code,
        }
        return encoded({**said, "traceback": frames} if frames else said)
    colour = session.colours(sys.stderr)
    what = one_line(" ".join(lines_of(error.what)), WHAT_MAX)
    head = f"{painted('✗ ' + error.code, 'red', colour=colour)}  {what}"
    lines = [head]
    for label, text in (
        ("where", where),
        ("why", error.why or why),
        ("do", "\n".join(remedies)),
    ):
        for line in lines_of(text):
            lines.append(f"  {painted(f'{label:<7}', 'dim', colour=colour)} {line}")
            label = ""
    if frames:
        lines.append("")
        lines += ["  " + line for line in lines_of(frames)]
    return "\n".join(lines)


def _usage(error: click.ClickException) -> OutlastError:
    context = getattr(error, "ctx", None)
    usage = UsageError(error.format_message())
    if context is not None:
        usage.do = f"{context.command_path} --help"
    assert exit_of(usage) == USAGE
    return usage


def _command(session: Session) -> str:
    """Name the command that was meant, if it can be told."""
    return next((word for word in session.words if word in COMMANDS), "COMMAND")


def _where(session: Session, error: OutlastError) -> str:
    """Say where an error happened that does not say so itself: in the store, or in the call."""
    if isinstance(error, StoreUnavailable | StoreBroken | SchemaMismatch | StoreOwned):
        return session.shown
    return one_line(typed(session.words))
