"""Tenants in a database of SQL: guards in raw SQL, who may have a file, and what opening says."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outlast.errors import SchemaMismatch, StoreOwned, TenantClosed, UnknownTenant, UsageError
from outlast.naming import checked_tenant
from outlast.store import open_store, owner_of, protocol
from outlast.store.protocol import Store
from outlast.store.relational.tables import tables
from outlast.store.webhooks import Webhooks
from outlast.testing.conformance import T, born, codes, one
from outlast.testing.conformance_access import deed
from outlast.testing.conformance_tenants import OF_ALL, READS, WRITES, alone_with, busy, seen

from .shells import PostgresShell, Shell, SqliteShell

OURS = sorted(name for name, table in tables().items() if "tenant" in table.columns)
EMPTY = {"purge_permit", "reseal_permit", "data_key", "errand"}
"""Tables in which nothing is at rest, or only where payloads are sealed."""
ANSWERS = "stays with its tenant|never changes?|append-only|only grows|with its log only|last row|stays the same"
NOBODYS = {
    "sight": "INSERT INTO sight VALUES (9, X'00')",
    "epoch": "INSERT INTO epoch VALUES (9, 1, 'x', 'declared', 1, 1, 0, 0, '{}')",
    "epoch_loss": "INSERT INTO epoch_loss VALUES (9, 1, 'w', 1, 0, 0, 0, 0, 0, '[]')",
    "feed_state": "INSERT INTO feed_state VALUES (9, 'f', 1, 1, 0, 0, 0, NULL, NULL, 0)",
    "worker": "INSERT INTO worker VALUES (9, 'w', 'h', 1, 1, 1, NULL, NULL, 'left', '{}')",
    "queue_setting": "INSERT INTO queue_setting VALUES (9, 'q', 1, NULL, NULL, NULL)",
    "gate_setting": "INSERT INTO gate_setting VALUES (9, 'g', 1, NULL, 'ada', 1)",
    "rate": "INSERT INTO rate VALUES (9, 'g', 1)",
    "line": "INSERT INTO line VALUES (9, 'g', 'q', 1)",
    "budget": "INSERT INTO budget SELECT 9, scope, meter, limit_amount, soft_share, charged,"
    " charged_before, purged, reserved, period_us, turns_at, soft_at, spent_up_at, event_count,"
    " stirred FROM budget",
    "account": "INSERT INTO account SELECT 9, name, password, 1, NULL FROM account",
    "sign_in": "INSERT INTO sign_in SELECT 9, digest, failures, next_at FROM sign_in",
    "token": "INSERT INTO token SELECT 9, id, digest, name, owner, grants, 1, 'ada', 1, 1, 1"
    " FROM token",
    "role_grant": "INSERT INTO role_grant VALUES (9, 'user:ada', 'admin', '', 1, 'ada')",
    "data_key": "INSERT INTO data_key VALUES (9, 1, 'k', X'" + "00" * 60 + "', 1, 1)",
    "secret": "INSERT INTO secret VALUES (9, 's', X'00')",
    "session": "INSERT INTO session SELECT 9, digest, account, 1, 1, 2 FROM session",
    "audit": "INSERT INTO audit SELECT 9, number, at, actor, via, what, target, detail, previous,"
    " digest FROM audit WHERE number = 1",
    "webhook": "INSERT INTO webhook VALUES (9, 'wh', 1, 'active', '{}', 1, NULL, 1, 1, 'f', 0, 0, NULL)",
    "webhook_sender": "INSERT INTO webhook_sender VALUES (9, 'w', 1)",
    "transition": "INSERT INTO transition (tenant, execution_id, seq, kind, from_state, to_state,"
    " fence, actor, at) VALUES (9, 'new', 1, 'create', '', 'queued', 0, 'a', 1)",
    "schedule_entry": "INSERT INTO schedule_entry (tenant, name, seq, kind, at, actor)"
    " VALUES (9, 'new', 1, 'create', 1, 'a')",
    "inbox": "INSERT INTO inbox (tenant, execution_id, number, id, kind, actor, at)"
    " VALUES (9, 'ex_1', 1, 'm', 'signal', 'a', 1)",
}
"""A row of a tenant that is not there, for each table that is not about rows of such a one."""
CROSSING = {
    "a dependency on another tenant's": (
        "INSERT INTO dependency VALUES (2, 'ex_other', 'ex_3', 'ex_3')",
        "executions of one tenant",
    ),
    "a dependency of another tenant's": (
        "INSERT INTO dependency VALUES (2, 'ex_3', 'ex_other', 'ex_other')",
        "executions of one tenant",
    ),
    "an errand for another tenant's": (
        (
            "INSERT INTO errand (tenant, execution_id, what, source_id, source_state)"
            " VALUES (2, 'ex_3', 'parent', 'ex_other', 'failed')"
        ),
        "of the same tenant",
    ),
    "an amount of another tenant's": (
        "INSERT INTO reservation VALUES (2, 'ex_7', 'k', 'task:t', 'usd', 1, 0)",
        "of the same tenant",
    ),
    "a message to another tenant's": (
        (
            "INSERT INTO inbox (tenant, execution_id, number, id, kind, actor, at)"
            " VALUES (2, 'ex_1', 1, 'm', 'signal', 'a', 1)"
        ),
        "have not ended",
    ),
    "the next row of another tenant's log": (
        (
            "INSERT INTO transition (tenant, execution_id, seq, kind, from_state, to_state, fence, nonce,"
            " actor, at) SELECT 2, execution_id, seq + 1, 'step', 'running', 'running', fence, nonce,"
            " 'a', at FROM transition WHERE execution_id = 'ex_1' AND tenant = 1"
            " ORDER BY seq DESC LIMIT 1"
        ),
        "not a legal successor",
    ),
    "a delivery of another tenant's webhook": (
        (
            "INSERT INTO webhook_delivery SELECT 2, webhook_id, number, kind, execution_id, seq, state,"
            " attempts, created_at, next_at, tried_at, status, error FROM webhook_delivery"
        ),
        "numbered by its webhook",
    ),
    "a session of another tenant's user": (
        "INSERT INTO session SELECT 2, digest, account, 1, 1, 2 FROM session",
        "who may sign in",
    ),
    "a descendant of another tenant's": (
        "INSERT INTO descent VALUES (2, 'ex_8', 'ex_1', 'rerun', NULL)",
        "says what it was made of",
    ),
    "an entry of another tenant's schedule": (
        (
            "INSERT INTO schedule_entry (tenant, name, seq, kind, at, actor)"
            " SELECT 2, name, seq + 1, 'pause', at, 'a' FROM schedule_entry"
        ),
        "not the successor",
    ),
    "the audit of another tenant": (
        (
            "INSERT INTO audit SELECT 2, number, at, actor, via, what, target, detail, previous, digest"
            " FROM audit WHERE number = 2"
        ),
        "follows from the one before",
    ),
}


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/outlast.db"
    found: str = request.getfixturevalue("postgres_store")
    return found


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url, owner="w1", now=1)
    assert store.tenants.add("acme", T, deed("tenant"))
    yield store
    store.close()


@pytest.fixture
def shell(url: str, store: Store) -> Iterator[Shell]:
    shell: Shell = SqliteShell(url) if url.startswith("sqlite") else PostgresShell(url, {})
    shell.open()
    yield shell
    shell.close()


def test_a_row_never_changes_hands(store: Store, shell: Shell) -> None:
    busy(store)
    shell.execute("INSERT INTO purge_permit VALUES (1, 'ex_none')")
    shell.execute("INSERT INTO reseal_permit VALUES (1)")
    shell.execute(NOBODYS["data_key"].replace("(9,", "(1,"))
    shell.execute(CROSSING["an errand for another tenant's"][0].replace("(2,", "(1,"))
    for table in OURS:
        assert shell.rows(f"SELECT 1 FROM {table} LIMIT 1"), table
        with shell.trial(), shell.refuses("", ANSWERS):
            shell.execute(f"UPDATE {table} SET tenant = 2")


@pytest.mark.parametrize("table", NOBODYS)
def test_a_row_is_of_a_tenant_that_is_there(store: Store, shell: Shell, table: str) -> None:
    busy(store)
    refused = "no such tenant|not a legal|not the successor|may sign in|follows|have not ended"
    with shell.trial(), shell.refuses("", refused):
        shell.execute(NOBODYS[table])


@pytest.mark.parametrize("case", CROSSING)
def test_no_reference_leads_to_another_tenant(store: Store, shell: Shell, case: str) -> None:
    busy(store)
    other = open_store(store.url if store.is_shared is False else shell.url, owner=None, now=1,
                       tenant="acme")  # fmt: skip
    assert one(other, born("ex_other", tenant=other.tenant)).refused is None
    other.close()
    sql, guard = CROSSING[case]
    with shell.trial(), shell.refuses("", guard):
        shell.execute(sql)


def test_every_table_has_a_case() -> None:
    """Rows about executions are refused with those, or found by verify."""
    about = {
        *("execution", "dependency", "errand", "holder", "spending", "reservation", "budget_event"),
        *("stream_item", "progress", "question", "label", "descent", "schedule", "audit_head"),
        *("purge_permit", "reseal_permit", "feed", "webhook_delivery"),
    }
    assert set(OURS) == NOBODYS.keys() | about


def test_a_tenant_stays(store: Store, shell: Shell) -> None:
    for sql, guard in (
        ("DELETE FROM tenant WHERE number = 2", "closed, never deleted"),
        ("UPDATE tenant SET name = 'other' WHERE number = 2", "never changes"),
        ("UPDATE tenant SET number = 3 WHERE number = 2", "never changes"),
        ("UPDATE tenant SET closed_at = 1 WHERE number = 1", "CHECK constraint failed"),
        ("INSERT INTO tenant VALUES (0, 'zero', 1, NULL)", "CHECK constraint failed"),
        ("INSERT INTO tenant VALUES (3, 'acme', 1, NULL)", "UNIQUE|unique"),
    ):
        with shell.trial(), shell.refuses("", guard):
            shell.execute(sql)


def verbs() -> Iterator[str]:
    """Every verb of the protocol."""
    for kind, prefix in (
        (protocol.Store, ""),
        (protocol.Schedules, "schedules."),
        (protocol.Capacity, "capacity."),
        (protocol.Access, "access."),
        (protocol.Feed, "feed."),
        (protocol.Epochs, "epochs."),
        (protocol.Sealing, "sealing."),
        (protocol.Tenants, "tenants."),
        (Webhooks, "webhooks."),
    ):
        for name, _ in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_"):
                yield prefix + name


def test_every_verb_is_tried_or_excused() -> None:
    assert set(verbs()) == READS.keys() | WRITES | OF_ALL


def dump(shell: Shell, tenant: int) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of a tenant, of every table."""
    return {
        table: sorted(shell.rows(f"SELECT * FROM {table} WHERE tenant = {tenant}"), key=repr)
        for table in OURS
    }


