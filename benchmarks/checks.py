"""Count in the store what a benchmark claims to have done.

The counting is plain SQL on a connection of its own, and knows nothing of the engine. A sample of
logs is folded by the lifecycle and compared with its row, as ``outlast db verify`` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import apsw

from outlast.store import open_store
from outlast.store.decisions import verify_one
from outlast.store.protocol import Verdict

SAMPLE = 200


class Unverified(Exception):
    """What is in the store is not what the benchmark did: its figures mean nothing."""


class Look:
    """A look into a store by plain SQL; it can be open while engines work on it.

    Attributes:
        mark: how a parameter is written.
        tables: asks for the name of the table of logs.
    """

    mark = "?"
    tables = "SELECT 1 FROM sqlite_schema WHERE name = 'transition'"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def _all(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self._connection.execute(sql, parameters).fetchall()
        return found

    def is_made(self) -> bool:
        """Tell whether the tables are there yet."""
        return bool(self._all(self.tables))

    def states(self) -> dict[str, int]:
        """Count the executions by state."""
        found = self._all("SELECT state, count(*) FROM execution GROUP BY state")
        return {str(state): int(str(count)) for state, count in found}

    def step_count(self) -> int:
        """Count the recorded steps."""
        return int(str(self._all("SELECT count(*) FROM transition WHERE kind = 'step'")[0][0]))

    def row_count(self) -> int:
        """Count the rows of all logs."""
        return int(str(self._all("SELECT count(*) FROM transition")[0][0]))

    def steps(self) -> list[tuple[str, str]]:
        """Give every recorded step: its execution and its key."""
        found = self._all("SELECT execution_id, key FROM transition WHERE kind = 'step'")
        return [(str(id), str(key)) for id, key in found]

    def results(self, ids: Iterable[str]) -> dict[str, object]:
        """Give the recorded result of each of these executions that has one."""
        sql = (
            "SELECT payload FROM transition"
            f" WHERE tenant = 1 AND execution_id = {self.mark} AND kind = 'finish'"
        )
        found: dict[str, object] = {}
        for id in ids:
            for (payload,) in self._all(sql, (id,)):
                found[id] = json.loads(payload)
        return found

    def some_ids(self, number: int) -> list[str]:
        """Give the first, the last, and evenly spread ids."""
        ids = [str(id) for (id,) in self._all("SELECT id FROM execution ORDER BY id")]
        stride = max(1, len(ids) // number)
        return list(dict.fromkeys([*ids[::stride], *ids[-1:]]))


class PostgresLook(Look):
    """The same on PostgreSQL."""

    mark = "%s"
    tables = "SELECT 1 FROM pg_tables WHERE schemaname = 'outlast' AND tablename = 'transition'"


def look(store: str) -> Look:
    """Look into the store of this address."""
    if not store.startswith("sqlite:"):
        import psycopg

        options = "-c search_path=outlast -c default_transaction_read_only=on"
        return PostgresLook(psycopg.connect(store, autocommit=True, options=options))
    connection = apsw.Connection(store.removeprefix("sqlite:///"), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.set_busy_timeout(10_000)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
    return Look(connection)


def verify(
    store: str,
    *,
    executions: int,
    steps: int,
    results: Mapping[str, object] | None = None,
    sample: int = SAMPLE,
) -> str:
    """Check a store whose executions have all succeeded; gives what was checked as a sentence.

    Args:
        store: its address; no engine has it open any more.
        executions: how many there must be, all of them succeeded.
        steps: how many steps must be recorded, each under a key of its own.
        results: what each execution must have for its result; ids that are not named are not
            looked at.
        sample: how many logs are folded and compared with their rows.

    Raises:
        Unverified: something differs.
    """
    with look(store) as file:
        _same("executions by state", file.states(), {"succeeded": executions} if executions else {})
        _same("recorded steps", file.step_count(), steps)
        recorded = file.results(results or {})
        ids = file.some_ids(sample)
    for id, value in (results or {}).items():
        _same(f"the result of {id}", recorded.get(id), value)
    checked = fold(store, ids)
    return (
        f"{executions:,} executions succeeded and {steps:,} steps are in the store"
        + (f", {len(results):,} results compared" if results is not None else "")
        + f", {checked:,} logs folded without a defect"
    )


def fold(url: str, ids: Iterable[str]) -> int:
    """Fold some logs and compare each with its row.

    Raises:
        Unverified: one has a defect.
    """
    verdict = Verdict()
    store = open_store(url, owner=None, now=0)
    try:
        for id in ids:
            (record,) = store.get([id])
            verify_one(verdict, id, record, store.log(id), store.inbox(id))
    finally:
        store.close()
    if verdict.defects:
        raise Unverified(f"{len(verdict.defects)} defects, the first: {verdict.defects[0]}")
    return verdict.executions


def expect(claim: bool, text: str) -> None:
    """Stop if a claim does not hold.

    Raises:
        Unverified: it does not.
    """
    if not claim:
        raise Unverified(text)


def _same(what: str, found: object, wanted: object) -> None:
    expect(found == wanted, f"{what}: found {_short(found)}, expected {_short(wanted)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
