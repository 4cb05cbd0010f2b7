"""Words between processes by LISTEN and NOTIFY: a coalesced hint, on a connection of its own.

Theory of operation. PostgreSQL takes a lock of the whole database at each commit that notifies. So
no transaction that does something does; a thread with a connection of its own sends what there is
to say, at most once in a while, and hears what the others say. It never makes anybody wait. Where
the connection breaks hints are lost, and everything is found by looking, a little later.

Through a pooler that gives connections to others after each transaction nobody can listen: what was
asked would stay behind on a connection of somebody else's. It is noticed, as the number of the
server's process is another one than was told at the beginning; then hints are said, and not heard.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import random
import select
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
from psycopg import sql

from outlast.errors import OutlastError
from outlast.store.postgres.address import Address
from outlast.store.postgres.connect import connect

GAP_SECONDS: Final = 0.02
"""At most one NOTIFY in this time, whatever there is to say."""
AGAIN_SECONDS: Final = 1.0
"""How soon a connection that broke is opened again, about."""
END_SECONDS: Final = 1.0
TOPICS: Final = ("work", "inbox", "ended")


def channel_of(schema: str, tenant: int) -> str:
    """Name the channel of a tenant in a schema: there may be several in one database."""
    said = f"{tenant} {schema}".encode()
    return "outlast_" + hashlib.blake2b(said, digest_size=10).hexdigest()


class PostgresHints:
    """The hints of one process and tenant; see the protocol.

    Args:
        address: where the database is.
        tenant: whose engines talk to each other.
        heard: is told the topics, in this object's own thread.

    Attributes:
        sent, received: how many notifications.
        is_listening: whether others can be heard just now.
    """

    def __init__(self, address: Address, tenant: int, heard: Callable[[str], None]) -> None:
        self.sent = self.received = 0
        self.is_listening = False
        self._address = address.for_hints
        self._heard = heard
        self._channel = channel_of(address.schema, tenant)
        self._topics: set[str] = set()
        self._own_pid: int | None = None
        self._lock = threading.Lock()
        self._is_over = False
        self._ended = threading.Event()
        self._wakes, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._wakes, False)
        self._thread = threading.Thread(target=self._run, name="outlast-hints", daemon=True)
        self._thread.start()

    def send(self, topic: str) -> None:
        """See the protocol."""
        with self._lock:
            if topic in self._topics or self._is_over:
                return
            self._topics.add(topic)
            self._stir()

    def close(self) -> None:
        """See the protocol; what was to be said is said, if that takes no time."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            self._stir()
        self._ended.set()
        self._thread.join(END_SECONDS)

    def _stir(self) -> None:
        """Wake the thread, under the lock: when it ends, its pipe's numbers are others' soon."""
        if self._wake >= 0:
            with contextlib.suppress(BlockingIOError):  # the pipe is full of such words
                os.write(self._wake, b"x")

    def _run(self) -> None:
        try:
            self._go_on()
        finally:
            with self._lock:
                os.close(self._wake)
                os.close(self._wakes)
                self._wake = self._wakes = -1

    def _go_on(self) -> None:
        while not self._is_over:
            try:
                with connect(self._address, is_short=True) as connection:
                    self._serve(connection)
            except (psycopg.Error, OutlastError, OSError):
                pass
            finally:
                self.is_listening = False
            if not self._is_over:
                self._ended.wait(AGAIN_SECONDS * random.uniform(0.5, 1.5))

    def _serve(self, connection: psycopg.Connection[Any]) -> None:
        listens = self._may_listen(connection)
        if listens:
            connection.add_notify_handler(self._take)
            self._own_pid = connection.info.backend_pid
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        self.is_listening = listens
        for topic in TOPICS:
            self._heard(topic)  # what was said before it listened is lost
        not_before = 0.0
        poll = select.poll()  # not select(), which knows no descriptors above 1023
        poll.register(connection.fileno(), select.POLLIN)
        poll.register(self._wakes, select.POLLIN)
        while True:
            wait = None
            with self._lock:
                if self._topics:
                    wait = max(0.0, not_before - time.monotonic())
            if wait == 0.0 or (wait is not None and self._is_over):
                with self._lock:
                    said, self._topics = ",".join(sorted(self._topics)), set()
                connection.execute("SELECT pg_notify(%s, %s)", (self._channel, said))
                self.sent += 1
                not_before = time.monotonic() + GAP_SECONDS
                continue
            if self._is_over:
                return
            ready = dict(poll.poll(None if wait is None else math.ceil(wait * 1_000)))
            if self._wakes in ready:
                os.read(self._wakes, 4_096)
            if connection.fileno() in ready:
                connection.pgconn.consume_input()
                while (notify := connection.pgconn.notifies()) is not None:
                    self._hear(notify.be_pid, notify.extra.decode(errors="replace"))
                if connection.pgconn.status != psycopg.pq.ConnStatus.OK:
                    raise OSError("the connection is gone")

    def _may_listen(self, connection: psycopg.Connection[Any]) -> bool:
        """Tell whether what others say would come here."""
        if self._address.listens != "auto":
            return self._address.listens != "off"
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        return row is not None and row[0] == connection.info.backend_pid

    def _take(self, notify: psycopg.Notify) -> None:
        self._hear(notify.pid, notify.payload)

    def _hear(self, pid: int, payload: str) -> None:
        """Tell of what others have said; one's own words come back, too."""
        if self._own_pid == pid:
            return
        self.received += 1
        for topic in payload.split(","):
            if topic in TOPICS:
                self._heard(topic)


__all__ = ["PostgresHints", "channel_of"]
