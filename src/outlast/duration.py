"""Durations as people write them: "5s", "1h30m", a timedelta, or a number of seconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Final

from outlast.errors import UsageError

Duration = str | float | int | timedelta
"""What every public parameter that is a duration takes; a bare number is in seconds."""

LONGEST_US: Final = 1_000 * 366 * 86_400_000_000
"""A thousand years: what is due later than the year 9999 could not be shown as a date."""
_UNITS: Final = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d|w)")


def microseconds(duration: Duration) -> int:
    """Give a duration in microseconds.

    Raises:
        UsageError: it is negative, or cannot be read.
    """
    if isinstance(duration, timedelta):
        total = round(duration.total_seconds() * 1_000_000)
    elif isinstance(duration, str):
        text = duration.strip().lower()
        if not text or _PART.sub("", text).strip():
            raise UsageError(
                f'"{duration}" is no duration', do='write it as "500ms", "5s", "1h30m" or "2d"'
            )
        spans = [float(number) * _UNITS[unit] for number, unit in _PART.findall(text)]
        total = _rounded(sum(spans), duration)
    else:
        total = _rounded(duration * 1_000_000, duration)
    if total < 0:
        raise UsageError(f"a duration cannot be negative: {duration}")
    if total > LONGEST_US:
        raise UsageError(f"{str(duration)[:80]} is longer than 1,000 years")
    return total


def _rounded(span_us: float, duration: Duration) -> int:
    if not isfinite(span_us):
        raise UsageError(f"{str(duration)[:80]} is no duration that ends")
    return round(span_us)


def in_words(span_us: int) -> str:
    """Write a span for people: at most two units, the larger first."""
    seconds = abs(span_us) // 1_000_000
    if seconds < 1:
        return f"{abs(span_us) // 1000}ms"
    if seconds < 60:
        return f"{abs(span_us) / 1_000_000:.1f}s".replace(".0s", "s")
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count or parts:
            parts.append(f"{count}{unit}")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if not part.startswith("0"))


def instant(at_us: int) -> datetime:
    """Turn an instant of the log into an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=at_us)


def microseconds_of(at: datetime) -> int:
    """Turn an aware datetime into an instant of the log.

    Raises:
        UsageError: it has no time zone.
    """
    if at.tzinfo is None:
        raise UsageError(f"{at} has no time zone", do="use datetime.now(UTC), or .astimezone()")
    span = at - _EPOCH
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds
