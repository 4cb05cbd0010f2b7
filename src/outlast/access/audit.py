"""The audit: who changed what, a chain in which each row's digest covers the one before.

Whoever changes, deletes or moves a row breaks the chain there. Whoever cuts off its end must change
the head as well; and somebody who has noted an earlier head (``outlast audit verify`` prints it)
sees that the chain does not lead there any more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

GENESIS: Final = bytes(32)
"""The digest before the first row."""


@dataclass(frozen=True, slots=True)
class Deed:
    """That somebody does something: written with what it changes, or not at all.

    Attributes:
        by: who: ``user:ada``, ``token:…``, or ``os:ada`` for whoever works on the machine itself.
        via: by which door: ``cli`` or ``api``.
        what: what, in the door's own word.
        at: when.
    """

    by: str
    via: str
    what: str
    at: int


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A row of the audit.

    Attributes:
        number: from 1, without a gap.
        at, by, via, what: as in :class:`Deed`.
        target: what was changed: an execution's id, ``user:ada``, ``queue:mail``.
        detail: facts about it as JSON; never a payload, never a secret.
        previous: the digest of the row before.
        digest: of this row, with ``previous`` in it.
    """

    number: int
    at: int
    by: str
    via: str
    what: str
    target: str
    detail: str
    previous: bytes
    digest: bytes


def chained(
    number: int, previous: bytes, said: Iterable[tuple[Deed, str, Mapping[str, Any]]]
) -> Iterator[AuditRow]:
    """Make the rows that come after one: for each a deed, what it changed, and facts about it."""
    for deed, target, facts in said:
        number += 1
        detail = json.dumps(facts, separators=(",", ":"), sort_keys=True, ensure_ascii=True)
        row = AuditRow(number, deed.at, deed.by, deed.via, deed.what, target, detail, previous, b"")
        previous = digest_of(row)
        yield AuditRow(
            number, deed.at, deed.by, deed.via, deed.what, target, detail, row.previous, previous
        )


def digest_of(row: AuditRow) -> bytes:
    """Compute what a row's digest must be."""
    said = [row.number, row.at, row.by, row.via, row.what, row.target, row.detail]
    text = json.dumps(said, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(row.previous + text.encode()).digest()


class Chain:
    """Follows a chain from its beginning, row by row.

    Attributes:
        number, digest: of the last row seen.
        defects: what was wrong, each as a sentence.
    """

    def __init__(self) -> None:
        self.number = 0
        self.digest = GENESIS
        self.defects: list[str] = []

    def follow(self, rows: Iterable[AuditRow]) -> None:
        """Look at the next rows."""
        for row in rows:
            if row.number != self.number + 1:
                self.defects.append(f"audit: row {row.number} comes after row {self.number}")
            elif row.previous != self.digest:
                self.defects.append(f"audit: row {row.number} does not follow from the one before")
            if digest_of(row) != row.digest:
                self.defects.append(f"audit: row {row.number} is not what its digest says")
            self.number, self.digest = row.number, row.digest

    def end(self, head: tuple[int, bytes]) -> None:
        """Compare its end with the head that the store keeps."""
        if head != (self.number, self.digest):
            self.defects.append(
                f"audit: its head is at row {head[0]}, and its last row is {self.number}"
            )


__all__ = ["GENESIS", "AuditRow", "Chain", "Deed", "chained", "digest_of"]
