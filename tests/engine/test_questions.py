"""Questions: forms, escalation, what an answer meets, and every moment at which it can come."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, field_validator

from outlast import Engine, Retry, State, ask, blocking, sleep, step, task
from outlast.engine.control.handle import Execution
from outlast.engine.guest import Guest
from outlast.errors import (
    AlreadyAnswered,
    BadPayload,
    NotFound,
    TransitionRefused,
    UsageError,
    WaitTimeout,
)
from outlast.lifecycle import Kind
from outlast.testing import VirtualEngine, crash_everywhere
from outlast.testing import engine as virtual


@dataclass
class Approve:
    amount: int
    on: datetime.date
    note: str | None = None


class Even(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def is_even(cls, number: int) -> int:
        if number % 2:
            raise ValueError("odd numbers are not taken")
        return number


@step
async def echo(value: int) -> int:
    return value


COLOURS = ["async", "def"]


def plain(value: Any) -> Any:
    return value if value is None or type(value) in (bool, int, str, list) else repr(value)


def escalating(colour: str, **options: Any) -> Any:
    """Make a task of this colour that asks one question."""

    @task(name="asks")
    async def asks() -> Any:
        return plain(await ask("Release?", **options))

    @task(name="asks")
    def asks_plainly() -> Any:
        return plain(blocking.ask("Release?", **options))

    return asks if colour == "async" else asks_plainly


def kinds(h: Execution[Any], *wanted: Kind) -> list[Kind]:
    return [row.kind for row in h.transitions() if row.kind in wanted]


def asked_of(h: Execution[Any]) -> list[Any]:
    """Give to whom the log says that the question was put, in order."""
    return [
        row.data["question"]["to"]  # type: ignore[index,call-overload]
        for row in h.transitions()
        if row.kind is Kind.STEP_ANNOUNCED
    ]


# Escalation


@pytest.mark.parametrize("colour", COLOURS)
def test_a_question_goes_up_and_the_first_answer_wins(colour: str) -> None:
    asks = escalating(
        colour,
        to="role:ops",
        timeout="2d",
        on_timeout="escalate",
        escalate_to=["role:boss", ("role:ceo", "1h")],
        default=False,
    )
    with virtual(tasks=[asks]) as engine:
        h = engine.start(asks)
        (question,) = h.questions()
        assert (question.key, question.to, question.late) == ("ask#1", "role:ops", None)
        asked_at = question.asked_at

        engine.advance("2d")
        (question,) = h.questions()
        assert (question.key, question.to, question.late) == ("ask#1", "role:boss", "role:ops")
        assert question.asked_at == asked_at and question.until == asked_at + 4 * 86_400_000_000
        reason = h.reason()
        assert reason is not None
        assert reason.text == 'role:boss must answer "Release?", as role:ops did not'

        engine.advance("2d")
        assert [q.to for q in h.questions()] == ["role:ceo"]
        assert asked_of(h) == ["role:ops", "role:boss", "role:ceo"]
        h.answer(True)  # by anybody
        assert h.result() is True
        assert kinds(h, Kind.CALL_ABANDONED) == []
        assert engine.store.verify().defects == []


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("default", [False, None])
def test_nobody_answers(colour: str, default: object) -> None:
    options = {} if default is None else {"default": default}
    asks = escalating(colour, to="ops", timeout="1h", escalate_to="boss", **options)
    with virtual(tasks=[asks]) as engine:
        h = engine.start(asks)
        engine.advance("2h")
        if default is None:
            with pytest.raises(WaitTimeout, match=r'nobody answered "Release\?" within 2h'):
                h.result()
        else:
            assert h.result() is default
        assert asked_of(h) == ["ops", "boss"]
        assert kinds(h, Kind.TIMER_FIRED, Kind.CALL_ABANDONED) == [
            Kind.TIMER_FIRED,
            Kind.TIMER_FIRED,
            Kind.CALL_ABANDONED,
        ]
        assert h.questions() == []


def test_without_a_name_it_goes_up_to_everybody() -> None:
    asks = escalating("async", to="ops", timeout="1h", on_timeout="escalate")
    with virtual(tasks=[asks]) as engine:
        h = engine.start(asks)
        engine.advance("1h")
        assert [(q.to, q.late) for q in h.questions()] == [(None, "ops")]


def test_the_next_one_has_the_whole_time_although_nothing_ran_meanwhile() -> None:
    """A clock that jumps past both times must not skip the second one."""
    asks = escalating("async", to="ops", timeout="1h", escalate_to="boss", default=False)
    with virtual(tasks=[asks]) as engine:
        h = engine.start(asks)
        h.pause()
        engine.advance("3h")
        h.resume()
        (question,) = h.questions()
        assert question.to == "boss" and question.until == engine.clock.now() + 3_600_000_000
        engine.advance("1h")
        assert h.result() is False


@pytest.mark.parametrize(
    "options",
    [
        {"on_timeout": "escalate"},
        {"escalate_to": "boss"},
        {"timeout": "1h", "on_timeout": "explode"},
        {"timeout": "1h", "escalate_to": []},
        {"timeout": "1h", "escalate_to": [("boss",)]},
        {"timeout": "1h", "escalate_to": [7]},
        {"timeout": "1h", "escalate_to": ""},
    ],
)
def test_an_escalation_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    asks = escalating("async", **options)
    with virtual(tasks=[asks]) as engine, pytest.raises(UsageError):
        engine.start(asks).result()


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("after", ["0s", "30m", "90m", "4h"])
def test_escalation_survives_every_crash(colour: str, after: str) -> None:
    asks = escalating(
        colour, to="ops", timeout="1h", escalate_to=["boss", ("ceo", "1h")], default=False
    )

    def scenario(engine: VirtualEngine) -> Any:
        h = engine.start(asks)
        engine.advance(after)
        if after != "4h":
            engine.answer(h, True)
        return h.result(), asked_of(h), len(kinds(h, Kind.CALL_ABANDONED))

    report = crash_everywhere(scenario, tasks=[asks])
    asked = {"0s": ["ops"], "30m": ["ops"], "90m": ["ops", "boss"], "4h": ["ops", "boss", "ceo"]}
    assert report.result == (after != "4h", asked[after], int(after == "4h"))


def test_two_escalating_questions_side_by_side() -> None:
    @task
    async def both() -> list[Any]:
        return await asyncio.gather(
            ask("A?", to="ops", timeout="1h", escalate_to="boss", default=False),
            ask("B?", int, to="law", timeout="90m", escalate_to="judge", default=0),
        )

    def scenario(engine: VirtualEngine) -> Any:
        h = engine.start(both)
        engine.advance("1h")
        first = [(q.key, q.to) for q in h.questions()]
        engine.advance("30m")
        second = [(q.key, q.to) for q in h.questions()]
        h.answer(7, key="ask#2")
        engine.advance("30m")
        return first, second, h.result()

    assert crash_everywhere(scenario, tasks=[both]).result == (
        [("ask#1", "boss"), ("ask#2", "law")],
        [("ask#1", "boss"), ("ask#2", "judge")],
        [False, 7],
    )


# Forms


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize(
    ("form", "bad", "good", "given"),
    [
        (int, "7", 7, 7),
        (Decimal, "much", "1.50", repr(Decimal("1.50"))),
        (datetime.date, "2026-02-30", "2026-02-28", repr(datetime.date(2026, 2, 28))),
        (datetime.datetime, "noon", "2026-01-01T12:00:00Z", None),
        (Literal["a", "b"], "c", "a", "a"),
        (list[int], [1, "2"], [1, 2], [1, 2]),
        (int | None, "no", None, None),
        (Approve, {"amount": 1}, {"amount": 1, "on": "2026-01-01"}, None),
        (Approve, {"amount": "1", "on": "2026-01-01"}, Approve(1, datetime.date(2026, 1, 1)), None),
        ({"type": "integer", "minimum": 3}, 2, 3, 3),
    ],
)
def test_an_answer_is_compared_before_it_is_taken(
    colour: str, form: Any, bad: Any, good: Any, given: Any
) -> None:
    asks = escalating(colour, form=form)
    with virtual(tasks=[asks]) as engine:
        h = engine.start(asks)
        with pytest.raises(BadPayload):
            h.answer(bad)
        assert kinds(h, Kind.INPUT_RECEIVED) == []
        h.answer(good)
        result = h.result()
        assert given is None or result == given


def test_a_bad_field_is_named() -> None:
    asks = escalating("async", form=Approve)
    with virtual(tasks=[asks]) as engine:
        h = engine.start(asks)
        with pytest.raises(BadPayload, match=r"answer\.on: does not fit") as refused:
            h.answer({"amount": 1, "on": "soon"})
        assert "is not a 'date'" in refused.value.why
        assert "soon" not in str(refused.value), "what was answered may be secret"


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("key", [None, "even"])
def test_an_answer_that_the_form_itself_refuses_is_asked_for_anew(
    colour: str, key: str | None
) -> None:
    asks = escalating(colour, form=Even, key=key, timeout="2h", default=Even(number=0))

    def scenario(engine: VirtualEngine) -> Any:
        h = engine.start(asks)
        engine.advance("1h")
        h.answer({"number": 3})
        (question,) = h.questions()
        said = question.key, question.refused, question.until
        engine.advance("30m")
        h.answer({"number": 4})
        return said, h.result()

    said, number = crash_everywhere(scenario, tasks=[asks]).result
    assert number == "Even(number=4)"
    assert said[0] == ("ask#2" if key is None else "ask:even.2")
    assert "odd numbers are not taken" in said[1]
    with virtual(tasks=[asks]) as engine:  # the time that is left is that of the first question
        h = engine.start(asks)
        h.answer({"number": 3})
        engine.advance("2h")
        assert h.result() == "Even(number=0)"


def test_a_key_names_a_question() -> None:
    @task
    async def asks_by_name(orders: list[int]) -> list[bool]:
        return [await ask(f"Release {order}?", key=f"order-{order}") for order in orders]

    with virtual(tasks=[asks_by_name]) as engine:
        h = engine.start(asks_by_name, [7, 8])
        with pytest.raises(NotFound, match="no open question ask:order-8"):
            h.answer(True, key="ask:order-8")
        h.answer(True, key="ask:order-7")
        with pytest.raises(AlreadyAnswered):
            h.answer(True, key="ask:order-7")
        h.answer(False, key="ask:order-8")
        assert h.result() == [True, False]


# When an answer comes


def test_a_question_whose_time_is_up_takes_no_answer_while_the_code_goes_on() -> None:
    @task
    async def goes_on() -> Any:
        first = await ask("First?", timeout="1h", default="nobody", form=str)
        return [first, await ask("Second?", str)]

    with virtual(tasks=[goes_on]) as engine:
        h = engine.start(goes_on)
        engine.advance("1h")
        with pytest.raises(NotFound):
            h.answer("late", key="ask#1")
        h.answer("fine")
        assert h.result() == ["nobody", "fine"]


def test_a_question_that_is_given_up_while_others_run_is_closed_by_a_row() -> None:
    @task
    async def busy() -> str:
        naps = asyncio.create_task(sleep("1d"))
        try:
            async with asyncio.timeout(60):
                await ask("Quick?")
        except TimeoutError:
            await naps
        return "went on"

    def scenario(engine: VirtualEngine) -> Any:
        h = engine.start(busy)
        asked = [q.key for q in h.questions()]
        engine.advance("2m")
        with pytest.raises(NotFound):
            h.answer(True, key="ask#1")
        engine.advance("1d")
        return asked, h.result(), kinds(h, Kind.CALL_ABANDONED)

    expected = (["ask#1"], "went on", [Kind.CALL_ABANDONED])
    assert crash_everywhere(scenario, tasks=[busy]).result == expected


@pytest.mark.parametrize("colour", COLOURS)
def test_asked_again_and_again_each_question_has_its_own_answer(colour: str) -> None:
    @task(name="insists")
    async def insists() -> Any:
        for _ in range(3):
            if (said := await ask("Sure?", str, timeout="1h", default="")) == "yes":
                return said
        return "gave up"

    @task(name="insists")
    def insists_plainly() -> Any:
        for _ in range(3):
            if (said := blocking.ask("Sure?", str, timeout="1h", default="")) == "yes":
                return said
        return "gave up"

    asks = insists if colour == "async" else insists_plainly

    def scenario(engine: VirtualEngine) -> Any:
        h = engine.start(asks)
        keys = [[q.key for q in h.questions()]]
        engine.advance("1h")
        keys.append([q.key for q in h.questions()])
        with pytest.raises(NotFound):
            h.answer("yes", key="ask#1")
        h.answer("no", key="ask#2")
        keys.append([q.key for q in h.questions()])
        h.answer("yes", key="ask#3")
        return keys, h.result()

    assert crash_everywhere(scenario, tasks=[asks]).result == (
        [["ask#1"], ["ask#2"], ["ask#3"]],
        "yes",
    )


def test_an_answer_while_paused_is_kept() -> None:
    asks = escalating("async", timeout="1h", default=False)

    def scenario(engine: VirtualEngine) -> Any:
        h = engine.start(asks)
        h.pause()
        h.answer(True)
        with pytest.raises(AlreadyAnswered):
            h.answer(False, key="ask#1")
        engine.advance("2h")
        state = h.status()
        h.resume()
        return state, h.result()

    assert crash_everywhere(scenario, tasks=[asks]).result == (State.PAUSED, True)


def test_an_answer_while_the_code_runs_is_kept() -> None:
    release = asyncio.Event()

    @step
    async def waits() -> int:
        await release.wait()
        return 1

    @task
    async def side_by_side() -> list[Any]:
        return await asyncio.gather(ask("Now?"), waits())

    with virtual(tasks=[side_by_side]) as engine:
        h = engine.start(side_by_side)
        assert h.status() is State.RUNNING and len(h.questions()) == 1
        h.answer(True)
        with pytest.raises(AlreadyAnswered):
            h.answer(False, key="ask#1")
        assert h.questions() == [] and h.status() is State.RUNNING
        release.set()
        assert h.result() == [True, 1]


def test_an_answer_and_the_timeout_at_the_same_instant() -> None:
    """Whichever the log has first has won, and every replay agrees."""
    asks = escalating("async", timeout="1h", default=False)
    with virtual(tasks=[asks]) as engine:
        h = engine.start(asks)
        h.pause()  # so that the time passes, and both are there when it goes on
        engine.advance("1h")
        h.answer(True)
        h.resume()
        assert h.result() is True
        order = kinds(h, Kind.INPUT_RECEIVED, Kind.TIMER_FIRED)
        assert order == [Kind.INPUT_RECEIVED]
    with virtual(tasks=[asks]) as engine:
        h = engine.start(asks)
        engine.advance("1h")
        with pytest.raises(NotFound):
            h.answer(True)
        assert h.result() is False


def test_a_retried_task_finds_its_answer_and_asks_the_open_ones_anew() -> None:
    tries: list[int] = []

    @task(retries=Retry(1, base="1h", jitter=0))
    async def tried_again() -> Any:
        tries.append(1)
        first = await ask("First?", int)
        second = await ask("Second?", int, timeout="1h", default=None)
        if len(tries) < 4:
            raise ValueError
        return [first, second]

    with virtual(tasks=[tried_again]) as engine:
        h = engine.start(tried_again)
        h.answer(1)
        engine.advance("1h")
        assert h.status() is State.RETRY_WAIT and h.questions() == []
        engine.advance("1h")
        assert [q.key for q in h.questions()] == ["ask#2"]
        tries += [1, 1, 1]
        h.answer(2)
        assert h.result() == [1, 2]
        assert engine.store.verify().defects == []


# Two processes


def test_two_processes_answer_at_once(tmp_path: Path) -> None:
    asks = escalating("async", form=str)
    url = f"sqlite:///{tmp_path / 'a.db'}"

    async def main() -> tuple[list[str], str]:
        async with Engine(url, tasks=[asks]) as engine:
            handle = await engine.astart(asks)
            while await handle.astatus() is not State.AWAITING_INPUT:
                await engine.next_change(handle.id)

            def answer(name: str) -> str:
                with Guest(url) as guest:
                    try:
                        guest.answer(handle.id, name, key="ask#1", actor=name)
                    except (AlreadyAnswered, NotFound, TransitionRefused):
                        return "late"
                    return name

            names = [f"p{number}" for number in range(6)]
            said = await asyncio.gather(*(asyncio.to_thread(answer, name) for name in names))
            return said, await handle.aresult("100s")

    said, result = asyncio.run(main())
    winners = [name for name in said if name != "late"]
    assert winners == [result]


def test_a_guest_sees_what_the_owner_sees(tmp_path: Path) -> None:
    asks = escalating("async", to="ops", timeout="1h", escalate_to="boss")
    url = f"sqlite:///{tmp_path / 'a.db'}"

    async def main() -> None:
        async with Engine(url, tasks=[asks]) as engine:
            handle = await engine.astart(asks)
            while await handle.astatus() is not State.AWAITING_INPUT:
                await engine.next_change(handle.id)
            with Guest(url) as guest:
                assert guest.questions(handle.id) == await handle.aquestions()
                assert guest.question(handle.id) == await handle.aquestion()
            await handle.aanswer(True)
            assert await handle.aresult("100s") is True

    asyncio.run(main())
