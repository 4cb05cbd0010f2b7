"""Webhooks by filter: told in order, signed, again and again, by one process at a time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from outlast import Client, Engine
from outlast.server import courier
from outlast.server.app import create_app
from outlast.server.courier import Courier, after
from outlast.store.webhooks import Delivery, DeliveryKind, DeliveryState, Told

from .conftest import TASKS, TOKEN, Served, World, a_server, a_world
from .test_webhooks import Came, Receiver

HOOKS = "/api/v1/webhooks"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    made = Receiver()
    monkeypatch.setenv("OUTLAST_WEBHOOK_HOSTS", made.host)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_SECONDS", "POLL_SECONDS", "IDLE_SECONDS"):
        monkeypatch.setattr(courier, name, 0.01)
    monkeypatch.setattr(courier, "PAUSE_US", 1_000)
    monkeypatch.setattr(courier, "PAUSE_FACTOR", 1.0)


async def came(receiver: Receiver) -> tuple[dict[str, str], Any]:
    headers, body = await asyncio.to_thread(receiver.came.get, True, 100)
    return headers, json.loads(body)


def is_signed(headers: dict[str, str], body: bytes, secret: str) -> bool:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mark = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return f"v1,{mark}" in headers["webhook-signature"].split(" ")


async def add(world: World, receiver: Receiver, **filter: Any) -> tuple[str, str]:
    made = await world.post(HOOKS, {"url": receiver.url, "filter": filter}, 201)
    return made["webhook"]["id"], made["secret"]


async def shown(world: World, id: str, **wanted: Any) -> Any:
    """Wait until a webhook is so."""
    async with asyncio.timeout(100):
        while True:
            form = await world.get(f"{HOOKS}/{id}")
            if all(form[name] == value for name, value in wanted.items()):
                return form


@contextlib.asynccontextmanager
async def world_of(engine: Engine) -> AsyncIterator[World]:
    """A world on an engine of one's own."""
    import httpx

    from outlast.server.auth import Identity

    from .conftest import Tokens

    app = create_app(engine, Tokens({TOKEN: Identity("ada")}), hosts=("test",))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://test",
        headers={"authorization": f"Bearer {TOKEN}"},
    ) as http:
        yield World(engine, app, http)


def test_what_fits_is_told_in_order_and_signed(tell: Any, receiver: Receiver) -> None:
    async def story(world: World) -> None:
        id, secret = await add(world, receiver, task="total", transitions=["create", "finish"])
        other, _ = await add(world, receiver, states=["failed"])
        ran = await world.start("total", a=4711)
        failed = await world.start("fails", text="secret-4711")
        got = [await asyncio.to_thread(receiver.came.get, True, 100) for _ in range(3)]
        said = [(headers, body, json.loads(body)) for headers, body in got]
        mine = [one for one in said if one[2]["webhook"] == id]
        assert [one["data"]["kind"] for _, _, one in mine] == ["create", "finish"]
        assert all(is_signed(headers, body, secret) for headers, body, _ in mine)
        for headers, body, one in mine:
            assert (one["type"], one["id"], one["task"]) == ("execution.transition", ran, "total")
            assert headers["webhook-id"] == f"{id}.{one['number']}"
            assert not is_signed(headers, body + b" ", secret)
        ((headers, body, one),) = [one for one in said if one[2]["webhook"] == other]
        assert (one["id"], one["data"]["to"]) == (failed, "failed")
        assert not is_signed(headers, body, secret), "each has a secret of its own"
        assert all(b"4711" not in body for _, body, _ in said), "never a payload"
        form = await shown(world, id, pending=0)
        assert form["failing_since"] is None
        page = await world.get(f"{HOOKS}/{id}/deliveries?limit=1")
        assert (page["items"][0]["state"], page["items"][0]["status"]) == ("delivered", 204)
        rest = await world.get(f"{HOOKS}/{id}/deliveries?before={page['next']}")
        assert [one["number"] for one in rest["items"]] == [1]
        assert receiver.came.empty()

    tell(story)


