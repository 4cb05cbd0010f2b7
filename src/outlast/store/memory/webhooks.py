"""Webhooks in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from outlast.store.webhooks import (
    Delivery,
    DeliveryKind,
    DeliveryState,
    Told,
    Webhook,
    WebhookState,
    facts_of,
    target_of,
)

if TYPE_CHECKING:
    from outlast.access.audit import Deed
    from outlast.store.memory.access import MemoryAccess


class MemoryWebhooks:
    """The verbs on webhooks; see the protocol."""

    def __init__(self, lock: threading.RLock, access: MemoryAccess) -> None:
        self._lock, self._access = lock, access
        self._rows: dict[str, Webhook] = {}
        self._deliveries: dict[str, dict[int, Delivery]] = {}
        self._holder: str | None = None
        self._until = 0

    def floor(self) -> int | None:
        """Give the position of the feed behind which some webhook still is."""
        return min((row.position for row in self._rows.values()), default=None)

    def page(self) -> list[Webhook]:
        """See the protocol."""
        with self._lock:
            return [self._whole(self._rows[id]) for id in sorted(self._rows)]

    def get(self, id: str) -> Webhook | None:
        """See the protocol."""
        with self._lock:
            row = self._rows.get(id)
            return None if row is None else self._whole(row)

    def _whole(self, row: Webhook) -> Webhook:
        waiting = [
            one.created_at
            for one in self._deliveries[row.id].values()
            if one.state is DeliveryState.PENDING
        ]
        return replace(row, pending=len(waiting), waiting_since=min(waiting, default=None))

    def add(self, webhook: Webhook, most: int, deed: Deed | None = None) -> bool:
        """See the protocol."""
        with self._lock:
            if len(self._rows) >= most or webhook.id in self._rows:
                return False
            self._rows[webhook.id] = webhook
            self._deliveries[webhook.id] = {}
            self._audit(deed, webhook)
            return True

    def save(self, webhook: Webhook, deed: Deed | None = None) -> bool:
        """See the protocol."""
        with self._lock:
            row = self._rows.get(webhook.id)
            if row is None or row.revision != webhook.revision - 1:
                return False
            is_begun = webhook.state is WebhookState.ACTIVE and row.state is not webhook.state
            self._rows[webhook.id] = replace(
                row,
                revision=webhook.revision,
                state=webhook.state,
                terms=webhook.terms,
                secret_version=webhook.secret_version,
                former_until=webhook.former_until,
                updated_at=webhook.updated_at,
                failing_since=None if is_begun else row.failing_since,
            )
            self._audit(deed, webhook)
            return True

    def _audit(self, deed: Deed | None, webhook: Webhook) -> None:
        if deed is not None:
            self._access.append([(deed, target_of(webhook.id), facts_of(webhook))])

    def remove(self, id: str, deed: Deed | None = None) -> bool:
        """See the protocol."""
        with self._lock:
            if self._rows.pop(id, None) is None:
                return False
            del self._deliveries[id]
            if deed is not None:
                self._access.append([(deed, target_of(id), {"removed": True})])
            return True

    def hold(self, holder: str, now: int, until: int) -> bool:
        """See the protocol."""
        with self._lock:
            if self._holder not in (None, holder) and self._until >= now:
                return False
            self._holder, self._until = holder, until
            return True

    def let_go(self, holder: str) -> None:
        """See the protocol."""
        with self._lock:
            if self._holder == holder:
                self._holder = None

    def advance(
        self, webhook: Webhook, feed: str, position: int, told: Sequence[Told], now: int
    ) -> bool:
        """See the protocol."""
        with self._lock:
            row = self._rows.get(webhook.id)
            if row is None or (row.feed, row.position) != (webhook.feed, webhook.position):
                return False
            self._make(replace(row, feed=feed, position=position), told, now)
            return True

    def _make(self, row: Webhook, told: Sequence[Told], now: int) -> None:
        for number, one in enumerate(told, row.numbered + 1):
            self._deliveries[row.id][number] = Delivery(
                webhook_id=row.id,
                number=number,
                kind=one.kind,
                execution_id=one.execution_id,
                seq=one.seq,
                created_at=now,
                next_at=now,
            )
        self._rows[row.id] = replace(row, numbered=row.numbered + len(told))

    def ping(self, id: str, now: int, deed: Deed | None = None) -> int | None:
        """See the protocol."""
        with self._lock:
            row = self._rows.get(id)
            if row is None:
                return None
            self._make(row, [Told(DeliveryKind.PING)], now)
            if deed is not None:
                self._access.append([(deed, target_of(id), {"delivery": row.numbered + 1})])
            return row.numbered + 1

    def due(self, id: str, now: int, limit: int) -> list[Delivery]:
        """See the protocol."""
        with self._lock:
            row = self._rows.get(id)
            if row is None or row.state is not WebhookState.ACTIVE:
                return []
            first: dict[str, Delivery] = {}
            for one in self._deliveries[id].values():
                if one.state is DeliveryState.PENDING:
                    first.setdefault(one.execution_id, one)
            found = [one for one in first.values() if one.next_at <= now]
            return sorted(found, key=lambda one: (one.next_at, one.number))[:limit]

    def note(self, delivery: Delivery) -> bool:
        """See the protocol."""
        with self._lock:
            row = self._rows.get(delivery.webhook_id)
            known = self._deliveries.get(delivery.webhook_id, {}).get(delivery.number)
            if row is None or known is None or known.state is not DeliveryState.PENDING:
                return False
            self._deliveries[row.id][delivery.number] = delivery
            is_taken = delivery.state is DeliveryState.DELIVERED
            since = delivery.tried_at if row.failing_since is None else row.failing_since
            self._rows[row.id] = replace(row, failing_since=None if is_taken else since)
            return True

    def deliveries(
        self, id: str, states: Sequence[str] = (), before: int | None = None, limit: int = 100
    ) -> list[Delivery]:
        """See the protocol."""
        with self._lock:
            found = [
                one
                for one in self._deliveries.get(id, {}).values()
                if (not states or one.state in states) and (before is None or one.number < before)
            ]
            return sorted(found, key=lambda one: -one.number)[:limit]

    def redeliver(self, id: str, number: int, now: int, deed: Deed | None = None) -> bool:
        """See the protocol."""
        with self._lock:
            known = self._deliveries.get(id, {}).get(number)
            if known is None:
                return False
            self._deliveries[id][number] = replace(
                known, state=DeliveryState.PENDING, attempts=0, next_at=now
            )
            if deed is not None:
                self._access.append([(deed, target_of(id), {"delivery": number})])
            return True

    def prune(self, before: int, limit: int) -> int:
        """See the protocol."""
        with self._lock:
            old = [
                (id, one.number)
                for id, rows in sorted(self._deliveries.items())
                for one in rows.values()
                if one.state is not DeliveryState.PENDING and one.created_at < before
            ][:limit]
            for id, number in old:
                del self._deliveries[id][number]
            return len(old)


__all__ = ["MemoryWebhooks"]
