"""Two tenants that are alike but for their texts, behind one door; and what is stored of one.

Theory of operation. Both have users, roles, tasks, keys, schedules, queues, limits, budgets and
webhooks of the same names, and besides things of names that the other one does not have. What was
sown in them differs, so a text says whose it is. One asks, and the other one rests: whatever moves
in it, somebody else has moved.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import apsw

from campaigns.matrix.callers import AREAS, Caller
from campaigns.matrix.world import MOVING, Sower, World, made_tasks
from outlast import Engine, step, task
from outlast.access import Grant, Role
from outlast.access.audit import Deed
from outlast.accounts.desk import Desk
from outlast.accounts.secret import form_secret
from outlast.engine.task.registry import TASKS, StartOptions, Task
from outlast.lifecycle import Kind
from outlast.schedule import Schedule
from outlast.server.auth import COOKIE
from outlast.server.front import HEADER, Front
from outlast.server.guard import App
from outlast.server.known import StoreAuthenticator
from outlast.server.webhook import begin
from outlast.store.protocol import Filter
from outlast.store.relational.tables import tables

Ask = Callable[[str], Iterable[tuple[Any, ...]]]
ASKS, RESTS = "acme", "umbrella"
SHARED_KEY: Final = "a key that both have"
SETTLE_SECONDS: Final = 0.5
BEATS: Final = ("webhook_sender",)
"""Tables that each tenant's own server writes from time to time."""
BEATS_OF: Final = {"worker": ("seen_at", "expires_at")}
"""Columns that it writes so, in tables that must else stay what they were: its lease's."""
ANNOUNCED: Final = Kind.STEP_ANNOUNCED
REMOTE: Final = "billing.remote"


@dataclass
class Twin:
    """One of the two tenants.

    Attributes:
        name: the tenant's.
        world: its engine, what it has, and what was sown in it.
        callers: everybody who is known there, by role; ``ada`` has signed in, and may everything.
        secrets: what they show: tokens by role, ``ada``'s session, a token to answer with, a claim
            and its token.
        stuck: executions that go on by nothing that is done here.
    """

    name: str
    world: World
    callers: dict[str, Caller] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    stuck: set[str] = field(default_factory=set)

    @property
    def engine(self) -> Engine:
        """Its engine."""
        return self.world.engine

    async def fill(self) -> None:
        """Make everything that a tenant can have."""
        await self._enroll()
        for round in range(2):  # the questions of the second one stay open
            await self.world.fill(round)
        sow = self.world.sower.draw
        for area in AREAS:
            listens = self.engine.tasks[f"{area}.listens"]
            labels = {"team": "both", "own": sow(area, "fact", "label")}
            for key in (f"{SHARED_KEY} of {area}", f"own-of-{self.name}-{area}"):
                options = StartOptions(key=key, labels=labels, origin="http", queue="both")
                said = (sow(area, "payload", "input"),)
                record, _ = await self.engine.astart_row(options, listens, said, {})
                url = f"https://hooks.invalid/{sow(area, 'payload', 'url')}"
                await begin(self.engine, record.id, url, 0, "token:x")
        await self.settle()
        await self.world.hook()
        await self._rule()
        asking = await self.engine.aquestions(limit=1)
        made = await self.engine.amake_token(asking.items[0], "somebody", 10**12)
        self.secrets["answer"] = made
        await self._claim()

    async def _enroll(self) -> None:
        desk, done = (
            Desk(self.engine.store.access),
            Deed("os:root", "cli", "test", self.engine.clock.now()),
        )
        for name in ("ada", f"ada-of-{self.name}"):
            await self._write(lambda name=name: desk.add_user(name, "four words of mine", done))
        held = Grant(Role.ADMIN)
        await self._write(lambda: desk.give("user:ada", held, done))
        await self._write(lambda: desk.give(f"group:of-{self.name}", held, done))
        user = await self.engine.worker.read(lambda: desk.shown("ada", "four words of mine"))
        assert user is not None
        session: str = await self._write(lambda: desk.sign_in(user, done))
        self.secrets["session"] = session
        cookie = (b"cookie", f"{COOKIE}={session}".encode())
        form = (b"x-outlast-form", form_secret(session).encode())
        self._know("ada", cookie, form)
        for role in Role:
            grants = (Grant(role),)
            _, text = await self._write(lambda grants=grants: desk.make_token("x", grants, done))
            self.secrets[role] = text
            self._know(role, (b"authorization", f"Bearer {text}".encode()))
        for area in AREAS:
            text = f"operator@{area}"
            both = (Grant(Role.OPERATOR, area), Grant(Role.SUBMITTER, area))
            _, token = await self._write(lambda both=both: desk.make_token("x", both, done))
            self._know(text, (b"authorization", f"Bearer {token}".encode()))

    def _know(self, name: str, *headers: tuple[bytes, bytes]) -> None:
        own = (HEADER.encode(), self.name.encode())
        self.callers[name] = Caller(name, None, (own, *headers))

    async def _write(self, change: Any) -> Any:
        return await self.engine.journal.call(change)

    async def _rule(self) -> None:
        """Set what decides how much is run; where it is a number, it is the tenant's own."""
        number = 7_919 if self.name == ASKS else 6_733
        for name in ("both", f"queue-of-{self.name}"):
            await self.engine.queues.alimit(name, number)
        for name in ("both", f"limit-of-{self.name}"):
            await self.engine.limits.aset(name, number)
        await self.engine.budgets.aset("tenant", usd=number)
        total = self.engine.tasks["billing.total"]
        plan = Schedule(every="30d")
        said = self.world.sower.draw("billing", "payload", "input of a schedule")
        await self.engine.schedules.acreate(f"schedule-of-{self.name}", total, plan, said)

    async def _claim(self) -> None:
        """Take a step for another machine, as long as the campaign may last."""
        desk = self.engine.worker.remote
        assert desk is not None
        said = self.world.sower.draw("billing", "payload", "input of a step elsewhere")
        options = StartOptions()
        record, _ = await self.engine.astart_row(options, self.engine.tasks[REMOTE], (said,), {})
        self.world.ids[record.id] = "billing"
        (claim,) = await desk.take([REMOTE], lambda _: True, "token:x/w", 3_600, 1, 30)
        while not any(row.kind is ANNOUNCED for row in await self.engine.read_log(record.id)):
            await self.engine.next_change(record.id)  # the last that is heard of it
        self.secrets |= {"claim": claim.id, "claim's token": claim.token}

    @property
    def has_its_claim(self) -> bool:
        """Whether nobody else has ended its claim."""
        desk = self.engine.worker.remote
        assert desk is not None
        return bool(desk.claim(self.secrets["claim"], self.secrets["claim's token"]))

    async def settle(self) -> None:
        """Wait until nothing moves by itself, but for what callers have made so that it cannot."""
        found = await self.engine.read_page(Filter(states=MOVING, limit=500))
        moving = {one.id for one in found} - self.stuck
        self.world.fresh += moving
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await self.world.rest()
        except TimeoutError:  # a step for another machine, a version that nobody has
            self.stuck |= moving
            self.world.fresh.clear()


