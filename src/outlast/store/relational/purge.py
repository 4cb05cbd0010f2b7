"""Delete executions that have ended, from every table that knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from outlast.store.relational.database import Database, json_of

STATEMENTS: Final = (
    *("purge_shares", "purge_spending", "purge_tree_spending", "purge_reservations"),
    *("purge_budget_events", "purge_budgets"),
    *("purge_transitions", "purge_messages", "purge_dependencies", "purge_watched"),
    *("purge_errands", "purge_stream_items", "purge_progress"),
    "purge_executions",
)
"""In this order; how many executions the last one deletes is how many are gone."""


def purge(database: Database, ids: Sequence[str]) -> int:
    """Delete those of these executions that have ended, inside the open transaction."""
    database.lock("executions", ids)
    database.run("permit_purge", {"ids": json_of(sorted(set(ids)))})
    deleted = 0
    for name in STATEMENTS:
        deleted = database.run(name, {})
    database.run("end_purge", {})
    return deleted
