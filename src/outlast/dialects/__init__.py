"""Dialects: an execution told in the words of another system. Pure: no clock, I/O or dice.

Each module here is one system: its words, its edges, and by which line of a table a state of ours
is shown. ``dialect`` is what they share; ``docs/dialects.md`` is rendered from them.
"""

from typing import Final

from outlast.dialects import actionqueue, autopilotcx, flyte, flyte_action, julep
from outlast.dialects.dialect import (
    Dialect,
    DialectTransition,
    Edge,
    Line,
    Way,
    is_final,
    missing_edges,
    project,
    status_of,
)

DIALECTS: Final[dict[str, Dialect]] = {
    dialect.name: dialect
    for dialect in (
        julep.DIALECT,
        flyte.DIALECT,
        flyte_action.DIALECT,
        actionqueue.DIALECT,
        autopilotcx.DIALECT,
    )
}
"""Every dialect, by the name that ``outlast show --as`` takes."""

__all__ = [
    "DIALECTS",
    "Dialect",
    "DialectTransition",
    "Edge",
    "Line",
    "Way",
    "is_final",
    "missing_edges",
    "project",
    "status_of",
]
