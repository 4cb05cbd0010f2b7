"""What every store does with the feed."""

from __future__ import annotations

import msgspec

from outlast.lifecycle import Kind
from outlast.store.protocol import Store
from outlast.testing.conformance import Owner, T, begun, one

DAY = 24 * 3_600_000_000


def born(store: Store, id: str) -> Owner:
    """Begin an execution."""
    owner, item = begun(id)
    assert one(store, item).refused is None
    return owner


def read(store: Store, after: int = 0, limit: int = 100) -> list[tuple[str, int]]:
    """Read what the feed has, with positions for all of it."""
    store.feed.settle()
    return [(row.execution_id, row.seq) for row in store.feed.read(after, limit)]


class FeedConformance:
    """The suite; each store gives it a fixture ``store``."""

    def test_there_is_no_feed_before_somebody_follows_it(self, store: Store) -> None:
        owner = born(store, "ex_1")
        assert store.feed.head() is None
        assert store.feed.settle() == 0
        assert store.feed.prune(T, 10) == 0
        assert not store.feed.end(T)
        store.feed.follow("one", T)
        store.feed.follow("two", T + 1)
        head = store.feed.head()
        assert head is not None
        assert (head.name, head.pruned, head.last, head.read_at) == ("one", 0, 0, T + 1)
        seq = owner.record.seq
        assert one(store, owner.write(Kind.STEP, key="a#1", payload=b"1")).refused is None
        assert read(store) == [("ex_1", seq + 1)]

    def test_rows_come_in_one_order_and_are_read_from_any_place(self, store: Store) -> None:
        store.feed.follow("one", T)
        owners = [born(store, f"ex_{number}") for number in range(3)]
        for owner in owners:
            store.commit([owner.write(Kind.STEP, key="a#1", payload=b'"p"')])
        store.feed.settle()
        rows = store.feed.read(0, 100)
        whole = [(row.execution_id, row.seq) for row in rows]
        assert sorted(whole) == sorted(
            (log.execution_id, log.seq) for owner in owners for log in store.log(owner.record.id)
        )
        positions = [row.position for row in rows]
        assert positions == sorted(set(positions))
        for place, row in enumerate(rows):
            assert read(store, row.position) == whole[place + 1 :]
            assert read(store, row.position, 2) == whole[place + 1 : place + 3]
        head = store.feed.head()
        assert head is not None
        assert (head.last, head.is_unsettled, head.is_whole) == (positions[-1], False, True)
        for row in rows:
            (logged,) = store.log(row.execution_id, row.seq - 1, 1)
            assert row.transition == msgspec.structs.replace(logged, payload=None)
            assert row.task == owners[0].record.task
        paid = store.feed.read(0, 100, payload=True)
        assert [row.transition for row in paid] == [
            store.log(row.execution_id, row.seq - 1, 1)[0] for row in rows
        ]
        assert store.verify().defects == []

    def test_what_is_old_is_forgotten_from_the_beginning(self, store: Store) -> None:
        store.feed.follow("one", T)
        for number in range(3):
            born(store, f"ex_{number}")
        store.feed.settle()
        rows = store.feed.read(0, 100)
        assert store.feed.prune(T, 100) == 0
        assert store.feed.prune(T + DAY, 2) == 2
        head = store.feed.head()
        assert head is not None
        assert head.pruned == rows[1].position
        assert [row.position for row in store.feed.read(0, 100)] == [
            row.position for row in rows[2:]
        ]
        assert store.feed.prune(T + DAY, 100) == len(rows) - 3
        head = store.feed.head()
        assert head is not None
        assert (head.pruned, head.last) == (rows[-2].position, rows[-1].position)
        assert store.feed.prune(T + DAY, 100) == 0
        born(store, "ex_9")
        store.feed.settle()
        assert store.feed.read(rows[-1].position, 1)[0].execution_id == "ex_9"

    def test_a_feed_that_nobody_follows_ends_and_another_one_begins(self, store: Store) -> None:
        store.feed.follow("one", T)
        born(store, "ex_1")
        assert not store.feed.end(T)
        assert store.feed.end(T + 1)
        assert store.feed.head() is None
        born(store, "ex_2")
        store.feed.follow("two", T + 2)
        owner = born(store, "ex_3")
        head = store.feed.head()
        assert head is not None
        assert (head.name, head.pruned) == ("two", 0)
        assert {id for id, _ in read(store)} == {owner.record.id}

    def test_what_was_purged_is_told_as_missing(self, store: Store) -> None:
        store.feed.follow("one", T)
        owner = born(store, "ex_1")
        other = born(store, "ex_2")
        assert one(store, owner.write(Kind.FINISH, payload=b"1")).refused is None
        assert store.purge(["ex_1"]) == 1
        store.feed.settle()
        rows = store.feed.read(0, 100)
        gone = [row for row in rows if row.execution_id == "ex_1"]
        assert len(gone) == owner.record.seq
        assert all(row.transition is None and row.task is None for row in gone)
        kept = [row.seq for row in rows if row.execution_id == "ex_2"]
        assert kept == list(range(1, other.record.seq + 1))
