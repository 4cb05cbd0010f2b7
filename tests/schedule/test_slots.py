"""The slots of plans: cron's corners, turns of the clock, bounds, jitter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.errors import BadSchedule
from outlast.schedule import Schedule, fires_at, slots_after
from outlast.schedule.cron import is_time_of_day
from outlast.schedule.plan import Plan, plan_of, wall


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def cron(expression: str, tz: str = "UTC", **more: Any) -> Plan:
    return Schedule(cron=expression, tz=tz, **more).plan


def walls(plan: Plan, after: str, count: int) -> list[str]:
    """The next slots as their zone's clocks show them, with the offset in hours."""
    found = islice(slots_after(plan, us(after)), count)
    return [f"{wall(slot, plan.tz):%m-%d %H:%M %z}" for slot in found]


BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"

# Berlin: gap on 29 March 2026, 02:00 to 03:00; fold on 25 October 2026, 03:00 back to 02:00.
# New York: gap on 8 March 2026, fold on 1 November 2026, both at 02:00.
# Lord Howe: fold of 30 minutes on 5 April 2026, 02:00 back to 01:30; gap on 4 October at 02:00.
TURNS = [
    ("30 2 * * *", BERLIN, "2026-03-28T12:00", ["03-29 03:00 +0200", "03-30 02:30 +0200"]),
    ("0,30 2 * * *", BERLIN, "2026-03-28T12:00", ["03-29 03:00 +0200", "03-30 02:00 +0200"]),
    ("0 2,3 * * *", BERLIN, "2026-03-28T12:00", ["03-29 03:00 +0200", "03-30 02:00 +0200"]),
    ("30 2 * * *", BERLIN, "2026-10-24T12:00", ["10-25 02:30 +0200", "10-26 02:30 +0100"]),
    # After the first 02:30, in the hour that comes twice: the second is not taken.
    ("30 2 * * *", BERLIN, "2026-10-25T01:10", ["10-26 02:30 +0100"]),
    ("*/30 2 * * *", BERLIN, "2026-03-28T12:00", ["03-30 02:00 +0200", "03-30 02:30 +0200"]),
    (
        "*/30 2 * * *",
        BERLIN,
        "2026-10-24T12:00",
        ["10-25 02:00 +0200", "10-25 02:30 +0200", "10-25 02:00 +0100", "10-25 02:30 +0100"],
    ),
    (
        "0 * * * *",
        BERLIN,
        "2026-10-24T23:30",
        ["10-25 02:00 +0200", "10-25 02:00 +0100", "10-25 03:00 +0100"],
    ),
    ("0 * * * *", BERLIN, "2026-03-28T23:30", ["03-29 01:00 +0100", "03-29 03:00 +0200"]),
    ("30 2 * * *", NEW_YORK, "2026-03-07T12:00", ["03-08 03:00 -0400", "03-09 02:30 -0400"]),
    ("30 1 * * *", NEW_YORK, "2026-10-31T12:00", ["11-01 01:30 -0400", "11-02 01:30 -0500"]),
    ("15 2 * * *", LORD_HOWE, "2026-10-03T10:00", ["10-04 02:30 +1100", "10-05 02:15 +1100"]),
    ("45 1 * * *", LORD_HOWE, "2026-04-04T10:00", ["04-05 01:45 +1100", "04-06 01:45 +1030"]),
    (
        "45 * * * *",
        LORD_HOWE,
        "2026-04-04T14:00",
        ["04-05 01:45 +1100", "04-05 01:45 +1030", "04-05 02:45 +1030"],
    ),
    (
        "*/15 2 * * *",
        LORD_HOWE,
        "2026-10-03T10:00",
        ["10-04 02:30 +1100", "10-04 02:45 +1100", "10-05 02:00 +1100"],
    ),
    ("* 2 * * *", LORD_HOWE, "2026-04-04T15:01", ["04-05 02:00 +1030", "04-05 02:01 +1030"]),
    # Samoa had no 30 December 2011: what was due then is due at its end.
    ("0 7 30 12 *", "Pacific/Apia", "2011-12-01T00:00", ["12-31 00:00 +1400"]),
]


