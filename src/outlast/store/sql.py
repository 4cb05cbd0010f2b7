"""Load named SQL statements from the files of a backend.

A file holds several statements of one topic. Each begins with ``-- name: word``; comments follow.
A statement that takes many rows has ``{rows}`` where they go, and ``-- columns: n`` says how wide
one is; :meth:`Statement.many` writes it for a number of rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_COLUMNS = re.compile(r"^-- columns: (\d+)$", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Statement:
    """One named statement.

    Attributes:
        name: unique in its backend.
        text: the SQL, without its comments.
        columns: the parameters of one row, for statements with ``{rows}``; else 0.
    """

    name: str
    text: str
    columns: int

    def many(self, rows: int) -> str:
        """Write the statement for this many rows of parameters."""
        return _many(self.text, self.columns, rows)


@lru_cache(maxsize=1024)
def _many(text: str, columns: int, rows: int) -> str:
    row = "(" + ",".join("?" * columns) + ")"
    return text.replace("{rows}", ",".join([row] * rows))


def parse(text: str) -> dict[str, Statement]:
    """Take a file apart into its statements.

    Raises:
        ValueError: two statements share a name, or one is empty.
    """
    pieces = _NAME.split(text)
    statements: dict[str, Statement] = {}
    for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
        width = _COLUMNS.search(body)
        sql = _COMMENT.sub("", body + "\n").strip().rstrip(";")
        if name in statements or not sql:
            raise ValueError(f"statement {name} is there twice, or empty")
        statements[name] = Statement(name, sql, int(width[1]) if width else 0)
    return statements


def load(package: str) -> dict[str, Statement]:
    """Load all statements of a backend, from every ``.sql`` file of its package.

    Raises:
        ValueError: two statements share a name.
    """
    statements: dict[str, Statement] = {}
    for file in sorted(resources.files(package).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            for name, statement in parse(file.read_text("utf-8")).items():
                if name in statements:
                    raise ValueError(f"statement {name} is there twice")
                statements[name] = statement
    return statements


def migrations(package: str) -> list[tuple[int, str]]:
    """Load a backend's migrations, ``migrations/0001_name.sql`` and on, in order."""
    found = []
    for file in resources.files(package).joinpath("migrations").iterdir():
        if file.name.endswith(".sql"):
            found.append((int(file.name.split("_")[0]), file.read_text("utf-8")))
    return sorted(found)
