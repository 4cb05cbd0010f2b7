"""Which driver and which shape of many rows write fastest: ``python -m benchmarks.drivers``.

One batch is what the journal writes for N executions that each made a step: the heads are locked
and read in one statement, N rows go into the log, N executions move on, and it is committed. The
tables have the store's columns but no guards, so that what differs is the way alone.

Two figures count, and wall time only after them: the processor time of the client and that of the
server, for each row. Workers and server share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import struct
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]
import msgspec
import psycopg
from psycopg import pq

from benchmarks.checks import Unverified
from benchmarks.place import DEFAULT, fresh_directory
from servers.postgres import Server

SIZES: Final = {1: 400, 10: 200, 100: 60, 500: 16}
"""Rows a batch, and how many batches a round writes."""

SCHEMA: Final = """
CREATE TABLE execution (
  tenant bigint NOT NULL, id text COLLATE "C" NOT NULL, state text NOT NULL, seq bigint NOT NULL,
  fence bigint NOT NULL, nonce bytea, idle_claims bigint NOT NULL, inbox_count bigint NOT NULL,
  inbox_seen bigint NOT NULL, updated_at bigint NOT NULL, PRIMARY KEY (tenant, id)
) WITH (fillfactor = 70);
CREATE TABLE transition (
  tenant bigint NOT NULL, execution_id text COLLATE "C" NOT NULL, seq bigint NOT NULL,
  kind text NOT NULL, from_state text NOT NULL, to_state text NOT NULL, fence bigint NOT NULL,
  nonce bytea, actor text NOT NULL, at bigint NOT NULL, key text, digest bigint, data text,
  payload bytea, PRIMARY KEY (tenant, execution_id, seq)
);
INSERT INTO execution
SELECT 1, 'ex_' || lpad(n::text, 24, '0'), 'running', 1, 1, '\\x00', 0, 0, 0, 0
  FROM generate_series(0, 999) AS n;
"""
LOG: Final = (
    "tenant, execution_id, seq, kind, from_state, to_state, fence, nonce, actor, at, key, digest,"
    " data, payload"
)
LOG_TYPES: Final = (
    *("bigint", "text", "bigint", "text", "text", "text", "bigint", "bytea"),
    *("text", "bigint", "text", "bigint", "text", "bytea"),
)
MOVE_TYPES: Final = ("text", "bigint", "bigint", "bigint", "bigint")
HEADS: Final = (
    "SELECT id, state, fence, nonce, seq, inbox_count FROM execution"
    " WHERE tenant = 1 AND id = ANY({ids}) ORDER BY id FOR NO KEY UPDATE"
)
MOVE: Final = (
    "UPDATE execution AS e SET seq = v.column2, idle_claims = v.column3, inbox_seen = v.column4,"
    " updated_at = v.column5 FROM {rows} WHERE e.tenant = 1 AND e.id = v.column1"
)
_WARM: Final = 6
"""Batches that are written before the clock runs: statements get prepared, files grow."""
_CHECK: Final = "SELECT count(*), (SELECT sum(seq - 1) FROM execution)::bigint FROM transition"
Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one transaction."""

    ids: list[str]
    log: list[Row]
    moves: list[Row]


Write = Callable[[Batch], Any]


def batches(size: int, count: int) -> Iterator[Batch]:
    """Make batches over a thousand executions, each in order of its numbers."""
    seqs = [1] * 1000
    nonce, place = b"0123456789abcdef", 0
    for _ in range(count):
        batch = Batch([], [], [])
        for _ in range(size):
            one, at = place % 1000, 1_790_000_000_000_000 + place
            place += 1
            seqs[one] += 1
            id = f"ex_{one:024d}"
            batch.ids.append(id)
            batch.log.append(
                (
                    1,
                    id,
                    seqs[one],
                    "step",
                    "running",
                    "running",
                    1,
                    nonce,
                    "engine",
                    at,
                    f"charge_card#{one}",
                    0x1234_5678_9ABC + place,
                    '{"took":12345,"try":1}',
                    b'{"order":%d,"paid":true,"by":"card"}' % place,
                )
            )
            batch.moves.append((id, seqs[one], 0, 0, at))
        yield batch


