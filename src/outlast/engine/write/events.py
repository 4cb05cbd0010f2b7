"""What happens to executions, told to ``logging`` once it is committed: a name a line, no payloads.

The logger is ``outlast.event``. It says nothing below a warning unless somebody sets its level, as
an engine may run a hundred thousand executions a minute.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final

from outlast.lifecycle import FINAL, Execution, Kind, State, Transition

EVENTS: Final = logging.getLogger("outlast.event")
EVENTS.addHandler(logging.NullHandler())  # else warnings would go to stderr by themselves
EVENTS.setLevel(logging.WARNING)
_WARNINGS: Final = frozenset(
    {Kind.ATTEMPT_FAILED, Kind.RETRY, Kind.SUSPEND, Kind.WORKER_LOST, Kind.LEASE_EXPIRED}
)
_INFOS: Final = frozenset({Kind.CREATE, Kind.START, Kind.PAUSE, Kind.CANCEL_REQUESTED})
_FAILED: Final = frozenset({State.FAILED, State.TIMED_OUT})
_TOLD: Final = ("attempt", "retry_at", "code", "cause", "worker", "task")
"""Facts of the engine that are told; payloads are never among them."""


def level_of(row: Transition) -> int:
    """Say how much a transition matters."""
    if row.to_state in FINAL and row.from_state != row.to_state:
        return logging.WARNING if row.to_state in _FAILED else logging.INFO
    if row.kind in _WARNINGS:
        return logging.WARNING
    return logging.INFO if row.kind in _INFOS else logging.DEBUG


def tell(rows: Sequence[Transition], ended: Sequence[Execution]) -> None:
    """Tell what was committed, as far as anybody wants to hear; see ``Store.hear``."""
    least = EVENTS.getEffectiveLevel()
    if least > logging.WARNING or EVENTS.disabled:
        return
    tasks: Mapping[str, str] | None = None
    if least == logging.WARNING:  # by far most are none
        rows = [row for row in rows if row.kind in _WARNINGS or row.to_state in _FAILED]
    for row in rows:
        level = level_of(row)
        if level < least:
            continue
        if tasks is None:
            tasks = {record.id: record.task for record in ended}
        about = {"event": f"execution.{row.kind}", "execution": row.execution_id}
        if row.key is not None and row.kind in (Kind.STEP, Kind.ATTEMPT_FAILED):
            about["step"] = row.key
        data = row.data or {}
        said = {name: data[name] for name in _TOLD if isinstance(data.get(name), str | int)}
        if row.execution_id in tasks:
            said.setdefault("task", tasks[row.execution_id])
        words = f"{row.kind}: {row.from_state or 'none'} → {row.to_state}"
        more = {**about, "outlast_data": {"seq": row.seq, "state": str(row.to_state), **said}}
        EVENTS.log(level, "%s", words, extra=more)


__all__ = ["EVENTS", "level_of", "tell"]
