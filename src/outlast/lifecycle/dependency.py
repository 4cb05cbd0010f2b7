"""What an execution depends on: edges to others that must have ended before it may begin.

An edge is ``{"id", "need", "or_else"}``: the other's id; ``success``, or ``end`` for any end; and
what an end without success means where success is needed: ``cancel``, or ``hold`` until somebody
decides. The edges that are still open are in the row's detail while it is scheduled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from outlast.lifecycle.record import Data, Execution
from outlast.lifecycle.states import State


def dependencies_of(record: Execution) -> list[Data]:
    """Give what an execution still depends on, also while it is held."""
    detail = record.detail or {}
    if record.paused_from is State.SCHEDULED:
        held = detail.get("held_detail")
        detail = held if isinstance(held, Mapping) else {}
    waits_on = detail.get("waits_on")
    return list(waits_on) if isinstance(waits_on, list | tuple) else []


def remaining(waits_on: Iterable[Data], ended: Data) -> list[Data]:
    """Give what is still depended on once an upstream has ended.

    An edge that needed its success keeps its place, marked with the state it came to.
    """
    rest: list[Data] = []
    for edge in waits_on:
        if edge["id"] != ended.get("upstream"):
            rest.append(edge)
        elif edge["need"] == "success" and ended.get("state") != State.SUCCEEDED:
            rest.append({**edge, "ended": ended.get("state")})
    return rest
