"""Webhooks out: an execution of ours that waits for another's end, and tells it to a URL.

Theory of operation. A webhook is an execution like any other: its task waits (``after``) for the
end of the one it is about, and its one step makes the request. So it is retried for a day by the
step's own policy, survives every restart, shows in ``outlast ls``, and is cancelled or tried again
by the same commands; nothing of its own is kept. Its key is made of the execution's id, so that a
start that is repeated makes no second one.

What it sends (:mod:`outlast.engine.control.posting`) is signed by a secret for each URL that the
store's own secret gives, and which is in no log. The body says which execution ended and how; never
a payload: who may read those asks for them.
"""

from __future__ import annotations

import asyncio
import http.client
import secrets
from typing import Final

import msgspec

from outlast import forms
from outlast.engine.control import posting
from outlast.engine.control.posting import SENDERS, send, signed
from outlast.engine.engine import Engine
from outlast.engine.primitives.calls import this_step
from outlast.engine.task.after import After
from outlast.engine.task.current import the_engine
from outlast.engine.task.registry import Retry, StartOptions, step, task
from outlast.errors import Fatal, NotFound, UsageError
from outlast.lifecycle.record import continued_as
from outlast.server.strict import unfit

NAME: Final = "outlast.webhook"
SECRET: Final = "webhooks"  # noqa: S105 - the name under which the store keeps it


class NotTaken(Exception):
    """The receiver did not answer with 2xx; it is tried again."""


@step(
    name="outlast.webhook.deliver",
    retries=Retry(14, base="5s", cap="3h", factor=2.5, give_up_on=(Fatal,)),
    timeout="1m",
)
async def deliver(url: str, id: str) -> int:
    """Tell a URL that an execution has ended; gives the status it answered with."""
    engine = the_engine()
    try:
        record = await engine.read_one(id)
        while (successor := continued_as(record)) is not None:
            record = await engine.read_one(successor)
    except NotFound:
        raise Fatal(f"{id} was deleted before its end was told") from None
    form = forms.row_form(record, sees_payloads=False)
    body = msgspec.json.encode({"type": "execution.ended", "id": record.id, "data": form})
    headers = signed(this_step().idempotency_key, body, await secret_of(engine, url))
    loop = asyncio.get_running_loop()
    status = await loop.run_in_executor(SENDERS, send, url, body, headers)
    if status == http.client.GONE:
        raise Fatal("the receiver wants to hear no more (410)")
    if not 200 <= status < 300:
        raise NotTaken(f"the receiver answered with {status}")
    return status


@task(name=NAME, queue=NAME)
async def webhook(url: str, id: str) -> int:
    """Tell a URL that an execution has ended."""
    return await deliver(url, id)


async def begin(engine: Engine, id: str, url: str, number: int, actor: str) -> None:
    """Start the webhook of an execution; again changes nothing."""
    options = StartOptions(
        key=f"{NAME}:{id}:{number}", after=(After(id, "end"),), actor=actor, origin=f"{NAME}:{id}"
    )
    await engine.astart_row(options, webhook, (url, id), {})


async def secret_of(engine: Engine, url: str) -> str:
    """Give the secret that requests to a URL are signed with, as receivers are told it."""
    drawn = secrets.token_bytes(32)
    root = await engine.journal.call(lambda: engine.store.secret(SECRET, drawn))
    return posting.secret_of(root, url)


def checked_url(url: str, path: str) -> str:
    """Give a URL back, having seen that it can be called.

    Raises:
        BadPayload: it is none, without TLS, or has a password.
    """
    try:
        return posting.checked_url(url)
    except UsageError as error:
        raise unfit(path, error.what, "body") from None


__all__ = ["begin", "checked_url", "secret_of", "webhook"]
