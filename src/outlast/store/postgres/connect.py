"""Open connections to the server, refuse one that forgets, and translate the driver's errors.

Nothing is set for a session, as a pooler may put each transaction on another server process: what a
transaction needs, it sets for itself in its first round trip (:data:`SETTINGS`).
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import errors

from outlast.errors import (
    CannotLoad,
    InternalError,
    KeyMissing,
    SchemaMismatch,
    StoreBroken,
    StoreBusy,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from outlast.store.postgres.address import Address
from outlast.store.postgres.session import Session

OLDEST: Final = 14
SEALED: Final = "OL002"
"""What the guard says that keeps payloads in the clear out of a store that is encrypted."""
CONNECT_TIMEOUT_S: Final = 10
FULL_SECONDS: Final = 20.0
"""How long it is waited for a connection where the server has none left: others end, or give up."""
FULL_AGAIN_SECONDS: Final = 1.0
"""How long one waits between two tries, at most; at first much less, and always by chance."""
STATEMENT_TIMEOUT_MS: Final = 30_000
LOCK_TIMEOUT_MS: Final = 10_000
IDLE_TIMEOUT_MS: Final = 3_000
"""How long a process that was stopped in the middle of a transaction keeps its locks."""
PATIENCE_S: Final = 40.0
"""After this silence a server is taken for lost; longer than any statement may take."""

_KEEPALIVE: Final[dict[str, Any]] = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_SHORT: Final[dict[str, Any]] = {
    "connect_timeout": 2,  # the shortest that the driver knows
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "tcp_user_timeout": 2_000,
}
"""For a connection that renews a lease: it is of no use once the lease has run out."""
SETTINGS: Final = b"""SELECT set_config('search_path', $1, true),
       set_config('synchronous_commit',
                  CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
                  ELSE current_setting('synchronous_commit') END, true),
       set_config('lock_timeout', $2, true), set_config('statement_timeout', $3, true),
       set_config('idle_in_transaction_session_timeout', $4, true),
       set_config('outlast.tenant', $5, true), set_config('jit', 'off', true)"""
"""What each transaction sets for itself."""
PLANS: Final = b"""SELECT set_config('search_path', $1, true),
       set_config('synchronous_commit',
                  CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'
                  ELSE current_setting('synchronous_commit') END, true),
       set_config('lock_timeout',
                  CASE extract(epoch FROM pg_postmaster_start_time())::text WHEN $6 THEN $2
                  ELSE 'another server' END, true),
       set_config('statement_timeout', $3, true),
       set_config('idle_in_transaction_session_timeout', $4, true),
       set_config('outlast.tenant', $5, true),
       set_config('jit', 'off', true), set_config('enable_seqscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
       set_config('enable_material', 'off', true),
       set_config('plan_cache_mode', 'force_generic_plan', true)"""
"""The same for a transaction that writes: its statements go by their indexes, however small or
unknown a table is when a plan is made, and are planned once. A pooler may have gone over to
another server, whose history nobody has looked at: then nothing of this is done."""


_FULL: Final = re.compile(
    r"too many clients|too many connections|connection slots are reserved"
    r"|no more connections allowed"
)
"""What servers and poolers say that have no connection left."""
_log: Final = logging.getLogger("outlast.store")


def path_of(schema: str) -> str:
    """Write the search path; where temporary tables are not named last, they come first."""
    return '"' + schema.replace('"', '""') + '", pg_temp'


def settings_of(address: Address, tenant: int, *, long: bool = False) -> tuple[bytes, ...]:
    """Give the parameters of :data:`SETTINGS`; ``long`` is for what reads everything.

    The tenant is for row-level security, which looks at it for every row of a role that does not
    own the tables.
    """
    statement = 0 if long else STATEMENT_TIMEOUT_MS
    idle = 0 if long else IDLE_TIMEOUT_MS
    numbers = (LOCK_TIMEOUT_MS, statement, idle, tenant)
    return (path_of(address.schema).encode(), *(str(number).encode() for number in numbers))


def connect(
    address: Address, *, is_short: bool = False, hurry: threading.Event | None = None
) -> psycopg.Connection[Any]:
    """Open a connection; the first server that takes writes, where there are several.

    Where the server has none left, as when all engines come back at once, it is waited for.

    Args:
        address: where.
        is_short: whether a server that is out of reach, or full, is given up within some seconds.
        hurry: while it is set, a full server is not waited for.

    Raises:
        StoreBusy: the server has no connection left.
        StoreUnavailable, StoreReadOnly, CannotLoad: it cannot be opened.
    """
    give_up_at = time.monotonic() + (0.0 if is_short else FULL_SECONDS)
    for tries in range(1_000_000):
        try:
            return _connect(address, is_short=is_short)
        except StoreBusy as full:
            if time.monotonic() >= give_up_at or (hurry is not None and hurry.is_set()):
                raise
            if tries == 0:
                _log.warning("%s: waiting for one (%s)", full, address.shown)
            time.sleep(random.uniform(0.5, 1.0) * min(FULL_AGAIN_SECONDS, 0.05 * 2**tries))
    raise AssertionError


def _connect(address: Address, *, is_short: bool) -> psycopg.Connection[Any]:
    more: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S, **_KEEPALIVE}
    known = psycopg.conninfo.conninfo_to_dict(address.conninfo)
    more |= {name: known[name] for name in more if name in known}
    more.setdefault("application_name", known.get("application_name", "outlast"))
    if is_short:
        more |= _SHORT
    more["client_encoding"] = "UTF8"
    if "," in str(known.get("host") or ""):
        more["target_session_attrs"] = known.get("target_session_attrs", "read-write")
    try:
        # The driver prepares nothing by itself, as a pooler would mix it up.
        made = psycopg.connect(address.conninfo, autocommit=True, prepare_threshold=None, **more)
    except psycopg.Error as error:
        raise _not_opened(error, address) from None  # the driver's text may repeat the password
    # For the driver's own transactions, whatever a role has by default.
    made.isolation_level, made.read_only = psycopg.IsolationLevel.READ_COMMITTED, False
    return made


def _not_opened(error: psycopg.Error, address: Address) -> Exception:
    text, where = str(error), address.shown
    if _FULL.search(text):
        return StoreBusy(
            "the server has no connection left",
            where=where,
            why=_without(text.strip().splitlines()[-1], address),
            do="raise max_connections, run fewer engines, or put a pooler in between: see "
            "docs/guides/workers.md",
        )
    first = text.strip().splitlines()[-1] if text.strip() else ""
    if "password" in text and ("authentication failed" in text or "no password" in text):
        return StoreReadOnly(
            "the server does not know this user with this password",
            where=where,
            why="the server refused the password",
            do="look at the user and the password of the address, or at ~/.pgpass",
        )
    if "does not exist" in text and "database" in text:
        return CannotLoad(
            "the server has no such database",
            where=where,
            do="createdb …, as a user who may; then: outlast db init",
        )
    if "does not exist" in text or "no pg_hba.conf entry" in text or "permission denied" in text:
        return StoreReadOnly(
            "the server lets this user not in",
            where=where,
            why=_without(first, address),
            do="look at the role, and at pg_hba.conf of the server",
        )
    return StoreUnavailable(
        "the server cannot be reached",
        where=where,
        why=_without(first, address),
        do="look whether it runs, and at host and port of the address",
    )


def _without(text: str, address: Address) -> str:
    """Take a password out of a text."""
    secret = psycopg.conninfo.conninfo_to_dict(address.conninfo).get("password")
    return text.replace(str(secret), "***") if secret else text


def open_session(
    address: Address,
    *,
    long: bool = False,
    patience_s: float = PATIENCE_S,
    is_short: bool = False,
    hurry: threading.Event | None = None,
) -> Session:
    """Open a connection and look whether the server keeps what it acknowledges.

    Args:
        address: where.
        long: whether it is for what reads everything.
        patience_s: how long the server may be silent, else.
        is_short: whether a server that is out of reach is given up within some seconds.
        hurry: while it is set, it may be silent for a few seconds only.

    Raises:
        StoreBroken: it could forget.
        StoreUnavailable, StoreReadOnly, CannotLoad: it cannot be opened, or is too old.
    """
    connection = connect(address, is_short=is_short, hurry=hurry)
    try:
        version = connection.info.server_version
        if version < OLDEST * 10_000:
            raise CannotLoad(
                f"the server is PostgreSQL {version // 10_000}, older than {OLDEST}",
                where=address.shown,
                do=f"use PostgreSQL {OLDEST} or newer",
            )
        patience = 24 * 3600.0 if long else patience_s
        # Not prepared: behind a pooler, somebody else may have prepared the same there already.
        session = Session(connection, prepares=False, patience_s=patience, hurry=hurry)
        check(session, address)
        # A long reading is not run again, so it prepares nothing that a pooler could lose.
        session.prepares = address.prepares and not long
    except psycopg.Error as error:
        connection.close()
        raise translation(error, address) from error
    except BaseException:
        connection.close()
        raise
    return session


def check(session: Session, address: Address) -> None:
    """Refuse a server that could forget what it has acknowledged, or is no primary.

    Raises:
        StoreBroken: ``fsync`` or ``full_page_writes`` is off, and the address does not allow it.
        StoreReadOnly: it is a standby.
        CannotLoad: its texts are not in UTF-8.
    """
    session.queue(
        b"SELECT current_setting('fsync'), current_setting('full_page_writes'),"
        b" current_setting('server_encoding'), pg_is_in_recovery(),"
        b" extract(epoch FROM pg_postmaster_start_time())::text"
    )
    ((fsync, pages, encoding, standby, began),) = session.rows_of(session.drain())
    session.server = str(began).encode()
    off = [name for name, is_on in (("fsync", fsync), ("full_page_writes", pages)) if is_on != "on"]
    if off and address.is_durable:
        raise StoreBroken(
            f"the server runs with {' and '.join(off)} off",
            where=address.shown,
            why="after a power cut it could have lost what was acknowledged, or be damaged",
            do="turn it on in postgresql.conf; for tests say ?durability=off in the address",
        )
    if standby:
        raise StoreReadOnly(
            "the server is a standby, which only reads",
            where=address.shown,
            do="name the primary, or several hosts: postgresql://a,b/database",
        )
    if encoding != "UTF8":
        raise CannotLoad(
            f"the database has the encoding {encoding}",
            where=address.shown,
            do="create a database with the encoding UTF8",
        )


@contextmanager
def translated(address: Address) -> Iterator[None]:
    """Turn the driver's errors into ours."""
    try:
        yield
    except psycopg.Error as error:
        raise translation(error, address) from error


def translation(error: psycopg.Error, address: Address) -> Exception:
    """Give our word for an error of the driver."""
    where, why = address.shown, _without(str(error).strip(), address)
    state = error.sqlstate or ""
    if state == SEALED:
        return KeyMissing(
            "the store is encrypted since it was opened here, and no key was given",
            where=where,
            why="nothing was written: another process has drawn its first data key",
            do="name the file with the keys: OUTLAST_KEYS_FILE=…, and start again",
        )
    if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName | errors.UndefinedColumn):
        return SchemaMismatch(
            "the database has no schema of this code's", where=where, why=why, do="outlast db init"
        )
    if state in ("40001", "40P01", "55P03", "57014"):
        return StoreBusy(
            "others held the database for too long", where=where, why=why, do="try again"
        )
    if state in ("53100", "53200"):
        return StoreFull(
            "the server has no room left",
            where=where,
            why=why,
            do="free some room; what was acknowledged is safe",
        )
    if state in ("42501", "25006"):
        return StoreReadOnly(
            "no right to do this in the database",
            where=where,
            why=why,
            do="GRANT the role what it needs on the schema, or name the primary",
        )
    if state.startswith("XX") and state != "XX000":
        return StoreBroken(
            "the database is damaged", where=where, why=why, do="restore a backup of the server"
        )
    if not state or state[:2] in ("08", "53", "57", "58", "25"):
        return StoreUnavailable(
            "the server cannot be used now", where=where, why=why, do="look at it, then try again"
        )
    return InternalError(f"the store refused a statement: {why}", where=where)
