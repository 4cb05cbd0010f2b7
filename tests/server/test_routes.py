"""The table says who may call what, and the server does not start with a line that does not."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import httpx
import pytest

from outlast import Engine
from outlast.access import Grant, Permission, Rights, Role
from outlast.errors import InternalError
from outlast.server.app import create_app
from outlast.server.auth import Identity
from outlast.server.openapi import SNAPSHOT, document, encoded, refusals_of
from outlast.server.route import Route, Scope, checked
from outlast.server.shapes import ExecutionForm
from outlast.server.table import ROUTES

from .conftest import Tokens, a_world

ROOT = Path(__file__).parents[2]


async def nothing(call: Any) -> dict[str, Any]:
    """Answer without having asked."""
    return {}


def a_route(**more: Any) -> Route:
    said = {"permission": Permission.SYSTEM_READ, "scope": Scope.TENANT, **more}
    return Route(method="GET", path="/x", handler=nothing, **said)


@pytest.mark.parametrize(
    ("route", "why"),
    [
        (a_route(permission=None), "it names no permission"),
        (a_route(scope=None), "it does not say for what"),
        (a_route(permission=Permission.ANYONE), "what anyone may call has no scope"),
        (a_route(scope=Scope.NONE), "what anyone may call has no scope"),
        (a_route(scope=Scope.EXECUTION), "its scope is an execution"),
    ],
)
def test_a_route_without_a_permission_stops_the_server(route: Route, why: str) -> None:
    with pytest.raises(InternalError) as caught:
        create_app(Engine("memory:"), Tokens({}), routes=(*ROUTES, route))
    assert why in caught.value.why and "GET /x" in caught.value.where


def test_a_route_stands_in_the_table_once() -> None:
    with pytest.raises(InternalError, match="does not start"):
        checked((a_route(), a_route()))


def test_every_route_of_the_table_is_checked_and_has_words() -> None:
    assert len(checked(ROUTES)) > 60
    assert [route.name for route in ROUTES if not route.handler.__doc__] == []


def test_an_answer_that_nobody_asked_about_does_not_leave() -> None:
    async def main() -> None:
        async with a_world(routes=(a_route(scope=Scope.TASK),)) as world:
            problem = await world.get("/x", 500)
            assert problem["code"] == "internal_error" and "asking" not in problem["detail"]

    asyncio.run(main())


def test_who_lacks_the_permission_is_turned_away_at_every_route() -> None:
    """Each route, by a caller that may do everything but what the route asks for."""

    async def main() -> None:
        others = {
            role: Identity("nobody", rights=Rights(((Grant(role),),)))
            for role in (Role.WORKER, Role.AUDITOR)
        }
        async with a_world(Tokens({**others})) as world:
            handle = await world.engine.astart(_task(world, "total"), 1)
            seen = 0
            for route in ROUTES:
                if route.permission in (Permission.ANYONE, Permission.SELF):
                    continue
                path = route.path.replace("{id}", handle.id).replace("{name}", "total")
                path = path.replace("{scope}", "tenant")
                worker = Role.WORKER if route.permission is not Permission.WORK_TAKE else None
                other = worker or Role.AUDITOR
                for token, statuses in ((None, (401,)), ("x", (401,)), (other, (403, 404))):
                    headers = {"authorization": f"Bearer {token}"} if token else {}
                    request = httpx.Request(route.method, f"http://test{path}", headers=headers)
                    answer = await world.http.send(request)
                    assert answer.status_code in statuses, (route, answer.text)
                    seen += 1
            assert seen > 150

    asyncio.run(main())


SEEN = ("", "/transitions", "/steps", "/attempts", "/reason", "/events", "/descents")


def _task(world: Any, name: str) -> Any:
    return world.engine.tasks[name]


def test_a_grant_for_other_tasks_shows_nothing() -> None:
    grant = Grant(Role.ADMIN, "asks")

    async def main() -> None:
        known = Tokens({"a": Identity("ada"), "b": Identity("bob", rights=Rights(((grant,),)))})
        async with a_world(known) as world:
            world.http.headers["authorization"] = "Bearer a"
            other = await world.start("total", a=1)
            own = await world.start("asks", name="Bob")
            await world.until(own, "awaiting_input")
            world.http.headers["authorization"] = "Bearer b"
            page = await world.get("/api/v1/executions")
            assert [one["id"] for one in page["items"]] == [own]
            for path in ("", "/result", "/transitions", "/steps", "/input", "/events"):
                problem = await world.get(f"/api/v1/executions/{other}{path}", 404)
                assert problem["code"] == "not_found"
            await world.post(f"/api/v1/executions/{other}/cancel", status=404)
            body = {"task": "total", "input": {"a": 1}}
            assert (await world.post("/api/v1/executions", body, 403))["code"] == "forbidden"
            tasks = await world.get("/api/v1/tasks")
            assert [one["name"] for one in tasks["items"]] == ["asks"]
            asked = await world.get("/api/v1/questions")
            assert [one["id"] for one in asked["items"]] == [own]
            await world.get("/api/v1/queues", 403)
            bulk = {"action": "cancel", "filter": {}}
            await world.post("/api/v1/bulk", bulk, 403)
            bulk["filter"] = {"task": "asks"}  # type: ignore[assignment]
            assert (await world.post("/api/v1/bulk", bulk, 200))["matched"] == 1

    asyncio.run(main())


def test_who_may_not_read_payloads_reads_none() -> None:
    async def main() -> None:
        viewer = Rights(((Grant(Role.VIEWER),),))
        known = Tokens({"a": Identity("ada"), "v": Identity("vi", rights=viewer)})
        async with a_world(known) as world:
            world.http.headers["authorization"] = "Bearer a"
            id = await world.start("fails", text="secret-4711")
            await world.result(id)
            world.http.headers["authorization"] = "Bearer v"
            seen = []
            for path in (
                "",
                "/transitions",
                "/steps",
                "/attempts",
                "/reason",
                "/events",
                "/descents",
            ):
                answer = await world.http.get(f"/api/v1/executions/{id}{path}")
                assert answer.status_code == 200
                seen.append(answer.text)
            seen.append((await world.http.get("/api/v1/executions")).text)
            assert len(seen) == 8 and not any("4711" in text for text in seen)
            for path in ("/result", "/input", "/transitions?payload=true", "/steps?payload=true",
                         "/events?payload=true", "/streams/words"):  # fmt: skip
                await world.get(f"/api/v1/executions/{id}{path}", 403)

    asyncio.run(main())


def test_the_snapshot_is_what_the_table_says() -> None:
    assert (ROOT / SNAPSHOT).read_bytes() == encoded(), "python -m outlast.server.openapi"


def test_the_document_shows_the_headers_of_answers() -> None:
    """What tests of the routes see in answers: when to come again, what to change, who to be."""
    told = document(ROUTES)
    shared = told["components"]["responses"]
    for status, name in ((429, "Retry-After"), (503, "Retry-After"), (401, "WWW-Authenticate")):
        assert name in shared[str(status)]["headers"]
    problem = told["components"]["schemas"]["Problem"]["properties"]
    assert {"state", "refusal", "code", "do"} <= problem.keys(), "an impossible action says why"
    tagged = traced = 0
    for route in ROUTES:
        operation = told["paths"][route.path][route.method.lower()]
        assert "503" in operation["responses"]
        if route.answer is ExecutionForm:
            tagged += "ETag" in operation["responses"][str(route.status)]["headers"]
        traced += any(one["name"] == "traceparent" for one in operation.get("parameters", ()))
    assert tagged > 15 and traced >= 2


def test_the_document_lists_every_refusal() -> None:
    told = document(ROUTES)
    assert told["openapi"] == "3.1.0"
    seen = 0
    for route in ROUTES:
        responses = told["paths"][route.path][route.method.lower()]["responses"]
        for status, codes in refusals_of(route).items():
            said = responses[str(status)]
            assert all(code in said["description"] for code in codes)
            seen += 1
        assert str(route.status) in responses
    assert seen > 500
    planted = dataclasses.replace(a_route(), refusals=(InternalError,))
    assert 500 in refusals_of(planted)
