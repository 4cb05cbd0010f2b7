"""Databases spoken to with raw SQL, as somebody with a shell would; one SQL for both.

A case is written in SQLite's dialect, which differs by little: literal bytes, and ``REPLACE``, which
is ``ON CONFLICT … DO UPDATE`` on PostgreSQL.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import apsw
import psycopg
import pytest


class Shell(ABC):
    """A database by its address."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def rows(self, sql: str) -> list[tuple[Any, ...]]: ...

    @abstractmethod
    def execute(self, sql: str) -> None: ...

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Run a block in a transaction that is taken back."""
        self.execute("BEGIN")
        try:
            yield
        finally:
            self.execute("ROLLBACK")

    @abstractmethod
    def refuses(self, case: str, guard: str) -> Any:
        """Expect that a statement is refused by a guard."""

    @abstractmethod
    def drop_trigger(self, name: str, table: str) -> None: ...

    @abstractmethod
    def definitions(self) -> tuple[str, dict[str, str]]:
        """The list of states that an execution may have; triggers and indexes by name, as text."""

    @abstractmethod
    def close(self) -> None: ...


class SqliteShell(Shell):
    def open(self) -> None:
        self.connection = apsw.Connection(self.url.removeprefix("sqlite:///"))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql).fetchall()

    def execute(self, sql: str) -> None:
        self.connection.execute("BEGIN IMMEDIATE" if sql == "BEGIN" else sql).fetchall()

    @contextmanager
    def refuses(self, case: str, guard: str) -> Iterator[None]:
        with pytest.raises(apsw.ConstraintError, match=guard):
            yield

    def drop_trigger(self, name: str, table: str) -> None:
        self.execute(f"DROP TRIGGER {name}")

    def definitions(self) -> tuple[str, dict[str, str]]:
        texts = {
            str(name): str(sql) for name, sql in self.rows("SELECT name, sql FROM sqlite_schema")
        }
        check = texts["execution"].partition("state TEXT NOT NULL CHECK (")[2].partition("),")[0]
        return check, texts

    def close(self) -> None:
        self.connection.close()


class PostgresShell(Shell):
    """As above.

    A refused statement has rolled everything back, as it does there; outside a transaction too.
    """

    REPLACE = {  # noqa: RUF012
        "transition": "(tenant, execution_id, seq) DO UPDATE SET kind = excluded.kind",
        "inbox": "(tenant, execution_id, number) DO UPDATE SET kind = excluded.kind",
        "execution": "(tenant, id) DO UPDATE SET updated_at = excluded.updated_at",
    }

    def __init__(self, url: str, answers: Mapping[str, str]) -> None:
        super().__init__(url)
        self.answers = answers

    def open(self) -> None:
        self.connection = psycopg.connect(
            self.url, autocommit=True, options="-c search_path=outlast"
        )

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql.encode()).fetchall()

    def execute(self, sql: str) -> None:
        sql = re.sub(r"X'(\w*)'", r"'\\x\1'::bytea", sql).replace("UPDATE OR REPLACE", "UPDATE")
        if "INSERT OR REPLACE" in sql:
            sql = sql.replace("INSERT OR REPLACE", "INSERT")
            sql += f" ON CONFLICT {self.REPLACE[sql.split()[2]]}"
        self.connection.execute(sql.encode())

    @contextmanager
    def refuses(self, case: str, guard: str) -> Iterator[None]:
        guard = self.answers.get(case, guard)
        guard = guard.replace("CHECK constraint failed", "violates check constraint")
        with pytest.raises(psycopg.DatabaseError, match=guard) as caught:
            yield
        state = str(caught.value.sqlstate)
        assert state == "OL001" or state.startswith("23"), "by a guard, or by a constraint"
        if state == "OL001":
            assert str(caught.value).startswith("guard: ")

    def drop_trigger(self, name: str, table: str) -> None:
        self.execute(f"DROP TRIGGER {name} ON {table}")

    def definitions(self) -> tuple[str, dict[str, str]]:
        ((check,),) = self.rows(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conname = 'execution_state_check'"
        )
        texts = self.rows(
            "SELECT tgname, pg_get_triggerdef(t.oid) || pg_get_functiondef(tgfoid)"
            "  FROM pg_trigger AS t"
            " UNION ALL SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'outlast'"
        )
        return self.plain(check), {name: self.plain(text) for name, text in texts}

    @staticmethod
    def plain(text: str) -> str:
        """Take away what the server adds when it prints a text."""
        return re.sub(r"::text|[()\[\]]", " ", text)

    def close(self) -> None:
        self.connection.close()
