"""The commands about the database: db init, status, verify, upgrade, print-sql, backup, prune."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outlast.cli.exits import OK, STORE
from outlast.cli.session import Session, shared
from outlast.cli.words import moment, now_us
from outlast.errors import SchemaMismatch, UsageError
from outlast.retention import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outlast.store.epoch import Epoch, EpochLoss, Keeping
    from outlast.store.protocol import Verdict

RESEAL_MAX = 500
"""Payloads that are sealed anew within one transaction."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def db() -> None:
    """Make, look at, check, upgrade, copy or clean up the database."""


@db.command()
@click.option("--upgrade", is_flag=True, help="Bring an older schema to this version as well.")
@click.option("--partitions", type=int, help="PostgreSQL: have logs in so many partitions.")
@shared
def init(session: Session, upgrade: bool, partitions: int | None) -> None:
    """Make the file, or a server's schema; one that is there is only looked at.

    With --upgrade it is what a deployment says before it starts anything: it may be said again.
    """
    from outlast.engine.write.identity import worker_name
    from outlast.store import open_store, place_of, prepare

    there, was = place_of(session.url).exists, "is there already"
    try:
        if partitions is not None:  # and nothing in it: a store may be copied there
            prepare(session.url, now_us(), partitions)
        else:
            session.guest(make=True).close()
    except SchemaMismatch:
        if not upgrade:
            raise
        open_store(session.url, owner=worker_name(), now=now_us(), upgrade=True).close()
        was = "has the schema of this version now"
    if session.as_json:
        session.json({"store": session.shown, "was_there": there})
    else:
        session.out(f"{session.shown} {was if there else 'made'}")


@db.command("new-key")
@click.argument("name", default="k1")
@shared
def new_key(session: Session, name: str) -> None:
    """Draw a key for encryption at rest and print its line; nothing else is done with it.

    Put the line into a file that only you can read, and name it by OUTLAST_KEYS_FILE. To change the
    key, put the new line before the old one, run outlast db rewrap, and take the old one out.
    """
    from outlast.store import new_key

    session.out(new_key(name))


@db.command()
@click.option("--data-key", is_flag=True, help="Draw another data key besides.")
@shared
def rewrap(session: Session, data_key: bool) -> None:
    """Wrap the data keys by the first of the given keys; the others are needed no more.

    No payload is touched, and an engine may run meanwhile. --data-key also draws another data key,
    which seals from now on.
    """
    from outlast.engine.write.acting import deed

    count, rows = 0, []
    for tenant in session.each_tenant():  # each has data keys of its own
        with session.guest_of(tenant) as guest:
            sealing, done = guest.store.sealing, deed()
            assert done is not None
            if sealing is None or not sealing.data_keys():
                continue
            count += sealing.wrap_anew(done)
            if data_key:
                sealing.draw_anew(now_us(), done)
            rows += sealing.data_keys()
    if not rows:
        raise UsageError(
            "the store is not encrypted",
            why="no engine has opened it with keys so far",
            do="OUTLAST_KEYS_FILE=… outlast worker FILE",
        )
    if session.as_json:
        session.json({"wrapped": count, "data_keys": len(rows), "key": rows[-1].key_id})
    else:
        session.out(f"{count} data keys are wrapped by {rows[-1].key_id}")


@db.command()
@shared
def encrypt(session: Session) -> None:
    """Seal everything by the newest data key, also what is in the clear; no engine may run.

    Killed at any moment, type it again: it goes on. When all is sealed, the clear is refused.
    """
    from outlast.engine.write.acting import deed
    from outlast.engine.write.identity import worker_name
    from outlast.store import open_store

    session.act()
    count = 0
    for tenant in session.each_tenant():
        store = open_store(session.url, owner=worker_name(), now=now_us(), tenant=tenant)
        try:
            sealing, done = store.sealing, deed()
            assert done is not None
            if sealing is None:
                raise UsageError("there are no keys", do="OUTLAST_KEYS_FILE=… outlast db encrypt")
            while (some := sealing.seal_anew(RESEAL_MAX)).looked:
                count += some.sealed
            sealing.finish(done)
        finally:
            store.close()
    if session.as_json:
        session.json({"sealed": count})
    else:
        session.out(f"{count} values sealed; what is in the clear is refused from now on")
        session.say("what was in the clear is left in free pages of the file until they are reused")


