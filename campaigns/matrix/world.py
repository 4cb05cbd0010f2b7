"""What there is to be seen: executions of two areas in many states, with a text in each place."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from campaigns.matrix.callers import AREAS, TENANT
from outlast import Engine, Retry, State, ask, heartbeat, progress, step, stream, task, wait_for
from outlast.access import Permission, Rights
from outlast.engine.task.registry import TASKS, StartOptions, Task
from outlast.schedule import Schedule
from outlast.store.protocol import Filter

FACT, PAYLOAD = "fact", "payload"
MOVING: Final = (State.QUEUED, State.STARTING, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Canary:
    """A text that only some may see.

    Attributes:
        text: what it is; it stands nowhere else.
        area: whose it is.
        kind: ``payload``, or ``fact`` for what whoever sees the execution may see.
        place: where it was sown.
    """

    text: bytes
    area: str
    kind: str
    place: str

    def may_be_seen(self, rights: Rights | None, tenant: int = TENANT) -> bool:
        """Tell whether somebody may see it, by the table of permissions."""
        if rights is None:
            return False
        task = f"{self.area}.total"
        if self.kind == PAYLOAD:
            return rights.allow(Permission.PAYLOADS_READ, tenant, task)
        return rights.see(tenant, task)


@dataclass
class Sower:
    """Draws canaries, and keeps all that were sown."""

    sown: dict[bytes, Canary] = field(default_factory=dict)

    def draw(self, area: str, kind: str, place: str) -> str:
        """Draw one."""
        text = f"cnry{secrets.token_hex(8)}"
        self.sown[text.encode()] = Canary(text.encode(), area, kind, place)
        return text

    def found_in(self, data: bytes) -> list[Canary]:
        """Find those that stand in some bytes."""
        found, at = [], data.find(b"cnry")
        while at >= 0:
            canary = self.sown.get(data[at : at + 20])
            if canary is not None:
                found.append(canary)
            at = data.find(b"cnry", at + 4)
        return found


def made_tasks() -> list[Task[Any, Any]]:
    """Make the tasks of all areas, whose names begin with the area's."""
    found = {area: _tasks_of(area) for area in AREAS}
    made = [one for tasks in found.values() for one in tasks]
    for area, other in zip(AREAS, AREAS[::-1], strict=True):
        made.append(_crossing(area, found[other][0]))
    for one in made:  # the campaign runs beside other programs in tests
        TASKS.pop(one.name, None)
    return made


def _crossing(area: str, total: Task[Any, Any]) -> Task[Any, Any]:
    @task(name=f"{area}.crosses")
    async def crosses() -> None:
        """Make a child in another area, which is told nothing."""
        await total("x", 1)
        await wait_for("never", Any)

    return crosses


def _tasks_of(area: str) -> list[Task[Any, Any]]:
    @step(name=f"{area}.add")
    async def add(a: str, b: int) -> str:
        heartbeat(a)
        return a * b

    @task(name=f"{area}.total")
    async def total(a: str, b: int = 2) -> str:
        """Add things."""
        await progress(1, 2, a)
        await stream("said", a)
        return await add(a, b)

    @task(name=f"{area}.asks")
    async def asks(name: str, title: str) -> str:
        """Ask somebody."""
        await stream("said", name)
        return name if await ask(title, bool, to="ops") else "no"

    @task(name=f"{area}.listens")
    async def listens(order: str) -> Any:
        """Wait for a signal that says this."""
        await progress(1, None, order)
        return await wait_for("paid", Any, match={"order": order})

    @task(name=f"{area}.fails")
    async def fails(text: str) -> None:
        """Fail."""
        raise ValueError(text)

    @task(name=f"{area}.backs_off", retries=Retry(3, base="1h"))
    async def backs_off(text: str) -> None:
        """Fail, and be tried again."""
        raise RuntimeError(text)

    @task(name=f"{area}.family")
    async def family(a: str) -> str:
        """Make a child."""
        return str(await total(a, 1)) + str(await listens(a))

    return [total, asks, listens, fails, backs_off, family]


