"""The two SQL backends say the same: the same statements, tables, columns and indexes."""

from __future__ import annotations

import re

import pytest

from outlast.store.sql import migrations

from . import SOURCES

TYPES = {
    "INTEGER": "bigint",
    "TEXT": "text",
    "BLOB": "bytea",
    "REAL": "double precision",
    "ANY": "bytea",
}
CLOCKED = {
    "instant",
    *("put_worker", "renew_worker", "leave_worker", "expired_workers", "lose_workers"),
    "protected_workers",
}
"""The server's own clock stands in them, so that they take no time."""

PACKED = {"bear_transitions", "bear_executions"}
"""SQLite takes each row as one value, as no list of its has several columns."""


def statements(backend: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted((SOURCES / "store" / backend).glob("*.sql")):
        if path.name != "locks.sql":
            _, *pieces = re.split(r"^-- name: (\w+)$", path.read_text("utf-8"), flags=re.MULTILINE)
            found |= dict(zip(pieces[::2], pieces[1::2], strict=True))
    # Who writes alone needs no locks.
    return {name: text for name, text in found.items() if not name.startswith("lock_")}


SQLITE, POSTGRES = statements("sqlite"), statements("postgres")


def parameters(text: str) -> set[str]:
    """The names of a statement's parameters; casts, texts and comments are none."""
    text = re.sub(r"--.*|'[^']*'|::\w+", "", text)
    return set(re.findall(r":([a-z_]+)", text))


def width(text: str) -> int:
    """How many columns a row of parameters has, by either way to say it."""
    types = re.findall(r"^-- types: (.*)$", text, re.MULTILINE)
    columns = re.search(r"^-- columns: (\d+)$", text, re.MULTILINE)
    return int(columns[1]) if columns else len(" ".join(types).split())


def test_the_statements_are_the_same() -> None:
    assert len(SQLITE) > 100
    assert SQLITE.keys() == POSTGRES.keys()


@pytest.mark.parametrize("name", SQLITE)
def test_a_statement_takes_the_same(name: str) -> None:
    lite, full = SQLITE[name], POSTGRES[name]
    assert width(lite) == width(full)
    assert ("{rows}" in lite) is ("{rows}" in full) is bool(width(full))
    lists = {"ids", "digests", "payloads"} if name in PACKED else set()
    own = {"now"} if name in CLOCKED else {"births", "width"} if name in PACKED else set()
    assert parameters(lite) - own == parameters(full) - lists


Column = tuple[str, bool]


def tables(backend: str) -> dict[str, dict[str, Column]]:
    """Each table's columns, with type and whether there is always a value."""
    found: dict[str, dict[str, Column]] = {}
    text = "\n".join(text for _, text in migrations(f"outlast.store.{backend}"))
    for table, body in re.findall(
        r"^CREATE TABLE (\w+) \((.*?)^\)", text, re.MULTILINE | re.DOTALL
    ):
        columns: dict[str, Column] = {}
        for name, kind, rest in re.findall(
            r"^  (\w+) (INTEGER|TEXT|BLOB|REAL|ANY|bigint|text|bytea|double precision)\b(.*)$",
            body,
            re.MULTILINE,
        ):
            if backend == "postgres" and table == "execution" and "GENERATED" in rest:
                continue  # what an index of SQLite has by an expression
            required = "NOT NULL" in rest or "PRIMARY KEY" in rest
            columns[name] = (TYPES.get(kind, kind), required)
        found[table] = columns
    return found


SHARED_ONLY = {"execution_unread", "feed_unsettled", "feed_by_position"}
"""Indexes for what only a store of many engines is asked: renewals of leases, and positions
that are given after the commit."""


def test_the_tables_are_the_same() -> None:
    lite, full = tables("sqlite"), tables("postgres")
    assert len(lite) > 20 and len(lite["execution"]) == 39
    assert lite == full


def test_the_indexes_and_their_numbers_are_the_same() -> None:
    made = re.compile(r"^CREATE (UNIQUE )?INDEX (\w+)\s+ON (\w+)", re.MULTILINE)
    lite, full = (
        [
            (number, sorted(one for one in made.findall(text) if one[1] not in SHARED_ONLY))
            for number, text in migrations(f"outlast.store.{backend}")
        ]
        for backend in ("sqlite", "postgres")
    )
    assert lite == full
    written = "".join(text for _, text in migrations("outlast.store.postgres"))
    assert {name for _, name, _ in made.findall(written)} >= SHARED_ONLY


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_migrations_are_numbered_once_each(backend: str) -> None:
    numbers = [number for number, _ in migrations(f"outlast.store.{backend}")]
    assert numbers == list(range(1, len(numbers) + 1))
