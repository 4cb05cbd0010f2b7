"""The table: every transition there is, one row per rule, and the refusal of every other cell.

The table is the machine. Code decides by it (``decide``), the databases' edge tables are filled
from it, ``docs/lifecycle.md`` is rendered from it, and the test matrix is generated from it.

Guards are named predicates over (record, event, now). For one (state, kind) at most one rule's
guard may hold; when none does, the first rule's ``otherwise`` names the refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from outlast.lifecycle.record import Event, Execution
from outlast.lifecycle.states import FINAL, LEASED, OPEN, Kind, State

Guard = Callable[[Execution | None, Event, int], bool]
K, S = Kind, State


def always(record: Execution | None, event: Event, now: int) -> bool:
    """No condition."""
    return True


def is_due(record: Execution | None, event: Event, now: int) -> bool:
    """Nothing is unmet: no start time lies ahead and no dependency is open."""
    data = event.data or {}
    due_at = data.get("due_at")
    return (due_at is None or _integer(due_at) <= now) and not data.get("waits_on")


def not_due(record: Execution | None, event: Event, now: int) -> bool:
    """A start time lies ahead, or a dependency is open."""
    return not is_due(record, event, now)


def due_or_triggered(record: Execution | None, event: Event, now: int) -> bool:
    """The start time has come and no dependency is open, or somebody triggered it."""
    assert record is not None
    if event.data and event.data.get("trigger"):
        return True
    waits_on = record.detail.get("waits_on") if record.detail else None
    return not waits_on and (record.due_at is None or record.due_at <= now)


def back_off_over(record: Execution | None, event: Event, now: int) -> bool:
    """The back-off has passed, or somebody asked for the retry at once."""
    assert record is not None
    forced = bool(event.data and event.data.get("trigger"))
    return forced or record.due_at is None or record.due_at <= now


def retries_left(record: Execution | None, event: Event, now: int) -> bool:
    """The policy allows one more attempt after this failure, and no message is unseen."""
    assert record is not None
    allowed = _integer((event.data or {}).get("retries", 0))
    return record.failures < allowed and record.inbox_count == record.inbox_seen


def waits_outside(record: Execution | None, event: Event, now: int) -> bool:
    """At least one branch waits for a person or an outside system."""
    assert record is not None
    return _waits(event, outside=True) and record.inbox_count == record.inbox_seen


def waits_inside(record: Execution | None, event: Event, now: int) -> bool:
    """Every branch waits for a timer, a child or an internal event."""
    assert record is not None
    return _waits(event, outside=False) and record.inbox_count == record.inbox_seen


def nothing_unseen(record: Execution | None, event: Event, now: int) -> bool:
    """Every message in the inbox has been taken into the log."""
    assert record is not None
    return record.inbox_count == record.inbox_seen


def no_cancel_pending(record: Execution | None, event: Event, now: int) -> bool:
    """No cancel was requested."""
    assert record is not None
    return record.cancel_at is None


def by_owner_or_grace_over(record: Execution | None, event: Event, now: int) -> bool:
    """Its owner writes it, or a cancel was requested and the grace has passed."""
    assert record is not None
    if event.nonce is not None:
        return True
    grace = _integer((event.data or {}).get("grace_us", 0))
    return record.cancel_at is not None and record.cancel_at + grace <= now


def deadline_passed(record: Execution | None, event: Event, now: int) -> bool:
    """The execution's own deadline has passed, or the instant by which it must have begun."""
    assert record is not None
    instants = (record.deadline_at, record.start_by)
    return any(instant is not None and instant <= now for instant in instants)


def first_request(record: Execution | None, event: Event, now: int) -> bool:
    """It was not requested before."""
    assert record is not None
    return (record.cancel_at if event.kind is K.CANCEL_REQUESTED else record.pause_at) is None


def held_from(*states: State) -> Guard:
    """Make the guard that an execution was paused in one of these states."""

    def guard(record: Execution | None, event: Event, now: int) -> bool:
        return record is not None and record.paused_from in states

    guard.__name__ = "held_from_" + "_or_".join(states)
    guard.__doc__ = "It was paused while " + " or ".join(states) + "."
    return guard


