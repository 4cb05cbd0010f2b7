"""What the SQLite schema refuses of users, tokens and the audit, whoever tries it with raw SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from outlast.access import Grant, Role
from outlast.access.record import Held
from outlast.store.sqlite import SqliteStore
from outlast.testing.conformance_access import PASSWORD, deed, session, token, user

ZERO = "zeroblob(32)"
AUDIT = "INSERT INTO audit VALUES (1, {number}, 1, 'eve', 'cli', 'x', 'y', '{{}}', {previous}, {digest})"
LAST = "(SELECT digest FROM audit_head)"

BAD_WRITES = {
    "a gap in the audit": (AUDIT.format(number=6, previous=LAST, digest=ZERO), "follows from the one before"),
    "a row twice": (AUDIT.format(number=4, previous=LAST, digest=ZERO), "follows from the one before"),
    "a row of the audit replaced": (AUDIT.format(number=4, previous=LAST, digest=ZERO).replace("INSERT", "INSERT OR REPLACE"), "follows from the one before"),
    "a row that follows from nothing": (AUDIT.format(number=5, previous=ZERO, digest=ZERO), "follows from the one before"),
    "a row of another tenant": (AUDIT.format(number=1, previous=ZERO, digest=ZERO).replace("(1,", "(2,", 1), "follows from the one before"),
    "the audit changed": ("UPDATE audit SET actor = 'eve' WHERE number = 2", "the audit never changes"),
    "the audit changed by nothing": ("UPDATE audit SET actor = actor", "the audit never changes"),
    "the audit cut": ("DELETE FROM audit WHERE number = 4", "never deleted"),
    "the head set back": ("UPDATE audit_head SET number = 3", "its last row"),
    "the head set on": ("UPDATE audit_head SET number = 5, digest = zeroblob(32)", "its last row"),
    "the head deleted": ("DELETE FROM audit_head", "its last row"),
    "a password in the clear": ("UPDATE account SET password = 'secret'", "CHECK"),
    "a token in the clear": ("INSERT INTO token VALUES (1, '0123456789', 'secret', 'n', NULL, '[]', 1, 'a', NULL, NULL, NULL)", "cannot store TEXT"),
    "more for a token": ("UPDATE token SET grants = '[[\"admin\",\"\",1]]'", "what a token permits"),
    "longer for a token": ("UPDATE token SET expires_at = NULL", "what a token permits"),
    "another's token": ("UPDATE token SET owner = 'bob'", "what a token permits"),
    "a token deleted": ("DELETE FROM token", "revoked, never deleted"),
    "a revoked token alive": ("UPDATE token SET revoked_at = 1; UPDATE token SET revoked_at = NULL", "stays revoked"),
    "a session of nobody": (f"INSERT INTO session VALUES (1, {ZERO}, 'eve', 1, 1, 2)", "who may sign in"),
    "a session of the disabled": (f"UPDATE account SET disabled_at = 1; INSERT INTO session VALUES (1, {ZERO}, 'ada', 1, 1, 2)", "who may sign in"),
    "a session that changes hands": ("UPDATE session SET account = 'bob'", "never changes hands"),
    "a session without end": ("UPDATE session SET expires_at = 9223372036854775807", "never changes hands"),
    "a role that there is not": ("UPDATE role_grant SET role = 'root'", "CHECK"),
    "a role for nobody": ("UPDATE role_grant SET subject = 'user:'", "CHECK"),
    "a deed of nobody": (AUDIT.format(number=5, previous=LAST, digest=ZERO).replace("'eve'", "''"), "CHECK"),
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "outlast.db", owner="w1", now=1)
    store.access.add_user(user(), deed())
    store.access.add_token(token(), deed())
    store.access.give(Held("user:ada", Grant(Role.VIEWER), 1, "os:ada"), deed())
    store.access.open_session(session(), PASSWORD, b"n" * 32, deed())
    yield store
    store.close()


@pytest.mark.parametrize("case", BAD_WRITES)
def test_the_schema_refuses(store: SqliteStore, case: str) -> None:
    sql, said = BAD_WRITES[case]
    shell = apsw.Connection(str(store.path))
    with pytest.raises(apsw.ConstraintError, match=re.escape(said)), shell:
        shell.execute(sql)
    shell.close()
    assert store.access.defects() == []


def test_every_guard_is_tried(store: SqliteStore) -> None:
    shell = apsw.Connection(str(store.path))
    text = " ".join(
        str(sql)
        for (sql,) in shell.execute(
            "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name IN"
            " ('account', 'sign_in', 'session', 'token', 'role_grant', 'audit', 'audit_head')"
        )
    )
    shell.close()
    guards = set(re.findall(r"'guard: ([^']+)'", text))
    guards -= {"a row stays with its tenant", "there is no such tenant"}  # test_tenants.py
    assert len(guards) == 9
    assert {
        one for one in guards if not any(said in one for _, said in BAD_WRITES.values())
    } == set()


def test_the_roles_of_the_schema_are_those_of_the_table(store: SqliteStore) -> None:
    shell = apsw.Connection(str(store.path))
    ((sql,),) = shell.execute("SELECT sql FROM sqlite_schema WHERE name = 'role_grant'").fetchall()
    shell.close()
    assert set(
        re.findall(r"'([a-z-]+)'", str(sql).partition("role IN")[2].partition(")")[0])
    ) == set(Role)


def test_deeds_of_two_processes_make_one_chain(store: SqliteStore) -> None:
    other = SqliteStore(store.path, owner=None, now=1)
    for number in range(5):
        for one in (store, other):
            assert one.access.add_user(user(f"u{number}{one is store}"), deed())
    assert store.access.defects() == [] and store.access.audit_head()[0] == 14
    other.close()
