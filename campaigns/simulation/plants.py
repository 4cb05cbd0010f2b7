"""Planted bugs: known mistakes, each put into the engine for as long as one simulation runs.

None of them is in the code of production: a plant replaces one function by a faulty one, and puts
the right one back. ``rules`` are the invariants that have to catch it, by their first words.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

from msgspec.structs import replace

from outlast.engine.attempts import Attempts
from outlast.engine.body import Body
from outlast.engine.children import Children
from outlast.engine.driver import Driver
from outlast.engine.journal import Journal
from outlast.engine.membership import Membership
from outlast.engine.owner import Owner
from outlast.engine.playback import Playback
from outlast.engine.scope import Outcome, Scope
from outlast.engine.script import Script
from outlast.engine.waiting import Waiting
from outlast.engine.worker import Worker
from outlast.errors import OutlastError
from outlast.lifecycle import Event, Kind
from outlast.lifecycle import decide as decide_function
from outlast.lifecycle.record import copy_of
from outlast.lifecycle.states import LEASED
from outlast.store.books import Books
from outlast.store.memory import MemoryStore
from outlast.store.memory.members import MemoryMembers
from outlast.store.protocol import Answer, Create

decide_module: Final[Any] = sys.modules["outlast.lifecycle.decide"]
Patch = tuple[Any, str, Any]


@dataclass(frozen=True)
class Plant:
    """A planted bug.

    Attributes:
        says: the mistake, as somebody could make it.
        rules: the rules of which one must catch it.
        patches: gives what is replaced: object, name, the faulty one.
        seeds: in how many seeds it must have been caught.
    """

    says: str
    rules: tuple[str, ...]
    patches: Callable[[], list[Patch]]
    seeds: int = 200


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Put a planted bug in; None: none."""
    if name is None:
        yield
        return
    patches = PLANTS[name].patches()
    before = [(home, attribute, home.__dict__[attribute]) for home, attribute, _ in patches]
    for home, attribute, faulty in patches:
        setattr(home, attribute, faulty)
    try:
        yield
    finally:
        for home, attribute, right in before:
            setattr(home, attribute, right)


def _unfenced_recoverer() -> list[Patch]:
    plain = decide_module._fence

    def fence(record: Any, event: Any) -> Any:
        number = plain(record, event)
        lost = event.kind in (Kind.WORKER_LOST, Kind.LEASE_EXPIRED)
        return record.fence if lost and number is not None else number

    return [(decide_module, "_fence", fence)]


def _ack_before_commit() -> list[Patch]:
    def write_batch(self: Any, waiting: deque[Any]) -> None:
        first = waiting.popleft()
        item = first[0]
        if isinstance(item, Create):
            self._tell(self._settle, [first], [Answer(None, item.after)])
            with suppress(OutlastError):
                self._store.commit([item])
        else:
            try:
                answers = self._store.commit([item])
            except OutlastError as error:
                answers = [Answer("unknown", error=error)]
            self._tell(self._settle, [first], answers)

    return [(Journal, "_write_batch", write_batch)]


def _double_timer() -> list[Patch]:
    plain = Driver._fire_timers

    def fire_timers(self: Any, scope: Any) -> bool:
        timer = scope.next_timer()
        fired = plain(self, scope)
        if fired and timer.number % 2 == 0:
            key = f"timer#{timer.number}"
            self.owner.append(Event(Kind.TIMER_FIRED, "engine", key=key, digest=timer.deadline_at))
        return fired

    return [(Driver, "_fire_timers", fire_timers)]


def _early_timer() -> list[Patch]:
    plain = Waiting.waits

    def waits(self: Any, scope: Any) -> Any:
        found, due_at = plain(self, scope)
        return found, None if due_at is None else due_at - 50_000

    class Hasty:
        def __init__(self, clock: Any) -> None:
            self.clock = clock

        def now(self) -> int:
            return int(self.clock.now()) + 50_000

    fire = Driver._fire_timers

    def fire_timers(self: Any, scope: Any) -> bool:
        worker = self.worker
        clock = worker.clock
        timer = scope.next_timer()
        if timer is None or timer.deadline_at > clock.now() + 50_000:
            return False
        worker.clock = Hasty(clock)
        try:
            before = clock.now
            del before
            append = self.owner.append

            def early(event: Any, **more: Any) -> Any:
                worker.clock = clock
                return append(event, **more)

            self.owner.append = early
            return fire(self, scope)
        finally:
            worker.clock = clock
            del self.owner.append

    return [(Waiting, "waits", waits), (Driver, "_fire_timers", fire_timers)]


