"""Retry arithmetic: how often, after how long, and for which errors. Pure: dice are arguments.

The delay before retry *n* (from 1) is ``base · factor^(n-1)``, never above ``cap``; jitter *j*
(0 to 1) takes away up to that share of it, by a roll in [0, 1) that the caller brings: with
``jitter=1`` this is the "full jitter" of Brooker, "Exponential Backoff and Jitter" (AWS, 2015).
"""

from __future__ import annotations

import math

from msgspec import Struct


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """How a task or a step is tried again.

    Attributes:
        retries: how many times it is tried again after the first attempt; 0 is never.
        base_us: the delay before the first retry, in microseconds.
        factor: what each further delay is multiplied by; 1 is a fixed delay.
        cap_us: the longest delay, in microseconds.
        jitter: the share of the delay that is random, from 0 to 1.
        give_up_on: errors that end it at once, as exception classes.
        only_on: if set, the only errors that are tried again.
    """

    retries: int = 0
    base_us: int = 1_000_000
    factor: float = 2.0
    cap_us: int = 300_000_000
    jitter: float = 0.5
    give_up_on: tuple[type[BaseException], ...] = ()
    only_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if self.retries < 0 or self.base_us < 0 or self.cap_us < 0:
            raise ValueError("retries and delays cannot be negative")
        if not 1 <= self.factor < math.inf or not 0 <= self.jitter <= 1:
            raise ValueError("factor is at least 1 and finite, jitter lies between 0 and 1")

    def allows(self, failures: int, error: BaseException) -> bool:
        """Tell whether an attempt may follow after ``failures`` counted ones and this error."""
        if failures >= self.retries or isinstance(error, self.give_up_on):
            return False
        return not self.only_on or isinstance(error, self.only_on)

    def delay_us(self, retry: int, roll: float, *, at_least_us: int = 0) -> int:
        """Give the delay before retry number ``retry`` (from 1), in microseconds.

        Args:
            retry: which retry it is, from 1.
            roll: a random number in [0, 1).
            at_least_us: what the error itself asked for (``RetryAfter``).
        """
        try:
            full = min(self.base_us * self.factor ** (retry - 1), self.cap_us)
        except OverflowError:  # no float is that large: it is far beyond any cap
            full = self.cap_us if self.base_us else 0
        return max(round(full * (1 - self.jitter * roll)), at_least_us)


NO_RETRY = RetryPolicy()
