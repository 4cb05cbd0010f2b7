"""The only way to change an execution: decide an event by the table, then apply the decision.

``decide`` is pure: the clock and every random number are arguments. The owner of a lease decides
in memory and its decisions are stored by compare-and-set; everybody else decides on a record that
was read in the same transaction. Folding a log decides its events again and gives the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from msgspec import Struct, structs

from outlast.lifecycle.dependency import dependencies_of, remaining
from outlast.lifecycle.record import Event, Execution, Transition, event_of
from outlast.lifecycle.states import FINAL, LEASED, PROGRESS, TAKEOVERS, Kind, State
from outlast.lifecycle.table import CELLS, REFUSALS, Guard, Rule, always

Changes = dict[str, object]


class Decision(Struct):
    """An event that the lifecycle allows: its row of the log and the columns it changes."""

    rule: Rule
    transition: Transition
    changes: Changes


class Refusal(Struct, frozen=True):
    """An event that the lifecycle refuses; nothing changes.

    Attributes:
        state: the state it was refused in; None before birth.
        kind: what was asked for.
        code: the refusal's name, one of ``table.REFUSAL_MEANINGS``.
    """

    state: State | None
    kind: Kind
    code: str


def decide(record: Execution, event: Event, now: int) -> Decision | Refusal:
    """Decide one event on an execution that exists.

    Args:
        record: the execution as it is; it is not changed.
        event: what shall happen.
        now: the instant it happens at, in microseconds since 1970; never earlier than the last row.

    Returns:
        The decision, or the refusal that the table names.
    """
    state, kind, data = record.state, event.kind, event.data
    if now < record.updated_at:
        now = record.updated_at  # clocks differ and jump, but within a log time never goes back
    ways = _WAYS.get((state, kind))
    if ways is None:
        return Refusal(state, kind, REFUSALS[state, kind])
    fence = _fence(record, event)
    if fence is None:
        return Refusal(state, kind, "fenced")
    for rule, guard, effect, entering, shows_progress in ways:  # noqa: B007 - used behind it
        if guard is None or guard(record, event, now):
            break
    else:
        return Refusal(state, kind, ways[0].rule.otherwise)
    seq = record.seq + 1
    row = Transition(
        record.tenant,
        record.id,
        seq,
        kind,
        state,
        rule.target,
        fence,
        event.nonce,
        event.actor,
        now,
        event.key,
        event.digest,
        data,
        event.payload,
    )
    if entering is None:
        changes: Changes = {"seq": seq, "updated_at": now}
    else:
        changes = entering.copy()
        changes["seq"] = seq
        changes["updated_at"] = changes["state_at"] = now
        changes["fence"] = fence
    if shows_progress and record.idle_claims:
        changes["idle_claims"] = 0
    if data is not None and "inbox" in data:
        changes["inbox_seen"] = data["inbox"]  # the fold must count what was taken out
        if "pin" in data:
            _pin(record, data["pin"], changes)
    if effect is not None:
        effect(record, event, now, changes)
    return Decision(rule, row, changes)


def create(tenant: int, id: str, event: Event, now: int) -> tuple[Execution, Transition]:
    """Decide the birth of an execution.

    ``event.data`` gives the columns that are set at birth (task, queue, priority, key, …).
    """
    data = event.data or {}
    for rule in CELLS[None, Kind.CREATE]:
        if rule.guard(None, event, now):
            break
    born = data
    if not data.keys() <= _AT_BIRTH:
        born = {name: value for name, value in data.items() if name in _AT_BIRTH}
    record = Execution(
        tenant=tenant,
        id=id,
        state=rule.target,
        seq=1,
        cause="first",
        created_at=now,
        updated_at=now,
        state_at=now,
        **born,  # type: ignore[arg-type]
    )
    if data.get("waits_on"):
        record.detail = {"waits_on": data["waits_on"]}
    row = Transition(
        tenant,
        id,
        1,
        Kind.CREATE,
        None,
        rule.target,
        0,
        None,
        event.actor,
        now,
        event.key,
        event.digest,
        event.data,
        event.payload,
    )
    return record, row


def apply(record: Execution, decision: Decision) -> None:
    """Apply a decision to a record in place."""
    for name, value in decision.changes.items():
        setattr(record, name, value)


def applied(record: Execution, decision: Decision) -> Execution:
    """Apply a decision to a copy of a record."""
    return structs.replace(record, **decision.changes)


class BrokenLog(Exception):
    """A log that the lifecycle could not have written."""


def fold(rows: Iterable[Transition]) -> Execution:
    """Fold a whole log into its execution's row, deciding every event again.

    Raises:
        BrokenLog: a row is missing, or is not what the lifecycle decides.
    """
    record: Execution | None = None
    for row in rows:
        event = event_of(row)
        if record is None:
            if row.kind is not Kind.CREATE:
                raise BrokenLog(f"the first row is {row.kind}, not create")
            record, expected = create(row.tenant, row.execution_id, event, row.at)
        else:
            if isinstance(row.data, dict) and "inbox" in row.data:
                record.inbox_count = max(record.inbox_count, int(str(row.data["inbox"])))
            decision = decide(record, event, row.at)
            if isinstance(decision, Refusal):
                raise BrokenLog(
                    f"row {row.seq}: {row.kind} in {record.state} is refused: {decision.code}"
                )
            expected = decision.transition
            apply(record, decision)
        if row != expected:
            raise BrokenLog(f"row {row.seq} is not what the lifecycle decides")
    if record is None:
        raise BrokenLog("the log is empty")
    return record


_AT_BIRTH: Final = frozenset(
    (
        "task",
        "queue",
        "priority",
        "key",
        "input_digest",
        "version",
        "parent_id",
        "origin",
        "due_at",
        "deadline_at",
        "parent_key",
        "root_id",
        "start_by",
        "gates",
        "labels",
    )
)


_LOSSES: Final = frozenset({Kind.LEASE_EXPIRED, Kind.WORKER_LOST})
"""What only others can say of an owner."""


def _fence(record: Execution, event: Event) -> int | None:
    """Give the fence of the event's row, or None when its writer holds no current lease."""
    if record.state in LEASED:
        if event.nonce is not None:
            owns = event.nonce == record.nonce and event.fence == record.fence
            return record.fence if owns and event.kind not in _LOSSES else None
        return record.fence + 1 if event.kind in TAKEOVERS else None
    if event.kind is Kind.CLAIM:
        return claimed_fence(record.fence, event.data) if event.nonce is not None else None
    return record.fence if event.nonce is None else None


