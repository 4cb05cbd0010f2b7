"""What an execution made of another one brings along, and how its code comes by it again.

Theory of operation. A fork or a recovery is born with copies of what its source had learned: one
``annotation`` row for each outcome, with its source's number and time (``descent.py`` writes them).
Together they are its *script*. At its first start the driver plays the script to the code: whenever
the code is quiet, the first outcome that it can take is recorded as a row of its own
(``{"reused": seq}``) and delivered, with the time that it had in the source. So the code goes the
source's way exactly, races and timers included, as long as it asks for the same; and it sees the
source's time and dice.

Once the code can take nothing of the script, it stands at the *point*. A row says so, and from
there it lives: what it waited for keeps the time that it had left (timers are moved), a fork draws
other random numbers, and bodies start. What is left of the script is reused later where the code
makes the very same call; a timer of it fires at once where the code waits for nothing but time.

A replay does nothing of this: it has the rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Any, Final

from msgspec import Struct

from outlast.engine.replay.scope import Call, Scope
from outlast.engine.replay.thread_scope import ThreadScope
from outlast.lifecycle import Event, Kind, Transition

REUSABLE: Final = "reusable"
"""In the data of an annotation: the row of the source that it copies."""
POINT: Final = "point"
"""In the data of an annotation: here the code comes to the end of what it brought along."""
KEPT: Final = ("failed", "attempts", "child", "state", POINT)
"""What a copy says of an outcome besides."""
_KINDS: Final = {
    "step": Kind.STEP,
    "timer": Kind.TIMER_FIRED,
    "input": Kind.INPUT_RECEIVED,
    "signal": Kind.SIGNAL_RECEIVED,
    "child": Kind.CHILD_FINISHED,
    "point": Kind.ANNOTATION,
}


class Past(Struct, frozen=True):
    """What the first row of a fork or recovery says about the life it takes up.

    Attributes:
        began_at: when the source's code began.
        seed: what its random numbers come from, up to the point.
        identity: in whose name its steps speak to services outside.
        reseeds: whether other random numbers are drawn from the point on.
    """

    began_at: int
    seed: str
    identity: str
    reseeds: bool


def past_of(birth: Transition) -> Past | None:
    """Read what an execution takes up; None for one that begins at its own first line."""
    source: Any = birth.data.get("from") if birth.data else None
    if source is None or "began_at" not in source:
        return None
    identity = source.get("identity") or birth.execution_id
    return Past(source["began_at"], source["seed"], identity, source["mode"] == "fork")


def is_reusable(row: Transition) -> bool:
    """Tell whether a row of a log is a copy of what another execution had learned."""
    return row.kind is Kind.ANNOTATION and row.data is not None and REUSABLE in row.data


def is_point(row: Transition) -> bool:
    """Tell whether a row of a log says that its code goes on from here by itself."""
    data = row.data if row.kind is Kind.ANNOTATION else None
    return data is not None and POINT in data and REUSABLE not in data


_CALLS: Final = {"step": ("step", "start"), "input": ("ask",), "child": ("child",)}
"""Which outcomes are for which calls."""


class Script:
    """The outcomes that an execution brought along and that its code has not come by again.

    Attributes:
        point_ahead: whether the code is still on its source's way.
    """

    def __init__(self, rows: Iterable[Transition]) -> None:
        self.point_ahead = True
        self._rows: dict[int, Transition] = {}
        self._calls: dict[str, Transition] = {}
        self._timers: dict[str, Transition] = {}
        self._others: deque[Transition] = deque()
        self._ready: list[tuple[int, Call]] = []
        for row in rows:
            if not is_reusable(row):
                continue
            self._rows[row.seq] = row
            kind, key = _kind(row), row.key or ""
            if kind in _CALLS:
                self._calls.setdefault(key, row)
            elif kind == "timer":
                self._timers[key] = row
            else:
                self._others.append(row)

    @property
    def has_more(self) -> bool:
        """Whether there is anything that its code has not come by again."""
        return bool(self._calls or self._timers or self._others)

    def row(self, again: Transition) -> Transition | None:
        """Give the copy that a row of the log has used; None if it is none of the script's."""
        return self._rows.get(int(str((again.data or {}).get("reused", 0))))

    def spend(self, again: Transition) -> None:
        """Take out what a row of the log has used."""
        row = self.row(again)
        if row is None:
            return
        key = row.key or ""
        if self._calls.get(key) is row:
            del self._calls[key]
        elif self._timers.get(key) is row:
            del self._timers[key]
        elif row in self._others:
            self._others.remove(row)

    def offer(self, call: Call) -> bool:
        """Show it a call that the code has made; gives whether it has the outcome."""
        row = self._calls.get(call.key)
        if row is None or row.digest != call.digest or call.kind not in _CALLS[_kind(row)]:
            return False
        heappush(self._ready, (row.seq, call))
        return True

    def next(self, scope: Scope | ThreadScope) -> Event | None:
        """Give, as an event, the first outcome that the code can take now, if there is one."""
        found: Transition | None = None
        while self._ready and found is None:
            _, call = self._ready[0]
            found = self._calls.get(call.key)
            if found is None or scope.open_calls.get(call.key) is not call:
                heappop(self._ready)
                found = None
        if self._others and (found is None or self._others[0].seq < found.seq):
            found = self._others[0]
        timer = scope.next_timer() if self.point_ahead else None
        fired = None if timer is None else self._timers.get(timer.key)
        if (
            timer is not None
            and fired is not None
            and fired.digest == timer.deadline_at
            and (found is None or fired.seq < found.seq)
        ):
            found = fired
        return None if found is None else self._event(found, found.digest)

    def next_timer(self, scope: Scope | ThreadScope) -> Event | None:
        """Give the firing of the timer that the code waits for, if it fired in the source, too."""
        timer = scope.next_timer()
        fired = None if timer is None else self._timers.get(timer.key)
        return None if timer is None or fired is None else self._event(fired, timer.deadline_at)

    def _event(self, row: Transition, digest: int | None) -> Event:
        """Make the event by which the code comes by a copied outcome again."""
        copied, kind = row.data or {}, _kind(row)
        data: dict[str, object] = {"reused": row.seq}
        data.update(
            (name, copied[name]) for name in ("failed", "attempts", POINT) if name in copied
        )
        payload = row.payload if kind in ("input", "signal") else None
        again = digest if kind in ("step", "timer", "child") else None
        return Event(_KINDS[kind], row.actor, key=row.key, digest=again, data=data, payload=payload)

    def when(self, row: Transition) -> int:
        """Give the time at which the code learns of a row: until the point, it is the source's."""
        if not self.point_ahead:
            return row.at
        copied = self.row(row)
        return 0 if copied is None else int(str((copied.data or {}).get("at", 0)))


def _kind(row: Transition) -> str:
    return str((row.data or {}).get("kind"))


__all__ = ["KEPT", "POINT", "REUSABLE", "Past", "Script", "is_point", "is_reusable", "past_of"]