def _waits(event: Event, *, outside: bool) -> bool:
    waits = (event.data or {}).get("waits")
    assert isinstance(waits, list | tuple), "a wait names what it waits for"
    return any(wait.get("outside", False) for wait in waits) is outside


def _integer(value: object) -> int:
    assert isinstance(value, int)
    return value


class Rule(Struct, frozen=True):
    """One allowed transition.

    Attributes:
        id: stable, never reused; named in tests, in docs and in comments of SQL.
        source: the state it leaves; None for birth.
        kind: the kind of transition.
        guard: the condition under which it applies.
        target: the state it enters.
        meaning: what happens, in words.
        otherwise: the refusal when the guard does not hold.
    """

    id: str
    source: State | None
    kind: Kind
    guard: Guard
    target: State
    meaning: str
    otherwise: str = "not_possible"


def _rules(
    prefix: str,
    sources: tuple[State | None, ...],
    kind: Kind,
    target: State | None,
    meaning: str,
    guard: Guard = always,
    otherwise: str = "not_possible",
) -> tuple[Rule, ...]:
    """Write one row of the specification as its rules: one a source, target None means stays."""
    rules = []
    for source in sources:
        into = target if target is not None else source
        assert into is not None
        name = prefix if len(sources) == 1 else f"{prefix}.{source}"
        rules.append(Rule(name, source, kind, guard, into, meaning, otherwise))
    return tuple(rules)


_LEASED = (S.STARTING, S.RUNNING)
_UNLEASED = tuple(state for state in OPEN if state not in LEASED)
_PAUSABLE = tuple(state for state in _UNLEASED if state is not S.PAUSED)
_RETURNS = (S.SCHEDULED, S.AWAITING_INPUT, S.WAITING, S.RETRY_WAIT, S.SUSPENDED)

