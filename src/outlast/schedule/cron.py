"""The instants of a cron expression in a time zone.

Theory of operation. The library walks plain wall-clock times; it is never told of the zone. Between
two turns of a zone's clock, wall time and real time differ by a constant, so the walk is exact
there. At a turn (found by bisection, so that shifts of any size and at any hour are alike) the walk
begins again at the new wall time. What then happens to times that are missing or come twice depends
on what the expression means, as in Debian's cron:

* a *time of day* (neither minute nor hour begins with ``*``) is due once on every day it names. In
  a gap it is due at the first instant after it; an hour that comes twice is taken the first time.
* a *rhythm* (minute or hour begins with ``*``) follows real time: what the clock leaves out does
  not happen, and an hour that comes twice happens twice.

All instants here are whole seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from outlast.errors import BadSchedule

EXPRESSION_LENGTH_MAX: Final = 500
"""Characters of an expression; the longest sensible one has some two hundred."""
NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
LAST_SECOND: Final = 253_402_214_400
"""The end of the year 9999, less a day for the zones."""
_DAY: Final = 86_400
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - wall times have no zone
_FAULTS: Final = (CronSimError, ValueError, TypeError, AssertionError, IndexError, OverflowError)
"""What the library raises at expressions that are none."""


def checked_expression(text: object) -> str:
    """Give an expression back in its plain form, having seen that it is one.

    Raises:
        BadSchedule: it is none, or no time ever matches it.
    """
    if not isinstance(text, str) or len(text) > EXPRESSION_LENGTH_MAX:
        raise _no_cron(text, "it is longer than any that is meant" if text else "it is no text")
    words = text.split()
    plain = NICKNAMES.get(words[0].lower(), text) if len(words) == 1 else text
    plain = " ".join(plain.split())
    try:
        found = next(CronSim(plain, _EPOCH.replace(year=2000)), None)
    except _FAULTS as error:
        raise _no_cron(text, str(error) or type(error).__name__) from None
    if found is None:
        raise _no_cron(text, "no date within 50 years matches it")
    return plain


def _no_cron(text: object, why: str) -> BadSchedule:
    return BadSchedule(
        f"{str(text)[:80]!r} is no cron expression",
        why=why,
        do='write minute hour day month weekday, as in "0 7 * * 1-5"; seconds may stand before',
    )


def in_words(expression: str) -> str:
    """Say an expression in words; itself where it has none."""
    try:
        return CronSim(expression, _EPOCH).explain()
    except Exception:  # noqa: BLE001 - a remark for people, made by a library's own parser
        return expression


def is_time_of_day(expression: str) -> bool:
    """Tell whether an expression names times of day; else it is a rhythm."""
    minute, hour = expression.split()[-5:-3]
    return not minute.startswith("*") and not hour.startswith("*")


def cron_slots(expression: str, zone: ZoneInfo, after: int) -> Iterator[int]:
    """Give the instants of an expression after an instant, strictly increasing, in seconds."""
    once_a_day = is_time_of_day(expression)
    at, offset = after, _offset(zone, after)
    walls = _walls(expression, at + offset)
    while (wall := next(walls, None)) is not None:
        came = wall - offset
        if came > LAST_SECOND:
            return
        turn = _turn(zone, at, came)
        if turn is None:
            at = came
            if not (once_a_day and _is_second_time(zone, came)):
                yield came
            continue
        before, offset, at = offset, _offset(zone, turn), turn
        behind_the_gap = turn + offset
        if once_a_day and turn + before <= wall < behind_the_gap:
            yield turn
            walls = _walls(expression, behind_the_gap)
        else:
            walls = _walls(expression, behind_the_gap - 1)


def _walls(expression: str, after: int) -> Iterator[int]:
    """Give the wall times that match, after one; in seconds as if the zone were UTC."""
    try:
        walk = CronSim(expression, _EPOCH + timedelta(seconds=after))
        for wall in walk:
            yield int((wall - _EPOCH).total_seconds())
    except (OverflowError, ValueError):  # the calendar's end
        return


def _offset(zone: ZoneInfo, at: int) -> int:
    span = datetime.fromtimestamp(at, UTC).astimezone(zone).utcoffset()
    assert span is not None
    return span.days * _DAY + span.seconds


def _is_second_time(zone: ZoneInfo, at: int) -> bool:
    return datetime.fromtimestamp(at, UTC).astimezone(zone).fold == 1


def _turn(zone: ZoneInfo, after: int, until: int) -> int | None:
    """Give the first instant after one, up to another, at which the zone's clock turns."""
    offset = _offset(zone, after)
    at = after
    while at < until:
        then = min(at + _DAY, until)
        if _offset(zone, then) != offset:
            while then - at > 1:
                middle = (at + then) // 2
                if _offset(zone, middle) == offset:
                    at = middle
                else:
                    then = middle
            return then
        at = then
    return None


__all__ = ["checked_expression", "cron_slots", "in_words", "is_time_of_day"]
