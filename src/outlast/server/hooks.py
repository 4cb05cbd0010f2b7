"""Webhooks over HTTP: whom to tell of what, and what came of it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from outlast import forms
from outlast.engine.control.webhooks import (
    DELIVERIES_MAX,
    DESCRIPTION_LENGTH_MAX,
    NewWebhook,
    wanted_of,
)
from outlast.errors import NotFound
from outlast.lifecycle import Kind, State
from outlast.server.call import Call, Reply
from outlast.server.shapes import Incoming, Labels, Name, Seq, Span, Text
from outlast.server.strict import unfit
from outlast.store.webhooks import DeliveryKind, DeliveryState, Wanted, WebhookState

Url = Annotated[str, Meta(min_length=1, max_length=2_000, examples=["https://example.org/hook"])]
Description = Annotated[str, Meta(max_length=DESCRIPTION_LENGTH_MAX)]


class WantedBody(Incoming):
    """What a webhook is about: all that is given must hold, as in `GET /events`."""

    task: Name | None = None
    prefix: Name | None = None
    states: list[State] = msgspec.field(default_factory=list)
    transitions: list[Kind] = msgspec.field(default_factory=list)
    labels: Labels = msgspec.field(default_factory=dict)


class WebhookBody(Incoming):
    """A webhook to be."""

    url: Url
    filter: WantedBody = msgspec.field(default_factory=WantedBody)
    description: Description = ""


class WebhookPatch(Incoming):
    """What is to be another; a pause keeps its place for seven days."""

    url: Url | UnsetType = UNSET
    filter: WantedBody | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    state: Literal["active", "paused"] | UnsetType = UNSET
    reason: Text | None = None


class RotateBody(Incoming):
    """How long the secret before signs as well, at most 30 days."""

    overlap: Span = "24h"


class DeliveriesQuery(Incoming):
    """Which deliveries."""

    state: list[DeliveryState] = msgspec.field(default_factory=list)
    before: Seq | None = None
    limit: Annotated[int, Meta(ge=1, le=DELIVERIES_MAX)] = 100


class WantedForm(msgspec.Struct):
    """What a webhook is about."""

    task: str | None
    prefix: str | None
    states: list[str]
    transitions: list[str]
    labels: dict[str, str]


class WebhookForm(msgspec.Struct, kw_only=True):
    """A webhook; `pending` deliveries wait, the oldest since `waiting_since`."""

    id: str
    url: str
    filter: WantedForm
    description: str
    state: WebhookState
    reason: str | None
    created_at: datetime
    updated_at: datetime
    former_secret_until: datetime | None
    failing_since: datetime | None
    pending: int
    waiting_since: datetime | None


class NewWebhookForm(msgspec.Struct):
    """A webhook, and the secret that signs from now on: it is shown this once."""

    webhook: WebhookForm
    secret: str


class WebhookPage(msgspec.Struct):
    """The webhooks, by id."""

    items: list[WebhookForm]


class DeliveryForm(msgspec.Struct, kw_only=True):
    """Something that a webhook is told; `message_id` is the header `webhook-id`."""

    number: int
    message_id: str
    kind: DeliveryKind
    execution_id: str | None
    seq: int | None
    state: DeliveryState
    attempts: int
    created_at: datetime
    next_at: datetime | None
    tried_at: datetime | None
    status: int | None
    error: str | None


class DeliveryPage(msgspec.Struct):
    """Deliveries, the newest first; `next` goes into `before` for those that follow."""

    items: list[DeliveryForm]
    next: int | None


async def list_webhooks(call: Call) -> dict[str, Any]:
    """List the webhooks, by id."""
    return {"items": [forms.webhook_form(row) for row in await call.engine.webhooks.alist()]}


async def add_webhook(call: Call) -> dict[str, Any]:
    """Tell a URL of what happens from now on; the answer has the secret, this once."""
    body: WebhookBody = call.body
    wanted = _wanted(body.filter)
    made = await call.engine.webhooks.aadd(
        body.url,
        task=wanted.task,
        prefix=wanted.prefix,
        states=wanted.states,
        transitions=wanted.transitions,
        labels=wanted.labels,
        description=body.description,
    )
    return _new(made)


async def get_webhook(call: Call) -> dict[str, Any]:
    """Show a webhook: what it is about, whether it fails, what waits."""
    return forms.webhook_form(await call.engine.webhooks.aget(call.path["id"]))


async def patch_webhook(call: Call) -> dict[str, Any]:
    """Change a webhook, pause it, or let it go on."""
    body: WebhookPatch = call.body
    webhooks, id = call.engine.webhooks, call.path["id"]
    if all(one is UNSET for one in (body.url, body.filter, body.description, body.state)):
        raise unfit("$", "the body sets nothing", "body")
    row = await webhooks.achange(
        id,
        url=body.url,
        wanted=UNSET if body.filter is UNSET else _wanted(body.filter),
        description=body.description,
    )
    if body.state == "paused":
        row = await webhooks.apause(id, body.reason)
    elif body.state == "active":
        row = await webhooks.aresume(id)
    return forms.webhook_form(row)


async def delete_webhook(call: Call) -> Reply:
    """Delete a webhook, with what it has not delivered yet."""
    await call.engine.webhooks.aremove(call.path["id"])
    return Reply(status=204)


async def rotate_secret(call: Call) -> dict[str, Any]:
    """Draw another secret, which is shown this once; the one before signs as well for a while."""
    return _new(await call.engine.webhooks.arotate(call.path["id"], call.body.overlap))


async def ping_webhook(call: Call) -> dict[str, Any]:
    """Send a delivery that tells of nothing, to see that it arrives."""
    return forms.delivery_form(await call.engine.webhooks.aping(call.path["id"]))


async def list_deliveries(call: Call) -> dict[str, Any]:
    """List what a webhook was told, the newest first: what came of it, when it is tried next."""
    query: DeliveriesQuery = call.query
    found = await call.engine.webhooks.adeliveries(
        call.path["id"], states=query.state, before=query.before, limit=query.limit
    )
    return {
        "items": [forms.delivery_form(one) for one in found],
        "next": found[-1].number if len(found) == query.limit else None,
    }


async def redeliver(call: Call) -> dict[str, Any]:
    """Deliver something again, at once and under the same id, whatever came of it."""
    id, number = call.path["id"], call.path["number"]
    if not (number.isascii() and number.isdigit() and len(number) <= 15):
        raise NotFound(f"there is no delivery {number[:40]!a}")
    return forms.delivery_form(await call.engine.webhooks.aredeliver(id, int(number)))


def _wanted(body: WantedBody) -> Wanted:
    return wanted_of(body.task, body.prefix, body.states, body.transitions, body.labels)


def _new(made: NewWebhook) -> dict[str, Any]:
    return {"webhook": forms.webhook_form(made.webhook), "secret": made.secret}


__all__ = [
    "add_webhook",
    "delete_webhook",
    "get_webhook",
    "list_deliveries",
    "list_webhooks",
    "patch_webhook",
    "ping_webhook",
    "redeliver",
    "rotate_secret",
]
