"""What the guards of PostgreSQL cost, in two forms: ``python -m benchmarks.guards``.

Two batches are written by the store's own statements, over libpq: N executions that each made a
step, and N that are born. Three databases take them: one whose guards are turned off, one as it is,
whose guards look things up once a statement, and one where the same questions are asked by a
trigger for each row, as in SQLite. The tables are filled with a hundred thousand rows before.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final

import psycopg

from benchmarks.checks import Unverified
from benchmarks.drivers import Bare, Cost, backend_time
from benchmarks.place import DEFAULT, fresh_directory
from outlast.store.postgres.address import Address
from outlast.store.postgres.migrate import ready
from outlast.store.postgres.statements import statements
from servers.postgres import Server

SIZES: Final = {1: 300, 10: 100, 100: 40, 500: 12}
"""Rows a batch, and how many batches a round writes."""
EXECUTIONS: Final = 1_000
ENDED: Final = 20_000
_WARM: Final = 6

FILL: Final = f"""
SET session_replication_role = replica;
SET search_path = outlast;
CREATE TEMPORARY TABLE one AS
SELECT 'ex_' || lpad(n::text, 24, '0') AS id, n < {EXECUTIONS} AS runs
  FROM generate_series(0, {EXECUTIONS + ENDED - 1}) AS n;
INSERT INTO transition (tenant, execution_id, seq, kind, from_state, to_state, fence, nonce, actor,
                        at)
SELECT 1, o.id, t.seq, t.kind, t.source, t.target, t.fence,
       CASE WHEN t.fence > 0 THEN decode(repeat('6e', 16), 'hex') END, 'engine', 1
  FROM one AS o
 CROSS JOIN (
  VALUES (1, 'create', '', 'queued', 0), (2, 'claim', 'queued', 'starting', 1),
         (3, 'start', 'starting', 'running', 1), (4, 'step', 'running', 'running', 1),
         (5, 'finish', 'running', 'succeeded', 1)) AS t (seq, kind, source, target, fence)
 WHERE t.seq <= 3 OR NOT o.runs;
INSERT INTO execution (tenant, id, task, state, seq, fence, nonce, worker, high_water, attempt,
                       failures, claims, idle_claims, inbox_count, inbox_seen, created_at,
                       updated_at, state_at, queue, priority, input_digest, children)
SELECT 1, id, 'bench', CASE WHEN runs THEN 'running' ELSE 'succeeded' END,
       CASE WHEN runs THEN 3 ELSE 5 END, 1, CASE WHEN runs THEN decode(repeat('6e', 16), 'hex') END,
       CASE WHEN runs THEN 'w1' END, 3, 1, 0, 1, 0, 0, 0, 1, 1, 1, 'default', 0, 0, 0
  FROM one;
RESET session_replication_role;
"""
OFF: Final = """
ALTER TABLE transition DISABLE TRIGGER USER;
ALTER TABLE execution DISABLE TRIGGER USER;
"""
EACH_ROW: Final = """
DROP TRIGGER transition_successor ON transition;
DROP TRIGGER execution_equals ON execution;
DROP TRIGGER execution_equals_at_birth ON execution;
CREATE FUNCTION row_successor() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF NOT coalesce((
    SELECT p.seq = NEW.seq - 1 AND p.at <= NEW.at AND p.to_state = NEW.from_state AND CASE
        WHEN NEW.kind = 'step' THEN NEW.fence = p.fence AND NEW.nonce IS NOT DISTINCT FROM p.nonce
        WHEN p.to_state IN ('running', 'starting') THEN
          (NEW.fence = p.fence AND NEW.nonce IS NOT DISTINCT FROM p.nonce)
          OR (NEW.fence = p.fence + 1 AND NEW.nonce IS NULL
              AND NEW.kind IN ('lease_expired', 'worker_lost', 'cancel', 'deadline'))
        WHEN p.to_state IN ('succeeded', 'failed', 'timed_out', 'cancelled') THEN FALSE
        WHEN NEW.kind = 'claim' THEN
          NEW.fence = p.fence + 1 AND coalesce(length(NEW.nonce), 0) = 16
        ELSE NEW.fence = p.fence AND NEW.nonce IS NULL
      END
      FROM transition AS p
     WHERE p.tenant = NEW.tenant AND p.execution_id = NEW.execution_id
     ORDER BY p.seq DESC LIMIT 1),
    NEW.seq = 1 AND NEW.kind = 'create' AND NEW.fence = 0 AND NEW.nonce IS NULL)
  THEN
    PERFORM refuse('not a legal successor of the last row of its log');
  END IF;
  IF NOT (NEW.kind = 'step' AND NEW.from_state = 'running' AND NEW.to_state = 'running')
    AND NOT EXISTS (
      SELECT 1 FROM edge AS e
       WHERE e.kind = NEW.kind AND e.from_state = NEW.from_state AND e.to_state = NEW.to_state)
  THEN
    PERFORM refuse('the lifecycle has no such edge');
  END IF;
  RETURN NEW;
END
$$;
CREATE FUNCTION row_equals() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF NOT coalesce((
    SELECT t.seq = NEW.seq AND t.at = NEW.updated_at AND t.to_state = NEW.state
       AND t.fence = NEW.fence AND (NEW.nonce IS NULL OR t.nonce IS NOT DISTINCT FROM NEW.nonce)
      FROM transition AS t
     WHERE t.tenant = NEW.tenant AND t.execution_id = NEW.id
     ORDER BY t.seq DESC LIMIT 1), FALSE)
  THEN
    PERFORM refuse('the row does not equal the last row of its log');
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER row_successor BEFORE INSERT ON transition
  FOR EACH ROW EXECUTE FUNCTION row_successor();
