"""Logs in partitions: the same statements, guards and walls, and no partition is read in vain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from outlast.cli.app import run
from outlast.errors import UsageError
from outlast.store import copy_store, grant, open_store, prepare
from outlast.store.postgres.partitions import PARTED, PARTITIONS_MAX
from outlast.store.postgres.statements import statements
from outlast.store.protocol import Lease, Store
from outlast.testing.conformance import T, begun, born, codes, nonces
from outlast.testing.conformance_tenants import Beside
from servers.postgres import Server
from tests.store.short import short
from tests.store.test_conformance import Suite, opened_beside
from tests.store.test_plans_postgres import settings

from .emptying import empty_postgres

COUNT = 8
MANY = 64
WRONG = """
INSERT INTO transition (tenant, execution_id, seq, kind, from_state, to_state, fence, actor, at)
VALUES (1, 'ex_001', 2, 'finish', 'queued', 'succeeded', 0, 'x', 9)
"""


@pytest.fixture(scope="module")
def parted_url(postgres: Server) -> Iterator[str]:
    url = postgres.database()
    prepare(url, T, COUNT)
    yield url
    postgres.drop(url)


@pytest.fixture
def url(parted_url: str) -> str:
    empty_postgres(parted_url)
    return parted_url


class TestParted(short(Suite)):  # type: ignore[misc]
    """Every verb, on tables in partitions."""

    @pytest.fixture
    def store(self, url: str) -> Iterator[Store]:
        store = open_store(url, owner="w1", now=1)
        yield store
        store.close()

    @pytest.fixture
    def beside(self, store: Store, url: str) -> Iterator[Beside]:
        yield from opened_beside(
            store, lambda name: open_store(url, owner="w1", now=1, tenant=name)
        )


def filled(url: str) -> list[str]:
    ids = [f"ex_{number:03}" for number in range(MANY)]
    store = open_store(url, owner="w0", now=T)
    assert set(codes(store.commit([born(id) for id in ids]))) == {None}
    assert store.verify().defects == []
    store.close()
    return ids


def owner(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True, options="-c search_path=outlast")


def test_rows_are_in_all_partitions_and_each_log_in_one(url: str) -> None:
    filled(url)
    with owner(url) as connection:
        found = connection.execute(
            "SELECT tableoid::regclass::text, count(*), count(DISTINCT execution_id)"
            "  FROM transition GROUP BY 1"
        ).fetchall()
        twice = connection.execute(
            "SELECT execution_id FROM transition GROUP BY 1 HAVING count(DISTINCT tableoid) > 1"
        ).fetchall()
    assert {name for name, *_ in found} == {f"transition_p{number}" for number in range(COUNT)}
    assert sum(rows for _, rows, _ in found) == MANY and twice == []


@pytest.mark.parametrize(
    ("name", "values", "most"),
    [
        ("log", {"id": "'ex_001'", "after": "0", "limit": "-1"}, 1),
        ("inbox", {"id": "'ex_001'", "after": "0"}, 1),
        ("stream_items", {"id": "'ex_001'", "name": "'out'", "after": "0", "limit": "9"}, 1),
        ("logs", "ARRAY['ex_001']", 1),
        ("logs", "ARRAY['ex_001', 'ex_002', 'ex_003']", 3),
        ("inboxes", "ARRAY['ex_001']", 1),
    ],
)
def test_what_names_executions_reads_their_partitions_only(
    url: str, name: str, values: str | dict[str, str], most: int
) -> None:
    filled(url)
    statement = statements()[name]
    given = values if isinstance(values, str) else ", ".join(values[one] for one in statement.names)
    with owner(url) as connection, connection.transaction():
        connection.execute(settings().encode())
        connection.execute(b"PREPARE p AS " + statement.text)
        text = f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE p({given})"
        lines = [str(row[0]) for row in connection.execute(text.encode()).fetchall()]
        connection.execute(b"DEALLOCATE p")
    read = {
        found[1]
        for line in lines
        if "never executed" not in line and (found := re.search(r" on \w+_p(\d+)", line))
    }
    assert 1 <= len(read) <= most, lines
    assert not any("Seq Scan" in line for line in lines), lines


def test_claims_and_purges_go_across_partitions(url: str) -> None:
    ids = filled(url)
    store = open_store(url, owner="w1", now=T)
    claimed = store.claim(Lease("w1"), ["t"], MANY, T + 1, nonces(MANY))
    assert sorted(one.execution.id for one in claimed) == ids
    store.close()


def test_guards_hold(url: str) -> None:
    filled(url)
    with owner(url) as connection:
        for text in (
            "UPDATE transition SET at = at + 1 WHERE execution_id = 'ex_001'",
            "DELETE FROM transition WHERE execution_id = 'ex_001'",
            WRONG,
        ):
            with pytest.raises(psycopg.Error) as caught:
                connection.execute(text.encode())
            assert caught.value.sqlstate == "OL001", text


def test_walls_stand_before_partitions(postgres: Server) -> None:
    url = postgres.database()
    prepare(url, T, COUNT)
    filled(url)
    role = f"parted_{url.rpartition('/')[2]}"
    with owner(url) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(sql.Identifier(role))
        )
    grant(url, role, ())
    with owner(re.sub(r"//[^@/]*@", f"//{role}:secret@", url)) as other:
        for tenant, seen in (("", 0), ("2", 0), ("1", MANY)):
            other.execute("SELECT set_config('outlast.tenant', %s, false)", [tenant])
            assert other.execute("SELECT count(*) FROM transition").fetchone() == (seen,)
        # Past the table there is no way: a partition by itself has no guards of whole statements.
        for text in (b"SELECT count(*) FROM transition_p0", b"DELETE FROM inbox_p1"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                other.execute(text)
    postgres.drop(url)


def test_a_store_moves_into_partitions(
    postgres: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, parted = postgres.database(), postgres.database()
    filled(plain)
    assert run(["--store", parted, "db", "init", "--partitions", "3"]) == 0
    made = copy_store(plain, parted, T)
    assert made.defects == [] and made.rows["transition"] == MANY
    assert run(["--store", parted, "db", "init", "--partitions", "3"]) == 0
    assert "is there already" in capsys.readouterr().out
    assert run(["--store", parted, "db", "init", "--partitions", "4"]) == 2
    assert "made with 3 partitions" in capsys.readouterr().err
    store = open_store(parted, owner="w1", now=T)
    _, item = begun("ex_new")
    assert codes(store.commit([item])) == [None]
    store.close()
    for url in (plain, parted):
        postgres.drop(url)


def test_the_sql_can_be_run_by_hand(postgres: Server, capsys: pytest.CaptureFixture[str]) -> None:
    url = postgres.database()
    assert run(["--store", url, "db", "print-sql", "--partitions", "2"]) == 0
    text = capsys.readouterr().out
    assert text.count("PARTITION OF") == 2 * len(PARTED)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(text.encode())
    filled(url)
    prepare(url, T, 2)
    postgres.drop(url)


def test_what_cannot_be_parted_says_so(postgres_url: str) -> None:
    for count in (0, -1, PARTITIONS_MAX + 1):
        with pytest.raises(UsageError, match="partitions cannot be made"):
            prepare(postgres_url, T, count)
    with pytest.raises(UsageError, match="a file has no partitions"):
        prepare("sqlite:///x.db", T, 2)
    assert run(["--store", "sqlite:///x.db", "db", "print-sql", "--partitions", "2"]) == 2