# One rule, one row.
# fmt: off
RULES: Final[tuple[Rule, ...]] = (
    *_rules("T01", (None,), K.CREATE, S.QUEUED, "born; due now and nothing is unmet", is_due),
    *_rules("T02", (None,), K.CREATE, S.SCHEDULED, "born; a time or a dependency lies ahead",
            not_due),
    *_rules("T03", (S.SCHEDULED,), K.PROMOTE, S.QUEUED, "due, dependencies met, or triggered",
            due_or_triggered, "not_due"),
    *_rules("T04", (S.QUEUED,), K.BLOCK, S.BLOCKED, "a named gate is closed; once per block"),
    *_rules("T05", (S.BLOCKED,), K.UNBLOCK, S.QUEUED, "the gate is open again"),
    *_rules("T06", (S.QUEUED, S.BLOCKED), K.CLAIM, S.STARTING,
            "a worker takes the lease: fence + 1 (or an epoch's floor), a new nonce; counted"),
    *_rules("T07", _LEASED, K.RELEASE, S.QUEUED, "handed back at a safe point; nothing counted"),
    *_rules("T08", (S.STARTING,), K.LEASE_EXPIRED, S.QUEUED,
            "its worker is gone and had run nothing; fence + 1"),
    *_rules("T09", (S.RUNNING,), K.WORKER_LOST, S.RETRY_WAIT,
            "its worker is gone: attempt lost, due again at once, no retry counted; fence + 1"),
    *_rules("T10", (S.STARTING,), K.START, S.RUNNING, "the code starts: an attempt opens"),
    *_rules("T11", (S.RUNNING,), K.STEP, S.RUNNING, "a step's outcome is recorded"),
    *_rules("T12", (S.RUNNING,), K.INIT_BRANCH, S.RUNNING, "a branch opens"),
    *_rules("T13", (S.RUNNING,), K.FINISH_BRANCH, S.RUNNING, "a branch ends"),
    *_rules("T14", _LEASED, K.WAIT, S.AWAITING_INPUT,
            "no branch can go on, and one waits for someone outside", waits_outside, "moved"),
    *_rules("T15", _LEASED, K.WAIT, S.WAITING,
            "no branch can go on, and all wait for timers, children or events",
            waits_inside, "moved"),
    *_rules("T16", (S.AWAITING_INPUT, S.WAITING, S.SUSPENDED), K.RESUME, S.QUEUED,
            "what it waited for came: input, timer, child, event, expiry, budget, operator"),
    *_rules("T17", _PAUSABLE, K.PAUSE, S.PAUSED, "an operator holds it"),
    *_rules("T18", (S.RUNNING,), K.PAUSE, S.PAUSED, "an operator's hold, taken at a safe point",
            nothing_unseen, "moved"),
    *_rules("T19", (S.PAUSED,), K.UNPAUSE, S.QUEUED, "goes on: it was held while it could run",
            held_from(S.QUEUED, S.BLOCKED, S.RUNNING)),
    *(
        Rule(f"T20.{state}", S.PAUSED, K.UNPAUSE, held_from(state), state,
             "goes back to the state it was held from") for state in _RETURNS
    ),
    *_rules("T21", _LEASED, K.SUSPEND, S.SUSPENDED,
            "the engine preempts it: budget, quota, crash_loop, code_mismatch, key_missing, "
            "preempted", nothing_unseen, "moved"),
    *_rules("T22", _LEASED, K.RETRY, S.RETRY_WAIT, "a counted failure with attempts left",
            retries_left, "no_retries_left"),
    *_rules("T23", (S.RETRY_WAIT,), K.RETRY_DUE, S.QUEUED, "the back-off has passed",
            back_off_over, "not_due"),
    *_rules("T24", (S.RETRY_WAIT,), K.EXHAUSTED, S.FAILED, "given up, or the policy shrank"),
    *_rules("T25", _LEASED, K.FINISH, S.SUCCEEDED, "the code returned", no_cancel_pending,
            "cancel_pending"),
    *_rules("T26", _LEASED, K.ERROR, S.FAILED, "the code raised, and no attempt is left"),
    *_rules("T27", _UNLEASED, K.CANCEL, S.CANCELLED, "cancelled while nobody owned it"),
    *_rules("T28", _LEASED, K.CANCEL, S.CANCELLED,
            "its owner stopped the code, or the grace has passed (fence + 1)",
            by_owner_or_grace_over, "in_grace"),
    *_rules("T29", tuple(OPEN), K.DEADLINE, S.TIMED_OUT,
            "its own deadline passed, or it has not begun in time; over a live lease fence + 1",
            deadline_passed, "not_due"),
    *_rules("N01", (*_LEASED, S.AWAITING_INPUT, S.WAITING, S.PAUSED), K.CANCEL_REQUESTED, None,
            "its code is asked to clean up and end", first_request, "already_requested"),
    *_rules("N02", _LEASED, K.PAUSE_REQUESTED, None, "its owner is asked to pause",
            first_request, "already_requested"),
    *_rules("N03", tuple(OPEN), K.INPUT_RECEIVED, None, "an answer came; kept until asked for"),
    *_rules("N04", tuple(OPEN), K.SIGNAL_RECEIVED, None, "a signal came; kept until waited for"),
    *_rules("N05", tuple(OPEN), K.CHILD_FINISHED, None, "a child execution ended"),
    *_rules("N06", (S.RUNNING,), K.TIMER_FIRED, None, "a timer of the code fired"),
    *_rules("N07", (S.RUNNING,), K.ATTEMPT_FAILED, None,
            "an attempt of a step failed; it is tried again"),
    *_rules("N08", (S.RUNNING,), K.STEP_ANNOUNCED, None,
            "a long step is under way, or a question is put to somebody"),
    *_rules("N09", (S.RUNNING,), K.CALL_ABANDONED, None,
            "nobody awaits a call any more: what it comes to is not taken"),
    *_rules("N10", tuple(OPEN), K.BUDGET_CHANGED, None, "a budget was raised, lowered or reset"),
    *_rules("N11", tuple(OPEN), K.PRIORITY_CHANGED, None, "another priority"),
    *_rules("N12", tuple(OPEN), K.LABELS_CHANGED, None, "other labels"),
    *_rules("N13", tuple(OPEN), K.ANNOTATION, None, "a remark"),
    *_rules("N14", tuple(OPEN), K.UPSTREAM_ENDED, None,
            "an execution that it depends on has ended"),
)
# fmt: on


def _index() -> dict[tuple[State | None, Kind], tuple[Rule, ...]]:
    cells: dict[tuple[State | None, Kind], tuple[Rule, ...]] = {}
    for rule in RULES:
        cell = (rule.source, rule.kind)
        cells[cell] = (*cells.get(cell, ()), rule)
    return cells


