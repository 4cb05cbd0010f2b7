"""Durable state. Only this module knows which backend a URL means; nobody above imports one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from outlast.errors import CannotLoad, UsageError
from outlast.extras import needed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from outlast.store.copying import Copied
    from outlast.store.protocol import Inside, Store
    from outlast.store.relational.side import Side

DEFAULT_URL = "sqlite:///outlast.db"
_SECRET = {"password", "sslpassword", "passfile"}


def open_store(
    url: str, *, owner: str | None, now: int, upgrade: bool = False, tenant: str = "default"
) -> Store:
    """Open the store that a URL names, for one tenant.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``,
            ``postgresql://user:password@host/database`` or ``memory:``.
        owner: the worker that will run executions, or None to read, submit and deliver only.
        now: the instant, in microseconds since 1970.
        upgrade: bring an older schema to this code's version; an owner only.
        tenant: whose rows it reads and writes, and no others. In ``memory:``, where nobody else
            could make it, it is made.

    Raises:
        CannotLoad: no backend has this kind of URL.
        UnknownTenant: there is no such tenant.
        TenantClosed: it is closed, and an owner asks.
        OutlastError: the store cannot be used; see the backend.
    """
    if url == "memory:":
        from outlast.store.memory import MemoryStore

        return MemoryStore(tenant=tenant)
    if is_postgres(url):
        store: Store = _postgres().PostgresStore(
            url, owner=owner, now=now, upgrade=upgrade, tenant=tenant
        )
        return store
    from outlast.store.sqlite import SqliteStore

    return SqliteStore(sqlite_path(url), owner=owner, now=now, upgrade=upgrade, tenant=tenant)


def new_key(name: str) -> str:
    """Draw a key for encryption at rest; gives its line, for the file of the keys."""
    from outlast.store.keys import drawn_line, parsed

    line = drawn_line(name)
    parsed(line, "the name of the key")
    return line


def inside_of(store: Any, connection: Any, *, is_async: bool) -> Inside:
    """Say how to write through a caller's own connection to the database of a store.

    Args:
        store: the open store; what is none is refused like one that has no such thing.
        connection: what the caller gave.
        is_async: whether it has to be one of asyncio's.

    Raises:
        UsageError: the store is no database of PostgreSQL, or this is no connection of psycopg.
    """
    url = str(getattr(store, "url", ""))
    if not is_postgres(url):
        raise UsageError(
            "only in a PostgreSQL database can a start be part of a caller's transaction",
            where=url,
            do="start without connection=, with a key; or open the engine on postgresql://…",
        )
    inside: Inside = _postgres().inside_of(store, connection, is_async=is_async)
    return inside


def copy_store(
    source: str, target: str, now: int, tell: Callable[[str, int], None] = lambda table, rows: None
) -> Copied:
    """Copy everything of a store into an empty one, compare both, and look through the copy.

    Neither may be used meanwhile; the source stays as it is. A copy that was broken off, by
    whatever, is gone on with by the same call.

    Args:
        source: the address of the store.
        target: the address of an empty database, or of one where this copy was begun.
        now: the instant, for the record of the target's schema.
        tell: is told after each batch which table it was of, and how many rows.

    Raises:
        StoreOwned: a worker lives on one of them.
        CannotLoad: there is no source; the target is not empty, and no copy begun from this source.
        StoreBroken: they differ at the end; the target cannot be used.
        OutlastError: one of them cannot be used; see the backends.
    """
    from outlast.store.copying import Copied, copy_rows

    open_store(source, owner=None, now=now).close()  # it, and its keys, are ours
    rows, resumed = copy_rows(_side_of(source), _side_of(target), now, tell)
    copy = open_store(target, owner=None, now=now)
    names = [tenant.name for tenant in copy.tenants.page()]
    copy.close()
    defects: list[str] = []
    for name in names:
        copy = open_store(target, owner=None, now=now, tenant=name)
        try:
            defects += (
                found if len(names) == 1 else f"tenant {name}: {found}"
                for found in copy.verify().defects
            )
        finally:
            copy.close()
    return Copied(shown(source), shown(target), rows, resumed, defects)


def _side_of(url: str) -> Side:
    if is_postgres(url):
        side: Side = _postgres().PostgresSide(url)
        return side
    from outlast.store.sqlite.side import SqliteSide

    return SqliteSide(sqlite_path(url))


def owner_of(url: str, tenant: int = 1) -> str | None:
    """Say which process owns a tenant's part of a store exclusively, as a phrase, or None."""
    if url == "memory:" or is_postgres(url):
        return None
    from outlast.store.sqlite import owner_of as owner_of_file

    return owner_of_file(sqlite_path(url), tenant)


