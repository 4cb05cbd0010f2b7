"""Why is it not moving? Every open execution has one answer, a function of its row.

What a row cannot know (whether any worker serves the queue, which steps are in flight) the floors
above add to ``hint``; the code and the text are these everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from outlast.lifecycle.record import Data, Execution
from outlast.lifecycle.states import FINAL, State


class Reason(Struct, frozen=True):
    """Why an open execution is where it is.

    Attributes:
        code: a stable snake_case word.
        text: the same in a sentence, without the execution's name.
        since: since when, in microseconds since 1970.
        until: when it ends by itself, or None.
        hint: what somebody can do, or "".
    """

    code: str
    text: str
    since: int
    until: int | None = None
    hint: str = ""


def reason_of(record: Execution) -> Reason | None:
    """Give the reason of an open execution; None for one that has ended."""
    if record.state in FINAL:
        return None
    code, text, hint = _REASONS[record.state](record, record.detail or {})
    until = record.due_at
    if record.cancel_at is not None:
        text = f"a cancel was requested; {text}"
        if record.state is not State.SUSPENDED:  # else nothing is under way
            code = "cancelling"
    return Reason(code, text, record.state_at, until, hint)


def pattern(wait: Data) -> str:
    """Say which signals of a name are waited for, if not all."""
    if "match" in wait:
        return f" with {json.dumps(wait['match'], ensure_ascii=False)}"
    return f" that passes {wait['test']}" if "test" in wait else ""


Answer = tuple[str, str, str]


def _scheduled(record: Execution, detail: Data) -> Answer:
    if detail.get("waits_on"):
        return _dependency(record, detail["waits_on"])
    return "start_time", f"its start time lies ahead: {_written(record.due_at or 0)}", ""


def _dependency(record: Execution, waits_on: object) -> Answer:
    edges = list(waits_on) if isinstance(waits_on, list | tuple) else []
    failed = [edge for edge in edges if edge.get("ended")]
    if failed:
        said = ", ".join(f"{edge['id']} ended as {edge['ended']}" for edge in failed)
        hint = f"outlast resume {record.id}   starts it all the same"
        return "dependency_failed", f"it is held because {said}", hint
    named = ", ".join(str(edge["id"]) for edge in edges[:3])
    more = f" and {len(edges) - 3} more" if len(edges) > 3 else ""
    return "dependency", f"it waits for {named}{more} to end", f"outlast why {edges[0]['id']}"


def _queued(record: Execution, detail: Data) -> Answer:
    if record.pin is not None:
        return (
            "no_worker",
            f"it is pinned to version {record.pin} of {record.task}; no engine that has it took it",
            f"start an engine that has version {record.pin} of {record.task}",
        )
    return (
        "no_worker",
        f'no worker has taken it from queue "{record.queue}" yet',
        (f"start an engine that knows task {record.task}"),
    )


def _blocked(record: Execution, detail: Data) -> Answer:
    gate = detail.get("gate", "?")
    kind = detail.get("kind")
    if kind == "limit":
        holders = detail.get("holders")
        named = ", ".join(map(str, holders)) if isinstance(holders, list | tuple) else ""
        capacity = detail.get("capacity")
        held = f": {named}" if named else ""
        more = " and others" if named and _integer(capacity) > named.count(",") + 1 else ""
        text = f"the limit {gate} lets {capacity} in at a time, and was full{held}{more}"
        return "limit_full", text, f"outlast limit ls; outlast limit set {gate} …"
    if kind == "rate":
        until = _written(_integer(detail.get("until")))
        return "rate_closed", f"the rate {gate} opens again at {until}", ""
    if kind == "capability":
        need = str(gate).partition(":")[2]
        return (
            "capability_missing",
            f"it needs {need}, which no engine offers",
            (f'start one with Engine(capabilities=("{need}",))'),
        )
    if kind == "budget":
        name = str(detail.get("name"))
        scope, _, meter = name.rpartition(":")
        hint = f"outlast budget raise {scope} {meter}=…"
        return "budget_spent", f"nothing is left of the budget {name}", hint
    return "gate_closed", f"the gate {gate} is closed", ""


def _starting(record: Execution, detail: Data) -> Answer:
    return "starting", f"worker {record.worker} prepares it", ""


def _running(record: Execution, detail: Data) -> Answer:
    if record.pause_at is not None:
        return "pausing", "a pause was requested; it is taken at the next safe point", ""
    return "running", f"its code runs on worker {record.worker}", ""


def _waits(detail: Data) -> list[Data]:
    waits = detail.get("waits")
    return list(waits) if isinstance(waits, list | tuple) else []


def _describe(wait: Data) -> str:
    title, kind = wait.get("title"), wait.get("kind")
    if kind == "ask":
        to = wait.get("to") or "somebody"
        late = f", as {wait['late']} did not" if wait.get("late") else ""
        return f'{to} must answer "{title}"{late}'
    if kind == "event":
        return f"it waits for the signal {title}{pattern(wait)}"
    if kind == "timer":
        return "a timer"
    if kind == "child":
        more = wait.get("more")
        return f"{more} more children" if more else f"child {wait.get('child')}"
    if kind == "retry":
        return f"the next attempt of step {wait.get('key')}"
    return f"{kind} {title or wait.get('key') or ''}".rstrip()


def _awaiting_input(record: Execution, detail: Data) -> Answer:
    waits = [wait for wait in _waits(detail) if wait.get("outside")]
    said = " and ".join(_describe(wait) for wait in waits)
    signals = [wait.get("title") for wait in waits if wait.get("kind") == "event"]
    if signals and len(signals) == len(waits):
        hint = f"outlast signal {record.id} {signals[0]}"
    else:
        hint = f"outlast answer {record.id}"
    return "awaiting_input", said or "somebody outside must act", hint


def _waiting(record: Execution, detail: Data) -> Answer:
    waits = _waits(detail)
    kinds = {str(wait.get("kind")) for wait in waits}
    code = f"waiting_{kinds.pop()}" if len(kinds) == 1 else "waiting"
    return code, "it waits for " + (" and ".join(map(_describe, waits)) or "an event"), ""


def _retry_wait(record: Execution, detail: Data) -> Answer:
    if "lost" in detail:
        return "worker_lost", f"worker {detail['lost']} is gone; it is due again at once", ""
    error = detail.get("error")
    said = error.get("message") or error.get("type", "") if isinstance(error, dict) else ""
    return (
        "back_off",
        (
            f"attempt {record.failures} of {_integer(detail.get('retries')) + 1} failed ({said}); "
            "the next follows after a back-off"
        ),
        "",
    )


def _paused(record: Execution, detail: Data) -> Answer:
    why = f": {detail['why']}" if detail.get("why") else ""
    return "paused", f"{detail.get('by')} paused it{why}", "resume it"


def _suspended(record: Execution, detail: Data) -> Answer:
    text = account(detail) or "the engine preempted it"
    return str(detail.get("code") or "suspended"), text, str(detail.get("hint") or "resume it")


def account(facts: Mapping[str, Any]) -> str:
    """Say what stands in the way of what is suspended; the end of it may quote a payload."""
    unfit = f": {facts['unfit']}" if facts.get("unfit") else ""
    return str(facts.get("text") or "") + unfit


def _written(at: int) -> str:
    """Write an instant as a date and time in UTC, by the calendar's own arithmetic.

    Years begin in March here, so that a leap day is the last of its year and of its 400 years.
    """
    days, seconds = divmod(at // 1_000_000, 86_400)
    cycle, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5 - 1
    month = month + 3 if month < 10 else month - 9
    year += 400 * cycle + (month <= 2)
    hours, minutes = divmod(seconds // 60, 60)
    return f"{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds % 60:02} UTC"


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


_REASONS: Final[dict[State, Callable[[Execution, Data], Answer]]] = {
    State.SCHEDULED: _scheduled,
    State.QUEUED: _queued,
    State.BLOCKED: _blocked,
    State.STARTING: _starting,
    State.RUNNING: _running,
    State.AWAITING_INPUT: _awaiting_input,
    State.WAITING: _waiting,
    State.RETRY_WAIT: _retry_wait,
    State.PAUSED: _paused,
    State.SUSPENDED: _suspended,
}
