"""What the verbs need of a database: transactions, and named statements sent and asked.

Theory of operation. One thread writes, by :meth:`Database.transact`, which may run what it is given
more than once: where several processes write, a database may break a transaction off that stood in
another one's way. So what is given reads what it decides on inside, and leaves nothing outside
before it has returned. Reading has a connection of its own, for any thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from outlast.store.decisions import births_of
from outlast.store.epoch import Keeping
from outlast.store.protocol import CreateMany, Hints
from outlast.store.relational.hearing import Hearing
from outlast.store.relational.rows import Value, own_values_of, values_of_transition

T = TypeVar("T")
Rows = Sequence[Sequence[object]]


def json_of(value: object) -> str:
    """Write a list, or a mapping, as one parameter."""
    return msgspec.json.encode(value).decode()


class Sight(Struct, frozen=True):
    """What a database sees of itself: whose history it has.

    Attributes:
        identity: what is kept of it, and compared with the next sight.
        now: the instant, by the store's own clock where it has one.
        cause: why this is another history than the one that was kept; None where it is not.
        why: the same for people.
    """

    identity: dict[str, Any]
    now: int
    cause: str | None = None
    why: str = ""


class Reader(ABC):
    """Asks named statements."""

    @abstractmethod
    def ask(self, name: str, values: Sequence[Value]) -> Rows:
        """Ask with many rows of parameters, one after another in one list."""

    @abstractmethod
    def ask_all(self, name: str, bounds: Mapping[str, Value]) -> Rows:
        """Ask for all rows of a statement."""

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[None]:
        """Run a block of reads on one and the same commit."""

    @abstractmethod
    def damage(self) -> list[str]:
        """Say what is broken below the rows."""


class Database(ABC):
    """One database, as one process uses it.

    Everything but ``read``, ``read_many`` and ``reader`` is for the writing thread.

    Attributes:
        url: the address, without what is secret in it.
        tenant: the number of the tenant that its statements are for.
        is_shared: whether several processes write at the same time, so that locks are needed.
        faults: the errors by which a guard, or a value that no column can hold, shows itself.
        races: those of them that may mean that somebody else made the same in the same instant.
        hearing: gathers what a transaction writes, for whoever wants to hear of it.
    """

    url: str
    tenant: int
    is_shared: bool
    faults: tuple[type[Exception], ...]
    races: tuple[type[Exception], ...] = ()
    hearing: Hearing | None = None

    def transact(self, act: Callable[[], T]) -> T:
        """Act within one write transaction, and commit; an error rolls it back whole."""
        hearing = self.hearing
        if hearing is None:
            return self.transaction(act)
        result = self.transaction(partial(hearing.begin, act))
        hearing.tell()
        return result

    @abstractmethod
    def transaction(self, act: Callable[[], T]) -> T:
        """Act within one write transaction; see :meth:`transact`, which all callers use."""

    def write(self, act: Callable[[], T]) -> T:
        """Act within one write transaction, and give errors in our words."""
        with self.translated():
            return self.transact(act)

    @abstractmethod
    def savepoint(self) -> AbstractContextManager[object]:
        """Run a block that an error takes back by itself, inside the transaction."""

    @abstractmethod
    def translated(self) -> AbstractContextManager[None]:
        """Turn the driver's errors into ours."""

    @abstractmethod
    def lock(self, what: str, names: Collection[str] = ()) -> None:
        """Keep other writers from some rows, until the end of the transaction.

        Args:
            what: ``epoch``, ``queues``, ``schedules``, ``executions``, ``gates``, ``sign_ins`` or
                ``audit``, in this order; see docs/decisions/0023.
            names: whose rows; of gates it is all of them.
        """

    @abstractmethod
    def ask(self, name: str, values: Sequence[Value]) -> Rows:
        """Ask with many rows of parameters, one after another in one list."""

    def ask_rare(self, name: str, values: Sequence[Value]) -> Rows:
        """Ask as :meth:`ask` does for what is hardly ever there, inside the open transaction.

        A database may give none without having looked, and look before the transaction commits:
        where there are some after all, all is taken back and run again.
        """
        return self.ask(name, values)

    @abstractmethod
    def ask_all(self, name: str, bounds: Mapping[str, Value]) -> Rows:
        """Ask for all rows of a statement; in a transaction, or by itself."""

    @abstractmethod
    def send(self, name: str, rows: Sequence[Sequence[Value]]) -> None:
        """Send a statement with many rows of parameters; with none nothing is sent."""

    @abstractmethod
    def sent(self, name: str, rows: Sequence[Sequence[Value]]) -> int:
        """Send as :meth:`send` does, and give how many rows of the database it changed."""

    def send_counted(
        self, name: str, rows: Sequence[Sequence[Value]], hear: Callable[[int], None]
    ) -> None:
        """Send as :meth:`send` does; how many rows it changed is told before the commit returns."""
        hear(self.sent(name, rows))

    @abstractmethod
    def run(self, name: str, bounds: Mapping[str, Value]) -> int:
        """Run one statement, and give how many rows of the database it changed."""

    def bear(self, item: CreateMany) -> None:
        """Write births that are alike, the rows of their logs first.

        Raises:
            InternalError: they have more than all have.
        """
        births = list(births_of(item, self.tenant))
        self.send("insert_transitions", [values_of_transition(birth.rows[0]) for birth in births])
        self.send("insert_plain_executions", [own_values_of(birth.after) for birth in births])

    def beat(self, name: str, bounds: Mapping[str, Value], patience_s: float) -> Rows:
        """Ask a statement that writes, in a transaction of its own, where leases are renewed.

        In a shared database that is a connection, and a thread, of its own: a renewal waits for
        nothing that the writer waits for, and no longer than its patience for a silent server.
        """
        return self.write(lambda: self.ask_all(name, bounds))

    def settle(self) -> int:
        """Give rows of the feed that have no position one, inside the open transaction.

        Gives to how many; where one writes at a time, each has one from the beginning.
        """
        return 0

    def sight(self, kept: Mapping[str, Any] | None, now: int) -> Sight | None:
        """See whose history this is, inside the open transaction, and compare it with what is kept.

        None where nothing can be said, as no file of its own keeps it, or nobody owns it.
        """
        return None

    @abstractmethod
    def keeping(self) -> Keeping:
        """Say what of what is acknowledged can be lost."""

    def noted(self) -> None:  # noqa: B027 - most have nothing to do
        """Hear that the last sight is kept, and durable."""

    def when_connected(self, look: Callable[[], None]) -> None:  # noqa: B027 - nor here
        """Call this for each new connection that writes, before anything else is done with it."""

    def hurry(self, is_on: bool) -> None:  # noqa: B027 - most have no connection that could hang
        """Wait for no silent server for long, or again as usual; see the protocol. Any thread."""

    def hints(self, heard: Callable[[str], None]) -> Hints | None:
        """Hear words of other processes, see the protocol; None where there are none."""
        return None

    @abstractmethod
    def read(self, name: str, bounds: Mapping[str, Value]) -> Rows:
        """Ask for all rows of a statement, from any thread, outside of every transaction."""

    @abstractmethod
    def read_many(self, name: str, values: Sequence[Value]) -> Rows:
        """Ask with many rows of parameters, from any thread, outside of every transaction."""

    def facts(self) -> Mapping[str, str | int]:
        """Say what no statement tells: of files and disks."""
        return {}

    @abstractmethod
    def reader(self) -> AbstractContextManager[Reader]:
        """Open a connection of its own for a long reading; its errors are in our words."""

    @abstractmethod
    def changed(self) -> bool:
        """Tell whether another process has written since the last call."""

    @abstractmethod
    def backup(self, path: Path) -> None:
        """Copy everything, as it is at one instant, into a new file."""

    @abstractmethod
    def close(self) -> None:
        """Let go of every resource."""
