"""Delete executions that have ended, from every table that knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import apsw

from outlast.store.sqlite.ask import SQL, json_of

STATEMENTS: Final = (
    *("purge_shares", "purge_spending", "purge_tree_spending", "purge_reservations"),
    *("purge_budget_events", "purge_budgets"),
    *("purge_transitions", "purge_messages", "purge_dependencies", "purge_watched"),
    *("purge_errands", "purge_stream_items", "purge_progress"),
    "purge_executions",
)
"""In this order; how many executions the last one deletes is how many are gone."""


def purge(writer: apsw.Connection, ids: Sequence[str]) -> int:
    """Delete those of these executions that have ended, inside the open transaction."""
    writer.execute(SQL["permit_purge"].text, {"ids": json_of(sorted(set(ids)))})
    for name in STATEMENTS:
        writer.execute(SQL[name].text)
    deleted = writer.changes()
    writer.execute(SQL["end_purge"].text)
    return deleted