@dataclass
class World:
    """An engine with things in it, and what was sown in them.

    Attributes:
        engine: the engine.
        sower: keeps what was sown.
        names: whether something is sown in keys and labels, too, which are public at rest.
        width: how many there are of most of them.
        ids: the area of each execution.
        fresh: those that may move.
    """

    engine: Engine
    sower: Sower
    names: bool = True
    width: int = 1
    ids: dict[str, str] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)

    async def fill(self, round: int = 0) -> None:
        """Make executions in each state that they can be brought to, of each area."""
        for area in AREAS:
            await self._fill(area, round)
        await self.rest()

    async def _fill(self, area: str, round: int) -> None:
        def sow(place: str, kind: str = PAYLOAD) -> str:
            return self.sower.draw(area, kind, place)

        async def start(name: str, *given: Any) -> str:
            options = StartOptions()
            if self.names:
                labels = {"team": sow("label", FACT)}
                options = StartOptions(
                    key=sow("key", FACT), labels=labels, actor=sow("actor", FACT)
                )
            task = self.engine.tasks[f"{area}.{name}"]
            record, _ = await self.engine.astart_row(options, task, given, {})
            self.ids[record.id] = area
            self.fresh.append(record.id)
            return record.id

        for name in ("total", "fails", "backs_off", "listens", "family") * self.width:
            await start(name, sow(f"input of {name}"))
        await start("crosses")
        asking = await start("asks", sow("input of asks"), sow("question", FACT))
        await self.rest()
        held = self.engine.execution(await start("listens", sow("input of listens")))
        await self.rest()
        await held.apause(why=sow("why", FACT))
        signalled = self.engine.execution(await start("listens", sow("input of listens")))
        await self.rest()
        await signalled.asignal("other", {"said": sow("signal")})
        if round % 2 == 0:
            await self.engine.execution(asking).aanswer(True)
        if round == 0:
            task = self.engine.tasks[f"{area}.total"]
            await self.engine.schedules.acreate(
                f"{area}-nightly", task, Schedule(every="30d"), sow("input of a schedule")
            )

    async def hook(self) -> None:
        """Have webhooks, one of each area; they are paused, so that nothing moves by itself."""
        hooks = self.engine.webhooks
        for area in AREAS:
            made = await hooks.aadd(
                f"https://hooks.invalid/{self.sower.draw(area, PAYLOAD, 'webhook')}",
                prefix=area,
                description=self.sower.draw(area, PAYLOAD, "webhook's description"),
            )
            await hooks.apause(made.webhook.id, self.sower.draw(area, PAYLOAD, "webhook's why"))

    async def rest(self) -> None:
        """Wait until nothing moves by itself, having undone what callers have held up."""
        engine = self.engine
        for row in await engine.queues.alist():
            if row.setting.capacity is not None or row.setting.paused_at is not None:
                await engine.queues.alimit(row.setting.name, None)
                await engine.queues.aresume(row.setting.name)
        for gate in await engine.limits.alist():
            if gate.setting is not None:
                await engine.limits.areset(gate.gate)
        while True:
            found = await engine.worker.read(lambda: engine.store.get(self.fresh))
            moving = [one for one in found if one is not None and one.state in MOVING]
            if not moving:
                break
            await engine.next_change(moving[0].id)
        self.fresh.clear()
        newest = Filter(limit=500)
        for one in await engine.read_page(newest):  # children, and what callers have started
            self.ids.setdefault(one.id, one.task.partition(".")[0])


@contextlib.asynccontextmanager
async def a_world(
    store: str = "memory:", *, names: bool = True, width: int = 1
) -> AsyncIterator[World]:
    """Open a world that is filled."""
    async with Engine(store, tasks=made_tasks()) as engine:
        world = World(engine, Sower(), names, width)
        await world.fill()
        yield world
