"""One side of a copy: rows of a table in the order of its key, read or written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from outlast.store.relational.tables import Table

UNFINISHED: Final = ("copy", "unfinished", "copy")
"""A row of the edge table while a copy is not finished: whoever opens such a database compares that
table with the lifecycle, and refuses it."""
MARK: Final = "copy"
"""The row of the meta table that says how far a copy is; it is no part of what is copied."""

Row = tuple[object, ...]


class Side(ABC):
    """A database, as a copy uses it; for one thread.

    Attributes:
        shown: its address, for people.
        identity: the same for the same database, and for no other one.
    """

    shown: str
    identity: str

    @abstractmethod
    def hold(self) -> None:
        """Keep everybody from writing, until it is closed.

        Raises:
            StoreOwned: a worker lives on it.
        """

    @abstractmethod
    def take(self, now: int) -> bytes | None:
        """Get ready to be written; gives the mark that a copy has left, None where none has.

        Raises:
            StoreOwned, StoreBusy: somebody else is at it.
        """

    @abstractmethod
    def begin(self, mark: bytes) -> None:
        """Mark it as unfinished, so that nobody opens it; it is durable when this returns."""

    @abstractmethod
    def rows(self, table: Table, after: Row | None, limit: int) -> Sequence[Row]:
        """Read rows in the order of the key, behind a key."""

    @abstractmethod
    def write(self, table: Table, rows: Sequence[Row], mark: bytes, *, guarded: bool) -> None:
        """Write rows and the mark in one transaction."""

    @abstractmethod
    def finish(self) -> None:
        """Take the marks away."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it; what is held may be written again."""


__all__ = ["MARK", "UNFINISHED", "Row", "Side"]
