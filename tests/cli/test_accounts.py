"""Users, tokens, roles and the audit from a terminal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from outlast.cli.session import user_of_machine
from outlast.store.sqlite import SqliteStore

from .conftest import Terminal

WORDS = "four words of mine\n"


def test_users_have_roles_and_passwords_that_nobody_sees(terminal: Terminal) -> None:
    terminal.run("db", "init")
    added = terminal.run(
        "user", "add", "ada", "--role", "operator@billing", "--password-stdin", stdin=WORDS
    )
    assert added.out == "user ada with operator@billing\n"
    again = terminal.run("user", "add", "ada", "--password-stdin", stdin=WORDS)
    assert again.code == 5 and "name_taken" in again.err
    short = terminal.run("user", "add", "bob", "--password-stdin", stdin="hunter2\n")
    assert short.code == 2 and "hunter2" not in short.err + short.out
    asked = terminal.run("user", "add", "bob")
    assert asked.code == 2 and "--password-stdin" in asked.err
    assert terminal.here("role", "grant", "ada", "viewer").out == "user:ada has viewer\n"
    assert terminal.here("role", "grant", "ada", "viewer").out == "user:ada has viewer already\n"
    assert terminal.here("role", "grant", "group:ops", "admin").code == 0
    listed = terminal.here("role", "ls", "-o", "json").json["items"]
    assert [(one["who"], one["role"], one["task"]) for one in listed] == [
        ("group:ops", "admin", ""), ("user:ada", "operator", "billing"), ("user:ada", "viewer", ""),
    ]  # fmt: skip
    revoked = terminal.here("role", "revoke", "ada", "operator", "--task", "billing")
    assert revoked.out == "user:ada has operator@billing no more\n"
    assert terminal.here("role", "revoke", "ada", "operator").code == 4
    assert terminal.here("role", "grant", "eve", "viewer").code == 4
    assert terminal.here("role", "grant", "ada", "root").code == 2
    assert terminal.here("user", "disable", "ada").out == "user ada is disabled\n"
    assert "disabled" in terminal.here("user", "ls").out
    assert terminal.here("user", "disable", "ada", "--undo").out == "user ada is active\n"
    changed = terminal.run(
        "user", "password", "ada", "--password-stdin", stdin="quite other words\n"
    )
    assert changed.out == "user ada has another password\n"
    for path in Path(terminal.directory).iterdir():
        assert b"words of mine" not in path.read_bytes() and b"other words" not in path.read_bytes()


def test_tokens_are_shown_once(terminal: Terminal) -> None:
    terminal.run("db", "init")
    made = terminal.run(
        "token", "create", "deploy", "--role", "submitter@billing", "--role", "viewer"
    )
    text = made.out.strip()
    assert text.startswith("otk_") and text not in made.err and "shown only now" in made.err
    (listed,) = terminal.here("token", "ls", "-o", "json").json["items"]
    assert listed["id"] == text[4:14] and listed["roles"] == ["submitter@billing", "viewer"]
    assert (
        text.partition(".")[2] not in str(listed)
        and listed["created_by"] == f"os:{user_of_machine()}"
    )
    assert listed["expires_at"] - listed["created_at"] == pytest.approx(
        90 * 86_400_000_000, abs=60_000_000
    )
    never = terminal.here(
        "token", "create", "x", "--role", "worker", "--expires", "never", "-o", "json"
    ).json
    assert never["expires_at"] is None and never["token"].startswith(f"otk_{never['id']}.")
    assert terminal.here("token", "create", "x").code == 2
    assert terminal.here("token", "create", "x", "--role", "viewer", "--owner", "eve").code == 4
    assert (
        terminal.here("token", "revoke", listed["id"]).out == f"token {listed['id']} is revoked\n"
    )
    assert terminal.here("token", "revoke", "0123456789").code == 4
    assert "revoked" in terminal.here("token", "ls").out


def test_every_change_is_in_the_audit(terminal: Terminal) -> None:
    """From any command, with who runs it by the system's word, not the environment's."""
    started = terminal.run("start", "tasks.py:hello", "Ada", "-o", "json").json
    terminal.here("pause", started["id"])
    terminal.here("pause", started["id"])
    terminal.here("queue", "pause", "mail")
    terminal.here("limit", "set", "k", "3")
    terminal.here("budget", "set", "tenant", "usd=5")
    terminal.here("cancel", started["id"])
    terminal.here("cancel", started["id"])
    terminal.here("ls")
    listed = terminal.here("audit", "ls", "-o", "json").json["items"]
    told = [(one["what"], one["target"]) for one in reversed(listed)]
    assert told == [
        ("start", started["id"]), ("pause", started["id"]), ("queue pause", "queue:mail"),
        ("limit set", "limit:k"), ("budget set", "budget:tenant"), ("cancel", started["id"]),
    ]  # fmt: skip
    assert {one["by"] for one in listed} == {f"os:{user_of_machine()}"}
    assert {one["via"] for one in listed} == {"cli"}
    assert listed[-1]["detail"]["task"].endswith("hello") and "Ada" not in str(listed)
    about = terminal.here("audit", "ls", "--target", started["id"], "-o", "ids")
    assert about.out.split() == ["6", "2", "1"]
    page = terminal.here("audit", "ls", "--before", "3", "-o", "ids")
    assert page.out.split() == ["2", "1"]


def test_tampering_with_the_audit_is_found(terminal: Terminal) -> None:
    terminal.run("db", "init")
    for number in range(3):
        terminal.here("token", "create", f"t{number}", "--role", "viewer")
    head = terminal.here("audit", "verify", "-o", "json").json["head"]
    terminal.here("token", "create", "t3", "--role", "viewer")
    good = terminal.here("audit", "verify", "--from", head)
    assert good.code == 0 and good.out.startswith("4 rows")
    forged = f"3:{'0' * 64}"
    assert terminal.here("audit", "verify", "--from", forged).code == 7
    assert terminal.here("audit", "verify", "--from", "x").code == 2
    (path,) = Path(terminal.directory).glob("*.db")
    store = SqliteStore(path, owner=None, now=1)
    for (name,) in store.file.writer.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'audit'"
    ).fetchall():
        store.file.writer.execute(f"DROP TRIGGER {name}")
    store.file.writer.execute("UPDATE audit SET actor = 'os:eve' WHERE number = 2")
    store.close()
    found = terminal.here("audit", "verify")
    assert found.code == 7 and found.out == "audit: row 2 is not what its digest says\n"
    assert terminal.run("db", "verify").code != 0


def test_the_user_is_the_systems() -> None:
    assert user_of_machine() == __import__("pwd").getpwuid(os.getuid()).pw_name
