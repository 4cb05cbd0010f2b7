"""Read a database as it lies on the disk after a crash, with SQL of its own, apart from the store.

The reader leaves the write-ahead log as it is (no checkpoint when it closes), so that the next life
still has to recover it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec


class Row(msgspec.Struct, array_like=True):
    """A row of a log."""

    seq: int
    kind: str
    from_state: str
    to_state: str
    fence: int
    at: int
    key: str | None
    data: str | None
    payload: bytes | None


class Message(msgspec.Struct, array_like=True):
    """An entry of an inbox."""

    number: int
    id: str
    kind: str
    key: str | None


class Found(msgspec.Struct, array_like=True):
    """An execution, with the rows of its log and the messages that are new."""

    id: str
    task: str
    state: str
    seq: int
    fence: int
    key: str | None
    detail: str | None
    rows: list[Row]
    messages: list[Message]


class Snapshot(msgspec.Struct, array_like=True):
    """What a file holds.

    Attributes:
        found: every execution of a full reading; else those with something new.
        count: how many executions there are.
        leased: those that somebody owned when the file was left.
        size_bytes: the size of the main file; it grows by checkpoints alone.
        verified: how many executions ``verify`` folded; None if it was not asked.
        defects: what ``verify`` found.
    """

    found: list[Found]
    count: int
    leased: list[str]
    size_bytes: int = 0
    verified: int | None = None
    defects: list[str] = []


_EXECUTIONS: Final = """
SELECT id, task, state, seq, fence, key, detail, inbox_count FROM execution ORDER BY id
"""
_ROWS: Final = """
SELECT seq, kind, from_state, to_state, fence, at, key, data, payload
  FROM transition WHERE tenant = 1 AND execution_id = ? AND seq > ? ORDER BY seq
"""
_MESSAGES: Final = """
SELECT number, id, kind, key FROM inbox
 WHERE tenant = 1 AND execution_id = ? AND number > ? ORDER BY number
"""


def read(path: Path, seqs: dict[str, int], inboxes: dict[str, int], *, full: bool) -> Snapshot:
    """Read what is new since these numbers; a full reading reads all, and verifies."""
    if not path.exists():
        return Snapshot([], 0, [])
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'execution'").fetchall():
        connection.close()
        return Snapshot([], 0, [])
    found: list[Found] = []
    leased: list[str] = []
    executions: list[Any] = connection.execute(_EXECUTIONS).fetchall()
    for id, task, state, seq, fence, key, detail, inbox in executions:
        if state in ("starting", "running"):
            leased.append(id)
        after, read_to = (0, 0) if full else (seqs.get(id, 0), inboxes.get(id, 0))
        if not full and seq == after and inbox == read_to:
            continue
        rows = [Row(*row) for row in _all(connection, _ROWS, id, after)]
        messages = [Message(*row) for row in _all(connection, _MESSAGES, id, read_to)]
        found.append(Found(id, task, state, seq, fence, key, detail, rows, messages))
    snapshot = Snapshot(found, len(executions), leased, os.path.getsize(path))
    if full:
        _verify(path, snapshot)
    connection.close()
    return snapshot


def _all(connection: apsw.Connection, text: str, id: str, after: int) -> list[Any]:
    return list(connection.execute(text, (id, after)))


def _verify(path: Path, snapshot: Snapshot) -> None:
    """Do what ``outlast db verify`` does, while the connection above keeps the log in place."""
    from outlast.store.sqlite import SqliteStore

    store = SqliteStore(path, owner=None, now=0)
    verdict = store.verify()
    store.close()
    snapshot.verified, snapshot.defects = verdict.executions, verdict.defects
