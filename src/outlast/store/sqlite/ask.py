"""Send named statements: with many rows of parameters, and for results that come as one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import apsw
import msgspec

from outlast.store.relational.rows import Value
from outlast.store.sql import Statement


def ask(
    connection: apsw.Connection, statement: Statement, values: Sequence[Value]
) -> list[Sequence[object]]:
    """Ask with many rows of parameters."""
    found: list[Sequence[object]] = []
    done = 0
    width = statement.columns
    for count, size in statement.sizes(len(values) // width):
        part = values[done * width : (done + count) * width]
        if size > count:
            part = [*part, *[None] * ((size - count) * width)]
        kept = statement.is_kept(size)
        if statement.results:
            found += _unpacked(connection, statement, statement.packed(size), part, kept)
        else:
            found += connection.execute(statement.many(size), part, can_cache=kept).fetchall()
        done += count
    return found


def ask_all(
    connection: apsw.Connection, statement: Statement, bounds: Mapping[str, Value]
) -> Sequence[Sequence[object]]:
    """Ask for all rows of a statement."""
    if statement.results:
        try:
            return _unpacked(connection, statement, statement.packed(), bounds)
        except apsw.TooBigError:
            pass  # many huge payloads do not fit into one value
    return connection.execute(statement.text, bounds).fetchall()


def _unpacked(
    connection: apsw.Connection,
    statement: Statement,
    text: str,
    bounds: Mapping[str, Value] | Sequence[Value],
    kept: bool = True,
) -> list[list[object]]:
    ((packed,),) = connection.execute(text, bounds, can_cache=kept).fetchall()
    rows: list[list[object]] = msgspec.json.decode(str(packed))
    for place in statement.blobs:
        for row in rows:
            value = row[place]
            if value is not None:
                row[place] = bytes.fromhex(value)  # type: ignore[arg-type]
    return rows
