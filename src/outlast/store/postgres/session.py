"""One connection, by libpq's pipeline: statements are queued, and answered together.

Theory of operation. libpq is used through psycopg's binding, below its cursors: parameters are
written as bytes (``arrays``), a statement is prepared the first time it is sent, and nothing is
waited for before somebody needs an answer: a transaction takes as many round trips as there are
answers that decide what comes next.

An error is seen at the next :meth:`Session.drain`. The server then passes over everything up to the
end of what was sent, so nothing that was queued behind a failed statement is ever run.

Waiting lets go of the interpreter's lock, and has an end: a server that says nothing for longer
than any statement may take is taken for lost. A forked child drops the connection: psycopg leaves
it to the process that opened it.

With a pooler in between, one that was prepared may be there already, or be gone. The session then
says so once (:class:`PreparedLost`), and prepares nothing from there on; whoever runs the
transaction runs it again.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final
from zlib import crc32

import psycopg
from psycopg import errors, pq
from psycopg.adapt import Transformer

Row = tuple[Any, ...]
GUARD: Final = "OL001"
"""What guards say as their SQLSTATE."""
UNFORESEEN: Final = "OL003"
"""What ``Sendable.unforeseen`` says as its SQLSTATE."""
HURRY_S: Final = 4.0
"""How long the server may be silent where nothing is worth a long wait."""
_PART_MS: Final = 500
_BINARY: Final = 1
_GOOD: Final = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
_SYNC: Final = pq.ExecStatus.PIPELINE_SYNC
_ABORTED: Final = pq.ExecStatus.PIPELINE_ABORTED
_ELSEWHERE: Final = '"another server"'
"""What ``connect.PLANS`` sets where a pooler has gone over to another server."""
_LOST_NAMES: Final = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement)


class ConnectionLost(psycopg.OperationalError):
    """The connection is gone; what was sent on it and not answered may have been done, or not."""


class GoneOver(ConnectionLost):
    """A pooler has gone over to another server; nothing was done, the COMMIT passed over too."""


class GuardFired(psycopg.DatabaseError):
    """A guard of the schema has refused a row."""

    sqlstate: str | None = GUARD


class Unforeseen(psycopg.DatabaseError):
    """There was what a transaction did not look for; nothing was done, and it is to look."""

    sqlstate: str | None = UNFORESEEN


class PreparedLost(psycopg.OperationalError):
    """A pooler has put another server behind us; nothing was done, and it may be tried again."""


class Session:
    """One connection; for one thread at a time."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        *,
        prepares: bool,
        patience_s: float,
        hurry: threading.Event | None = None,
    ) -> None:
        """Take a connection that nobody else uses.

        Args:
            connection: it, in autocommit mode.
            prepares: whether statements may be prepared.
            patience_s: how long the server may be silent.
            hurry: while it is set, no silence is borne for longer than :data:`HURRY_S`.
        """
        self._connection = connection
        self._pg = connection.pgconn
        self._patience_ms = round(patience_s * 1_000)
        self._hurry = hurry
        self.prepares = prepares
        self.server = b""
        self.is_broken = False
        self._prepared: dict[bytes, bytes] = {}
        self._queued: list[tuple[bytes, bytes] | None] = []
        self._hearers: list[tuple[int, Callable[[Any], None]]] = []
        self.heard_at = monotonic()
        self._pg.nonblocking = 1
        self._pg.enter_pipeline_mode()
        self._poll = select.poll()
        self._poll.register(self._pg.socket, select.POLLIN)

    def wait_at_most(self, patience_s: float) -> None:
        """Wait no longer than this for a silent server, from here on."""
        self._patience_ms = round(patience_s * 1_000)

    @property
    def is_idle(self) -> bool:
        """Whether no transaction is open."""
        return self._pg.transaction_status == pq.TransactionStatus.IDLE

    def queue(
        self,
        text: bytes,
        values: Sequence[bytes | None] = (),
        formats: Sequence[int] = (),
        hear: Callable[[Any], None] | None = None,
    ) -> None:
        """Send a statement; what comes of it is told by the next :meth:`drain`, and to ``hear``."""
        if hear is not None:
            self._hearers.append((self._queued.count(None), hear))
        try:
            if not self.prepares:
                self._pg.send_query_params(text, values or None, None, formats or None, _BINARY)
            else:
                name = self._prepared.get(text)
                if name is None:
                    # By what it says: behind a pooler, the same name is the same statement.
                    name = b"outlast_%08x_%d" % (crc32(text), len(text))
                    self._pg.send_prepare(name, text)
                    self._queued.append((text, name))
                    self._prepared[text] = name
                self._pg.send_query_prepared(name, values or None, formats or None, _BINARY)
        except psycopg.Error as error:
            raise self._lost(str(error)) from error
        self._queued.append(None)

    def ask(
        self,
        text: bytes,
        values: Sequence[bytes | None] = (),
        formats: Sequence[int] = (),
    ) -> list[Row]:
        """Send a statement, and give its rows; what was queued before is done by then."""
        self.queue(text, values, formats)
        return self.rows_of(self.drain())

    def rows_of(self, result: Any) -> list[Row]:
        """Give the rows of a result."""
        count = result.ntuples
        if not count:
            return []
        reader = Transformer(self._connection)
        reader.set_pgresult(result)
        return reader.load_rows(0, count, tuple)

    def drain(self) -> Any:
        """Wait for everything that was queued; gives the result of the last statement.

        Raises:
            ConnectionLost: the connection is gone.
            psycopg.Error: the first statement that failed, by its SQLSTATE.
        """
        return self.drain_all()[-1]

    def drain_all(self) -> list[Any]:
        """Wait as :meth:`drain` does; gives the result of each statement."""
        queued, self._queued = self._queued, []
        hearers, self._hearers = self._hearers, []
        failure: psycopg.Error | None = None
        results: list[Any] = []
        try:
            self._pg.pipeline_sync()
            self._flush()
            for prepared in queued:
                result = self._next()
                if result.status in _GOOD:
                    if prepared is None:
                        results.append(result)
                else:
                    if prepared is not None:
                        self._prepared.pop(prepared[0], None)
                    if failure is None and result.status != _ABORTED:
                        failure = _error_of(result)
                if self._next_or_none() is not None:
                    raise ConnectionLost("there were two answers to a statement")
            synced = self._next()
            if synced.status != _SYNC:  # the server's last word, as nothing of ours could fail
                raise _error_of(synced)
        except psycopg.Error as error:
            raise self._lost(str(error)) from (failure or error)
        except OSError as error:
            raise self._lost(str(error)) from error
        except BaseException:
            self.close()  # the answers still to come would be taken for those of others
            raise
        while self._pg.notifies() is not None:
            pass  # behind a pooler, somebody else may have listened on this connection
        if failure is not None:
            if isinstance(failure, _LOST_NAMES) and self.prepares:
                self.prepares = False
                self._prepared.clear()
                raise PreparedLost("a pooler is in between") from failure
            if isinstance(failure, errors.InvalidParameterValue) and _ELSEWHERE in str(failure):
                self.close()
                raise GoneOver("the pooler has gone over to another server") from failure
            raise failure
        self.heard_at = monotonic()
        for place, hear in hearers:
            hear(results[place])
        return results

    def send_on(self) -> None:
        """Let the server begin with what was queued, while the rest is made here."""
        try:
            self._pg.flush()
        except psycopg.Error as error:
            raise self._lost(str(error)) from error

    def see_it_lives(self) -> None:
        """See that the server has not ended the connection meanwhile, as far as is known here.

        Raises:
            ConnectionLost: it has; what was queued and never answered was not done.
        """
        try:
            for _ in range(3):  # its last words, and then the end
                if not self._poll.poll(0):
                    break
                self._pg.consume_input()
            if self._pg.status == pq.ConnStatus.BAD:
                raise ConnectionLost("the connection ended")
        except psycopg.Error as error:
            raise self._lost(str(error)) from error

    def abandon(self) -> None:
        """Take back the open transaction, and forget what was queued for it."""
        if self.is_broken:
            return
        if self._queued:
            try:
                self.drain_all()
            except ConnectionLost:
                return
            except psycopg.Error:
                pass  # it is taken back anyway
        if not self.is_idle:
            try:
                self.queue(b"ROLLBACK")
                self.drain_all()
            except psycopg.Error:
                self.close()

    def _next(self) -> Any:
        result = self._next_or_none()
        if result is None:
            raise ConnectionLost("the connection ended in the middle of an answer")
        return result

    def _next_or_none(self) -> Any:
        pg = self._pg
        while pg.is_busy():
            self._wait()
            pg.consume_input()
        result = pg.get_result()
        if result is None and pg.status == pq.ConnStatus.BAD:
            raise ConnectionLost(pg.get_error_message() or "the connection ended")
        if result is not None and pg.status == pq.ConnStatus.BAD:
            raise ConnectionLost(result.get_error_message() or "the connection ended")
        return result

    def _wait(self) -> list[tuple[int, int]]:
        """Wait for the server; whoever is in a hurry is heard while it waits."""
        waited = 0
        while waited < self._patience_ms:
            part = min(_PART_MS, self._patience_ms - waited)
            if ready := self._poll.poll(part):
                return ready
            waited += part
            if self._hurry is not None and self._hurry.is_set() and waited >= HURRY_S * 1_000:
                break
        raise ConnectionLost(f"no word from the server for {waited / 1000:.0f} s")

    def _flush(self) -> None:
        pg = self._pg
        while pg.flush():
            self._poll.modify(pg.socket, select.POLLIN | select.POLLOUT)
            try:
                ready = self._wait()
                if ready[0][1] & select.POLLIN:
                    pg.consume_input()
            finally:
                self._poll.modify(pg.socket, select.POLLIN)

    def _lost(self, said: str) -> ConnectionLost:
        self.close()
        return ConnectionLost(said.strip() or "the connection ended")

    def close(self) -> None:
        """Let go of the connection."""
        self.is_broken = True
        self._connection.close()


def _error_of(result: Any) -> psycopg.Error:
    error = errors.error_from_result(result, "utf-8")
    if error.sqlstate == GUARD:
        return GuardFired(error.diag.message_primary or "a guard")
    if error.sqlstate == UNFORESEEN:
        return Unforeseen(error.diag.message_primary or "a row that was not looked for")
    return error
