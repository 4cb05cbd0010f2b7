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

from outlast.errors import InternalError
from outlast.store.keys import MARK, DataKey, Keys, Place, Vault, keys_of, unwrapped, wrapped
from outlast.store.relational.access import append
from outlast.store.relational.database import Database, Reader, Rows, Sight
from outlast.store.relational.rows import Value
from outlast.store.relational.skeleton import TEXT_READS, TEXT_WRITES, Show

if TYPE_CHECKING:
    from outlast.access.audit import Deed
    from outlast.store.epoch import Keeping
    from outlast.store.protocol import Hints

T = TypeVar("T")
ROOT_BYTES: Final = 32
"""How long a secret of the store is in the clear."""
Row = Sequence[Any]
Bounds = Mapping[str, Any]

WRITES: Final[Mapping[str, tuple[int, Callable[[Row], Place]]]] = {
    "insert_transitions": (13, lambda row: Place("log", row[0], row[1], row[2])),
    "insert_messages": (8, lambda row: Place("inbox", row[0], row[1], row[2])),
    "insert_stream_items": (9, lambda row: Place(f"stream {row[2]}", row[0], row[1], row[3])),
    "insert_schedule": (16, lambda row: Place("schedule", row[0], row[1], 0)),
    "save_schedule": (16, lambda row: Place("schedule", row[0], row[1], 0)),
}
"""Statements that write a payload: its column, and what it belongs to."""

_LOG: Final = (13, lambda row, _: Place("log", row[0], row[1], row[2]))
_CLAIMED: Final = (52, lambda row, _: Place("log", row[39], row[40], row[41]))
_SCHEDULE: Final = (16, lambda row, _: Place("schedule", row[0], row[1], 0))
READS: Final[Mapping[str, tuple[int, Callable[[Row, Bounds], Place]]]] = {
    "log": _LOG,
    "logs": _LOG,
    "feed_rows": _LOG,
    "queued_executions": _CLAIMED,
    "blocked_executions": _CLAIMED,
    "inbox": (6, lambda row, bounds: Place("inbox", bounds["tenant"], bounds["id"], row[0])),
    "inboxes": (6, lambda row, bounds: Place("inbox", bounds["tenant"], row[8], row[0])),
    "stream_items": (
        6,
        lambda row, bounds: Place(
            f"stream {bounds['name']}", bounds["tenant"], bounds["id"], row[0]
        ),
    ),
    "schedule_by_name": _SCHEDULE,
    "schedules_page": _SCHEDULE,
}
"""Statements that read one."""


_Stale = tuple[str, str, Callable[[Row], Place], Callable[[Row], Bounds]]


def _after(row: Row) -> Bounds:
    return {"id": row[1], "number": row[2]}


STATEMENTS: Final = (
    *("stale_log", "stale_inbox", "stale_streams", "stale_schedules"),
    *("reseal_log", "reseal_inbox", "reseal_streams", "reseal_schedules"),
)
_PLACES: Final[tuple[Callable[[Row], Place], ...]] = (
    lambda row: Place("log", *row[:3]),
    lambda row: Place("inbox", *row[:3]),
    lambda row: Place(f"stream {row[4]}", *row[:3]),
    lambda row: Place("schedule", *row[:3]),
)
_GO_ON: Final[tuple[Callable[[Row], Bounds], ...]] = (
    _after,
    _after,
    lambda row: {**_after(row), "name": row[4]},
    _after,
)
ANEW: Final[tuple[_Stale, ...]] = tuple(
    zip(STATEMENTS[:4], STATEMENTS[4:], _PLACES, _GO_ON, strict=True)
)
"""What is sealed anew: how it is found, how written, what it belongs to, and where to go on."""


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


