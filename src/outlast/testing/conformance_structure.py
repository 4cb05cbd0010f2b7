"""What every store does with executions that belong together: children, dependencies, errands."""

from __future__ import annotations

from typing import Any

from outlast.lifecycle import Kind, MessageKind, State
from outlast.store.protocol import (
    Create,
    Deliver,
    Filter,
    Lease,
    QueueSetting,
    Store,
    Write,
)
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


def calls_child(owner: Owner, child: Create, now: int = T) -> Write:
    """Make the item in which a parent's row and its child are born together."""
    data = {"child": child.after.id}
    row = owner.write(Kind.STEP_ANNOUNCED, now, key=child.after.parent_key, data=data)
    return replace(row, births=[child])


def child_of(parent: Owner, id: str, key: str = "work#1", **data: Any) -> tuple[Owner, Create]:
    """Make a running child of an execution."""
    root = parent.record.root_id or parent.record.id
    names: dict[str, Any] = {"parent_id": parent.record.id, "root_id": root, "parent_key": key}
    return begun(id, nonce=id.encode().ljust(16, b"."), **names, **data)


def edge(id: str, need: str = "success", or_else: str = "cancel") -> dict[str, str]:
    """Make an edge of a dependency."""
    return {"id": id, "need": need, "or_else": or_else}


def family(store: Store) -> tuple[Owner, Owner]:
    """Store a running parent with one running child."""
    parent, item = begun("ex_1")
    child, birth = child_of(parent, "ex_2")
    assert codes(store.commit([item, calls_child(parent, birth)])) == [None, None]
    return parent, child


