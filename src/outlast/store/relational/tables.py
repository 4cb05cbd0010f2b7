"""The tables of a SQL store, read from the migrations: both backends have the same ones.

That they are the same, and that the databases have them so, is compared by tests.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final, Literal

from msgspec import Struct

from outlast.store.protocol import DEFAULT_NUMBER
from outlast.store.sql import migrations

Kind = Literal["INTEGER", "TEXT", "BLOB", "REAL", "ANY"]
MADE_BY_SCHEMA: Final = ("migration", "edge", "audit_head", "feed_state", "feed")
"""Tables that are there with the schema; the heads of the audits follow tenants and rows, and a
feed is begun anew where it is followed."""
ORDER: Final = (
    *("tenant", "meta", "sight", "secret", "data_key", "transition", "epoch", "epoch_loss"),
    *("execution", "inbox", "worker"),
    *("schedule_entry", "schedule", "dependency", "errand"),
    *("queue_setting", "gate_setting", "rate", "holder", "line"),
    *("budget", "spending", "reservation", "budget_event", "stream_item", "progress"),
    *("question", "label", "descent"),
    *("webhook", "webhook_delivery", "webhook_sender"),
    *("account", "sign_in", "session", "token", "role_grant", "audit"),
    *("purge_permit", "reseal_permit"),
)
"""All other tables, so that each row comes behind those that its guards look for."""
MADE: Final[dict[str, tuple[object, ...]]] = {"tenant": (DEFAULT_NUMBER,)}
"""The row of a table that is there with the schema, and comes before all others, by its key."""
UNGUARDED: Final = frozenset({"execution", "inbox", "schedule_entry", "holder"})
"""Tables whose guards know births and changes, and not how something stands that has a past: a row
is born without messages, messages go to what has not ended, a log begins with its first entry, and
a limit may have been lowered below those who hold it."""

_TABLE: Final = re.compile(r"^CREATE TABLE (\w+) \((.*?)^\)", re.MULTILINE | re.DOTALL)
_COLUMN: Final = re.compile(r"^  (\w+) (INTEGER|TEXT|BLOB|REAL|ANY)\b(.*)$", re.MULTILINE)
_KEY: Final = re.compile(r"^  PRIMARY KEY \((.*?)\)", re.MULTILINE)


class Table(Struct, frozen=True):
    """One table.

    Attributes:
        name: its name.
        columns: the names of its columns.
        kinds: their types, in the words of SQLite.
        key: the names of its primary key's columns.
    """

    name: str
    columns: tuple[str, ...]
    kinds: tuple[Kind, ...]
    key: tuple[str, ...]

    def key_of(self, row: tuple[object, ...]) -> tuple[object, ...]:
        """Give the primary key of a row."""
        return tuple(row[self.columns.index(name)] for name in self.key)


@cache
def tables() -> dict[str, Table]:
    """Give every table by name."""
    found: dict[str, Table] = {}
    text = "\n".join(text for _, text in migrations("outlast.store.sqlite"))
    for name, body in _TABLE.findall(text):
        columns = _COLUMN.findall(body)
        key = _KEY.search(body)
        names = key[1].split(", ") if key else [one[0] for one in columns if "PRIMARY" in one[2]]
        found[name] = Table(
            name,
            tuple(one[0] for one in columns),
            tuple(one[1] for one in columns),
            tuple(names),
        )
    return found


__all__ = ["MADE", "MADE_BY_SCHEMA", "ORDER", "UNGUARDED", "Kind", "Table", "tables"]
