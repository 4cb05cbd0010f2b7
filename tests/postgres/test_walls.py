"""Row-level security: a role that does not own the tables never sees another tenant's rows."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from outlast.cli.app import run
from outlast.errors import UnknownTenant, UsageError
from outlast.store import copy_store, grant, open_store
from outlast.store.postgres.store import PostgresStore
from outlast.store.relational.tables import tables
from outlast.testing.conformance import T, begun, codes
from outlast.testing.conformance_access import deed
from outlast.testing.conformance_tenants import alone_with, busy, seen
from servers.postgres import Server
from tests.store.test_plans_postgres import FILL, PLANS_OF, READS_ALL, indexes, plan, settings

OURS = sorted(name for name, table in tables().items() if "tenant" in table.columns)
Connection = psycopg.Connection[Any]


class Walled:
    """A database with two tenants, its owner's address, and those of two roles behind walls."""

    def __init__(self, server: Server) -> None:
        self.owner = server.database()
        name = self.owner.rpartition("/")[2]
        self.roles = (f"app_{name}", f"acme_{name}")
        store = open_store(self.owner, owner="w0", now=T)
        store.tenants.add("acme", T, deed("tenant"))
        store.close()
        with psycopg.connect(self.owner, autocommit=True) as connection:
            for role in self.roles:
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(sql.Identifier(role))
                )
        grant(self.owner, self.roles[0], ())
        grant(self.owner, self.roles[1], ("acme",))
        self.app, self.bound = (
            re.sub(r"//[^@/]*@", f"//{role}:secret@", self.owner) for role in self.roles
        )

    def connect(self, url: str, tenant: int | None) -> Connection:
        connection = psycopg.connect(url, autocommit=True, options="-c search_path=outlast")
        if tenant is not None:
            connection.execute("SELECT set_config('outlast.tenant', %s, false)", [str(tenant)])
        return connection


@pytest.fixture(scope="module")
def walled(postgres: Server) -> Walled:
    found = Walled(postgres)
    for name in ("default", "acme"):
        store = open_store(found.owner, owner=f"w {name}", now=T, tenant=name)
        busy(store)
        store.close()
    return found


def numbered(table: str) -> bool:
    return table in ("errand", "feed")


