"""The store in a PostgreSQL database: its verbs are those of every SQL store."""

from __future__ import annotations

from outlast.store.postgres.address import Address
from outlast.store.postgres.database import PostgresDatabase
from outlast.store.protocol import DEFAULT_TENANT
from outlast.store.relational import RelationalStore
from outlast.store.relational.before import before


class PostgresStore(RelationalStore):
    """All verbs of the protocol on one schema of a database.

    The writing verbs are for one thread; the reading ones may be called from any.
    """

    def __init__(
        self,
        url: str,
        *,
        owner: str | None,
        now: int,
        upgrade: bool = False,
        tenant: str = DEFAULT_TENANT,
    ) -> None:
        """Open the database.

        Args:
            url: ``postgresql://user:password@host:port/database``; see :class:`Address`.
            owner: the worker that will run executions; it makes the schema where there is none.
                None for a process that only reads, submits and delivers.
            now: the instant, for a migration's record.
            upgrade: bring an older schema to this code's version; an owner only.
            tenant: whose rows; nothing else of the schema is read or written.

        Raises:
            UnknownTenant, TenantClosed: there is no such tenant, or it is closed to owners.
            SchemaMismatch, StoreBroken, StoreReadOnly, StoreUnavailable, CannotLoad: it cannot be
                used; it was left as it is.
            KeyMissing, KeyWrong: its payloads are encrypted, and not by the keys that were given.
        """
        self.server = PostgresDatabase(
            Address.of(url), owner=owner, now=now, upgrade=upgrade, tenant=tenant
        )
        try:
            database = before(self.server, now, owner=owner is not None)
        except BaseException:
            self.server.close()
            raise
        super().__init__(database)
        try:
            self.epochs.look(now)
        except BaseException:
            self.server.close()
            raise
        database.when_connected(self.epochs.look)
