"""The client gives the handles of an engine: the same story is told of both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from outlast import Client, Engine, Filter, State
from outlast.engine.control.handle import Execution
from outlast.errors import (
    AlreadyAnswered,
    BadPayload,
    ExecutionCancelled,
    KeyConflict,
    NotFound,
    NotRecoverable,
    ServerUnreachable,
    TokenInvalid,
    TransitionRefused,
    Unauthenticated,
    UnknownStep,
    UnknownTask,
    UsageError,
    WaitTimeout,
    WrongArguments,
)
from outlast.lifecycle import Transition

from .conftest import TASKS, TOKEN, Served, asks, fails, says, total, waits

Either = Engine | Client


@pytest.fixture(params=["embedded", "server"])
def either(request: pytest.FixtureRequest) -> Iterator[Either]:
    """An engine in this process, or a client of one behind a server."""
    if request.param == "embedded":
        with Engine("memory:", tasks=TASKS) as engine:
            yield engine
    else:
        served: Served = request.getfixturevalue("served")
        with Client(served.url, token=TOKEN, tasks=TASKS) as client:
            yield client


def test_start_wait_and_results(either: Either) -> None:
    handle = either.start(total, 1, b=4)
    assert isinstance(handle, Execution)
    assert handle.result("100s") == 5 and handle.status() is State.SUCCEEDED
    assert handle.reason() is None
    bad = either.start(fails, "no")
    with pytest.raises(ValueError, match="no"):
        bad.result("100s")
    kinds = [row.kind for row in handle.transitions()]
    assert kinds[0] == "create" and kinds[-1] == "finish"
    with pytest.raises(WrongArguments):
        either.start(total)
    with pytest.raises(NotFound):
        either.execution("ex_00000000000000000000").status()


def test_the_task_itself_starts_where_it_was_opened(either: Either) -> None:
    handle = total.options(key="k", labels={"team": "ops"}, priority=3).start(1)
    assert total.options(key="k", labels={"team": "ops"}, priority=3).start(1).id == handle.id
    with pytest.raises(KeyConflict):
        total.options(key="k").start(2)
    record = handle.record()
    assert (record.key, record.labels, record.priority) == ("k", {"team": "ops"}, 3)
    after = total.options(after=[handle]).start(5)
    assert after.result("100s") == 7


def test_answers_signals_and_control(either: Either) -> None:
    handle = either.start(asks, "Ada")
    with pytest.raises(WaitTimeout):
        handle.result("1ms")
    _until(handle, State.AWAITING_INPUT)
    assert handle.reason().code == "waiting_input" or handle.reason() is not None
    (question,) = handle.questions()
    assert question.title == "Send Ada?" and question.to == "ops"
    assert [one.execution_id for one in either.questions("ops")] == [handle.id]
    with pytest.raises(BadPayload):
        handle.answer("no")
    token = handle.answer_token()
    with pytest.raises(TokenInvalid):
        either.question_by_token(token[:-3] + "abc")
    assert either.question_by_token(token).title == "Send Ada?"
    handle.pause("lunch")
    assert handle.status() is State.PAUSED
    handle.resume()
    either.answer_by_token(token, True)
    assert handle.result("100s") == "Ada: yes"
    with pytest.raises(AlreadyAnswered):
        either.answer_by_token(token, True)
    with pytest.raises(TransitionRefused) as refused:
        handle.pause()
    assert refused.value.state == "succeeded" and refused.value.refusal == "already_final"


def test_cancel_labels_and_priority(either: Either) -> None:
    handle = either.start(waits, "1d")
    _until(handle, State.WAITING)
    assert handle.reason().until is not None  # type: ignore[union-attr]
    handle.label(team="ops", gone=None)
    handle.prioritize(9)
    handle.signal("hello", {"n": 1}, id="once")
    handle.signal("hello", {"n": 1}, id="once")
    record = handle.record()
    assert (record.labels, record.priority, record.inbox_count) == ({"team": "ops"}, 9, 3)
    handle.cancel("left")
    handle.cancel("left")
    with pytest.raises(ExecutionCancelled, match="left"):
        handle.result("100s")


def test_descents(either: Either) -> None:
    handle = either.start(total, 1)
    assert handle.result("100s") == 3
    assert handle.rerun(b=10).result("100s") == 11
    assert handle.fork(from_step="add").result("100s") == 3
    with pytest.raises(UnknownStep):
        handle.fork(from_step="none")
    with pytest.raises(NotRecoverable):
        handle.retry()
    bad = either.start(fails, "no")
    with pytest.raises(ValueError, match="no"):
        bad.result("100s")
    with pytest.raises(ValueError, match="no"):
        bad.recover().result("100s")


def test_streams_and_watching(either: Either) -> None:
    handle = either.start(says, ["a", "b", "c"])
    assert [item.value for item in handle.stream("words")] == ["a", "b", "c"]
    assert [item.value for item in handle.stream("words", after=2)] == ["c"]
    (head,) = handle.streams()
    assert (head.name, head.count) == ("words", 3) and handle.progress() is None

    async def watched() -> list[Transition]:
        return [row async for row in handle.awatch()]

    assert [row.seq for row in either.run(watched())] == [row.seq for row in handle.transitions()]


def test_many_at_once(either: Either) -> None:
    handles = [either.start(waits, "1d") for _ in range(3)]
    for handle in handles:
        _until(handle, State.WAITING)
    found = either.run(either.read_page(Filter(task="waits", states=(State.WAITING,))))
    assert [one.id for one in found] == [one.id for one in handles[::-1]]
    report = either.bulk("cancel", Filter(task="waits"), dry_run=True)
    assert (report.matched, report.done, report.is_dry) == (3, 0, True)
    assert either.bulk("cancel", Filter(task="waits")).done == 3


def test_budgets(either: Either) -> None:
    either.budgets.set("task:total", usd=50, soft=0.5)
    assert either.budgets.get("task:total")["usd"].limit == 50
    either.budgets.raise_("task:total", usd="0.25")
    (state,) = either.budgets.list()
    assert float(state.limit or 0) == 50.25 and state.soft is not None
    either.budgets.reset("task:total")
    with pytest.raises(NotFound):
        either.budgets.raise_("tenant", usd=1)


def test_rows_and_logs_are_read_back_whole(served: Served) -> None:
    """Each row, and each row of a log, is as it was written, but for the lease's secret."""

    async def main() -> None:
        client = Client(served.url, token=TOKEN, tasks=TASKS)
        async with client:
            one = await client.astart(asks, "Ada")
            while (await one.astatus()) is not State.AWAITING_INPUT:
                await client.next_change(one.id)
            other = await client.astart(fails, "no")
            await other.await_("100s")
            compared = 0
            for id in (one.id, other.id):
                (own,) = served.engine.store.get([id])
                assert own is not None and await client.read_one(id) == own
                log = served.engine.store.log(id)
                for mine, theirs in zip(log, await client.read_log(id), strict=True):
                    assert (mine.nonce is None) == (theirs.nonce is None)
                    theirs.nonce = mine.nonce
                    assert mine == theirs
                    compared += 1
            assert compared > 8

    asyncio.run(main())


def test_what_is_not_there_and_who_is_not_known(served: Served) -> None:
    with Client("http://127.0.0.1:9", token="x") as nobody, pytest.raises(ServerUnreachable):
        nobody.execution("ex_1").status()
    with Client(served.url, token="x" * 20) as stranger, pytest.raises(Unauthenticated):
        stranger.execution("ex_1").status()
    with pytest.raises(UsageError):
        Client("sqlite:///x.db")
    with Client(served.url, token=TOKEN) as client:
        assert client.start("total", a=1).result("100s") == 3  # its code is not needed here
        with pytest.raises(UnknownTask):
            client.start("none")


def _until(handle: Execution[Any], state: State) -> None:
    """Wait for a state, by following the log."""

    async def main() -> None:
        while (await handle.astatus()) is not state:
            await handle._engine.next_change(handle.id)

    handle._engine.run(main())
