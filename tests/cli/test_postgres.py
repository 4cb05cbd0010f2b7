"""The commands on a PostgreSQL store; no message ever shows a password."""

from __future__ import annotations

import json

import psycopg
import pytest

from outlast.store import shown
from servers.postgres import Server

from .conftest import Terminal


@pytest.fixture
def url(postgres: Server) -> str:
    """An empty database, by an address with a password."""
    return postgres.database()


def secret_of(url: str) -> str:
    return url.partition("//")[2].partition("@")[0].partition(":")[2]


def test_a_life_on_a_server(terminal: Terminal, url: str) -> None:
    store = ("--store", url)
    before = terminal.run("ls", *store)
    assert before.code == 7 and "schema" in before.err and "outlast db init" in before.err
    assert terminal.run("db", "init", *store).code == 0
    assert "is there already" in terminal.run("db", "init", *store).out
    assert terminal.run("run", "tasks.py:hello", "Ada", *store).code == 0
    (listed,) = json.loads(terminal.run("ls", *store, "-o", "json").out)["items"]
    assert listed["state"] == "succeeded"
    assert terminal.run("show", listed["id"], *store).code == 0
    status = terminal.run("db", "status", *store)
    assert status.code == 0 and "PostgreSQL" in status.out
    assert terminal.run("db", "verify", *store).code == 0
    assert terminal.run("db", "upgrade", *store).code == 0
    assert json.loads(
        terminal.run("db", "prune", *store, "--older-than", "0s", "-o", "json").out
    ) == {"found": 1, "deleted": 1, "dry_run": False}


def test_a_backup_is_the_servers_own(terminal: Terminal, url: str) -> None:
    assert terminal.run("db", "init", "--store", url).code == 0
    done = terminal.run("db", "backup", "copy.db", "--store", url)
    assert done.code == 2 and "pg_dump" in done.err


def test_what_can_be_lost_and_what_was(terminal: Terminal, url: str) -> None:
    store = ("--store", url)
    assert terminal.run("run", "tasks.py:hello", "Ada", *store).code == 0
    said = terminal.run("db", "check", *store)
    assert said.code == 0 and "synchronous_standby_names" in said.out
    assert "the last moments" in said.out and "never gone back" in said.out
    done = terminal.run("db", "restored", "--why", "Monday's base backup", *store)
    assert done.code == 0 and "epoch 1" in done.out
    form = terminal.run("db", "check", *store, "-o", "json").json
    assert form["sight"]["timeline"] == 1 and form["settings"]["synchronous_commit"] == "on"
    (epoch,) = form["epochs"]
    assert (epoch["cause"], epoch["losses"]) == ("declared", [])
    assert "Monday's base backup" in terminal.run("db", "check", *store).out
    assert "db restored" in terminal.run("audit", "ls", *store).out
    assert terminal.run("run", "tasks.py:hello", "Bob", *store).code == 0
    assert terminal.run("db", "verify", *store).code == 0


def test_no_message_shows_the_password(terminal: Terminal, url: str) -> None:
    secret = secret_of(url)
    assert len(secret) > 8 and secret not in shown(url)
    elsewhere = url.rpartition("/")[0] + "/nowhere"
    closed = url.replace(url.rpartition(":")[2].partition("/")[0], "1")
    wrong = url.replace(secret, f"{secret}x")
    for words, code in (
        (("ls", "--store", url), "schema_mismatch"),
        (("ls", "--store", elsewhere), "cannot_load"),
        (("ls", "--store", closed), "store_unavailable"),
        (("ls", "--store", wrong), "store_read_only"),
        (("ls", "--store", f"{url}?durability=perhaps"), "cannot_load"),
        (("ls", "--nonsense", "--store", url), "usage"),
        (("db", "init", "--store", url), None),
        (("db", "status", "--store", url), None),
        (("db", "init", "--store", url, "-o", "json"), None),
        (("show", "nobody", "--store", url), "not_found"),
        (("show", "nobody", "--store", url, "--debug"), "not_found"),
    ):
        done = terminal.run(*words)
        assert secret not in done.out + done.err, words
        assert (code or "") in done.err, (words, done.err)
        assert (done.code == 0) == (code is None)


def test_the_schema_as_sql_is_the_schema(terminal: Terminal, url: str) -> None:
    """Somebody else may run it, with more rights than the workers have."""
    script = terminal.run("db", "print-sql", "--store", f"{url}?schema=other").out
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(script.encode())
    assert terminal.run("ls", "--store", f"{url}?schema=other").code == 0


def test_a_server_that_could_forget_is_refused(terminal: Terminal) -> None:
    with Server(settings={"fsync": "off"}) as server:
        url = server.database()
        refused = terminal.run("db", "init", "--store", url)
        assert refused.code == 7 and "fsync" in refused.err and "store_broken" in refused.err
        assert terminal.run("db", "init", "--store", f"{url}?durability=off").code == 0
