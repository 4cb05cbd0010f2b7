"""Schedules in SQL: each change is one transaction, with the executions that it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from outlast.errors import InternalError, UsageError
from outlast.schedule import (
    Change,
    Entry,
    Refused,
    Request,
    ScheduleKind,
    ScheduleRecord,
    ScheduleState,
    decide,
)
from outlast.schedule.plan import plan_of
from outlast.store.auditing import schedule_facts
from outlast.store.protocol import ScheduleAnswer
from outlast.store.relational.rows import Value
from outlast.store.scheduling import OPEN_MAX, belonging, cancels_of, creates_of, origin_of, settled

if TYPE_CHECKING:
    from outlast.access.audit import Deed
    from outlast.store.relational.store import RelationalStore

_LAST = 2**62
_FAULTS: Final[tuple[type[Exception], ...]] = (
    *(ValueError, TypeError, LookupError, OverflowError, AssertionError),
    msgspec.MsgspecError,
)
"""What a row that nobody of ours wrote can do."""


class RelationalSchedules:
    """The verbs on schedules; see the protocol."""

    def __init__(self, store: RelationalStore) -> None:
        self._store = store
        self._database = store.database
        self._faults = (*_FAULTS, *store.database.faults)

    def apply(
        self, name: str, request: Request, now: int, deed: Deed | None = None
    ) -> ScheduleAnswer:
        """See the protocol."""

        def act() -> ScheduleAnswer:
            answer = self._apply(name, request, now)
            facts = None if deed is None else schedule_facts(request, answer)
            if deed is not None and facts is not None:
                self._store.audit([(deed, f"schedule:{name}", facts)])
            return answer

        return self._database.write(act)

    def apply_all(self, requests: Sequence[tuple[str, Request]], now: int) -> list[ScheduleAnswer]:
        """See the protocol."""
        try:
            return self._database.write(partial(self._apply_all, requests, now))
        except (InternalError, UsageError):
            return [self._alone(name, request, now) for name, request in requests]

    def _apply_all(self, requests: Sequence[tuple[str, Request]], now: int) -> list[ScheduleAnswer]:
        self._database.lock("schedules", {name for name, _ in requests})
        return [self._apply(name, request, now) for name, request in requests]

    def _alone(self, name: str, request: Request, now: int) -> ScheduleAnswer:
        """Find the guilty one of several; the others are written."""
        try:
            return self.apply(name, request, now)
        except (InternalError, UsageError) as error:
            return ScheduleAnswer("internal_error", error=error)

    def _apply(self, name: str, request: Request, now: int) -> ScheduleAnswer:
        request = belonging(request, self._store.tenant)
        try:
            self._database.lock("schedules", [name])
            record = self._find(name)
            change = decide(record, request, now, self._open(name))
            if isinstance(change, Refused):
                return ScheduleAnswer(change.code, record)
            return self._write(change, now, is_new=record is None)
        except self._database.races:
            raise  # somebody else made the same in the same instant: the transaction runs again
        except self._faults as error:
            raise InternalError(f"schedule {name} cannot be decided or written: {error}") from error

    def _write(self, change: Change, now: int, *, is_new: bool) -> ScheduleAnswer:
        """Write a change: executions, entries, and last the row, as the guards look at them."""
        store, after = self._store, change.after
        cancels = cancels_of(change, now)
        answer = settled(change, store._write_batch(creates_of(change, now)))
        told = store._write_batch(cancels)
        answer.cancelled = [
            item.execution_id
            for item, one in zip(cancels, told, strict=True)
            if one.refused is None
        ]
        if not change.entries:
            return answer
        rows = [_values_of_entry(after.tenant, after.name, entry) for entry in change.entries]
        self._database.send("insert_schedule_entry", rows)
        self._database.send("insert_schedule" if is_new else "save_schedule", [_values_of(after)])
        return answer

    def _find(self, name: str) -> ScheduleRecord | None:
        rows = self._database.ask_all("schedule_by_name", {"name": name})
        return _record_of(rows[0]) if rows else None

    def _open(self, name: str) -> list[str]:
        bounds: dict[str, Value] = {"origin": origin_of(name), "limit": OPEN_MAX}
        rows = self._database.ask_all("open_of_origin", bounds)
        return [str(id) for (id,) in rows]

    def get(self, name: str) -> ScheduleRecord | None:
        """See the protocol."""
        rows = self._database.read("schedule_by_name", {"name": name})
        return _record_of(rows[0]) if rows else None

    def page(
        self, states: Sequence[ScheduleState] = (), after: str = "", limit: int = 1_000
    ) -> list[ScheduleRecord]:
        """See the protocol."""
        wanted = _json([str(state) for state in states]) if states else None
        bounds: dict[str, Value] = {"states": wanted, "after": after, "limit": limit}
        return list(map(_record_of, self._database.read("schedules_page", bounds)))

    def due(self, now: int, limit: int) -> tuple[list[tuple[str, int]], int | None]:
        """See the protocol."""
        found: list[tuple[str, int]] = []
        for name in ("due_schedules", "freed_schedules"):
            bounds: dict[str, Value] = {"limit": limit}
            if name == "due_schedules":
                bounds["now"] = now
            for schedule, seq in self._database.read(name, bounds):
                if (one := (str(schedule), int(str(seq)))) not in found:
                    found.append(one)
        rows = self._database.read("next_schedule_at", {})
        return found, int(str(rows[0][0])) if rows else None

    def log(self, name: str, before: int | None = None, limit: int = 100) -> list[Entry]:
        """See the protocol."""
        bounds: dict[str, Value] = {
            "name": name,
            "before": _LAST if before is None else before,
            "limit": limit,
        }
        return list(map(_entry_of, self._database.read("schedule_log", bounds)))

    def fate(self, name: str, slot: int) -> list[Entry]:
        """See the protocol."""
        rows = self._database.read("fate_of_slot", {"name": name, "slot": slot})
        return list(map(_entry_of, rows))

    def prune(self, before: int, limit: int) -> int:
        """See the protocol."""
        bounds: dict[str, Value] = {"before": before, "limit": limit}
        return self._database.write(lambda: self._database.run("prune_schedule_log", bounds))

    def defects(self) -> list[str]:
        """Say which rows do not stand at the end of their logs."""
        return [
            f"schedule {name}: its row is at {seq}, its log ends at {last}"
            for name, seq, last in self._database.read("broken_schedules", {})
        ]


def _values_of(record: ScheduleRecord) -> tuple[Value, ...]:
    return (
        record.tenant,
        record.name,
        record.task,
        _json(record.plan.as_data()),
        record.state,
        record.seq,
        int(record.is_declared),
        record.next_slot,
        record.next_at,
        record.waiting_slot,
        record.fired,
        record.last_slot,
        record.last_execution_id,
        record.created_at,
        record.updated_at,
        record.state_at,
        record.input,
        record.input_digest,
        _json(dict(record.options)),
        record.why,
    )


def _record_of(values: Sequence[object]) -> ScheduleRecord:
    columns: list[Any] = list(values)
    columns[3] = plan_of(msgspec.json.decode(str(columns[3])))
    columns[4] = ScheduleState(columns[4])
    columns[6] = bool(columns[6])
    columns[18] = msgspec.json.decode(str(columns[18]))
    return ScheduleRecord(*columns)


def _values_of_entry(tenant: int, name: str, entry: Entry) -> tuple[Value, ...]:
    return (
        tenant,
        name,
        entry.seq,
        entry.kind,
        entry.at,
        entry.actor,
        entry.slot,
        entry.until_slot,
        entry.execution_id,
        None if entry.data is None else _json(entry.data),
    )


def _entry_of(values: Sequence[object]) -> Entry:
    columns: list[Any] = list(values)
    columns[1] = ScheduleKind(columns[1])
    columns[7] = None if columns[7] is None else msgspec.json.decode(columns[7])
    return Entry(*columns)


def _json(value: Mapping[str, Any] | list[str]) -> str:
    return msgspec.json.encode(value).decode()
