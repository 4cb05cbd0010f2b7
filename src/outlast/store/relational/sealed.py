"""A database whose payloads are sealed: what goes in is encrypted, what comes out is opened.

Theory of operation. It stands between the store and a backend, and knows of each statement that
carries a payload where that is, and what it belongs to. Nobody above or below notices. Data keys
that another process has drawn are read when something sealed by one is met.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import Struct

from outlast.errors import InternalError
from outlast.lifecycle.record import COLUMNS
from outlast.store.keys import DataKey, Keys, Vault, keys_of, unwrapped, wrapped
from outlast.store.protocol import Resealed
from outlast.store.relational import secrecy
from outlast.store.relational.access import append
from outlast.store.relational.database import Database, Reader, Rows, Sight
from outlast.store.relational.rows import Value
from outlast.store.relational.secrecy import SEALED, SealedColumn
from outlast.store.relational.tables import tables

if TYPE_CHECKING:
    from outlast.access.audit import Deed
    from outlast.store.epoch import Keeping
    from outlast.store.protocol import Hints

T = TypeVar("T")
CHECKED_MAX: Final = 500
"""Values that are looked at in one transaction."""
KEEPS_ROOT: Final = "keep_secret"
"""The statement that writes a root, with parameters that have names."""
Row = Sequence[Any]
Bounds = Mapping[str, Any]


class Use(Struct, frozen=True):
    """Where a statement writes or gives a sealed column.

    Attributes:
        at: its place in a row of the statement, from 0.
        column: which one.
        key: gives the key of the row in its table, without the tenant.
    """

    at: int
    column: SealedColumn
    key: Callable[[Row, Bounds], Sequence[Any]]


_DETAIL_AT: Final = len(COLUMNS) - 1


def _in_row(*at: int) -> Callable[[Row, Bounds], Sequence[Any]]:
    return lambda row, _: [row[one] for one in at]


_DETAIL: Final = (Use(_DETAIL_AT, secrecy.DETAIL, _in_row(1)),)
_SAVED: Final = (Use(27, secrecy.DETAIL, _in_row(0)),)
_LOG: Final = (
    Use(12, secrecy.FACTS, _in_row(1, 2)),
    Use(13, secrecy.LOG, _in_row(1, 2)),
)
_SCHEDULE: Final = (Use(16, secrecy.SCHEDULE, _in_row(1)),)

WRITES: Final[Mapping[str, tuple[Use, ...]]] = {
    "insert_transitions": _LOG,
    "insert_executions": _DETAIL,
    "save_executions": _SAVED,
    "save_told_executions": _SAVED,
    "insert_messages": (
        Use(7, secrecy.SAID, _in_row(1, 2)),
        Use(8, secrecy.INBOX, _in_row(1, 2)),
    ),
    "insert_stream_items": (Use(9, secrecy.STREAM, _in_row(1, 2, 3)),),
    "save_progress": (Use(5, secrecy.PROGRESS, _in_row(1)),),
    "insert_schedule": _SCHEDULE,
    "save_schedule": _SCHEDULE,
    "insert_webhook": (Use(4, secrecy.WEBHOOK, _in_row(1)),),
    "save_webhook": (Use(3, secrecy.WEBHOOK, _in_row(0)),),
}
"""Statements that write a sealed column."""

_CLAIMED: Final = (
    *_DETAIL,
    Use(_DETAIL_AT + 13, secrecy.FACTS, _in_row(_DETAIL_AT + 2, _DETAIL_AT + 3)),
    Use(_DETAIL_AT + 14, secrecy.LOG, _in_row(_DETAIL_AT + 2, _DETAIL_AT + 3)),
)


def _inbox(key: Callable[[Row, Bounds], Sequence[Any]]) -> tuple[Use, ...]:
    return (Use(5, secrecy.SAID, key), Use(6, secrecy.INBOX, key))


READS: Final[Mapping[str, tuple[Use, ...]]] = {
    **dict.fromkeys(
        (
            *("executions_by_id", "executions_by_key", "due_executions", "overdue_executions"),
            *("unstarted_executions", "leased_executions", "executions_page", "children_page"),
            *("open_executions_page", "labelled_page", "waiting_for_budget", "parked_page"),
            *("ended_page", "picked_page"),
        ),
        _DETAIL,
    ),
    **dict.fromkeys(("log", "logs", "feed_rows"), _LOG),
    **dict.fromkeys(("queued_executions", "blocked_executions"), _CLAIMED),
    "inbox": _inbox(lambda row, bounds: [bounds["id"], row[0]]),
    "inboxes": _inbox(_in_row(8, 0)),
    "stream_items": (
        Use(6, secrecy.STREAM, lambda row, bounds: [bounds["id"], bounds["name"], row[0]]),
    ),
    "progress_of": (Use(4, secrecy.PROGRESS, _in_row(0)),),
    **dict.fromkeys(("schedule_by_name", "schedules_page"), _SCHEDULE),
    **dict.fromkeys(("webhooks", "webhook_by_id"), (Use(4, secrecy.WEBHOOK, _in_row(1)),)),
    "secret": (Use(0, secrecy.ROOT, lambda _, bounds: [bounds["name"]]),),
}
"""Statements that give one."""


def sealed(database: Database, now: int, *, owner: bool) -> Database:
    """Give a database that seals, where keys are given or data keys are in it; else itself.

    The first data key is drawn by an owner, which runs executions.

    Raises:
        KeyMissing, KeyWrong: it is sealed by a key that was not given; nothing was written.
        CannotLoad: the keys cannot be read.
    """
    keys = keys_of()
    rows = data_keys(database)
    if not rows:
        if keys is None or not owner:
            return database
        rows = database.write(lambda: _first(database, keys, now))
    return SealedDatabase(database, keys, rows)


def data_keys(database: Database) -> list[DataKey]:
    """Read the data keys, as they are kept."""
    return list(map(_data_key_of, database.read("data_keys", {})))


def _first(database: Database, keys: Keys, now: int) -> list[DataKey]:
    """Draw the first data key, if nobody has meanwhile; in the open transaction."""
    import secrets

    database.run("hold_writers", {})
    ((is_used,),) = database.ask_all("is_used", {})
    first = wrapped(keys, 1, secrets.token_bytes(32), whole=not is_used, at=now)
    database.run("insert_data_key", _bounds(first))
    return list(map(_data_key_of, database.ask_all("data_keys", {})))


def _data_key_of(values: Sequence[Any]) -> DataKey:
    number, key_id, wrap, whole, at = values
    return DataKey(number, key_id, wrap, bool(whole), at)


def _bounds(row: DataKey) -> dict[str, Value]:
    return {
        "number": row.number,
        "key_id": row.key_id,
        "wrapped": row.wrapped,
        "whole": int(row.whole),
        "created_at": row.created_at,
    }


class _Opener:
    """Opens what statements give."""

    def __init__(self, vault: Vault, tenant: int, learn: Callable[[], None]) -> None:
        self._vault, self._tenant, self._learn = vault, tenant, learn

    def opened(self, name: str, rows: Rows, bounds: Bounds) -> Rows:
        uses = READS.get(name)
        if uses is None or not rows:
            return rows
        return [self._opened(row, uses, bounds) for row in rows]

    def _opened(self, row: Row, uses: Sequence[Use], bounds: Bounds) -> Row:
        result: list[Any] | None = None
        for use in uses:
            value = row[use.at]
            if value is not None:
                place = use.column.place(self._tenant, use.key(row, bounds))
                shown = use.column.way.open(self._vault, value, place, self._learn)
                if shown is not value:
                    if result is None:
                        result = list(row)
                    result[use.at] = shown
        return row if result is None else result


class SealedReader(Reader):
    """A reader that opens."""

    def __init__(self, inner: Reader, opener: _Opener) -> None:
        self._inner, self._opener = inner, opener

    def ask(self, name: str, values: Sequence[Value]) -> Rows:
        """See the seam."""
        return self._opener.opened(name, self._inner.ask(name, values), {})

    def ask_all(self, name: str, bounds: Mapping[str, Value]) -> Rows:
        """See the seam."""
        return self._opener.opened(name, self._inner.ask_all(name, bounds), bounds)

    def snapshot(self) -> AbstractContextManager[None]:
        """See the seam."""
        return self._inner.snapshot()

    def damage(self) -> list[str]:
        """See the seam."""
        return self._inner.damage()


class SealedDatabase(Database):
    """A database, and a vault before it."""

    def __init__(self, inner: Database, keys: Keys | None, rows: Sequence[DataKey]) -> None:
        self.url, self.is_shared, self.faults = inner.url, inner.is_shared, inner.faults
        self.races, self.tenant = inner.races, inner.tenant
        self.inner, self.keys = inner, keys
        self.vault = Vault(self._unwrapped(rows), whole=_is_whole(rows))
        self._opener = _Opener(self.vault, self.tenant, self.learn)
        self._cursors: dict[str, Bounds] = {}

    def over(self, inner: Database) -> SealedDatabase:
        """Give the same vault before another connection to the same database."""
        other = copy(self)
        other.inner = inner
        return other

    def _unwrapped(self, rows: Sequence[DataKey]) -> dict[int, bytes]:
        return {row.number: unwrapped(self.keys, row) for row in rows}

    def learn(self) -> None:
        """Read the data keys again: another process may have drawn one."""
        rows = data_keys(self.inner)
        self.vault.learn(self._unwrapped(rows), whole=_is_whole(rows))

    def data_keys(self) -> list[DataKey]:
        """See the protocol."""
        return data_keys(self.inner)

    def wrap_anew(self, deed: Deed) -> int:
        """See the protocol."""
        keys = self.keys
        assert keys is not None

        def act() -> int:
            rows = data_keys(self.inner)
            for row in rows:
                secret = unwrapped(keys, row)
                after = wrapped(keys, row.number, secret, whole=row.whole, at=row.created_at)
                self.inner.run("save_data_key", _bounds(after))
            append(self.inner, [(deed, "keys", {"wrapped_by": keys.current, "count": len(rows)})])
            return len(rows)

        return self.inner.write(act)

    def draw_anew(self, now: int, deed: Deed) -> int:
        """See the protocol."""
        import secrets

        keys = self.keys
        assert keys is not None

        def act() -> int:
            rows = data_keys(self.inner)
            number = max(row.number for row in rows) + 1
            made = wrapped(keys, number, secrets.token_bytes(32), whole=_is_whole(rows), at=now)
            self.inner.run("insert_data_key", _bounds(made))
            append(self.inner, [(deed, "keys", {"data_key": number})])
            return number

        number = self.inner.write(act)
        self.learn()
        return number

    def seal_anew(self, limit: int) -> Resealed:
        """See the protocol.

        Killed before its transaction ends, it has done nothing. What is done is not found again, so
        a call after a kill goes on, wherever the one before was.
        """
        done, self._cursors = self.inner.write(lambda: self._seal_anew(limit))
        return done

    def _seal_anew(self, limit: int) -> tuple[Resealed, dict[str, Bounds]]:
        looked, count, cursors = 0, 0, dict(self._cursors)
        self.inner.run("permit_reseal", {})
        for column in SEALED:
            names = tables()[column.table].key[1:]
            bounds = cursors.get(column.name) or self._before(column, names)
            head = column.way.head(self.vault.newest)
            wanted = {**bounds, "head": head, "limit": limit - looked}
            found = self.inner.ask_all(column.stale, wanted)
            anew = [one for row in found if (one := self._anew(column, row)) is not None]
            self.inner.send(column.reseal, anew)
            if found:
                cursors[column.name] = dict(zip(names, found[-1], strict=False))
            looked, count = looked + len(found), count + len(anew)
            if looked >= limit:
                break
        self.inner.run("end_reseal", {})
        return Resealed(looked, count), cursors

    @staticmethod
    def _before(column: SealedColumn, names: Sequence[str]) -> Bounds:
        """Give what comes before all keys of a table."""
        table = tables()[column.table]
        kinds = dict(zip(table.columns, table.kinds, strict=True))
        return {name: 0 if kinds[name] == "INTEGER" else "" for name in names}

    def _anew(self, column: SealedColumn, row: Row) -> list[Value] | None:
        """Give a row as it is written, None where there is nothing to seal in it."""
        *key, value = row
        place = column.place(self.tenant, key)
        plain = column.way.open(self.vault, value, place, self.learn)
        after = column.way.seal(self.vault, plain, place)
        return None if after == value else [*key, after]

    def finish(self, deed: Deed) -> None:
        """See the protocol."""
        self._cursors.clear()
        while (some := self.seal_anew(CHECKED_MAX)).looked:
            if some.sealed:
                raise InternalError("what was to be sealed anew has not come to its end")
        keys = self.keys
        assert keys is not None

        def act() -> None:
            for row in data_keys(self.inner):
                secret = unwrapped(keys, row)
                after = wrapped(keys, row.number, secret, whole=True, at=row.created_at)
                self.inner.run("save_data_key", _bounds(after))
            append(self.inner, [(deed, "keys", {"whole": True})])

        self.inner.write(act)
        self.learn()

    # Sealing

    def send(self, name: str, rows: Sequence[Sequence[Value]]) -> None:
        """See the seam."""
        self.inner.send(name, self._sealed(name, rows))

    def sent(self, name: str, rows: Sequence[Sequence[Value]]) -> int:
        """See the seam."""
        return self.inner.sent(name, self._sealed(name, rows))

    def send_counted(
        self, name: str, rows: Sequence[Sequence[Value]], hear: Callable[[int], None]
    ) -> None:
        """See the seam."""
        self.inner.send_counted(name, self._sealed(name, rows), hear)

    def _sealed(self, name: str, rows: Sequence[Sequence[Value]]) -> Sequence[Sequence[Value]]:
        uses = WRITES.get(name)
        if uses is None:
            return rows
        return [self._sealed_row(row, uses) for row in rows]

    def _sealed_row(self, row: Sequence[Value], uses: Sequence[Use]) -> Sequence[Value]:
        result: list[Value] | None = None
        for use in uses:
            value = row[use.at]
            if value is not None:
                place = use.column.place(self.tenant, use.key(row, {}))
                if result is None:
                    result = list(row)
                result[use.at] = use.column.way.seal(self.vault, value, place)
        return row if result is None else result

    def run(self, name: str, bounds: Mapping[str, Value]) -> int:
        """See the seam."""
        if name == KEEPS_ROOT:
            place = secrecy.ROOT.place(self.tenant, [bounds["name"]])
            value = secrecy.ROOT.way.seal(self.vault, bounds["value"], place)
            bounds = {**bounds, "value": value}
        return self.inner.run(name, bounds)

    # Opening

    def ask(self, name: str, values: Sequence[Value]) -> Rows:
        """See the seam."""
        return self._opener.opened(name, self.inner.ask(name, values), {})

    def ask_rare(self, name: str, values: Sequence[Value]) -> Rows:
        """See the seam."""
        return self._opener.opened(name, self.inner.ask_rare(name, values), {})

    def ask_all(self, name: str, bounds: Mapping[str, Value]) -> Rows:
        """See the seam."""
        return self._opener.opened(name, self.inner.ask_all(name, bounds), bounds)

    def read(self, name: str, bounds: Mapping[str, Value]) -> Rows:
        """See the seam."""
        return self._opener.opened(name, self.inner.read(name, bounds), bounds)

    def read_many(self, name: str, values: Sequence[Value]) -> Rows:
        """See the seam."""
        return self._opener.opened(name, self.inner.read_many(name, values), {})

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """See the seam."""
        with self.inner.reader() as reader:
            yield SealedReader(reader, self._opener)

    # The rest is the backend's

    def facts(self) -> Mapping[str, str | int]:
        """See the seam."""
        return self.inner.facts()

    def transaction(self, act: Callable[[], T]) -> T:
        """See the seam."""
        return self.inner.transact(act)

    def savepoint(self) -> AbstractContextManager[object]:
        """See the seam."""
        return self.inner.savepoint()

    def translated(self) -> AbstractContextManager[None]:
        """See the seam."""
        return self.inner.translated()

    def lock(self, what: str, names: Collection[str] = ()) -> None:
        """See the seam."""
        self.inner.lock(what, names)

    def beat(self, name: str, bounds: Mapping[str, Value], patience_s: float) -> Rows:
        """See the seam."""
        return self.inner.beat(name, bounds, patience_s)

    def settle(self) -> int:
        """See the seam."""
        return self.inner.settle()

    def sight(self, kept: Mapping[str, Any] | None, now: int) -> Sight | None:
        """See the seam."""
        return self.inner.sight(kept, now)

    def keeping(self) -> Keeping:
        """See the seam."""
        return self.inner.keeping()

    def noted(self) -> None:
        """See the seam."""
        self.inner.noted()

    def when_connected(self, look: Callable[[], None]) -> None:
        """See the seam."""
        self.inner.when_connected(look)

    def hurry(self, is_on: bool) -> None:
        """See the seam."""
        self.inner.hurry(is_on)

    def hints(self, heard: Callable[[str], None]) -> Hints | None:
        """See the seam."""
        return self.inner.hints(heard)

    def changed(self) -> bool:
        """See the seam."""
        return self.inner.changed()

    def backup(self, path: Path) -> None:
        """See the seam."""
        self.inner.backup(path)

    def close(self) -> None:
        """See the seam."""
        self.inner.close()


def _is_whole(rows: Sequence[DataKey]) -> bool:
    return all(row.whole for row in rows)


__all__ = ["KEEPS_ROOT", "READS", "WRITES", "SealedDatabase", "data_keys", "sealed"]
