"""A connection that belongs to the caller, inside whose own transaction something is written.

Theory of operation. The caller's transaction is its own: it is neither begun by us, where the
driver would not begin it anyway, nor ended. What we write stands in a savepoint, so that a refusal
leaves the transaction as it was. Whatever we set there, we set back: the search path and the
tenant. Timeouts, isolation and durability stay the caller's.

The driver's lock of the connection is held meanwhile, and the connection is not used by the driver:
it is in libpq's pipeline mode, as all of ours are. Where it cannot be brought back from there, it
is closed, and the server takes the whole transaction back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors, pq
from psycopg.adapt import Transformer

from outlast.errors import StoreBusy, UsageError
from outlast.store.postgres.connect import PATIENCE_S, path_of
from outlast.store.postgres.database import PostgresDatabase
from outlast.store.postgres.hints import channel_of
from outlast.store.postgres.session import Row, Session
from outlast.store.postgres.statements import statements
from outlast.store.postgres.store import PostgresStore
from outlast.store.protocol import Answer, Create, Inside
from outlast.store.relational import RelationalStore
from outlast.store.relational.sealed import SealedDatabase

T = TypeVar("T")
TRIES: Final = 4
"""How often something is tried that another transaction made in the same instant."""
_PATH: Final = b"SELECT set_config('search_path', $1, true), set_config('outlast.tenant', $2, true)"
_STANDING: Final = (
    b"SELECT current_setting('search_path'), current_setting('session_replication_role'),"
    b" coalesce(current_setting('outlast.tenant', true), '')"
)


def inside_of(store: Any, connection: Any, *, is_async: bool) -> Inside:
    """Say how to write through a caller's connection; see :func:`outlast.store.inside_of`.

    Raises:
        UsageError: this is no such connection.
    """
    assert isinstance(store, PostgresStore)
    wanted = psycopg.AsyncConnection if is_async else psycopg.Connection
    if not isinstance(connection, wanted):
        raise UsageError(
            f"connection= is a {type(connection).__name__}",
            why=f"this start needs a psycopg.{wanted.__name__}",
            do="start goes with a psycopg.Connection, astart with a psycopg.AsyncConnection",
        )
    return Inside(check_borrowed, lambda caller, item: birth_within(store, caller, item))


def check_borrowed(connection: psycopg.BaseConnection[Any]) -> bool:
    """Look whether a caller's connection can be written through; tells whether to begin.

    Raises:
        UsageError: it cannot.
    """
    pgconn = connection.pgconn
    status = pgconn.transaction_status
    why = do = ""
    if status == pq.TransactionStatus.UNKNOWN:
        why, do = "it is closed", "give an open one"
    elif pgconn.pipeline_status != pq.PipelineStatus.OFF:
        why, do = "it is in a pipeline", "start outside of the pipeline() block"
    elif status == pq.TransactionStatus.INERROR:
        why, do = "its transaction has failed", "roll back, and begin again"
    elif status == pq.TransactionStatus.ACTIVE:
        why, do = "it is in the middle of a statement", "read the results first"
    elif connection.info.encoding != "utf-8":
        why = f"it speaks {connection.info.encoding}"
        do = "connect with client_encoding=UTF8"
    elif status == pq.TransactionStatus.IDLE and connection.autocommit:
        why = "it is in autocommit mode, and no transaction is open"
        do = "with connection.transaction(): …"
    if why:
        raise UsageError("nothing can be started through this connection", why=why, do=do)
    return status == pq.TransactionStatus.IDLE


def birth_within(
    store: PostgresStore, connection: psycopg.BaseConnection[Any], item: Create
) -> Answer:
    """Write a birth inside the caller's open transaction; it is there once that is committed.

    Raises:
        UsageError: the connection leads to another database.
        OutlastError: the store refused it; the transaction is as it was before, but where the
            connection is closed.
    """
    database, vault = store.server, store.database
    with database.translated(), _borrowed(connection) as session:
        own = Borrowed(database, session)
        own.check_place(database)
        sealed = vault.over(own) if isinstance(vault, SealedDatabase) else own
        answer = RelationalStore(sealed).commit([item])[0]
        if answer.refused is None:
            session.queue(
                b"SELECT pg_notify($1, 'work')",
                [channel_of(database.address.schema, database.tenant).encode()],
            )
            session.drain_all()
        return answer


@contextmanager
def _borrowed(connection: psycopg.BaseConnection[Any]) -> Iterator[BorrowedSession]:
    pgconn = connection.pgconn
    nonblocking = pgconn.nonblocking
    session = BorrowedSession(connection)
    try:
        yield session
    finally:
        try:
            if not session.is_broken:
                session.settle()
                pgconn.exit_pipeline_mode()
                pgconn.nonblocking = nonblocking
        except psycopg.Error:
            session.close()


class BorrowedSession(Session):
    """The caller's connection, as one of ours."""

    def __init__(self, connection: psycopg.BaseConnection[Any]) -> None:
        super().__init__(connection, prepares=False, patience_s=PATIENCE_S)  # type: ignore[arg-type]

    def rows_of(self, result: Any) -> list[Row]:
        """Give the rows of a result, whatever the caller's connection makes of types."""
        reader = Transformer()
        reader.set_pgresult(result)
        return reader.load_rows(0, result.ntuples, tuple) if result.ntuples else []

    def settle(self) -> None:
        """Take in whatever was sent and not answered; an error has been told, or will be."""
        if self._queued:
            try:
                self.drain_all()
            except psycopg.Error:
                if self.is_broken:
                    raise

    def close(self) -> None:
        """Break the connection off: the driver sees a closed one."""
        self.is_broken = True
        self._pg.finish()


