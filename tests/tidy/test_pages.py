"""Pages lead somewhere, and no file knows the machine it was written on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from outlast.access import render as roles_page
from outlast.cli import render as cli_pages
from outlast.dialects import render as dialects_page
from outlast.lifecycle import render as lifecycle_page

from . import ROOT, files

PAGES: Final = [path for path in files() if path.suffix == ".md"]
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_MACHINE: Final = re.compile(
    r"(?<![\w.])/(?:wo"
    r"rk(?!ers?\b)|ro"
    r"ot|ho"
    r"me|Us"
    r"ers|opt/py)[/\w]|\.lib"
    r"rary\b"
    r"|--(?:extra-)?index" + r"-url|find" + r"-links",
)
"""Paths of one machine and its registries; written in pieces, so as not to find itself."""


def anchors(text: str) -> set[str]:
    """Give the anchors that a page's headings make."""
    heads = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


def dead_links(path: Path, text: str) -> list[str]:
    """Give the relative links of a page that lead nowhere."""
    dead = []
    for target in _LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.is_relative_to(ROOT) or not file.exists():
            dead.append(target)
        elif anchor:
            content = text if file == path else file.read_text("utf-8")
            if anchor not in anchors(content):
                dead.append(target)
    return dead


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(path: Path) -> None:
    assert dead_links(path, path.read_text("utf-8")) == []


def test_every_page_is_linked() -> None:
    """From somewhere: a page that nobody finds is not read."""
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in _LINK.findall(page.read_text("utf-8"))
        if not re.match(r"[a-z]+:|#", target)
    }
    pages = {page for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert {page for page in pages if page not in linked and page.parent not in linked} == set()


def test_generated_pages_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert lifecycle_page.main(["--check"]) == 0, capsys.readouterr().err
    assert dialects_page.main(["--check"]) == 0, capsys.readouterr().err
    assert cli_pages.main(["--check"]) == 0, capsys.readouterr().err
    assert roles_page.main(["--check"]) == 0, capsys.readouterr().err


def test_no_file_knows_the_machine() -> None:
    found = {}
    for path in files():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        if hits := _MACHINE.findall(text):
            found[path.relative_to(ROOT).as_posix()] = hits[:3]
    assert found == {}


def test_faults_are_seen() -> None:
    page = ROOT / "docs" / "concepts.md"
    assert dead_links(page, "[a](nowhere.md) [b](cli.md) [c](#no) [d](https://example.com)") == [
        "nowhere.md",
        "#no",
    ]
    assert dead_links(page, "# A head, `it` is\n[a](#a-head-it-is) [b](errors.md#none)") == [
        "errors.md#none"
    ]
    for text in ("open /wo" + "rk/main/x", "pip --index" + "-url x", "in /ro" + "ot/.cache"):
        assert _MACHINE.search(text), text
    assert not _MACHINE.search("docs/" + "work/x and http://a.b/c")
