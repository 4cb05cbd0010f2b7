"""Every situation an execution can be in, as far as a dialect can see, with a history that leads
there, and every single step from it.

A dialect sees state, high water, cause and ``paused_from``. There are finitely many of these, so
the search below ends by itself: what it finds is all there is, whatever the length of a history.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from hypothesis import strategies as st

from outlast.lifecycle import Event, Execution, Kind, Refusal, State, Transition, applied, create
from outlast.lifecycle import decide as decided

NOW = 1_000
CAUSES = ("input", "timer", "child", "event", "wait_expired", "budget", "operator", "unpause")
ASK = {"kind": "ask", "key": "ask#1", "title": "Sure?", "outside": True, "until": NOW}
EVENT = {"kind": "event", "key": "wait#1", "title": "paid", "outside": True}
TIMER = {"kind": "timer", "until": NOW}
WAITS: tuple[list[dict[str, object]], ...] = ([ASK, EVENT, TIMER], [EVENT], [TIMER])
DATA: dict[Kind, tuple[dict[str, object], ...]] = {
    Kind.RESUME: tuple({"cause": cause} for cause in CAUSES),
    Kind.WAIT: tuple({"waits": waits} for waits in WAITS),
    Kind.STEP: ({}, {"reused": 4}),
}
KEYS = {
    Kind.INPUT_RECEIVED: "ask#1",
    Kind.SIGNAL_RECEIVED: "paid",
    Kind.CALL_ABANDONED: "wait#1",
    Kind.STEP: "step#1",
}
WIDE: dict[str, object] = {"trigger": True, "retries": 99, "grace_us": 0, "priority": 1}
"""What opens the guards that look at numbers; the deadline has passed at birth."""


@dataclass(frozen=True)
class Life:
    """An execution, and the log that led to it."""

    record: Execution
    rows: tuple[Transition, ...]


Situation = tuple[State, int, str | None, State | None, bool]


def situation(record: Execution) -> Situation:
    """What a dialect can see of an execution; and whether a cancel bars it from succeeding."""
    is_cancelling = record.cancel_at is not None
    return record.state, record.high_water, record.cause, record.paused_from, is_cancelling


def births() -> Iterator[Life]:
    """Give an execution that is due and one that is not."""
    for due_at in (None, NOW + 1):
        data = {"task": "t", "due_at": due_at, "deadline_at": 0}
        record, row = create(1, "ex_1", Event(Kind.CREATE, "user", data=data), NOW)
        yield Life(record, (row,))


def steps(life: Life) -> Iterator[Life]:
    """Give what every event that the lifecycle allows makes of an execution."""
    record = life.record
    for kind in Kind:
        if kind is Kind.CREATE:
            continue
        for data in DATA.get(kind, ({},)):
            for event in _written(record, kind, {**WIDE, **data}):
                decision = decided(record, event, NOW)
                if not isinstance(decision, Refusal):
                    yield Life(applied(record, decision), (*life.rows, decision.transition))


def _written(record: Execution, kind: Kind, data: dict[str, object]) -> Iterator[Event]:
    """Write an event as its owner, and as somebody else."""
    key = KEYS.get(kind)
    if kind is Kind.CLAIM:
        yield Event(kind, "worker", record.fence, bytes(16), key, data=data)
        return
    if record.is_leased:
        yield Event(kind, "worker", record.fence, record.nonce, key, data=data)
    yield Event(kind, "user", key=key, data=data)


@cache
def situations() -> dict[Situation, Life]:
    """Give every situation there is, each with a shortest history that leads to it."""
    found = {situation(life.record): life for life in births()}
    front = list(found.values())
    for life in front:  # it grows while it is read
        for following in steps(life):
            if situation(following.record) not in found:
                found[situation(following.record)] = following
                front.append(following)
    return found


@cache
def every_step() -> tuple[Life, ...]:
    """Give every birth, and every step from every situation."""
    return (*births(), *(after for life in situations().values() for after in steps(life)))


def all_of_length(length: int) -> Iterator[Life]:
    """Give every history of so many rows, and the shorter ones that have ended."""
    for life in births():
        yield from _longer(life, length)


def _longer(life: Life, length: int) -> Iterator[Life]:
    if len(life.rows) == length or life.record.is_final:
        yield life
        return
    for following in steps(life):
        if _says_more(following):
            yield from _longer(following, length)


def _says_more(life: Life) -> bool:
    """Tell whether a row is more than a note; one kind of note stands for all that do nothing."""
    last = life.rows[-1]
    return last.from_state is not last.to_state or last.kind in (Kind.STEP, Kind.INPUT_RECEIVED)


@st.composite
def walks(draw: st.DrawFn) -> Life:
    """A long random life: at each turn any step that is allowed."""
    life = draw(st.sampled_from(list(births())))
    for turn in draw(st.lists(st.integers(0, 10_000), min_size=1, max_size=60)):
        following = [one for one in steps(life) if not one.record.is_final] or [life]
        life = following[turn % len(following)]
    endings = [one for one in steps(life) if one.record.is_final]
    return draw(st.sampled_from([life, *endings]))
