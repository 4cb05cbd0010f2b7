"""Events as they come: in order, each once, from wherever the reader goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from outlast.server import live

from .conftest import TOKEN, World

API = "/api/v1/executions"


class Reader:
    """Reads a stream of events straight from the app; takes them as slowly as it likes."""

    def __init__(self, world: World, path: str, **headers: str) -> None:
        self._world = world
        self._path, _, self._query = path.partition("?")
        self._headers = {"host": "test", "authorization": f"Bearer {TOKEN}", **headers}
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self.left = asyncio.Event()
        self.is_stuck = False
        self.status = 0

    async def _receive(self) -> Any:
        if not self.left.is_set():
            await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if self.is_stuck:
            await asyncio.get_running_loop().create_future()
        await self._messages.put(message)

    async def __aenter__(self) -> Reader:
        scope = {
            "type": "http",
            "method": "GET",
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": self._query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in self._headers.items()],
            "app": None,
        }
        self.task = asyncio.create_task(self._world.app(scope, self._receive, self._send))
        self.status = (await self._messages.get())["status"]
        return self

    async def __aexit__(self, *error: object) -> None:
        self.left.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def texts(self) -> AsyncIterator[str]:
        while True:
            message = await self._messages.get()
            if message["body"]:
                yield message["body"].decode()
            if not message.get("more_body", False):
                return

    async def events(self) -> AsyncIterator[tuple[str, str | None, Any]]:
        """Give each event: its kind, its id, its data."""
        async for text in self.texts():
            for part in text.strip().split("\n\n"):
                said = dict(line.split(": ", 1) for line in part.splitlines() if ": " in line)
                if "event" in said:
                    yield said["event"], said.get("id"), json.loads(said["data"])


async def all_of(world: World, path: str, **headers: str) -> list[tuple[str, str | None, Any]]:
    async with Reader(world, path, **headers) as reader:
        return [event async for event in reader.events()]


def test_a_log_is_followed_to_its_end(tell: Any) -> None:
    async def story(world: World) -> None:
        id = await world.start("asks", name="Ada")
        seen: list[Any] = []
        async with Reader(world, f"{API}/{id}/events") as reader:
            assert reader.status == 200
            async for kind, number, data in reader.events():
                seen.append((kind, number))
                if kind == "transition" and data["kind"] == "wait":
                    await world.post(f"{API}/{id}/answer", {"value": True})
        rows = await world.engine.read_log(id)
        assert seen == [*(("transition", str(row.seq)) for row in rows), ("end", None)]

    tell(story)


def test_a_reader_goes_on_behind_any_event_without_loss_or_repeat(tell: Any) -> None:
    async def story(world: World) -> None:
        id = await world.start("total", a=1)
        await world.result(id)
        whole = await all_of(world, f"{API}/{id}/events")
        assert len(whole) >= 5
        for place, (kind, number, _) in enumerate(whole):
            if kind == "transition":
                rest = await all_of(world, f"{API}/{id}/events", **{"last-event-id": str(number)})
                assert rest == whole[place + 1 :]
                asked = await all_of(world, f"{API}/{id}/events?after_seq={number}")
                assert asked == rest
        async with Reader(world, f"{API}/{id}/events", **{"last-event-id": "x"}) as reader:
            assert reader.status == 400

    tell(story)


def test_readers_that_come_and_go_at_random_see_every_row_once(tell: Any) -> None:
    """Ten readers of one execution, each dropped after a few events and back with its last id."""

    async def story(world: World) -> None:
        id = await world.start("asks", name="Ada")
        await world.until(id, "awaiting_input")

        async def read(few: int) -> list[int]:
            seen: list[int] = []
            while True:
                headers = {"last-event-id": str(seen[-1])} if seen else {}
                taken = 0
                async with Reader(world, f"{API}/{id}/events", **headers) as reader:
                    async for kind, number, _ in reader.events():
                        if kind == "end":
                            return seen
                        seen.append(int(number or 0))
                        taken += 1
                        if taken == few:
                            break

        reading = [asyncio.create_task(read(1 + number % 4)) for number in range(10)]
        for number in range(20):
            await world.post(f"{API}/{id}/labels", {"labels": {"n": str(number)}})
        await world.post(f"{API}/{id}/answer", {"value": True})
        rows = [row.seq for row in await world.engine.read_log(id)]
        for seen in await asyncio.gather(*reading):
            rows = rows if len(rows) == len(seen) else [
                row.seq for row in await world.engine.read_log(id)
            ]  # fmt: skip
            assert seen == rows

    tell(story)


def test_a_stream_is_followed_and_gone_on_with(tell: Any) -> None:
    async def story(world: World) -> None:
        id = await world.start("says", words=[str(n) for n in range(30)])
        path = f"{API}/{id}/streams/words/events"
        whole = await all_of(world, path)
        assert [data["value"] for kind, _, data in whole if kind == "item"] == [
            str(n) for n in range(30)
        ]
        rest = await all_of(world, path, **{"last-event-id": "28"})
        assert [number for _, number, _ in rest] == ["29", "30", None]

    tell(story)


def test_a_reader_that_is_stuck_is_dropped_and_one_that_leaves_is_let_go(
    tell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SLOW_SECONDS", 0.05)

    async def story(world: World) -> None:
        id = await world.start("asks", name="Ada")
        await world.until(id, "awaiting_input")
        async with Reader(world, f"{API}/{id}/events") as stuck:
            stuck.is_stuck = True
            await world.post(f"{API}/{id}/labels", {"labels": {"a": "b"}})
            await stuck.task  # it ends by itself
        async with Reader(world, f"{API}/{id}/events") as leaving:
            leaving.left.set()
            await leaving.task
        assert world.app._inside == 0

    tell(story)


def test_a_server_that_stops_ends_its_streams_in_order(tell: Any) -> None:
    async def story(world: World) -> None:
        id = await world.start("asks", name="Ada")
        await world.until(id, "awaiting_input")
        async with Reader(world, f"{API}/{id}/events") as reader:
            kinds = []
            async for kind, _, _ in reader.events():  # it has an end
                kinds.append(kind)
                world.app.is_stopping = True
        assert set(kinds) == {"transition"}

    tell(story)


def test_a_quiet_stream_beats(tell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", 0.0)

    async def story(world: World) -> None:
        id = await world.start("asks", name="Ada")
        await world.until(id, "awaiting_input")
        async with Reader(world, f"{API}/{id}/events") as reader:
            async for text in reader.texts():
                if text == live.BEAT:
                    break

    tell(story)
