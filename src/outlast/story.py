"""What a log tells about an execution's steps: which there were, and what came of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from outlast import failure
from outlast.lifecycle import Kind, State, Transition

if TYPE_CHECKING:
    from outlast.store.protocol import ProgressRow


@dataclass(slots=True)
class Failed:
    """An attempt of a step that failed."""

    attempt: int
    at: int
    type: str
    message: str


@dataclass(slots=True)
class Step:
    """One durable call of an execution, as far as its log has it.

    The log has no row for the beginning of a step, unless it takes longer than a second.

    Attributes:
        key: its identity in the execution.
        status: running, done, failed, retrying, asked, answered, abandoned, or lost (under way when
            its worker died; it runs again).
        attempts: how many attempts there were, the present one included.
        since: since when it has been running, or asked; None where nobody noted it.
        ended_at: when its outcome was recorded.
        title: the question, of an ``ask``.
        to: who has to answer it now.
        retry_at: when the next attempt is due.
        failures: the attempts that failed and were followed by another.
        payload: its result, its answer, or its recorded failure.
        progress: what its last heartbeat said.
        beat_at: when that was.
        child: the execution that this call is, if it is one of its own.
        came_to: the state in which that one ended.
    """

    key: str
    status: str
    attempts: int = 1
    since: int | None = None
    ended_at: int | None = None
    title: str | None = None
    to: str | None = None
    retry_at: int | None = None
    failures: list[Failed] = field(default_factory=list)
    payload: bytes | None = None
    progress: bytes | None = None
    beat_at: int | None = None
    child: str | None = None
    came_to: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has no outcome yet."""
        return self.ended_at is None


@dataclass(slots=True)
class Story:
    """The present of an execution, told by its log; feed it rows in order."""

    id: str
    task: str = ""
    state: State = State.QUEUED
    created_at: int = 0
    started_at: int | None = None
    state_at: int = 0
    seq: int = 0
    claims: int = 0
    is_cancelling: bool = False
    steps: dict[str, Step] = field(default_factory=dict)
    waits: list[Mapping[str, Any]] = field(default_factory=list)
    reason: Mapping[str, Any] = field(default_factory=dict)
    last: Transition | None = None
    copies: dict[int, bytes | None] = field(default_factory=dict)
    progress: ProgressRow | None = None  # beside the log: who watches looks it up

    def feed(self, rows: Iterable[Transition]) -> None:
        """Take further rows in."""
        for row in rows:
            self._take(row)

    @property
    def done(self) -> int:
        """How many steps are recorded as done."""
        return sum(step.status in ("done", "answered") for step in self.steps.values())

    def _take(self, row: Transition) -> None:
        self.seq, self.last = row.seq, row
        if row.to_state is not self.state or row.seq == 1:
            self.state, self.state_at = row.to_state, row.at
            self.waits, self.reason = [], row.data or {}
        teller = _TAKERS.get(row.kind)
        if teller is not None:
            teller(self, row, row.data or {})
        if self.state in _ENDS:
            self.is_cancelling = False
            self._leave_open("abandoned", row.at)

    def _step(self, row: Transition) -> Step:
        key = row.key or ""
        if key not in self.steps:
            self.steps[key] = Step(key, "running")
        return self.steps[key]

    def _leave_open(self, status: str, ended_at: int | None = None) -> None:
        """Nobody runs the bodies any more that were under way; at the end, nothing is awaited."""
        for step in self.steps.values():
            if step.child is not None and ended_at is None:
                continue  # it goes on by itself
            if step.is_open and (ended_at is not None or step.status == "running"):
                step.status, step.ended_at = status, ended_at


def _create(story: Story, row: Transition, data: Mapping[str, Any]) -> None:
    story.task, story.created_at = str(data.get("task", "")), row.at


def _claim(story: Story, row: Transition, data: Mapping[str, Any]) -> None:
    story.claims += 1


def _start(story: Story, row: Transition, data: Mapping[str, Any]) -> None:
    story.started_at = story.started_at or row.at


