"""Write a batch item by item: one of them is guilty, or is about another lease than the rest.

Theory of operation. Each item is written within a savepoint of the one transaction; a guard that
fires takes back that item alone. What an item leads to (its charge, words to parents, errands)
comes at the end of the batch, as always, but is tried at once and taken back, so that a guard that
fires there blames the item as well. What comes of the other items is just what the batch would have
done without the guilty one.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from outlast.errors import InternalError, OutlastError
from outlast.store.books import Paying, tell
from outlast.store.protocol import (
    STORED,
    Adjust,
    Answer,
    Create,
    CreateMany,
    Deliver,
    Item,
    Reserve,
    Write,
)
from outlast.store.relational.budgets import lock_money, take_money
from outlast.store.relational.errands import conclude
from outlast.store.relational.going_on import go_on, queues_that_ask
from outlast.store.relational.pending import Pending, lock_heads
from outlast.store.relational.rows import changed_values_of

if TYPE_CHECKING:
    from outlast.store.relational.store import RelationalStore

TURN: Final = {CreateMany: -1, Create: 0, Write: 1, Reserve: 1, Adjust: 1, Deliver: 2}
"""The order within a batch: births that are alike first, as one statement writes them; deliveries
last, as they are decided on what the owners wrote."""
RACES_MAX: Final = 3
"""So often what somebody else may have made in the same instant is nobody's guilt."""
FAULTS: Final[tuple[type[Exception], ...]] = (
    InternalError,
    AssertionError,
    TypeError,
    ValueError,
    OverflowError,
    msgspec.MsgspecError,
)
"""What one item can do to its batch, besides what shows itself as a fault of the database."""


class _TakenBackError(Exception):
    """What was tried is taken back."""