# Shapes of many rows: how SQL says them, and what is sent.


def values_of(types: Sequence[str], rows: int, first: int = 1) -> str:
    """Write many rows as parameters, each with its type, as a table ``v``."""
    lines = []
    for row in range(rows):
        start = first + row * len(types)
        lines.append(",".join(f"${start + n}::{t}" for n, t in enumerate(types)))
    return f"(VALUES {','.join(f'({line})' for line in lines)}) AS v"


def unnest_of(types: Sequence[str], first: int = 1) -> str:
    """Write many rows as one array a column."""
    arrays = ",".join(f"${first + n}::{t}[]" for n, t in enumerate(types))
    names = ",".join(f"column{n + 1}" for n in range(len(types)))
    return f"unnest({arrays}) AS v({names})"


def json_of(types: Sequence[str]) -> str:
    """Write many rows as one JSON array of arrays; bytes are in base64."""
    columns = []
    for n, one in enumerate(types):
        text = f"j->>{n}"
        columns.append(
            f"decode({text}, 'base64') AS column{n + 1}"
            if one == "bytea"
            else f"({text})::{one} AS column{n + 1}"
        )
    return f"(SELECT {','.join(columns)} FROM json_array_elements($1::json) AS j) AS v"


def records_of(types: Sequence[str]) -> str:
    """Write many rows as one JSON array of objects, read by ``json_to_recordset``."""
    columns = [f"column{n + 1} {'text' if t == 'bytea' else t}" for n, t in enumerate(types)]
    picked = [
        f"decode(column{n + 1}, 'base64') AS column{n + 1}" if t == "bytea" else f"column{n + 1}"
        for n, t in enumerate(types)
    ]
    return (
        f"(SELECT {','.join(picked)} FROM json_to_recordset($1::json) AS r({','.join(columns)}))"
        " AS v"
    )


def insert(table: str) -> str:
    """Write the statement that fills the log from a table ``v``."""
    return f"INSERT INTO transition ({LOG}) SELECT * FROM {table}"


_OIDS: Final = {"bigint": 20, "text": 25, "bytea": 17}


def binary_array(type: str, values: Sequence[Any]) -> bytes:
    """Write a column as the binary format of an array, by as few calls as there can be."""
    holes = None in values
    header = struct.pack(">5i", 1, holes, _OIDS[type], len(values), 1)
    if type == "bigint" and not holes:
        pairs: list[int] = [8] * (2 * len(values))
        pairs[1::2] = values
        return header + struct.pack(">" + "iq" * len(values), *pairs)
    parts = [header]
    for value in values:
        if value is None:
            parts.append(b"\xff\xff\xff\xff")
            continue
        if type == "bigint":
            parts.append(struct.pack(">iq", 8, value))
            continue
        raw = value if type == "bytea" else value.encode()
        parts.append(len(raw).to_bytes(4, "big"))
        parts.append(raw)
    return b"".join(parts)


def text_array(type: str, values: Sequence[Any]) -> bytes:
    """Write a column as the text of a PostgreSQL array."""
    if type == "bigint":
        return ("{" + ",".join(["NULL" if v is None else str(v) for v in values]) + "}").encode()
    if type == "bytea":
        parts = ["NULL" if v is None else '"\\\\x' + v.hex() + '"' for v in values]
    else:
        parts = [
            "NULL" if v is None else '"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"'
            for v in values
        ]
    return ("{" + ",".join(parts) + "}").encode()


def arrays(
    make: Callable[[str, Sequence[Any]], bytes], types: Sequence[str], rows: Sequence[Row]
) -> list[bytes]:
    """Turn rows into one array a column."""
    return [make(t, column) for t, column in zip(types, zip(*rows, strict=True), strict=True)]


