"""What the machine as a graph promises: no dead ends, and parked means parked."""

from __future__ import annotations

import pytest

from outlast.lifecycle import EDGES, FINAL, OPEN, PARKED, Kind, State

OUTSIDE = {Kind.RESUME, Kind.UNPAUSE, Kind.PAUSE}
"""What a named outside actor does; resume of a wait may be the clock's as well."""


def successors(state: State | None, *, without: frozenset[Kind] = frozenset()) -> set[State]:
    return {into for kind, source, into in EDGES if source == state and kind not in without}


def reachable(state: State | None, *, without: frozenset[Kind] = frozenset()) -> set[State]:
    seen: set[State] = set()
    front = successors(state, without=without)
    while front:
        seen |= front
        front = {into for one in front for into in successors(one, without=without)} - seen
    return seen


@pytest.mark.parametrize("state", OPEN)
def test_every_open_state_reaches_every_final_state(state: State) -> None:
    assert reachable(state) >= FINAL


@pytest.mark.parametrize("state", OPEN)
def test_every_open_state_can_be_cancelled_and_timed_out_at_once(state: State) -> None:
    assert successors(state) >= {State.CANCELLED, State.TIMED_OUT}


@pytest.mark.parametrize("state", OPEN)
def test_success_needs_no_cancel_and_no_deadline(state: State) -> None:
    assert State.SUCCEEDED in reachable(state, without=frozenset({Kind.CANCEL, Kind.DEADLINE}))


def test_every_state_is_reachable_from_birth() -> None:
    assert reachable(None) == set(State)


@pytest.mark.parametrize("state", sorted(PARKED))
def test_what_is_parked_never_ends_by_itself(state: State) -> None:
    leaving = {(kind, into) for kind, source, into in EDGES if source == state and into != state}
    ends = {kind for kind, into in leaving if into in FINAL}
    assert ends == {Kind.CANCEL, Kind.DEADLINE}
    assert {kind for kind, _ in leaving} <= OUTSIDE | {Kind.CANCEL, Kind.DEADLINE}


def test_only_parked_states_have_no_exit_but_an_actor_cancel_and_deadline() -> None:
    actors = frozenset(OUTSIDE | {Kind.CANCEL, Kind.DEADLINE})
    stuck = {s for s in OPEN if successors(s, without=actors) <= {s}}
    assert stuck == PARKED


def test_finals_have_no_exit() -> None:
    assert not [edge for edge in EDGES if edge[1] in FINAL]


def test_a_final_state_is_entered_by_its_own_kinds_only() -> None:
    entering = {state: {k for k, s, t in EDGES if t == state} for state in sorted(FINAL)}
    assert entering == {
        State.SUCCEEDED: {Kind.FINISH},
        State.FAILED: {Kind.ERROR, Kind.EXHAUSTED},
        State.CANCELLED: {Kind.CANCEL},
        State.TIMED_OUT: {Kind.DEADLINE},
    }
