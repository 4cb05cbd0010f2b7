"""What an answer must not tell: payloads in other clothes, and what others have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, Final

import httpx
import pytest

from outlast import ask, progress, sleep, stream, task, wait_for
from outlast.access import Grant, Rights, Role
from outlast.engine.task.registry import TASKS as KNOWN
from outlast.lifecycle import Message, MessageKind
from outlast.lifecycle.record import continued_as
from outlast.server import guard, veil
from outlast.server.auth import Identity

from .conftest import TOKEN, Tokens, World, a_world
from .test_live import Reader, all_of

API: Final = "/api/v1"
SECRET: Final = "card-4111"
OTHER: Final = {"authorization": "Bearer other"}


@task(name="listens")
async def listens(card: str) -> str:
    await progress(1, 2, f"charging {card}")
    return str(await wait_for("paid", str, match={"card": card}))


@task(name="counts")
async def counts(n: int) -> int:
    await stream("words", n)
    if n < 3:
        counts.continue_as_new(n + 1)
    return n


@task(name="asks_at_last")
async def asks_at_last(is_last: bool) -> bool:
    if not is_last:
        asks_at_last.continue_as_new(True)
    return await ask("Well?", bool)


@task(name="billing.charge")
async def charge(n: int) -> int:
    await sleep("1h")
    return n


@task(name="shop.order")
async def order(n: int) -> int:
    return await charge(n)


MORE: Final = (listens, counts, asks_at_last, charge, order)
for one in MORE:
    KNOWN.pop(one.name)


def tell(story: Callable[[World], Coroutine[Any, Any, None]], *grants: Grant) -> None:
    async def main() -> None:
        other = Identity("user:bob", rights=Rights((grants,)))
        known = Tokens({TOKEN: Identity("user:ada"), "other": other})
        async with a_world(known) as world, asyncio.timeout(100):
            world.engine.tasks.update({one.name: one for one in MORE})
            await story(world)

    asyncio.run(main())


async def told(world: World, path: str, **more: Any) -> str:
    """What the other one is told at a path, whatever the status."""
    answer = await world.http.get(API + path, headers=OTHER, **more)
    assert answer.status_code in (200, 202), answer.text
    return answer.text


def test_progress_patterns_and_digests_are_for_who_reads_payloads() -> None:
    async def story(world: World) -> None:
        id = await world.start("listens", card=SECRET)
        form = await world.until(id, "awaiting_input")
        assert SECRET in form["reason"]["text"] and form["input_digest"] is not None
        said = await world.get(f"{API}/executions/{id}/progress")
        assert SECRET in said["progress"]["text"], "who reads payloads sees all of it"
        digest = form["input_digest"]
        ways = ("", "/reason", "/progress", "/steps", "/attempts", "/transitions", "/questions")
        for way in ways:
            text = await told(world, f"/executions/{id}{way}")
            assert SECRET not in text and digest not in text, way
        page = await told(world, "/executions")
        assert SECRET not in page and digest not in page
        progress = json.loads(await told(world, f"/executions/{id}/progress"))["progress"]
        assert progress["done"] == 1 and progress["text"] is None
        async with Reader(world, f"{API}/executions/{id}/events", **OTHER) as reader:
            async for _, _, data in reader.events():
                assert SECRET not in str(data) and digest not in str(data)
                if data["kind"] == "wait":
                    break
        paused = await world.post(f"{API}/executions/{id}/pause", headers=OTHER)
        assert SECRET not in str(paused) and digest not in str(paused)

    tell(story, Grant(Role.OPERATOR))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page ends after four rows that are not shown."""
    monkeypatch.setattr(veil, "LOOKED_MAX", 4)
    monkeypatch.setattr(veil, "AT_ONCE", 2)


def test_a_page_names_nothing_of_others_and_lists_all_of_ones_own(few: None) -> None:
    async def story(world: World) -> None:
        mine = []
        for n in range(24):
            if n % 8 == 3:
                mine.append(await world.start("waits", span="1h"))
            else:
                await world.start("total", a=n)
        cursor, seen, pages = "", [], 0
        theirs = {one["id"] for one in (await world.get(f"{API}/executions?limit=100"))["items"]}
        theirs -= set(mine)
        assert len(theirs) == 21
        while True:
            text = await told(world, f"/executions?limit=2{cursor}")
            assert not any(id in text for id in theirs)
            page = json.loads(text)
            seen += [one["id"] for one in page["items"]]
            pages += 1
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert seen == mine[::-1] and pages > 3
        for bad in ("~", "~AAAA", "~" + "A" * 50, "~\u00e9"):
            answer = await world.http.get(
                f"{API}/executions", headers=OTHER, params={"cursor": bad}
            )
            assert answer.status_code == 422, answer.text

    tell(story, Grant(Role.VIEWER, "waits"))


