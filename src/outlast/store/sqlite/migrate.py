"""Bring a file's schema to this code's version, or refuse it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import apsw

from outlast.errors import SchemaMismatch, StoreBroken
from outlast.lifecycle import EDGES
from outlast.store.protocol import DEFAULT_NUMBER, DEFAULT_TENANT, Tenant
from outlast.store.relational.side import UNFINISHED
from outlast.store.sql import migrations
from outlast.store.sqlite.connect import immediate
from outlast.store.tenants import opened

APPLICATION_ID: Final = 0x4F55544C  # "OUTL", in the file's header
MIGRATIONS: Final = migrations("outlast.store.sqlite")
NEWEST: Final = MIGRATIONS[-1][0]


def schema_version(connection: apsw.Connection, path: Path) -> int | None:
    """Read the version of a file's schema; None for an empty file.

    Raises:
        StoreBroken: it is somebody else's database.
    """
    application = connection.pragma("application_id")
    version = connection.pragma("user_version")
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()[0][0]
    if application != APPLICATION_ID and tables:
        raise StoreBroken(
            f"{path} is a database of another program",
            why="it has tables, but not Outlast's mark",
            do="name another file; this one was left as it is",
        )
    return int(str(version)) if tables else None


def inspect(connection: apsw.Connection, path: Path, *, owner: bool, upgrade: bool) -> None:
    """Refuse a file whose schema is not this code's, without touching it.

    An owner makes the schema of an empty file, and upgrades an older one if asked to.

    Raises:
        SchemaMismatch: the schema is older or newer, or has other edges than this lifecycle.
        StoreBroken: it is somebody else's database.
    """
    version = schema_version(connection, path)
    refuse_newer(version, path)
    if version is None:
        if not owner:
            raise SchemaMismatch(f"{path} has no schema yet", do="outlast db init")
    elif version < NEWEST:
        if not (owner and upgrade):
            raise SchemaMismatch(
                f"{path} has schema {version}, older than this code's {NEWEST}",
                do="make a copy of it, then: outlast db upgrade",
            )
    else:
        check_edges(connection, path)


def is_older(connection: apsw.Connection, path: Path) -> bool:
    """Tell whether a file has a schema, and not this code's."""
    return schema_version(connection, path) not in (None, NEWEST)


def tenants_in(connection: apsw.Connection) -> list[int]:
    """Give the numbers of a file's tenants; the first alone where it has no table of them."""
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'tenant'").fetchone()
    if found is None:
        return [DEFAULT_NUMBER]
    return [int(str(number)) for (number,) in connection.execute("SELECT number FROM tenant")]


def tenant_in(connection: apsw.Connection, path: Path, name: str, *, owner: bool) -> int:
    """Give the number of a tenant; the default one is there also where there is no schema yet.

    Raises:
        UnknownTenant: there is none of this name.
        TenantClosed: it is closed, and an owner asks.
    """
    if name == DEFAULT_TENANT:
        return DEFAULT_NUMBER
    found: Any = None
    if schema_version(connection, path) is not None:
        found = connection.execute(
            "SELECT number, name, created_at, closed_at FROM tenant WHERE name = ?", (name,)
        ).fetchone()
    return opened(None if found is None else Tenant(*found), name, str(path), owner=owner)


def migrate(connection: apsw.Connection, path: Path, now: int, *, upgrade: bool = False) -> None:
    """Apply the missing migrations, all in one transaction.

    Raises:
        SchemaMismatch: as :func:`inspect` says.
        StoreBroken: it is somebody else's database.
    """
    if schema_version(connection, path) == NEWEST:
        return
    with immediate(connection):
        inspect(connection, path, owner=True, upgrade=upgrade)  # now nobody can change it
        version = schema_version(connection, path) or 0
        for number, text in MIGRATIONS:
            if number > version:
                connection.execute(text)
                connection.execute("INSERT INTO migration VALUES (?, ?)", (number, now))
        connection.execute("DELETE FROM edge")
        connection.executemany(
            "INSERT INTO edge VALUES (?, ?, ?)",
            [(kind, source or "", target) for kind, source, target in EDGES],
        )
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {NEWEST}")


def refuse_newer(version: int | None, path: Path) -> None:
    """Refuse a schema that a newer Outlast made."""
    if version is not None and version > NEWEST:
        raise SchemaMismatch(
            f"{path} has schema {version}, newer than this code's {NEWEST}",
            why="a newer Outlast has opened it",
            do="install that version, or a newer one; the file was left as it is",
        )


def check_edges(connection: apsw.Connection, path: Path) -> None:
    """Refuse a file whose edge table is not this code's lifecycle."""
    stored = set(connection.execute("SELECT kind, from_state, to_state FROM edge"))
    wanted = {(str(kind), str(source or ""), str(target)) for kind, source, target in EDGES}
    if UNFINISHED in stored:
        raise SchemaMismatch(
            f"a copy into {path} was begun and not finished",
            do="outlast db copy, as before: it goes on where it was",
        )
    if stored != wanted:
        differing = sorted(stored ^ wanted)[:3]
        raise SchemaMismatch(
            f"the edge table of {path} is not this code's lifecycle",
            why=f"they differ in {differing}",
            do="open it with the version of Outlast that wrote it",
        )
