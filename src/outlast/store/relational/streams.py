"""Streams and progress in SQLite: written with the batch that has them, and with no other."""

from __future__ import annotations

from collections.abc import Sequence

from outlast.store.emitting import Ends, Parts, Try, placed, try_of
from outlast.store.protocol import Emission, ProgressRow, StreamItem
from outlast.store.relational.database import Database
from outlast.store.relational.rows import Value

Emitted = list[tuple[str, Sequence[Emission]]]


def write_emissions(database: Database, emitted: Emitted) -> None:
    """Append what executions emitted to their streams, inside the open transaction."""
    tries = {try_of(id, one): None for id, emissions in emitted for one in emissions}
    streams = dict.fromkeys((one.execution_id, one.name) for one in tries)
    ends: Ends = {}
    for id, name, number in database.ask(
        "stream_ends", [part for pair in streams for part in pair]
    ):
        ends[str(id), str(name)] = int(str(number or 0))
    parts: Parts = {}
    asked: list[Value] = [part for one in tries for part in one]
    for id, name, step, attempt, lease, part in database.ask("stream_parts", asked):
        source = Try(str(id), str(name), str(step), int(str(attempt)), int(str(lease)))
        parts[source] = int(str(part or 0))
    database.send(
        "insert_stream_items",
        [
            (
                database.tenant, id, item.name, item.number, item.step, item.attempt, item.lease,
                item.part, item.at, item.payload,
            )
            for id, item in placed(emitted, ends, parts)
        ],
    )  # fmt: skip


def write_progress(database: Database, said: dict[str, ProgressRow]) -> None:
    """Keep the latest that executions said of how far they are."""
    database.send(
        "save_progress",
        [
            (database.tenant, id, row.at, row.done, row.total, row.text, row.step)
            for id, row in said.items()
        ],
    )


def item_of(name: str, columns: Sequence[object]) -> StreamItem:
    """Read an item."""
    return StreamItem(name, *columns)  # type: ignore[arg-type]


def progress_of(columns: Sequence[object]) -> tuple[str, ProgressRow]:
    """Read how far an execution is."""
    return str(columns[0]), ProgressRow(*columns[1:])  # type: ignore[arg-type]
