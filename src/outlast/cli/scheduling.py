"""The commands about schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from outlast.cli.session import Cell, Session, shared
from outlast.cli.words import moment, now_us, one_line
from outlast.duration import in_words, microseconds_of
from outlast.errors import OutlastError, UsageError

if TYPE_CHECKING:
    from outlast.engine.guest import Guest
    from outlast.schedule import Entry, Schedule, ScheduleRecord

F = TypeVar("F", bound=Callable[..., Any])
ICONS: Final = {"active": "●", "paused": "‖", "exhausted": "✓", "cancelled": "⊘"}
COLOURS: Final = {
    "active": "cyan",
    "paused": "yellow",
    "exhausted": "green",
    "cancelled": "bright_black",
}
ENTRIES_SHOWN: Final = 10
NEXT_SHOWN: Final = 5
_WORDS: Final = {"ignore_unknown_options": True, "allow_interspersed_args": True}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def schedule() -> None:
    """Make executions by the clock: list schedules, make them, hold them, ask why one did not run.

    An engine that runs takes up what is changed here at once, else the next one does. TIME is
    written as 2026-03-29 or 2026-03-29T07:00; without an offset it is meant in the time zone of the
    schedule.
    """


@schedule.command()
@click.option("--state", "states", multiple=True, help="Only those in this state; repeatable.")
@shared
def ls(session: Session, states: tuple[str, ...]) -> None:
    """List schedules by name, and when each is fired next, in local time."""
    from outlast.schedule import ScheduleState

    unknown = [state for state in states if state not in list(ScheduleState)]
    if unknown:
        raise UsageError(
            f'there is no state "{unknown[0][:80]}"', do="one of " + ", ".join(ScheduleState)
        )
    with session.guest() as guest:
        found = guest.book.every([ScheduleState(state) for state in states])
    if session.as_json:
        from outlast.forms import schedule_form

        session.json({"items": [schedule_form(record) for record in found]})
    elif session.output == "ids":
        for record in found:
            session.out(record.name)
    elif not found:
        session.say("no schedule; make one with: outlast schedule create NAME FILE:TASK --every 5m")
    else:
        rows: list[list[Cell]] = [_row(record) for record in found]
        session.table(["NAME", "TASK", "STATE", "WHEN", "NEXT", "FIRED"], rows)


def _row(record: ScheduleRecord) -> list[Cell]:
    next_at = "–" if record.next_at is None or record.state != "active" else moment(record.next_at)
    return [
        (one_line(record.name, 40), "bold"),
        one_line(record.task, 40),
        (f"{ICONS[record.state]} {record.state}", COLOURS[record.state]),
        one_line(record.plan.in_words(), 60),
        next_at,
        str(record.fired),
    ]


@schedule.command()
@click.argument("name")
@click.option(
    "--limit",
    default=ENTRIES_SHOWN,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="How many entries of its log.",
)
@shared
def show(session: Session, name: str, limit: int) -> None:
    """Show a schedule: its rules, its next slots, and what became of the last ones."""
    with session.guest() as guest:
        record = guest.book.get(name)
        entries = guest.book.log(name, None, limit)
        slots = guest.book.next(name, NEXT_SHOWN)
    if session.as_json:
        from outlast.forms import entry_form, schedule_form

        session.json(
            {
                **schedule_form(record),
                "next": slots,
                "log": [entry_form(entry) for entry in entries],
            }
        )
        return
    if session.output == "ids":
        session.out(record.name)
        return
    for line in (*_rules(session, record), *_times(slots), *_log(record, entries)):
        session.out(line)


def _rules(session: Session, record: ScheduleRecord) -> list[str]:
    plan = record.plan
    state = session.paint(f"{ICONS[record.state]} {record.state}", COLOURS[record.state])
    why = f" since {moment(record.state_at)}" + (f": {one_line(record.why)}" if record.why else "")
    said = [f"overlap {plan.overlap}", f"misfire {plan.misfire}"]
    if plan.misfire == "all":
        said.append(f"at most {plan.misfire_max}")
    if plan.jitter_us:
        said.append(f"jitter {in_words(plan.jitter_us)}")
    if plan.start_at is not None:
        said.append(f"from {moment(plan.start_at)}")
    if plan.end_at is not None:
        said.append(f"to {moment(plan.end_at)}")
    name = session.paint(one_line(record.name), "bold")
    lines = [
        f"{name}  {one_line(record.task)}  {state}{why if record.state != 'active' else ''}",
        f"when     {one_line(plan.in_words(), 400)}",
        f"rules    {' · '.join(said)}",
        f"fired    {record.fired}" + (f" of {plan.count_max}" if plan.count_max else ""),
        f"made     {'by code' if record.is_declared else 'by hand'}, {moment(record.created_at)}",
    ]
    if plan.cron is not None:
        lines.insert(2, f"cron     {plan.cron}  ({plan.tz})")
    if record.last_execution_id is not None:
        lines.append(f"last     {record.last_execution_id}")
    if record.waiting_slot is not None:
        lines.append(f"waiting  the slot of {moment(record.waiting_slot)}")
    return lines


def _times(slots: Sequence[datetime]) -> list[str]:
    """Tell instants as the schedule's clocks show them, and as those here do."""
    lines = [f"{slot:%a %Y-%m-%d %H:%M:%S %z}   {_here(slot)} here" for slot in slots]
    return [f"{'next' if not place else '':<9}{line}" for place, line in enumerate(lines)]