class StructureConformance:
    """The suite; each store gives it a fixture ``store``."""

    def test_a_child_is_born_with_its_parents_row(self, store: Store) -> None:
        parent, _ = family(store)
        assert state(store, "ex_1").children == 1
        assert state(store, "ex_2").parent_key == "work#1"
        assert [row.id for row in store.page(Filter(parent_id="ex_1"))] == ["ex_2"]
        assert store.page(Filter(parent_id="ex_2")) == []
        assert state(store, "ex_1") == parent.record
        self.check(store)

    def test_no_child_is_born_of_a_stale_parent(self, store: Store) -> None:
        parent, item = begun("ex_1")
        stale = Owner(parent.record)
        assert one(store, item).refused is None
        assert one(store, parent.write(Kind.STEP, T + 1)).refused is None
        _, birth = child_of(stale, "ex_2")
        assert one(store, calls_child(stale, birth)).refused == "fenced"
        assert store.get(["ex_2"]) == [None]
        self.check(store)

    def test_a_running_parent_finds_a_childs_end_in_its_inbox(self, store: Store) -> None:
        parent, child = family(store)
        answer = one(store, child.write(Kind.FINISH, T + 2, payload=b"7"))
        ((told, entry),) = answer.told
        assert (told.id, told.inbox_count, told.state) == ("ex_1", 1, State.RUNNING)
        assert store.inbox("ex_1") == [entry]
        said = entry.message
        assert (said.kind, said.key, said.payload) == (MessageKind.CHILD, "work#1", b"7")
        assert said.data == {"child": "ex_2", "state": "succeeded"}
        assert one(store, parent.take(entry, T + 3)).refused is None
        assert store.log("ex_1")[-1].kind is Kind.CHILD_FINISHED
        self.check(store)

    def test_a_parked_parent_wakes_when_its_child_ends(self, store: Store) -> None:
        parent, child = family(store)
        wait = {"waits": [{"kind": "child", "key": "work#1", "child": "ex_2"}]}
        assert one(store, parent.park(Kind.WAIT, T + 1, data=wait)).refused is None
        error = {"error": {"type": "E", "message": "m"}}
        assert one(store, child.write(Kind.ERROR, T + 2, data=error, payload=b"{}")).refused is None
        woken = state(store, "ex_1")
        assert (woken.state, woken.cause) == (State.QUEUED, "child")
        self.check(store)

    def test_a_park_does_not_overlook_a_childs_end(self, store: Store) -> None:
        parent, child = family(store)
        assert one(store, child.write(Kind.FINISH, T + 2, payload=b"7")).refused is None
        wait = {"waits": [{"kind": "child", "key": "work#1", "child": "ex_2"}]}
        assert one(store, parent.park(Kind.WAIT, T + 3, data=wait)).refused == "moved"
        self.check(store)

    def test_however_a_child_ends_its_parent_hears_of_it_once(self, store: Store) -> None:
        parent, item = begun("ex_1")
        batch = [item]
        for n in range(2, 6):
            late = {"deadline_at": T + 10} if n == 3 else {}
            child, birth = child_of(parent, f"ex_{n}", f"work#{n}", **late)
            store.commit([*batch, calls_child(parent, birth)])
            batch = []
            if n == 4:
                assert one(store, child.park(Kind.WAIT, T + 1, data=ASK)).refused is None
            elif n != 3:
                assert one(store, child.write(Kind.CANCEL_REQUESTED, T + 1)).refused is None
        stop = message("stop", MessageKind.CANCEL)
        assert one(store, Deliver("ex_4", stop, T + 2)).refused is None  # parked: ends at once
        assert one(store, Deliver("ex_4", stop, T + 2)).execution is not None
        assert store.sweep(T + 10, 10)[0] == 1  # ex_3: its deadline
        told = {entry.message.key: entry.message.data for entry in store.inbox("ex_1")}
        assert told.keys() == {"work#3", "work#4"}
        assert (told["work#3"] or {})["state"] == "timed_out"
        assert (told["work#4"] or {})["state"] == "cancelled"
        assert (told["work#4"] or {})["by"] == "ann"
        self.check(store)

    def test_the_end_of_a_parent_ends_its_open_children(self, store: Store) -> None:
        parent, child = family(store)
        _, birth = child_of(child, "ex_3")
        assert one(store, calls_child(child, birth)).refused is None
        assert one(store, child.park(Kind.WAIT, T + 1, data=ASK)).refused is None
        answer = one(store, parent.write(Kind.FINISH, T + 2, payload=b"1"))
        assert answer.owes
        assert store.sweep(T + 2, 1) == (1, 0), "the child, and it owes its own child"
        ended = state(store, "ex_2")
        assert (ended.state, (ended.detail or {})["by"]) == (State.CANCELLED, "parent")
        assert store.sweep(T + 2, 10) == (1, None)
        (asked,) = store.inbox("ex_3")
        assert asked.message.kind is MessageKind.CANCEL, "it runs: its owner is asked"
        assert state(store, "ex_3").root_id == "ex_1"
        self.check(store)

    def test_a_detached_child_outlives_its_parent(self, store: Store) -> None:
        parent, item = begun("ex_1")
        child = born("ex_2", parent_id="ex_1", root_id="ex_1")
        assert codes(store.commit([item, child])) == [None, None]
        answer = one(store, parent.write(Kind.FINISH, T + 2, payload=b"1"))
        assert not answer.owes
        assert state(store, "ex_2").state is State.QUEUED
        self.check(store)

    def test_what_is_sent_with_a_row_goes_out_with_it_or_not_at_all(self, store: Store) -> None:
        parent, _ = family(store)
        stale = Owner(parent.record)
        stop = Deliver("ex_2", message("stop", MessageKind.CANCEL), T + 1)
        given_up = parent.write(Kind.CALL_ABANDONED, T + 1, key="work#1")
        assert one(store, replace(given_up, sends=[stop])).refused is None
        again = Deliver("ex_2", message("more", MessageKind.CANCEL), T + 1)
        late = stale.write(Kind.CALL_ABANDONED, T + 2, key="work#1")
        assert one(store, replace(late, sends=[again])).refused == "fenced"
        assert [entry.message.id for entry in store.inbox("ex_2")] == ["stop"]
        self.check(store)

    def test_the_end_of_a_continued_execution_is_that_of_its_successor(self, store: Store) -> None:
        parent, child = family(store)
        dependent = born("ex_9", waits_on=[edge("ex_2")])
        assert one(store, dependent).refused is None
        successor, birth = child_of(parent, "ex_3")
        goes_on = child.write(Kind.FINISH, T + 2, data={"continued_as": "ex_3"}, payload=b"null")
        answer = one(store, replace(goes_on, births=[birth]))
        assert (list(answer.told), answer.owes) == ([], False)
        late = born("ex_8", waits_on=[edge("ex_2")])
        assert one(store, late).refused is None
        answer = one(store, successor.write(Kind.FINISH, T + 3, payload=b"8"))
        assert [told.id for told, _ in answer.told] == ["ex_1"]
        assert store.sweep(T + 3, 10) == (2, None)
        assert [state(store, id).state for id in ("ex_8", "ex_9")] == [State.QUEUED] * 2
        self.check(store)

    def test_who_went_on_as_what_is_purged_has_ended_itself(self, store: Store) -> None:
        first, item = begun("ex_1")
        successor, birth = begun("ex_3", now=T + 2, nonce=b"o" * 16)
        goes_on = first.write(Kind.FINISH, T + 2, data={"continued_as": "ex_3"}, payload=b"null")
        assert codes(store.commit([item, replace(goes_on, births=[birth])])) == [None] * 2
        assert one(store, successor.write(Kind.FINISH, T + 3, payload=b"8")).refused is None
        assert store.purge(["ex_3"]) == 1
        assert one(store, born("ex_9", T + 4, waits_on=[edge("ex_1")])).refused is None
        assert state(store, "ex_9").state is State.QUEUED
        self.check(store)

    def test_a_guilty_item_changes_nothing_for_the_others(self, store: Store) -> None:
        """Of a batch without it, all else comes as it would have come: the owners' writes first."""
        parent, child = family(store)
        other, item = begun("ex_9", nonce=b"o" * 16)
        assert one(store, item).refused is None
        guilty = other.write(Kind.STEP, T + 2)
        guilty.rows = [replace(guilty.rows[0], to_state=State.FAILED)]
        wait = {"waits": [{"kind": "child", "key": "work#1", "child": "ex_2"}]}
        batch = [
            child.write(Kind.FINISH, T + 2, payload=b"7"),
            guilty,
            parent.park(Kind.WAIT, T + 2, data=wait),
        ]
        answers = store.commit(batch)
        assert codes(answers) == [None, "internal_error", None]
        assert [told.id for told, _ in answers[0].told] == ["ex_1"]
        assert (state(store, "ex_1").state, state(store, "ex_1").cause) == (State.QUEUED, "child")
        self.check(store)

    def test_a_refused_create_speaks_for_its_own_lease_only(self, store: Store) -> None:
        holder = born("ex_1", key="k")
        owner, item = begun("ex_2", key="k")
        step = owner.write(Kind.STEP, T + 1)
        answers = store.commit([holder, item, replace(step, fence=9), step])
        assert codes(answers) == [None, "already_exists", "no_execution", "already_exists"]
        self.check(store)

    def test_who_owes_is_who_left_an_errand(self, store: Store) -> None:
        parent, _ = family(store)
        other, item = begun("ex_9", nonce=b"o" * 16)
        assert one(store, item).refused is None
        batch = [other.write(Kind.FINISH, T + 2), parent.write(Kind.FINISH, T + 2)]
        assert [answer.owes for answer in store.commit(batch)] == [False, True]
        self.check(store)

    def test_whoever_goes_on_from_an_orphan_is_told(self, store: Store) -> None:
        """Its parent ended before; the errand finds one that has ended, and this one is open."""
        parent, child = family(store)
        assert one(store, parent.write(Kind.FINISH, T + 1)).owes
        _, birth = child_of(parent, "ex_3")
        goes_on = child.write(Kind.FINISH, T + 2, data={"continued_as": "ex_3"}, payload=b"null")
        assert one(store, replace(goes_on, births=[birth])).owes
        assert store.sweep(T + 3, 10) == (2, None)
        assert [entry.message.kind for entry in store.inbox("ex_3")] == [MessageKind.CANCEL]
        self.check(store)

    def test_errands_of_what_a_message_ended_are_owed_by_its_sender(self, store: Store) -> None:
        parent, child = family(store)
        _, birth = child_of(child, "ex_3")
        assert one(store, calls_child(child, birth)).refused is None
        assert one(store, child.park(Kind.WAIT, T + 1, data=ASK)).refused is None
        stop = Deliver("ex_2", message("stop", MessageKind.CANCEL), T + 1)
        given_up = parent.write(Kind.CALL_ABANDONED, T + 1, key="work#1")
        assert one(store, replace(given_up, sends=[stop])).owes
        assert state(store, "ex_2").state is State.CANCELLED
        self.check(store)

    def test_a_child_born_with_its_parent_passes_its_gates_too(self, store: Store) -> None:
        store.capacity.set_queue(QueueSetting("a", 1))
        parent, item = begun("ex_1")
        _, birth = child_of(parent, "ex_2", queue="a")
        answers = store.commit([item, calls_child(parent, birth)])
        assert [list(answer.unclaimed) for answer in answers] == [[], ["ex_2"]]
        assert state(store, "ex_2").state is State.QUEUED
        self.check(store)

    # Dependencies

    def test_a_refused_dependent_leaves_nothing(self, store: Store) -> None:
        upstream, item = begun("ex_1")
        missing = born("ex_3", waits_on=[edge("ex_1"), edge("ex_nobody")])
        assert codes(store.commit([item, missing])) == [None, "no_upstream"]
        assert not one(store, upstream.write(Kind.FINISH, T + 1)).owes
        self.check(store)

    def test_a_purged_dependent_is_owed_nothing(self, store: Store) -> None:
        upstream, item = begun("ex_1")
        assert codes(store.commit([item, born("ex_2", waits_on=[edge("ex_1")])])) == [None] * 2
        stop = Deliver("ex_2", message("stop", MessageKind.CANCEL), T + 1)
        assert one(store, stop).refused is None
        assert store.purge(["ex_2"]) == 1
        assert not one(store, upstream.write(Kind.FINISH, T + 2)).owes
        self.check(store)

    def test_what_was_purged_still_pays_what_it_owes(self, store: Store) -> None:
        upstream, item = begun("ex_1")
        dependents = [born(id, waits_on=[edge("ex_1")]) for id in ("ex_2", "ex_3")]
        assert codes(store.commit([item, *dependents])) == [None] * 3
        assert one(store, upstream.write(Kind.FINISH, T + 1)).owes
        stop = Deliver("ex_2", message("stop", MessageKind.CANCEL), T + 1)
        assert one(store, stop).refused is None
        assert store.purge(["ex_1", "ex_2"]) == 2
        self.check(store)
        assert store.sweep(T + 2, 10) == (1, None)
        assert state(store, "ex_3").state is State.QUEUED
        self.check(store)

    def test_a_dependent_starts_when_all_have_succeeded(self, store: Store) -> None:
        first, one_item = begun("ex_1")
        second, two_item = begun("ex_2", nonce=b"o" * 16)
        dependent = born("ex_3", waits_on=[edge("ex_1"), edge("ex_2", "end")])
        assert codes(store.commit([one_item, two_item, dependent])) == [None] * 3
        assert state(store, "ex_3").state is State.SCHEDULED
        assert one(store, first.write(Kind.FINISH, T + 1, payload=b"1")).owes
        assert store.sweep(T + 1, 10) == (1, None)
        assert state(store, "ex_3").detail == {"waits_on": [edge("ex_2", "end")]}
        error = {"error": {"type": "E", "message": "m"}}
        assert one(store, second.write(Kind.ERROR, T + 2, data=error, payload=b"{}")).owes
        assert store.sweep(T + 2, 10) == (1, None)
        assert state(store, "ex_3").state is State.QUEUED
        self.check(store)

    def test_a_dependent_of_a_failed_one_is_cancelled_and_so_are_its_own(
        self, store: Store
    ) -> None:
        first, item = begun("ex_1")
        chain = [born(f"ex_{n}", waits_on=[edge(f"ex_{n - 1}")]) for n in (2, 3)]
        held = born("ex_4", waits_on=[edge("ex_1", or_else="hold")])
        assert codes(store.commit([item, *chain, held])) == [None] * 4
        assert one(store, first.write(Kind.CANCEL_REQUESTED, T + 1)).refused is None
        assert one(store, first.write(Kind.CANCEL, T + 1, data={"by": "ann"})).owes
        while store.sweep(T + 1, 1)[1] == 0:
            pass
        assert [state(store, f"ex_{n}").state for n in (2, 3, 4)] == [
            State.CANCELLED,
            State.CANCELLED,
            State.SCHEDULED,
        ]
        assert (state(store, "ex_3").detail or {})["by"] == "upstream"
        go = Deliver("ex_4", message("go", MessageKind.RESUME), T + 2)
        assert one(store, go).refused is None
        assert state(store, "ex_4").state is State.QUEUED, "an operator starts it all the same"
        self.check(store)

    def test_dependencies_on_what_has_ended_are_met_at_birth(self, store: Store) -> None:
        first, item = begun("ex_1")
        store.commit([item, first.write(Kind.FINISH, T + 1, payload=b"1")])
        assert one(store, born("ex_2", T + 2, waits_on=[edge("ex_1")])).refused is None
        assert state(store, "ex_2").state is State.QUEUED
        assert store.sweep(T + 2, 10) == (0, None), "nothing is left to tell"
        self.check(store)

    def test_a_dependency_on_nothing_is_refused(self, store: Store) -> None:
        answers = store.commit([born("ex_2", waits_on=[edge("ex_1")]), born("ex_3")])
        assert codes(answers) == ["no_upstream", None]
        assert store.get(["ex_2"]) == [None]
        self.check(store)

    def test_a_held_dependent_goes_on_from_what_came_meanwhile(self, store: Store) -> None:
        first, item = begun("ex_1")
        store.commit([item, born("ex_2", waits_on=[edge("ex_1")])])
        assert one(store, Deliver("ex_2", message("p", MessageKind.PAUSE), T + 1)).refused is None
        assert one(store, first.write(Kind.FINISH, T + 2, payload=b"1")).owes
        assert store.sweep(T + 2, 10) == (1, None)
        assert state(store, "ex_2").state is State.PAUSED
        assert one(store, Deliver("ex_2", message("r", MessageKind.RESUME), T + 3)).refused is None
        assert state(store, "ex_2").state is State.QUEUED
        self.check(store)

    def test_a_dependent_with_a_time_waits_for_both(self, store: Store) -> None:
        first, item = begun("ex_1")
        store.commit([item, born("ex_2", waits_on=[edge("ex_1")], due_at=T + 10)])
        assert store.sweep(T + 20, 10)[0] == 0, "its time has come, but not its upstream"
        assert one(store, first.write(Kind.FINISH, T + 21, payload=b"1")).owes
        moved = store.sweep(T + 21, 10)[0]
        while store.sweep(T + 21, 10)[0]:
            moved += 1
        assert state(store, "ex_2").state is State.QUEUED
        self.check(store)

    def test_a_purge_takes_edges_along(self, store: Store) -> None:
        first, item = begun("ex_1")
        second, other = begun("ex_2", nonce=b"o" * 16)
        dependent = born("ex_3", waits_on=[edge("ex_1"), edge("ex_2")])
        store.commit([item, other, dependent, first.write(Kind.FINISH, T + 1, payload=b"1")])
        store.sweep(T + 1, 10)
        assert store.purge(["ex_1"]) == 1
        assert one(store, second.write(Kind.FINISH, T + 2, payload=b"1")).owes
        store.sweep(T + 2, 10)
        assert state(store, "ex_3").state is State.QUEUED
        self.check(store)

    def test_a_claimed_dependent_is_told_and_goes_on(self, store: Store) -> None:
        first, item = begun("ex_1")
        store.commit([item, born("ex_2", waits_on=[edge("ex_1")])])
        go = Deliver("ex_2", message("go", MessageKind.RESUME), T + 1)
        assert one(store, go).refused is None
        (claimed,) = store.claim(Lease("w1"), ["t"], 1, T + 1, nonces(1))
        assert one(store, first.write(Kind.FINISH, T + 2, payload=b"1")).owes
        assert store.sweep(T + 2, 10) == (1, None)
        assert len(store.inbox("ex_2")) == 2
        assert claimed.execution.state is State.STARTING
        self.check(store)

    def check(self, store: Store) -> None:
        """Every log folds to its row."""
        verdict = store.verify()
        assert verdict.defects == [] and verdict.executions > 0
