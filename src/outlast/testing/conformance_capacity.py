"""What every store does about capacity: queues, limits, rates, capabilities, turns."""

from __future__ import annotations

from typing import Any

from outlast.lifecycle import Kind, MessageKind, State
from outlast.lifecycle.gate import AGEING_US
from outlast.store.protocol import Claims, Deliver, Lease, QueueSetting, Setting, Store
from outlast.testing.conformance import (
    ASK,
    Owner,
    T,
    begun,
    born,
    codes,
    message,
    nonces,
    one,
    replace,
    state,
)
from outlast.testing.conformance_structure import calls_child, child_of

SECOND = 1_000_000
MINUTE = 60 * SECOND
W1 = Lease("w1")


def limited(name: str = "key", capacity: int = 1, *, hold: bool = False) -> dict[str, Any]:
    """Make the gates of an execution with one limit."""
    family = name.partition(":")[0]
    return {"limits": [{"name": name, "of": family, "capacity": capacity, "hold": hold}]}


def rated(interval_us: int = MINUTE, burst: int = 1, name: str = "rate:mail") -> dict[str, Any]:
    """Make the gates of an execution with one rate."""
    return {"rates": [{"name": name, "of": name, "interval_us": interval_us, "burst": burst}]}


def claim(store: Store, now: int = T, limit: int = 100, lease: Lease = W1) -> Claims:
    """Claim what can be claimed, with nonces that nobody else has."""
    claim.count += 1  # type: ignore[attr-defined]
    drawn = nonces(limit, 1_000 + claim.count)  # type: ignore[attr-defined]
    return store.claim(lease, ["t", "u"], limit, now, drawn)


claim.count = 0  # type: ignore[attr-defined]


def ids(claims: Claims) -> list[str]:
    """Name what was claimed, without the ``ex_``."""
    return [claimed.execution.id.removeprefix("ex_") for claimed in claims]


def runs(store: Store, claims: Claims, now: int = T) -> list[Owner]:
    """Start what was claimed."""
    owners = [Owner(claimed.execution) for claimed in claims]
    assert set(codes(store.commit([owner.write(Kind.START, now) for owner in owners]))) <= {None}
    return owners


def end(store: Store, owner: Owner, now: int = T) -> None:
    """End an execution."""
    assert one(store, owner.write(Kind.FINISH, now)).refused is None


def park(store: Store, owner: Owner, now: int = T) -> None:
    """Park an execution until somebody answers."""
    assert one(store, owner.park(Kind.WAIT, now, data=ASK)).refused is None


