"""Two stores side by side: the same calls, the same answers, and all that can be read alike.

One is the memory store, the other a SQLite file or a PostgreSQL database (:data:`Open`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import fields

from outlast.lifecycle.record import copy_of
from outlast.schedule import Request, Wish
from outlast.store.memory import MemoryStore
from outlast.store.protocol import Adjust, Answer, Claims, Create, Item, Reserve, Store, Write
from outlast.store.relational.store import SOMEBODYS_US
from outlast.store.sqlite import SqliteStore
from outlast.testing.conformance import replace

R = TypeVar("R")
ANSWER = tuple(one.name for one in fields(Answer) if one.name != "error")
LISTS = ("told", "budgets", "unclaimed")


@cache
def empty() -> Path:
    """An empty database, to be copied: faster than to make one."""
    path = Path(tempfile.mkdtemp(prefix="outlast-diff-")) / "outlast.db"
    SqliteStore(path, owner="w0", now=1).close()
    return path


@dataclass(frozen=True, slots=True)
class Opened:
    """An empty store, to be compared.

    Attributes:
        name: of its backend.
        store: it.
        drop: lets go of it, and of what it left.
        has_own_clock: whether it judges leases by a clock that no test can set.
    """

    name: str
    store: Store
    drop: Callable[[], None]
    has_own_clock: bool = False


Open = Callable[[], Opened]


def open_sqlite() -> Opened:
    """Open a file of its own."""
    directory = Path(tempfile.mkdtemp(prefix="outlast-diff-"))
    shutil.copy(empty(), directory / "outlast.db")
    store = SqliteStore(directory / "outlast.db", owner="w0", now=1)
    store.file.writer.execute("PRAGMA synchronous = OFF")  # what is compared is not the disk

    def drop() -> None:
        store.close()
        shutil.rmtree(directory)

    return Opened("sqlite", store, drop)


class Disagreement(AssertionError):
    """The two stores do not say the same."""


def agree(what: str, one: Any, other: Any) -> None:
    """See that two answers are alike."""
    if one != other:
        raise Disagreement(f"memory gives {one!r}, the other {other!r}: {what}")


def said_by(answer: Answer) -> dict[str, Any]:
    """All that an answer says; of a fault only that there is one."""
    said = {name: getattr(answer, name) for name in ANSWER}
    said |= {name: list(said[name]) for name in LISTS}
    return said | {"error": answer.error is not None}


class Pair:
    """Two stores that get the same calls and must give the same answers."""

    def __init__(self, open: Open = open_sqlite) -> None:
        self.memory: Store = MemoryStore()
        self.other = open()
        self.seen: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.ids: list[str] = []
        self._known: dict[str, tuple[int, int]] = {}

    @property
    def stores(self) -> tuple[Store, Store]:
        return self.memory, self.other.store

    def call(self, verb: str, use: Callable[[Store], R]) -> R:
        self.seen[verb] += 1
        one, other = map(use, self.stores)
        agree(verb, one, other)
        if isinstance(one, Claims) and isinstance(other, Claims):
            agree("what a claim left", one.is_unfinished, other.is_unfinished)
            agree("what a claim waits for", one.opens_at, other.opens_at)
        return one

    def commit(self, make: Callable[[], list[Item]]) -> list[Answer]:
        """Commit the items; each store gets its own, as items may be kept."""
        self.seen["commit"] += 1
        batch = make()
        answers = [store.commit(make()) for store in self.stores]
        for item, one, other in zip(batch, *answers, strict=True):
            said, besides = said_by(one), said_by(other)
            for name in said:
                agree(f"{name} of the answer to {item}", said[name], besides[name])
            self.seen["told"] += len(one.told)
            self.seen["owes"] += one.owes
            self.seen["budgets"] += len(one.budgets)
            self.seen["unclaimed"] += len(one.unclaimed)
            self.refused[one.refused or "stored"] += 1
        return answers[0]

    def wish(self, name: str, request: Request, now: int) -> list[str]:
        """Ask something of a schedule; gives the executions it made."""
        self.seen["schedules.apply"] += 1
        one, other = (store.schedules.apply(name, request, now) for store in self.stores)
        agree(f"{request.wish} of {name}", one, other)
        self.seen[f"schedule: {one.refused or 'granted'}"] += 1
        self.seen["fired"] += request.wish is Wish.ADVANCE and bool(one.made)
        self.ids += one.made
        return one.made

    def check(self, now: int) -> None:
        """Compare everything there is; logs and inboxes, which only grow, where they have."""
        rows = [store.get(self.ids) for store in self.stores]
        agree("the rows", *rows)
        for id, row in zip(self.ids, rows[0], strict=True):
            size = (-1, -1) if row is None else (row.seq, row.inbox_count)
            if self._known.get(id) != size:
                self._known[id] = size
                self.check_one(id)
        self.read("counts", lambda store: store.counts())
        self.read("what is due next", lambda store: self.sweep(store, now, 0))
        self.check_questions()
        self.check_capacity()
        self.check_budgets()
        self.check_schedules()

    def sweep(self, store: Store, now: int, limit: int) -> tuple[int, int | None]:
        """Sweep. Where others write, too, what was not moved is looked at a little later."""
        moved, next_at = store.sweep(now, limit)
        if self.other.has_own_clock and next_at is not None:
            next_at = max(next_at, now + SOMEBODYS_US)
        return moved, next_at

    def check_one(self, id: str) -> None:
        self.read("the log", lambda store: store.log(id))
        self.read("streams", lambda store: store.streams(id))
        self.seen["emitted"] += len(self.read("a stream", lambda s: s.stream(id, "draft")))
        self.read("progress", lambda store: store.progress([id]))
        self.read("the inbox", lambda store: store.inbox(id))
        self.read("spending", lambda store: dict(store.spending(id)))
        self.read("reservations", lambda store: by_key(store.reservations(id)))

    def read(self, what: str, use: Callable[[Store], R]) -> R:
        one, other = map(use, self.stores)
        agree(what, one, other)
        return one

    def check_questions(self) -> None:
        for newest in (True, False):
            ask = partial(self.ask, newest=newest)
            asking = self.read("asking", ask)
            self.seen["asking"] += len(asking)
        self.read("asking ann", lambda s: s.asking("ann", self.middle(), 3, newest=True))

    def ask(self, store: Store, *, newest: bool) -> list[str]:
        return store.asking(None, "", 1_000, newest=newest)

    def middle(self) -> str:
        return self.ids[len(self.ids) // 2] if self.ids else ""

    def check_capacity(self) -> None:
        self.read("queues", lambda store: store.capacity.queues())
        gates = self.read("gates", lambda store: store.capacity.gates())
        self.seen["blocked"] += any(gate.waiting for gate in gates)
        for id in self.ids[-8:]:
            self.read("standing", lambda store, id=id: store.capacity.standing(id))

    def check_budgets(self) -> None:
        for budget in self.read("budgets", lambda store: store.budgets()):
            self.read("events", lambda s, of=budget: s.budget_events(of.scope, of.meter))
        scopes = [f"{kind}:{id}" for id in self.ids[-30:] for kind in ("execution", "tree")]
        own = self.read("own budgets", lambda store: store.budgets(scopes))
        for budget in own:
            self.read("events", lambda s, of=budget: s.budget_events(of.scope, of.meter))

    def check_schedules(self) -> None:
        for row in self.read("schedules", lambda store: store.schedules.page()):
            self.read("its log", lambda store, name=row.name: store.schedules.log(name))

    def close(self, now: int) -> None:
        """Compare all of it once more, and let each store look through its own."""
        try:
            self._known.clear()
            self.check(now)
            self.read("descents", lambda store: store.descents(self.ids))
            for store in self.stores:
                defects = store.verify().defects
                assert defects == [], defects
            self.call("verify", lambda store: store.verify())
        finally:
            self.drop()

    def drop(self) -> None:
        self.other.drop()


def by_key(found: list[Any]) -> list[Any]:
    return sorted(found, key=lambda one: (one.key, one.name))


def twice(items: list[Item]) -> Callable[[], list[Item]]:
    """Give fresh copies of a batch, so that no store can see what another did to an item."""

    def make() -> list[Item]:
        fresh: list[Item] = []
        for item in items:
            if isinstance(item, Create):
                fresh.append(created(item))
            elif isinstance(item, Write):
                after = None if item.after is None else copy_of(item.after)
                rows = [replace(row) for row in item.rows]
                births = [created(birth) for birth in item.births]
                fresh.append(replace(item, rows=rows, after=after, births=births))
            elif isinstance(item, Reserve | Adjust):
                fresh.append(replace(item, amounts=dict(item.amounts)))
            else:
                fresh.append(item)
        return fresh

    return make


def created(item: Create) -> Create:
    return Create(copy_of(item.after), [replace(row) for row in item.rows])
