"""The store on one SQLite file.

One connection writes, in whole batches; others read. A batch goes out as a few statements of many
rows each, as every statement costs a hand-over of the interpreter's lock and every row in Python a
good part of a microsecond more. The first statement compares what the owners knew with what is
stored and returns only what differs, so an expected refusal is an answer, never an error.

A guard of the database that fires is a bug above it: the transaction is rolled back whole and the
batch is run again item by item, so that only the guilty item is refused, with ``internal_error``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain as chained
from pathlib import Path
from typing import Final

import apsw
import msgspec

from outlast.budget import charged_by
from outlast.errors import InternalError, OutlastError, SchemaMismatch, StoreBroken
from outlast.lifecycle import (
    FINAL,
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
)
from outlast.lifecycle.gate import BUDGET
from outlast.lifecycle.record import COLUMNS, continued_as, copy_of
from outlast.store.books import Losses, Paying, budgets_of, tell, that_fit
from outlast.store.decisions import (
    Errand,
    crash_loop,
    deliver,
    descent_of,
    due_events,
    edges_of,
    orphan_events,
    take_as_owner,
    take_backlog,
    taken_answer,
    unclaimed,
    verify_charges,
    verify_one,
    word_to_parent,
)
from outlast.store.protocol import (
    STORED,
    TENANT,
    Adjust,
    Answer,
    BudgetEvent,
    BudgetRow,
    Claimed,
    Claims,
    Create,
    Deliver,
    Descent,
    Emission,
    Ended,
    Filter,
    InboxEntry,
    Item,
    Lease,
    ProgressRow,
    Reservation,
    Reserve,
    StreamHead,
    StreamItem,
    Verdict,
    WorkerRow,
    Write,
)
from outlast.store.sql import KEPT_ROWS_MAX, Statement, load
from outlast.store.sqlite.budgets import (
    budget_of,
    event_of,
    read_books,
    read_reservations,
    reservation_of,
    take_charges,
    take_money,
    values_of,
    write_books,
)
from outlast.store.sqlite.capacity import SqliteCapacity
from outlast.store.sqlite.connect import (
    check_path,
    copy_to,
    immediate,
    open_reader,
    open_writer,
    settle,
    snapshot,
    translated,
)
from outlast.store.sqlite.migrate import inspect, migrate
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
from outlast.store.sqlite.schedules import SqliteSchedules
from outlast.store.sqlite.streams import item_of, progress_of, write_emissions, write_progress

_SQL: Final = load("outlast.store.sqlite")
_WIDTH: Final = len(COLUMNS)
_TURN: Final = {Create: 0, Write: 1, Reserve: 1, Adjust: 1, Deliver: 2}
"""The order within a batch: deliveries last, as they are decided on what the owners wrote."""
_VERIFIED_AT_ONCE: Final = 200
_LOG_AT_ONCE: Final = 500
_FAULTS: Final = (
    apsw.ConstraintError,
    apsw.TooBigError,
    apsw.MismatchError,
    InternalError,
    AssertionError,
    TypeError,
    ValueError,
    OverflowError,
    msgspec.MsgspecError,
)
"""What one item can do to its batch: a guard that fires, or a value no column can hold."""


class _TwoLeases(Exception):
    """A batch has writes of two leases of one execution: they are judged item by item."""


class SqliteStore:
    """All verbs of the protocol on one file.

    The writing verbs are for one thread; the reading ones may be called from any.
    """

    def __init__(self, path: Path, *, owner: str | None, now: int, upgrade: bool = False) -> None:
        """Open the file.

        Args:
            path: the file; an owner makes it if it is not there.
            owner: the worker that will run executions, which takes the exclusive lock; None for a
                process that only reads, submits and delivers.
            now: the instant, for a migration's record.
            upgrade: bring an older schema to this code's version; an owner only.

        Raises:
            StoreOwned: another engine owns the file.
            SchemaMismatch, StoreBroken, StoreReadOnly, CannotLoad: it cannot be used; it was left
                as it is.
        """
        self.url = f"sqlite:///{path}"
        self.path = path
        check_path(path)
        if owner is None and not path.exists():
            raise SchemaMismatch(f"{path} does not exist yet", do="outlast db init")
        self._lock = OwnerLock(path) if owner is not None else None
        with translated(path):
            self._writer = open_writer(path)
            try:
                inspect(self._writer, path, owner=owner is not None, upgrade=upgrade)
                if self._lock is not None and owner is not None:
                    self._lock.acquire(owner)
                settle(self._writer, owner=owner is not None)
                if owner is not None:
                    migrate(self._writer, path, now, upgrade=upgrade)
                self._reader = open_reader(path)
            except BaseException:
                self._writer.close()
                if self._lock is not None:
                    self._lock.release()
                raise
        self._file = path.resolve()
        self._identity = _identity(self._file)
        self._reading = threading.Lock()
        self.schedules = SqliteSchedules(self)
        self.capacity = SqliteCapacity(self)
        self._data_version = self._read_data_version()

    # Writing

    def commit(self, batch: Sequence[Item]) -> list[Answer]:
        """See the protocol."""
        self._see_file()
        with translated(self.path):
            try:
                with immediate(self._writer):
                    return self._write_batch(batch)
            except (_TwoLeases, *_FAULTS):
                return self._one_by_one(batch)

    def _see_file(self) -> None:
        """See that what is written goes into a file that can be found again.

        Raises:
            StoreBroken: somebody has deleted or replaced it; SQLite would go on without a word.
        """
        if _identity(self._file) != self._identity:
            raise StoreBroken(
                "the file was deleted or replaced while it was open",
                where=str(self.path),
                why="what is written into it now could never be found again",
                do="stop this process; put the file back, or begin with a new one",
            )

    def _one_by_one(self, batch: Sequence[Item]) -> list[Answer]:
        """Find the guilty item of a batch that a guard refused; the others are stored."""
        answers: dict[int, Answer] = {}
        broken: dict[tuple[str, int], str] = {}
        for place in sorted(range(len(batch)), key=lambda place: _TURN[type(batch[place])]):
            item = batch[place]
            id, fence = _id_of(item), _fence_of(item)
            if (id, fence) in broken and isinstance(item, Write):
                answers[place] = Answer(broken[id, fence])
                continue
            try:
                with immediate(self._writer):
                    (answer,) = self._write_batch([item])
            except _FAULTS as fault:
                said = (
                    fault
                    if isinstance(fault, OutlastError)
                    else InternalError(
                        f"a guard of the store refused an item: {fault}", where=f"{self.url}, {id}"
                    )
                )
                answer = Answer("internal_error", error=said)
            # What follows a create of something that exists is judged by what is stored.
            breaks = isinstance(item, Write) or (
                isinstance(item, Create) and not self._records([id])
            )
            if answer.refused is not None and breaks:
                broken[id, fence] = answer.refused
            answers[place] = answer
        return [answers[place] for place in range(len(batch))]

    def _write_batch(self, batch: Sequence[Item]) -> list[Answer]:
        """Write a batch inside the open transaction: heads first, deliveries last."""
        answers = [STORED] * len(batch)
        pending = _Pending()
        creates: list[tuple[int, Create]] = []
        chains: dict[str, list[tuple[int, Write]]] = {}
        deliveries: list[tuple[int, Deliver]] = []
        paying: list[tuple[int, Paying]] = []
        for place, item in enumerate(batch):
            if isinstance(item, Write):
                if item.charge is not None:
                    paying.append((place, item))
                if item.id in chains:
                    if chains[item.id][0][1].fence != item.fence:
                        raise _TwoLeases  # the refusal of one must not fall on the other
                    chains[item.id].append((place, item))
                else:
                    chains[item.id] = [(place, item)]
            elif isinstance(item, Create):
                creates.append((place, item))
            elif isinstance(item, Deliver):
                deliveries.append((place, item))
            else:
                paying.append((place, item))
        if creates:
            self._take_creates(creates, chains, answers, pending)
        if chains:
            self._take_writes(chains, answers, pending)
        if pending.births:
            self._take_births(batch, answers, pending)
        self._flush(pending)
        ended = pending.ended
        for send in pending.sends:
            deliveries.append((len(answers), send))
            answers.append(STORED)  # nobody asks what became of it
        words = take_money(self, paying, answers) if paying else ()
        for place, (_, word) in enumerate(words, len(answers)):
            deliveries.append((place, word))
        told = len(answers)
        answers += [STORED] * len(words)
        if deliveries:
            pending = _Pending()
            self._take_deliveries(deliveries, answers, pending)
            self._flush(pending)
            ended += pending.ended
        for place, (origin, _) in enumerate(words, told):
            tell(answers[origin], answers[place])
        if ended:
            self._conclude(ended, answers)
        return answers[: len(batch)]

    def _take_creates(
        self,
        creates: list[tuple[int, Create]],
        chains: dict[str, list[tuple[int, Write]]],
        answers: list[Answer],
        pending: _Pending,
    ) -> None:
        keys = [item.after.key for _, item in creates if item.after.key is not None]
        holders = {record.key: record for record in self._with_keys(keys)} if keys else {}
        ids = [item.after.id for _, item in creates]
        taken, controlled = self._taken(ids)
        records = self._records(taken)
        upstream = self._upstream(creates)
        for place, sent in creates:
            item = unclaimed(sent, controlled)
            record = item.after
            holder = holders.get(record.key) if record.key is not None else None
            if holder is not None:
                answers[place] = taken_answer(holder, item)
            elif record.id in records:
                answers[place] = Answer("already_exists", records[record.id])
            elif "waits_on" in (item.rows[0].data or ()) and not self._depend(
                item, upstream, records, pending
            ):
                answers[place] = Answer("no_upstream")
            else:
                answers[place] = Answer(None, record, unclaimed=() if item is sent else [record.id])
            if record.id in records:
                continue  # what follows is judged by what is stored
            followers = chains.pop(record.id, ()) if chains else ()
            refused = answers[place].refused
            if refused is not None:
                for late, _ in followers:
                    answers[late] = Answer(refused)
                continue
            records[record.id] = record
            if record.key is not None:
                holders[record.key] = record
            pending.transitions += item.rows
            descent = descent_of(item.rows[0])
            if descent is not None:
                pending.descents.append((descent.id, descent.source_id, descent.mode, descent.step))
            if "budget" in (item.rows[0].data or ()):
                pending.budgets += budgets_of(item.rows[0])
            if followers:  # it was born and moved on within one batch
                head = (record.fence, record.nonce, record.seq, 0)
                after, position = _take_chain(followers, head, answers, pending)
                if position is not None:
                    record = _moved(after or record, position)
            pending.born.append(values_of_execution(record))

    def _take_births(self, batch: Sequence[Item], answers: list[Answer], pending: _Pending) -> None:
        """See whether what is born with other executions' rows may be born with its claim."""
        _, controlled = self._taken([birth.after.id for birth in pending.births])
        changed: set[str] = set()
        for place, birth in enumerate(pending.births):
            pending.births[place] = unclaimed(birth, controlled)
            if pending.births[place] is not birth:
                changed.add(birth.after.id)
        for place, item in enumerate(batch):
            if changed and isinstance(item, Write) and answers[place].refused is None:
                ids = [birth.after.id for birth in item.births if birth.after.id in changed]
                answers[place] = Answer(unclaimed=ids) if ids else answers[place]

    def _taken(self, ids: Sequence[str]) -> tuple[set[str], set[str]]:
        """Give which executions exist already, and which queues have rules."""
        found = self._query("taken_ids", ids)
        rules = [one for one in found if one[1] is not None or one[2] is not None]
        queues = {str(name) for name, *_ in rules}
        return {str(id) for id, *_ in found} - queues, queues

    def _upstream(self, creates: list[tuple[int, Create]]) -> dict[str, Execution]:
        """Read the executions that new ones depend on, and those as which they went on."""
        wanted = {id for _, item in creates for id in edges_of(item.rows[0])}
        found: dict[str, Execution] = {}
        while wanted:
            records = self._records(wanted)
            found.update(records)
            wanted = {name for record in records.values() if (name := continued_as(record))}
            wanted -= found.keys()
        return found

    def _depend(
        self,
        item: Create,
        upstream: Mapping[str, Execution],
        born: Mapping[str, Execution],
        pending: _Pending,
    ) -> bool:
        """Note whom a new execution waits for; gives whether all of them are there."""
        ids = edges_of(item.rows[0])
        for id in ids:
            other = watched = upstream.get(id) or born.get(id)
            while watched is not None and (name := continued_as(watched)) is not None:
                watched = upstream.get(name)
            if other is None or watched is None:
                return False
            if watched.is_final:
                errand = Errand(item.after.id, "upstream", id, watched.state)
                pending.sends.append(errand.delivery(item.rows[0].at))
            else:
                pending.edges.append((item.after.id, id, watched.id))
        return True

    def _take_writes(
        self, chains: dict[str, list[tuple[int, Write]]], answers: list[Answer], pending: _Pending
    ) -> None:
        heads: list[Value] = []
        for id, chain in chains.items():
            item = chain[0][1]
            seen = item.inbox_seen
            if len(chain) > 1:
                seen = next((i.inbox_seen for _, i in chain if i.inbox_seen is not None), None)
            heads += (id, item.fence, item.nonce, item.seq, seen)
        counts: dict[str, int] = {}
        for found in self._query("refused_heads", heads):
            refused_id, state, fence, nonce, seq, count = found
            chain = chains[str(refused_id)]
            item = chain[0][1]
            if (fence, nonce, seq) == (item.fence, item.nonce, item.seq) and state not in FINAL:
                counts[item.id] = int(
                    str(count)
                )  # what came before the item that gives up may stay
                continue
            refused = (
                "no_execution" if state is None else "already_final" if state in FINAL else "fenced"
            )
            for place, _ in chain:
                answers[place] = Answer(refused)
            del chains[item.id]
        for name, chain in chains.items():
            item = chain[0][1]
            head = (item.fence, item.nonce, item.seq, counts.get(name))
            after, position = _take_chain(chain, head, answers, pending)
            if after is not None and position is not None:
                pending.saved.append(changed_values_of(_moved(after, position)))
            elif position is not None:
                pending.moved.append((name, *position))

    def _take_deliveries(
        self, deliveries: list[tuple[int, Deliver]], answers: list[Answer], pending: _Pending
    ) -> None:
        records = self._records({item.execution_id for _, item in deliveries})
        earlier = self._earlier(deliveries)
        moved: dict[str, bool] = {}
        for place, item in deliveries:
            record = records.get(item.execution_id)
            if record is None:
                answers[place] = Answer("no_execution")
                continue
            known = earlier.setdefault(record.id, [])
            # An owner's inbox is its own; nobody's has been taken in, but for a lost owner's.
            backlog = [] if record.is_leased else self._unseen(record)
            delivery = deliver(record, item, known, backlog)
            answers[place] = Answer(delivery.refused, delivery.after, entry=delivery.entry)
            pending.end(delivery.after, delivery.rows, place)
            records[record.id] = delivery.after
            pending.transitions += delivery.rows
            if delivery.entry is not None:
                known.append(item.message)
                pending.messages.append(values_of_message(TENANT, record.id, delivery.entry))
            if delivery.rows or delivery.entry is not None:
                moved[record.id] = moved.get(record.id, False) or bool(delivery.rows)
        ending = {id for id, changed in moved.items() if changed and records[id].is_final}
        if ending:
            pending.losses.look(read_reservations(self, ending))
            pending.losses.see(row for row in pending.transitions if row.execution_id in ending)
        for id, changed in moved.items():
            pending.counted.append((id, records[id].inbox_count))
            if changed:
                pending.saved.append(changed_values_of(records[id]))

    def _conclude(self, ended: Sequence[_End], answers: list[Answer]) -> None:
        """Tell the parents of what has ended, and note what it owes to others."""
        words = [(end, word) for end in ended if (word := word_to_parent(end.record, end.last))]
        if words:
            told = [STORED] * len(words)
            pending = _Pending()
            places = [(place, word) for place, (_, word) in enumerate(words)]
            self._take_deliveries(places, told, pending)
            self._flush(pending)
            for (end, _), answer in zip(words, told, strict=True):
                if answer.entry is not None and answer.execution is not None:
                    end.answer(answers).told = [(answer.execution, answer.entry)]
        for end in ended:
            successor = continued_as(end.record)
            if successor is not None:
                bounds = {"id": end.record.id, "successor": successor}
                self._writer.execute(_SQL["watch_successor"].text, bounds)
        before = self._writer.total_changes()
        rows = [(end.record.id, end.record.state, end.record.children) for end in ended]
        self._send("insert_errands", rows)
        if self._writer.total_changes() > before:
            for end in ended:
                end.answer(answers).owes = True

    def _run_errands(self, now: int, limit: int) -> int:
        """Deliver what executions that have ended owe; gives how many errands were run."""
        found = _all(self._writer, "errands", {"limit": limit})
        if not found:
            return 0
        errands = [Errand(*map(str, columns[1:])).delivery(now) for columns in found]
        pending = _Pending()
        answers = [STORED] * len(errands)
        self._take_deliveries(list(enumerate(errands)), answers, pending)
        self._flush(pending)
        self._conclude(pending.ended, answers)
        bounds = {"number": int(str(found[-1][0]))}
        self._writer.execute(_SQL["end_errands"].text, bounds)
        return len(found)

    def _earlier(self, deliveries: list[tuple[int, Deliver]]) -> dict[str, list[Message]]:
        """Find the messages that have the id of one to come, or answer its question."""
        wanted: list[Value] = []
        for _, item in deliveries:
            wanted += (item.execution_id, item.message.id, item.message.key)
        earlier: dict[str, list[Message]] = {}
        for execution_id, id, kind, key in self._query("earlier_messages", wanted):
            message = Message(str(id), MessageKind(str(kind)), "", key)  # type: ignore[arg-type]
            earlier.setdefault(str(execution_id), []).append(message)
        return earlier

    def claim(
        self,
        lease: Lease,
        tasks: Collection[str],
        limit: int,
        now: int,
        nonces: Sequence[bytes],
        versions: Collection[tuple[str, str]] = (),
    ) -> Claims:
        """See the protocol."""
        claims = Claims()
        limit = min(limit, len(nonces))
        known: dict[str, Value] = {
            "tasks": _json(sorted(tasks)),
            "versions": _json(sorted(f"{task}\x1f{version}" for task, version in versions)),
        }
        self._see_file()
        with translated(self.path), immediate(self._writer):
            pending = _Pending()
            part = self.capacity.claim(partial(_all, self._writer), lease, now)
            waiting = part.candidates(limit, known)
            drawn = iter(nonces)
            for record, events in part.desk.admit(waiting, limit):
                if events:
                    after = self._append(record, events, now, pending)
                    part.blocked(after)
                    pending.saved.append(changed_values_of(after))
                    continue
                worker = {"worker": lease.worker}
                event = Event(Kind.CLAIM, "engine", nonce=next(drawn), data=worker)
                after = self._decide(record, event, now, pending)
                unseen = self._unseen(after)
                if crash_loop(after, lease) is not None:
                    after, rows = take_as_owner(after, unseen, now)
                    pending.transitions += rows
                    loop = crash_loop(after, lease)
                    assert loop is not None
                    after = self._decide(after, loop, now, pending)
                    part.desk.left(after)
                else:
                    claims.append(Claimed(after, transition_of(part.births[record.id]), unseen))
                pending.saved.append(changed_values_of(after))
            self._flush(pending)
            part.leave(self._send)
        part.tell(claims)
        return claims

    def _unseen(self, record: Execution) -> list[InboxEntry]:
        if record.inbox_count == record.inbox_seen:
            return []
        bounds: dict[str, Value] = {"id": record.id, "after": record.inbox_seen}
        return list(map(entry_of, _all(self._writer, "inbox", bounds)))

    def sweep(self, now: int, limit: int) -> tuple[int, int | None]:
        """See the protocol."""
        with translated(self.path):
            next_at = self._next_due(now)
            if next_at is None or next_at > now:
                return 0, next_at
            moved = 0
            with immediate(self._writer):
                while moved < limit and (some := self._sweep_some(now, limit - moved)):
                    moved += some  # what an errand lets go may be due at once
            return moved, self._next_due(now)

    def _sweep_some(self, now: int, limit: int) -> int:
        run = self._run_errands(now, limit)
        found: list[Execution] = []
        for name in ("overdue_executions", "unstarted_executions", "due_executions"):
            bounds = {"now": now, "limit": limit - run - len(found)}
            found += map(execution_of, _all(self._writer, name, bounds))
        pending = _Pending()
        overdue = {record.id for record in found if _is_overdue(record, now)}
        pending.losses.look(read_reservations(self, overdue))
        for record in found:
            after = self._append(record, due_events(record, now), now, pending)
            pending.saved.append(changed_values_of(after))
        self._flush(pending)
        self._conclude(pending.ended, [])
        moved = run + len(found)
        return moved + self._sweep_budgets(now, limit - moved)

    def _sweep_budgets(self, now: int, limit: int) -> int:
        """Begin periods anew, and resume whoever waits for a budget that has room again."""
        bounds: dict[str, Value] = {"now": now, "limit": max(limit, 0)}
        turning = list(map(budget_of, _all(self._writer, "turning_budgets", bounds)))
        if turning:
            books = read_books(self, [budget.name for budget in turning], ())
            for budget in turning:
                books.turn(books.budgets[budget.name], now)
            write_books(self, books)
            for budget in turning:
                self._look_at_gate(BUDGET + budget.name)
        moved = len(turning)
        for budget in map(budget_of, _all(self._writer, "stirred_budgets", bounds)):
            if moved >= limit:
                break
            left = 2**63 - 1 if budget.left is None else budget.left
            room: dict[str, Value] = {"name": budget.name, "left": left, "limit": limit - moved}
            waiting = list(map(execution_of, _all(self._writer, "waiting_for_budget", room)))
            pending = _Pending()
            for record in that_fit(budget, waiting):
                resume = Event(Kind.RESUME, "engine", data={"cause": "budget"})
                pending.saved.append(changed_values_of(self._decide(record, resume, now, pending)))
            self._flush(pending)
            moved += max(1, len(pending.saved))
            if len(waiting) < room["limit"]:  # type: ignore[operator]
                names = {"scope": budget.scope, "meter": budget.meter}
                self._writer.execute(_SQL["calm_budget"].text, names)
        return moved

    def _next_due(self, now: int) -> int | None:
        (instants,) = self._writer.execute(_SQL["next_due"].text, {"now": now}).fetchall()
        return min((int(at) for at in instants if at is not None), default=None)

    def recover(self, dead: Collection[str] | None, alive: str, now: int, limit: int) -> int:
        """See the protocol."""
        bounds: dict[str, Value] = {
            "alive": alive,
            "dead": None if dead is None else _json(sorted(dead)),
            "limit": limit,
        }
        self._see_file()
        with translated(self.path), immediate(self._writer):
            found = _all(self._writer, "leased_executions", bounds)
            pending = _Pending()
            orphans = list(map(execution_of, found))
            pending.losses.look(read_reservations(self, [record.id for record in orphans]))
            for record in orphans:
                after = self._append(record, orphan_events(record), now, pending)
                after, rows = take_backlog(after, self._unseen(after), now)
                pending.losses.see(rows)
                pending.transitions += rows
                pending.saved.append(changed_values_of(after))
                pending.end(after, rows)
            self._flush(pending)
            self._conclude(pending.ended, [])
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
    ) -> Execution:
        for event in events:
            record = self._decide(record, event, now, pending)
        return record

    def _decide(self, record: Execution, event: Event, now: int, pending: _Pending) -> Execution:
        decision = decide(record, event, now)
        if isinstance(decision, Refusal):
            raise InternalError(f"{event.kind} was refused: {decision.code}", where=record.id)
        pending.losses.see([decision.transition])
        pending.transitions.append(decision.transition)
        after = applied(record, decision)
        pending.end(after, [decision.transition])
        return after

    def _flush(self, pending: _Pending) -> None:
        """Send what a transaction has gathered: rows of logs first, as the guards look at them."""
        for birth in pending.births:
            pending.transitions += birth.rows
            pending.budgets += budgets_of(birth.rows[0])
        self._send("insert_transitions", list(map(values_of_transition, pending.transitions)))
        for birth in pending.births:
            pending.born.append(values_of_execution(birth.after))
        self._send("insert_executions", pending.born)
        self._send("insert_descents", pending.descents)
        self._send("insert_dependencies", pending.edges)
        self._send("move_executions", pending.moved)
        self._send("insert_messages", pending.messages)
        self._send("count_messages", pending.counted)
        self._send("save_executions", pending.saved)
        self._send("save_budgets", list(map(values_of, pending.budgets)))
        if pending.emits:
            write_emissions(self, pending.emits)
        if pending.progress:
            write_progress(self, pending.progress)
        if pending.losses.charges:
            take_charges(self, pending.losses.charges)  # whom it would tell has no owner, or ended

    def _send(self, name: str, rows: Sequence[tuple[Value, ...]]) -> None:
        statement = _SQL[name]
        done = 0
        for size in statement.sizes(len(rows)):
            values = list(chained.from_iterable(rows[done : done + size]))
            self._writer.execute(statement.many(size), values, can_cache=size <= KEPT_ROWS_MAX)
            done += size

    def _query(self, name: str, values: Sequence[Value]) -> list[Sequence[object]]:
        """Ask with many rows of parameters, on the writer's connection."""
        return _ask(self._writer, _SQL[name], values)

    def _look_at_gate(self, gate: str) -> None:
        """Let the next claim look at those that wait at a gate."""
        self._writer.execute(_SQL["look_at_gate"].text, {"gate": gate})

    def _lease_of(self, ids: Collection[str]) -> dict[str, tuple[int, bytes | None]]:
        """Give the leases of executions that are leased."""
        return {
            id: (record.fence, record.nonce)
            for id, record in self._records(sorted(ids)).items()
            if record.is_leased
        }

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
        bounds: dict[str, Value] = {"text": text, "limit": limit}
        rows = self._read("ids_beginning", bounds) or self._read("ids_ending", bounds)
        return [str(row[0]) for row in rows]

    def with_key(self, key: str) -> Execution | None:
        """See the protocol."""
        with translated(self.path), self._reading:
            rows = _ask(self._reader, _SQL["executions_by_key"], [key])
        return execution_of(rows[0]) if rows else None

    def page(self, filter: Filter) -> list[Execution]:
        """See the protocol."""
        states = _json(filter.states) if filter.states else None
        label, value = next(iter(filter.labels.items()), ("", ""))
        only_open = filter.states and not FINAL.intersection(filter.states)
        rows = self._read(
            "labelled_page"
            if filter.labels
            else "children_page"
            if filter.parent_id is not None
            else "open_executions_page"
            if only_open
            else "executions_page",
            {
                "parent_id": filter.parent_id,
                "roots": filter.roots,
                "before_id": filter.before_id or "~",
                "states": states,
                "task": filter.task,
                "origin": filter.origin,
                "input_digest": filter.input_digest,
                "created_after": filter.created_after,
                "created_before": filter.created_before,
                "label": label,
                "label_value": value,
                "labels": _json(filter.labels),
                "limit": filter.limit,
            },
        )
        return list(map(execution_of, rows))

    def descents(self, ids: Sequence[str]) -> list[Descent]:
        """See the protocol."""
        rows = self._read("descents", {"ids": _json(ids)})
        told = {str(row[0]): Descent(*row) for row in rows}  # type: ignore[arg-type]
        return [told[id] for id in sorted(told)]

    def counts(self) -> dict[State, int]:
        """See the protocol."""
        return {
            State(str(state)): int(str(count)) for state, count in self._read("open_counts", {})
        }

    def logs(self, ids: Sequence[str]) -> list[list[Transition]]:
        """See the protocol."""
        if len(ids) == 1:
            return [self.log(ids[0])]
        with translated(self.path), self._reading:
            found = _ask(self._reader, _SQL["logs"], ids)
        rows: dict[str, list[Transition]] = {id: [] for id in ids}
        for row in map(transition_of, found):
            rows[row.execution_id].append(row)
        return [sorted(rows[id], key=lambda row: row.seq) for id in ids]

    def log(self, id: str, after_seq: int = 0, limit: int = -1) -> list[Transition]:
        """See the protocol."""
        rows: list[Transition] = []
        while limit < 0 or len(rows) < limit:
            size = _LOG_AT_ONCE if limit < 0 else min(_LOG_AT_ONCE, limit - len(rows))
            bounds: dict[str, Value] = {"id": id, "after": after_seq, "limit": size}
            part = self._read("log", bounds)
            rows += map(transition_of, part)
            if len(part) < size:
                break
            after_seq = rows[-1].seq
        return rows

    def inbox(self, id: str, after: int = 0) -> list[InboxEntry]:
        """See the protocol."""
        return list(map(entry_of, self._read("inbox", {"id": id, "after": after})))

    def unread(self, worker: str) -> list[str]:
        """See the protocol."""
        return [str(row[0]) for row in self._read("unread_executions", {"worker": worker})]

    def asking(self, to: str | None, after_id: str, limit: int, *, newest: bool) -> list[str]:
        """See the protocol."""
        bounds: dict[str, Value] = {
            "to": to,
            "after": after_id or ("~" if newest else ""),
            "limit": limit,
        }
        rows = self._read("asking_newest" if newest else "asking_oldest", bounds)
        return [str(id) for (id,) in rows]

    def dependents(self, id: str, limit: int) -> list[str]:
        """See the protocol."""
        rows = self._read("dependents", {"id": id, "limit": limit})
        return [str(dependent) for (dependent,) in rows]

    def stream(self, id: str, name: str, after: int = 0, limit: int = -1) -> list[StreamItem]:
        """See the protocol."""
        bounds: dict[str, Value] = {"id": id, "name": name, "after": after, "limit": limit}
        return [item_of(name, columns) for columns in self._read("stream_items", bounds)]

    def streams(self, id: str) -> list[StreamHead]:
        """See the protocol."""
        return [StreamHead(*row) for row in self._read("stream_heads", {"id": id})]  # type: ignore[arg-type]

    def progress(self, ids: Collection[str]) -> dict[str, ProgressRow]:
        """See the protocol."""
        return dict(map(progress_of, self._read("progress_of", {"ids": _json(sorted(ids))})))

    def secret(self, name: str, drawn: bytes) -> bytes:
        """See the protocol."""
        bounds: dict[str, Value] = {"name": f"secret:{name}", "value": drawn}
        self._see_file()
        with translated(self.path), immediate(self._writer):
            self._writer.execute(_SQL["keep_secret"].text, bounds)
            ((kept,),) = self._writer.execute(_SQL["secret"].text, bounds).fetchall()
        assert isinstance(kept, bytes)
        return kept

    def budgets(
        self, scopes: Collection[str] | None = None, *, after: str = "", limit: int = -1
    ) -> list[BudgetRow]:
        """See the protocol."""
        bounds: dict[str, Value] = {"after": after, "limit": limit}
        if scopes is None:
            return list(map(budget_of, self._read("shared_budgets", bounds)))
        bounds["scopes"] = _json(sorted(scopes))
        return list(map(budget_of, self._read("budgets_of_scopes", bounds)))

    def budget_events(self, scope: str, meter: str) -> list[BudgetEvent]:
        """See the protocol."""
        rows = self._read("budget_events", {"scope": scope, "meter": meter})
        return [event_of(f"{scope}:{meter}", columns) for columns in rows]

    def spending(self, execution_id: str) -> Mapping[str, int]:
        """See the protocol."""
        rows = self._read("spending_of", {"id": execution_id})
        return {f"{scope}:{meter}": int(str(amount)) for scope, meter, amount in rows}

    def reservations(self, execution_id: str) -> list[Reservation]:
        """See the protocol."""
        with translated(self.path), self._reading:
            return list(
                map(reservation_of, _ask(self._reader, _SQL["reservations_of"], [execution_id]))
            )

    def verify(self) -> Verdict:
        """See the protocol.

        Reads with a connection of its own, so that nobody waits, and a part at a time, so that the
        write-ahead log can be emptied in between.
        """
        verdict = Verdict()
        reader = open_reader(self.path)
        try:
            verdict.defects += self.schedules.defects()
            verdict.defects += self.capacity.defects()
            with translated(self.path):
                for (said,) in reader.execute("PRAGMA integrity_check(10)").fetchall():
                    if said != "ok":
                        verdict.defects.append(f"the file: {said}")
                for (stray,) in reader.execute(_SQL["stray_ids"].text).fetchall():
                    self._verify_one(reader, str(stray), verdict)
                for (wrong,) in reader.execute(_SQL["wrong_labels"].text).fetchall():
                    verdict.defects.append(f"{wrong}: its labels are not those it is found by")
                after = ""
                while True:
                    with snapshot(reader):
                        bounds = {"after": after, "limit": _VERIFIED_AT_ONCE}
                        ids = [str(id) for (id,) in reader.execute(_SQL["all_ids"].text, bounds)]
                        for id in ids:
                            self._verify_one(reader, id, verdict)
                    if len(ids) < _VERIFIED_AT_ONCE:
                        break
                    after = ids[-1]
                for scope, meter, *said in reader.execute(_SQL["unbalanced_budgets"].text):
                    verdict.defects.append(
                        "budget {}:{}: it says {} charged where {} was, and {} reserved where {} "
                        "is".format(scope, meter, *said)
                    )
                return verdict
        except StoreBroken as error:
            verdict.defects.append(f"the file: {error.why}")
            return verdict
        finally:
            reader.close()

    def _verify_one(self, reader: apsw.Connection, id: str, verdict: Verdict) -> None:
        found = _ask(reader, _SQL["executions_by_id"], [id])
        rows = reader.execute(_SQL["log"].text, {"id": id, "after": 0, "limit": -1}).fetchall()
        entries = reader.execute(_SQL["inbox"].text, {"id": id, "after": 0}).fetchall()
        try:
            record = execution_of(found[0]) if found else None
            log = list(map(transition_of, rows))
            verify_one(verdict, id, record, log, list(map(entry_of, entries)))
            charged = charged_by(log)
            spending = {
                f"{scope}:{meter}": int(str(amount))
                for scope, meter, amount in reader.execute(_SQL["spending_of"].text, {"id": id})
            }
            if charged or spending:
                scopes = _json(sorted({name.rpartition(":")[0] for name in charged}))
                bounds = {"scopes": scopes, "after": "", "limit": -1}
                known = map(budget_of, reader.execute(_SQL["budgets_of_scopes"].text, bounds))
                verify_charges(verdict, id, charged, spending, {budget.name for budget in known})
        except (LookupError, ValueError, TypeError, AssertionError, msgspec.MsgspecError) as error:
            verdict.defects.append(f"{id}: what is stored is not what Outlast writes: {error!r}")

    def ended(self, after_id: str, before_id: str, before: int, limit: int) -> list[Ended]:
        """See the protocol."""
        bounds: dict[str, Value] = {
            "after_id": after_id,
            "before_id": before_id,
            "before": before,
            "limit": limit,
        }
        return [
            Ended(str(id), str(task), State(str(state)), int(str(at)))
            for id, task, state, at in self._read("ended_executions", bounds)
        ]

    def purge(self, ids: Sequence[str]) -> int:
        """See the protocol."""
        bounds = {"ids": _json(sorted(set(ids)))}
        with translated(self.path), immediate(self._writer):
            self._writer.execute(_SQL["permit_purge"].text, bounds)
            for name in (
                "purge_shares", "purge_spending", "purge_tree_spending", "purge_reservations",
                "purge_budget_events", "purge_budgets",
                "purge_transitions", "purge_messages", "purge_dependencies",
                "purge_stream_items", "purge_progress",
                "purge_executions",
            ):  # fmt: skip
                self._writer.execute(_SQL[name].text)
            deleted = self._writer.changes()
            self._writer.execute(_SQL["end_purge"].text)
            return deleted

    def backup(self, path: Path) -> None:
        """See the protocol."""
        copy_to(self.path, path)

    def changed(self) -> bool:
        """See the protocol. For the writing thread, as only its connection can tell."""
        version = self._read_data_version()
        changed, self._data_version = version != self._data_version, version
        return changed

    def _read_data_version(self) -> object:
        """The writer's connection sees a new number when another connection has committed."""
        with translated(self.path):
            return self._writer.pragma("data_version")

    def _read(self, name: str, bounds: Mapping[str, Value]) -> Sequence[Sequence[object]]:
        with translated(self.path), self._reading:
            return _all(self._reader, name, bounds)

    def close(self) -> None:
        """See the protocol."""
        with translated(self.path), self._reading:
            self._reader.close()
            self._writer.close()
        if self._lock is not None:
            self._lock.release()


