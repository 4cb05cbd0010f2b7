"""What a store keeps of webhooks: whom to tell of what, how far that was done, and each delivery.

Theory of operation. A webhook has a place in the feed (:class:`outlast.store.protocol.Feed`). What
fits its filter becomes deliveries, and its place moves, in one transaction: so each row is told of
once, whoever is killed between. A delivery stays ``pending`` until its receiver took it, or until
it was tried often enough. Of one execution only the first pending one is due, so they arrive in
the order of its log. The feed keeps what webhooks have not come to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from outlast.access.audit import Deed

HELD_BACK_US: Final = 7 * 24 * 3_600_000_000
"""How long the feed keeps what a webhook has not come to."""


class WebhookState(StrEnum):
    """Whether a webhook is told of anything."""

    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"


class DeliveryKind(StrEnum):
    """What a delivery tells of."""

    TRANSITION = "transition"
    GAP = "gap"
    PING = "ping"


class DeliveryState(StrEnum):
    """What became of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Wanted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a webhook is about; all that is given must hold.

    Attributes:
        task, prefix: of executions of this task, or of tasks whose names begin so.
        states: that led to one of these states; empty: to any.
        transitions: of these transitions; empty: of any.
        labels: of executions that have all these labels.
    """

    task: str | None = None
    prefix: str | None = None
    states: tuple[str, ...] = ()
    transitions: tuple[str, ...] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What people say of a webhook, and read of it; sealed where payloads are.

    Attributes:
        url: whom it tells.
        wanted: of what.
        description: what it is for.
        why: why it is paused or disabled.
    """

    url: str
    wanted: Wanted = Wanted()
    description: str = ""
    why: str | None = None


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A URL that is told of what happens.

    Attributes:
        id: as ``wh_…``.
        revision: raised by each change of its terms or state.
        state: whether it is told of anything.
        terms: what people say of it.
        secret_version: which of its secrets signs.
        former_until: until when the secret before signs as well.
        created_at, updated_at: instants.
        feed, position: how far in which feed it has come.
        numbered: how many deliveries it has had.
        failing_since: since when nothing was taken, or None.
        pending: how many deliveries wait.
        waiting_since: since when the oldest of them does.
    """

    id: str
    revision: int
    state: WebhookState
    terms: Terms
    secret_version: int
    former_until: int | None
    created_at: int
    updated_at: int
    feed: str
    position: int
    numbered: int = 0
    failing_since: int | None = None
    pending: int = 0
    waiting_since: int | None = None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A thing that a webhook is told.

    Attributes:
        webhook_id, number: its name; numbers are those of the webhook, from 1.
        kind: what it tells of.
        execution_id, seq: the row of a log; of none ``""`` and 0.
        state: what became of it.
        attempts: how often it was tried.
        created_at: when it was made.
        next_at: when it is tried next, where it is pending.
        tried_at: when it was tried last.
        status: what the receiver answered with last.
        error: why the last attempt failed.
    """

    webhook_id: str
    number: int
    kind: DeliveryKind
    execution_id: str = ""
    seq: int = 0
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    created_at: int
    next_at: int
    tried_at: int | None = None
    status: int | None = None
    error: str | None = None

    @property
    def message_id(self) -> str:
        """What a receiver knows it by, the same on each attempt."""
        return f"{self.webhook_id}.{self.number}"


class Told(msgspec.Struct, frozen=True):
    """What is to become a delivery."""

    kind: DeliveryKind
    execution_id: str = ""
    seq: int = 0


class Webhooks(Protocol):
    """The verbs on webhooks. Every verb is one transaction."""

    def page(self) -> list[Webhook]:
        """List them, by id."""

    def get(self, id: str) -> Webhook | None:
        """Read one."""

    def add(self, webhook: Webhook, most: int, deed: Deed | None = None) -> bool:
        """Add one; gives whether there were fewer than about ``most``."""

    def save(self, webhook: Webhook, deed: Deed | None = None) -> bool:
        """Write its state, terms and secrets, if its revision is the one before this one's.

        Made active again, it counts as failing no more.
        """

    def remove(self, id: str, deed: Deed | None = None) -> bool:
        """Delete one, with its deliveries; gives whether it was there."""

    def hold(self, holder: str, now: int, until: int) -> bool:
        """Be the one who delivers, until an instant; False while somebody else does."""

    def let_go(self, holder: str) -> None:
        """Deliver no more, so that somebody else may at once."""

    def advance(
        self, webhook: Webhook, feed: str, position: int, told: Sequence[Told], now: int
    ) -> bool:
        """Make deliveries, and note how far the webhook has come in the feed.

        False if it is elsewhere than ``webhook`` says: nothing is written then.
        """

    def ping(self, id: str, now: int, deed: Deed | None = None) -> int | None:
        """Make a delivery that tells of nothing; gives its number, None without such a webhook."""

    def due(self, id: str, now: int, limit: int) -> list[Delivery]:
        """Give deliveries of an active webhook to try now: of each execution the first pending."""

    def note(self, delivery: Delivery) -> bool:
        """Write what became of an attempt, and what it says of the webhook; False if it is gone."""

    def deliveries(
        self, id: str, states: Sequence[str] = (), before: int | None = None, limit: int = 100
    ) -> list[Delivery]:
        """List deliveries, the newest first, those before a number."""

    def redeliver(self, id: str, number: int, now: int, deed: Deed | None = None) -> bool:
        """Deliver something again, as if it had never been tried; False if it is not there."""

    def prune(self, before: int, limit: int) -> int:
        """Forget deliveries that wait for nothing and are older than an instant; gives how many."""


def facts_of(webhook: Webhook) -> dict[str, Any]:
    """Give what the audit says of a change."""
    return {"state": str(webhook.state), "revision": webhook.revision}


def target_of(id: str) -> str:
    """Give what the audit calls a webhook."""
    return f"webhook:{id}"


__all__ = [
    "HELD_BACK_US",
    "Delivery",
    "DeliveryKind",
    "DeliveryState",
    "Terms",
    "Told",
    "Wanted",
    "Webhook",
    "WebhookState",
    "Webhooks",
    "facts_of",
    "target_of",
]
