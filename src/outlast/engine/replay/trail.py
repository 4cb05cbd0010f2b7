"""What a log says about the code besides its outcomes: where it stood, and which code it was.

Theory of operation. Outcomes alone do not pin the code down: between two of them it asked
questions, gave calls up, began steps that failed, and was parked where nothing but a timer could
wake it. Each of these left a row. In a replay such a row is a *witness*: when its turn has come,
the code must stand as the row says it stood, or it is other code. Without that, an edit in front of
a long sleep would go unnoticed, and the sleep would begin again.

The past ends with the last row that the code has left behind, an outcome or a witness. What the
code does after the last outcome is past, too, if an older version of it may have done it already:
a step's body may have been under way when that process died. Only if every start that could have
come this far was of this very code (its ``start`` rows say so), the code is where it was, and what
it decided without writing it down may be decided anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from outlast.engine.replay.scope import Mismatch, Outcome
from outlast.lifecycle import LEASED, Kind, State, Transition

OUTCOMES: Final = {
    Kind.STEP: "step",
    Kind.TIMER_FIRED: "timer",
    Kind.INPUT_RECEIVED: "input",
    Kind.SIGNAL_RECEIVED: "signal",
    Kind.CHILD_FINISHED: "child",
    Kind.CANCEL_REQUESTED: "cancel",
}
"""The rows that the code gets to see, and what its scope calls them."""
WITNESSES: Final = frozenset(
    {Kind.STEP_ANNOUNCED, Kind.ATTEMPT_FAILED, Kind.CALL_ABANDONED, Kind.WAIT}
)
"""The rows that say where the code stood."""
_OF_QUIET: Final = frozenset({Kind.WAIT, Kind.TIMER_FIRED, Kind.PAUSE})
SHOWN_MAX: Final = 5
"""How many recorded calls before and behind a mismatch are kept for its reader."""
WANTED_MAX: Final = 20
"""How many calls of a changed code are kept; a fan-out may make thousands."""


UNRUN: Final = {"unrun": True}
"""What an owner says of a row with which it gives the lease up before its code was where it was."""


def is_of_owner(row: Transition) -> bool:
    """Tell whether the owner of a lease wrote a row having run the code up to there."""
    is_owners = row.from_state in LEASED and row.nonce is not None
    return is_owners and not (row.data is not None and "unrun" in row.data)


def is_of_quiet(row: Transition) -> bool:
    """Tell whether the owner wrote a row when its code had seen all rows before, and rested.

    Any row of an owner says so where outcomes are delivered as they get their place in the log. A
    ``def`` task's thread comes to them later, and so does code whose outcomes wait for a budget.
    """
    return row.kind in _OF_QUIET and is_of_owner(row)


class Trail:
    """The rows of the current try, and how far they reach.

    Args:
        rows: the rows of the log, from the first of the current try on.
        code: the mark of today's code; "" where it has none.
    """

    def __init__(self, rows: Sequence[Transition], code: str) -> None:
        self.rows = rows
        self._code = code
        self._starts = [row for row in rows if row.kind is Kind.START]
        last_start = self._starts[-1].seq if self._starts else 0
        self._end = self._starts[0].seq if self._starts else 0
        for row in rows:
            if row.kind in WITNESSES or (
                row.kind in OUTCOMES and (row.from_state is State.RUNNING or row.seq < last_start)
            ):
                self._end = row.seq

    def holds(self, seq: int) -> bool:
        """Whether what the code does after the outcome of this row was, or may have been, done."""
        return seq < self._end or not self._is_all_mine(seq)

    def _is_all_mine(self, seq: int) -> bool:
        """Whether every start that could have come this far was of today's code."""
        if not self._code:
            return False
        (row,) = [row for row in self.rows if row.seq == seq]
        came = [start for start in self._starts if start.seq >= seq]
        if row.from_state is State.RUNNING:
            came += [start for start in self._starts if start.seq < seq][-1:]
        return all((start.data or {}).get("code") == self._code for start in came)


def see(scope: Any, row: Transition) -> None:
    """See that the code stands where a witness says it stood.

    Raises:
        Mismatch: it does not.
    """
    look = _LOOKS[row.kind]
    look(scope, row, row.data or {})


def _announced(scope: Any, row: Transition, data: Mapping[str, Any]) -> None:
    if "child" in data:
        _is_open(scope, row, "child")
    elif "question" in data:
        _is_open(scope, row, "ask", title=data["question"].get("title"))
    elif "attempt" in data and not scope.was_cancelled:
        _is_open(scope, row, "step")


def _attempt_failed(scope: Any, row: Transition, data: Mapping[str, Any]) -> None:
    if not scope.was_cancelled:
        _is_open(scope, row, "step")


def _abandoned(scope: Any, row: Transition, data: Mapping[str, Any]) -> None:
    if row.key in scope.open_calls and "why" not in data:  # else the whole attempt was
        outcome = Outcome(row.seq, row.at, "abandoned", row.key)
        raise _mismatch(scope, outcome, f"{row.key} was given up; the code waits for it still")


