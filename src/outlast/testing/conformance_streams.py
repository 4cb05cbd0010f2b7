"""What every store does with streams and progress."""

from __future__ import annotations

from typing import Any

from outlast.lifecycle import Kind
from outlast.store.protocol import Emission, ProgressRow, Store, StreamHead, Write
from outlast.testing.conformance import Owner, T, begun, codes, one


def said(*parts: int, name: str = "draft", **more: Any) -> list[Emission]:
    """Make emissions whose values are their parts."""
    return [Emission(name, part, T, str(part).encode(), **more) for part in parts]


def owner_in(store: Store) -> Owner:
    """Begin the one execution."""
    owner, item = begun("ex_1")
    assert one(store, item).refused is None
    return owner


def alone(owner: Owner, emits: list[Emission], progress: ProgressRow | None = None) -> Write:
    """Make the write of emissions without a row."""
    record = owner.record
    position = (record.seq, record.idle_claims, record.inbox_seen, record.updated_at)
    lease = (record.id, record.fence, record.nonce, record.seq)
    return Write(*lease, [], position, emits=emits, progress=progress)


def with_row(owner: Owner, emits: list[Emission], key: str = "a#1") -> Write:
    """Make the write of a step's outcome with emissions."""
    item = owner.write(Kind.STEP, key=key, payload=b"1")
    item.emits = emits
    return item


def numbers(store: Store, name: str = "draft") -> list[tuple[int, bytes]]:
    """Read a stream of the one execution."""
    return [(item.number, item.payload) for item in store.stream("ex_1", name)]


class StreamsConformance:
    """The suite; each store gives it a fixture ``store``."""

    def test_emissions_are_numbered_and_read_from_any_place(self, store: Store) -> None:
        owner = owner_in(store)
        assert one(store, alone(owner, said(1, 2))).refused is None
        batch = [with_row(owner, said(3)), alone(owner, said(4) + said(1, name="b"))]
        assert codes(store.commit(batch)) == [None, None]
        assert numbers(store) == [(1, b"1"), (2, b"2"), (3, b"3"), (4, b"4")]
        assert [item.number for item in store.stream("ex_1", "draft", 2)] == [3, 4]
        assert [item.number for item in store.stream("ex_1", "draft", 1, 2)] == [2, 3]
        assert store.stream("ex_1", "draft", 4) == store.stream("ex_9", "draft") == []
        assert store.streams("ex_1") == [StreamHead("b", 1, T), StreamHead("draft", 4, T)]
        assert store.streams("ex_9") == []
        assert store.verify().defects == []

    def test_what_is_there_is_passed_over(self, store: Store) -> None:
        owner = owner_in(store)
        twice = [alone(owner, said(1, 2)), alone(owner, said(1, 2))]
        assert codes(store.commit(twice)) == [None, None]
        assert one(store, with_row(owner, said(1, 2, 3))).refused is None
        assert numbers(store) == [(1, b"1"), (2, b"2"), (3, b"3")]

    def test_each_try_of_a_step_counts_for_itself(self, store: Store) -> None:
        owner = owner_in(store)
        first = said(1, 2, step="w#1", lease=1)
        again = said(1, step="w#1", attempt=2, lease=1) + said(1, step="w#1", attempt=2, lease=3)
        assert one(store, alone(owner, said(1) + first + again + said(2))).refused is None
        items = store.stream("ex_1", "draft")
        assert [(one.number, one.step, one.attempt, one.lease, one.part) for one in items] == [
            (1, "", 1, 0, 1), (2, "w#1", 1, 1, 1), (3, "w#1", 1, 1, 2), (4, "w#1", 2, 1, 1),
            (5, "w#1", 2, 3, 1), (6, "", 1, 0, 2),
        ]  # fmt: skip

    def test_a_gap_is_refused_and_its_row_with_it(self, store: Store) -> None:
        owner = owner_in(store)
        row = with_row(owner, said(2))
        seq = owner.record.seq - 1
        assert one(store, row).refused == "internal_error"
        assert numbers(store) == []
        assert store.log("ex_1")[-1].seq == seq

    def test_a_refused_write_says_nothing_of_progress(self, store: Store) -> None:
        owner = owner_in(store)
        gap = alone(owner, said(2), ProgressRow(T, 1.0))
        assert one(store, gap).refused == "internal_error"
        assert store.progress(["ex_1"]) == {} and store.streams("ex_1") == []

    def test_who_has_no_lease_says_nothing(self, store: Store) -> None:
        owner = owner_in(store)
        stale = alone(owner, said(1))
        stale.fence += 1
        assert one(store, stale).refused == "fenced"
        behind = alone(owner, said(1))
        assert one(store, with_row(owner, [])).refused is None
        assert one(store, behind).refused == "fenced"
        assert numbers(store) == []

    def test_the_latest_progress_counts(self, store: Store) -> None:
        owner = owner_in(store)
        assert store.progress(["ex_1"]) == {}
        for done in (1, 2):
            row = ProgressRow(T + done, done, 4, "half", "w#1")
            assert one(store, alone(owner, [], row)).refused is None
        assert store.progress(["ex_1", "ex_9"]) == {"ex_1": ProgressRow(T + 2, 2, 4, "half", "w#1")}

    def test_streams_go_with_their_execution(self, store: Store) -> None:
        owner = owner_in(store)
        row = ProgressRow(T, 1)
        assert one(store, alone(owner, said(1, 2), row)).refused is None
        assert store.purge(["ex_1"]) == 0
        assert one(store, owner.write(Kind.FINISH, payload=b"1")).refused is None
        assert numbers(store) != []
        assert store.purge(["ex_1"]) == 1
        assert numbers(store) == [] and store.streams("ex_1") == []
        assert store.progress(["ex_1"]) == {}
