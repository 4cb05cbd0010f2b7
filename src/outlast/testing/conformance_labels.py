"""What every store does with labels, and with what executions were made of."""

from __future__ import annotations

from typing import Any

from outlast.lifecycle import Kind, MessageKind, State
from outlast.store.protocol import Create, Deliver, Descent, Filter, Store
from outlast.testing.conformance import T, begun, born, codes, message, one, state


def labelled(id: str, **labels: str) -> Create:
    """Make a queued execution with labels."""
    return born(id, labels=labels)


def made_of(id: str, source: Any) -> Create:
    """Make an execution that was made of another one."""
    data: dict[str, Any] = {"from": source}
    return born(id, **data)


def relabel(id: str, sent: str, **labels: str | None) -> Deliver:
    """Make the delivery that changes labels."""
    return Deliver(id, message(sent, MessageKind.LABELS, data={"labels": labels}), T)


def found(store: Store, **filter: Any) -> list[str]:
    """Give the ids of a page."""
    return [record.id for record in store.page(Filter(**filter))]


class LabelsConformance:
    """The suite; each store gives it a fixture ``store``."""

    def check(self, store: Store) -> None:
        """See that everything adds up."""
        assert store.verify().defects == []

    def test_executions_are_found_by_their_labels(self, store: Store) -> None:
        items = [
            labelled("ex_1", team="x"),
            labelled("ex_2", team="x", city="Ulm"),
            labelled("ex_3", team="y", city="Ulm"),
            born("ex_4"),
        ]
        assert codes(store.commit(items)) == [None] * 4
        assert found(store, labels={"team": "x"}) == ["ex_2", "ex_1"]
        assert found(store, labels={"city": "Ulm", "team": "x"}) == ["ex_2"]
        assert found(store, labels={"city": "Ulm"}, before_id="ex_3") == ["ex_2"]
        assert found(store, labels={"team": "x"}, limit=1) == ["ex_2"]
        assert found(store, labels={"team": "x"}, states=(State.RUNNING,)) == []
        assert found(store, labels={"team": "z"}) == []
        assert len(found(store)) == 4
        self.check(store)

    def test_labels_are_set_and_taken_away_one_by_one(self, store: Store) -> None:
        assert one(store, labelled("ex_1", team="x", city="Ulm")).refused is None
        assert one(store, relabel("ex_1", "m1", team="y", size="7")).refused is None
        assert state(store, "ex_1").labels == {"team": "y", "city": "Ulm", "size": "7"}
        assert found(store, labels={"team": "x"}) == []
        assert found(store, labels={"size": "7", "city": "Ulm"}) == ["ex_1"]
        assert one(store, relabel("ex_1", "m2", team=None, size=None, city=None)).refused is None
        assert state(store, "ex_1").labels is None
        assert found(store, labels={"city": "Ulm"}) == []
        self.check(store)

    def test_an_owner_takes_labels_out_of_its_inbox(self, store: Store) -> None:
        owner, item = begun("ex_1")
        assert one(store, item).refused is None
        answer = one(store, relabel("ex_1", "m1", team="x"))
        assert found(store, labels={"team": "x"}) == []
        assert answer.entry is not None
        assert one(store, owner.take(answer.entry, T + 1)).refused is None
        assert store.log("ex_1")[-1].kind is Kind.LABELS_CHANGED
        assert found(store, labels={"team": "x"}) == ["ex_1"]
        self.check(store)

    def test_what_is_purged_is_found_by_no_label(self, store: Store) -> None:
        owner, item = begun("ex_1", labels={"team": "x"})
        codes(store.commit([item, owner.write(Kind.FINISH, T + 1)]))
        assert found(store, labels={"team": "x"}) == ["ex_1"]
        assert store.purge(["ex_1"]) == 1
        assert found(store, labels={"team": "x"}) == []
        self.check(store)

    def test_an_age_bounds_a_page_from_both_sides(self, store: Store) -> None:
        for number in range(4):
            assert one(store, born(f"ex_{number}", now=T + number)).refused is None
        assert found(store, created_before=T + 1) == ["ex_1", "ex_0"]
        assert found(store, created_before=T + 2, created_after=T + 2) == ["ex_2"]

    def test_what_was_made_of_what_is_told_both_ways(self, store: Store) -> None:
        source: dict[str, Any] = {"id": "ex_1", "mode": "fork", "step": "work#1"}
        items = [born("ex_1"), made_of("ex_2", source), born("ex_3")]
        assert codes(store.commit(items)) == [None] * 3
        told = [Descent("ex_2", "ex_1", "fork", "work#1")]
        assert store.descents(["ex_1"]) == store.descents(["ex_2"]) == told
        assert store.descents(["ex_3"]) == []
        self.check(store)

    def test_a_purge_of_the_source_leaves_its_name(self, store: Store) -> None:
        owner, item = begun("ex_1")
        made = made_of("ex_2", {"id": "ex_1", "mode": "rerun"})
        codes(store.commit([item, owner.write(Kind.FINISH, T + 1), made]))
        assert store.purge(["ex_1"]) == 1
        assert store.descents(["ex_2"]) == [Descent("ex_2", "ex_1", "rerun")]
        self.check(store)


__all__ = ["LabelsConformance"]