def test_a_receiver_that_fails_is_told_again_under_the_same_id(
    tell: Any, receiver: Receiver
) -> None:
    for status in (500, 302, 503):  # a redirect is no 2xx
        receiver.statuses.put(status)

    async def story(world: World) -> None:
        id, _ = await add(world, receiver, task="total")
        ran = await world.start("total", a=1)
        await world.result(ran)
        rows = [row.seq for row in await world.engine.execution(ran).atransitions()]
        got = [await came(receiver) for _ in range(len(rows) + 3)]
        assert [headers["webhook-id"] for headers, _ in got[:4]] == [f"{id}.1"] * 4
        assert [one["data"]["seq"] for _, one in got[3:]] == rows, "in the order of its log"
        await shown(world, id, pending=0, failing_since=None)
        page = await world.get(f"{HOOKS}/{id}/deliveries?state=delivered")
        assert [one["attempts"] for one in page["items"]] == [1] * (len(rows) - 1) + [4]
        again = await world.post(f"{HOOKS}/{id}/deliveries/1/redeliver")
        assert (again["state"], again["attempts"]) == ("pending", 0)
        assert (await came(receiver))[0]["webhook-id"] == f"{id}.1"
        await world.post(f"{HOOKS}/{id}/deliveries/99999/redeliver", None, 404)

    tell(story)


def test_one_that_takes_nothing_is_disabled_and_goes_on_where_it_was(
    tell: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "FAILING_US", -1)
    receiver.statuses.put(500)

    async def story(world: World) -> None:
        id, _ = await add(world, receiver, task="total", transitions=["finish"])
        await world.result(await world.start("total", a=1))
        form = await shown(world, id, state="disabled")
        assert form["reason"] == "it took nothing for three days"
        (first,) = (await world.get(f"{HOOKS}/{id}/deliveries"))["items"]
        assert (first["status"], first["error"]) == (500, "the receiver answered with 500")
        assert first["next_at"] is not None
        second = await world.start("total", a=2)
        await world.result(second)
        (finding,) = [
            one
            for one in (await world.get("/api/v1/system/doctor"))["findings"]
            if one["check"] == "webhooks"
        ]
        assert finding["level"] == "fail" and id in finding["what"]
        await world.call("PATCH", f"{HOOKS}/{id}", 200, json={"state": "active"})
        got = [await came(receiver) for _ in range(3)]
        assert sorted(one["number"] for _, one in got) == [1, 1, 2]
        assert [one["id"] for _, one in got if one["number"] == 2] == [second]
        receiver.statuses.put(410)
        await world.post(f"{HOOKS}/{id}/ping")
        form = await shown(world, id, state="disabled")
        assert "410" in form["reason"]

    tell(story)


def test_a_pause_keeps_its_place(tell: Any, receiver: Receiver) -> None:
    async def story(world: World) -> None:
        id, _ = await add(world, receiver, transitions=["finish"])
        body = {"state": "paused", "reason": "maintenance"}
        form = await world.call("PATCH", f"{HOOKS}/{id}", 200, json=body)
        assert (form["state"], form["reason"]) == ("paused", "maintenance")
        ran = [await world.start("total", a=number) for number in range(2)]
        for one in ran:
            await world.result(one)
        await world.post(f"{HOOKS}/{id}/ping")
        assert receiver.came.empty()
        await world.call("PATCH", f"{HOOKS}/{id}", 200, json={"state": "active"})
        got = [(await came(receiver))[1] for _ in range(3)]
        assert sorted(one.get("id", "") for one in got) == sorted(["", *ran])
        await world.call("DELETE", f"{HOOKS}/{id}", 204)
        await world.get(f"{HOOKS}/{id}", 404)
        assert (await world.get(HOOKS))["items"] == []

    tell(story)


def test_two_secrets_sign_while_one_is_replaced(tell: Any, receiver: Receiver) -> None:
    async def story(world: World) -> None:
        id, first = await add(world, receiver, task="nothing")
        second = (await world.post(f"{HOOKS}/{id}/secret", {"overlap": "1h"}, 200))["secret"]
        assert first != second
        await world.post(f"{HOOKS}/{id}/ping")
        headers, body = await asyncio.to_thread(receiver.came.get, True, 100)
        assert is_signed(headers, body, first) and is_signed(headers, body, second)
        assert json.loads(body)["type"] == "ping"
        third = (await world.post(f"{HOOKS}/{id}/secret", {"overlap": "0s"}, 200))["secret"]
        await world.post(f"{HOOKS}/{id}/ping")
        headers, body = await asyncio.to_thread(receiver.came.get, True, 100)
        assert is_signed(headers, body, third) and not is_signed(headers, body, second)
        assert "secret" not in json.dumps(await world.get(HOOKS)).replace("former_secret", "")
        await world.post(f"{HOOKS}/{id}/secret", {"overlap": "31d"}, 400)

    tell(story)


