"""The store on one SQLite file.

One connection writes, in whole batches; others read. A batch goes out as a few statements of many
rows each, as every statement costs a hand-over of the interpreter's lock and every row in Python a
good part of a microsecond more. The first statement compares what the owners knew with what is
stored and returns only what differs, so an expected refusal is an answer, never an error.

A guard of the database that fires is a bug above it: the transaction is rolled back whole and the
batch is run again item by item, so that only the guilty item is refused, with ``internal_error``.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

import apsw
import msgspec

from outlast.errors import InternalError, OutlastError
from outlast.lifecycle import (
    FINAL,
    BrokenLog,
    Event,
    Execution,
    Kind,
    Message,
    MessageKind,
    Refusal,
    State,
    Transition,
    applied,
    decide,
    events_of,
    fold,
)
from outlast.lifecycle.record import copy_of
from outlast.store.decisions import (
    crash_loop,
    due_events,
    is_answered,
    orphan_events,
    taken_answer,
)
from outlast.store.protocol import (
    STORED,
    TENANT,
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
from outlast.store.sql import Statement, load
from outlast.store.sqlite.connect import immediate, open_reader, open_writer, translated
from outlast.store.sqlite.migrate import check_version, migrate
from outlast.store.sqlite.owner import OwnerLock
from outlast.store.sqlite.rows import (
    Value,
    changed_values_of,
    entry_of,
    execution_of,
    transition_of,
    values_of_execution,
    values_of_message,
    values_of_transition,
)

_SQL: Final = load("outlast.store.sqlite")
_CHUNKS: Final = (256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Rows a statement: powers of two, so that few texts are prepared and all stay in the cache."""