def _attempt_counted_late() -> list[Patch]:
    plain_try, plain_start = Attempts._try_again, Attempts._start
    held: dict[tuple[int, str], Any] = {}

    def try_again(self: Any, *given: Any) -> Any:
        append = self.owner.append

        def later(event: Any, **more: Any) -> Any:
            if event.kind is not Kind.ATTEMPT_FAILED:
                return append(event, **more)
            held[id(self), event.key] = event
            return self.owner.row

        self.owner.append = later
        try:
            return plain_try(self, *given)
        finally:
            del self.owner.append

    def start(self: Any, call: Any) -> None:
        plain_start(self, call)
        event = held.pop((id(self), call.key), None)
        if event is not None and not self.owner.is_over:
            self.owner.append(event)

    return [(Attempts, "_try_again", try_again), (Attempts, "_start", start)]


def _park_overlooks_messages() -> list[Patch]:
    plain = Owner.try_append

    def try_append(self: Any, event: Any, **more: Any) -> Any:
        return plain(self, event, **{**more, "inbox_seen": None})

    def overlooking(guard: Any) -> Any:
        def unseen(record: Any, event: Any, now: int) -> bool:
            twin = copy_of(record)
            twin.inbox_seen = twin.inbox_count
            return bool(guard(twin, event, now))

        return unseen

    parks = (Kind.WAIT, Kind.PAUSE, Kind.SUSPEND, Kind.RETRY)
    unguarded = {
        (state, kind): tuple(replace(rule, guard=overlooking(rule.guard)) for rule in rules)
        if kind in parks and state in LEASED
        else rules
        for (state, kind), rules in decide_module.CELLS.items()
    }
    return [(Owner, "try_append", try_append), (decide_module, "CELLS", unguarded)]


def _replay_delivers_at_once() -> list[Patch]:
    plain, run = Driver._deliver_recorded, Scope._run

    def deliver_recorded(self: Any, waiting: Any, history: Any) -> Any:
        scope = self.playback.scope
        if not isinstance(scope, Scope):
            return plain(self, waiting, history)
        started = [False]

        def once(one: Any) -> None:
            if one is not scope or not started[0]:
                run(one)
                started[0] = True

        Scope._run = once  # type: ignore[method-assign, assignment]
        try:
            return plain(self, waiting, history)
        finally:
            Scope._run = run  # type: ignore[method-assign]
            run(scope)

    return [(Driver, "_deliver_recorded", deliver_recorded)]


def _park_runs_clean_up() -> list[Patch]:
    plain = Driver._leave

    def ignore(*_: Any) -> None:
        """Hear nothing."""

    def leave(self: Any, **more: Any) -> None:
        scope = self.playback.scope
        if self.owner.before_park is not None and isinstance(scope, Scope) and not scope.finished:
            scope.deliver(Outcome(self.record.seq, self.owner.row.at, "cancel"))
            nobody: Any = SimpleNamespace(body_done=ignore, beaten=ignore, owner=self.owner)
            for call in scope.take_calls():
                if call.kind == "step":
                    place = (self.record.id, self.worker, scope)
                    Body(call, 1, *place, nobody).start()
        plain(self, **more)

    return [(Driver, "_leave", leave)]


def _replay_forgets_last_step() -> list[Patch]:
    plain = Driver.replay

    def replay(self: Any, rows: Any, unseen: Any) -> None:
        last = max((n for n, row in enumerate(rows) if row.kind is Kind.STEP), default=None)
        plain(self, [row for n, row in enumerate(rows) if n != last], unseen)

    return [(Driver, "replay", replay)]


def _bodies_ahead_of_the_disk() -> list[Patch]:
    plain = Driver._pump

    def pump(self: Any, scope: Any) -> None:
        durable, self.owner.durable = self.owner.durable, 1 << 62
        try:
            plain(self, scope)
        finally:
            self.owner.durable = durable

    return [(Driver, "_pump", pump)]


