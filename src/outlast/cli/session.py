"""What every command shares: the store it speaks to, and how it says things."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from outlast.cli.words import painted
from outlast.duration import microseconds
from outlast.errors import UsageError
from outlast.extras import needed
from outlast.naming import tenant_of

if TYPE_CHECKING:
    from outlast.engine.guest import Guest

F = TypeVar("F", bound=Callable[..., Any])
OUTPUTS = ("table", "wide", "json", "ids")
COLUMN_MIN = 6
"""Columns of a table are not cut to fewer characters."""
SPAN_MAX_US = 36_500 * 86_400_000_000
"""A hundred years: every instant that a command makes has a date."""


@dataclass(slots=True)
class Session:
    """The global options of one command.

    Attributes:
        store: the address of the store.
        tenants: whose executions; none: the environment's, else the default tenant's.
        output: table, json or ids.
        quiet: leave out everything but the answer.
        debug: show our own tracebacks.
        no_colour: never colour anything.
        words: what was typed after ``outlast``.
    """

    store: str = ""
    tenants: tuple[str, ...] = ()
    output: str = "table"
    quiet: bool = False
    debug: bool = False
    no_colour: bool = False
    words: Sequence[str] = ()

    @property
    def as_json(self) -> bool:
        """Whether JSON is wanted."""
        return self.output == "json"

    @property
    def url(self) -> str:
        """The store's address; a bare path means a SQLite file."""
        from outlast.store import DEFAULT_URL

        said = self.store or os.environ.get("OUTLAST_STORE") or DEFAULT_URL
        try:
            said.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"no store can have the address {said!a}",
                where="--store",
                why=f"a lone surrogate at place {error.start}",
                do="name the file in UTF-8",
            ) from None
        return said if ":" in said else f"sqlite:///{os.path.expanduser(said)}"

    @property
    def tenant(self) -> str:
        """The one tenant that this command is about.

        Raises:
            UsageError: several were named, or one that can be none.
        """
        if len(self.tenants) > 1:
            raise UsageError(
                "this command is about one tenant",
                where="--tenant",
                why=f"{len(self.tenants)} were named",
                do="name one; outlast worker and outlast server take several",
            )
        return tenant_of(self.tenants[0] if self.tenants else None)

    @property
    def is_default(self) -> bool:
        """Whether it is about the default tenant, as nobody named another."""
        return self.tenant == "default"

    def each_tenant(self) -> list[str]:
        """Name the tenants that a command about the whole store is about: the named one, or all."""
        if self.tenants or self.is_remote or os.environ.get("OUTLAST_TENANT"):
            return [self.tenant]
        with self.guest() as guest:
            return [one.name for one in guest.tenants.page()]

    def guest_of(self, tenant: str) -> Guest:
        """Open the store beside its owner for a tenant."""
        if self.is_remote:
            return self.guest()
        from outlast.engine.guest import Guest

        self.act()
        return Guest(self.url, tenant=tenant)

    @property
    def shown(self) -> str:
        """The store's address without what is secret in it."""
        from outlast.store import shown

        return shown(self.url)

    def guest(self, *, make: bool = False) -> Guest:
        """Open the store beside its owner; ``make`` makes the file if it is not there.

        What is changed with it is a deed of the user of this machine.
        """
        if self.is_remote:
            return _remote(self.url, self.tenant)
        from outlast.engine.guest import Guest

        self.act()
        return Guest(self.url, tenant=self.tenant, make=make)

    @property
    def is_remote(self) -> bool:
        """Whether the store is behind a server."""
        return self.url.startswith(("http://", "https://"))

    def act(self) -> None:
        """Sign what this command changes, for the audit."""
        from outlast.engine.write.acting import act

        context = click.get_current_context(silent=True)
        words = "" if context is None else context.command_path.partition(" ")[2]
        act(f"os:{user_of_machine()}", "cli", words or "outlast")

    # Saying

    def colours(self, stream: IO[str]) -> bool:
        """Tell whether a stream wants colours."""
        if self.no_colour or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            return False
        return stream.isatty()

    def out(self, text: str) -> None:
        """Write the answer, on stdout."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """Write a remark, on stderr, unless it is to be quiet."""
        if not self.quiet and not self.as_json:
            try:
                sys.stderr.write(text + "\n")
                sys.stderr.flush()
            except BrokenPipeError:
                raise
            except OSError:
                forget(sys.stderr)  # a remark that has no room is no reason to stop

    def json(self, value: Any, *, indent: bool = True) -> None:
        """Write a value as JSON, on stdout."""
        self.out(encoded(value, indent=indent))

    def paint(self, text: str, style: str) -> str:
        """Colour a text for stdout."""
        return painted(text, style, colour=self.colours(sys.stdout))

    def paint_remark(self, text: str, style: str) -> str:
        """Colour a text for stderr."""
        return painted(text, style, colour=self.colours(sys.stderr))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """Write an aligned table on stdout; on a terminal the widest columns give way."""
        for line in laid_out(heads, list(rows), self.colours(sys.stdout), width_of(sys.stdout)):
            self.out(line)


def user_of_machine() -> str:
    """Name who runs this process, by the system, whatever the environment says."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _remote(url: str, tenant: str) -> Guest:
    with needed("client", "a server as the store"):
        from outlast.client.guest import RemoteGuest
    return RemoteGuest(url, tenant=None if tenant == "default" else tenant)


Cell = str | tuple[str, str]
"""A text, or a text and its style."""


