"""Folding a log gives the row, and finds out whatever was done to the log."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from outlast.lifecycle import (
    EDGES,
    BrokenLog,
    Event,
    Execution,
    Kind,
    Refusal,
    State,
    Transition,
    apply,
    create,
    decide,
    fold,
)
from outlast.lifecycle.record import copy_of

WAITS = [
    [{"kind": "ask", "key": "q", "outside": True}],
    [{"kind": "timer", "until": 5}],
]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Transition], Execution]:
    """A random life: whatever the lifecycle allows, in any order."""
    now = draw(st.integers(0, 50))
    data: dict[str, object] = {
        "task": "t",
        "due_at": draw(st.sampled_from([None, 0, 60])),
        "deadline_at": draw(st.sampled_from([None, 80])),
        "start_by": draw(st.sampled_from([None, 40])),
        "priority": draw(st.integers(-2, 2)),
    }
    record, row = create(1, "ex_1", Event(Kind.CREATE, "user", data=data), now)
    rows, leases = [row], [(0, b"-" * 16)]
    for kind in draw(st.lists(st.sampled_from(list(Kind)[1:]), min_size=5, max_size=60)):
        now += draw(st.integers(-9, 9))
        fence, nonce = draw(st.sampled_from([leases[-1], leases[0], (0, None)]))
        if kind is Kind.CLAIM:
            nonce = draw(st.binary(min_size=16, max_size=16))
        said: dict[str, object] = {
            "waits": draw(st.sampled_from(WAITS)),
            "due_at": now + 3,
            "retries": 2,
            "grace_us": 4,
            "priority": draw(st.integers(0, 3)),
            "trigger": draw(st.booleans()),
            "worker": "w",
        }
        if draw(st.booleans()) and record.inbox_seen < record.inbox_count:
            said["inbox"] = record.inbox_seen + 1
        elif draw(st.booleans()):
            record.inbox_count += 1
        event = Event(kind, "actor", fence, nonce, data=said, payload=draw(st.none() | st.binary()))
        decision = decide(record, event, now)
        if isinstance(decision, Refusal):
            continue
        apply(record, decision)
        rows.append(decision.transition)
        if kind is Kind.CLAIM:
            assert decision.transition.nonce is not None
            leases.append((decision.transition.fence, decision.transition.nonce))
    return rows, record


def folds_to(rows: list[Transition], record: Execution) -> bool:
    """Tell whether a log folds to a row, as ``db verify`` asks."""
    try:
        folded = fold(rows)
    except BrokenLog:
        return False
    folded.inbox_count = record.inbox_count
    return folded == record


@given(histories())
def test_a_log_folds_to_its_row(history: tuple[list[Transition], Execution]) -> None:
    rows, record = history
    assert folds_to(rows, record)
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    assert [row.at for row in rows] == sorted(row.at for row in rows), "clocks jump, logs do not"
    waters = [fold(rows[:n]).high_water for n in range(1, len(rows) + 1)]
    assert waters == sorted(waters)


@given(histories(), st.data())
def test_a_dropped_row_is_found(
    history: tuple[list[Transition], Execution], data: st.DataObject
) -> None:
    rows, record = history
    at = data.draw(st.integers(0, len(rows) - 1))
    assert not folds_to(rows[:at] + rows[at + 1 :], record)
    renumbered = [replace(row, seq=seq) for seq, row in enumerate(rows[:at] + rows[at + 1 :], 1)]
    assert not folds_to(renumbered, record)


@given(histories(), st.data())
def test_an_inserted_row_is_found(
    history: tuple[list[Transition], Execution], data: st.DataObject
) -> None:
    rows, record = history
    at = data.draw(st.integers(0, len(rows)))
    again = [*rows[:at], data.draw(st.sampled_from(rows)), *rows[at:]]
    assert not folds_to(again, record)
    assert not folds_to([replace(row, seq=seq) for seq, row in enumerate(again, 1)], record)


@given(histories(), st.data())
def test_two_swapped_rows_are_found(
    history: tuple[list[Transition], Execution], data: st.DataObject
) -> None:
    rows, record = history
    if len(rows) > 1:
        one = data.draw(st.integers(0, len(rows) - 2))
        other = data.draw(st.integers(one + 1, len(rows) - 1))
        swapped = list(rows)
        swapped[one], swapped[other] = rows[other], rows[one]
        assert not folds_to(swapped, record)


@settings(max_examples=300)
@given(histories(), st.data())
def test_a_changed_row_is_found(
    history: tuple[list[Transition], Execution], data: st.DataObject
) -> None:
    """Whatever the machine looks at; what it does not (payload, actor) is checked elsewhere."""
    rows, record = history
    at = data.draw(st.integers(0, len(rows) - 1))
    row = rows[at]
    name = data.draw(
        st.sampled_from(
            ["seq", "fence", "from_state", "to_state", "kind", "tenant", "execution_id"]
        )
    )
    others: dict[str, list[object]] = {
        "seq": [row.seq + 1, row.seq - 1, 0],
        "fence": [row.fence + 1, row.fence - 1],
        "from_state": [state for state in (None, *State) if state is not row.from_state],
        "to_state": [state for state in State if state is not row.to_state],
        "kind": [kind for kind in Kind if (kind, row.from_state, row.to_state) not in EDGES],
        "tenant": [2],
        "execution_id": ["ex_2"],
    }
    value = data.draw(st.sampled_from(others[name]))
    changed = replace(row, **{name: value})  # type: ignore[arg-type]
    assert not folds_to([*rows[:at], changed, *rows[at + 1 :]], record)


@given(histories(), st.data())
def test_a_changed_owner_is_found(
    history: tuple[list[Transition], Execution], data: st.DataObject
) -> None:
    rows, record = history
    owned = [row for row in rows if row.nonce is not None and row.kind is not Kind.CLAIM]
    if owned:
        row = data.draw(st.sampled_from(owned))
        forged = replace(row, nonce=b"forged forged fo")
        assert not folds_to([forged if one is row else one for one in rows], record)


@given(histories(), st.data())
def test_a_changed_row_of_the_execution_is_found(
    history: tuple[list[Transition], Execution], data: st.DataObject
) -> None:
    rows, record = history
    columns: dict[str, object] = {
        "state": State.BLOCKED if record.state is not State.BLOCKED else State.QUEUED,
        "seq": record.seq + 1,
        "fence": record.fence + 1,
        "high_water": (record.high_water + 1) % 4,
        "attempt": record.attempt + 1,
        "failures": record.failures + 1,
        "claims": record.claims + 1,
        "idle_claims": record.idle_claims + 1,
        "inbox_seen": record.inbox_seen + 1,
        "cause": "forged",
        "priority": 77,
        "due_at": 12345,
        "deadline_at": 12345,
        "task": "other",
        "queue": "other",
        "key": "k",
        "detail": {"forged": 1},
        "worker": "forged",
        "state_at": -1,
        "cancel_at": -1,
        "pause_at": -1,
        "created_at": -1,
        "started_at": -1,
        "version": "2",
    }
    name = data.draw(st.sampled_from(sorted(columns)))
    forged = copy_of(record)
    setattr(forged, name, columns[name])
    assert not folds_to(rows, forged)


def test_an_empty_log_is_broken() -> None:
    with pytest.raises(BrokenLog, match="empty"):
        fold([])