def _timer_forgotten() -> list[Patch]:
    plain = Waiting.waits

    def waits(self: Any, scope: Any) -> Any:
        return plain(self, scope)[0], None

    return [(Waiting, "waits", waits)]


def _stop_as_failure() -> list[Patch]:
    def hand_back(self: Any) -> None:
        if not self.is_over and self.owner.before_park is None:
            error = {"error": {"type": "stopped"}}
            self._end(Event(Kind.ERROR, "engine", data=error, payload=b"{}"))

    return [(Driver, "hand_back", hand_back)]


def _unknown_taken_for_failed() -> list[Patch]:
    def claimed(self: Any, task: Any) -> None:
        self._claiming = None
        if self._more and self._open and self.free > 0:
            self.look()

    return [(Worker, "_claimed", claimed)]


def _stale_writes_stored() -> list[Patch]:
    plain = MemoryStore._write

    def write(self: Any, item: Any) -> Any:
        record = self._records.get(item.id)
        if record is not None and record.is_leased and item.fence < record.fence:
            # "It only adds a step's result": the last one to write is believed.
            row = item.rows[0]
            if row.kind is Kind.STEP and len(item.rows) == 1:
                event = Event(row.kind, row.actor, record.fence, record.nonce, row.key, row.digest,
                              row.data, row.payload)  # fmt: skip
                decision: Any = decide_function(record, event, row.at)
                twin = decide_module.applied(record, decision)
                self._put(twin, [decision.transition])
                return Answer()
        return plain(self, item)

    return [(MemoryStore, "_write", write)]


def _second_answer_taken() -> list[Patch]:
    decisions: Any = sys.modules["outlast.store.decisions"]
    return [(decisions, "is_answered", lambda message, earlier: False)]


def _message_ids_ignored() -> list[Patch]:
    memory: Any = sys.modules["outlast.store.memory.store"]
    plain = memory.deliver

    def deliver(record: Any, item: Any, earlier: Any, *more: Any) -> Any:
        return plain(record, item, [one for one in earlier if one.id != item.message.id], *more)

    return [(memory, "deliver", deliver)]


def _claims_not_counted() -> list[Patch]:
    plain = decide_module._EFFECTS[Kind.CLAIM]

    def effects() -> Any:
        def claim(record: Any, event: Any, now: int, changes: Any) -> None:
            plain(record, event, now, changes)
            if record.claims:
                changes["claims"] = record.claims

        return {**decide_module._EFFECTS, Kind.CLAIM: claim}

    return [(decide_module, "_EFFECTS", effects())]


def _drops_without_rejoining() -> list[Patch]:
    from outlast.engine.engine import Engine

    def store_failed(self: Any, error: Any) -> None:
        for driver in list(self.worker.drivers.values()):
            driver.drop()

    return [(Engine, "_store_failed", store_failed)]


def _takeover_ignores_renewals() -> list[Patch]:
    plain = MemoryMembers.renew

    def renew(self: Any, worker: str, *given: Any, **more: Any) -> Any:
        before = self._rows.get(worker)
        renewal = plain(self, worker, *given, **more)
        if renewal is not None:
            row = self._rows[worker]
            self._rows[worker] = replace(row, expires_at=before.expires_at)
        return renewal

    return [(MemoryMembers, "renew", renew)]


def _watchdog_off() -> list[Patch]:
    def may_begin(self: Any) -> bool:
        return self._name is not None

    def expires_in(self: Any) -> float:
        return 1e9

    return [(Membership, "may_begin", may_begin), (Membership, "expires_in", expires_in)]


def _watchdog_off_unfenced() -> list[Patch]:
    return [*_watchdog_off(), *_stale_writes_stored()]


def _renewal_forgotten_under_load() -> list[Patch]:
    plain = Membership.beat

    def beat(self: Any) -> float:
        engine = self._renewed.__self__._engine
        if engine.worker.drivers:
            return float(self.lease_us / 3e6)
        return plain(self)

    return [(Membership, "beat", beat)]


def _lease_measured_from_the_answer() -> list[Patch]:
    plain = Membership._granted

    def granted(self: Any, lease_us: int, sent_at: float) -> None:
        plain(self, lease_us, self.now() + max(0.0, self.process.frozen_until / 1e6 - self.now()))

    return [(Membership, "_granted", granted)]


