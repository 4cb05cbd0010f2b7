"""Which executions may have open questions, by their rows and logs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from outlast.lifecycle import LEASED, Execution, Kind, State, Transition

_BETWEEN: Final = (*LEASED, State.QUEUED, State.BLOCKED, State.PAUSED, State.SUSPENDED)
"""States whose row does not tell what was asked before."""


def may_ask(record: Execution, log: Iterable[Transition], to: str | None) -> bool:
    """Tell whether an execution may have an open question; the recipient counts where it waits."""
    if record.state is State.AWAITING_INPUT:
        waits: Any = (record.detail or {}).get("waits", ())
        return any(wait["kind"] == "ask" and to in (None, wait.get("to")) for wait in waits)
    return (
        record.state in _BETWEEN
        and record.attempt > 0
        and any(
            row.kind is Kind.STEP_ANNOUNCED and row.data and row.data.get("question") is not None
            for row in log
        )
    )
