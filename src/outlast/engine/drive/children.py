"""The children of one execution: tasks that its code calls, each an execution of its own.

A child is born in the same transaction as the parent's row that names it, and its end comes back
through the parent's inbox, in the transaction that ends it. So neither a crash nor a freeze can
leave a call without its child, a child without its call, or an end that nobody hears of.

What the code asked for and what the log says of it are matched by the call's key. The whole task
tried again takes over the children of the try before: one that succeeded gives its result again,
one still under way is waited for, one that failed is made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from outlast.engine.task.task_call import ChildCall, ChildEnd, Started
from outlast.engine.write.request import birth_event
from outlast.lifecycle import Event, Execution, Kind, Message, MessageKind, State, Transition
from outlast.store.protocol import Create, Deliver

NAMED_MAX: Final = 8
"""Children that a wait names one by one; a row must not grow with their number."""


class Midwife(Protocol):
    """What brings executions into the world: the worker."""

    def new_id(self, now: int) -> str:
        """Draw an id."""

    def birth(
        self, id: str, event: Event, now: int, notes: Sequence[Event] = ()
    ) -> tuple[Create, Any]:
        """Make the item that creates an execution, and what will run it here, if anything.

        ``notes`` are what its log begins with, after its birth.
        """

    def born(self, driver: Any, item: Create, stored: bool) -> None:
        """Run what was created, or forget it."""

    def look(self) -> None:
        """See whether there is something to claim."""


class Child(Struct):
    """A child as its parent's log knows it."""

    id: str
    digest: int | None


def child_end(copied: Transition) -> ChildEnd:
    """Read what a child of another execution came to from what this one copied of it."""
    data: Any = copied.data or {}
    return ChildEnd(str(data["child"]), str(data["state"]), copied.payload, data, copied.digest)


