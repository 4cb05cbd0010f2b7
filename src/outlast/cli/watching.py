"""Look on while an execution runs: a live tree, plain lines or NDJSON; then its outcome."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

from outlast.cli.exits import FAILED, INTERRUPTED, OK
from outlast.cli.problems import Ended
from outlast.cli.session import Session, is_interactive, shared, span_of
from outlast.cli.words import ICONS, clock, now_us, one_line, painted, sentence
from outlast.duration import in_words
from outlast.errors import (
    ExecutionCancelled,
    ExecutionFailed,
    ExecutionNotStarted,
    ExecutionTimedOut,
    OutlastError,
    ReplayMismatch,
    StepFailed,
    UsageError,
    WaitTimeout,
)
from outlast.lifecycle import FINAL, Execution, State, Transition
from outlast.lifecycle.record import continued_as
from outlast.story import Story, failure_of

if TYPE_CHECKING:
    from outlast.engine.guest import Guest
    from outlast.store.protocol import ProgressRow

PROGRESS_SECONDS: Final = 0.25
"""How often a watcher looks how far an execution says it is."""
Outcome = tuple[Execution, Transition]
Peek = Callable[[str], Mapping[str, tuple[int, int]]]
"""Tells which step bodies of an execution are under way in this process: attempt and beginning."""


@click.command()
@click.argument("id", required=False)
@click.option("--timeout", metavar="DURATION", help="How long to wait.")
@click.option("--task", metavar="NAME", help="Without ID: executions of this task.")
@click.option("--prefix", metavar="TEXT", help="Without ID: of tasks whose names begin so.")
@click.option("--state", metavar="STATES", help="Without ID: what led to one of these states.")
@click.option("--transition", metavar="KINDS", help="Without ID: these transitions.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Without ID: with it.")
@click.option("--after", metavar="CURSOR", help="Without ID: behind this event, or oldest.")
@shared
def watch(session: Session, id: str | None, timeout: str | None, **filters: Any) -> int:
    """Look on while an execution runs, until it ends; Ctrl-C stops looking, it goes on.

    On a terminal a live tree; into a pipe one plain line a transition; with -o json one object a
    line. The last thing it prints is the result.

    Without an ID it shows what happens to all executions, from now on or behind a cursor (with -o
    json each event has one), until Ctrl-C or --timeout.
    """
    from outlast.cli.signals import Signals

    wait_us = span_of("--timeout", timeout)
    if id is None:
        from outlast.cli.following import follow_all

        return follow_all(session, wait_us, filters)
    if any(filters.values()):
        raise UsageError("an execution is watched whole", do="leave the ID, or the filter, out")
    with Signals() as signals, session.guest() as guest:
        id = guest.find(id)
        watching = Watch(session, guest, id, is_ours=False)
        if guest.owner() is None and not guest.record(id).is_final:
            session.say("no engine runs on this store now: outlast worker FILE")
        ended = watching.follow(signals.came, wait_us)
        if ended is None:
            return watching.left_off(signals.came(), f"outlast watch {id}")
    return conclude(session, ended, log=watching.rows)


class View(Protocol):
    """Shows an execution as it goes on."""

    def take(self, story: Story, rows: Sequence[Transition]) -> None:
        """Show what has just been recorded."""

    def tick(self, story: Story) -> str | None:
        """Show that time passes; gives the key that somebody pressed, if any."""

    def close(self, story: Story) -> None:
        """Show the last of it."""


class Watch:
    """Follows one execution and shows it; where it goes on as a new one, that one."""

    def __init__(
        self, session: Session, guest: Guest, id: str, *, is_ours: bool, peek: Peek | None = None
    ) -> None:
        self._session, self._guest, self._id = session, guest, id
        self._is_ours = is_ours
        self._peek: Peek = peek or (lambda id: {})
        self._look_at = 0.0
        self.story = Story(id)
        self.rows: list[Transition] = []

    def follow(self, stop: Callable[[], bool], wait_us: int | None) -> Outcome | None:
        """Show it until it has ended; None if somebody wants to stop, or the wait is over."""
        give_up_at = None if wait_us is None else time.monotonic() + wait_us / 1e6
        self._timed_out = False
        while (ended := self._follow_one(stop, give_up_at)) is not None:
            successor = continued_as(ended[0])
            if successor is None:
                return ended
            self._id, self.story, self.rows = successor, Story(successor), []
        return None

    def _follow_one(self, stop: Callable[[], bool], give_up_at: float | None) -> Outcome | None:
        view = self._view()
        try:
            for rows in self._guest.follow(self._id):
                self._look_at_progress(at_once=bool(rows) and rows[-1].to_state in FINAL)
                if rows:
                    self.rows += rows
                    self.story.feed(rows)
                    view.take(self.story, rows)
                    if self.story.state in FINAL:
                        return self._guest.record(self._id), rows[-1]
                    if self._is_ours and self._mismatch():
                        raise self._mismatch_error()
                key = view.tick(self.story)
                if stop() or key == "d":
                    return None
                if give_up_at is not None and time.monotonic() > give_up_at:
                    self._timed_out = True
                    return None
            raise AssertionError("a log ends with a final row")
        finally:
            view.close(self.story)

    def _look_at_progress(self, *, at_once: bool) -> None:
        """See how far it says it is, a few times a second."""
        now = time.monotonic()
        if not at_once and now < self._look_at:
            return
        self._look_at = now + PROGRESS_SECONDS
        row = self._guest.store.progress([self._id]).get(self._id)
        if row is not None:
            self.story.progress = row

    def left_off(self, is_signal: bool, again: str) -> int:
        """Say how to come back; gives the exit code.

        Raises:
            WaitTimeout: the wait was over.
        """
        if self._timed_out and not is_signal:
            raise WaitTimeout(
                f"{self._id} has not ended in time",
                where=f"{self._id}, {self.story.state}",
                why="the wait that --timeout allows is over",
                do=f"{again}\noutlast why {self._id}",
            )
        done = self.story.done
        self._session.say(
            f"detached: {self._id} is kept, {done} step{'s' if done != 1 else ''} done"
            if self._is_ours
            else f"{self._id} goes on"
        )
        self._session.say(f"go on with   {again}")
        return INTERRUPTED

    def _mismatch(self) -> bool:
        story = self.story
        return story.state is State.SUSPENDED and story.reason.get("code") == "code_mismatch"

    def _mismatch_error(self) -> Ended:
        from outlast.cli.mismatch import difference

        reason = self.story.reason
        error = ReplayMismatch(
            "this execution was recorded by different code",
            where=f"{self._id}, task {self.story.task}, row {reason.get('seq', self.story.seq)}",
            why=str(reason.get("text", "")),
            do="bring the old code back and type the same command: it goes on\n"
            "the same command with --new: start afresh with the new code\n"
            f"outlast cancel {self._id}: give it up",
        )
        said = [f"{label:<10}  {line}" for label, line in difference(reason)]
        error.why = "\n".join([error.why or "", *said])
        return Ended(error, code=FAILED)

    def _view(self) -> View:
        session = self._session
        if session.as_json:
            return JsonView(session)
        if session.quiet or session.output == "ids":
            return NoView()
        if is_interactive(sys.stdout, sys.stderr):
            from outlast.cli.live import LiveView

            id = self._id
            return LiveView(session, self._guest, id, lambda: self._peek(id), is_ours=self._is_ours)
        return PlainView(session, to_stdout=not self._is_ours)


class NoView:
    """Shows nothing."""

    def take(self, story: Story, rows: Sequence[Transition]) -> None:
        """Show nothing."""

    def tick(self, story: Story) -> str | None:
        """Show nothing."""
        return None

    def close(self, story: Story) -> None:
        """Show nothing."""


class JsonView(NoView):
    """One JSON object a transition, on stdout."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def take(self, story: Story, rows: Sequence[Transition]) -> None:
        """Write each row."""
        from outlast.forms import transition_form

        for row in rows:
            self._session.json(transition_form(row), indent=False)


