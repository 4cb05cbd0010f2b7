"""Open connections to the file, and translate the driver's errors at this border.

Settings, and why: WAL with ``synchronous=FULL``, so that a commit is on the disk when it returns
(https://www.sqlite.org/pragma.html#pragma_synchronous); no memory map, as an I/O error under one is
a signal; automatic checkpoints by the owner alone, as everybody else must stay short.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
CACHE_KIB: Final = 4_096
"""Pages that each connection keeps for itself. What is read again is in the system's cache as well,
and with 16 times as much nothing was faster but answers in random order (decision 0037)."""
_opened: Final[weakref.WeakSet[apsw.Connection]] = weakref.WeakSet()


def check_path(path: Path) -> None:
    """Refuse a path that can be no database file; nothing is made or opened.

    The file itself is left to SQLite: opening and closing it here would drop the record locks
    that other connections of this process hold on it (https://sqlite.org/howtocorrupt.html, 2.2).

    Raises:
        CannotLoad: the directory is not there, or the path is one.
        StoreReadOnly: there is no right to write.
    """
    try:
        is_directory = path.is_dir()
    except OSError as error:  # a name that is too long, say
        raise CannotLoad(
            "the file's address cannot be used", where=str(path)[:200], why=error.strerror or ""
        ) from error
    if is_directory:
        raise CannotLoad(f"{path} is a directory", do="name a file, as in sqlite:///outlast.db")
    if not path.parent.is_dir():
        raise CannotLoad(
            f"the directory {path.parent} does not exist", do=f"mkdir -p {path.parent}"
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise StoreReadOnly(
            f"no right to write in {path.parent}", do="name a directory that you may write in"
        )
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise StoreReadOnly(
            f"no right to write {path}", do="give its user the right, or name another file"
        )


def open_writer(path: Path) -> apsw.Connection:
    """Open the file for writing, making it if it is not there, readable by its user alone.

    Nothing of a file that exists is changed before :func:`settle`, also not when it is closed.
    """
    with suppress(FileExistsError):  # SQLite would give it the rights that the umask leaves
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, stat.S_IRUSR | stat.S_IWUSR))
    connection = apsw.Connection(
        str(path), flags=apsw.SQLITE_OPEN_READWRITE, statementcachesize=400
    )
    _opened.add(connection)
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size:  # left by a crash: closing would copy it into the file
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    if connection.readonly("main"):
        connection.close()
        raise StoreReadOnly(f"no right to write {path}", why="it can be opened for reading only")
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.execute("PRAGMA mmap_size = 0").fetchall()
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def settle(connection: apsw.Connection, *, owner: bool) -> None:
    """Make the file ours to write: the write-ahead log, and an fsync at each commit.

    Raises:
        StoreUnavailable: the file system cannot carry a write-ahead log.
    """
    ((mode,),) = connection.execute("PRAGMA journal_mode = WAL").fetchall()
    if mode != "wal":
        raise StoreUnavailable(
            f"{connection.filename} cannot have a write-ahead log",
            why=f"its journal mode is {mode}",
            do="use a file on a local disk",
        )
    connection.execute("PRAGMA synchronous = FULL")
    pages = CHECKPOINT_PAGES if owner else 0
    connection.execute(f"PRAGMA wal_autocheckpoint = {pages}").fetchall()
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)


def open_reader(path: Path) -> apsw.Connection:
    """Open the file for reading only; each statement sees one commit."""
    with translated(path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        _opened.add(connection)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.execute("PRAGMA query_only = ON")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        return connection


_MARK_COPY: Final = """
UPDATE sight
   SET identity = CAST(json_set(CAST(identity AS TEXT), '$.is_copy', json('true')) AS BLOB)"""
"""So the next engine that opens it knows that it has gone back in time."""


def copy_to(source: Path, path: Path) -> None:
    """Copy a database as it is at one instant into a new file, readable by its user alone.

    Raises:
        CannotLoad: the new file is there already, or cannot be made.
    """
    check_path(path)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, stat.S_IRUSR | stat.S_IWUSR))
    except FileExistsError:
        raise CannotLoad(
            f"{path} is there already", why="a copy overwrites nothing", do="name a new file"
        ) from None
    reader, copy = open_reader(source), apsw.Connection(str(path))
    try:
        with translated(path), copy.backup("main", reader, "main") as backup:
            while not backup.done:
                backup.step(-1)  # one read transaction: one instant
        with translated(path):
            copy.execute(_MARK_COPY)
    finally:
        copy.close()
        reader.close()


def _keep_in_child() -> None:
    """Keep a forked child from closing its parent's connections when it ends.

    Closing one there would undo a transaction of the parent in the memory that both share. So each
    gets a reference that nobody gives back.
    """
    import ctypes

    for connection in list(_opened):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


os.register_at_fork(after_in_child=_keep_in_child)


@contextmanager
def snapshot(connection: apsw.Connection) -> Iterator[None]:
    """Run a block of reads on one and the same commit."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


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
            "the disk is full",
            where=str(path),
            why=str(error),
            do="free some room; what was acknowledged is safe",
        ) from error
    except (apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError) as error:
        raise StoreReadOnly(f"no right to write {path}", why=str(error)) from error
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise StoreBroken(
            f"{path} is damaged or no database",
            why=str(error),
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
