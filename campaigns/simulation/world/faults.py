"""What goes wrong beside the store: kills, freezes, stops, and a failure detector that errs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from campaigns.simulation.world.clockwork import Process
from campaigns.simulation.world.node import request
from outlast.errors import OutlastError

if TYPE_CHECKING:
    from campaigns.simulation.world.world import World


class Faults:
    """The weather of one world, as far as it comes to processes; ``disk`` has that of the store."""

    def __init__(self, world: World) -> None:
        self._world = world

    def slander(self, process: Process) -> None:
        """A failure detector takes a process for dead that is not."""
        world = self._world
        if world.plan.lease_us is not None or not world.workers.is_shared or world.is_calm:
            return
        if world.fate.random() >= world.weather.slander:
            return

        def slander() -> None:
            if not process.is_dead:
                world.counts["slandered"] += 1
                world.note(process.number, "is taken for dead")
                world.workers.take_over(set(world.workers.names.get(process, ())), but=process)

        world.later(int(2_000_000 * world.fate.random() ** 2), slander)

    def begin(self) -> None:
        """Plan the kills and freezes of this seed, which come between any two callbacks."""
        world = self._world
        fate, weather = world.fate, world.weather
        for every, what in (
            (weather.kills, self._kill_one),
            (weather.freezes, self._freeze_one),
            (weather.stops, self._stop_one),
        ):
            if every:
                world.later(int(world.horizon_us * fate.random() ** 2), what)
                count = 1 + int(fate.random() * 12 / every)
                for _ in range(count):  # in the midst of it: steps are where something happens
                    self._after_steps(int(fate.random() * 900), what)
        if weather.slander and world.workers.is_shared and world.plan.lease_us is None:
            for _ in range(1 + int(fate.random() * 5)):
                self._after_steps(int(fate.random() * 900), self._slander_one)

    def _slander_one(self, patience: int = 8) -> None:
        """Take a worker for dead that is not even frozen, if that can be while it runs bodies."""
        world = self._world
        process = self._some_process()
        if process is None:
            return
        busy = any(
            driver.bodies
            for engine in world.workers.engines.values()
            if engine.process is process and hasattr(engine, "worker")
            for driver in engine.worker.drivers.values()
        )
        if busy:
            world.counts["slandered"] += 1
            world.note(process.number, "is taken for dead")
            world.workers.take_over(set(world.workers.names.get(process, ())), but=process)
        elif patience:
            self._after_steps(15, lambda: self._slander_one(patience - 1))

    def _some_process(self) -> Process | None:
        world = self._world
        places = sorted(world.workers.engines)
        if not places or world.is_calm:
            return None
        return world.workers.engines[places[int(world.fate.random() * len(places))]].process

    def _kill_one(self, patience: int = 8) -> None:
        """Kill a worker between any two callbacks, if that can be while it holds executions."""
        process = self._some_process()
        if process is None:
            return
        if patience and not self._holds(process):
            self._after_steps(15, lambda: self._kill_one(patience - 1))
            return
        self._world.workers.crash(process, "between two callbacks")

    def _holds(self, process: Process) -> bool:
        return any(
            engine.process is process and hasattr(engine, "worker") and bool(engine.worker.drivers)
            for engine in self._world.workers.engines.values()
        )

    def _freeze_one(self) -> None:
        process = self._some_process()
        if process is not None and process in self._world.workers.disks:
            steps = int(self._world.fate.random() * 30)
            self._after_steps(steps, lambda: self.freeze(process))

    def _stop_one(self) -> None:
        """Stop a worker gracefully: it hands back what it holds."""
        world = self._world
        places = sorted(world.workers.open_places)
        if places and not world.is_calm:
            self.stop(places[int(world.fate.random() * len(places))])

    def stop(self, place: int) -> None:
        """Stop this worker gracefully."""
        world = self._world
        engine = world.workers.engines[place]
        world.workers.open_places.discard(place)
        world.counts["stops"] += 1
        world.note(engine.process.number, "stops")

        def stopped(handed: Any, error: BaseException | None) -> None:
            if error is not None and not isinstance(error, OutlastError):
                world.errors.append(error)
            world.counts["handed_back"] += handed or 0
            world.workers.crash(engine.process, "stopped", is_graceful=True)

        request(engine, engine.aclose, stopped)

    def freeze(self, process: Process) -> None:
        """Stop a process for a while."""
        if not process.is_dead and not self._world.is_calm:
            self._world.workers.disks[process].freeze()

    def _after_steps(self, steps: int, what: Callable[[], None]) -> None:
        self._world.due.append((self._world.clockwork.steps + steps, what))
