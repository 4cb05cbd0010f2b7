"""The command stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from outlast.cli.session import Session, shared
from outlast.cli.words import lines_of, one_line
from outlast.errors import NotFound, UsageError
from outlast.forms import at, raw
from outlast.lifecycle.record import continued_as
from outlast.store.protocol import StreamHead, StreamItem

if TYPE_CHECKING:
    from outlast.engine.guest import Guest


@click.command()
@click.argument("id")
@click.argument("name", required=False)
@click.option("-f", "--follow", is_flag=True, help="Wait for more, until the execution ends.")
@click.option("--after", default=0, type=click.IntRange(0), help="Only items behind this number.")
@shared
def stream(session: Session, id: str, name: str | None, follow: bool, after: int) -> None:
    """Show the items of a stream; without a name, that of the only one there is.

    A text is written as it is, anything else as JSON, an item a line; with -o json each item is an
    object with its number and where it comes from. Where a step began again, a remark says so.
    """
    with session.guest() as guest:
        id = guest.find(id)
        guest.record(id)
        name = name or only_one(id, streams_of(guest, id))
        if session.output == "ids":
            session.out(id)
            return
        begun: set[tuple[str, str]] = set()
        for of, items in guest.stream(id, name, after, follow=follow):
            if of != id:
                id, begun = of, set()
                session.say(f"goes on as {of}")
            for item in items:
                source = (item.name, item.step)
                if item.is_anew and source in begun and not session.as_json:
                    what = item.step or "the task"
                    session.say(f"{what} began again: attempt {item.attempt}")
                begun.add(source)
                show_item(session, of, item)


def streams_of(guest: Guest, id: str) -> list[StreamHead]:
    """Name the streams of an execution, or of the first one that it went on as and that has any."""
    while not (streams := guest.store.streams(id)):
        successor = continued_as(guest.record(id))
        if successor is None:
            break
        id = successor
    return streams


def only_one(id: str, streams: list[StreamHead]) -> str:
    """Give the name of the only stream of an execution.

    Raises:
        NotFound: it has none.
        UsageError: it has several.
    """
    if not streams:
        raise NotFound(f"{id} has no stream yet", do=f"outlast stream {id} NAME -f")
    if len(streams) > 1:
        names = ", ".join(one_line(one.name, 40) for one in streams[:10])
        raise UsageError(f"{id} has several streams", why=names, do=f"outlast stream {id} NAME")
    return streams[0].name


def show_item(session: Session, id: str, item: StreamItem) -> None:
    """Write an item of an execution."""
    if session.as_json:
        form = {
            "id": id,
            "number": item.number,
            "value": raw(item.payload),
            "at": at(item.at),
            "step": item.step or None,
            "attempt": item.attempt,
            "lease": item.lease,
            "part": item.part,
        }
        session.json(form, indent=False)
        return
    value = item.value
    said = lines_of(value) if isinstance(value, str) else [item.payload.decode()]
    for line in said or [""]:
        session.out(line)
