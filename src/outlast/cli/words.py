"""The words, icons and colours of the terminal, and how rows of a log are told."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from outlast.duration import in_words
from outlast.lifecycle import Execution, Kind, Reason, State, Transition
from outlast.lifecycle.reason import pattern

ICONS: Final[dict[State, str]] = {
    State.SCHEDULED: "◷",
    State.QUEUED: "○",
    State.BLOCKED: "⊟",
    State.STARTING: "◌",
    State.RUNNING: "●",
    State.AWAITING_INPUT: "?",
    State.WAITING: "⏸",
    State.RETRY_WAIT: "↻",
    State.PAUSED: "‖",
    State.SUSPENDED: "!",
    State.SUCCEEDED: "✓",
    State.FAILED: "✗",
    State.TIMED_OUT: "⧖",
    State.CANCELLED: "⊘",
}
COLOURS: Final[dict[State, str]] = {
    State.SCHEDULED: "blue",
    State.QUEUED: "blue",
    State.BLOCKED: "magenta",
    State.STARTING: "cyan",
    State.RUNNING: "cyan",
    State.AWAITING_INPUT: "yellow",
    State.WAITING: "blue",
    State.RETRY_WAIT: "yellow",
    State.PAUSED: "yellow",
    State.SUSPENDED: "magenta",
    State.SUCCEEDED: "green",
    State.FAILED: "red",
    State.TIMED_OUT: "red",
    State.CANCELLED: "bright_black",
}
STEP_ICONS: Final = {
    "running": "⠹",
    "done": "✓",
    "failed": "✗",
    "retrying": "↻",
    "asked": "?",
    "answered": "✓",
    "abandoned": "⊘",
    "lost": "~",
}
STEP_COLOURS: Final = {
    "running": "cyan",
    "done": "green",
    "failed": "red",
    "retrying": "yellow",
    "asked": "yellow",
    "answered": "green",
    "abandoned": "bright_black",
    "lost": "yellow",
}
_CODES: Final = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "bright_black": "90",
}


def painted(text: str, style: str, *, colour: bool) -> str:
    """Colour a text, where colours are wanted."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if colour and text else text


def one_line(text: object, size_max: int = 200) -> str:
    """Write a text of somebody else's so that it can do a terminal no harm, on one line."""
    line = " ".join(str(text).split())
    safe = "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)
    return safe if len(safe) <= size_max else safe[: size_max - 1] + "…"


def lines_of(text: str) -> list[str]:
    """Write a text of several lines so that it can do a terminal no harm."""
    return [
        "".join(char if char.isprintable() else repr(char)[1:-1] for char in line.expandtabs(4))
        for line in text.splitlines()
    ]


def state_of(record: Execution, reason: Reason | None = None) -> str:
    """Say the state, with what is under way beside it."""
    if record.is_final:
        return record.state
    if record.cancel_at is not None or (reason is not None and reason.code == "cancelling"):
        return f"{record.state}, cancelling"
    if record.pause_at is not None:
        return f"{record.state}, pausing"
    return record.state


def clock(at_us: int) -> str:
    """Write an instant as the time of day, local, to the millisecond."""
    return (
        f"{time.strftime('%H:%M:%S', time.localtime(at_us // 1_000_000))}.{at_us // 1000 % 1000:03}"
    )