def test_not_one_byte_of_a_tenant_changes(url: str, store: Store, shell: Shell) -> None:
    """Whatever another one does, with the same names and ids, and its deletion of all that ends."""
    busy(store)
    before = dump(shell, 1)
    other = open_store(url, owner="w9", now=1, tenant="acme")
    busy(other)
    other.sweep(T + 10**12, 1_000)
    other.recover(None, "w9", T + 10**12, 1_000)
    other.purge([one.id for one in other.ended("", "~", T + 10**13, 100)], deed("purge"))
    other.forget_workers(T + 10**13)
    assert other.verify().defects == []
    other.close()
    assert dump(shell, 1) == before
    filled = {table for table, rows in before.items() if rows}
    assert filled >= set(OURS) - EMPTY, "the history touches every table"


# Opening


def test_opening_says_what_is_missing(url: str, store: Store) -> None:
    with pytest.raises(UnknownTenant, match="no tenant umbrella") as unknown:
        open_store(url, owner=None, now=1, tenant="umbrella")
    assert "outlast tenant add umbrella" in str(unknown.value)
    store.tenants.close("acme", T, deed("close"))
    with pytest.raises(TenantClosed, match="acme is closed"):
        open_store(url, owner="w2", now=1, tenant="acme")
    guest = open_store(url, owner=None, now=1, tenant="acme")
    assert guest.page(protocol.Filter()) == []
    assert one(guest, born("ex_1", tenant=guest.tenant)).refused == "tenant_closed"
    guest.close()


