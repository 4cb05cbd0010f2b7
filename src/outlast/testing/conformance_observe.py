"""What a store tells whoever looks at numbers: how many there are, and what was committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from outlast.lifecycle import (
    Event,
    Execution,
    Kind,
    Message,
    MessageKind,
    State,
    Transition,
    create,
)
from outlast.store.protocol import (
    DEFAULT_NUMBER,
    LOGS,
    Census,
    Create,
    Deliver,
    Emission,
    Lease,
    QueueCount,
    Store,
    Write,
)
from outlast.testing.conformance import T, begun, one

MINUTE_US = 60_000_000


def waits(id: str, at: int, *, queue: str = "default", priority: int = 0) -> Create:
    """Make an item that creates one which waits to be claimed."""
    data = {"task": "t", "queue": queue, "priority": priority}
    record, row = create(
        DEFAULT_NUMBER, id, Event(Kind.CREATE, "user", data=data, payload=b"[]"), at
    )
    return Create(record, [row])


class Ear:
    """Hears what a store commits."""

    def __init__(self) -> None:
        self.rows: list[Transition] = []
        self.ended: list[Execution] = []

    def __call__(self, rows: Sequence[Transition], ended: Sequence[Execution]) -> None:
        self.rows += rows
        self.ended += ended

    @property
    def kinds(self) -> Counter[tuple[str, str]]:
        """Count them by execution and kind."""
        return Counter((row.execution_id, str(row.kind)) for row in self.rows)


class ObserveConformance:
    """A census, and who hears of commits."""

    def test_an_empty_store_has_an_empty_census(self, store: Store) -> None:
        assert store.census() == Census({}, {})

    def test_a_census_counts_all_states_and_what_waits_by_queue(self, store: Store) -> None:
        store.commit(
            [
                waits("ex_1", T),
                waits("ex_2", T + 5, priority=1),
                waits("ex_3", T + 7, queue="mail"),
            ]
        )
        owner, item = begun("ex_4")
        assert one(store, item).refused is None
        owner, item = begun("ex_5")
        store.commit([item])
        store.commit([owner.write(Kind.FINISH, T + 9, payload=b"1")])
        cancel = Message("m1", MessageKind.CANCEL, "ann")
        store.commit([Deliver("ex_3", cancel, T + 10)])
        found = store.census()
        assert found.states == {
            State.QUEUED: 2, State.RUNNING: 1, State.SUCCEEDED: 1, State.CANCELLED: 1,
        }  # fmt: skip
        assert found.queues == {"default": QueueCount(2, 1, T + 5 - MINUTE_US)}
        assert sum(store.counts().values()) == 3

    def test_who_hears_hears_of_each_committed_row_once(self, store: Store) -> None:
        ear = Ear()
        store.hear(ear)
        owner, item = begun("ex_1")
        store.commit([item, waits("ex_2", T)])
        store.commit([owner.write(Kind.STEP, T + 5, key="a#1", payload=b"1")])
        store.commit([owner.write(Kind.FINISH, T + 6, payload=b"1")])
        claims = store.claim(Lease("w1"), ["t"], 5, T + 7, [b"n" * 16] * 5)
        assert [one.execution.id for one in claims] == ["ex_2"]
        assert [row.seq for row in ear.rows if row.execution_id == "ex_1"] == [1, 2, 3, 4, 5]
        assert ear.kinds == Counter(
            (row.execution_id, str(row.kind)) for id in ("ex_1", "ex_2") for row in store.log(id)
        )
        assert [(one.id, one.state) for one in ear.ended] == [("ex_1", State.SUCCEEDED)]
        store.hear(None)
        store.commit([waits("ex_3", T)])
        assert all(row.execution_id != "ex_3" for row in ear.rows)

    def test_nobody_hears_of_what_is_refused_or_taken_back(self, store: Store) -> None:
        owner, item = begun("ex_1")
        store.commit([item])
        late = owner.write(Kind.STEP, T + 5, key="a#1", payload=b"1")
        store.commit([late])
        ear = Ear()
        store.hear(ear)
        assert one(store, late).refused == "fenced"
        assert ear.rows == []
        broken = owner.write(Kind.STEP, T + 6, key="a#2", payload=b"1")
        broken.rows[
            0
        ].seq += 5  # a bug of ours: a guard refuses it, the rest of its batch is stored
        answers = store.commit([broken, waits("ex_2", T)])
        assert [answer.refused for answer in answers] == ["internal_error", None]
        assert ear.kinds == {("ex_2", "create"): 1}

    def test_lines_have_gaps_are_there_once_and_are_no_stream_of_the_user(
        self, store: Store
    ) -> None:
        owner, item = begun("ex_1")
        store.commit([item])

        def said(*parts: int) -> None:
            emits = [Emission(LOGS, part, T, b'{"message":"%d"}' % part) for part in parts]
            lease = (owner.record.id, owner.record.fence, owner.record.nonce, owner.record.seq)
            position = (owner.record.seq, owner.record.idle_claims, 0, owner.record.updated_at)
            assert one(store, Write(*lease, [], position, emits=emits)).refused is None

        said(3_001, 3_002)
        said(3_002, 5_001)
        items = store.stream("ex_1", LOGS)
        assert [(one.number, one.part) for one in items] == [(1, 3_001), (2, 3_002), (3, 5_001)]
        assert store.streams("ex_1") == []

    def test_one_hands_the_feed_on_until_it_is_silent(self, store: Store) -> None:
        feed = store.feed
        assert feed.hold_export("w1", T, T + 10) is None
        feed.follow("one", T)
        assert feed.hold_export("w1", T, T + 10) == 0
        assert feed.hold_export("w2", T + 10, T + 20) is None
        assert feed.note_exported("w1", 7, T + 30)
        assert not feed.note_exported("w2", 8, T + 30)
        assert feed.hold_export("w2", T + 30, T + 40) is None
        assert feed.hold_export("w2", T + 31, T + 40) == 7
        assert not feed.note_exported("w1", 9, T + 50)
        assert not feed.note_exported("w2", 6, T + 50)
        assert feed.hold_export("w2", T + 32, T + 40) == 7
