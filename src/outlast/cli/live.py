"""The live tree on a terminal, drawn by Rich while an execution runs."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from outlast.cli.session import Session, is_interactive
from outlast.cli.words import (
    COLOURS,
    ICONS,
    STEP_COLOURS,
    STEP_ICONS,
    child_end_said,
    failure_said,
    now_us,
    one_line,
    progress_said,
    until,
    wait_said,
)
from outlast.duration import in_words
from outlast.errors import OutlastError
from outlast.lifecycle import FINAL, State, Transition
from outlast.story import Step, Story

if TYPE_CHECKING:
    from outlast.engine.guest import Guest

FRAMES: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
REDRAW_SECONDS: Final = 0.08
SPARE_LINES: Final = 6
"""Lines of the terminal that are left to the head, the waits and the prompt."""


class LiveView:
    """Shows an execution as a tree of its steps, and takes keys."""

    def __init__(
        self,
        session: Session,
        guest: Guest,
        id: str,
        peek: Callable[[], Mapping[str, tuple[int, int]]],
        *,
        is_ours: bool,
    ) -> None:
        self._session, self._guest, self._id, self._peek = session, guest, id, peek
        self._console = Console(no_color=not session.colours(sys.stdout), highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._keys = Keys() if is_interactive(sys.stdin) else None
        self._leave = "detach, it is kept" if is_ours else "leave, it goes on"
        self._began: dict[str, int] = {}
        self._drawn_at = 0.0
        self._note = ""
        self._live.start()

    def take(self, story: Story, rows: Sequence[Transition]) -> None:
        """Draw what has just been recorded."""
        self._note = ""
        self._draw(story)

    def tick(self, story: Story) -> str | None:
        """Draw again, if it is time; act on a key, or hand it on."""
        if time.monotonic() - self._drawn_at > REDRAW_SECONDS:
            self._draw(story)
        key = self._keys.pressed() if self._keys is not None else None
        if key == "a" and self._asks(story):
            self._apart(lambda: self._answer(story))
            return None
        if key == "c":
            self._apart(self._cancel)
            return None
        return key

    def close(self, story: Story) -> None:
        """Leave the last drawing on the terminal."""
        self._draw(story, is_last=True)
        self._live.stop()
        if self._keys is not None:
            self._keys.close()

    def _draw(self, story: Story, *, is_last: bool = False) -> None:
        self._drawn_at = time.monotonic()
        lines_max = (
            10_000 if is_last and story.state in FINAL else self._console.height - SPARE_LINES
        )
        lines = tree(story, self._in_flight(story), now_us(), lines_max=max(4, lines_max))
        if not is_last and self._keys is not None:
            lines.append(self._foot(story))
        self._live.update(Group(*lines), refresh=True)

    def _in_flight(self, story: Story) -> Mapping[str, tuple[int, int]]:
        """Say what is under way here, and note when it began: the log does not say."""
        bodies = self._peek()
        for key, (_, since) in bodies.items():
            self._began[key] = since
        for key in [key for key in self._began if key in story.steps]:
            step = story.steps[key]
            if step.since is None:
                step.since = self._began[key]
            if not step.is_open:
                del self._began[key]
        return bodies

    def _foot(self, story: Story) -> Text:
        answer = "[a]nswer  " if self._asks(story) else ""
        return Text(f"{self._note or answer + '[c]ancel  [d]etach: ' + self._leave}", style="dim")

    def _asks(self, story: Story) -> bool:
        return any(step.status == "asked" for step in story.steps.values())

    def _apart(self, act: Callable[[], None]) -> None:
        """Let the tree rest while somebody types."""
        self._live.stop()
        if self._keys is not None:
            self._keys.close()
        try:
            act()
        except OutlastError as error:
            self._note = f"{error.code}: {error.what}"
        except (KeyboardInterrupt, EOFError):
            self._note = "nothing was sent"
        except Exception as error:  # noqa: BLE001 - a prompt that was broken off says so in ways of its own
            self._note = f"nothing was sent: {type(error).__name__}"
        finally:
            if self._keys is not None:
                self._keys = Keys()
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()

    def _answer(self, story: Story) -> None:
        from outlast.cli.deciding import actor
        from outlast.cli.prompting import prompt

        asked = self._guest.questions(self._id)[0]
        value = prompt(asked.schema, one_line(asked.title))
        self._guest_for_writing(
            lambda guest: guest.answer(self._id, value, key=asked.key, actor=actor())
        )

    def _cancel(self) -> None:
        import click

        from outlast.cli.deciding import actor

        if click.confirm(f"cancel {self._id}?", err=True):
            self._guest_for_writing(lambda guest: guest.cancel(self._id, actor=actor()))

    def _guest_for_writing(self, act: Callable[[Guest], Any]) -> None:
        """Write beside the engine: its own connection is the journal's alone."""
        with self._session.guest() as guest:
            act(guest)


