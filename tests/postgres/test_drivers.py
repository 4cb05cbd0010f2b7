"""The measurement that chose the driver, in a tiny size: every way writes what it says."""

from __future__ import annotations

import psycopg
import pytest

from benchmarks.drivers import WAYS, binary_array, measure, text_array
from servers.postgres import Server


@pytest.mark.parametrize("way", WAYS)
def test_every_way_writes_all_rows(postgres: Server, way: str) -> None:
    cost = measure(postgres, way, size=7, count=2)
    assert min(cost.client, cost.server, cost.wall) > 0


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("bigint", [1, None, -(2**63), 2**63 - 1]),
        ("bigint", [5, 6]),
        ("text", ["", "NULL", None, 'a "quoted" \\ {x,y}', "ü€😀", " padded "]),
        ("bytea", [b"", b"\x00\xff\\", None]),
    ],
)
def test_arrays_arrive_as_they_were(postgres: Server, kind: str, values: list[object]) -> None:

    with psycopg.connect(postgres.url()) as connection:
        for make, form in ((binary_array, 1), (text_array, 0)):
            result = connection.pgconn.exec_params(
                f"SELECT v FROM unnest($1::{kind}[]) AS v".encode(),
                [make(kind, values)],
                None,
                [form],
                1,
            )
            got = [result.get_value(row, 0) for row in range(result.ntuples)]
            expected = [
                None
                if v is None
                else v.to_bytes(8, "big", signed=True)
                if isinstance(v, int)
                else v.encode()
                if isinstance(v, str)
                else v
                for v in values
            ]
            assert got == expected
