"""Bring a database's schema to this code's version, or refuse it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import psycopg
from psycopg import sql

from outlast.errors import SchemaMismatch, StoreOwned
from outlast.lifecycle import EDGES
from outlast.store.postgres.address import Address
from outlast.store.postgres.connect import connect, path_of, translated
from outlast.store.postgres.partitions import check, check_made, parted
from outlast.store.protocol import DEFAULT_NUMBER, DEFAULT_TENANT, Tenant
from outlast.store.relational.side import UNFINISHED
from outlast.store.sql import migrations
from outlast.store.tenants import opened

MIGRATIONS: Final = migrations("outlast.store.postgres")
NEWEST: Final = MIGRATIONS[-1][0]


def version_of(connection: psycopg.Connection[Any], schema: str) -> int | None:
    """Read the version of a schema; None where there is none."""
    table = sql.Identifier(schema, "migration")
    found = connection.execute("SELECT to_regclass(%s)", [table.as_string(connection)]).fetchone()
    if found is None or found[0] is None:
        return None
    row = connection.execute(sql.SQL("SELECT max(number) FROM {}").format(table)).fetchone()
    return None if row is None or row[0] is None else int(row[0])


def ready(
    address: Address,
    now: int,
    *,
    owner: bool,
    upgrade: bool,
    tenant: str = DEFAULT_TENANT,
    partitions: int | None = None,
) -> int:
    """Refuse a schema that is not this code's; an owner makes one where there is none.

    Returns:
        The number of the tenant.

    Raises:
        UnknownTenant, TenantClosed: there is no such tenant, or it is closed to owners.
        SchemaMismatch: the schema is missing, older or newer, or has another lifecycle's edges.
        StoreOwned: it shall be upgraded, and workers of the version before run on it.
    """
    with translated(address), connect(address) as connection:
        version = version_of(connection, address.schema)
        _refuse(version, address, owner=owner, upgrade=upgrade)
        if version == NEWEST:
            _check_edges(connection, address)
        else:
            migrate(connection, address, now, upgrade=upgrade, partitions=partitions or 1)
        if partitions is not None:
            check_made(connection, address, partitions)
        if tenant == DEFAULT_TENANT:
            return DEFAULT_NUMBER
        table = sql.Identifier(address.schema, "tenant")
        text = sql.SQL("SELECT number, name, created_at, closed_at FROM {} WHERE name = %s")
        found: Any = connection.execute(text.format(table), [tenant]).fetchone()
    where = f"{address.shown}, schema {address.schema}"
    return opened(None if found is None else Tenant(*found), tenant, where, owner=owner)


def migrate(
    connection: psycopg.Connection[Any],
    address: Address,
    now: int,
    *,
    upgrade: bool = False,
    partitions: int = 1,
) -> None:
    """Apply the missing migrations, all in one transaction; others wait, and find it done."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
            [f"outlast migration {address.schema}"],
        )
        version = version_of(connection, address.schema)
        _refuse(version, address, owner=True, upgrade=upgrade)
        if version is not None and version < NEWEST:
            _check_alone(cursor, address)
        for text in _texts(address, version or 0, now, partitions):
            cursor.execute(text.encode())


def _texts(address: Address, version: int, now: int, partitions: int) -> Iterator[str]:
    """Give the SQL that brings a schema from a version to the newest."""
    path = path_of(address.schema)
    yield f"CREATE SCHEMA IF NOT EXISTS {path.removesuffix(', pg_temp')};"
    yield f"SET LOCAL search_path = {path};"
    yield "SET LOCAL standard_conforming_strings = on;"  # a role may have it otherwise
    for number, text in MIGRATIONS:
        if number > version:
            yield parted(text, partitions)
            values = f"({number}, {now})"
            yield f"INSERT INTO migration (number, applied_at) VALUES {values};"  # noqa: S608
    yield "DELETE FROM edge;"
    rows = ",\n".join(f"  ('{kind}', '{source}', '{target}')" for kind, source, target in _edges())
    yield f"INSERT INTO edge (kind, from_state, to_state) VALUES\n{rows};"


