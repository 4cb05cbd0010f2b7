"""What an address says: a PostgreSQL database, a schema in it, and how it is to be used."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import conninfo

from outlast.errors import CannotLoad
from outlast.store import shown

SCHEMES: Final = ("postgresql", "postgres")
_OURS: Final = {"schema": "outlast", "prepare": "on", "durability": "on", "listen": "auto"}
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
        listens: whether it hears the hints of others by ``LISTEN``: ``auto``, where no pooler is in
            between; ``on``; ``off``; or the ``host:port`` of the server itself, past a pooler.
    """

    shown: str
    conninfo: str = field(repr=False)
    schema: str
    prepares: bool
    is_durable: bool
    listens: str = "auto"

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
        if ours["listen"] not in ("auto", "on", "off"):
            host, _, port = ours["listen"].rpartition(":")
            if not host or not port.isdigit():
                raise CannotLoad(
                    "listen says neither on, off nor auto, nor where",
                    where=where,
                    do="listen=db.example:5432, the server itself, past the pooler",
                )
        if not ours["schema"] or "\0" in ours["schema"]:
            raise CannotLoad("a schema has a name", where=where)
        return cls(
            where,
            plain,
            ours["schema"],
            ours["prepare"] == "on",
            ours["durability"] == "on",
            ours["listen"],
        )

    @property
    def for_hints(self) -> Address:
        """The address of the connection that says and hears hints."""
        host, _, port = self.listens.rpartition(":")
        if not host:
            return self
        place = conninfo.make_conninfo(self.conninfo, host=host, port=port)
        return replace(self, conninfo=place)


__all__ = ["SCHEMES", "Address"]