@dataclass
class House:
    """Both, and the door that they share.

    Attributes:
        door: the app.
        asks, rests: the tenant whose callers ask, and the other one.
        rows: opens the database that both are in.
    """

    door: App
    asks: Twin
    rests: Twin
    rows: Callable[[], contextlib.AbstractContextManager[Ask]]

    def stored(self) -> dict[str, set[tuple[Any, ...]]]:
        """Give every row of the one that rests, by table; and those that tell of all tenants."""
        found: dict[str, set[tuple[Any, ...]]] = {}
        number = self.rests.engine.store.tenant
        with self.rows() as ask:
            for table in tables().values():
                if table.name in BEATS or (
                    table.name != "tenant" and "tenant" not in table.columns
                ):
                    continue
                whose = "" if table.name == "tenant" else f" WHERE tenant = {number}"
                kept = [one for one in table.columns if one not in BEATS_OF.get(table.name, ())]
                columns = ", ".join(f'"{name}"' for name in kept)
                found[table.name] = set(ask(f'SELECT {columns} FROM "{table.name}"{whose}'))
        return found


@contextlib.contextmanager
def rows_of(address: str) -> Iterator[Ask]:
    """Open a database beside its engines, and give what asks it."""
    if address.startswith("sqlite:///"):
        # By the library of the store: another one in this process would not see its locks.
        flags = apsw.SQLITE_OPEN_READONLY
        path = address.removeprefix("sqlite:///")
        with contextlib.closing(apsw.Connection(path, flags)) as line:
            yield line.execute
    else:
        import psycopg

        with psycopg.connect(address) as connection:
            yield lambda text: connection.execute(text).fetchall()


def _remote() -> Task[Any, Any]:
    @step(name=REMOTE, on="remote")
    async def there(text: str) -> str:
        return text

    @task(name=REMOTE)
    async def remote(text: str) -> str:
        """Have a step run on another machine."""
        return await there(text)

    TASKS.pop(REMOTE, None)
    return remote


@contextlib.asynccontextmanager
async def a_house(address: str) -> AsyncIterator[House]:
    """Open both behind a door, filled; callers bring the tokens that their tenant has given."""
    tasks = [*made_tasks(), _remote()]
    made: dict[str, Engine] = {}

    def make(name: str) -> Engine:
        made[name] = Engine(address, tasks=tasks, tenant=name)
        return made[name]

    async with Engine(address, tasks=tasks) as engine:
        for name in (ASKS, RESTS):
            await engine.tenants.aadd(name)
        door = Front(engine, StoreAuthenticator(engine), make, hosts=("test",))
        await door.open()
        try:
            asks, rests = (Twin(name, World(made[name], Sower())) for name in (ASKS, RESTS))
            for twin in (asks, rests):
                await twin.fill()
            yield House(door, asks, rests, partial(rows_of, address))
        finally:
            await asyncio.shield(door.aclose())


__all__ = ["ASKS", "RESTS", "House", "Twin", "a_house"]
