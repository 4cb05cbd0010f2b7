"""How long a step may take: to begin, for an attempt, between two heartbeats, and in all.

Which limit strikes first is a function of a few instants, and is decided here; who waits for it and
what is stopped then is the business of :mod:`outlast.engine.steps.body`.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from outlast.errors import (
    HeartbeatLost,
    OutlastError,
    StepDeadline,
    StepQueueTimeout,
    StepTimeout,
)

GRACE_US: Final = 5_000_000
"""How long a body may take to stop, where its step does not say."""
Struck = type[StepQueueTimeout] | type[StepTimeout] | type[HeartbeatLost] | type[StepDeadline]


class Limits(Struct, frozen=True, kw_only=True):
    """The limits of a step, in microseconds; None is no limit.

    Attributes:
        queue_us: how long an attempt may wait for a thread or process.
        attempt_us: how long one attempt may take, once it has begun.
        heartbeat_us: how long it may be silent.
        deadline_us: how long all attempts may take, back-offs included, from the call on.
    """

    queue_us: int | None = None
    attempt_us: int | None = None
    heartbeat_us: int | None = None
    deadline_us: int | None = None

    def first(
        self,
        now: int,
        *,
        queued_at: int,
        begun_at: int | None,
        beat_at: int | None,
        deadline_at: int | None,
    ) -> tuple[int, Struck | None]:
        """Give the instant at which to look again, and what strikes then if nothing happens.

        An attempt that has not begun cannot have used up its time before it could have begun now.
        """
        candidates: list[tuple[int, Struck | None]] = []
        if deadline_at is not None:
            candidates.append((deadline_at, StepDeadline))
        if begun_at is None:
            if self.queue_us is not None:
                candidates.append((queued_at + self.queue_us, StepQueueTimeout))
            spans = (self.attempt_us, self.heartbeat_us)
            candidates += [(now + span, None) for span in spans if span is not None]
        else:
            if self.attempt_us is not None:
                candidates.append((begun_at + self.attempt_us, StepTimeout))
            if self.heartbeat_us is not None:
                candidates.append((max(begun_at, beat_at or 0) + self.heartbeat_us, HeartbeatLost))
        return min(candidates, key=lambda one: one[0])

    def error(self, struck: Struck, key: str, attempt: int, where: str) -> OutlastError:
        """Make the error that says which limit was passed."""
        if struck is StepQueueTimeout:
            said = f"step {key} waited longer than {_seconds(self.queue_us)} to begin"
        elif struck is StepTimeout:
            took = f"took longer than {_seconds(self.attempt_us)}"
            said = f"attempt {attempt} of step {key} {took}"
        elif struck is HeartbeatLost:
            said = f"attempt {attempt} of step {key} was silent for {_seconds(self.heartbeat_us)}"
        else:
            said = f"step {key} took longer than {_seconds(self.deadline_us)} in all"
        return struck(said, where=where)


def limits_of(
    queue_us: int | None, attempt_us: int | None, heartbeat_us: int | None, deadline_us: int | None
) -> Limits | None:
    """Give the limits of a step; None if it has none."""
    limits = Limits(
        queue_us=queue_us,
        attempt_us=attempt_us,
        heartbeat_us=heartbeat_us,
        deadline_us=deadline_us,
    )
    return None if limits == Limits() else limits


def _seconds(span_us: int | None) -> str:
    return f"{(span_us or 0) / 1e6:g} s"


__all__ = ["GRACE_US", "Limits", "Struck", "limits_of"]
