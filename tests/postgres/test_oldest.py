"""PostgreSQL 14 is the oldest supported: conformance, plans and failover run on it where it could
be fetched (``servers/oldest.py``); and, everywhere, nothing in our SQL is younger than 14.
"""

from __future__ import annotations

import re

import pytest

from outlast.store.postgres.statements import statements
from outlast.store.sql import migrations
from servers.oldest import oldest

YOUNGER = {
    15: (
        r"\bMERGE\s+INTO\b",
        r"\bNULLS\s+NOT\s+DISTINCT\b",
        r"\bsecurity_invoker\b",
        r"\bregexp_(count|instr|like|substr)\b",
        r"\brange_agg\s*\(\s*\w+multirange",
        r"\bON\s+DELETE\s+SET\s+(NULL|DEFAULT)\s*\(",
        r"\bGRANT\s+SET\s+ON\s+PARAMETER\b",
    ),
    16: (
        r"\bjson_(array|object|arrayagg|objectagg)\s*\(",
        r"\bIS\s+JSON\b",
        r"\bany_value\s*\(",
        r"\barray_(sample|shuffle)\s*\(",
        r"\berf\s*\(",
        r"\b0[xob][0-9a-f]+\b",
        r"\b\d+_\d+\b",
    ),
    17: (
        r"\bjson_(table|exists|query|value|scalar|serialize)\s*\(",
        r"\bto_bin\s*\(",
        r"\brandom\s*\(\s*\w+\s*,",
        r"\btransaction_timeout\b",
        r"\bMAINTAIN\b",
        r"\bxmltext\s*\(",
    ),
    18: (
        r"\buuidv[47]\s*\(",
        r"\bRETURNING\s+WITH\b",
        r"\bWITHOUT\s+OVERLAPS\b",
        r"\bVIRTUAL\b",
        r"\barray_(reverse|sort)\s*\(",
        r"\bcasefold\s*\(",
        r"\bNOT\s+ENFORCED\b",
    ),
}
"""Words that a version brought which 14 does not know."""
TEXTS = {
    **{f"{name}.sql": one.text.decode() for name, one in statements().items()},
    **{f"migration {number}": text for number, text in migrations("outlast.store.postgres")},
}


def younger_in(text: str) -> list[str]:
    bare = re.sub(r"--[^\n]*|'[^']*'", "", text)
    return [
        f"{version}: {found[0]}"
        for version, words in YOUNGER.items()
        for word in words
        if (found := re.search(word, bare, re.IGNORECASE))
    ]


def test_no_statement_and_no_migration_is_younger_than_14() -> None:
    assert len(TEXTS) > 200
    assert {name: found for name, text in TEXTS.items() if (found := younger_in(text))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "MERGE INTO a USING b ON TRUE WHEN MATCHED THEN DO NOTHING RETURNING *",
        "CREATE UNIQUE INDEX i ON t (a) NULLS NOT DISTINCT",
        "SELECT any_value(a), JSON_OBJECT('a': 1) FROM t",
        "SELECT * FROM json_table('[]', '$' COLUMNS (a int))",
        "SELECT 1 WHERE a IS JSON",
        "SELECT uuidv7()",
        "SELECT 1_000",
        "UPDATE t SET a = 1 RETURNING WITH (OLD AS o) o.a",
    ],
)
def test_what_is_younger_is_found(text: str) -> None:
    assert younger_in(text)


def test_which_one_is_tried_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = oldest()
    with capsys.disabled():
        said = f"PostgreSQL {found[0].version}" if found else "NO POSTGRESQL 14 HERE"
        print(f"\n  the oldest: {said} (python -m servers.oldest)", flush=True)
    assert all(one.version == 14 for one in found)
