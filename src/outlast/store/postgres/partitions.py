"""Part the tables that grow with logs by a hash of the execution, when a schema is made.

Their keys hold the execution, their guards are triggers once a statement or once a row, which a
parted table may have, and their statements name executions: so nothing else changes, and what a
statement does not need of the partitions is passed over when it runs. The table of executions stays
in one piece, as a key that a user gives is unique among all of them (docs/decisions/0053).
"""

from __future__ import annotations

import re
from typing import Any, Final

import psycopg
from psycopg import sql

from outlast.errors import UsageError
from outlast.store.postgres.address import Address

PARTED: Final = ("transition", "inbox", "stream_item")
"""The tables, all of which name their execution ``execution_id``."""
PARTITIONS_MAX: Final = 256
_TABLE: Final = re.compile(
    rf"^CREATE TABLE ({'|'.join(PARTED)}) \((.*?)\n\);\n", re.MULTILINE | re.DOTALL
)


def parted(text: str, count: int) -> str:
    """Write a migration so that the tables it makes have so many partitions; one is none."""
    return _TABLE.sub(lambda found: _table(found[1], found[2], count), text) if count > 1 else text


def _table(name: str, body: str, count: int) -> str:
    parts = "".join(
        f"CREATE TABLE {name}_p{number} PARTITION OF {name}\n"
        f"  FOR VALUES WITH (MODULUS {count}, REMAINDER {number});\n"
        for number in range(count)
    )
    return f"CREATE TABLE {name} ({body}\n) PARTITION BY HASH (execution_id);\n{parts}"


def check(count: int) -> None:
    """Refuse a number of partitions that helps nobody.

    Raises:
        UsageError: it is none of 1 to 256.
    """
    if not 1 <= count <= PARTITIONS_MAX:
        raise UsageError(
            f"{count} partitions cannot be made", do=f"name a number from 1 to {PARTITIONS_MAX}"
        )


def check_made(connection: psycopg.Connection[Any], address: Address, count: int) -> None:
    """Refuse a schema that was made with another number of partitions.

    Raises:
        UsageError: it was.
    """
    table = sql.Identifier(address.schema, PARTED[0]).as_string(connection)
    found = connection.execute(
        "SELECT greatest(count(*), 1) FROM pg_inherits WHERE inhparent = to_regclass(%s)", [table]
    ).fetchone()
    made = 1 if found is None else int(found[0])
    if made != count:
        raise UsageError(
            f"{address.shown} was made with {made} partitions, not {count}",
            where=f"schema {address.schema}",
            why="rows are parted when they are written",
            do="make a new schema with them, and move: outlast db copy",
        )


__all__ = ["PARTED", "PARTITIONS_MAX", "check", "check_made", "parted"]