def test_what_was_forgotten_or_purged_is_told_as_a_gap(tell: Any, receiver: Receiver) -> None:
    async def story(world: World) -> None:
        id, _ = await add(world, receiver, task="total")
        row = await world.engine.webhooks.aget(id)
        told = [Told(DeliveryKind.TRANSITION, "ex_gone", 3)]
        store = world.engine.store
        moved = await world.engine.journal.call(
            lambda: store.webhooks.advance(row, "a copy's", 9, told, row.created_at)
        )
        assert moved
        got = [(await came(receiver))[1] for _ in range(2)]
        assert sorted((one["why"], one.get("id")) for one in got) == [
            ("forgotten", None),
            ("purged", "ex_gone"),
        ]
        await world.start("total", a=1)
        assert (await came(receiver))[1]["data"]["kind"] == "create"

    tell(story)


def test_nobody_is_told_who_should_not_be(tell: Any, receiver: Receiver) -> None:
    async def story(world: World) -> None:
        for url in ("http://example.org/", "https://a:b@example.org/", "nonsense"):
            problem = await world.post(HOOKS, {"url": url}, 400)
            assert problem["code"] == "usage"
        await world.post(HOOKS, {"url": receiver.url, "filter": {"states": ["odd"]}}, 422)
        made = await world.post(HOOKS, {"url": "https://127.0.0.1/"}, 201)
        id = made["webhook"]["id"]
        await world.post(f"{HOOKS}/{id}/ping")
        await shown(world, id, pending=1)
        async with asyncio.timeout(100):
            while True:
                (one,) = (await world.get(f"{HOOKS}/{id}/deliveries"))["items"]
                if one["error"] is not None:
                    break
        assert one["error"] == "not called: the URL leads to no public address"
        await world.call("PATCH", f"{HOOKS}/{id}", 422, json={})

    tell(story)


def test_a_pause_between_attempts_grows_and_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "PAUSE_US", 5_000_000)
    monkeypatch.setattr(courier, "PAUSE_FACTOR", 2.5)
    one = Delivery(webhook_id="wh", number=1, kind=DeliveryKind.PING, created_at=0, next_at=0)
    pauses = []
    while one.state is DeliveryState.PENDING:
        one = after(one, 1_000, 500, "no")
        pauses.append(one.next_at - 1_000)
    assert one.state is DeliveryState.FAILED and one.attempts == courier.ATTEMPTS_MAX
    assert pauses[:3] == [5_000_000, 12_500_000, 31_250_000]
    assert pauses[-2] == courier.PAUSE_US_MAX
    assert after(one, 5, 204, None).state is DeliveryState.DELIVERED


def test_one_process_delivers_at_a_time(postgres_store: str, receiver: Receiver) -> None:
    """Two servers on one database: each row is told once, and by the other one when one is gone."""

    async def main() -> None:
        async with asyncio.timeout(90), contextlib.AsyncExitStack() as stack:
            one = await stack.enter_async_context(Engine(postgres_store, tasks=TASKS))
            first = await stack.enter_async_context(world_of(one))
            async with Engine(postgres_store, tasks=TASKS) as other, world_of(other) as second:
                id, _ = await add(second, receiver, transitions=["finish"])
                ran = [await first.start("total", a=number) for number in range(5)]
                ran += [await second.start("total", a=number) for number in range(5)]
                got = [(await came(receiver))[1] for _ in ran]
                assert sorted(one["id"] for one in got) == sorted(ran)
                await shown(first, id, pending=0)
            more = [await first.start("total", a=number) for number in range(5)]
            got = [(await came(receiver))[1] for _ in more]
            assert sorted(one["id"] for one in got) == sorted(more)
            assert receiver.came.empty()

    asyncio.run(main())