def _done(story: Story, row: Transition, data: Mapping[str, Any]) -> None:
    step = story._step(row)
    if "reused" in data and step.ended_at is not None:
        return
    copied = story.copies.get(data.get("reused", 0))
    step.status = "failed" if data.get("failed") else "done"
    step.attempts = int(data.get("attempts", 1))
    step.ended_at, step.retry_at = row.at, None
    step.payload = row.payload if copied is None else copied


def _attempt_failed(story: Story, row: Transition, data: Mapping[str, Any]) -> None:
    step = story._step(row)
    attempt = int(data.get("attempt", 1))
    name, message = failure_of(row.payload)
    step.failures.append(Failed(attempt, row.at, name, message))
    step.status, step.attempts, step.since = "retrying", attempt + 1, None
    step.retry_at = int(data.get("retry_at", row.at))


def _announced(story: Story, row: Transition, data: Mapping[str, Any]) -> None:
    step = story._step(row)
    question = data.get("question")
    if question:
        step.status, step.title, step.to = "asked", question.get("title"), question.get("to")
        step.since = question.get("asked_at", row.at)
    elif step.is_open:
        step.child = data.get("child", step.child)
        step.status, step.attempts = "running", int(data.get("attempt", 1))
        step.since = int(data.get("since", row.at))
        if row.payload is not None:
            step.progress, step.beat_at = row.payload, int(data.get("beat_at") or row.at)


def _child_ended(story: Story, row: Transition, data: Mapping[str, Any]) -> None:
    step = story._step(row)
    if not step.is_open and step.ended_at is not None:
        return  # told before, or nobody waited for it any more
    step.child, step.came_to = data.get("child", step.child), data.get("state")
    step.status = "done" if step.came_to == State.SUCCEEDED else "failed"
    step.ended_at, step.payload = row.at, row.payload
    if "reused" in data:
        step.payload = story.copies.get(data["reused"], row.payload)


def _answered(story: Story, row: Transition, data: Mapping[str, Any]) -> None:
    step = story._step(row)
    if step.status != "abandoned":  # else the answer came too late
        step.status, step.ended_at, step.payload = "answered", row.at, row.payload


def _abandoned(story: Story, row: Transition, data: Mapping[str, Any]) -> None:
    step = story._step(row)
    if step.is_open:
        step.status, step.ended_at = "abandoned", row.at


def _wait(story: Story, row: Transition, data: Mapping[str, Any]) -> None:
    story.waits = list(data.get("waits", ()))
    asked = {wait.get("key") for wait in story.waits if wait.get("kind") == "ask"}
    for step in story.steps.values():  # what is not waited for any more leaves no row of its own
        if step.status == "asked" and step.key not in asked:
            step.status, step.ended_at = "abandoned", row.at


def _lost(story: Story, row: Transition, data: Mapping[str, Any]) -> None:
    story._leave_open("lost")


def _cancelling(story: Story, row: Transition, data: Mapping[str, Any]) -> None:
    story.is_cancelling = True


def _copied(story: Story, row: Transition, data: Mapping[str, Any]) -> None:
    if "reusable" in data:
        story.copies[row.seq] = row.payload


_ENDS: Final = (State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.CANCELLED)
_TAKERS: Final[dict[Kind, Any]] = {
    Kind.CREATE: _create,
    Kind.CLAIM: _claim,
    Kind.START: _start,
    Kind.STEP: _done,
    Kind.ATTEMPT_FAILED: _attempt_failed,
    Kind.STEP_ANNOUNCED: _announced,
    Kind.INPUT_RECEIVED: _answered,
    Kind.CHILD_FINISHED: _child_ended,
    Kind.CALL_ABANDONED: _abandoned,
    Kind.WAIT: _wait,
    Kind.WORKER_LOST: _lost,
    Kind.LEASE_EXPIRED: _lost,
    Kind.RELEASE: _lost,
    Kind.CANCEL_REQUESTED: _cancelling,
    Kind.ANNOTATION: _copied,
}


def story_of(id: str, rows: Iterable[Transition]) -> Story:
    """Tell a whole log."""
    story = Story(id)
    story.feed(rows)
    return story


def failure_of(payload: bytes | None) -> tuple[str, str]:
    """Read the class and the text of a recorded failure."""
    said = failure.load(payload or b"{}")
    return said.type.partition(":")[2] or said.type, said.message
