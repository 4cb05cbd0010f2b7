"""What tampering with the audit leaves to be found, and what only a head noted elsewhere finds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

from outlast.access import Grant, Role
from outlast.access.audit import GENESIS, AuditRow, Deed, chained
from outlast.access.record import Held
from outlast.cli.app import run as outlast
from outlast.store.sqlite import SqliteStore

COLUMNS: Final = "number, at, actor, via, what, target, detail, previous, digest"
ROWS: Final = 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store whose audit has rows."""
    store = SqliteStore(tmp_path / "outlast.db", owner="w1", now=1)
    for number in range(1, ROWS + 1):
        deed = Deed("os:root", "cli", "add", number)
        assert store.access.give(
            Held(f"user:u{number}", Grant(Role.VIEWER), number, "os:root"), deed
        )
    store.close()
    return tmp_path / "outlast.db"


Verified = Callable[..., tuple[list[str], str]]


@pytest.fixture
def verified(path: Path, capsys: pytest.CaptureFixture[str]) -> Verified:
    """What ``audit verify`` says: the defects and the head."""

    def run(*given: str) -> tuple[list[str], str]:
        code = outlast(["audit", "verify", *given, "-o", "json", "--store", f"sqlite:///{path}"])
        said = json.loads(capsys.readouterr().out)
        assert (code == 0) == (said["defects"] == [])
        return said["defects"], said["head"]

    return run


Shell = Callable[..., list[Any]]


def tampered(path: Path, change: Callable[[Shell], None]) -> None:
    """Change the file as somebody who can write it, and knows of its guards."""
    shell = apsw.Connection(str(path))
    for (name,) in shell.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
    ).fetchall():
        shell.execute(f"DROP TRIGGER {name}")

    def run(text: str, *values: Any) -> list[Any]:
        return shell.execute(text, values).fetchall()

    change(run)
    shell.close()


def rows_of(run: Shell) -> list[AuditRow]:
    return [AuditRow(*row) for row in run(f"SELECT {COLUMNS} FROM audit ORDER BY number")]


def rewrite(run: Shell, said: Sequence[AuditRow]) -> None:
    """Write a whole chain anew, as it would be of these rows, with its head."""
    deeds = [(Deed(one.by, one.via, one.what, one.at), one.target, json.loads(one.detail))
             for one in said]  # fmt: skip
    run("DELETE FROM audit")
    for row in chained(0, GENESIS, deeds):
        run(
            f"INSERT INTO audit (tenant, {COLUMNS}) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(row.number, row.at, row.by, row.via, row.what, row.target, row.detail),
            *(row.previous, row.digest),
        )
    set_head(run)


def set_head(run: Shell) -> None:
    last = rows_of(run)[-1]
    run("UPDATE audit_head SET number = ?, digest = ? WHERE tenant = 1", last.number, last.digest)


def swap(run: Shell) -> None:
    run("UPDATE audit SET number = 1000 WHERE number = 3")
    run("UPDATE audit SET number = 3 WHERE number = 4")
    run("UPDATE audit SET number = 4 WHERE number = 1000")


def close_the_gap(run: Shell) -> None:
    run("DELETE FROM audit WHERE number = 4")
    for number in range(5, ROWS + 1):
        run("UPDATE audit SET number = ? WHERE number = ?", number - 1, number)
    set_head(run)


FOUND: Final[dict[str, tuple[Callable[[Shell], Any], str]]] = {
    "a row in the middle is gone": (
        lambda run: run("DELETE FROM audit WHERE number = 4"), "row 5 comes after row 3",
    ),
    "it is gone, and the others are numbered anew": (close_the_gap, "does not follow"),
    "two rows have changed places": (swap, "does not follow"),
    "a row says something else": (
        lambda run: run("UPDATE audit SET actor = 'os:eve' WHERE number = 4"), "its digest",
    ),
    "a row's digest was made to fit": (
        lambda run: run("UPDATE audit SET digest = zeroblob(32) WHERE number = 4"), "row 4 is not",
    ),
    "the first row is gone": (
        lambda run: run("DELETE FROM audit WHERE number = 1"), "row 2 comes after row 0",
    ),
    "the end is cut off": (
        lambda run: run("DELETE FROM audit WHERE number > 5"), "its last row is 5",
    ),
    "all of it is gone": (lambda run: run("DELETE FROM audit"), "its last row is 0"),
    "the head was moved": (
        lambda run: run("UPDATE audit_head SET number = 5"), "its head is at row 5",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_what_was_tampered_with_is_found(path: Path, verified: Verified, case: str) -> None:
    change, said = FOUND[case]
    assert verified()[0] == []
    tampered(path, change)
    defects, _ = verified()
    assert said in " ".join(defects)


def cut(run: Shell) -> None:
    run("DELETE FROM audit WHERE number > 5")
    set_head(run)


def forge(run: Shell) -> None:
    rewrite(run, [one for one in rows_of(run) if one.number != 2])


@pytest.mark.parametrize("change", [cut, forge])
def test_a_chain_that_was_made_to_fit_is_found_by_a_head_that_was_noted(
    path: Path, verified: Verified, change: Callable[[Shell], None]
) -> None:
    """Whoever writes the file can cut it and set its head: only what is kept elsewhere tells."""
    _, head = verified()
    assert verified("--from", head)[0] == []
    tampered(path, change)
    assert verified()[0] == [], "the chain itself is whole"
    assert "does not lead to the head that was noted" in verified("--from", head)[0][0]


def test_what_came_after_the_head_that_was_noted_can_be_cut_unseen(
    path: Path, verified: Verified
) -> None:
    """So a head is worth noting often: what is behind the last one rests on nobody's word."""
    shell = apsw.Connection(str(path))
    noted = shell.execute("SELECT number, digest FROM audit WHERE number = 4").fetchall()[0]
    shell.close()
    tampered(path, cut)
    assert verified("--from", f"{noted[0]}:{noted[1].hex()}")[0] == []
