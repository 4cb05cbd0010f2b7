"""What task code said just before its process died is said again, and not taken for stored."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from outlast import Engine, State, blocking, step, stream, task, wait_for
from outlast.engine.drive.driver import Driver
from outlast.engine.task.registry import TASKS
from outlast.engine.write import emitter

from .conftest import crash, in_state, until

held: list[asyncio.Event] = []
held_threads: list[threading.Event] = []


@pytest.fixture(autouse=True)
def _rides(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said goes out with a row, and never alone: so it is known what a crash loses."""
    monkeypatch.setattr(emitter, "SOON_SECONDS", 3_600.0)


@step
async def add(a: int, b: int) -> int:
    return a + b


@step
async def holds() -> None:
    if held:
        await held[0].wait()


@step(name="add_in_thread")
def add_in_thread(a: int, b: int) -> int:
    return a + b


@step(name="holds")
def holds_in_thread() -> None:
    if held_threads:
        held_threads[0].wait(30)


@task
async def interrupted() -> str:
    await stream("draft", "first")
    await add(1, 1)
    await stream("draft", "second")
    await holds()
    return "ok"


@task
async def told() -> str:
    await stream("draft", await wait_for("word", str))
    await holds()
    return "ok"


@task
def in_thread() -> str:
    blocking.stream("draft", "first")
    add_in_thread(1, 1)
    blocking.stream("draft", "second")
    holds_in_thread()
    return "ok"


def said(engine: Engine, id: str) -> list[Any]:
    return [item.value for item in engine.store.stream(id, "draft")]


async def cut(url: str, fn: Any, id: str | None = None, word: str | None = None) -> str:
    """Run a task until its last step is under way, and end the process; gives its id."""
    held[:], held_threads[:] = [asyncio.Event()], [threading.Event()]
    engine = Engine(url, tasks=[fn])
    await engine.open()
    handle = await engine.astart(fn) if id is None else engine.execution(id)
    if word is not None:
        await in_state(handle, State.AWAITING_INPUT)
        await handle.asignal("word", word)

    async def is_held() -> bool:
        driver = engine.worker.drivers.get(handle.id)
        return driver is not None and "holds#1" in driver.bodies

    await until(is_held)
    await crash(engine)
    held_threads.pop().set()
    held.clear()
    return handle.id


async def finished(url: str, fn: Any, id: str) -> list[Any]:
    """Let it come to its end; gives what it has said."""
    async with Engine(url, tasks=[fn]) as engine:
        assert await engine.execution(id).aresult() == "ok"
        return said(engine, id)


def test_a_release_before_the_code_has_run_vouches_for_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row says that an owner wrote it, and not that its code had come so far."""
    plain = Driver.replay

    def stopped(driver: Driver, rows: Any, unseen: Any) -> None:
        """The engine is stopped while it reads the log."""
        monkeypatch.setattr(Driver, "replay", plain)
        driver.hand_back()
        driver.worker.look()  # type: ignore[attr-defined]

    async def main() -> None:
        id = await cut(url, interrupted)
        monkeypatch.setattr(Driver, "replay", stopped)
        async with Engine(url, tasks=[interrupted]) as engine:
            assert await engine.execution(id).aresult() == "ok"
            kinds = [str(row.kind) for row in engine.store.log(id)]
            assert kinds.count("release") == 1
            assert said(engine, id) == ["first", "second"]

    asyncio.run(main())


def test_a_suspension_before_the_code_is_back_vouches_for_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing that other code said in its place is kept."""
    monkeypatch.delitem(TASKS, "in_thread")

    @task(name="in_thread")
    def other() -> str:
        blocking.stream("draft", "first")
        blocking.stream("draft", "wrong")
        add_in_thread(2, 2)
        return "ok"

    async def main() -> None:
        id = await cut(url, in_thread)
        async with Engine(url, tasks=[other]) as engine:
            await in_state(engine.execution(id), State.SUSPENDED)
        async with Engine(url, tasks=[in_thread]) as engine:
            await engine.execution(id).aresume()
            assert await engine.execution(id).aresult() == "ok"
            assert said(engine, id) == ["first", "second"]

    asyncio.run(main())


def test_a_start_does_not_vouch_for_what_the_messages_behind_it_make_the_code_say(
    url: str,
) -> None:
    """A message that came before is older than the start with which the code gets to see it."""

    async def main() -> None:
        id = await cut(url, told, word="hello")
        assert await finished(url, told, id) == ["hello"]

    asyncio.run(main())


def test_a_start_does_not_vouch_for_what_a_thread_comes_to_later(url: str) -> None:
    """The thread of a ``def`` task comes to what is recorded after the row was written."""

    async def main() -> None:
        id = await cut(url, in_thread)
        id = await cut(url, in_thread, id)
        assert await finished(url, in_thread, id) == ["first", "second"]

    asyncio.run(main())