def is_postgres(url: str) -> bool:
    """Tell whether a URL names a PostgreSQL database."""
    return url.startswith(("postgresql://", "postgres://"))


def shown(url: str) -> str:
    """Write a URL without what is secret in it, for people and messages."""
    if not is_postgres(url):
        return url
    try:
        parts = urlsplit(url)
        user, at, host = parts.netloc.rpartition("@")
        query = [pair for pair in parts.query.split("&") if pair.split("=")[0] not in _SECRET]
        netloc = f"{user.partition(':')[0]}{at}{host}"
        return urlunsplit(parts._replace(netloc=netloc, query="&".join(query)))
    except ValueError:
        return f"{url.partition(':')[0]}:…"


@dataclass(frozen=True, slots=True)
class Place:
    """What there is at an address, besides what the verbs tell.

    Attributes:
        shown: the address, without what is secret in it.
        exists: whether there is a store.
        size_bytes: how large it is.
        log_bytes: how large the write-ahead log beside the file is; None where a server has it.
        server: which server it is, as a phrase; None for a file.
    """

    shown: str
    exists: bool
    size_bytes: int = 0
    log_bytes: int | None = None
    server: str | None = None


def place_of(url: str) -> Place:
    """Look at an address, without making or changing anything.

    Raises:
        OutlastError: a server cannot be asked.
    """
    if is_postgres(url):
        return Place(shown(url), *_postgres().place_in(url))
    if url == "memory:":
        return Place(url, exists=False)
    path = sqlite_path(url)
    log = Path(f"{path}-wal")
    return Place(url, path.exists(), _size(path), _size(log))


def grant(url: str, role: str, tenants: Sequence[str]) -> None:
    """Give a role of a PostgreSQL server what an engine of these tenants needs, or of all.

    Raises:
        UsageError: the store is a file; or there is no such role, or it is above all walls.
        UnknownTenant: there is no such tenant.
    """
    if not is_postgres(url):
        raise UsageError(
            "a file has no roles", where=url, do="keep tenants apart by who may read which file"
        )
    import importlib

    _postgres()
    importlib.import_module("outlast.store.postgres.grants").grant(url, role, tenants)


def prepare(url: str, now: int, partitions: int) -> None:
    """Make the schema of a store whose logs lie in so many partitions, and nothing in it.

    Raises:
        UsageError: the store is a file; nobody wants so many; or it was made with another number.
    """
    _check_parted(url, partitions)
    _postgres().prepare(url, now, partitions)


def script(url: str, partitions: int = 1) -> str:
    """Write the SQL that makes the schema of a store, for who wants to read it or to run it.

    Raises:
        UsageError: partitions are asked for, and the store is a file; or nobody wants so many.
    """
    if is_postgres(url):
        return str(_postgres().script_of(url, partitions))
    if partitions != 1:
        _check_parted(url, partitions)
    from outlast.store.sql import migrations

    return "\n".join(text for _, text in migrations("outlast.store.sqlite"))


def _check_parted(url: str, partitions: int) -> None:
    if not is_postgres(url):
        raise UsageError(
            f"a file has no partitions, and cannot have {partitions}",
            where=url,
            do="leave --partitions out, or name a store on PostgreSQL",
        )


def _postgres() -> ModuleType:
    """Load what speaks to PostgreSQL.

    Raises:
        CannotLoad: what it needs is not installed.
    """
    with needed("postgres", "PostgreSQL"):
        from outlast.store import postgres
    return postgres


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def sqlite_path(url: str) -> Path:
    """Give the file that a URL names.

    Raises:
        CannotLoad: it names none.
    """
    prefix = "sqlite:///"
    if not url.startswith(prefix) or len(url) == len(prefix):
        raise CannotLoad(
            f"no store has the address {url}",
            do="write sqlite:///outlast.db, postgresql://user@host/database, or memory:",
        )
    path = url[len(prefix) :]
    if path == ":memory:":
        raise CannotLoad(f"{url} is no file", do="write memory: for a store without a file")
    try:
        named = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        named = False
    if not named:
        raise CannotLoad(f"no file can have the name {path!a}", do="write sqlite:///outlast.db")
    return Path(path)