def record_maker(types: Sequence[str]) -> Callable[[Sequence[Row]], bytes]:
    """Make the encoder of rows as JSON objects."""
    names = [f"column{n + 1}" for n in range(len(types))]
    return lambda rows: msgspec.json.encode([dict(zip(names, row, strict=True)) for row in rows])


# psycopg, by its cursors.


def by_cursor(connection: psycopg.Connection[Any], way: str, size: int) -> Write:
    """Write through psycopg's raw cursors (``$1``, no conversion of the text)."""
    cursor = psycopg.RawCursor(connection)
    heads = HEADS.format(ids="$1::text[]").encode()
    if way == "values":
        log = insert(values_of(LOG_TYPES, size)).encode()
        move = MOVE.format(rows=values_of(MOVE_TYPES, size)).encode()

        def pack(types: Sequence[str], rows: Sequence[Row]) -> Sequence[Any]:
            return [value for row in rows for value in row]
    elif way == "json":
        log = insert(json_of(LOG_TYPES)).encode()
        move = MOVE.format(rows=json_of(MOVE_TYPES)).encode()

        def pack(types: Sequence[str], rows: Sequence[Row]) -> Sequence[Any]:
            return [msgspec.json.encode(rows).decode()]
    else:
        log = insert(unnest_of(LOG_TYPES)).encode()
        move = MOVE.format(rows=unnest_of(MOVE_TYPES)).encode()

        def pack(types: Sequence[str], rows: Sequence[Row]) -> Sequence[Any]:
            return [list(column) for column in zip(*rows, strict=True)]

    def write(batch: Batch) -> None:
        cursor.execute(b"BEGIN")
        cursor.execute(heads, [batch.ids])
        assert len(cursor.fetchall()) == len(batch.ids)
        cursor.execute(log, pack(LOG_TYPES, batch.log), binary=True)
        cursor.execute(move, pack(MOVE_TYPES, batch.moves), binary=True)
        cursor.execute(b"COMMIT")

    return write


def by_copy(connection: psycopg.Connection[Any], size: int) -> Write:
    """Write the log by binary COPY, the moves by arrays."""
    cursor = psycopg.RawCursor(connection)
    heads = HEADS.format(ids="$1::text[]").encode()
    move = MOVE.format(rows=unnest_of(MOVE_TYPES)).encode()
    copy = f"COPY transition ({LOG}) FROM STDIN (FORMAT BINARY)".encode()

    def write(batch: Batch) -> None:
        cursor.execute(b"BEGIN")
        cursor.execute(heads, [batch.ids])
        assert len(cursor.fetchall()) == len(batch.ids)
        with cursor.copy(copy) as sink:
            sink.set_types(LOG_TYPES)
            for row in batch.log:
                sink.write_row(row)
        cursor.execute(move, [list(column) for column in zip(*batch.moves, strict=True)])
        cursor.execute(b"COMMIT")

    return write


# psycopg's libpq alone: prepared statements, and parameters that are bytes already.


