"""The commands about capacity: queues, limits and rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from outlast.cli.session import Cell, Session, shared
from outlast.cli.words import now_us, one_line
from outlast.duration import in_words
from outlast.errors import UsageError

if TYPE_CHECKING:
    from outlast.store.protocol import GateRow, QueueRow, QueueSetting, Setting

_CONTEXT = {"help_option_names": ["-h", "--help"]}
_HOLDERS_SHOWN = 3


@click.group(context_settings=_CONTEXT)
def queue() -> None:
    """Look at queues; pause, resume and limit them.

    What is set here is kept in the file, and counts from the next claim on; what runs goes on.
    """


@queue.command("ls")
@shared
def list_queues(session: Session) -> None:
    """List the queues that have a rule, or executions that wait or run, by name."""
    with session.guest() as guest:
        found = guest.office.queues()
    if session.as_json:
        from outlast.forms import queue_form

        session.json({"items": [queue_form(row) for row in found]})
    elif session.output == "ids":
        for row in found:
            session.out(row.setting.name)
    elif not found:
        session.say("no queue: nothing waits, nothing runs, and no rule is set")
    else:
        rows: list[list[Cell]] = [_queue_row(row) for row in found]
        session.table(["QUEUE", "STATE", "QUEUED", "BLOCKED", "RUNNING", "LIMIT", "OLDEST"], rows)


def _queue_row(row: QueueRow) -> list[Cell]:
    setting = row.setting
    is_paused = setting.paused_at is not None
    since = row.waiting_since
    return [
        (one_line(setting.name, 40), "bold"),
        ("‖ paused", "yellow") if is_paused else ("● open", "cyan"),
        str(row.queued),
        str(row.blocked),
        str(row.leased),
        "–" if setting.capacity is None else str(setting.capacity),
        "–" if since is None else in_words(max(0, now_us() - since)),
    ]


@queue.command("pause")
@click.argument("name")
@click.option("--why", help="The reason, for whoever asks why.")
@click.option("--by", default="user", show_default=True, help="Who pauses it.")
@shared
def pause_queue(session: Session, name: str, why: str | None, by: str) -> None:
    """Let nothing be claimed from a queue; what runs goes on, and no execution changes."""
    with session.guest() as guest:
        setting = guest.office.pause(name, why, actor=by)
    _said(session, setting, "paused")


@queue.command("resume")
@click.argument("name")
@shared
def resume_queue(session: Session, name: str) -> None:
    """Let a paused queue go on."""
    with session.guest() as guest:
        setting = guest.office.resume(name)
    _said(session, setting, "open")


@queue.command("limit")
@click.argument("name")
@click.argument("capacity", metavar="NUMBER|none")
@shared
def limit_queue(session: Session, name: str, capacity: str) -> None:
    """Let at most so many executions of a queue run at once; none takes the limit back."""
    wanted = None if capacity == "none" else _number(capacity)
    with session.guest() as guest:
        setting = guest.office.limit_queue(name, wanted)
    said = "without a limit" if wanted is None else f"{wanted} at a time"
    _said(session, setting, said)


def _said(session: Session, setting: QueueSetting, said: str) -> None:
    if session.as_json:
        from outlast.forms import setting_form

        session.json(setting_form(setting))
    elif session.output == "ids":
        session.out(setting.name)
    else:
        session.out(f"queue {one_line(setting.name)}: {said}")


@click.group(context_settings=_CONTEXT)
def limit() -> None:
    """Look at limits and rates, who holds them and who waits; set them.

    NAME is that of one limit (fulfil:ada), or of its family (fulfil), which counts for all of them.
    A rate is rate:NAME.
    """


@limit.command("ls")
@shared
def list_limits(session: Session) -> None:
    """List the limits, rates and capabilities that are set, held, or waited at."""
    with session.guest() as guest:
        found = guest.office.gates()
    if session.as_json:
        from outlast.forms import gate_form

        session.json({"items": [gate_form(row) for row in found]})
    elif session.output == "ids":
        for row in found:
            session.out(row.gate)
    elif not found:
        session.say("no limit is set, held or waited at")
    else:
        rows: list[list[Cell]] = [_gate_row(row) for row in found]
        session.table(["LIMIT", "SET", "INSIDE", "HELD BY", "WAIT", "NEXT"], rows)


def _gate_row(row: GateRow) -> list[Cell]:
    holders = ", ".join(row.holders[:_HOLDERS_SHOWN])
    more = len(row.holders) - _HOLDERS_SHOWN
    return [
        (one_line(row.gate, 40), "bold"),
        "–" if row.setting is None else _in_words(row.setting),
        str(len(row.holders)),
        (holders + (f" and {more} more" if more > 0 else "")) or "–",
        str(row.waiting),
        row.next_id or "–",
    ]


def _in_words(setting: Setting) -> str:
    if setting.interval_us is None:
        return str(setting.capacity)
    burst = "" if setting.capacity == 1 else f", {setting.capacity} at once"
    return f"one each {in_words(setting.interval_us)}{burst}"


@limit.command("set")
@click.argument("name")
@click.argument("value", metavar="NUMBER|COUNT/SPAN|none")
@click.option("--burst", type=click.IntRange(1), help="Of a rate: how many at once after a rest.")
@click.option("--by", default="user", show_default=True, help="Who sets it.")
@shared
def set_limit(session: Session, name: str, value: str, burst: int | None, by: str) -> None:
    """Set a limit to a NUMBER, or a rate to so many in a span of time, as in 100/1m.

    It counts in place of what the task says, from the next claim on; none takes it back. Whoever is
    inside already stays inside.
    """
    with session.guest() as guest:
        office = guest.office
        if value == "none":
            office.reset(name)
            setting = None
        elif "/" in value:
            count, _, span = value.partition("/")
            setting = office.set_rate(name, _number(count), span, burst=burst or 1, actor=by)
        elif burst is not None:
            raise UsageError("only a rate has a burst", do=f"outlast limit set {name} 100/1m")
        else:
            setting = office.set_limit(name, _number(value), actor=by)
    if session.as_json:
        from outlast.forms import rule_form

        form = None if setting is None else rule_form(setting)
        session.json({"limit": name, "setting": form})
    elif session.output == "ids":
        session.out(name if setting is None else setting.gate)
    elif setting is None:
        session.out(f"limit {one_line(name)}: as its task says")
    else:
        session.out(f"limit {one_line(setting.gate)}: {_in_words(setting)}")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise UsageError(
            f'"{text[:40]}" is no number',
            do="write a whole number, COUNT/SPAN as in 100/1m, or none",
        )
    return int(text)


__all__ = ["limit", "queue"]
