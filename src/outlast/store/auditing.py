"""What the audit says of a change, the same in every store; how long a failed sign-in waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from outlast.store.protocol import (
    Adjust,
    Answer,
    Create,
    CreateMany,
    Deliver,
    Item,
    QueueSetting,
    ScheduleAnswer,
    Setting,
)

if TYPE_CHECKING:
    from outlast.access.audit import Deed
    from outlast.schedule import Request

Said = tuple["Deed", str, Mapping[str, Any]]
"""A deed, what it changed, and facts about it."""

FREE_FAILURES: Final = 4
"""Failed sign-ins in a row that cost nothing but the wait for the answer."""
WAIT_US: Final = 1_000_000
WAIT_MAX_US: Final = 300_000_000
FORGET_US: Final = 86_400_000_000
"""After such a rest, failures are forgotten."""


def deeds_of(batch: Sequence[Item], answers: Sequence[Answer]) -> list[Said]:
    """Give what the audit has to say of a batch: the deeds of what was written, in its order.

    What was refused, or was there already, has changed nothing and leaves nothing.
    """
    from dataclasses import replace

    said: list[Said] = []
    for item, answer in zip(batch, answers, strict=False):
        deed = getattr(item, "deed", None)
        if deed is None or answer.refused is not None:
            continue
        if isinstance(item, Create):
            row = item.rows[0]
            facts: dict[str, Any] = {"task": item.after.task}
            if item.after.key is not None:
                facts["key"] = item.after.key
            source: Any = (row.data or {}).get("from")
            if source is not None:
                facts["from"] = source["id"]
            said.append((replace(deed, at=row.at), item.after.id, facts))
        elif isinstance(item, CreateMany):
            facts = {"task": (item.birth.data or {})["task"]}
            said += [(replace(deed, at=item.at), id, facts) for id in item.ids]
        elif isinstance(item, Deliver) and answer.entry is not None:
            message = item.message
            facts = {"message": str(message.kind)}
            if message.key is not None:
                facts["key"] = message.key
            said.append((replace(deed, at=item.now), item.execution_id, facts))
        elif isinstance(item, Adjust):
            facts = {"what": item.what, "amounts": dict(item.amounts)}
            said.append((replace(deed, at=item.now), f"budget:{item.scope}", facts))
    return said


def queue_facts(setting: QueueSetting) -> dict[str, Any]:
    """Give what the audit says of a queue's setting."""
    return {"capacity": setting.capacity, "paused": setting.paused_at is not None}


def gate_facts(setting: Setting) -> dict[str, Any]:
    """Give what the audit says of a limit's, or a rate's, setting."""
    return {"capacity": setting.capacity, "interval_us": setting.interval_us}


def schedule_facts(request: Request, answer: ScheduleAnswer) -> dict[str, Any] | None:
    """Give what the audit says of a request to a schedule; None where it changed nothing."""
    if answer.refused is not None:
        return None
    return {"wish": str(request.wish), "made": list(answer.made)}


def purged(ids: Sequence[str], deleted: int) -> dict[str, Any]:
    """Give what the audit says of a purge."""
    return {"deleted": deleted, "first": min(ids), "last": max(ids)}


def next_failure(failures: int, next_at: int, now: int) -> tuple[int, int]:
    """Count a sign-in as failed before it is tried: gives the failures, and when the next may be.

    So guesses that come at once are counted one by one as well; the one that succeeds forgives all.
    """
    failures = 1 if now - next_at > FORGET_US else failures + 1
    wait = 0 if failures <= FREE_FAILURES else WAIT_US << min(failures - FREE_FAILURES - 1, 20)
    return failures, now + min(wait, WAIT_MAX_US)


__all__ = [
    "FORGET_US",
    "FREE_FAILURES",
    "WAIT_MAX_US",
    "Said",
    "deeds_of",
    "gate_facts",
    "next_failure",
    "purged",
    "queue_facts",
    "schedule_facts",
]
