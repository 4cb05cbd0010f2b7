"""The short form of ``python -m campaigns.matrix``; and that it sees what is planted."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

import pytest

from campaigns.matrix.callers import CALLERS, STRANGERS
from campaigns.matrix.campaign import by_socket, campaign
from campaigns.matrix.judging import Report
from outlast import forms
from outlast.server import app, openapi, veil
from outlast.server.call import Call
from outlast.server.table import ROUTES

REQUESTS: Final = int(os.environ.get("OUTLAST_MATRIX", "15000"))
"""20,000 in CI with those over sockets and those for what is another tenant's."""


@pytest.mark.timeout(600)
def test_every_route_by_everybody_by_every_trick() -> None:
    report = asyncio.run(campaign(REQUESTS, 0))
    assert report.failures == []
    assert max(report.statuses) < 500
    assert report.requests >= REQUESTS
    assert len(report.seen) >= len(ROUTES) * (len(CALLERS) + len(STRANGERS))
    assert {200, 201, 202, 204, 400, 401, 403, 404, 405, 409, 422} <= report.statuses.keys()
    assert min(report.outcomes.values()) > 300, report.outcomes


def test_the_same_over_sockets() -> None:
    report = asyncio.run(by_socket(1_000, 0))
    assert report.failures == [] and report.requests >= 1_000
    assert {200, 401, 403, 404, 405} <= report.statuses.keys()


def _blind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "veiled_record", lambda record: record)


def _open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Call, "listed", lambda call, task: setattr(call, "asked", True) or True)


def _loose(monkeypatch: pytest.MonkeyPatch) -> None:
    async def find(call: Call) -> None:
        call.record = await call.engine.read_one(call.path["id"])
        call.allow(call.record.task)

    monkeypatch.setattr(Call, "find", find)


def _chatty(monkeypatch: pytest.MonkeyPatch) -> None:
    async def as_it_is(call: Call, value: Any) -> Any:
        return value

    monkeypatch.setattr(app, "veiled", as_it_is)
    monkeypatch.setattr(veil, "veiled", as_it_is)


def _silent(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = openapi.refusals_of

    def some(route: Any) -> dict[int, list[str]]:
        return {status: codes for status, codes in whole(route).items() if status != 403}

    monkeypatch.setattr(openapi, "refusals_of", some)


PLANTS: Final = {
    "texts of errors are shown to all": _blind,
    "lists show what is not one's own": _open,
    "what may not be seen is refused, not hidden": _loose,
    "logs name what may not be seen": _chatty,
    "a refusal is not in the document": _silent,
}


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_is_seen(monkeypatch: pytest.MonkeyPatch, plant: str) -> None:
    PLANTS[plant](monkeypatch)
    report: Report = asyncio.run(campaign(3_000, 0, is_whole=False, failures_max=1))
    assert report.failures, plant
