"""The named statements as PostgreSQL takes them: ``$1`` for a parameter, arrays for many rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from outlast.store.postgres.arrays import array_of
from outlast.store.relational.rows import Value
from outlast.store.sql import Statement, load

_PARAMETER: Final = re.compile(r"'(?:[^']|'')*'|::|:([a-z_]\w*)")
"""A text, which is left alone; a cast, likewise; or the name of a parameter."""


@dataclass(frozen=True, slots=True)
class Sendable:
    """A statement and the order of its parameters.

    Attributes:
        text: the SQL, with ``$1`` and on.
        names: the parameters by name, in their order; empty for one of many rows.
        types: of one of many rows, the type of each column; else empty.
    """

    text: bytes
    names: tuple[str, ...]
    types: tuple[str, ...]

    @property
    def unforeseen(self) -> bytes:
        """Give the statement that is an error where this one gives any row, and gives none."""
        return b"SELECT unforeseen() FROM (" + self.text.rstrip(b"; \n") + b") AS found"

    def bind(self, bounds: Mapping[str, Value]) -> tuple[list[bytes | None], list[int]]:
        """Give the values of named parameters, and the format of each."""
        values: list[bytes | None] = []
        formats: list[int] = []
        for name in self.names:
            value = bounds[name]
            formats.append(type(value) is bytes)
            values.append(_plain(value))
        return values, formats

    def spread(self, columns: Sequence[Sequence[Value]]) -> tuple[list[bytes | None], list[int]]:
        """Give one array for each column of many rows."""
        arrays: list[bytes | None] = [
            array_of(type, column) for type, column in zip(self.types, columns, strict=True)
        ]
        return arrays, [1] * len(arrays)


def _plain(value: Value) -> bytes | None:
    if value is None or type(value) is bytes:
        return value
    if value is True or value is False:
        return b"t" if value else b"f"
    return str(value).encode()


def sendable(statement: Statement) -> Sendable:
    """Turn a named statement into one that can be sent."""
    names: list[str] = []

    def numbered(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return found[0]
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    text = _PARAMETER.sub(numbered, statement.text)
    if statement.types:
        assert not names, f"{statement.name} has rows and named parameters"
        # Not FROM unnest(…, …): the server would keep each array in a store of its own, some 4 µs
        # a column however few the rows, and twice the time a row. So they are read side by side.
        columns = ", ".join(
            f"unnest(${n}::{type}[]) AS column{n}" for n, type in enumerate(statement.types, 1)
        )
        text = text.replace("{rows}", f"(SELECT {columns}) AS v")
    return Sendable(text.encode(), tuple(names), statement.types)


@lru_cache(maxsize=256)
def statements(tenant: int = 1) -> Mapping[str, Sendable]:
    """Give all statements of a tenant by name."""
    return {name: sendable(one) for name, one in load("outlast.store.postgres", tenant).items()}