class PlainView(NoView):
    """One plain line a transition."""

    def __init__(self, session: Session, *, to_stdout: bool) -> None:
        self._session, self._to_stdout = session, to_stdout
        self._said: ProgressRow | None = None

    def tick(self, story: Story) -> str | None:
        """Write how far it says it is, where that is new."""
        row = story.progress
        if row is not None and row != self._said:
            from outlast.cli.tree import progress_text

            self._said = row
            line = f"{clock(row.at)}  … {progress_text(row)}"
            (self._session.out if self._to_stdout else self._session.say)(line)
        return None

    def take(self, story: Story, rows: Sequence[Transition]) -> None:
        """Write each row."""
        self.tick(story)
        for row in rows:
            line = plain_line(row, colour=self._session.colours(sys.stderr) and not self._to_stdout)
            (self._session.out if self._to_stdout else self._session.say)(line)
            if row.to_state is State.AWAITING_INPUT and row.from_state is not State.AWAITING_INPUT:
                for hint in hints(row):
                    self._session.say(f"{'':14}  → {hint}")


def hints(row: Transition) -> list[str]:
    """Say by which commands others give what an execution waits for."""
    waits: Any = (row.data or {}).get("waits") or ()
    said = {
        "ask": f"outlast answer {row.execution_id}",
        "event": f"outlast signal {row.execution_id} NAME",
    }
    return [
        said[kind] for kind in dict.fromkeys(wait.get("kind") for wait in waits) if kind in said
    ]


