"""The firehose: everybody's events in one order, each once, as far as the caller may read."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from outlast import Client
from outlast.access import Grant, Rights, Role
from outlast.engine.read import feed
from outlast.errors import BadPayload, FeedGap, UsageError
from outlast.server.auth import Identity

from .conftest import TASKS, TOKEN, Tokens, World, a_world
from .test_live import Reader

API = "/api/v1/events"
Told = tuple[str, str | None, Any]


async def some(
    world: World, count: int, query: str = "", cursor: str | None = None, token: str = TOKEN
) -> list[Told]:
    """Read so many transitions."""
    headers = {} if cursor is None else {"last-event-id": cursor}
    found: list[Told] = []
    reader = Reader(world, API + query, **{**headers, "authorization": f"Bearer {token}"})
    async with reader:
        assert reader.status == 200
        async for event in reader.events():
            if event[0] != "begin":
                found.append(event)
                if len(found) == count:
                    break
    return found


def rows(told: list[Told]) -> list[tuple[str, int]]:
    return [(data["id"], data["seq"]) for kind, _, data in told if kind == "transition"]


async def a_feed(world: World) -> None:
    """See that the feed is kept."""
    async with Reader(world, API) as reader:
        async for kind, _, _ in reader.events():
            assert kind == "begin"
            break


async def whole_of(world: World, *ids: str) -> set[tuple[str, int]]:
    return {(id, row.seq) for id in ids for row in await world.engine.read_log(id)}


def test_all_executions_are_followed_in_the_order_of_their_logs(tell: Any) -> None:
    async def story(world: World) -> None:
        await a_feed(world)
        ids = [await world.start("total", a=n) for n in range(5)]
        for id in ids:
            await world.result(id)
        wanted = await whole_of(world, *ids)
        told = await some(world, len(wanted), "?after=oldest")
        assert set(rows(told)) == wanted
        for id in ids:
            seqs = [seq for one, seq in rows(told) if one == id]
            assert seqs == sorted(seqs)
        assert len({cursor for _, cursor, _ in told}) == len(told)
        assert {data["task"] for _, _, data in told} == {"total"}
        for place in (0, 3, len(told) - 2):
            rest = await some(world, len(told) - place - 1, cursor=told[place][1])
            assert rest == told[place + 1 :]

    tell(story)


def test_readers_that_come_and_go_at_random_see_every_row_once(tell: Any) -> None:
    async def story(world: World) -> None:
        await a_feed(world)
        dice = random.Random(5)
        done = asyncio.Event()
        ids: list[str] = []

        async def read() -> list[tuple[str, int]]:
            seen: list[tuple[str, int]] = []
            cursor: str | None = "oldest"
            while True:
                query = "?after=oldest" if cursor == "oldest" else ""
                headers = {} if cursor == "oldest" else {"last-event-id": str(cursor)}
                stay = dice.randrange(1, 9)
                async with Reader(world, API + query, **headers) as reader:
                    async for kind, at, data in reader.events():
                        if kind != "transition":
                            continue
                        seen.append((data["id"], data["seq"]))
                        cursor, stay = at, stay - 1
                        if not stay:
                            break
                        if done.is_set() and len(seen) >= len(await whole_of(world, *ids)):
                            return seen
                if done.is_set() and len(seen) >= len(await whole_of(world, *ids)):
                    return seen

        readers = [asyncio.create_task(read()) for _ in range(5)]
        ids += [await world.start("total", a=n) for n in range(12)]
        for id in ids:
            await world.result(id)
        wanted = await whole_of(world, *ids)
        done.set()
        for seen in await asyncio.gather(*readers):
            assert len(seen) == len(set(seen))
            assert set(seen) == wanted
        assert len({tuple(seen) for seen in [reader.result() for reader in readers]}) == 1

    tell(story)


def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/outlast.db"

    async def first() -> tuple[list[Told], str]:
        async with a_world(store=store) as world, asyncio.timeout(100):
            await a_feed(world)
            id = await world.start("asks", name="Ada")
            await world.until(id, "awaiting_input")
            return await some(world, 2, "?after=oldest"), id

    async def second(told: list[Told], id: str) -> None:
        async with a_world(store=store) as world, asyncio.timeout(100):
            await world.post(f"/api/v1/executions/{id}/answer", {"value": True})
            await world.result(id)
            wanted = await whole_of(world, id)
            rest = await some(world, len(wanted) - 2, cursor=told[-1][1])
            assert rows(told + rest) == sorted(wanted)

    told, id = asyncio.run(first())
    asyncio.run(second(told, id))


def test_filters(tell: Any) -> None:
    async def story(world: World) -> None:
        await a_feed(world)
        body = {"task": "total", "input": {"a": 1}, "labels": {"team": "ops"}}
        labelled = str((await world.post("/api/v1/executions", body, 201))["id"])
        plain = await world.start("total", a=2)
        failing = await world.start("fails", text="no")
        for id in (labelled, plain):
            await world.result(id)
        await world.until(failing, "failed")
        for query, wanted in (
            ("task=fails&state=failed", [(failing, "failed")]),
            ("prefix=fai&transition=create", [(failing, "queued")]),
            ("label=team%3Dops&state=succeeded", [(labelled, "succeeded")]),
            ("state=failed,succeeded&prefix=f", [(failing, "failed")]),
        ):
            told = await some(world, len(wanted), f"?after=oldest&{query}")
            assert [data["id"] for _, _, data in told] == [id for id, _ in wanted], query
        shown = await some(world, 1, "?after=oldest&task=total&payload=true&transition=create")
        assert shown[0][2]["payload"] == {"a": 1, "b": 2}
        hidden = await some(world, 1, "?after=oldest&task=total&transition=create")
        assert "payload" not in hidden[0][2]
        words = await some(world, 1, "?after=oldest&task=fails&state=failed&dialect=flyte")
        assert words[0][2]["to"] == "FAILED"
        for query in ("state=nothing", "transition=nothing", "label=x", "after=7", "dialect=x"):
            async with Reader(world, f"{API}?{query}") as reader:
                assert reader.status == 422, query
        async with Reader(world, API, **{"last-event-id": "7"}) as reader:
            assert reader.status == 400

    tell(story)


def test_who_may_not_read_an_execution_gets_none_of_its_events() -> None:
    narrow = Identity("eve", rights=Rights(((Grant(Role.VIEWER, task="total"),),)))
    nobody = Identity("mallory", rights=Rights())

    async def main() -> None:
        known = Tokens({TOKEN: Identity("ada"), "narrow": narrow, "nobody": nobody})
        async with a_world(known) as world, asyncio.timeout(100):
            await a_feed(world)
            secret = await world.start("fails", text="no")
            await world.until(secret, "failed")
            id = await world.start("total", a=1)
            await world.result(id)
            wanted = await whole_of(world, id)
            query = "?after=oldest&payload=true"
            told = await some(world, len(wanted), query, token="narrow")
            assert set(rows(told)) == wanted
            assert all("payload" not in data for _, _, data in told)
            headers = {"authorization": "Bearer nobody"}
            async with Reader(world, API, **headers) as reader:
                assert reader.status == 403

    asyncio.run(main())


def test_a_cursor_that_is_too_old_is_a_gap_and_never_silence(tell: Any) -> None:
    async def story(world: World) -> None:
        await a_feed(world)
        id = await world.start("total", a=1)
        await world.result(id)
        told = await some(world, 3, "?after=oldest")
        store = world.engine.store
        now = world.engine.clock.now()
        await world.engine.journal.call(lambda: store.feed.prune(now + 1, 3))
        assert await some(world, 1, cursor=told[2][1])  # nothing behind it is missing
        async with Reader(world, API, **{"last-event-id": str(told[1][1])}) as reader:
            assert reader.status == 410
        name = str(told[0][1]).partition(".")[0]
        for strange in (f"{name}.999", "000000000000.1"):
            async with Reader(world, API, **{"last-event-id": strange}) as reader:
                assert reader.status == 410
        assert await feed.keep(store, world.engine.journal.call, now + 2 * feed.KEPT_US) == 0
        assert store.feed.head() is None  # nobody came for a day
        async with Reader(world, API, **{"last-event-id": str(told[2][1])}) as reader:
            assert reader.status == 410

    tell(story)


def test_what_was_purged_is_told_as_a_gap(tell: Any) -> None:
    async def story(world: World) -> None:
        await a_feed(world)
        id = await world.start("total", a=1)
        await world.result(id)
        count = len(await whole_of(world, id))
        await world.engine.journal.call(lambda: world.engine.store.purge([id]))
        told = await some(world, count, "?after=oldest&task=asks")
        assert [kind for kind, _, _ in told] == ["gap"] * count

    tell(story)


@contextlib.asynccontextmanager
async def a_client(world: World) -> AsyncIterator[Client]:
    transport = httpx.ASGITransport(world.app)
    async with Client("http://test", token=TOKEN, transport=transport, tasks=TASKS) as client:
        yield client


@pytest.mark.parametrize("store", ["memory:", "sqlite"])
def test_an_engine_gives_the_same_events(store: str, tmp_path: Path) -> None:
    address = store if store == "memory:" else f"sqlite:///{tmp_path}/outlast.db"

    async def main() -> None:
        async with a_world(store=address) as world, asyncio.timeout(100):
            await a_feed(world)
            id = await world.start("asks", name="Ada")
            events = world.engine.events(after="oldest", task="asks", payload=True)
            seen = []
            async for event in events:
                assert event.transition is not None
                seen.append(event.transition)
                if event.transition.kind == "wait":
                    await world.post(f"/api/v1/executions/{id}/answer", {"value": True})
                if event.transition.to_state == "succeeded":
                    break
            assert seen == await world.engine.read_log(id)
            again = world.engine.events(after=events.cursor)
            other = await world.start("total", a=1)
            async for event in again:
                assert event.execution_id == other
                break
            with pytest.raises(FeedGap):
                await world.engine.events(after="000000000000.1").aopen()

    asyncio.run(main())


def test_a_client_follows_from_a_thread(served: Any) -> None:
    """Over a real port, as httpx's transport for apps does not stream."""
    with Client(served.url, token=TOKEN, tasks=TASKS) as client:
        events = client.events(task="total", payload=True).open()
        client.start(TASKS[2], "1ms").wait()
        handle = client.start(TASKS[0], 1)
        handle.wait()
        began, seen = events.cursor, []
        for event in events:
            seen.append(event.transition)
            if len(seen) == len(handle.transitions()):
                break
        assert seen == handle.transitions()
        for event in client.events(after=began, labels={}, states=["succeeded"], prefix="to"):
            assert event.execution_id == handle.id
            break
        for cursor, error in (("000000000000.1", FeedGap), ("x", BadPayload)):
            with pytest.raises(error):
                client.events(after=cursor).open()
        with pytest.raises(UsageError):
            client.events(states=["nothing"])
