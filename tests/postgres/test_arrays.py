"""Columns as arrays: what is written at one go is what each value by itself would be."""

from __future__ import annotations

import struct

import pytest

from benchmarks.drivers import binary_array
from outlast.store.postgres.arrays import array_of

ALIKE = {
    "bigint": (7, -(2**63)),
    "text": ("queued", "", "ü€😀"),
    "bytea": (b"", b"\x00\xff"),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_alike_or_not_they_are_written_one_by_one(kind: str) -> None:
    first, *others = ALIKE[kind]
    for values in (
        [None],
        [None] * 5,
        [first],
        [first] * 5,
        [first, others[0], first],
        [first, None, first],
        [None, first, None],
        [*others, first, None],
    ):
        assert array_of(kind, values) == binary_array(kind, values), values


def test_zeros_keep_their_signs() -> None:
    written = array_of("float8", [0.0, -0.0])
    assert written.endswith(struct.pack(">idid", 8, 0.0, 8, -0.0))


def test_what_is_no_text_is_refused_also_where_all_are_alike() -> None:
    with pytest.raises(AttributeError):
        array_of("text", [5, 5])
    with pytest.raises(OverflowError):
        array_of("bigint", [2**63] * 3)