def tree(
    story: Story, in_flight: Mapping[str, tuple[int, int]], now: int, *, lines_max: int
) -> list[Text]:
    """Draw an execution: its head, its steps, and what it waits for."""
    lines = [_head(story, now)]
    steps = list(story.steps.values())
    known = {step.key for step in steps if step.is_open}
    for key, (attempt, since) in in_flight.items():
        if key not in known and key not in story.steps:
            steps.append(Step(key, "running", attempts=attempt, since=since))
    shown, hidden = _chosen(steps, lines_max)
    rows: list[Text] = []
    if hidden:
        rows.append(Text(f"{hidden} more finished steps", style="dim"))
    for step in shown:
        rows += _step(step, in_flight, now)
    if story.progress is not None and story.state not in FINAL:
        from outlast.cli.tree import progress_text

        rows.append(Text(f"… {progress_text(story.progress)}", style="cyan"))
    rows += _waits(story, now)
    for place, row in enumerate(rows):
        line = Text.assemble(("└─ " if place == len(rows) - 1 else "├─ ", "dim"))
        lines.append(line.append_text(row))
    return lines


def _chosen(steps: list[Step], lines_max: int) -> tuple[list[Step], int]:
    """Keep what is open, and the newest of the rest, as far as there is room."""
    if len(steps) <= lines_max:
        return steps, 0
    is_open = [step for step in steps if step.is_open][:lines_max]
    room = max(0, lines_max - len(is_open))
    kept = {id(step) for step in is_open}
    ended = [step for step in steps if not step.is_open]
    kept |= {id(step) for step in ended[len(ended) - room :]}
    return [step for step in steps if id(step) in kept], len(steps) - len(kept)


def _head(story: Story, now: int) -> Text:
    end = story.state_at if story.state in FINAL else now
    state = str(story.state).replace("_", " ") + (", cancelling" if story.is_cancelling else "")
    head = Text.assemble(
        (one_line(story.task, 40), "bold"),
        "  ",
        (story.id, "dim"),
        "  ",
        (f"{ICONS[story.state]} {state}", COLOURS[story.state]),
        f"  {in_words(end - story.created_at)}",
    )
    if story.state is State.SUSPENDED:
        head.append(f"  {one_line(story.reason.get('text', ''))}", style="magenta")
    if story.state is State.PAUSED:
        head.append(f"  outlast resume {story.id}", style="dim")
    return head


def _step(step: Step, in_flight: Mapping[str, tuple[int, int]], now: int) -> list[Text]:
    status = "running" if step.key in in_flight and step.is_open else step.status
    icon = FRAMES[now // 80_000 % len(FRAMES)] if status == "running" else STEP_ICONS[status]
    if step.ended_at is not None:
        took = in_words(step.ended_at - step.since) if step.since is not None else ""
    elif step.key in in_flight:
        took = in_words(now - in_flight[step.key][1])
    else:
        took = in_words(now - step.since) if step.since is not None else ""
    line = Text.assemble((icon, STEP_COLOURS[status]), f" {one_line(step.key, 40):<24} {took:>8}")
    if step.attempts > 1:
        last = step.failures[-1] if step.failures else None
        retries = f"{step.attempts - 1} retr{'y' if step.attempts == 2 else 'ies'}"
        line.append(
            f"   attempt {step.attempts} ({retries}"
            + (f": {one_line(last.type, 40)})" if last else ")")
        )
    if step.title:
        line.append(f'   "{one_line(step.title, 60)}"', style="bold" if status == "asked" else "")
    if step.is_open and step.progress is not None:
        line.append(f"   {progress_said(step.progress, 60)}", style="cyan")
    if status == "retrying" and step.retry_at is not None:
        line.append(f"   again {until(step.retry_at, now)}", style="yellow")
    if status == "failed":
        said = child_end_said(step.came_to, step.payload, 80) if step.came_to else ""
        line.append(f"   {said or failure_said(step.payload, 80)}", style="red")
    if status == "lost":
        line.append("   its worker is gone: it runs again", style="yellow")
    return [line]


def _waits(story: Story, now: int) -> list[Text]:
    """Show what it waits for, besides the questions and retries that are steps of their own."""
    rows = []
    for wait in story.waits:
        if wait.get("kind") in ("ask", "retry"):
            continue
        said = "timer" if wait.get("kind") == "timer" else wait_said(wait)
        when = f"until {until(int(wait['until']), now)}" if "until" in wait else ""
        rows.append(Text.assemble(("⏸ ", "blue"), f"{one_line(said, 40):<24} {when}"))
    return rows


class Keys:
    """Single keys of the terminal, without waiting for the end of a line."""

    def __init__(self) -> None:
        self._descriptor = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)

    def pressed(self) -> str | None:
        """Give a key that was pressed, or None."""
        ready, _, _ = select.select([self._descriptor], [], [], 0)
        if not ready:
            return None
        return os.read(self._descriptor, 1).decode("ascii", "replace").lower() or None

    def close(self) -> None:
        """Give the terminal back as it was."""
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)
