"""What stands before a database: a vault, where there are keys; it is loaded only then."""

from __future__ import annotations

import os

from outlast.store.relational.database import Database

KEYS = ("OUTLAST_KEYS_FILE", "OUTLAST_KEYS_COMMAND", "OUTLAST_KEYS")
"""Where keys come from, in the environment."""


def before(database: Database, now: int, *, owner: bool) -> Database:
    """Give what the store is to use; see :func:`outlast.store.relational.sealed.sealed`."""
    if not any(os.environ.get(name) for name in KEYS) and not database.read("data_keys", {}):
        return database
    from outlast.store.relational.sealed import sealed

    return sealed(database, now, owner=owner)
