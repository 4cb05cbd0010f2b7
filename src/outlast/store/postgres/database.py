"""A PostgreSQL database: a connection that writes, one that renews leases, a few that read.

Theory of operation. A transaction is broken off by the server when it stood in another one's way
(``40001``, ``40P01``), waited too long for a lock (``55P03``), or made what somebody else made in
the same instant (``23505``). It has done nothing then, and is run again from its beginning, where
it sees what the other one did. The same holds for a connection that breaks before the ``COMMIT``
was sent. If it breaks after that, nobody knows: that is told, and whoever asked reads again.

Which locks are taken, and in which order, is in docs/decisions/0023.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import psycopg
from psycopg import errors

from outlast.errors import InternalError, StoreFailedOver, StoreUnavailable, UsageError
from outlast.store.epoch import Keeping
from outlast.store.postgres.address import Address
from outlast.store.postgres.arrays import array_of
from outlast.store.postgres.connect import (
    PLANS,
    SETTINGS,
    open_session,
    settings_of,
    translated,
    translation,
)
from outlast.store.postgres.feed import settle
from outlast.store.postgres.history import compared, kept_by
from outlast.store.postgres.migrate import ready
from outlast.store.postgres.session import (
    ConnectionLost,
    GoneOver,
    GuardFired,
    PreparedLost,
    Session,
    Unforeseen,
)
from outlast.store.postgres.statements import Sendable, statements
from outlast.store.protocol import DEFAULT_TENANT, CreateMany, Hints
from outlast.store.relational.alike import common_to
from outlast.store.relational.database import Database, Reader, Rows, Sight
from outlast.store.relational.rows import Value

T = TypeVar("T")
TRIES: Final = 8
"""How often a transaction is run at most."""
READERS_MAX: Final = 3
ROWS_MAX: Final = 4_000
"""Rows of parameters a statement, so that no message to the server grows without bounds."""
RARE_MAX: Final = 8
"""Rows of parameters up to which what is hardly ever there is not waited for: among many there is
something more often, to begin anew costs more, and a round trip is a small part of it."""
RARE_PAUSE: Final = 100
"""Transactions that look at once after one found what is hardly ever there."""
LATELY_S: Final = 2.0
"""Who has heard nothing from the server for so long looks at once: a connection that broke
meanwhile is noticed before the COMMIT is sent, not after it, when nobody knows its outcome."""
BACK_OFF_MAX_S: Final = 2.0
BEAT_TRIES: Final = 2
"""A renewal is tried on a new connection once: whoever renews tries again anyway."""
_AGAIN: Final = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.UniqueViolation,
    PreparedLost,
)
"""What a second try may not find any more."""


_BEGIN: Final = b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
"""Whatever a role has by default."""
_WHOLE: Final = frozenset({"gates", "gates_shared", "epoch", "queues", "queues_shared"})
"""Locks that are of no rows."""


class _BrokenBeforeCommit(Exception):
    """The connection is gone, and the transaction has done nothing."""

    def __init__(self, error: ConnectionLost) -> None:
        super().__init__(str(error))
        self.error = error


class PostgresReader(Reader):
    """A connection that reads for long."""

    def __init__(
        self, session: Session, address: Address, tenant: int, known: Mapping[str, Sendable]
    ) -> None:
        self._session, self._statements = session, known
        self._settings = settings_of(address, tenant, long=True)
        self._in_snapshot = False

    def ask(self, name: str, values: Sequence[Value]) -> Rows:
        """See the seam."""
        statement = self._statements[name]
        width = len(statement.types)
        columns = [values[column::width] for column in range(width)]
        return self._look(statement, *statement.spread(columns))

    def ask_all(self, name: str, bounds: Mapping[str, Value]) -> Rows:
        """See the seam."""
        statement = self._statements[name]
        return self._look(statement, *statement.bind(bounds))

    def _look(
        self, statement: Sendable, values: Sequence[bytes | None], formats: list[int]
    ) -> Rows:
        if self._in_snapshot:
            return self._session.ask(statement.text, values, formats)
        with self.snapshot():
            return self._session.ask(statement.text, values, formats)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """See the seam."""
        self._session.queue(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self._session.queue(SETTINGS, self._settings)
        self._in_snapshot = True
        try:
            yield
        finally:
            self._in_snapshot = False
            self._session.abandon()

    def damage(self) -> list[str]:
        """See the seam: the server watches over its pages; that our guards are on is for us."""
        return [
            f"the guard {name} is turned off" for (name,) in self.ask_all("sleeping_guards", {})
        ]


class PostgresDatabase(Database):
    """One schema of a database; see the seam."""

    is_shared = True
    faults: tuple[type[Exception], ...] = (
        errors.IntegrityError,
        errors.DataError,
        GuardFired,
        errors.ProgramLimitExceeded,
        errors.StatementTooComplex,
    )
    races: tuple[type[Exception], ...] = (errors.UniqueViolation,)

    _writer: Session | None
    _beater: Session | None
    _readers: list[Session]
    _held: set[tuple[str, str]]
    _is_hasty = False

    def __init__(
        self,
        address: Address,
        *,
        owner: str | None,
        now: int,
        upgrade: bool,
        tenant: str = DEFAULT_TENANT,
    ) -> None:
        """Open the database, see :class:`outlast.store.postgres.store.PostgresStore`."""
        self.address = address
        self.url = address.shown
        self.tenant = ready(address, now, owner=owner is not None, upgrade=upgrade, tenant=tenant)
        self._statements = statements(self.tenant)
        self._settings = settings_of(address, self.tenant)
        self._hurry = threading.Event()
        self._begin_anew()
        self._writer = open_session(address, hurry=self._hurry)
        self._failures = self._pause = 0
        self._see: Callable[[], None] | None = None
        self.retries = 0

    def _begin_anew(self) -> None:
        """Have no connections: at first, and in a forked child, whose parent goes on with them."""
        self._process = os.getpid()
        self._writer = self._beater = None
        self._readers = []
        self._reading = threading.BoundedSemaphore(READERS_MAX)
        self._in_transaction = False
        self._is_closed = False
        self._held = set()
        self._depth = 0

    def _see_fork(self) -> None:
        if self._process != os.getpid():
            self._begin_anew()

    # Writing

    def transaction(self, act: Callable[[], T]) -> T:
        """See the seam."""
        for tries in count(1):
            self._is_hasty = tries == 1 and self._may_be_hasty()
            try:
                return self._transact(act)
            except Unforeseen:
                self._pause = RARE_PAUSE
            except _AGAIN as error:
                if tries >= TRIES or isinstance(error, errors.LockNotAvailable):
                    raise  # who waited for a lock for so long has waited enough
                self.retries += 1
                if tries > 1:
                    time.sleep(random.uniform(0.5, 1.5) * min(0.002 * 2**tries, 0.2))
            except _BrokenBeforeCommit as broken:
                if tries >= 3:
                    raise broken.error from None
                self.retries += 1
        raise AssertionError

    def _may_be_hasty(self) -> bool:
        """Tell whether to send a small transaction whole, its COMMIT too, before any answer."""
        if self._pause:
            self._pause -= 1
            return False
        writer = self._writer
        return writer is not None and time.monotonic() - writer.heard_at < LATELY_S

    def _transact(self, act: Callable[[], T]) -> T:
        session = self._session()
        commits = False
        try:
            session.queue(_BEGIN)
            session.queue(PLANS, (*self._settings, session.server))
            self._in_transaction = True
            result = act()
            session.see_it_lives()
            commits = True
            session.queue(b"COMMIT")
            tag = session.drain().command_status
            if tag != b"COMMIT":  # the server has taken it back, and says so by this alone
                raise InternalError(f"COMMIT was answered by {tag!r}", where=self.address.shown)
            return result
        except ConnectionLost as error:
            if not commits or isinstance(error, GoneOver):
                raise _BrokenBeforeCommit(error) from error
            raise StoreUnavailable(
                "the connection broke during a commit",
                where=self.address.shown,
                why=str(error),
                do="whether it was stored is unknown; read again",
            ) from error
        except BaseException:
            session.abandon()
            raise
        finally:
            self._in_transaction = False
            self._held.clear()
            self._depth = 0

    def _session(self) -> Session:
        """Give the writing connection; a new one where the last one broke."""
        self._see_fork()
        if self._writer is None or self._writer.is_broken:
            self._writer = self._reconnect()
            self._see_history()
        return self._writer

    def when_connected(self, look: Callable[[], None]) -> None:
        """See the seam."""
        self._see = look

    def _see_history(self) -> None:
        """Let the store see whose history this server has; a look that fails is made again."""
        assert self._writer is not None
        if self._see is not None:
            try:
                self._see()
            except StoreFailedOver:
                raise  # it was seen, and is told once
            except BaseException:
                self._writer.close()
                raise

    def keeping(self) -> Keeping:
        """See the seam."""
        (columns,) = self.read("keeping", {})
        found = self.read("identity", {})
        kept = found[0][0] if found else b"{}"
        assert isinstance(kept, bytes)
        return kept_by(columns, msgspec.json.decode(kept))

    def sight(self, kept: Mapping[str, Any] | None, now: int) -> Sight | None:
        """See the seam."""
        for name in ("sight", "sight_without_control", "sight_of_tables"):
            try:
                with self.savepoint():
                    ((system, timeline, database, tables, at),) = self.ask_all(name, {})
            except errors.InsufficientPrivilege:
                continue
            seen = {
                "system": system,
                "timeline": None if timeline is None else int(str(timeline), 16),
                "database": database,
                "tables": tables,
            }
            return compared(kept, seen, int(str(at)))
        return None

    def _reconnect(self) -> Session:
        if self._failures:  # not all at once, and not in a hurry
            longest = min(BACK_OFF_MAX_S, 0.05 * 2**self._failures)
            time.sleep(random.uniform(0.5, 1.0) * longest)
        try:
            session = open_session(self.address, hurry=self._hurry)
        except BaseException:
            self._failures += 1
            raise
        self._failures = 0
        return session

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """See the seam."""
        session = self._session()
        self._depth += 1
        name = b"s%d" % self._depth
        held = set(self._held)
        session.drain_all()  # what fails of that is not this block's
        session.queue(b"SAVEPOINT " + name)
        try:
            yield
            session.queue(b"RELEASE " + name)
            session.drain()
        except ConnectionLost:
            raise
        except BaseException:
            self._take_back(session, name)
            self._held = held  # locks that were taken inside are gone
            raise
        finally:
            self._depth -= 1

    def _take_back(self, session: Session, name: bytes) -> None:
        try:
            session.drain_all()
        except ConnectionLost:
            raise
        except psycopg.Error:
            pass  # it is taken back
        session.queue(b"ROLLBACK TO " + name)
        session.queue(b"RELEASE " + name)
        session.drain()

    def translated(self) -> AbstractContextManager[None]:
        """See the seam."""
        return translated(self.address)

    def lock(self, what: str, names: Collection[str] = ()) -> None:
        """See the seam; what this transaction has locked already is not asked for again."""
        if what in _WHOLE:
            stronger = what.removesuffix("_shared")
            if not self._held & {(what, ""), (stronger, "")}:
                self._held.add((what, ""))
                self._session().queue(self._statements[f"lock_{what}"].text)
            return
        wanted = sorted(name for name in names if (what, name) not in self._held)
        if wanted:
            self._held.update((what, name) for name in wanted)
            statement = self._statements[f"lock_{what}"]
            self._session().queue(statement.text, *statement.spread([wanted]))

    def ask(self, name: str, values: Sequence[Value]) -> Rows:
        """See the seam."""
        if not values:
            return []
        statement = self._statements[name]
        width = len(statement.types)
        if len(values) <= width * ROWS_MAX:
            columns = [values[column::width] for column in range(width)]
            return self._session().ask(statement.text, *statement.spread(columns))
        found: list[Sequence[object]] = []
        for start in range(0, len(values), width * ROWS_MAX):
            found += self.ask(name, values[start : start + width * ROWS_MAX])
        return found

    def ask_rare(self, name: str, values: Sequence[Value]) -> Rows:
        """See the seam: the server looks, and breaks the transaction off where there is a row."""
        statement = self._statements[name]
        width = len(statement.types)
        if not self._is_hasty or self._depth or not 0 < len(values) <= width * RARE_MAX:
            return self.ask(name, values)
        columns = [values[column::width] for column in range(width)]
        session = self._session()
        session.queue(statement.unforeseen, *statement.spread(columns))
        session.send_on()
        return []

    def ask_all(self, name: str, bounds: Mapping[str, Value]) -> Rows:
        """See the seam."""
        statement = self._statements[name]
        if self._in_transaction:
            return self._session().ask(statement.text, *statement.bind(bounds))
        for tries in count(1):
            try:
                return _alone(self._session(), self._settings, statement, bounds)
            except (ConnectionLost, *_AGAIN):
                if tries >= 3:
                    raise
        raise AssertionError

    def send(self, name: str, rows: Sequence[Sequence[Value]]) -> None:
        """See the seam."""
        if rows:
            self._queue(name, rows)

    def sent(self, name: str, rows: Sequence[Sequence[Value]]) -> int:
        """See the seam."""
        if not rows:
            return 0
        many = self._queue(name, rows)
        return sum(int(one.command_tuples or 0) for one in self._session().drain_all()[-many:])

    def send_counted(
        self, name: str, rows: Sequence[Sequence[Value]], hear: Callable[[int], None]
    ) -> None:
        """See the seam."""
        if not 0 < len(rows) <= ROWS_MAX:
            hear(self.sent(name, rows))
            return
        statement = self._statements[name]
        self._session().queue(
            statement.text,
            *statement.spread(list(zip(*rows, strict=True))),
            hear=lambda result: hear(int(result.command_tuples or 0)),
        )

    def _queue(self, name: str, rows: Sequence[Sequence[Value]]) -> int:
        """Send many rows; gives the number of statements."""
        statement, session = self._statements[name], self._session()
        parts = range(0, len(rows), ROWS_MAX)
        for start in parts:
            part = rows if len(parts) == 1 else rows[start : start + ROWS_MAX]
            session.queue(statement.text, *statement.spread(list(zip(*part, strict=True))))
        return len(parts)

    def run(self, name: str, bounds: Mapping[str, Value]) -> int:
        """See the seam."""
        statement, session = self._statements[name], self._session()
        session.queue(statement.text, *statement.bind(bounds))
        return int(session.drain().command_tuples or 0)

    def bear(self, item: CreateMany) -> None:
        """See the seam."""
        session = self._session()
        bounds = {
            **common_to(item, self.tenant),
            "ids": array_of("text", item.ids),
            "digests": array_of("bigint", item.digests),
            "payloads": array_of("bytea", item.payloads),
        }
        for name in ("bear_transitions", "bear_executions"):
            statement = self._statements[name]
            session.queue(statement.text, *statement.bind(bounds))

    def beat(self, name: str, bounds: Mapping[str, Value], patience_s: float) -> Rows:
        """See the seam."""
        statement = self._statements[name]
        self._see_fork()
        with translated(self.address):
            for tries in count(1):
                session = self._beater
                if session is None or session.is_broken:
                    session = open_session(self.address, patience_s=patience_s, is_short=True)
                    self._beater = session
                session.wait_at_most(patience_s)
                try:
                    return _alone(session, self._settings, statement, bounds)
                except (ConnectionLost, *_AGAIN):
                    if tries >= BEAT_TRIES:
                        raise
        raise AssertionError

    def settle(self) -> int:
        """See the seam."""
        return settle(self)

    def hurry(self, is_on: bool) -> None:
        """See the seam."""
        if is_on:
            self._hurry.set()
        else:
            self._hurry.clear()

    def hints(self, heard: Callable[[str], None]) -> Hints:
        """See the seam."""
        from outlast.store.postgres.hints import PostgresHints

        return PostgresHints(self.address, self.tenant, heard)

    # Reading

    def read(self, name: str, bounds: Mapping[str, Value]) -> Rows:
        """See the seam."""
        statement = self._statements[name]
        return self._look(statement, *statement.bind(bounds))

    def read_many(self, name: str, values: Sequence[Value]) -> Rows:
        """See the seam."""
        if not values:
            return []
        statement = self._statements[name]
        width = len(statement.types)
        columns = [values[column::width] for column in range(width)]
        return self._look(statement, *statement.spread(columns))

    def _look(
        self, statement: Sendable, values: Sequence[bytes | None], formats: list[int]
    ) -> Rows:
        self._see_fork()
        with translated(self.address), self._reading:
            for tries in count(1):
                session = self._free_reader()
                try:
                    session.queue(b"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY")
                    session.queue(SETTINGS, self._settings)
                    session.queue(statement.text, values, formats)
                    session.queue(b"COMMIT")
                    rows = session.rows_of(session.drain_all()[-2])
                    self._give_back(session)
                    return rows
                except (ConnectionLost, PreparedLost) as error:
                    # The server may have closed connections that nobody used for long.
                    if tries > READERS_MAX:
                        raise
                    if isinstance(error, PreparedLost):
                        session.abandon()
                        self._give_back(session)
                except BaseException:
                    session.abandon()
                    if not session.is_broken:
                        self._give_back(session)
                    raise
        raise AssertionError

    def _give_back(self, session: Session) -> None:
        """Keep a connection for the next one who reads; nobody does once all is closed."""
        if self._is_closed:
            session.close()
        else:
            self._readers.append(session)

    def _free_reader(self) -> Session:
        while True:
            try:
                session = self._readers.pop()
            except IndexError:
                return open_session(self.address, hurry=self._hurry)
            if not session.is_broken:
                return session

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """See the seam."""
        session = open_session(self.address, long=True)
        try:
            with translated(self.address):
                yield PostgresReader(session, self.address, self.tenant, self._statements)
        finally:
            session.close()

    def changed(self) -> bool:
        """See the seam: nobody tells, so it may always be."""
        return True

    def backup(self, path: Path) -> None:
        """See the seam: a server has its own programs for that.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "PostgreSQL is backed up by its own programs",
            where=self.url,
            why="they copy it at one instant, while others go on, and can follow it continuously",
            do=f"pg_dump --format=custom --schema={self.address.schema} --file={path} …,"
            " or pg_basebackup and WAL archiving",
        )

    def close(self) -> None:
        """See the seam."""
        self._see_fork()
        self._is_closed = True
        for session in (self._writer, self._beater, *self._readers):
            if session is not None:
                session.close()
        self._readers.clear()


def _alone(
    session: Session,
    settings: tuple[bytes, ...],
    statement: Sendable,
    bounds: Mapping[str, Value],
) -> Rows:
    """Run one statement in a transaction of its own, in one round trip."""
    try:
        session.queue(_BEGIN)
        session.queue(PLANS, (*settings, session.server))
        session.queue(statement.text, *statement.bind(bounds))
        session.queue(b"COMMIT")
        return session.rows_of(session.drain_all()[-2])
    except BaseException:
        session.abandon()
        raise


__all__ = ["PostgresDatabase", "PostgresReader", "translation"]
