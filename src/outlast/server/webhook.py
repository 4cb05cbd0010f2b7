"""Webhooks out: an execution of ours that waits for another's end, and tells it to a URL.

Theory of operation. A webhook is an execution like any other: its task waits (``after``) for the
end of the one it is about, and its one step makes the request. So it is retried for a day by the
step's own policy, survives every restart, shows in ``outlast ls``, and is cancelled or tried again
by the same commands; nothing of its own is kept. Its key is made of the execution's id, so that a
start that is repeated makes no second one.

What it sends is signed as Standard Webhooks do it (``webhook-id``, ``webhook-timestamp``,
``webhook-signature``), by a secret for each URL that the store's own secret gives, and which is in
no log. The body says which execution ended and how; never a payload: who may read those asks for
them. It follows no redirects, speaks TLS, and calls no address that is not public, unless
``OUTLAST_WEBHOOK_HOSTS`` names the host: the address that was looked at is the one it connects to.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import os
import secrets
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from outlast import forms
from outlast.engine.after import After
from outlast.engine.calls import this_step
from outlast.engine.current import the_engine
from outlast.engine.engine import Engine
from outlast.engine.registry import Retry, StartOptions, step, task
from outlast.errors import Fatal, NotFound
from outlast.lifecycle.record import continued_as
from outlast.server.strict import unfit

NAME: Final = "outlast.webhook"
SECRET: Final = "webhooks"  # noqa: S105 - the name under which the store keeps it
TIMEOUT_SECONDS: Final = 15.0
"""How long a receiver may be silent."""
DEADLINE_SECONDS: Final = 30.0
"""How long a request may take in all, however often a byte comes."""
CONNECT_SECONDS: Final = 5.0
ADDRESSES_MAX: Final = 3
URL_LENGTH_MAX: Final = 2_000
_SENDERS: Final = ThreadPoolExecutor(8, "outlast-webhook")
"""Threads of their own: receivers that answer slowly keep each other waiting, and no sign-in."""


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
    headers = signed(await secret_of(engine, url), this_step().idempotency_key, body)
    loop = asyncio.get_running_loop()
    status = await loop.run_in_executor(_SENDERS, send, url, body, headers)
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
    return "whsec_" + base64.b64encode(hmac.digest(root, url.encode(), hashlib.sha256)).decode()


def signed(secret: str, id: str, body: bytes, at: int | None = None) -> dict[str, str]:
    """Give the headers that say who sends a body."""
    at = int(time.time()) if at is None else at
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mark = hmac.digest(key, f"{id}.{at}.".encode() + body, hashlib.sha256)
    return {
        "content-type": "application/json",
        "user-agent": "outlast",
        "webhook-id": id,
        "webhook-timestamp": str(at),
        "webhook-signature": "v1," + base64.b64encode(mark).decode(),
    }


def checked_url(url: str, path: str) -> str:
    """Give a URL back, having seen that it can be called.

    Raises:
        BadPayload: it is none, without TLS, or has a password.
    """
    try:
        _parts(url)
    except ValueError as error:
        raise unfit(path, str(error), "body") from None
    return url


def _parts(url: str) -> tuple[SplitResult, str, int]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("it is no URL")
    if parts.username or parts.password or len(url) > URL_LENGTH_MAX:
        raise ValueError("it has a password, or is too long")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_allowed(host, port)):
        raise ValueError("it is to begin with https://")
    return parts, host, port


def _is_allowed(host: str, port: int) -> bool:
    named = os.environ.get("OUTLAST_WEBHOOK_HOSTS", "").split(",")
    return host in named or f"{host}:{port}" in named


def send(url: str, body: bytes, headers: dict[str, str]) -> int:
    """Make the request; gives the status. Blocks.

    Raises:
        Fatal: the URL leads to an address that is not public.
        OSError, http.client.HTTPException: nobody answers, or not in time.
    """
    try:
        parts, host, port = _parts(url)
    except ValueError as error:
        raise Fatal(f"the URL is not called: {error}") from None
    addresses = _addresses(host, port)
    connection: Any = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    plain = _connected(addresses, port)
    # Each read and write has its time, and could begin anew for ever: this ends all of them, by
    # a handle of its own, as TLS takes the socket's away.
    twin = plain.dup()
    watch = threading.Timer(DEADLINE_SECONDS, _end, (twin,))
    watch.daemon = True
    watch.start()
    connection.sock = plain
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(plain, server_hostname=host)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, headers)
        return int(connection.getresponse().status)
    finally:
        watch.cancel()
        watch.join()
        twin.close()
        connection.close()


def _end(line: socket.socket) -> None:
    """End a connection under the hands of whoever waits for it, on another thread."""
    with contextlib.suppress(OSError):  # it is over already
        line.shutdown(socket.SHUT_RDWR)


def _connected(addresses: list[str], port: int) -> socket.socket:
    """Connect to the first of some addresses that answers."""
    for address in addresses[:-1]:
        with contextlib.suppress(OSError):
            return socket.create_connection((address, port), CONNECT_SECONDS)
    return socket.create_connection((addresses[-1], port), CONNECT_SECONDS)


def _addresses(host: str, port: int) -> list[str]:
    """Look a host up, once: what is looked at is what is connected to.

    Raises:
        Fatal: one of its addresses is not public.
        OSError: it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    for address in addresses:
        if not _is_allowed(host, port) and not _is_public(address):
            raise Fatal(f"{host} leads to {address}, which is not public: it is not called")
    return addresses[:ADDRESSES_MAX]


_INSIDE: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            *("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/23", "2002::/16", "fec0::/10"),
            *("192.0.0.0/24", "192.88.99.0/24"),
        ),
    )
)
"""Networks that some Pythons count as public, and whose addresses lead to others that are written
in them, to a provider's own services, or nowhere."""


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if getattr(address, "ipv4_mapped", None) is not None:  # not every Python looks into it
        return _is_public(str(address.ipv4_mapped))  # type: ignore[union-attr]
    if not address.is_global or address.is_multicast:
        return False
    return not any(address in network for network in _INSIDE)


__all__ = ["begin", "checked_url", "secret_of", "signed", "webhook"]
