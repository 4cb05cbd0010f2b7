"""The commands about schedules."""

from __future__ import annotations

import json
import re

import pytest

from .conftest import Terminal


def made(terminal: Terminal, name: str = "nightly", *more: str) -> None:
    words = more or ("--cron", "0 7 * * 1-5", "--tz", "Europe/Berlin")
    done = terminal.run("schedule", "create", name, "tasks.py:hello", "Ada", *words)
    assert done.code == 0, done.err


def test_from_making_to_cancelling(terminal: Terminal) -> None:
    made(terminal)
    made(terminal)  # the same again
    listed = terminal.here("schedule", "ls").out
    assert "nightly  hello" in listed and "at 07:00 on Monday through Friday" in listed
    shown = terminal.here("schedule", "show", "nightly").out
    assert "cron     0 7 * * 1-5  (Europe/Berlin)" in shown
    assert re.search(r"next +\w{3} \d{4}-\d\d-\d\d 07:00:00 \+0[12]00 .* here", shown)
    assert "made by " in shown
    lines = terminal.here("schedule", "next", "nightly", "-n", "7").out.splitlines()
    assert len(lines) == 7 and all(" 07:00:00 +0" in line for line in lines)

    assert "paused" in terminal.here("schedule", "pause", "nightly", "--why", "holidays").out
    assert ": holidays" in terminal.here("schedule", "show", "nightly").out
    again = terminal.here("schedule", "pause", "nightly")
    assert again.code == 5 and "schedule_refused" in again.err and "already" in again.err
    assert "active" in terminal.here("schedule", "resume", "nightly").out
    id = terminal.here("schedule", "trigger", "nightly", "-o", "ids").out.strip()
    (found,) = json.loads(terminal.here("ls", "-o", "json").out)["items"]
    assert (found["id"], found["origin"]) == (id, "schedule:nightly")
    shown = terminal.here("show", id).out
    assert '"Ada"' in shown and "schedule nightly" in shown
    assert terminal.here("ls", "--schedule", "nightly", "-o", "ids").out.split() == [id]
    assert terminal.here("ls", "--schedule", "other", "-o", "ids").out == ""

    past = terminal.here("schedule", "backfill", "nightly", "2026-03-02", "2026-03-06T07:00")
    assert len(past.out.split()) == 5 and "5 slots backfilled" in past.err
    none = terminal.here("schedule", "backfill", "nightly", "2026-03-02", "2026-03-06T07:00")
    assert none.out == ""
    why = terminal.here("schedule", "why", "nightly", "2026-03-03T07:00").out
    assert why.startswith("slot 2026-03-03 07:00:00+0100 backfilled by ")
    why = terminal.here("schedule", "why", "nightly", "2026-03-03T06:00+00:00", "-o", "json")
    assert "backfilled" in json.loads(why.out)["fate"]
    assert "is no slot of" in terminal.here("schedule", "why", "nightly", "2026-03-01").out

    assert "cancelled" in terminal.here("schedule", "cancel", "nightly").out
    assert terminal.here("schedule", "next", "nightly").err == "there is no further slot\n"
    assert terminal.here("schedule", "ls", "--state", "active").out == ""
    assert terminal.here("schedule", "ls", "-o", "ids").out == "nightly\n"
    assert terminal.here("db", "verify").code == 0


def test_plans_of_all_kinds(terminal: Terminal) -> None:
    made(terminal, "often", "--every", "5m", "--jitter", "30s", "--count", "3")
    made(terminal, "once", "--at", "2999-01-01T12:00", "--tz", "Asia/Tokyo")
    bounds = ("--begin", "2998-01-01", "--end", "2999-01-01", "--grace", "1m")
    made(terminal, "later", "--cron", "@daily", *bounds, "--misfire", "all", "--overlap", "queue")
    items = json.loads(terminal.here("schedule", "ls", "-o", "json").out)["items"]
    later, often, once = (one["plan"] for one in items)
    assert (often["every_us"], often["jitter_us"], often["count_max"]) == (
        300_000_000,
        30_000_000,
        3,
    )
    assert once["at"] == 32_472_154_800_000_000 and later["cron"] == "0 0 * * *"
    shown = terminal.here("schedule", "show", "later").out
    assert "overlap queue · misfire all · at most 100 · from " in shown
    shown = json.loads(terminal.here("schedule", "show", "often", "-o", "json").out)
    assert len(shown["next"]) == 3 and shown["log"][0]["kind"] == "create"
    words = ("schedule", "update", "often", "tasks.py:hello", "--every", "10m", "--", "Bob")
    assert terminal.run(*words).code == 0
    shown = json.loads(terminal.here("schedule", "show", "often", "-o", "json").out)
    assert (shown["plan"]["every_us"], shown["input"]) == (
        600_000_000,
        {"name": "Bob", "loud": False},
    )


def test_a_worker_takes_up_what_is_made_beside_it(terminal: Terminal) -> None:
    terminal.worker()
    made(terminal, "soon", "--every", "1s", "--count", "1")
    with terminal.guest() as guest:
        from .conftest import until

        record = until(lambda: (row := guest.book.get("soon")).state == "exhausted" and row)
        id = record.last_execution_id
    assert terminal.run("watch", id).out.splitlines()[-1] == '"Hello, Ada!"'


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("create", "x", "tasks.py:hello", "--every", "5m"), 2, "wrong_arguments"),
        (("create", "x", "tasks.py:hello", "Ada"), 2, "bad_schedule"),
        (("create", "x", "tasks.py:hello", "Ada", "--cron", "61 * * * *"), 2, "bad_schedule"),
        (("create", "x", "tasks.py:hello", "Ada", "--cron", "@daily", "--tz", "x"), 2, "bad_sched"),
        (("create", "x", "tasks.py:hello", "Ada", "--at", "soon"), 2, "is no time"),
        (("create", "x", "tasks.py:hello", "Ada", "--every", "5m", "--overlap", "y"), 2, "skip, q"),
        (("create", "", "tasks.py:hello", "Ada", "--every", "5m"), 2, "is empty"),
        (("create", "x", "tasks.py:none", "--every", "5m"), 2, "unknown_task"),
        (("show", "none"), 4, "no schedule none"),
        (("pause", "none"), 4, "no schedule none"),
        (("trigger", "a\nb"), 2, "cannot name"),
        (("next", "nightly", "-n", "0"), 2, "usage"),
        (("backfill", "nightly", "2026-03-02", "2026-03-01"), 2, "before its beginning"),
        (("backfill", "often", "2020-01-01", "2026-01-01"), 5, "more slots than one call"),
        (("ls", "--state", "happy"), 2, "no state"),
        (("why", "nightly", "0000-00-00"), 2, "is no time"),
    ],
)
def test_what_is_wrong_is_said(
    terminal: Terminal, words: tuple[str, ...], code: int, said: str
) -> None:
    terminal.here("db", "init")
    if "nightly" in words:
        made(terminal)
    if "often" in words:
        made(terminal, "often", "--cron", "* * * * *")
    done = (terminal.run if "create" in words else terminal.here)("schedule", *words)
    assert (done.code, said in done.err) == (code, True), done.err
    assert "Traceback" not in done.err
