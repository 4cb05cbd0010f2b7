"""What every store does where a slot is offered with a message: claimed with it, or left alone."""

from __future__ import annotations

from typing import Any

from outlast.lifecycle import Kind, MessageKind, State
from outlast.lifecycle.record import copy_of
from outlast.store.protocol import Answer, Deliver, Lease, Offer, QueueSetting, Store
from outlast.testing.conformance import (
    ASK,
    Owner,
    T,
    answer_to,
    begun,
    born,
    codes,
    message,
    nonces,
    one,
    state,
)
from outlast.testing.conformance_access import deed
from outlast.testing.conformance_tenants import Beside

NONCE = b"\x05" * 16


def parked(store: Store, id: str, now: int = T, **data: Any) -> Owner:
    """Make an execution that waits for an answer."""
    owner, item = begun(id, "w1", now, **data)
    assert codes(store.commit([item, owner.park(Kind.WAIT, now, data=ASK)])) == [None, None]
    return owner


def answered(
    id: str,
    now: int = T + 1,
    *,
    nonce: bytes = NONCE,
    sent: str = "m1",
    queues: frozenset[str] | None = None,
) -> Deliver:
    """Answer it, and offer a slot of worker w2 with the answer."""
    offer = Offer(Lease("w2", queues=queues), ["t"], nonce)
    return Deliver(id, answer_to("q#1", sent), now, offer=offer)


def kinds(store: Store, id: str) -> list[Kind]:
    """Give what is in a log."""
    return [row.kind for row in store.log(id)]


def claimed(answer: Answer) -> str | None:
    """Name what was claimed with a message."""
    return None if answer.claimed is None else answer.claimed.execution.id


PARKED = [Kind.CREATE, Kind.CLAIM, Kind.START, Kind.WAIT]
WOKEN = [*PARKED, Kind.INPUT_RECEIVED, Kind.RESUME]


