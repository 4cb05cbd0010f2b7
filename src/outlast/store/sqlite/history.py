"""Whose history a file has: a name drawn by chance, and how often an engine has opened it.

The owner's lock file beside it keeps the same as a witness. A copy that ``outlast db backup`` made
says so itself, wherever it goes; one that was made by other means is known for one where the
witness stands, and has seen the file opened more often than it says.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from outlast.store.relational.database import Sight


def sighted(kept: Mapping[str, Any] | None, witness: Mapping[str, Any], now: int) -> Sight:
    """Compare what a file says with its witness; an engine is opening it.

    Args:
        kept: what the file says; None for one that was just made, or copied as a whole.
        witness: what stands beside it; empty where that is not known.
        now: the instant.
    """
    anew: dict[str, Any] = {"id": secrets.token_hex(8), "openings": 1}
    if kept is None:
        return Sight(anew, now)
    if kept.get("is_copy"):
        return Sight(anew, now, "restored", "it is a copy that outlast db backup has made")
    if "id" not in kept:  # it was another kind of database
        return Sight(anew, now)
    openings = int(kept["openings"])
    seen = witness.get("openings") if witness.get("id") == kept["id"] else None
    if isinstance(seen, int) and seen > openings:
        why = f"engines have opened it {seen} times, and it knows of {openings}: an older copy was"
        return Sight(anew, now, "restored", f"{why} put in its place")
    return Sight({"id": kept["id"], "openings": openings + 1}, now)


__all__ = ["sighted"]
