"""Webhooks out: signed, retried durably, and to nobody that they should not reach."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.server
import json
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from outlast import Engine, Retry
from outlast.errors import Fatal
from outlast.server.app import create_app
from outlast.server.auth import Identity
from outlast.server.webhook import NAME, deliver, send, signed, webhook

from .conftest import TASKS, TOKEN, Tokens, World

API = "/api/v1"
Came = tuple[dict[str, str], bytes]


class Receiver:
    """Takes webhooks; answers with the statuses it is given, then with 204."""

    def __init__(self) -> None:
        self.came: queue.SimpleQueue[Came] = queue.SimpleQueue()
        self.statuses: queue.SimpleQueue[int] = queue.SimpleQueue()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.came.put((headers, body))
                status = 204 if receiver.statuses.empty() else receiver.statuses.get()
                self.send_response(status)
                self.send_header("location", "/elsewhere")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.host}/hook?x=1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    made = Receiver()
    monkeypatch.setenv("OUTLAST_WEBHOOK_HOSTS", made.host)
    yield made
    made.server.shutdown()
    made.server.server_close()


def tell(story: Any) -> None:
    import httpx

    async def main() -> None:
        async with Engine("memory:", tasks=(*TASKS, webhook)) as engine, asyncio.timeout(60):
            app = create_app(engine, Tokens({TOKEN: Identity("ada")}), hosts=("test",))
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app),
                base_url="http://test",
                headers={"authorization": f"Bearer {TOKEN}"},
            ) as caller:
                await story(World(engine, app, caller))

    asyncio.run(main())


def test_the_end_of_an_execution_is_told_once_and_signed(receiver: Receiver) -> None:
    async def story(world: World) -> None:
        body = {"task": "asks", "input": {"name": "secret-4711"}, "notify": [receiver.url]}
        key = {"idempotency-key": "k"}
        made = await world.post(f"{API}/executions", body, 201, headers=key)
        await world.post(f"{API}/executions", body, 200, headers=key)  # makes no second one
        (hook,) = (await world.get(f"{API}/executions?task={NAME}"))["items"]
        assert hook["state"] == "scheduled" and receiver.came.empty()
        await world.until(made["id"], "awaiting_input")
        await world.post(f"{API}/executions/{made['id']}/answer", {"value": True})
        assert (await world.result(hook["id"]))["result"] == 204
        headers, data = receiver.came.get_nowait()
        assert receiver.came.empty() and b"4711" not in data
        said = json.loads(data)
        assert (said["type"], said["id"]) == ("execution.ended", made["id"])
        assert said["data"]["state"] == "succeeded"
        told = await world.post(f"{API}/webhooks/secret", {"url": receiver.url}, 200)
        secret = base64.b64decode(told["secret"].removeprefix("whsec_"))
        content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + data
        mark = base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{mark}"
        other = await world.post(f"{API}/webhooks/secret", {"url": receiver.url + "2"}, 200)
        assert other["secret"] != told["secret"]

    tell(story)


def test_a_receiver_that_fails_is_told_again_under_the_same_id(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deliver.policy.retries == 14
    monkeypatch.setattr(deliver, "policy", Retry(5, base="1ms", give_up_on=(Fatal,)).policy)
    for status in (500, 302):  # a redirect is not followed: it is no 2xx
        receiver.statuses.put(status)

    async def story(world: World) -> None:
        body = {"task": "fails", "input": {"text": "no"}, "notify": [receiver.url]}
        made = await world.post(f"{API}/executions", body, 201)
        (hook,) = (await world.get(f"{API}/executions?origin={NAME}:{made['id']}"))["items"]
        assert (await world.result(hook["id"]))["result"] == 204
        came = [receiver.came.get_nowait() for _ in range(3)]
        assert receiver.came.empty()
        assert len({headers["webhook-id"] for headers, _ in came}) == 1
        assert {json.loads(data)["data"]["state"] for _, data in came} == {"failed"}
        receiver.statuses.put(410)
        gone = await world.post(f"{API}/executions", body, 201)
        (hook,) = (await world.get(f"{API}/executions?origin={NAME}:{gone['id']}"))["items"]
        assert (await world.result(hook["id"]))["state"] == "failed"
        receiver.came.get_nowait()
        assert receiver.came.empty()

    tell(story)


def test_nobody_is_reached_who_should_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OUTLAST_WEBHOOK_HOSTS", raising=False)
    headers = signed("whsec_" + base64.b64encode(b"x" * 32).decode(), "1", b"{}")
    for host in ("127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "192.168.1.1",
                 "0.0.0.0", "[::ffff:127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]",
                 "[::127.0.0.1]", "[ff0e::1]", "224.0.0.1", "2130706433", "0x7f.1"):  # fmt: skip
        with pytest.raises(Fatal, match=r"not public|not called"):
            send(f"https://{host}/", b"{}", headers)
    for url in ("http://example.org/", "ftp://example.org", "https://a:b@example.org/", "https://"):
        with pytest.raises(Fatal, match="not called"):
            send(url, b"{}", headers)

    async def story(world: World) -> None:
        body = {"task": "total", "input": {"a": 1}}
        for url in ("http://example.org/", "nonsense", "https://a:b@example.org/"):
            problem = await world.post(f"{API}/executions", {**body, "notify": [url]}, 422)
            assert problem["errors"][0]["path"] == "$.notify[0]"
        assert (await world.get(f"{API}/executions"))["items"] == []

    tell(story)