@pytest.mark.parametrize(("expression", "tz", "after", "expected"), TURNS)
def test_at_a_turn_of_the_clock(expression: str, tz: str, after: str, expected: list[str]) -> None:
    assert walls(cron(expression, tz), after, len(expected)) == expected


CORNERS = [
    ("0 7 * * 1-5", ["11-23 07:00", "11-24 07:00", "11-25 07:00", "11-26 07:00", "11-27 07:00"]),
    ("0 0 L * *", ["11-30 00:00", "12-31 00:00", "01-31 00:00", "02-28 00:00"]),
    ("0 0 LW * *", ["11-30 00:00", "12-31 00:00", "01-29 00:00", "02-26 00:00"]),
    ("0 0 * * 5L", ["11-27 00:00", "12-25 00:00", "01-29 00:00"]),
    ("0 0 * * MON#2", ["12-14 00:00", "01-11 00:00"]),
    ("0 0 29 2 *", ["02-29 00:00", "02-29 00:00"]),
    ("*/20 9-10 * DEC TUE", ["12-01 09:00", "12-01 09:20", "12-01 09:40", "12-01 10:00"]),
    ("5/20 0 * * 0,7", ["11-22 00:05", "11-22 00:25", "11-22 00:45", "11-29 00:05"]),
    ("0 0 13 * FRI", ["11-27 00:00", "12-04 00:00", "12-11 00:00", "12-13 00:00"]),
    ("0 0 */10 * MON", ["12-21 00:00", "01-11 00:00"]),
    ("@daily", ["11-22 00:00", "11-23 00:00"]),
    ("@Weekly", ["11-22 00:00", "11-29 00:00"]),
    ("@hourly", ["11-21 13:00"]),
    ("@yearly", ["01-01 00:00"]),
]


@pytest.mark.parametrize(("expression", "expected"), CORNERS)
def test_the_corners_of_cron(expression: str, expected: list[str]) -> None:
    found = walls(cron(expression), "2026-11-21T12:30", len(expected))
    assert [one.removesuffix(" +0000") for one in found] == expected


def test_a_field_before_the_minutes_is_seconds() -> None:
    slots = list(islice(slots_after(cron("15,45 0 7 * * *"), us("2026-11-21T06:00")), 3))
    assert [slot - us("2026-11-21T07:00") for slot in slots] == [
        15_000_000,
        45_000_000,
        86_415_000_000,
    ]


HOSTILE: list[dict[str, Any]] = [
    {},
    {"every": "5m", "cron": "* * * * *"},
    {"every": 0},
    {"every": "999ms"},
    {"every": -5},
    {"every": True},
    {"every": float("nan")},
    {"every": float("inf")},
    {"every": 10**30},
    {"every": "soon"},
    {"every": [1]},
    {"cron": ""},
    {"cron": 7},
    {"cron": "* * * *"},
    {"cron": "60 * * * *"},
    {"cron": "0 0 30 2 *"},
    {"cron": "0 0 31 2,4,6 *"},
    {"cron": "0 0 29 2 MON#5 *"},
    {"cron": "5L/2 * * * *"},
    {"cron": "* * * * 5L/2"},
    {"cron": "* * * * 1,5L-2"},
    {"cron": "* * L/0 * *"},
    {"cron": "*/0 * * * *"},
    {"cron": "²L * * * *"},
    {"cron": "\ud800 * * * *"},
    {"cron": "1," * 100_000 + "1 * * * *"},
    {"cron": "*/" + "9" * 450 + "- * * * *"},
    {"cron": "@reboot"},
    {"cron": "* * * * *", "tz": "Mars/Olympus"},
    {"cron": "* * * * *", "tz": "../../../etc/passwd"},
    {"cron": "* * * * *", "tz": ""},
    {"cron": "* * * * *", "tz": "a" * 100_000},
    {"cron": "* * * * *", "tz": "\0"},
    {"cron": "* * * * *", "tz": 5},
    {"cron": "* * * * *", "tz": ["UTC"]},
    {"cron": "* * * * *", "overlap": ["skip"]},
    {"cron": "* * * * *", "jitter": "2d"},
    {"cron": "* * * * *", "count": 0},
    {"cron": "* * * * *", "count": 10**40},
    {"cron": "* * * * *", "count": 1.5},
    {"cron": "* * * * *", "count": True},
    {"cron": "* * * * *", "overlap": "maybe"},
    {"cron": "* * * * *", "misfire": None},
    {"cron": "* * * * *", "misfire_max": 0},
    {"cron": "* * * * *", "misfire_max": 1_001},
    {"cron": "* * * * *", "start": datetime(2026, 1, 1)},  # noqa: DTZ001 - it is what is refused
    {"cron": "* * * * *", "start": "2026-01-01"},
    {"cron": "* * * * *", "start": datetime(1960, 1, 1, tzinfo=UTC)},
    {
        "cron": "* * * * *",
        "start": datetime(2026, 1, 2, tzinfo=UTC),
        "end": datetime(2026, 1, 1, tzinfo=UTC),
    },
    {"at": 5},
]


