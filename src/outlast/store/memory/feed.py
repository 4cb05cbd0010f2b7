"""The feed in memory: a list of the rows of all logs, in the order they came."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from outlast.lifecycle import Execution, Transition
from outlast.store.memory.webhooks import MemoryWebhooks
from outlast.store.protocol import FeedHead, FeedRow, labels_of
from outlast.store.webhooks import HELD_BACK_US


class MemoryFeed:
    """The verbs on the feed; see the protocol."""

    def __init__(
        self,
        lock: threading.RLock,
        records: Mapping[str, Execution],
        logs: Mapping[str, Sequence[Transition]],
        webhooks: MemoryWebhooks,
    ) -> None:
        self._lock, self._records, self._logs = lock, records, logs
        self._webhooks = webhooks
        self._name: str | None = None
        self._rows: list[tuple[int, str, int, int]] = []
        self._last = self._pruned = self._read_at = 0
        self._exporter: str | None = None
        self._exported = self._exporter_until = 0

    def take(self, rows: Iterable[Transition]) -> None:
        """Append rows of a log; for callers that hold the store's lock."""
        if self._name is None:
            return
        for row in rows:
            self._last += 1
            self._rows.append((self._last, row.execution_id, row.seq, row.at))

    def head(self) -> FeedHead | None:
        """See the protocol."""
        with self._lock:
            if self._name is None:
                return None
            return FeedHead(self._name, self._pruned, self._last, self._read_at)

    def follow(self, drawn: str, now: int) -> None:
        """See the protocol."""
        with self._lock:
            if self._name is None:
                self._name, self._read_at = drawn, now
            self._read_at = max(self._read_at, now)

    def settle(self) -> int:
        """See the protocol."""
        return 0

    def read(self, after: int, limit: int, *, payload: bool = False) -> list[FeedRow]:
        """See the protocol."""
        with self._lock:
            begin = max(after - self._pruned, 0)
            return [
                self._row(position, id, seq, payload=payload)
                for position, id, seq, _ in self._rows[begin : begin + limit]
            ]

    def _row(self, position: int, id: str, seq: int, *, payload: bool) -> FeedRow:
        record = self._records.get(id)
        if record is None:
            return FeedRow(position, id, seq, None, None, {})
        row = self._logs[id][seq - 1]
        if not payload:
            row = msgspec.structs.replace(row, payload=None)
        return FeedRow(position, id, seq, row, record.task, labels_of(record.labels))

    def hold_export(self, holder: str, now: int, until: int) -> int | None:
        """See the protocol."""
        with self._lock:
            if self._name is None:
                return None
            if self._exporter not in (None, holder) and self._exporter_until >= now:
                return None
            self._exporter, self._exporter_until = holder, until
            return self._exported

    def note_exported(self, holder: str, position: int, until: int) -> bool:
        """See the protocol."""
        with self._lock:
            if self._name is None or self._exporter != holder or self._exported > position:
                return False
            self._exported, self._exporter_until = position, until
            return True

    def prune(self, before: int, limit: int) -> int:
        """See the protocol."""
        with self._lock:
            old, floor = 0, self._webhooks.floor()
            while old < min(limit, len(self._rows) - 1):
                position, _, _, at = self._rows[old]
                if at >= before - (0 if floor is None or position <= floor else HELD_BACK_US):
                    break
                old += 1
            del self._rows[:old]
            self._pruned += old
            return old

    def end(self, before: int) -> bool:
        """See the protocol."""
        with self._lock:
            if self._name is None or self._read_at >= before or self._webhooks.floor() is not None:
                return False
            self.lose()
            return True

    def lose(self) -> None:
        """Forget all of it: whoever follows, webhooks too, has to begin anew."""
        with self._lock:
            self._name, self._rows, self._exporter = None, [], None
            self._last = self._pruned = self._exported = self._exporter_until = 0


__all__ = ["MemoryFeed"]
