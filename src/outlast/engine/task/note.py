"""What task code says in passing: a row of its own, once, known by its place like a step."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from outlast.lifecycle import Event, Kind, Transition


class Note(Struct):
    """Something that task code says in passing, and that is recorded once.

    Attributes:
        key: its place.
        digest: stands for what it says.
        data: what it says.
    """

    key: str
    digest: int
    data: dict[str, object]

    @property
    def mark(self) -> tuple[str, int]:
        """What it is recognised by."""
        return self.key, self.digest

    def event(self, *, reused: bool) -> Event:
        """Make its row; one that another execution has recorded before is not counted again."""
        data = {"noted": True} if reused else self.data
        return Event(Kind.ANNOTATION, "engine", key=self.key, digest=self.digest, data=data)


class Noted:
    """What the code of an execution has noted."""

    __slots__ = ("_marks",)

    def __init__(self) -> None:
        self._marks: set[tuple[str, int]] = set()

    def see(self, earlier: Sequence[Transition], current: Sequence[Transition]) -> None:
        """See the rows of a log: of earlier tries, and of this one.

        What was set aside by an earlier try ended with it, so this one settles its own.
        """
        for row in (*earlier, *current):
            data = row.data if row.kind is Kind.ANNOTATION else None
            if data is None or row.key is None or row.digest is None:
                continue
            if "noted" in data or "spent" in data or "settles" in data:
                self._marks.add((row.key, row.digest))
        for row in earlier:
            if row.kind is Kind.ANNOTATION and row.data and "settles" in row.data:
                assert row.key is not None and row.digest is not None
                self._marks.discard((row.key, row.digest))
        for row in current:
            if row.kind is Kind.ANNOTATION and row.data and "settles" in row.data:
                assert row.key is not None and row.digest is not None
                self._marks.add((row.key, row.digest))

    def is_new(self, note: Note) -> bool:
        """Tell whether something is noted for the first time, which this makes it."""
        if note.mark in self._marks:
            return False
        self._marks.add(note.mark)
        return True


__all__ = ["Note", "Noted"]
