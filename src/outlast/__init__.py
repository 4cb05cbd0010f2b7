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
    from outlast.engine.after import After
    from outlast.engine.budgets import BudgetState
    from outlast.engine.calls import (
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
    from outlast.engine.current import StepInfo
    from outlast.engine.emit import progress, stream
    from outlast.engine.engine import Engine
    from outlast.engine.gate import Limit, Rate
    from outlast.engine.handle import Execution
    from outlast.engine.registry import Retry, step, task
    from outlast.engine.saga import saga
    from outlast.engine.spend import reserve, spend
    from outlast.engine.task_call import Started
    from outlast.errors import Fatal, OutlastError, RetryAfter
    from outlast.lifecycle import Reason, State
    from outlast.retention import Retention
    from outlast.schedule.plan import Schedule
    from outlast.store.protocol import Filter

_HOMES: Final = {
    "After": "outlast.engine.after",
    "Budget": "outlast.budget",
    "BudgetState": "outlast.engine.budgets",
    "Client": "outlast.client.client",
    "reserve": "outlast.engine.spend",
    "spend": "outlast.engine.spend",
    "Engine": "outlast.engine.engine",
    "Execution": "outlast.engine.handle",
    "Fatal": "outlast.errors",
    "Filter": "outlast.store.protocol",
    "Limit": "outlast.engine.gate",
    "Rate": "outlast.engine.gate",
    "RemoteWorker": "outlast.client.remote",
    "OutlastError": "outlast.errors",
    "Reason": "outlast.lifecycle",
    "Retention": "outlast.retention",
    "Retry": "outlast.engine.registry",
    "RetryAfter": "outlast.errors",
    "Schedule": "outlast.schedule.plan",
    "Started": "outlast.engine.task_call",
    "State": "outlast.lifecycle",
    "StepInfo": "outlast.engine.current",
    "ask": "outlast.engine.calls",
    "changed": "outlast.engine.calls",
    "heartbeat": "outlast.engine.calls",
    "now": "outlast.engine.calls",
    "progress": "outlast.engine.emit",
    "random": "outlast.engine.calls",
    "saga": "outlast.engine.saga",
    "sleep": "outlast.engine.calls",
    "slot": "outlast.engine.calls",
    "step": "outlast.engine.registry",
    "stream": "outlast.engine.emit",
    "task": "outlast.engine.registry",
    "this_step": "outlast.engine.calls",
    "uuid4": "outlast.engine.calls",
    "wait_for": "outlast.engine.calls",
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
