"""Workers and their leases in SQL.

The instants that are given are those of a store without a clock of its own: in the statements of a
database server stands the server's clock.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from outlast.store.protocol import Renewal, Service, WorkerRow
from outlast.store.relational.database import Database, json_of
from outlast.store.relational.rows import Value

PATIENCE: Final = 0.25
"""The share of a lease that a renewal waits for a silent server, before it tries another way."""
PATIENCE_MIN_S: Final = 0.5
PATIENCE_MAX_S: Final = 2.5


def register(database: Database, worker: WorkerRow) -> int:
    """Put a worker's row; gives how many there are with a lease that runs."""
    bounds: dict[str, Value] = {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "started_at": worker.started_at,
        "now": worker.seen_at,
        "lease_us": worker.lease_us,
        "service": json_of(worker.service),
    }

    def put() -> int:
        database.run("put_worker", bounds)
        return len(database.ask_all("protected_workers", bounds))

    return database.write(put)


def renew(
    database: Database, worker: str, lease_us: int, now: int, *, draining: bool
) -> Renewal | None:
    """Renew a lease that still runs."""
    state = "draining" if draining else "active"
    bounds: dict[str, Value] = {"id": worker, "lease_us": lease_us, "now": now, "state": state}
    patience_s = min(max(lease_us / 1e6 * PATIENCE, PATIENCE_MIN_S), PATIENCE_MAX_S)
    renewed = database.beat("renew_worker", bounds, patience_s)
    if not renewed:
        return None
    unread = database.beat("unread_executions", {"worker": worker}, patience_s)
    serving = len(database.beat("protected_workers", bounds, patience_s))
    return Renewal([str(id) for (id,) in unread], int(str(renewed[0][0])), serving)


def instant(database: Database, now: int) -> int:
    """Tell the time."""
    return int(str(database.read("instant", {"now": now})[0][0]))


def expired(database: Database, now: int, *, thorough: bool) -> list[str]:
    """Name whose lease has run out."""
    bounds: dict[str, Value] = {"now": now}
    if not thorough:
        return [str(id) for (id,) in database.read("expired_workers", bounds)]
    # In this order: who registers and claims in between is protected.
    holding = [str(id) for (id,) in database.read("holding_workers", {})]
    protected = {str(id) for (id,) in database.read("protected_workers", bounds)}
    return [id for id in holding if id not in protected]


def takeable(database: Database, dead: Collection[str] | None, alive: str, now: int) -> list[str]:
    """Give those whose executions may be taken, in order, inside the open transaction.

    They are lost from here on. A renewal that comes at the same time waits for this transaction,
    and then finds its worker lost; or it was first, and the worker is not lost.
    """
    if dead is None:
        dead = [str(id) for (id,) in database.ask_all("holding_workers", {})]
        dead = {*dead, *(str(id) for (id,) in database.ask_all("serving_workers", {}))}
    named: dict[str, Value] = {"dead": json_of(sorted(dead)), "alive": alive, "now": now}
    database.run("lose_workers", named)
    protected = {str(id) for (id,) in database.ask_all("serving_workers", {})}
    return sorted(id for id in dead if id != alive and id not in protected)


def worker_of(columns: Sequence[object]) -> WorkerRow:
    """Read a worker's row."""
    *plain, service, leased = columns
    row = WorkerRow(*plain)  # type: ignore[arg-type]
    said = msgspec.json.decode(str(service), type=Service)
    return msgspec.structs.replace(row, service=said, leased=int(str(leased)))
