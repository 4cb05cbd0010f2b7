"""A schema of a PostgreSQL database as one side of a copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import sql

from outlast.errors import SchemaMismatch, StoreBusy, StoreOwned, UsageError
from outlast.store.postgres.address import Address
from outlast.store.postgres.connect import LOCK_TIMEOUT_MS, connect, translated
from outlast.store.postgres.migrate import NEWEST, ready, version_of
from outlast.store.relational.side import MARK, UNFINISHED, Row, Side
from outlast.store.relational.tables import Table, tables

TYPES: Final = {
    "INTEGER": "int8",
    "TEXT": "text",
    "BLOB": "bytea",
    "REAL": "float8",
    "ANY": "bytea",
}


class PostgresSide(Side):
    """A schema; as a source all its tables are locked against writers."""

    def __init__(self, url: str) -> None:
        self._address = Address.of(url)
        self.shown = self._address.shown
        self.identity = f"{self.shown}, schema {self._address.schema}"
        self._connection: psycopg.Connection[Any] | None = None

    @property
    def _own(self) -> psycopg.Connection[Any]:
        assert self._connection is not None
        return self._connection

    def hold(self) -> None:
        """See the seam."""
        ready(self._address, 0, owner=False, upgrade=False)
        self._connection = connect(self._address)
        with translated(self._address):
            self._own.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            self._set()
            walled = self._own.execute("SELECT row_security_active('execution')").fetchone()
            if walled is not None and walled[0]:
                raise UsageError(
                    f"the role of {self.shown} sees one tenant at a time",
                    why="it does not own the tables, and they have row-level security",
                    do="copy as the owner of the schema",
                )
            # Whoever works is seen first: its locks are taken one by one, and those here would
            # meet them in a circle.
            self._see_alone()
            self._own.execute("COMMIT; BEGIN ISOLATION LEVEL REPEATABLE READ")
            self._set()
            names = sql.SQL(", ").join(map(sql.Identifier, tables()))
            # Before the first look, which decides what is seen.
            self._own.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(names))
            self._see_alone()

    def _see_alone(self) -> None:
        alive = self._own.execute(
            "SELECT id FROM worker WHERE state IN ('active', 'draining')"
            " AND expires_at > instant() ORDER BY id"
        ).fetchall()
        if alive:
            raise StoreOwned(
                f"{len(alive)} workers live on {self.shown}",
                why=f"{alive[0][0]} has a lease that has not run out",
                do="stop them, and wait until their leases are over: outlast workers",
            )

    def _set(self) -> None:
        """Set for this transaction what it needs; by SET, which does not decide what it sees."""
        path = sql.SQL("SET LOCAL search_path = {}")
        self._own.execute(path.format(sql.Identifier(self._address.schema)))
        self._own.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(LOCK_TIMEOUT_MS))
        self._own.execute("SET LOCAL statement_timeout = 0")
        self._own.execute("SET LOCAL idle_in_transaction_session_timeout = 0")

    def take(self, now: int) -> bytes | None:
        """See the seam."""
        self._connection = connect(self._address)
        with translated(self._address):
            locked = self._own.execute(
                "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))",
                [f"outlast copy {self._address.schema}"],
            ).fetchone()
            if locked is None or not locked[0]:
                raise StoreBusy("another copy is being made", where=self.shown, do="wait for it")
            version = version_of(self._own, self._address.schema)
        if version is not None:
            with self._transaction():
                found = self._own.execute(
                    "SELECT value FROM meta WHERE name = %s", [MARK]
                ).fetchone()
            if found is not None and version != NEWEST:
                raise SchemaMismatch(
                    f"the copy into {self.shown} was begun by another version",
                    do="use that one, or drop the schema and begin again",
                )
            if found is not None:
                return bytes(found[0])
        ready(self._address, now, owner=True, upgrade=False)
        return None

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[Any]]:
        with translated(self._address), self._own.transaction():
            self._set()
            yield self._own

    def begin(self, mark: bytes) -> None:
        """See the seam."""
        with self._transaction() as own:
            own.execute("INSERT INTO edge VALUES (%s, %s, %s)", UNFINISHED)
            own.execute("INSERT INTO meta (name, value) VALUES (%s, %s)", [MARK, mark])

    def rows(self, table: Table, after: Row | None, limit: int) -> Sequence[Row]:
        """See the seam."""
        key = sql.SQL(", ").join(map(sql.Identifier, table.key))
        behind: sql.Composable = sql.SQL("")
        if after is not None:
            places = sql.SQL(", ").join([sql.Placeholder()] * len(after))
            behind = sql.SQL("WHERE ({}) > ({})").format(key, places)
        text = sql.SQL("SELECT {} FROM {} {} ORDER BY {} LIMIT {}").format(
            sql.SQL(", ").join(map(sql.Identifier, table.columns)),
            sql.Identifier(table.name),
            behind,
            key,
            limit,
        )
        with self._transaction() as own:
            return own.execute(text, after or (), binary=True).fetchall()

    def write(self, table: Table, rows: Sequence[Row], mark: bytes, *, guarded: bool) -> None:
        """See the seam."""
        name = sql.Identifier(table.name)
        into = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
            name, sql.SQL(", ").join(map(sql.Identifier, table.columns))
        )
        with self._transaction() as own:
            if not guarded:  # for nobody else, and until the end of this transaction only
                own.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(name))
            with own.cursor().copy(into) as copy:
                copy.set_types([TYPES[kind] for kind in table.kinds])
                for row in rows:
                    copy.write_row(row)
            if not guarded:
                own.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(name))
            own.execute("UPDATE meta SET value = %s WHERE name = %s", [mark, MARK])

    def finish(self) -> None:
        """See the seam."""
        with self._transaction() as own:
            own.execute(
                "SELECT setval(pg_get_serial_sequence('errand', 'number'), max(number))"
                " FROM errand HAVING max(number) IS NOT NULL"
            )
            own.execute("DELETE FROM meta WHERE name = %s", [MARK])
            # It sees itself anew, as nothing was lost; unless it is a copy of a backup.
            own.execute("DELETE FROM sight WHERE position(%s IN identity) = 0", [b"is_copy"])
            own.execute("DELETE FROM edge WHERE kind = %s", UNFINISHED[:1])

    def close(self) -> None:
        """See the seam."""
        if self._connection is not None:
            self._connection.close()


__all__ = ["PostgresSide"]
