"""A SQLite file as one side of a copy."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import apsw

from outlast.errors import CannotLoad, SchemaMismatch
from outlast.store.relational.side import MARK, UNFINISHED, Row, Side
from outlast.store.relational.tables import Table
from outlast.store.sqlite.connect import immediate, open_writer, settle, translated
from outlast.store.sqlite.database import SqliteDatabase
from outlast.store.sqlite.migrate import NEWEST, schema_version, tenants_in
from outlast.store.sqlite.owner import all_locks

OWNER = "copy"


class SqliteSide(Side):
    """A file; the locks of all its owners are held."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.shown = f"sqlite:///{path}"
        self.identity = f"sqlite:///{path.resolve()}"
        self._locks = ExitStack()
        self._connection: apsw.Connection | None = None

    def hold(self) -> None:
        """See the seam."""
        if not self._path.exists():
            raise CannotLoad(f"there is nothing at {self.shown}", do="name the store to be copied")
        self._open()
        with translated(self._path):
            self._writer.execute("BEGIN IMMEDIATE")

    def take(self, now: int) -> bytes | None:
        """See the seam."""
        if not _is_unfinished(self._path):
            SqliteDatabase(self._path, owner=OWNER, now=now, upgrade=False).close()
        self._open()
        with translated(self._path):
            if schema_version(self._writer, self._path) != NEWEST:
                raise SchemaMismatch(
                    f"{self.shown} was begun by another version",
                    do="use that one, or delete the file and begin again",
                )
            settle(self._writer, owner=True)
            found = self._writer.execute("SELECT value FROM meta WHERE name = ?", (MARK,))
            row: Any = found.fetchone()
        return None if row is None else bytes(row[0])

    def _open(self) -> None:
        with translated(self._path):
            self._connection = open_writer(self._path)
            self._locks.enter_context(all_locks(self._path, tenants_in(self._writer), OWNER))

    @property
    def _writer(self) -> apsw.Connection:
        assert self._connection is not None
        return self._connection

    def begin(self, mark: bytes) -> None:
        """See the seam."""
        with translated(self._path), immediate(self._writer):
            self._writer.execute("INSERT INTO edge VALUES (?, ?, ?)", UNFINISHED)
            self._writer.execute("INSERT INTO meta (name, value) VALUES (?, ?)", (MARK, mark))

    def rows(self, table: Table, after: Row | None, limit: int) -> Sequence[Row]:
        """See the seam."""
        key = ", ".join(table.key)
        behind = f"WHERE ({key}) > ({', '.join('?' * len(table.key))}) " if after else ""
        columns = ", ".join(table.columns)
        text = f"SELECT {columns} FROM {table.name} {behind}ORDER BY {key} LIMIT ?"  # noqa: S608
        values: Any = (*(after or ()), limit)
        with translated(self._path):
            return list(self._writer.execute(text, values))

    def write(self, table: Table, rows: Sequence[Row], mark: bytes, *, guarded: bool) -> None:
        """See the seam."""
        columns, places = ", ".join(table.columns), ", ".join("?" * len(table.columns))
        text = f"INSERT INTO {table.name} ({columns}) VALUES ({places})"  # noqa: S608
        writer, many = self._writer, (row for row in rows)
        writer.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, int(guarded))
        try:
            with translated(self._path), immediate(writer):
                writer.executemany(text, many)
                writer.execute("UPDATE meta SET value = ? WHERE name = ?", (mark, MARK))
        finally:
            writer.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)

    def finish(self) -> None:
        """See the seam."""
        with translated(self._path), immediate(self._writer):
            self._writer.execute("DELETE FROM meta WHERE name = ?", (MARK,))
            # It sees itself anew, as nothing was lost; unless it is a copy of a backup.
            self._writer.execute(
                "DELETE FROM sight WHERE instr(identity, CAST(? AS BLOB)) = 0", ("is_copy",)
            )
            self._writer.execute("DELETE FROM edge WHERE kind = ?", UNFINISHED[:1])

    def close(self) -> None:
        """See the seam."""
        if self._connection is not None:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._connection.close()
        self._locks.close()


def _is_unfinished(path: Path) -> bool:
    if not path.exists():
        return False
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        with translated(path):
            if schema_version(connection, path) is None:
                return False
            text = "SELECT 1 FROM edge WHERE kind = ?"
            return connection.execute(text, UNFINISHED[:1]).fetchone() is not None
    finally:
        connection.close()


__all__ = ["SqliteSide"]
