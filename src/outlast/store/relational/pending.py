"""What a transaction gathers before it sends it, by table and shape; and what its chains leave."""

from __future__ import annotations

from collections.abc import Sequence

from outlast.lifecycle import Execution, Transition
from outlast.lifecycle.record import copy_of
from outlast.store.books import Losses
from outlast.store.decisions import edges_of
from outlast.store.protocol import (
    STORED,
    Answer,
    BudgetRow,
    Create,
    CreateMany,
    Deliver,
    Emission,
    Item,
    ProgressRow,
    Reserve,
    Write,
)
from outlast.store.relational.database import Database
from outlast.store.relational.rows import Value, plain_values_of, values_of_execution


def lock_heads(database: Database, batch: Sequence[Item]) -> None:
    """Lock what a batch is about, before it is looked at; in the order of all locks.

    Who is born or woken with a claim is claimed like any other: so whoever sets a queue waits for
    it.
    """
    if database.is_shared:
        if any(map(_claims, batch)):
            database.lock("queues_shared")
        database.lock("executions", touched_by(batch))


def _claims(item: Item) -> bool:
    """Tell whether somebody is born in an item who is claimed at once, or may be woken so."""
    if isinstance(item, Deliver):
        return item.offer is not None
    if isinstance(item, Create):
        return item.after.worker is not None
    return isinstance(item, Write) and any(one.after.worker is not None for one in item.births)


def touched_by(batch: Sequence[Item]) -> set[str]:
    """Name the executions that a batch reads or changes, as far as it says so itself."""
    touched: set[str] = set()
    for item in batch:
        if isinstance(item, Write):
            touched.add(item.id)
            touched.update(send.execution_id for send in item.sends)
            for birth in item.births:
                touched.update(edges_of(birth.rows[0]))
            after = item.after
            if after is not None and after.is_final and after.parent_id is not None:
                touched.add(after.parent_id)
        elif isinstance(item, Create):
            touched.update(edges_of(item.rows[0]))
            if item.after.parent_id is not None:
                touched.add(item.after.parent_id)
        elif isinstance(item, Deliver | Reserve):
            touched.add(item.execution_id)
    return touched


class Pending:
    """What a transaction has gathered, by table and shape."""

    __slots__ = (
        "alike", "births", "born", "budgets", "claimed", "counted", "descents", "edges", "emits",
        "ended", "losses", "messages", "moved", "plain", "progress", "saved", "sends", "told",
        "transitions",
    )  # fmt: skip

    def __init__(self) -> None:
        self.births: list[Create] = []
        self.alike: list[CreateMany] = []
        self.sends: list[tuple[int, Deliver]] = []
        self.budgets: list[BudgetRow] = []
        self.losses = Losses()
        self.emits: list[tuple[str, Sequence[Emission]]] = []
        self.progress: dict[str, ProgressRow] = {}
        self.edges: list[tuple[Value, ...]] = []
        self.ended: list[End] = []
        self.transitions: list[Transition] = []
        self.born: list[tuple[Value, ...]] = []
        self.plain: list[tuple[Value, ...]] = []
        self.descents: list[tuple[Value, ...]] = []
        self.moved: list[tuple[Value, ...]] = []
        self.saved: list[tuple[Value, ...]] = []
        self.claimed: list[tuple[Value, ...]] = []
        self.told: list[tuple[Value, ...]] = []
        self.messages: list[tuple[Value, ...]] = []
        self.counted: list[tuple[Value, ...]] = []

    def bear(self, record: Execution) -> None:
        """Note the row of a new execution."""
        values = plain_values_of(record)
        if values is not None:
            self.plain.append(values)
        else:
            self.born.append(values_of_execution(record))

    def end(self, record: Execution, rows: Sequence[Transition], place: int = -1) -> None:
        """Note an execution that has ended with these rows, and the place of the answer to it."""
        if rows and record.is_final:
            self.ended.append(End(record, rows[-1], place))


class End:
    """An execution that has just ended, by the last row of its log."""

    __slots__ = ("last", "place", "record")

    def __init__(self, record: Execution, last: Transition, place: int) -> None:
        self.record, self.last, self.place = record, last, place

    def answer(self, answers: list[Answer]) -> Answer:
        """Give the answer to what ended it; nobody sees that of a sweep."""
        if not 0 <= self.place < len(answers):
            return Answer()
        if answers[self.place] is STORED:
            answers[self.place] = Answer()
        return answers[self.place]


_Head = tuple[int, bytes | None, int, int | None]
"""What is known of a stored row: fence, nonce, seq, and the count of its inbox (None: unknown)."""


def take_chain(
    items: Sequence[tuple[int, Write]], head: _Head, answers: list[Answer], pending: Pending
) -> tuple[Execution | None, tuple[int, int, int, int] | None]:
    """Take the writes of one execution, in order, from the row that is stored.

    Returns:
        The last whole record they leave, and the last position; None where they leave none.
    """
    fence, nonce, seq, inbox_count = head
    after: Execution | None = None
    position: tuple[int, int, int, int] | None = None
    refused: str | None = None
    for place, item in items:
        if refused is None and after is not None and after.is_final:
            refused = "already_final"
        elif refused is None and (item.fence, item.nonce, item.seq) != (fence, nonce, seq):
            refused = "fenced"
        if refused is None and item.inbox_seen is not None:
            # The first one was compared with the stored row before, or the row is born just now.
            inbox_count = item.inbox_seen if inbox_count is None else inbox_count
            refused = "moved" if item.inbox_seen != inbox_count else None
        if refused is not None:
            answers[place] = Answer(refused)
            continue
        pending.transitions += item.rows
        if item.births:
            pending.births += item.births
        if item.sends:
            pending.sends += ((place, send) for send in item.sends)
        if item.emits:
            pending.emits.append((item.id, item.emits))
        if item.progress is not None:
            pending.progress[item.id] = item.progress
        if not item.rows:
            continue  # it leaves the row as it is
        position = item.position
        seq = position[0]
        if item.after is not None:
            after = item.after
            fence, nonce = after.fence, after.nonce
            pending.end(after, item.rows, place)
    return after, position


def moved(record: Execution, position: tuple[int, int, int, int]) -> Execution:
    """Give a record at a position; the record itself is somebody else's and stays as it is."""
    if (record.seq, record.idle_claims, record.inbox_seen, record.updated_at) == position:
        return record
    twin = copy_of(record)
    twin.seq, twin.idle_claims, twin.inbox_seen, twin.updated_at = position
    return twin