class Apart:
    """One batch, written item by item inside the open transaction."""

    def __init__(self, store: RelationalStore, batch: Sequence[Item], *, tries: int) -> None:
        """Take a batch, which is written apart for the so-manieth time."""
        self._store = store
        self._is_patient = tries <= RACES_MAX
        self._batch = batch
        self._answers = [STORED] * len(batch)
        self._broken: dict[tuple[str, int], str] = {}
        self._all = Pending()

    def write(self) -> list[Answer]:
        """Write it; gives each item its answer."""
        answers, batch = self._answers, self._batch
        lock_heads(self._store.database, batch)
        places = sorted(range(len(batch)), key=lambda place: TURN[type(batch[place])])
        deliveries: list[tuple[int, Deliver]] = []
        paying: list[tuple[int, Paying]] = []
        lock_money(
            self._store.database,
            [(place, item) for place, item in enumerate(batch) if _pays(item)],  # type: ignore[misc]
        )
        for place in places:
            item = batch[place]
            if isinstance(item, Deliver):
                deliveries.append((place, item))
            elif isinstance(item, CreateMany):
                self._attempt(place, partial(self._store._bear, place, item, answers))
            elif isinstance(item, Reserve | Adjust):
                paying.append((place, item))
            else:
                self._own(place, item)
                if isinstance(item, Write) and item.charge is not None:
                    paying.append((place, item))
        for place, one in paying:
            if not isinstance(one, Write):
                self._attempt(place, partial(self._rehearse, Pending(), [(place, one)]))
        words = take_money(self._store, paying, answers) if paying else []
        offers = [(place, item) for place, item in deliveries if item.offer is not None]
        asked = queues_that_ask(self._store, offers[0][1].execution_id) if offers else ()
        for place, item in deliveries:
            self._deliver(place, item)
        for place, item in self._all.sends:
            self._deliver(place, item, answers=[STORED] * len(batch))
        for place, item in words:
            said = [STORED] * len(batch)
            self._deliver(place, item, answers=said)
            tell(answers[place], said[place])
        if offers:
            told = [item for _, item in [*deliveries, *self._all.sends, *words]]
            self._go_on(offers, {item.execution_id for item in told}, asked)
        conclude(self._store, self._all.ended, answers)
        return answers

    def _attempt(self, place: int, act: Callable[[], object]) -> None:
        """Act for an item; a fault takes that back, and is the answer."""
        try:
            with self._savepoint():
                act()
        except self._store.faults as fault:
            self._answers[place] = self._guilty(place, fault)

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        """Run a block that an error takes back by itself; nobody hears of what was in it."""
        database = self._store.database
        hearing = nullcontext() if database.hearing is None else database.hearing.part()
        with hearing, database.savepoint():
            yield

    def _guilty(self, place: int, fault: Exception) -> Answer:
        if self._is_patient and isinstance(fault, self._store.database.races):
            raise fault  # perhaps nobody is guilty: the transaction is run again, and sees
        if not isinstance(fault, OutlastError):
            fault = InternalError(
                f"a guard of the store refused an item: {fault}",
                where=f"{self._store.url}, {id_of(self._batch[place])}",
            )
        return Answer("internal_error", error=fault)

    def _own(self, place: int, item: Create | Write) -> None:
        """Take what an owner wrote."""
        lease = id_of(item), fence_of(item)
        if lease in self._broken and isinstance(item, Write):
            self._answers[place] = Answer(self._broken[lease])
            return
        pending = Pending()
        self._attempt(place, partial(self._take, place, item, pending))
        refused = self._answers[place].refused
        if refused is None:
            self._all.sends += pending.sends
            self._all.ended += pending.ended
        # What follows a create of something that exists is judged by what is stored.
        elif isinstance(item, Write) or not self._store._records([lease[0]]):
            self._broken[lease] = refused

    def _take(self, place: int, item: Create | Write, pending: Pending) -> None:
        store, answers = self._store, self._answers
        creates = [(place, item)] if isinstance(item, Create) else []
        chains = {item.id: [(place, item)]} if isinstance(item, Write) else {}
        store._take_owned(creates, chains, self._batch, answers, pending)
        paying = [(place, item)] if isinstance(item, Write) and item.charge is not None else []
        self._rehearse(pending, paying)

    def _rehearse(self, pending: Pending, paying: Sequence[tuple[int, Paying]] = ()) -> None:
        """Try what will come of it at the end of the batch."""
        try:
            with self._savepoint():
                said = list(self._answers)
                if paying:
                    take_money(self._store, paying, said)
                conclude(self._store, pending.ended, [])
                raise _TakenBackError
        except _TakenBackError:
            pass

    def _go_on(
        self, offers: list[tuple[int, Deliver]], told: set[str], asked: Container[str]
    ) -> None:
        """Claim what messages have woken, if they were offered a slot; or none of it."""
        store, pending = self._store, Pending()
        records = store._records(told)
        try:
            with self._savepoint():
                for id in go_on(store, offers, records, self._answers, pending, asked):
                    pending.saved.append(changed_values_of(records[id]))
                store._flush(pending)
        except store.faults:
            for place, _ in offers:
                self._answers[place].claimed = None  # the next claim finds them

    def _deliver(self, place: int, item: Deliver, answers: list[Answer] | None = None) -> None:
        """Deliver a message; for one that nobody asked for, ``answers`` are nobody's."""
        pending = Pending()
        said = self._answers if answers is None else answers

        try:
            with self._savepoint():
                self._store._take_deliveries([(place, item)], said, pending)
                self._store._flush(pending)
                self._rehearse(pending)
        except self._store.faults as fault:
            said[place] = self._guilty(place, fault)
        else:
            self._all.ended += pending.ended


def _pays(item: Item) -> bool:
    """Tell whether an item is about budgets."""
    return isinstance(item, Reserve | Adjust) or (
        isinstance(item, Write) and item.charge is not None
    )


def fence_of(item: Create | Write) -> int:
    """Give the fence of the lease that an item is written under."""
    return item.after.fence if isinstance(item, Create) else item.fence


def id_of(item: Item) -> str:
    """Name what an item is about."""
    if isinstance(item, Create):
        return item.after.id
    if isinstance(item, CreateMany):
        return item.ids[0]
    if isinstance(item, Adjust):
        return item.scope
    return item.id if isinstance(item, Write) else item.execution_id
