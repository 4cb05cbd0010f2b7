"""Every state × every kind × every fact a guard looks at: one rule fires, or one refusal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product

import pytest
from msgspec.structs import replace

from outlast.lifecycle import (
    EDGES,
    FINAL,
    LEASED,
    OPEN,
    PARKED,
    REFUSALS,
    RULES,
    Decision,
    Event,
    Execution,
    Kind,
    Refusal,
    State,
    applied,
    create,
    decide,
)
from outlast.lifecycle.states import MEANINGS, TAKEOVERS
from outlast.lifecycle.table import CELLS, REFUSAL_MEANINGS

NOW = 1_000_000
MINE, OTHER = b"m" * 16, b"o" * 16

# Written from design/lifecycle.md, section 3, by hand; "open" is every open state.
SPECIFICATION = """
create            - -> queued | - -> scheduled
promote           scheduled -> queued
block             queued -> blocked
unblock           blocked -> queued
claim             queued blocked -> starting
release           starting running -> queued
lease_expired     starting -> queued
worker_lost       running -> retry_wait
start             starting -> running
step              running -> running
init_branch       running -> running
finish_branch     running -> running
wait              starting running -> awaiting_input | starting running -> waiting
resume            awaiting_input waiting suspended -> queued
pause             scheduled queued blocked running -> paused
pause             awaiting_input waiting retry_wait suspended -> paused
unpause           paused -> queued | paused -> scheduled | paused -> awaiting_input
unpause           paused -> waiting | paused -> retry_wait | paused -> suspended
suspend           starting running -> suspended
retry             starting running -> retry_wait
retry_due         retry_wait -> queued
exhausted         retry_wait -> failed
finish            starting running -> succeeded
error             starting running -> failed
cancel            open -> cancelled
deadline          open -> timed_out
cancel_requested  starting running awaiting_input waiting paused -> same
pause_requested   starting running -> same
input_received    open -> same
signal_received   open -> same
child_finished    open -> same
timer_fired       running -> same
attempt_failed    running -> same
step_announced    running -> same
call_abandoned    running -> same
budget_changed    open -> same
priority_changed  open -> same
labels_changed    open -> same
annotation        open -> same
upstream_ended    open -> same
"""


def specified() -> Iterator[tuple[str, str, str]]:
    for line in SPECIFICATION.strip().splitlines():
        kind, _, rest = line.partition(" ")
        for part in rest.split("|"):
            sources, _, target = part.partition("->")
            for source in [*OPEN] if sources.strip() == "open" else sources.split():
                yield (
                    kind,
                    "" if source == "-" else str(source),
                    str(source) if target.strip() == "same" else target.strip(),
                )


def test_the_edges_are_those_of_the_specification() -> None:
    assert {(str(k), str(s or ""), str(t)) for k, s, t in EDGES} == set(specified())


def records(state: State) -> Iterator[Execution]:
    """Every record a guard can tell apart, in one state."""
    base = Execution(1, "ex", "task", state, 7, fence=3, high_water=2, claims=2, idle_claims=1)
    if state in LEASED:
        base = replace(base, nonce=MINE, worker="w1")
    for due, deadline, unseen, asked, failures in product(
        (None, NOW, NOW + 1), (None, NOW, NOW + 1), (0, 1), (None, NOW, NOW - 10), (0, 2)
    ):
        record = replace(
            base,
            due_at=due,
            deadline_at=deadline,
            inbox_count=4,
            inbox_seen=4 - unseen,
            cancel_at=asked,
            pause_at=asked,
            failures=failures,
            detail={"waits_on": []},
        )
        if state is State.PAUSED:
            for held in (*OPEN[:3], State.RUNNING, *OPEN[5:8], State.SUSPENDED):
                yield replace(record, paused_from=held)
        elif state is State.SCHEDULED:
            yield record
            yield replace(
                record,
                detail={"waits_on": [{"id": "ex_other", "need": "success", "or_else": "cancel"}]},
            )
        else:
            yield record


DATA = (
    {"waits": [{"kind": "ask", "outside": True}, {"kind": "timer"}], "grace_us": 10, "retries": 2},
    {"waits": [{"kind": "timer"}], "trigger": True, "grace_us": 11, "retries": 3, "priority": 5},
)


def events(kind: Kind) -> Iterator[Event]:
    """The event by its owner, by one with an old fence, by one with another nonce, by nobody."""
    for data in DATA:
        data = {"priority": 1, **data}
        yield Event(kind, "a", 3, MINE, data=data)
        yield Event(kind, "a", 2, MINE, data=data)
        yield Event(kind, "a", 3, OTHER, data=data)
        yield Event(kind, "a", 0, None, data=data)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("kind", list(Kind))
def test_one_rule_or_one_refusal(state: State, kind: Kind) -> None:
    cell = CELLS.get((state, kind), ())
    assert bool(cell) is ((state, kind) not in REFUSALS), "a rule or a refusal, never both"
    assert len({rule.otherwise for rule in cell}) <= 1, "the refusal of a cell is unambiguous"
    fired: set[str] = set()
    facts = records(state)
    for record in facts if cell else islice(facts, 1):  # without a rule no fact is looked at
        for event in events(kind):
            verdict = decide(record, event, NOW)
            holds = [rule for rule in cell if rule.guard(record, event, NOW)]
            assert len(holds) <= 1, "guards of one cell exclude each other"
            if isinstance(verdict, Refusal):
                check_refusal(verdict, record, event, bool(cell), bool(holds))
            else:
                assert [verdict.rule] == holds
                fired.add(verdict.rule.id)
                check_decision(record, event, verdict)
    assert fired == {rule.id for rule in cell}, "every rule of the cell fires for some facts"


def check_refusal(
    verdict: Refusal, record: Execution, event: Event, cell: bool, holds: bool
) -> None:
    assert verdict.code in REFUSAL_MEANINGS
    assert (verdict.state, verdict.kind) == (record.state, event.kind)
    if not cell:
        assert verdict.code == REFUSALS[record.state, event.kind]
    elif verdict.code == "fenced":
        assert not may_write(record, event)
    else:
        assert may_write(record, event) and not holds
        assert verdict.code == CELLS[record.state, event.kind][0].otherwise


def may_write(record: Execution, event: Event) -> bool:
    """Who may write, said once more: its owner, a takeover, or where nobody owns it, anybody."""
    if record.state not in LEASED:
        return (event.nonce is not None) == (event.kind is Kind.CLAIM)
    if event.nonce is None:
        return event.kind in TAKEOVERS
    owns = (event.fence, event.nonce) == (record.fence, record.nonce)
    return owns and event.kind not in (Kind.LEASE_EXPIRED, Kind.WORKER_LOST)


def check_decision(record: Execution, event: Event, decision: Decision) -> None:
    assert may_write(record, event)
    after, row = applied(record, decision), decision.transition
    assert (row.seq, row.from_state, row.to_state) == (record.seq + 1, record.state, after.state)
    assert (row.kind, row.at, row.actor, row.data) == (event.kind, NOW, "a", event.data)
    assert (event.kind, record.state, after.state) in EDGES
    assert after.seq == record.seq + 1
    assert after.high_water >= record.high_water
    assert after.attempt >= record.attempt and after.claims >= record.claims
    assert (after.nonce is not None) == (after.worker is not None or after.state in LEASED)
    assert (after.nonce is not None) == (after.state in LEASED)
    raised = event.kind is Kind.CLAIM or (record.state in LEASED and event.nonce is None)
    assert after.fence == record.fence + raised == row.fence
    assert (after.claims, after.failures) == (
        record.claims + (event.kind is Kind.CLAIM),
        record.failures + (event.kind is Kind.RETRY),
    )
    assert (after.state is State.PAUSED) == (after.paused_from is not None)
    if after.state is record.state:
        assert after.state_at == record.state_at
    else:
        assert after.state_at == NOW
    if record.state in PARKED:
        assert after.state not in (State.FAILED, State.SUCCEEDED), "what is parked never fails"


@pytest.mark.parametrize("kind", list(Kind))
def test_finals_are_closed(kind: Kind) -> None:
    for state in FINAL:
        assert REFUSALS[state, kind] == "already_final"
        record = Execution(1, "ex", "task", state, 7)
        for event in events(kind):
            assert decide(record, event, NOW) == Refusal(state, kind, "already_final")


@pytest.mark.parametrize("kind", list(Kind))
def test_before_birth_there_is_only_birth(kind: Kind) -> None:
    if kind is Kind.CREATE:
        assert (None, kind) in CELLS and (None, kind) not in REFUSALS
    else:
        assert REFUSALS[None, kind] == "no_execution"


@pytest.mark.parametrize(
    ("data", "state", "rule"),
    [
        ({"task": "t"}, "queued", "T01"),
        ({"task": "t", "due_at": NOW}, "queued", "T01"),
        ({"task": "t", "due_at": NOW + 1}, "scheduled", "T02"),
        ({"task": "t", "waits_on": []}, "queued", "T01"),
        (
            {"task": "t", "waits_on": [{"id": "ex_other", "need": "success", "or_else": "cancel"}]},
            "scheduled",
            "T02",
        ),
        (
            {
                "task": "t",
                "waits_on": [{"id": "ex_other", "need": "success", "or_else": "cancel"}],
                "due_at": NOW,
            },
            "scheduled",
            "T02",
        ),
    ],
)
def test_birth(data: dict[str, object], state: str, rule: str) -> None:
    event = Event(Kind.CREATE, "user", data=data)
    holds = [r for r in CELLS[None, Kind.CREATE] if r.guard(None, event, NOW)]
    record, row = create(1, "ex", event, NOW)
    assert [r.id for r in holds] == [rule]
    assert (record.state, row.to_state, row.from_state, record.seq) == (state, state, None, 1)
    assert (record.high_water, record.cause, record.claims, record.fence) == (0, "first", 0, 0)


def test_a_decision_changes_nothing_by_itself() -> None:
    for record in islice(records(State.RUNNING), 20):
        before = replace(record)
        for kind in Kind:
            for event in events(kind):
                decide(record, event, NOW)
        assert record == before


def test_ids_are_unique_and_every_refusal_has_a_meaning() -> None:
    ids = [rule.id for rule in RULES]
    assert len(set(ids)) == len(ids)
    used = {*REFUSALS.values(), *(rule.otherwise for rule in RULES)} - {"not_possible"}
    assert used <= REFUSAL_MEANINGS.keys()
    assert REFUSAL_MEANINGS.keys() - used == {"not_possible", "fenced"}, "no meaning without a use"
    assert all(rule.meaning and rule.guard.__doc__ for rule in RULES)
    assert MEANINGS.keys() == set(State)
