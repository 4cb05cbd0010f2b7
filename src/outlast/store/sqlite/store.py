"""The store on one SQLite file: its verbs are those of every SQL store."""

from __future__ import annotations

from pathlib import Path

from outlast.store.protocol import DEFAULT_TENANT
from outlast.store.relational import RelationalStore
from outlast.store.relational.before import before
from outlast.store.sqlite.database import SqliteDatabase


class SqliteStore(RelationalStore):
    """All verbs of the protocol on one file.

    The writing verbs are for one thread; the reading ones may be called from any.
    """

    def __init__(
        self,
        path: Path,
        *,
        owner: str | None,
        now: int,
        upgrade: bool = False,
        tenant: str = DEFAULT_TENANT,
    ) -> None:
        """Open the file.

        Args:
            path: the file; an owner makes it if it is not there.
            owner: the worker that will run executions, which takes the exclusive lock; None for a
                process that only reads, submits and delivers.
            now: the instant, for a migration's record.
            upgrade: bring an older schema to this code's version; an owner only.
            tenant: whose rows; nothing else of the file is read or written.

        Raises:
            StoreOwned: another engine owns this tenant of the file.
            UnknownTenant, TenantClosed: there is no such tenant, or it is closed to owners.
            SchemaMismatch, StoreBroken, StoreReadOnly, CannotLoad: it cannot be used; it was left
                as it is.
            KeyMissing, KeyWrong: its payloads are encrypted, and not by the keys that were given.
        """
        self.path = path
        self.file = SqliteDatabase(path, owner=owner, now=now, upgrade=upgrade, tenant=tenant)
        try:
            database = before(self.file, now, owner=owner is not None)
        except BaseException:
            self.file.close()
            raise
        super().__init__(database)
        if owner is not None:
            try:
                self.epochs.look(now)
            except BaseException:
                self.file.close()
                raise
