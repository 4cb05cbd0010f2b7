"""Say what an execution waits for, to somebody whose test cannot go on without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from outlast.duration import instant
from outlast.engine.read.questions import OpenQuestion
from outlast.errors import WaitTimeout
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import State, reason_of

_UNITS: Final = (
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
)


def exactly(span_us: int) -> str:
    """Write a span as a duration that can be given back: ``2d12h``."""
    parts = []
    for unit, size in _UNITS:
        count, span_us = divmod(span_us, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def explained(
    record: Record,
    *,
    now: int,
    questions: Sequence[OpenQuestion],
    bodies: Sequence[str],
    is_hanging: bool,
    next_timer_at: int | None,
    is_known: bool,
) -> WaitTimeout:
    """Make the error of a wait for an execution that cannot go on by itself."""
    why, do = _why(record, questions, bodies, is_hanging, is_known)
    due_at = record.due_at
    if due_at is None and record.is_leased:
        due_at = next_timer_at
    if due_at is not None and due_at > now and not is_hanging:
        why += f"; time goes on for it at {instant(due_at):%Y-%m-%d %H:%M:%S} UTC"
        do.append(f'engine.advance("{exactly(due_at - now)}")')
    return WaitTimeout(
        f"{record.id} cannot end: it waits, and time passes only in advance()",
        where=f"{record.id}, task {record.task}, {record.state}",
        why=why,
        do=", or ".join(do),
    )


def _why(
    record: Record,
    questions: Sequence[OpenQuestion],
    bodies: Sequence[str],
    is_hanging: bool,
    is_known: bool,
) -> tuple[str, list[str]]:
    """Give what it waits for, and what other than time ends that."""
    if is_hanging:
        what = f"the body of {', '.join(bodies)}" if bodies else "its thread"
        return (
            f"{what} did not end in the real time that it was given",
            ["engine(patience=…) gives it more; if it hangs on purpose, let its timeout pass"],
        )
    if record.is_leased and bodies:
        return f"the body of {', '.join(bodies)} waits by itself", []
    if record.state is State.QUEUED and not is_known:
        return f"this engine does not run task {record.task}", ["give the engine this task"]
    reason = reason_of(record)
    assert reason is not None  # nobody waits for one that has ended
    detail: Any = record.detail or {}
    if record.state is State.PAUSED:
        return reason.text, ["h.resume()"]
    if record.state is State.SUSPENDED:
        both = f": recorded {detail['recorded']}, wanted {detail['wanted']}" * ("wanted" in detail)
        return reason.text + both, [reason.hint]
    do = [f"engine.answer(h, …, key={question.key!r})" for question in questions[:3]]
    if len(questions) == 1:
        do = ["engine.answer(h, …)"]
    for wait in detail.get("waits", ()) if record.state is State.AWAITING_INPUT else ():
        if wait.get("kind") == "event":
            do.append(f'h.signal("{wait.get("title")}", …)')
    return reason.text, do
