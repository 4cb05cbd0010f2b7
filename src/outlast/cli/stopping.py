"""What is known of a cancel that is under way: who asked, what is still alive, and until when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from outlast.cli.words import now_us, one_line
from outlast.duration import in_words
from outlast.lifecycle import Execution, Kind, MessageKind, Reason, Transition

if TYPE_CHECKING:
    from outlast.engine.guest import Guest


def stopping(
    guest: Guest, record: Execution, owner: str | None, log: Sequence[Transition] | None = None
) -> Reason | None:
    """Say that an execution is being cancelled, and what holds it; None where it is not.

    Also where the cancel waits in its inbox for an engine that is not there.
    """
    if record.is_final or not record.is_leased:
        return None
    if record.cancel_at is not None:
        return _under_way(record, owner, guest.log(record.id) if log is None else log)
    if record.inbox_count > record.inbox_seen:
        for entry in guest.store.inbox(record.id, record.inbox_seen):
            if entry.message.kind is MessageKind.CANCEL:
                said = _asked(entry.message.actor, entry.message.data)
                return _without_engine(said, entry.at) if owner is None else _told(said, entry.at)
    return None


def _under_way(record: Execution, owner: str | None, log: Sequence[Transition]) -> Reason:
    from outlast.story import story_of

    asked = next(row for row in reversed(log) if row.kind is Kind.CANCEL_REQUESTED)
    said = _asked(asked.actor, asked.data)
    if owner is None:
        return _without_engine(said, asked.at)
    grace_us: Any = (asked.data or {}).get("grace_us")
    now = now_us()
    alive = [
        step.key + (f", for {in_words(now - step.since)}" if step.since else "")
        for step in story_of(record.id, log).steps.values()
        if step.status == "running"
    ]
    what = f"still under way: {'; '.join(alive)}" if alive else "its code cleans up"
    until = None if grace_us is None else asked.at + grace_us
    hint = "nothing: what is not done by then is cut off"
    return Reason("cancelling", f"{said}; {what}", asked.at, until, hint)


def _asked(actor: str, data: Any) -> str:
    why = f": {one_line(data['why'])}" if data and data.get("why") else ""
    return f"{one_line(actor)} asked to cancel it{why}"


def _told(said: str, since: int) -> Reason:
    return Reason("cancelling", f"{said}; its engine has not heard of it yet", since)


def _without_engine(said: str, since: int) -> Reason:
    text = f"{said}; no engine runs: it will be cancelled when one starts"
    return Reason("cancelling", text, since, None, "outlast worker FILE")


__all__ = ["stopping"]
