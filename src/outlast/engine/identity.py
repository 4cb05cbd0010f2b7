"""Names that nobody else has: ids of executions, of workers, and the nonces of leases."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_TIME_DIGITS: Final = 9
_RANDOM_DIGITS: Final = 11
_RANDOM_BITS: Final = 5 * _RANDOM_DIGITS


def _base32(number: int, digits: int) -> str:
    text = []
    for _ in range(digits):
        number, rest = divmod(number, 32)
        text.append(_ALPHABET[rest])
    return "".join(reversed(text))


class IdMaker:
    """Makes ids of executions: ``ex_``, the millisecond, then 55 random bits.

    They sort by the time they were made, so that new rows are added at the end of every index; in
    one process they rise strictly.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def make(self, now_us: int) -> str:
        """Make the next id."""
        fresh = (now_us // 1000 << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
        with self._lock:
            if fresh <= self._last:
                fresh = self._last + 1 + secrets.randbits(16)
            self._last = fresh
        return "ex_" + _base32(fresh, _TIME_DIGITS + _RANDOM_DIGITS)


def worker_name() -> str:
    """Make the name of this process's incarnation: host, pid, and a random part."""
    return f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"


def nonces(count: int) -> list[bytes]:
    """Draw 128-bit nonces for leases."""
    drawn = os.urandom(16 * count)
    return [drawn[place : place + 16] for place in range(0, 16 * count, 16)]
