"""Answers that came too late: the log had closed their question before it took them in.

A question is closed by a row (``call_abandoned``): its time was up, or the code asks no more. Which
of the two came first is decided by their places in the log. A try of the whole task that begins
anew asks its questions anew.
"""

from __future__ import annotations

from collections.abc import Iterable

from outlast.lifecycle.record import Transition
from outlast.lifecycle.states import Kind


def late_answers(rows: Iterable[Transition]) -> set[int]:
    """Give the places in a log of the answers that came after the end of their question."""
    return _read(rows)[1]


def is_closed(rows: Iterable[Transition], key: str | None) -> bool:
    """Tell whether a question has ended without an answer, and was not asked anew."""
    return key in _read(rows)[0]


def _read(rows: Iterable[Transition]) -> tuple[set[str | None], set[int]]:
    closed: set[str | None] = set()
    late: set[int] = set()
    for row in rows:
        if row.kind is Kind.CALL_ABANDONED:
            closed.add(row.key)
        elif row.kind is Kind.STEP_ANNOUNCED:
            closed.discard(row.key)
        elif row.kind is Kind.RETRY:
            closed.clear()
        elif row.kind is Kind.INPUT_RECEIVED and row.key in closed:
            late.add(row.seq)
    return closed, late
