"""ActionQueue's daemon before our engine: its shapes, its words, and what it had promised."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from outlast import Limit, Retry, Schedule, task
from outlast.access import Grant, Rights, Role
from outlast.engine.write.identity import IdMaker
from outlast.server.actionqueue import HOME, ROUTES
from outlast.server.actionqueue.actors import ledger
from outlast.server.actionqueue.names import id_of, named, schedule_id
from outlast.server.auth import Identity

from .conftest import TASKS, TOKEN, Story, Tokens, World, a_world, waits
from .test_work import film

V1, V2 = HOME + "/api/v1", HOME + "/api/v2"
NIL = "00000000-0000-0000-0000-000000000000"
OTHER = "00000000-0000-8000-8000-000000000001"


@task(retries=Retry(1, base="1h", cap="1h"))
async def flaky() -> None:
    raise ConnectionError("the line is down")


@task(limit=Limit(1))
async def alone() -> str:
    return "done"


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.conftest.TASKS", [*TASKS, film, flaky, alone, ledger])


def run_of(id: str) -> str:
    return id_of(id, 2)


def task_of(id: str) -> str:
    return id_of(id, 1)


def test_ids_are_written_and_read() -> None:
    ids = IdMaker()
    for now in (0, 1_795_294_922_896_912, 2**50):
        id = ids.make(now)
        for kind in (1, 2, 3):
            text = id_of(id, kind)
            assert text[14] == "8" and text[19] in "89ab"
            assert named(text, kind) == id
            assert named(text, kind % 3 + 1) is None
    assert named(schedule_id("nightly"), 1) is None


def test_a_run_is_told_in_its_shapes(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        id = await world.start("total", a=1)
        await world.result(id)
        run = await world.get(f"{V1}/runs/{run_of(id)}")
        assert (run["run_id"], run["task_id"]) == (run_of(id), task_of(id))
        assert (run["state"], run["block_reason"], run["lease"]) == ("Completed", "terminal", None)
        history = [(hop["from"], hop["to"]) for hop in run["state_history"]]
        words = ["Scheduled", "Ready", "Leased", "Running", "Completed"]
        assert history == [*zip([None, *words], words, strict=False)]
        (attempt,) = run["attempts"]
        assert attempt["result"] == "Success" and attempt["error"] is None
        assert run["attempt_count"] == 1 and run["current_attempt_id"] is None
        assert run["scheduled_at"] == run["created_at"]
        found = await world.get(f"{V1}/tasks/{task_of(id)}")
        assert bytes(found["payload"]) == b'{"a":1,"b":2}'
        assert (found["content_type"], found["run_policy"]) == ("application/json", "Once")
        assert found["constraints"]["max_attempts"] == 1
        assert found["metadata"]["tags"] == ["total"]

    tell(story)


def test_what_waits_says_why(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        asking, failed = await world.start("asks", name="Ada"), await world.start("flaky")
        await world.until(asking, "awaiting_input")
        await world.until(failed, "retry_wait")
        waiting = await world.get(f"{V1}/runs/{run_of(asking)}")
        assert (waiting["state"], waiting["block_reason"]) == ("Suspended", "suspended")
        assert [one["result"] for one in waiting["attempts"]] == ["Suspended"]
        trying = await world.get(f"{V1}/runs/{run_of(failed)}")
        assert (trying["state"], trying["block_reason"]) == ("RetryWait", "retry_wait")
        (attempt,) = trying["attempts"]
        assert (attempt["result"], attempt["error"]) == ("Failure", "the line is down")
        single = await world.start("alone")
        await world.result(single)
        assert (await world.get(f"{V1}/runs/{run_of(single)}"))["concurrency_key"] == "alone"
        stats = await world.get(f"{V1}/stats")
        assert (stats["total_tasks"], stats["total_runs"]) == (3, 3)
        assert stats["runs_by_state"]["suspended"] == stats["runs_by_state"]["retry_wait"] == 1
        assert sum(stats["runs_by_state"].values()) == 3 and len(stats["runs_by_state"]) == 9
        told = await world.http.get(f"{HOME}/metrics")
        assert told.status_code == 200 and "outlast_executions" in told.text
        assert stats["attempts_total"] == 3 and stats["latest_sequence"] > 6

    tell(story)


def test_lists_come_in_its_orders(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        low, high = [
            str(
                (
                    await world.post(
                        "/api/v1/executions",
                        {"task": "waits", "input": {"span": "1h"}, "priority": priority},
                        201,
                    )
                )["id"]
            )
            for priority in (1, 9)
        ]
        await world.engine.schedules.acreate("nightly", flaky, Schedule(cron="0 3 * * *"))
        tasks = (await world.get(f"{V1}/tasks"))["tasks"]
        assert [one["id"] for one in tasks] == [task_of(high), task_of(low), schedule_id("nightly")]
        assert tasks[2]["run_policy"] == {
            "Cron": {"expression": "0 3 * * *", "max_occurrences": None}
        }
        page = await world.get(f"{V1}/runs?limit=1&offset=1")
        assert (page["limit"], page["offset"]) == (1, 1)
        assert [one["run_id"] for one in page["runs"]] == [run_of(high)]

    tell(story)


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=1001", "limit"), ("offset=-1", "offset"), ("limit=x", "limit")],
)
def test_a_page_that_cannot_be_is_refused(
    tell: Callable[[Story], None], query: str, field: str
) -> None:
    async def story(world: World) -> None:
        for path in ("tasks", "runs"):
            said = await refused(world, "GET", f"{V1}/{path}?{query}", 400)
            assert (said["error"], said["details"]) == ("invalid_pagination", {"field": field})

    tell(story)


async def refused(world: World, method: str, path: str, status: int, body: Any = None) -> Any:
    answer = await world.http.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert set(said) == {"error", "message", "details"}
    assert answer.headers["content-type"] == "application/json"
    return said


def test_refusals_have_its_words(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        for what in ("run", "task"):
            for id in ("x", NIL, "ex_1m7zwgx8mxt1vh36qf5e"):
                said = await refused(world, "GET", f"{V1}/{what}s/{id}", 400)
                assert said["error"] == f"invalid_{what}_id"
            said = await refused(world, "POST", f"{V1}/{what}s/{OTHER}/cancel", 404)
            assert said["error"] == f"{what}_not_found"
        assert (await refused(world, "POST", f"{V2}/actors/register", 422, {}))["error"]

    tell(story)


def test_cancelling_is_said_once(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        id = await world.start("waits", span="1h")
        await world.until(id, "waiting")
        place = f"{V1}/runs/{run_of(id)}/cancel"
        assert (await world.post(place, None, 200))["status"] == "canceled"
        await world.until(id, "cancelled")
        assert (await world.post(place, None, 200))["status"] == "already_canceled"
        ended = await world.start("total", a=1)
        await world.result(ended)
        place = f"{V1}/runs/{run_of(ended)}/cancel"
        assert (await world.post(place, None, 200))["status"] == "already_terminal"
        told = await world.post(f"{V1}/tasks/{task_of(id)}/cancel", None, 200)
        assert told == {
            "task_id": task_of(id), "status": "already_canceled", "runs_canceled": 0,
            "runs_already_terminal": 1, "runs_total": 1,
        }  # fmt: skip

    tell(story)


def test_a_schedule_is_a_task_whose_runs_are_cancelled_with_it(
    tell: Callable[[Story], None],
) -> None:
    async def story(world: World) -> None:
        schedules = world.engine.schedules
        await schedules.acreate("nap", waits, Schedule(every="1h"), span="1h")
        made = await schedules.atrigger("nap")
        assert made is not None
        await world.until(made.id, "waiting")
        run = await world.get(f"{V1}/runs/{run_of(made.id)}")
        assert run["task_id"] == schedule_id("nap")
        place = f"{V1}/tasks/{schedule_id('nap')}/cancel"
        told = await world.post(place, None, 200)
        assert (told["status"], told["runs_canceled"], told["runs_total"]) == ("canceled", 1, 1)
        await world.until(made.id, "cancelled")
        again = await world.post(place, None, 200)
        assert (again["status"], again["runs_canceled"]) == ("already_canceled", 0)

    tell(story)


def test_the_engine_is_paused_and_goes_on(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        for word, status in (("pause", "paused"), ("pause", "already_paused")):
            assert await world.post(f"{V1}/engine/{word}", None, 200) == {"status": status}
        id = await world.start("total", a=1)
        run = await world.get(f"{V1}/runs/{run_of(id)}")
        assert (run["state"], run["attempts"], run["block_reason"]) == ("Ready", [], None)
        for word, status in (("resume", "resumed"), ("resume", "already_resumed")):
            assert await world.post(f"{V1}/engine/{word}", None, 200) == {"status": status}
        assert (await world.result(id))["result"] == 3

    tell(story)


def test_actors_claim_and_are_let_go(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        body = {"identity": "studio", "capabilities": ["render"], "heartbeat_interval_secs": 60}
        actor = (await world.post(f"{V2}/actors/register", body, 201))["actor_id"]
        place = f"{V2}/actors/{actor}"
        assert await world.get(f"{place}/claimable") == {"runs": []}
        id = await world.start("film", scene="x")
        while not (runs := (await world.get(f"{place}/claimable"))["runs"]):
            await world.engine.next_change(id)
        assert [(one["run_id"], one["state"]) for one in runs] == [(run_of(id), "Running")]
        assert (await world.post(f"{place}/heartbeat", None, 200)) == {"status": "ok"}
        wanted = {"steps": ["render"], "worker": actor}
        (claim,) = (await world.post("/api/v1/claims", wanted, 200))["items"]
        assert (await world.get(f"{place}/claimable"))["runs"] == []
        gone = await world.http.delete(place)
        assert gone.status_code == 200
        for method, path in (("POST", "/heartbeat"), ("GET", "/claimable"), ("DELETE", "")):
            assert (await refused(world, method, place + path, 404))["error"] == "actor_not_found"
        late = {"token": claim["token"], "output": {}}
        await world.post(f"/api/v1/claims/{claim['id']}/complete", late, 409)
        (again,) = (await world.post("/api/v1/claims", wanted, 200))["items"]
        good = {"token": again["token"], "output": {"by": "the next"}}
        await world.post(f"/api/v1/claims/{again['id']}/complete", good, 204)
        assert (await world.result(id))["result"] == {"by": "the next"}

    tell(story)


def test_an_actor_speaks_for_itself_alone_and_roles_are_enforced() -> None:
    def who(name: str, *roles: Role) -> Identity:
        return Identity(name, rights=Rights((tuple(Grant(role) for role in roles),)))

    async def main() -> None:
        known = {
            TOKEN: Identity("ada"),
            "one": who("one", Role.WORKER),
            "two": who("two", Role.WORKER),
            "viewer": who("v", Role.VIEWER),
        }
        async with a_world(Tokens(known)) as world:
            body = {"identity": "w", "capabilities": ["x"], "heartbeat_interval_secs": 9}

            async def send(token: str, path: str, given: Any = None) -> Any:
                headers = {"authorization": f"Bearer {token}"}
                return await world.http.post(V2 + path, json=given, headers=headers)

            assert (await send("viewer", "/actors/register", body)).status_code == 403
            id = (await send("one", "/actors/register", body)).json()["actor_id"]
            assert (await send("two", f"/actors/{id}/heartbeat")).status_code == 404
            assert (await send("one", f"/actors/{id}/heartbeat")).status_code == 200
            role = {"role": "Operator"}
            assert (await send("one", f"/actors/{id}/roles", role)).status_code == 403
            unknown = await send(TOKEN, f"/actors/{id}/roles", {"role": "King"})
            assert (unknown.status_code, unknown.json()["error"]) == (400, "unknown_role")
            assert (await send(TOKEN, f"/actors/{id}/roles", role)).status_code == 404
            user = {"name": "w", "password": "a long enough password"}
            await world.post("/api/v1/users", user, 201)
            assert (await send(TOKEN, f"/actors/{id}/roles", role)).status_code == 204
            able = {"capability": "CanExecute"}
            assert (await send(TOKEN, f"/actors/{id}/capabilities", able)).status_code == 204
            grants = (await world.get("/api/v1/grants"))["items"]
            assert {one["role"] for one in grants} == {"operator", "worker"}

    asyncio.run(main())


def test_the_ledger_keeps_what_is_entered(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        payload = base64.b64encode(b"\\x00 decided").decode()
        body = {"ledger_key": "decision", "payload_base64": payload}
        made = await world.post(f"{V2}/ledger", body, 201)
        id = named(made["entry_id"], 2)
        assert id is not None
        await world.result(id)
        found = await world.get("/api/v1/executions?label=ledger_key=decision")
        assert [one["id"] for one in found["items"]] == [id]
        kept = await world.get(f"/api/v1/executions/{id}/input")
        assert kept["input"]["payload_base64"] == payload
        wrong = {**body, "payload_base64": "!"}
        assert (await refused(world, "POST", f"{V2}/ledger", 400, wrong))["error"] == (
            "invalid_payload"
        )

    tell(story)


ACTOR = {"identity": "a", "capabilities": ["s"], "heartbeat_interval_secs": 9}


def test_a_tenant_is_made_by_its_id_and_only_its_own_is_named(
    tell: Callable[[Story], None],
) -> None:
    async def story(world: World) -> None:
        id, path = str(uuid.uuid4()), f"{V2}/tenants"
        body = {"tenant_id": id, "name": "Acme Inc."}
        await world.post(path, body, 201)
        assert f"aq-{id}" in [one.name for one in await world.engine.tenants.aall()]
        assert (await refused(world, "POST", path, 409, body))["error"] == "name_taken"
        none = await refused(world, "POST", path, 400, {**body, "tenant_id": "x" * 36})
        assert none["error"] == "invalid_tenant_id"
        register = f"{V2}/actors/register"
        actor = (await world.post(register, ACTOR, 201))["actor_id"]
        entry = {"ledger_key": "k", "payload_base64": "", "tenant_id": id}
        for path, said in (
            (register, {**ACTOR, "tenant_id": id}),
            (f"{V2}/actors/{actor}/roles", {"role": "Operator", "tenant_id": id}),
            (f"{V2}/actors/{actor}/capabilities", {"capability": "CanCancel", "tenant_id": id}),
            (f"{V2}/ledger", entry),
        ):
            found = await refused(world, "POST", path, 404, said)
            assert (found["error"], found["details"]) == ("tenant_not_found", {"tenant_id": id})
        # Of that tenant's own requests it is the right one.
        world.engine.tenant = f"aq-{id}"
        await world.post(register, {**ACTOR, "tenant_id": id}, 201)
        await refused(world, "POST", register, 404, {**ACTOR, "tenant_id": str(uuid.uuid4())})
        world.engine.tenant = "default"

    tell(story)


DOCUMENTED = """
GET /healthz
GET /ready
GET /metrics
GET /api/v1/stats
GET /api/v1/tasks
GET /api/v1/tasks/:id
GET /api/v1/runs
GET /api/v1/runs/:id
POST /api/v1/tasks/:id/cancel
POST /api/v1/runs/:id/cancel
POST /api/v1/engine/pause
POST /api/v1/engine/resume
POST /api/v2/actors/register
POST /api/v2/actors/:id/heartbeat
DELETE /api/v2/actors/:id
GET /api/v2/actors/:id/claimable
POST /api/v2/tenants
POST /api/v2/actors/:id/roles
POST /api/v2/actors/:id/capabilities
POST /api/v2/ledger
"""


def test_the_routes_are_those_that_its_daemon_documents() -> None:
    ours = {f"{one.method} {one.path.removeprefix(HOME)}" for one in ROUTES}
    assert ours == set(DOCUMENTED.replace(":id", "{uuid}").strip().splitlines())


def test_each_documented_route_answers_in_its_documented_shape(
    tell: Callable[[Story], None],
) -> None:
    """The names of every field of every answer, as its daemon documents them."""

    async def story(world: World) -> None:
        id = await world.start("total", a=1)
        await world.result(id)
        assert await world.get(f"{HOME}/healthz") == {"status": "ok"}
        assert await world.get(f"{HOME}/ready") == {"status": "ready"}
        text = (await world.http.get(f"{HOME}/metrics")).text
        assert text.startswith("# HELP")
        stats = await world.get(f"{V1}/stats")
        assert stats.keys() == {
            *("total_tasks", "total_runs", "attempts_total", "runs_by_state", "latest_sequence")
        }
        assert stats["runs_by_state"].keys() >= {
            *("scheduled", "ready", "leased", "running", "retry_wait"),
            *("completed", "failed", "canceled"),
        }
        tasks = await world.get(f"{V1}/tasks?limit=5&offset=0")
        assert tasks.keys() == {"tasks", "limit", "offset"}
        one = {"id", "run_policy", "constraints", "metadata", "created_at", "updated_at"}
        assert tasks["tasks"][0].keys() - {"parent_task_id"} == one
        found = await world.get(f"{V1}/tasks/{task_of(id)}")
        assert found.keys() - {"parent_task_id"} == {*one, "payload", "content_type"}
        runs = await world.get(f"{V1}/runs?limit=5")
        assert runs.keys() == {"runs", "limit", "offset"}
        row = {
            *("run_id", "task_id", "state", "created_at", "scheduled_at", "attempt_count"),
            "concurrency_key",
        }
        assert runs["runs"][0].keys() == row
        run = await world.get(f"{V1}/runs/{run_of(id)}")
        assert run.keys() == {
            *row,
            *("current_attempt_id", "state_history", "attempts", "lease", "block_reason"),
        }
        assert run["state_history"][0].keys() == {"from", "to", "timestamp"}
        attempt = {"attempt_id", "started_at", "finished_at", "result", "error"}
        assert run["attempts"][0].keys() - {"output"} == attempt
        over = await world.post(f"{V1}/tasks/{task_of(id)}/cancel", None, 200)
        assert over.keys() == {
            *("task_id", "status", "runs_canceled", "runs_already_terminal", "runs_total")
        }
        over = await world.post(f"{V1}/runs/{run_of(id)}/cancel", None, 200)
        assert over == {"run_id": run_of(id), "status": "already_terminal"}
        for word, already in (("pause", "paused"), ("resume", "resumed")):
            for status in (already, f"already_{already}"):
                said = await world.post(f"{V1}/engine/{word}", None, 200)
                assert said == {"status": status}
        actor = await world.post(
            f"{V2}/actors/register", {**ACTOR, "actor_id": NIL[:-1] + "1", "department": "d"}, 201
        )
        assert actor == {"actor_id": NIL[:-1] + "1"}
        home = f"{V2}/actors/{actor['actor_id']}"
        await world.post(f"{home}/heartbeat", None, 200)
        assert await world.get(f"{home}/claimable") == {"runs": []}
        entry = {"ledger_key": "k", "actor_id": actor["actor_id"], "payload_base64": "eA=="}
        assert (await world.post(f"{V2}/ledger", entry, 201)).keys() == {"entry_id"}
        assert (await world.http.delete(home)).status_code == 200
        gone = await refused(world, "POST", f"{home}/heartbeat", 404)
        assert gone["error"] == "actor_not_found"
        wrong = await refused(world, "GET", f"{V1}/runs?limit=1001", 400)
        assert (wrong["error"], wrong["details"]) == ("invalid_pagination", {"field": "limit"})

    tell(story)


def test_nothing_that_is_read_changes_anything(tell: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        id = await world.start("waits", span="1h")
        await world.until(id, "waiting")
        before = await world.engine.read_log(id)
        for route in ROUTES:
            if route.method == "GET":
                kind = 2 if "runs" in route.path else 1
                await world.http.get(route.path.replace("{uuid}", id_of(id, kind)))
        assert await world.engine.read_log(id) == before

    tell(story)


def test_it_needs_a_credential() -> None:
    async def main() -> None:
        async with a_world() as world:
            for path, status in (("/healthz", 200), ("/ready", 200), ("/api/v1/stats", 401)):
                answer = await world.http.get(HOME + path, headers={"authorization": ""})
                assert answer.status_code == status
            assert (await world.http.get(f"{HOME}/ready")).json() == {"status": "ready"}

    asyncio.run(main())


def test_states_survive_a_restart(tmp_path: Any) -> None:
    """A crash strands nothing: what was leased goes on, under the same names."""

    async def main() -> None:
        store = f"sqlite:///{tmp_path / 'aq.db'}"
        async with a_world(store=store) as world:
            id = await world.start("asks", name="Ada")
            await world.until(id, "awaiting_input")
        async with a_world(store=store) as world:
            run = await world.get(f"{V1}/runs/{run_of(id)}")
            assert run["state"] == "Suspended"
            await world.post(f"/api/v1/executions/{id}/answer", {"value": True}, 202)
            assert (await world.result(id))["result"] == "Ada: yes"
            assert (await world.get(f"{V1}/runs/{run_of(id)}"))["state"] == "Completed"

    asyncio.run(main())
