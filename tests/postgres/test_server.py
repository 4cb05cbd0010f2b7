"""The PostgreSQL that tests bring along is a real and durable one, and is gone afterwards."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from servers.postgres import Server


def ask(url: str, statement: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]


def test_it_is_durable_and_of_the_version_it_says(every_postgres: Server) -> None:
    url = every_postgres.url()
    assert ask(url, "SHOW fsync") == "on"
    assert ask(url, "SHOW synchronous_commit") == "on"
    assert ask(url, "SHOW server_encoding") == "UTF8"
    version = int(str(ask(url, "SHOW server_version_num"))) // 10_000
    assert version == every_postgres.installation.version >= 14


def test_socket_and_loopback_lead_to_the_same_server(postgres: Server) -> None:
    start = "SELECT pg_postmaster_start_time()"
    assert ask(postgres.url(), start) == ask(postgres.url(by_socket=True), start)


def test_loopback_asks_for_the_password(postgres: Server) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres.url().replace(":" + postgres._password, ""))


def test_databases_are_apart_and_copies_of_what_was_made_once(postgres: Server) -> None:
    made = []

    def make(url: str) -> None:
        made.append(url)
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE t AS SELECT 7 AS n")

    one, two = postgres.database(make), postgres.database(make)
    assert len(made) == 1
    with psycopg.connect(one) as connection:
        connection.execute("UPDATE t SET n = 8")
    assert (ask(one, "SELECT n FROM t"), ask(two, "SELECT n FROM t")) == (8, 7)
    postgres.drop(one)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(one)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
def test_what_was_committed_survives_every_end(how: signal.Signals) -> None:
    with Server() as server:
        url = server.database()
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE t AS SELECT 7 AS n")
        open_one = psycopg.connect(url)
        open_one.execute("UPDATE t SET n = 8")
        server.stop(how)
        server.start()
        assert ask(url, "SELECT n FROM t") == 7
        with pytest.raises(psycopg.OperationalError):
            open_one.commit()
        open_one.close()


def test_nothing_is_left_when_its_owner_is_killed() -> None:
    program = (
        "import sys; from servers.postgres import Server; server = Server();"
        "print(server.directory, server.port, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        directory, port = owner.stdout.readline().split()
        socket.create_connection(("127.0.0.1", int(port))).close()
        owner.kill()
    until = time.monotonic() + 100
    while Path(directory).exists() and time.monotonic() < until:
        time.sleep(0.02)  # sleeps: who takes it away is no child of ours, and says nothing
    assert not Path(directory).exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)))
