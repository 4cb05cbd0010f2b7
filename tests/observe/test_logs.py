"""What code logs: captured with its ids, kept, read again, and said once."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outlast import Engine, Retry, ask, blocking, sleep, step, stream, task
from outlast.engine.read.logs import MESSAGE_MAX, line_of
from outlast.engine.task.registry import TASKS as KNOWN
from outlast.engine.write.emitter import LINES_MAX, Emitter
from outlast.engine.write.events import EVENTS, tell
from outlast.errors import UsageError
from outlast.lifecycle import Kind, State, Transition
from outlast.observe.logs import Ids, Json, Text, setup_logs
from outlast.store import open_store
from outlast.store.emitting import CUT, placed
from outlast.store.protocol import LOG_LINES_MAX, LOGS, Emission
from outlast.testing import engine as virtual

from . import awaited

LOG = logging.getLogger("shop")
TRIES: dict[str, int] = {}


@step
async def pack(order: int) -> str:
    LOG.info("packs %s", order)
    return f"parcel {order}"


@step(retries=Retry(2, base="1ms"))
def weigh(order: int) -> int:
    TRIES["weigh"] = TRIES.get("weigh", 0) + 1
    LOG.warning("weighs, try %s", TRIES["weigh"])
    if TRIES["weigh"] == 1:
        raise ValueError("no scales")
    return order


@task
async def ship(order: int) -> str:
    LOG.info("ships %s", order)
    parcel = await pack(order)
    LOG.info("packed")
    if order > 100:
        await ask("Go on?", bool)
        LOG.info("was told to go on")
    return parcel


@task
def ship_in_thread(order: int) -> int:
    LOG.info("begins")
    weighed = weigh(order)
    blocking.sleep("10ms")
    LOG.info("weighed")
    return weighed


@step(on="process")
def apart(order: int) -> int:
    logging.getLogger("child").warning("apart %s", order)
    return order


@task
async def ship_apart(order: int) -> int:
    return await apart.aio(order)


@task
async def chatters(lines: int) -> None:
    for number in range(lines):
        LOG.info("line %s", number)


@task
async def breaks() -> None:
    try:
        raise ValueError("x" * 20)
    except ValueError:
        LOG.exception("a long one: %s", "y" * (MESSAGE_MAX + 1))
    LOG.error("nul \0 and \ud800")
    await sleep(0)


@task
async def named() -> None:
    await stream(LOGS, "no")


TASKS = (ship, ship_in_thread, ship_apart, chatters, breaks, named)
for one in TASKS:
    KNOWN.pop(one.name)


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    TRIES.clear()
    LOG.setLevel(logging.INFO)
    yield
    LOG.setLevel(logging.NOTSET)


def told(lines: Any) -> list[tuple[str | None, int, str]]:
    return [(line.step, line.attempt, line.message) for line in lines]


@awaited
async def test_lines_of_tasks_and_steps_are_kept_in_order(tmp_path: Path) -> None:
    async with Engine(f"sqlite:///{tmp_path}/o.db", tasks=TASKS) as engine:
        handle = await engine.astart(ship, 7)
        await handle.aresult()
        lines = await handle.alogs()
        assert told(lines) == [
            (None, 1, "ships 7"), ("pack#1", 1, "packs 7"), (None, 1, "packed"),
        ]  # fmt: skip
        assert [line.number for line in lines] == [1, 2, 3]
        assert {(line.level, line.logger) for line in lines} == {("INFO", "shop")}
        assert told(await handle.alogs("pack")) == told(await handle.alogs("pack#1"))
        assert told(await handle.alogs("pack")) == [("pack#1", 1, "packs 7")]
        assert await handle.astreams() == []
        assert [line.number async for line in handle.follow_logs()] == [1, 2, 3]


@awaited
async def test_each_attempt_of_a_def_step_is_told_apart(tmp_path: Path) -> None:
    async with Engine(f"sqlite:///{tmp_path}/o.db", tasks=TASKS) as engine:
        handle = await engine.astart(ship_in_thread, 7)
        await handle.aresult()
        assert told(await handle.alogs()) == [
            (None, 1, "begins"),
            ("weigh#1", 1, "weighs, try 1"),
            ("weigh#1", 2, "weighs, try 2"),
            (None, 1, "weighed"),
        ]


@awaited
async def test_a_step_in_a_process_hands_its_lines_over(tmp_path: Path) -> None:
    async with Engine(f"sqlite:///{tmp_path}/o.db", tasks=TASKS) as engine:
        handle = await engine.astart(ship_apart, 7)
        await handle.aresult()
        assert told(await handle.alogs()) == [("apart#1", 1, "apart 7")]


@awaited
async def test_a_replay_logs_nothing_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/o.db"
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.addFilter(Ids())
    LOG.addHandler(handler)
    try:
        async with Engine(url, tasks=TASKS) as engine:
            handle = await engine.astart(ship, 101)
            while (await handle.arecord()).state is not State.AWAITING_INPUT:
                await engine.next_change(handle.id)
        async with Engine(url, tasks=TASKS) as engine:
            handle = engine.execution(handle.id)
            await handle.aanswer(True)
            await handle.aresult()
            lines = await handle.alogs()
    finally:
        LOG.removeHandler(handler)
    wanted = ["ships 101", "packs 101", "packed", "was told to go on"]
    assert [line.message for line in lines] == wanted
    assert said.getvalue().splitlines() == wanted


def test_a_crash_at_any_point_leaves_each_line_once() -> None:
    from outlast.testing import crash_everywhere

    ends = []

    async def world(engine: Any) -> None:
        handle = await engine.astart(ship, 7)
        await handle.aresult()
        ends.append([line.message for line in await handle.alogs() if line.step is None])

    report = crash_everywhere(world, tasks=[ship])
    assert len(ends) >= 4 and report is not None
    for lines in ends:
        assert lines == ["ships 7", "packed"]


@awaited
async def test_long_and_odd_lines_are_cut_and_kept(tmp_path: Path) -> None:
    async with Engine(f"sqlite:///{tmp_path}/o.db", tasks=TASKS) as engine:
        handle = await engine.astart(breaks)
        await handle.aresult()
        first, second = await handle.alogs()
    assert first.is_cut and len(first.message) == MESSAGE_MAX
    assert first.error is not None and first.error.endswith("ValueError: " + "x" * 20 + "\n")
    assert second.message == "nul \\0 and \\ud800" and not second.is_cut


@awaited
async def test_a_place_has_so_many_lines_and_says_that_there_were_more(tmp_path: Path) -> None:
    async with Engine(f"sqlite:///{tmp_path}/o.db", tasks=TASKS) as engine:
        handle = await engine.astart(chatters, LINES_MAX + 50)
        await handle.aresult()
        lines = await handle.alogs()
    assert len(lines) == LINES_MAX
    assert lines[-1].is_cut and lines[-1].message == "more was logged here"
    assert lines[-2].message == f"line {LINES_MAX - 2}"


def test_an_execution_has_so_many_lines() -> None:
    emitted = [Emission(LOGS, n, 1, b"{}") for n in range(1, LOG_LINES_MAX + 20)]
    rows = placed([("ex_1", emitted)], {}, {})
    assert len(rows) == LOG_LINES_MAX
    assert rows[-1][1].payload == CUT and line_of(rows[-1][1]).is_cut
    assert placed([("ex_1", emitted[-1:])], {("ex_1", LOGS): LOG_LINES_MAX}, {}) == []


def test_lines_may_have_gaps_and_other_streams_may_not() -> None:
    assert [
        row[1].number for row in placed([("ex_1", [Emission(LOGS, 3_001, 1, b"{}")])], {}, {})
    ] == [1]
    with pytest.raises(Exception, match="missing"):
        placed([("ex_1", [Emission("mine", 2, 1, b"{}")])], {}, {})


def test_what_does_not_fit_is_lost_and_said_so() -> None:
    loop = asyncio.new_event_loop()
    try:
        emitter = Emitter(loop, lambda: 1, 1, 1, lambda: None)
        for _ in range(6_000):
            emitter.jot(b'{"message":"x"}', place=len(emitter._waiting) // 900)
        items, _ = emitter.ride()
        assert 4_000 < len(items) <= 5_000
        emitter.jot(b'{"message":"y"}', place=99)
        ((after,), _) = emitter.ride()
        assert json.loads(after.payload)["lost"] > 0
        emitter.close()
    finally:
        loop.close()


@awaited
async def test_the_name_of_the_stream_is_taken(tmp_path: Path) -> None:
    async with Engine(f"sqlite:///{tmp_path}/o.db", tasks=TASKS) as engine:
        handle = await engine.astart(named)
        with pytest.raises(UsageError, match="outlast:logs"):
            await handle.aresult()


@awaited
async def test_lines_are_sealed_and_purged_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import base64

    keys = tmp_path / "keys"
    keys.write_text("k1 " + base64.b64encode(b"k" * 32).decode() + "\n")
    keys.chmod(0o600)
    monkeypatch.setenv("OUTLAST_KEYS_FILE", str(keys))
    url = f"sqlite:///{tmp_path}/o.db"
    async with Engine(url, tasks=TASKS) as engine:
        handle = await engine.astart(ship, -778_899)
        await handle.aresult()
        assert told(await handle.alogs())[1] == ("pack#1", 1, "packs -778899")
        id = handle.id
    assert b"packs -778899" not in (tmp_path / "o.db").read_bytes()
    store = open_store(url, owner="w9", now=1)
    assert store.stream(id, LOGS)
    assert store.purge([id]) == 1
    assert store.stream(id, LOGS) == []
    store.close()


def test_json_lines_have_ids_and_an_event_each(capsys: pytest.CaptureFixture[str]) -> None:
    said = io.StringIO()
    root, before = logging.getLogger(), logging.getLogger().level
    handler = setup_logs("json", "info", stream=said)
    try:
        with virtual(tasks=[ship]) as engine:
            handle = engine.start(ship, 7)
            handle.result()
    finally:
        assert handler is not None
        root.removeHandler(handler)
        root.setLevel(before)
        EVENTS.setLevel(logging.WARNING)
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    ours = [line for line in lines if line["logger"] == "shop"]
    assert [line["message"] for line in ours] == ["ships 7", "packs 7", "packed"]
    assert [line.get("step") for line in ours] == [None, "pack#1", None]
    assert {line["execution"] for line in lines if "execution" in line} == {handle.id}
    assert {line["task"] for line in ours} == {"ship"} and all(line["worker"] for line in ours)
    events = [line["event"] for line in lines if line["logger"] == "outlast.event"]
    assert events == ["execution.create", "execution.start", "execution.finish"]
    assert not [line for line in lines if "parcel" in json.dumps(line)]


def test_an_event_of_each_kind_can_be_told() -> None:
    heard: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = heard.append  # type: ignore[method-assign]
    EVENTS.addHandler(handler)
    EVENTS.setLevel(logging.DEBUG)
    try:
        for n, kind in enumerate(Kind):
            row = Transition(
                1, "ex_1", n + 1, kind, State.RUNNING, State.RUNNING, 1, None, "engine", 1,
                key="a#1", data={"attempt": 1, "secret": {"a": 1}}, payload=b'"secret"',
            )  # fmt: skip
            tell([row], [])
    finally:
        EVENTS.removeHandler(handler)
        EVENTS.setLevel(logging.WARNING)
    assert len(heard) == len(Kind)
    for record in heard:
        for formatter in (Json(), Text()):
            assert "secret" not in formatter.format(record)
        assert json.loads(Json().format(record))["event"].startswith("execution.")


def test_nobody_pays_for_events_that_nobody_hears(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> None:
        raise AssertionError

    monkeypatch.setattr(EVENTS, "log", never)
    row = Transition(1, "ex_1", 4, Kind.STEP, State.RUNNING, State.RUNNING, 1, None, "engine", 1)
    tell([row] * 10, [])


def test_warnings_still_reach_stderr_where_nobody_listens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from outlast.engine.read.logs import Capture

    logger = logging.getLogger("lonely")
    logger.propagate = False
    capture = Capture()
    logger.addHandler(capture)
    try:
        logger.warning("somebody should hear")
        logger.addHandler(logging.NullHandler())
        logger.warning("somebody does")
    finally:
        logger.handlers.clear()
        logger.propagate = True
    assert capsys.readouterr().err == "somebody should hear\n"
