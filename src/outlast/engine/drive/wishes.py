"""What somebody outside has asked of an execution: that it pauses, or that it is cancelled.

Both are rows of its log, so a replay hears of them again. The row that does what was asked says who
asked, and why.
"""

from __future__ import annotations

from outlast.lifecycle import LEASED, Event, Kind, Transition


class Wishes:
    """What was asked of one leased execution."""

    __slots__ = ("_cancel", "_grace_from", "_pause")

    def __init__(self) -> None:
        self._pause: tuple[str, object] = ("engine", None)
        self._cancel: Transition | None = None
        self._grace_from: int | None = None

    def hear(self, row: Transition) -> None:
        """Take up the row by which a request entered the log."""
        if row.kind is Kind.PAUSE_REQUESTED:
            self._pause = row.actor, (row.data or {}).get("why")
        elif row.kind is Kind.CANCEL_REQUESTED:
            self._cancel = row
            self._grace_from = row.at if row.from_state in LEASED else None

    def started(self, row: Transition) -> None:
        """The grace of what was parked as it was cancelled begins when its code runs again."""
        if self._cancel is not None and self._grace_from is None:
            self._grace_from = row.at

    def grace_left_us(self, now: int, grace_us: int) -> int | None:
        """Give how long the code may still clean up after a cancel; None: it need not."""
        if self._grace_from is None:
            return None
        return max(0, grace_us - (now - self._grace_from))

    def pause(self, data: dict[str, object]) -> Event:
        """Make the event that does as the pause asked."""
        actor, why = self._pause
        return Event(Kind.PAUSE, actor, data={"why": why, **data})

    def cancel(self) -> Event:
        """Make the event that does as the cancel asked."""
        assert self._cancel is not None
        why = (self._cancel.data or {}).get("why")
        return Event(Kind.CANCEL, "engine", data={"by": self._cancel.actor, "why": why})


__all__ = ["Wishes"]