def _waited(scope: Any, row: Transition, data: Mapping[str, Any]) -> None:
    for wait in data.get("waits", ()):
        kind, key = wait.get("kind"), wait.get("key")
        if kind == "timer":
            timer = scope.next_timer()
            if timer is None or timer.deadline_at != wait.get("until"):
                key = key or (timer.key if timer is not None else "timer")
                raise _mismatch(scope, Outcome(row.seq, row.at, "timer", key, wait.get("until")))
        elif kind in _WAITED_FOR and key is not None:
            _is_open(scope, row, _WAITED_FOR[kind], key, title=wait.get("title"))


_WAITED_FOR: Final = {"retry": "step", "ask": "ask", "event": "event", "child": "child"}


def _is_open(
    scope: Any, row: Transition, kind: str, key: str | None = None, title: object = None
) -> None:
    """See that the code waits for this call."""
    key = key or row.key or ""
    call = scope.open_calls.get(key)
    digest = row.digest if row.key == key else None
    if call is None or call.kind != kind or (digest is not None and digest != call.digest):
        outcome = Outcome(row.seq, row.at, kind, key, digest)
        mismatch = _mismatch(scope, outcome)
        if isinstance(title, str):
            mismatch.recorded["title"] = title
        raise mismatch


_LOOKS: Final[dict[Kind, Callable[[Any, Transition, Mapping[str, Any]], None]]] = {
    Kind.STEP_ANNOUNCED: _announced,
    Kind.ATTEMPT_FAILED: _attempt_failed,
    Kind.CALL_ABANDONED: _abandoned,
    Kind.WAIT: _waited,
}


def _mismatch(scope: Any, outcome: Outcome, text: str = "") -> Mismatch:
    return Mismatch(outcome, scope.wanted(), text)


# Telling it


def told(
    mismatch: Mismatch, rows: Sequence[Transition], scope: Any, stamp: Mapping[str, object]
) -> dict[str, Any]:
    """Give the facts of a suspension: enough to show both sides to somebody who knows neither.

    Args:
        mismatch: what the replay met.
        rows: the log.
        scope: the code as it stands.
        stamp: today's mark and version of the code, as a ``start`` row has them.
    """
    steps = [(row.seq, row.key) for row in rows if _is_call(row)]
    births = [row for row in rows if row.kind is Kind.CREATE]
    starts = [row for row in rows if row.kind is Kind.START and row.seq <= mismatch.seq]
    then: dict[str, object] = dict(starts[-1].data or {}) if starts else {}
    if births and births[0].data and "version" not in then and "version" in births[0].data:
        then["version"] = births[0].data["version"]
    if starts:
        then["at"] = starts[-1].at
    wanted = mismatch.wanted[:WANTED_MAX]
    places = scope.places()
    for one in wanted:
        if str(one.get("key")) in places:
            one["where"] = places[str(one["key"])]
    told: dict[str, Any] = {
        "text": _text_of(mismatch, scope),
        "seq": mismatch.seq,
        "recorded": mismatch.recorded,
        "wanted": wanted,
        "before": _keys(key for seq, key in steps if seq < mismatch.seq)[-SHOWN_MAX:],
        "after": _keys(key for seq, key in steps if seq > mismatch.seq)[:SHOWN_MAX],
        "then": then,
        "now": dict(stamp),
    }
    if mismatch.unfit:
        told["unfit"] = mismatch.unfit
    if len(mismatch.wanted) > WANTED_MAX:
        told["wanted_count"] = len(mismatch.wanted)
    if scope.finished:
        told["ended"] = _end_of(scope)
    elif not wanted:
        told["standing"] = scope.stuck_description()[:2_000]
    return told


def _is_call(row: Transition) -> bool:
    if row.kind is Kind.STEP_ANNOUNCED:
        return bool(row.data and "question" in row.data)
    return row.kind in (Kind.STEP, Kind.TIMER_FIRED, Kind.INPUT_RECEIVED, Kind.SIGNAL_RECEIVED)


def _keys(keys: Any) -> list[str]:
    return list(dict.fromkeys(str(key) for key in keys))


def _text_of(mismatch: Mismatch, scope: Any) -> str:
    if mismatch.text:
        return mismatch.text
    recorded = mismatch.recorded
    key = recorded["key"]
    same = [one for one in mismatch.wanted if one["key"] == key]
    if recorded["kind"] == "timer":
        if any(one["kind"] == "timer" for one in mismatch.wanted):
            return f"{key} is due at another instant than recorded"
    elif same and same[0]["kind"] != recorded["kind"]:
        return f"{key} is recorded as {recorded['kind']}, and is now {same[0]['kind']}"
    elif same and recorded["kind"] == "ask":
        return f"{key} asks something else than recorded"
    elif same:
        return f"{key} is called with other arguments than recorded"
    if scope.finished:
        return f"the code has ended, where {key} is recorded"
    return f"the code does not ask for {key}, which is recorded next"


def _end_of(scope: Any) -> str:
    error = scope.exception
    if error is None:
        return "it has returned"
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if "/outlast/engine/" not in code.co_filename:
            place = f" in {code.co_name}, {code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"it has raised {type(error).__name__}: {error}"[:500] + place


__all__ = ["OUTCOMES", "WITNESSES", "Trail", "is_of_owner", "is_of_quiet", "see", "told"]