def all_of(owner: Connection, tenant: int) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of a tenant, by its table."""
    text = "SELECT * FROM {} WHERE tenant = {}"
    return {
        table: sorted(owner.execute(text.format(table, tenant).encode()).fetchall(), key=repr)
        for table in OURS
    }


@pytest.fixture
def rows(walled: Walled) -> dict[str, int]:
    """How many rows of the default tenant each table has."""
    with walled.connect(walled.owner, None) as owner:
        counts = {table: len(found) for table, found in all_of(owner, 1).items()}
    assert sum(1 for count in counts.values() if count) > 25
    return counts


@pytest.mark.parametrize("tenant", [None, 2, 3])
def test_nothing_of_another_tenant_is_read(
    walled: Walled, rows: dict[str, int], tenant: int | None
) -> None:
    with walled.connect(walled.app, tenant) as app:
        for table in rows:
            for where in ("", " WHERE tenant = 1", " WHERE tenant <> 2"):
                found = app.execute(f"SELECT * FROM {table}{where}").fetchall()
                assert not found or tenant == 2, table
            assert app.execute(f"SELECT 1 FROM {table} WHERE tenant <> 2").fetchall() == []


def test_ones_own_is_read(walled: Walled, rows: dict[str, int]) -> None:
    with walled.connect(walled.app, 1) as app:
        for table, count in rows.items():
            assert app.execute(f"SELECT count(*) FROM {table}").fetchone() == (count,), table


def test_nothing_is_written_to_another_tenant(walled: Walled) -> None:
    with walled.connect(walled.app, 2) as app, walled.connect(walled.owner, None) as owner:
        before = all_of(owner, 1)
        for table in OURS:
            columns = [
                name for name in tables()[table].columns if name != "number" or not numbered(table)
            ]
            copied = ", ".join("1" if name == "tenant" else name for name in columns)
            text = f"INSERT INTO {table} ({', '.join(columns)}) SELECT {copied} FROM {table}"
            if owner.execute(f"SELECT 1 FROM {table} WHERE tenant = 2 LIMIT 1").fetchone():
                with pytest.raises(psycopg.DatabaseError) as caught:
                    app.execute(text.encode())
                assert caught.value.sqlstate in ("42501", "OL001"), (table, caught.value)
            with pytest.raises(psycopg.DatabaseError):
                app.execute(f"TRUNCATE {table} CASCADE")
            assert touched(app, f"DELETE FROM {table} WHERE tenant = 1") == 0
            assert touched(app, f"UPDATE {table} SET tenant = 1 WHERE tenant = 1") == 0
        assert all_of(owner, 1) == before


def touched(app: Connection, text: str) -> int:
    """How many rows a statement touches; some are refused by a guard before they look at any."""
    try:
        return app.execute(text.encode()).rowcount
    except psycopg.DatabaseError as error:
        assert error.sqlstate == "OL001", error
        return 0


def test_a_bound_role_sees_no_other_whatever_it_sets(walled: Walled, rows: dict[str, int]) -> None:
    with walled.connect(walled.bound, 1) as bound:
        for table in rows:
            assert bound.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
        assert bound.execute("SELECT name FROM tenant").fetchall() == [("acme",)]
        for text in ("INSERT INTO tenant VALUES (9, 'mine', 1)", "UPDATE tenant SET closed_at = 1"):
            with pytest.raises(errors.InsufficientPrivilege):
                bound.execute(text.encode())
    store = open_store(walled.bound, owner="w9", now=T, tenant="acme")
    assert store.verify().defects == []
    store.close()
    with pytest.raises(UnknownTenant):
        open_store(walled.bound, owner="w9", now=T, tenant="umbrella")


def test_an_engine_behind_the_wall_does_everything(postgres: Server) -> None:
    """The same history, with the same answers, by a role that owns nothing."""
    walled = Walled(postgres)
    stores = [
        open_store(walled.app, owner=f"w {name}", now=T, tenant=name)
        for name in ("default", "acme")
    ]
    for store in stores:
        busy(store)
    assert stores[0].tenants.add("third", T, deed("tenant")), "the owner makes its audit"
    with alone_with(busy) as single:
        lone = seen(single)
    for store in stores:
        told = seen(store)
        assert {name for name in lone if lone[name] != told[name]} <= {
            "access.audit", "access.audit_head",
        }  # fmt: skip
        assert store.verify().defects == []
        store.close()


def test_plans_are_as_good_behind_the_wall(walled: Walled) -> None:
    """Nothing that is sought by is hidden from the index, as it could leak what the wall hides."""
    with walled.connect(walled.owner, None) as owner:
        with owner.transaction():
            owner.execute(FILL.encode())
        owner.execute("VACUUM ANALYZE execution, transition")
    with walled.connect(walled.app, 1) as app, app.transaction():
        app.execute(settings().encode())
        for name, wanted in PLANS_OF.items():
            lines = plan(app, name)
            assert indexes(lines) - {"tenant_pkey"} == wanted - {"tenant_pkey"}, (name, lines)
            if name in ("queued_executions", "blocked_executions"):
                assert not [line for line in lines if "Sort" in line], lines
                (cond,) = [line for line in lines if "Index Cond" in line and "turn" in line]
                assert "tenant" in cond and "queue" in cond
            assert name in READS_ALL or not any("Seq Scan on execution" in one for one in lines)


def test_who_cannot_be_walled(walled: Walled, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="has no role nobody"):
        grant(walled.owner, "nobody", ())
    with pytest.raises(UsageError, match="does not hold for outlast"):
        grant(walled.owner, "outlast", ())
    with pytest.raises(UnknownTenant):
        grant(walled.owner, walled.roles[0], ("umbrella",))
    with pytest.raises(UsageError, match="a file has no roles"):
        grant("sqlite:///x.db", "app", ())
    with pytest.raises(UsageError, match="one tenant at a time"):
        copy_store(walled.app, "sqlite:////nowhere/x.db", T)
    assert run(["--store", walled.owner, "db", "grant", walled.roles[1], "--tenant", "acme"]) == 0
    assert "may run engines of acme" in capsys.readouterr().out


def test_the_tenant_is_named_in_the_first_round_trip(walled: Walled) -> None:
    """Nothing is left to a session, as a pooler may put each transaction on another one."""
    store = open_store(walled.app, owner="w1", now=T, tenant="acme")
    assert isinstance(store, PostgresStore)
    _, item = begun("ex_wall", tenant=store.tenant)
    assert codes(store.commit([item])) == [None]
    session = store.server._session()
    ((left,),) = session.ask(b"SELECT coalesce(current_setting('outlast.tenant', true), '')")
    assert left == ""
    store.close()


def test_every_table_of_tenants_has_a_wall(walled: Walled) -> None:
    """Also one that a later migration makes: it enables its own row-level security."""
    with walled.connect(walled.owner, None) as owner:
        found = owner.execute(
            "SELECT tablename FROM pg_policies"
            " WHERE schemaname = 'outlast' AND policyname = 'of_tenant'"
            " INTERSECT SELECT relname FROM pg_class WHERE relrowsecurity AND relkind = 'r'"
        ).fetchall()
    assert sorted(str(name) for (name,) in found) == OURS
