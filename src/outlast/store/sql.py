"""Load named SQL statements from the files of a backend.

A file holds several statements of one topic. Each begins with ``-- name: word``; comments follow.
A statement that takes many rows has ``{rows}`` where they go, and ``-- columns: n`` says how wide
one is; :meth:`Statement.many` writes it for a number of rows. ``-- padded`` says it passes over
rows whose first column is NULL, so that one text serves for several numbers of rows.
``{tenant}`` stands for the number of the tenant that a store is opened for: it is filled in when
the statements are loaded, so a plan is as good as one of literals, and no caller can forget it.
``-- packed: n, blobs a b`` says that its result is asked for as one value, see
:meth:`Statement.packed`, and which columns are bytes. PostgreSQL's are one array a column:
``-- types: text bigint`` says of which type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_COLUMNS = re.compile(r"^-- columns: (\d+)$", re.MULTILINE)
_PADDED = re.compile(r"^-- padded$", re.MULTILINE)
_TYPES = re.compile(r"^-- types: ([a-z0-9 ]+)$", re.MULTILINE)
_PACKED = re.compile(r"^-- packed: (\d+), blobs ([\d ]+)$", re.MULTILINE)
BLOCKS = (512, 256, 128, 32)
"""Rows of parameters that many rows are parted into, as far as their text is kept: to prepare one
anew costs a third of what the rows cost."""
TEXT_MAX = 16_384
"""Characters above which the driver keeps no text prepared."""
KEPT_ROWS_MAX = 16
"""Rows up to which any number has a text that is kept; longer ones are seldom used twice."""
PADDED = (24, 32, 48, 64, 96, 128)
"""Rows that longer texts of padded statements are written for."""
_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)


class Statement(Struct, frozen=True):
    """One named statement.

    Attributes:
        name: unique in its backend.
        text: the SQL, without its comments.
        columns: the parameters of one row, for statements with ``{rows}``; else 0.
        results: the columns of its result, for those that are packed; else 0.
        blobs: which of them are bytes, from 0.
        padded: whether rows whose first column is NULL are passed over.
        types: the types of the parameters of one row, where a backend wants to know them.
    """

    name: str
    text: str
    columns: int = 0
    results: int = 0
    blobs: tuple[int, ...] = ()
    padded: bool = False
    types: tuple[str, ...] = ()

    def many(self, rows: int) -> str:
        """Write the statement for this many rows of parameters."""
        return _many(self.text, self.columns, rows)

    def sizes(self, rows: int) -> Iterator[tuple[int, int]]:
        """Part a number of rows into few statements, most of which are prepared already.

        Gives how many rows each takes, and how many it is written for: the others are NULL.

        Each statement lets go of the interpreter's lock, so that there must not be many; but to
        prepare a long text anew is dear, too (``docs/performance.md``).
        """
        for block in self.blocks[:-1] if self.padded else self.blocks:
            for _ in range(rows // block):
                yield block, block
            rows %= block
        if self.padded and rows > KEPT_ROWS_MAX:
            yield rows, next(size for size in PADDED if size >= rows)
        elif rows:
            yield rows, rows

    @property
    def blocks(self) -> tuple[int, ...]:
        """How many rows the texts have that are kept prepared, the longest first."""
        return _blocks(self)

    def is_kept(self, rows: int) -> bool:
        """Tell whether a text for this many rows is worth keeping prepared."""
        return rows <= KEPT_ROWS_MAX or rows in PADDED or rows in self.blocks

    def packed(self, rows: int = 0) -> str:
        """Write the statement so that all its rows come as one JSON array of arrays, bytes in hex.

        Each row that SQLite hands over lets go of the interpreter's lock. Where another thread
        computes, it may take milliseconds to get it back, for every single row.
        """
        return _packed(self, rows)


@lru_cache(maxsize=2048)
def _blocks(statement: Statement) -> tuple[int, ...]:
    one = statement.packed(1) if statement.results else statement.many(1)
    row = len("(,)") + 2 * statement.columns - 1
    return tuple(rows for rows in BLOCKS if len(one) + (rows - 1) * row < TEXT_MAX)


@lru_cache(maxsize=2048)
def _many(text: str, columns: int, rows: int) -> str:
    row = "(" + ",".join("?" * columns) + ")"
    return text.replace("{rows}", ",".join([row] * rows))


@lru_cache(maxsize=2048)
def _packed(statement: Statement, rows: int) -> str:
    names = [f"c{place}" for place in range(statement.results)]
    values = list(names)
    for place in statement.blobs:
        values[place] = f"iif(c{place} IS NULL, NULL, hex(c{place}))"
    text = statement.many(rows) if rows else statement.text
    packed = f"SELECT json_group_array(json_array({', '.join(values)})) FROM r"  # noqa: S608
    return f"WITH r ({', '.join(names)}) AS ({text}) {packed}"


def parse(text: str) -> dict[str, Statement]:
    """Take a file apart into its statements.

    Raises:
        ValueError: two statements share a name, or one is empty.
    """
    pieces = _NAME.split(text)
    statements: dict[str, Statement] = {}
    for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
        width, packed = _COLUMNS.search(body), _PACKED.search(body)
        types = _TYPES.search(body)
        sql = _COMMENT.sub("", body + "\n").strip().rstrip(";")
        if name in statements or not sql:
            raise ValueError(f"statement {name} is there twice, or empty")
        statements[name] = Statement(
            name,
            sql,
            int(width[1]) if width else 0,
            int(packed[1]) if packed else 0,
            tuple(int(number) - 1 for number in packed[2].split()) if packed else (),
            bool(_PADDED.search(body)),
            tuple(types[1].split()) if types else (),
        )
    return statements


@lru_cache(maxsize=256)
def load(package: str, tenant: int = 1) -> Mapping[str, Statement]:
    """Load all statements of a backend as one tenant's.

    Args:
        package: of the backend; every ``.sql`` file in it is read, once.
        tenant: the tenant's number.

    Raises:
        ValueError: two statements share a name.
    """
    return {
        name: replace(statement, text=statement.text.replace("{tenant}", str(int(tenant))))
        for name, statement in templates(package).items()
    }


@cache
def templates(package: str) -> Mapping[str, Statement]:
    """Load all statements of a backend as they are written, with ``{tenant}`` in them."""
    statements: dict[str, Statement] = {}
    for file in sorted(_folder(package).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            for name, statement in parse(file.read_text("utf-8")).items():
                if name in statements:
                    raise ValueError(f"statement {name} is there twice")
                statements[name] = statement
    return statements


def _folder(package: str) -> Path:
    """Give the folder of a package: of our own, which is never in an archive."""
    return Path(str(import_module(package).__file__)).parent


def migrations(package: str) -> list[tuple[int, str]]:
    """Load a backend's migrations, ``migrations/0001_name.sql`` and on, in order."""
    return sorted(
        (int(file.name.split("_")[0]), file.read_text("utf-8"))
        for file in (_folder(package) / "migrations").iterdir()
        if file.name.endswith(".sql")
    )
