"""What a caller may not learn or do by a side door: through keys, ends, reasons, schedules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, Final

from outlast import Retry, task
from outlast.access import Grant, Rights, Role
from outlast.engine.task.registry import TASKS as KNOWN
from outlast.server.auth import Identity

from .conftest import TOKEN, Tokens, World, a_world

API: Final = "/api/v1"
SECRET: Final = "the card is 4111"


@task(name="backs_off", retries=Retry(3, base="1h"))
async def backs_off(text: str) -> None:
    raise ValueError(text)


KNOWN.pop(backs_off.name)


def tell(story: Callable[[World], Coroutine[Any, Any, None]], *grants: Grant) -> None:
    """Run a story in a world that knows one further caller, by the token \"other\"."""

    async def main() -> None:
        other = Identity("user:bob", rights=Rights((grants,)))
        known = Tokens({TOKEN: Identity("user:ada"), "other": other})
        async with a_world(known) as world, asyncio.timeout(100):
            world.engine.tasks[backs_off.name] = backs_off
            await story(world)

    asyncio.run(main())


OTHER: Final = {"authorization": "Bearer other"}


def test_a_reason_tells_no_message_to_who_reads_no_payloads() -> None:
    async def story(world: World) -> None:
        id = await world.start("backs_off", text=SECRET)
        form = await world.until(id, "retry_wait")
        assert SECRET in form["reason"]["text"], "who reads payloads sees it"
        for path in ("", "/reason", "/steps", "/attempts", "/transitions", "/children"):
            answer = await world.get(f"{API}/executions/{id}{path}", headers=OTHER)
            assert SECRET not in json.dumps(answer), path
        page = await world.get(f"{API}/executions", headers=OTHER)
        assert SECRET not in json.dumps(page)
        assert "failed (builtins:ValueError)" in page["items"][0]["reason"]["text"]
        paused = await world.post(f"{API}/executions/{id}/pause", headers=OTHER)
        assert SECRET not in json.dumps(paused)

    tell(story, Grant(Role.OPERATOR))


def test_who_may_not_start_makes_none_in_bulk_either() -> None:
    async def story(world: World) -> None:
        id = await world.start("total", a=1)
        await world.result(id)
        await world.post(f"{API}/executions/{id}/rerun", {}, 403, headers=OTHER)
        for action in ("rerun", "retry"):
            for filter in ({}, {"task": "total"}):
                body = {"action": action, "filter": filter}
                await world.post(f"{API}/bulk", body, 403, headers=OTHER)
        body = {"action": "pause", "filter": {"task": "total"}}
        await world.post(f"{API}/bulk", body, 200, headers=OTHER)
        assert len((await world.get(f"{API}/executions"))["items"]) == 1

    tell(story, Grant(Role.OPERATOR))


def test_nobody_takes_a_key_that_is_made_for_somebody_else() -> None:
    async def story(world: World) -> None:
        for key in ("http:user:ada:order-1", "http:user%3Aada:order-1", "outlast.webhook:x:0"):
            body = {"task": "total", "input": {"a": 1}, "key": key}
            problem = await world.post(f"{API}/executions", body, 422, headers=OTHER)
            assert problem["errors"][0]["path"] == "$.key"
        same = {"idempotency-key": "order-1"}
        body = {"task": "total", "input": {"a": 1}}
        mine = await world.post(f"{API}/executions", body, 201, headers=same)
        again = await world.post(f"{API}/executions", body, 200, headers=same)
        theirs = await world.post(f"{API}/executions", body, 201, headers={**same, **OTHER})
        assert mine["id"] == again["id"] != theirs["id"]

    tell(story, Grant(Role.AUTHOR))


