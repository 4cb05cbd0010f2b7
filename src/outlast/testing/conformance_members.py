"""What every store does with workers and their leases.

The store's own clock judges, and that of a database cannot be set. So a lease here is an hour, or a
microsecond; the instants that are given rise, for stores that go by them.
"""

from __future__ import annotations

from msgspec.structs import replace

from outlast.lifecycle import Kind, Message, MessageKind, State
from outlast.store.protocol import Deliver, Lease, Service, Store, WorkerRow
from outlast.testing.conformance import T, begun, born, nonces, one, state

HOUR_US = 3_600_000_000


def worker(id: str, lease_us: int | None = HOUR_US, started_at: int = T) -> WorkerRow:
    """Make the row of a worker."""
    service = Service(("t", "u"), (("t", "1"),), ("default",), ("gpu",), 7)
    return WorkerRow(id, "host", 10, started_at, started_at, lease_us, service=service)


def holds(store: Store, name: str, *ids: str) -> None:
    """Let a worker hold new executions."""
    for id in ids:
        one(store, born(id))
    claimed = store.claim(Lease(name), ["t"], len(ids), T, nonces(len(ids)))
    assert len(claimed) == len(ids)


class MembersConformance:
    """Workers, their leases, and who may take over from whom."""

    def test_a_worker_is_listed_with_what_it_offers(self, store: Store) -> None:
        store.register(worker("w1"))
        store.register(worker("w2", None, T + 1))
        holds(store, "w1", "ex_1", "ex_2")
        second, first = store.workers()
        assert (first.id, first.state, first.lease_us, first.leased) == ("w1", "active", HOUR_US, 2)
        assert first.service == worker("w1").service
        assert first.expires_at == first.seen_at + HOUR_US
        assert (second.id, second.lease_us, second.expires_at) == ("w2", None, None)
        assert [row.id for row in store.workers(1)] == ["w2"]

    def test_nobody_takes_over_from_a_lease_that_runs(self, store: Store) -> None:
        store.register(worker("w1"))
        holds(store, "w1", "ex_1")
        assert store.expired(T + 1) == store.expired(T + 1, thorough=True) == []
        assert store.recover(["w1"], "w2", T + 1, 10) == 0
        assert store.recover(None, "w2", T + 1, 10) == 0
        assert state(store, "ex_1").worker == "w1"
        assert store.workers()[0].state == "active"

    def test_workers_are_told_how_many_they_are(self, store: Store) -> None:
        assert store.register(worker("w1")) == 1
        assert store.register(worker("w2")) == 2
        store.register(worker("w3"))
        store.leave("w2", T + 1)
        renewed = store.renew("w1", HOUR_US, T + 2)
        assert renewed is not None and renewed.serving == 2

    def test_a_renewal_tells_the_time(self, store: Store) -> None:
        store.register(worker("w1"))
        before = store.instant(T + 1)
        renewed = store.renew("w1", HOUR_US, T + 2)
        assert renewed is not None
        assert before <= renewed.at <= store.instant(T + 3)
        assert before == T + 1 or before > T + HOUR_US, "by a clock of the store's own"

    def test_an_expired_worker_is_lost(self, store: Store) -> None:
        store.register(worker("w1", 1))
        holds(store, "w1", "ex_1", "ex_2", "ex_3")
        assert store.expired(T + 5) == store.expired(T + 5, thorough=True) == ["w1"]
        assert store.recover(["w1"], "w2", T + 5, 2) == 2
        assert store.expired(T + 6) == []
        assert store.expired(T + 6, thorough=True) == ["w1"]
        assert store.recover(["w1"], "w2", T + 6, 2) == 1
        assert store.expired(T + 7, thorough=True) == []
        assert [state(store, id).state for id in ("ex_1", "ex_2", "ex_3")] == [State.QUEUED] * 3
        assert store.workers()[0].state == "lost"

    def test_what_ran_out_is_never_renewed(self, store: Store) -> None:
        store.register(worker("w1", 1))
        assert store.renew("w1", HOUR_US, T + 5) is None
        store.register(worker("w1"))
        assert store.renew("w1", HOUR_US, T + 6) is None
        store.register(worker("w2"))
        assert store.renew("w2", 1, T + 7) is not None
        assert store.renew("w2", HOUR_US, T + 9) is None
        assert store.recover(["w2"], "w3", T + 9, 10) == 0
        assert [row.state for row in store.workers() if row.id == "w2"] == ["lost"]

    def test_a_renewal_keeps_the_lease(self, store: Store) -> None:
        store.register(worker("w1"))
        holds(store, "w1", "ex_1")
        renewed = store.renew("w1", 2 * HOUR_US, T + 1, draining=True)
        assert renewed is not None and renewed.unread == []
        (row,) = store.workers()
        assert (row.state, row.lease_us) == ("draining", 2 * HOUR_US)
        assert row.expires_at == row.seen_at + 2 * HOUR_US
        assert store.recover(["w1"], "w2", T + 2, 10) == 0

    def test_a_renewal_brings_what_is_unread(self, store: Store) -> None:
        store.register(worker("w1"))
        holds(store, "w1", "ex_1", "ex_2")
        message = Message("m1", MessageKind.SIGNAL, "user", key="go", payload=b"1")
        assert one(store, Deliver("ex_2", message, T + 1)).refused is None
        renewed = store.renew("w1", HOUR_US, T + 2)
        assert renewed is not None and list(renewed.unread) == ["ex_2"]

    def test_a_missing_row_counts_as_expired(self, store: Store) -> None:
        holds(store, "w1", "ex_1")
        assert store.renew("w1", HOUR_US, T) is None
        assert store.expired(T) == []
        assert store.expired(T, thorough=True) == ["w1"]
        assert store.recover(["w1"], "w2", T + 1, 10) == 1

    def test_who_left_holds_nothing(self, store: Store) -> None:
        store.register(worker("w1"))
        holds(store, "w1", "ex_1")
        store.leave("w1", T + 1)
        store.leave("nobody", T + 1)
        assert store.renew("w1", HOUR_US, T + 2) is None
        assert store.expired(T + 2) == []
        assert store.recover(["w1"], "w2", T + 2, 10) == 1
        store.leave("w1", T + 9)
        (row,) = store.workers()
        assert (row.state, row.leased) == ("left", 0)

    def test_a_worker_without_a_lease_is_lost_where_somebody_says_so(self, store: Store) -> None:
        store.register(worker("w1", None))
        holds(store, "w1", "ex_1")
        assert store.expired(T + HOUR_US) == []
        assert store.recover(None, "w2", T + 1, 10) == 1
        assert store.workers()[0].state == "lost"

    def test_the_taken_over_is_fenced_and_what_runs_stays(self, store: Store) -> None:
        store.register(worker("w2"))
        for name in ("w1", "w2"):
            owner, item = begun(f"ex_{name}", worker=name)
            assert one(store, item).refused is None
            if name == "w1":
                late = owner.write(Kind.STEP, T + 5, key="a#1", payload=b"1")
        assert store.recover(None, "w3", T + 2, 10) == 1
        assert one(store, late).refused == "fenced"
        assert state(store, "ex_w2").worker == "w2"

    def test_old_rows_are_forgotten(self, store: Store) -> None:
        for n, lease_us in enumerate((1, HOUR_US, HOUR_US)):
            store.register(worker(f"w{n}", lease_us))
        store.leave("w1", T)
        store.recover(["w0"], "w2", T + 5, 10)
        far = max(row.seen_at for row in store.workers())
        assert store.forget_workers(far - 2 * HOUR_US) == 0
        assert store.forget_workers(far + 1) == 2
        assert [row.id for row in store.workers()] == ["w2"]

    def test_hints_reach_the_others_where_there_are_any(self, store: Store) -> None:
        heard: list[str] = []
        hints = store.hints(heard.append)
        assert (hints is not None) == store.is_shared
        if hints is not None:
            hints.send("work")
            hints.close()

    def test_a_row_says_whether_it_serves(self) -> None:
        row = worker("w1")
        assert row.is_serving and replace(row, state="draining").is_serving
        assert not replace(row, state="left").is_serving