def _limit_overlooked() -> list[Patch]:
    admission: Any = sys.modules["outlast.store.admission"]
    return [(admission, "capacity_of", lambda limit, setting: 1_000_000)]


def _reservation_overlooked() -> list[Patch]:
    plain = Books.reserve

    def reserve(self: Any, item: Any) -> bool:
        budgets = [self.budgets[name] for name in item.amounts if name in self.budgets]
        limits = [budget.limit for budget in budgets]
        for budget in budgets:
            budget.limit = None
        granted = plain(self, item)
        for budget, limit in zip(budgets, limits, strict=True):
            budget.limit = limit
        return granted

    return [(Books, "reserve", reserve)]


def _replays_say_nothing() -> list[Patch]:
    def vouched_for(self: Any) -> int:
        return max((row.seq for row in self._log), default=0)

    return [(Playback, "_vouched_for", vouched_for)]


def _upstream_taken_for_success() -> list[Patch]:
    def remaining(waits_on: Any, ended: Any) -> Any:
        return [edge for edge in waits_on if edge["id"] != ended.get("upstream")]

    delivery: Any = sys.modules["outlast.lifecycle.delivery"]
    return [(home, "remaining", remaining) for home in (decide_module, delivery)]


def _message_wakes_nobody() -> list[Patch]:
    delivery: Any = sys.modules["outlast.lifecycle.delivery"]
    return [(delivery, "is_awaited", lambda record, message: False)]


def _overlap_overlooked() -> list[Patch]:
    module: Any = sys.modules["outlast.schedule.decide"]
    plain = module._decide_slot

    def decide_slot(step: Any, slot: int, open_ids: Any, **more: Any) -> None:
        plain(step, slot, [], **more)

    return [(module, "_decide_slot", decide_slot)]


def _late_slots_fired() -> list[Patch]:
    module: Any = sys.modules["outlast.schedule.decide"]
    return [(module, "takewhile", lambda is_late, due: [])]


def _known_steps_run_again() -> list[Patch]:
    return [(Script, "offer", lambda self, call: False)]


def _fork_knows_its_step() -> list[Patch]:
    descent: Any = sys.modules["outlast.engine.descent"]
    plain = descent._copies

    def copies(source: Any, log: Any, wish: Any) -> Any:
        found, key = plain(source, log, wish)
        return (list(descent._learned(log)) if wish.step is not None else found), key

    return [(descent, "_copies", copies)]


def _unread_signals_lost() -> list[Patch]:
    plain = Children.continue_as

    def continue_as(self: Any, call: Any, birth: Any, left: Any, now: int) -> Any:
        return plain(self, call, birth, left[:-1], now)

    return [(Children, "continue_as", continue_as)]


