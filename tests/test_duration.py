"""Durations as people write them, and what is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from outlast.duration import in_words, instant, microseconds, microseconds_of
from outlast.errors import UsageError


@pytest.mark.parametrize(
    ("written", "us"),
    [
        ("5s", 5_000_000),
        ("1h30m", 5_400_000_000),
        (" 2 D ", 172_800_000_000),
        ("1.5ms", 1_500),
        ("7us", 7),
        ("1w", 604_800_000_000),
        (3, 3_000_000),
        (0.25, 250_000),
        (0, 0),
        (timedelta(minutes=1), 60_000_000),
    ],
)
def test_durations(written: Any, us: int) -> None:
    assert microseconds(written) == us


@pytest.mark.parametrize(
    "written",
    [
        *("", "soon", "5", "5 s 3", "-5s", "9" * 400 + "d", "1001w" + "9" * 20 + "d"),
        *(-1, float("inf"), float("nan"), 10**30, timedelta.max),
    ],
)
def test_what_is_no_duration(written: Any) -> None:
    with pytest.raises(UsageError) as caught:
        microseconds(written)
    assert len(str(caught.value)) < 500


def test_instants_come_back() -> None:
    at = datetime(2026, 3, 29, 1, 30, 0, 7, UTC)
    assert instant(microseconds_of(at)) == at
    with pytest.raises(UsageError):
        microseconds_of(at.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("us", "words"), [(5_000, "5ms"), (1_500_000, "1.5s"), (3_600_000_000, "1h"), (90e6, "1m 30s")]
)
def test_in_words(us: float, words: str) -> None:
    assert in_words(int(us)) == words
