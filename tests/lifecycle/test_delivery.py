"""What each message does in each state, as one table."""

from __future__ import annotations

import pytest

from outlast.lifecycle import (
    OPEN,
    Decision,
    Event,
    Execution,
    Kind,
    Message,
    MessageKind,
    Refusal,
    State,
    applied,
    decide,
    events_of,
    note_of,
)
from outlast.lifecycle.delivery import is_awaited

# state: what the execution is in and waits for, if anything -> kinds of the rows, and the new state
DELIVERIES = """
scheduled             answer    -> input_received                scheduled
scheduled             cancel    -> cancel                        cancelled
scheduled             pause     -> pause                         paused
scheduled             resume    -> promote                       queued
queued                answer    -> input_received                queued
queued                signal    -> signal_received               queued
queued                child     -> child_finished                queued
queued                cancel    -> cancel                        cancelled
queued                pause     -> pause                         paused
queued                resume    -> annotation                    queued
blocked               cancel    -> cancel                        cancelled
blocked               pause     -> pause                         paused
blocked               resume    -> annotation                    blocked
awaiting_input:ask    answer    -> input_received resume         queued
awaiting_input:event  answer    -> input_received                awaiting_input
awaiting_input:other  answer    -> input_received                awaiting_input
awaiting_input:event  signal    -> signal_received resume        queued
awaiting_input:ask    signal    -> signal_received               awaiting_input
awaiting_input:ask    cancel    -> cancel                        cancelled
awaiting_input:ask    pause     -> pause                         paused
awaiting_input:ask    resume    -> resume                        queued
waiting:child         child     -> child_finished resume         queued
waiting:child         answer    -> input_received                waiting
waiting:event         signal    -> signal_received resume        queued
waiting:timer         signal    -> signal_received               waiting
waiting:timer         pause     -> pause                         paused
waiting:timer         resume    -> resume                        queued
waiting:timer         cancel    -> cancel                        cancelled
retry_wait            answer    -> input_received                retry_wait
retry_wait            resume    -> retry_due                     queued
retry_wait            cancel    -> cancel                        cancelled
retry_wait            pause     -> pause                         paused
paused:queued         answer    -> input_received                paused
paused:queued         resume    -> unpause                       queued
paused:running        resume    -> unpause                       queued
paused:scheduled      resume    -> unpause                       scheduled
paused:retry_wait     resume    -> unpause                       retry_wait
paused:suspended      resume    -> unpause                       suspended
paused:waiting        resume    -> unpause resume                queued
paused:awaiting_input resume    -> unpause resume                queued
paused:awaiting_input answer    -> input_received                paused
paused:awaiting_input cancel    -> cancel                        cancelled
paused:queued         pause     -> already_paused
suspended             answer    -> input_received                suspended
suspended             resume    -> resume                        queued
suspended             pause     -> pause                         paused
suspended             cancel    -> cancel                        cancelled
queued                priority  -> priority_changed              queued
queued                labels    -> labels_changed                queued
suspended             budget    -> budget_changed                suspended
scheduled:success     upstream  -> upstream_ended promote        queued
scheduled:both        upstream  -> upstream_ended                scheduled
scheduled:failure     upstream  -> upstream_ended cancel         cancelled
scheduled:held        upstream  -> upstream_ended                scheduled
scheduled:end         upstream  -> upstream_ended promote        queued
scheduled:later       upstream  -> upstream_ended                scheduled
queued                upstream  -> upstream_ended                queued
waiting:cleanup       cancel    -> cancel_requested resume       queued
awaiting_input:cleanup cancel   -> cancel_requested resume       queued
paused:cleanup        cancel    -> cancel_requested unpause resume queued
waiting:asked         cancel    -> annotation                    waiting
waiting:asked         pause     -> annotation                    waiting
queued:asked          pause     -> annotation                    queued
suspended:asked       cancel    -> cancel                        cancelled
waiting:forced        cancel    -> cancel                        cancelled
paused:queued         note      -> annotation                    paused
"""