@db.command()
@shared
def status(session: Session) -> None:
    """Say what is in the database, how large it is, and who runs its engine."""
    from outlast.store import place_of

    with session.guest() as guest:
        counts, workers, owner = guest.store.counts(), guest.store.workers(), guest.owner()
    place = place_of(session.url)
    if session.as_json:
        session.json(
            {
                "store": place.shown,
                "size_bytes": place.size_bytes,
                "log_bytes": place.log_bytes,
                "server": place.server,
                "owner": owner,
                "open": {str(state): count for state, count in counts.items()},
                "workers": [_worker_form(worker) for worker in workers[:10]],
            }
        )
        return
    log = "" if place.log_bytes is None else f", write-ahead log {place.log_bytes / 1e6:.1f} MB"
    session.out(f"store    {place.shown}, {place.size_bytes / 1e6:.1f} MB{log}")
    if place.server is not None:
        session.out(f"server   {place.server}")
        serving = sum(1 for worker in workers if worker.is_serving)
        session.out(f"engines  {serving or 'none runs now'}")
    else:
        session.out(f"engine   {owner or 'none runs now'}")
    said = ", ".join(f"{count} {state}" for state, count in counts.items())
    session.out(f"open     {said or 'no execution'}")
    if workers:
        session.out(f"last     {workers[0].id}, started {moment(workers[0].started_at)}")


def _worker_form(worker: Any) -> dict[str, Any]:
    from outlast.forms import at

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
    """Fold every log, compare it with its row, and check what holds them; exit 7 if they differ.

    All tenants are looked through, or the one that --tenant names.
    """
    verdict = _verified(session.url, session.each_tenant())
    checked = {
        "executions": verdict.executions,
        "transitions": verdict.transitions,
        "messages": verdict.messages,
    }
    if session.as_json:
        session.json({"store": session.shown, **checked, "defects": verdict.defects})
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


def _verified(url: str, tenants: list[str]) -> Verdict:
    """Look through tenants of a store; a defect says whose it is."""
    from outlast.store import open_store
    from outlast.store.protocol import Verdict

    total = Verdict()
    for name in tenants:
        store = open_store(url, owner=None, now=now_us(), tenant=name)
        try:
            verdict = store.verify()
        finally:
            store.close()
        total.executions += verdict.executions
        total.transitions += verdict.transitions
        total.messages += verdict.messages
        whose = "" if len(tenants) == 1 else f"tenant {name}: "
        total.defects += (f"{whose}{defect}" for defect in verdict.defects)
    return total


@db.command()
@shared
def check(session: Session) -> None:
    """Say what of what is acknowledged could be lost, and what was lost when the store went back.

    Each epoch began as a standby was promoted, or a backup restored. What was lost then is what the
    engines that lived through it knew to be acknowledged and did not find: at least so much.
    """
    from msgspec import to_builtins

    from outlast.forms import at

    with session.guest() as guest:
        epochs = guest.store.epochs
        keeping, history = epochs.keeping(), epochs.history()
        losses = {epoch.number: epochs.losses(epoch.number) for epoch in history}
    if not session.as_json:
        _say_keeping(session, keeping)
        for epoch in history:
            _say_epoch(session, epoch, losses[epoch.number])
        if not history:
            session.out("epoch    none: the store has never gone back")
        return
    forms = []
    for epoch in history:
        lost = [{**to_builtins(one), "at": at(one.at)} for one in losses[epoch.number]]
        forms.append({**to_builtins(epoch), "began_at": at(epoch.began_at), "losses": lost})
    session.json({"store": session.shown, **to_builtins(keeping), "epochs": forms})


