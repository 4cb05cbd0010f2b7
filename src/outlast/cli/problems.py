"""How an error is told: what happened, where, why, what to do; always in this order."""

from __future__ import annotations

import re
import sys
import traceback
from typing import Final

import click

from outlast.cli.exits import INTERNAL, USAGE, exit_of
from outlast.cli.session import Session, encoded
from outlast.cli.words import lines_of, painted
from outlast.errors import InternalError, OutlastError, UsageError

_ID: Final = re.compile(r"ex_[0-9a-z]{20}")
_PLACE: Final = re.compile(r"\bID\b")


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
    print(text_of(session, error, frames, code), file=sys.stderr, flush=True)
    return code


def text_of(session: Session, error: OutlastError, frames: str = "", code: int = INTERNAL) -> str:
    """Write an error: four parts for people, or one JSON object."""
    from outlast.cli.explain import texts_of  # not for commands that work

    why, remedies = texts_of(error.code)
    found = _ID.search(f"{error.where} {error.what}")
    if error.do:
        remedies = tuple(error.do.splitlines())
    elif found is not None:
        remedies = tuple(_PLACE.sub(found.group(), remedy) for remedy in remedies)
    if session.as_json:
        said = {
            "code": error.code,
            "what": error.what,
            "where": error.where,
            "why": error.why or why,
            "do": list(remedies),
            "exit_code": code,
        }
        return encoded({**said, "traceback": frames} if frames else said)
    colour = session.colours(sys.stderr)
    head = f"{painted('✗ ' + error.code, 'red', colour=colour)}  " + " ".join(lines_of(error.what))
    lines = [head]
    for label, text in (
        ("where", error.where),
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
    path = context.command_path if context is not None else "outlast"
    usage = UsageError(error.format_message(), do=f"{path} --help")
    assert exit_of(usage) == USAGE
    return usage