class CapacityConformance:
    """The suite; each store gives it a fixture ``store``."""

    # Turns

    def test_a_minute_of_waiting_is_worth_one_priority(self, store: Store) -> None:
        one(store, born("ex_old", T))
        one(store, born("ex_new", T + 5 * MINUTE, priority=5))  # as due as the old one
        one(store, born("ex_less", T + 5 * MINUTE, priority=4))
        one(store, born("ex_more", T + 5 * MINUTE + 1, priority=6))
        assert ids(claim(store, T + 6 * MINUTE)) == ["more", "new", "old", "less"]
        assert AGEING_US == MINUTE

    def test_turns_go_across_queues(self, store: Store) -> None:
        for n, queue in enumerate(["b", "a", "c", "a", "b"]):
            one(store, born(f"ex_{n}", T + n, queue=queue))
        assert ids(claim(store, T + 9, 3)) == ["0", "1", "2"]
        assert ids(claim(store, T + 9)) == ["3", "4"]

    def test_nothing_starves_behind_a_stream_of_the_important(self, store: Store) -> None:
        one(store, born("ex_poor", T))
        taken: list[str] = []
        for minute in range(25):
            one(store, born(f"ex_{minute}", T + minute * MINUTE, priority=9))
            one(store, born(f"ey_{minute}", T + minute * MINUTE, priority=9))
            taken += ids(claim(store, T + minute * MINUTE, 1))
        assert "poor" in taken and taken[0] == "0"

    # Limits

    def test_a_limit_lets_so_many_in(self, store: Store) -> None:
        for n in range(5):
            one(store, born(f"ex_{n}", T + n, gates=limited(capacity=2)))
        first = claim(store, T + 9)
        assert ids(first) == ["0", "1"]
        waiting = state(store, "ex_2")
        assert waiting.state is State.BLOCKED and waiting.detail == {
            "gate": "key", "kind": "limit", "capacity": 2, "holders": ["ex_0", "ex_1"],
            "since": T + 2,
        }  # fmt: skip
        assert claim(store, T + 9) == []
        owners = runs(store, first)
        end(store, owners[1], T + 20)
        assert ids(claim(store, T + 21)) == ["2"]
        assert [row.kind for row in store.log("ex_2")] == [Kind.CREATE, Kind.BLOCK, Kind.CLAIM]
        self.check(store)

    def test_a_closed_gate_starves_nobody_behind_it(self, store: Store) -> None:
        for n in range(30):
            one(store, born(f"ex_{n:02}", T + n, gates=limited()))
        one(store, born("ex_free", T + 99))
        assert ids(claim(store, T + 100, 2)) == ["00", "free"]
        self.check(store)

    def test_each_key_is_a_gate_of_its_own(self, store: Store) -> None:
        for n, who in enumerate(["ada", "ada", "bob", "ada", "bob"]):
            one(store, born(f"ex_{n}", T + n, gates=limited(f"fulfil:{who}")))
        assert ids(claim(store, T + 9)) == ["0", "2"]
        self.check(store)

    def test_a_parked_execution_gives_its_place_back(self, store: Store) -> None:
        one(store, born("ex_1", T, gates=limited()))
        one(store, born("ex_2", T + 1, gates=limited()))
        (owner,) = runs(store, claim(store, T + 1))
        park(store, owner, T + 2)
        assert ids(claim(store, T + 3)) == ["2"]
        answer = message("m1", MessageKind.ANSWER, key="q#1")
        one(store, Deliver("ex_1", answer, T + 4))
        assert claim(store, T + 5) == []
        assert state(store, "ex_1").state is State.BLOCKED, "it has to come in again"
        self.check(store)

    def test_a_held_limit_is_kept_to_the_end(self, store: Store) -> None:
        one(store, born("ex_1", T, gates=limited(hold=True)))
        one(store, born("ex_2", T + 1, gates=limited(hold=True)))
        (owner,) = runs(store, claim(store, T + 1))
        park(store, owner, T + 2)
        assert claim(store, T + 3) == []
        one(store, Deliver("ex_1", message("m1", MessageKind.ANSWER, key="q#1"), T + 4))
        again = claim(store, T + 5)
        assert ids(again) == ["1"], "it is in already"
        (owner,) = runs(store, again)
        end(store, owner, T + 6)
        assert ids(claim(store, T + 7)) == ["2"]
        self.check(store)

    def test_what_never_ran_holds_nothing(self, store: Store) -> None:
        one(store, born("ex_1", T, gates=limited(hold=True)))
        one(store, born("ex_2", T + 1, gates=limited(hold=True)))
        assert ids(claim(store, T + 1)) == ["1"]
        assert store.recover(["w1"], "w2", T + 2, 9) == 1
        assert store.capacity.gates()[0].holders == []
        assert ids(claim(store, T + 3, lease=Lease("w2"))) == ["2"], "its turn begins anew"
        self.check(store)

    def test_a_dead_worker_frees_what_its_executions_had(self, store: Store) -> None:
        self.loses_its_worker(store, hold=False)

    def test_what_holds_a_limit_holds_it_through_a_recovery(self, store: Store) -> None:
        self.loses_its_worker(store, hold=True)

    def loses_its_worker(self, store: Store, *, hold: bool) -> None:
        """One runs, one waits, and the worker dies."""
        one(store, born("ex_1", T, gates=limited(hold=hold)))
        one(store, born("ex_2", T + 1, gates=limited(hold=hold)))
        runs(store, claim(store, T + 1))
        assert store.recover(["w1"], "w2", T + 2, 9) == 1
        found = ids(claim(store, T + 3, lease=Lease("w2")))
        assert found == (["1"] if hold else ["2"]), "where it holds, it goes on; else it is a turn"
        assert len(store.capacity.gates()[0].holders) == 1
        self.check(store)

    def test_a_cancelled_holder_lets_the_next_one_in(self, store: Store) -> None:
        one(store, born("ex_1", T, gates=limited(hold=True)))
        one(store, born("ex_2", T + 1, gates=limited(hold=True)))
        (owner,) = runs(store, claim(store, T + 1))
        park(store, owner, T + 2)
        assert claim(store, T + 3) == []
        one(store, Deliver("ex_1", message("m1", MessageKind.CANCEL), T + 4))
        assert ids(claim(store, T + 5)) == ["2"]
        self.check(store)

    def test_a_deadline_of_the_holder_lets_the_next_one_in(self, store: Store) -> None:
        one(store, born("ex_1", T, gates=limited(), deadline_at=T + 9))
        one(store, born("ex_2", T + 1, gates=limited()))
        assert ids(claim(store, T + 1)) == ["1"]
        assert claim(store, T + 2) == []
        assert store.sweep(T + 9, 9)[0] == 1
        assert ids(claim(store, T + 9)) == ["2"]
        self.check(store)

    def test_who_leaves_a_line_is_passed_over(self, store: Store) -> None:
        for n in range(4):
            one(store, born(f"ex_{n}", T + n, gates=limited()))
        (owner,) = runs(store, claim(store, T + 9))
        one(store, Deliver("ex_1", message("m1", MessageKind.CANCEL), T + 10))
        one(store, Deliver("ex_2", message("m2", MessageKind.PAUSE), T + 10))
        end(store, owner, T + 11)
        assert ids(claim(store, T + 12)) == ["3"]
        one(store, Deliver("ex_2", message("m3", MessageKind.RESUME), T + 13))
        assert claim(store, T + 14) == []
        self.check(store)

    def test_another_priority_changes_the_line(self, store: Store) -> None:
        for n in range(4):
            one(store, born(f"ex_{n}", T + n, gates=limited()))
        (owner,) = runs(store, claim(store, T + 9))
        up = message("m1", MessageKind.PRIORITY, data={"priority": 1})
        one(store, Deliver("ex_3", up, T + 10))
        assert store.capacity.standing("ex_3").place == 1  # type: ignore[union-attr]
        end(store, owner, T + 11)
        assert ids(claim(store, T + 12)) == ["3"]
        self.check(store)

    def test_a_smaller_capacity_before_does_not_shut_out_a_larger(self, store: Store) -> None:
        for n, capacity in enumerate([3, 3, 2, 3]):
            one(store, born(f"ex_{n}", T + n, gates=limited(capacity=capacity)))
        assert ids(claim(store, T + 9)) == ["0", "1", "3"]
        assert state(store, "ex_2").state is State.BLOCKED
        self.check(store)

    def test_two_gates_are_passed_together(self, store: Store) -> None:
        both = {"limits": [*limited("a")["limits"], *limited("b")["limits"]]}
        one(store, born("ex_a", T, gates=limited("a")))
        one(store, born("ex_b", T + 1, gates=limited("b")))
        one(store, born("ex_c", T + 2, gates=both))
        one(store, born("ex_d", T + 3, gates=both))
        a, b = runs(store, claim(store, T + 9))
        assert state(store, "ex_c").detail["gate"] == "a"  # type: ignore[index]
        end(store, a, T + 10)
        assert claim(store, T + 11) == []
        moved = state(store, "ex_c")
        assert moved.detail["gate"] == "b", "from one line into the other"  # type: ignore[index]
        assert [row.kind for row in store.log("ex_c")][-2:] == [Kind.UNBLOCK, Kind.BLOCK]
        end(store, b, T + 12)
        assert ids(claim(store, T + 13)) == ["c"]
        self.check(store)

    def test_what_an_operator_sets_counts_at_the_next_claim(self, store: Store) -> None:
        for n in range(6):
            one(store, born(f"ex_{n}", T + n, gates=limited("fulfil:ada")))
        assert ids(claim(store, T + 9)) == ["0"]
        store.capacity.set_gate(Setting("fulfil", 3, None, "ann", T + 10))
        assert ids(claim(store, T + 10)) == ["1", "2"]
        store.capacity.set_gate(Setting("fulfil:ada", 4, None, "ann", T + 11))
        assert ids(claim(store, T + 11)) == ["3"]
        store.capacity.set_gate(Setting("fulfil:ada", 0, None, "ann", T + 12))
        assert claim(store, T + 12) == []
        assert store.capacity.reset_gate("fulfil:ada") is True
        assert store.capacity.reset_gate("fulfil:ada") is False
        assert claim(store, T + 13) == [], "four are in, three may be"
        assert store.capacity.reset_gate("fulfil") is True
        assert claim(store, T + 14) == []
        self.check(store)

    def test_a_suspended_crash_loop_frees_its_place(self, store: Store) -> None:
        one(store, born("ex_1", T, gates=limited()))
        one(store, born("ex_2", T + 1, gates=limited()))
        for n in range(2):
            found = claim(store, T + n, 1, Lease(f"w{n}", 1))
            if found:
                runs(store, found, T + n)
            store.recover([f"w{n}"], "w9", T + n, 9)
            one(store, Deliver("ex_2", message(f"p{n}", MessageKind.PAUSE), T + n))
        one(store, Deliver("ex_2", message("r", MessageKind.RESUME), T + 5))
        found = claim(store, T + 6, 5, Lease("w9", 1))
        assert state(store, "ex_1").state is State.SUSPENDED and ids(found) == ["2"]
        self.check(store)

    # Rates

    def test_a_rate_lets_one_through_each_interval(self, store: Store) -> None:
        for n in range(4):
            one(store, born(f"ex_{n}", T + n, gates=rated()))
        claims = claim(store, T + 9)
        assert ids(claims) == ["0"] and claims.opens_at == T + 9 + MINUTE
        assert state(store, "ex_1").detail["until"] == T + 9 + MINUTE  # type: ignore[index]
        assert store.sweep(T + 10, 9) == (0, T + 9 + MINUTE)
        assert claim(store, T + 8 + MINUTE) == []
        assert ids(claim(store, T + 9 + MINUTE)) == ["1"]
        assert store.sweep(T + 10 + MINUTE, 9) == (0, T + 9 + 2 * MINUTE)
        assert ids(claim(store, T + 10 * MINUTE)) == ["2"], "what was not used is not saved up"
        self.check(store)

    def test_a_burst_goes_at_once_after_a_rest(self, store: Store) -> None:
        for n in range(9):
            one(store, born(f"ex_{n}", T + n, gates=rated(burst=3)))
        assert ids(claim(store, T + 9)) == ["0", "1", "2"]
        assert ids(claim(store, T + 9 + MINUTE)) == ["3"]
        assert ids(claim(store, T + 9 + 9 * MINUTE)) == ["4", "5", "6"]
        self.check(store)

    def test_a_wait_is_no_new_dispatch(self, store: Store) -> None:
        one(store, born("ex_1", T, gates=rated()))
        (owner,) = runs(store, claim(store, T))
        park(store, owner, T + 1)
        one(store, Deliver("ex_1", message("m1", MessageKind.ANSWER, key="q#1"), T + 2))
        again = claim(store, T + 3)
        assert ids(again) == ["1"]
        runs(store, again, T + 3)
        assert store.recover(["w1"], "w2", T + 4, 9) == 1
        assert ids(claim(store, T + 5, lease=Lease("w2"))) == ["1"], "nor is a death of the worker"
        self.check(store)

    def test_a_retry_is_a_new_dispatch(self, store: Store) -> None:
        one(store, born("ex_1", T, gates=rated()))
        (owner,) = runs(store, claim(store, T))
        data = {"due_at": T + 2, "retries": 3, "error": {"message": "no"}}
        assert one(store, owner.park(Kind.RETRY, T + 1, data=data)).refused is None
        assert store.sweep(T + 2, 9)[0] == 1
        assert claim(store, T + 3) == []
        assert ids(claim(store, T + MINUTE)) == ["1"]
        self.check(store)

    def test_another_rate_counts_at_once(self, store: Store) -> None:
        for n in range(9):
            one(store, born(f"ex_{n}", T + n, gates=rated(60 * MINUTE)))
        assert ids(claim(store, T + 9)) == ["0"]
        store.capacity.set_gate(Setting("rate:mail", 2, SECOND, "ann", T + 10))
        assert claim(store, T + 10) == []
        assert ids(claim(store, T + 11 + SECOND)) == ["1"]
        assert ids(claim(store, T + 20 * SECOND)) == ["2", "3"]
        self.check(store)

    def test_a_clock_that_goes_back_shuts_nobody_out(self, store: Store) -> None:
        for n in range(3):
            one(store, born(f"ex_{n}", T, gates=rated()))
        assert ids(claim(store, T + 999 * MINUTE)) == ["0"]
        one(store, born("ex_4", T, priority=9, gates=rated()))
        assert claim(store, T) == []
        assert state(store, "ex_4").detail["until"] == T + MINUTE  # type: ignore[index]
        self.check(store)

    # Capabilities

    def test_what_no_worker_offers_waits_for_one_that_does(self, store: Store) -> None:
        one(store, born("ex_1", T, gates={"needs": ["gpu"]}))
        one(store, born("ex_2", T + 1))
        assert ids(claim(store, T + 2)) == ["2"]
        blocked = state(store, "ex_1").detail
        assert blocked == {"gate": "capability:gpu", "kind": "capability", "since": T}
        assert claim(store, T + 3) == []
        able = Lease("w2", capabilities=frozenset({"gpu", "fpga"}))
        assert ids(claim(store, T + 4, lease=able)) == ["1"]
        self.check(store)

    # Queues

    def test_a_worker_takes_from_its_queues_only(self, store: Store) -> None:
        one(store, born("ex_1", T, queue="a"))
        one(store, born("ex_2", T + 1, queue="b", gates=limited()))
        assert ids(claim(store, T + 2, lease=Lease("w1", queues=frozenset({"b", "c"})))) == ["2"]
        assert ids(claim(store, T + 2)) == ["1"]

    def test_a_paused_queue_changes_no_execution(self, store: Store) -> None:
        for n in range(3):
            one(store, born(f"ex_{n}", T + n, queue="a"))
        one(store, born("ex_b", T + 9, queue="b"))
        paused = QueueSetting("a", None, T + 10, "ann", "lunch")
        store.capacity.set_queue(paused)
        assert ids(claim(store, T + 11)) == ["b"]
        assert [row.kind for row in store.log("ex_0")] == [Kind.CREATE]
        assert store.capacity.queue("a") == paused
        standing = store.capacity.standing("ex_1")
        assert standing is not None and (standing.gate, standing.place) == (None, 2)
        assert standing.queue == paused
        store.capacity.set_queue(replace(paused, paused_at=None, paused_by=None, why=None))
        assert ids(claim(store, T + 12)) == ["0", "1", "2"]
        self.check(store)

    def test_a_queue_runs_so_many_at_once(self, store: Store) -> None:
        for n in range(5):
            one(store, born(f"ex_{n}", T + n, queue="a"))
        store.capacity.set_queue(QueueSetting("a", 2))
        claims = claim(store, T + 9)
        assert ids(claims) == ["0", "1"] and claims.is_held_back
        assert claim(store, T + 9).is_held_back
        first, second = runs(store, claims)
        park(store, first, T + 10)
        assert ids(claim(store, T + 11)) == ["2"]
        end(store, second, T + 12)
        assert ids(claim(store, T + 13)) == ["3"]
        standing = store.capacity.standing("ex_4")
        assert standing is not None and standing.holders == ["ex_2", "ex_3"]
        row = store.capacity.queues()[0]
        assert (row.queued, row.leased, row.waiting_since) == (1, 2, T + 4)
        self.check(store)

    def test_nothing_is_born_running_in_a_queue_with_a_limit(self, store: Store) -> None:
        self.is_born_queued(store, QueueSetting("a", 0))

    def test_nothing_is_born_running_in_a_paused_queue(self, store: Store) -> None:
        self.is_born_queued(store, QueueSetting("a", None, T, "ann"))

    def is_born_queued(self, store: Store, rule: QueueSetting) -> None:
        """Two are sent with their claims, one into a queue with a rule."""
        store.capacity.set_queue(rule)
        _, item = begun("ex_1", queue="a")
        _, other = begun("ex_2", nonce=b"2" * 16, queue="b")
        first, second = store.commit([item, other])
        assert (first.refused, list(first.unclaimed)) == (None, ["ex_1"])
        assert first.execution == state(store, "ex_1") and state(store, "ex_1").seq == 1
        assert state(store, "ex_1").state is State.QUEUED
        assert list(second.unclaimed) == [] and state(store, "ex_2").is_leased
        assert claim(store) == []
        self.check(store)

    def test_no_gate_is_passed_by_being_born_running(self, store: Store) -> None:
        for n, gates in enumerate([limited(), rated(), {"needs": ["gpu"]}]):
            _, item = begun(f"ex_{n}", nonce=bytes([n]) * 16, gates=gates)
            assert list(one(store, item).unclaimed) == [f"ex_{n}"]
        owner, item = begun("ex_9", nonce=b"9" * 16, gates={"version": "7"})
        assert list(one(store, item).unclaimed) == [] and owner.record == state(store, "ex_9")
        self.check(store)

    def test_no_child_is_born_running_in_a_queue_with_a_rule(self, store: Store) -> None:
        store.capacity.set_queue(QueueSetting("a", 0))
        parent, item = begun("ex_1")
        _, birth = child_of(parent, "ex_2", queue="a")
        _, other = child_of(parent, "ex_3", "work#2", gates=limited())
        row = calls_child(parent, birth)
        second = calls_child(parent, other)
        assert codes(store.commit([item])) == [None]
        told = [list(answer.unclaimed) for answer in store.commit([row, second])]
        assert told == [["ex_2"], ["ex_3"]]
        assert state(store, "ex_2").state is State.QUEUED
        assert ids(claim(store)) == ["3"]
        self.check(store)

    def test_nor_is_a_child_of_what_is_born_in_the_same_batch(self, store: Store) -> None:
        store.capacity.set_queue(QueueSetting("a", 0))
        parent, item = begun("ex_1")
        _, birth = child_of(parent, "ex_2", queue="a")
        _, row = store.commit([item, calls_child(parent, birth)])
        assert list(row.unclaimed) == ["ex_2"]
        assert state(store, "ex_2").state is State.QUEUED and claim(store) == []
        self.check(store)

    def test_a_line_waits_while_its_queue_is_closed(self, store: Store) -> None:
        for n, queue in enumerate(["a", "b", "a", "b"]):
            one(store, born(f"ex_{n}", T + n, queue=queue, gates=limited()))
        (owner,) = runs(store, claim(store, T + 9))
        store.capacity.set_queue(QueueSetting("b", None, T + 10, "ann"))
        end(store, owner, T + 11)
        assert ids(claim(store, T + 12)) == ["2"], "the next of an open queue"
        store.capacity.set_queue(QueueSetting("b"))
        assert claim(store, T + 13) == []
        self.check(store)

    # Looking

    def test_gates_are_listed_with_holders_and_those_who_wait(self, store: Store) -> None:
        for n in range(4):
            one(store, born(f"ex_{n}", T + n, gates=limited("fulfil:ada", 2)))
        one(store, born("ex_5", T, gates={"needs": ["gpu"]}))
        setting = Setting("rate:mail", 1, MINUTE, "ann", T)
        store.capacity.set_gate(setting)
        claim(store, T + 9)
        found = {row.gate: row for row in store.capacity.gates()}
        assert list(found) == ["capability:gpu", "fulfil:ada", "rate:mail"]
        row = found["fulfil:ada"]
        assert (row.holders, row.waiting, row.next_id) == (["ex_0", "ex_1"], 2, "ex_2")
        assert found["rate:mail"].setting == setting and not found["rate:mail"].waiting
        assert found["capability:gpu"].next_id == "ex_5"
        standing = store.capacity.standing("ex_3")
        assert standing is not None
        assert (standing.gate, standing.place, standing.capacity) == ("fulfil:ada", 2, 2)
        assert standing.holders == ["ex_0", "ex_1"]
        assert store.capacity.standing("ex_0") is None
        self.check(store)

    def check(self, store: Store) -> None:
        """See that everything adds up."""
        assert store.verify().defects == []