class SqliteStore:
    """All verbs of the protocol on one file.

    The writing verbs are for one thread; the reading ones may be called from any.
    """

    def __init__(self, path: Path, *, owner: str | None, now: int) -> None:
        """Open the file.

        Args:
            path: the file; made if it is not there.
            owner: the worker that will run executions, which takes the exclusive lock; None for a
                process that only reads, submits and delivers.
            now: the instant, for a migration's record.

        Raises:
            StoreOwned: another engine owns the file.
            SchemaMismatch, StoreBroken, StoreReadOnly, CannotLoad: it cannot be used.
        """
        self.url = f"sqlite:///{path}"
        self.path = path
        self._lock = OwnerLock(path) if owner is not None else None
        if self._lock is not None and owner is not None and path.parent.is_dir():
            self._lock.acquire(owner)
        try:
            self._writer = open_writer(path, owner=owner is not None)
            with translated(path):
                if owner is None:
                    check_version(self._writer, path)
                else:
                    migrate(self._writer, path, now)
            self._reader = open_reader(path)
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise
        self._reading = threading.Lock()
        self._data_version = self._read_data_version()

    # Writing

    def commit(self, batch: Sequence[Item]) -> list[Answer]:
        """See the protocol."""
        with translated(self.path):
            try:
                with immediate(self._writer):
                    return self._write_batch(batch)
            except (apsw.ConstraintError, InternalError):
                return self._one_by_one(batch)

    def _one_by_one(self, batch: Sequence[Item]) -> list[Answer]:
        """Find the guilty item of a batch that a guard refused; the others are stored."""
        answers = []
        for item in batch:
            try:
                with immediate(self._writer):
                    answers.extend(self._write_batch([item]))
            except (apsw.ConstraintError, InternalError) as error:
                found = self._records([item.after.id]) if isinstance(item, Create) else {}
                if found:
                    answers.append(Answer("already_exists", *found.values()))
                    continue
                said = error if isinstance(error, OutlastError) else InternalError(
                    f"a guard of the store refused an item: {error}", where=self.url
                )
                answers.append(Answer("internal_error", error=said))
        return answers

    def _write_batch(self, batch: Sequence[Item]) -> list[Answer]:
        """Write a batch inside the open transaction, heads first."""
        answers = [STORED] * len(batch)
        pending = _Pending()
        chains: dict[str, list[int]] = {}
        creates: list[int] = []
        deliveries: list[int] = []
        for place, item in enumerate(batch):
            if type(item) is Write:
                chains.setdefault(item.id, []).append(place)
            elif type(item) is Create:
                creates.append(place)
            else:
                deliveries.append(place)
        if creates:
            self._take_creates(batch, creates, chains, answers, pending)
        if chains:
            self._take_writes(batch, chains, answers, pending)
        if not deliveries:
            self._flush(pending)
            return answers
        self._flush(pending)
        pending = _Pending()
        self._take_deliveries(batch, deliveries, answers, pending)
        self._flush(pending)
        return answers

    def _take_creates(
        self, batch: Sequence[Item], places: list[int], chains: dict[str, list[int]],
        answers: list[Answer], pending: _Pending,
    ) -> None:
        keys = [
            item.after.key for item in map(batch.__getitem__, places)
            if isinstance(item, Create) and item.after.key is not None
        ]
        holders = {record.key: record for record in self._with_keys(keys)} if keys else {}
        for place in places:
            item = batch[place]
            assert isinstance(item, Create)
            record = item.after
            if record.key is not None:
                holder = holders.setdefault(record.key, record)
                if holder is not record:
                    answers[place] = taken_answer(holder, item)
                    continue
            answers[place] = Answer(None, record)
            pending.transitions.extend(item.rows)
            followers = chains.pop(record.id, None)
            if followers:  # it was born and moved on within one batch
                record = self._follow(batch, followers, record, answers, pending)
            pending.born.append(values_of_execution(record))

    def _follow(
        self, batch: Sequence[Item], places: list[int], record: Execution,
        answers: list[Answer], pending: _Pending,
    ) -> Execution:
        """Take the writes that continue a record written in this very batch."""
        broken: str | None = None
        for place in places:
            item = batch[place]
            assert isinstance(item, Write)
            known = (item.fence, item.nonce, item.seq) == (record.fence, record.nonce, record.seq)
            broken = broken or (None if known else "fenced")
            if broken:
                answers[place] = Answer(broken)
                continue
            pending.transitions.extend(item.rows)
            if item.after is not None:
                record = item.after
            record.seq, record.idle_claims, record.inbox_seen = item.position
        return record

    def _take_writes(
        self, batch: Sequence[Item], chains: dict[str, list[int]], answers: list[Answer],
        pending: _Pending,
    ) -> None:
        heads: list[Value] = []
        for id, places in chains.items():
            first, last = batch[places[0]], batch[places[-1]]
            assert isinstance(first, Write) and isinstance(last, Write)
            heads += (places[0], id, first.fence, first.nonce, first.seq, last.inbox_seen)
        refused = self._query("refused_heads", heads)
        for place, state, fence, nonce, seq, inbox_count in refused:
            first = batch[place]  # type: ignore[index]
            assert isinstance(first, Write)
            chain = chains[first.id]
            same = (fence, nonce, seq) == (first.fence, first.nonce, first.seq)
            code = (
                "no_execution" if state is None
                else "already_final" if state in FINAL
                else "moved" if same else "fenced"
            )
            kept = chain[:-1] if code == "moved" else []
            for late in chain[len(kept):]:
                answers[late] = Answer(code)
            if kept:
                chains[first.id] = kept
            else:
                del chains[first.id]
        for places in chains.values():
            self._take_chain(batch, places, answers, pending)

    def _take_chain(
        self, batch: Sequence[Item], places: list[int], answers: list[Answer], pending: _Pending
    ) -> None:
        """Take the writes of one execution, in order, and leave its row once."""
        fence, nonce, seq = None, None, None
        after: Execution | None = None
        position = (0, 0, 0)
        broken = False
        for place in places:
            item = batch[place]
            assert isinstance(item, Write)
            if seq is not None and (item.fence, item.nonce, item.seq) != (fence, nonce, seq):
                broken = True
            if broken:
                answers[place] = Answer("fenced")
                continue
            pending.transitions.extend(item.rows)
            position = item.position
            fence, nonce, seq = item.fence, item.nonce, position[0]
            if item.after is not None:
                after = item.after
                fence, nonce = after.fence, after.nonce
        item = batch[places[0]]
        assert isinstance(item, Write)
        if after is None:
            pending.moved.append((item.id, *position))
        else:
            after.seq, after.idle_claims, after.inbox_seen = position
            pending.saved.append(changed_values_of(after))

    def _take_deliveries(
        self, batch: Sequence[Item], places: list[int], answers: list[Answer], pending: _Pending
    ) -> None:
        ids = {item.execution_id for item in map(batch.__getitem__, places)
               if isinstance(item, Deliver)}
        records = self._records(ids)
        touched: dict[str, bool] = {}
        fresh: dict[str, list[Message]] = {}
        for place in places:
            item = batch[place]
            assert isinstance(item, Deliver)
            record = records.get(item.execution_id)
            if record is None:
                answers[place] = Answer("no_execution")
                continue
            message = item.message
            earlier = [*self._earlier(record.id, message), *fresh.get(record.id, ())]
            if any(other.id == message.id for other in earlier):
                answers[place] = Answer(None, record)
            elif record.state in FINAL:
                answers[place] = Answer("already_final", record)
            elif is_answered(message, earlier):
                answers[place] = Answer("already_answered", record)
            else:
                decided = _delivered(record, item)
                if isinstance(decided, Refusal):
                    answers[place] = Answer(decided.code, record)
                    continue
                after, rows = decided
                records[record.id] = after
                fresh.setdefault(record.id, []).append(message)
                entry = InboxEntry(after.inbox_count, message, item.now)
                pending.messages.append(values_of_message(TENANT, record.id, entry))
                pending.transitions.extend(rows)
                touched[record.id] = touched.get(record.id, False) or bool(rows)
                answers[place] = Answer(None, after)
        for id, changed in touched.items():
            pending.counted.append((id, records[id].inbox_count))
            if changed:
                pending.saved.append(changed_values_of(records[id]))

    def _earlier(self, id: str, message: Message) -> list[Message]:
        found = self._writer.execute(
            _SQL["earlier_messages"].text,
            {"execution_id": id, "id": message.id, "key": message.key},
        ).fetchall()
        return [Message(row[0], MessageKind(row[1]), "", row[2]) for row in found]

    def claim(
        self, lease: Lease, tasks: Collection[str], limit: int, now: int, nonces: Sequence[bytes]
    ) -> list[Claimed]:
        """See the protocol."""
        with translated(self.path), immediate(self._writer):
            queued = self._writer.execute(
                _SQL["queued_executions"].text,
                {"tasks": msgspec.json.encode(sorted(tasks)).decode(), "limit": limit},
            ).fetchall()
            pending = _Pending()
            claimed = []
            for values, nonce in zip(queued, nonces, strict=False):
                record = execution_of(values)
                event = Event(Kind.CLAIM, "engine", nonce=nonce, data={"worker": lease.worker})
                after = self._decide(record, event, now, pending)
                loop = crash_loop(after, lease)
                if loop is not None:
                    after = self._decide(after, loop, now, pending)
                else:
                    claimed.append(after)
                pending.saved.append(changed_values_of(after))
            self._flush(pending)
            births = {
                row.execution_id: row
                for row in map(transition_of, self._query("births", [record.id for record in claimed]))
            }
            return [
                Claimed(record, births[record.id], self._unseen(record)) for record in claimed
            ]

    def _unseen(self, record: Execution) -> list[InboxEntry]:
        if record.inbox_count == record.inbox_seen:
            return []
        found = self._writer.execute(
            _SQL["inbox"].text, {"id": record.id, "after": record.inbox_seen}
        ).fetchall()
        return list(map(entry_of, found))

    def sweep(self, now: int, limit: int) -> tuple[int, int | None]:
        """See the protocol."""
        bounds = {"now": now, "limit": limit}
        with translated(self.path):
            (due_at, deadline_at), = self._writer.execute(_SQL["next_due"].text).fetchall()
            if min((t for t in (due_at, deadline_at) if t is not None), default=now + 1) > now:
                return 0, min((t for t in (due_at, deadline_at) if t is not None), default=None)
            with immediate(self._writer):
                found = {
                    str(values[1]): execution_of(values)
                    for name in ("due_executions", "overdue_executions")
                    for values in self._writer.execute(_SQL[name].text, bounds)
                }
                pending = _Pending()
                for record in found.values():
                    self._append(record, due_events(record, now), now, pending)
                self._flush(pending)
            (due_at, deadline_at), = self._writer.execute(_SQL["next_due"].text).fetchall()
            return len(found), min((t for t in (due_at, deadline_at) if t is not None), default=None)

    def recover(self, dead: Collection[str] | None, alive: str, now: int, limit: int) -> int:
        """See the protocol."""
        names = None if dead is None else msgspec.json.encode(sorted(dead)).decode()
        with translated(self.path), immediate(self._writer):
            found = self._writer.execute(
                _SQL["leased_executions"].text, {"alive": alive, "dead": names, "limit": limit}
            ).fetchall()
            pending = _Pending()
            for record in map(execution_of, found):
                self._append(record, orphan_events(record), now, pending)
            self._flush(pending)
            return len(found)

    def register(self, worker: WorkerRow) -> None:
        """See the protocol."""
        with translated(self.path):
            self._writer.execute(
                _SQL["put_worker"].text,
                (worker.id, worker.host, worker.pid, worker.started_at, worker.seen_at),
            )

    def _append(
        self, record: Execution, events: Iterable[Event], now: int, pending: _Pending
    ) -> None:
        for event in events:
            record = self._decide(record, event, now, pending)
        pending.saved.append(changed_values_of(record))

    def _decide(
        self, record: Execution, event: Event, now: int, pending: _Pending
    ) -> Execution:
        decision = decide(record, event, now)
        if isinstance(decision, Refusal):
            raise InternalError(f"{event.kind} was refused: {decision.code}", where=record.id)
        pending.transitions.append(decision.transition)
        return applied(record, decision)

    def _flush(self, pending: _Pending) -> None:
        """Send what a transaction has gathered: rows of logs first, as the guards look at them."""
        self._send("insert_transitions", [values_of_transition(row) for row in pending.transitions])
        self._send("insert_executions", pending.born)
        self._send("move_executions", pending.moved)
        self._send("insert_messages", pending.messages)
        self._send("count_messages", pending.counted)
        self._send("save_executions", pending.saved)

    def _send(self, name: str, rows: Sequence[tuple[Value, ...]]) -> None:
        statement = _SQL[name]
        done = 0
        while done < len(rows):
            size = next(chunk for chunk in _CHUNKS if chunk <= len(rows) - done)
            values = [value for row in rows[done : done + size] for value in row]
            self._writer.execute(statement.many(size), values)
            done += size

    def _query(self, name: str, values: Sequence[Value]) -> list[tuple[object, ...]]:
        """Ask with many rows of parameters, on the writer's connection."""
        return _ask(self._writer, _SQL[name], values)

    def _records(self, ids: Iterable[str]) -> dict[str, Execution]:
        rows = self._query("executions_by_id", list(ids))
        return {record.id: record for record in map(execution_of, rows)}

    def _with_keys(self, keys: Sequence[str]) -> list[Execution]:
        return list(map(execution_of, self._query("executions_by_key", keys)))

    # Reading

    def workers(self) -> list[WorkerRow]:
        """See the protocol."""
        return [WorkerRow(*row) for row in self._read("workers", {})]  # type: ignore[arg-type]

    def get(self, ids: Sequence[str]) -> list[Execution | None]:
        """See the protocol."""
        with translated(self.path), self._reading:
            rows = _ask(self._reader, _SQL["executions_by_id"], ids)
        found = {record.id: record for record in map(execution_of, rows)}
        return [found.get(id) for id in ids]

    def find(self, text: str, limit: int) -> list[str]:
        """See the protocol."""
        bounds = {"text": text, "limit": limit}
        rows = self._read("ids_beginning", bounds) or self._read("ids_ending", bounds)
        return [str(row[0]) for row in rows]

    def with_key(self, key: str) -> Execution | None:
        """See the protocol."""
        with translated(self.path), self._reading:
            rows = _ask(self._reader, _SQL["executions_by_key"], [key])
        return execution_of(rows[0]) if rows else None

    def page(self, filter: Filter) -> list[Execution]:
        """See the protocol."""
        states = msgspec.json.encode(filter.states).decode() if filter.states else None
        rows = self._read(
            "executions_page",
            {
                "before_id": filter.before_id or "~", "states": states, "task": filter.task,
                "origin": filter.origin, "input_digest": filter.input_digest,
                "created_after": filter.created_after, "limit": filter.limit,
            },
        )
        return list(map(execution_of, rows))

    def counts(self) -> dict[State, int]:
        """See the protocol."""
        return {State(str(state)): int(str(count)) for state, count in self._read("open_counts", {})}

    def log(self, id: str, after_seq: int = 0, limit: int = -1) -> list[Transition]:
        """See the protocol."""
        rows = self._read("log", {"id": id, "after": after_seq, "limit": limit})
        return list(map(transition_of, rows))

    def inbox(self, id: str, after: int = 0) -> list[InboxEntry]:
        """See the protocol."""
        return list(map(entry_of, self._read("inbox", {"id": id, "after": after})))

    def unread(self, worker: str) -> list[str]:
        """See the protocol."""
        return [str(row[0]) for row in self._read("unread_executions", {"worker": worker})]

    def verify(self) -> Verdict:
        """See the protocol."""
        verdict = Verdict()
        with translated(self.path), self._reading:
            for (said,) in self._reader.execute("PRAGMA integrity_check(10)"):
                if said != "ok":
                    verdict.defects.append(f"the file: {said}")
            (orphans,), = self._reader.execute(_SQL["orphan_logs"].text).fetchall()
            if orphans:
                verdict.defects.append(f"{orphans} logs have no execution")
            ids = [id for (id,) in self._reader.execute(_SQL["all_ids"].text)]
        for id in ids:
            self._verify_one(id, verdict)
        return verdict

    def _verify_one(self, id: str, verdict: Verdict) -> None:
        (record,) = self.get([id])
        rows, entries = self.log(id), self.inbox(id)
        if record is None or len(rows) != record.seq:
            (record,) = self.get([id])  # it moved on between the reads
            rows = self.log(id)[: record.seq if record is not None else None]
        verdict.executions += 1
        verdict.transitions += len(rows)
        verdict.messages += len(entries)
        try:
            folded = fold(rows)
        except BrokenLog as error:
            verdict.defects.append(f"{id}: {error}")
            return
        if record is None:
            verdict.defects.append(f"{id}: its row is gone")
            return
        folded.inbox_count = record.inbox_count
        if folded != record:
            verdict.defects.append(f"{id}: its log does not fold to its row")
        if len(entries) < record.inbox_count:
            verdict.defects.append(f"{id}: its row counts {record.inbox_count} messages, not {len(entries)}")

    def changed(self) -> bool:
        """See the protocol."""
        version = self._read_data_version()
        changed, self._data_version = version != self._data_version, version
        return changed

    def _read_data_version(self) -> object:
        """The writer's connection sees a new number when another connection has committed."""
        with translated(self.path):
            return self._writer.pragma("data_version")

    def _read(self, name: str, bounds: dict[str, Value]) -> list[tuple[object, ...]]:
        with translated(self.path), self._reading:
            return self._reader.execute(_SQL[name].text, bounds).fetchall()

    def close(self) -> None:
        """See the protocol."""
        with translated(self.path), self._reading:
            self._reader.close()
            self._writer.close()
        if self._lock is not None:
            self._lock.release()


