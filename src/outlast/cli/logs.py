"""The command logs, and the options by which a process writes its own log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from outlast.cli.session import Session, shared
from outlast.cli.words import clock, lines_of
from outlast.store.protocol import LOGS

if TYPE_CHECKING:
    from outlast.engine.read.logs import LogLine

_STYLES = {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow", "DEBUG": "dim"}


@click.command()
@click.argument("id")
@click.option("--step", metavar="STEP", help="Only of this step: its key, pack#1, or its name.")
@click.option("-f", "--follow", is_flag=True, help="Wait for more, until the execution ends.")
@click.option("--after", default=0, type=click.IntRange(0), help="Only lines behind this number.")
@shared
def logs(session: Session, id: str, step: str | None, follow: bool, after: int) -> None:
    """Show what the code of an execution has logged through logging, a record a line.

    Lines that were logged just before a kill may be missing. Where the execution goes on as a new
    one, the lines of that one follow.
    """
    from outlast.engine.read.logs import is_of, line_of
    from outlast.forms import line_form

    with session.guest() as guest:
        id = guest.find(id)
        guest.record(id)
        if session.output == "ids":
            session.out(id)
            return
        for of, items in guest.stream(id, LOGS, after, follow=follow):
            if of != id:
                id = of
                session.say(f"goes on as {of}")
            for line in map(line_of, items):
                if not is_of(line, step):
                    continue
                if session.as_json:
                    session.json({"id": of, **line_form(line)}, indent=False)
                else:
                    _show(session, line)


def _show(session: Session, line: LogLine) -> None:
    what = (line.step or "task") + (f" ({line.attempt})" if line.attempt > 1 else "")
    said = lines_of(line.message) or [""]
    level = session.paint(f"{line.level:7}", _STYLES.get(line.level, "dim"))
    head = f"{clock(line.at)}  {level}  {session.paint(what, 'bold')}  "
    cut = "  (cut)" if line.is_cut else ""
    lost = f"  ({line.lost} lines before it were lost)" if line.lost else ""
    session.out(head + said[0] + (cut if len(said) == 1 else "") + lost)
    for more in said[1:]:
        session.out(f"    {more}")
    for more in lines_of(line.error or ""):
        session.out(f"    {more}")


def logged(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that runs tasks the options for its own log, and set that up before it."""

    def run(*args: Any, log_format: str | None, log_level: str | None, **options: Any) -> Any:
        from outlast.observe.logs import setup_logs

        setup_logs(log_format, log_level)
        return command(*args, **options)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__dict__.update(command.__dict__)  # what click's other decorators have left there
    for option in _OPTIONS:
        run = option(run)
    return run


_OPTIONS = (
    click.option(
        "--log-level",
        type=click.Choice(("debug", "info", "warning", "error")),
        help="From which level on is logged, and kept of what tasks and steps log.  [info]",
    ),
    click.option(
        "--log-format",
        type=click.Choice(("text", "json")),
        help="Write the log to stderr, as lines of text or of JSON, with ids.",
    ),
)
