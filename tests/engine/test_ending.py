"""How an execution ends: tried again, failed, with messages on their way or without."""

from __future__ import annotations

import asyncio
from typing import Any

from outlast import Engine, Retry, task, wait_for
from outlast.engine.drive.ending import end_by_error
from outlast.engine.task.registry import Task
from outlast.lifecycle import Event, Execution, Kind, Message, MessageKind
from outlast.store import open_store
from outlast.store.protocol import Deliver
from outlast.testing.conformance import born


class Clock:
    def now(self) -> int:
        return 5


def _cancelled() -> Event:
    raise AssertionError("nobody has cancelled it")


def _end(task: Task[..., Any], record: Execution) -> Event:
    return end_by_error(task, record, ValueError("no"), Clock(), _cancelled)


@task(retries=Retry(1, base="1ms", jitter=0))
async def once_more() -> None: ...


def test_a_message_that_nobody_has_seen_takes_no_try_away() -> None:
    record = born("ex_1").after
    assert _end(once_more, record).kind is Kind.RETRY
    record.inbox_count = 1
    assert _end(once_more, record).kind is Kind.RETRY
    record.failures = 1
    assert _end(once_more, record).kind is Kind.ERROR


def test_a_try_that_fails_as_a_signal_comes_is_followed_by_another(url: str) -> None:
    """The signal is in the inbox before the row of the retry, and the owner has not heard of it."""
    engines: list[Engine] = []
    tries: list[str] = []

    @task(retries=Retry(1, base="1ms", jitter=0))
    async def fails_first() -> int:
        tries.append("try")
        if len(tries) == 1:
            message = Message("m1", MessageKind.SIGNAL, "user", key="late", payload=b"7")
            (id,) = engines[0].worker.drivers
            other = open_store(url, owner=None, now=1)
            other.commit([Deliver(id, message, engines[0].clock.now())])
            other.close()
            raise ValueError("the first time")
        return int(await wait_for("late", int))

    async def main() -> None:
        async with Engine(url, tasks=[fails_first]) as engine:
            engines.append(engine)
            handle = await engine.astart(fails_first)
            assert await handle.aresult("100s") == 7
            kinds = [row.kind for row in await handle.atransitions()]
            assert kinds.index(Kind.SIGNAL_RECEIVED) < kinds.index(Kind.RETRY)
            assert engine.store.verify().defects == []

    asyncio.run(main())
