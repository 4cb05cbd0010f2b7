"""What became of an answer that was given while the code runs: taken in time, or too late.

Theory of operation. While somebody owns an execution, an answer goes into its inbox, and the owner
takes it into the log when the code rests. Whatever has its place in the log first wins: an answer,
or the end of its question (``call_abandoned``). Where the log has that end already, the store
refuses the answer. Else only the owner knows, so whoever answers waits for its word, and learns the
truth. Three things keep that wait short and the window small: the owner takes messages at once; a
timer that may end a question looks into the inbox first (``waiting.py``); and where no owner lives,
the answer is kept, and taken before any timer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from outlast.engine.read.questions import too_late
from outlast.lifecycle import Execution, Kind, State, Transition
from outlast.lifecycle.lateness import late_answers

HEARD_SECONDS: Final = 5.0
"""How long an owner's word is waited for; a ``def`` task may be busy for longer."""


class Reader(Protocol):
    """What the log is read by."""

    async def read_one(self, id: str) -> Execution:
        """Read an execution's row."""

    async def read_log(self, id: str, after_seq: int = 0) -> list[Transition]:
        """Read an execution's log from behind a row on."""

    async def next_change(self, id: str) -> None:
        """Wait until something may have changed about an execution."""


def was_too_late(log: Sequence[Transition], number: int) -> bool | None:
    """Tell whether message ``number`` was an answer that came too late; None: not taken yet."""
    for row in reversed(log):
        if row.data is not None and row.data.get("inbox") == number:
            return row.kind is Kind.INPUT_RECEIVED and row.seq in late_answers(log)
    return None


def is_certain(sent: Execution) -> bool:
    """Tell from the row that an answer has left whether it was awaited: it has woken its code."""
    return sent.state is State.QUEUED and sent.cause == "input"


async def hear(reader: Reader, sent: Execution, key: str | None) -> None:
    """Wait until an answer that was delivered has its place in the log.

    Args:
        reader: reads the log.
        sent: the execution as the delivery has left it.
        key: the question.

    Raises:
        NotFound: its question had ended before.
    """
    if is_certain(sent):
        return
    try:
        async with asyncio.timeout(HEARD_SECONDS):
            await _hear(reader, sent, key)
    except TimeoutError:
        return  # it is in the inbox, and its owner is busy


async def _hear(reader: Reader, sent: Execution, key: str | None) -> None:
    log: list[Transition] = []
    while True:
        change = asyncio.create_task(reader.next_change(sent.id))  # before it is read
        try:
            record = await reader.read_one(sent.id)
            log += await reader.read_log(sent.id, log[-1].seq if log else 0)
            if is_ruled(log, record, sent.inbox_count, key) or not record.is_leased:
                return  # where nobody owns it, it is kept for the next owner
            await change
        finally:
            change.cancel()


def is_ruled(log: Sequence[Transition], record: Execution, number: int, key: str | None) -> bool:
    """Tell whether an answer has its place in the log.

    Args:
        log: of the execution, at least as far as ``record`` says.
        record: its row, read before the log.
        number: of the message.
        key: the question.

    Raises:
        NotFound: its question had ended before.
    """
    late = was_too_late(log, number)
    if late or (late is None and record.is_final):
        raise too_late(record.id, key)
    return late is not None


def hear_from_outside(
    read: Callable[[int], tuple[Execution, Sequence[Transition]]],
    is_owned: Callable[[], bool],
    sent: Execution,
    key: str | None,
    poll_seconds: float,
) -> None:
    """Wait for an answer's place in the log, as :func:`hear`, from another process.

    Args:
        read: reads the row, and then the log from behind a row on.
        is_owned: tells whether an engine lives that could have the lease.
        sent: the execution as the delivery has left it.
        key: the question.
        poll_seconds: how often to look.
    """
    if is_certain(sent):
        return
    give_up_at = time.monotonic() + HEARD_SECONDS
    log: list[Transition] = []
    while True:
        is_left = not is_owned() or time.monotonic() > give_up_at
        record, rows = read(log[-1].seq if log else 0)
        log += rows
        if is_ruled(log, record, sent.inbox_count, key) or is_left or not record.is_leased:
            return
        time.sleep(poll_seconds)


__all__ = ["HEARD_SECONDS", "hear", "hear_from_outside", "is_ruled", "was_too_late"]
