"""Workers and their leases in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from msgspec.structs import replace

from outlast.lifecycle import Execution
from outlast.store.protocol import Renewal, WorkerRow


class MemoryMembers:
    """The rows of workers; the caller holds the lock.

    Attributes:
        clock: the store's own clock; None: it is the one that the caller gives.
    """

    def __init__(self, records: Mapping[str, Execution]) -> None:
        self._records = records
        self._rows: dict[str, WorkerRow] = {}
        self.clock: Callable[[], int] | None = None

    def _now(self, given: int) -> int:
        return given if self.clock is None else self.clock()

    def register(self, worker: WorkerRow) -> int:
        """Put a worker's row; gives how many there are with a lease that runs."""
        now, before = self._now(worker.seen_at), self._rows.get(worker.id)
        if before is not None:
            self._rows[worker.id] = replace(before, seen_at=now)
            return self._serving(now)
        expires_at = None if worker.lease_us is None else now + worker.lease_us
        self._rows[worker.id] = replace(
            worker, seen_at=now, expires_at=expires_at, state="active", leased=0
        )
        return self._serving(now)

    def renew(self, worker: str, lease_us: int, now: int, *, draining: bool) -> Renewal | None:
        """Renew a lease that still runs."""
        row, now = self._rows.get(worker), self._now(now)
        if row is None or not self._runs(row, now):
            return None
        self._rows[worker] = replace(
            row,
            seen_at=now,
            lease_us=lease_us,
            expires_at=now + lease_us,
            state="draining" if draining else "active",
        )
        return Renewal(self.unread(worker), now, self._serving(now))

    def _serving(self, now: int) -> int:
        return sum(self._runs(row, now) for row in self._rows.values())

    def _runs(self, row: WorkerRow, now: int) -> bool:
        return row.is_serving and row.expires_at is not None and row.expires_at > now

    def leave(self, worker: str, now: int) -> None:
        """Note that a worker is over."""
        row, now = self._rows.get(worker), self._now(now)
        if row is not None and row.is_serving:
            expires_at = None if row.lease_us is None else now
            self._rows[worker] = replace(row, state="left", seen_at=now, expires_at=expires_at)

    def expired(self, now: int, *, thorough: bool) -> list[str]:
        """Name whose lease has run out."""
        now = self._now(now)
        if thorough:
            return sorted(id for id in self._holding() if not self._is_protected(id, now))
        return sorted(
            row.id
            for row in self._rows.values()
            if row.is_serving and row.expires_at is not None and row.expires_at <= now
        )

    def takeable(self, dead: Collection[str] | None, alive: str, now: int) -> set[str]:
        """Give those whose executions may be taken; they are lost from here on."""
        now = self._now(now)
        for row in list(self._rows.values()):
            named = row.id != alive and (dead is None or row.id in dead)
            if named and row.is_serving and not self._runs(row, now):
                self._rows[row.id] = replace(row, state="lost")
        wanted = self._holding() if dead is None else set(dead)
        return {id for id in wanted if id != alive and not self._is_protected(id, now)}

    def end_all(self) -> int:
        """Lose everybody who serves; gives how many."""
        serving = [row for row in self._rows.values() if row.is_serving]
        for row in serving:
            self._rows[row.id] = replace(row, state="lost")
        return len(serving)

    def _holding(self) -> set[str]:
        return {record.worker for record in self._records.values() if record.worker is not None}

    def _is_protected(self, id: str, now: int) -> bool:
        row = self._rows.get(id)
        return row is not None and self._runs(row, now)

    def unread(self, worker: str) -> list[str]:
        """Name the executions of a worker that have unread messages."""
        return sorted(
            record.id
            for record in self._records.values()
            if record.worker == worker and record.inbox_count > record.inbox_seen
        )

    def forget(self, before: int) -> int:
        """Delete the rows of those that are over."""
        old = [row.id for row in self._rows.values() if not row.is_serving and row.seen_at < before]
        for id in old:
            del self._rows[id]
        return len(old)

    def rows(self, limit: int) -> list[WorkerRow]:
        """List the workers."""
        found = sorted(
            self._rows.values(), key=lambda row: (not row.is_serving, -row.started_at, row.id)
        )
        return [replace(row, leased=self._leased(row.id)) for row in found[:limit]]

    def _leased(self, id: str) -> int:
        return sum(1 for record in self._records.values() if record.worker == id)


class MemoryHints:
    """Words between engines of one process on one store: told at once."""

    def __init__(self, all_of_them: list[MemoryHints], heard: Callable[[str], None]) -> None:
        self._all, self._heard = all_of_them, heard
        all_of_them.append(self)

    def send(self, topic: str) -> None:
        """Tell all the others."""
        for other in list(self._all):
            if other is not self:
                other._heard(topic)

    def close(self) -> None:
        """Tell and hear nothing more."""
        if self in self._all:
            self._all.remove(self)


__all__ = ["MemoryHints", "MemoryMembers"]
