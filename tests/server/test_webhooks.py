"""Webhooks out: signed, retried durably, and to nobody that they should not reach."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import http.client
import http.server
import json
import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from outlast import Engine, Retry
from outlast.engine.control import posting
from outlast.engine.control.posting import send, signed
from outlast.errors import Fatal
from outlast.server.app import create_app
from outlast.server.auth import Identity
from outlast.server.webhook import NAME, deliver, webhook

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
                size = int(self.headers["content-length"])
                body = self.rfile.read(size)
                if len(body) < size:  # who told was killed in mid-sentence
                    return
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
        async with Engine("memory:", tasks=(*TASKS, webhook)) as engine, asyncio.timeout(100):
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
    headers = signed("1", b"{}", "whsec_" + base64.b64encode(b"x" * 32).decode())
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


HOSTILE = (
    "127.0.0.1", "127.8.9.10", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255",
    "192.168.0.1", "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200",
    "192.0.0.192", "198.18.0.1", "203.0.113.1", "224.0.0.251", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%lo", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1",
    "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b:1::1", "2002:a00:1::1", "2001:db8::1", "100::1",
)  # fmt: skip


def resolver(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """A resolver whose owner is not our friend: another answer each time; gives what was asked."""
    asked: list[str] = []

    def look_up(host: str, port: int, **more: Any) -> Any:
        if host[0].isdigit() or ":" in host:  # what is looked at already
            return [(socket.AF_INET6 if ":" in host else socket.AF_INET, 1, 6, "", (host, port))]
        asked.append(host)
        addresses = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, 1, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


@pytest.mark.parametrize("address", HOSTILE)
def test_a_name_that_leads_inside_is_not_called(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    def never(*args: Any, **more: Any) -> None:
        raise AssertionError("it is called")

    monkeypatch.setattr(socket, "create_connection", never)
    for answer in ([address], ["1.1.1.1", address], [address, "1.1.1.1"]):
        resolver(monkeypatch, answer)
        with pytest.raises(Fatal, match="not public"):
            send("https://hooks.example/", b"{}", {})


def test_a_name_that_turns_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: what was looked at is what is connected to."""
    asked = resolver(monkeypatch, ["1.1.1.1", "9.9.9.9"], ["127.0.0.1"])
    called: list[Any] = []

    def connect(place: Any, *more: Any) -> None:
        called.append(place)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(ConnectionRefusedError):
        send("https://hooks.example/", b"{}", {})
    assert called == [("1.1.1.1", 443), ("9.9.9.9", 443)] and asked == ["hooks.example"]


def test_a_receiver_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, and the answer never."""
    monkeypatch.setattr(posting, "DEADLINE_SECONDS", 0.5)
    listener = socket.create_server(("127.0.0.1", 0))
    host = f"127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setenv("OUTLAST_WEBHOOK_HOSTS", host)
    over = threading.Event()

    def drip() -> None:
        line, _ = listener.accept()
        with line, contextlib.suppress(OSError):
            while not over.wait(0.02):
                line.sendall(b"H")

    dripping = threading.Thread(target=drip, daemon=True)
    dripping.start()
    with pytest.raises((OSError, http.client.HTTPException)):
        send(f"http://{host}/", b"{}", {})
    dripping.join(100)
    assert not dripping.is_alive(), "the connection is ended, not only left"
    over.set()
    listener.close()


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    receiver.statuses.put(307)
    assert send(receiver.url, b"{}", {"content-length": "2"}) == 307
    receiver.came.get(timeout=100)
    assert receiver.came.empty()