class _Pending:
    """What a transaction has gathered, by table and shape."""

    __slots__ = (
        "births", "born", "budgets", "counted", "descents", "edges", "emits", "ended", "losses",
        "messages", "moved", "progress", "saved", "sends", "transitions",
    )  # fmt: skip

    def __init__(self) -> None:
        self.births: list[Create] = []
        self.sends: list[Deliver] = []
        self.budgets: list[BudgetRow] = []
        self.losses = Losses()
        self.emits: list[tuple[str, Sequence[Emission]]] = []
        self.progress: dict[str, ProgressRow] = {}
        self.edges: list[tuple[Value, ...]] = []
        self.ended: list[_End] = []
        self.transitions: list[Transition] = []
        self.born: list[tuple[Value, ...]] = []
        self.descents: list[tuple[Value, ...]] = []
        self.moved: list[tuple[Value, ...]] = []
        self.saved: list[tuple[Value, ...]] = []
        self.messages: list[tuple[Value, ...]] = []
        self.counted: list[tuple[Value, ...]] = []

    def end(self, record: Execution, rows: Sequence[Transition], place: int = -1) -> None:
        """Note an execution that has ended with these rows, and the place of the answer to it."""
        if rows and record.is_final:
            self.ended.append(_End(record, rows[-1], place))


