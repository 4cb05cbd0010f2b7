"""One SQLite file as a database: one connection writes, in whole batches; another one reads.

A batch goes out as a few statements of many rows each, as every statement costs a hand-over of the
interpreter's lock and every row in Python a good part of a microsecond more.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import chain as chained
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw
import msgspec

from outlast.errors import SchemaMismatch, StoreBroken
from outlast.store.epoch import Keeping
from outlast.store.protocol import DEFAULT_TENANT, CreateMany
from outlast.store.relational.alike import common_to
from outlast.store.relational.database import Database, Reader, Rows, Sight
from outlast.store.relational.rows import Value
from outlast.store.sql import Statement, load
from outlast.store.sqlite.ask import ask, ask_all
from outlast.store.sqlite.connect import (
    check_path,
    copy_to,
    immediate,
    open_reader,
    open_writer,
    settle,
    snapshot,
    translated,
)
from outlast.store.sqlite.history import sighted
from outlast.store.sqlite.migrate import inspect, is_older, migrate, tenant_in, tenants_in
from outlast.store.sqlite.owner import OwnerLock, all_locks

T = TypeVar("T")
CARRAY: Final = hasattr(apsw, "carray") and "ENABLE_CARRAY" in apsw.compile_options
"""Whether a statement takes a list as one parameter (https://www.sqlite.org/carray.html); that of
the wheels does, one that is built with a system's SQLite may not."""


class SqliteReader(Reader):
    """A connection that reads."""

    def __init__(self, connection: apsw.Connection, sql: Mapping[str, Statement]) -> None:
        self._connection = connection
        self._sql = sql

    def ask(self, name: str, values: Sequence[Value]) -> Rows:
        """See the seam."""
        return ask(self._connection, self._sql[name], values)

    def ask_all(self, name: str, bounds: Mapping[str, Value]) -> Rows:
        """See the seam."""
        return ask_all(self._connection, self._sql[name], bounds)

    def snapshot(self) -> AbstractContextManager[None]:
        """See the seam."""
        return snapshot(self._connection)

    def damage(self) -> list[str]:
        """See the seam."""
        found = self._connection.execute("PRAGMA integrity_check(10)").fetchall()
        return [str(said) for (said,) in found if said != "ok"]


class SqliteDatabase(Database):
    """One file; see the seam.

    Attributes:
        path: the file.
        writer: the connection that writes, in one thread.
    """

    is_shared = False
    faults: tuple[type[Exception], ...] = (
        apsw.ConstraintError,
        apsw.TooBigError,
        apsw.MismatchError,
    )

    def __init__(
        self,
        path: Path,
        *,
        owner: str | None,
        now: int,
        upgrade: bool,
        tenant: str = DEFAULT_TENANT,
    ) -> None:
        """Open the file, see :class:`outlast.store.sqlite.store.SqliteStore`."""
        self.url = f"sqlite:///{path}"
        self.path = path
        check_path(path)
        if owner is None and not path.exists():
            raise SchemaMismatch(f"{path} does not exist yet", do="outlast db init")
        self._lock: OwnerLock | None = None
        with translated(path):
            self.writer = open_writer(path)
            try:
                inspect(self.writer, path, owner=owner is not None, upgrade=upgrade)
                self.tenant = tenant_in(self.writer, path, tenant, owner=owner is not None)
                if owner is not None:
                    self._lock = OwnerLock(path, self.tenant)
                    self._lock.acquire(owner)
                settle(self.writer, owner=owner is not None)
                if owner is not None:
                    self._migrate(owner, now, upgrade=upgrade)
                self._reader = open_reader(path)
            except BaseException:
                self.writer.close()
                if self._lock is not None:
                    self._lock.release()
                raise
        self._sql = load("outlast.store.sqlite", self.tenant)
        self._file = path.resolve()
        self._seen: Sight | None = None
        self._identity = _identity(self._file)
        self._reading = threading.Lock()
        self._data_version = self._read_data_version()

    def _migrate(self, owner: str, now: int, *, upgrade: bool) -> None:
        """Bring the schema to this code's version; a change of it needs the whole file."""
        if not is_older(self.writer, self.path):
            migrate(self.writer, self.path, now, upgrade=upgrade)
            return
        others = [number for number in tenants_in(self.writer) if number != self.tenant]
        with all_locks(self.path, others, owner):
            migrate(self.writer, self.path, now, upgrade=upgrade)

    def transaction(self, act: Callable[[], T]) -> T:
        """See the seam."""
        self._see_file()
        with immediate(self.writer):
            return act()

    def _see_file(self) -> None:
        """See that what is written goes into a file that can be found again.

        Raises:
            StoreBroken: somebody has deleted or replaced it; SQLite would go on without a word.
        """
        if _identity(self._file) != self._identity:
            raise StoreBroken(
                "the file was deleted or replaced while it was open",
                where=str(self.path),
                why="what is written into it now could never be found again",
                do="stop this process; put the file back, or begin with a new one",
            )

    def savepoint(self) -> AbstractContextManager[object]:
        """See the seam."""
        return self.writer

    def translated(self) -> AbstractContextManager[None]:
        """See the seam."""
        return translated(self.path)

    def lock(self, what: str, names: Collection[str] = ()) -> None:
        """See the seam: there is one writer at a time."""

    def ask(self, name: str, values: Sequence[Value]) -> Rows:
        """See the seam."""
        return ask(self.writer, self._sql[name], values)

    def ask_all(self, name: str, bounds: Mapping[str, Value]) -> Rows:
        """See the seam."""
        return ask_all(self.writer, self._sql[name], bounds)

    def send(self, name: str, rows: Sequence[Sequence[Value]]) -> None:
        """See the seam."""
        statement = self._sql[name]
        done = 0
        for count, size in statement.sizes(len(rows)):
            values = list(chained.from_iterable(rows[done : done + count]))
            if size > count:
                values += [None] * ((size - count) * statement.columns)
            kept = statement.is_kept(size)
            self.writer.execute(statement.many(size), values, can_cache=kept)
            done += count

    def sent(self, name: str, rows: Sequence[Sequence[Value]]) -> int:
        """See the seam."""
        before = self.writer.total_changes()
        self.send(name, rows)
        return self.writer.total_changes() - before

    def run(self, name: str, bounds: Mapping[str, Value]) -> int:
        """See the seam."""
        self.writer.execute(self._sql[name].text, bounds)
        return self.writer.changes()

    def bear(self, item: CreateMany) -> None:
        """See the seam: one value for each, of which its columns are cut in SQLite."""
        ids = [id.encode() for id in item.ids]
        width = len(ids[0])
        if not CARRAY or any(len(id) != width for id in ids):
            super().bear(item)
            return
        parts = zip(ids, item.digests, item.payloads, strict=True)
        births = apsw.carray(tuple([b"%b%20d%b" % part for part in parts]))
        bounds: dict[str, Any] = {**common_to(item, self.tenant), "width": width, "births": births}
        for name in ("bear_transitions", "bear_executions"):
            self.writer.execute(self._sql[name].text, bounds)

    def read(self, name: str, bounds: Mapping[str, Value]) -> Rows:
        """See the seam."""
        with translated(self.path), self._reading:
            return ask_all(self._reader, self._sql[name], bounds)

    def read_many(self, name: str, values: Sequence[Value]) -> Rows:
        """See the seam."""
        with translated(self.path), self._reading:
            return ask(self._reader, self._sql[name], values)

    def facts(self) -> Mapping[str, str | int]:
        """See the seam."""
        found: dict[str, str | int] = {}
        with suppress(OSError):
            seen = os.stat(self._file)
            found["size_bytes"], found["mode"] = seen.st_size, stat.S_IMODE(seen.st_mode)
            disk = os.statvfs(self._file)
            found["free_bytes"] = disk.f_bavail * disk.f_frsize
            found["disk_bytes"] = disk.f_blocks * disk.f_frsize
        with suppress(OSError):
            found["wal_bytes"] = os.stat(f"{self._file}-wal").st_size
        return found

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """See the seam."""
        with translated(self.path):
            connection = open_reader(self.path)
            try:
                yield SqliteReader(connection, self._sql)
            finally:
                connection.close()

    def changed(self) -> bool:
        """See the seam: only the writing connection can tell."""
        self._see_file()
        version = self._read_data_version()
        changed, self._data_version = version != self._data_version, version
        return changed

    def _read_data_version(self) -> object:
        """The writer's connection sees a new number when another connection has committed."""
        with translated(self.path):
            return self.writer.pragma("data_version")

    def sight(self, kept: Mapping[str, Any] | None, now: int) -> Sight | None:
        """See the seam: how often engines have opened it, by itself and by its witness."""
        if self._lock is None:
            return None
        witness = self._lock.witness or {}
        self._seen = sighted(kept, witness, now)
        return self._seen

    def keeping(self) -> Keeping:
        """See the seam."""
        ((kept,),) = self.read("identity", {}) or [(b"{}",)]
        assert isinstance(kept, bytes)
        return Keeping(
            "nothing, by whatever ends the process or the machine; with the disk, all that is "
            "newer than the last backup",
            settings={"synchronous": "full", "journal_mode": "wal"},
            sight=msgspec.json.decode(kept),
        )

    def noted(self) -> None:
        """See the seam."""
        if self._lock is not None and self._seen is not None:
            self._lock.keep(self._seen.identity)

    def backup(self, path: Path) -> None:
        """See the seam."""
        copy_to(self.path, path)

    def close(self) -> None:
        """See the seam."""
        with translated(self.path), self._reading:
            self._reader.close()
            self.writer.close()
        if self._lock is not None:
            self._lock.release()


def _identity(path: Path) -> tuple[int, int] | None:
    """Tell files apart that have, one after the other, the same name."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


__all__ = ["SqliteDatabase", "SqliteReader"]
