"""An answer and the end of its question at once: the first in the log wins, and all are told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from outlast import Engine, Retry, State, ask, sleep, step, task, wait_for
from outlast.engine.control.handle import Execution
from outlast.engine.guest import Guest
from outlast.engine.read.ruling import hear, was_too_late
from outlast.engine.write.request import new_message
from outlast.errors import AlreadyAnswered, NotFound
from outlast.lifecycle import Kind, MessageKind, Transition
from outlast.lifecycle.lateness import late_answers
from outlast.store.protocol import Deliver
from outlast.testing import VirtualEngine, crash_everywhere
from outlast.testing import engine as virtual

from .conftest import until


@step
async def long_work() -> str:
    await asyncio.sleep(3 * 3600)
    return "worked"


@task
async def asks_beside_work() -> list[Any]:
    asked = ask("Well?", str, timeout="1h", default="nobody")
    return list(await asyncio.gather(asked, long_work()))


@task
async def waits_beside_work() -> list[Any]:
    async def signal() -> str:
        try:
            return await wait_for("sign", str, timeout="1h")
        except TimeoutError:
            return "nobody"

    return list(await asyncio.gather(signal(), long_work()))


def put(engine: VirtualEngine, id: str, kind: MessageKind, key: str, value: str) -> None:
    """Deliver as another process does, of which the engine here has not heard yet."""
    message = new_message(kind, "user", key=key, payload=f'"{value}"'.encode(), id=f"m-{value}")
    (answer,) = engine.store.commit([Deliver(id, message, engine.clock.now())])
    assert answer.refused is None


@pytest.mark.parametrize(
    ("kind", "key", "asks"),
    [
        (MessageKind.ANSWER, "ask#1", asks_beside_work),
        (MessageKind.SIGNAL, "sign", waits_beside_work),
    ],
)
def test_what_is_in_the_inbox_comes_before_the_end_of_its_time(
    kind: MessageKind, key: str, asks: Any
) -> None:
    def scenario(engine: VirtualEngine) -> Any:
        h = engine.start(asks)
        engine.advance("59m")
        put(engine, h.id, kind, key, "yes")
        engine.advance("1m")
        rows = [row.kind for row in h.transitions()]
        assert rows.count(Kind.TIMER_FIRED) == 0
        engine.advance("6h")
        return h.result()

    with virtual(tasks=[asks]) as engine:
        h = engine.start(asks)
        engine.advance("59m")
        assert h.status() is State.RUNNING, "its owner alone writes its log"
    assert crash_everywhere(scenario, tasks=[asks]).result == ["yes", "worked"]


def answer_late(engine: VirtualEngine, h: Execution[Any], value: str, key: str = "ask#1") -> None:
    """Answer as somebody does who had seen the question open a moment before."""
    message = new_message(MessageKind.ANSWER, "user", key=key, payload=f'"{value}"'.encode())

    async def answer() -> None:
        await hear(engine, await engine.asend(h.id, message), key)

    engine.run(answer())


def test_an_answer_that_comes_second_is_refused_and_never_used() -> None:
    tries: list[int] = []

    @task(retries=Retry(1, base="1h", jitter=0))
    async def twice() -> list[Any]:
        tries.append(1)
        asked = ask("Well?", str, timeout="1h", default="nobody")
        both = list(await asyncio.gather(asked, long_work()))
        if len(tries) == 1:
            raise ValueError(both)
        return both

    with virtual(tasks=[twice]) as engine:
        h = engine.start(twice)
        engine.advance("61m")
        with pytest.raises(NotFound, match="does not ask ask#1 any more"):
            answer_late(engine, h, "late")
        assert len(late_answers(h.transitions())) == 0, "the store has refused it"
        with pytest.raises(NotFound):
            h.answer("too", key="ask#1")
        engine.advance("3h")  # the try has failed, and the next one asks anew
        assert [question.key for question in h.questions()] == ["ask#1"]
        h.answer("in time")
        with pytest.raises(AlreadyAnswered):
            h.answer("second", key="ask#1")
        engine.advance("4h")
        assert h.result() == ["in time", "worked"]
        assert engine.store.verify().defects == []


def test_the_place_in_the_log_is_the_word() -> None:
    """What is taken in behind the end of its question is late; a new try asks anew."""

    def row(seq: int, kind: Kind, number: int | None = None, key: str = "ask#1") -> Transition:
        data = None if number is None else {"inbox": number}
        running = State.RUNNING
        return Transition(
            1, "ex_1", seq, kind, running, running, 1, None, "user", seq, key, data=data
        )

    asked, ended = row(1, Kind.STEP_ANNOUNCED), row(3, Kind.CALL_ABANDONED)
    taken = [row(2, Kind.INPUT_RECEIVED, 1), row(4, Kind.INPUT_RECEIVED, 1)]
    assert was_too_late([asked], 1) is None
    assert was_too_late([asked, taken[0], ended], 1) is False
    assert was_too_late([asked, ended, taken[1]], 1) is True
    assert was_too_late([asked, ended, row(4, Kind.INPUT_RECEIVED, 1, key="ask#2")], 1) is False
    again = [asked, ended, row(4, Kind.RETRY), row(5, Kind.INPUT_RECEIVED, 1)]
    assert was_too_late(again, 1) is False
    assert late_answers([asked, ended, taken[1], *again[2:]]) == {4}


def test_an_answer_to_parked_code_is_compared_with_the_log_as_well() -> None:
    @task
    async def goes_on() -> Any:
        first = await ask("First?", str, timeout="1h", default="nobody")
        await sleep("1d")
        return first

    with virtual(tasks=[goes_on]) as engine:
        h = engine.start(goes_on)
        engine.advance("2h")
        assert h.status() is State.WAITING
        with pytest.raises(NotFound):
            answer_late(engine, h, "late")
        engine.advance("1d")
        assert h.result() == "nobody"


def test_an_answer_that_its_execution_did_not_wait_for_is_refused() -> None:
    """It is in the inbox as the code ends, whose last row needs to have seen no messages."""
    ends: list[asyncio.Event] = []

    @step
    async def until_told() -> None:
        await ends[0].wait()

    @task
    async def leaves() -> None:
        asked = asyncio.create_task(ask("Well?", str))
        await until_told()
        asked.cancel()

    async def main() -> None:
        async with Engine("memory:", tasks=[leaves]) as engine:
            ends.append(asyncio.Event())
            h = await engine.astart(leaves)

            async def is_asked() -> bool:
                return bool(await h.aquestions())

            await until(is_asked)
            message = new_message(MessageKind.ANSWER, "user", key="ask#1", payload=b'"x"')
            item = Deliver(h.id, message, engine.clock.now())
            answer = await engine.journal.call(lambda: engine.store.commit([item])[0])
            ends[0].set()
            await h.await_("100s")
            assert answer.execution is not None and answer.execution.is_leased
            log = await h.atransitions()
            if any(row.kind is Kind.INPUT_RECEIVED for row in log):
                return  # its owner has looked in time
            with pytest.raises(NotFound):
                await hear(engine, answer.execution, "ask#1")

    asyncio.run(main())


def test_another_process_is_told_as_well(url: str) -> None:
    """A guest hears how its answer was ruled, or that it is kept where no engine lives."""
    release: list[asyncio.Event] = []

    @step
    async def gated() -> str:
        await release[0].wait()
        return "worked"

    @task
    async def asks() -> list[Any]:
        asked = ask("Well?", str, timeout="10ms", default="nobody")
        second = ask("And?", str)
        return list(await asyncio.gather(asked, second, gated()))

    async def main() -> None:
        release.append(asyncio.Event())
        async with Engine(url, tasks=[asks]) as engine:
            h = await engine.astart(asks)

            async def is_closed() -> bool:
                return [question.key for question in await h.aquestions()] == ["ask#2"]

            await until(is_closed)
            assert await h.astatus() is State.RUNNING

            def from_outside() -> list[str]:
                with Guest(url) as guest:
                    with pytest.raises(NotFound, match="any more"):
                        guest._send(
                            h.id, MessageKind.ANSWER, "user", key="ask#1", payload=b'"late"'
                        )
                    guest.answer(h.id, "yes")
                    return [
                        row.key or "" for row in guest.log(h.id) if row.kind == "input_received"
                    ]

            assert (await asyncio.to_thread(from_outside))[-1] == "ask#2"
            release[0].set()
            assert await h.aresult("100s") == ["nobody", "yes", "worked"]

    asyncio.run(main())
