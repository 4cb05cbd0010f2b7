"""Requests to URLs outside: signed, to nobody that they should not reach, and never for ever.

They are signed as Standard Webhooks do it (``webhook-id``, ``webhook-timestamp``,
``webhook-signature``). They follow no redirects, speak TLS, and call no address that is not public,
unless ``OUTLAST_WEBHOOK_HOSTS`` names the host: the address that was looked at is the one that is
connected to.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import os
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from outlast.errors import Fatal, UsageError

TIMEOUT_SECONDS: Final = 15.0
"""How long a receiver may be silent."""
DEADLINE_SECONDS: Final = 30.0
"""How long a request may take in all, however often a byte comes."""
CONNECT_SECONDS: Final = 5.0
ADDRESSES_MAX: Final = 3
URL_LENGTH_MAX: Final = 2_000
SENDERS: Final = ThreadPoolExecutor(8, "outlast-webhook")
"""Threads of their own: receivers that answer slowly keep each other waiting, and no sign-in."""


def secret_of(root: bytes, name: str) -> str:
    """Make a secret of the store's own one, as receivers are told it."""
    return "whsec_" + base64.b64encode(hmac.digest(root, name.encode(), hashlib.sha256)).decode()


def signed(id: str, body: bytes, *by: str, at: int | None = None) -> dict[str, str]:
    """Give the headers that say who sends a body: a signature for each secret."""
    at = int(time.time()) if at is None else at
    content = f"{id}.{at}.".encode() + body
    marks = (hmac.digest(_key(secret), content, hashlib.sha256) for secret in by)
    return {
        "content-type": "application/json",
        "user-agent": "outlast",
        "webhook-id": id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join("v1," + base64.b64encode(one).decode() for one in marks),
    }


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"))


def checked_url(url: str) -> str:
    """Give a URL back, having seen that it can be called.

    Raises:
        UsageError: it is none, without TLS, or has a password.
    """
    try:
        _parts(url)
    except ValueError as error:
        raise UsageError(f"this URL cannot be called: {error}", where=_home_of(url)) from None
    return url


def _home_of(url: str) -> str:
    """Give what may be shown of a URL: where it leads, without its path, which may be secret."""
    try:
        parts = urlsplit(url)
        return ascii(f"{parts.scheme}://{parts.hostname or ''}"[:200])
    except ValueError:
        return ""


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


__all__ = ["SENDERS", "checked_url", "secret_of", "send", "signed"]
