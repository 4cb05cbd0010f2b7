"""The command doctor."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, cast

import click

from outlast.cli.exits import FAILED, OK
from outlast.cli.session import Session, shared
from outlast.cli.words import now_us, one_line

if TYPE_CHECKING:
    from outlast.engine.read.doctor import Finding

_MARKS = {"fail": ("✗", "red"), "warn": ("!", "yellow"), "ok": ("✓", "green")}


@click.command()
@click.option("--strict", is_flag=True, help="Let warnings count as failures.")
@shared
def doctor(session: Session, strict: bool) -> int:
    """Examine the store, its workers and what waits: what is wrong, why, and what to do.

    It changes nothing and looks at samples where there is much, so it takes a second or two. The
    exit code is 1 where work stands still or may be lost.
    """
    from outlast.engine.read.doctor import Level, examine, worst
    from outlast.forms import finding_form

    with session.guest() as guest:
        if session.is_remote:
            found = cast(Any, guest.store).findings()
        else:
            found = examine(guest.store, now_us(), guest.owner())
            found = [*_of_secret(session.url), *found]
    level = worst(found)
    if session.as_json:
        session.json({"level": level, "findings": [finding_form(one) for one in found]})
    else:
        for one in found:
            _show(session, one)
    return FAILED if level is Level.FAIL or (strict and level is Level.WARN) else OK


def _show(session: Session, one: Finding) -> None:
    mark, style = _MARKS[one.level]
    session.out(f"{session.paint(mark, style)} {one.check:9} {one_line(one.what, 300)}")
    if one.level == "ok" or session.quiet:
        return
    for said, text in (("because", one.why), ("do", one.do)):
        if text:
            session.out(f"            {said} {one_line(text, 300)}")


def _of_secret(url: str) -> list[Finding]:
    """See who may read the digest of the server's first token."""
    from outlast.engine.read.doctor import Finding, Level
    from outlast.store import is_postgres, sqlite_path

    if is_postgres(url) or not url.startswith("sqlite:"):
        return []
    path = f"{sqlite_path(url)}.token"
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return []
    if not mode & 0o077:
        return []
    what = f"others may read {path} (mode {mode:o})"
    why = "it tells who has guessed the token of the server"
    return [Finding("exposure", Level.WARN, what, why, f"chmod 600 {path}")]


__all__ = ["doctor"]
