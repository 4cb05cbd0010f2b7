"""A store in memory, built from ``decide`` alone: the oracle the others are compared with.

It trusts nothing: the rows of a write are decided again from their events, so a writer that
brings rows the lifecycle would not have made is found out here. It keeps nothing on disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from outlast.budget import charged_by
from outlast.errors import CannotLoad, InternalError
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
    fold,
)
from outlast.lifecycle.gate import turn_of
from outlast.lifecycle.record import continued_as, copy_of, event_of
from outlast.store.admission import at_once
from outlast.store.auditing import deeds_of, purged
from outlast.store.books import Losses, Paying, budgets_of, tell
from outlast.store.decisions import (
    Errand,
    births_of,
    claim_of,
    crash_loop,
    deliver,
    descent_of,
    due_events,
    edges_of,
    next_due,
    orphan_events,
    take_as_owner,
    take_backlog,
    taken_answer,
    unclaimed,
    verify_charges,
    verify_one,
    word_to_parent,
)
from outlast.store.memory.access import MemoryAccess
from outlast.store.memory.budgets import MemoryBudgets
from outlast.store.memory.capacity import MemoryCapacity
from outlast.store.memory.epochs import MemoryEpochs
from outlast.store.memory.feed import MemoryFeed
from outlast.store.memory.members import MemoryHints, MemoryMembers
from outlast.store.memory.people import may_ask
from outlast.store.memory.schedules import MemorySchedules
from outlast.store.memory.streams import MemoryStreams
from outlast.store.memory.tenants import MemoryTenants, Registry
from outlast.store.memory.webhooks import MemoryWebhooks
from outlast.store.protocol import (
    DEFAULT_TENANT,
    ENDS_MAX,
    Adjust,
    Answer,
    BudgetEvent,
    BudgetRow,
    Census,
    Claimed,
    Claims,
    Create,
    CreateMany,
    Deliver,
    Descent,
    Ended,
    Filter,
    Health,
    Heard,
    Hints,
    InboxEntry,
    Item,
    Lease,
    Part,
    ProgressRow,
    QueueCount,
    Renewal,
    Reservation,
    Reserve,
    StreamHead,
    StreamItem,
    Verdict,
    WorkerRow,
    Write,
)
from outlast.store.tenants import opened

if TYPE_CHECKING:
    from outlast.access.audit import Deed

_TURN = {CreateMany: -1, Create: 0, Write: 1, Reserve: 1, Adjust: 1, Deliver: 2}
"""The order within a batch: births that are alike first, as one statement writes them; deliveries
last, as they are decided on what the owners wrote."""


_BY_CLOCK = (State.SCHEDULED, State.WAITING, State.AWAITING_INPUT, State.RETRY_WAIT)
"""The states in which the clock moves an execution."""


class MemoryStore:
    """All verbs of the protocol on dictionaries; any thread may call any of them.

    Args:
        is_shared: whether several engines may hold leases in it.
        tenant: whose store it is.
        beside: another tenant's store, whose registry of tenants it shares, and nothing else.
    """

    def __init__(
        self,
        *,
        is_shared: bool = False,
        tenant: str = DEFAULT_TENANT,
        beside: MemoryStore | None = None,
    ) -> None:
        self.url = "memory:"
        self.registry: Registry = Registry() if beside is None else beside.registry
        if beside is None:
            self.registry.add(tenant, 0)
        self._name = tenant
        self.tenant = opened(self.registry.rows.get(tenant), tenant, self.url, owner=True)
        self.is_shared = is_shared
        self._records: dict[str, Execution] = {}
        self._logs: dict[str, list[Transition]] = {}
        self._inboxes: dict[str, list[InboxEntry]] = {}
        self._keys: dict[str, str] = {}
        self._children: dict[str, list[str]] = {}
        self._edges: dict[str, list[tuple[str, str]]] = {}
        self._errands: list[Errand] = []
        self._sends: list[tuple[int, Deliver]] = []
        self._ended: list[tuple[int, Execution, Transition]] = []
        self._place = _NOBODY
        self.members = MemoryMembers(self._records)
        self._heard: list[MemoryHints] = []
        self._hearer: Heard | None = None
        self._secrets: dict[str, bytes] = {}
        self._money = MemoryBudgets(self._records)
        self._losses = Losses()
        self._streams = MemoryStreams()
        self._lock = threading.RLock()
        self.access = MemoryAccess(self._lock, self.tenant)
        self.tenants = MemoryTenants(self.registry, self.access)
        self.sealing = None
        self.schedules = MemorySchedules(self)
        self.capacity = MemoryCapacity(self)
        self.webhooks = MemoryWebhooks(self._lock, self.access)
        self.feed = MemoryFeed(self._lock, self._records, self._logs, self.webhooks)
        self.epochs = MemoryEpochs(self)

    @property
    def is_closed(self) -> bool:
        """Whether nothing is started or claimed in its tenant."""
        return self.registry.rows[self._name].closed_at is not None

    def commit(self, batch: Sequence[Item]) -> list[Answer]:
        """See the protocol."""
        broken: dict[tuple[str, int], str] = {}
        answers: dict[int, Answer] = {}
        paying: list[tuple[int, Paying]] = []
        with self._lock:
            turns = sorted(range(len(batch)), key=lambda place: _TURN[type(batch[place])])
            for place in (place for place in turns if not isinstance(batch[place], Deliver)):
                self._place = place
                answers[place] = self._one(batch[place], broken, paying, place)
            words = self._money.take(paying, answers)
            waiting = self.capacity.queued() if _offers(batch) else set()
            for place in (place for place in turns if isinstance(batch[place], Deliver)):
                self._place = place
                answers[place] = self._one(batch[place], broken, paying, place)
            sends, self._sends = self._sends, []
            for self._place, send in sends:
                self._deliver(send)
            for origin, word in words:
                self._place = origin
                tell(answers[origin], self._deliver(word))
            self._place = _NOBODY
            others = {send.execution_id for _, send in [*sends, *words]}
            self._go_on(batch, others, waiting, answers)
            self._take_losses()
            self._conclude(answers)
            if any(not isinstance(item, Write) and item.deed is not None for item in batch):
                told = [answers[place] for place in range(len(batch))]
                self.access.append(deeds_of(batch, told))
        return [answers[place] for place in range(len(batch))]

    def _go_on(
        self,
        batch: Sequence[Item],
        others: Collection[str],
        waiting: Collection[str],
        answers: dict[int, Answer],
    ) -> None:
        """Claim what messages have woken for whoever made an offer, if no claim has to be asked.

        Args:
            batch: has the offers.
            others: whom else the transaction has told something.
            waiting: the queues in which somebody waited before.
            answers: gets what was claimed.
        """
        offered = _offers(batch)
        if not offered:
            return
        touched = {item.execution_id for item in batch if isinstance(item, Deliver)}.union(others)
        records = {id: self._records[id] for id in touched if id in self._records}
        offers = {id: item.offer for id, (_, item) in offered.items() if item.offer is not None}
        for id in at_once(offers, records):
            place, item = offered[id]
            queue = records[id].queue
            if item.offer is None or queue in waiting or queue in self.capacity.controlled:
                continue
            floor = self.epochs.current().floor
            event = claim_of(records[id], item.offer.lease.worker, item.offer.nonce, floor)
            twin = copy_of(self._append(records[id], [event], item.now))
            log = list(self._logs[id])
            answers[place].claimed = Claimed(twin, log[0], log=log)

    def _conclude(self, answers: dict[int, Answer] | None = None) -> None:
        """Tell the parents of what has ended, and note what it owes to others."""
        while self._ended:
            ended, self._ended = self._ended, []
            for place, record, last in ended:
                self._place = place
                word = word_to_parent(record, last)
                told = self._deliver(word) if word is not None else Answer()
                if told.entry is not None and told.execution is not None:
                    said = _answer_at(answers, place)
                    said.told = [*said.told, (told.execution, told.entry)]
            owing = [(place, one) for place, record, _ in ended for one in self._hand_over(record)]
            owing += [
                (place, one) for place, record, _ in ended for one in self._dependents(record)
            ]
            owing += [(place, one) for place, record, _ in ended for one in self._orphans(record)]
            for place, errand in owing:
                self._errands.append(errand)
                _answer_at(answers, place).owes = True
        self._place = _NOBODY

    def _hand_over(self, record: Execution) -> list[Errand]:
        """Let what others owe to one that goes on as another come to that one."""
        successor, parent = continued_as(record), self._records.get(record.parent_id or "")
        if successor is None:
            return []
        self._edges.setdefault(successor, []).extend(self._edges.pop(record.id, ()))
        if parent is None or not parent.is_final or record.parent_key is None:
            return []
        return [Errand(successor, "parent", parent.id, parent.state)]

    def _dependents(self, record: Execution) -> list[Errand]:
        edges = sorted(self._edges.get(record.id, ()))
        return [Errand(to, "upstream", upstream, record.state) for to, upstream in edges]

    def _orphans(self, record: Execution) -> list[Errand]:
        children = [self._records[id] for id in sorted(self._children.get(record.id, ()))]
        return [
            Errand(child.id, "parent", record.id, record.state)
            for child in children
            if child.parent_key is not None and not child.is_final
        ]

    def _run_errands(self, now: int, limit: int) -> int:
        """Deliver what executions that have ended owe; gives how many errands were run."""
        errands, self._errands = self._errands[:limit], self._errands[limit:]
        for errand in errands:
            self._deliver(errand.delivery(now))
        self._conclude()
        return len(errands)

    def _take_losses(self) -> None:
        """Charge what turned out to be lost."""
        losses, self._losses = self._losses, Losses()
        self._money.charge(losses.charges)

    def _one(
        self,
        item: Item,
        broken: dict[tuple[str, int], str],
        paying: list[tuple[int, Paying]],
        place: int,
    ) -> Answer:
        if isinstance(item, Deliver):
            return self._deliver(item)
        if isinstance(item, Reserve | Adjust):
            paying.append((place, item))
            return Answer()
        if isinstance(item, CreateMany):
            return self._create_many(item)
        head = item.after if isinstance(item, Create) else item
        id, fence = head.id, head.fence
        if (id, fence) in broken and isinstance(item, Write):
            return Answer(broken[id, fence])
        answer = self._create(item) if isinstance(item, Create) else self._write(item)
        if answer.refused is not None and not (isinstance(item, Create) and id in self._records):
            broken[id, fence] = answer.refused
        if isinstance(item, Write) and item.charge is not None:
            paying.append((place, item))
        return answer

    def _create_many(self, item: CreateMany) -> Answer:
        ids = set(item.ids)
        if len(ids) < len(item.ids) or not ids.isdisjoint(self._records):
            return Answer("already_exists")
        if self.is_closed:
            return Answer("tenant_closed")
        try:
            births = list(births_of(item, self.tenant))
        except InternalError as error:
            return Answer("internal_error", error=error)
        for birth in births:
            self._create(birth)
        return Answer()

    def _create(self, item: Create, *, is_child: bool = False) -> Answer:
        key = item.after.key
        if key is not None and key in self._keys:
            return taken_answer(copy_of(self._records[self._keys[key]]), item)
        if item.after.id in self._records:
            return Answer("already_exists", copy_of(self._records[item.after.id]))
        if self.is_closed and not is_child:
            return Answer("tenant_closed")
        try:
            record = fold(item.rows)
        except BrokenLog as error:
            return _broken(str(error))
        if record != item.after:
            return _broken("the rows do not fold to the row")
        if record.tenant != self.tenant:
            return _broken("it is of another tenant")
        if not self._depend(record.id, item.rows[0]):
            return Answer("no_upstream")
        sent, item = item, unclaimed(item, self.capacity.controlled)
        record = fold(item.rows)
        if record.parent_id is not None:
            self._children.setdefault(record.parent_id, []).append(record.id)
        self._money.open(budgets_of(item.rows[0]))
        self._records[record.id] = record
        self._logs[record.id] = list(item.rows)
        self.feed.take(item.rows)
        self._tell(item.rows, record)
        self._inboxes[record.id] = []
        if key is not None:
            self._keys[key] = record.id
        return Answer(None, copy_of(record), unclaimed=() if item is sent else [record.id])

    def _depend(self, id: str, birth: Transition) -> bool:
        """Note whom a new execution waits for; gives whether all of them are there."""
        upstream = edges_of(birth)
        if any(other not in self._records for other in upstream):
            return False
        for other in upstream:
            watched = self._records[other]
            while (name := continued_as(watched)) is not None and name in self._records:
                watched = self._records[name]
            if watched.is_final:
                errand = Errand(id, "upstream", other, watched.state)
                self._sends.append((self._place, errand.delivery(birth.at)))
            else:
                self._edges.setdefault(watched.id, []).append((id, other))
        return True

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
                return _broken(f"{row.kind}: {said}")
            apply(twin, decision)
        expected = copy_of(record if item.after is None else item.after)
        expected.seq, expected.idle_claims, expected.inbox_seen, expected.updated_at = item.position
        expected.inbox_count = twin.inbox_count
        if twin != expected:
            return _broken("the rows do not fold to the row")
        try:
            self._streams.take(item)
        except InternalError as error:
            return Answer("internal_error", error=error)
        self._put(twin, item.rows)
        late: list[str] = []
        for birth in item.births:
            answer = self._create(birth, is_child=True)
            assert answer.refused is None, answer
            late += answer.unclaimed
        self._sends += ((self._place, send) for send in item.sends)
        return Answer(unclaimed=late)

    def _deliver(self, item: Deliver) -> Answer:
        record = self._records.get(item.execution_id)
        if record is None:
            return Answer("no_execution")
        inbox = self._inboxes[record.id]
        earlier = [entry.message for entry in inbox]
        delivery = deliver(
            record, item, earlier, inbox[record.inbox_seen :], self._logs.__getitem__
        )
        if delivery.entry is not None:
            inbox.append(delivery.entry)
        if delivery.after.is_final:
            self._losses.look(self._money.reserved_by([record.id]))
            self._losses.see(delivery.rows)
        self._put(delivery.after, delivery.rows)
        return Answer(delivery.refused, copy_of(delivery.after), entry=delivery.entry)

    def _put(self, record: Execution, rows: Iterable[Transition]) -> None:
        self._records[record.id] = record
        rows = list(rows)
        self._logs[record.id].extend(rows)
        self.feed.take(rows)
        self._tell(rows, record)
        if rows and record.is_final:
            self._ended.append((self._place, record, rows[-1]))

    def _tell(self, rows: Sequence[Transition], record: Execution) -> None:
        if self._hearer is not None and rows:
            self._hearer(rows, [copy_of(record)] if record.is_final else [])

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
        with self._lock:
            if self.is_closed:
                return claims
            part = self.capacity.claim(lease, now)
            drawn = iter(nonces)
            for record, events in part.desk.admit(part.candidates(tasks, versions), limit):
                if events:
                    part.blocked(self._append(record, events, now))
                    continue
                floor = self.epochs.current().floor
                event = claim_of(record, lease.worker, next(drawn), floor)
                twin = self._append(record, [event], now)
                unseen = self._inboxes[twin.id][twin.inbox_seen :]
                if crash_loop(twin, lease) is not None:
                    twin, rows = take_as_owner(twin, unseen, now)
                    self._put(twin, rows)
                    loop = crash_loop(twin, lease)
                    assert loop is not None
                    part.desk.left(self._append(twin, [loop], now))
                else:
                    claims.append(Claimed(copy_of(twin), self._logs[twin.id][0], unseen))
            part.leave()
        part.tell(claims)
        return claims

    def _append(self, record: Execution, events: Iterable[Event], now: int) -> Execution:
        for event in events:
            decision = decide(record, event, now)
            assert not isinstance(decision, Refusal), decision
            self._losses.see([decision.transition])
            record = applied(record, decision)
            self._put(record, [decision.transition])
        return record

    def sweep(self, now: int, limit: int) -> tuple[int, int | None]:
        """See the protocol."""
        with self._lock:
            moved = 0
            while moved < limit and (some := self._sweep_some(now, limit - moved)):
                moved += some  # what an errand lets go may be due at once
            instants = [next_due(record) for record in self._records.values()]
            if self._errands:
                instants.append(0)
            instants += self._money.instants()
            instants.append(self.capacity.next_opening(now))
            return moved, min((at for at in instants if at is not None), default=None)

    def _sweep_some(self, now: int, limit: int) -> int:
        run = self._run_errands(now, limit)
        moving = sorted(
            (record for record in self._records.values() if due_events(record, now)),
            key=lambda record: _turn(record, now),
        )[: limit - run]
        for record in moving:
            self._losses.look(self._money.reserved_by([record.id]))
            self._append(record, due_events(record, now), now)
        self._take_losses()
        self._conclude()
        moved = run + len(moving)
        turned, going = self._money.sweep(now, limit - moved)
        for record in going:
            self._append(record, [Event(Kind.RESUME, "engine", data={"cause": "budget"})], now)
        return moved + turned

    def recover(self, dead: Collection[str] | None, alive: str, now: int, limit: int) -> int:
        """See the protocol."""
        with self._lock:
            takeable = self.members.takeable(dead, alive, now)
            orphans = sorted(
                (record.worker, record.id)
                for record in self._records.values()
                if record.worker is not None and record.worker in takeable
            )[:limit]
            for _, id in orphans:
                self._losses.look(self._money.reserved_by([id]))
                record = self._append(self._records[id], orphan_events(self._records[id]), now)
                after, rows = take_backlog(record, self._inboxes[id][record.inbox_seen :], now)
                self._losses.see(rows)
                self._put(after, rows)
            self._take_losses()
            self._conclude()
            return len(orphans)

    def register(self, worker: WorkerRow) -> int:
        """See the protocol."""
        with self._lock:
            return self.members.register(worker)

    def renew(
        self, worker: str, lease_us: int, now: int, *, draining: bool = False
    ) -> Renewal | None:
        """See the protocol."""
        with self._lock:
            return self.members.renew(worker, lease_us, now, draining=draining)

    def leave(self, worker: str, now: int) -> None:
        """See the protocol."""
        with self._lock:
            self.members.leave(worker, now)

    def expired(self, now: int, *, thorough: bool = False) -> list[str]:
        """See the protocol."""
        with self._lock:
            return self.members.expired(now, thorough=thorough)

    def forget_workers(self, before: int) -> int:
        """See the protocol."""
        with self._lock:
            return self.members.forget(before)

    def workers(self, limit: int = 100) -> list[WorkerRow]:
        """See the protocol."""
        with self._lock:
            return self.members.rows(limit)

    def hurry(self, is_on: bool) -> None:
        """See the protocol: it never hangs."""

    def hints(self, heard: Callable[[str], None]) -> Hints | None:
        """See the protocol."""
        return MemoryHints(self._heard, heard) if self.is_shared else None

    def get(self, ids: Sequence[str]) -> list[Execution | None]:
        """See the protocol."""
        with self._lock:
            return [copy_of(self._records[id]) if id in self._records else None for id in ids]

    def find(self, text: str, limit: int) -> list[str]:
        """See the protocol."""
        with self._lock:
            ids = sorted(self._records)
        found = [id for id in ids if id.startswith(text)]
        newest = ids[-ENDS_MAX:]
        return (found or [id for id in reversed(newest) if id.endswith(text)])[:limit]

    def with_key(self, key: str) -> Execution | None:
        """See the protocol."""
        with self._lock:
            id = self._keys.get(key)
            return None if id is None else copy_of(self._records[id])

    def page(self, filter: Filter) -> list[Execution]:
        """See the protocol."""
        with self._lock:
            found = [
                copy_of(self._records[id])
                for id in sorted(self._records, reverse=True)
                if _matches(self._records[id], filter)
            ]
        return found[: filter.limit]

    def part(self, filter: Filter, rows_max: int) -> Part:
        """See the protocol. Rows are counted as they are looked at, whether they fit or not."""
        found: list[Execution] = []
        with self._lock:
            below = (id for id in self._records if _is_within(id, filter))
            for looked, id in enumerate(sorted(below, reverse=True), 1):
                if _matches(self._records[id], filter):
                    found.append(copy_of(self._records[id]))
                if len(found) == filter.limit or looked == rows_max:
                    return Part(found, id)
        return Part(found, None)

    def descents(self, ids: Sequence[str]) -> list[Descent]:
        """See the protocol."""
        with self._lock:
            told = [descent_of(log[0]) for _, log in sorted(self._logs.items())]
        return [one for one in told if one and (one.id in ids or one.source_id in ids)]

    def counts(self) -> dict[State, int]:
        """See the protocol."""
        counts: dict[State, int] = {}
        with self._lock:
            for record in self._records.values():
                if record.state not in FINAL:
                    counts[record.state] = counts.get(record.state, 0) + 1
        return counts

    def census(self) -> Census:
        """See the protocol."""
        states: dict[State, int] = {}
        queued: dict[str, list[int]] = {}
        leased: dict[str, int] = {}
        with self._lock:
            for record in self._records.values():
                states[record.state] = states.get(record.state, 0) + 1
                if record.state is State.QUEUED:
                    queued.setdefault(record.queue, []).append(turn_of(record)[0])
                elif record.is_leased:
                    leased[record.queue] = leased.get(record.queue, 0) + 1
        queues = {}
        for name in queued.keys() | leased.keys():
            turns = queued.get(name, [])
            queues[name] = QueueCount(len(turns), leased.get(name, 0), min(turns, default=None))
        return Census(states, queues)

    def health(self, before: int) -> Health:
        """See the protocol."""
        with self._lock:
            due = sorted(
                record.due_at
                for record in self._records.values()
                if record.state in _BY_CLOCK
                and record.due_at is not None
                and record.due_at <= before
            )
        return Health({}, min(len(due), 1_000), due[0] if due else None)

    def hear(self, heard: Heard | None) -> None:
        """See the protocol."""
        self._hearer = heard

    def logs(self, ids: Sequence[str]) -> list[list[Transition]]:
        """See the protocol."""
        with self._lock:
            return [list(self._logs.get(id, ())) for id in ids]

    def log(self, id: str, after_seq: int = 0, limit: int = -1) -> list[Transition]:
        """See the protocol."""
        with self._lock:
            rows = self._logs.get(id, [])[after_seq:]
        return rows if limit < 0 else rows[:limit]

    def inbox(self, id: str, after: int = 0) -> list[InboxEntry]:
        """See the protocol."""
        with self._lock:
            return self._inboxes.get(id, [])[after:]

    def unread(self, worker: str) -> list[str]:
        """See the protocol."""
        with self._lock:
            return self.members.unread(worker)

    def asking(self, to: str | None, after_id: str, limit: int, *, newest: bool) -> list[str]:
        """See the protocol."""
        with self._lock:
            found = [
                id for id, record in self._records.items() if may_ask(record, self._logs[id], to)
            ]
        if after_id:
            found = [id for id in found if (id < after_id if newest else id > after_id)]
        return sorted(found, reverse=newest)[:limit]

    def secret(self, name: str, drawn: bytes) -> bytes:
        """See the protocol."""
        with self._lock:
            return self._secrets.setdefault(name, drawn)

    def budgets(
        self, scopes: Collection[str] | None = None, *, after: str = "", limit: int = -1
    ) -> list[BudgetRow]:
        """See the protocol."""
        with self._lock:
            found = self._money.of(scopes, after)
        return found if limit < 0 else found[:limit]

    def budget_events(self, scope: str, meter: str) -> list[BudgetEvent]:
        """See the protocol."""
        with self._lock:
            return self._money.history(f"{scope}:{meter}")

    def spending(self, execution_id: str) -> Mapping[str, int]:
        """See the protocol."""
        with self._lock:
            return self._money.spending_of(execution_id)

    def reservations(self, execution_id: str) -> list[Reservation]:
        """See the protocol."""
        with self._lock:
            found = self._money.reserved_by([execution_id])
        return found.get(execution_id, [])

    def dependents(self, id: str, limit: int) -> list[str]:
        """See the protocol."""
        with self._lock:
            found = {dependent for dependent, _ in self._edges.get(id, ())}
            return sorted(found & self._records.keys())[:limit]

    def stream(self, id: str, name: str, after: int = 0, limit: int = -1) -> list[StreamItem]:
        """See the protocol."""
        with self._lock:
            return self._streams.read(id, name, after, limit)

    def streams(self, id: str) -> list[StreamHead]:
        """See the protocol."""
        with self._lock:
            return self._streams.heads(id)

    def progress(self, ids: Collection[str]) -> dict[str, ProgressRow]:
        """See the protocol."""
        with self._lock:
            return self._streams.progress(ids)

    def verify(self) -> Verdict:
        """See the protocol."""
        verdict = Verdict()
        with self._lock:
            known = self._money.names()
            for id, record in self._records.items():
                verify_one(verdict, id, record, self._logs[id], self._inboxes[id])
                charged = charged_by(self._logs[id])
                verify_charges(verdict, id, charged, self._money.spending_of(id), known)
            verdict.defects += self._money.defects()
            verdict.defects += self.schedules.defects()
            verdict.defects += self.capacity.defects()
            verdict.defects += self.access.defects()
        return verdict

    def ended(self, after_id: str, before_id: str, before: int, limit: int) -> list[Ended]:
        """See the protocol."""
        with self._lock:
            found = [
                Ended(record.id, record.task, record.state, record.state_at)
                for id, record in sorted(self._records.items())
                if after_id < id < before_id and record.is_final and record.state_at < before
            ]
        return found[:limit]

    def purge(self, ids: Sequence[str], deed: Deed | None = None) -> int:
        """See the protocol."""
        deleted = 0
        with self._lock:
            for id in dict.fromkeys(ids):
                record = self._records.get(id)
                if record is None or not record.is_final:
                    continue
                del self._records[id], self._logs[id], self._inboxes[id]
                if record.key is not None:
                    del self._keys[record.key]
                self._children.pop(id, None)
                if record.parent_id in self._children:
                    self._children[record.parent_id].remove(id)
                self._edges.pop(id, None)
                for watched, edges in self._edges.items():
                    self._edges[watched] = [edge for edge in edges if edge[0] != id]
                self._errands = [errand for errand in self._errands if errand.to != id]
                self._money.purge(id)
                self._streams.purge(id)
                deleted += 1
            if deed is not None and deleted:
                self.access.append([(deed, "executions", purged(ids, deleted))])
        return deleted

    def backup(self, path: Path) -> None:
        """See the protocol."""
        raise CannotLoad("what is in memory has no file to copy", do="use sqlite:///outlast.db")

    def instant(self, now: int) -> int:
        """See the protocol."""
        return now

    def changed(self) -> bool:
        """See the protocol."""
        return False

    def close(self) -> None:
        """See the protocol."""


def _turn(record: Execution, now: int) -> tuple[int, int, str]:
    """Sort what the clock moves: first what is overdue, then by the instant it was due."""
    instants = (record.deadline_at, record.start_by)
    for turn, instant in enumerate(instants):
        if instant is not None and instant <= now:
            return turn, instant, record.id
    return len(instants), record.due_at or 0, record.id


_NOBODY = -1
"""The place of what no answer is about."""


def _offers(batch: Sequence[Item]) -> dict[str, tuple[int, Deliver]]:
    """Give the deliveries that offer a slot, by execution, with their places."""
    return {
        item.execution_id: (place, item)
        for place, item in enumerate(batch)
        if isinstance(item, Deliver) and item.offer is not None
    }


def _answer_at(answers: dict[int, Answer] | None, place: int) -> Answer:
    """Give the answer to what ended an execution; nobody sees that of a sweep."""
    return (answers or {}).get(place) or Answer()


def _broken(said: str) -> Answer:
    return Answer("internal_error", error=InternalError(said))


def _matches(record: Execution, filter: Filter) -> bool:
    return (
        (not filter.states or record.state in filter.states)
        and (filter.task is None or record.task == filter.task)
        and (filter.origin is None or record.origin == filter.origin)
        and (filter.input_digest is None or record.input_digest == filter.input_digest)
        and not (filter.roots and record.parent_id is not None)
        and (filter.parent_id is None or record.parent_id == filter.parent_id)
        and (filter.created_after is None or record.created_at >= filter.created_after)
        and (filter.created_before is None or record.created_at <= filter.created_before)
        and filter.labels.items() <= (record.labels or {}).items()
        and _is_within(record.id, filter)
    )


def _is_within(id: str, filter: Filter) -> bool:
    return (filter.before_id is None or id < filter.before_id) and (
        filter.from_id is None or id >= filter.from_id
    )
