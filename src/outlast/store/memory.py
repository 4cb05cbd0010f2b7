"""A store in memory, built from ``decide`` alone: the oracle the others are compared with.

It trusts nothing: the rows of a write are decided again from their events, so a writer that
brings rows the lifecycle would not have made is found out here. It keeps nothing on disk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from outlast.errors import InternalError
from outlast.lifecycle import (
    FINAL,
    BrokenLog,
    Event,
    Execution,
    Kind,
    Refusal,
    State,
    Transition,
    applied,
    apply,
    decide,
    events_of,
    fold,
)
from outlast.lifecycle.record import copy_of, event_of
from outlast.store.decisions import (
    crash_loop,
    due_events,
    is_answered,
    next_due,
    orphan_events,
    taken_answer,
)
from outlast.store.protocol import (
    STORED,
    Answer,
    Claimed,
    Create,
    Deliver,
    Filter,
    InboxEntry,
    Item,
    Lease,
    Verdict,
    WorkerRow,
    Write,
)


class MemoryStore:
    """All verbs of the protocol on dictionaries; not for several threads at once."""

    def __init__(self) -> None:
        self.url = "memory:"
        self._records: dict[str, Execution] = {}
        self._logs: dict[str, list[Transition]] = {}
        self._inboxes: dict[str, list[InboxEntry]] = {}
        self._keys: dict[str, str] = {}
        self._workers: dict[str, WorkerRow] = {}

    def commit(self, batch: Sequence[Item]) -> list[Answer]:
        """See the protocol."""
        broken: dict[str, str] = {}
        answers: dict[int, Answer] = {}
        order = sorted(range(len(batch)), key=lambda place: isinstance(batch[place], Deliver))
        for place in order:  # deliveries last: they see what the owners wrote
            answers[place] = self._one(batch[place], broken)
        return [answers[place] for place in range(len(batch))]

    def _one(self, item: Item, broken: dict[str, str]) -> Answer:
        if isinstance(item, Deliver):
            return self._deliver(item)
        id = item.after.id if isinstance(item, Create) else item.id
        if id in broken:
            return Answer(broken[id])
        answer = self._create(item) if isinstance(item, Create) else self._write(item)
        if answer.refused is not None:
            broken[id] = answer.refused
        return answer

    def _create(self, item: Create) -> Answer:
        key = item.after.key
        if key is not None and key in self._keys:
            return taken_answer(copy_of(self._records[self._keys[key]]), item)
        if item.after.id in self._records:
            return Answer("already_exists", copy_of(self._records[item.after.id]))
        try:
            record = fold(item.rows)
        except BrokenLog as error:
            return Answer("internal_error", error=InternalError(str(error)))
        if record != item.after:
            return Answer("internal_error", error=InternalError("the rows do not fold to the row"))
        self._records[record.id] = record
        self._logs[record.id] = list(item.rows)
        self._inboxes[record.id] = []
        if key is not None:
            self._keys[key] = record.id
        return Answer(None, copy_of(record))

    def _write(self, item: Write) -> Answer:
        record = self._records.get(item.id)
        if record is None:
            return Answer("no_execution")
        if record.state in FINAL:
            return Answer("already_final")
        if (record.fence, record.nonce, record.seq) != (item.fence, item.nonce, item.seq):
            return Answer("fenced")
        if item.inbox_seen is not None and record.inbox_count != item.inbox_seen:
            return Answer("moved")
        twin = copy_of(record)
        for row in item.rows:
            decision = decide(twin, event_of(row), row.at)
            if isinstance(decision, Refusal) or decision.transition != row:
                said = decision.code if isinstance(decision, Refusal) else "another row"
                return Answer("internal_error", error=InternalError(f"{row.kind}: {said}"))
            apply(twin, decision)
        expected = copy_of(record if item.after is None else item.after)
        expected.seq, expected.idle_claims, expected.inbox_seen = item.position
        expected.inbox_count = twin.inbox_count
        if twin != expected:
            return Answer("internal_error", error=InternalError("the rows do not fold to the row"))
        self._records[twin.id] = twin
        self._logs[twin.id].extend(item.rows)
        return STORED

    def _deliver(self, item: Deliver) -> Answer:
        record = self._records.get(item.execution_id)
        if record is None:
            return Answer("no_execution")
        inbox = self._inboxes[record.id]
        if any(entry.message.id == item.message.id for entry in inbox):
            return Answer(None, copy_of(record))
        if record.state in FINAL:
            return Answer("already_final", copy_of(record))
        if is_answered(item.message, (entry.message for entry in inbox)):
            return Answer("already_answered", copy_of(record))
        number = len(inbox) + 1
        twin = copy_of(record)
        twin.inbox_count = number
        rows: list[Transition] = []
        if not twin.is_leased:
            for event in events_of(twin, item.message, number):
                decision = decide(twin, event, item.now)
                if isinstance(decision, Refusal):
                    return Answer(decision.code, copy_of(record))
                rows.append(decision.transition)
                twin = applied(twin, decision)
        inbox.append(InboxEntry(number, item.message, item.now))
        self._records[twin.id] = twin
        self._logs[twin.id].extend(rows)
        return Answer(None, copy_of(twin))

    def claim(
        self, lease: Lease, tasks: Collection[str], limit: int, now: int, nonces: Sequence[bytes]
    ) -> list[Claimed]:
        """See the protocol."""
        queued = sorted(
            (record for record in self._records.values()
             if record.state is State.QUEUED and record.task in tasks),
            key=lambda record: (-record.priority, record.state_at, record.id),
        )
        claimed = []
        for record, nonce in zip(queued[:limit], nonces, strict=False):
            event = Event(Kind.CLAIM, "engine", nonce=nonce, data={"worker": lease.worker})
            twin = self._append(record, event, now)
            if crash_loop(twin, lease) is not None:
                self._append(twin, crash_loop(twin, lease), now)
                continue
            unseen = self._inboxes[twin.id][twin.inbox_seen :]
            claimed.append(Claimed(copy_of(twin), self._logs[twin.id][0], unseen))
        return claimed

    def _append(self, record: Execution, event: Event | None, now: int) -> Execution:
        assert event is not None
        decision = decide(record, event, now)
        assert not isinstance(decision, Refusal), decision
        twin = applied(record, decision)
        self._records[twin.id] = twin
        self._logs[twin.id].append(decision.transition)
        return twin

    def sweep(self, now: int, limit: int) -> tuple[int, int | None]:
        """See the protocol."""
        moved = 0
        for record in sorted(self._records.values(), key=lambda record: record.id):
            events = due_events(record, now)
            if not events or moved == limit:
                continue
            for event in events:
                record = self._append(record, event, now)
            moved += 1
        return moved, min(filter(None, map(next_due, self._records.values())), default=None)

    def recover(self, dead: Collection[str] | None, alive: str, now: int, limit: int) -> int:
        """See the protocol."""
        count = 0
        for record in list(self._records.values()):
            worker = record.worker
            if worker is None or worker == alive or (dead is not None and worker not in dead):
                continue
            if count == limit:
                break
            for event in orphan_events(record):
                record = self._append(record, event, now)
            count += 1
        return count

    def register(self, worker: WorkerRow) -> None:
        """See the protocol."""
        self._workers[worker.id] = worker

    def workers(self) -> list[WorkerRow]:
        """See the protocol."""
        return sorted(self._workers.values(), key=lambda row: -row.started_at)

    def get(self, ids: Sequence[str]) -> list[Execution | None]:
        """See the protocol."""
        return [copy_of(self._records[id]) if id in self._records else None for id in ids]

    def find(self, text: str, limit: int) -> list[str]:
        """See the protocol."""
        found = [id for id in sorted(self._records) if id.startswith(text) or id.endswith(text)]
        return found[:limit]

    def with_key(self, key: str) -> Execution | None:
        """See the protocol."""
        id = self._keys.get(key)
        return None if id is None else copy_of(self._records[id])

    def page(self, filter: Filter) -> list[Execution]:
        """See the protocol."""
        found: list[Execution] = []
        for id in sorted(self._records, reverse=True):
            record = self._records[id]
            if len(found) < filter.limit and _matches(record, filter):
                found.append(copy_of(record))
        return found

    def counts(self) -> dict[State, int]:
        """See the protocol."""
        counts: dict[State, int] = {}
        for record in self._records.values():
            if record.state not in FINAL:
                counts[record.state] = counts.get(record.state, 0) + 1
        return counts

    def log(self, id: str, after_seq: int = 0, limit: int = -1) -> list[Transition]:
        """See the protocol."""
        rows = self._logs.get(id, [])[after_seq:]
        return rows if limit < 0 else rows[:limit]

    def inbox(self, id: str, after: int = 0) -> list[InboxEntry]:
        """See the protocol."""
        return self._inboxes.get(id, [])[after:]

    def unread(self, worker: str) -> list[str]:
        """See the protocol."""
        return [
            record.id for record in self._records.values()
            if record.worker == worker and record.inbox_count > record.inbox_seen
        ]

    def verify(self) -> Verdict:
        """See the protocol."""
        verdict = Verdict()
        for id, record in self._records.items():
            verdict.executions += 1
            verdict.transitions += len(self._logs[id])
            verdict.messages += len(self._inboxes[id])
            folded = fold(self._logs[id])
            folded.inbox_count = record.inbox_count
            if folded != record:
                verdict.defects.append(f"{id}: its log does not fold to its row")
        return verdict

    def changed(self) -> bool:
        """See the protocol."""
        return False

    def close(self) -> None:
        """See the protocol."""


def _matches(record: Execution, filter: Filter) -> bool:
    return (
        (not filter.states or record.state in filter.states)
        and (filter.task is None or record.task == filter.task)
        and (filter.origin is None or record.origin == filter.origin)
        and (filter.input_digest is None or record.input_digest == filter.input_digest)
        and (filter.created_after is None or record.created_at >= filter.created_after)
        and (filter.before_id is None or record.id < filter.before_id)
    )
