"""A schedule's row, its log, and what somebody wants of it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct, field

from outlast.schedule.plan import Plan
from outlast.schedule.table import ScheduleKind, ScheduleState


class ScheduleRecord(Struct):
    """A schedule's row. Instants are microseconds since 1970.

    Attributes:
        task: the task whose executions it makes.
        plan: when.
        state: what it does by itself.
        seq: the number of the last entry of its log.
        is_declared: whether a task's code declares it.
        next_slot: the next slot that nothing was decided about; None when there is none.
        next_at: when that slot is fired: the slot and its jitter.
        waiting_slot: a slot that waits for the open execution to end.
        fired: how many slots made an execution.
        last_slot: the last slot that did.
        last_execution_id: the execution it made last.
        input: the bytes its executions are given.
        options: what else its executions are born with, as if it were in 1970: queue, priority,
            version, deadline_at …
    """

    tenant: int
    name: str
    task: str
    plan: Plan
    state: ScheduleState
    seq: int = 0
    is_declared: bool = False
    next_slot: int | None = None
    next_at: int | None = None
    waiting_slot: int | None = None
    fired: int = 0
    last_slot: int | None = None
    last_execution_id: str | None = None
    created_at: int = 0
    updated_at: int = 0
    state_at: int = 0
    input: bytes = b"{}"
    input_digest: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    why: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether no slot will ever be fired by itself again."""
        return self.state in (ScheduleState.EXHAUSTED, ScheduleState.CANCELLED)


COLUMNS: Final = ScheduleRecord.__struct_fields__


def copy_of(record: ScheduleRecord) -> ScheduleRecord:
    """Copy a row."""
    twin: ScheduleRecord = record.__copy__()  # type: ignore[attr-defined]
    return twin


class Entry(Struct):
    """One entry of a schedule's log: what became of a slot, or what somebody did.

    Attributes:
        seq: its number in its log, without a gap.
        slot: the slot it is about, or the first of several; None: about none.
        until_slot: the last of several slots.
        execution_id: the execution that was made, or that stood in the way.
        data: further facts: ``why``, ``slots`` (how many), ``is_all`` (else there were more).
    """

    seq: int
    kind: ScheduleKind
    at: int
    actor: str
    slot: int | None = None
    until_slot: int | None = None
    execution_id: str | None = None
    data: Mapping[str, Any] | None = None


class Wish(StrEnum):
    """What somebody wants of a schedule."""

    CREATE = "create"
    DECLARE = "declare"
    UPDATE = "update"
    ADVANCE = "advance"
    TRIGGER = "trigger"
    BACKFILL = "backfill"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    RETIRE = "retire"


class Request(Struct, frozen=True, kw_only=True):
    """A wish, with what it needs.

    Attributes:
        draft: the schedule as it shall be, for create, declare and update.
        seq: for advance: the row's seq as it was read; the first to write wins.
        since, until: for backfill: the first and the last instant.
        why: kept in the log.
        ids: ids for the executions that it makes. With too few, an advance leaves the rest for the
            next time; what somebody wants by hand is refused as ``too_many``.
    """

    wish: Wish
    actor: str = "user"
    draft: ScheduleRecord | None = None
    seq: int | None = None
    since: int = 0
    until: int = 0
    why: str | None = None
    ids: tuple[str, ...] = ()


__all__ = ["COLUMNS", "Entry", "Request", "ScheduleRecord", "Wish", "copy_of"]
