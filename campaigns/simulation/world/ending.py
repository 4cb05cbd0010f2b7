"""How a world ends: the weather clears, what is missing is given, and everything must end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from campaigns.simulation.actors.clients import send
from campaigns.simulation.actors.nudges import is_out_of_budget, nudges
from campaigns.simulation.world.clockwork import EPOCH_US
from campaigns.simulation.world.fleet import LONG_US, SimFleet
from outlast.lifecycle import reason_of
from outlast.schedule import ScheduleState

if TYPE_CHECKING:
    from campaigns.simulation.rules.seen import Seen
    from campaigns.simulation.world.world import World

DAY_US: Final = 86_400_000_000
_ROUNDS_MAX: Final = 60


class Ending:
    """The end of one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def clear_up(self) -> None:
        """The weather clears: nothing fails any more, and who was frozen goes on."""
        world = self._world
        world.is_calm = True
        world.due = []
        world.note("the weather clears")
        world.deploys.finish()
        for disk in world.workers.disks.values():
            disk.is_calm = True
        for process in world.clockwork.processes:
            process.frozen_until = 0
        if world.workers.lease_us is not None:
            world.workers.lease_us = LONG_US
            for engine in world.workers.engines.values():
                if isinstance(engine.fleet, SimFleet):
                    engine.fleet.clear_up()

    def come_to_an_end(self) -> None:
        """Do what is missing for each execution, until all have ended."""
        world, auditor = self._world, self._world.auditor
        for _ in range(_ROUNDS_MAX):
            self._settle()
            still = [seen for seen in auditor.seen.values() if not seen.record.is_final]
            now = EPOCH_US + world.clockwork.now_us
            plans = auditor.slots.at_rest(now)
            if not still and not plans and self._all_started():
                auditor.check("INV-10 liveness", True)
                return
            before = len(world.trace)
            for plan in plans:
                if plan.state is ScheduleState.PAUSED:
                    world.planners[plan.name].do("resume")
            for seen in still:
                auditor.truth.at_rest(seen, now)
            for topic in auditor.topics:
                topic.at_rest(now)
            rows = {seen.record.id: len(seen.rows) for seen in still if self._give(seen)}
            world.go(world.clockwork.now_us + DAY_US)
            for id, count in rows.items():
                moved = len(auditor.seen[id].rows) > count
                auditor.check("reasons", moved, id, "got what it asks for, and stands still")
            if len(world.trace) == before:
                break
        stuck = [
            f"{seen.record.id[-4:]} {seen.record.state}: {reason_of(seen.record)}"
            for seen in auditor.seen.values()
            if not seen.record.is_final
        ]
        auditor.check("INV-10 liveness", False, *stuck[:3])

    def _settle(self) -> None:
        """Let everything go as far as it comes by itself."""
        world = self._world
        world.go(world.clockwork.now_us + DAY_US)
        if world.workers.is_shared:
            world.workers.take_over(set(world.workers.dead_names))
            world.go(world.clockwork.now_us + DAY_US)

    def _give(self, seen: Seen) -> bool:
        """Give an open execution what it asks for; gives whether that was anything."""
        world, record = self._world, seen.record
        chain = self._world.auditor.chains.of(record.id)
        inbox = [entry for id in chain for entry in self._world.auditor.seen[id].inbox]
        if is_out_of_budget(record):
            world.market.raise_budget(record)
            return True
        given = nudges(record, seen.rows, inbox)
        for message in given:
            send(world.market, record.id, message, as_guest=False)
        return bool(given)  # else others have to move first

    def _all_started(self) -> bool:
        known = {seen.record.key for seen in self._world.auditor.seen.values()}
        return all(order.key is None or order.key in known for order in self._world.orders)
