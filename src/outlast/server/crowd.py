"""Who comes in crowds: where a request comes from, and what is done for strangers at once.

To look at a password takes time and memory on purpose. It is done on a few threads of its own, so
neither the engine nor its journal waits for it; who would have to wait long is sent away, and no
source may fill the line, or go on guessing faster than people type. What is counted here is this
process's; failures under a name are counted by the store (:meth:`outlast.accounts.Desk.attempt`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final, TypeVar

from outlast.errors import Overloaded, TooManyAttempts

T = TypeVar("T")
AT_ONCE: Final = 4
"""Passwords that are looked at at once: each takes 64 MiB on purpose."""
LINE_MAX: Final = 32
"""Those that are looked at, or wait for it."""
EACH_MAX: Final = 8
"""Of them, those of one source."""
BURST: Final = 30.0
PER_SECOND: Final = 0.5
"""Sign-ins of one source, whatever the names: so many at once, then so many a second."""
SOURCES_MAX: Final = 10_000
_hashers: Final = ThreadPoolExecutor(AT_ONCE, "outlast-password")
_lock: Final = threading.Lock()
_line: Final[Counter[str]] = Counter()
_left: Final[dict[str, tuple[float, float]]] = {}


def source_of(scope: MutableMapping[str, Any], headers: Mapping[str, str]) -> str:
    """Say where a request comes from: an address, or the network of one of the sixth version.

    Behind proxies that ``OUTLAST_PROXIES`` names, it is the last address that they have seen and
    that is none of theirs; what others say of themselves is not believed.
    """
    client = scope.get("client")
    source = str(client[0]) if client else ""
    proxies = os.environ.get("OUTLAST_PROXIES")
    if proxies:
        known = {one.strip() for one in proxies.split(",")}
        seen = [one.strip() for one in headers.get("x-forwarded-for", "").split(",")]
        while source in known and seen:
            source = seen.pop()
    return _named(source)


@lru_cache(4_096)
def _named(source: str) -> str:
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source[:45]
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def let_in(source: str) -> None:
    """Count a sign-in from somewhere.

    Raises:
        TooManyAttempts: there were too many from there.
    """
    now = time.monotonic()
    with _lock:
        left, at = _left.pop(source, (BURST, now))
        left = min(BURST, left + (now - at) * PER_SECOND)
        if len(_left) >= SOURCES_MAX:
            del _left[next(iter(_left))]  # who has not come for the longest time
        _left[source] = (left - 1 if left >= 1 else left), now
    if left < 1:
        raise TooManyAttempts(
            "too many sign-ins come from there",
            retry_after_seconds=2,
            do="wait 2 s",
        )


async def hashed(look: Callable[[], T], source: str) -> T:
    """Look at a password, or make one into what is stored, on a thread of its own.

    Raises:
        Overloaded: too many wait for that, or too many of this source; nothing was done.
    """
    with _lock:
        if _line.total() >= LINE_MAX or _line[source] >= EACH_MAX:
            raise Overloaded(
                "too many passwords are looked at", where="server", retry_after_seconds=2
            )
        _line[source] += 1

    def leave(_: object) -> None:
        with _lock:
            _line[source] -= 1
            if not _line[source]:
                del _line[source]

    # Who goes away stays counted until the thread is done with it.
    future = _hashers.submit(look)
    future.add_done_callback(leave)
    return await asyncio.wrap_future(future)


__all__ = ["hashed", "let_in", "source_of"]