class GoingOnConformance:
    """The suite; each store gives it a fixture ``store``."""

    def test_what_an_answer_wakes_is_claimed_with_it(self, store: Store) -> None:
        parked(store, "ex_1")
        answer = one(store, answered("ex_1"))
        assert answer.refused is None and answer.entry is not None
        assert answer.execution is not None and answer.execution.state is State.QUEUED
        found = answer.claimed
        assert found is not None and found.unseen == []
        assert found.execution == state(store, "ex_1")
        assert (found.execution.state, found.execution.worker) == (State.STARTING, "w2")
        assert (found.execution.fence, found.execution.nonce) == (2, NONCE)
        assert found.log == store.log("ex_1") and found.birth == store.log("ex_1")[0]
        assert kinds(store, "ex_1") == [*WOKEN, Kind.CLAIM]
        owner = Owner(found.execution)
        writes = [owner.write(Kind.START, T + 2), owner.write(Kind.FINISH, T + 2)]
        assert codes(store.commit(writes)) == [None, None]
        self.check(store)

    def test_what_its_owner_knew_before_is_fenced(self, store: Store) -> None:
        owner, item = begun("ex_1")
        store.commit([item])
        late = copy_of(owner.record)
        assert one(store, owner.park(Kind.WAIT, data=ASK)).refused is None
        assert claimed(one(store, answered("ex_1"))) == "ex_1"
        assert one(store, Owner(late).write(Kind.FINISH, T + 2)).refused == "fenced"
        self.check(store)

    def test_many_are_claimed_together(self, store: Store) -> None:
        drawn = nonces(9, 3)
        for n in range(9):
            parked(store, f"ex_{n}")
        answers = store.commit([answered(f"ex_{n}", nonce=drawn[n]) for n in range(9)])
        assert list(map(claimed, answers)) == [f"ex_{n}" for n in range(9)]
        logs = [answer.claimed.log for answer in answers if answer.claimed is not None]
        assert logs == store.logs([f"ex_{n}" for n in range(9)])
        self.check(store)

    def test_later_messages_of_the_batch_are_in_its_log(self, store: Store) -> None:
        parked(store, "ex_1")
        note = message("m2", MessageKind.NOTE, data={"why": "so"})
        first, second = store.commit([answered("ex_1"), Deliver("ex_1", note, T + 1)])
        assert claimed(first) == "ex_1" and second.entry is not None
        assert kinds(store, "ex_1") == [*WOKEN, Kind.ANNOTATION, Kind.CLAIM]
        assert first.claimed is not None and first.claimed.log == store.log("ex_1")
        self.check(store)

    def test_a_pause_of_the_same_batch_holds_it(self, store: Store) -> None:
        parked(store, "ex_1")
        pause = Deliver("ex_1", message("m2", MessageKind.PAUSE), T + 1)
        assert list(map(claimed, store.commit([answered("ex_1"), pause]))) == [None, None]
        assert state(store, "ex_1").state is State.PAUSED
        self.check(store)

    def test_a_cancel_of_the_same_batch_ends_it(self, store: Store) -> None:
        parked(store, "ex_1")
        stop = Deliver("ex_1", message("m2", MessageKind.CANCEL), T + 1)
        assert list(map(claimed, store.commit([answered("ex_1"), stop]))) == [None, None]
        assert state(store, "ex_1").state is State.CANCELLED
        self.check(store)

    def test_who_waits_in_its_queue_goes_first(self, store: Store) -> None:
        parked(store, "ex_1")
        parked(store, "ex_2", queue="other")
        one(store, born("ex_0", T, task="elsewhere"))
        answers = store.commit([answered("ex_1"), answered("ex_2", nonce=b"\x06" * 16)])
        assert list(map(claimed, answers)) == [None, "ex_2"]
        assert state(store, "ex_1").state is State.QUEUED
        self.check(store)

    def test_who_was_woken_without_a_slot_goes_first(self, store: Store) -> None:
        parked(store, "ex_1")
        parked(store, "ex_2")
        without = Deliver("ex_2", answer_to("q#1"), T + 1)
        assert list(map(claimed, store.commit([answered("ex_1"), without]))) == [None, None]
        claims = store.claim(Lease("w2"), ["t"], 9, T + 2, nonces(9, 4))
        assert [one.execution.id for one in claims] == ["ex_1", "ex_2"]
        self.check(store)

    def test_a_queue_with_rules_asks_for_a_claim(self, store: Store) -> None:
        for n, rule in enumerate(({"capacity": 5}, {"paused_at": T, "paused_by": "ann"})):
            parked(store, f"ex_{n}", queue=f"q{n}")
            store.capacity.set_queue(QueueSetting(f"q{n}", **rule))  # type: ignore[arg-type]
            assert claimed(one(store, answered(f"ex_{n}"))) is None
            assert state(store, f"ex_{n}").state is State.QUEUED
        self.check(store)

    def test_gates_ask_for_a_claim(self, store: Store) -> None:
        limit = {"name": "k", "of": "k", "capacity": 5, "hold": False}
        for n, gates in enumerate(({"limits": [limit]}, {"version": "1"}, {"needs": ["gpu"]})):
            item = born(f"ex_{n}", gates=gates)
            one(store, item)
            pins, lease = [("t", "1")], Lease("w1", capabilities=frozenset({"gpu"}))
            (found,) = store.claim(lease, ["t"], 1, T, nonces(1, n + 40), pins)
            owner = Owner(found.execution)
            writes = [owner.write(Kind.START), owner.park(Kind.WAIT, data=ASK)]
            assert codes(store.commit(writes)) == [None, None]
            assert claimed(one(store, answered(f"ex_{n}"))) is None
            assert state(store, f"ex_{n}").state is State.QUEUED
        self.check(store)

    def test_only_what_the_offer_is_good_for(self, store: Store) -> None:
        for n, (task, queue) in enumerate([("u", "default"), ("t", "other")]):
            parked(store, f"ex_{n}", task=task, queue=queue)
            only = frozenset({"default"})
            assert claimed(one(store, answered(f"ex_{n}", queues=only))) is None
            assert state(store, f"ex_{n}").state is State.QUEUED
        self.check(store)

    def test_what_has_never_run_asks_for_a_claim(self, store: Store) -> None:
        """A shared budget with nothing left would have it wait."""
        one(store, born("ex_1", T, due_at=T + 50))
        offer = Offer(Lease("w2"), ["t"], NONCE)
        go = Deliver("ex_1", message("m1", MessageKind.RESUME), T + 1, offer=offer)
        assert claimed(one(store, go)) is None
        assert state(store, "ex_1").state is State.QUEUED
        self.check(store)

    def test_a_message_that_wakes_nobody_claims_nothing(self, store: Store) -> None:
        owner, item = begun("ex_1")
        store.commit([item])
        offer = Offer(Lease("w2"), ["t"], NONCE)
        signal = message("m1", MessageKind.SIGNAL, key="s", payload=b"1")
        assert claimed(one(store, Deliver("ex_1", signal, T + 1, offer=offer))) is None
        assert state(store, "ex_1").worker == "w1"
        assert one(store, owner.park(Kind.WAIT, data=ASK)).refused == "moved"
        self.check(store)

    def test_a_second_answer_claims_nothing(self, store: Store) -> None:
        parked(store, "ex_1")
        assert claimed(one(store, answered("ex_1"))) == "ex_1"
        again = one(store, answered("ex_1", sent="m2", nonce=b"\x06" * 16))
        assert (again.refused, claimed(again)) == ("already_answered", None)
        assert state(store, "ex_1").nonce == NONCE
        self.check(store)

    def test_in_a_closed_tenant_nothing_is_claimed(self, store: Store, beside: Beside) -> None:
        other = beside("other")
        parked(other, "ex_1", tenant=other.tenant)
        assert store.tenants.close("other", T, deed("close"))
        assert claimed(one(other, answered("ex_1"))) is None
        assert state(other, "ex_1").state is State.QUEUED
        self.check(other)

    def test_its_fence_is_not_below_the_floor(self, store: Store) -> None:
        parked(store, "ex_1")
        epoch = store.epochs.begin("test", {}, T + 1, deed("store"))
        assert epoch.floor > 2
        assert claimed(one(store, answered("ex_1", T + 2))) == "ex_1"
        assert state(store, "ex_1").fence == epoch.floor
        self.check(store)

    def test_with_a_broken_item_in_its_batch(self, store: Store) -> None:
        """Then items are written one by one, and the claims come at the end all the same."""
        owner, item = begun("ex_0")
        store.commit([item])
        parked(store, "ex_1")
        parked(store, "ex_2")
        step = owner.write(Kind.STEP, T + 1, key="a#1")
        step.rows[0].seq += 7
        broken, first, second = store.commit(
            [step, answered("ex_1"), answered("ex_2", nonce=b"\x06" * 16)]
        )
        assert broken.refused == "internal_error"
        assert [claimed(first), claimed(second)] == ["ex_1", "ex_2"]
        assert first.claimed is not None and first.claimed.log == store.log("ex_1")
        self.check(store)

    def check(self, store: Store) -> None:
        """See that everything adds up."""
        assert store.verify().defects == []
