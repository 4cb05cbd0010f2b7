"""Membership of many engines on one shared store: a lease a process, renewed, watched, taken over.

Theory of operation. Where a lock proves that one engine has the store, nothing of this is there.
Elsewhere each incarnation of an engine has one row with one lease, however many executions it runs;
whoever finds a lease that has run out takes its executions over. Three clocks are involved, and
none is compared with another: the store's own judges every lease; each engine measures, from the
moment it *sent* the last renewal that was confirmed, how long its lease runs at least; and the
clock on the wall has no say. What a renewal tells of the store's clock, the engine's follows.

- A thread of its own renews, on a connection of its own. A loop that computes, a journal that waits
  for the disk, a long collection of garbage in another thread do not hold it up.
- *The watchdog.* When the lease is about to run out, no body starts any more (``may_begin``, asked
  at each start: a process that was stopped and goes on has no time to notice otherwise). When it
  has run out, everything in memory is dropped, as after a commit that failed, and the engine comes
  back as a new incarnation. A renewal that fails is unknown, not lost: it is tried again till then.
- What is late in spite of that (a body that runs on, a write that was on its way) is refused by its
  fence. The lease only says when others may begin; the fence alone keeps the log right.
- *Takeover.* Every engine looks for leases that have run out, at bounded intervals with jitter, and
  takes back a few executions at a time, so that hundreds that come back at once do not stand in
  each other's way. The store decides again, in the very transaction, whether the lease has run out.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from outlast.duration import Duration, microseconds
from outlast.engine.write.clock import Clock, StoreClock, boot_us
from outlast.engine.write.tally import Tally
from outlast.errors import OutlastError, UsageError
from outlast.store.protocol import Renewal, Store

LEASE: Final = "10s"
"""How long a lease is by default."""
LEASE_US_MIN: Final = 100_000
RENEWALS: Final = 3
"""Renewals in the time of one lease: two may fail."""
MARGIN: Final = 0.15
"""The share of a lease, at its end, in which no body starts any more."""
RETRY_SECONDS: Final = 0.2
"""How soon a renewal that failed is tried again, at most."""
LOOK_SECONDS: Final = 0.6
"""How often an engine looks for leases that have run out: a little more often, by chance."""
THOROUGH: Final = 16
"""Each so-manieth look also finds executions whose worker has no row, or was half taken over."""
TAKEN_MAX: Final = 200
"""Executions that are taken over in one transaction."""
WORKERS_MAX: Final = 8
"""Workers whose executions are taken over in one transaction."""


def checked_lease(lease: Duration) -> int:
    """Read how long a lease is, in microseconds.

    Raises:
        UsageError: it is too short to be renewed in time.
    """
    lease_us = microseconds(lease)
    if lease_us < LEASE_US_MIN:
        raise UsageError(
            "the lease is shorter than 100 ms", why="it cannot be renewed in time", do='lease="10s"'
        )
    return lease_us


class Membership:
    """The lease of this process, by whichever name it has just now.

    Args:
        store: where the lease is.
        lease_us: how long it is after each renewal.
        clock: for stores that have none of their own; one that follows the store's hears it.
        renewed: hears, from the renewing thread, of each renewal that was confirmed.
        lost: hears, from there, that the lease under this name is gone.

    Attributes:
        serving: how many workers there were at last, this one included.
    """

    def __init__(
        self,
        store: Store,
        lease_us: int,
        clock: Clock,
        renewed: Callable[[Renewal], None],
        lost: Callable[[str], None],
    ) -> None:
        self.lease_us = lease_us
        self.renewals = 0
        self.serving = 1
        self.tally = Tally()
        self._store = store
        self._clock = clock
        self._renewed = renewed
        self._lost = lost
        self._name: str | None = None
        self._sent_at = self._ends_at = 0.0
        self._until = float("-inf")
        self._draining = False
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_over = False
        self._thread: threading.Thread | None = None

    # For the loop

    def now(self) -> float:
        """Give the time by which the lease is measured here, in seconds."""
        return boot_us() / 1e6

    def joined(self, name: str, lease_us: int, sent_at: float) -> None:
        """Have a lease of this length under this name, which was asked for at that moment."""
        with self._lock:
            self._name = name
            self._granted(lease_us, sent_at)
        self._wake.set()

    def _granted(self, lease_us: int, sent_at: float) -> None:
        """Measure from when it was asked for: the store granted it then, or later."""
        self._sent_at, self._ends_at = sent_at, sent_at + lease_us / 1e6
        self._until = sent_at + lease_us / 1e6 * (1 - MARGIN)

    def left(self) -> None:
        """Have no lease any more: nothing begins before the next one."""
        with self._lock:
            self._name, self._until = None, float("-inf")

    def may_begin(self) -> bool:
        """Tell whether the lease runs for certain, and a while longer."""
        return self.now() < self._until

    def expires_in(self) -> float | None:
        """Give the seconds that are left of the lease, at least; None where there is none."""
        with self._lock:
            if self._name is None:
                return None
            return self._ends_at - self.now()

    @property
    def name(self) -> str | None:
        """The name under which it has a lease; None while it has none."""
        return self._name

    def drain(self) -> None:
        """Tell the others that this worker claims no more."""
        self._draining = True
        self._wake.set()

    def start(self) -> None:
        """Renew from now on."""
        self._thread = threading.Thread(target=self._run, name="outlast-lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Renew no more; a renewal that hangs is not waited for."""
        self._is_over = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(RETRY_SECONDS)

    # For the thread

    @property
    def _seconds(self) -> float:
        return self.lease_us / 1e6

    def _run(self) -> None:
        delay = self._seconds / RENEWALS
        while not self._is_over:
            self._wake.wait(delay)
            self._wake.clear()
            if not self._is_over:
                delay = self.beat()

    def beat(self) -> float:
        """Renew the lease once; gives after how many seconds to do it again."""
        name, lease_us, sent_at = self._name, self.lease_us, self.now()
        rhythm = self._seconds / RENEWALS
        if name is None:
            return rhythm
        since = sent_at - self._sent_at
        if since < rhythm / 2 and not self._draining:
            return rhythm - since  # it has just joined
        begun = time.monotonic()
        try:
            renewal = self._store.renew(name, lease_us, self._clock.now(), draining=self._draining)
        except Exception as error:  # noqa: BLE001 - this thread may not end; it tries again
            if not isinstance(error, OutlastError):
                self.fault = error
            self.tally.late_renewals += 1
            return min(RETRY_SECONDS, rhythm)
        heard_at = boot_us()
        self.tally.renewed(time.monotonic() - begun)
        if renewal is None:
            self.tally.late_renewals += 1
            with self._lock:
                if self._name == name:
                    self._until = float("-inf")
            self._lost(name)
            return rhythm
        with self._lock:
            if self._name != name:
                return 0.0
            self._granted(lease_us, sent_at)
            self.renewals, self.serving = self.renewals + 1, renewal.serving
        if isinstance(self._clock, StoreClock):
            self._clock.heard(renewal.at, round(sent_at * 1e6), heard_at)
        self._renewed(renewal)
        return rhythm * random.uniform(0.8, 1.0)

    fault: Exception | None = None
    """The last error that was none of ours; for whoever looks for a bug."""


def in_parts(dead: Sequence[str], dice: random.Random) -> list[list[str]]:
    """Part expired workers into those that are taken over together, in an order by chance.

    So engines that find the same ones at once begin at different ends.
    """
    shuffled = list(dead)
    dice.shuffle(shuffled)
    return [shuffled[n : n + WORKERS_MAX] for n in range(0, len(shuffled), WORKERS_MAX)]


__all__ = ["LEASE", "Membership", "checked_lease", "in_parts"]
