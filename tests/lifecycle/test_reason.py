"""Every open execution has a reason: a code, a sentence, since when, and until when."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from outlast.lifecycle import FINAL, OPEN, Execution, State, reason_of
from outlast.lifecycle.record import Data

ASK = {"kind": "ask", "key": "approve#1", "title": "Ship it?", "to": "ops", "outside": True}

REASONS: list[tuple[State, Data | None, str, str]] = [
    (State.SCHEDULED, None, "start_time", "its start time lies ahead: 1970-01-01 00:00:00 UTC"),
    (
        State.SCHEDULED,
        {"waits_on": [{"id": "ex_2", "need": "end", "or_else": "hold"}]},
        "dependency",
        "it waits for ex_2 to end",
    ),
    (State.QUEUED, None, "no_worker", 'no worker has taken it from queue "default" yet'),
    (State.BLOCKED, {"gate": "gpu"}, "gate_closed", "the gate gpu is closed"),
    (State.BLOCKED, None, "gate_closed", "the gate ? is closed"),
    (
        State.BLOCKED,
        {"gate": "fulfil:ada", "kind": "limit", "capacity": 1, "holders": ["ex_7"]},
        "limit_full",
        "the limit fulfil:ada lets 1 in at a time, and was full: ex_7",
    ),
    (
        State.BLOCKED,
        {"gate": "fulfil", "kind": "limit", "capacity": 9, "holders": ["ex_7", "ex_8"]},
        "limit_full",
        "the limit fulfil lets 9 in at a time, and was full: ex_7, ex_8 and others",
    ),
    (
        State.BLOCKED,
        {"gate": "rate:mail", "kind": "rate", "until": 60_000_000},
        "rate_closed",
        "the rate rate:mail opens again at 1970-01-01 00:01:00 UTC",
    ),
    (
        State.BLOCKED,
        {"gate": "capability:gpu", "kind": "capability"},
        "capability_missing",
        "it needs gpu, which no engine offers",
    ),
    (State.STARTING, None, "starting", "worker w1 prepares it"),
    (State.RUNNING, None, "running", "its code runs on worker w1"),
    (State.AWAITING_INPUT, {"waits": [ASK]}, "awaiting_input", 'ops must answer "Ship it?"'),
    (
        State.AWAITING_INPUT,
        {"waits": [{**ASK, "to": None}, {"kind": "timer"}]},
        "awaiting_input",
        'somebody must answer "Ship it?"',
    ),
    (State.WAITING, {"waits": [{"kind": "timer"}]}, "waiting_timer", "it waits for a timer"),
    (
        State.WAITING,
        {"waits": [{"kind": "child", "child": "ex_2"}]},
        "waiting_child",
        "it waits for child ex_2",
    ),
    (
        State.WAITING,
        {"waits": [{"kind": "timer"}, {"kind": "retry", "key": "pay#1"}]},
        "waiting",
        "it waits for a timer and the next attempt of step pay#1",
    ),
    (
        State.RETRY_WAIT,
        {"error": {"message": "no route"}, "retries": 3},
        "back_off",
        "attempt 2 of 4 failed (no route); the next follows after a back-off",
    ),
    (State.RETRY_WAIT, {"lost": "w1"}, "worker_lost", "worker w1 is gone; it is due again at once"),
    (State.PAUSED, {"by": "ann", "why": None}, "paused", "ann paused it"),
    (State.PAUSED, {"by": "ann", "why": "lunch"}, "paused", "ann paused it: lunch"),
    (State.SUSPENDED, {"code": "crash_loop", "text": "it dies"}, "crash_loop", "it dies"),
    (State.SUSPENDED, {}, "suspended", "the engine preempted it"),
]


@pytest.mark.parametrize(("state", "detail", "code", "text"), REASONS)
def test_reason(state: State, detail: Data | None, code: str, text: str) -> None:
    record = Execution(
        1, "ex_1", "pay", state, 9, worker="w1", failures=2, state_at=41, due_at=77, detail=detail
    )
    reason = reason_of(record)
    assert reason is not None
    assert (reason.code, reason.text, reason.since, reason.until) == (code, text, 41, 77)


def test_a_start_time_is_written_as_the_calendar_has_it() -> None:
    days = random.Random(7).sample(range(2_932_897), 3_000)  # to the end of the year 9999
    for seconds in [*(86_400 * day + 86_399 for day in days), 951_782_400, 1_709_164_800]:
        record = Execution(1, "ex_1", "pay", State.SCHEDULED, 1, due_at=seconds * 1_000_000)
        reason, at = reason_of(record), datetime.fromtimestamp(seconds, UTC)
        assert reason is not None
        assert reason.text.endswith(
            f"ahead: {at:%Y-%m-%d %H:%M:%S} UTC".replace(f"{at:%Y}", f"{at.year:04}")
        )


def test_every_open_state_is_in_the_table() -> None:
    assert {state for state, *_ in REASONS} == set(OPEN)


@pytest.mark.parametrize("state", OPEN)
def test_every_open_state_has_code_and_text_without_any_detail(state: State) -> None:
    reason = reason_of(Execution(1, "ex_1", "pay", state, 1))
    assert reason is not None and reason.code and reason.text


@pytest.mark.parametrize("state", OPEN)
def test_a_requested_cancel_is_said_first(state: State) -> None:
    reason = reason_of(Execution(1, "ex_1", "pay", state, 1, cancel_at=5))
    assert reason is not None
    assert reason.text.startswith("a cancel was requested; ")
    if state is State.SUSPENDED:
        assert reason.code == "suspended", "nothing is under way; somebody has to act"
    else:
        assert reason.code == "cancelling"


def test_a_requested_pause_is_said() -> None:
    reason = reason_of(Execution(1, "ex_1", "pay", State.RUNNING, 1, pause_at=5))
    assert reason is not None and reason.code == "pausing"


def test_hints_name_what_to_do() -> None:
    asked = reason_of(Execution(1, "ex_1", "pay", State.AWAITING_INPUT, 1, detail={"waits": [ASK]}))
    queued = reason_of(Execution(1, "ex_1", "pay", State.QUEUED, 1))
    assert asked is not None and asked.hint == "outlast answer ex_1"
    assert queued is not None and queued.hint == "start an engine that knows task pay"


@pytest.mark.parametrize("state", sorted(FINAL))
def test_what_has_ended_needs_no_reason(state: State) -> None:
    assert reason_of(Execution(1, "ex_1", "pay", state, 1)) is None
