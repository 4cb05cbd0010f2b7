"""Each statement names the tenant for every table of tenants that it touches: none forgets it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from outlast.store.relational.tables import tables
from outlast.store.sql import templates

OF_ALL = {
    "tenants": "tenants are what all else belongs to",
    "tenant_by_name": "a name is looked up before its number is known",
    "insert_tenant": "the next number is behind all others",
    "set_closed": "the default tenant closes others",
}
"""Statements that see more than one tenant, and why they may."""
OURS = {name for name, table in tables().items() if "tenant" in table.columns}
TOUCHED = re.compile(
    r"(?:FROM|JOIN|INTO|UPDATE)\s+(\w+)\b(?:\s+AS\s+(\w+)\b)?|,\s+(\w+)\s+AS\s+(\w+)\b"
)
PLAIN = re.compile(r"(?<![\w.])tenant = \{tenant\}")
GIVEN = re.compile(
    r"INSERT INTO \w+ \(tenant\b.*?\)\s+"
    r"(?:VALUES \(\{tenant\}|SELECT \{tenant\}|SELECT CASE (?:v\.)?column1 WHEN \{tenant\} THEN)",
    re.DOTALL,
)


def missing(text: str) -> Iterator[str]:
    """Say which tables a statement touches without the tenant's number."""
    text = re.sub(r"'[^']*'", "''", text)
    unnamed = 0
    for first, named, second, besides in TOUCHED.findall(text):
        table, alias = first or second, named or besides
        if table == "tenant" and not re.search(r"FROM tenant WHERE number = \{tenant\}", text):
            yield table
        if table not in OURS:
            continue
        if alias:
            if not re.search(rf"\b{alias}\.tenant = \{{tenant\}}", text):
                yield f"{table} as {alias}"
        elif not re.search(rf"\b{table}\.(tenant = \{{tenant\}}|ctid = v\.place)", text):
            # A place is that of a row which was found with its tenant, in the same statement.
            unnamed += 1
    said = len(PLAIN.findall(text)) + len(GIVEN.findall(text))
    if said < unnamed:
        yield f"{unnamed} tables, {said} times the tenant"


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_no_statement_forgets_the_tenant(backend: str) -> None:
    statements = templates(f"outlast.store.{backend}")
    forgets = {name: said for name, one in statements.items() if (said := list(missing(one.text)))}
    assert forgets.keys() == OF_ALL.keys(), forgets


def test_every_table_is_a_tenants_but_four() -> None:
    assert tables().keys() - OURS == {"meta", "migration", "edge", "tenant"}
    keyed = {name for name, table in tables().items() if table.key[0] == "tenant"}
    assert OURS - keyed == NUMBERED


NUMBERED = {"errand", "feed"}
"""Numbered by the database; the tenant is a column of them."""


def test_faults_are_seen() -> None:
    assert list(missing("SELECT id FROM execution WHERE id = :id"))
    assert list(missing("SELECT e.id FROM execution AS e WHERE tenant = {tenant}"))
    assert list(missing("DELETE FROM purge_permit"))
    assert list(missing("INSERT INTO rate (tenant, gate) VALUES (1, :gate)"))
    assert list(
        missing("SELECT 1 FROM label WHERE tenant = {tenant} AND EXISTS (SELECT 1 FROM rate)")
    )
    assert list(missing("SELECT name FROM tenant"))
    assert not list(missing("SELECT id FROM execution WHERE tenant = {tenant} AND id = :id"))