CELLS: Final = _index()
"""The rules of each (state, kind); None is the state before birth."""

_BY_KIND: Final[dict[Kind, str]] = {
    K.CREATE: "already_exists",
    K.PROMOTE: "not_scheduled",
    K.BLOCK: "not_queued",
    K.UNBLOCK: "not_blocked",
    K.CLAIM: "not_claimable",
    K.RELEASE: "not_leased",
    K.LEASE_EXPIRED: "not_starting",
    K.WORKER_LOST: "not_running",
    K.START: "not_claimed",
    K.WAIT: "not_leased",
    K.RESUME: "not_parked",
    K.UNPAUSE: "not_paused",
    K.SUSPEND: "not_leased",
    K.RETRY: "not_leased",
    K.RETRY_DUE: "not_backing_off",
    K.EXHAUSTED: "not_backing_off",
    K.FINISH: "not_leased",
    K.ERROR: "not_leased",
    K.CANCEL_REQUESTED: "not_leased",
    K.PAUSE_REQUESTED: "not_leased",
}
_BY_CELL: Final[dict[tuple[State, Kind], str]] = {
    (S.STARTING, K.CLAIM): "already_claimed",
    (S.RUNNING, K.CLAIM): "already_claimed",
    (S.RUNNING, K.START): "already_started",
    (S.PAUSED, K.PAUSE): "already_paused",
    (S.STARTING, K.PAUSE): "at_next_safe_point",
    (S.BLOCKED, K.BLOCK): "already_blocked",
    (S.SUSPENDED, K.SUSPEND): "already_suspended",
    (S.QUEUED, K.PROMOTE): "already_queued",
}

REFUSAL_MEANINGS: Final[dict[str, str]] = {
    "not_possible": "the lifecycle has no such transition from this state",
    "already_final": "the execution has ended; final states never change",
    "no_execution": "there is no execution yet",
    "already_exists": "the execution exists already",
    "not_due": "its time has not come",
    "not_scheduled": "it is not scheduled",
    "already_queued": "it is queued already",
    "not_queued": "it is not queued",
    "not_blocked": "it is not blocked",
    "already_blocked": "it is blocked already",
    "not_claimable": "only queued and blocked executions can be claimed",
    "already_claimed": "a worker owns it already",
    "not_leased": "no worker owns it",
    "not_starting": "it is not starting",
    "not_running": "its code is not running",
    "not_claimed": "no worker has claimed it",
    "already_started": "its code runs already",
    "not_parked": "it is not waiting, awaiting input or suspended",
    "not_paused": "it is not paused",
    "already_paused": "it is paused already",
    "already_suspended": "it is suspended already",
    "at_next_safe_point": "it is starting; the pause is taken at the next safe point",
    "not_backing_off": "it is not waiting for a retry",
    "no_retries_left": "the retry policy allows no further attempt",
    "moved": "a message came that the decision had not seen",
    "cancel_pending": "a cancel was requested; it ends as cancelled",
    "in_grace": "its owner still has time to stop",
    "already_requested": "it was requested already",
    "fenced": "the writer's lease is not the current one",
}
"""Every refusal there is, in words."""


def _refusals() -> dict[tuple[State | None, Kind], str]:
    refusals: dict[tuple[State | None, Kind], str] = {}
    for state in (None, *State):
        for kind in Kind:
            if (state, kind) in CELLS:
                continue
            if state is None:
                refusals[state, kind] = "no_execution"
            elif state in FINAL:
                refusals[state, kind] = "already_final"
            else:
                refusals[state, kind] = _BY_CELL.get((state, kind)) or _BY_KIND.get(
                    kind, "not_running"
                )
    return refusals


REFUSALS: Final = _refusals()
"""The refusal of every cell without a rule; with CELLS it covers every state and kind."""

EDGES: Final = tuple(
    sorted(
        {(rule.kind, rule.source, rule.target) for rule in RULES},
        key=lambda edge: (edge[0], edge[1] or "", edge[2]),
    )
)
"""Every (kind, from, to) there is: what the databases' edge tables hold."""

RULE_OF: Final = {(rule.kind, rule.source, rule.target): rule for rule in RULES}
"""The rule behind a row of the log."""
assert len(RULE_OF) == len(RULES), "two rules share kind, source and target"