CREATE TRIGGER row_equals BEFORE INSERT OR UPDATE ON execution
  FOR EACH ROW EXECUTE FUNCTION row_equals();
"""
FORMS: Final = {"none": OFF, "once a statement (ours)": "", "once a row": EACH_ROW}
NONCE: Final = b"n" * 16
Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one transaction: into the log, and the statement that follows with its own."""

    ids: Rows
    log: Rows
    then: str
    rows: Rows


def steps(size: int, count: int, _: str) -> list[Batch]:
    """Make batches of steps of the executions that run."""
    seqs, place, made = [3] * EXECUTIONS, 0, []
    for _batch in range(count):
        batch = Batch([], [], "move_executions", [])
        for _row in range(size):
            one, place = place % EXECUTIONS, place + 1
            seqs[one] += 1
            id, at = f"ex_{one:024d}", 1_790_000_000_000_000 + place
            values = (1, id, seqs[one], "step", "running", "running", 1, NONCE, "engine", at)
            batch.ids.append((id,))
            batch.log.append((*values, f"charge_card#{place}", place, None, b'{"paid":true}'))
            batch.rows.append((id, seqs[one], 0, 0, at))
        made.append(batch)
    return made


def births(size: int, count: int, prefix: str) -> list[Batch]:
    """Make batches of executions that are born and wait in a queue."""
    place, made = 0, []
    for _batch in range(count):
        batch = Batch([], [], "insert_executions", [])
        for _row in range(size):
            place += 1
            id, at = f"new_{prefix}{place:020d}", 1_790_000_000_000_000 + place
            values = (1, id, 1, "create", "", "queued", 0, None, "user", at, None, None)
            batch.log.append((*values, '{"queue":"default"}', b'{"order":7}'))
            counts, no_times = (0, 0, 0, 0, 0, 0), (None, None, None)
            born = (1, id, "bench", "queued", 1, 0, None, None, 0, None, None, *counts)
            asked = (None, None, at, at, at, *no_times, "default", 0, None, 7)
            batch.rows.append((*born, *asked, *(None,) * 6, 0, *no_times))
        made.append(batch)
    return made


WORK: Final[dict[str, Callable[[int, int, str], list[Batch]]]] = {"step": steps, "birth": births}


def write(bare: Bare, batch: Batch) -> None:
    """Write a batch as the store does: heads, log, rows, in one transaction."""
    known = statements()

    def send(name: str, rows: Rows) -> Any:
        columns = list(zip(*rows, strict=True))
        values, _ = known[name].spread(columns)
        return bare.run(known[name].text, [array for array in values if array is not None])

    bare.run(b"BEGIN", ())
    if batch.ids:
        send("lock_executions", batch.ids)
    send("insert_transitions", batch.log)
    send(batch.then, batch.rows)
    bare.run(b"COMMIT", ())


def measure(
    server: Server,
    form: str,
    work: str,
    size: int,
    count: int,
    make: Callable[[str], None] | None = None,
) -> Cost:
    """Write batches into a database of their own, and see that all is there."""
    url = server.database(make or filled)
    with psycopg.connect(url, autocommit=True, options="-c search_path=outlast") as connection:
        connection.execute(FORMS.get(form, "").encode())
        connection.execute(b"VACUUM (FREEZE, ANALYZE)")
        for setting in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"):
            connection.execute(f"SET {setting} = off".encode())
        connection.execute(b"SET plan_cache_mode = force_generic_plan")
        bare, pid = Bare(connection), connection.info.backend_pid
        batches = WORK[work](size, count + _WARM, "")
        before = _count(connection)
        for batch in batches[:_WARM]:
            write(bare, batch)
        theirs, ours, began = backend_time(pid), process_time(), perf_counter()
        for batch in batches[_WARM:]:
            write(bare, batch)
        wall, ours, theirs = (
            perf_counter() - began,
            process_time() - ours,
            backend_time(pid) - theirs,
        )
        if _count(connection) - before != len(batches) * size:
            raise Unverified(f"{form}: not all rows are there")
    server.drop(url)
    rows = count * size
    return Cost(ours / rows * 1e6, theirs / rows * 1e6, wall / rows * 1e6)


def _count(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(b"SELECT count(*) FROM transition").fetchone()
    assert row is not None
    return int(row[0])


def filled(url: str, partitions: int = 1) -> None:
    """Make a schema with many executions; no store has seen itself in it."""
    ready(Address.of(url), 1, owner=True, upgrade=False, partitions=partitions)
    with psycopg.connect(url) as connection:
        connection.execute(FILL.encode())


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every form with every size, in turns, and print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guards", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=DEFAULT, help="a directory on a real disk")
    given = parser.parse_args(argv)
    costs: dict[tuple[str, str, int], list[Cost]] = {}
    with fresh_directory(given.dir) as directory:
        directory.chmod(0o711)
        with Server(parent=directory) as server:
            for _ in range(given.rounds):
                for form in FORMS:
                    for work in WORK:
                        for size, count in SIZES.items():
                            cost = measure(server, form, work, size, count)
                            costs.setdefault((form, work, size), []).append(cost)
                    print(".", end="", flush=True, file=sys.stderr)
    print("\nmicroseconds of the server's processor time a row (wall)")
    print(f"{'':34}" + "".join(f"{size:>14}" for size in SIZES))
    for work in WORK:
        for form in FORMS:
            line = f"{f'{work}: {form}':34}"
            for size in SIZES:
                some = costs[form, work, size]
                theirs = statistics.median(one.server for one in some)
                wall = statistics.median(one.wall for one in some)
                line += f"{f'{theirs:.1f} ({wall:.0f})':>14}"
            print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
