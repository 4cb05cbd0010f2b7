"""Where in the order of ids a list can begin and end, from when its executions were created.

An id begins with the millisecond in which it was made, which is that of the birth; so of a list of
yesterday's executions the newest million need not be looked at. Clocks that are set back while an
engine runs let ids run ahead of births: hence the slack.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from outlast.engine.write.identity import first_id
from outlast.store.protocol import Filter

SLACK_US: Final = 60_000_000
"""How far an id's instant may lie from the birth."""


def bounded(filter: Filter) -> Filter:
    """Give a filter with the bounds of ids that follow from its instants."""
    before_id, from_id = filter.before_id, filter.from_id
    if filter.created_before is not None:
        last = first_id(filter.created_before + SLACK_US)
        before_id = last if before_id is None else min(before_id, last)
    if filter.created_after is not None:
        first = first_id(filter.created_after - SLACK_US)
        from_id = first if from_id is None else max(from_id, first)
    return replace(filter, before_id=before_id, from_id=from_id)


__all__ = ["bounded"]