def _here(slot: datetime) -> str:
    return f"{slot.astimezone():%a %H:%M:%S %z}"


def _log(record: ScheduleRecord, entries: Sequence[Entry]) -> list[str]:
    from outlast.engine.read.fate import sentence

    lines = [f"{moment(one.at)}  {one_line(sentence(one, record.plan.tz), 400)}" for one in entries]
    return [f"{'log' if not place else '':<9}{line}" for place, line in enumerate(lines)]


@schedule.command("next")
@click.argument("name")
@click.option(
    "-n",
    "--count",
    default=NEXT_SHOWN,
    show_default=True,
    type=click.IntRange(1, 1_000),
    help="How many.",
)
@shared
def next_(session: Session, name: str, count: int) -> None:
    """Show its next slots, in its own time zone and in local time."""
    with session.guest() as guest:
        slots = guest.book.next(name, count)
    if session.as_json:
        session.json({"next": slots})
    elif not slots:
        session.say("there is no further slot")
    else:
        for slot in slots:
            session.out(f"{slot:%a %Y-%m-%d %H:%M:%S %z}   {_here(slot)} here")


@schedule.command()
@click.argument("name")
@click.argument("time")
@shared
def why(session: Session, name: str, time: str) -> None:
    """Say what became of the slot at TIME: fired, skipped, missed, or no slot at all."""
    with session.guest() as guest:
        record = guest.book.get(name)
        at = read_time(time, record.plan.tz)
        said = guest.book.fate(name, at)
    if session.as_json:
        session.json({"name": name, "at": at, "fate": said})
    else:
        session.out(one_line(said, 1_000))


# Making


def _planned(command: F) -> F:
    """Add the options that say when."""
    for option in reversed(_PLAN):
        command = option(command)
    return command


_PLAN: Final = (
    click.option("--every", metavar="DURATION", help="A slot after each such span."),
    click.option("--cron", metavar="EXPRESSION", help='Slots by a cron expression: "0 7 * * 1-5".'),
    click.option("--at", metavar="TIME", help="One slot, at this instant."),
    click.option("--tz", default="UTC", show_default=True, help="Its time zone."),
    click.option("--jitter", default="0s", metavar="DURATION", help="Fired up to so much later."),
    click.option("--begin", metavar="TIME", help="No slot before."),
    click.option("--end", metavar="TIME", help="No slot after."),
    click.option("--count", type=int, help="How many slots are fired in all."),
    click.option(
        "--overlap",
        default="skip",
        show_default=True,
        help="While one is open: skip, queue, cancel_old or allow.",
    ),
    click.option(
        "--misfire",
        default="last",
        show_default=True,
        help="Of late slots: skip them, fire the last, or all.",
    ),
    click.option(
        "--misfire-max", default=100, show_default=True, help="Of all, the newest so many."
    ),
    click.option("--grace", default="30s", show_default=True, help="Up to so late is on time."),
    click.option("--json", "document", metavar="JSON", help="The arguments; - reads stdin."),
)


def _schedule_of(options: dict[str, Any]) -> Schedule:
    from outlast.schedule import Schedule

    tz = options["tz"]
    return Schedule(
        every=options["every"],
        cron=options["cron"],
        at=_time(options["at"], tz),
        tz=tz,
        jitter=options["jitter"],
        start=_time(options["begin"], tz),
        end=_time(options["end"], tz),
        count=options["count"],
        overlap=options["overlap"],
        misfire=options["misfire"],
        misfire_max=options["misfire_max"],
        grace=options["grace"],
    )


@schedule.command(context_settings=_WORDS)
@click.argument("name")
@click.argument("target", metavar="FILE:TASK")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--name VALUE]…")
@_planned
@shared
def create(session: Session, name: str, target: str, words: Sequence[str], **options: Any) -> None:
    """Make a schedule for a task; what stands after -- are arguments of its executions.

    The same command again changes nothing.
    """
    _put(session, "create", name, target, words, options)


@schedule.command(context_settings=_WORDS)
@click.argument("name")
@click.argument("target", metavar="FILE:TASK")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--name VALUE]…")
@_planned
@shared
def update(session: Session, name: str, target: str, words: Sequence[str], **options: Any) -> None:
    """Plan a schedule anew; its log goes on, and a pause stays."""
    _put(session, "update", name, target, words, options)


