"""The workers of a world: they begin, they die, they are taken for dead, others take over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from campaigns.simulation.rules.names import Violation
from campaigns.simulation.tasks.programs import tasks_of
from campaigns.simulation.tasks.small import NEED
from campaigns.simulation.world.clockwork import Process
from campaigns.simulation.world.disk import CALM, Disk
from campaigns.simulation.world.fleet import SimFleet
from campaigns.simulation.world.node import SimEngine, request
from outlast.errors import OutlastError
from outlast.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from campaigns.simulation.world.plan import Plan
    from campaigns.simulation.world.world import World


class Workers:
    """The incarnations of all workers, and what each has of its world.

    Attributes:
        engines: who is at which place, from its beginning to its death.
        open_places: those whose engine is open.
        names: by which names each process has taken leases, the last one now.
        dead_names: the names of those who are dead for sure.
        disks: the way of each to the store.
        lease_us: how long leases are; None where a failure detector says who is dead.
    """

    def __init__(self, world: World, plan: Plan) -> None:
        self._world = world
        self.counts, self.note, self.applied = world.counts, world.note, world.applied
        self.is_shared, self.warm_copies = plan.is_shared, plan.warm_copies
        self.kept_us = plan.kept_us
        self.lease_us = self._weather_lease_us = plan.lease_us
        self._slots, self._skews = plan.slots, plan.skews
        offers = Random(f"{world.seed}/offers")
        self._offers = [
            frozenset({NEED}) if place == 0 or offers.random() < 0.5 else frozenset()
            for place in range(plan.places)
        ]
        self.engines: dict[int, SimEngine] = {}
        self.open_places: set[int] = set()
        self.names: dict[Process, list[str]] = {}
        self.dead_names: set[str] = set()
        self.disks: dict[Process, Disk] = {}
        self._incarnations = 0
        self._noticing: set[SimEngine] = set()
        self._hint_fate = Random(f"{world.seed}/hints")

    def open_engines(self) -> list[SimEngine]:
        """Give the engines that are open."""
        return [self.engines[place] for place in sorted(self.open_places)]

    # What a process has of its world

    def lease_dice(self, process: Process) -> Random:
        """Give the dice of what leases leave to luck in a process."""
        return Random(f"{self._world.seed}/lease/{process.number}")

    def open_disk(self, process: Process, name: str) -> Disk:
        """Open the store for a process."""
        world = self._world
        store: Any = world.memory
        if world.folder is not None:
            path = Path(world.folder) / "w.db"
            store = SqliteStore(path, owner=name, now=process.now())
            store.file.writer.execute("PRAGMA synchronous = OFF")
            if world.reader is world.memory:
                world.reader = SqliteStore(path, owner=None, now=process.now())
                world.auditor.reader = world.reader
        weather = CALM if world.is_calm else world.weather
        disk = Disk(process, store, weather, world.fate, self)
        self.disks[process] = disk
        return disk

    def named(self, process: Process, name: str) -> None:
        """Hear under which name a process takes leases from now on."""
        self.names.setdefault(process, []).append(name)

    def is_new(self, process: Process) -> bool:
        """Whether a process has no name yet."""
        return process not in self.names

    def known_dead(self, process: Process) -> set[str]:
        """Name who is dead for sure: the killed, and what it was itself before."""
        return self.dead_names | set(self.names[process][:-1])

    # What happens to a process

    def look(self, process: Process) -> None:
        """Let a process see whose history the store has, before it writes."""
        self._world.standby.look(process)

    def trouble(self, process: Process, span_us: int = 0) -> None:
        """Hear that something has gone wrong with a process, and goes on for so long."""
        leases = self._world.auditor.leases
        if leases is not None:
            leases.trouble(process, span_us)

    def froze(self, process: Process, span_us: int) -> None:
        """A process was stopped; somebody may take it for dead."""
        self.counts["freezes"] += 1
        self.note(process.number, "frozen for", span_us)
        self.trouble(process)
        self._world.faults.slander(process)

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
        self._world.later(0, lambda: self._bury(place, engine))

    def _bury(self, place: int, engine: SimEngine) -> None:
        world, process = self._world, engine.process
        engine.bury()
        if world.folder is not None and process in self.disks:
            self.disks.pop(process).let_go()
        world.market.died(process)
        names = set(self.names.get(process, ()))
        if self.is_shared:
            world.later(int(4_000_000 * world.fate.random() ** 2), lambda: self._are_dead(names))
        delay = 0 if world.is_calm else int(3_000_000 * world.fate.random() ** 3)
        world.later(delay, lambda: self.start(place))

    def start(self, place: int) -> None:
        """Begin a worker at a place."""
        world = self._world
        self._incarnations += 1
        process = Process(world.clockwork, self._incarnations, self._skews[place])
        world.clockwork.processes.append(process)
        world.standby.joined(process)
        process.code, process.is_first = world.deploys.version, place == 0
        process.offers = self._offers[place]
        tasks = tasks_of(process.code, is_first=process.is_first)
        engine = SimEngine(process, self, tasks, self._slots)
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
                world.errors.append(error)

        request(engine, engine.open, opened)

    def _went_wrong(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Violation) or (
            error is not None and not isinstance(error, OutlastError)
        ):
            self._world.errors.append(error)
        else:
            self._world.errors.append(Violation("sound", f"{context.get('message')}: {error}"))

    # Who takes over from whom

    def _are_dead(self, names: set[str]) -> None:
        """Have the executions of dead workers taken over by one that lives."""
        self.dead_names |= names
        if self._weather_lease_us is None:
            self.take_over(names)

    def look_for_expired(self) -> None:
        """Have all workers look for leases that have run out, now and then."""
        for engine in self.open_engines():
            if isinstance(engine.fleet, SimFleet):
                engine.fleet.looks.set()
        if not self._world.is_calm and self._weather_lease_us is not None:
            delay = min(self._weather_lease_us // 3, 600_000)
            delay = int(delay * (0.6 + 0.4 * self._hint_fate.random()))
            self._world.later(delay, self.look_for_expired)

    def take_over(self, names: set[str], but: Process | None = None) -> None:
        """Have one that lives take over what workers hold that are taken for dead."""
        if self._weather_lease_us is not None:
            self.look_for_expired()
            return
        able = [engine for engine in self.open_engines() if engine.process is not but]
        if able:
            engine = able[int(self._world.fate.random() * len(able))]
            request(engine, lambda: engine.take_over(names), self._taken)

    def _taken(self, _: Any, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, OutlastError):
            self._world.errors.append(error)
        elif error is not None and not self._world.is_calm:
            self._world.later(500_000, lambda: self.take_over(set(self.dead_names)))

    # What processes hear of each other

    def tell_others(self, process: Process) -> None:
        """Let the other workers see that a process has written, some time."""
        for place, engine in self.engines.items():
            if engine.process is not process and place in self.open_places:
                if self._weather_lease_us is None:
                    engine.notice()
                elif engine not in self._noticing:
                    self._noticing.add(engine)  # as it looks now and then, hints or not
                    delay = int(1_000_000 * self._hint_fate.random())
                    self._world.later(delay, self._notices(engine))

    def _notices(self, engine: SimEngine) -> Callable[[], None]:
        def notice() -> None:
            self._noticing.discard(engine)
            if not engine.process.is_dead and engine.is_open:
                engine.notice()

        return notice

    def announce(self) -> None:
        """Have all of them note the steps that take long."""
        for engine in self.open_engines():
            engine.process.loop.call_soon(engine.announce)

    def let_go(self) -> None:
        """Let go of all that is left."""
        for engine in list(self.engines.values()):
            engine.process.die()
            with contextlib.suppress(RuntimeError):
                engine.bury()
        if self._world.folder is not None:
            for disk in self.disks.values():
                disk.let_go()
