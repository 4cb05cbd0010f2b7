"""The commands about the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from outlast.cli.exits import OK, STORE
from outlast.cli.session import Cell, Session, shared
from outlast.cli.words import moment
from outlast.errors import UsageError

if TYPE_CHECKING:
    from outlast.access.audit import AuditRow


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def audit() -> None:
    """See who changed what, and that nothing of it was tampered with.

    Every change from the command line or over HTTP leaves a row, written in one transaction with
    it. Rows are never changed or deleted; each one's digest covers the one before.
    """


@audit.command()
@click.option("--by", metavar="WHO", help="Only what this one did: user:ada, token:ID, os:ada.")
@click.option("--target", metavar="WHAT", help="Only about this: an execution's id, user:ada.")
@click.option("--before", type=click.IntRange(1), metavar="NUMBER", help="The page before a row.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@shared
def ls(
    session: Session, by: str | None, target: str | None, before: int | None, limit: int
) -> None:
    """List the audit, the newest first."""
    with session.guest() as guest:
        rows = guest.store.access.audit(before, limit, newest=True, target=target, by=by)
    if session.as_json:
        session.json({"items": [row_form(row) for row in rows]})
    elif session.output == "ids":
        for row in rows:
            session.out(str(row.number))
    elif not rows:
        session.say("nobody has changed anything from outside")
    else:
        heads = ["NUMBER", "AT", "BY", "VIA", "WHAT", "TARGET", "DETAIL"]
        session.table(heads, [_row(row) for row in rows])


def row_form(row: AuditRow) -> dict[str, Any]:
    """Give a row of the audit as JSON."""
    return {
        "number": row.number,
        "at": row.at,
        "by": row.by,
        "via": row.via,
        "what": row.what,
        "target": row.target,
        "detail": msgspec.json.decode(row.detail),
        "previous": row.previous.hex(),
        "digest": row.digest.hex(),
    }


def _row(row: AuditRow) -> list[Cell]:
    detail = "" if row.detail == "{}" else row.detail
    number = (str(row.number), "bold")
    return [number, moment(row.at), row.by, row.via, row.what, row.target, detail]


@audit.command()
@click.option(
    "--from",
    "noted",
    metavar="NUMBER:DIGEST",
    help="A head that an earlier verify printed: the chain must lead there.",
)
@shared
def verify(session: Session, noted: str | None) -> int:
    """Follow the chain from its beginning, and print its head.

    Note the head somewhere else: who can write the database can forge the whole chain anew, but
    not so that it leads through a head that you have noted.
    """
    wanted = None if noted is None else _head(noted)
    with session.guest() as guest:
        access = guest.store.access
        defects = access.defects()
        number, digest = access.audit_head()
        if wanted is not None:
            found = access.audit(wanted[0] - 1, 1) if wanted[0] else []
            if not found or (found[0].number, found[0].digest) != wanted:
                defects.append(f"audit: it does not lead to the head that was noted, {wanted[0]}")
    head = f"{number}:{digest.hex()}"
    if session.as_json:
        session.json({"rows": number, "head": head, "defects": defects})
    else:
        for defect in defects:
            session.out(defect)
        if not defects:
            session.out(f"{number} rows, each follows from the one before; head {head}")
    return STORE if defects else OK


def _head(text: str) -> tuple[int, bytes]:
    number, _, digest = text.partition(":")
    try:
        head = int(number), bytes.fromhex(digest)
    except ValueError:
        head = 0, b""
    if head[0] < 1 or len(head[1]) != 32:
        raise UsageError(f'"{text[:100]}" is no head', where="--from", do="outlast audit verify")
    return head


__all__ = ["audit", "row_form"]
