"""What each kind of row of a log must be, by what came before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from campaigns.simulation.rules.seen import name_of
from campaigns.simulation.tasks import edited
from campaigns.simulation.tasks.programs import SORTS
from campaigns.simulation.tasks.steps import STEP_RETRIES
from outlast.lifecycle import Kind, Transition

if TYPE_CHECKING:
    from campaigns.simulation.rules.auditor import Auditor
    from campaigns.simulation.rules.seen import Seen

IDLE_CLAIMS_MAX: Final = 5
"""How many workers in a row may take an execution without coming any further."""


def _on_create(auditor: Auditor, seen: Seen, row: Transition) -> None:
    auditor.family.born(seen, row)
    auditor.chains.born(seen, row)
    parent_id = seen.record.parent_id
    if parent_id is not None and seen.record.parent_key is not None:
        parent = auditor.seen.get(parent_id)
        named = parent is not None and any(
            one.data and one.data.get("child") == row.execution_id for one in parent.rows
        )
        auditor.check("INV-21 children", named, row.execution_id, "is a child of nobody")
        auditor.counts["children"] += 1


def _on_child_finished(auditor: Auditor, seen: Seen, row: Transition) -> None:
    id = auditor.family.child_of(row) or str((row.data or {}).get("child"))
    auditor.family.reused(seen, row)
    child = auditor.record_of(id)
    auditor.check("INV-21 children", child.is_final, id, "has not ended")
    auditor.check("INV-21 children", id not in seen.told, "the end of", id, "was told twice")
    seen.told.add(id)


def _on_claim(auditor: Auditor, seen: Seen, row: Transition) -> None:
    auditor.edges.claimed(seen, row)


def _on_upstream_ended(auditor: Auditor, seen: Seen, row: Transition) -> None:
    auditor.edges.heard(seen, row)


def _on_start(auditor: Auditor, seen: Seen, row: Transition) -> None:
    seen.starts += 1


def _on_step(auditor: Auditor, seen: Seen, row: Transition) -> None:
    assert row.key is not None
    auditor.check("INV-8 recorded", row.key not in seen.recorded, row.key, "of", row.execution_id,
                  "has a second result")  # fmt: skip
    seen.recorded.add(row.key)
    auditor.family.reused(seen, row)
    auditor.family.ran(row)
    attempts = int(str((row.data or {}).get("attempts", 1)))
    auditor.check("INV-17 policy", attempts <= 1 + _retries_of(row.key), row.key, attempts)


def _on_attempt_failed(auditor: Auditor, seen: Seen, row: Transition) -> None:
    assert row.key is not None and row.data is not None
    failed = seen.failures.get(row.key, 0)
    attempt = int(str(row.data["attempt"]))
    auditor.check("INV-15 attempts", attempt == failed + 1, row.key, attempt, "after", failed)
    auditor.check("INV-17 policy", attempt <= _retries_of(row.key), row.key, "attempt", attempt)
    seen.failures[row.key] = attempt


def _on_timer(auditor: Auditor, seen: Seen, row: Transition) -> None:
    assert row.key is not None and row.digest is not None
    auditor.check(
        "timers", row.key not in seen.fired, row.key, "of", row.execution_id, "fired twice"
    )
    early = row.at < row.digest and not auditor.family.reused(seen, row)
    auditor.check("timers", not early, row.key, "of", row.execution_id, "fired early")
    seen.fired.add(row.key)


def _on_annotation(auditor: Auditor, seen: Seen, row: Transition) -> None:
    if auditor.family.copied(row):
        at: Any = (row.data or {})["at"]
        seen.instants.add(int(at))


def _on_due(auditor: Auditor, seen: Seen, row: Transition) -> None:
    data = row.data or {}
    if data.get("cause") in ("timer", "wait_expired") or (
        row.kind is Kind.RETRY_DUE and not data.get("trigger")
    ):
        due_at = _due_of(seen)
        auditor.check("timers", due_at is not None and row.at >= due_at, row.execution_id, row.kind,
                      "before it was due")  # fmt: skip


def _due_of(seen: Seen) -> int | None:
    """Give the instant of the wait that the log has come to."""
    for row in reversed(seen.rows):
        if row.kind is Kind.WORKER_LOST:
            return row.at
        if row.kind in (Kind.WAIT, Kind.RETRY):
            due: Any = (row.data or {}).get("due_at")
            return int(due) if due is not None else None
    return None


def _on_retry(auditor: Auditor, seen: Seen, row: Transition) -> None:
    seen.tries += 1
    auditor.family.tries_again(row.execution_id)
    auditor.check("INV-17 policy", seen.tries <= SORTS[seen.record.task].retries,
                  row.execution_id, "is tried again for the", seen.tries, "th time")  # fmt: skip
    seen.recorded.clear()
    seen.failures.clear()
    seen.fired.clear()
    seen.told.clear()


def _on_suspend(auditor: Auditor, seen: Seen, row: Transition) -> None:
    data = row.data or {}
    code = data.get("code")
    fits = code != "code_mismatch" or seen.record.task == edited.NAME  # which has its own rule
    auditor.check("INV-13 replay", fits, row.execution_id, data)
    auditor.check("INV-11 claims", code != "crash_loop" or seen.idle_claims > IDLE_CLAIMS_MAX,
                  row.execution_id, "crash_loop after", seen.idle_claims)  # fmt: skip
    auditor.counts["suspended"] += 1
    seen.died = seen.idle_claims - 1


def _on_takeover(auditor: Auditor, seen: Seen, row: Transition) -> None:
    auditor.counts["takeovers"] += 1


ROW_CHECKS: Final = {
    Kind.CREATE: _on_create,
    Kind.CHILD_FINISHED: _on_child_finished,
    Kind.CLAIM: _on_claim,
    Kind.UPSTREAM_ENDED: _on_upstream_ended,
    Kind.START: _on_start,
    Kind.STEP: _on_step,
    Kind.ATTEMPT_FAILED: _on_attempt_failed,
    Kind.TIMER_FIRED: _on_timer,
    Kind.ANNOTATION: _on_annotation,
    Kind.RESUME: _on_due,
    Kind.RETRY_DUE: _on_due,
    Kind.RETRY: _on_retry,
    Kind.SUSPEND: _on_suspend,
    Kind.WORKER_LOST: _on_takeover,
    Kind.LEASE_EXPIRED: _on_takeover,
}
PROGRESS: Final = frozenset(
    {Kind.STEP, Kind.WAIT, Kind.RETRY, Kind.SUSPEND, Kind.TIMER_FIRED, Kind.ATTEMPT_FAILED,
     Kind.RELEASE, Kind.INIT_BRANCH, Kind.FINISH_BRANCH}
)  # fmt: skip


def _retries_of(key: str) -> int:
    """Give how often the step with this key may be tried again."""
    return STEP_RETRIES.get(name_of(key), 0)
