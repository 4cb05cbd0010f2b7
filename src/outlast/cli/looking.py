"""The commands that look: ls, show, events, why."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click
from msgspec.structs import replace

from outlast.cli.mismatch import SAFE, facts_of, told
from outlast.cli.session import COLUMN_MIN, Cell, Session, shared, span_of, width_of
from outlast.cli.words import (
    COLOURS,
    ICONS,
    STEP_COLOURS,
    STEP_ICONS,
    child_end_said,
    clock,
    failure_said,
    lines_of,
    moment,
    now_us,
    one_line,
    progress_said,
    sentence,
    state_of,
    until,
)
from outlast.duration import in_words
from outlast.errors import NotFound, UsageError
from outlast.lifecycle import OPEN, Execution, Reason, State, Transition, reason_of
from outlast.naming import SCHEDULE_ORIGIN, checked_name

if TYPE_CHECKING:
    from outlast.engine.guest import Guest
    from outlast.store.protocol import Descent, ProgressRow, WorkerRow
    from outlast.story import Step, Story

WIDTH_FULL = 80
"""A terminal with fewer columns shows the ends of ids only: they differ, and name them as well."""
PAYLOAD_SHOWN_MAX = 2_000


DIALECT_NAMES: Final = ("julep", "flyte", "flyte-action", "actionqueue", "autopilotcx")
"""The names of :data:`outlast.dialects.DIALECTS`, which only ``show --as`` has to import."""


@click.command()
@click.option(
    "--state",
    "states",
    metavar="STATE,…",
    help="Only these states; open means all but the final ones.",
)
@click.option("--task", help="Only this task.")
@click.option("--schedule", metavar="NAME", help="Only those that this schedule has made.")
@click.option("--parent", metavar="ID", help="Only children of this execution.")
@click.option("--roots", is_flag=True, help="Only those that no other execution made.")
@click.option(
    "--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only those with this label."
)
@click.option("--since", metavar="DURATION", help="Only those created since then, as in 24h or 7d.")
@click.option(
    "--limit", default=50, type=click.IntRange(1, 10_000), show_default=True, help="How many."
)
@click.option("--cursor", metavar="ID", help="Only those before this one: the next page.")
@shared
def ls(
    session: Session,
    states: str | None,
    task: str | None,
    schedule: str | None,
    parent: str | None,
    roots: bool,
    labels: Sequence[str],
    since: str | None,
    limit: int,
    cursor: str | None,
) -> None:
    """List executions, the newest first."""
    from outlast.engine.control.listing import bounded
    from outlast.store.protocol import Filter

    span = span_of("--since", since)
    wanted = Filter(
        states=states_of(states),
        task=task if task is None else checked_name(task, "task"),
        origin=None if schedule is None else SCHEDULE_ORIGIN + checked_name(schedule, "schedule"),
        limit=limit + 1,
        labels=labels_of(labels),
        roots=roots,
        created_after=None if span is None else now_us() - span,
    )
    with session.guest() as guest:
        if cursor is not None:
            wanted = replace(wanted, before_id=guest.find(cursor))
        if parent is not None:
            wanted = replace(wanted, parent_id=guest.find(parent))
        found = guest.store.page(bounded(wanted))
        says = (
            guest.store.progress([record.id for record in found])
            if session.output in ("wide", "json")
            else {}
        )
        stops = _stopping(guest, found[:limit])
        made = {one.id: one for one in guest.store.descents([record.id for record in found])}
    following = found[limit - 1].id if len(found) > limit else None
    found = found[:limit]
    if session.as_json:
        from outlast.forms import descent_form, execution_form, progress_form

        items = [
            {
                **execution_form(record, stops.get(record.id)),
                "from": descent_form(made[record.id]) if record.id in made else None,
                "progress": progress_form(says.get(record.id)),
            }
            for record in found
        ]
        session.json({"items": items, "next": following})
    elif session.output == "ids":
        for record in found:
            session.out(record.id)
    else:
        is_filtered = bool(
            states or task or schedule or labels or since or cursor or parent or roots
        )
        _list(session, found, following, stops, made, says, is_filtered=is_filtered)


def _stopping(guest: Guest, found: list[Execution]) -> dict[str, Reason]:
    """Say which of these are being cancelled; asks for their engine only if there may be some."""
    from outlast.cli.stopping import stopping

    maybe = [one for one in found if one.cancel_at or one.inbox_count > one.inbox_seen]
    owner = guest.owner() if maybe else None
    told = {record.id: stopping(guest, record, owner) for record in maybe}
    return {id: reason for id, reason in told.items() if reason is not None}


def labels_of(words: Sequence[str]) -> dict[str, str]:
    """Read labels to look for.

    Raises:
        UsageError: one is not NAME=VALUE.
    """
    labels = {}
    for word in words:
        name, has_value, value = word.partition("=")
        if not has_value:
            raise UsageError(f'"{one_line(word, 40)}" is no label', do="--label NAME=VALUE")
        labels[checked_name(name, "label")] = value
    return labels


def states_of(text: str | None) -> tuple[State, ...]:
    """Read a list of states.

    Raises:
        UsageError: one is none.
    """
    wanted: list[State] = []
    for word in filter(None, (text or "").lower().replace(" ", "").split(",")):
        if word == "open":
            wanted += OPEN
        elif word in list(State):
            wanted.append(State(word))
        else:
            raise UsageError(
                f'there is no state "{word}"',
                why="the states are " + ", ".join(State),
                do="outlast ls --state failed,waiting",
            )
    return tuple(wanted)


def _list(
    session: Session,
    found: list[Execution],
    following: str | None,
    stops: Mapping[str, Reason],
    made: Mapping[str, Descent],
    says: Mapping[str, ProgressRow],
    *,
    is_filtered: bool,
) -> None:
    if not found:
        session.say(
            "no execution fits"
            if is_filtered
            else "no execution yet; start one with: outlast run FILE:TASK"
        )
        return
    now = now_us()
    is_narrow = (width_of(sys.stdout) or WIDTH_FULL) < WIDTH_FULL
    rows: list[list[Cell]] = [
        [
            ("…" + record.id[1 - COLUMN_MIN :] if is_narrow else record.id, "bold"),
            one_line(record.task, 40),
            (
                f"{ICONS[record.state]} {state_of(record, stops.get(record.id))}",
                COLOURS[record.state],
            ),
            _why_short(record, stops.get(record.id), made.get(record.id)),
            in_words(now - record.created_at),
            str(record.failures + 1) if record.started_at else "–",
        ]
        for record in found
    ]
    heads = ["ID", "TASK", "STATE", "WHY / ERROR", "AGE", "ATT"]
    if session.output == "wide":
        from outlast.cli.tree import progress_text

        heads += ["PROGRESS", "PARENT", "CHILDREN"]
        for record, row in zip(found, rows, strict=True):
            said = says.get(record.id)
            row += [
                "" if said is None else progress_text(said),
                record.parent_id or "",
                str(record.children or ""),
            ]
    session.table(heads, rows)
    more = f" · next page: --cursor {following}" if following else ""
    session.say(session.paint_remark(f"{len(found)} shown, the newest first{more}", "dim"))


def _why_short(
    record: Execution, reason: Reason | None = None, descent: Descent | None = None
) -> str:
    said = _why(record, reason)
    made = "" if descent is None else f"{descent.mode} of {descent.source_id}"
    return ", ".join(filter(None, (said, made)))


def _why(record: Execution, reason: Reason | None) -> str:
    reason = reason or reason_of(record)
    if reason is not None:
        return (
            ""
            if record.state is State.RUNNING and reason.code == "running"
            else one_line(reason.text, 80)
        )
    detail: dict[str, Any] = dict(record.detail or {})
    error = detail.get("error")
    if isinstance(error, dict):
        name = str(error.get("type", "")).partition(":")[2]
        return one_line(f"{name}: {error.get('message', '')}", 80)
    if record.state is State.TIMED_OUT:
        return "had not begun in time" if detail.get("why") == "not_started" else "deadline passed"
    if record.state is State.CANCELLED:
        why = f": {detail['why']}" if detail.get("why") else ""
        return one_line(f"by {detail.get('by', '?')}{why}", 80)
    return ""


@click.command()
@click.argument("id")
@click.option(
    "--as",
    "dialect",
    type=click.Choice(DIALECT_NAMES),
    help="Its status and transitions in another system's words (docs/dialects.md).",
)
@click.option(
    "--metrics",
    is_flag=True,
    help="What it took: times by state and step, attempts, processor time, memory, errors.",
)
@shared
def show(session: Session, id: str, dialect: str | None, metrics: bool) -> None:
    """Show one execution: its state, input, steps, open questions, and what it came to.

    ID is a whole id, at least three characters of its beginning or end, or the word last.
    """
    from outlast.cli.budgeting import in_a_line
    from outlast.cli.stopping import stopping
    from outlast.cli.tree import relation_lines, relations_form, relations_of
    from outlast.engine.read.questions import open_questions
    from outlast.story import story_of

    with session.guest() as guest:
        id = guest.find(id)
        record, log = guest.record(id), guest.log(id)
        budgets = guest.store.budgets([f"execution:{id}", f"tree:{id}"])
        owner = guest.owner()
        stop = stopping(guest, record, owner, log) or guest.standing(record, owner)
        descents = guest.store.descents([id])
        relations = relations_of(guest.store, record, log)
    if dialect is not None:
        from outlast.cli.translating import tell

        tell(session, dialect, record, log)
        return
    if metrics:
        from outlast.cli.measuring import show_measures
        from outlast.engine.read.measures import measures_of

        show_measures(session, measures_of(id, log, now_us()))
        return
    story = story_of(id, log)
    reason = stop or reason_with_hint(record, owner)
    questions = open_questions(record, log)
    if session.as_json:
        from outlast.forms import (
            budget_form,
            descent_form,
            execution_form,
            outcome_form,
            question_form,
            raw,
            story_form,
        )

        source = next((one for one in descents if one.id == id), None)
        session.json(
            {
                **execution_form(record, reason),
                "from": None if source is None else descent_form(source),
                "descendants": [descent_form(one) for one in descents if one.id != id],
                **relations_form(record, relations, log[0]),
                "input": raw(log[0].payload),
                "steps": story_form(story),
                **({"budgets": [budget_form(row) for row in budgets]} if budgets else {}),
                "questions": [question_form(question) for question in questions],
                **(outcome_form(record, log[-1]) if record.is_final else {}),
                **({"mismatch": facts} if (facts := facts_of(record)) is not None else {}),
            }
        )
    elif session.output == "ids":
        session.out(id)
    else:
        for line in _shown(session, record, story, log, reason, descents):
            session.out(line)
        for line in relation_lines(session, record, relations, log[0]):
            session.out(line)
        for row in budgets:
            session.out(f"budget   {in_a_line(row)}")
        for question in questions:
            to = f" of {one_line(question.to)}" if question.to else ""
            session.out(f'asks{to:<4} "{one_line(question.title)}"  →  outlast answer {id}')
            if question.refused:
                session.out(f"         an answer was not taken: {one_line(question.refused)}")


def _shown(
    session: Session,
    record: Execution,
    story: Story,
    log: list[Transition],
    reason: Reason | None,
    descents: list[Descent],
) -> list[str]:
    paint = session.paint
    state = paint(f"{ICONS[record.state]} {state_of(record, reason)}", COLOURS[record.state])
    end = record.state_at if record.is_final else now_us()
    lines = [
        f"{paint(record.id, 'bold')}  {one_line(record.task)}  {state}",
        f"created  {moment(record.created_at)}, {in_words(now_us() - record.created_at)} ago",
        f"{'took' if record.is_final else 'so far':<8} {in_words(end - record.created_at)}",
    ]
    if record.key is not None:
        lines.append(f"key      {one_line(record.key)}")
    if record.origin is not None and record.origin.startswith(SCHEDULE_ORIGIN):
        lines.append(f"schedule {one_line(record.origin.removeprefix(SCHEDULE_ORIGIN))}")
    if record.labels:
        said = " ".join(f"{name}={value}" for name, value in sorted(record.labels.items()))
        lines.append(f"labels   {one_line(said, 400)}")
    lines += descent_lines(record, descents, log)
    if reason is not None:
        lines += [f"why      {one_line(reason.text, 400)}"]
        if reason.until is not None:
            lines.append(f"until    {until(reason.until, now_us())}")
        facts = facts_of(record)
        if facts is not None:
            lines += [f"  {label:<10}  {line}" for label, line in told(record, facts)]
        elif reason.hint:
            lines.append(f"do       {one_line(reason.hint)}")
    given = payload_lines(log[0].payload)
    lines += ["input    " + given[0], *("         " + line for line in given[1:])]
    if story.steps:
        lines.append("steps")
        lines += [
            f"  {line}"
            for step in story.steps.values()
            for line in step_lines(session, step, story)
        ]
    if record.state is State.SUCCEEDED:
        result = payload_lines(log[-1].payload)
        lines += ["result   " + result[0], *("         " + line for line in result[1:])]
    elif record.state is State.FAILED:
        lines += _failure_lines(session, log[-1])
    elif record.state is State.CANCELLED:
        lines.append(f"end      cancelled {_why_short(record)}")
    elif record.state is State.TIMED_OUT:
        lines.append(f"end      timed out: {_why_short(record)}")
    return lines


def descent_lines(
    record: Execution, descents: list[Descent], log: list[Transition] | None = None
) -> list[str]:
    """Say of which execution this one was made, and which were made of it."""
    lines = []
    for one in descents:
        where = f" from {one_line(one.step)}" if one.step else ""
        if one.id == record.id:
            source: Any = ((log[0].data if log else None) or {}).get("from") or {}
            why = f": {one_line(source['why'])}" if source.get("why") else ""
            lines.append(f"made by  {one.mode} of {one.source_id}{where}{why}")
        else:
            lines.append(f"made     {one.id}, by {one.mode}{where}")
    return lines


def step_lines(session: Session, step: Step, story: Story) -> list[str]:
    """Tell a step in a line, and each attempt that failed in one more."""
    icon = session.paint(STEP_ICONS[step.status], STEP_COLOURS[step.status])
    began = story.started_at or story.created_at
    if step.ended_at is not None:
        when = f"at {clock(step.ended_at)}, +{in_words(step.ended_at - began)}"
        if step.since is not None:
            when += f", took {in_words(step.ended_at - step.since)}"
    elif step.retry_at is not None:
        when = f"again {until(step.retry_at, now_us())}"
    elif step.since is not None:
        when = f"since {clock(step.since)}, {in_words(now_us() - step.since)}"
    else:
        when = ""
    said = step.status if step.attempts == 1 else f"{step.status}, attempt {step.attempts}"
    name = one_line(step.key, 60) + (f' "{one_line(step.title, 60)}"' if step.title else "")
    if step.to and step.is_open:
        name += f" to {one_line(step.to, 60)}"
    lines = [f"{icon} {name:<28}  {said:<10}  {when}".rstrip()]
    if step.is_open and step.progress is not None and step.beat_at is not None:
        ago = in_words(now_us() - step.beat_at)
        lines.append(f"    said {ago} ago: {progress_said(step.progress)}")
    for failed in step.failures:
        said = one_line(f"{failed.type}: {failed.message}")
        lines.append(f"    attempt {failed.attempt} failed: {said}")
    if step.child is not None and step.status != "done":
        end = child_end_said(step.came_to, step.payload) if step.came_to else ""
        lines.append(f"    {step.child}  {end}".rstrip())
    elif step.status == "failed":
        lines.append(f"    {failure_said(step.payload)}")
    return lines


def _failure_lines(session: Session, last: Transition) -> list[str]:
    from outlast import failure

    recorded = failure.load(last.payload or b"{}")
    lines = ["error    " + session.paint(failure_said(last.payload, 400), "red")]
    return lines + ["         " + line for line in lines_of(recorded.traceback)]


def payload_lines(payload: bytes | None) -> list[str]:
    """Write a payload for people: indented where it is large, cut where it is huge."""
    if payload is None:
        return ["null"]
    if len(payload) <= 100:
        return lines_of(payload.decode("utf-8", "replace")) or [""]
    text = payload[: 50 * PAYLOAD_SHOWN_MAX].decode("utf-8", "replace")
    if len(payload) <= 50 * PAYLOAD_SHOWN_MAX:
        import msgspec

        text = msgspec.json.format(text, indent=2)
    if len(text) > PAYLOAD_SHOWN_MAX:
        text = f"{text[:PAYLOAD_SHOWN_MAX]}\n… ({len(payload)} bytes in all: -o json shows them)"
    return lines_of(text)


@click.command()
@click.argument("id")
@click.option("--payload", is_flag=True, help="With inputs, results and answers.")
@shared
def events(session: Session, id: str, payload: bool) -> None:
    """Show the log of an execution, one line a transition; with -o json one object a line."""
    with session.guest() as guest:
        id = guest.find(id)
        log = guest.log(id)
    if session.output == "ids":
        session.out(id)
        return
    for row in log:
        if session.as_json:
            from outlast.forms import transition_form

            session.json(transition_form(row, payload=payload), indent=False)
        else:
            session.out(event_line(row, colour=session.colours(sys.stdout)))
            if payload and row.payload is not None:
                for line in payload_lines(row.payload):
                    session.out(f"{'':24}{line}")


def event_line(row: Transition, *, colour: bool = False) -> str:
    """Tell a row of a log on one line: its place, its time, its kind, and what happened."""
    from outlast.cli.words import painted

    where = "" if row.from_state is row.to_state else f"  → {row.to_state}"
    said = sentence(row)
    style = COLOURS[row.to_state] if where else ""
    arrow = painted(where, style, colour=colour) if style else where
    return f"{row.seq:>5}  {clock(row.at)}  {row.kind:<16}  {said}{arrow}"


@click.command()
@click.argument("id")
@shared
def why(session: Session, id: str) -> None:
    """Say why an execution is not moving, and what to do about it."""
    from outlast.cli.stopping import stopping
    from outlast.engine.read.presence import no_taker

    with session.guest() as guest:
        id = guest.find(id)
        record = guest.record(id)
        owner, workers = guest.owner(), guest.serving()
        reason = (
            stopping(guest, record, owner)
            or no_taker(record, workers)
            or guest.standing(record, owner)
            or reason_with_hint(record, owner, workers)
        )
        descents = guest.store.descents([id])
        title = _question_title(guest, record)
    facts = facts_of(record)
    if session.as_json:
        from outlast.forms import reason_form

        form: dict[str, Any] = {"id": id, "state": record.state, "reason": reason_form(reason)}
        session.json({**form, "mismatch": facts} if facts is not None else form)
        return
    if reason is None:
        session.out(f"{id} ({one_line(record.task)}) has ended: {record.state}. Nothing holds it.")
        said = _why_short(record)
        if said:
            session.out(f"  because   {said}")
        for line in descent_lines(record, descents):
            session.out(f"  {line.replace('  ', '   ', 1)}")
        session.out(f"  do        outlast show {id}")
        return
    if facts is not None:
        session.out(f"✗ code_mismatch  {id} was recorded by different code")
        for label, line in told(record, facts):
            session.out(f"  {label:<10}  {line}")
        session.out(f"  {SAFE}")
        return
    age = in_words(now_us() - record.state_at)
    session.out(f"{id} ({one_line(record.task)}) has been {state_of(record, reason)} for {age}.")
    session.out(f"  because   {one_line(reason.text, 400)}")
    if title:
        session.out(f"  asks      {title}")
    if reason.until is not None:
        session.out(f"  until     {until(reason.until, now_us())}")
    for line in descent_lines(record, descents):
        session.out(f"  {line.replace('  ', '   ', 1)}")
    if reason.hint:
        session.out(f"  do        {one_line(reason.hint)}")


def _question_title(guest: Guest, record: Execution) -> str:
    if record.state is not State.AWAITING_INPUT:
        return ""
    try:
        return f'"{one_line(guest.question(record.id).title)}"'
    except (NotFound, UsageError):
        return ""


def reason_with_hint(
    record: Execution, owner: str | None, workers: Sequence[WorkerRow] = ()
) -> Reason | None:
    """Add what a row cannot know: whether an engine runs on this store at all.

    ``workers`` are those that live, where it is to be told whether the owner is one of them.
    """
    reason = reason_of(record)
    if reason is None:
        return None
    hint = reason.hint
    if record.state is State.QUEUED and owner is None:
        text, hint = (
            "no engine runs on this store",
            "outlast worker FILE, with the file that defines ",
        )
        return Reason(reason.code, text, reason.since, reason.until, f"{hint}{record.task}")
    if record.state is State.QUEUED:
        text = f"the engine ({owner}) has not taken it yet: it is full, or just about to"
        return Reason(reason.code, text, reason.since, reason.until, hint)
    if owner is None and not hint and record.state is not State.RUNNING:
        hint = "no engine runs on this store now: outlast worker FILE"
    if owner is None and record.is_leased:
        return Reason(
            "worker_lost",
            f"worker {record.worker} is gone; the next engine takes it back",
            reason.since,
            reason.until,
            "outlast worker FILE, or the same outlast run again",
        )
    if workers and record.is_leased and all(one.id != record.worker for one in workers):
        return Reason(
            "worker_silent",
            f"worker {record.worker} has renewed its lease no more; another one takes over",
            reason.since,
            reason.until,
            "outlast workers",
        )
    if record.state is State.PAUSED:
        hint = f"outlast resume {record.id}"
    elif record.state is State.SUSPENDED and record.id not in hint:
        hint = f"{hint}; outlast resume {record.id}, or outlast cancel {record.id}"
    return Reason(reason.code, reason.text, reason.since, reason.until, hint)
