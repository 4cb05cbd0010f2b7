"""Every error has its two rows: an exit code, and an entry on the page."""

from __future__ import annotations

import re
from collections.abc import Iterator

from outlast import errors
from outlast.cli.exits import EXITS, MEANINGS
from outlast.errors import OutlastError

from . import ROOT


def family(kind: type[OutlastError]) -> Iterator[type[OutlastError]]:
    """Give a class of the package and all that derive from it."""
    yield kind
    for child in kind.__subclasses__():
        if child.__module__.split(".")[0] == "outlast":
            yield from family(child)


def missing(page: str, kinds: list[type[OutlastError]]) -> set[str]:
    """Give the codes without an entry of their own."""
    return {kind.code for kind in kinds} - set(re.findall(r"^## (\w+)$", page, re.MULTILINE))


ALL = list(family(OutlastError))


def test_every_error_has_an_exit_code() -> None:
    assert {kind for kind in ALL if kind.__module__ == "outlast.errors"} == EXITS.keys()
    assert set(EXITS.values()) <= MEANINGS.keys()


def test_every_error_is_explained() -> None:
    page = (ROOT / "docs" / "errors.md").read_text("utf-8")
    assert missing(page, ALL) == set()
    assert missing(page.replace("## store_full\n", ""), ALL) == {"store_full"}


def test_codes_are_unique_words() -> None:
    codes = [kind.code for kind in ALL]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = set(re.findall(r"[├└]─ (\w+)", errors.__doc__ or ""))
    assert drawn == {kind.__name__ for kind in ALL if kind is not OutlastError}
