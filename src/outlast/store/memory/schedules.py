"""Schedules in memory, made of ``schedule.decide`` alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from outlast.errors import OutlastError
from outlast.schedule import Entry, Refused, Request, ScheduleRecord, ScheduleState, decide
from outlast.schedule.record import copy_of
from outlast.store.auditing import schedule_facts
from outlast.store.protocol import Answer, ScheduleAnswer
from outlast.store.scheduling import OPEN_MAX, belonging, cancels_of, creates_of, origin_of, settled

if TYPE_CHECKING:
    from outlast.access.audit import Deed
    from outlast.store.memory.store import MemoryStore


class MemorySchedules:
    """The verbs on schedules; see the protocol."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._rows: dict[str, ScheduleRecord] = {}
        self._logs: dict[str, list[Entry]] = {}

    def apply(
        self, name: str, request: Request, now: int, deed: Deed | None = None
    ) -> ScheduleAnswer:
        """See the protocol."""
        request = belonging(request, self._store.tenant)
        with self._store._lock:
            change = decide(self._rows.get(name), request, now, self._open(name))
            if isinstance(change, Refused):
                return ScheduleAnswer(change.code, self.get(name))
            cancels = cancels_of(change, now)
            answers = self._store.commit(creates_of(change, now))
            answer = settled(change, answers)
            answer.cancelled = self._cancel(self._store.commit(cancels), change.cancels)
            if change.entries:
                self._rows[name] = copy_of(change.after)
                self._logs.setdefault(name, []).extend(change.entries)
            facts = None if deed is None else schedule_facts(request, answer)
            if deed is not None and facts is not None:
                self._store.access.append([(deed, f"schedule:{name}", facts)])
            return answer

    def apply_all(self, requests: Sequence[tuple[str, Request]], now: int) -> list[ScheduleAnswer]:
        """See the protocol."""
        return [self._alone(name, request, now) for name, request in requests]

    def _alone(self, name: str, request: Request, now: int) -> ScheduleAnswer:
        try:
            return self.apply(name, request, now)
        except OutlastError as error:
            return ScheduleAnswer("internal_error", error=error)

    def _cancel(self, answers: Sequence[Answer], ids: Sequence[str]) -> list[str]:
        return [id for id, answer in zip(ids, answers, strict=True) if answer.refused is None]

    def _open(self, name: str) -> list[str]:
        wanted = origin_of(name)
        records = self._store._records.values()
        found = sorted(one.id for one in records if one.origin == wanted and not one.is_final)
        return found[:OPEN_MAX]

    def get(self, name: str) -> ScheduleRecord | None:
        """See the protocol."""
        with self._store._lock:
            record = self._rows.get(name)
            return None if record is None else copy_of(record)

    def page(
        self, states: Sequence[ScheduleState] = (), after: str = "", limit: int = 1_000
    ) -> list[ScheduleRecord]:
        """See the protocol."""
        with self._store._lock:
            found = [
                copy_of(record)
                for name, record in sorted(self._rows.items())
                if name > after and (not states or record.state in states)
            ]
        return found[:limit]

    def due(self, now: int, limit: int) -> tuple[list[tuple[str, int]], int | None]:
        """See the protocol."""
        if self._store.is_closed:
            return [], None
        with self._store._lock:
            active = [one for one in self._rows.values() if one.state is ScheduleState.ACTIVE]
            by_clock = sorted(
                (one.next_at, one.name, one.seq) for one in active if one.next_at is not None
            )
            freed = sorted(
                (one.name, one.seq)
                for one in active
                if one.waiting_slot is not None and not self._open(one.name)
            )
        found = [(name, seq) for at, name, seq in by_clock if at <= now][:limit]
        found += [one for one in freed[:limit] if one not in found]
        return found, min((at for at, _, _ in by_clock), default=None)

    def log(self, name: str, before: int | None = None, limit: int = 100) -> list[Entry]:
        """See the protocol."""
        with self._store._lock:
            entries = self._logs.get(name, [])[::-1]
        return [entry for entry in entries if before is None or entry.seq < before][:limit]

    def fate(self, name: str, slot: int) -> list[Entry]:
        """See the protocol."""
        with self._store._lock:
            return [
                entry
                for entry in self._logs.get(name, [])[::-1]
                if entry.slot is not None and entry.slot <= slot <= (entry.until_slot or entry.slot)
            ][:10]

    def prune(self, before: int, limit: int) -> int:
        """See the protocol."""
        pruned = 0
        with self._store._lock:
            for name, entries in self._logs.items():
                old = [one for one in entries[:-1] if one.at < before][: limit - pruned]
                self._logs[name] = entries[len(old) :]
                pruned += len(old)
        return pruned

    def defects(self) -> list[str]:
        """Say which rows do not stand at the end of their logs."""
        with self._store._lock:
            return [
                f"schedule {name}: its row is at {row.seq}, its log ends at {log[-1].seq}"
                for name, row in self._rows.items()
                if (log := self._logs[name])[-1].seq != row.seq
            ]