class Borrowed(PostgresDatabase):
    """The seam of a database, on the caller's connection and in its transaction.

    It writes and asks; it has no readers, and opens nothing.
    """

    def __init__(self, database: PostgresDatabase, session: BorrowedSession) -> None:
        self.address, self.url = database.address, database.url
        self.tenant = database.tenant
        self._statements = statements(self.tenant)
        self._borrowed = session
        self._path = path_of(self.address.schema).encode()
        self._in_transaction = True
        self._held = set()
        self._depth = 0

    def _session(self) -> Session:
        return self._borrowed

    def transaction(self, act: Callable[[], T]) -> T:
        """Act in a savepoint; what another one made in the same instant is seen by a second try."""
        for tries in count(1):
            try:
                with self.savepoint(), self._pathed():
                    return act()
            except errors.UniqueViolation as error:
                if tries >= TRIES:
                    raise StoreBusy(
                        "another transaction made the same at the same time",
                        where=self.url,
                        why="the isolation of this transaction does not let it see the other one",
                        do="roll back, and run your transaction again",
                    ) from error
        raise AssertionError

    def check_place(self, database: PostgresDatabase) -> None:
        """Refuse a connection to another database than the store's.

        Raises:
            UsageError: it leads elsewhere, or to where the guards are off.
        """
        with self.savepoint(), self._pathed() as role:
            here = list(map(tuple, self.ask_all("whereabouts", {})))
        there = list(map(tuple, database.read("whereabouts", {})))
        if here != there:
            raise UsageError(
                "the connection does not lead to the database of the engine",
                where=self.url,
                do="connect to the same database, or open the engine on this one",
            )
        if role != "origin":
            raise UsageError(
                "the guards are off in this connection",
                where=self.url,
                why=f"session_replication_role is {role}",
                do="use a connection that is not for replication",
            )

    @contextmanager
    def _pathed(self) -> Iterator[str]:
        """Have our search path and tenant, then the caller's; an error's savepoint sets it back."""
        session = self._borrowed
        ((path, role, tenant),) = session.ask(_STANDING)
        session.queue(_PATH, [self._path, str(self.tenant).encode()])
        yield str(role)
        session.queue(_PATH, [str(path).encode(), str(tenant).encode()])


__all__ = ["Borrowed", "BorrowedSession", "birth_within", "check_borrowed", "inside_of"]
