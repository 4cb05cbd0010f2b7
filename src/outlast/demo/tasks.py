"""The demo's task: one step a time zone, a question, a report.

The zones are those of the ``tzdata`` package, read from its own files, whatever the machine has.
Each step's body first adds a line to a ledger outside of Outlast and has it on the disk before it
goes on: that is what shows, after a ``kill -9``, which bodies have run how often.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from outlast import ask, now, step, task, this_step

AHEAD: Final = timedelta(days=400)
AT_ONCE: Final = 16
LEDGER: Final = "ledger.jsonl"
REPORT: Final = "report.md"


@dataclass
class Change:
    """The next time at which the clocks of a zone change.

    Attributes:
        zone: as in ``Europe/Berlin``.
        at: when, or None if it does not for the next 400 days.
        before: seconds ahead of UTC until then.
        after: seconds ahead of UTC from then on.
    """

    zone: str
    at: datetime | None
    before: int
    after: int


@step
def list_zones(directory: str) -> list[str]:
    """Name all the zones of the package."""
    note_in_ledger(directory)
    text = files("tzdata").joinpath("zones").read_text(encoding="utf-8")
    return sorted(text.split())


@step
def next_change(directory: str, zone: str, since: datetime) -> Change:
    """Find the next clock change of a zone: day by day, then by halving."""
    note_in_ledger(directory)
    resource = files("tzdata.zoneinfo").joinpath(*zone.split("/"))
    with resource.open("rb") as file:
        rules = ZoneInfo.from_file(file, key=zone)
    before = _offset(rules, since)
    early = since
    while early < since + AHEAD:
        late = early + timedelta(days=1)
        if _offset(rules, late) != before:
            while late - early > timedelta(seconds=1):
                middle = early + (late - early) / 2
                early, late = (
                    (middle, late) if _offset(rules, middle) == before else (early, middle)
                )
            at = late.replace(microsecond=0)
            return Change(zone, at, before, _offset(rules, late))
        early = late
    return Change(zone, None, before, before)


@step
def write_report(directory: str, since: datetime, changes: list[Change]) -> str:
    """Write the report, whole or not at all; gives its path."""
    note_in_ledger(directory)
    path = Path(directory) / REPORT
    draft = path.with_suffix(".draft")
    draft.write_text(report_on(since, changes), encoding="utf-8")
    draft.replace(path)
    return str(path)


@task
async def clock_changes(directory: str) -> str:
    """Find the next clock change of every zone, ask whether to publish, and write a report."""
    since = now().replace(microsecond=0)
    zones = await list_zones.aio(directory)
    gate = asyncio.Semaphore(AT_ONCE)

    async def look_up(zone: str) -> Change:
        async with gate:
            return await next_change.key(zone).aio(directory, zone, since)

    changes = await asyncio.gather(*map(look_up, zones))
    moving = sum(change.at is not None for change in changes)
    if not await ask(
        f"Publish the report on {len(zones)} zones, {moving} of which change their clocks?"
    ):
        return "not published"
    return await write_report.aio(directory, since, changes)


def note_in_ledger(directory: str) -> None:
    """Note durably, outside of Outlast, that the body of this step has begun."""
    about = this_step()
    line = json.dumps({"step": about.key, "attempt": about.attempt, "pid": os.getpid()}) + "\n"
    file = os.open(Path(directory) / LEDGER, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(file, line.encode())
        os.fsync(file)
    finally:
        os.close(file)


def report_on(since: datetime, changes: list[Change]) -> str:
    """Write the report."""
    moving = [change for change in changes if change.at is not None]
    together = Counter((change.at, change.after - change.before) for change in moving)
    head = f"As of {since:%Y-%m-%d %H:%M} UTC, {len(moving)} of {len(changes)} zones"
    lines = [
        "# The next clock changes of the world",
        "",
        f"{head} change their clocks within {AHEAD.days} days.",
        "",
        "| when (UTC) | shift | zones | for instance |",
        "|---|---|---|---|",
    ]
    for (at, shift), count in sorted(together.items(), key=lambda item: str(item[0])):
        example = next(c.zone for c in moving if (c.at, c.after - c.before) == (at, shift))
        lines.append(f"| {at:%Y-%m-%d %H:%M} | {_shift_said(shift)} | {count} | {example} |")
    lines += ["", "## Zone by zone", ""]
    lines += [f"- {change.zone}: {_said(change)}" for change in changes]
    return "\n".join(lines) + "\n"


def _said(change: Change) -> str:
    if change.at is None:
        return f"stays at {_offset_said(change.before)}"
    offsets = f"from {_offset_said(change.before)} to {_offset_said(change.after)}"
    return f"{change.at:%Y-%m-%d %H:%M:%S} UTC, {offsets}"


def _offset(rules: ZoneInfo, at: datetime) -> int:
    offset = at.astimezone(UTC).astimezone(rules).utcoffset()
    assert offset is not None
    return round(offset.total_seconds())


def _offset_said(seconds: int) -> str:
    sign = "-" if seconds < 0 else "+"
    hours, rest = divmod(abs(seconds), 3600)
    return f"UTC{sign}{hours:02}:{rest // 60:02}"


def _shift_said(seconds: int) -> str:
    hours = seconds / 3600
    return f"{hours:+g} h"
