"""Flyte's actions beside the root: a wait for somebody outside, and a result used again."""

from __future__ import annotations

from hypothesis import given

from outlast.dialects import project
from outlast.dialects.flyte_action import DIALECT
from outlast.lifecycle import Event, Kind, Refusal, Transition, apply, create, decide

from .canonical import ASK, EVENT, NOW, TIMER, Life, walks


def log(*events: tuple[Kind, str | None, dict[str, object]]) -> list[Transition]:
    """Write a log: every event by whoever may."""
    data = {"task": "t", "deadline_at": NOW + 50}
    record, row = create(1, "ex_1", Event(Kind.CREATE, "u", data=data), NOW - 10)
    rows = [row]
    for kind, key, more in events:
        nonce = bytes(16) if kind is Kind.CLAIM else record.nonce
        event = Event(kind, "u", record.fence, nonce, key, data={"retries": 9, **more})
        if kind is Kind.DEADLINE:
            event.nonce = None
        decision = decide(record, event, NOW + 50 if kind is Kind.DEADLINE else NOW)
        assert not isinstance(decision, Refusal), (kind, decision)
        apply(record, decision)
        rows.append(decision.transition)
    return rows


CLAIM, START = (Kind.CLAIM, None, {}), (Kind.START, None, {})
BEGUN = (CLAIM, START)


def wait(*waits: dict[str, object]) -> tuple[Kind, str | None, dict[str, object]]:
    return Kind.WAIT, None, {"waits": list(waits)}


def beside(rows: list[Transition]) -> list[str]:
    """What is told of actions beside the root, each as "action phase"."""
    return [f"{one.action} {one.target}" for one in project(DIALECT, rows) if one.action != "a0"]


ASKED = (*BEGUN, wait(ASK, EVENT, TIMER))
ANSWER, RESUME = (Kind.INPUT_RECEIVED, "ask#1", {}), (Kind.RESUME, None, {"cause": "input"})


def test_waits_for_somebody_outside_are_conditions_and_timers_are_not() -> None:
    assert beside(log(*ASKED)) == ["ask#1 PAUSED", "wait#1 PAUSED"]
    assert beside(log(*BEGUN, wait(TIMER))) == []


def test_an_answer_and_a_signal_end_what_they_are_for() -> None:
    assert beside(log(*ASKED, ANSWER))[2:] == ["ask#1 SUCCEEDED"]
    assert beside(log(*ASKED, (Kind.INPUT_RECEIVED, "ask#2", {})))[2:] == []
    assert beside(log(*ASKED, (Kind.SIGNAL_RECEIVED, "paid", {})))[2:] == ["wait#1 SUCCEEDED"]
    assert beside(log(*ASKED, (Kind.SIGNAL_RECEIVED, "sold", {})))[2:] == []


def test_an_answer_that_comes_while_it_is_held_counts_at_once() -> None:
    held = (*ASKED, (Kind.PAUSE, None, {}), ANSWER)
    assert beside(log(*held))[2:] == ["ask#1 SUCCEEDED"]


def test_a_condition_times_out_when_its_own_time_is_over() -> None:
    expired = (Kind.RESUME, None, {"cause": "wait_expired"})
    assert beside(log(*ASKED, expired))[2:] == ["ask#1 TIMED_OUT"]
    later = {**ASK, "until": NOW + 1}
    assert beside(log(*BEGUN, wait(later), expired))[1:] == []


def test_what_is_not_waited_for_any_more_is_aborted() -> None:
    again = (*ASKED, ANSWER, RESUME, *BEGUN, wait(TIMER))
    assert beside(log(*again))[2:] == ["ask#1 SUCCEEDED", "wait#1 ABORTED"]
    given_up = (*ASKED, RESUME, *BEGUN, (Kind.CALL_ABANDONED, "wait#1", {}))
    assert beside(log(*given_up))[2:] == ["ask#1 TIMED_OUT", "wait#1 ABORTED"]


def test_what_is_waited_for_again_stays_one_condition() -> None:
    again = (*ASKED, ANSWER, RESUME, *BEGUN, wait(EVENT))
    assert beside(log(*again)) == ["ask#1 PAUSED", "wait#1 PAUSED", "ask#1 SUCCEEDED"]


def test_names_are_unique() -> None:
    again = (*ASKED, ANSWER, RESUME, *BEGUN, wait(ASK), ANSWER)
    assert beside(log(*again))[2:] == [
        "ask#1 SUCCEEDED",
        "wait#1 ABORTED",
        "ask#1.2 PAUSED",
        "ask#1.2 SUCCEEDED",
    ]


def test_the_end_of_the_run_ends_its_conditions_first() -> None:
    cancelled = project(DIALECT, log(*ASKED, (Kind.CANCEL, None, {})))
    assert [f"{one.action} {one.target}" for one in cancelled[-3:]] == [
        "ask#1 ABORTED",
        "wait#1 ABORTED",
        "a0 ABORTED",
    ]
    assert beside(log(*ASKED, (Kind.DEADLINE, None, {})))[2:] == [
        "ask#1 TIMED_OUT",
        "wait#1 TIMED_OUT",
    ]


def test_a_condition_opens_after_its_parent_runs() -> None:
    early = project(DIALECT, log(CLAIM, wait(EVENT)))
    assert [f"{one.action} {one.target}" for one in early[-2:]] == ["a0 RUNNING", "wait#1 PAUSED"]


def test_a_result_that_is_used_again_is_recovered() -> None:
    retried = (*BEGUN, (Kind.STEP, "pay#1", {}), (Kind.RETRY, None, {}), (Kind.RETRY_DUE, None, {}))
    reused = (*retried, *BEGUN, (Kind.STEP, "pay#1", {"reused": 4}))
    assert beside(log(*retried)) == []
    assert beside(log(*reused)) == ["pay#1 RECOVERED"]


@given(walks())
def test_a_condition_is_open_only_under_a_running_parent(life: Life) -> None:
    open_conditions: set[str] = set()
    root = ""
    for one in project(DIALECT, life.rows):
        if one.action == "a0":
            root = one.target
            assert root == "RUNNING" or not open_conditions
        elif one.target == "PAUSED":
            open_conditions.add(one.action)
            assert root == "RUNNING"
        else:
            open_conditions.discard(one.action)
