"""What every store does with webhooks."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from outlast.store.protocol import Store
from outlast.store.webhooks import (
    HELD_BACK_US,
    Delivery,
    DeliveryKind,
    DeliveryState,
    Terms,
    Told,
    Wanted,
    Webhook,
    WebhookState,
)
from outlast.testing.conformance import T
from outlast.testing.conformance_access import deed
from outlast.testing.conformance_feed import DAY, born

MOST = 3


def made(store: Store, id: str = "wh_1", url: str = "https://example.org/a") -> Webhook:
    """Add a webhook that has come to the beginning of the feed."""
    row = Webhook(
        id=id,
        revision=1,
        state=WebhookState.ACTIVE,
        terms=Terms(url=url, wanted=Wanted(task="pay", labels={"shop": "1"}), description="books"),
        secret_version=1,
        former_until=None,
        created_at=T,
        updated_at=T,
        feed="one",
        position=0,
    )
    assert store.webhooks.add(row, MOST, deed("webhook"))
    return row


def told(*rows: tuple[str, int]) -> list[Told]:
    """Say what is to be told of."""
    return [Told(DeliveryKind.TRANSITION, id, seq) for id, seq in rows]


def numbers(found: Sequence[Delivery]) -> list[int]:
    """Give the numbers of deliveries."""
    return [one.number for one in found]


def tried(one: Delivery, state: DeliveryState, at: int, next_at: int | None = None) -> Delivery:
    """Say what became of an attempt."""
    is_taken = state is DeliveryState.DELIVERED
    return replace(
        one,
        state=state,
        attempts=one.attempts + 1,
        tried_at=at,
        next_at=next_at or at,
        status=204 if is_taken else 500,
        error=None if is_taken else "answered 500",
    )


class WebhooksConformance:
    """The suite; each store gives it a fixture ``store``."""

    def test_a_webhook_is_kept_as_it_was_said(self, store: Store) -> None:
        row = made(store)
        assert store.webhooks.get("wh_1") == row
        assert store.webhooks.get("wh_2") is None
        made(store, "wh_3")
        made(store, "wh_2", "https://example.org/b")
        assert [one.id for one in store.webhooks.page()] == ["wh_1", "wh_2", "wh_3"]
        assert not store.webhooks.add(replace(row, id="wh_4"), MOST)
        assert store.webhooks.remove("wh_3", deed("webhook"))
        assert not store.webhooks.remove("wh_3", deed("webhook"))
        audited = store.access.audit()
        assert [one.target for one in audited] == [f"webhook:wh_{n}" for n in (1, 3, 2, 3)]

    def test_of_two_who_change_it_at_once_one_is_told_so(self, store: Store) -> None:
        row = made(store)
        paused = replace(
            row,
            revision=2,
            state=WebhookState.PAUSED,
            terms=replace(row.terms, why="too loud"),
            secret_version=2,
            former_until=T + 5,
            updated_at=T + 1,
        )
        assert store.webhooks.save(paused, deed("webhook"))
        assert not store.webhooks.save(replace(row, revision=2), deed("webhook"))
        assert not store.webhooks.save(replace(paused, id="wh_9", revision=3))
        assert store.webhooks.get("wh_1") == paused
        assert len(store.access.audit()) == 2

    def test_one_delivers_at_a_time(self, store: Store) -> None:
        hooks = store.webhooks
        assert hooks.hold("a", T, T + 10)
        assert not hooks.hold("b", T + 10, T + 20)
        assert hooks.hold("a", T + 5, T + 15)
        assert hooks.hold("b", T + 16, T + 20)
        assert not hooks.hold("a", T + 17, T + 30)
        hooks.let_go("a")
        assert not hooks.hold("a", T + 17, T + 30)
        hooks.let_go("b")
        assert hooks.hold("a", T + 17, T + 30)

    def test_each_row_is_told_of_once(self, store: Store) -> None:
        row = made(store)
        rows = told(("ex_1", 1), ("ex_1", 2), ("ex_2", 1))
        assert store.webhooks.advance(row, "one", 7, rows, T + 1)
        assert not store.webhooks.advance(row, "one", 7, rows, T + 1)
        now = store.webhooks.get("wh_1")
        assert now is not None
        assert (now.position, now.numbered, now.pending, now.waiting_since) == (7, 3, 3, T + 1)
        assert store.webhooks.advance(now, "two", 1, [Told(DeliveryKind.GAP)], T + 2)
        found = store.webhooks.deliveries("wh_1")
        assert [(one.number, one.kind, one.execution_id, one.seq) for one in found] == [
            (4, DeliveryKind.GAP, "", 0),
            (3, DeliveryKind.TRANSITION, "ex_2", 1),
            (2, DeliveryKind.TRANSITION, "ex_1", 2),
            (1, DeliveryKind.TRANSITION, "ex_1", 1),
        ]
        assert numbers(store.webhooks.deliveries("wh_1", before=3, limit=1)) == [2]
        assert store.webhooks.deliveries("wh_1", states=("failed",)) == []
        assert store.webhooks.ping("wh_1", T + 3, deed("webhook")) == 5
        assert store.webhooks.ping("wh_9", T + 3, deed("webhook")) is None

    def test_of_each_execution_one_is_due_at_a_time(self, store: Store) -> None:
        hooks = store.webhooks
        hooks.advance(made(store), "one", 7, told(("ex_1", 1), ("ex_1", 2), ("ex_2", 1)), T)
        assert hooks.due("wh_1", T - 1, 10) == []
        first, other = hooks.due("wh_1", T, 10)
        assert (first.number, other.number) == (1, 3)
        assert numbers(hooks.due("wh_1", T, 1)) == [1]
        assert hooks.note(tried(first, DeliveryState.PENDING, T + 1, T + 9))
        assert numbers(hooks.due("wh_1", T + 1, 10)) == [3]
        row = hooks.get("wh_1")
        assert row is not None
        assert (row.failing_since, row.pending) == (T + 1, 3)
        (again,) = [one for one in hooks.due("wh_1", T + 9, 10) if one.number == 1]
        assert (again.attempts, again.status, again.error) == (1, 500, "answered 500")
        assert hooks.note(tried(again, DeliveryState.PENDING, T + 9, T + 20))
        row = hooks.get("wh_1")
        assert row is not None
        assert row.failing_since == T + 1
        assert hooks.note(tried(other, DeliveryState.DELIVERED, T + 10))
        assert not hooks.note(tried(other, DeliveryState.DELIVERED, T + 10))
        row = hooks.get("wh_1")
        assert row is not None
        assert (row.failing_since, row.pending) == (None, 2)
        assert hooks.note(tried(again, DeliveryState.FAILED, T + 20))
        assert numbers(hooks.due("wh_1", T + 20, 10)) == [2]
        row = hooks.get("wh_1")
        assert row is not None
        paused = replace(row, revision=2, state=WebhookState.PAUSED)
        assert hooks.save(paused)
        assert hooks.due("wh_1", T + 20, 10) == []
        assert hooks.save(replace(paused, revision=3, state=WebhookState.ACTIVE))
        row = hooks.get("wh_1")
        assert row is not None
        assert row.failing_since is None

    def test_what_is_over_is_delivered_again_or_forgotten(self, store: Store) -> None:
        hooks = store.webhooks
        hooks.advance(made(store), "one", 7, told(("ex_1", 1), ("ex_2", 1), ("ex_3", 1)), T)
        for one in hooks.due("wh_1", T, 2):
            hooks.note(tried(one, DeliveryState.FAILED, T + 1))
        assert hooks.redeliver("wh_1", 1, T + 5, deed("webhook"))
        assert not hooks.redeliver("wh_1", 9, T + 5, deed("webhook"))
        again = hooks.due("wh_1", T + 5, 10)
        assert numbers(again) == [3, 1]
        assert (again[1].attempts, again[1].status) == (0, 500)
        assert hooks.prune(T, 10) == 0
        assert hooks.prune(T + 1, 10) == 1
        assert numbers(hooks.deliveries("wh_1")) == [3, 1]

    def test_the_feed_keeps_what_a_webhook_has_not_come_to(self, store: Store) -> None:
        store.feed.follow("one", T)
        row = made(store)
        for number in range(3):
            born(store, f"ex_{number}")
        store.feed.settle()
        places = [one.position for one in store.feed.read(0, 100)]
        assert not store.feed.end(T + DAY)
        assert store.feed.prune(T + DAY, 100) == 0
        assert store.webhooks.advance(row, "one", places[1], (), T)
        assert store.feed.prune(T + DAY, 100) == 2
        assert store.feed.prune(T + DAY + HELD_BACK_US, 100) == len(places) - 3
        assert store.webhooks.remove(row.id)
        assert store.feed.end(T + DAY)


__all__ = ["WebhooksConformance"]