def test_a_store_is_made_by_its_default_tenant(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/new.db"
    with pytest.raises(UnknownTenant):
        open_store(address, owner="w1", now=1, tenant="acme")
    with pytest.raises(SchemaMismatch):
        open_store(address, owner=None, now=1)


@pytest.mark.parametrize("name", ["", "A", "1a", "a b", "a" * 64, "ä", "-a", "a.b", "a\n"])
def test_names_of_tenants(name: str) -> None:
    with pytest.raises(UsageError):
        checked_tenant(name)


def test_each_tenant_of_a_file_has_one_owner(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/outlast.db"
    first = open_store(address, owner="w1", now=1)
    first.tenants.add("acme", T, deed("tenant"))
    second = open_store(address, owner="w2", now=1, tenant="acme")
    assert owner_of(address, 1) == owner_of(address, 2) == "this very process"
    with pytest.raises(StoreOwned):
        open_store(address, owner="w3", now=1, tenant="acme")
    assert codes(second.commit([born("ex_1", tenant=2)])) == codes(first.commit([born("ex_1")]))
    first.close()
    assert owner_of(address, 1) is None and owner_of(address, 2) is not None
    second.close()
    names = {path.name for path in tmp_path.iterdir() if "owner" in path.name}
    assert names == {"outlast.db.owner", "outlast.db.owner-2"}


def test_the_name_rules_are_told_once() -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_-]*", checked_tenant("acme-eu_1"))


def test_a_payload_is_sealed_for_its_tenant(
    url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data keys are each tenant's own, and what is sealed is bound to the tenant's number."""
    from outlast.errors import OutlastError
    from outlast.store import new_key
    from outlast.store.keys import Place
    from outlast.store.relational.sealed import SealedDatabase

    store.close()
    monkeypatch.setenv("OUTLAST_KEYS", new_key("k1"))
    vaults, sealed = [], []
    for number, name in ((1, "default"), (2, "acme")):
        own = open_store(url, owner="w1", now=1, tenant=name)
        busy(own)
        assert isinstance(own.database, SealedDatabase)  # type: ignore[attr-defined]
        with alone_with(busy) as single:
            lone, told = seen(single), seen(own)
        differs = {one for one in lone if lone[one] != told[one]}
        assert differs <= {"access.audit", "access.audit_head"}
        vaults.append(own.database.vault)  # type: ignore[attr-defined]
        (row,) = own.log("ex_1", 0, 1)
        sealed.append(vaults[-1].seal(row.payload, Place("log", number, "ex_1", 1)))
        own.close()
    assert vaults[0].open(sealed[0], Place("log", 1, "ex_1", 1)) == b"{}"
    for vault, data, number in ((0, 0, 2), (1, 1, 1), (1, 0, 1), (0, 1, 2)):
        with pytest.raises(OutlastError):
            vaults[vault].open(sealed[data], Place("log", number, "ex_1", 1))
