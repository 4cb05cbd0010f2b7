"""Which columns are sealed where there are keys, and which stay plain, and why: as data.

What is sealed and opened (:mod:`outlast.store.relational.sealed`), what is sealed anew, the page
``docs/sealed.md`` and their tests are made of it. A column that can hold a text and stands in
neither table fails a test.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from outlast.errors import StoreBroken
from outlast.store.keys import MARK, Place, Vault
from outlast.store.relational.skeleton import hidden, hidden_text, shown, shown_text

Learn = Callable[[], None]
Key = Sequence[Any]
ROOT_BYTES: Final = 32
"""How long a root is in the clear, by which it is told from one that is sealed."""


class Way(StrEnum):
    """How something is sealed."""

    PAYLOAD = "whole"
    FACTS = "but for what statements look at"
    TEXT = "whole, as text"
    ROOT = "whole, 32 bytes"

    def seal(self, vault: Vault, value: Any, place: Place) -> Any:
        """Seal a value; facts that hold nothing of the kind stay as they are."""
        if self is Way.PAYLOAD:
            return vault.seal(value, place)
        if self is Way.FACTS:
            return hidden(vault, value, place)
        if self is Way.TEXT:
            return hidden_text(vault, value, place)
        assert len(value) == ROOT_BYTES, "told from one that is sealed by its length"
        return vault.seal(value, place)

    def open(self, vault: Vault, value: Any, place: Place, learn: Learn) -> Any:
        """Open a value; one that was written before there was a key is given as it is.

        Raises:
            StoreBroken: it was changed or moved, or put there in the clear.
        """
        if self is Way.FACTS:
            return shown(vault, value, place, learn)
        if self is Way.TEXT:
            return shown_text(vault, value, place, learn)
        if self is Way.ROOT and len(value) == ROOT_BYTES:
            if vault.whole:
                raise StoreBroken(
                    "a secret of the store is in the clear",
                    where=f"{place.field} {place.id}",
                    why="the store is encrypted, and nothing here should be plain",
                    do="outlast db verify, and restore a copy",
                )
            return bytes(value)
        if not vault.knows(value):
            learn()
        return vault.open(value, place)

    def head(self, number: int) -> bytes | str:
        """Give what begins whatever this data key has sealed, as statements compare it."""
        head = MARK + number.to_bytes(4, "big")
        text = base64.b64encode(head).decode()
        return text if self is Way.FACTS else f"sealed:{text}" if self is Way.TEXT else head


class SealedColumn(Struct, frozen=True):
    """A column that is sealed.

    Attributes:
        table, column: its name.
        way: how it is sealed.
        holds: what is in it.
        place: what a value belongs to, by its tenant and the rest of its row's primary key.
    """

    table: str
    column: str
    way: Way
    holds: str
    place: Callable[[int, Key], Place]

    @property
    def name(self) -> str:
        """Its whole name."""
        return f"{self.table}.{self.column}"

    @property
    def stale(self) -> str:
        """The statement that finds what its newest data key has not sealed."""
        return f"stale_{self.table}_{self.column}"

    @property
    def reseal(self) -> str:
        """The statement that writes it, sealed anew."""
        return f"reseal_{self.table}_{self.column}"


def _numbered(field: str) -> Callable[[int, Key], Place]:
    return lambda tenant, key: Place(field, tenant, key[0], key[1])


def _named(field: str) -> Callable[[int, Key], Place]:
    return lambda tenant, key: Place(field, tenant, key[0], 0)


LOG: Final = SealedColumn(
    "transition",
    "payload",
    Way.PAYLOAD,
    "inputs, results, answers, what is remembered",
    _numbered("log"),
)
FACTS: Final = SealedColumn(
    "transition",
    "data",
    Way.FACTS,
    "errors, reasons, questions, what is waited for",
    _numbered("facts"),
)
DETAIL: Final = SealedColumn(
    "execution", "detail", Way.FACTS, "the same, of where an execution stands", _named("detail")
)
INBOX: Final = SealedColumn("inbox", "payload", Way.PAYLOAD, "signals, answers", _numbered("inbox"))
SAID: Final = SealedColumn(
    "inbox", "data", Way.FACTS, "what signals are matched with, reasons", _numbered("said")
)
STREAM: Final = SealedColumn(
    "stream_item",
    "payload",
    Way.PAYLOAD,
    "streams, and what was logged and printed",
    lambda tenant, key: Place(f"stream {key[1]}", tenant, key[0], key[2]),
)
PROGRESS: Final = SealedColumn(
    "progress", "text", Way.TEXT, "texts of progress", _named("progress")
)
SCHEDULE: Final = SealedColumn(
    "schedule", "input", Way.PAYLOAD, "what a schedule starts executions with", _named("schedule")
)
WEBHOOK: Final = SealedColumn(
    "webhook",
    "terms",
    Way.TEXT,
    "a webhook's URL with any secret in it, filter, description",
    _named("webhook"),
)
ROOT: Final = SealedColumn(
    "secret",
    "value",
    Way.ROOT,
    "roots of answer tokens, of webhooks' signatures, of cursors",
    _named("secret"),
)
SEALED: Final = (*(LOG, FACTS, DETAIL, INBOX, SAID, STREAM, PROGRESS, SCHEDULE, WEBHOOK, ROOT),)
"""All of them, in the order in which they are sealed anew."""

_ID: Final = "an id, drawn at random"
_NAME: Final = "a name of code, or one that people give"
_STATE: Final = "a word of a fixed list"
_WHO: Final = "who acted"
_DIGEST: Final = "a digest, of something random"
_KEY: Final = "what it is found by"
_OWN: Final = "the store's own"

PLAIN: Final[dict[str, str]] = {
    **dict.fromkeys(
        (
            *("execution.id", "execution.parent_id", "execution.root_id", "execution.nonce"),
            *("transition.execution_id", "transition.nonce", "inbox.execution_id", "inbox.id"),
            *("purge_permit.execution_id", "schedule.last_execution_id"),
            *("schedule_entry.execution_id", "dependency.execution_id", "dependency.upstream_id"),
            *("dependency.watched_id", "errand.execution_id", "errand.source_id"),
            *("holder.execution_id", "spending.execution_id", "reservation.execution_id"),
            *("budget_event.execution_id", "budget_event.id", "stream_item.execution_id"),
            *("progress.execution_id", "question.execution_id", "label.execution_id"),
            *("descent.id", "descent.source_id", "token.id", "feed.execution_id", "epoch.id"),
            *("webhook.id", "webhook.feed", "webhook_delivery.webhook_id"),
            *("webhook_delivery.execution_id", "feed_state.name"),
        ),
        _ID,
    ),
    **dict.fromkeys(
        (
            *("tenant.name", "execution.task", "execution.queue", "execution.version"),
            *("schedule.name", "schedule.task", "schedule_entry.name", "queue_setting.name"),
            *("line.queue", "stream_item.name", "stream_item.step", "progress.step"),
            *("question.key", "question.recipient", "descent.step", "account.name", "token.name"),
            *("role_grant.task", "secret.name", "data_key.key_id", "execution.parent_key"),
        ),
        _NAME,
    ),
    **dict.fromkeys(
        (
            *("execution.state", "execution.cause", "execution.paused_from", "transition.kind"),
            *("transition.from_state", "transition.to_state", "inbox.kind", "schedule.state"),
            *("schedule_entry.kind", "errand.what", "errand.source_state", "budget_event.what"),
            *("descent.mode", "role_grant.role", "epoch.cause", "worker.state", "worker.service"),
            *("webhook.state", "webhook_delivery.kind", "webhook_delivery.state"),
            *("edge.kind", "edge.from_state", "edge.to_state"),
        ),
        _STATE,
    ),
    **dict.fromkeys(
        (
            *("execution.worker", "execution.origin", "transition.actor", "inbox.actor"),
            *("schedule_entry.actor", "queue_setting.paused_by", "gate_setting.set_by"),
            *("budget_event.actor", "session.account", "token.owner", "token.created_by"),
            *("role_grant.subject", "role_grant.actor", "audit.actor", "audit.via", "worker.id"),
            *("worker.host", "feed_state.exporter", "epoch_loss.worker", "webhook_sender.holder"),
        ),
        _WHO,
    ),
    **dict.fromkeys(
        (
            *(
                "execution.key",
                "transition.key",
                "inbox.key",
                "execution.gates",
                "gate_setting.gate",
            ),
            *("rate.gate", "holder.gate", "line.gate", "budget.scope", "budget.meter"),
            *("spending.scope", "spending.meter", "reservation.key", "reservation.scope"),
            *("reservation.meter", "budget_event.scope", "budget_event.meter"),
            *("execution.labels", "label.name", "label.value", "schedule.plan", "schedule.options"),
        ),
        _KEY,
    ),
    **dict.fromkeys(
        (
            *("sign_in.digest", "session.digest", "token.digest", "audit.previous"),
            *("audit.digest", "audit_head.digest"),
        ),
        _DIGEST,
    ),
    **dict.fromkeys(("meta.name", "meta.value", "sight.identity"), _OWN),
    "account.password": "argon2id",
    "data_key.wrapped": "wrapped by a key that is not in the store",
    "token.grants": "roles and prefixes of tasks",
    "audit.what": "which change it was",
    "audit.target": "whom it changed",
    "audit.detail": "states and numbers of a change; it is read by who may read no payload",
    "epoch.detail": "which history the store has gone back to",
    "epoch_loss.examples": "ids",
    "progress.done": "a number",
    "progress.total": "a number",
    "schedule_entry.data": "slots, and why somebody paused it",
    "schedule.why": "why somebody paused it: shown to who may read no payload",
    "queue_setting.why": "why somebody paused it: shown to who may read no payload",
    "webhook_delivery.error": "one of our own texts; never what a receiver said, nor its URL",
}
"""All other columns that could hold a text, and why they stay as they are."""

__all__ = ["PLAIN", "ROOT_BYTES", "SEALED", "Key", "Learn", "SealedColumn", "Way"]