PLANTS: Final[dict[str, Plant]] = {
    "unfenced_recoverer": Plant(
        "the recoverer takes executions back without raising the fence",
        ("INV-5 fence",), _unfenced_recoverer,
    ),
    "stale_writes_stored": Plant(
        "the store takes a step's result also from a worker whose lease was taken over",
        ("INV-6 owner",), _stale_writes_stored, seeds=600,
    ),
    "ack_before_commit": Plant(
        "a start is acknowledged, and then committed",
        ("INV-9 acknowledged", "INV-15 output commit"), _ack_before_commit,
    ),
    "bodies_ahead_of_the_disk": Plant(
        "a body starts although what its execution has learned is not durable",
        ("INV-15 output commit", "INV-15 attempts"), _bodies_ahead_of_the_disk,
    ),
    "double_timer": Plant("a timer fires twice", ("timers",), _double_timer),
    "early_timer": Plant("a timer fires 50 ms too early", ("timers",), _early_timer),
    "timer_forgotten": Plant(
        "an execution parks without the instant at which it is to go on",
        ("INV-10 reason", "INV-10 liveness"), _timer_forgotten,
    ),
    "attempt_counted_late": Plant(
        "a failed attempt is written down only when the next one has begun",
        ("INV-15 attempts",), _attempt_counted_late,
    ),
    "claims_not_counted": Plant(
        "only an execution's first claim is counted",
        ("INV-11 claims",), _claims_not_counted,
    ),
    "park_overlooks_messages": Plant(
        "an execution parks although a signal has just come: the lost wake-up",
        ("INV-10 liveness", "INV-18 messages", "reasons"), _park_overlooks_messages, seeds=600,
    ),
    "second_answer_taken": Plant(
        "a question takes a second answer", ("INV-18 messages",), _second_answer_taken,
    ),
    "message_ids_ignored": Plant(
        "a message that is sent again counts twice", ("INV-18 messages",), _message_ids_ignored,
    ),
    "replay_delivers_at_once": Plant(
        "a replay delivers all outcomes at once, and not each when the code is quiet",
        ("INV-13 replay",), _replay_delivers_at_once,
    ),
    "replay_forgets_last_step": Plant(
        "a replay overlooks the last recorded step",
        ("INV-8 recorded", "INV-13 replay"), _replay_forgets_last_step,
    ),
    "park_runs_clean_up": Plant(
        "clean-up code runs its steps while a parked execution is unwound",
        ("INV-19 inert",), _park_runs_clean_up,
    ),
    "claim_unknown": Plant(
        "a claim whose outcome is unknown is taken for none",
        ("INV-10 liveness", "reasons"), _unknown_taken_for_failed, seeds=400,
    ),
    "commit_unknown": Plant(
        "after a commit of unknown outcome the engine goes on under its old leases",
        ("INV-10 liveness", "reasons"), _drops_without_rejoining,
    ),
    "takeover_ignores_renewals": Plant(
        "a lease runs out so long after it began, however often it was renewed",
        ("lease taken",), _takeover_ignores_renewals,
    ),
    "watchdog_off": Plant(
        "an engine starts bodies although it could not renew its lease",
        ("lease watched",), _watchdog_off,
    ),
    "watchdog_off_unfenced": Plant(
        "the same, and the store takes a step's result from a worker that was taken over",
        ("INV-6 owner",), _watchdog_off_unfenced, seeds=600,
    ),
    "renewal_forgotten_under_load": Plant(
        "an engine does not renew its lease while it has something to run",
        ("lease kept",), _renewal_forgotten_under_load, seeds=400,
    ),
    "lease_measured_from_the_answer": Plant(
        "the watchdog measures from when the answer to a renewal came, not from its sending",
        ("lease watched",), _lease_measured_from_the_answer, seeds=400,
    ),
    "limit_overlooked": Plant(
        "a claim does not ask whether a limit has room", ("capacity",), _limit_overlooked,
    ),
    "reservation_overlooked": Plant(
        "what a body wants to set aside is granted although it does not fit",
        ("money",), _reservation_overlooked,
    ),
    "replays_say_nothing": Plant(
        "what code says where it was before is taken for stored, whoever wrote the rows behind it",
        ("streams",), _replays_say_nothing, seeds=600,
    ),
    "upstream_taken_for_success": Plant(
        "whatever an execution ends as, those that needed its success begin",
        ("dependencies",), _upstream_taken_for_success,
    ),
    "message_wakes_nobody": Plant(
        "what comes for a parked execution is kept, and does not wake it",
        ("reasons",), _message_wakes_nobody,
    ),
    "overlap_overlooked": Plant(
        "a slot is fired whatever is open, and cancels nothing",
        ("slots",), _overlap_overlooked,
    ),
    "late_slots_fired": Plant(
        "slots that nobody fired in time are fired all the same",
        ("slots",), _late_slots_fired,
    ),
    "known_steps_run_again": Plant(
        "a recovery runs steps again that its source had finished",
        ("descents",), _known_steps_run_again,
    ),
    "fork_knows_its_step": Plant(
        "a fork brings along what came from its step on",
        ("descents",), _fork_knows_its_step,
    ),
    "unread_signals_lost": Plant(
        "what goes on as a new execution leaves the last signal behind that it has not read",
        ("chains", "reasons"), _unread_signals_lost,
    ),
    "stop_as_failure": Plant(
        "what a graceful stop interrupts is written down as failed",
        ("results", "INV-9 acknowledged"), _stop_as_failure,
    ),
}  # fmt: skip
"""The planted bugs by name."""