def test_a_lease_that_runs_is_respected(receiver: Receiver) -> None:
    async def main() -> None:
        async with a_world() as world, asyncio.timeout(100):
            store, now = world.engine.store, world.engine.clock.now()
            until = now + 3_600_000_000
            held = await world.engine.journal.call(
                lambda: store.webhooks.hold("another", now, until)
            )
            assert held
            id, _ = await add(world, receiver, transitions=["finish"])
            await world.result(await world.start("total", a=1))
            again = Courier(world.engine)
            await again.run()
            assert receiver.came.empty()
            assert (await world.get(f"{HOOKS}/{id}/deliveries"))["items"] == []
            await world.engine.journal.call(lambda: store.webhooks.let_go("another"))
            assert (await came(receiver))[1]["data"]["kind"] == "finish"

    asyncio.run(main())


APP = """
import outlast
from outlast.server import courier

courier.LOOK_SECONDS = courier.POLL_SECONDS = courier.IDLE_SECONDS = 0.02
courier.PAUSE_US, courier.PAUSE_FACTOR, courier.HELD_US = 50_000, 1.0, 1_000_000

@outlast.task
async def noted(number: int) -> int:
    return number
"""


def test_a_kill_of_the_server_loses_nothing(tmp_path: Path, receiver: Receiver) -> None:
    (tmp_path / "app.py").write_text(APP)

    def server() -> tuple[subprocess.Popen[str], Client]:
        words = ("server", "app.py", "--store", "sqlite:///hooks.db", "--port", "0", "-o", "json")
        process = subprocess.Popen(
            [sys.executable, "-m", "outlast.cli", *words],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OUTLAST_WEBHOOK_HOSTS": receiver.host, "OUTLAST_TOKEN": TOKEN},
        )
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        process.stdout.close()
        return process, Client(url, token=TOKEN, tasks=())

    receiver.statuses.put(500)
    process, client = server()
    told: set[tuple[str, int]] = set()

    def take() -> Came:
        headers, body = receiver.came.get(timeout=100)
        told.add((json.loads(body)["id"], json.loads(body)["data"]["seq"]))
        return headers, body

    try:
        with client:
            client.webhooks.add(receiver.url, task="noted", transitions=("create", "finish"))
            ran = [client.start("noted", number=number).id for number in range(4)]
            take()
            process.send_signal(signal.SIGKILL)
            process.wait(100)
        process, client = server()
        with client:
            ran += [client.start("noted", number=number).id for number in range(2)]
            while len(told) < 2 * len(ran):
                take()
            assert {id for id, _ in told} == set(ran)
    finally:
        process.kill()
        process.wait(100)


def test_a_client_has_them_too(receiver: Receiver) -> None:
    with a_server() as served, Client(served.url, token=TOKEN, tasks=TASKS) as client:
        client_story(served, client, receiver)


def client_story(served: Served, client: Client, receiver: Receiver) -> None:
    hooks = client.webhooks
    made = hooks.add(receiver.url, task="total", states=("succeeded",), description="books")
    (row,) = hooks.list()
    assert row == made.webhook == hooks.get(row.id)
    local = served.engine.store.webhooks.get(row.id)
    assert local is not None
    assert (row.terms, row.state, row.created_at) == (local.terms, local.state, local.created_at)
    assert hooks.pause(row.id, "later").terms.why == "later"
    assert hooks.change(row.id, description="more").terms.description == "more"
    assert hooks.resume(row.id).state == "active"
    assert hooks.rotate(row.id, "1h").secret != made.secret
    ping = hooks.ping(row.id)
    receiver.came.get(timeout=100)
    handle = client.start(TASKS[0], 1)
    assert handle.result() == 3
    _, body = receiver.came.get(timeout=100)
    assert json.loads(body)["id"] == handle.id
    known = [one.number for one in hooks.deliveries(row.id)]
    assert known == [ping.number + 1, ping.number]
    hooks.redeliver(row.id, ping.number)
    receiver.came.get(timeout=100)
    hooks.remove(row.id)
    assert list(hooks.list()) == []
    with pytest.raises(queue.Empty):
        receiver.came.get_nowait()