class _Pending:
    """What a transaction has gathered, by table and shape."""

    __slots__ = ("born", "counted", "messages", "moved", "saved", "transitions")

    def __init__(self) -> None:
        self.transitions: list[Transition] = []
        self.born: list[tuple[Value, ...]] = []
        self.moved: list[tuple[Value, ...]] = []
        self.saved: list[tuple[Value, ...]] = []
        self.messages: list[tuple[Value, ...]] = []
        self.counted: list[tuple[Value, ...]] = []


def _delivered(
    record: Execution, item: Deliver
) -> tuple[Execution, list[Transition]] | Refusal:
    """Decide what a message does to a record; while it is leased, only its inbox grows."""
    number = record.inbox_count + 1
    after = copy_of(record)
    after.inbox_count = number
    rows: list[Transition] = []
    if not record.is_leased:
        for event in events_of(after, item.message, number):
            decision = decide(after, event, item.now)
            if isinstance(decision, Refusal):
                return decision
            rows.append(decision.transition)
            after = applied(after, decision)
    return after, rows




def _ask(
    connection: apsw.Connection, statement: Statement, values: Sequence[Value]
) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    done = 0
    width = statement.columns
    total = len(values) // width
    while done < total:
        size = next(chunk for chunk in _CHUNKS if chunk <= total - done)
        part = values[done * width : (done + size) * width]
        found += connection.execute(statement.many(size), part).fetchall()
        done += size
    return found
