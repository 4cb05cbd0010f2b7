"""Steps for other machines: claimed, run and ended over HTTP, and lost by who is silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from outlast import Engine, heartbeat, progress, spend, step, stream, task, this_step
from outlast.access import Grant, Rights, Role
from outlast.client import remote
from outlast.client.remote import RemoteWorker
from outlast.engine.steps.remote import LOSSES_MAX, RemoteDesk
from outlast.engine.task.current import current_step
from outlast.engine.task.registry import Retry
from outlast.errors import Fatal, LeaseLost, ProcessDied, StepTimeout, UsageError
from outlast.server.auth import Identity

from .conftest import TASKS, TOKEN, Story, Tokens, World, a_world

CLAIMS = "/api/v1/claims"
AT_ONCE = Retry(2, base="1ms", cap="1ms")
started = asyncio.Event()
ended: list[str] = []


@step(on="remote")
async def render(scene: str, size: int = 1) -> dict[str, Any]:
    return {"scene": scene * size, "by": type(current_step.get()).__name__}


@step(on="remote", retries=AT_ONCE)
def count(words: list[str]) -> int:
    info = this_step()
    if info.attempt == 1:
        heartbeat({"seen": 1})
        raise ConnectionError("the line is down")
    assert info.last_heartbeat == {"seen": 1}
    stream("words", words[0])
    progress(1, 2, "half")
    spend(usd=0.25)
    return len(words)


@step(on="remote", retries=AT_ONCE)
async def broken(kind: str) -> None:
    raise Fatal("never") if kind == "f" else ValueError("no good")


@step(on="remote", timeout="1s", grace="50ms")
async def slow() -> None:
    started.set()
    try:
        await asyncio.sleep(60)
    finally:
        ended.append("slow")


@step(on="remote")
async def hangs() -> None:
    started.set()
    try:
        await asyncio.sleep(60)
    finally:
        ended.append("hangs")


@task
async def film(scene: str) -> dict[str, Any]:
    return await render(scene, size=2)


@task
async def counts(words: list[str]) -> int:
    return await count.aio(words)


@task
async def tries(kind: str) -> str:
    try:
        await broken(kind)
    except (Fatal, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "it went well"


@task
async def limited() -> str:
    try:
        await slow()
    except StepTimeout as error:
        return error.code
    return "it went well"


@task(name="studio.hangs")
async def hanging() -> None:
    await hangs()


OURS = [film, counts, tries, limited, hanging]


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.conftest.TASKS", [*TASKS, *OURS])
    started.clear()
    ended.clear()


@contextlib.asynccontextmanager
async def working(world: World, **more: Any) -> AsyncIterator[RemoteWorker]:
    """A worker on another machine, as far as the server can tell."""
    worker = RemoteWorker(
        "http://test",
        token=TOKEN,
        steps=[render, count, broken, slow, hangs],
        transport=httpx.ASGITransport(world.app),
        **more,
    )
    until = asyncio.Event()
    running = asyncio.create_task(worker.run(until))
    try:
        yield worker
    finally:
        until.set()
        await running


async def claimed(world: World, *steps: str, **more: Any) -> list[dict[str, Any]]:
    body = {"steps": list(steps), "worker": "w", "wait_seconds": 20, **more}
    return list((await world.post(CLAIMS, body, 200))["items"])


def test_a_step_runs_on_another_machine(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        id = await world.start("film", scene="ab")
        async with working(world) as worker:
            assert (await world.result(id))["result"] == {"scene": "abab", "by": "_RemoteBody"}
        assert (worker.done, worker.failed, worker.lost) == (1, 0, 0)

    tell(story)


def test_what_a_step_says_of_itself_arrives(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        id = await world.start("counts", words=["a", "b"])
        async with working(world):
            assert (await world.result(id))["result"] == 2
        handle = world.engine.execution(id)
        assert [item.value async for item in handle.stream("words")] == ["a"]
        said = await handle.aprogress()
        assert said is not None and (said.done, said.total, said.text) == (1, 2, "half")

    tell(story)


def test_an_error_is_raised_where_the_step_was_called(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        async with working(world) as worker:
            fatal, other = (
                await world.start("tries", kind="f"),
                await world.start("tries", kind="o"),
            )
            assert (await world.result(fatal))["result"] == "Fatal: never"
            assert (await world.result(other))["result"] == "ValueError: no good"
        assert worker.failed == 1 + 3

    tell(story)


def test_a_limit_stops_it_there(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        async with working(world, lease="1s") as worker:
            id = await world.start("limited")
            assert (await world.result(id))["result"] == "step_timeout"
            await asyncio.wait_for(happened(lambda: "slow" in ended), 100)
            await asyncio.wait_for(happened(lambda: worker.lost > 0), 100)

    tell(story)


def test_a_cancel_stops_it_there(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        async with working(world, lease="1s") as worker:
            id = await world.start("studio.hangs")
            await asyncio.wait_for(started.wait(), 100)
            await world.post(f"/api/v1/executions/{id}/cancel", {}, 202)
            await world.until(id, "cancelled")
            await asyncio.wait_for(happened(lambda: "hangs" in ended), 100)
        assert worker.done == 0

    tell(story)


def test_a_claim_is_for_who_has_its_token(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        id = await world.start("film", scene="x")
        (claim,) = await claimed(world, "render", "unknown")
        assert claim["input"] == {"scene": "x", "size": 2} and claim["step"] == "render"
        assert (claim["execution_id"], claim["task"], claim["attempt"]) == (id, "film", 1)
        assert claim["idempotency_key"] == f"{id}:{claim['key']}"
        place = f"{CLAIMS}/{claim['id']}"
        beat = {"token": claim["token"], "number": 1}
        assert (await world.post(f"{place}/heartbeat", beat, 200))["stop"] is False
        for path, body in (
            (f"{place}/heartbeat", {**beat, "token": "another"}),
            (f"{place}/complete", {"token": "another", "output": {}}),
            (f"{place}/fail", {"token": "another", "error": {"type": "E", "message": "e"}}),
            (f"{place}/release", {"token": "another"}),
            (f"{CLAIMS}/cl_other/complete", {"token": claim["token"], "output": {}}),
        ):
            assert (await world.post(path, body, 409))["code"] == "lease_lost"
        own = {"token": claim["token"]}
        wrong = await world.post(f"{place}/complete", {**own, "output": 7}, 422)
        assert wrong["code"] == "bad_payload"
        await world.post(f"{place}/complete", {**own, "output": {"done": True}}, 204)
        assert (await world.result(id))["result"] == {"done": True}
        await world.post(f"{place}/complete", {**own, "output": {"done": False}}, 409)

    tell(story)


def test_why_it_does_not_move(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        id = await world.start("film", scene="x")
        place = f"/api/v1/executions/{id}/reason"
        while (said := await world.get(place))["reason"]["code"] != "no_remote_worker":
            await world.engine.next_change(id)
        assert "none has asked for render" in said["reason"]["text"]
        (claim,) = await claimed(world, "render")
        taken = (await world.get(place))["reason"]
        assert (taken["code"], taken["text"]) == ("running", "step render#1 runs at ada/w")
        await world.post(f"{CLAIMS}/{claim['id']}/release", {"token": claim["token"]}, 204)
        assert (await world.get(place))["reason"]["code"] == "remote_workers_busy"

    tell(story)


def test_what_is_given_back_goes_to_the_next(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        id = await world.start("film", scene="x")
        (first,) = await claimed(world, "render")
        assert await claimed(world, "render", wait_seconds=0) == []
        token = {"token": first["token"]}
        await world.post(f"{CLAIMS}/{first['id']}/release", token, 204)
        (second,) = await claimed(world, "render")
        assert (second["key"], second["attempt"]) == (first["key"], 1)
        late = {**token, "output": {"by": "first"}}
        await world.post(f"{CLAIMS}/{first['id']}/complete", late, 409)
        good = {"token": second["token"], "output": {"by": "second"}}
        await world.post(f"{CLAIMS}/{second['id']}/complete", good, 204)
        assert (await world.result(id))["result"] == {"by": "second"}

    tell(story)


def test_news_are_taken_once(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        id = await world.start("film", scene="x")
        (claim,) = await claimed(world, "render")
        place, token = f"{CLAIMS}/{claim['id']}", {"token": claim["token"]}
        for number in (1, 1, 2):
            said = {"number": number, "said": [{"stream": "s", "value": number}]}
            await world.post(f"{place}/heartbeat", {**token, **said}, 200)
        bad = {"number": 3, "spent": {"USD!": 1}}
        await world.post(f"{place}/heartbeat", {**token, **bad}, 400)
        await world.post(f"{place}/complete", {**token, "output": {}}, 204)
        await world.result(id)
        assert [item.value async for item in world.engine.execution(id).stream("s")] == [1, 2]

    tell(story)


def rights(role: Role, prefix: str = "") -> Identity:
    return Identity("w", rights=Rights(((Grant(role, prefix),),)))


def test_who_may_take_what() -> None:
    async def main() -> None:
        known = {
            TOKEN: Identity("ada"),
            "viewer": rights(Role.VIEWER),
            "studio": rights(Role.WORKER, "studio"),
        }
        async with a_world(Tokens(known)) as world, asyncio.timeout(100):
            await world.start("film", scene="x")
            await world.start("studio.hangs")
            body = {"steps": ["render", "hangs"], "worker": "w", "limit": 9, "wait_seconds": 20}

            async def ask(token: str) -> httpx.Response:
                return await world.http.post(
                    CLAIMS, json=body, headers={"authorization": f"Bearer {token}"}
                )

            assert (await ask("viewer")).status_code == 403
            (claim,) = (await ask("studio")).json()["items"]
            assert claim["task"] == "studio.hangs"

    asyncio.run(main())


def test_a_worker_that_is_turned_out_while_it_waits_takes_nothing() -> None:
    async def main() -> None:
        known = {TOKEN: Identity("ada"), "worker": rights(Role.WORKER)}

        class Once(Tokens):
            async def authenticate(self, headers: Any) -> Identity:
                found = await super().authenticate(headers)
                self.known = {TOKEN: self.known[TOKEN]}  # taken back while it is answered
                return found

        async with a_world(Once(known)) as world, asyncio.timeout(100):
            world.http.headers["authorization"] = "Bearer worker"
            body = {"steps": ["render"], "worker": "w", "wait_seconds": 20}
            waiting = asyncio.create_task(world.post(CLAIMS, body, 401))
            handle = await world.engine.astart(film, "x")
            assert (await waiting)["code"] == "unauthenticated"
            world.http.headers["authorization"] = f"Bearer {TOKEN}"
            (claim,) = await claimed(world, "render")
            assert claim["execution_id"] == handle.id and claim["attempt"] == 1

    asyncio.run(main())


def test_without_a_server_it_runs_here() -> None:
    with Engine("memory:", tasks=OURS) as engine:
        assert engine.start(film, "ab").result() == {"scene": "abab", "by": "Body"}


def test_a_worker_needs_a_step() -> None:
    with pytest.raises(UsageError, match="no step"):
        RemoteWorker("http://test", steps=[])


async def happened(condition: Callable[[], bool]) -> None:
    """Wait, letting others run, until something is so."""
    while not condition():
        await asyncio.sleep(0)


# The desk alone, where its time can be short


class _Body:
    """As much of a body as the desk sees."""

    begun_at: int | None = None
    task = "film"

    def __init__(self) -> None:
        self.step = render
        self.beats = 0

    def begin(self) -> bool:
        self.begun_at = 1
        return True

    def take_beat(self, details: bytes | None) -> None:
        self.beats += 1


class Turning(httpx.AsyncBaseTransport):
    """A proxy that hands out its servers in turn, one to each connection."""

    def __init__(self, *apps: Any) -> None:
        self.behind = [httpx.ASGITransport(app) for app in apps]
        self.refused = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self.behind[0].handle_async_request(request)
        self.refused += answer.status_code == 421
        if request.headers.get("connection") == "close":
            self.behind.append(self.behind.pop(0))
        return answer


def test_a_claim_finds_its_server_behind_a_shared_address(
    postgres_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0.1)

    async def main() -> None:
        async with (
            asyncio.timeout(100),
            a_world(store=postgres_store) as one,
            a_world(store=postgres_store) as other,
        ):
            id = await one.start("film", scene="ab")
            holder, stranger = one, other
            while not (found := await claimed(holder, "render", wait_seconds=0.05)):
                holder, stranger = stranger, holder
            (claim,) = found
            beat = f"{CLAIMS}/{claim['id']}/heartbeat"
            body = {"token": claim["token"], "number": 1}
            said = await stranger.post(beat, body, 421)
            assert said["code"] == "misdirected"
            await holder.post(beat, body, 200)
            await holder.post(f"{CLAIMS}/{claim['id']}/release", {"token": claim["token"]}, 204)
            proxy = Turning(stranger.app, holder.app)
            worker = RemoteWorker("http://test", token=TOKEN, steps=[render], transport=proxy)
            until = asyncio.Event()
            running = asyncio.create_task(worker.run(until))
            ids = [await world.start("film", scene="x") for world in (one, other) * 3]
            for world, each in zip((one, *(one, other) * 3), (id, *ids), strict=True):
                assert (await world.result(each))["state"] == "succeeded"
            until.set()
            await running
            assert (worker.done, worker.lost) == (7, 0)

    asyncio.run(main())


def test_a_claim_that_a_file_does_not_know_is_lost(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        said = await world.post(f"{CLAIMS}/cl_0_1/release", {"token": "t" * 32}, 409)
        assert said["code"] == "lease_lost"

    tell(story)


async def taken(desk: RemoteDesk, lease_seconds: float = 60) -> Any:
    (claim,) = await desk.take(["render"], lambda task: True, "w", lease_seconds, 1, 10)
    return claim


def test_who_falls_silent_loses_it() -> None:
    async def main() -> None:
        desk = RemoteDesk(asyncio.get_running_loop())
        body: Any = _Body()
        call = desk.call(body, 1_000)
        silent = await taken(desk, 0.01)
        other = await taken(desk)  # it waits until the first has lost it
        for late in (lambda: desk.claim(silent.id, silent.token),):
            with pytest.raises(LeaseLost):
                late()
        assert desk.claim(other.id, other.token) is other and not desk.beat(other)
        desk.complete(other, b'{"a": 1}')
        assert await call.future == {"a": 1} and call.losses == 1 and body.beats == 1

    asyncio.run(main())


def test_what_kills_its_workers_fails() -> None:
    async def main() -> None:
        desk = RemoteDesk(asyncio.get_running_loop())
        body: Any = _Body()
        call = desk.call(body, 1_000)
        for _ in range(LOSSES_MAX + 1):
            await taken(desk, 0.001)
        with pytest.raises(ProcessDied, match="fell silent"):
            await call.future
        assert desk.waiting() == {}

    asyncio.run(main())


def test_a_stop_ends_offers_and_claims() -> None:
    async def main() -> None:
        desk = RemoteDesk(asyncio.get_running_loop())
        bodies: list[Any] = [_Body(), _Body(), _Body()]
        first, second, third = (desk.call(body, 1_000) for body in bodies)
        claim, kept = await taken(desk), await taken(desk)
        third.stop(1_000_000)
        assert third.future.done() and desk.waiting() == {}
        first.stop(1_000)  # its worker has a millisecond
        assert desk.beat(claim) is True
        assert await first.future is None
        with pytest.raises(LeaseLost):
            desk.claim(claim.id, claim.token)
        second.stop(60_000_000)
        desk.release(kept)
        assert await second.future is None and desk.waiting() == {}

    asyncio.run(main())
