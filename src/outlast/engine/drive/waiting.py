"""What could wake the code of a leased execution, and the first instant at which time does.

Whatever does not come by itself (a message, the end of a body, an answer of the store) calls the
driver. Time has to be asked for: an alarm is set for the first instant at which it matters. The
same facts go into the log when the lease is given up, so that the store wakes it instead. Where
time may end a wait for somebody outside, what is in the inbox comes first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

from outlast.engine.drive.attempts import Attempts
from outlast.engine.drive.children import Children
from outlast.engine.drive.playback import Playback
from outlast.engine.replay.scope import Scope, Timer
from outlast.engine.replay.thread_scope import ThreadScope
from outlast.engine.steps.body import Host
from outlast.engine.write.owner import NOBODY, Owner

LINGER_US: Final = 200_000
"""Waits shorter than this keep their worker; longer ones park. A park costs four rows."""


class Slots(Host, Protocol):
    """Where it has a slot."""

    @property
    def free(self) -> int:
        """How many more executions fit."""


class Waiting:
    """What one leased execution waits for.

    Args:
        slots: where it has one.
        wake: is called when the time has come.

    Attributes:
        ends_at: when this attempt of the task must be over; None where it has all the time.
        is_looking: whether the inbox is just being read, and timers wait for that.
    """

    def __init__(
        self,
        slots: Slots,
        owner: Owner,
        attempts: Attempts,
        playback: Playback,
        children: Children,
        wake: Callable[[], None],
    ) -> None:
        self.ends_at: int | None = None
        self._slots = slots
        self._owner = owner
        self._attempts = attempts
        self._playback = playback
        self._children = children
        self._wake = wake
        self.is_looking = False
        self._seen_until = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._last_alarm: asyncio.TimerHandle | None = None

    def bound(self, ends_at: int) -> None:
        """See to it that this attempt of the task ends in time."""
        self.ends_at = ends_at
        delay = max(0, ends_at - self._slots.clock.now()) / 1e6
        self._last_alarm = self._slots.loop.call_later(delay, self._wake)

    def is_attempt_over(self) -> bool:
        """Whether this attempt has used up its time; one being cancelled has a grace instead."""
        is_late = self.ends_at is not None and self.ends_at <= self._slots.clock.now()
        return is_late and self._owner.record.cancel_at is None

    def waits(self, scope: Scope | ThreadScope) -> tuple[list[dict[str, Any]], int | None]:
        """Name everything that could wake the code, and the first instant at which time does."""
        waits: list[dict[str, Any]] = []
        instants = [] if self.ends_at is None else [self.ends_at]
        timer = scope.next_timer()
        if timer is not None:
            waits.append({"kind": "timer", "key": timer.key, "until": timer.deadline_at})
            instants.append(timer.deadline_at)
        for key, at in self._attempts.backing_off():
            waits.append({"kind": "retry", "key": key, "until": at})
            instants.append(at)
        waits += [
            {**call.payload.as_wait(), "key": call.key, "outside": True}
            for call in scope.open_calls.values()
            if call.kind in ("ask", "event")
        ]
        waits += self._children.waits()
        return waits, min(instants, default=None)

    def saw_inbox(self) -> None:
        """Hear that all that the inbox has is in the log: it came before what is due now."""
        self.is_looking = False
        self._seen_until = self._slots.clock.now()

    def look(self) -> None:
        """Let timers wait until the inbox has been read."""
        self.is_looking = True

    def looks_first(self, timer: Timer, scope: Scope | ThreadScope) -> bool:
        """Tell whether the inbox has to be read before a timer that is due may fire.

        It may end a wait for somebody outside, whose word may be in the inbox already.
        """
        if timer.deadline_at <= self._seen_until:
            return False
        return any(call.kind in ("ask", "event") for call in scope.open_calls.values())

    def stays(self, waits: list[dict[str, Any]], due_at: int | None, now: int) -> bool:
        """Tell whether it keeps its slot although nothing can run: that is soon over."""
        outside = any(wait["outside"] for wait in waits if "outside" in wait)
        is_soon = due_at is not None and due_at - now < LINGER_US and not outside
        return is_soon or self._lingers(now)

    def _lingers(self, now: int) -> bool:
        """Whether it keeps its slot a moment longer, as its children may be about to end.

        Only while there are slots: what waits must never keep those from running that it waits for.
        """
        if not self._children.under_way or now >= self._playback.child_at + LINGER_US:
            return False
        return self._slots.free > 0

    def set_alarm(self, scope: Scope | ThreadScope) -> None:
        """See to it that it is woken at the next instant at which time matters."""
        timer = scope.next_timer()
        if self.is_looking or self._playback.outcomes:
            timer = None  # it waits for the inbox, or for its turn, and those call
        if self._alarm is not None:
            self.cancel_alarm()
        owner, attempts = self._owner, self._attempts
        if timer is None and not attempts.back_offs and not self._children.under_way:
            return
        now = self._slots.clock.now()
        lingers = self._lingers(now)
        # Of a call that something else holds back, that wakes us; an alarm would only spin.
        is_free = owner.durable >= owner.delivered and not owner.is_held
        instants = [at for _, at in attempts.backing_off() if is_free or at > now]
        if lingers:
            instants.append(self._playback.child_at + LINGER_US)
        if timer is not None:
            instants.append(timer.deadline_at)
        if instants:
            delay = max(0, min(instants) - now) / 1e6
            self._alarm = self._slots.loop.call_later(delay, self._wake)

    def cancel_alarm(self) -> None:
        """Forget the next instant."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def close(self) -> None:
        """Be woken no more."""
        self._wake = NOBODY.pump
        self.cancel_alarm()
        if self._last_alarm is not None:
            self._last_alarm.cancel()


__all__ = ["LINGER_US", "Slots", "Waiting"]
