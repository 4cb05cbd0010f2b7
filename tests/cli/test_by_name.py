"""Arguments of a task that is known by its schema alone."""

from __future__ import annotations

from typing import Any

import pytest

from outlast.cli.by_name import is_name, read_arguments

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "count": {"type": "integer"},
        "loud": {"type": "boolean"},
        "to_whom": {"type": "string"},
    },
    "required": ["count"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("5", {"count": 5}),
        ("--count 5 --loud", {"count": 5, "loud": True}),
        ("--loud y 5", {"count": 5, "loud": True}),
        ("--loud 0 5", {"count": 5, "loud": False}),
        ("--no-loud --count=5", {"count": 5, "loud": False}),
        ("5 --to-whom 7", {"count": 5, "to_whom": "7"}),
    ],
)
def test_words_are_read_by_the_schema(words: str, given: dict[str, Any]) -> None:
    assert read_arguments("t", SCHEMA, words.split(), None) == given


def test_a_name_is_no_place() -> None:
    assert is_name("ship") and is_name("shop.ship")
    assert not any(map(is_name, ("a.py", "a.py:ship", "shop:ship", "apps/ship")))
