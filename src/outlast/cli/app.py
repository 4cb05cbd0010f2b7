"""The group of all commands, and the border where every error becomes a text and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from contextvars import copy_context
from itertools import pairwise
from typing import Any, Final

import click

from outlast import __version__
from outlast.cli.commands import COMMANDS
from outlast.cli.exits import BROKEN_PIPE, INTERRUPTED, OK, USAGE
from outlast.cli.problems import tell
from outlast.cli.session import Session, adopt, current, forget, with_globals

_COMPLETION: Final = "_OUTLAST_COMPLETE"


class Lazy(click.Group):
    """A group that imports a command only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names of all commands, in the order people need them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command."""
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        command = getattr(importlib.import_module(f"outlast.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or say which one was perhaps meant."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(f'there is no command "{args[0]}".{hint}', ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@with_globals
@click.version_option(__version__, "-V", "--version", message="outlast %(version)s")
@click.pass_context
def outlast(context: click.Context, /, **options: Any) -> None:
    """Python functions that finish what they started."""
    adopt(current(context), options)


def run(words: Sequence[str]) -> int:
    """Run one command; gives its exit code."""
    session = Session(words=tuple(words))
    _make_safe()
    try:
        code = copy_context().run(_guarded, session, words)
        sys.stdout.flush()
    except OSError as error:
        return unwritten(session, error)
    return code


def unwritten(session: Session, error: OSError) -> int:
    """End a command whose output did not get out; gives its exit code."""
    if isinstance(error, BrokenPipeError):
        forget(sys.stdout)
        return BROKEN_PIPE
    return tell(session, error)


def _guarded(session: Session, words: Sequence[str]) -> int:
    try:
        if _COMPLETION in os.environ:  # a shell asks what could follow
            outlast.main(list(words), prog_name="outlast", complete_var=_COMPLETION)
        with outlast.make_context("outlast", list(words), obj=session) as context:
            result = outlast.invoke(context)
    except (BrokenPipeError, SystemExit):
        raise
    except click.exceptions.Exit as exit:
        return exit.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(f"{error.format_message()}\n")
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("\n")
        return INTERRUPTED
    except BaseException as error:  # noqa: BLE001 - the border: nothing leaves it as a traceback
        _adopt_early(session, words)
        return tell(session, error)
    return result if isinstance(result, int) else OK


def _adopt_early(session: Session, words: Sequence[str]) -> None:
    """Find -o json also where the words could not be parsed to the end."""
    if not session.as_json and (
        "-ojson" in words
        or "--output=json" in words
        or any(pair in (("-o", "json"), ("--output", "json")) for pair in pairwise(words))
    ):
        session.output = "json"


def _make_safe() -> None:
    """See to it that writing never fails for what it writes, nor for a stream that is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for good
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