class Bare:
    """libpq by psycopg's own binding, without cursors and adapters."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        """Take over an open connection."""
        self.pg = connection.pgconn
        self.wait = connection.wait
        self._names: dict[bytes, bytes] = {}

    def run(self, text: bytes, parameters: Sequence[bytes], form: int = 1) -> Any:
        """Run a statement, prepared the first time."""
        formats = [form] * len(parameters)
        name = self._names.get(text)
        if name is None:
            name = self._names[text] = b"s%d" % len(self._names)
            self._check(self.pg.prepare(name, text))
        return self._check(self.pg.exec_prepared(name, parameters, formats, 1))

    def pipelined(self, each: Sequence[tuple[bytes, Sequence[bytes]]], form: int = 1) -> list[Any]:
        """Run several statements in one round trip; all of them must be prepared already."""
        self.pg.enter_pipeline_mode()
        for text, parameters in each:
            formats = [form] * len(parameters)
            self.pg.send_query_prepared(self._names[text], parameters, formats, 1)
        self.pg.pipeline_sync()
        self.pg.flush()
        results = []
        while True:
            result = self.pg.get_result()
            if result is None:
                continue
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                break
            results.append(self._check(result))
        self.pg.exit_pipeline_mode()
        return results

    def _check(self, result: Any) -> Any:
        good = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
        if result.status not in good:
            raise RuntimeError(result.error_message.decode())
        return result


def by_libpq(connection: psycopg.Connection[Any], way: str, size: int) -> Write:
    """Write through libpq; ``way`` is a shape, with ``+pipe`` for two round trips a batch."""
    bare = Bare(connection)
    shape, _, pipe = way.partition("+")
    form = 0 if shape in ("text", "json", "records") else 1
    pack: Callable[[Sequence[str], Sequence[Row]], Sequence[bytes]]
    if shape in ("binary", "text"):
        make = binary_array if shape == "binary" else text_array
        log, move = insert(unnest_of(LOG_TYPES)), MOVE.format(rows=unnest_of(MOVE_TYPES))
        pack = lambda types, rows: arrays(make, types, rows)  # noqa: E731
    elif shape == "json":
        log, move = insert(json_of(LOG_TYPES)), MOVE.format(rows=json_of(MOVE_TYPES))
        pack = lambda types, rows: [msgspec.json.encode(rows)]  # noqa: E731
    else:
        log, move = insert(records_of(LOG_TYPES)), MOVE.format(rows=records_of(MOVE_TYPES))
        makers = {types: record_maker(types) for types in (LOG_TYPES, MOVE_TYPES)}
        pack = lambda types, rows: [makers[types](rows)]  # type: ignore[index] # noqa: E731
    heads = HEADS.format(ids="$1::text[]").encode()
    texts = (b"BEGIN", heads, log.encode(), move.encode(), b"COMMIT")

    def ids(batch: Batch) -> list[bytes]:
        return [(binary_array if form else text_array)("text", batch.ids)]

    def write(batch: Batch) -> None:
        bare.run(texts[0], ())
        found = bare.run(texts[1], ids(batch), form)
        assert found.ntuples == len(batch.ids)
        bare.run(texts[2], pack(LOG_TYPES, batch.log), form)
        bare.run(texts[3], pack(MOVE_TYPES, batch.moves), form)
        bare.run(texts[4], ())

    def write_piped(batch: Batch) -> None:
        if texts[4] not in bare._names:
            write(batch)
            return
        found = bare.pipelined([(texts[0], ()), (texts[1], ids(batch))], form)[1]
        assert found.ntuples == len(batch.ids)
        rows, moves = pack(LOG_TYPES, batch.log), pack(MOVE_TYPES, batch.moves)
        bare.pipelined([(texts[2], rows), (texts[3], moves), (texts[4], ())], form)

    return write_piped if pipe else write


# asyncpg.


def by_asyncpg(connection: Any, way: str, size: int) -> Callable[[Batch], Awaitable[None]]:
    """Write through asyncpg, which speaks the binary format always."""
    if way == "values":
        log, move = (
            insert(values_of(LOG_TYPES, size)),
            MOVE.format(rows=values_of(MOVE_TYPES, size)),
        )
    elif way == "json":
        log, move = insert(json_of(LOG_TYPES)), MOVE.format(rows=json_of(MOVE_TYPES))
    else:
        log, move = insert(unnest_of(LOG_TYPES)), MOVE.format(rows=unnest_of(MOVE_TYPES))
    heads = HEADS.format(ids="$1::text[]")

    def pack(rows: Sequence[Row]) -> Sequence[Any]:
        if way == "values":
            return [value for row in rows for value in row]
        if way == "json":
            return [msgspec.json.encode(rows).decode()]
        return list(zip(*rows, strict=True))

    async def write(batch: Batch) -> None:
        await connection.execute("BEGIN")
        assert len(await connection.fetch(heads, batch.ids)) == len(batch.ids)
        if way == "copy":
            await connection.copy_records_to_table(
                "transition", records=batch.log, columns=LOG.split(", ")
            )
        else:
            await connection.fetch(log, *pack(batch.log))
        await connection.fetch(move, *pack(batch.moves))
        await connection.execute("COMMIT")

    return write


PSYCOPG: Final = ("cursor values", "cursor unnest", "cursor json", "cursor copy")
LIBPQ: Final = ("binary", "binary+pipe", "text", "text+pipe", "json", "json+pipe", "records")
ASYNCPG: Final = ("values", "unnest", "json", "copy")
WAYS: Final = (
    *(f"psycopg: {way}" for way in PSYCOPG),
    *(f"libpq: {way}" for way in LIBPQ),
    *(f"asyncpg: {way}" for way in ASYNCPG),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds for each row of a batch."""

    client: float
    server: float
    wall: float