class _End:
    """An execution that has just ended, by the last row of its log."""

    __slots__ = ("last", "place", "record")

    def __init__(self, record: Execution, last: Transition, place: int) -> None:
        self.record, self.last, self.place = record, last, place

    def answer(self, answers: list[Answer]) -> Answer:
        """Give the answer to what ended it; nobody sees that of a sweep."""
        if not 0 <= self.place < len(answers):
            return Answer()
        if answers[self.place] is STORED:
            answers[self.place] = Answer()
        return answers[self.place]


_Head = tuple[int, bytes | None, int, int | None]
"""What is known of a stored row: fence, nonce, seq, and the count of its inbox (None: unknown)."""


def _take_chain(
    items: Sequence[tuple[int, Write]], head: _Head, answers: list[Answer], pending: _Pending
) -> tuple[Execution | None, tuple[int, int, int, int] | None]:
    """Take the writes of one execution, in order, from the row that is stored.

    Returns:
        The last whole record they leave, and the last position; None where they leave none.
    """
    fence, nonce, seq, inbox_count = head
    after: Execution | None = None
    position: tuple[int, int, int, int] | None = None
    refused: str | None = None
    for place, item in items:
        if refused is None and (item.fence, item.nonce, item.seq) != (fence, nonce, seq):
            refused = "already_final" if after is not None and after.is_final else "fenced"
        if refused is None and item.inbox_seen is not None:
            # The first one was compared with the stored row before, or the row is born just now.
            inbox_count = item.inbox_seen if inbox_count is None else inbox_count
            refused = "moved" if item.inbox_seen != inbox_count else None
        if refused is not None:
            answers[place] = Answer(refused)
            continue
        pending.transitions += item.rows
        if item.births:
            pending.births += item.births
        if item.sends:
            pending.sends += item.sends
        if item.emits:
            pending.emits.append((item.id, item.emits))
        if item.progress is not None:
            pending.progress[item.id] = item.progress
        if not item.rows:
            continue  # it leaves the row as it is
        position = item.position
        seq = position[0]
        if item.after is not None:
            after = item.after
            fence, nonce = after.fence, after.nonce
            pending.end(after, item.rows, place)
    return after, position


