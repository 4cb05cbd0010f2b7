"""Durable state. Only this module knows which backend a URL means; nobody above imports one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from outlast.errors import CannotLoad

if TYPE_CHECKING:
    from outlast.store.protocol import Store

DEFAULT_URL = "sqlite:///outlast.db"


def open_store(url: str, *, owner: str | None, now: int, upgrade: bool = False) -> Store:
    """Open the store that a URL names.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``memory:``.
        owner: the worker that will run executions, or None to read, submit and deliver only.
        now: the instant, in microseconds since 1970.
        upgrade: bring an older schema to this code's version; an owner only.

    Raises:
        CannotLoad: no backend has this kind of URL.
        OutlastError: the store cannot be used; see the backend.
    """
    if url == "memory:":
        from outlast.store.memory import MemoryStore

        return MemoryStore()
    from outlast.store.sqlite import SqliteStore

    return SqliteStore(sqlite_path(url), owner=owner, now=now, upgrade=upgrade)


def is_shared(url: str) -> bool:
    """Tell whether many engines may run on the store that a URL names."""
    return url.partition(":")[0] in ("postgresql", "postgres")


def owner_of(url: str) -> str | None:
    """Say which process owns a store exclusively, as a phrase, or None when none does."""
    if url == "memory:":
        return None
    from outlast.store.sqlite import owner_of as owner_of_file

    return owner_of_file(sqlite_path(url))


def sqlite_path(url: str) -> Path:
    """Give the file that a URL names.

    Raises:
        CannotLoad: it names none.
    """
    prefix = "sqlite:///"
    if not url.startswith(prefix) or len(url) == len(prefix):
        raise CannotLoad(
            f"no store has the address {url}", do="write sqlite:///outlast.db, or memory:"
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
