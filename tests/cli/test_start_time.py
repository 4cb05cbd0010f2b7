"""``outlast start``: when it may begin, and by when it must have."""

from __future__ import annotations

import pytest

from .conftest import Terminal


@pytest.mark.parametrize("at", ["2999-01-31T08:00+01:00", "2999-01-31T07:00:00Z"])
def test_an_execution_waits_for_its_time_and_says_so(terminal: Terminal, at: str) -> None:
    started = terminal.run("start", "tasks.py:hello", "Ada", "--at", at, "-o", "json")
    assert started.json["state"] == "scheduled"
    why = terminal.here("why", "last")
    assert "its start time lies ahead: 2999-01-31 07:00:00 UTC" in why.out


def test_a_time_that_has_passed_means_now(terminal: Terminal) -> None:
    started = terminal.run("start", "tasks.py:hello", "Ada", "--at", "1999-01-31T08:00Z")
    assert started.out.rstrip().endswith("queued")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--at", "2999-01-31T08:00"], "has no time zone"),
        (["--at", "soon"], "is no date and time"),
        (["--at", "2999-01-31T08:00Z", "--delay", "1h"], "say the same thing"),
    ],
)
def test_what_is_no_instant_is_refused(terminal: Terminal, words: list[str], said: str) -> None:
    done = terminal.run("start", "tasks.py:hello", "Ada", *words)
    assert done.code == 2 and said in done.err


def test_timeouts_are_taken(terminal: Terminal) -> None:
    words = ["--queue-timeout", "1h", "--attempt-timeout", "2h", "--deadline", "3h"]
    terminal.run("start", "tasks.py:hello", "Ada", *words)
    (row,) = terminal.here("events", "last", "-o", "json").lines
    data = row["data"]
    assert data["attempt_timeout_us"] == 7_200_000_000
    assert data["deadline_at"] - data["start_by"] == 7_200_000_000