def _moved(record: Execution, position: tuple[int, int, int, int]) -> Execution:
    """Give a record at a position; the record itself is somebody else's and stays as it is."""
    if (record.seq, record.idle_claims, record.inbox_seen, record.updated_at) == position:
        return record
    twin = copy_of(record)
    twin.seq, twin.idle_claims, twin.inbox_seen, twin.updated_at = position
    return twin


def _is_overdue(record: Execution, now: int) -> bool:
    """Tell whether the clock ends it."""
    return any(at is not None and at <= now for at in (record.deadline_at, record.start_by))


def _identity(path: Path) -> tuple[int, int] | None:
    """Tell files apart that have, one after the other, the same name."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _fence_of(item: Item) -> int:
    """Give the fence of the lease that an item is written under."""
    if isinstance(item, Create):
        return item.after.fence
    return item.fence if isinstance(item, Write) else 0


def _id_of(item: Item) -> str:
    if isinstance(item, Create):
        return item.after.id
    if isinstance(item, Adjust):
        return item.scope
    return item.id if isinstance(item, Write) else item.execution_id


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _ask(
    connection: apsw.Connection, statement: Statement, values: Sequence[Value]
) -> list[Sequence[object]]:
    """Ask with many rows of parameters."""
    found: list[Sequence[object]] = []
    done = 0
    width = statement.columns
    for size in statement.sizes(len(values) // width):
        part = values[done * width : (done + size) * width]
        if statement.results:
            found += _unpacked(connection, statement, statement.packed(size), part)
        else:
            text, kept = statement.many(size), size <= KEPT_ROWS_MAX
            found += connection.execute(text, part, can_cache=kept).fetchall()
        done += size
    return found


def _all(
    connection: apsw.Connection, name: str, bounds: Mapping[str, Value]
) -> Sequence[Sequence[object]]:
    """Ask for all rows of a statement."""
    statement = _SQL[name]
    if statement.results:
        try:
            return _unpacked(connection, statement, statement.packed(), bounds)
        except apsw.TooBigError:
            pass  # many huge payloads do not fit into one value
    return connection.execute(statement.text, bounds).fetchall()


def _unpacked(
    connection: apsw.Connection,
    statement: Statement,
    text: str,
    bounds: Mapping[str, Value] | Sequence[Value],
) -> list[list[object]]:
    ((packed,),) = connection.execute(text, bounds).fetchall()
    rows: list[list[object]] = msgspec.json.decode(str(packed))
    for place in statement.blobs:
        for row in rows:
            value = row[place]
            if value is not None:
                row[place] = bytes.fromhex(value)  # type: ignore[arg-type]
    return rows
