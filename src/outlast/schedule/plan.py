"""When executions are made: what users write (:class:`Schedule`), and as data (:class:`Plan`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal, get_args
from zoneinfo import ZoneInfo

from outlast.duration import Duration, in_words, microseconds, microseconds_of
from outlast.errors import BadSchedule, UsageError
from outlast.schedule import cron

Overlap = Literal["skip", "queue", "cancel_old", "allow"]
Misfire = Literal["skip", "last", "all"]

GRACE: Final = "30s"
"""How late a slot may be fired and still be on time, where nobody says otherwise."""
EVERY_US_MIN: Final = 1_000_000
JITTER_US_MAX: Final = 86_400_000_000
MISFIRE_COUNT_MAX: Final = 1_000
COUNT_MAX: Final = 10**12
LAST_US: Final = cron.LAST_SECOND * 1_000_000


class Schedule:
    """When executions are made: exactly one of ``every``, ``cron`` and ``at``.

    Args:
        every: a fixed span between two slots, at least a second. Counted from ``start``, or else
            from when the schedule is made, so that it never drifts.
        cron: an expression of five fields, or of six with seconds first; ``L``, ``LW``, ``5L`` and
            ``MON#2`` are known, and ``@hourly``, ``@daily``, ``@weekly``, ``@monthly``,
            ``@yearly``.
        at: one instant, once.
        tz: the time zone of ``cron``, and in which times are shown.
        jitter: up to so long after its slot an execution is made; always the same for a slot.
        start: no slot before this instant.
        end: no slot after this instant.
        count: how many slots are fired in all, at most.
        overlap: what happens to a slot while an execution of the schedule is open: ``skip`` it,
            ``queue`` it (one waits, further ones are skipped), ``cancel_old`` ones, or ``allow``.
        misfire: what happens to slots that are later than ``grace``, as no engine ran: ``skip``
            them, fire the ``last``, or ``all`` (the newest ``misfire_max``).
        misfire_max: how many late slots ``all`` fires, at most 1,000.
        grace: up to so late a slot is on time.

    Raises:
        BadSchedule: it is none, or one of its parts cannot be.
    """

    def __init__(
        self,
        *,
        every: Duration | None = None,
        cron: str | None = None,
        at: datetime | None = None,
        tz: str = "UTC",
        jitter: Duration = 0,
        start: datetime | None = None,
        end: datetime | None = None,
        count: int | None = None,
        overlap: Overlap = "skip",
        misfire: Misfire = "last",
        misfire_max: int = 100,
        grace: Duration = GRACE,
    ) -> None:
        if sum(given is not None for given in (every, cron, at)) != 1:
            raise BadSchedule(
                "a schedule has one of every, cron and at",
                do='Schedule(every="5m"), Schedule(cron="0 7 * * *") or Schedule(at=…)',
            )
        self.plan = _checked(
            Plan(
                every_us=None if every is None else _span(every, "every"),
                cron=cron,
                at=None if at is None else _instant(at, "at"),
                tz=tz,
                jitter_us=_span(jitter, "jitter"),
                start_at=None if start is None else _instant(start, "start"),
                end_at=None if end is None else _instant(end, "end"),
                count_max=count,
                overlap=overlap,
                misfire=misfire,
                misfire_max=misfire_max,
                grace_us=_span(grace, "grace"),
            )
        )

    def __repr__(self) -> str:
        return f"<Schedule {self.plan.in_words()}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A schedule as data; the store keeps it as JSON. Instants and spans are in microseconds.

    Attributes:
        anchor_at: the first slot of ``every``; all others are whole spans after it.
    """

    every_us: int | None = None
    cron: str | None = None
    at: int | None = None
    anchor_at: int | None = None
    tz: str = "UTC"
    jitter_us: int = 0
    start_at: int | None = None
    end_at: int | None = None
    count_max: int | None = None
    overlap: Overlap = "skip"
    misfire: Misfire = "last"
    misfire_max: int = 100
    grace_us: int = 30_000_000

    def in_words(self) -> str:
        """Say when, in words."""
        if self.every_us is not None:
            return f"every {in_words(self.every_us)}"
        zone = "" if self.tz == "UTC" else f" ({self.tz})"
        if self.cron is not None:
            said = cron.in_words(self.cron)
            return f"{said[:1].lower()}{said[1:]}{zone}"
        assert self.at is not None
        return f"once, at {wall(self.at, self.tz):%Y-%m-%d %H:%M:%S}{zone}"

    def as_data(self) -> dict[str, Any]:
        """Give it as JSON carries it, without what is not set."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def plan_of(data: Mapping[str, Any]) -> Plan:
    """Read a plan as :meth:`Plan.as_data` gave it."""
    return Plan(**data)


@lru_cache(maxsize=256)
def zone_of(name: str) -> ZoneInfo:
    """Give a time zone by its name.

    Raises:
        BadSchedule: there is none.
    """
    try:
        if not name or len(name) > 100:
            raise ValueError("it is no name of a zone")
        return ZoneInfo(name)
    except Exception as error:  # noqa: BLE001 - hostile names end in errors of many kinds
        raise BadSchedule(
            f"there is no time zone {str(name)[:80]!r}",
            why=str(error)[:200],
            do='name one as "Europe/Berlin" or "UTC"',
        ) from None


def wall(at_us: int, tz: str) -> datetime:
    """Give an instant as an aware datetime of a zone."""
    seconds, rest = divmod(at_us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest).astimezone(zone_of(tz))


def _span(given: Duration, what: str) -> int:
    if isinstance(given, bool):
        raise BadSchedule(f"{what}={given} is no duration")
    try:
        return microseconds(given)
    except (UsageError, TypeError, OverflowError, ValueError) as error:
        said = error.what if isinstance(error, UsageError) else str(error)
        raise BadSchedule(f"{what}: {said}", do=f'{what}="5m"') from None


def _instant(given: datetime, what: str) -> int:
    if not isinstance(given, datetime):
        raise BadSchedule(f"{what}={str(given)[:80]} is no datetime")
    try:
        return microseconds_of(given)
    except UsageError as error:
        raise BadSchedule(f"{what}: {error.what}", do=error.do) from None


def _checked(plan: Plan) -> Plan:
    zone_of(str(plan.tz))
    _check_bounds(plan)
    for what, word, words in (
        ("overlap", plan.overlap, get_args(Overlap)),
        ("misfire", plan.misfire, get_args(Misfire)),
    ):
        if word not in words:
            raise BadSchedule(
                f"there is no {what} policy {str(word)[:80]!r}", do=f"one of {', '.join(words)}"
            )
    if plan.cron is None:
        return plan
    return plan_of({**plan.as_data(), "cron": cron.checked_expression(plan.cron)})


def _check_bounds(plan: Plan) -> None:
    whole = ("misfire_max", plan.misfire_max, 1, MISFIRE_COUNT_MAX)
    spans = (
        ("every", plan.every_us, EVERY_US_MIN, LAST_US),
        ("jitter", plan.jitter_us, 0, JITTER_US_MAX),
        ("count", plan.count_max, 1, COUNT_MAX),
        ("at", plan.at, 0, LAST_US),
        ("start", plan.start_at, 0, LAST_US),
        ("end", plan.end_at, 0, LAST_US),
        whole,
    )
    for what, value, least, most in spans:
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadSchedule(f"{what}={str(value)[:80]} is no whole number")
        if not least <= value <= most:
            raise BadSchedule(_out_of_bounds(what), why=f"it is {value:,}")
    if plan.start_at is not None and plan.end_at is not None and plan.end_at < plan.start_at:
        raise BadSchedule("the end of the schedule lies before its start")


def _out_of_bounds(what: str) -> str:
    return {
        "every": "every is at least one second",
        "jitter": "jitter is at most one day",
        "count": "count is at least 1",
        "misfire_max": f"misfire_max is 1 to {MISFIRE_COUNT_MAX:,}",
    }.get(what, f"{what} lies outside the years 1970 to 9999")


__all__ = [
    "Misfire",
    "Overlap",
    "Plan",
    "Schedule",
    "plan_of",
    "wall",
    "zone_of",
]
