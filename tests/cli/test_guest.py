"""A store beside its owner: start, messages, ids, following, and what is still asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from outlast import Engine, State, ask, step, task, wait_for
from outlast.blocking import ask as ask_blocking
from outlast.engine.guest import Guest
from outlast.engine.task.registry import StartOptions
from outlast.errors import (
    AlreadyAnswered,
    BadPayload,
    KeyConflict,
    NotFound,
    SchemaMismatch,
    TransitionRefused,
    UsageError,
    WrongArguments,
)
from outlast.lifecycle import Kind

from .conftest import until


@task(name="guest_add")
async def add(a: int, b: int = 1) -> int:
    return a + b


@task(name="guest_ask")
async def asks(timeout: str | None = None) -> bool:
    answer: bool = await ask("Go?", bool, timeout=timeout, default=False)
    await wait_for("end")
    return answer


PLAIN = StartOptions()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'guest.db'}"


def test_a_store_that_is_not_there_is_made_only_when_asked_to(url: str) -> None:
    with pytest.raises(SchemaMismatch):
        Guest(url)
    with Guest(url, make=True) as guest:
        assert guest.owner() is None
    Guest(url).close()


def test_start_is_idempotent_by_key(url: str) -> None:
    with Guest(url, make=True) as guest:
        first, is_new = guest.start(add, (1,), {}, StartOptions(key="k"))
        again, is_new_again = guest.start(add, (), {"a": 1, "b": 1}, StartOptions(key="k"))
        assert (is_new, is_new_again, again.id) == (True, False, first.id)
        with pytest.raises(KeyConflict) as raised:
            guest.start(add, (2,), {}, StartOptions(key="k"))
        assert first.id in raised.value.where
        with pytest.raises(WrongArguments):
            guest.start(add, (), {}, PLAIN)
        with pytest.raises(BadPayload):
            guest.start(add, ("one",), {}, PLAIN)
        assert len(guest.store.page(_all())) == 1


def _all() -> Any:
    from outlast.store.protocol import Filter

    return Filter()


def test_an_engine_beside_takes_up_what_a_guest_starts(url: str) -> None:
    with Engine(url), Guest(url) as guest:
        assert guest.owner() == "this very process"
        record, _ = guest.start(add, (2, 3), {}, PLAIN)
        rows = [row for batch in guest.follow(record.id) for row in batch]
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1].payload == b"5"


def test_follow_from_the_middle_and_of_what_has_ended(url: str) -> None:
    with Engine(url), Guest(url) as guest:
        record, _ = guest.start(add, (2,), {}, PLAIN)
        until(lambda: guest.record(record.id).is_final)
        rows = [row for batch in guest.follow(record.id, 2) for row in batch]
    assert [row.seq for row in rows] == [3, 4]


def test_find(url: str) -> None:
    with Guest(url, make=True) as guest:
        with pytest.raises(NotFound):
            guest.find("last")
        ids = [guest.start(add, (n,), {}, PLAIN)[0].id for n in range(3)]
        assert guest.find("last") == ids[-1]
        for id in ids:
            assert guest.find(id) == guest.find(id[-6:]) == guest.find("ex_" + id[-6:]) == id
        with pytest.raises(UsageError, match="several") as raised:
            guest.find(ids[0][:6])
        assert all(id in raised.value.why for id in ids)
        with pytest.raises(UsageError, match="too short"):
            guest.find("ex_a")
        with pytest.raises(NotFound):
            guest.find("ex_nobody")


def test_questions_and_answers(url: str) -> None:
    with Engine(url), Guest(url) as guest:
        record, _ = guest.start(asks, (), {}, PLAIN)
        until(lambda: guest.record(record.id).state is State.AWAITING_INPUT)
        (question,) = guest.questions(record.id)
        assert question.title == "Go?"
        with pytest.raises(BadPayload):
            guest.answer(record.id, "perhaps")
        guest.answer(record.id, True)
        until(lambda: not guest.questions(record.id))
        with pytest.raises(NotFound):
            guest.answer(record.id, True)
        guest.signal(record.id, "end", message_id="once")
        guest.signal(record.id, "end", message_id="once")
        until(lambda: guest.record(record.id).is_final)
        sent = [row for row in guest.log(record.id) if row.kind is Kind.SIGNAL_RECEIVED]
        assert len(sent) == 1


def test_a_question_whose_time_is_over_is_not_open_any_more(url: str) -> None:
    with Engine(url), Guest(url) as guest:
        record, _ = guest.start(asks, ("10ms",), {}, PLAIN)

        def waits_for_the_end() -> bool:
            detail: Any = guest.record(record.id).detail or {}
            return [wait["kind"] for wait in detail.get("waits", ())] == ["event"]

        until(waits_for_the_end)
        assert guest.questions(record.id) == []


def test_two_answers_before_the_owner_looks(url: str) -> None:
    with Engine(url) as engine, Guest(url) as guest:
        record, _ = guest.start(asks, (), {}, PLAIN)
        until(lambda: guest.record(record.id).state is State.AWAITING_INPUT)
        engine.close()
        question = guest.question(record.id)
        guest.answer(record.id, True)
        with pytest.raises((AlreadyAnswered, NotFound)):
            guest.answer(record.id, False, key=question.key)


def test_a_paused_execution_still_asks(url: str) -> None:
    with Engine(url), Guest(url) as guest:
        record, _ = guest.start(asks, (), {}, PLAIN)
        until(lambda: guest.record(record.id).state is State.AWAITING_INPUT)
        guest.pause(record.id)
        assert [question.title for question in guest.questions(record.id)] == ["Go?"]


def test_cancel_again_changes_nothing_and_the_ended_cannot_be_cancelled(url: str) -> None:
    with Guest(url, make=True) as guest:
        record, _ = guest.start(add, (1,), {}, PLAIN)
        assert guest.cancel(record.id, "no need").state is State.CANCELLED
        assert guest.cancel(record.id).state is State.CANCELLED
        with pytest.raises(TransitionRefused):
            guest.pause(record.id)
        with pytest.raises(NotFound):
            guest.cancel("ex_nobody")


def test_the_open_twin(url: str) -> None:
    from outlast.codec import digest

    with Guest(url, make=True) as guest:
        record, _ = guest.start(add, (1,), {}, StartOptions(origin="run"))
        number = digest(add.input.bind((1,), {}))
        twin = guest.open_twin("guest_add", number, "run")
        assert twin is not None
        assert twin.id == record.id
        assert guest.open_twin("guest_add", number, "start") is None
        assert guest.open_twin("guest_add", number + 1, "run") is None
        guest.cancel(record.id)
        assert guest.open_twin("guest_add", number, "run") is None


def test_a_signal_before_the_first_claim_is_not_lost(url: str) -> None:
    with Guest(url, make=True) as guest:
        record, _ = guest.start(asks, ("10ms",), {}, PLAIN)
        guest.signal(record.id, "end")
        with Engine(url):
            until(lambda: guest.record(record.id).is_final)
        assert guest.record(record.id).state is State.SUCCEEDED


@step
def number(value: int) -> int:
    return value


@task(name="guest_def")
def def_task() -> list[int]:
    first = [number(1), number(2)]
    ask_blocking("Go on?")
    return [*first, number(3)]


def test_a_def_task_gets_its_recorded_results_after_a_park(url: str) -> None:
    with Engine(url), Guest(url) as guest:
        record, _ = guest.start(def_task, (), {}, PLAIN)
        until(lambda: guest.record(record.id).state is State.AWAITING_INPUT)
        guest.answer(record.id, True)
        until(lambda: guest.record(record.id).is_final)
        assert guest.log(record.id)[-1].payload == b"[1,2,3]"