def claimed_fence(fence: int, data: Mapping[str, object] | None) -> int:
    """Give the fence of a claim: the next number, or the floor that it names.

    A claim of a new epoch names one: what a lost primary has given out is below it.
    """
    floor = 0 if data is None else data.get("floor", 0)
    return max(fence + 1, floor) if isinstance(floor, int) else fence + 1


def _pin(record: Execution, version: object, changes: Changes) -> None:
    """Leave an execution to the code of a version, as a message asked; None lets it go."""
    gates = {name: gate for name, gate in (record.gates or {}).items() if name != "version"}
    if version is not None:
        gates["version"] = version
    changes["gates"] = gates or None


def _claim(record: Execution, event: Event, now: int, changes: Changes) -> None:
    changes["nonce"] = event.nonce
    changes["worker"] = (event.data or {}).get("worker")
    changes["claims"] = record.claims + 1
    changes["idle_claims"] = record.idle_claims + 1
    changes["high_water"] = max(record.high_water, 2)


def _block(record: Execution, event: Event, now: int, changes: Changes) -> None:
    changes["high_water"] = max(record.high_water, 1)
    changes["detail"] = event.data


def _unblock(record: Execution, event: Event, now: int, changes: Changes) -> None:
    """Keep since when it waits: back in its queue it does not begin anew."""
    since = (record.detail or {}).get("since")
    changes["detail"] = None if since is None else {"since": since}


def _start(record: Execution, event: Event, now: int, changes: Changes) -> None:
    changes["high_water"] = 3
    changes["cause"] = None
    changes["attempt"] = record.attempt + 1
    if record.started_at is None:
        changes["started_at"] = now
        changes["start_by"] = None
    if event.data is not None and "version" in event.data:
        changes["version"] = event.data["version"]


def _wait(record: Execution, event: Event, now: int, changes: Changes) -> None:
    changes["high_water"] = 3
    changes["cause"] = None
    data = event.data or {}
    changes["due_at"] = data.get("due_at")
    clean_up = {"cleanup": True} if data.get("cleanup") else {}
    changes["detail"] = {"waits": data["waits"], **clean_up}


def _suspend(record: Execution, event: Event, now: int, changes: Changes) -> None:
    changes["high_water"] = 3
    changes["cause"] = None
    changes["detail"] = event.data


def _retry(record: Execution, event: Event, now: int, changes: Changes) -> None:
    changes["high_water"] = 3
    changes["cause"] = None
    changes["failures"] = record.failures + 1
    data = event.data or {}
    changes["due_at"] = data.get("due_at")
    changes["detail"] = {"error": data.get("error"), "retries": data.get("retries")}


def _worker_lost(record: Execution, event: Event, now: int, changes: Changes) -> None:
    changes["high_water"] = 3
    changes["cause"] = None
    changes["due_at"] = now
    changes["detail"] = {"lost": record.worker}


def _retry_due(record: Execution, event: Event, now: int, changes: Changes) -> None:
    lost = bool(record.detail and "lost" in record.detail)
    changes["cause"] = "recovery" if lost else "retry"


def _release(record: Execution, event: Event, now: int, changes: Changes) -> None:
    if record.state is State.RUNNING:
        changes["cause"] = "recovery"
    changes["idle_claims"] = 0


def _resume(record: Execution, event: Event, now: int, changes: Changes) -> None:
    changes["cause"] = (event.data or {}).get("cause", "operator")
    if record.state is State.SUSPENDED:
        changes["idle_claims"] = 0  # whoever lifts a suspension gives it a new start