def _say_keeping(session: Session, keeping: Keeping) -> None:
    session.out(f"loses    {keeping.loses}")
    for name, value in keeping.settings.items():
        session.out(f"         {name} = {value if value != '' else '(empty)'}")
    seen = ", ".join(f"{name} {value}" for name, value in keeping.sight.items() if value)
    session.out(f"history  {seen or 'not known'}")
    unseen = [name for name, value in keeping.sight.items() if value is None]
    if unseen:
        session.out(f"         this role may not ask for: {', '.join(unseen)}")
    if keeping.do:
        session.out(f"do       {keeping.do}")


def _say_epoch(session: Session, epoch: Epoch, losses: Sequence[EpochLoss]) -> None:
    why = epoch.detail.get("why") or epoch.cause
    session.out(f"epoch    {epoch.number}, {epoch.cause} {moment(epoch.began_at)}: {why}")
    session.out(
        f"         {epoch.executions} leases of {epoch.workers} workers ended, fences go on at "
        f"{epoch.floor}"
    )
    for loss in losses:
        said = "lost nothing that it knew"
        if loss.is_any:
            said = (
                f"lost: {loss.missing} executions, {loss.rows_lost} rows of {loss.behind} others, "
                f"{loss.messages} messages; as {', '.join(loss.examples)}"
            )
        session.out(f"         {loss.worker} knew {loss.known} executions, {said}")
    if not losses:
        session.out("         nobody has said what was lost: no engine lived through it")


@db.command()
@click.option("--why", required=True, help="What was restored; kept with the epoch.")
@shared
def restored(session: Session, why: str) -> None:
    """Say that the database was restored, where it could not see that by itself.

    Every lease ends, fences go on above all that were ever given out, and engines come back. A
    promoted standby, a dump and a copy that outlast db backup made are seen without this.
    """
    from outlast.engine.write.acting import deed
    from outlast.engine.write.identity import worker_name
    from outlast.store import open_store

    session.act()
    store = open_store(session.url, owner=worker_name(), now=now_us())
    try:
        epoch = store.epochs.begin("declared", {"why": why}, now_us(), deed())
    finally:
        store.close()
    if session.as_json:
        session.json({"epoch": epoch.number, "floor": epoch.floor, "leases": epoch.executions})
    else:
        session.out(f"epoch {epoch.number} has begun: {epoch.executions} leases ended")


@db.command()
@shared
def upgrade(session: Session) -> None:
    """Bring the schema of an older database to this version; make a copy of it first."""
    from outlast.engine.write.identity import worker_name
    from outlast.store import open_store, place_of

    if not place_of(session.url).exists:
        raise UsageError(f"there is nothing at {session.shown}", do="outlast db init")
    open_store(session.url, owner=worker_name(), now=now_us(), upgrade=True).close()
    if session.as_json:
        session.json({"store": session.shown})
    else:
        session.out(f"{session.shown} has the schema of this version")


@db.command()
@click.argument("role")
@shared
def grant(session: Session, role: str) -> None:
    """Give a ROLE of a PostgreSQL server what engines need, behind row-level security.

    The schema's owner says it, again after each upgrade. With --tenant, which may be repeated, the
    role sees only those tenants, whatever it sets; else the ones that each transaction names.
    """
    from outlast.store import grant

    names = session.tenants
    grant(session.url, role, names)
    if session.as_json:
        session.json({"role": role, "tenants": list(names) or None})
    else:
        whose = f" of {', '.join(names)}" if names else ""
        session.out(f"{role} may run engines{whose}")


@db.command(name="print-sql")
@click.option("--partitions", type=int, default=1, help="PostgreSQL: logs in so many partitions.")
@shared
def print_sql(session: Session, partitions: int) -> None:
    """Print the SQL that makes the schema; for who wants to read it, or must run it by hand."""
    from outlast.store import script

    text = script(session.url, partitions)
    if session.as_json:
        session.json({"sql": text})
    else:
        session.out(text)


