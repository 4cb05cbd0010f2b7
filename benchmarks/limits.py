"""What the disk and SQLite allow, without an engine: raw apsw with the same durable settings.

The table has the columns of the log and no guards, no index and no second table; so a ratio of one
would mean that the engine, its guards and the executions' rows cost nothing at all.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter
from typing import Final

import apsw

from benchmarks.place import remove

COMMITS: Final = 1_000
ROWS: Final = {100: 10_000, 1_000: 50_000}
_TABLE: Final = """
CREATE TABLE line (
  tenant INTEGER NOT NULL, execution_id TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL,
  from_state TEXT NOT NULL, to_state TEXT NOT NULL, fence INTEGER NOT NULL, nonce BLOB,
  actor TEXT NOT NULL, at INTEGER NOT NULL, key TEXT, digest INTEGER, data TEXT, payload BLOB,
  PRIMARY KEY (tenant, execution_id, seq)
) STRICT, WITHOUT ROWID;
"""
_WIDTH: Final = 14
_A_STATEMENT: Final = 100
"""Rows a statement: a wide one is faster than ``executemany``, and the engine writes so, too."""


def measure(directory: Path, *, scale: float = 1.0) -> dict[str, float]:
    """Measure the limits now.

    Returns:
        ``commits_per_s`` of one row each, ``rows_100_per_s`` and ``rows_1000_per_s`` in batches,
        and ``fdatasync_us``.
    """
    found = {"fdatasync_us": fdatasync(directory, max(20, int(300 * scale)))}
    file = directory / "limit.db"
    connection = apsw.Connection(str(file))
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000").fetchall()
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute(_TABLE)
        found["commits_per_s"] = _commits(connection, 1, max(50, int(COMMITS * scale)))
        for size, rows in ROWS.items():
            found[f"rows_{size}_per_s"] = _commits(connection, size, max(size, int(rows * scale)))
    finally:
        connection.close()
        remove(file)
    return found


def _commits(connection: apsw.Connection, size: int, rows: int) -> float:
    """Give the rows per second of commits of this size; the rows are made beforehand."""
    width = min(size, _A_STATEMENT)
    row = "(" + ",".join("?" * _WIDTH) + ")"
    insert = f"INSERT INTO line VALUES {','.join([row] * width)}"
    batches = [
        [values(size, batch, first, width) for first in range(0, size, width)]
        for batch in range(rows // size)
    ]
    began = perf_counter()
    for batch in batches:
        connection.execute("BEGIN IMMEDIATE")
        for some in batch:
            connection.execute(insert, some)
        connection.execute("COMMIT")
    return len(batches) * size / (perf_counter() - began)


def values(size: int, batch: int, first: int, width: int) -> list[object]:
    """Give the columns of rows of a batch, one row after another."""
    found: list[object] = []
    for place in range(first, first + width):
        found += (
            1,
            f"ex_{size:04d}{batch:08d}{place // 5:06d}ab",
            place % 5,
            "step",
            "running",
            "running",
            1,
            b"0123456789abcdef",
            "engine",
            1_790_000_000_000_000 + place,
            "note#1",
            0x1234_5678_9ABC,
            None,
            b'{"i":1}',
        )
    return found


def fdatasync(directory: Path, times: int) -> float:
    """Give the median time of a page's write and fdatasync, in microseconds."""
    path = directory / "sync.bin"
    handle = os.open(path, os.O_CREAT | os.O_WRONLY)
    page = b"x" * 4096
    took: list[float] = []
    try:
        for place in range(times):
            os.pwrite(handle, page, 4096 * (place % 64))
            began = perf_counter()
            os.fdatasync(handle)
            took.append(perf_counter() - began)
    finally:
        os.close(handle)
        path.unlink()
    return sorted(took)[len(took) // 2] * 1e6