def backend_time(pid: int) -> float:
    """Give the processor time that a process of the server has taken, in seconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def measure(server: Server, way: str, size: int, count: int) -> Cost:
    """Write batches in one way into a database of its own, and see that all is there."""
    url = server.database(_make)
    cost = _measure(url, way, size, count)
    with psycopg.connect(url) as connection:
        row = connection.execute(_CHECK).fetchone()
    rows = (count + _WARM) * size
    if row != (rows, rows):
        raise Unverified(f"{way}: {rows} rows were written, and there are {row}")
    return cost


def _measure(url: str, way: str, size: int, count: int) -> Cost:
    driver, _, shape = way.partition(": ")
    work = list(batches(size, count + _WARM))
    if driver == "asyncpg":
        with asyncio.Runner() as runner:
            connection = runner.run(asyncpg.connect(url))
            pid = connection.get_server_pid()
            put = by_asyncpg(connection, shape, size)

            async def write_all(some: Sequence[Batch]) -> None:
                for batch in some:
                    await put(batch)

            cost = _timed(lambda some: runner.run(write_all(some)), work, pid, size)
            runner.run(connection.close())
            return cost
    with psycopg.connect(url, autocommit=True, prepare_threshold=1) as connection:
        pid = connection.info.backend_pid
        if driver == "libpq":
            write = by_libpq(connection, shape, size)
        elif shape == "cursor copy":
            write = by_copy(connection, size)
        else:
            write = by_cursor(connection, shape.removeprefix("cursor "), size)
        return _timed(lambda some: [write(batch) for batch in some], work, pid, size)


def _timed(
    write_all: Callable[[Sequence[Batch]], Any], work: list[Batch], pid: int, size: int
) -> Cost:
    write_all(work[:_WARM])
    theirs, ours, began = backend_time(pid), process_time(), perf_counter()
    write_all(work[_WARM:])
    rows = (len(work) - _WARM) * size
    wall, ours, theirs = perf_counter() - began, process_time() - ours, backend_time(pid) - theirs
    return Cost(ours / rows * 1e6, theirs / rows * 1e6, wall / rows * 1e6)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every way with every size, in turns, and print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drivers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of the batches")
    parser.add_argument("--dir", type=Path, default=DEFAULT, help="a directory on a real disk")
    given = parser.parse_args(argv)
    costs: dict[tuple[str, int], list[Cost]] = {}
    with fresh_directory(given.dir) as directory:
        directory.chmod(0o711)
        with Server(parent=directory) as server:
            for _ in range(given.rounds):
                for way in WAYS:
                    for size, count in SIZES.items():
                        count = max(2, count // 10) if given.quick else count
                        cost = measure(server, way, size, count)
                        costs.setdefault((way, size), []).append(cost)
                    print(".", end="", flush=True, file=sys.stderr)
    print("\nmicroseconds a row: client + server processor time (wall)")
    print(f"{'':24}" + "".join(f"{size:>22}" for size in SIZES))
    for way in WAYS:
        line = f"{way:24}"
        for size in SIZES:
            some = costs[way, size]
            client, theirs, wall = (
                statistics.median(getattr(one, name) for one in some)
                for name in ("client", "server", "wall")
            )
            line += f"{f'{client:.1f} + {theirs:.1f} ({wall:.0f})':>22}"
        print(line)
    return 0


def _make(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(SCHEMA.encode())


if __name__ == "__main__":
    sys.exit(main())
