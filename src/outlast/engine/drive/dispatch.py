"""Where the calls of an execution's code go: each to the part that answers it.

A step waits for its body (``attempts.py``); a child is born, or an execution that nobody waits for;
a question is noted, and each time that it is put to somebody else. What the code brought along of
its source answers first (``script.py``); until that is used up, it asks nobody else anything.
What the code gives up is taken back in the same way: a question by a row of its own, so that no
answer is taken for it any more.
"""

from __future__ import annotations

from typing import Any, Final

from outlast.engine.drive.attempts import Attempts
from outlast.engine.drive.children import Children
from outlast.engine.drive.playback import Playback
from outlast.engine.replay.scope import Call, Scope
from outlast.engine.replay.thread_scope import ThreadScope
from outlast.engine.task.question import Question
from outlast.engine.write.clock import Clock
from outlast.engine.write.owner import Owner
from outlast.lifecycle import Event, Kind, Transition

_HELD_BEFORE_POINT: Final = frozenset({"ask", "child", "start"})
"""Calls that a fork makes only once it lives: before, it goes the way of its source."""


class Dispatch:
    """The calls of one leased execution."""

    __slots__ = (
        "_asked", "_attempts", "_children", "_clock", "_held", "_owner", "_playback", "_unasked",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        playback: Playback,
        attempts: Attempts,
        children: Children,
        clock: Clock,
    ) -> None:
        self._owner = owner
        self._playback = playback
        self._attempts = attempts
        self._children = children
        self._clock = clock
        self._held: list[Call] = []
        self._asked: dict[str, int] = {}
        self._unasked: dict[str, Kind] = {}

    def recall(self, row: Transition) -> None:
        """Take up what a recorded witness says about attempts, questions and children."""
        if row.key is None:
            return
        if row.kind is Kind.STEP_ANNOUNCED:
            question: Any = (row.data or {}).get("question")
            if question:
                self._asked[row.key] = question.get("stage", 0)
        elif row.kind is Kind.CALL_ABANDONED:
            self._unasked[row.key] = row.kind
        self._attempts.recall(row)
        self._children.take(row)

    def admit(self, call: Call) -> bool:
        """Take a call that the code has made; gives whether it has its answer already."""
        script = self._playback.script
        if script is not None and script.offer(call):
            return False
        if call.kind in ("step", "reserve"):
            self._attempts.calls.append(call)
        elif call.kind in _HELD_BEFORE_POINT:
            if script is not None and script.point_ahead:
                self._held.append(call)  # its time is not known yet
            elif call.kind == "ask":
                self._ask(call)
            else:
                return self._call_task(call)
        return False

    def play(self, scope: Scope | ThreadScope) -> bool:
        """Give the code the next of what it brought along; what was held before the point goes."""
        script = self._playback.script
        is_idle = not (self._attempts.bodies or self._attempts.calls)
        if script is None or not self._playback.play(is_idle=is_idle):
            return False
        if not script.point_ahead and self._held:
            calls, self._held = self._held, []
            for call in calls:
                if scope.open_calls.get(call.key) is call:
                    self.admit(call)
        return True

    def _call_task(self, call: Call) -> bool:
        """Bring a child into the world, or another execution; gives whether that is the answer."""
        now = self._clock.now()
        row: Transition | None
        if call.kind == "child":
            self._playback.child_at = now
            row = self._children.admit(call.key, call.digest, call.payload, now)
        elif self._playback.reuse(call):
            return True
        else:
            row = self._children.start(call.key, call.digest, call.payload, now)
        if row is not None:
            self._playback.deliver_row(row, row.at)
        return row is not None

    def _ask(self, call: Call) -> None:
        """Note a question, and each time that it is put to somebody else."""
        question: Question = call.payload
        if self._asked.get(call.key, -1) < question.stage:
            self._asked[call.key] = question.stage
            data = {"question": question.as_data()}
            self._owner.append(
                Event(Kind.STEP_ANNOUNCED, "engine", key=call.key, digest=call.digest, data=data)
            )

    def abandon(self, call: Call) -> None:
        """Nobody awaits this call any more."""
        if call.kind == "ask" and call.key in self._asked and call.key not in self._unasked:
            self._unasked[call.key] = Kind.CALL_ABANDONED
            self._owner.append(Event(Kind.CALL_ABANDONED, "engine", key=call.key))
            return
        self._attempts.abandon(call)

    def give_up_children(self, scope: Scope | ThreadScope) -> None:
        """Tell the children that the code does not wait for any more.

        The end of the task ends them by itself; another try of it takes them over.
        """
        for key in self._children.given_up(scope.dropped):
            self._children.give_up(key, self._clock.now())


__all__ = ["Dispatch"]
