"""What an answer must not tell: executions of tasks that the caller may not see at all.

Rows, logs and reasons name other executions: parents, children, sources, holders of limits. Who has
rights for some tasks alone is shown :data:`HIDDEN` for those of others; payloads, which take a
permission of their own, stay as they are. Where a page of a list had to end behind a row that is
not shown, its cursor says where, in a way that only this store can read.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from msgspec.structs import replace

from outlast.access import Permission
from outlast.engine.control.listing import bounded
from outlast.lifecycle import Execution as Record
from outlast.server.strict import unfit
from outlast.store.protocol import Filter, Store

if TYPE_CHECKING:
    from outlast.engine.engine import Engine
    from outlast.server.call import Call

HIDDEN: Final = "ex_hidden"
"""What stands for the id of an execution that the caller may not see."""
LOOKED_MAX: Final = 10_000
"""Executions that fit and are looked at for one page, where the caller may not see them all."""
ROWS_MAX: Final = 20_000
"""Rows that the store looks at for one page, whether they fit or not."""
AT_ONCE: Final = 500
SECRET: Final = "cursors"  # noqa: S105 - the name under which the store keeps it
MARK: Final = "~"
"""What a cursor begins with that is sealed; no id and no key of a question's cursor does."""
_MAC_BYTES: Final = 16
_ID: Final = re.compile(r"\bex_[0-9a-hjkmnp-tv-z]{20}(?![0-9A-Za-z])")
_roots: WeakKeyDictionary[Engine, bytes] = WeakKeyDictionary()


def sees_all(call: Call) -> bool:
    """Tell whether there is no execution that the caller may not see."""
    return call.identity.rights.see(call.tenant, None)


async def veiled(call: Call, value: Any) -> Any:
    """Give an answer without the ids of executions that the caller may not see."""
    if sees_all(call):
        return value
    ids = set(_ids(value))
    if call.record is not None:
        ids.discard(call.record.id)
    if not ids:
        return value
    hidden = ids - await _seen(call, ids)
    return _without(value, hidden) if hidden else value


async def _seen(call: Call, ids: set[str]) -> set[str]:
    """Give those of executions that are there, and whose tasks the caller may see."""
    wanted = sorted(ids)
    found = await call.read(lambda store: store.get(wanted))
    rights = call.identity.rights
    return {one.id for one in found if one is not None and rights.see(one.tenant, one.task)}


def _ids(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _ID.findall(value)
    elif isinstance(value, Mapping):
        for name, said in value.items():
            yield from _ids(name)
            yield from _ids(said)
    elif isinstance(value, list | tuple):
        for said in value:
            yield from _ids(said)


def _without(value: Any, hidden: set[str]) -> Any:
    if isinstance(value, str):
        return _ID.sub(lambda found: HIDDEN if found[0] in hidden else found[0], value)
    if isinstance(value, Mapping):
        return {_without(name, hidden): _without(said, hidden) for name, said in value.items()}
    if isinstance(value, list | tuple):
        return [_without(said, hidden) for said in value]
    return value


async def page(call: Call, wanted: Filter, limit: int) -> tuple[list[Record], str | None]:
    """Read a page of executions that the caller may see, and the cursor of the next one.

    Where few fit among many, or few may be seen, a page is short, or empty, and has a cursor.

    Args:
        call: the request; it is asked about each row.
        wanted: which; its ``before_id`` is where the page begins.
        limit: how many there are on it.
    """
    shown: list[Record] = []
    looked, size = 0, limit + 1
    wanted = bounded(wanted)
    while True:
        part = await call.engine.read_part(replace(wanted, limit=size), ROWS_MAX)
        for record in part.found:
            if not call.listed(record.task):
                continue
            if len(shown) == limit:
                return shown, shown[-1].id
            shown.append(record)
        if part.before_id is None:
            return shown, None
        looked += len(part.found)
        if len(part.found) < size or looked >= LOOKED_MAX:
            is_open = sees_all(call)
            return shown, part.before_id if is_open else await sealed(call.engine, part.before_id)
        wanted, size = replace(wanted, before_id=part.before_id), AT_ONCE


async def sealed(engine: Engine, cursor: str) -> str:
    """Write a cursor that tells nobody where it is."""
    root, data = await _root(engine), cursor.encode()
    mac = hmac.digest(root, b"mac" + data, "sha256")[:_MAC_BYTES]
    text = base64.urlsafe_b64encode(mac + _crossed(root, mac, data)).rstrip(b"=").decode()
    return MARK + text


async def opened(engine: Engine, cursor: str | None) -> str | None:
    """Read a cursor, sealed or not.

    Raises:
        BadPayload: nobody has sealed it here.
    """
    if cursor is None or not cursor.startswith(MARK):
        return cursor
    root, text = await _root(engine), cursor[len(MARK) :]
    try:
        whole = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise unfit("$.cursor", "it is no cursor of this store", "query") from None
    mac = whole[:_MAC_BYTES]
    data = _crossed(root, mac, whole[_MAC_BYTES:])
    if not hmac.compare_digest(mac, hmac.digest(root, b"mac" + data, "sha256")[:_MAC_BYTES]):
        raise unfit("$.cursor", "it is no cursor of this store", "query")
    return data.decode()


def _crossed(root: bytes, mac: bytes, data: bytes) -> bytes:
    """Cross bytes with a stream that only who has the root can make; twice gives them back."""
    stream = b"".join(
        hmac.digest(root, b"stream" + mac + place.to_bytes(4, "big"), "sha256")
        for place in range(-(-len(data) // 32))
    )
    return bytes(one ^ other for one, other in zip(data, stream, strict=False))


async def _root(engine: Engine) -> bytes:
    found = _roots.get(engine)
    if found is None:
        drawn = secrets.token_bytes(32)

        def keep(store: Store = engine.store) -> bytes:
            return store.secret(SECRET, drawn)

        found = _roots[engine] = await engine.journal.call(keep)
    return found


async def seen_executions(call: Call, ids: list[str]) -> set[str]:
    """Give those of executions that the caller may read of."""
    found = await call.read(lambda store: store.get(ids))
    return {
        one.id
        for one in found
        if one is not None and call.may(Permission.EXECUTIONS_READ, one.task)
    }


__all__ = ["HIDDEN", "opened", "page", "sealed", "seen_executions", "sees_all", "veiled"]
