"""Who may be claimed: what every store decides alike about queues, limits, rates and capabilities.

Theory of operation. A claim offers the executions that wait for a worker, in the order of their
turn, and :class:`Desk` says of each: claim it, move it to ``blocked`` at the first gate that is
closed, or pass it over. It asks the store (:class:`Books`) who holds a limit and when a rate
opens; both are facts about rows that are read in the claim's own transaction, so two claims cannot
give the last slot away twice. What the claim itself gives away is added here, in memory.

An execution is examined once: where its gate is closed it becomes ``blocked`` and stands in the
line of that gate, in the order of its turn. A later claim takes the first of a line whose gate has
opened straight from there. So the head of a queue starves nobody, and ten thousand that wait at one
gate cost a claim nothing.

Within one claim a gate that was found closed stays closed: a claim only ever takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from msgspec import Struct, field

from outlast.lifecycle import Event, Execution, Kind, State
from outlast.lifecycle.gate import (
    BUDGET,
    CAPABILITY,
    LimitGate,
    RateGate,
    counts_against_rates,
    gates_of,
    held_by,
    waiting_since,
    waits_at,
)
from outlast.store.protocol import SUSPECT, BudgetRow, Lease, Offer, QueueSetting, Setting

MOVED_MAX: Final = 500
"""Executions that one claim moves to ``blocked``, so that no transaction is long."""
NAMED_MAX: Final = 3
"""Holders that a block names."""
SHORT_LOG: Final = 32
"""Rows that a log has at most, for it to be read by the thread that writes."""


class Books(Protocol):
    """What a store knows about capacity, at the instant of a claim."""

    def holders(self, gate: str) -> list[str]:
        """Give the executions that hold a limit, in the order of their ids."""

    def setting(self, gate: str) -> Setting | None:
        """Give what an operator has set for a gate, by exactly this name."""

    def arrival(self, gate: str) -> int:
        """Give the theoretical arrival time of a rate; 0 where it is at rest."""

    def queue(self, name: str) -> QueueSetting | None:
        """Give what an operator has set for a queue."""

    def running(self, queue: str) -> int:
        """Give how many executions of a queue are leased."""

    def spent_up(self) -> Sequence[BudgetRow]:
        """Give the shared budgets of which nothing is left."""


class Closed(Struct):
    """A gate that is closed to an execution.

    Attributes:
        gate: its name.
        data: what the block says about it.
        opens_at: when it opens by itself; None where somebody has to leave, or to come.
    """

    gate: str
    data: dict[str, object]
    opens_at: int | None = None


class Desk(Struct):
    """Decides about one claim.

    Attributes:
        closed: the gates found closed, and when each opens by itself.
        taken: the new arrival times of rates.
        held_back: whether a queue was found full.
        more: whether there may be more to examine, although fewer than wanted were claimed.
        apart: whether somebody was passed over, as the worker has a suspect.
    """

    books: Books
    lease: Lease
    now: int
    closed: dict[str, int | None] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    held_back: bool = False
    more: bool = False
    apart: bool = False
    _suspect: str | None = None
    _holders: dict[str, list[str]] = field(default_factory=dict)
    _settings: dict[str, Setting | None] = field(default_factory=dict)
    _rooms: dict[str, int | None] = field(default_factory=dict)
    _spent_up: dict[str, BudgetRow] | None = None

    def admit(
        self, candidates: Iterable[Execution], limit: int
    ) -> Iterator[tuple[Execution, list[Event]]]:
        """Say what becomes of executions that wait, in the order of their turn.

        Whoever iterates acts on each before it asks for the next: with no events it is claimed,
        else the events are appended; and tells :meth:`left` of one that it claimed in vain.
        """
        admitted = moved = 0
        if not limit:
            return
        for record in candidates:
            if self.is_passed_over(record) or self._is_kept_apart(record):
                continue
            closed = self._closed_to(record)
            if closed is None:
                if record.idle_claims >= SUSPECT:
                    self._suspect = record.id
                self._enter(record)
                yield record, []
                admitted += 1
                if admitted == limit:
                    return
                continue
            self.closed[closed.gate] = closed.opens_at
            at = waits_at(record)
            if at != closed.gate:
                yield record, _moves(record, closed)
                moved += 1
                if moved == MOVED_MAX:
                    self.more = True
                    return

    def _is_kept_apart(self, record: Execution) -> bool:
        """Tell whether it has to wait for another one that may have killed its workers."""
        if not SUSPECT <= record.idle_claims < self.lease.idle_claims_max:
            return False
        is_kept = self.lease.has_suspect or self._suspect is not None
        self.apart = self.apart or is_kept
        return is_kept

    def is_passed_over(self, record: Execution) -> bool:
        """Tell whether nothing is to be decided about it now: its queue, or its line, is closed."""
        gate = waits_at(record)
        return (gate is not None and gate in self.closed) or not self.serves(record.queue)

    def serves(self, queue: str) -> bool:
        """Tell whether this claim may take from a queue, and has room in it."""
        if self.lease.queues is not None and queue not in self.lease.queues:
            return False
        if queue not in self._rooms:
            self._rooms[queue] = self._room(queue)
        room = self._rooms[queue]
        if room is not None and room <= 0:
            setting = self.books.queue(queue)
            self.held_back = self.held_back or (setting is not None and setting.paused_at is None)
            return False
        return True

    def _room(self, queue: str) -> int | None:
        setting = self.books.queue(queue)
        if setting is None:
            return None
        if setting.paused_at is not None:
            return 0
        return None if setting.capacity is None else setting.capacity - self.books.running(queue)

    def left(self, record: Execution) -> None:
        """Hear that one which was just claimed has given its lease up in the same transaction."""
        if record.id == self._suspect:
            self._suspect = None
        room = self._rooms.get(record.queue)
        if room is not None:
            self._rooms[record.queue] = room + 1
        held = held_by(record)
        for limit in gates_of(record.gates).limits:
            if limit.name not in held and record.id in self._holders.get(limit.name, ()):
                self._holders[limit.name].remove(record.id)

    def _enter(self, record: Execution) -> None:
        room = self._rooms.get(record.queue)
        if room is not None:
            self._rooms[record.queue] = room - 1
        if record.gates is None:
            return
        gates = gates_of(record.gates)
        for limit in gates.limits:
            holders = self._holders_of(limit.name)
            if record.id not in holders:
                holders.append(record.id)
        if counts_against_rates(record):
            for rate in gates.rates:
                interval_us, burst = self._pace(rate)
                arrival = self._arrival(rate.name, interval_us, burst)
                self.taken[rate.name] = max(arrival, self.now) + interval_us

    def _closed_to(self, record: Execution) -> Closed | None:
        """Give the gate whose line an execution stands in, as long as it is closed; else the first.

        So one that waits is moved only when its own gate has opened and another one is closed.
        """
        is_free = record.gates is None and record.state is State.QUEUED
        if is_free and (record.started_at is not None or not self._spent_up_budgets()):
            return None
        at = waits_at(record)
        first = None
        for closed in self._all_closed_to(record):
            if at in (None, closed.gate):
                return closed
            first = first or closed
        return first

    def _all_closed_to(self, record: Execution) -> Iterator[Closed]:
        gates = gates_of(record.gates)
        for need in gates.needs:
            if need not in self.lease.capabilities:
                yield Closed(CAPABILITY + need, {"kind": "capability"})
        for limit in gates.limits:
            holders, capacity = self._holders_of(limit.name), self._capacity(limit)
            if record.id not in holders and len(holders) >= capacity:
                said = {"kind": "limit", "capacity": capacity, "holders": holders[:NAMED_MAX]}
                yield Closed(limit.name, said)
        if counts_against_rates(record):
            for rate in gates.rates:
                interval_us, burst = self._pace(rate)
                opens_at = self._arrival(rate.name, interval_us, burst) - (burst - 1) * interval_us
                if opens_at > self.now:
                    yield Closed(rate.name, {"kind": "rate", "until": opens_at}, opens_at)

        if record.started_at is None:
            for scope in (f"task:{record.task}", "tenant"):
                budget = self._spent_up_budgets().get(scope)
                if budget is not None:
                    said = {"kind": "budget", "name": budget.name, "limit": budget.limit}
                    yield Closed(BUDGET + budget.name, said)

    def _spent_up_budgets(self) -> dict[str, BudgetRow]:
        if self._spent_up is None:
            found = self.books.spent_up()
            self._spent_up = {budget.scope: budget for budget in reversed(found)}
        return self._spent_up

    def _holders_of(self, gate: str) -> list[str]:
        if gate not in self._holders:
            self._holders[gate] = self.books.holders(gate)
        return self._holders[gate]

    def _capacity(self, limit: LimitGate) -> int:
        return capacity_of(limit, self._setting)

    def _pace(self, rate: RateGate) -> tuple[int, int]:
        for name in (rate.name, rate.family):
            setting = self._setting(name)
            if setting is not None and setting.interval_us is not None:
                return setting.interval_us, setting.capacity
        return rate.interval_us, rate.burst

    def _arrival(self, gate: str, interval_us: int, burst: int) -> int:
        """Give a rate's arrival time, never further ahead than a full burst leads to.

        Further it can only lie after the clock went back, or the rate was raised.
        """
        arrival = self.taken.get(gate)
        if arrival is None:
            arrival = self.books.arrival(gate)
        furthest = self.now + burst * interval_us
        if arrival > furthest:
            arrival = self.taken[gate] = furthest
        return arrival

    def _setting(self, name: str) -> Setting | None:
        if name not in self._settings:
            self._settings[name] = self.books.setting(name)
        return self._settings[name]


def capacity_of(limit: LimitGate, setting: Callable[[str], Setting | None]) -> int:
    """Give how many may hold a limit: as an operator has set it, by its name or its family."""
    for name in (limit.name, limit.family):
        found = setting(name)
        if found is not None:
            return found.capacity
    return limit.capacity


def at_once(offers: Mapping[str, Offer], records: Mapping[str, Execution]) -> list[str]:
    """Name what may be claimed with the messages that have woken it, as far as the rows say.

    That is what has run before, needs no gate, is no suspect of any kind, and has a short log; and
    nobody in its queue may have to go before it. Whether anybody waits there already, and whether
    the queue has rules, the store has to see.

    Args:
        offers: what was offered, by execution.
        records: all executions that messages came to in the same transaction, as they are now.
    """
    fit = [id for id, offer in offers.items() if id in records and _fits(records[id], offer)]
    queued = {id for id, record in records.items() if record.state is State.QUEUED}
    behind = {records[id].queue for id in queued.difference(fit)}
    return [id for id in fit if records[id].queue not in behind]


def _fits(record: Execution, offer: Offer) -> bool:
    """Tell whether a claim by this worker could but take an execution, were it alone."""
    queues = offer.lease.queues
    return (
        record.state is State.QUEUED
        and record.gates is None
        and record.started_at is not None
        and record.idle_claims < SUSPECT
        and record.inbox_seen == record.inbox_count
        and record.seq <= SHORT_LOG
        and record.task in offer.tasks
        and (queues is None or record.queue in queues)
    )


def _moves(record: Execution, closed: Closed) -> list[Event]:
    """Make the events that move an execution into the line of a gate, from its queue or a line."""
    data = {"gate": closed.gate, **closed.data, "since": waiting_since(record)}
    block = Event(Kind.BLOCK, "engine", data=data)
    if record.state is State.BLOCKED:
        return [Event(Kind.UNBLOCK, "engine", data={"gate": waits_at(record)}), block]
    return [block]


def is_controlled(setting: QueueSetting | None) -> bool:
    """Tell whether a queue has a rule, so that only a claim may take from it."""
    return setting is not None and (setting.paused_at is not None or setting.capacity is not None)


__all__ = ["MOVED_MAX", "Books", "Closed", "Desk", "at_once", "capacity_of", "is_controlled"]
