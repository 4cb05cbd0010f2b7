"""A standby that is behind, and is promoted: the store goes back in time.

What the store holds, and what the auditor knows, is copied at one instant, and put in their place
at a later one: what was acknowledged in between is lost. The store begins an epoch, as the first
who writes would have it do. Each process is told at the first thing that it wants to write; a
renewal goes over a connection of its own, and finds no lease.
"""

from __future__ import annotations

import copy
import threading
from random import Random
from typing import TYPE_CHECKING, Any, Final

from campaigns.simulation.world.clockwork import EPOCH_US, Process
from outlast.errors import StoreFailedOver

if TYPE_CHECKING:
    from campaigns.simulation.world.world import World

SHARE: Final = 0.25
"""Of the worlds with leases, those whose store is failed over."""
_LOCK: Final = type(threading.RLock())


class Standby:
    """The second server of one world.

    Attributes:
        history: which history of the store this is, from 0.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._copy: tuple[Any, Any] | None = None
        self._told: dict[Process, int] = {}
        self.history = 0

    def begin(self) -> None:
        """Plan when it falls behind, and when it is promoted."""
        world, dice = self._world, Random(f"{self._world.seed}/standby")
        if world.plan.lease_us is None or dice.random() >= SHARE:
            return
        behind_at = int(world.horizon_us * 0.7 * dice.random() ** 2)
        lag = int(0.5 * world.horizon_us * dice.random())
        world.later(behind_at, self._fall_behind)
        world.later(behind_at + lag, self._promote)

    def _fall_behind(self) -> None:
        if self._world.is_calm:
            return
        world = self._world
        memo: dict[int, Any] = {}
        for shared in (
            world.counts,
            world.auditor.checked,
            world.memory._heard,
            world.memory._hearer,
        ):
            memo[id(shared)] = shared
        for holder in (world.memory, world.memory.registry):
            for value in vars(holder).values():
                if isinstance(value, _LOCK):
                    memo[id(value)] = value
        self._copy = copy.deepcopy((world.memory, world.auditor), memo)

    def _promote(self) -> None:
        world = self._world
        if self._copy is None or world.is_calm:
            return
        failovers, before = world.auditor.failovers, world.auditor
        world.memory, world.auditor = self._copy
        world.reader = world.memory
        world.note("the standby is promoted")
        world.counts["failovers"] += 1
        self.history += 1
        for disk in world.workers.disks.values():
            disk.lead_to(world.memory)
        world.auditor.feed.promoted()
        failovers.promoted(before, world.auditor, world.workers.open_engines())
        epoch = world.memory.epochs.begin("promoted", {}, EPOCH_US + world.clockwork.now_us)
        world.applied(world.market.guest, "epochs.begin", (), epoch)
        failovers.begun(epoch)
        world.market.forget_lost()

    def joined(self, process: Process) -> None:
        """Hear of a process that begins: it knows no other history."""
        self._told[process] = self.history

    def knows(self, process: Process) -> bool:
        """Tell whether a process knows whose history this is."""
        return self._told.get(process, self.history) == self.history

    def look(self, process: Process) -> None:
        """Let a process see whose history this is, before it writes.

        Raises:
            StoreFailedOver: it is another one than it knows.
        """
        if not self.knows(process):
            self._told[process] = self.history
            self._world.note(process.number, "is told")
            self._world.auditor.failovers.told(process, self._world.workers.names[process])
            raise StoreFailedOver("simulated: promoted", do="nothing", epoch=self.history)