_NAMES: Final = {
    "stale_log": ("id", "number"),
    "stale_inbox": ("id", "number"),
    "stale_streams": ("id", "name", "number"),
    "stale_schedules": ("id",),
}


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
        if not rows:
            return rows
        bounds = {**bounds, "tenant": self._tenant}
        if name == "secret":
            return [[self._root(row[0], bounds)] for row in rows]
        for column, show, where in TEXT_READS.get(name, ()):
            rows = [self._shown(row, column, show, where(row, bounds)) for row in rows]
        known = READS.get(name)
        if known is None:
            return rows
        column, place = known
        found: list[Sequence[object]] = []
        for row in rows:
            data: Any = row[column]
            if data is not None:
                if not self._vault.knows(data):
                    self._learn()
                row = [
                    *row[:column],
                    self._vault.open(data, place(row, bounds)),
                    *row[column + 1 :],
                ]
            found.append(row)
        return found

    def _shown(self, row: Row, column: int, show: Show, place: Place) -> Row:
        text = row[column]
        if text is None:
            return row
        opened = show(self._vault, text, place, self._learn)
        return row if opened is text else [*row[:column], opened, *row[column + 1 :]]

    def _root(self, data: Any, bounds: Bounds) -> bytes:
        """Open a secret of the store; one that was drawn before there was a key has no head."""
        if len(data) == ROOT_BYTES:
            return bytes(data)
        if not self._vault.knows(data):
            self._learn()
        return self._vault.open(data, Place("secret", bounds["tenant"], bounds["name"], 0))


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

    def seal_anew(self, limit: int) -> int:
        """See the protocol.

        Killed before its transaction ends, it has done nothing. What is done is not found again, so
        a call after a kill goes on, wherever the one before was.
        """
        head = MARK + self.vault.newest.to_bytes(4, "big")
        done, self._cursors = self.inner.write(lambda: self._seal_anew(head, limit))
        return done

    def _seal_anew(self, head: bytes, limit: int) -> tuple[int, dict[str, Bounds]]:
        done, cursors = 0, dict(self._cursors)
        self.inner.run("permit_reseal", {})
        for find, write, place, after in ANEW:
            bounds = {"id": "", "number": 0, "name": "", **cursors.get(find, {})}
            wanted = {name: bounds[name] for name in _NAMES[find]}
            found = self.inner.ask_all(find, {**wanted, "head": head, "limit": limit - done})
            rows: list[tuple[Value, ...]] = []
            for row in found:
                data: Any = row[3]
                if not self.vault.knows(data):
                    self.learn()
                plain = self.vault.open(data, place(row))
                rows.append((*row[:3], self.vault.seal(plain, place(row)), *row[4:]))  # type: ignore[arg-type]
            if rows:
                self.inner.send(write, rows)
                cursors[find] = after(found[-1])
            done += len(rows)
            if done >= limit:
                break
        self.inner.run("end_reseal", {})
        return done, cursors

    def finish(self, deed: Deed) -> None:
        """See the protocol."""
        self._cursors.clear()
        if self.seal_anew(1):
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

    def _sealed(self, name: str, rows: Sequence[Sequence[Value]]) -> Sequence[Sequence[Value]]:
        texts = TEXT_WRITES.get(name)
        if texts is not None:
            at, hide, where = texts
            rows = [
                row if row[at] is None else (
                    *row[:at], hide(self.vault, str(row[at]), where(row, self.tenant)),
                    *row[at + 1 :],
                )
                for row in rows
            ]  # fmt: skip
        known = WRITES.get(name)
        if known is None:
            return rows
        column, place = known
        found: list[Sequence[Value]] = []
        for row in rows:
            data: Any = row[column]
            if data is not None:
                row = (*row[:column], self.vault.seal(data, place(row)), *row[column + 1 :])
            found.append(row)
        return found

    def run(self, name: str, bounds: Mapping[str, Value]) -> int:
        """See the seam."""
        if name == "keep_secret":
            root: Any = bounds["value"]
            assert len(root) == ROOT_BYTES, "told from one that is sealed by its length"
            place = Place("secret", self.tenant, bounds["name"], 0)
            bounds = {**bounds, "value": self.vault.seal(root, place)}
        return self.inner.run(name, bounds)

    # Opening

    def ask(self, name: str, values: Sequence[Value]) -> Rows:
        """See the seam."""
        return self._opener.opened(name, self.inner.ask(name, values), {})

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


__all__ = ["READS", "WRITES", "SealedDatabase", "data_keys", "sealed"]
