"""What an address says: a PostgreSQL database, a schema in it, and how it is to be used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import conninfo

from outlast.errors import CannotLoad
from outlast.store import shown

SCHEMES: Final = ("postgresql", "postgres")
_OURS: Final = {"schema": "outlast", "prepare": "on", "durability": "on"}
"""What an address may say besides what libpq knows, and what holds where it does not."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a store.

    Attributes:
        shown: it, without what is secret; for people and messages.
        conninfo: what libpq is told; may have a password.
        schema: where the tables are.
        prepares: whether statements may be prepared; ``prepare=off`` spares a pooler that cannot
            keep prepared statements from finding that out.
        is_durable: whether a server is refused that can forget what it has acknowledged;
            ``durability=off`` is for tests.
    """

    shown: str
    conninfo: str = field(repr=False)
    schema: str
    prepares: bool
    is_durable: bool

    @classmethod
    def of(cls, url: str) -> Address:
        """Read an address.

        Raises:
            CannotLoad: it is none; the text does not repeat it, as it may have a password.
        """
        try:
            parts = urlsplit(url)
            given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
            ours = {**_OURS, **{name: value for name, value in given if name in _OURS}}
            theirs = [(name, value) for name, value in given if name not in _OURS]
            plain = urlunsplit(parts._replace(query=urlencode(theirs, quote_via=quote)))
            conninfo.conninfo_to_dict(plain)
            where = shown(url)
        except (ValueError, psycopg.Error) as error:
            raise CannotLoad(
                "this is no address of a PostgreSQL database",
                why=type(error).__name__,
                do="write postgresql://user:password@host:5432/database",
            ) from None
        for switch in ("prepare", "durability"):
            if ours[switch] not in ("on", "off"):
                raise CannotLoad(f"{switch} is neither on nor off", where=where)
        if not ours["schema"] or "\0" in ours["schema"]:
            raise CannotLoad("a schema has a name", where=where)
        return cls(
            where, plain, ours["schema"], ours["prepare"] == "on", ours["durability"] == "on"
        )


__all__ = ["SCHEMES", "Address"]