def test_nobody_waits_for_the_end_of_what_they_may_not_see() -> None:
    async def story(world: World) -> None:
        id = await world.start("waits", span="1h")
        body = {"task": "total", "input": {"a": 1}}
        said = []
        for after in (id, "x" * 26):
            one = {**body, "after": [{"id": after}]}
            problem = await world.post(f"{API}/executions", one, 404, headers=OTHER)
            said.append(problem["detail"].replace(after, "ID"))
        assert said[0] == said[1]
        own = await world.post(f"{API}/executions", body, 201, headers=OTHER)
        one = {**body, "after": [{"id": own["id"], "need": "end"}]}
        await world.post(f"{API}/executions", one, 201, headers=OTHER)

    tell(story, Grant(Role.SUBMITTER, "total"))


def test_a_schedule_of_others_is_not_there() -> None:
    async def story(world: World) -> None:
        body = {"task": "total", "input": {"a": 1}, "when": {"every": "1h"}}
        await world.call("PUT", f"{API}/schedules/nightly", 201, json=body)
        said = []
        for name in ("nightly", "nothing"):
            problem = await world.get(f"{API}/schedules/{name}", 404, headers=OTHER)
            said.append(problem["detail"].replace(name, "NAME"))
        assert said[0] == said[1]

    tell(story, Grant(Role.AUTHOR, "waits"))


def test_what_is_in_the_way_is_not_named_to_who_may_not_see_it() -> None:
    """Where something of another task has a key, or a name, that is all that is said."""

    async def story(world: World) -> None:
        body = {"task": "waits", "input": {"span": "1h"}, "key": "taken"}
        held = await world.post(f"{API}/executions", body, 201)
        wish = {"task": "total", "input": {"a": 1}, "key": "taken"}
        seen = await world.post(f"{API}/executions", wish, 409)
        assert held["id"] in json.dumps(seen), "who sees it is told"
        own = await world.post(f"{API}/executions", {**wish, "key": "own"}, 201, headers=OTHER)
        rerun = f"{API}/executions/{own['id']}/rerun"
        for path, said in ((f"{API}/executions", wish), (rerun, {"key": "taken"})):
            problem = await world.post(path, said, 409, headers=OTHER)
            assert problem["code"] == "key_conflict"
            assert held["id"] not in json.dumps(problem) and "waits" not in json.dumps(problem)
        plan = {"task": "waits", "input": {"span": "1h"}, "when": {"every": "1h"}}
        await world.call("PUT", f"{API}/schedules/nightly", 201, json=plan)
        mine = {"task": "total", "input": {"a": 1}, "when": {"every": "1h"}}
        path = f"{API}/schedules/nightly"
        problem = await world.call("PUT", path, 403, json=mine, headers=OTHER)
        assert "waits" not in json.dumps(problem)

    tell(story, Grant(Role.AUTHOR, "total"))


class _Once(Tokens):
    """Knows everybody once: what they came with is taken back while they are answered."""

    async def authenticate(self, headers: Any) -> Identity:
        found = await super().authenticate(headers)
        if found.name != "ada":
            self.known = {TOKEN: self.known[TOKEN]}
        return found


def test_who_waits_is_asked_again_before_the_answer() -> None:
    async def main() -> None:
        known = _Once({TOKEN: Identity("ada"), "other": Identity("bob")})
        async with a_world(known) as world, asyncio.timeout(100):
            id = await world.start("total", a=1)
            path = f"{API}/executions/{await world.start('waits', span='1h')}/result?wait=1ms"
            await world.get(path, 401, headers=OTHER)
            await world.get(path, 202)
            assert (await world.result(id))["result"] == 3

    asyncio.run(main())


def test_nobody_poses_as_a_schedule() -> None:
    async def story(world: World) -> None:
        body = {"task": "total", "input": {"a": 1}, "origin": "schedule:nightly"}
        problem = await world.post(f"{API}/executions", body, 422, headers=OTHER)
        assert problem["errors"][0]["path"] == "$.origin"
        body["origin"] = "a script"
        await world.post(f"{API}/executions", body, 201, headers=OTHER)

    tell(story, Grant(Role.SUBMITTER, "total"))