def execution(text: str) -> Execution:
    name, _, more = text.partition(":")
    record = Execution(1, "ex_1", "t", State(name), 5, inbox_count=1, due_at=9, detail={})
    if record.state is State.SCHEDULED and more:
        need = "end" if more == "end" else "success"
        edge = {"id": "ex_0", "need": need, "or_else": "hold" if more == "held" else "cancel"}
        others = [{**edge, "id": "ex_9"}] if more == "both" else []
        record.detail = {"waits_on": [edge, *others]}
        record.due_at = 99 if more == "later" else None
    elif more in ("cleanup", "asked", "forced"):
        record.detail = {"waits": [{"kind": "timer"}], "cleanup": True}
        record.cancel_at = 40 if more == "asked" else None
        if record.state is State.PAUSED:
            record.paused_from = State.WAITING
            record.detail = {"held_detail": record.detail, "held_due_at": 60}
    elif record.state is State.PAUSED:
        record.paused_from = State(more)
        record.detail = {"held_detail": {"waits": [{"kind": "ask", "key": "it"}]}, "held_due_at": 3}
    elif more:
        key = "another" if more == "other" else "it"
        kind = "ask" if more == "other" else more
        record.detail = {"waits": [{"kind": "timer"}, {"kind": kind, "key": key, "title": key}]}
    return record


def message(kind: str, more: str = "") -> Message:
    failed = more in ("failure", "held")
    data = {
        "priority": 4,
        "upstream": "ex_0",
        "state": "failed" if failed or more == "end" else "succeeded",
        "force": more == "forced",
    }
    return Message("m1", MessageKind(kind), "ann", "it", data, b'"yes"')


@pytest.mark.parametrize("line", DELIVERIES.strip().splitlines())
def test_delivery(line: str) -> None:
    left, _, right = line.partition("->")
    text, kind = left.split()
    *wanted, state = right.split()
    record = execution(text)
    rows: list[str] = []
    events = events_of(record, message(kind, text.partition(":")[2]), 1)
    for event in events:
        decision = decide(record, event, 50)
        if isinstance(decision, Refusal):
            assert (wanted, state) == ([], decision.code)
            return
        rows.append(decision.transition.kind)
        record = applied(record, decision)
    assert (rows, record.state) == (wanted, state)
    assert record.inbox_seen == 1, "the log counts what it has taken in"


def test_the_table_has_every_message_and_every_state_nobody_owns() -> None:
    cells = [line.split()[:2] for line in DELIVERIES.strip().splitlines()]
    assert {kind for _, kind in cells} == set(MessageKind)
    unleased = {state for state in OPEN if state not in (State.STARTING, State.RUNNING)}
    assert {text.partition(":")[0] for text, _ in cells} == unleased


@pytest.mark.parametrize("kind", list(MessageKind))
def test_an_owner_can_take_every_message_as_a_note(kind: MessageKind) -> None:
    nonce = b"n" * 16
    for state in (State.STARTING, State.RUNNING):
        record = Execution(
            1, "ex_1", "t", state, 5, fence=1, nonce=nonce, worker="w", inbox_count=3
        )
        note = note_of(message(kind), 3)
        note.fence, note.nonce = 1, nonce
        decision = decide(record, note, 50)
        assert isinstance(decision, Decision)
        after = applied(record, decision)
        assert (after.state, after.inbox_seen, after.nonce) == (state, 3, nonce)
        if kind is not MessageKind.RESUME:
            assert (note.key, note.payload, note.actor) == ("it", b'"yes"', "ann")


def test_a_kept_answer_is_seen_by_whoever_comes_next() -> None:
    """An answer while it is held stays in the log; the wait wakes when the hold ends."""
    record = execution("paused:awaiting_input")
    rows: list[Kind] = []
    for number, one in enumerate((message("answer"), message("resume")), 1):
        record.inbox_count = number
        for event in events_of(record, one, number):
            decision = decide(record, event, 50 + number)
            assert isinstance(decision, Decision)
            rows.append(decision.transition.kind)
            record = applied(record, decision)
    assert rows == ["input_received", "unpause", "resume"]
    assert (record.state, record.cause, record.inbox_seen) == ("queued", "unpause", 2)


def test_what_is_awaited() -> None:
    record = execution("awaiting_input:ask")
    assert is_awaited(record, message("answer"))
    assert not is_awaited(record, message("signal"))
    record.detail = None
    assert not is_awaited(record, message("answer"))


def test_the_reason_of_a_cancel_is_kept() -> None:
    asked = Message("m1", MessageKind.CANCEL, "ann", data={"why": "too late"})
    (event,) = events_of(execution("queued"), asked, 1)
    decision = decide(execution("queued"), event, 50)
    assert isinstance(decision, Decision)
    assert applied(execution("queued"), decision).detail == {"by": "ann", "why": "too late"}
    assert event == Event(Kind.CANCEL, "ann", data={"by": "ann", "why": "too late", "inbox": 1})
