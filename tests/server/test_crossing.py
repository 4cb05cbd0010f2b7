"""Between two tenants that are alike nothing passes; and what is planted to pass is seen."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any, Final

import pytest
from argon2 import PasswordHasher

from campaigns.matrix.crossing import Crossed, crossing
from outlast.accounts import password
from outlast.accounts.desk import unknown
from outlast.engine.engine import Engine
from outlast.engine.primitives import publishing
from outlast.engine.task import current
from outlast.errors import Forbidden, NotFound, Unauthenticated
from outlast.server import veil
from outlast.server.call import Call
from outlast.server.known import StoreAuthenticator
from outlast.server.table import ROUTES


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    password._nobodys.cache_clear()
    monkeypatch.setattr(password, "_hasher", lambda: PasswordHasher(1, 8, 1))


def test_nothing_of_one_tenant_is_told_to_another() -> None:
    report = asyncio.run(crossing(0))
    assert report.failures == []
    assert report.requests >= 4_000 and report.size > 1_000_000
    assert report.routes >= {f"{one.method} {one.path}" for one in ROUTES if "{" in one.path}
    places: Counter[str] = Counter()
    for kind, count in report.kinds.items():
        places[kind.partition(":")[0]] += count
    assert places.keys() == {"path", "header", "query", "body"} and min(places.values()) > 60
    assert {200, 201, 401, 403, 404, 409, 422} <= report.statuses.keys()
    assert len(report.deeds) > 15 and report.deeds["publish_event"]
    assert len(report.own) > 20 and len(report.theirs) > 100, "those who may see it do"
    compared = {table for table, rows in report.rows.items() if rows > 10}
    assert compared >= {
        "execution", "transition", "inbox", "label", "audit", "token", "session", "account",
        "schedule", "queue_setting", "gate_setting", "budget", "question", "secret", "stream_item",
        "webhook",
    }  # fmt: skip


def test_nothing_passes_on_postgresql_either(postgres_url: str) -> None:
    """In short: a sixth of the routes, so that what is the server's own is tried there."""
    routes = [one for one in ROUTES if "{" in one.path or one.method == "GET"][::6]
    report = asyncio.run(crossing(1, rounds=1, routes=routes, address=postgres_url))
    assert report.failures == []
    assert report.requests >= 200 and len(report.own) > 10 and len(report.theirs) > 50
    compared = {table for table, rows in report.rows.items() if rows}
    assert compared >= {"execution", "transition", "webhook", "schedule", "budget", "secret"}


def _others(engine: Any) -> list[Engine]:
    return [one for one in current._engines if isinstance(one, Engine) and one is not engine]


def _last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "the_engine", lambda: current._engines[-1])


def _anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    found = StoreAuthenticator._found

    async def of_any(self: StoreAuthenticator, text: str, **more: Any) -> Any:
        for engine in (self._engine, *_others(self._engine)):
            try:
                one = await found(StoreAuthenticator(engine), text, **more)
            except Unauthenticated:
                continue
            return replace(one, tenant=self._engine.store.tenant)
        raise unknown()

    monkeypatch.setattr(StoreAuthenticator, "_found", of_any)


def _anything(monkeypatch: pytest.MonkeyPatch) -> None:
    page = veil.page

    async def of_all(call: Call, wanted: Any, limit: int) -> Any:
        shown, following = await page(call, wanted, limit)
        for engine in _others(call.engine):
            shown += await engine.read_page(wanted)
        return shown, following

    monkeypatch.setattr(veil, "page", of_all)


def _telling(monkeypatch: pytest.MonkeyPatch) -> None:
    find, read = Call.find, Engine.read_one

    async def told(call: Call) -> None:
        try:
            await find(call)
        except NotFound:
            for engine in _others(call.engine):
                try:
                    await read(engine, call.path["id"])
                except NotFound:
                    continue
                raise Forbidden(f"{call.identity.name} is of another tenant") from None
            raise

    monkeypatch.setattr(Call, "find", told)


PLANTS: Final = {
    "an event goes to whichever engine was opened last": (_last, "/api/v1/events"),
    "a token counts in every tenant": (_anybody, "/api/v1/users"),
    "a list is of every tenant": (_anything, "/api/v1/executions"),
    "one that is elsewhere is refused, not hidden": (_telling, "/api/v1/executions/{id}/wake"),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_is_seen(monkeypatch: pytest.MonkeyPatch, plant: str) -> None:
    change, path = PLANTS[plant]
    change(monkeypatch)
    routes = [one for one in ROUTES if one.path == path]
    report: Crossed = asyncio.run(crossing(0, rounds=2, failures_max=1, routes=routes))
    assert report.failures, plant
