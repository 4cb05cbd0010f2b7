"""The command that lists workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from outlast.cli.session import Cell, Session, shared
from outlast.cli.words import now_us, one_line
from outlast.duration import in_words

if TYPE_CHECKING:
    from outlast.store.protocol import WorkerRow

_STYLES: Final = {
    "active": ("● active", "cyan"),
    "draining": ("‖ draining", "yellow"),
    "expired": ("✗ expired", "red"),
    "lost": ("✗ lost", "red"),
    "left": ("○ left", "dim"),
}


@click.command()
@click.option("--all", "everybody", is_flag=True, help="Also those that have left or were lost.")
@click.option(
    "--limit", default=100, type=click.IntRange(1, 10_000), show_default=True, help="How many."
)
@shared
def workers(session: Session, everybody: bool, limit: int) -> None:
    """List the workers of a store: state, process, what each holds, offers and knows.

    A worker is one incarnation of an engine's process. One that is "expired" has not renewed its
    lease in time; another one is about to take its executions over.
    """
    with session.guest() as guest:
        rows = guest.store.workers(limit)
        living = {row.id for row in guest.serving()}
        is_shared = guest.store.is_shared
    told = [(row, _state_of(row, living, is_shared=is_shared)) for row in rows]
    if not everybody:
        told = [(row, state) for row, state in told if state not in ("left", "lost")]
    if session.as_json:
        session.json({"items": [worker_form(row, state) for row, state in told]})
    elif session.output == "ids":
        for row, _ in told:
            session.out(row.id)
    elif not told:
        session.say("no worker runs on this store now: outlast worker FILE")
    else:
        heads = ["WORKER", "STATE", "HOST", "PID", "HELD", "SLOTS", "SEEN", "QUEUES", "TASKS"]
        session.table(heads, [_row(row, state) for row, state in told])


def _state_of(row: WorkerRow, living: set[str], *, is_shared: bool) -> str:
    """Say the state of a worker, as it is and not only as its row says."""
    if not row.is_serving or row.id in living:
        return row.state
    return "expired" if is_shared else "lost"


def _row(row: WorkerRow, state: str) -> list[Cell]:
    service = row.service
    versions = dict(service.versions)
    known = [f"{task}@{versions[task]}" if task in versions else task for task in service.tasks]
    few = ", ".join(known[:6]) + (f" and {len(known) - 6} more" if len(known) > 6 else "")
    offers = "all" if service.queues is None else ", ".join(service.queues)
    if service.capabilities:
        offers += f" (+ {', '.join(service.capabilities)})"
    return [
        (one_line(row.id, 60), "bold"),
        _STYLES[state],
        one_line(row.host, 40),
        str(row.pid),
        str(row.leased),
        str(service.slots),
        in_words(max(0, now_us() - row.seen_at)),
        one_line(offers, 60),
        one_line(few, 120),
    ]


def worker_form(row: WorkerRow, state: str) -> dict[str, Any]:
    """Write a worker for other programs."""
    from outlast.forms import at

    service = row.service
    return {
        "id": row.id,
        "state": state,
        "host": row.host,
        "pid": row.pid,
        "started_at": at(row.started_at),
        "seen_at": at(row.seen_at),
        "lease_us": row.lease_us,
        "leased": row.leased,
        "slots": service.slots,
        "queues": None if service.queues is None else list(service.queues),
        "capabilities": list(service.capabilities),
        "tasks": list(service.tasks),
        "versions": [list(one) for one in service.versions],
    }
