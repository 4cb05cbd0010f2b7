"""One seed: its workers, its store, its weather, its clients, and how it ends."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from random import Random, getstate, setstate
from random import seed as seed_module
from typing import Any, Final

import msgspec

from campaigns.simulation.actions import PRICE, stage
from campaigns.simulation.clients import Client, Order, draw_order, is_out_of_budget, nudges, send
from campaigns.simulation.clockwork import EPOCH_US, Clockwork, Process
from campaigns.simulation.disk import CALM, WEATHERS, Disk, Weather
from campaigns.simulation.invariants import Auditor, Violation
from campaigns.simulation.leases import LEASES_US, LONG_US, Book, SimFleet
from campaigns.simulation.node import SimEngine, deterministic, request
from campaigns.simulation.programs import SORTS, TASKS
from campaigns.simulation.slots import Planner, draw_plans
from outlast.budget import UNIT
from outlast.engine.current import current_step
from outlast.errors import OutlastError
from outlast.lifecycle import Execution, Kind, Message, MessageKind, State, reason_of
from outlast.lifecycle.record import continued_as
from outlast.schedule import ScheduleState
from outlast.store.memory import MemoryStore
from outlast.store.protocol import Adjust, Deliver
from outlast.store.sqlite import SqliteStore

DAY_US: Final = 86_400_000_000
SQLITE_SHARE: Final = 0.04
LEASED_SHARE: Final = 0.5
"""Of the worlds with several workers, those in which leases say who is dead."""
_HORIZONS_US: Final = (300_000, 2_000_000, 10_000_000, 60_000_000)
_STEPS_MAX: Final = 25_000
_ROUNDS_MAX: Final = 60


@dataclass(frozen=True)
class Limits:
    """What is left out of a seed, to make its failure small.

    Attributes:
        orders: the executions that there are; None: all.
        faults_until_us: when the faults stop; None: when the seed says.
    """

    orders: frozenset[int] | None = None
    faults_until_us: int | None = None


@dataclass
class Outcome:
    """What a seed has come to.

    Attributes:
        broken: the rule that was broken, and how; None: none.
        trace: what happened, a line each.
        digest: a hash of all that happened.
    """

    seed: int
    kind: str
    counts: Counter[str]
    checked: Counter[str]
    trace: list[str]
    digest: str
    broken: Violation | None = None


class World:
    """Everything there is in one seed."""

    def __init__(self, seed: int, limits: Limits | None = None) -> None:
        self.seed = seed
        self.limits = limits or Limits()
        plan = Random(f"{seed}/plan")
        self.dice = Random(f"{seed}/clients")
        self._fate = Random(f"{seed}/faults")
        self.clockwork = Clockwork(Random(f"{seed}/order"))
        self.counts: Counter[str] = Counter()
        self.trace: list[str] = []
        self.is_on_disk = plan.random() < SQLITE_SHARE
        self.is_shared = not self.is_on_disk and plan.random() < 0.75
        self.weather: Weather = WEATHERS[int(plan.random() * len(WEATHERS))]
        self.places = 1 + int(plan.random() * 3) if self.is_shared else 1
        if self.is_shared and self.weather.slander:
            self.places = max(2, self.places)  # somebody must be there to take over
        self.slots = (1, 2, 4_000, 4_000)[int(plan.random() * 4)]
        self.skews = [
            int(3_000_000 * (plan.random() - 0.5)) if plan.random() < 0.2 else 0 for _ in range(3)
        ]
        self.horizon_us = _HORIZONS_US[int(plan.random() * len(_HORIZONS_US))]
        orders = [
            draw_order(number, plan, self.horizon_us)
            for number in range(1 + int(plan.random() * (3 if self.is_on_disk else 5)))
        ]
        kept = self.limits.orders
        self.orders: list[Order] = [one for one in orders if kept is None or one.number in kept]
        self.plans = draw_plans(Random(f"{seed}/slots"), self.horizon_us)
        self.folder: str | None = None
        self.is_calm = False
        self.engines: dict[int, SimEngine] = {}
        self.names: dict[Process, list[str]] = {}
        self.dead_names: set[str] = set()
        self.disks: dict[Process, Disk] = {}
        self.open_places: set[int] = set()
        self._asked: dict[Process, dict[int, Callable[[], None]]] = {}
        self._clients: dict[str, Client] = {}
        self._ask_count = 0
        self._body_count = 0
        self._incarnations = 0
        self._errors: list[BaseException] = []
        self._due: list[tuple[int, Callable[[], None]]] = []
        self._noticing: set[SimEngine] = set()
        self._hint_fate = Random(f"{seed}/hints")
        lease = Random(f"{seed}/lease")
        self.lease_us: int | None = None
        if self.is_shared and lease.random() < LEASED_SHARE:
            fitting = [span for span in LEASES_US if 2 * span <= self.horizon_us <= 60 * span]
            self.lease_us = fitting[int(lease.random() * len(fitting))]
        self._weather_lease_us = self.lease_us
        self.memory = MemoryStore(is_shared=self.lease_us is not None)
        self.memory.members.clock = lambda: EPOCH_US + self.clockwork.now_us
        self.reader: Any = self.memory
        self.auditor = Auditor(self.memory, self.counts)
        if self.lease_us is not None:
            self.auditor.leases = Book(self.auditor, self.lease_us)
        self.guest = Process(self.clockwork, 0, 0)

    @property
    def kind(self) -> str:
        """Say what kind of world this is."""
        shared = "leased" if self._weather_lease_us is not None else "shared"
        where = "sqlite" if self.is_on_disk else shared if self.is_shared else "owned"
        return f"{where}, {self.places} workers, {self.weather.name}"

    # What parts of the world call

    def note(self, *said: object) -> None:
        """Put something into the trace."""
        self.trace.append(f"{self.clockwork.now_us} {' '.join(map(str, said))}")

    def count(self, name: str) -> None:
        """Count something."""
        self.counts[name] += 1

    def later(self, delay_us: int, what: Callable[[], None]) -> None:
        """Do something later, outside of all processes."""
        self.clockwork.at(self.clockwork.now_us + delay_us, what)

    def ask(
        self,
        make: Callable[[SimEngine], Coroutine[Any, Any, Any]],
        heard: Callable[[Any, BaseException | None], None],
        lost: Callable[[], None],
    ) -> None:
        """Ask some worker that is open; what its process dies with is lost."""
        able = [self.engines[place] for place in sorted(self.open_places)]
        if not able:
            self.later(50_000, lambda: self.ask(make, heard, lost))
            return
        engine = able[int(self.dice.random() * len(able))]
        self._ask_count += 1
        number = self._ask_count
        asked = self._asked.setdefault(engine.process, {})
        asked[number] = lost

        def answered(result: Any, error: BaseException | None) -> None:
            if asked.pop(number, None) is not None:
                try:
                    heard(result, error)
                except Violation as violation:
                    self._errors.append(violation)

        request(engine, lambda: make(engine), answered)

    def id_of(self, number: int) -> str | None:
        """Give the execution that is known to be that of an order."""
        ids = [id for id, client in self._clients.items() if client.order.number == number]
        return ids[0] if ids else None

    def cares(self, client: Client, id: str) -> None:
        """Hear which execution a client has started."""
        self._clients[id] = client

    def deliver_as_guest(self, id: str, message: Message) -> str | None:
        """Write a message from a process beside the engines; gives the refusal."""
        batch = [Deliver(id, message, EPOCH_US + self.clockwork.now_us)]
        if self.is_on_disk:
            (answer,) = self.reader.commit(batch)
        else:
            (answer,) = self.memory.commit(batch)
        self.counts["guest_writes"] += 1
        self.applied(self.guest, "commit", (batch,), [answer])
        return answer.refused  # type: ignore[no-any-return]

    def raise_budget(self, record: Execution) -> None:
        """Let an execution spend more, from a process beside the engines."""
        self.counts["raised"] += 1
        scope, id = f"execution:{record.id}", f"raise-{record.id}-{record.seq}"
        now = EPOCH_US + self.clockwork.now_us
        batch = [Adjust(scope, "raised", {"usd": 10 * PRICE * UNIT}, "client", now, id)]
        answers = self.reader.commit(batch)
        self.applied(self.guest, "commit", (batch,), answers)

    # The disk's ears

    def open_disk(self, process: Process, name: str) -> Disk:
        """Open the store for a process."""
        store: Any = self.memory
        if self.is_on_disk:
            assert self.folder is not None
            store = SqliteStore(Path(self.folder) / "w.db", owner=name, now=process.now())
            store.file.writer.execute("PRAGMA synchronous = OFF")
            if self.reader is self.memory:
                self.reader = self.auditor.reader = SqliteStore(
                    Path(self.folder) / "w.db", owner=None, now=process.now()
                )
        weather = CALM if self.is_calm else self.weather
        disk = Disk(process, store, weather, self._fate, self)
        self.disks[process] = disk
        return disk

    def applied(self, process: Process, verb: str, args: tuple[Any, ...], result: Any) -> None:
        """See what a call of the store has done, and tell the other processes."""
        rows = self.auditor.applied(process, verb, args, result)
        for line in self.auditor.slots.news:
            self.note(process.number, line)
        self.auditor.slots.news.clear()
        if not rows and verb != "commit":
            return
        self.counts["commits"] += 1
        self.counts["transitions"] += len(rows)
        for row in rows:
            self.note(process.number, verb, row.execution_id[-4:], row.seq, row.kind, row.key or "",
                      row.to_state)  # fmt: skip
            if row.kind in (Kind.WORKER_LOST, Kind.LEASE_EXPIRED) and not self.is_calm:
                self.counts["takeovers_in_weather"] += 1
            client = None if self.is_calm else self._clients.get(row.execution_id)
            if client is not None:
                client.react(row)
        for place, engine in self.engines.items():
            if engine.process is not process and place in self.open_places:
                if self._weather_lease_us is None:
                    engine.notice()
                elif engine not in self._noticing:
                    self._noticing.add(engine)  # as it looks now and then, hints or not
                    self.later(int(1_000_000 * self._hint_fate.random()), self._notices(engine))

    def _notices(self, engine: SimEngine) -> Callable[[], None]:
        def notice() -> None:
            self._noticing.discard(engine)
            if not engine.process.is_dead and engine.is_open:
                engine.notice()

        return notice

    def lease_dice(self, process: Process) -> Random:
        """Give the dice of what leases leave to luck in a process."""
        return Random(f"{self.seed}/lease/{process.number}")

    def trouble(self, process: Process, span_us: int = 0) -> None:
        """Hear that something has gone wrong with a process, and goes on for so long."""
        if self.auditor.leases is not None:
            self.auditor.leases.trouble(process, span_us)

    def named(self, process: Process, name: str) -> None:
        """Hear under which name a process takes leases from now on."""
        self.names.setdefault(process, []).append(name)

    def is_new(self, process: Process) -> bool:
        """Whether a process has no name yet."""
        return process not in self.names

    def known_dead(self, process: Process) -> set[str]:
        """Name who is dead for sure: the killed, and what it was itself before."""
        return self.dead_names | set(self.names[process][:-1])

    def froze(self, process: Process, span_us: int) -> None:
        """A process was stopped; somebody may take it for dead."""
        self.counts["freezes"] += 1
        self.note(process.number, "frozen for", span_us)
        self.trouble(process)
        self._slander(process)

    def crash(self, process: Process, why: str, *, is_graceful: bool = False) -> None:
        """Kill a process: whatever it had in memory is gone."""
        place = next((n for n, engine in self.engines.items() if engine.process is process), None)
        if place is None or process.is_dead:
            return
        engine = self.engines.pop(place)
        worker = getattr(engine, "worker", None)
        drivers = list(worker.drivers.values()) if worker is not None else []
        if not is_graceful:
            self.counts["crashes"] += 1
            self.counts["crashes_in_flight"] += bool(drivers)
            self.counts["bodies_cut"] += sum(len(driver.bodies) for driver in drivers)
        self.note(process.number, "killed", why, len(drivers))
        process.die()
        self.open_places.discard(place)
        self.clockwork.at(self.clockwork.now_us, lambda: self._bury(place, engine))

    def _bury(self, place: int, engine: SimEngine) -> None:
        process = engine.process
        engine.bury()
        if self.is_on_disk and process in self.disks:
            self.disks.pop(process)._store.close()
        for lost in self._asked.pop(process, {}).values():
            lost()
        names = set(self.names.get(process, ()))
        fate = self._fate
        if self.is_shared:
            self.later(int(4_000_000 * fate.random() ** 2), lambda: self._declare_dead(names))
        delay = 0 if self.is_calm else int(3_000_000 * fate.random() ** 3)
        self.later(delay, lambda: self._start(place))

    # Workers

    def _start(self, place: int) -> None:
        self._incarnations += 1
        process = Process(self.clockwork, self._incarnations, self.skews[place])
        self.clockwork.processes.append(process)
        engine = SimEngine(process, self, TASKS, self.slots)
        process.loop.on_error = self._went_wrong
        self.engines[place] = engine
        self.note(process.number, "begins")

        def opened(_: Any, error: BaseException | None) -> None:
            if error is None:
                self.open_places.add(place)
            elif isinstance(error, OutlastError):
                self.counts["opening_failed"] += 1
                self.crash(process, "at its opening")
            else:
                self._errors.append(error)

        request(engine, engine.open, opened)

    def _went_wrong(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Violation) or (
            error is not None and not isinstance(error, OutlastError)
        ):
            self._errors.append(error)
        else:
            self._errors.append(Violation("sound", f"{context.get('message')}: {error}"))

    def _declare_dead(self, names: set[str]) -> None:
        """Have the executions of dead workers taken over by one that lives."""
        self.dead_names |= names
        if self._weather_lease_us is None:
            self._take_over(names)

    def _look_for_expired(self) -> None:
        """Have all workers look for leases that have run out, now and then."""
        for place in sorted(self.open_places):
            fleet = self.engines[place].fleet
            if isinstance(fleet, SimFleet):
                fleet.looks.set()
        if not self.is_calm and self._weather_lease_us is not None:
            delay = min(self._weather_lease_us // 3, 600_000)
            self.later(int(delay * (0.6 + 0.4 * self._hint_fate.random())), self._look_for_expired)

    def _take_over(self, names: set[str], but: Process | None = None) -> None:
        if self._weather_lease_us is not None:
            self._look_for_expired()
            return
        able = [
            self.engines[place]
            for place in sorted(self.open_places)
            if self.engines[place].process is not but
        ]
        if able:
            engine = able[int(self._fate.random() * len(able))]
            request(engine, lambda: engine.take_over(names), self._taken)

    def _taken(self, _: Any, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, OutlastError):
            self._errors.append(error)
        elif error is not None and not self.is_calm:
            self.later(500_000, lambda: self._take_over(set(self.dead_names)))

    def _slander(self, process: Process) -> None:
        """A failure detector takes a process for dead that is not."""
        if self._weather_lease_us is not None or not self.is_shared or self.is_calm:
            return
        if self._fate.random() >= self.weather.slander:
            return

        def slander() -> None:
            if not process.is_dead:
                self.counts["slandered"] += 1
                self.note(process.number, "is taken for dead")
                self._take_over(set(self.names.get(process, ())), but=process)

        self.later(int(2_000_000 * self._fate.random() ** 2), slander)

    def _weather_comes(self) -> None:
        """Plan the kills and freezes of this seed, which come between any two callbacks."""
        fate, weather = self._fate, self.weather
        for every, what in (
            (weather.kills, self._kill_one),
            (weather.freezes, self._freeze_one),
            (weather.stops, self._stop_one),
        ):
            if every:
                self.later(int(self.horizon_us * fate.random() ** 2), what)
                count = 1 + int(fate.random() * 12 / every)
                for _ in range(count):  # in the midst of it: steps are where something happens
                    self._after_steps(int(fate.random() * 900), what)
        if weather.slander and self.is_shared and self._weather_lease_us is None:
            for _ in range(1 + int(fate.random() * 5)):
                self._after_steps(int(fate.random() * 900), self._slander_one)

    def _slander_one(self, patience: int = 8) -> None:
        """Take a worker for dead that is not even frozen, if that can be while it runs bodies."""
        process = self._some_process()
        if process is None:
            return
        busy = any(
            driver.bodies
            for engine in self.engines.values()
            if engine.process is process and hasattr(engine, "worker")
            for driver in engine.worker.drivers.values()
        )
        if busy:
            self.counts["slandered"] += 1
            self.note(process.number, "is taken for dead")
            self._take_over(set(self.names.get(process, ())), but=process)
        elif patience:
            self._after_steps(15, lambda: self._slander_one(patience - 1))

    def _some_process(self) -> Process | None:
        places = sorted(self.engines)
        if not places or self.is_calm:
            return None
        return self.engines[places[int(self._fate.random() * len(places))]].process

    def _kill_one(self, patience: int = 8) -> None:
        """Kill a worker between any two callbacks, if that can be while it holds executions."""
        process = self._some_process()
        if process is None:
            return
        if patience and not self._holds(process):
            self._after_steps(15, lambda: self._kill_one(patience - 1))
            return
        self.crash(process, "between two callbacks")

    def _holds(self, process: Process) -> bool:
        return any(
            engine.process is process and hasattr(engine, "worker") and bool(engine.worker.drivers)
            for engine in self.engines.values()
        )

    def _freeze_one(self) -> None:
        process = self._some_process()
        if process is not None and process in self.disks:
            steps = int(self._fate.random() * 30)
            self._after_steps(steps, lambda: self._freeze(process))

    def _stop_one(self) -> None:
        """Stop a worker gracefully: it hands back what it holds."""
        places = sorted(self.open_places)
        if not places or self.is_calm:
            return
        place = places[int(self._fate.random() * len(places))]
        engine = self.engines[place]
        self.open_places.discard(place)
        self.counts["stops"] += 1
        self.note(engine.process.number, "stops")

        def stopped(handed: Any, error: BaseException | None) -> None:
            if error is not None and not isinstance(error, OutlastError):
                self._errors.append(error)
            self.counts["handed_back"] += handed or 0
            self.crash(engine.process, "stopped", is_graceful=True)

        request(engine, engine.aclose, stopped)

    def _freeze(self, process: Process) -> None:
        if not process.is_dead and not self.is_calm:
            self.disks[process].freeze()

    def _after_steps(self, steps: int, what: Callable[[], None]) -> None:
        self._due.append((self.clockwork.steps + steps, what))

    # Running

    def run(self) -> Outcome:
        """Run the seed to its end, or to the first broken rule."""
        broken: Violation | None = None
        state = getstate()
        seed_module(self.seed)  # the jitter of back-offs is drawn from it
        stage.began = self._began
        try:
            with deterministic(Random(f"{self.seed}/nonces")):
                try:
                    self._live()
                except Violation as violation:
                    broken = violation
                except Exception as error:  # noqa: BLE001 - whatever the engine let through
                    said = traceback.format_exception(error)
                    broken = Violation("sound", f"{error!r}\n{''.join(said[-6:])}")
                finally:
                    self._let_go()
        finally:
            setstate(state)
        if broken is not None:
            self.note("BROKEN", broken)
        digest = hashlib.blake2b("\n".join(self.trace).encode(), digest_size=8)
        digest.update(repr((self.clockwork.steps, self.clockwork.dice.getstate()[1][-1])).encode())
        self.counts["steps"] += self.clockwork.steps
        self.counts["virtual_seconds"] += self.clockwork.now_us // 1_000_000
        return Outcome(
            self.seed, self.kind, self.counts, self.auditor.checked, self.trace,
            digest.hexdigest(), broken,
        )  # fmt: skip

    def _began(self, id: str, key: str, attempt: int, witness: list[str]) -> str:
        process = self.clockwork.current
        self._body_count += 1
        self.counts["bodies"] += 1
        self.note(process.number if process else "?", "body", id[-4:], key, attempt)
        try:
            if self.auditor.leases is not None and process is not None:
                self.auditor.leases.began(process, self.names[process][-1])
            self.auditor.began(process, _lease_of_body(), id, key, attempt, witness)
        except Violation as violation:
            self._errors.append(violation)
        return f"Tb{self._body_count}"

    def _live(self) -> None:
        if self.is_on_disk:
            shm = Path("/dev/shm")
            self.folder = tempfile.mkdtemp(dir=shm if shm.is_dir() else None)
        self.note(self.kind, [order.sort.task.name for order in self.orders])
        for place in range(self.places):
            self._start(place)
        for order in self.orders:
            Client(self, order, self.horizon_us)
        self._planners = {plan.name: Planner(self, plan) for plan in self.plans}
        self._weather_comes()
        if self._weather_lease_us is not None:
            self._look_for_expired()
        if self.horizon_us > 1_000_000:
            for part in range(1, 4):
                self.later(self.horizon_us * part // 4, self._announce)
        end = self.limits.faults_until_us
        self._go(self.horizon_us if end is None else min(self.horizon_us, end))
        self._clear_up()
        self._come_to_an_end()
        self.auditor.check_everything()
        self._check_results()

    def _announce(self) -> None:
        for place in sorted(self.open_places):
            engine = self.engines[place]
            engine.process.loop.call_soon(engine.announce)

    def _go(self, until_us: int) -> None:
        clockwork = self.clockwork
        most = clockwork.steps + _STEPS_MAX
        while clockwork.step(until_us):
            if self._errors or self.auditor.broken is not None:
                raise self.auditor.broken or self._errors[0]
            if self._due:
                due = [what for at, what in self._due if at <= clockwork.steps]
                self._due = [one for one in self._due if one[0] > clockwork.steps]
                for what in due:
                    what()
            if clockwork.steps > most:
                raise Violation("INV-10 liveness", "it never comes to rest")

    def _clear_up(self) -> None:
        """The weather clears: nothing fails any more, and who was frozen goes on."""
        self.is_calm = True
        self._due = []
        self.note("the weather clears")
        for disk in self.disks.values():
            disk.is_calm = True
        for process in self.clockwork.processes:
            process.frozen_until = 0
        if self.lease_us is not None:
            self.lease_us = LONG_US
            for engine in self.engines.values():
                if isinstance(engine.fleet, SimFleet):
                    engine.fleet.clear_up()

    def _come_to_an_end(self) -> None:
        """Do what is missing for each execution, until all have ended."""
        for _ in range(_ROUNDS_MAX):
            self._go(self.clockwork.now_us + DAY_US)
            if self.is_shared:
                self._take_over(set(self.dead_names))
                self._go(self.clockwork.now_us + DAY_US)
            still = [seen for seen in self.auditor.seen.values() if not seen.record.is_final]
            plans = self.auditor.slots.at_rest(EPOCH_US + self.clockwork.now_us)
            all_known = all(order.key is None or self._known(order) for order in self.orders)
            if not still and not plans and all_known:
                self.auditor.check("INV-10 liveness", True)
                return
            before = len(self.trace)
            for plan in plans:
                if plan.state is ScheduleState.PAUSED:
                    self._planners[plan.name].do("resume")
            rows = {seen.record.id: len(seen.rows) for seen in still}
            for seen in still:
                self.auditor.truth.at_rest(seen, EPOCH_US + self.clockwork.now_us)
            for seen in still:
                chain = self.auditor.chains.of(seen.record.id)
                inbox = [entry for id in chain for entry in self.auditor.seen[id].inbox]
                given = nudges(seen.record, seen.rows, inbox)
                if is_out_of_budget(seen.record):
                    self.raise_budget(seen.record)
                elif not given:
                    del rows[seen.record.id]  # others have to move first
                for message in given:
                    send(self, seen.record.id, message, as_guest=False)
            self._go(self.clockwork.now_us + DAY_US)
            for id, count in rows.items():
                moved = len(self.auditor.seen[id].rows) > count
                self.auditor.check("reasons", moved, id, "got what it asks for, and stands still")
            if len(self.trace) == before:
                break
        stuck = [
            f"{seen.record.id[-4:]} {seen.record.state}: {reason_of(seen.record)}"
            for seen in self.auditor.seen.values()
            if not seen.record.is_final
        ]
        self.auditor.check("INV-10 liveness", False, *stuck[:3])

    def _known(self, order: Order) -> bool:
        return any(seen.record.key == order.key for seen in self.auditor.seen.values())

    def _check_results(self) -> None:
        """Compare what everything came to with what its program can come to."""
        for id, seen in self.auditor.seen.items():
            record, last = seen.record, seen.rows[-1]
            sort = SORTS[record.task]
            self.counts[f"ended_{record.state}"] += 1
            self.counts["executions"] += 1
            self.counts["replays"] += max(0, seen.starts - 1)
            possible = set(sort.ends)
            if any(entry.message.kind is MessageKind.CANCEL for entry in seen.inbox):
                possible.add("cancelled")
            if record.deadline_at is not None:
                possible.add("timed_out")
            if (last.data or {}).get("by") == "upstream":
                possible.add("cancelled")  # which is judged by the rule of dependencies
            self.auditor.check("results", str(record.state) in possible, id, record.state, possible,
                               (last.data or {}).get("error"))  # fmt: skip
            if record.state is not State.SUCCEEDED or continued_as(record) is not None:
                continue
            came = msgspec.json.decode(last.payload or b"{}")
            seed = msgspec.json.decode(seen.rows[0].payload or b"{}")["seed"]
            tokens = came["tokens"]
            self.auditor.check(
                "results", came["total"] == sort.plan(seed).total(), id, came["total"]
            )
            self.auditor.check(
                "results", len(set(tokens)) == len(tokens), id, "learned twice", tokens
            )
            self.auditor.check(
                "results", seen.tokens.issuperset(tokens), id, "learned what is not stored"
            )

    def _let_go(self) -> None:
        """Let go of everything that is left."""
        for engine in list(self.engines.values()):
            engine.process.die()
            with contextlib.suppress(RuntimeError):
                engine.bury()
        for disk in self.disks.values():
            if self.is_on_disk:
                disk._store.close()
        if self.reader is not self.memory:
            self.reader.close()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def _lease_of_body() -> bytes | None:
    """Give the lease under which the body that just begins was started."""
    tell: Any = current_step.get()
    body = getattr(tell, "__self__", tell)
    owner = body._keeper.owner
    parked = owner.before_park
    nonce: bytes | None = owner.record.nonce if parked is None else parked.nonce
    return nonce


def run(seed: int, limits: Limits | None = None) -> Outcome:
    """Run one seed."""
    return World(seed, limits).run()
