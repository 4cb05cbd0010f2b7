"""What the routes do: each is the engine's own call, told over HTTP."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from outlast import Budget, task, wait_for
from outlast.dialects import DIALECTS

from .conftest import World

API = "/api/v1"


def test_the_documented_calls_of_autopilotcx_work_as_written(tell: Any) -> None:
    async def story(world: World) -> None:
        body = {"workflow_id": "asks", "input_data": {"name": "Ada"}}
        made = await world.post("/api/v1/executions", body, 201)
        id = made["id"]
        await world.until(id, "awaiting_input")
        shown = await world.get(f"/api/v1/executions/{id}?dialect=autopilotcx")
        assert shown["dialect"]["status"] == "waiting"
        await world.post(f"/api/v1/executions/{id}/cancel")
        shown = await world.get(f"/api/v1/executions/{id}?dialect=autopilotcx")
        assert shown["state"] == shown["dialect"]["status"] == "cancelled"

    tell(story)


def test_a_start_happens_once_for_a_key(tell: Any) -> None:
    async def story(world: World) -> None:
        async def start(status: int, a: int = 1, **headers: str) -> Any:
            body = {"task": "total", "input": {"a": a}}
            return await world.http.request("POST", f"{API}/executions", json=body, headers=headers)

        first = await start(201, **{"idempotency-key": "k"})
        again = await start(200, **{"idempotency-key": "k"})
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["id"] == again.json()["id"]
        assert again.headers["idempotency-replayed"] == "true"
        assert first.headers["location"] == f"{API}/executions/{first.json()['id']}"
        other = await start(409, 2, **{"idempotency-key": "k"})
        assert other.status_code == 409 and other.json()["code"] == "key_conflict"
        body = {"task": "total", "input": {"a": 1}, "key": "own"}
        one = await world.post(f"{API}/executions", body, 201)
        assert one["key"] == "own"
        assert (await world.post(f"{API}/executions", body, 200))["id"] == one["id"]
        headers = {"idempotency-key": "k"}
        await world.post(f"{API}/executions", body, 422, headers=headers)
        await world.post(f"{API}/bulk", {}, 400, headers=headers)  # it could not keep its promise
        for bad in ("", "two words", "x" * 256):
            await world.post(f"{API}/executions", body, 400, headers={"idempotency-key": bad})
        assert len((await world.get(f"{API}/executions"))["items"]) == 2

    tell(story)


def test_many_starts_with_one_key_are_one_execution(tell: Any) -> None:
    async def story(world: World) -> None:
        body = {"task": "total", "input": {"a": 1}}
        headers = {"idempotency-key": "k"}
        answers = await asyncio.gather(
            *(world.http.post(f"{API}/executions", json=body, headers=headers) for _ in range(50))
        )
        assert sorted(one.status_code for one in answers) == [200] * 49 + [201]
        assert len({one.json()["id"] for one in answers}) == 1

    tell(story)


def test_actions_are_taken_once_for_a_key(tell: Any) -> None:
    async def story(world: World) -> None:
        id = await world.start("asks", name="Ada")
        for _ in range(3):
            headers = {"idempotency-key": "s1"}
            body = {"name": "hello", "value": 1}
            await world.post(f"{API}/executions/{id}/signal", body, headers=headers)
        await world.post(f"{API}/executions/{id}/signal", {"name": "hello", "value": 2})
        entries = world.engine.store.inbox(id)
        assert [entry.message.payload for entry in entries] == [b"1", b"2"]
        headers = {"idempotency-key": "r1"}
        ended = await world.start("total", a=1)
        await world.result(ended)
        made = {
            (await world.post(f"{API}/executions/{ended}/rerun", headers=headers))["id"]
            for _ in range(3)
        }
        assert len(made) == 1 and made != {ended}

    tell(story)


def test_a_list_goes_on_behind_its_cursor_and_fits_its_filters(tell: Any) -> None:
    async def story(world: World) -> None:
        ids = [await world.start("total", a=n) for n in range(7)]
        labelled = await world.post(
            f"{API}/executions",
            {"task": "waits", "input": {"span": "1d"}, "labels": {"team": "ops"}},
            201,
        )
        for id in ids:
            await world.result(id)
        seen: list[str] = []
        path = f"{API}/executions?task=total&limit=3"
        while True:
            answer = await world.http.get(path)
            page = answer.json()
            seen += [one["id"] for one in page["items"]]
            if page["next"] is None:
                assert "link" not in answer.headers
                break
            assert answer.headers["link"] == f'<?cursor={page["next"]}>; rel="next"'
            path = f"{API}/executions?task=total&limit=3&cursor={page['next']}"
        assert seen == ids[::-1]
        await world.until(labelled["id"], "waiting")

        async def found(query: str) -> list[str]:
            page = await world.get(f"{API}/executions?{query}")
            return [one["id"] for one in page["items"]]

        assert await found("state=open") == [labelled["id"]]
        assert await found("state=waiting&state=failed") == [labelled["id"]]
        assert await found("label=team%3Dops") == [labelled["id"]]
        assert await found("label=team%3Dsales") == []
        assert len(await found("state=succeeded")) == 7
        soon = (datetime.now(UTC) + timedelta(days=1)).isoformat().replace("+00:00", "Z")
        assert await found(f"created_after={soon}") == []
        assert len(await found(f"created_before={soon}")) == 8
        await world.get(f"{API}/executions?state=failing", 422)
        await world.get(f"{API}/executions?created_after=2026-01-01T00:00:00", 422)

    tell(story)


def test_a_result_is_waited_for(tell: Any) -> None:
    async def story(world: World) -> None:
        id = await world.start("asks", name="Ada")
        await world.until(id, "awaiting_input")
        answer = await world.http.get(f"{API}/executions/{id}/result?wait=1ms")
        assert answer.status_code == 202 and answer.headers["retry-after"] == "1"
        assert answer.json() == {
            "id": id, "state": "awaiting_input", "result": None, "failure": None,
        }  # fmt: skip
        waiting = asyncio.create_task(world.result(id))
        await world.post(f"{API}/executions/{id}/answer", {"value": True})
        assert (await waiting)["result"] == "Ada: yes"
        bad = await world.start("fails", text="no")
        came = await world.result(bad)
        assert came["state"] == "failed" and came["failure"]["message"] == "no"
        given = await world.get(f"{API}/executions/{bad}/input")
        assert given["input"] == {"text": "no"}

    tell(story)


def test_an_answer_is_checked_and_the_first_one_wins(tell: Any) -> None:
    async def story(world: World) -> None:
        id = await world.start("asks", name="Ada")
        await world.until(id, "awaiting_input")
        (question,) = (await world.get(f"{API}/questions?to=ops"))["items"]
        assert question["title"] == "Send Ada?" and question["schema"] == {"type": "boolean"}
        assert (await world.get(f"{API}/questions?to=sales"))["items"] == []
        path = f"{API}/executions/{id}/answer"
        assert (await world.post(path, {"value": "no"}, 422))["code"] == "bad_payload"
        made = await world.post(f"{API}/executions/{id}/answer-token", {"expires": "1d"})
        token = made["token"]
        anyone = {"authorization": ""}
        looked = await world.post(f"{API}/answers/look", {"token": token}, 200, headers=anyone)
        assert looked["title"] == "Send Ada?"
        forged = token[:-2] + ("aa" if not token.endswith("aa") else "bb")
        problem = await world.post(f"{API}/answers/look", {"token": forged}, 403, headers=anyone)
        assert problem["code"] == "token_invalid"
        body = {"token": token, "value": False}
        await world.post(f"{API}/answers", body, 200, headers=anyone)
        assert (await world.result(id))["result"] == "Ada: no"
        assert (await world.post(path, {"value": True}, 404))["code"] == "not_found"
        problem = await world.post(path, {"value": True, "key": question["key"]}, 409)
        assert problem["code"] == "already_answered"
        await world.post(f"{API}/answers", body, 409, headers=anyone)

    tell(story)


def test_an_impossible_action_says_in_which_state_it_is(tell: Any) -> None:
    async def story(world: World) -> None:
        id = await world.start("total", a=1)
        await world.result(id)
        waiting = await world.start("waits", span="1d")
        await world.until(waiting, "waiting")
        problem = await world.post(f"{API}/executions/{waiting}/wake", status=409)
        assert problem["state"] == "waiting" and problem["refusal"] == "not_waiting_to_begin"
        body = {"task": "total", "input": {"a": 1}, "delay": "1d"}
        later = (await world.post(f"{API}/executions", body, 201))["id"]
        await world.post(f"{API}/executions/{later}/wake")
        assert (await world.result(later))["result"] == 3
        for action in ("cancel", "pause", "resume", "wake"):
            problem = await world.post(f"{API}/executions/{id}/{action}", status=409)
            assert problem["state"] == "succeeded" and problem["refusal"] == "already_final"
        problem = await world.post(f"{API}/executions/{id}/retry", status=409)
        assert problem["code"] == "not_recoverable"

    tell(story)


def test_pause_resume_wake_and_cancel(tell: Any) -> None:
    async def story(world: World) -> None:
        id = await world.start("waits", span="1d")
        await world.until(id, "waiting")
        reason = await world.get(f"{API}/executions/{id}/reason")
        assert reason["reason"]["code"] == "waiting_timer" and reason["reason"]["until"]
        path = f"{API}/executions/{id}"
        assert (await world.post(f"{path}/pause", {"reason": "lunch"}))["state"] == "paused"
        log = await world.get(f"{path}/transitions?payload=true")
        assert log["items"][-1]["data"]["why"] == "lunch" and log["items"][-1]["actor"] == "ada"
        await world.post(f"{path}/resume")
        await world.until(id, "waiting")
        await world.post(f"{path}/cancel", {"reason": "left"})
        assert (await world.result(id))["state"] == "cancelled"
        await world.post(f"{path}/cancel")  # again changes nothing

    tell(story)


def test_executions_are_made_of_others(tell: Any) -> None:
    async def story(world: World) -> None:
        id = await world.start("total", a=1)
        await world.result(id)
        path = f"{API}/executions/{id}"
        made = await world.post(f"{path}/rerun", {"input": {"b": 10}, "reason": "more"})
        assert (await world.result(made["id"]))["result"] == 11
        made = await world.post(f"{path}/fork", {"from_step": "add"})
        assert (await world.result(made["id"]))["result"] == 3
        problem = await world.post(f"{path}/fork", {"from_step": "none"}, 404)
        assert problem["code"] == "unknown_step"
        descents = await world.get(f"{path}/descents")
        assert sorted(one["mode"] for one in descents["items"]) == ["fork", "rerun"]
        steps = await world.get(f"{path}/steps?payload=true")
        assert [(one["key"], one["payload"]) for one in steps["items"]] == [("add#1", 3)]
        bad = await world.start("fails", text="no")
        await world.result(bad)
        made = await world.post(f"{API}/executions/{bad}/recover")
        assert (await world.result(made["id"]))["state"] == "failed"

    tell(story)


def test_a_patch_goes_by_its_etag(tell: Any) -> None:
    async def story(world: World) -> None:
        id = await world.start("waits", span="1d")
        await world.until(id, "waiting")
        path = f"{API}/executions/{id}"
        tag = (await world.http.get(path)).headers["etag"]
        body = {"labels": {"team": "ops"}, "priority": 7}
        said = await world.call("PATCH", path, 200, json=body, headers={"if-match": tag})
        assert said["labels"] == {"team": "ops"} and said["priority"] == 7
        problem = await world.call("PATCH", path, 412, json=body, headers={"if-match": tag})
        assert problem["code"] == "stale" and tag not in problem["why"]
        await world.call("PATCH", path, 200, json={"labels": {"team": None}})
        assert (await world.get(path))["labels"] == {}

    tell(story)


def test_every_row_comes_with_its_version(tell: Any) -> None:
    """What starts, changes and makes anew tells the ETag that the document promises."""

    async def story(world: World) -> None:
        body = {"task": "asks", "input": {"name": "Ada"}}
        made = await world.http.post(f"{API}/executions", json=body)
        path = f"{API}/executions/{made.json()['id']}"
        answers = [made, await world.http.get(path)]
        for word, given in (("labels", {"labels": {"a": "b"}}), ("rerun", {}), ("cancel", {})):
            answers.append(await world.http.post(f"{path}/{word}", json=given))
        answers.append(await world.http.patch(path, json={"priority": 2}))
        assert [one.status_code for one in answers[:-1]] == [201, 200, 202, 202, 202]
        assert all(one.headers["etag"].startswith('"') for one in answers if one.is_success)
        assert answers[3].json()["id"] != made.json()["id"]

    tell(story)


def test_a_traceparent_is_kept(tell: Any) -> None:
    async def story(world: World) -> None:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        body = {"task": "total", "input": {"a": 1}}
        for said, kept in ((trace, {"traceparent": trace}), ("nonsense", {})):
            made = await world.post(f"{API}/executions", body, 201, headers={"traceparent": said})
            assert made["labels"] == kept

    tell(story)


def test_logs_and_states_are_told_in_other_systems_words(tell: Any) -> None:
    async def story(world: World) -> None:
        id = await world.start("asks", name="Ada")
        await world.until(id, "awaiting_input")
        await world.post(f"{API}/executions/{id}/answer", {"value": True})
        await world.result(id)
        for name in DIALECTS:
            path = f"{API}/executions/{id}"
            shown = await world.get(f"{path}?dialect={name}")
            whole = await world.get(f"{path}/transitions?dialect={name}&limit=500")
            assert whole["next"] is None and shown["dialect"]["is_final"]
            told: list[Any] = []
            after = 0
            while after is not None:  # by small pages it is the same
                page = await world.get(
                    f"{path}/transitions?dialect={name}&limit=2&after_seq={after}"
                )
                told += page["items"]
                after = page["next"]
            assert told == whole["items"] and len(told) > 1
            (listed,) = (await world.get(f"{API}/executions?dialect={name}"))["items"]
            assert listed["dialect"] == shown["dialect"]
        await world.get(f"{API}/executions/{id}?dialect=klingon", 422)

    tell(story)


def test_many_are_acted_on_at_once_and_first_only_counted(tell: Any) -> None:
    async def story(world: World) -> None:
        ids = [await world.start("waits", span="1d") for _ in range(5)]
        for id in ids:
            await world.until(id, "waiting")
        body = {"action": "cancel", "filter": {"task": "waits"}, "dry_run": True}
        said = await world.post(f"{API}/bulk", body, 200)
        assert said["matched"] == 5 and said["done"] == 0 and said["is_dry"]
        said = await world.post(f"{API}/bulk", {**body, "dry_run": False}, 200)
        assert said["done"] == 5
        for id in ids:
            assert (await world.result(id))["state"] == "cancelled"

    tell(story)


def test_schedules(tell: Any) -> None:
    async def story(world: World) -> None:
        path = f"{API}/schedules/nightly"
        body = {
            "task": "total", "input": {"a": 1},
            "when": {"cron": "0 7 * * *", "tz": "Europe/Berlin"},
        }  # fmt: skip
        made = await world.call("PUT", path, 201, json=body)
        assert made["when"] == "at 07:00 (Europe/Berlin)" or "07:00" in made["when"]
        body["input"] = {"a": 5}
        assert (await world.call("PUT", path, 200, json=body))["input"]["a"] == 5
        slots = (await world.get(f"{path}/next?n=3"))["slots"]
        assert len(slots) == 3 and slots == sorted(slots)
        (id,) = (await world.post(f"{path}/trigger", status=201))["items"]
        assert (await world.result(id))["result"] == 7
        assert (await world.post(f"{path}/pause", {"reason": "x"}, 200))["state"] == "paused"
        assert (await world.post(f"{path}/pause", status=409))["code"] == "schedule_refused"
        assert (await world.post(f"{path}/resume", status=200))["state"] == "active"
        span = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-03T23:00:00Z"}
        assert len((await world.post(f"{path}/backfill", span, 201))["items"]) == 3
        kinds = [one["kind"] for one in (await world.get(f"{path}/log"))["items"]]
        assert len(kinds) >= 6
        assert [one["name"] for one in (await world.get(f"{API}/schedules"))["items"]] == [
            "nightly"
        ]
        assert (await world.call("DELETE", path, 200))["state"] == "cancelled"
        bad = {**body, "when": {"cron": "whenever"}}
        assert (await world.call("PUT", f"{API}/schedules/b", 422, json=bad))[
            "code"
        ] == "bad_schedule"
        await world.get(f"{API}/schedules/none", 404)

    tell(story)


def test_queues_limits_and_budgets(tell: Any) -> None:
    async def story(world: World) -> None:
        queue = f"{API}/queues/default"
        said = await world.call("PATCH", queue, 200, json={"paused": True, "reason": "deploy"})
        assert said["paused_by"] == "ada" and said["why"] == "deploy"
        id = await world.start("total", a=1)
        reason = (await world.get(f"{API}/executions/{id}/reason"))["reason"]
        assert reason["code"] == "queue_paused" and "deploy" in reason["text"]
        (row,) = (await world.get(f"{API}/queues"))["items"]
        assert row["queued"] == 1
        await world.call("PATCH", queue, 200, json={"paused": False, "capacity": 3})
        assert (await world.result(id))["result"] == 3
        await world.call("PATCH", queue, 422, json={})
        said = await world.call("PUT", f"{API}/limits/mail", 200, json={"capacity": 2})
        assert said["capacity"] == 2 and said["by"] == "ada"
        rate = {"rate": {"count": 100, "period": "1m"}}
        assert (await world.call("PUT", f"{API}/limits/rate:mail", 200, json=rate))["interval_us"]
        await world.call("PUT", f"{API}/limits/mail", 400, json=rate)
        await world.call("PUT", f"{API}/limits/mail", 422, json={**rate, "capacity": 1})
        names = [one["limit"] for one in (await world.get(f"{API}/limits"))["items"]]
        assert names == ["mail", "rate:mail"]
        await world.call("DELETE", f"{API}/limits/mail", 204)
        await world.call("DELETE", f"{API}/limits/mail", 404)
        scope = f"{API}/budgets/task:total"
        said = await world.call("PUT", scope, 200, json={"limits": {"usd": "50"}, "period": "1d"})
        assert said["items"][0]["limit"] == "50"
        said = await world.post(f"{scope}/raise", {"raise": {"usd": "0.5"}}, 200)
        assert said["items"][0]["limit"] == "50.50"
        await world.post(f"{scope}/reset", status=200)
        assert len((await world.get(f"{API}/budgets"))["items"]) == 1
        await world.post(f"{API}/budgets/tenant/raise", {"raise": {"usd": "1"}}, 404)

    tell(story)


def test_streams_progress_and_tasks(tell: Any) -> None:
    async def story(world: World) -> None:
        id = await world.start("says", words=["a", "b", "c"])
        await world.result(id)
        path = f"{API}/executions/{id}"
        (head,) = (await world.get(f"{path}/streams"))["items"]
        assert (head["name"], head["count"]) == ("words", 3)
        page = await world.get(f"{path}/streams/words?limit=2")
        assert [one["value"] for one in page["items"]] == ["a", "b"] and page["next"] == 2
        page = await world.get(f"{path}/streams/words?after=2")
        assert [one["value"] for one in page["items"]] == ["c"] and page["next"] is None
        assert (await world.get(f"{path}/progress"))["progress"] is None
        shown = await world.get(f"{API}/tasks/total")
        assert shown["doc"] == "Add two numbers." and shown["output_schema"] == {"type": "integer"}
        assert shown["input_schema"]["required"] == ["a"]
        made = await world.post(f"{API}/tasks/total/executions", {"input": {"a": 4}}, 201)
        assert (await world.result(made["id"]))["result"] == 6
        await world.get(f"{API}/tasks/none", 404)

    tell(story)


@task(budget=Budget(usd=1))
async def dear() -> str:
    return str((await wait_for("go", dict))["n"])


def test_an_executions_own_budget_is_raised(tell: Any) -> None:
    async def story(world: World) -> None:
        handle = await world.engine.astart(dear)
        path = f"{API}/executions/{handle.id}/budget"
        (row,) = (await world.get(path))["items"]
        assert row["limit"] == "1"
        (row,) = (await world.post(path, {"raise": {"usd": "0.25"}}))["items"]
        assert row["limit"] == "1.25"
        other = await world.start("total", a=1)
        await world.post(f"{API}/executions/{other}/budget", {"raise": {"usd": "1"}}, 404)

    tell(story)


def test_what_the_disk_is_behind_with_turns_writes_away(
    tell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlast.server.app.BACKLOG_MAX", -1)

    async def story(world: World) -> None:
        body = {"task": "total", "input": {"a": 1}}
        answer = await world.http.post(f"{API}/executions", json=body)
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        assert answer.json()["code"] == "overloaded"
        assert (await world.get(f"{API}/executions"))["items"] == []  # reads go on

    tell(story)


def test_health_needs_nobody_and_tells_nothing(tell: Any) -> None:
    async def story(world: World) -> None:
        nobody = {"authorization": ""}
        for path in ("/healthz", "/readyz"):
            assert await world.get(path, headers=nobody) == {"status": "ok"}
        await world.get("/openapi.json", 401, headers=nobody)
        info = await world.get(f"{API}/system/info")
        assert info["tasks"] == 5 and info["worker"] == world.engine.name
        (worker,) = (await world.get(f"{API}/workers"))["items"]
        assert worker["is_this"]
        await world.engine.aclose()
        assert (await world.get("/readyz", 503, headers=nobody))["code"] == "overloaded"

    tell(story)