def prepare(url: str, now: int, partitions: int) -> None:
    """Make the schema with so many partitions; see :func:`outlast.store.prepare`."""
    check(partitions)
    ready(Address.of(url), now, owner=True, upgrade=False, partitions=partitions)


def script_of(url: str, partitions: int) -> str:
    """Write the SQL that makes the schema from nothing."""
    check(partitions)
    texts = _texts(Address.of(url), 0, 0, partitions)
    return "\n".join(("BEGIN;", *texts, "COMMIT;"))


def place_in(url: str) -> tuple[bool, int, int | None, str | None]:
    """Say whether there is a schema, how large it is, and which server has it.

    Raises:
        OutlastError: the server cannot be asked.
    """
    address = Address.of(url)
    with translated(address), connect(address) as connection:
        exists = version_of(connection, address.schema) is not None
        found = connection.execute(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint"
            " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relkind = 'r'",
            [address.schema],
        ).fetchone()
        version = connection.info.parameter_status("server_version")
        size = 0 if found is None else int(found[0])
        return exists, size, None, f"PostgreSQL {version}, schema {address.schema}"


def _edges() -> list[tuple[str, str, str]]:
    return sorted((str(kind), str(source or ""), str(target)) for kind, source, target in EDGES)


def _refuse(version: int | None, address: Address, *, owner: bool, upgrade: bool) -> None:
    where = f"{address.shown}, schema {address.schema}"
    if version is None:
        if not owner:
            raise SchemaMismatch(
                "the database has no schema yet", where=where, do="outlast db init"
            )
    elif version > NEWEST:
        raise SchemaMismatch(
            f"the database has schema {version}, newer than this code's {NEWEST}",
            where=where,
            why="a newer Outlast has been here",
            do="install that version, or a newer one; nothing was changed",
        )
    elif version < NEWEST and not (owner and upgrade):
        raise SchemaMismatch(
            f"the database has schema {version}, older than this code's {NEWEST}",
            where=where,
            do="make a copy of it, then: outlast db upgrade",
        )


def _check_alone(cursor: psycopg.Cursor[Any], address: Address) -> None:
    """Refuse to change the schema under workers of another version; none joins until this ends."""
    worker = sql.Identifier(address.schema, "worker")
    cursor.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(worker))
    cursor.execute(
        sql.SQL(
            "SELECT id FROM {} WHERE state IN ('active', 'draining')"
            " AND to_timestamp(expires_at / 1e6) > clock_timestamp() ORDER BY id LIMIT 3"
        ).format(worker)
    )
    if living := [str(name) for (name,) in cursor.fetchall()]:
        raise StoreOwned(
            "workers of the version before still run on this database",
            where=f"{address.shown}, schema {address.schema}",
            why=f"{', '.join(living)}: they would write by rules that the new schema no longer has",
            do="stop them, wait for their leases where they were killed, and say it again",
        )


def _check_edges(connection: psycopg.Connection[Any], address: Address) -> None:
    """Refuse a database whose edge table is not this code's lifecycle."""
    table = sql.Identifier(address.schema, "edge")
    text = sql.SQL("SELECT kind, from_state, to_state FROM {}").format(table)
    stored = set(connection.execute(text).fetchall())
    wanted = set(_edges())
    if UNFINISHED in stored:
        raise SchemaMismatch(
            "a copy into this database was begun and not finished",
            where=f"{address.shown}, schema {address.schema}",
            do="outlast db copy, as before: it goes on where it was",
        )
    if stored != wanted:
        raise SchemaMismatch(
            "the edge table is not this code's lifecycle",
            where=f"{address.shown}, schema {address.schema}",
            why=f"they differ in {sorted(stored ^ wanted)[:3]}",
            do="use the version of Outlast that wrote it",
        )
