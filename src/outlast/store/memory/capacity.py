"""Queues, limits and rates in memory: everything is asked of the executions' rows themselves."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from outlast.lifecycle import Execution, State
from outlast.lifecycle.gate import (
    RATE,
    gates_of,
    held_by,
    turn_of,
    waiting_since,
    waits_at,
)
from outlast.store.admission import Desk, capacity_of, is_controlled
from outlast.store.auditing import gate_facts, queue_facts
from outlast.store.protocol import (
    BudgetRow,
    Claims,
    GateRow,
    Lease,
    QueueRow,
    QueueSetting,
    Setting,
    Standing,
)
from outlast.store.tenants import EVERY, Every

if TYPE_CHECKING:
    from outlast.access.audit import Deed
    from outlast.store.memory.store import MemoryStore

Line = tuple[str, str]
"""A gate, and a queue of those who wait at it."""


class MemoryCapacity:
    """The verbs on queues and gates, and the books of a claim; see the protocol."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._queues: dict[str, QueueSetting] = {}
        self._settings: dict[str, Setting] = {}
        self.arrivals: dict[str, int] = {}
        self.openings: dict[Line, int] = {}

    # Books

    def holders(self, gate: str) -> list[str]:
        """See :class:`outlast.store.admission.Books`."""
        records = self._store._records
        return sorted(id for id, record in records.items() if gate in held_by(record))

    def setting(self, gate: str) -> Setting | None:
        """See :class:`outlast.store.admission.Books`."""
        return self._settings.get(gate)

    def arrival(self, gate: str) -> int:
        """See :class:`outlast.store.admission.Books`."""
        return self.arrivals.get(gate, 0)

    def running(self, queue: str) -> int:
        """See :class:`outlast.store.admission.Books`."""
        return len(self._leased(queue))

    def _leased(self, queue: str) -> list[str]:
        records = self._store._records.values()
        return sorted(one.id for one in records if one.is_leased and one.queue == queue)

    @property
    def controlled(self) -> set[str] | Every:
        """The queues that have rules; all, where the tenant is closed."""
        if self._store.is_closed:
            return EVERY
        return {name for name, setting in self._queues.items() if is_controlled(setting)}

    # Claims

    def spent_up(self) -> Sequence[BudgetRow]:
        """See :class:`outlast.store.admission.Books`."""
        shared = self._store._money.of(None, "")
        return [budget for budget in shared if budget.spent_up_at is not None]

    def claim(self, lease: Lease, now: int) -> Claim:
        """Begin a claim."""
        return Claim(self, lease, now)

    def waiting(self) -> list[Execution]:
        """Give what is queued or blocked, in the order of its turn."""
        records = self._store._records.values()
        states = (State.QUEUED, State.BLOCKED)
        return sorted((one for one in records if one.state in states), key=turn_of)

    def queued(self) -> set[str]:
        """Name the queues in which something waits for a claim; a line at a gate is no queue."""
        records = self._store._records.values()
        return {record.queue for record in records if record.state is State.QUEUED}

    def next_opening(self, now: int) -> int | None:
        """Give the next instant at which a rate opens to a line."""
        return min((at for at in self.openings.values() if at > now), default=None)

    # Verbs

    def queues(self) -> list[QueueRow]:
        """See the protocol."""
        with self._store._lock:
            waiting = self.waiting()
            leased = [one for one in self._store._records.values() if one.is_leased]
            names = {*self._queues, *(one.queue for one in [*waiting, *leased])}
            return [
                QueueRow(
                    self.queue(name),
                    sum(one.queue == name and one.state is State.QUEUED for one in waiting),
                    sum(one.queue == name and one.state is State.BLOCKED for one in waiting),
                    sum(one.queue == name for one in leased),
                    min((waiting_since(one) for one in waiting if one.queue == name), default=None),
                )
                for name in sorted(names)
            ]

    def set_queue(self, setting: QueueSetting, deed: Deed | None = None) -> None:
        """See the protocol."""
        with self._store._lock:
            self._queues[setting.name] = setting
            if deed is not None:
                self._store.access.append([(deed, f"queue:{setting.name}", queue_facts(setting))])

    def queue(self, name: str) -> QueueSetting:
        """See the protocol."""
        return self._queues.get(name, QueueSetting(name))

    def gates(self, limit: int = 1_000) -> list[GateRow]:
        """See the protocol."""
        with self._store._lock:
            lines: dict[str, list[str]] = {}
            for record in self.waiting():
                gate = waits_at(record)
                if gate is not None:
                    lines.setdefault(gate, []).append(record.id)
            held = {gate for one in self._store._records.values() for gate in held_by(one)}
            return [
                GateRow(
                    gate,
                    self._settings.get(gate),
                    self.holders(gate),
                    len(lines.get(gate, ())),
                    lines[gate][0] if gate in lines else None,
                )
                for gate in sorted({*lines, *held, *self._settings})
            ][:limit]

    def set_gate(self, setting: Setting, deed: Deed | None = None) -> None:
        """See the protocol."""
        with self._store._lock:
            self._settings[setting.gate] = setting
            self._look_at(setting.gate)
            if deed is not None:
                self._store.access.append([(deed, f"limit:{setting.gate}", gate_facts(setting))])

    def reset_gate(self, gate: str, deed: Deed | None = None) -> bool:
        """See the protocol."""
        with self._store._lock:
            self._look_at(gate)
            ended = self._settings.pop(gate, None) is not None
            if deed is not None and ended:
                self._store.access.append([(deed, f"limit:{gate}", {"reset": True})])
            return ended

    def _look_at(self, gate: str) -> None:
        for line in list(self.openings):
            if line[0] == gate or line[0].startswith(f"{gate}:"):
                del self.openings[line]

    def standing(self, id: str) -> Standing | None:
        """See the protocol."""
        with self._store._lock:
            record = self._store._records.get(id)
            if record is None or record.state not in (State.QUEUED, State.BLOCKED):
                return None
            setting, gate = self.queue(record.queue), waits_at(record)
            line = [
                one
                for one in self.waiting()
                if waits_at(one) == gate and (gate is not None or one.queue == record.queue)
            ]
            place = [one.id for one in line].index(id) + 1
            if gate is None:
                running = [] if setting.capacity is None else self._leased(record.queue)
                return Standing(None, place, running, setting)
            capacity = next(
                (
                    capacity_of(limit, self.setting)
                    for limit in gates_of(record.gates).limits
                    if limit.name == gate
                ),
                None,
            )
            return Standing(gate, place, self.holders(gate), setting, capacity)

    def defects(self) -> list[str]:
        """See the protocol."""
        return []


