"""Webhooks in SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from outlast.store.relational.database import json_of
from outlast.store.relational.rows import Value
from outlast.store.webhooks import (
    Delivery,
    DeliveryKind,
    DeliveryState,
    Terms,
    Told,
    Webhook,
    WebhookState,
    facts_of,
    target_of,
)

if TYPE_CHECKING:
    from outlast.access.audit import Deed
    from outlast.store.relational.store import RelationalStore

_encode: Final = msgspec.json.Encoder().encode
_terms: Final = msgspec.json.Decoder(Terms).decode


class RelationalWebhooks:
    """The verbs on webhooks; see the protocol."""

    def __init__(self, store: RelationalStore) -> None:
        self._store, self._database = store, store.database

    def page(self) -> list[Webhook]:
        """See the protocol."""
        return list(map(_webhook_of, self._database.read("webhooks", {})))

    def get(self, id: str) -> Webhook | None:
        """See the protocol."""
        found = self._database.read("webhook_by_id", {"id": id})
        return _webhook_of(found[0]) if found else None

    def add(self, webhook: Webhook, most: int, deed: Deed | None = None) -> bool:
        """See the protocol."""
        database = self._database

        def add() -> bool:
            ((count,),) = database.ask_all("count_webhooks", {})
            if int(str(count)) >= most:
                return False
            row = (
                database.tenant, webhook.id, webhook.revision, str(webhook.state),
                _encode(webhook.terms).decode(), webhook.secret_version, webhook.former_until,
                webhook.created_at, webhook.updated_at, webhook.feed, webhook.position,
            )  # fmt: skip
            database.send("insert_webhook", [row])
            self._audit(deed, webhook.id, facts_of(webhook))
            return True

        return database.write(add)

    def save(self, webhook: Webhook, deed: Deed | None = None) -> bool:
        """See the protocol."""
        row = (
            webhook.id, webhook.revision, str(webhook.state), _encode(webhook.terms).decode(),
            webhook.secret_version, webhook.former_until, webhook.updated_at,
        )  # fmt: skip
        return self._change(
            lambda: self._database.sent("save_webhook", [row]), webhook.id, deed, facts_of(webhook)
        )

    def remove(self, id: str, deed: Deed | None = None) -> bool:
        """See the protocol."""

        def remove() -> int:
            gone = self._database.run("delete_webhook", {"id": id})
            self._database.run("delete_deliveries", {"id": id})  # also those made meanwhile
            return gone

        return self._change(remove, id, deed, {"removed": True})

    def _change(
        self, act: Callable[[], int], id: str, deed: Deed | None, facts: Mapping[str, Any]
    ) -> bool:
        def change() -> bool:
            changed = bool(act())
            if changed:
                self._audit(deed, id, facts)
            return changed

        return self._database.write(change)

    def _audit(self, deed: Deed | None, id: str, facts: Mapping[str, Any]) -> None:
        if deed is not None:
            self._store.audit([(deed, target_of(id), facts)])

    def hold(self, holder: str, now: int, until: int) -> bool:
        """See the protocol."""
        bounds: dict[str, Value] = {"holder": holder, "now": now, "until": until}
        return self._database.write(lambda: self._database.run("hold_webhooks", bounds)) > 0

    def let_go(self, holder: str) -> None:
        """See the protocol."""
        self._database.write(lambda: self._database.run("let_webhooks_go", {"holder": holder}))

    def advance(
        self, webhook: Webhook, feed: str, position: int, told: Sequence[Told], now: int
    ) -> bool:
        """See the protocol."""
        bounds: dict[str, Value] = {
            "id": webhook.id,
            "was_feed": webhook.feed,
            "was_position": webhook.position,
            "feed": feed,
            "position": position,
        }

        def advance() -> bool:
            if not self._database.run("move_webhook", bounds):
                return False
            if told:
                self._make(webhook.id, told, now)
            return True

        return self._database.write(advance)

    def _make(self, id: str, told: Sequence[Told], now: int) -> int | None:
        """Make deliveries, inside the open transaction; gives the number of the last one."""
        if not self._database.run("number_deliveries", {"id": id, "count": len(told)}):
            return None
        ((numbered,),) = self._database.ask_all("numbered", {"id": id})
        last = int(str(numbered))
        tenant = self._database.tenant
        rows = [
            (tenant, id, number, str(one.kind), one.execution_id, one.seq, now, now)
            for number, one in enumerate(told, last - len(told) + 1)
        ]
        self._database.send("insert_deliveries", rows)
        return last

    def ping(self, id: str, now: int, deed: Deed | None = None) -> int | None:
        """See the protocol."""

        def ping() -> int | None:
            number = self._make(id, [Told(DeliveryKind.PING)], now)
            if number is not None:
                self._audit(deed, id, {"delivery": number})
            return number

        return self._database.write(ping)

    def due(self, id: str, now: int, limit: int) -> list[Delivery]:
        """See the protocol."""
        bounds: dict[str, Value] = {"id": id, "now": now, "limit": limit}
        return list(map(_delivery_of, self._database.read("due_deliveries", bounds)))

    def note(self, delivery: Delivery) -> bool:
        """See the protocol."""
        bounds: dict[str, Value] = {
            "id": delivery.webhook_id,
            "number": delivery.number,
            "state": str(delivery.state),
            "attempts": delivery.attempts,
            "next_at": delivery.next_at,
            "tried_at": delivery.tried_at,
            "status": delivery.status,
            "error": delivery.error,
        }

        def note() -> bool:
            self._database.run("note_attempt", bounds)  # whoever has this row makes deliveries
            return bool(self._database.run("note_delivery", bounds))

        return self._database.write(note)

    def deliveries(
        self, id: str, states: Sequence[str] = (), before: int | None = None, limit: int = 100
    ) -> list[Delivery]:
        """See the protocol."""
        bounds: dict[str, Value] = {
            "id": id,
            "states": json_of(list(states)) if states else None,
            "before": 2**62 if before is None else before,
            "limit": limit,
        }
        return list(map(_delivery_of, self._database.read("deliveries", bounds)))

    def redeliver(self, id: str, number: int, now: int, deed: Deed | None = None) -> bool:
        """See the protocol."""
        bounds: dict[str, Value] = {"id": id, "number": number, "now": now}
        return self._change(
            lambda: self._database.run("redeliver", bounds), id, deed, {"delivery": number}
        )

    def prune(self, before: int, limit: int) -> int:
        """See the protocol."""
        bounds: dict[str, Value] = {"before": before, "limit": limit}
        return self._database.write(lambda: self._database.run("prune_deliveries", bounds))


def _webhook_of(row: Sequence[Any]) -> Webhook:
    return Webhook(
        id=row[1],
        revision=row[2],
        state=WebhookState(row[3]),
        terms=_terms(row[4]),
        secret_version=row[5],
        former_until=row[6],
        created_at=row[7],
        updated_at=row[8],
        feed=row[9],
        position=row[10],
        numbered=row[11],
        failing_since=row[12],
        pending=row[13],
        waiting_since=row[14],
    )


def _delivery_of(row: Sequence[Any]) -> Delivery:
    return Delivery(
        webhook_id=row[0],
        number=row[1],
        kind=DeliveryKind(row[2]),
        execution_id=row[3],
        seq=row[4],
        state=DeliveryState(row[5]),
        attempts=row[6],
        created_at=row[7],
        next_at=row[8],
        tried_at=row[9],
        status=row[10],
        error=row[11],
    )


__all__ = ["RelationalWebhooks"]
