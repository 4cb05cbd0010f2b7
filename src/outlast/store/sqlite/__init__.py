"""The store on one SQLite file, for one engine and any number of readers and submitters."""

from outlast.store.sqlite.owner import owner_of
from outlast.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore", "owner_of"]