class Children:
    """The book that a driver keeps of its execution's children.

    Attributes:
        under_way: the children that the code waits for, by the key of the call.
        has_borne: whether executions were born by it here, which it has to hear of.
    """

    has_borne = False

    def __init__(
        self,
        record: Execution,
        midwife: Midwife,
        append: Callable[..., Transition],
        charges: Sequence[str] = (),
    ) -> None:
        self._charges = charges
        self._id = record.id
        self._root = record.root_id or record.id
        self._midwife = midwife
        self._append = append
        self.under_way: dict[str, Child] = {}
        self._earlier: dict[str, Child] = {}
        self._results: dict[str, tuple[int | None, Transition]] = {}
        self._given_up: set[str] = set()
        self._newborn: dict[str, Any] = {}
        self._called: dict[str, int | None] = {}

    # What the log says

    def take_earlier(self, rows: Iterable[Transition]) -> None:
        """Read the rows of earlier tries: their children may be of use again."""
        for row in rows:
            self.take(row)
        self._earlier, self.under_way = self.under_way, {}
        self._given_up.clear()
        self._called.clear()

    def take(self, row: Transition) -> None:
        """Read a row of the log."""
        data, key = row.data or {}, row.key
        if key is None or "child" not in data:
            return
        if row.kind is Kind.STEP_ANNOUNCED:
            self.under_way[key] = Child(str(data["child"]), row.digest)
            self._called[key] = row.digest
            self._earlier.pop(key, None)
        elif row.kind is Kind.CALL_ABANDONED:
            self._given_up.add(key)
            self.under_way.pop(key, None)
        elif row.kind is Kind.CHILD_FINISHED and "reused" not in data:
            child = self.under_way.pop(key, None) or self._earlier.pop(key, None)
            if data.get("state") == State.SUCCEEDED and child is not None:
                self._results[key] = (child.digest, row)

    def digest_of(self, key: str) -> int | None:
        """Give the digest of the call that this try has made under this key; None: it has not."""
        return self._called.get(key)

    def end(self, row: Transition) -> ChildEnd:
        """Read what a child came to from a row of the log."""
        data: Any = row.data or {}
        source = row
        if "reused" in data:
            assert row.key is not None
            source = self._results[row.key][1]
            data = source.data or {}
        digest = self._results[row.key][0] if row.key in self._results else row.digest
        return ChildEnd(str(data["child"]), str(data["state"]), source.payload, data, digest)

    # What the code asks for

    def admit(self, key: str, number: int, call: ChildCall, now: int) -> Transition | None:
        """Take a call of the code's: bring its child into the world, unless it is there.

        Returns:
            A row to deliver at once: the result that a child of an earlier try had, or None.
        """
        if key in self.under_way:
            return None  # its end comes through the inbox
        digest, row = self._results.get(key, (None, None))
        if row is not None and digest == number:
            data = {**(row.data or {}), "reused": row.seq}
            data.pop("inbox", None)
            return self._append(
                Event(Kind.CHILD_FINISHED, "engine", key=key, digest=number, data=data)
            )
        earlier = self._earlier.pop(key, None)
        if earlier is not None and earlier.digest == number:
            data = {"child": earlier.id, "again": True}
            self._append(Event(Kind.STEP_ANNOUNCED, "engine", key=key, digest=number, data=data))
            self.under_way[key] = earlier
            self._called[key] = number
            return None
        item = self._bear(call, key, now)
        data = {"child": item.after.id, "task": call.task.name}
        self._append(
            Event(Kind.STEP_ANNOUNCED, "engine", key=key, digest=number, data=data), births=[item]
        )
        self.under_way[key] = Child(item.after.id, number)
        self._called[key] = number
        return None

    def start(self, key: str, number: int, call: ChildCall, now: int) -> Transition:
        """Start an execution that nobody waits for; gives the row with its id, to deliver."""
        item = self._bear(call, None, now)
        payload = msgspec.json.encode(Started(item.after.id))
        event = Event(Kind.STEP, "engine", key=key, digest=number, payload=payload)
        return self._append(event, births=[item])

    def continue_as(
        self, call: ChildCall, birth: Transition, left: Sequence[Event], now: int
    ) -> Create:
        """Make the execution as which this one goes on: of the same parent, for the same call."""
        event = birth_event(call.task, call.payload, call.options, now)
        was = birth.data or {}
        inherited = (
            *("parent_id", "parent_key", "root_id", "origin", "slot"),
            *("labels", "queue", "priority", "charges"),
        )
        event.data = {
            **(event.data or {}),
            **{name: was[name] for name in inherited if name in was},
            "continued_from": self._id,
        }
        return self._born(event, now, left)

    def _bear(self, call: ChildCall, key: str | None, now: int) -> Create:
        event = birth_event(call.task, call.payload, call.options, now)
        family = {"parent_id": self._id, "root_id": self._root}
        if key is not None:
            family["parent_key"] = key
        event.data = {**(event.data or {}), **family}
        if self._charges:
            event.data["charges"] = list(self._charges)
        return self._born(event, now)

    def _born(self, event: Event, now: int, notes: Sequence[Event] = ()) -> Create:
        self.has_borne = True
        id = self._midwife.new_id(now)
        item, driver = self._midwife.birth(id, event, now, notes)
        if driver is not None:
            self._newborn[id] = driver
        return item

    def settled(
        self, births: Sequence[Create], stored: bool, unclaimed: Sequence[str] = ()
    ) -> None:
        """Hear whether the store has them, and which of them have to wait for a claim."""
        waits = False
        for item in births:
            driver = self._newborn.pop(item.after.id, None)
            if driver is not None:
                self._midwife.born(driver, item, stored and item.after.id not in unclaimed)
            if driver is None or item.after.id in unclaimed:
                waits = True
        if waits and stored:
            self._midwife.look()

    # What the code does not wait for any more

    def given_up(self, dropped: Iterable[str]) -> list[str]:
        """Name the calls that the code gave up and that nobody has told their children yet."""
        return [key for key in dropped if key in self.under_way and key not in self._given_up]

    def give_up(self, key: str, now: int) -> None:
        """Tell a child that nobody waits for it any more."""
        child = self.under_way.pop(key, None)
        if child is None or key in self._given_up:
            return
        self._given_up.add(key)
        why = f"{self._id} does not wait for it any more"
        id = f"abandoned:{self._id}:{key}"
        stop = Message(id, MessageKind.CANCEL, "parent", data={"why": why})
        self._append(
            Event(Kind.CALL_ABANDONED, "engine", key=key, data={"child": child.id}),
            sends=[Deliver(child.id, stop, now)],
        )

    def waits(self) -> list[dict[str, Any]]:
        """Name the children that are under way: the first few one by one."""
        keys = list(self.under_way)
        named = [
            {"kind": "child", "key": key, "child": self.under_way[key].id}
            for key in keys[:NAMED_MAX]
        ]
        more = len(keys) - len(named)
        return [*named, {"kind": "child", "more": more}] if more else named