class Claim:
    """The part of one claim that is about capacity."""

    def __init__(self, capacity: MemoryCapacity, lease: Lease, now: int) -> None:
        self._capacity = capacity
        self._now = now
        self.desk = Desk(capacity, lease, now)
        self._lines: set[Line] = set()
        self._blocked: dict[Line, int | None] = {}

    def candidates(
        self, tasks: Collection[str], versions: Collection[tuple[str, str]]
    ) -> Iterator[Execution]:
        """Give what waits, in the order of its turn."""
        found = []
        for record in self._capacity.waiting():
            gate = waits_at(record)
            line = (gate or "", record.queue)
            if not self.desk.serves(record.queue):
                continue
            if gate is not None and self._capacity.openings.get(line, 0) > self._now:
                continue  # nothing looks at it before its rate opens
            if gate is not None:
                self._lines.add(line)
            pinned = record.pin is not None and (record.task, record.pin) not in versions
            if record.task in tasks and not pinned:
                found.append(record)
        yield from found

    def blocked(self, record: Execution) -> None:
        """Note one that was moved into a line."""
        gate = waits_at(record)
        assert gate is not None
        self._blocked[gate, record.queue] = self.desk.closed[gate]

    def leave(self) -> None:
        """Note when the rates open that were found closed, and what was taken from rates."""
        standing = {(waits_at(one), one.queue) for one in self._capacity.waiting()}
        for line in self._lines & standing:
            if line[0] in self.desk.closed:
                self._blocked.setdefault(line, self.desk.closed[line[0]])
        for line, at in self._blocked.items():
            if line[0].startswith(RATE) and at is not None:
                self._capacity.openings[line] = at
        self._capacity.arrivals.update(self.desk.taken)

    def tell(self, claims: Claims) -> None:
        """Say what the claim has found besides."""
        claims.is_held_back, claims.is_unfinished = self.desk.held_back, self.desk.more
        claims.is_apart = self.desk.apart
        openings = (at for at in self.desk.closed.values() if at is not None)
        claims.opens_at = min(openings, default=None)


__all__ = ["MemoryCapacity"]
