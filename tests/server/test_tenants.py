"""A server of several tenants: none learns anything of another one, not even that it is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher

from outlast import Engine
from outlast.access import Grant, Role
from outlast.access.audit import Deed
from outlast.accounts import password
from outlast.accounts.desk import Desk
from outlast.client.client import Client
from outlast.server import crowd, front, webhook
from outlast.server.auth import FirstToken
from outlast.server.front import HEADER, Front
from outlast.server.known import StoreAuthenticator

from .conftest import TASKS, TOKEN, total

DEED = Deed("os:root", "cli", "test", 1)
WORDS = "four words of mine"
API = "/api/v1"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    password._nobodys.cache_clear()
    crowd._left.clear()
    monkeypatch.setattr(password, "_hasher", lambda: PasswordHasher(1, 8, 1))
    monkeypatch.setattr(front, "LOOK_SECONDS", 0.0)


class House:
    """A server of the default tenant and of acme, with a caller of each that may do everything."""

    def __init__(self, engine: Engine, door: Front, tokens: dict[str, str]) -> None:
        self.engine, self.door, self.tokens = engine, door, tokens

    def caller(self, tenant: str | None, token: str | None) -> httpx.AsyncClient:
        headers = {} if tenant is None else {HEADER: tenant}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        transport = httpx.ASGITransport(self.door)
        return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)

    async def start(self, http: httpx.AsyncClient, **more: Any) -> str:
        body = {"task": "total", "input": {"a": 1}}
        answer = await http.post(f"{API}/executions", json=body, **more)
        assert answer.status_code in (200, 201), answer.text
        found: str = answer.json()["id"]
        await http.get(f"{API}/executions/{found}/result?wait=30s")
        return found


@contextlib.asynccontextmanager
async def a_house(directory: Path, wanted: tuple[str, ...] | None = None) -> AsyncIterator[House]:
    address, tasks = f"sqlite:///{directory}/house.db", (*TASKS, webhook.webhook)
    async with Engine(address, tasks=tasks, tenant="default") as engine:
        for name in ("acme", "umbrella"):
            await engine.tenants.aadd(name)
        made: dict[str, Engine] = {}

        def make(name: str) -> Engine:
            made[name] = Engine(address, tasks=tasks, tenant=name)
            return made[name]

        known = StoreAuthenticator(engine, FirstToken.of(TOKEN))
        door = Front(engine, known, make, wanted, hosts=("test",))
        await door.open()
        tokens = {"default": TOKEN}
        for name, one in made.items():
            desk = Desk(one.store.access)
            _, tokens[name] = desk.make_token("all", (Grant(Role.ADMIN),), DEED)
            desk.add_user("ada", WORDS, DEED)
        try:
            yield House(engine, door, tokens)
        finally:
            await door.aclose()


def same(answer: httpx.Response, *ids: str) -> tuple[int, Any, Any]:
    """What an answer says, without what is drawn for each request, and the id it was asked for."""
    form = answer.json()
    form.pop("instance")
    text = str(sorted(form.items()))
    for id in ids:
        text = text.replace(id, "ID")
    kept = {name: value for name, value in answer.headers.items() if name != "content-length"}
    return answer.status_code, text, sorted(kept.items())


def test_an_execution_of_another_tenant_was_never_there(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_house(tmp_path) as house:
            own, other = (house.caller(name, house.tokens[name]) for name in ("acme", "umbrella"))
            theirs = await house.start(house.caller(None, TOKEN))
            mine = await house.start(own)
            never = "ex_" + "0" * (len(theirs) - 3)
            for path in ("", "/events", "/log", "/result", "/tree"):
                there = await own.get(f"{API}/executions/{theirs}{path}")
                none = await own.get(f"{API}/executions/{never}{path}")
                assert there.status_code == 404
                assert same(there, theirs) == same(none, never), path
            for path in ("cancel", "pause", "retry"):
                there = await own.post(f"{API}/executions/{theirs}/{path}", json={})
                none = await own.post(f"{API}/executions/{never}/{path}", json={})
                assert same(there, theirs) == same(none, never) and there.status_code == 404
            for http, found in ((own, [mine]), (other, [])):
                page = (await http.get(f"{API}/executions")).json()
                assert [one["id"] for one in page["items"]] == found
            audits = [(await http.get(f"{API}/audit")).json()["items"] for http in (own, other)]
            assert not any("tenant:" in str(rows) or theirs in str(rows) for rows in audits)

    asyncio.run(story())


def test_the_default_tenant_sees_the_metrics_of_all(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_house(tmp_path) as house:
            first = house.caller(None, TOKEN)
            own = house.caller("acme", house.tokens["acme"])
            await house.start(own)
            line = 'outlast_executions_ended_total{state="succeeded",task="total"'
            alone = (await first.get("/metrics")).text
            assert line not in alone and 'tenant="' not in alone
            assert f"{line}}} 1.0" in (await own.get("/metrics")).text
            told = (await first.get("/metrics?tenants=all")).text
            assert f'{line},tenant="acme"}} 1.0' in told and told.count(line) == 1
            for name in ("default", "acme", "umbrella"):
                assert f'outlast_store_up{{tenant="{name}"}} 1.0' in told
            assert told.count("# TYPE outlast_store_up gauge") == 1
            assert (await own.get("/metrics?tenants=all")).status_code == 403

    asyncio.run(story())


def test_traces_of_each_tenant_are_told(tmp_path: Path) -> None:
    async def story() -> None:
        told: list[str] = []

        def telling(engine: Engine) -> Any:
            @contextlib.asynccontextmanager
            async def tell() -> AsyncIterator[None]:
                told.append(engine.tenant)
                yield
                told.remove(engine.tenant)

            return tell()

        address = f"sqlite:///{tmp_path}/house.db"
        async with Engine(address, tasks=TASKS, tenant="default") as engine:
            await engine.tenants.aadd("acme")
            door = Front(
                engine,
                StoreAuthenticator(engine, FirstToken.of(TOKEN)),
                lambda name: Engine(address, tasks=TASKS, tenant=name),
                telling=telling,
            )
            await door.open()
            assert told == ["acme"]
            await door.aclose()
            assert told == []

    asyncio.run(story())


def test_the_same_key_is_each_tenants_own(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_house(tmp_path) as house:
            found = set()
            for name, token in house.tokens.items():
                http = house.caller(name, token)
                key = {"idempotency-key": "same"}
                first = await house.start(http, headers=key)
                assert first == await house.start(http, headers=key)
                found.add(first)
            assert len(found) == 3

    asyncio.run(story())


def test_a_credential_counts_in_its_own_tenant(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_house(tmp_path) as house:
            for name in house.tokens:
                for whose, token in house.tokens.items():
                    answer = await house.caller(name, token).get(f"{API}/executions")
                    assert answer.status_code == (200 if whose == name else 401), (name, whose)
            wrong = await house.caller("acme", house.tokens["umbrella"]).get(f"{API}/executions")
            for name in ("nobody", "", "default,acme", "ACME", "x" * 500):
                answer = await house.caller(name, house.tokens["acme"]).get(f"{API}/executions")
                assert same(answer) == same(wrong), "no tenant, or no token: nobody learns which"
            none = await house.caller("acme", None).get(f"{API}/executions")
            assert same(await house.caller("nobody", None).get(f"{API}/executions")) == same(none)

    asyncio.run(story())


def test_nobody_signs_in_where_there_is_no_tenant(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_house(tmp_path) as house:
            form = {"name": "ada", "password": WORDS}
            assert (
                await house.caller("acme", None).post(f"{API}/session", json=form)
            ).status_code == 200
            bad = {"name": "ada", "password": "others"}
            wrong = await house.caller("acme", None).post(f"{API}/session", json=bad)
            assert wrong.status_code == 401
            for name in ("default", "nobody"):
                answer = await house.caller(name, None).post(f"{API}/session", json=form)
                assert same(answer) == same(wrong), name

    asyncio.run(story())


def test_a_tenant_is_served_from_when_it_is_made(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_house(tmp_path) as house:
            await house.engine.tenants.aadd("later")
            assert (await house.caller("later", "x").get(f"{API}/executions")).status_code == 401
            assert "later" in house.door._apps
            assert len(house.door._apps) == 4

    asyncio.run(story())


def test_only_those_are_served_that_were_named(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_house(tmp_path, ("acme",)) as house:
            assert house.door._apps.keys() == {"default", "acme"}
            assert (await house.caller("umbrella", None).get(f"{API}/me")).status_code == 401

    asyncio.run(story())


def test_a_client_is_of_one_tenant(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_house(tmp_path) as house:
            client = Client(
                "http://test",
                token=house.tokens["acme"],
                tenant="acme",
                transport=httpx.ASGITransport(house.door),
                tasks=TASKS,
            )
            async with client:
                handle = await client.astart(total, 1, 2)
                assert await handle.aresult() == 3
                found = await house.caller("acme", house.tokens["acme"]).get(f"{API}/executions")
                assert [one["id"] for one in found.json()["items"]] == [handle.id]

    asyncio.run(story())


def test_the_default_tenants_admin_administers_the_others(tmp_path: Path) -> None:
    async def story() -> None:
        async with a_house(tmp_path) as house:
            admin, acme = (house.caller(name, house.tokens[name]) for name in ("default", "acme"))
            made = await admin.post(f"{API}/tenants", json={"name": "later"})
            assert made.status_code == 201 and made.json()["name"] == "later"
            assert (await admin.post(f"{API}/tenants", json={"name": "later"})).status_code == 409
            assert (await admin.post(f"{API}/tenants", json={"name": "No"})).status_code == 422
            names = [one["name"] for one in (await admin.get(f"{API}/tenants")).json()["items"]]
            assert names == ["default", "acme", "umbrella", "later"]
            for path in ("nobody/close", "nobody/open"):
                assert (await admin.post(f"{API}/tenants/{path}", json={})).status_code == 404
            closed = await admin.post(f"{API}/tenants/acme/close", json={})
            assert closed.json()["closed_at"] is not None
            body = {"task": "total", "input": {"a": 1}}
            refused = await acme.post(f"{API}/executions", json=body)
            assert (refused.status_code, refused.json()["code"]) == (409, "tenant_closed")
            assert (await acme.get(f"{API}/executions")).status_code == 200
            opened = await admin.post(f"{API}/tenants/acme/open", json={})
            assert opened.json()["closed_at"] is None
            await house.start(acme)
            for method, path in (("GET", "tenants"), ("POST", "tenants/umbrella/close")):
                answer = await acme.request(method, f"{API}/{path}", json={})
                assert answer.status_code in (400, 403), answer.text
            deeds = (await admin.get(f"{API}/audit")).json()["items"]
            said = [one["target"] for one in deeds]
            assert said.count("tenant:acme") == 2 and "tenant:later" in said

    asyncio.run(story())


def test_an_event_and_a_webhook_stay_in_their_tenant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many engines the process has, and whichever was opened last."""
    called: list[tuple[str, str]] = []

    def send(url: str, body: bytes, headers: dict[str, str]) -> int:
        called.append((url, headers["webhook-signature"]))
        return 200

    monkeypatch.setattr(webhook, "send", send)
    monkeypatch.setattr(webhook, "signed", lambda id, body, secret: {"webhook-signature": secret})

    async def story() -> None:
        async with a_house(tmp_path) as house:
            names = ("default", "acme", "umbrella")
            https = [house.caller(name, house.tokens[name]) for name in names]
            body = {"task": "waits", "input": {"span": "1h"}}
            for http in https:
                assert (await http.post(f"{API}/executions", json=body)).status_code == 201
            for http in https:
                told = await http.post(f"{API}/events", json={"name": "news", "value": 1})
                assert (told.status_code, told.json()["reached"]) == (201, 1)
                pages = [(await one.get(f"{API}/executions?task=waits")).json() for one in https]
                ids = [page["items"][0]["id"] for page in pages]
                shown = [
                    await one.get(f"{API}/executions/{id}")
                    for one, id in zip(https, ids, strict=True)
                ]
                heard = [int(one.headers["etag"].strip('"').partition(".")[2]) for one in shown]
                assert heard == [int(https.index(one) <= https.index(http)) for one in https]
            url = "https://hooks.example/x"
            wanted = []
            for http in https:
                body = {"task": "total", "input": {"a": 1}, "notify": [url]}
                assert (await http.post(f"{API}/executions", json=body)).status_code == 201
                hook = (await http.get(f"{API}/executions?task=outlast.webhook")).json()["items"][0]
                await http.get(f"{API}/executions/{hook['id']}/result?wait=30s")
                told = await http.post(f"{API}/webhooks/secret", json={"url": url})
                wanted.append((url, told.json()["secret"]))
            assert called == wanted and len(set(wanted)) == 3

    asyncio.run(story())