@db.command()
@click.argument("file", type=click.Path(path_type=Path))
@shared
def backup(session: Session, file: Path) -> int:
    """Copy a SQLite database to a new FILE while engines go on, and verify the copy.

    A PostgreSQL server has its own programs for that: pg_dump, or pg_basebackup.
    """
    from outlast.store import open_store

    with session.guest() as guest:
        guest.store.backup(file)
    address = f"sqlite:///{file}"
    copy = open_store(address, owner=None, now=now_us())
    names = [tenant.name for tenant in copy.tenants.page()]
    copy.close()
    verdict = _verified(address, names)
    size = _size(str(file))
    if session.as_json:
        session.json(
            {
                "file": str(file),
                "size_bytes": size,
                "executions": verdict.executions,
                "defects": verdict.defects,
            }
        )
        return STORE if verdict.defects else OK
    for defect in verdict.defects:
        session.out(session.paint("✗", "red") + f" {defect}")
    if not verdict.defects:
        session.out(
            f"{file}: {size / 1e6:.1f} MB, {verdict.executions} executions, "
            "every log folds to its row"
        )
    return STORE if verdict.defects else OK


@db.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@shared
def copy(session: Session, source: str, target: str) -> int:
    """Copy the store FROM into the empty database TO, and compare both; killed, it can go on.

    Neither may be used meanwhile. FROM stays as it is: stop its workers first, and start them on TO
    afterwards. The addresses are sqlite:///FILE or postgresql://….
    """
    from outlast.store import copy_store

    done = [0, 0]

    def tell(table: str, rows: int) -> None:
        done[0] += rows
        if done[0] >= done[1]:
            done[1] = done[0] + 100_000
            session.say(f"{done[0]} rows so far, now {table}")

    made = copy_store(source, target, now_us(), tell)
    if session.as_json:
        session.json(made)
        return STORE if made.defects else OK
    for defect in made.defects:
        session.out(session.paint("✗", "red") + f" {defect}")
    count, tables = sum(made.rows.values()), sum(1 for rows in made.rows.values() if rows)
    went_on = ", gone on with an earlier copy" if made.resumed else ""
    session.out(
        f"{count} rows of {tables} tables copied{went_on}: counts and digests of all are equal"
    )
    if made.defects:
        session.out(f"{len(made.defects)} defects; do: outlast explain store_broken")
        return STORE
    session.out(f"next     start workers, servers and programs on {made.target}")
    session.out(
        f"         keep {made.source}, which was not changed, and start nothing on it again"
    )
    return OK


@db.command()
@click.option("--older-than", default=DEFAULT, show_default=True, help="Time since their end.")
@click.option("--state", "states", multiple=True, help="Only those that ended so; repeatable.")
@click.option("--task", "task_name", help="Only those of this task.")
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@shared
def prune(
    session: Session,
    older_than: str,
    states: tuple[str, ...],
    task_name: str | None,
    dry_run: bool,
) -> None:
    """Delete executions that ended long ago, with their logs; open ones are never touched.

    A running engine does this by itself, as the retention of its tasks says.
    """
    from outlast.duration import microseconds
    from outlast.engine.control.pruner import Rules, due, parts
    from outlast.engine.write.acting import deed
    from outlast.lifecycle import FINAL
    from outlast.retention import Retention

    unknown = [state for state in states if state not in FINAL]
    if unknown:
        raise UsageError(
            f"{unknown[0]} is no state that executions end in",
            do=f"one of {', '.join(sorted(FINAL))}",
        )
    microseconds(older_than)
    now, found, deleted = now_us(), 0, 0
    with session.guest() as guest:
        after: str | None = ""
        while after is not None:
            ended, after = due(guest.store, Rules(Retention(older_than)), now, after)
            ids = [
                one.id
                for one in ended
                if (not states or one.state in states) and task_name in (None, one.task)
            ]
            found += len(ids)
            for some in parts([] if dry_run else ids):
                deleted += guest.store.purge(some, deed())
    if session.as_json:
        session.json({"found": found, "deleted": deleted, "dry_run": dry_run})
    elif dry_run:
        session.out(f"{found} executions would be deleted")
    else:
        session.out(f"{deleted} executions deleted")
