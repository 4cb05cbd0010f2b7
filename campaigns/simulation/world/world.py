"""One seed: its workers, its store, its weather, its clients, and how it ends."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random, getstate, setstate
from random import seed as seed_module
from typing import Any, Final

from campaigns.simulation.actors.cast import CAST
from campaigns.simulation.actors.clients import Client
from campaigns.simulation.actors.planner import Planner
from campaigns.simulation.rules.auditor import Auditor
from campaigns.simulation.rules.leases import Book
from campaigns.simulation.rules.names import Violation
from campaigns.simulation.tasks.steps import stage
from campaigns.simulation.world.chance import deterministic
from campaigns.simulation.world.clockwork import EPOCH_US, Clockwork, Process
from campaigns.simulation.world.deploys import Deploys
from campaigns.simulation.world.ending import DAY_US, Ending
from campaigns.simulation.world.faults import Faults
from campaigns.simulation.world.market import Market
from campaigns.simulation.world.outcome import Limits, Outcome
from campaigns.simulation.world.plan import draw_plan
from campaigns.simulation.world.standby import Standby
from campaigns.simulation.world.workers import Workers
from outlast.engine.task.current import current_step
from outlast.lifecycle import Kind
from outlast.store.memory import MemoryStore

_TOLD: Final = ("commit", "capacity.set_queue")
"""Calls after which others look, rows or not."""
_STEPS_MAX: Final = 25_000


class World:
    """Everything there is in one seed."""

    def __init__(self, seed: int, limits: Limits | None = None) -> None:
        self.seed = seed
        self.limits = limits or Limits()
        plan = draw_plan(seed)
        self.plan = plan
        self.kind = plan.kind
        self.weather, self.horizon_us = plan.weather, plan.horizon_us
        kept = self.limits.orders
        self.orders = [one for one in plan.orders if kept is None or one.number in kept]
        self.fate = Random(f"{seed}/faults")
        self.clockwork = Clockwork(Random(f"{seed}/order"))
        self.counts: Counter[str] = Counter()
        self.trace: list[str] = []
        self.folder: str | None = None
        self.is_calm = False
        self._body_count = 0
        self.errors: list[BaseException] = []
        self.due: list[tuple[int, Callable[[], None]]] = []
        self.memory = MemoryStore(is_shared=plan.lease_us is not None)
        self.memory.members.clock = lambda: EPOCH_US + self.clockwork.now_us
        self.reader: Any = self.memory
        self.auditor = Auditor(self.memory, self.counts)
        self.auditor.is_skewed = any(plan.skews)
        self.auditor.purges.kept_us = plan.kept_us
        if plan.lease_us is not None:
            self.auditor.leases = Book(self.auditor, plan.lease_us)
        self.planners: dict[str, Planner] = {}
        self.workers = Workers(self, plan)
        self.faults = Faults(self)
        self.ending = Ending(self)
        self.standby = Standby(self)
        self.deploys = Deploys(self)
        self.market = Market(self, Random(f"{seed}/clients"))

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

    def applied(self, process: Process, verb: str, args: tuple[Any, ...], result: Any) -> None:
        """See what a call of the store has done, and tell the other processes."""
        rows = self.auditor.applied(process, verb, args, result)
        for line in self.auditor.slots.news:
            self.note(process.number, line)
        self.auditor.slots.news.clear()
        if not rows and verb not in _TOLD:
            return
        self.counts["commits"] += 1
        self.counts["transitions"] += len(rows)
        for row in rows:
            self.note(process.number, verb, row.execution_id[-4:], row.seq, row.kind, row.key or "",
                      row.to_state)  # fmt: skip
            if row.kind in (Kind.WORKER_LOST, Kind.LEASE_EXPIRED) and not self.is_calm:
                self.counts["takeovers_in_weather"] += 1
            client = None if self.is_calm else self.market.client_of(row.execution_id)
            if client is not None:
                client.react(row)
        self.workers.tell_others(process)

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
                self.auditor.leases.began(process, self.workers.names[process][-1])
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
        if self.plan.is_on_disk:
            shm = Path("/dev/shm")
            self.folder = tempfile.mkdtemp(dir=shm if shm.is_dir() else None)
        self.note(self.kind, [order.sort.task.name for order in self.orders])
        for place in range(self.plan.places):
            self.workers.start(place)
        for order in self.orders:
            Client(self.market, order)
        self.planners = {one.name: Planner(self.market, one) for one in self.plan.schedules}
        cast = [one(self.market, Random(f"{self.seed}/{one.__name__}")) for one in CAST]
        self.faults.begin()
        self.standby.begin()
        self.deploys.begin()
        if self.plan.lease_us is not None:
            self.workers.look_for_expired()
        if self.horizon_us > 1_000_000:
            for part in range(1, 4):
                self.later(self.horizon_us * part // 4, self.workers.announce)
        end = self.limits.faults_until_us
        self.go(self.horizon_us if end is None else min(self.horizon_us, end))
        self.ending.clear_up()
        self.ending.come_to_an_end()
        for actor in cast:
            actor.finish()
        self.go(self.clockwork.now_us + DAY_US)
        self.market.check_answered()
        self.auditor.check_everything()

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
        self.workers.let_go()
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
