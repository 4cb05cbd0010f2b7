"""The commands that control: cancel, pause, resume, retry, recover, rerun, fork and so on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from outlast.cli.deciding import actor, tell_done
from outlast.cli.exits import CONFLICT, OK, USAGE
from outlast.cli.looking import labels_of, states_of
from outlast.cli.session import Session, is_interactive, read_stdin, shared, span_of
from outlast.cli.words import now_us
from outlast.duration import in_words
from outlast.errors import NotRecoverable, OutlastError, UsageError
from outlast.lifecycle import Execution, State
from outlast.naming import checked_name

if TYPE_CHECKING:
    from outlast.engine.control.bulk import BulkReport
    from outlast.engine.control.descent import Descent
    from outlast.engine.guest import Guest
    from outlast.engine.task.registry import Task
    from outlast.store.protocol import Filter

F = TypeVar("F", bound=Callable[..., Any])
_why = click.option(
    "--why", "--reason", "why", help="Kept in the log, and shown to everybody who looks."
)
_ids = click.argument("ids", nargs=-1, metavar="ID…")
_SELECTORS = (
    click.option("--task", help="All of this task."),
    click.option("--state", "states", metavar="STATE,…", help="All in these states."),
    click.option("--older", metavar="DURATION", help="All created longer ago, as in 1d."),
    click.option(
        "--label", "labels", multiple=True, metavar="NAME=VALUE", help="All with this label."
    ),
    click.option("--dry-run", is_flag=True, help="Only say how many there are, and how old."),
    click.option("--yes", is_flag=True, help="Do not ask."),
)


def selecting(command: F) -> F:
    """Give a command ids, or the options of a filter instead."""
    for option in reversed((_ids, *_SELECTORS)):
        command = option(command)
    return command


@click.command()
@selecting
@_why
@shared
def cancel(session: Session, ids: Sequence[str], why: str | None, **selection: Any) -> int:
    """Ask executions to end; their code sees CancelledError and may clean up.

    Name them by id, or all at once by --task, --state, --older and --label. A single - reads ids
    from stdin, as in: outlast ls --state queued -o ids | outlast cancel -
    """
    return _each_or_all(
        *(session, "cancel", ids, why, selection, "cancel asked for"),
        lambda guest, id: guest.cancel(id, why, actor=actor()),
    )


@click.command()
@selecting
@_why
@shared
def pause(session: Session, ids: Sequence[str], why: str | None, **selection: Any) -> int:
    """Hold executions at their next safe point; a step under way ends first."""
    return _each_or_all(
        *(session, "pause", ids, why, selection, "pause asked for"),
        lambda guest, id: guest.pause(id, why, actor=actor()),
    )


@click.command()
@selecting
@_why
@click.option("--pin", metavar="VERSION", help="From now on only code of this version runs them.")
@shared
def resume(
    session: Session, ids: Sequence[str], why: str | None, pin: str | None, **selection: Any
) -> int:
    """Let executions go on: after a pause, a suspension, or before their time has come."""
    return _each_or_all(
        *(session, "resume", ids, why, selection, "resumed"),
        lambda guest, id: guest.resume(id, pin=pin, actor=actor()),
    )


@click.command()
@selecting
@_why
@shared
def retry(session: Session, ids: Sequence[str], why: str | None, **selection: Any) -> int:
    """Try executions again now.

    One in its back-off goes on at once. One that failed, timed out or was cancelled stays as it is,
    and another one takes its place that reuses its finished steps, as outlast recover does.
    """

    def act(guest: Guest, id: str) -> Execution:
        record = guest.record(id)
        if record.state is State.RETRY_WAIT:
            return guest.resume(id, actor=actor())
        if not record.is_final:
            raise NotRecoverable(
                f"{id} is {record.state}: there is nothing to try again",
                where=f"{id}, {record.state}",
                do=f"outlast why {id}",
            )
        return guest.descend(id, _descent("recover", why))

    return _each_or_all(session, "retry", ids, why, selection, "tried again", act)


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@_why
@shared
def recover(session: Session, ids: Sequence[str], why: str | None) -> int:
    """Make another execution of one that failed, timed out or was cancelled.

    Its finished steps are reused as they came; what failed, or was never finished, runs.
    """
    wish = _descent("recover", why)
    return _each(session, ids, "recovers", lambda guest, id: guest.descend(id, wish))


_edits = (
    click.option(
        "--set", "sets", multiple=True, metavar="NAME=VALUE", help="Edit the input: a.b=1, a.0=x."
    ),
    click.option("--edit", is_flag=True, help="Edit the input in your $EDITOR."),
    click.option("--json", "document", metavar="JSON", help="The whole input; - reads stdin."),
    click.option(
        "--file", metavar="FILE", help="The file or module of the task, to edit its input."
    ),
)


def editing(command: F) -> F:
    """Give a command the options that edit an input."""
    for option in reversed(_edits):
        command = option(command)
    return command


@click.command()
@selecting
@editing
@_why
@shared
def rerun(
    session: Session,
    ids: Sequence[str],
    sets: Sequence[str],
    edit: bool,
    document: str | None,
    file: str | None,
    why: str | None,
    **selection: Any,
) -> int:
    """Start executions again from nothing, each as another execution, with the same input.

    An edited input is read by the types of its task before anything is written: --file names the
    file that defines it.
    """

    def act(guest: Guest, id: str) -> Execution:
        return _edited(guest, id, _descent("rerun", why), (sets, edit, document, file))

    if (sets or edit or document or file) and not ids:
        raise UsageError("inputs are edited one by one", do="outlast rerun ID --set NAME=VALUE")
    return _each_or_all(session, "rerun", ids, why, selection, "started again", act)


@click.command()
@click.argument("id")
@click.option(
    "--from", "step", required=True, metavar="STEP", help="Its key, its name, or its place from 1."
)
@editing
@_why
@shared
def fork(
    session: Session,
    id: str,
    step: str,
    sets: Sequence[str],
    edit: bool,
    document: str | None,
    file: str | None,
    why: str | None,
) -> int:
    """Make another execution that has done what this one had before a step, and goes on anew.

    Steps that are called with other arguments, as the input is edited, run again.
    """
    with session.guest() as guest:
        id = guest.find(id)
        wish = _descent("fork", why, step)
        record = _edited(guest, id, wish, (sets, edit, document, file))
        _tell_made(session, guest, record, id)
    return OK


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="ID… NAME=VALUE…")
@shared
def label(session: Session, words: Sequence[str]) -> int:
    """Set labels of executions; NAME= takes one away."""
    from outlast.naming import checked_labels

    ids = [word for word in words if "=" not in word]
    said = dict(word.split("=", 1) for word in words if "=" in word)
    labels = checked_labels({name: value or None for name, value in said.items()})
    if not labels or not ids:
        raise UsageError("name executions and labels", do="outlast label ID team=x")
    return _each(session, ids, "labelled", lambda guest, id: guest.label(id, labels, actor=actor()))


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@click.argument("number", type=int)
@shared
def priority(session: Session, ids: Sequence[str], number: int) -> int:
    """Give executions another priority: of those that are queued, the highest goes first."""
    return _each(
        *(session, ids, f"priority {number}"),
        lambda guest, id: guest.prioritize(id, number, actor=actor()),
    )


# One by one


def _each_or_all(
    session: Session,
    action: str,
    ids: Sequence[str],
    why: str | None,
    selection: dict[str, Any],
    said: str,
    act: Callable[[Guest, str], Execution],
) -> int:
    is_dry, is_sure = selection.pop("dry_run"), selection.pop("yes")
    is_filtered = any(selection.values())
    if bool(ids) == is_filtered:
        raise UsageError(
            "ids and a filter were given" if ids else "no execution was named",
            do=f"outlast {action} ID…, or outlast {action} --task NAME --state STATE",
        )
    if is_filtered:
        return _all(session, action, why, _filter(**selection), is_dry=is_dry, is_sure=is_sure)
    if is_dry:
        raise UsageError("--dry-run is for filters", do=f"outlast show {ids[0]}")
    return _each(session, ids, said, act)


def _each(
    session: Session, ids: Sequence[str], said: str, act: Callable[[Guest, str], Execution]
) -> int:
    """Do something to each execution; all are tried, and the first error gives the exit code."""
    from outlast.cli.problems import tell

    if list(ids) == ["-"]:
        ids = read_stdin("-").split()
    code = OK
    with session.guest() as guest:
        for id in ids:
            try:
                id = guest.find(id)
                record = act(guest, id)
                if record.id == id:
                    tell_done(session, guest, record, said)
                else:
                    _tell_made(session, guest, record, id)
            except OutlastError as error:
                if len(ids) == 1:
                    raise
                code = code or tell(session, error)
    return code


def _tell_made(session: Session, guest: Guest, record: Execution, source: str) -> None:
    """Tell of which execution a new one was made, and what it reuses."""
    from outlast.engine.replay.script import is_reusable

    log = guest.log(record.id)
    (told,) = (one for one in guest.store.descents([record.id]) if one.id == record.id)
    reused = sum(is_reusable(row) and (row.data or {}).get("kind") == "step" for row in log)
    where = f" from {told.step}" if told.step else ""
    steps = (
        f", {reused} finished step{'' if reused == 1 else 's'} reused"
        if told.mode != "rerun"
        else ""
    )
    tell_done(session, guest, record, f"made by {told.mode} of {source}{where}{steps}")


def _descent(mode: str, why: str | None, step: str | None = None) -> Descent:
    from outlast.engine.control.descent import Descent, Mode

    return Descent(mode=Mode(mode), step=step, why=why, actor=actor())


def _edited(
    guest: Guest, id: str, wish: Descent, edits: tuple[Sequence[str], bool, str | None, str | None]
) -> Execution:
    """Make an execution of one, with its input edited as the options say."""
    from msgspec.structs import replace

    from outlast.cli.editing import edited

    sets, in_editor, document, file = edits
    task = _task_of(guest.record(id).task, file) if file is not None else None
    if document == "-":
        document = read_stdin("--json")
    if sets or in_editor or document is not None:
        recorded = guest.log(id)[0].payload or b"{}"
        wish = replace(wish, document=edited(recorded, document, sets, in_editor, task))
    return guest.descend(id, wish, task)


def _task_of(name: str, file: str) -> Task[Any, Any]:
    from outlast.cli.loading import load_module, tasks_of
    from outlast.errors import UnknownTask

    for task in tasks_of(load_module(file)).values():
        if task.name == name:
            return task
    raise UnknownTask(f"{file} has no task {name}", do="name the file that defines it")


# Many at once


def _filter(task: str | None, states: str | None, older: str | None, labels: Any) -> Filter:
    from outlast.store.protocol import Filter

    span = span_of("--older", older)
    return Filter(
        task=task if task is None else checked_name(task, "task"),
        states=states_of(states),
        created_before=None if span is None else now_us() - span,
        labels=labels_of(labels),
    )


def _all(
    session: Session, action: str, why: str | None, filter: Filter, *, is_dry: bool, is_sure: bool
) -> int:
    """Do something to all that fit, having asked where a person can be asked."""
    declined = False

    def confirm(report: BulkReport) -> bool:
        nonlocal declined
        if is_dry or not report.matched:
            return False
        if is_sure:
            return True
        if not is_interactive(sys.stdin, sys.stderr):
            raise UsageError(
                _meant(report).removesuffix("."),
                why="nobody can be asked here whether that is meant",
                do="--yes to do it, --dry-run to look at it",
            )
        session.say(_meant(report))
        typed = click.prompt("Type the number to go on", err=True, default="", show_default=False)
        declined = str(typed).strip().replace(",", "") != str(report.matched)
        return not declined

    with session.guest() as guest:
        report = guest.bulk(action, filter, why=why, actor=actor(), confirm=confirm)
    if declined:
        session.say("nothing was done")
        return USAGE
    _tell_report(session, report)
    return CONFLICT if report.refused else OK


def _meant(report: BulkReport) -> str:
    from outlast.engine.control.bulk import Action

    verbs = {Action.RETRY: "retries"}
    verb = verbs.get(report.action, f"{report.action}s")
    age = in_words(now_us() - (report.oldest_at or 0))
    noun = "execution" if report.matched == 1 else "executions"
    return f"This {verb} {report.matched:,} {noun} (oldest {age})."


def _tell_report(session: Session, report: BulkReport) -> None:
    if session.as_json:
        from outlast.forms import at

        session.json(
            {
                "action": report.action,
                "matched": report.matched,
                "oldest_at": at(report.oldest_at),
                "sample": report.sample,
                "is_dry": report.is_dry,
                "done": report.done,
                "made": report.made,
                "refused": report.refused,
            }
        )
    elif session.output == "ids":
        for id in report.sample if report.is_dry else report.made:
            session.out(id)
    elif not report.matched:
        session.out("no execution fits")
    elif report.is_dry:
        session.out(_meant(report))
        more = ", …" if report.matched > len(report.sample) else ""
        session.say(f"as {', '.join(report.sample)}{more}")
    else:
        refused = ", ".join(f"{count} {code}" for code, count in sorted(report.refused.items()))
        said = f"{report.action}: {report.done:,} of {report.matched:,} executions"
        session.out(f"{said}; refused: {refused}" if refused else said)