@pytest.mark.parametrize("parts", HOSTILE, ids=lambda parts: repr(parts)[:60])
def test_what_is_no_schedule_is_refused(parts: dict[str, Any]) -> None:
    with pytest.raises(BadSchedule) as caught:
        Schedule(**parts)
    assert len(str(caught.value)) < 2_000


ZONES = ["UTC", BERLIN, NEW_YORK, LORD_HOWE, "Pacific/Apia", "Africa/Casablanca", "Asia/Kolkata"]
EXPRESSIONS = [
    "*/7 * * * *",
    "30 2 * * *",
    "0 */3 * * *",
    "15 1,2,3 * * *",
    "59 23 L * *",
    "*/10 30 2 * * *",
    "0 0 1 1 *",
]


@settings(max_examples=150, deadline=None)
@given(
    expression=st.sampled_from(EXPRESSIONS),
    tz=st.sampled_from(ZONES),
    after=st.integers(us("2010-01-01T00:00") // 1_000_000, us("2037-01-01T00:00") // 1_000_000),
)
def test_slots_increase_match_and_are_the_same_from_everywhere(
    expression: str, tz: str, after: int
) -> None:
    plan = cron(expression, tz)
    slots = list(islice(slots_after(plan, after * 1_000_000), 30))
    assert all(one < other for one, other in pairwise(slots)) and slots[0] > after * 1_000_000
    for place in (0, 7, 28):  # from behind any slot, the rest is the same
        assert list(islice(slots_after(plan, slots[place]), 29 - place)) == slots[place + 1 :]
        assert next(slots_after(plan, slots[place] - 1)) == slots[place]


@settings(max_examples=60, deadline=None)
@given(
    tz=st.sampled_from(ZONES),
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    day=st.integers(0, 366 * 12),
)
def test_a_time_of_day_comes_once_a_day_in_every_zone(
    tz: str, minute: int, hour: int, day: int
) -> None:
    """Against the zone database, day by day: at that time, or at the end of the gap it falls in."""
    plan = cron(f"{minute} {hour} * * *", tz)
    zone = ZoneInfo(tz)
    first = datetime(2011, 12, 20) + timedelta(days=day)  # noqa: DTZ001 - wall times
    expected = []
    for number in range(20):
        local = (first + timedelta(days=number)).replace(hour=hour, minute=minute)
        at = local.replace(tzinfo=zone).timestamp()
        back = datetime.fromtimestamp(at, zone).replace(tzinfo=None)
        if back != local:  # in a gap: fold=0 reads it by the old offset, so what follows is new
            at = _end_of_gap(zone, round(at))
        expected.append(round(at) * 1_000_000)
    expected = sorted(set(expected))
    begin = expected[0] - 1
    assert list(islice(slots_after(plan, begin), len(expected))) == expected


def _end_of_gap(zone: ZoneInfo, at: int) -> int:
    offset = datetime.fromtimestamp(at, zone).utcoffset()
    while datetime.fromtimestamp(at - 60, zone).utcoffset() == offset:
        at -= 60
    return at


@settings(max_examples=60, deadline=None)
@given(tz=st.sampled_from(ZONES), after=st.integers(1_300_000_000, 2_000_000_000))
def test_a_rhythm_is_every_minute_whose_clock_shows_it(tz: str, after: int) -> None:
    plan = cron("*/15 1-3 * * *", tz)
    zone = ZoneInfo(tz)
    expected = []
    for at in range(after // 60 * 60 + 60, after + 3 * 86_400, 60):
        local = datetime.fromtimestamp(at, zone)
        if local.minute % 15 == 0 and 1 <= local.hour <= 3 and local.second == 0:
            expected.append(at * 1_000_000)
    assert list(islice(slots_after(plan, after * 1_000_000), len(expected))) == expected


def test_what_is_a_time_of_day() -> None:
    assert is_time_of_day("30 2 * * *") and is_time_of_day("* 30 2 * * *")
    assert not is_time_of_day("*/5 2 * * *") and not is_time_of_day("0 */2 * * *")


@given(
    anchor=st.integers(0, 10**15),
    every=st.integers(1_000_000, 10**12),
    after=st.integers(0, 2 * 10**15),
)
def test_every_never_drifts(anchor: int, every: int, after: int) -> None:
    plan = Plan(every_us=every, anchor_at=anchor)
    first, second = islice(slots_after(plan, after), 2)
    assert (first - anchor) % every == 0 and second - first == every
    assert first > after and (first == anchor or first - every <= after)


def test_bounds_are_included() -> None:
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
    plan = cron("0 0 * * *", start=start, end=end)
    assert [wall(slot, "UTC").day for slot in slots_after(plan, 0)] == [1, 2, 3]
    assert list(slots_after(plan, us("2026-01-03T00:00"))) == []


def test_slots_end_with_the_calendar() -> None:
    assert list(slots_after(cron("0 0 1 1 *"), us("9999-01-02T00:00"))) == []
    assert list(slots_after(cron("0 0 29 2 *"), us("9997-01-02T00:00"))) == []


@given(st.text(max_size=20), st.integers(0, 10**16), st.integers(1, 86_400_000_000))
def test_jitter_is_a_function_of_schedule_and_slot(name: str, slot: int, jitter: int) -> None:
    plan = Plan(every_us=1_000_000, jitter_us=jitter)
    assert slot <= fires_at(name, plan, slot) <= slot + jitter
    assert fires_at(name, plan, slot) == fires_at(name, plan, slot)
    assert fires_at(name, Plan(every_us=1_000_000), slot) == slot


def test_jitter_spreads() -> None:
    plan = Plan(every_us=1_000_000, jitter_us=60_000_000)
    drawn = {fires_at("nightly", plan, slot) - slot for slot in range(0, 10**9, 10**6)}
    assert len(drawn) > 950 and min(drawn) < 2_000_000 and max(drawn) > 58_000_000


def test_a_plan_survives_the_store() -> None:
    plan = cron("0 7 * * 1-5", BERLIN, jitter="2m", count=5, overlap="queue", misfire="all")
    assert plan_of(plan.as_data()) == plan
    assert plan.in_words() == "at 07:00 on Monday through Friday (Europe/Berlin)"
    assert Schedule(every="90m").plan.in_words() == "every 1h 30m"
    assert "once, at 2026-01-01" in repr(Schedule(at=datetime(2026, 1, 1, tzinfo=UTC)))


def test_zones_are_there_without_a_system_database() -> None:
    """As on a bare container: the package tzdata stands in."""
    import subprocess
    import sys

    code = "from outlast import Schedule\nprint(Schedule(cron='0 7 * * *', tz='Europe/Berlin'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONTZPATH": "", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "<Schedule at 07:00 every day (Europe/Berlin)>\n"
