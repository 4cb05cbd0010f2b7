"""Copy a store into another kind of database: every table, row by row, and compare them.

Theory of operation. The source is held: no worker lives on it, and nobody writes until the copy has
ended. The target is empty, or has the mark of a copy begun from the same source. Rows go over
in the order of their key, a batch in one transaction that also says how far it is: a copy that was
killed goes on behind the last batch that was stored, and no row comes twice. While the mark is
there nobody can open the target. At the end the digests of both sides are compared; only then is
the mark taken away. The target's is of what is read back from it. The source's is made while its
rows go over, as nobody can write to it meanwhile; a copy that was gone on with reads it again, as
somebody could before.

While a batch is written, the next one is read, in a thread of its own.

Rows go over as they are, sealed payloads sealed. The source is not changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, Final

import msgspec

from outlast.errors import CannotLoad, StoreBroken
from outlast.store.relational.side import MARK, Row, Side
from outlast.store.relational.tables import MADE, ORDER, UNGUARDED, Table, tables

ROWS_MIN: Final = 8
ROWS_FIRST: Final = 64
ROWS_MAX: Final = 8_000
BYTES_MAX: Final = 8_000_000
"""About how much a batch carries."""


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


class _Sum:
    """What rows come to: their number and digest, however they are parted."""

    def __init__(self) -> None:
        self.rows = 0
        self._digest, self._buffer = hashlib.blake2b(), bytearray()

    def add(self, rows: Sequence[Row]) -> int:
        """Take rows in; gives how many bytes they are."""
        buffer, encode = self._buffer, _ENCODER.encode_into
        buffer.clear()
        for row in rows:
            encode(row, buffer, -1)
        self.rows += len(rows)
        self._digest.update(buffer)
        return len(buffer)

    @property
    def digest(self) -> bytes:
        return self._digest.digest()


_ENCODER: Final = msgspec.msgpack.Encoder()


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
        sums: dict[str, _Sum] = {}
        for name in ORDER[ORDER.index(mark.table) :]:
            after = mark.after if name == mark.table and mark.after else MADE.get(name)
            sums[name] = _copy_table(source, target, tables()[name], after, tell)
        rows = {}
        for name in (*ORDER, "audit_head"):
            whole = said is None and name in sums and name not in (*MADE, "meta")
            ours = sums[name] if whole else _sum_of(source, tables()[name])
            rows[name] = _compared(ours, target, tables()[name])
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
) -> _Sum:
    """Copy what is behind a key; gives the sum of it."""
    total = _Sum()
    with closing(_ahead(_batches(source, table, after, total))) as batches:
        for rows in batches:
            after = table.key_of(rows[-1])
            mark = msgspec.msgpack.encode(_Mark(source.identity, table.name, after))
            target.write(table, rows, mark, guarded=table.name not in UNGUARDED)
            tell(table.name, len(rows))
    return total


def _batches(side: Side, table: Table, after: Row | None, total: _Sum) -> Iterator[Sequence[Row]]:
    """Read what is behind a key, in parts of about the same weight, and add it up."""
    limit = ROWS_FIRST
    while rows := side.rows(table, after, limit):
        after = table.key_of(rows[-1])
        if total.add([row for row in rows if not _is_mark(table, row)]) > BYTES_MAX:
            limit = max(ROWS_MIN, limit // 4)
        else:
            limit = min(ROWS_MAX, limit * 2)
        yield rows


def _is_mark(table: Table, row: Row) -> bool:
    return table.name == "meta" and row[0] == MARK


def _ahead(batches: Iterator[Sequence[Row]]) -> Generator[Sequence[Row], None, None]:
    """Read the next batch while the last one is at work; nobody else may use that side."""
    with ThreadPoolExecutor(1, "outlast-copy") as thread:
        coming = thread.submit(next, batches, None)
        while (rows := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield rows


def _sum_of(side: Side, table: Table) -> _Sum:
    total = _Sum()
    for _ in _batches(side, table, None, total):
        pass
    return total


def _compared(ours: _Sum, target: Side, table: Table) -> int:
    """Compare a table's rows in the target with those of the source; gives their number.

    Raises:
        StoreBroken: they differ.
    """
    theirs = _sum_of(target, table)
    if (ours.rows, ours.digest) != (theirs.rows, theirs.digest):
        raise StoreBroken(
            "the copy is not equal to its source",
            where=f"{target.shown}, table {table.name}",
            why=f"{ours.rows} rows there, {theirs.rows} here"
            if ours.rows != theirs.rows
            else "their rows differ: the source was used since the copy was begun",
            do="begin again with an empty database; the source is as it was",
        )
    return ours.rows


__all__ = ["Copied", "copy_rows"]
