"""Send an event to every open execution."""

from __future__ import annotations

import click

from outlast.cli.deciding import actor
from outlast.cli.following import labels_of
from outlast.cli.prompting import read_json
from outlast.cli.session import Session, shared
from outlast.cli.words import one_line
from outlast.lifecycle import State


@click.command()
@click.argument("name")
@click.argument("value", required=False, metavar="[JSON]")
@click.option("--key", metavar="TEXT", help="Published again under the same key, it is sent once.")
@click.option("--task", metavar="NAME", help="Only to executions of this task.")
@click.option(
    "--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only to those with it."
)
@shared
def publish(
    session: Session,
    name: str,
    value: str | None,
    key: str | None,
    task: str | None,
    labels: tuple[str, ...],
) -> None:
    """Send every execution that is open an event: a signal, which waits until its code takes it.

    It is sent by an execution of its own, which goes on after a kill, and is the first thing shown.
    """
    given = None if value is None else read_json(value)
    wanted = labels_of(labels)
    with session.guest() as guest:
        record = guest.publish(name, given, key=key, task=task, labels=wanted, actor=actor())
        reached: int | None = None
        if guest.owner() is not None or record.is_final:
            for rows in guest.follow(record.id):
                if rows and rows[-1].to_state is State.SUCCEEDED and rows[-1].payload is not None:
                    reached = int(rows[-1].payload)
        if session.as_json:
            session.json({"id": record.id, "name": name, "reached": reached}, indent=False)
            return
        said = "goes to executions" if reached is None else f"reached {reached:,} executions"
        session.out(
            record.id if session.output == "ids" else f"{record.id}  {one_line(name)} {said}"
        )
        if reached is None:
            session.say("kept for the next engine: no engine runs on this store now")


__all__ = ["publish"]
