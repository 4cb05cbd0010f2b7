"""Names that no store could hold are refused where they come in."""

from __future__ import annotations

import pytest

from outlast.errors import UsageError
from outlast.naming import checked_labels, checked_name, checked_text


@pytest.mark.parametrize(("text", "why"), [("a\0b", "NUL"), ("a\ud800b", "surrogate")])
def test_what_no_column_can_hold_is_refused(text: str, why: str) -> None:
    for check in (checked_name, checked_text):
        with pytest.raises(UsageError, match=f"{why} .*at place 1"):
            check(text, "key")
    for labels in ({text: "v"}, {"n": text}):
        with pytest.raises(UsageError, match=why):
            checked_labels(labels)


def test_other_text_is_taken_as_it_is() -> None:
    for text in ("a\nb\tc", "ü€😀", "\x01", "'; DROP TABLE execution; --"):
        assert checked_name(text, "key") == text
