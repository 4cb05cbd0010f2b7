"""Write a column as a PostgreSQL array in the binary format, by as few calls as there can be.

https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-FORMAT-CODES; the format of
an array is that of ``array_recv``: dimensions, whether there are nulls, the type of the elements,
for each dimension its length and first index, then each element with its length, -1 for a null.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from outlast.store.relational.rows import Value

OIDS: Final = {"bigint": 20, "text": 25, "bytea": 17, "boolean": 16, "float8": 701}
"""The types that columns of many rows may have; see pg_type.dat of PostgreSQL."""
_NULL: Final = b"\xff\xff\xff\xff"
_header: Final = struct.Struct(">5i").pack
_number: Final = struct.Struct(">iq").pack
_float: Final = struct.Struct(">id").pack
_length: Final = struct.Struct(">i").pack


def array_of(type: str, values: Sequence[Value]) -> bytes:
    """Write the values of one column.

    Raises:
        KeyError: there is no such type here.
        OverflowError: a number is too large.
        TypeError, AttributeError: a value is not of this type.
    """
    try:
        return _array_of(type, values)
    except struct.error as error:
        raise OverflowError(str(error)) from error


_ONE_NULL: Final = {type: _header(1, 1, oid, 1, 1) + _NULL for type, oid in OIDS.items()}
_ONE: Final = {type: _header(1, 0, oid, 1, 1) for type, oid in OIDS.items()}
"""An array of one null, and what comes before one that is none: most transactions are small."""


def _array_of(type: str, values: Sequence[Value]) -> bytes:
    if len(values) == 1:
        (value,) = values
        if value is None:
            return _ONE_NULL[type]
        if type == "bigint":
            return _ONE[type] + _number(8, value)
        if type == "text":
            raw = value.encode()  # type: ignore[union-attr]
            return _ONE[type] + _length(len(raw)) + raw
    oid = OIDS[type]
    if not values:
        return struct.pack(">3i", 0, 0, oid)
    holes = None in values
    header = _header(1, holes, oid, len(values), 1)
    if _are_alike(type, values):
        return header + _elements(type, values[:1]) * len(values)
    if type == "bigint" and not holes:
        pairs: list[object] = [8] * (2 * len(values))
        pairs[1::2] = values
        return header + struct.pack(">" + "iq" * len(values), *pairs)
    return header + _elements(type, values)


def _are_alike(type: str, values: Sequence[Value]) -> bool:
    """Tell whether one element serves for all, as in most columns: of nulls, kinds, actors."""
    first = values[0]
    if type == "float8" or first != values[-1]:  # zeros have signs
        return False
    return values.count(first) == len(values)


def _elements(type: str, values: Sequence[Value]) -> bytes:
    parts: list[bytes] = []
    add = parts.append
    if type == "bigint":
        for value in values:
            add(_NULL if value is None else _number(8, value))
    elif type == "float8":
        for value in values:
            add(_NULL if value is None else _float(8, value))
    elif type == "text":
        for value in values:
            if value is None:
                add(_NULL)
            else:
                raw = value.encode()  # type: ignore[union-attr]
                add(_length(len(raw)))
                add(raw)
    elif type == "bytea":
        for value in values:
            if value is None:
                add(_NULL)
            else:
                add(_length(len(value)))  # type: ignore[arg-type]
                add(value)  # type: ignore[arg-type]
    else:
        for value in values:
            add(_NULL if value is None else b"\0\0\0\1\1" if value else b"\0\0\0\1\0")
    return b"".join(parts)
