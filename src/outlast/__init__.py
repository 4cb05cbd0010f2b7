"""Outlast: Python functions that finish what they started.

The public names are loaded at first use, so that ``import outlast`` and ``outlast --version`` stay
quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

__version__ = "0.1.0"

if TYPE_CHECKING:
    from outlast.budget import Budget
    from outlast.client.client import Client
    from outlast.client.remote import RemoteWorker
    from outlast.engine.control.budgets import BudgetState
    from outlast.engine.control.handle import Execution
    from outlast.engine.engine import Engine
    from outlast.engine.primitives.calls import (
        ask,
        changed,
        heartbeat,
        now,
        random,
        sleep,
        slot,
        this_step,
        uuid4,
        wait_for,
    )
    from outlast.engine.primitives.emit import progress, stream
    from outlast.engine.primitives.saga import saga
    from outlast.engine.primitives.spend import reserve, spend
    from outlast.engine.task.after import After
    from outlast.engine.task.current import StepInfo
    from outlast.engine.task.gate import Limit, Rate
    from outlast.engine.task.registry import Retry, step, task
    from outlast.engine.task.task_call import Started
    from outlast.errors import Fatal, OutlastError, RetryAfter
    from outlast.lifecycle import Reason, State
    from outlast.retention import Retention
    from outlast.schedule.plan import Schedule
    from outlast.store.protocol import Filter

_HOMES: Final = {
    "After": "outlast.engine.task.after",
    "Budget": "outlast.budget",
    "BudgetState": "outlast.engine.control.budgets",
    "Client": "outlast.client.client",
    "reserve": "outlast.engine.primitives.spend",
    "spend": "outlast.engine.primitives.spend",
    "Engine": "outlast.engine.engine",
    "Execution": "outlast.engine.control.handle",
    "Fatal": "outlast.errors",
    "Filter": "outlast.store.protocol",
    "Limit": "outlast.engine.task.gate",
    "Rate": "outlast.engine.task.gate",
    "RemoteWorker": "outlast.client.remote",
    "OutlastError": "outlast.errors",
    "Reason": "outlast.lifecycle",
    "Retention": "outlast.retention",
    "Retry": "outlast.engine.task.registry",
    "RetryAfter": "outlast.errors",
    "Schedule": "outlast.schedule.plan",
    "Started": "outlast.engine.task.task_call",
    "State": "outlast.lifecycle",
    "StepInfo": "outlast.engine.task.current",
    "ask": "outlast.engine.primitives.calls",
    "changed": "outlast.engine.primitives.calls",
    "heartbeat": "outlast.engine.primitives.calls",
    "now": "outlast.engine.primitives.calls",
    "progress": "outlast.engine.primitives.emit",
    "random": "outlast.engine.primitives.calls",
    "saga": "outlast.engine.primitives.saga",
    "sleep": "outlast.engine.primitives.calls",
    "slot": "outlast.engine.primitives.calls",
    "step": "outlast.engine.task.registry",
    "stream": "outlast.engine.primitives.emit",
    "task": "outlast.engine.task.registry",
    "this_step": "outlast.engine.primitives.calls",
    "uuid4": "outlast.engine.primitives.calls",
    "wait_for": "outlast.engine.primitives.calls",
}

# fmt: off
__all__ = [  # noqa: RUF022 - in the order a newcomer meets them
    "task", "step", "Engine", "Client", "Execution", "Retry", "Limit", "Rate", "Retention",
    "Filter", "Schedule", "After", "Started", "Budget", "RemoteWorker",
    "sleep", "ask", "wait_for", "now", "random", "uuid4", "changed", "saga", "slot",
    "this_step", "heartbeat", "stream", "progress",
    "spend", "reserve",
    "Fatal", "RetryAfter", "OutlastError", "State", "Reason", "StepInfo", "BudgetState",
    "__version__",
]
# fmt: on


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module outlast has no attribute {name}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
