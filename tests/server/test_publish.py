"""Events over HTTP: for everybody who is there, as far as the caller may send signals."""

from __future__ import annotations

import asyncio
from typing import Any

from outlast import Client, task, wait_for
from outlast.access import Grant, Rights, Role
from outlast.engine.task.registry import TASKS as KNOWN
from outlast.server.auth import Identity

from . import conftest
from .conftest import TOKEN, Tokens, World, a_world

API = "/api/v1/events"


@task
async def paid(order: int) -> int:
    got = await wait_for("paid", dict, match={"order": order})
    return int(got["cents"])


KNOWN.pop(paid.name)


def tell(story: Any, monkeypatch: Any, authenticator: Any = None) -> None:
    monkeypatch.setattr(conftest, "TASKS", (*conftest.TASKS, paid))

    async def main() -> None:
        async with a_world(authenticator) as world, asyncio.timeout(100):
            await story(world)

    asyncio.run(main())


def test_an_event_is_published_once_and_says_whom_it_has_reached(monkeypatch: Any) -> None:
    async def story(world: World) -> None:
        ids = [await world.start("paid", order=order) for order in (7, 8)]
        body = {"name": "paid", "value": {"order": 7, "cents": 900}}
        key = {"headers": {"idempotency-key": "stripe-1"}}
        said = await world.post(API, body, 201, **key)
        assert (said["name"], said["reached"]) == ("paid", 2)
        assert (await world.result(ids[0]))["result"] == 900
        assert await world.post(API, body, 200, **key) == said
        other = {**body, "value": 1}
        assert (await world.post(API, other, 409, **key))["code"] == "key_conflict"
        shown = await world.get(f"/api/v1/executions/{said['id']}")
        assert (shown["task"], shown["state"]) == ("outlast.event", "succeeded")
        rows = (await world.get(f"/api/v1/executions/{ids[1]}/transitions"))["items"]
        (signal,) = [row for row in rows if row["kind"] == "signal_received"]
        assert (signal["actor"], signal["key"]) == ("ada", "paid")
        for wrong in ({}, {"name": ""}, {"name": "x", "more": 1}, {"name": "x", "labels": 1}):
            await world.post(API, wrong, 422)
        await world.post("/api/v1/executions", {
            "task": "paid", "input": {"order": 1}, "key": "outlast.event:x"}, 422)  # fmt: skip

    tell(story, monkeypatch)


def test_who_may_signal_one_task_reaches_no_other(monkeypatch: Any) -> None:
    narrow = Identity("eve", rights=Rights(((Grant(Role.OPERATOR, task="paid"),),)))
    viewer = Identity("vic", rights=Rights(((Grant(Role.VIEWER),),)))

    async def story(world: World) -> None:
        await world.start("asks", name="Ada")
        id = await world.start("paid", order=7)
        body = {"name": "paid", "value": {"order": 7, "cents": 1}}
        eve = {"headers": {"authorization": "Bearer eve"}}
        await world.post(API, body, 403, **eve)
        await world.post(API, {**body, "task": "asks"}, 403, **eve)
        await world.post(API, body, 403, headers={"authorization": "Bearer vic"})
        said = await world.post(API, {**body, "task": "paid"}, 201, **eve)
        assert said["reached"] == 1
        assert (await world.result(id))["result"] == 1

    known = Tokens({TOKEN: Identity("ada"), "eve": narrow, "vic": viewer})
    tell(story, monkeypatch, known)


def test_a_client_publishes(served: Any) -> None:
    with Client(served.url, token=TOKEN, tasks=conftest.TASKS) as client:
        handle = client.start(conftest.TASKS[1], "Ada")
        said = client.publish("news", [1], key="k")
        assert (said.name, said.reached, said.is_new) == ("news", 1, True)
        again = client.publish("news", [1], key="k")
        assert (again.id, again.reached, again.is_new) == (said.id, 1, False)
        assert client.publish("news", task="total").reached == 0
        handle.cancel()
