"""Copy a store into another kind of database: every table, row by row, and compare them.

Theory of operation. The source is held: no worker lives on it, and nobody writes until the copy has
ended. The target is empty, or has the mark of a copy begun from the same source. Rows go over
in the order of their key, a batch in one transaction that also says how far it is: a copy that was
killed goes on behind the last batch that was stored, and no row comes twice. While the mark is
there nobody can open the target. At the end both sides are read again and compared; only then is
the mark taken away.

Rows go over as they are, sealed payloads sealed. The source is not changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from outlast.errors import CannotLoad, StoreBroken
from outlast.store.relational.side import MARK, Row, Side
from outlast.store.relational.tables import MADE, ORDER, UNGUARDED, Table, tables

ROWS_MIN: Final = 8
ROWS_FIRST: Final = 64
ROWS_MAX: Final = 2_000
BYTES_MAX: Final = 8_000_000
"""About how much a batch carries, of payloads and other texts."""


class _Mark(msgspec.Struct):
    """How far a copy is: behind which key of which table.

    Attributes:
        source: whose copy it is.
        table: the table; those before it are whole.
        after: the key of the last row that was stored; None for none.
    """

    source: str
    table: str
    after: tuple[Any, ...] | None = None


class Copied(msgspec.Struct):
    """What was copied.

    Attributes:
        source, target: their addresses, without what is secret in them.
        rows: how many rows each table has, on both sides.
        resumed: whether an earlier copy was gone on with.
        defects: what a look through the target found; empty when all is well.
    """

    source: str
    target: str
    rows: dict[str, int]
    resumed: bool
    defects: list[str]


def copy_rows(
    source: Side, target: Side, now: int, tell: Callable[[str, int], None]
) -> tuple[dict[str, int], bool]:
    """Copy and compare; gives the number of rows of each table, and whether it was resumed.

    Args:
        source: where from.
        target: where to.
        now: the instant, for the record of the target's schema.
        tell: is told after each batch which table it was of, and how many rows.

    Raises:
        StoreOwned: a worker lives on one of them.
        CannotLoad: the target is not empty, and no copy begun from this source.
        StoreBroken: they differ at the end; the target cannot be used.
    """
    with _held(source), _closing(target):
        said = target.take(now)
        mark = _begun(source, target, said)
        for name in ORDER[ORDER.index(mark.table) :]:
            after = mark.after if name == mark.table and mark.after else MADE.get(name)
            _copy_table(source, target, tables()[name], after, tell)
        rows = {name: _compared(source, target, tables()[name]) for name in (*ORDER, "audit_head")}
        target.finish()
        return rows, said is not None


@contextmanager
def _held(source: Side) -> Iterator[None]:
    with _closing(source):
        source.hold()
        yield


@contextmanager
def _closing(side: Side) -> Iterator[None]:
    try:
        yield
    finally:
        side.close()


def _begun(source: Side, target: Side, said: bytes | None) -> _Mark:
    """Give where to go on; from the beginning where nothing is in the target.

    Raises:
        CannotLoad: there is something else in it.
    """
    if said is not None:
        mark = msgspec.msgpack.decode(said, type=_Mark)
        if mark.source != source.identity:
            raise CannotLoad(
                f"{target.shown} has a copy of another store",
                why=f"it was begun from {mark.source}",
                do="finish that one, or name an empty database",
            )
        return mark
    for name in ORDER:
        if target.rows(tables()[name], MADE.get(name), 1):
            raise CannotLoad(
                f"{target.shown} is not empty",
                why=f"there are rows in its table {name}",
                do="name a new database, or another ?schema=; if this is a copy that was finished: "
                "outlast db verify",
            )
    mark = _Mark(source.identity, ORDER[0])
    target.begin(msgspec.msgpack.encode(mark))
    return mark


def _copy_table(
    source: Side, target: Side, table: Table, after: Row | None, tell: Callable[[str, int], None]
) -> None:
    limit = ROWS_FIRST
    while True:
        rows = source.rows(table, after, limit)
        if not rows:
            return
        after = table.key_of(rows[-1])
        mark = msgspec.msgpack.encode(_Mark(source.identity, table.name, after))
        target.write(table, rows, mark, guarded=table.name not in UNGUARDED)
        tell(table.name, len(rows))
        limit = max(ROWS_MIN, limit // 4) if _size(rows) > BYTES_MAX else min(ROWS_MAX, limit * 2)


def _size(rows: Any) -> int:
    return sum(len(value) for row in rows for value in row if isinstance(value, str | bytes))


def _compared(source: Side, target: Side, table: Table) -> int:
    """Compare a table of both sides; gives its number of rows.

    Raises:
        StoreBroken: they differ.
    """
    ours, theirs = _digest(source, table), _digest(target, table)
    if ours != theirs:
        raise StoreBroken(
            "the copy is not equal to its source",
            where=f"{target.shown}, table {table.name}",
            why=f"{ours[0]} rows there, {theirs[0]} here"
            if ours[0] != theirs[0]
            else "their rows differ: the source was used since the copy was begun",
            do="begin again with an empty database; the source is as it was",
        )
    return ours[0]


def _digest(side: Side, table: Table) -> tuple[int, bytes]:
    count, digest = 0, hashlib.blake2b()
    after: Row | None = None
    limit = ROWS_FIRST
    while rows := side.rows(table, after, limit):
        for row in rows:
            if table.name != "meta" or row[0] != MARK:
                count += 1
                digest.update(msgspec.msgpack.encode(row))
        after = table.key_of(rows[-1])
        limit = max(ROWS_MIN, limit // 4) if _size(rows) > BYTES_MAX else min(ROWS_MAX, limit * 2)
    return count, digest.digest()


__all__ = ["Copied", "copy_rows"]
