"""Whose history a server has: compare what it says of itself with what the store has kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from outlast.store.epoch import Keeping
from outlast.store.relational.database import Sight

_SAID: Final = {
    "system": "its cluster is {now}, and was {then}",
    "timeline": "its timeline is {now}, and was {then}: a standby was promoted, or a backup"
    " restored",
    "database": "its database was made anew, from a dump",
    "tables": "its tables were made anew, from a dump",
}


def compared(kept: Mapping[str, Any] | None, seen: Mapping[str, Any], now: int) -> Sight:
    """Compare what is kept with what is seen; what a role may not ask for says nothing.

    Args:
        kept: the last sight; None for a store that was just made, or copied.
        seen: ``system``, ``timeline``, ``database`` and ``tables``; None for what is not known.
        now: the server's instant.
    """
    kept = kept or {}
    if kept.get("is_copy"):
        return Sight(dict(seen), now, "restored", "it was copied from a copy that db backup made")
    identity = {name: kept.get(name) if value is None else value for name, value in seen.items()}
    other = [
        name
        for name, value in seen.items()
        if value is not None and kept.get(name) not in (None, value)
    ]
    if not other:
        return Sight(identity, now)
    cause = "promoted" if other == ["timeline"] else "restored"
    why = "; ".join(_SAID[name].format(now=seen[name], then=kept[name]) for name in other)
    return Sight(identity, now, cause, why)


_WAITS: Final = {
    "remote_apply": "nothing, as long as one of its synchronous standbys is promoted",
    "on": "nothing, as long as one of its synchronous standbys is promoted",
    "remote_write": "what a synchronous standby had not written to its disk yet, where its machine"
    " and the primary fail at once; else nothing",
}
"""What a commit waits for says what can be lost with the primary, where there are standbys."""
_ALONE: Final = (
    "nothing, by whatever ends the server; where a standby is promoted, what was acknowledged"
    " before it had got it: the last moments"
)


def kept_by(columns: Sequence[Any], kept: Mapping[str, Any]) -> Keeping:
    """Say what can be lost, by a server's settings; see the statement ``keeping``."""
    commit, names, standbys, synchronous = columns
    settings = {
        "synchronous_commit": commit,
        "synchronous_standby_names": names,
        "standbys": standbys,
        "synchronous_standbys": synchronous,
    }
    unknown = [name for name in ("system", "timeline") if kept.get(name) is None]
    do = ""
    if unknown:
        do = "GRANT EXECUTE on pg_control_system(), pg_walfile_name() and pg_current_wal_lsn()"
    waits = _WAITS.get("on" if commit == "off" else commit) if names else None
    if waits is None:
        do = "synchronous_standby_names, and synchronous_commit = on" + (f"; {do}" if do else "")
    return Keeping(waits or _ALONE, do, settings, kept)


__all__ = ["compared", "kept_by"]
