"""Queues, limits and rates in SQL: what a claim reads and leaves, and what an operator sets.

Theory of operation. Blocked executions stand in *lines*, one for a gate and a queue. A line says
when a claim has to look at it: at once, at an instant (a rate opens), or when a holder leaves; the
triggers of the schema see to the last, in the transaction in which it leaves, whoever writes that.
So a claim reads the lines that may move, and of each as many executions as it takes. It notes what
it found: a gate closed again, or a line empty. What it did not come to stays to be looked at.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from outlast.lifecycle import Execution, State
from outlast.lifecycle.gate import CAPABILITY, code_of, gates_of, turn_of, waits_at
from outlast.lifecycle.record import COLUMNS
from outlast.store.admission import Desk, capacity_of
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
from outlast.store.relational.budgets import budget_of
from outlast.store.relational.database import Database, Rows, json_of
from outlast.store.relational.rows import Value, execution_of

if TYPE_CHECKING:
    from outlast.access.audit import Deed
    from outlast.store.relational.store import RelationalStore

Ask = Callable[[str, Mapping[str, Value]], Rows]
_WIDTH: Final = len(COLUMNS)
_PAGE: Final = 8
_PAGE_MAX: Final = 500
LINES_MAX: Final = 256
"""Lines of a queue that one claim looks at, those that wait longest to be looked at first."""
_FIRST: Final = -(2**62)


class TabledBooks:
    """What is in the tables about capacity; ``ask`` runs a named statement.

    For a claim, ``lock`` is called before anything is read that another claim could change, or
    whoever leaves a gate.
    """

    def __init__(self, ask: Ask, lock: Callable[[], None] = lambda: None) -> None:
        self._ask = ask
        self._lock = lock
        self.settings: dict[str, QueueSetting | None] = {}

    def holders(self, gate: str) -> list[str]:
        """See :class:`outlast.store.admission.Books`."""
        self._lock()
        return [str(id) for (id,) in self._ask("holders", {"gate": gate})]

    def setting(self, gate: str) -> Setting | None:
        """See :class:`outlast.store.admission.Books`."""
        found = self._ask("gate_setting", {"gate": gate})
        return Setting(*found[0]) if found else None  # type: ignore[arg-type]

    def arrival(self, gate: str) -> int:
        """See :class:`outlast.store.admission.Books`."""
        self._lock()
        found = self._ask("arrival", {"gate": gate})
        return int(str(found[0][0])) if found else 0

    def queue(self, name: str) -> QueueSetting | None:
        """See :class:`outlast.store.admission.Books`."""
        if name not in self.settings:
            found = self._ask("queue_setting", {"name": name})
            self.settings[name] = QueueSetting(*found[0]) if found else None  # type: ignore[arg-type]
        return self.settings[name]

    def running(self, queue: str) -> int:
        """See :class:`outlast.store.admission.Books`."""
        self._lock()
        return len(self._ask("queue_holders", {"queue": queue}))

    def spent_up(self) -> Sequence[BudgetRow]:
        """See :class:`outlast.store.admission.Books`."""
        found = self._ask("spent_up_budgets", {})
        if found:
            self._lock()
            found = self._ask("spent_up_budgets", {})
        return list(map(budget_of, found))


class Claim:
    """The part of one claim that is about capacity; inside its transaction."""

    def __init__(self, database: Database, lease: Lease, now: int) -> None:
        self._database = database
        self._ask = database.ask_all
        self._lease = lease
        self._now = now
        self._lock = partial(database.lock, "gates")
        books = TabledBooks(self._ask, self._lock)
        self.desk = Desk(books, lease, now)
        self._settings = books.settings
        self._lines: list[tuple[str, str]] = []
        self._read: list[tuple[str, str]] = []
        self._cut = False
        self.floor = 0
        self._blocked: dict[tuple[str, str], int | None] = {}
        self.births: dict[str, Sequence[object]] = {}

    def candidates(
        self, limit: int, tasks: Collection[str], versions: Collection[tuple[str, str]]
    ) -> Iterator[Execution]:
        """Give what waits, in the order of its turn; ``births`` has the first row of each log.

        Only of the tasks, and for those that are pinned, of the versions that can be run.
        """
        pins = {code_of(task, version) for task, version in versions if task in tasks}
        can_run = pins.union(tasks)
        known: dict[str, Value] = {
            "tasks": json_of(sorted(tasks)),
            "versions": json_of(sorted(pins)),
        }
        bounds: dict[str, Value]
        queues: dict[str, bool] = {}
        for name, has_lines, floor, *setting in self._ask("waiting_queues", {}):
            queue, self.floor = str(name), int(str(floor))
            queues[queue] = queues.get(queue, False) or bool(has_lines)
            given = any(one is not None for one in setting)
            self._settings[queue] = QueueSetting(queue, *setting) if given else None  # type: ignore[arg-type]
        streams = []
        for queue, has_lines in queues.items():
            if not self.desk.serves(queue):
                continue
            codes = [str(code) for (code,) in self._ask("waiting_codes", {"queue": queue})]
            codes = [code for code in codes if code in can_run]
            size = min(limit, max(_PAGE, -(-limit // max(1, len(codes)))))
            for code in codes:
                bounds = {"queue": queue, "code": code}
                streams.append(self._page("queued_executions", bounds, size))
            if has_lines:
                self._lock()
                bounds = {"queue": queue, "now": self._now, "limit": LINES_MAX}
                lines = self._ask("open_lines", bounds)
                # Those that were looked at and left at this very instant stand at the end.
                old = lines and int(str(lines[-1][1])) < self._now
                self._cut = self._cut or (len(lines) == LINES_MAX and bool(old))
                for gate, _ in lines:
                    self._lines.append((str(gate), queue))
                    bounds = {"gate": str(gate), "queue": queue, **known}
                    streams.append(self._page("blocked_executions", bounds, _PAGE))
        if len(streams) == 1:
            yield from streams[0]
        else:
            yield from heapq.merge(*streams, key=turn_of)

    def _page(self, name: str, bounds: dict[str, Value], size: int) -> Iterator[Execution]:
        """Read one queue or line, page by page, as long as it is open."""
        turn, id = _FIRST, ""
        while True:
            rows = self._ask(name, {**bounds, "turn": turn, "id": id, "limit": size})
            for values in rows:
                record = execution_of(values[:_WIDTH])
                if self.desk.is_passed_over(record):
                    return
                self.births[record.id] = values[_WIDTH:]
                yield record
            if len(rows) < size:
                self._read.append((str(bounds.get("gate", "")), str(bounds["queue"])))
                return
            turn, id = turn_of(record)
            size = min(4 * size, _PAGE_MAX)

    def blocked(self, record: Execution) -> None:
        """Note one that was moved into a line."""
        gate = waits_at(record)
        assert gate is not None
        self._blocked[gate, record.queue] = self.desk.closed[gate]

    def leave(self) -> None:
        """Write what the claim has found, once its executions are written."""
        desk, send = self.desk, self._database.send
        send("end_empty_lines", [line for line in self._lines if line not in self._blocked])
        # What is still there has tasks that nobody knows here: others are looked at before it.
        left: dict[tuple[str, str], int | None] = dict.fromkeys(self._read, self._now)
        left |= {line: desk.closed[line[0]] for line in self._lines if line[0] in desk.closed}
        looked_at = [line for line in self._lines if line in left and line not in self._blocked]
        send("close_lines", [(*line, left[line]) for line in looked_at])
        send("put_lines", [(*line, at) for line, at in self._blocked.items()])
        if desk.taken:
            self._database.run("end_rates", {"now": self._now})
            send("put_rates", list(desk.taken.items()))

    def tell(self, claims: Claims) -> None:
        """Say what the claim has found besides."""
        claims.is_held_back, claims.is_apart = self.desk.held_back, self.desk.apart
        claims.is_unfinished = self.desk.more or self._cut
        openings = (at for at in self.desk.closed.values() if at is not None)
        claims.opens_at = min(openings, default=None)


class RelationalCapacity:
    """The verbs on queues and gates; see the protocol."""

    def __init__(self, store: RelationalStore) -> None:
        self._store = store

    def claim(self, lease: Lease, now: int) -> Claim:
        """Begin a claim, inside its transaction."""
        database = self._store.database
        database.lock("queues_shared")
        if lease.capabilities:
            gates = [CAPABILITY + name for name in sorted(lease.capabilities)]
            database.lock("gates")
            database.run("look_for_capabilities", {"gates": json_of(gates)})
        return Claim(database, lease, now)

    def queues(self) -> list[QueueRow]:
        """See the protocol."""
        read = self._store.database.read
        settings = {
            setting.name: setting
            for setting in (QueueSetting(*row) for row in read("queue_settings", {}))  # type: ignore[arg-type]
        }
        counts: dict[str, dict[str, int]] = {name: {} for name in settings}
        since: dict[str, int] = {}
        for name, state, count, oldest in read("queue_states", {}):
            queue = str(name)
            counts.setdefault(queue, {})[str(state)] = int(str(count))
            if oldest is not None:
                since[queue] = min(since.get(queue, int(str(oldest))), int(str(oldest)))
        return [
            QueueRow(
                settings.get(name, QueueSetting(name)),
                counts[name].get("queued", 0),
                counts[name].get("blocked", 0),
                counts[name].get("leased", 0),
                since.get(name),
            )
            for name in sorted(counts)
        ]

    def set_queue(self, setting: QueueSetting, deed: Deed | None = None) -> None:
        """See the protocol."""
        values = (
            setting.name, setting.capacity, setting.paused_at, setting.paused_by, setting.why,
        )  # fmt: skip
        database = self._store.database

        def put() -> None:
            database.lock("queues")
            database.send("put_queue_setting", [values])
            if deed is not None:
                self._store.audit([(deed, f"queue:{setting.name}", queue_facts(setting))])

        database.write(put)

    def queue(self, name: str) -> QueueSetting:
        """See the protocol."""
        found = self._store.database.read("queue_setting", {"name": name})
        return QueueSetting(*found[0]) if found else QueueSetting(name)  # type: ignore[arg-type]

    def gates(self, limit: int = 1_000) -> list[GateRow]:
        """See the protocol."""
        read = self._store.database.read
        settings = {
            setting.gate: setting
            for setting in (Setting(*row) for row in read("gate_settings", {}))  # type: ignore[arg-type]
        }
        names = {str(gate) for (gate,) in read("gate_names", {"limit": limit})} | settings.keys()
        books = TabledBooks(read)
        rows = []
        for gate in sorted(names)[:limit]:
            ((waiting, first),) = read("line_of", {"gate": gate})
            holders, setting = books.holders(gate), settings.get(gate)
            if waiting or holders or setting is not None:
                next_id = None if first is None else str(first)
                rows.append(GateRow(gate, setting, holders, int(str(waiting)), next_id))
        return rows

    def set_gate(self, setting: Setting, deed: Deed | None = None) -> None:
        """See the protocol."""
        values = (setting.gate, setting.capacity, setting.interval_us, setting.by, setting.at)
        database = self._store.database

        def put() -> None:
            database.lock("gates")
            database.send("put_gate_setting", [values])
            database.run("look_at_gate", {"gate": setting.gate})
            if deed is not None:
                self._store.audit([(deed, f"limit:{setting.gate}", gate_facts(setting))])

        database.write(put)

    def reset_gate(self, gate: str, deed: Deed | None = None) -> bool:
        """See the protocol."""
        database = self._store.database

        def end() -> bool:
            database.lock("gates")
            ended = database.run("end_gate_setting", {"gate": gate})
            database.run("look_at_gate", {"gate": gate})
            if deed is not None and ended:
                self._store.audit([(deed, f"limit:{gate}", {"reset": True})])
            return ended > 0

        return database.write(end)

    def standing(self, id: str) -> Standing | None:
        """See the protocol."""
        (record,) = self._store.get([id])
        if record is None or record.state not in (State.QUEUED, State.BLOCKED):
            return None
        read = self._store.database.read
        books = TabledBooks(read)
        setting = self.queue(record.queue)
        turn, _ = turn_of(record)
        gate = waits_at(record)
        if gate is None:
            bounds: dict[str, Value] = {"queue": record.queue, "turn": turn, "id": id}
            ((place,),) = read("place_in_queue", bounds)
            running: list[str] = []
            if setting.capacity is not None:
                running = [str(one) for (one,) in read("queue_holders", {"queue": record.queue})]
            return Standing(None, int(str(place)), sorted(running), setting)
        ((place,),) = read("place_in_line", {"gate": gate, "turn": turn, "id": id})
        capacity = next(
            (
                capacity_of(limit, books.setting)
                for limit in gates_of(record.gates).limits
                if limit.name == gate
            ),
            None,
        )
        return Standing(gate, int(str(place)), books.holders(gate), setting, capacity)

    def defects(self) -> list[str]:
        """See the protocol."""
        found = self._store.database.read("wrong_holders", {})
        return [f"{id}: {said}: {gate}" for gate, id, said in found]


__all__ = ["Claim", "RelationalCapacity", "TabledBooks"]