def plain_line(row: Transition, *, colour: bool = False) -> str:
    """Tell a transition on one line."""
    icon = ICONS[row.to_state]
    time_said = painted(clock(row.at), "dim", colour=colour)
    return f"{time_said}  {icon} {sentence(row)}"


def conclude(session: Session, ended: Outcome, *, log: Sequence[Transition] = ()) -> int:
    """Say what an execution came to: its result on stdout, or its error; gives the exit code.

    Raises:
        Ended: it did not succeed.
    """
    from outlast.forms import execution_form, outcome_form

    record, last = ended
    id = record.id
    if session.as_json:
        form = {"type": "execution", **execution_form(record), **outcome_form(record, last)}
        session.json(form, indent=False)
        return OK if record.state is State.SUCCEEDED else FAILED
    if session.output == "ids":
        session.out(id)
    if record.state is not State.SUCCEEDED:
        raise _failed(record, last, log)
    if not is_interactive(sys.stdout, sys.stderr):
        session.say(
            f"{clock(now_us())}  {ICONS[record.state]} {id} succeeded in "
            f"{in_words(record.state_at - record.created_at)}"
        )
    if session.output != "ids":
        session.out(_result(last.payload, pretty=sys.stdout.isatty()))
    return OK


def _result(payload: bytes | None, *, pretty: bool) -> str:
    data = payload if payload is not None else b"null"
    if pretty and len(data) > 80:
        import msgspec

        data = msgspec.json.format(data, indent=2)
    return data.decode()


def _failed(record: Execution, last: Transition, log: Sequence[Transition]) -> Ended:
    where = f"{record.id}, task {record.task}"
    if record.state is State.CANCELLED:
        detail = record.detail or {}
        why = f"by {detail.get('by', last.actor)}" + (
            f": {detail['why']}" if detail.get("why") else ""
        )
        return Ended(
            ExecutionCancelled(
                "it was cancelled",
                where=where,
                why=one_line(why, 400),
                do=f"outlast show {record.id}",
            )
        )
    if record.state is State.TIMED_OUT and (record.detail or {}).get("why") == "not_started":
        said = "it had not begun in time"
        return Ended(ExecutionNotStarted(said, where=where, do=f"outlast show {record.id}"))
    if record.state is State.TIMED_OUT:
        said = "it did not end before its deadline"
        return Ended(ExecutionTimedOut(said, where=where, do=f"outlast show {record.id}"))
    from outlast import failure

    recorded = failure.load(last.payload or b"{}")
    name, message = failure_of(last.payload)
    rebuilt = failure.rebuild(recorded)
    if isinstance(rebuilt, OutlastError) and not isinstance(rebuilt, StepFailed):
        rebuilt.where = (
            rebuilt.where
            if record.id in rebuilt.where
            else f"{where}, {rebuilt.where.removeprefix(f'task {record.task}, ')}".rstrip(", ")
        )
        rebuilt.do = rebuilt.do or f"outlast show {record.id}"
        return Ended(rebuilt, recorded.traceback)
    error = ExecutionFailed(
        one_line(f"{name}: {message}" if message else name, 2_000),
        where=where + _step_of(log, last),
        do=f"outlast show {record.id}      every step and attempt",
    )
    return Ended(error, recorded.traceback)


def _step_of(log: Sequence[Transition], last: Transition) -> str:
    """Name the step that failed last, if it failed with just this error."""
    for row in reversed(log):
        if row.data and row.data.get("failed"):
            attempts = row.data.get("attempts", 1)
            tries = f" after {attempts} attempts" if attempts != 1 else ""
            same = failure_of(row.payload) == failure_of(last.payload)
            return f", step {row.key}{tries}" if same else ""
    return ""
