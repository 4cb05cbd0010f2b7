"""What steps say of themselves while they run: heartbeats, written down about once a second.

A heartbeat is a note in the execution's log with what it said, so that the next attempt gets it
also where this one's process dies. Many that come in one second are one row. What was said last
before an attempt fails is written with the failure; what was said in the last second before a crash
may be lost, as with everything that was not on the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from outlast.lifecycle import Event, Kind, Transition

if TYPE_CHECKING:
    from outlast.engine.steps.body import Body

NOTE_US: Final = 1_000_000
"""How far apart two notes of one step are, at least."""


class Progress:
    """The heartbeats of one execution's steps.

    Args:
        append: writes an event into the log.
    """

    def __init__(self, append: Callable[[Event], Transition]) -> None:
        self._append = append
        self._last: dict[str, bytes] = {}
        self._noted_at: dict[str, int] = {}
        self._awaited: set[str] = set()

    def recall(self, row: Transition) -> None:
        """Take in what a recorded heartbeat said."""
        if row.key is not None and row.payload is not None:
            self._last[row.key] = row.payload

    def last(self, key: str) -> bytes | None:
        """Give what a step said last, in any attempt."""
        return self._last.get(key)

    def take(self, body: Body, now: int) -> int:
        """Note what a body said, if it is time; else say how long that has to wait.

        Only who hears of it first has to come again: for all others it is 0.
        """
        key = body.call.key
        noted_at = self._noted_at.get(key)
        if noted_at is None or noted_at + NOTE_US <= now:
            self._awaited.discard(key)
            self.note(body, now)
        elif not body.is_noted and key not in self._awaited:
            self._awaited.add(key)
            return noted_at + NOTE_US - now
        return 0

    def note(self, body: Body, now: int) -> None:
        """Write down what a body said last, if it said anything since the last note."""
        if body.is_noted or body.details is None:
            return
        body.is_noted, details = True, body.details
        key = body.call.key
        self._last[key], self._noted_at[key] = details, now
        self._append(
            Event(
                Kind.STEP_ANNOUNCED,
                "engine",
                key=key,
                digest=body.call.digest,
                data={
                    "attempt": body.attempt,
                    "since": body.begun_at or body.started_at,
                    "beat_at": body.beat_at,
                },
                payload=details,
            )
        )


__all__ = ["NOTE_US", "Progress"]
