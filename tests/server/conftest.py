"""A server in this very process: the app, called without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from outlast import Engine, ask, sleep, step, stream, task
from outlast.engine.task.registry import TASKS as KNOWN
from outlast.server.app import create_app
from outlast.server.auth import FirstToken, Identity
from outlast.server.problem import MEDIA
from outlast.server.serving import Address, serve

TOKEN = "a token of twenty characters"
JSON = dict[str, Any]


@step
async def add(a: int, b: int) -> int:
    return a + b


@task
async def total(a: int, b: int = 2) -> int:
    """Add two numbers."""
    return await add(a, b)


@task
async def asks(name: str) -> str:
    return f"{name}: {'yes' if await ask(f'Send {name}?', bool, to='ops') else 'no'}"


@task
async def waits(span: str) -> str:
    await sleep(span)
    return "rested"


@task
async def fails(text: str) -> None:
    raise ValueError(text)


@task
async def says(words: list[str]) -> int:
    for word in words:
        await stream("words", word)
    return len(words)


TASKS = (total, asks, waits, fails, says)
for one in TASKS:  # other tests may use the same names: a world brings its own
    KNOWN.pop(one.name)


@dataclass
class Tokens:
    """Says who calls, by what stands in the table; the tests of rights use it."""

    known: dict[str, Identity]

    async def authenticate(self, headers: Any) -> Identity:
        from outlast.errors import Unauthenticated

        _, _, token = headers.get("authorization", "").partition(" ")
        if token not in self.known:
            raise Unauthenticated("nobody")
        return self.known[token]


@dataclass
class World:
    """An engine, the app before it, and a caller with a token."""

    engine: Engine
    app: Any
    http: httpx.AsyncClient

    async def get(self, path: str, status: int = 200, **more: Any) -> JSON:
        return await self.call("GET", path, status, **more)

    async def post(self, path: str, body: Any = None, status: int = 202, **more: Any) -> JSON:
        given = {} if body is None else {"json": body}
        return await self.call("POST", path, status, **given, **more)

    async def call(self, method: str, path: str, status: int, **more: Any) -> JSON:
        answer = await self.http.request(method, path, **more)
        assert answer.status_code == status, answer.text
        if status >= 400:
            assert answer.headers["content-type"] == MEDIA
            assert answer.json()["status"] == status
        form: JSON = answer.json() if answer.content else {}
        return form

    async def start(self, name: str, /, **given: Any) -> str:
        body = {"task": name, "input": given}
        return str((await self.post("/api/v1/executions", body, 201))["id"])

    async def result(self, id: str) -> JSON:
        return await self.get(f"/api/v1/executions/{id}/result?wait=30s")

    async def until(self, id: str, *states: str) -> JSON:
        """Wait for a state: by following the log, not the clock."""
        handle = self.engine.execution(id)
        while True:
            record = await handle.arecord()
            if record.state in states:
                return await self.get(f"/api/v1/executions/{id}")
            await self.engine.next_change(id)


@contextlib.asynccontextmanager
async def a_world(
    authenticator: Any = None, store: str = "memory:", **more: Any
) -> AsyncIterator[World]:
    authenticator = authenticator or Tokens({TOKEN: Identity("ada")})
    async with Engine(store, tasks=TASKS) as engine:
        app = create_app(engine, authenticator, hosts=("test",), **more)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://test",
            headers={"authorization": f"Bearer {TOKEN}"},
        ) as http:
            yield World(engine, app, http)


Story = Callable[[World], Coroutine[Any, Any, None]]


@pytest.fixture
def tell() -> Callable[[Story], None]:
    """Run a story in a world of its own."""

    def telling(story: Story) -> None:
        async def main() -> None:
            async with a_world() as world, asyncio.timeout(100):
                await story(world)

        asyncio.run(main())

    return telling


@dataclass
class Served:
    """A server on a loopback port, in a thread of its own."""

    url: str
    engine: Engine


@contextlib.contextmanager
def a_server(store: str = "memory:") -> Iterator[Served]:
    ready: queue.SimpleQueue[str] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    until: asyncio.Future[None] = loop.create_future()
    engine = Engine(store, tasks=TASKS)
    serving = serve(engine, FirstToken.of(TOKEN), Address(port=0), ready.put, until)
    thread = threading.Thread(target=lambda: loop.run_until_complete(serving), daemon=True)
    thread.start()
    try:
        yield Served(ready.get(timeout=100), engine)
    finally:
        loop.call_soon_threadsafe(until.set_result, None)
        thread.join(100)
        loop.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with a_server(f"sqlite:///{tmp_path / 'served.db'}") as served:
        yield served