@pytest.mark.parametrize("grant", [Grant(Role.VIEWER, "waits"), Grant(Role.VIEWER)])
def test_a_page_is_short_where_few_fit_among_many(
    monkeypatch: pytest.MonkeyPatch, grant: Grant
) -> None:
    """It says where to go on; to who may not see the row that it ends at, in a sealed way."""
    monkeypatch.setattr(veil, "ROWS_MAX", 3)

    async def story(world: World) -> None:
        mine = []
        for n in range(12):
            if n in (1, 2, 7):
                mine.append(await world.start("waits", span="1h"))
            else:
                await world.start("total", a=n)
        theirs = {one["id"] for one in (await listed(world, "limit=100"))} - set(mine)
        assert len(theirs) == 9
        cursor, seen, lengths = "", [], []
        while True:
            text = await told(world, f"/executions?task=waits&limit=10{cursor}")
            page = json.loads(text)
            if grant.task:
                assert not any(id in text for id in theirs)
            seen += [one["id"] for one in page["items"]]
            lengths.append(len(page["items"]))
            if page["next"] is None:
                break
            assert page["next"].startswith("~") is bool(grant.task)
            cursor = f"&cursor={page['next']}"
        assert seen == mine[::-1] and 0 in lengths and len(lengths) == 5

    async def listed(world: World, query: str) -> list[Any]:
        items, cursor = [], ""
        while True:
            page = await world.get(f"{API}/executions?{query}{cursor}")
            items += page["items"]
            if page["next"] is None:
                return items
            cursor = f"&cursor={page['next']}"

    tell(story, grant)


def test_a_page_of_questions_names_nothing_of_others(few: None) -> None:
    async def story(world: World) -> None:
        world.engine.tasks["billing.asks"] = world.engine.tasks["asks"]
        ids = [await world.start("asks", name="Ada") for _ in range(6)]
        for id in ids:
            await world.until(id, "awaiting_input")
        cursor = ""
        for _ in range(9):
            text = await told(world, f"/questions?limit=1{cursor}")
            assert not any(id in text for id in ids)
            page = json.loads(text)
            assert page["items"] == []
            if page["next"] is None:
                return
            cursor = f"&cursor={page['next']}"
        raise AssertionError("it has no end")

    tell(story, Grant(Role.OPERATOR, "waits"))


def test_a_family_shows_only_those_that_may_be_seen() -> None:
    async def story(world: World) -> None:
        parent = await world.start("shop.order", n=1)
        await world.until(parent, "waiting")
        (child,) = (await world.get(f"{API}/executions/{parent}/children"))["items"]
        again = await world.post(f"{API}/executions/{parent}/cancel")
        assert again["id"] == parent
        made = await world.post(f"{API}/executions/{parent}/rerun", {})
        rerun = made["id"]
        for path in ("", "/transitions", "/reason", "/steps", "/descents", "/children"):
            text = await told(world, f"/executions/{child['id']}{path}")
            assert parent not in text and rerun not in text, path
        assert (await told(world, f"/executions/{child['id']}")).count(veil.HIDDEN) >= 2
        whole = await world.get(f"{API}/executions/{child['id']}")
        assert whole["parent_id"] == whole["root_id"] == parent, "who may see it is shown it"
        async with Reader(world, f"{API}/executions/{child['id']}/events", **OTHER) as reader:
            async for _, _, data in reader.events():
                assert parent not in str(data)
                if data["to"] == "waiting":
                    break
        descents = await world.get(f"{API}/executions/{parent}/descents")
        assert [one["id"] for one in descents["items"]] == [rerun]

    tell(story, Grant(Role.VIEWER, "billing"))