def _put(
    session: Session,
    wish: str,
    name: str,
    target: str,
    words: Sequence[str],
    options: dict[str, Any],
) -> None:
    from outlast.cli.deciding import actor
    from outlast.cli.running import called
    from outlast.engine.control.schedules import drafted
    from outlast.schedule import Request, Wish

    plan = _schedule_of(options)
    task, (args, kwargs) = called(target, words, options["document"])
    draft = drafted(name, task, plan, args, kwargs)
    with session.guest(make=True) as guest:
        guest.book.apply(name, Request(wish=Wish(wish), actor=actor(), draft=draft))
        record, slots = guest.book.get(name), guest.book.next(name, 3)
        owner = guest.owner()
    if session.as_json:
        from outlast.forms import schedule_form

        session.json({**schedule_form(record), "next": slots})
    elif session.output == "ids":
        session.out(record.name)
    else:
        session.out(f"{one_line(record.name)}  {one_line(record.plan.in_words(), 400)}")
        for line in _times(slots):
            session.out(line)
        if owner is None:
            source = target.rpartition(":")[0] or target
            session.say(f"fired by the next engine, as none runs now: outlast worker {source}")


# Deciding

_NAMES: Final = click.argument("names", nargs=-1, required=True, metavar="NAME…")
_WHY: Final = click.option("--why", help="Kept in the log, and shown to everybody who looks.")


@schedule.command()
@_NAMES
@_WHY
@shared
def pause(session: Session, names: Sequence[str], why: str | None) -> int:
    """Hold schedules: nothing is fired until they are resumed; open executions go on."""
    return _each(session, "pause", names, why)


@schedule.command()
@_NAMES
@_WHY
@shared
def resume(session: Session, names: Sequence[str], why: str | None) -> int:
    """Let schedules go on with their next slot; those of the pause are missed."""
    return _each(session, "resume", names, why)


@schedule.command()
@_NAMES
@_WHY
@shared
def cancel(session: Session, names: Sequence[str], why: str | None) -> int:
    """End schedules for good; open executions go on, and a redeploy does not bring them back."""
    return _each(session, "cancel", names, why)


@schedule.command()
@_NAMES
@_WHY
@shared
def trigger(session: Session, names: Sequence[str], why: str | None) -> int:
    """Make an execution now, beside the slots, whatever is open; prints its id."""
    return _each(session, "trigger", names, why)


def _each(session: Session, wish: str, names: Sequence[str], why: str | None) -> int:
    """Do something to each schedule; all are tried, and the first error gives the exit code."""
    from outlast.cli.problems import tell

    code = 0
    with session.guest() as guest:
        for name in names:
            try:
                _one(session, guest, wish, name, why)
            except OutlastError as error:
                if len(names) == 1:
                    raise
                code = code or tell(session, error)
    return code


def _one(session: Session, guest: Guest, wish: str, name: str, why: str | None) -> None:
    from outlast.cli.deciding import actor
    from outlast.engine.control.schedules import by_hand
    from outlast.schedule import Wish

    ids = guest.new_ids(1) if wish == "trigger" else ()
    guest.book.get(name)
    answer = guest.book.apply(name, by_hand(Wish(wish), actor(), why, ids))
    assert answer.record is not None
    if session.as_json:
        from outlast.forms import schedule_form

        form = schedule_form(answer.record)
        session.json({**form, "made": answer.made} if answer.made else form, indent=False)
    elif answer.made:
        said = "" if session.output == "ids" else f"  {one_line(name)} triggered"
        session.out(answer.made[0] + said)
        if guest.owner() is None:
            session.say("kept for the next engine: no engine runs on this store now")
    elif session.output == "ids":
        session.out(name)
    else:
        session.out(f"{one_line(name)}  {answer.record.state}")


@schedule.command()
@click.argument("name")
@click.argument("since", metavar="TIME")
@click.argument("until", metavar="TIME")
@shared
def backfill(session: Session, name: str, since: str, until: str) -> None:
    """Make the executions of past slots between two times that have none; prints their ids.

    All are queued at once. At most 1,000 slots a call; slots that are still due are left alone.
    """
    from outlast.cli.deciding import actor
    from outlast.engine.control.schedules import backfilling
    from outlast.schedule.decide import BACKFILL_MAX

    with session.guest() as guest:
        tz = guest.book.get(name).plan.tz
        bounds = [microseconds_of(read_time(text, tz)) for text in (since, until)]
        request = backfilling(bounds[0], bounds[1], actor(), guest.new_ids(BACKFILL_MAX))
        made = guest.book.apply(name, request).made
    if session.as_json:
        session.json({"made": made})
        return
    for id in made:
        session.out(id)
    session.say(f"{len(made)} slots backfilled, at {moment(now_us())}")


def read_time(text: str, tz: str) -> datetime:
    """Read an instant; without an offset it is meant in a time zone.

    Raises:
        UsageError: it cannot be read.
    """
    from outlast.schedule.plan import zone_of

    try:
        at = datetime.fromisoformat(text)
        at = at if at.tzinfo is not None else at.replace(tzinfo=zone_of(tz))
        microseconds_of(at)
    except (ValueError, OverflowError):
        raise UsageError(
            f'"{one_line(text, 60)}" is no time',
            do="write 2026-03-29, 2026-03-29T07:00 or 2026-03-29T07:00+02:00",
        ) from None
    return at


def _time(text: str | None, tz: str) -> datetime | None:
    return None if text is None else read_time(text, tz)
