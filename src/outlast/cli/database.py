"""The commands about the file: db init, status, verify, upgrade."""

from __future__ import annotations

import os
from typing import Any

import click

from outlast.cli.exits import OK, STORE
from outlast.cli.session import Session, shared
from outlast.cli.words import moment, now_us
from outlast.errors import UsageError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def db() -> None:
    """Make, look at, check or upgrade the database file."""


@db.command()
@shared
def init(session: Session) -> None:
    """Make the file if it is not there; one that is there is only looked at."""
    from outlast.store import sqlite_path

    there = sqlite_path(session.url).exists()
    with session.guest(make=True) as guest:
        url = guest.store.url
    if session.as_json:
        session.json({"store": url, "was_there": there})
    else:
        session.out(f"{url} {'is there already' if there else 'made'}")


@db.command()
@shared
def status(session: Session) -> None:
    """Say what is in the file, how large it is, and who runs its engine."""
    from outlast.store import sqlite_path

    path = sqlite_path(session.url)
    with session.guest() as guest:
        counts, workers, owner = guest.store.counts(), guest.store.workers(), guest.owner()
    size = _size(str(path))
    log_size = _size(f"{path}-wal")
    if session.as_json:
        session.json(
            {
                "store": session.url,
                "size_bytes": size,
                "log_bytes": log_size,
                "owner": owner,
                "open": {str(state): count for state, count in counts.items()},
                "workers": [_worker_form(worker) for worker in workers[:10]],
            }
        )
        return
    session.out(
        f"store    {session.url}, {size / 1e6:.1f} MB, write-ahead log {log_size / 1e6:.1f} MB"
    )
    session.out(f"engine   {owner or 'none runs now'}")
    said = ", ".join(f"{count} {state}" for state, count in counts.items())
    session.out(f"open     {said or 'no execution'}")
    if workers:
        session.out(f"last     {workers[0].id}, started {moment(workers[0].started_at)}")


def _worker_form(worker: Any) -> dict[str, Any]:
    from outlast.cli.forms import at

    return {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "started_at": at(worker.started_at),
        "seen_at": at(worker.seen_at),
    }


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


@db.command()
@shared
def verify(session: Session) -> int:
    """Fold every log, compare it with its row, and check the file itself; exit 7 if they differ."""
    with session.guest() as guest:
        verdict = guest.store.verify()
    checked = {
        "executions": verdict.executions,
        "transitions": verdict.transitions,
        "messages": verdict.messages,
    }
    if session.as_json:
        session.json({"store": session.url, **checked, "defects": verdict.defects})
    else:
        for defect in verdict.defects:
            session.out(session.paint("✗", "red") + f" {defect}")
        said = ", ".join(f"{count} {name}" for name, count in checked.items())
        if not verdict.defects:
            session.out(session.paint("✓", "green") + f" {said}: every log folds to its row")
        else:
            session.out(
                f"{len(verdict.defects)} defects in {said}; do: outlast explain store_broken"
            )
    return STORE if verdict.defects else OK


@db.command()
@shared
def upgrade(session: Session) -> None:
    """Bring the schema of an older file to this version; make a copy of it first."""
    from outlast.engine.identity import worker_name
    from outlast.store import open_store, sqlite_path

    if not sqlite_path(session.url).exists():
        raise UsageError(f"there is no file {sqlite_path(session.url)}", do="outlast db init")
    open_store(session.url, owner=worker_name(), now=now_us(), upgrade=True).close()
    if session.as_json:
        session.json({"store": session.url})
    else:
        session.out(f"{session.url} has the schema of this version")
