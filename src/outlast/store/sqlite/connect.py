"""Open connections to the file, and translate the driver's errors at this border.

Settings, and why: WAL with ``synchronous=FULL``, so that a commit is on the disk when it returns
(https://www.sqlite.org/pragma.html#pragma_synchronous); no memory map, as an I/O error under one is
a signal; automatic checkpoints by the owner alone, as everybody else must stay short.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw

from outlast.errors import (
    CannotLoad,
    InternalError,
    StoreBroken,
    StoreBusy,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)

BUSY_TIMEOUT_MS: Final = 10_000
CHECKPOINT_PAGES: Final = 4_000
"""How long the write-ahead log grows before the owner copies it into the file: 16 MB."""
_HEADER: Final = b"SQLite format 3\x00"


def open_writer(path: Path, *, owner: bool) -> apsw.Connection:
    """Open the file for writing, making it if it is not there, readable by its user alone.

    Raises:
        CannotLoad: the directory is not there, or the path is one.
        StoreBroken: the file is no database.
        StoreReadOnly: there is no right to write.
    """
    _check(path)
    with translated(path):
        _touch(path)
        connection = apsw.Connection(str(path), statementcachesize=400)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA mmap_size = 0").fetchall()
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("PRAGMA temp_store = MEMORY")
        pages = CHECKPOINT_PAGES if owner else 0
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}").fetchall()
        return connection


def open_reader(path: Path) -> apsw.Connection:
    """Open the file for reading only; each statement sees one commit."""
    with translated(path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA cache_size = -16384")
        connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        return connection


def _check(path: Path) -> None:
    if path.is_dir():
        raise CannotLoad(f"{path} is a directory", do="name a file, as in sqlite:///outlast.db")
    if not path.parent.is_dir():
        raise CannotLoad(
            f"the directory {path.parent} does not exist", do=f"mkdir -p {path.parent}"
        )
    if path.exists() and path.stat().st_size:
        try:
            with path.open("rb") as file:
                header = file.read(len(_HEADER))
        except PermissionError as error:
            raise StoreReadOnly(f"no right to read {path}", why=str(error)) from error
        if header != _HEADER:
            raise StoreBroken(
                f"{path} is not a database",
                why="it does not begin as an SQLite file does",
                do="name another file; this one was left as it is",
            )


def _touch(path: Path) -> None:
    """Make the file with rights for its user alone, before anybody can read it."""
    if path.exists():
        if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
            raise StoreReadOnly(
                f"no right to write {path}", do="give its user the right, or name another file"
            )
        return
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, stat.S_IRUSR | stat.S_IWUSR))
    except PermissionError as error:
        raise StoreReadOnly(
            f"no right to write in {path.parent}", why=str(error),
            do="name a directory that you may write in",
        ) from error


@contextmanager
def immediate(connection: apsw.Connection) -> Iterator[None]:
    """Run a block as one write transaction; an error rolls it back whole."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def translated(path: Path | str) -> Iterator[None]:
    """Turn the driver's errors into ours."""
    try:
        yield
    except apsw.BusyError as error:
        raise StoreBusy(
            f"another process held {path} for too long", why=str(error), do="try again"
        ) from error
    except apsw.FullError as error:
        raise StoreFull(
            "the disk is full", where=str(path), why=str(error),
            do="free some room; what was acknowledged is safe",
        ) from error
    except (apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError) as error:
        raise StoreReadOnly(f"no right to write {path}", why=str(error)) from error
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise StoreBroken(
            f"{path} is damaged or no database", why=str(error),
            do="restore a backup; this file was left as it is",
        ) from error
    except (apsw.IOError, apsw.CantOpenError, apsw.NoMemError) as error:
        raise StoreUnavailable(
            f"{path} cannot be used now", why=str(error), do="look at the disk, then try again"
        ) from error
    except (apsw.SQLError, apsw.ConstraintError, apsw.MisuseError, apsw.RangeError) as error:
        raise InternalError(f"the store refused a statement: {error}", where=str(path)) from error
    except apsw.Error as error:
        raise StoreUnavailable(f"{path} cannot be used now", why=str(error)) from error
