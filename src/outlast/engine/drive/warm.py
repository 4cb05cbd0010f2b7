"""Warm copies: the code of parked executions, kept for a while as it stands.

Theory of operation. An execution goes on by a replay of its log, and that grows with it: a loop of
a thousand waits would replay half a million rows. So the driver of one whose log is long is not
thrown away when it parks. It *rests* here, without a slot, a lease or an alarm; if this worker
claims the execution next, it goes on where it stands, and of the log only the rows since are read.

A copy must be what a replay would make, or it is none. Two questions see to that:

- May it rest? Only where its code awaits questions, events, children and timers, and nothing of the
  engine's is under way (:attr:`outlast.engine.drive.driver.Driver.can_rest`).
- Has nothing else happened? The claim must be the next one (the fence and the count of claims say
  that nobody held it between), by the very code; and the log must have the row with which it
  parked, by its nonce, and behind it messages and the way back alone (:func:`fits`).

Whatever does not fit is thrown away, and the log is replayed as ever. Memory is bounded by number,
by an estimate of bytes, and by time; who parked first goes first. What is thrown away is unwound as
at any park (``architecture.md`` 3a).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from outlast.engine.task.registry import Task
from outlast.engine.write.clock import Clock
from outlast.lifecycle import Execution, Kind, Transition

if TYPE_CHECKING:
    from outlast.engine.drive.driver import Driver

WARM_COPIES: Final = 128
"""Copies that an engine keeps, where it is told nothing else."""
BYTES_MAX: Final = 8 * 1024 * 1024
"""What all copies of an engine take at most, as it is estimated."""
ROWS_MIN: Final = 32
"""Shorter logs are replayed: that costs little more than to look whether a copy fits."""
KEPT_US: Final = 60_000_000
"""How long a copy is kept. Who waits for longer can afford a replay."""
_COPY_BYTES: Final = 16 * 1024
"""What a copy takes without the user's own values."""
_BYTES_A_BYTE: Final = 3
"""What a byte of JSON takes as Python's values, about; how many of them code holds on to is not
known, so all are counted."""
_MEANWHILE: Final = frozenset(
    {
        Kind.INPUT_RECEIVED,
        Kind.SIGNAL_RECEIVED,
        Kind.CHILD_FINISHED,
        Kind.RESUME,
        Kind.BLOCK,
        Kind.UNBLOCK,
        Kind.CLAIM,
    }
)
"""What may have happened to one that rests: what wakes it, and what brings it back here."""


class WarmCopies:
    """The drivers that rest on one worker; everything here runs on the engine's loop.

    Args:
        copies_max: how many; 0 keeps none.
        clock: tells the time.
        rows_min: from how many rows of its log on an execution is kept.
    """

    def __init__(self, copies_max: int, clock: Clock, *, rows_min: int = ROWS_MIN) -> None:
        self._copies_max = copies_max
        self._rows_min = rows_min
        self._clock = clock
        self._resting: OrderedDict[str, tuple[Driver, int, int]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._resting)

    def keep(self, driver: Driver) -> bool:
        """Let a driver rest whose execution has just parked; False: it is to be forgotten."""
        if driver.record.seq < self._rows_min or not self._copies_max:
            return False
        now = self._clock.now()
        size = _COPY_BYTES + _BYTES_A_BYTE * driver.owner.payload_bytes
        if size > BYTES_MAX or not driver.can_rest or _wakes_late(driver.owner.row, now):
            return False
        driver.rest()
        self._forget(driver.record.id)
        self._resting[driver.record.id] = driver, size, now + KEPT_US
        self._bytes += size
        while len(self._resting) > self._copies_max or self._bytes > BYTES_MAX:
            self._forget(next(iter(self._resting)))
        return True

    def take(self, record: Execution, task: Task[Any, Any]) -> Driver | None:
        """Give the driver that may go on with what was just claimed; it is kept no longer."""
        if record.id not in self._resting:
            return None
        driver, size, _ = self._resting.pop(record.id)
        self._bytes -= size
        before = driver.record
        is_next = record.fence == before.fence + 1 and record.claims == before.claims + 1
        if is_next and driver.task is task and driver.go_back(record):
            return driver
        driver.forget()
        return None

    def cool(self, now: int) -> None:
        """Forget what has rested for too long."""
        while self._resting:
            id, (_, _, until) = next(iter(self._resting.items()))
            if until > now:
                return
            self._forget(id)

    def close(self) -> None:
        """Forget all."""
        while self._resting:
            self._forget(next(iter(self._resting)))

    def _forget(self, id: str) -> None:
        kept = self._resting.pop(id, None)
        if kept is not None:
            self._bytes -= kept[1]
            kept[0].forget()


def fits(parked: Transition, record: Execution, rows: Sequence[Transition]) -> bool:
    """Tell whether a log has gone on from where a copy rests in no other way than copies know.

    Args:
        parked: the row with which it parked.
        record: the execution as it was claimed.
        rows: its log from that row on.
    """
    if not rows or rows[0].nonce != parked.nonce or rows[0].kind is not parked.kind:
        return False
    numbers = [row.seq for row in rows]
    return numbers == list(range(parked.seq, record.seq + 1)) and all(
        row.kind in _MEANWHILE for row in rows[1:]
    )


def _wakes_late(parked: Transition, now: int) -> bool:
    """Tell whether nothing but a time could wake it, and that lies too far ahead."""
    data: Any = parked.data or {}
    due_at = data.get("due_at")
    if due_at is None or due_at <= now + KEPT_US:
        return False
    return all(wait["kind"] in ("timer", "retry") for wait in data.get("waits", ()))


__all__ = ["ROWS_MIN", "WARM_COPIES", "WarmCopies", "fits"]
