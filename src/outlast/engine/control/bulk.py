"""One wish for many executions: all that a filter fits, in parts, with an account of each.

It is resumable by its nature: what was done is not found again, as it is in another state; what was
recovered before is passed over. So one that was broken off is simply asked for again.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct, field
from msgspec.structs import replace

from outlast.engine.control.descent import Descent, Mode
from outlast.engine.control.listing import bounded
from outlast.engine.write.request import new_message
from outlast.errors import OutlastError, TransitionRefused, UsageError
from outlast.lifecycle import FINAL, OPEN, Execution, Message, MessageKind, State
from outlast.store.protocol import Filter, Store

READ_MAX: Final = 1_000
"""Executions read at once."""
PART_MAX: Final = 200
"""Executions that are written to at once, so that nobody waits long behind them."""
SAMPLE_MAX: Final = 5


class Action(StrEnum):
    """What can be wished for many executions at once."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    RERUN = "rerun"


STATES: Final[dict[Action, tuple[State, ...]]] = {
    Action.CANCEL: OPEN,
    Action.PAUSE: tuple(state for state in OPEN if state is not State.PAUSED),
    Action.RESUME: (State.PAUSED, State.SUSPENDED),
    Action.RETRY: (State.RETRY_WAIT, State.FAILED, State.TIMED_OUT),
    Action.RERUN: tuple(sorted(FINAL)),
}
"""Which executions an action means, where the filter names no states."""
_MESSAGES: Final = {
    Action.CANCEL: MessageKind.CANCEL,
    Action.PAUSE: MessageKind.PAUSE,
    Action.RESUME: MessageKind.RESUME,
}


class BulkReport(Struct):
    """What an action on many executions means, and what became of it.

    Attributes:
        action: what was wished for.
        matched: how many executions fit.
        oldest_at: when the oldest of them was created, in microseconds since 1970.
        sample: some of them, the newest first.
        done: how many took it.
        made: the executions that were made, by a retry or rerun.
        refused: how many did not take it, by the code of the refusal.
        is_dry: whether it was only looked at.
    """

    action: Action
    matched: int = 0
    oldest_at: int | None = None
    sample: list[str] = field(default_factory=list)
    done: int = 0
    made: list[str] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    is_dry: bool = False

    def take(self, came: Any) -> None:
        """Count what became of one execution: its row, that of a new one, or its refusal.

        Raises:
            OutlastError: what came is no refusal of one execution, but the end of all.
        """
        if isinstance(came, TransitionRefused):
            self._refuse(came.refusal or came.code)
        elif isinstance(came, OutlastError) and came.code in _OF_ONE:
            self._refuse(came.code)
        elif isinstance(came, BaseException):
            raise came
        else:
            self.done += 1

    def _refuse(self, code: str) -> None:
        self.refused[code] = self.refused.get(code, 0) + 1


_OF_ONE: Final = ("not_found", "not_recoverable", "key_conflict")


class Bulk(Struct, frozen=True):
    """An action, and the executions it is for."""

    action: Action
    filter: Filter
    why: str | None = None
    actor: str = "user"

    def find(self, store: Store) -> tuple[BulkReport, list[Execution]]:
        """Read all executions that fit; reads only."""
        report = BulkReport(self.action)
        found: list[Execution] = []
        filter = replace(
            self.filter, states=self.filter.states or STATES[self.action], limit=READ_MAX
        )
        filter = bounded(filter)
        while True:
            part = store.page(filter)
            found += part
            if len(part) < READ_MAX:
                break
            filter = replace(filter, before_id=part[-1].id)
        report.matched = len(found)
        report.sample = [record.id for record in found[:SAMPLE_MAX]]
        report.oldest_at = min((record.created_at for record in found), default=None)
        return report, found

    def parts(
        self, store: Store, report: BulkReport, found: list[Execution]
    ) -> Iterator[list[tuple[str, Message | Descent]]]:
        """Give what to do with each, in parts; what was recovered before is refused here."""
        for place in range(0, len(found), PART_MAX):
            part = found[place : place + PART_MAX]
            recovered: set[str] = set()
            if self.action is Action.RETRY:
                told = store.descents([record.id for record in part])
                recovered = {one.source_id for one in told if one.mode == Mode.RECOVER}
            wishes = []
            for record in part:
                if record.id in recovered:
                    report._refuse("already_recovered")
                else:
                    wishes.append((record.id, self._wish(record)))
            yield wishes

    def _wish(self, record: Execution) -> Message | Descent:
        kind = _MESSAGES.get(self.action)
        if self.action is Action.RETRY and not record.is_final:
            kind = MessageKind.RESUME
        if kind is not None:
            return new_message(kind, self.actor, data={"why": self.why} if self.why else None)
        mode = Mode.RERUN if self.action is Action.RERUN else Mode.RECOVER
        return Descent(mode=mode, why=self.why, actor=self.actor)


def action_of(name: str) -> Action:
    """Read the name of an action.

    Raises:
        UsageError: there is none of this name.
    """
    try:
        return Action(name)
    except ValueError:
        raise UsageError(
            f'"{name}" cannot be done to many executions', do="one of " + ", ".join(Action)
        ) from None


__all__ = ["STATES", "Action", "Bulk", "BulkReport", "action_of"]