def width_of(stream: IO[str]) -> int | None:
    """Give how many columns a terminal has; None for a file or pipe."""
    if not stream.isatty():
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def laid_out(
    heads: Sequence[str], rows: Sequence[Sequence[Cell]], colour: bool, width: int | None
) -> list[str]:
    """Align a table; the widest columns are cut where the terminal is too narrow for all."""
    texts = [[cell if isinstance(cell, str) else cell[0] for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *texts, strict=True)]
    if width is not None:
        while sum(widths) + 2 * len(widths) + 1 > width and max(widths) > COLUMN_MIN:
            widths[widths.index(max(widths))] -= 1
    lines = [_line([(head, "dim") for head in heads], widths, colour)]
    lines += [_line(row, widths, colour) for row in rows]
    return lines


def _line(cells: Sequence[Cell], widths: Sequence[int], colour: bool) -> str:
    parts = []
    for cell, width in zip(cells, widths, strict=True):
        text, style = cell if isinstance(cell, tuple) else (cell, "")
        if len(text) > width:
            text = text[: width - 1] + "…"
        padding = " " * (width - len(text))
        parts.append((painted(text, style, colour=colour) if style else text) + padding)
    return "  ".join(parts).rstrip()


def encoded(value: Any, *, indent: bool = False) -> str:
    """Write a value as JSON."""
    import msgspec

    data = msgspec.json.encode(value)
    return (msgspec.json.format(data, indent=2) if indent else data).decode()


def current(context: click.Context) -> Session:
    """Give the session of a command."""
    session = context.find_root().obj
    assert isinstance(session, Session)
    return session


def shared(command: Callable[..., object]) -> Callable[..., object]:
    """Give a command the global options, and the session as its first argument."""

    def run(*args: Any, **options: Any) -> object:
        session = current(click.get_current_context())
        adopt(session, options)
        return command(session, *args, **options)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__dict__.update(command.__dict__)  # what click's other decorators have left there
    return with_globals(run)


def adopt(session: Session, options: dict[str, Any]) -> None:
    """Take the global options out of a command's."""
    session.store = options.pop("store") or session.store
    session.tenants = tuple(options.pop("tenant")) or session.tenants
    session.output = options.pop("output") or session.output
    session.quiet = options.pop("quiet") or session.quiet
    session.debug = options.pop("debug") or session.debug
    session.no_colour = options.pop("no_color") or session.no_colour


def with_globals(command: F) -> F:
    """Add the global options; they may stand before or after the command's name."""
    for option in reversed(_GLOBALS):
        command = option(command)
    return command


_GLOBALS = (
    click.option(
        "--store",
        metavar="URL",
        help="The store: sqlite:///FILE, just FILE, or http://… of a server. "
        "[env OUTLAST_STORE, else outlast.db]",
    ),
    click.option(
        "--tenant",
        multiple=True,
        metavar="NAME",
        help="Whose executions; worker and server take several. [env OUTLAST_TENANT, else default]",
    ),
    click.option(
        "-o", "--output", type=click.Choice(OUTPUTS), help="How the answer is written. [table]"
    ),
    click.option("-q", "--quiet", is_flag=True, help="Only the answer, no remarks."),
    click.option("--no-color", is_flag=True, help="No colours; so does NO_COLOR."),
    click.option("--debug", is_flag=True, help="Show Outlast's own tracebacks."),
)


_PASSWORD = re.compile(r"(postgres(?:ql)?://[^:@/\s]*):[^@\s]*@")
"""What is before and after a password in an address."""


def typed(words: Sequence[str]) -> str:
    """Write a command as somebody types it."""
    import shlex

    return shlex.join(("outlast", *(_PASSWORD.sub(r"\1:***@", word) for word in words)))


def span_of(option: str, text: str | None) -> int | None:
    """Read the duration of an option, in microseconds; None where it was not given.

    Raises:
        UsageError: it cannot be read, or is longer than a calendar goes.
    """
    if text is None:
        return None
    try:
        span = microseconds(text)
    except UsageError as error:
        error.where = option
        raise
    except OverflowError:
        span = SPAN_MAX_US + 1
    if span > SPAN_MAX_US:
        raise UsageError(
            f'"{text[:40]}" is too long', where=option, why="the limit is 36500d", do="leave it out"
        )
    return span


def instant_of(option: str, text: str | None) -> int | None:
    """Read the date and time of an option, in microseconds since 1970; None where there is none.

    Raises:
        UsageError: it cannot be read, or has no time zone.
    """
    if text is None:
        return None
    from datetime import datetime

    from outlast.duration import microseconds_of

    do = (
        "write the date, the time and the offset, as in 2030-01-31T08:00+01:00 or 2030-01-31T07:00Z"
    )
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f'"{text[:40]}" is no date and time', where=option, do=do) from None
    if at.tzinfo is None:
        raise UsageError(f'"{text[:40]}" has no time zone', where=option, do=do)
    return microseconds_of(at)


def read_stdin(option: str) -> str:
    """Read all of stdin.

    Raises:
        UsageError: it is closed, or is no text.
    """
    try:
        if sys.stdin is not None:
            return sys.stdin.read()
        why = "it is closed"
    except (OSError, UnicodeDecodeError) as error:
        why = str(error)
    raise UsageError(
        "stdin cannot be read", where=option, why=why, do="pipe into it what - stands for"
    )


def forget(stream: IO[str]) -> None:
    """Let a stream that cannot be written swallow what is still in it, and what comes."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def is_interactive(*streams: IO[str] | None) -> bool:
    """Tell whether a person sits at all of these."""
    return all(stream is not None and stream.isatty() for stream in streams)
