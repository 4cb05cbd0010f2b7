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

from campaigns.simulation.actors.clients import Client
from campaigns.simulation.actors.planner import Planner
from campaigns.simulation.rules.auditor import Auditor
from campaigns.simulation.rules.leases import Book
from campaigns.simulation.rules.names import Violation
from campaigns.simulation.tasks.programs import tasks_of
from campaigns.simulation.tasks.steps import PRICE, stage
from campaigns.simulation.world.chance import deterministic
from campaigns.simulation.world.clockwork import EPOCH_US, Clockwork, Process
from campaigns.simulation.world.deploys import Deploys
from campaigns.simulation.world.disk import CALM, Disk
from campaigns.simulation.world.ending import Ending
from campaigns.simulation.world.faults import Faults
from campaigns.simulation.world.fleet import SimFleet
from campaigns.simulation.world.node import SimEngine, request
from campaigns.simulation.world.plan import draw_plan
from campaigns.simulation.world.standby import Standby
from outlast.budget import UNIT
from outlast.engine.task.current import current_step
from outlast.errors import OutlastError
from outlast.lifecycle import Execution, Kind, Message
from outlast.store.memory import MemoryStore
from outlast.store.protocol import Adjust, Deliver
from outlast.store.sqlite import SqliteStore

_STEPS_MAX: Final = 25_000


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
        plan = draw_plan(seed)
        self.kind = plan.kind
        self.is_on_disk, self.is_shared = plan.is_on_disk, plan.is_shared
        self.weather, self.horizon_us = plan.weather, plan.horizon_us
        self.places, self.slots, self.skews = plan.places, plan.slots, plan.skews
        self.plans = plan.schedules
        self.warm_copies = plan.warm_copies
        kept = self.limits.orders
        self.orders = [one for one in plan.orders if kept is None or one.number in kept]
        self.lease_us = self.weather_lease_us = plan.lease_us
        self.dice = Random(f"{seed}/clients")
        self.fate = Random(f"{seed}/faults")
        self.clockwork = Clockwork(Random(f"{seed}/order"))
        self.counts: Counter[str] = Counter()
        self.trace: list[str] = []
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
        self.errors: list[BaseException] = []
        self.due: list[tuple[int, Callable[[], None]]] = []
        self._noticing: set[SimEngine] = set()
        self._hint_fate = Random(f"{seed}/hints")
        self.memory = MemoryStore(is_shared=self.lease_us is not None)
        self.memory.members.clock = lambda: EPOCH_US + self.clockwork.now_us
        self.reader: Any = self.memory
        self.auditor = Auditor(self.memory, self.counts)
        self.auditor.is_skewed = any(self.skews)
        if self.lease_us is not None:
            self.auditor.leases = Book(self.auditor, self.lease_us)
        self.guest = Process(self.clockwork, 0, 0)
        self.planners: dict[str, Planner] = {}
        self.faults = Faults(self)
        self.ending = Ending(self)
        self.standby = Standby(self)
        self.deploys = Deploys(self)
        self.answering: Process | None = None

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
        able = self.open_engines()
        if not able:
            self.later(50_000, lambda: self.ask(make, heard, lost))
            return
        engine = able[int(self.dice.random() * len(able))]
        self._ask_count += 1
        number = self._ask_count
        asked = self._asked.setdefault(engine.process, {})
        asked[number] = lost
        history = self.standby.history

        def answered(result: Any, error: BaseException | None) -> None:
            if asked.pop(number, None) is not None:
                self.answering = engine.process
                try:
                    if history == self.standby.history:
                        heard(result, error)
                    else:
                        lost()  # what it says may be of another history
                except Violation as violation:
                    self.errors.append(violation)
                finally:
                    self.answering = None

        request(engine, lambda: make(engine), answered)

    def id_of(self, number: int) -> str | None:
        """Give the execution that is known to be that of an order."""
        ids = [id for id, client in self._clients.items() if client.order.number == number]
        return ids[0] if ids else None

    def open_engines(self) -> list[SimEngine]:
        """Give the engines that are open."""
        return [self.engines[place] for place in sorted(self.open_places)]

    def look(self, process: Process) -> None:
        """Let a process see whose history the store has, before it writes."""
        self.standby.look(process)

    def forget_lost(self) -> None:
        """Have clients begin anew where what they had started is lost."""
        for id, client in list(self._clients.items()):
            if id not in self.auditor.seen:
                del self._clients[id]
                client.has_lost()

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
        disk = Disk(process, store, weather, self.fate, self)
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
                if self.weather_lease_us is None:
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
        self.faults.slander(process)

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
        fate = self.fate
        if self.is_shared:
            self.later(int(4_000_000 * fate.random() ** 2), lambda: self._declare_dead(names))
        delay = 0 if self.is_calm else int(3_000_000 * fate.random() ** 3)
        self.later(delay, lambda: self._start(place))

    # Workers

    def _start(self, place: int) -> None:
        self._incarnations += 1
        process = Process(self.clockwork, self._incarnations, self.skews[place])
        self.clockwork.processes.append(process)
        self.standby.joined(process)
        process.code = self.deploys.version
        engine = SimEngine(process, self, tasks_of(process.code), self.slots)
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
                self.errors.append(error)

        request(engine, engine.open, opened)

    def _went_wrong(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Violation) or (
            error is not None and not isinstance(error, OutlastError)
        ):
            self.errors.append(error)
        else:
            self.errors.append(Violation("sound", f"{context.get('message')}: {error}"))

    def _declare_dead(self, names: set[str]) -> None:
        """Have the executions of dead workers taken over by one that lives."""
        self.dead_names |= names
        if self.weather_lease_us is None:
            self.take_over(names)

    def _look_for_expired(self) -> None:
        """Have all workers look for leases that have run out, now and then."""
        for place in sorted(self.open_places):
            fleet = self.engines[place].fleet
            if isinstance(fleet, SimFleet):
                fleet.looks.set()
        if not self.is_calm and self.weather_lease_us is not None:
            delay = min(self.weather_lease_us // 3, 600_000)
            self.later(int(delay * (0.6 + 0.4 * self._hint_fate.random())), self._look_for_expired)

    def take_over(self, names: set[str], but: Process | None = None) -> None:
        """Have one that lives take over what workers hold that are taken for dead."""
        if self.weather_lease_us is not None:
            self._look_for_expired()
            return
        able = [
            self.engines[place]
            for place in sorted(self.open_places)
            if self.engines[place].process is not but
        ]
        if able:
            engine = able[int(self.fate.random() * len(able))]
            request(engine, lambda: engine.take_over(names), self._taken)

    def _taken(self, _: Any, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, OutlastError):
            self.errors.append(error)
        elif error is not None and not self.is_calm:
            self.later(500_000, lambda: self.take_over(set(self.dead_names)))

    # Running

    def run(self) -> Outcome:
        """Run the seed to its end, or to the first broken rule."""
        broken: Violation | None = None
        state = getstate()
        seed_module(self.seed)  # the jitter of back-offs is drawn from it
        stage.began, stage.beaten = self._began, self._beaten
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
        if process is not None and not self.standby.knows(process):
            self.counts["bodies_of_before"] += (
                1  # it rests on what may be lost, and nobody can know
            )
            return f"Tb{self._body_count}"
        try:
            if self.auditor.leases is not None and process is not None:
                self.auditor.leases.began(process, self.names[process][-1])
            self.auditor.began(process, _lease_of_body(), id, key, attempt, witness)
        except Violation as violation:
            self.errors.append(violation)
        return f"Tb{self._body_count}"

    def _beaten(self, id: str, key: str, number: int) -> None:
        process = self.clockwork.current
        if process is not None and self.standby.knows(process):
            try:
                self.auditor.times.beaten(process, id, key, number)
            except Violation as violation:
                self.errors.append(violation)

    def _live(self) -> None:
        if self.is_on_disk:
            shm = Path("/dev/shm")
            self.folder = tempfile.mkdtemp(dir=shm if shm.is_dir() else None)
        self.note(self.kind, [order.sort.task.name for order in self.orders])
        for place in range(self.places):
            self._start(place)
        for order in self.orders:
            Client(self, order, self.horizon_us)
        self.planners = {plan.name: Planner(self, plan) for plan in self.plans}
        self.faults.begin()
        self.standby.begin()
        self.deploys.begin()
        if self.weather_lease_us is not None:
            self._look_for_expired()
        if self.horizon_us > 1_000_000:
            for part in range(1, 4):
                self.later(self.horizon_us * part // 4, self._announce)
        end = self.limits.faults_until_us
        self.go(self.horizon_us if end is None else min(self.horizon_us, end))
        self.ending.clear_up()
        self.ending.come_to_an_end()
        self.auditor.check_everything()

    def _announce(self) -> None:
        for place in sorted(self.open_places):
            engine = self.engines[place]
            engine.process.loop.call_soon(engine.announce)

    def go(self, until_us: int) -> None:
        """Let things happen until an instant, or until nothing is left to happen."""
        clockwork = self.clockwork
        most = clockwork.steps + _STEPS_MAX
        while clockwork.step(until_us):
            if self.errors or self.auditor.broken is not None:
                raise self.auditor.broken or self.errors[0]
            if self.due:
                due = [what for at, what in self.due if at <= clockwork.steps]
                self.due = [one for one in self.due if one[0] > clockwork.steps]
                for what in due:
                    what()
            if clockwork.steps > most:
                raise Violation("INV-10 liveness", "it never comes to rest")

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
