"""Metrics, lines, times and the doctor over HTTP, each by its permission."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import httpx
import pytest

from outlast import Engine, step, task
from outlast.access import Role
from outlast.access.decide import Grant, Rights
from outlast.engine.task.registry import TASKS as KNOWN
from outlast.server.app import create_app
from outlast.server.auth import Identity

from .conftest import TOKEN, Tokens

LOG = logging.getLogger("seen")


@step
async def shouts(word: str) -> str:
    LOG.warning("shouts %s", word)
    return word


@task
async def calls(words: list[str]) -> int:
    for word in words:
        await shouts(word)
    LOG.warning("has called")
    return len(words)


KNOWN.pop(calls.name)


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    LOG.setLevel(logging.WARNING)
    yield
    LOG.setLevel(logging.NOTSET)


def identity(*roles: Role, task: str = "") -> Identity:
    return Identity("eve", rights=Rights((tuple(Grant(role, task) for role in roles),)))


def test_what_is_shown_over_http() -> None:
    async def main() -> None:
        known = {
            TOKEN: Identity("ada"),
            "monitor": identity(Role.MONITOR),
            "viewer": identity(Role.VIEWER),
            "reader": identity(Role.PAYLOAD_READER),
            "submitter": identity(Role.SUBMITTER),
        }
        async with Engine("memory:", tasks=[calls]) as engine, asyncio.timeout(100):
            app = create_app(engine, Tokens(known), hosts=("test",))
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:

                async def get(path: str, who: str = TOKEN) -> httpx.Response:
                    headers = {"authorization": f"Bearer {who}"}
                    return await http.get(path, headers=headers)

                async def codes(path: str) -> dict[str, int]:
                    return {who: (await get(path, who)).status_code for who in known}

                handle = await engine.astart(calls, ["a", "b", "c"])
                await handle.aresult()
                place = f"/api/v1/executions/{handle.id}"

                scraped = await get("/metrics", "monitor")
                assert scraped.headers["content-type"].startswith("text/plain; version=")
                assert 'outlast_executions{state="succeeded"} 1.0' in scraped.text
                assert await codes("/metrics") == {
                    TOKEN: 200, "monitor": 200, "viewer": 200, "reader": 200, "submitter": 403,
                }  # fmt: skip
                allowed = await codes("/api/v1/system/doctor")
                assert allowed == {
                    TOKEN: 200, "monitor": 403, "viewer": 200, "reader": 200, "submitter": 403,
                }  # fmt: skip
                found = (await get("/api/v1/system/doctor")).json()
                assert found["level"] == "ok" and len(found["findings"]) >= 11
                took = (await get(f"{place}/metrics", "viewer")).json()
                assert [one["key"] for one in took["steps"]] == ["shouts#1", "shouts#2", "shouts#3"]
                assert (took["state"], took["attempts"], took["errors"]) == ("succeeded", 1, {})

                for path in (f"{place}/logs", f"{place}/logs/events"):
                    seen = await codes(path)
                    assert (seen["reader"], seen["viewer"], seen["submitter"]) == (200, 403, 403)
                    assert seen["monitor"] == 403
                page = (await get(f"{place}/logs?limit=3")).json()
                said = ["shouts a", "shouts b", "shouts c"]
                assert [one["message"] for one in page["items"]] == said
                rest = (await get(f"{place}/logs?after={page['next']}")).json()
                assert [one["message"] for one in rest["items"]] == ["has called"]
                assert rest["next"] is None
                only = (await get(f"{place}/logs?step=shouts%232")).json()
                assert [(one["number"], one["message"]) for one in only["items"]] == [(2, said[1])]
                events = (await get(f"{place}/logs/events?after=3")).text
                lines = [line[6:] for line in events.splitlines() if line.startswith("data: ")]
                assert json.loads(lines[0])["message"] == "has called"
                assert json.loads(lines[-1]) == {"id": handle.id} and len(lines) == 2

    asyncio.run(main())