def moment(at_us: int) -> str:
    """Write an instant with its date, local, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_us // 1_000_000))


def until(at_us: int, now_us: int) -> str:
    """Say when something will be, and how far away that is."""
    left = at_us - now_us
    said = clock(at_us)[:8] if abs(left) < 86_400_000_000 else moment(at_us)
    return f"{said} ({in_words(left) + ' left' if left > 0 else 'due'})"


def now_us() -> int:
    """Give the time, as the log counts it."""
    return time.time_ns() // 1000


def failure_said(payload: bytes | None, size_max: int = 200) -> str:
    """Say a recorded failure on one line."""
    from outlast.story import failure_of

    name, message = failure_of(payload)
    return one_line(f"{name}: {message}" if message else name, size_max)


def progress_said(details: bytes, size_max: int = 80) -> str:
    """Say on one line what a heartbeat said: a text as it is, all else as JSON."""
    import msgspec

    value = msgspec.json.decode(details)
    return one_line(value if isinstance(value, str) else details.decode(), size_max)


def sentence(row: Transition) -> str:
    """Tell a row of the log to people, without its place and time."""
    data: Mapping[str, Any] = row.data or {}
    teller = _TELLERS.get(row.kind)
    said = teller(row, data) if teller is not None else str(row.kind).replace("_", " ")
    return one_line(said, 400)


def _create(row: Transition, data: Mapping[str, Any]) -> str:
    said = f"{data.get('task')} created, {row.to_state}"
    source = data.get("from")
    if source:
        where = f" from {source['step']}" if source.get("step") else ""
        said += f", by {source['mode']} of {source['id']}{where}"
    return said if row.actor == "user" else f"{said}, by {row.actor}"


def _step(row: Transition, data: Mapping[str, Any]) -> str:
    attempts = data.get("attempts", 1)
    if data.get("failed"):
        tries = f" after {attempts} attempts" if attempts > 1 else ""
        return f"{row.key} failed{tries}: {failure_said(row.payload)}"
    if "reused" in data:
        return f"{row.key} done before, in row {data['reused']}"
    return f"{row.key} done" + (f" at attempt {attempts}" if attempts > 1 else "")


def _attempt_failed(row: Transition, data: Mapping[str, Any]) -> str:
    delay = in_words(int(data.get("retry_at", row.at)) - row.at)
    said = failure_said(row.payload)
    return f"{row.key} attempt {data.get('attempt')} failed: {said}; again in {delay}"


def _announced(row: Transition, data: Mapping[str, Any]) -> str:
    question = data.get("question")
    if question:
        to = f" of {question['to']}" if question.get("to") else ""
        if question.get("late"):
            late = f", as {question['late']} did not answer in time"
            return f'{row.key} now asks{to or " everybody"}{late}: "{question["title"]}"'
        if question.get("refused"):
            return f'{row.key} asks{to} anew ({question["refused"]}): "{question["title"]}"'
        return f'{row.key} asks{to}: "{question["title"]}"'
    if "child" in data:
        return f"{row.key} started as {data['child']}"
    said = f"{row.key} is under way, attempt {data.get('attempt', 1)}"
    return said if row.payload is None else f"{said}: {progress_said(row.payload)}"


def child_end_said(state: object, payload: bytes | None, size_max: int = 200) -> str:
    """Say what a child came to."""
    if state == State.FAILED:
        return f"failed: {failure_said(payload, size_max)}"
    return "done" if state == State.SUCCEEDED else str(state).replace("_", " ")


def _child_finished(row: Transition, data: Mapping[str, Any]) -> str:
    return f"{row.key} {child_end_said(data.get('state'), row.payload)}"


def _finish(row: Transition, data: Mapping[str, Any]) -> str:
    return f"goes on as {data['continued_as']}" if "continued_as" in data else "succeeded"


SAID_MAX: Final = 4
"""How many of the things an execution waits for are named."""


def _wait(row: Transition, data: Mapping[str, Any]) -> str:
    waits = data.get("waits", ())
    said = [wait_said(wait) for wait in waits if wait.get("kind") != "timer"]
    if len(said) > SAID_MAX:
        said = [*said[: SAID_MAX - 1], f"{len(said) - SAID_MAX + 1} more"]
    things = " and ".join(said)
    times = " and ".join(wait_said(wait) for wait in waits if wait.get("kind") == "timer")
    return "waits for " + ", or for ".join(filter(None, (things, times)))


def wait_said(wait: Mapping[str, Any]) -> str:
    """Say one of the things an execution waits for."""
    kind = wait.get("kind")
    if kind == "ask":
        return f'an answer to "{wait.get("title")}"'
    if kind == "timer":
        return f"{clock(int(wait['until']))[:8]}" if "until" in wait else "a timer"
    if kind == "retry":
        return f"the next attempt of {wait.get('key')}"
    if kind == "event":
        return f"the signal {wait.get('title')}{pattern(wait)}"
    if wait.get("more"):
        return f"{wait['more']} more children"
    return f"{kind} {wait.get('title') or wait.get('key') or ''}".rstrip()


_CAUSES: Final = {
    "timer": "its time has come",
    "wait_expired": "nobody answered in time",
    "input": "an answer came",
    "event": "a signal came",
    "child": "another execution ended",
    "operator": "somebody resumed it",
    "unpause": "somebody resumed it",
    "budget": "it has a budget again",
}


def _resume(row: Transition, data: Mapping[str, Any]) -> str:
    cause = str(data.get("cause", "operator"))
    return f"goes on: {_CAUSES.get(cause, cause)}"


def _by(verb: str) -> Any:
    def said(row: Transition, data: Mapping[str, Any]) -> str:
        why = f": {data['why']}" if data.get("why") else ""
        return f"{verb} by {data.get('by') or row.actor}{why}"

    return said


def _suspend(row: Transition, data: Mapping[str, Any]) -> str:
    return f"suspended, {data.get('code')}: {data.get('text')}"


def _task_retry(row: Transition, data: Mapping[str, Any]) -> str:
    delay = in_words(int(data.get("due_at") or row.at) - row.at)
    return f"failed: {failure_said(row.payload)}; the whole task again in {delay}"


def _fixed(text: str) -> Any:
    return lambda row, data: text


def _annotation(row: Transition, data: Mapping[str, Any]) -> str:
    if "reusable" in data:
        return f"{row.key or 'a point'} can be reused, from row {data['reusable']} of its source"
    if "point" in data:
        return "from here on it goes on by itself"
    if "spent" in data:
        from outlast.budget import shown  # few logs speak of money

        amounts = ", ".join(f"{meter} {shown(amount)}" for meter, amount in data["spent"].items())
        return f"spent {amounts}"
    if "over_budget" in data:
        return f"comes back: {data['over_budget']}"
    return f"asked again: {data['again']}" if "again" in data else "a remark"


_BUDGET: Final = {"soft": "is at its soft limit", "spent_up": "is spent", "set": "was set"}


def _budget_changed(row: Transition, data: Mapping[str, Any]) -> str:
    """Tell what happened to a budget; ``key`` names it, or its scope where a person did it."""
    from outlast.budget import shown  # few logs speak of money

    what = _BUDGET.get(str(data.get("what")), f"was {data.get('what')}")
    sums = []
    for meter, said in (data.get("meters") or {}).items():
        limit = "" if said["limit"] is None else f" of {shown(said['limit'])}"
        sums.append(f"{meter} {shown(said['spent'])}{limit} spent")
    by = "" if row.actor == "engine" else f" by {row.actor}"
    return f"budget {row.key} {what}{by}: {', '.join(sums)}"


_TELLERS: Final[dict[Kind, Any]] = {
    Kind.ANNOTATION: _annotation,
    Kind.BUDGET_CHANGED: _budget_changed,
    Kind.LABELS_CHANGED: lambda row, data: (
        "labels: " + ", ".join(f"{n}={v or ''}" for n, v in (data.get("labels") or {}).items())
    ),
    Kind.PRIORITY_CHANGED: lambda row, data: f"priority {data.get('priority')}",
    Kind.CREATE: _create,
    Kind.PROMOTE: _fixed("its time has come: queued"),
    Kind.BLOCK: lambda row, data: f"waits at the gate {data.get('gate')}",
    Kind.UNBLOCK: lambda row, data: f"the gate {data.get('gate')} is open again",
    Kind.CLAIM: lambda row, data: f"claimed by {data.get('worker')}",
    Kind.RELEASE: _fixed("handed back at a safe point"),
    Kind.LEASE_EXPIRED: _fixed("its worker is gone, before it began"),
    Kind.WORKER_LOST: _fixed("its worker is gone; what is recorded stays done"),
    Kind.START: _fixed("runs"),
    Kind.STEP: _step,
    Kind.ATTEMPT_FAILED: _attempt_failed,
    Kind.STEP_ANNOUNCED: _announced,
    Kind.CALL_ABANDONED: lambda row, data: f"{row.key} is not awaited any more",
    Kind.CHILD_FINISHED: _child_finished,
    Kind.TIMER_FIRED: lambda row, data: f"{row.key} fired",
    Kind.INPUT_RECEIVED: lambda row, data: f"{row.key} answered by {row.actor}",
    Kind.SIGNAL_RECEIVED: lambda row, data: f"signal {row.key} came from {row.actor}",
    Kind.WAIT: _wait,
    Kind.RESUME: _resume,
    Kind.PAUSE: _by("paused"),
    Kind.UNPAUSE: _by("let go on"),
    Kind.PAUSE_REQUESTED: _by("a pause was asked for"),
    Kind.CANCEL_REQUESTED: _by("a cancel was asked for"),
    Kind.SUSPEND: _suspend,
    Kind.RETRY: _task_retry,
    Kind.RETRY_DUE: _fixed("due again: queued"),
    Kind.FINISH: _finish,
    Kind.ERROR: lambda row, data: f"failed: {failure_said(row.payload)}",
    Kind.CANCEL: _by("cancelled"),
    Kind.DEADLINE: lambda row, data: (
        "it had not begun in time: timed out"
        if data.get("why") == "not_started"
        else "its deadline has passed: timed out"
    ),
}
