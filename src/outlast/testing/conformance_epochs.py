"""The part of the store's suite about epochs: what happens where a store has gone back in time."""

from __future__ import annotations

from typing import Final

from outlast.access.audit import Deed
from outlast.lifecycle import Kind, Message, MessageKind, State
from outlast.store.epoch import STEP, Epoch, EpochLoss
from outlast.store.protocol import Deliver, Lease, Store, WorkerRow
from outlast.testing.conformance import Owner, T, begun, born, codes, nonces
from outlast.testing.conformance_webhooks import made

WHY: Final = {"before": {"timeline": 1}, "now": {"timeline": 2}, "why": "promoted"}


class EpochConformance:
    """What must be so when an epoch begins."""

    def test_a_store_begins_without_an_epoch(self, store: Store) -> None:
        """The first history is nobody's to begin."""
        assert store.epochs.current() == Epoch()
        assert store.epochs.history() == []

    def test_an_epoch_ends_every_lease(self, store: Store) -> None:
        """Who had one is lost, and may write nothing more."""
        store.register(WorkerRow("w1", "here", 1, T, T, None))
        owners = [begun(f"ex_{n}", nonce=bytes([n]) * 16) for n in range(1, 4)]
        store.commit([item for _, item in owners])
        store.commit([born("ex_9")])
        epoch = store.epochs.begin("promoted", WHY, T + 5)
        assert (epoch.number, epoch.cause, epoch.executions) == (1, "promoted", 3)
        assert epoch.floor >= T + 5
        assert store.epochs.current() == epoch
        assert [worker.state for worker in store.workers()] == ["lost"]
        records = store.get([f"ex_{n}" for n in (1, 2, 3, 9)])
        assert all(one is not None and one.state is State.QUEUED for one in records)
        late = [owner.write(Kind.FINISH, T + 6) for owner, _ in owners]
        assert codes(store.commit(late)) == ["fenced"] * 3
        assert store.verify().defects == []

    def test_a_claim_is_not_below_the_floor(self, store: Store) -> None:
        """So no fence that the lost history gave out is given out again; then by ones."""
        _, item = begun("ex_1")
        store.commit([item, born("ex_2")])
        epoch = store.epochs.begin("restored", WHY, T + 5)
        for again in range(3):
            claims = store.claim(Lease(f"w{again}"), ["t"], 5, T + 10 + again, nonces(5, again + 7))
            fences = {one.execution.id: one.execution.fence for one in claims}
            assert set(fences) == {"ex_1", "ex_2"}
            assert all(fence >= epoch.floor for fence in fences.values())
            back = [Owner(one.execution).write(Kind.RELEASE, T + 10 + again) for one in claims]
            assert codes(store.commit(back)) == [None, None]
        assert fences == {"ex_1": epoch.floor + 2, "ex_2": epoch.floor + 2}
        assert store.verify().defects == []

    def test_what_is_born_in_an_epoch_may_begin_below_the_floor(self, store: Store) -> None:
        """Nobody has had a lease of it before."""
        epoch = store.epochs.begin("declared", {}, T + 5)
        owner, item = begun("ex_1", now=T + 6)
        assert codes(store.commit([item, owner.write(Kind.RELEASE, T + 7)])) == [None, None]
        (claimed,) = store.claim(Lease("w2"), ["t"], 1, T + 8, nonces(1, 3))
        assert claimed.execution.fence == epoch.floor
        assert store.verify().defects == []

    def test_each_epoch_is_above_the_last(self, store: Store) -> None:
        """Also where the clock has gone back."""
        first = store.epochs.begin("promoted", WHY, T + 5)
        second = store.epochs.begin("restored", WHY, T - 5)
        assert second.number == 2 and second.floor == first.floor + STEP
        assert first.id != second.id
        assert store.epochs.history() == [second, first]
        assert store.epochs.history(1) == [second]

    def test_messages_that_an_owner_had_not_read_are_kept(self, store: Store) -> None:
        """They are taken into the log, as by every takeover."""
        _, item = begun("ex_1")
        store.commit([item])
        signal = Message("m1", MessageKind.SIGNAL, "user", "go", None, b"1")
        assert codes(store.commit([Deliver("ex_1", signal, T + 1)])) == [None]
        store.epochs.begin("promoted", WHY, T + 5)
        (record,) = store.get(["ex_1"])
        assert record is not None and record.inbox_seen == record.inbox_count == 1
        assert store.verify().defects == []

    def test_who_follows_the_feed_has_to_begin_anew(self, store: Store) -> None:
        """Its positions may name other rows now."""
        store.feed.follow("feed1", T)
        store.commit([born("ex_1")])
        store.epochs.begin("promoted", WHY, T + 5)
        assert store.feed.head() is None
        store.feed.follow("feed2", T + 6)
        head = store.feed.head()
        assert head is not None and head.name == "feed2"

    def test_a_webhook_has_to_begin_anew_as_well(self, store: Store) -> None:
        """What it has not come to is kept for it, but not over a failover: it is told of a gap."""
        store.feed.follow("one", T)
        made(store)
        store.commit([born("ex_1")])
        store.feed.settle()
        store.epochs.begin("promoted", WHY, T + 5)
        assert store.feed.head() is None
        store.feed.follow("two", T + 6)
        head = store.feed.head()
        assert head is not None and (head.name, head.last) == ("two", 0)

    def test_a_deed_is_in_the_audit(self, store: Store) -> None:
        """Who declared it, and what it did."""
        deed = Deed("user:ada", "cli", "db.restored", T + 5)
        store.epochs.begin("declared", {}, T + 5, deed)
        (row,) = store.access.audit(None, 5, newest=True)
        assert (row.by, row.what, row.target) == ("user:ada", "db.restored", "store")
        assert '"cause":"declared"' in row.detail

    def test_a_loss_is_kept_as_it_was_told_first(self, store: Store) -> None:
        """A second word of the same worker changes nothing."""
        epoch = store.epochs.begin("promoted", WHY, T + 5)
        first = EpochLoss(epoch.number, "w1", T + 6, 9, 1, 2, 5, 1, ("ex_1", "ex_2"))
        other = EpochLoss(epoch.number, "w2", T + 7, 3)
        for loss in (other, first, EpochLoss(epoch.number, "w1", T + 9)):
            store.epochs.report(loss)
        assert store.epochs.losses(epoch.number) == [first, other]
        assert [loss.is_any for loss in (first, other)] == [True, False]
        assert store.epochs.losses(7) == []


__all__ = ["EpochConformance"]
