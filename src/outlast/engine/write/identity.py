"""Names that nobody else has: ids of executions, of workers, and the nonces of leases."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_RANDOM_DIGITS: Final = 11
_RANDOM_BITS: Final = 5 * _RANDOM_DIGITS
_LOW_DIGITS: Final = 6
_LOW_BITS: Final = 5 * _LOW_DIGITS

_PAIRS: Final = [high + low for high in _ALPHABET for low in _ALPHABET]


_SHIFTS: Final = tuple(range(90, -10, -10))


def _base32(number: int) -> str:
    """Write a number of 100 bits in 20 digits, two at a time."""
    pairs = _PAIRS
    return "".join([pairs[number >> shift & 1023] for shift in _SHIFTS])


class _Dice:
    """Random bytes from the system, drawn in blocks: a draw of its own for each id is dear."""

    _BLOCK: Final = 4096

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Throw the block away: a forked child must not draw what its parent draws."""
        self._block, self._place = b"", 0

    def draw(self, count: int) -> bytes:
        with self._lock:
            if self._place + count > len(self._block):
                self._block, self._place = os.urandom(max(self._BLOCK, count)), 0
            self._place += count
            return self._block[self._place - count : self._place]


_dice: Final = _Dice()


class IdMaker:
    """Makes ids of executions: ``ex_``, the millisecond, then 55 random bits.

    They sort by the time they were made, so that new rows are added at the end of every index; in
    one process they rise strictly.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._head, self._prefix = -1, ""

    def make(self, now_us: int) -> str:
        """Make the next id."""
        drawn = int.from_bytes(_dice.draw(7), "big") >> (56 - _RANDOM_BITS)
        fresh = (now_us // 1000 << _RANDOM_BITS) | drawn
        with self._lock:
            if fresh <= self._last:
                fresh = self._last + 1 + (drawn & 0xFFFF)
            self._last = fresh
            head = fresh >> _LOW_BITS
            if head != self._head:  # one that follows closely mostly has the same
                self._head, self._prefix = head, "ex_" + _base32(fresh)[:-_LOW_DIGITS]
            prefix = self._prefix
        pairs = _PAIRS
        return prefix + pairs[fresh >> 20 & 1023] + pairs[fresh >> 10 & 1023] + pairs[fresh & 1023]

    def make_many(self, now_us: int, count: int) -> list[str]:
        """Make the next ids, each up to 65,536 after the one before."""
        ids = [self.make(now_us)]
        pairs = _PAIRS
        with self._lock:
            fresh, head, prefix = self._last, self._head, self._prefix
            for step in memoryview(_dice.draw(2 * (count - 1))).cast("H"):
                fresh += 1 + step
                if fresh >> _LOW_BITS != head:
                    head, prefix = fresh >> _LOW_BITS, "ex_" + _base32(fresh)[:-_LOW_DIGITS]
                ids.append(
                    prefix
                    + pairs[fresh >> 20 & 1023]
                    + pairs[fresh >> 10 & 1023]
                    + pairs[fresh & 1023]
                )
            self._last, self._head, self._prefix = fresh, head, prefix
        return ids


def first_id(now_us: int) -> str:
    """Give the id before all those that are made from this instant on."""
    return "ex_" + _base32(max(now_us, 0) // 1000 << _RANDOM_BITS)


def worker_name() -> str:
    """Make the name of this process's incarnation: host, pid, and a random part."""
    return f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"


def message_id() -> str:
    """Draw a name for a message."""
    return _dice.draw(8).hex()


def nonces(count: int) -> list[bytes]:
    """Draw 128-bit nonces for leases."""
    drawn = _dice.draw(16 * count)
    return [drawn[place : place + 16] for place in range(0, len(drawn), 16)]
