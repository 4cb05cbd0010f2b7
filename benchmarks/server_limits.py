"""What a PostgreSQL server allows, without an engine: raw psycopg with the same durable settings.

As ``limits``: a table with the columns of the log, with no guards, no second index and no second
table. Rows go by the quickest way that ``drivers`` found: one array a column, prepared, the commit
in the same round trip.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Final

import psycopg

from benchmarks.drivers import LOG_TYPES, Bare, arrays, binary_array, unnest_of
from benchmarks.limits import COMMITS, ROWS, fdatasync, values
from servers.postgres import Server

_TABLE: Final = """
CREATE TABLE line (
  tenant bigint NOT NULL, execution_id text COLLATE "C" NOT NULL, seq bigint NOT NULL,
  kind text NOT NULL, from_state text NOT NULL, to_state text NOT NULL, fence bigint NOT NULL,
  nonce bytea, actor text NOT NULL, at bigint NOT NULL, key text, digest bigint, data text,
  payload bytea, PRIMARY KEY (tenant, execution_id, seq))
"""
_WIDTH: Final = 14


def measure(server: Server, directory: Path, *, scale: float = 1.0) -> dict[str, float]:
    """Measure the limits now; the same figures as ``limits.measure`` gives."""
    found = {"fdatasync_us": fdatasync(directory, max(20, int(300 * scale)))}
    url = server.database()
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_TABLE)
            bare = Bare(connection)
            found["commits_per_s"] = _commits(bare, 1, max(50, int(COMMITS * scale)))
            for size, rows in ROWS.items():
                found[f"rows_{size}_per_s"] = _commits(bare, size, max(size, int(rows * scale)))
    finally:
        server.drop(url)
    return found


def _commits(bare: Bare, size: int, rows: int) -> float:
    """Give the rows per second of commits of this size; the parameters are made beforehand."""
    insert = f"INSERT INTO line SELECT * FROM {unnest_of(LOG_TYPES)}".encode()
    batches = []
    for batch in range(rows // size + 1):
        flat = values(size, batch, 0, size)
        lines = [flat[place : place + _WIDTH] for place in range(0, len(flat), _WIDTH)]
        batches.append(arrays(binary_array, LOG_TYPES, lines))
    bare.run(insert, batches.pop())  # prepared
    began = perf_counter()
    for parameters in batches:
        bare.pipelined([(insert, parameters)])
    return len(batches) * size / (perf_counter() - began)