def _pause(record: Execution, event: Event, now: int, changes: Changes) -> None:
    changes["paused_from"] = record.state
    changes["pause_at"] = None
    data = event.data or {}
    detail = {
        "by": event.actor,
        "why": data.get("why"),
        "held_detail": record.detail,
        "held_due_at": record.due_at,
    }
    if data.get("cleanup"):
        detail["cleanup"] = True
    changes["detail"] = detail


def _unpause(record: Execution, event: Event, now: int, changes: Changes) -> None:
    if record.paused_from is State.RUNNING:
        changes["cause"] = "unpause"
    changes["paused_from"] = None
    held = record.detail or {}
    if record.paused_from not in (State.QUEUED, State.BLOCKED, State.RUNNING):
        changes["detail"] = held.get("held_detail")
        changes["due_at"] = held.get("held_due_at")


def _end(record: Execution, event: Event, now: int, changes: Changes) -> None:
    data = event.data or {}
    changes["detail"] = {
        name: data[name] for name in ("error", "by", "why", "continued_as") if name in data
    } or None
    changes["cause"] = None
    changes["paused_from"] = None


def _cancel_requested(record: Execution, event: Event, now: int, changes: Changes) -> None:
    changes["cancel_at"] = now


def _pause_requested(record: Execution, event: Event, now: int, changes: Changes) -> None:
    changes["pause_at"] = now


def _step_announced(record: Execution, event: Event, now: int, changes: Changes) -> None:
    if event.data is not None and "child" in event.data and "again" not in event.data:
        changes["children"] = record.children + 1


def _upstream_ended(record: Execution, event: Event, now: int, changes: Changes) -> None:
    """Take the edge off what it waits on; while it is held, that lies in what it goes back to."""
    waits_on = dependencies_of(record)
    if not waits_on:
        return
    rest = remaining(waits_on, event.data or {})
    detail = {"waits_on": rest} if rest else None
    if record.paused_from is State.SCHEDULED:
        changes["detail"] = {**(record.detail or {}), "held_detail": detail}
    else:
        changes["detail"] = detail


def _labels_changed(record: Execution, event: Event, now: int, changes: Changes) -> None:
    """Set those that are named, and take away those that are named with nothing."""
    said = (event.data or {}).get("labels") or {}
    assert isinstance(said, Mapping)
    labels = {**(record.labels or {}), **said}
    changes["labels"] = {name: value for name, value in labels.items() if value is not None} or None


def _priority_changed(record: Execution, event: Event, now: int, changes: Changes) -> None:
    changes["priority"] = (event.data or {})["priority"]


Effect = Callable[[Execution, Event, int, Changes], None]
_EFFECTS: Final[dict[Kind, Effect]] = {
    Kind.BLOCK: _block,
    Kind.UNBLOCK: _unblock,
    Kind.CLAIM: _claim,
    Kind.START: _start,
    Kind.WAIT: _wait,
    Kind.SUSPEND: _suspend,
    Kind.RETRY: _retry,
    Kind.RETRY_DUE: _retry_due,
    Kind.WORKER_LOST: _worker_lost,
    Kind.RELEASE: _release,
    Kind.RESUME: _resume,
    Kind.PAUSE: _pause,
    Kind.UNPAUSE: _unpause,
    Kind.EXHAUSTED: _end,
    Kind.FINISH: _end,
    Kind.ERROR: _end,
    Kind.CANCEL: _end,
    Kind.DEADLINE: _end,
    Kind.CANCEL_REQUESTED: _cancel_requested,
    Kind.PAUSE_REQUESTED: _pause_requested,
    Kind.STEP_ANNOUNCED: _step_announced,
    Kind.UPSTREAM_ENDED: _upstream_ended,
    Kind.PRIORITY_CHANGED: _priority_changed,
    Kind.LABELS_CHANGED: _labels_changed,
}
"""What each kind does to the registers and counters, beyond the state."""


class _Way(NamedTuple):
    """A rule with all that is known of it beforehand, as each step looks at two.

    Attributes:
        rule: the rule.
        guard: its condition; None where it always holds.
        effect: what its kind does to the registers.
        entering: what the change of state does before that; None where the state stays.
        shows_progress: whether it shows that the claim was of use.
    """

    rule: Rule
    guard: Guard | None
    effect: Effect | None
    entering: Changes | None
    shows_progress: bool


def _entering(target: State) -> Changes:
    """Give what every change to a state does: what belonged to the old state goes."""
    changes: Changes = {"state": target, "due_at": None, "detail": None}
    if target not in LEASED:
        changes["nonce"] = changes["worker"] = None
    if target in FINAL:
        changes["pause_at"] = None
    return changes


def _ways(rules: Iterable[Rule]) -> tuple[_Way, ...]:
    return tuple(
        _Way(
            rule,
            None if rule.guard is always else rule.guard,
            _EFFECTS.get(rule.kind),
            None if rule.target is rule.source else _entering(rule.target),
            rule.kind in PROGRESS,
        )
        for rule in rules
    )


_WAYS: Final = {cell: _ways(rules) for cell, rules in CELLS.items()}
