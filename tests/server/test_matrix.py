"""Every route, by every role, by somebody of another tenant, and by tricks with its path.

What must be answered is derived from the two tables, never typed: the route says which permission
it asks for, the role says which it has.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

import httpx

from outlast.access import ROLES, Grant, Permission, Rights, Role
from outlast.server.actionqueue import HOME
from outlast.server.auth import Identity
from outlast.server.problem import MEDIA
from outlast.server.route import Route, Scope
from outlast.server.table import ROUTES

from .conftest import Tokens, World, a_world

TENANT, OTHER = 1, 2
ELSEWHERE: Final = "billing.charge"
CALLERS: Final[dict[str, Identity]] = {
    **{role: Identity(role, rights=Rights(((Grant(role),),))) for role in Role},
    "nobody": Identity("nobody", rights=Rights(((),))),
    "elsewhere": Identity("elsewhere", rights=Rights(((Grant(Role.ADMIN, ELSEWHERE),),))),
    "foreign": Identity("foreign", OTHER, Rights(((Grant(Role.ADMIN, tenant=OTHER),),))),
    "confused": Identity("confused", OTHER, Rights(((Grant(Role.ADMIN, tenant=TENANT),),))),
}
"""By token. The last two are of another tenant; one of them with grants that are not of it."""
TRICKS: Final = (
    "{}/healthz", "{}/health", "{}%2fhealthz", "{}/../../../healthz", "{}/..%2f..%2fhealthz",
    "{}//", "/{}", "{};/healthz", "{}.", "{}/", "{}%00", "{}?/healthz", "{}%20", "/healthz/..{}",
    "/%2e{}", "{}%3fx=/healthz", "{}/%2e%2e/me",
)  # fmt: skip
STREAM: Final = "text/event-stream"
PLACES: Final = re.compile(r"\{(\w+)\}")


def path_of(route: Route, id: str) -> str:
    known = {"id": id, "scope": "tenant"}
    return PLACES.sub(lambda found: known.get(found[1], "total"), route.path)


async def ask(world: World, method: str, path: str, token: str | None) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    world.http.headers.pop("authorization", None)
    return await world.http.request(method, path, headers=headers)


def told(answer: httpx.Response) -> str:
    """What a refusal says, in whichever form."""
    said = answer.json()
    return str(said.get("detail", said.get("message")))


def problem(answer: httpx.Response, *ids: str) -> Any:
    """What a refusal says, without what differs from request to request."""
    assert answer.headers["content-type"] == MEDIA, answer.text
    text = answer.text
    for id in ids:
        text = text.replace(id, "ID")
    return re.sub(r"urn:outlast:request:\w+", "", text)


def may(identity: Identity, route: Route) -> bool:
    """What the tables say of a caller who has a role, or not, for a task ``total``."""
    permission = route.permission
    assert permission is not None
    if permission is Permission.ANYONE:
        return True
    if identity.tenant != TENANT:
        return False
    (grants,) = identity.rights.layers
    return any(
        permission in ROLES[grant.role][1]
        and (not grant.task or permission is Permission.SELF)
        and grant.tenant == TENANT
        for grant in grants
    )


def holds(identity: Identity, permission: Permission) -> bool:
    (grants,) = identity.rights.layers
    return any(permission in ROLES[grant.role][1] for grant in grants)


async def matrix(world: World) -> dict[str, int]:
    """Every route by every caller; gives how often which status was the answer."""
    id = await ended(world)
    gone = "ex_000000000000000000000"[: len(id)]
    seen: dict[str, int] = {"asked": 0, "let in": 0, "403": 0, "404": 0, "401": 0}
    for route in ROUTES:
        for token, identity in CALLERS.items():
            allowed = may(identity, route)
            is_open = route.scope is Scope.LISTED and token == "elsewhere"
            if route.media == STREAM and (allowed or is_open):
                continue  # it goes on without end: tests/server/test_live.py
            answer = await ask(world, route.method, path_of(route, id), token)
            seen["asked"] += 1
            where = (route.method, route.path, token, answer.status_code, answer.text[:300])
            assert answer.status_code < 500, where
            if allowed:
                assert answer.status_code != 401, where
                if answer.status_code == 403:  # the handler asks for another one as well
                    (lacked,) = re.findall(r"lacks the permission (\S+)", told(answer))
                    assert not holds(identity, Permission(lacked)), where
                seen["let in"] += 1
                continue
            if token == "elsewhere" and route.scope in (Scope.TASK, Scope.LISTED):
                assert answer.status_code >= 400 or harmless(answer), where
                continue  # it may do this to tasks of its own, and has named none
            wanted = 403
            if route.scope is Scope.EXECUTION and not sees(identity):
                wanted = 404
                other = await ask(world, route.method, path_of(route, gone), token)
                assert problem(answer, id) == problem(other, gone), (
                    "it tells nobody that it is there"
                )
            assert answer.status_code == wanted, where
            seen[str(wanted)] += 1
        for token in (None, "garbage", "otk_abcdefghij." + "x" * 43):
            if route.permission is not Permission.ANYONE:
                answer = await ask(world, route.method, path_of(route, id), token)
                assert answer.status_code == 401, (route.path, token, answer.text)
                seen["asked"] += 1
                seen["401"] += 1
    return seen


def sees(identity: Identity) -> bool:
    return identity.tenant == TENANT and identity.rights.see(TENANT, "total")


def harmless(answer: httpx.Response) -> bool:
    """Whether nothing of others is in an answer to who may list things of tasks of its own."""
    said = answer.json()
    if answer.url.path == f"{HOME}/api/v1/stats":  # its numbers are of what the caller may see
        numbers = [*said.pop("runs_by_state").values(), *said.values()]
        return not any(numbers)
    items = next((said[name] for name in ("items", "tasks", "runs") if name in said), None)
    return items == [] and '"total"' not in answer.text


async def ended(world: World) -> str:
    handle = await world.engine.astart(world.engine.tasks["total"], 1)
    await handle.aresult()
    return handle.id


async def tricks(world: World) -> int:
    """No route is reached by another way of writing its path; gives how many were tried."""
    id = await ended(world)
    tried = 0
    for route in ROUTES:
        if route.permission is Permission.ANYONE:
            continue
        for trick in TRICKS:
            path = trick.format(path_of(route, id))
            for token in (None, "worker"):
                answer = await ask(world, route.method, path, token)
                own = answer.json() if answer.content else {}
                health = route.method == "GET" and own == {"status": "ok"}
                me = route.permission is Permission.SELF or path.endswith("/me")
                assert answer.status_code >= 400 or health or (me and token), (path, token, answer)
                assert answer.status_code < 500, (path, answer.text)
                tried += 1
    return tried


def test_routes_and_roles() -> None:
    async def main() -> None:
        async with a_world(Tokens(CALLERS)) as world:
            seen = await matrix(world)
            assert seen["asked"] > len(ROUTES) * len(CALLERS)
            assert min(seen["let in"], seen["403"], seen["404"], seen["401"]) > 100, seen

    asyncio.run(main())


def test_tricks_with_paths() -> None:
    async def main() -> None:
        async with a_world(Tokens(CALLERS)) as world:
            assert await tricks(world) > len(ROUTES) * len(TRICKS)

    asyncio.run(main())


def test_every_change_by_http_is_in_the_audit() -> None:
    """As many rows as writes that were answered with success, each with who did it."""

    async def main() -> None:
        known = Tokens({"a": Identity("user:ada")})
        async with a_world(known) as world:
            world.http.headers["authorization"] = "Bearer a"
            id = await world.start("asks", name="Bob")
            await world.until(id, "awaiting_input")
            rest = await world.start("waits", span="1h")
            api, changed = "/api/v1", 2
            for method, path, body, status in (
                ("POST", f"{api}/executions/{rest}/pause", None, 202),
                ("POST", f"{api}/executions/{rest}/resume", None, 202),
                ("POST", f"{api}/executions/{rest}/cancel", None, 202),
                ("PUT", f"{api}/limits/k", {"capacity": 2}, 200),
                ("DELETE", f"{api}/limits/k", None, 204),
                ("PATCH", f"{api}/queues/mail", {"paused": True}, 200),
                ("PUT", f"{api}/grants", {"who": "group:x", "role": "viewer"}, 204),
            ):
                given = {} if body is None else {"json": body}
                await world.call(method, path, status, **given)
                changed += 1
            await world.call("DELETE", f"{api}/limits/k", 404)
            await world.post(f"{api}/executions/{rest}/pause", status=409)
            rows = (await world.get(f"{api}/audit"))["items"]
            assert len(rows) == changed and {row["by"] for row in rows} == {"user:ada"}
            assert world.engine.store.access.defects() == []
            assert "Bob" not in str(rows)

    asyncio.run(main())