def test_a_stream_goes_on_with_the_execution_that_goes_on() -> None:
    async def story(world: World) -> None:
        id = await world.start("counts", n=1)
        await world.result(id)
        path = f"{API}/executions/{id}/streams/words/events"
        whole = await all_of(world, path)
        assert [data["value"] for kind, _, data in whole if kind == "item"] == [1, 2, 3]
        assert [kind for kind, _, _ in whole] == [
            "item", "continued", "item", "continued", "item", "end"
        ]  # fmt: skip
        for place, (_, number, _) in enumerate(whole[:-1]):
            rest = await all_of(world, path, **{"last-event-id": str(number)})
            assert rest == whole[place + 1 :]
        stranger = await world.start("total", a=1)
        for bad in (f"{stranger}:0", "ex_none:1", f"{id}:x", ":1", "1:"):
            answer = await world.http.get(path, headers={"last-event-id": bad})
            assert answer.status_code == 400, (bad, answer.text)
        log = await all_of(world, f"{API}/executions/{id}/events")
        assert log[-1][2]["continued_as"] == whole[1][2]["as"]

    tell(story)


def test_a_result_is_waited_for_where_the_execution_has_gone_on_as_another() -> None:
    async def story(world: World) -> None:
        id = await world.start("asks_at_last", is_last=False)
        handle = world.engine.execution(id)
        while (successor := continued_as(await handle.arecord())) is None:
            await world.engine.next_change(id)
        await world.until(successor, "awaiting_input")
        assert (await world.get(f"{API}/executions/{id}/result", 202))["continued_as"] == successor
        waiting = asyncio.create_task(world.result(id))
        await asyncio.wait([waiting], timeout=0.05)
        await world.engine.execution(successor).aanswer(True)
        assert (await waiting)["result"] is True

    tell(story)


def test_if_match_is_judged_where_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else is faster, between the look and the write."""

    async def story(world: World) -> None:
        id = await world.start("waits", span="1h")
        await world.until(id, "waiting")
        answer = await world.http.get(f"{API}/executions/{id}")
        send, is_first = world.engine.asend, True

        async def late(id: str, message: Message, **more: Any) -> Any:
            nonlocal is_first
            if is_first:
                is_first = False
                data = {"labels": {"who": "the other one"}}
                await send(id, Message("faster", MessageKind.LABELS, "eve", None, data))
            return await send(id, message, **more)

        monkeypatch.setattr(world.engine, "asend", late)
        body, tag = {"labels": {"who": "me"}, "priority": 3}, {"if-match": answer.headers["etag"]}
        said = await world.call("PATCH", f"{API}/executions/{id}", 412, json=body, headers=tag)
        assert said["code"] == "stale"
        form = await world.get(f"{API}/executions/{id}")
        assert form["labels"] == {"who": "the other one"} and form["priority"] == 0
        tag = {"if-match": (await world.http.get(f"{API}/executions/{id}")).headers["etag"]}
        form = await world.call("PATCH", f"{API}/executions/{id}", 200, json=body, headers=tag)
        assert form["labels"] == {"who": "me"} and form["priority"] == 3

    tell(story)


def test_nobody_answers_in_the_name_of_somebody_else() -> None:
    async def story(world: World) -> None:
        id = await world.start("asks", name="Ada")
        await world.until(id, "awaiting_input")
        body = {"expires": "1d", "actor": "user:ada"}
        path = f"{API}/executions/{id}/answer-token"
        made = await world.post(path, body, headers=OTHER)
        await world.post(f"{API}/answers", {"token": made["token"], "value": True}, 200)
        await world.result(id)
        (row,) = [one for one in await world.engine.read_log(id) if one.kind == "input_received"]
        notes = [one.actor for one in await world.engine.read_log(id)]
        assert "user:ada" not in (row.actor, *notes[1:])
        assert any(one.startswith("user:bob, for user:ada") for one in notes), notes

    tell(story, Grant(Role.OPERATOR))


def test_one_caller_does_not_hold_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "EACH_MAX", 3)

    async def story(world: World) -> None:
        id = await world.start("waits", span="1h")
        path = f"{API}/executions/{id}/events"
        async with Reader(world, path), Reader(world, path), Reader(world, path) as last:
            assert last.status == 200
            answer: httpx.Response = await world.http.get(f"{API}/me")
            assert answer.status_code == 503 and answer.headers["retry-after"]
            await told(world, "/me")  # and nobody else is kept waiting
        await world.get(f"{API}/me")

    tell(story, Grant(Role.VIEWER))
