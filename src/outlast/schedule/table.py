"""The little lifecycle of a schedule, as data: what may happen to it in which state."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct


class ScheduleState(StrEnum):
    """What a schedule does by itself."""

    ACTIVE = "active"
    """Its slots are fired."""
    PAUSED = "paused"
    """Somebody holds it; no slot is fired until it is resumed."""
    EXHAUSTED = "exhausted"
    """It has no further slot: its end or its count has come."""
    CANCELLED = "cancelled"
    """It was cancelled, or its task declares it no more."""


class ScheduleKind(StrEnum):
    """What an entry of a schedule's log says."""

    CREATE = "create"
    UPDATE = "update"
    FIRE = "fire"
    QUEUE = "queue"
    SKIP = "skip"
    MISS = "miss"
    TRIGGER = "trigger"
    BACKFILL = "backfill"
    PAUSE = "pause"
    RESUME = "resume"
    EXHAUST = "exhaust"
    CANCEL = "cancel"
    RETIRE = "retire"


S, K = ScheduleState, ScheduleKind
_OPEN: Final = (S.ACTIVE, S.PAUSED)
_NOT_CANCELLED: Final = (*_OPEN, S.EXHAUSTED)


class Rule(Struct, frozen=True):
    """One thing that may happen to a schedule; ``target`` None leaves its state as it is."""

    id: str
    kind: ScheduleKind
    sources: tuple[ScheduleState | None, ...]
    target: ScheduleState | None
    meaning: str


# fmt: off
RULES: Final = (
    Rule("S01", K.CREATE, (None, S.EXHAUSTED, S.CANCELLED), S.ACTIVE, "made, by hand or by a task"),
    Rule("S02", K.UPDATE, _OPEN, None, "planned anew"),
    Rule("S03", K.UPDATE, (S.EXHAUSTED,), S.ACTIVE, "planned anew, and has slots again"),
    Rule("S04", K.FIRE, (S.ACTIVE,), None, "a slot made its execution"),
    Rule("S05", K.QUEUE, (S.ACTIVE,), None, "a slot waits for the open execution to end"),
    Rule("S06", K.SKIP, (S.ACTIVE,), None, "a slot was left out: an execution was open"),
    Rule("S07", K.MISS, (S.ACTIVE,), None, "slots were left out: too late, or paused"),
    Rule("S08", K.TRIGGER, _NOT_CANCELLED, None, "somebody made an execution at once"),
    Rule("S09", K.BACKFILL, _NOT_CANCELLED, None, "somebody made the execution of a past slot"),
    Rule("S10", K.PAUSE, (S.ACTIVE,), S.PAUSED, "somebody holds it"),
    Rule("S11", K.RESUME, (S.PAUSED,), S.ACTIVE, "goes on; slots of the pause are missed"),
    Rule("S12", K.EXHAUST, (S.ACTIVE,), S.EXHAUSTED, "there is no further slot"),
    Rule("S13", K.CANCEL, _NOT_CANCELLED, S.CANCELLED, "somebody ended it"),
    Rule("S14", K.RETIRE, _NOT_CANCELLED, S.CANCELLED, "its task declares it no more"),
)
# fmt: on

CELLS: Final = {(source, rule.kind): rule for rule in RULES for source in rule.sources}
"""The rule of each state and kind that has one."""

REFUSALS: Final = {
    "no_schedule": "there is no such schedule",
    "already_exists": "a schedule of this name is there, and another one",
    "already_paused": "it is paused already",
    "not_paused": "it is not paused",
    "schedule_ended": "it has ended",
    "moved": "somebody else was first",
    "too_many": "that are more slots than one call makes",
    "declared": "its task's code plans it",
    "no_slot": "it would never fire",
}
"""Why something is refused; nothing is written."""


class Refused(Struct, frozen=True):
    """A named no; one of :data:`REFUSALS`."""

    code: str


def refusal(state: ScheduleState | None, kind: ScheduleKind) -> Refused | None:
    """Say why something cannot happen in a state; None: it can."""
    if (state, kind) in CELLS:
        return None
    if state is None:
        return Refused("no_schedule")
    if kind is K.CREATE:
        return Refused("already_exists")
    if state is S.PAUSED and kind is K.PAUSE:
        return Refused("already_paused")
    if state is S.ACTIVE and kind is K.RESUME:
        return Refused("not_paused")
    return Refused("schedule_ended" if state in (S.EXHAUSTED, S.CANCELLED) else "moved")


__all__ = [
    "CELLS",
    "REFUSALS",
    "RULES",
    "Refused",
    "Rule",
    "ScheduleKind",
    "ScheduleState",
    "refusal",
]
