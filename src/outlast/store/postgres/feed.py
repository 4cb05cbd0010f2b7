"""Positions in the feed, given to what can be seen (docs/decisions/0044)."""

from __future__ import annotations

from typing import Final

from outlast.store.relational.database import Database

SETTLED_AT_ONCE: Final = 10_000


def settle(database: Database) -> int:
    """Give rows without a position one, inside the open transaction; gives to how many."""
    locked = database.ask_all("lock_feed", {})
    if not locked:
        return 0
    settled = int(str(locked[0][0]))
    count = database.run("settle_feed", {"settled": settled, "limit": SETTLED_AT_ONCE})
    if count:
        database.run("note_settled", {"count": count})
    return count


__all__ = ["settle"]
