"""The campaign: the whole product of routes and callers, and then tricks until it is enough."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

from campaigns.matrix.asking import Asker, Request, forms_of
from campaigns.matrix.callers import CALLERS, STRANGERS, TENANT, Caller, Table
from campaigns.matrix.judging import Judge, Report
from campaigns.matrix.sending import Answer, ask, ask_by_socket
from campaigns.matrix.world import Sower, World, a_world, made_tasks
from outlast import Engine
from outlast.server.app import create_app
from outlast.server.route import Scope
from outlast.server.serving import Address, serve
from outlast.server.table import ROUTES

EACH: Final = 4
"""Requests that OpenAPI makes of each operation."""
FILL_EVERY: Final = 600
"""After how many requests there are new executions: callers end those that there were."""
_INSTANCE: Final = re.compile(rb"urn:outlast:request:\w+")
_ADMIN: Final = next(one for one in CALLERS if one.name == "admin")


async def campaign(
    requests: int, seed: int, *, is_whole: bool = True, failures_max: int = 100
) -> Report:
    """Ask the app itself so many times.

    Args:
        requests: how many, at least.
        seed: of the dice.
        is_whole: whether every route is asked by everybody, however many requests that takes.
        failures_max: after so many it is enough.
    """
    report, dice = Report(), random.Random(seed)
    async with a_world() as world:
        app = create_app(world.engine, Table(), hosts=("test",))

        async def send(request: Request) -> Answer:
            return await ask(app, request)

        asker = Asker(ROUTES, forms_of(EACH, seed), dice)
        judge = Judge(ROUTES, world, report)
        queue = [(route, caller) for route in ROUTES for caller in (*CALLERS, *STRANGERS)]
        dice.shuffle(queue)
        round = 0
        while report.requests < requests or (queue and is_whole):
            if len(report.failures) >= failures_max:
                break
            if report.requests >= round * FILL_EVERY:
                if round:
                    await world.fill(round)
                await look_about(asker, send, _ADMIN)
                round += 1
            if queue and (dice.random() < 0.5 or report.requests >= requests):
                request = asker.plain(*queue.pop())
            else:
                request = asker.tricky(dice.choice(ROUTES), asker.any_caller())
            await _one(world, judge, send, request, dice)
    return report


async def _one(world: World, judge: Judge, send: Any, request: Request, dice: Any) -> None:
    access = world.engine.store.access
    before = access.audit_head()
    answer = await send(request)
    judge.judge(request, answer)
    if answer.status >= 400 and access.audit_head() != before:
        judge.fail(request, answer, "it is refused, and something was changed")
    if answer.status == 404 and _is_hidden(world, request):
        await _twin(judge, send, request, answer)


def _is_hidden(world: World, request: Request) -> bool:
    """Tell whether a request was about an execution that is there, and not for the caller."""
    route, identity = request.route, request.caller.identity
    if route is None or route.scope is not Scope.EXECUTION or identity is None or request.trick:
        return False
    area = world.ids.get(request.places.get("id", ""))
    rights = identity.rights
    return area is not None and not (
        identity.tenant == TENANT and rights.see(TENANT, f"{area}.total")
    )


async def _twin(judge: Judge, send: Any, request: Request, answer: Answer) -> None:
    """See that what is hidden is answered as what never was: byte for byte, but for the id."""
    id = request.places["id"]
    other = id[:-8] + "00000000"
    twin = replace(
        request,
        target=request.target.replace(id, other),
        body=request.body.replace(id.encode(), other.encode()),
        places={**request.places, "id": other},
    )
    said = await send(twin)
    judge.judge(twin, said)
    if _bare(answer, id) != _bare(said, other):
        judge.fail(request, answer, f"it differs from one that never was: {said.body!r}")


def _bare(answer: Answer, id: str) -> tuple[int, bytes]:
    return answer.status, _INSTANCE.sub(b"", answer.body.replace(id.encode(), b"ID"))


async def look_about(asker: Asker, send: Any, caller: Caller) -> None:
    """Find out what there is to be named in paths: by asking the routes that list it."""
    for route in ROUTES:
        prefix, brace, _ = route.path.partition("/{")
        if not brace or not any(one.method == "GET" and one.path == prefix for one in ROUTES):
            continue
        answer = await send(Request("GET", prefix + _limit(prefix), caller, caller.headers))
        items = json.loads(answer.body).get("items", [])
        names = [next(str(one) for one in item.values() if isinstance(one, str)) for item in items]
        asker.values[prefix] = names
    asker.tasks = asker.values["/api/v1/tasks"]
    streams = "/api/v1/executions/{id}/streams"
    asker.values[streams] = ["said", "words"]


def _limit(path: str) -> str:
    """Ask for a long page, where pages are."""
    route = next(one for one in ROUTES if one.method == "GET" and one.path == path)
    return "?limit=300" if hasattr(route.query, "limit") else ""


async def by_socket(requests: int, seed: int) -> Report:
    """Ask a server over sockets so many times."""
    report, dice = Report(), random.Random(seed + 1)
    async with _serving() as (world, address):

        async def send(request: Request) -> Answer:
            answer = await ask_by_socket(address, request)
            return Answer(0, {}, b"") if answer is None else answer

        asker = Asker(ROUTES, forms_of(EACH, seed), dice)
        judge = Judge(ROUTES, world, report)
        await look_about(asker, send, _ADMIN)
        while report.requests < requests:
            route, caller = dice.choice(ROUTES), asker.any_caller()
            make = asker.plain if dice.random() < 0.3 else asker.tricky
            request = make(route, caller)
            answer = await send(request)
            if _is_none(answer):
                report.outcomes["no HTTP"] += 1
                report.requests += 1
                continue
            judge.judge(request, answer)
    return report


@contextlib.asynccontextmanager
async def _serving() -> AsyncIterator[tuple[World, tuple[str, int]]]:
    loop = asyncio.get_running_loop()
    until: asyncio.Future[None] = loop.create_future()
    ready: asyncio.Future[str] = loop.create_future()
    engine = Engine("memory:", tasks=made_tasks())
    address = Address(port=0, hosts=("test",))
    serving = asyncio.create_task(serve(engine, Table(), address, ready.set_result, until))
    host, _, port = (await ready).rpartition("/")[2].partition(":")
    world = World(engine, Sower())
    try:
        await world.fill()
        yield world, (host, int(port))
    finally:
        until.set_result(None)
        await serving


def _is_none(answer: Answer) -> bool:
    """Tell whether the parser has refused a request as none, before any route was looked for."""
    if answer.status == 0:
        return True
    return answer.status == 400 and answer.headers.get("content-type", "").startswith("text/plain")


__all__ = ["by_socket", "campaign", "look_about"]
