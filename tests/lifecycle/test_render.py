"""The page in docs is written from the table, and the check notices when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from outlast.lifecycle import EDGES, RULES, Kind, State, render
from outlast.lifecycle.delivery import MessageKind
from outlast.lifecycle.table import REFUSAL_MEANINGS


def test_the_page_is_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert render.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_page_is_noticed_and_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "docs" / "lifecycle.md"
    monkeypatch.setattr(render, "PAGE", page)
    assert render.main(["--check"]) == 1
    assert "stale" in capsys.readouterr().err
    assert render.main([]) == 0
    assert render.main(["--check"]) == 0
    page.write_text(page.read_text("utf-8").replace("T14", "T99"), "utf-8")
    assert render.main(["--check"]) == 1


def test_the_page_has_everything() -> None:
    text = render.page()
    for rule in RULES:
        assert f"| {rule.id.split('.')[0]} |" in text and rule.meaning in text
    for word in (*State, *Kind, *MessageKind, *REFUSAL_MEANINGS):
        assert f"`{word}`" in text or f" {word} " in text, word
    for meaning in REFUSAL_MEANINGS.values():
        assert meaning in text


def test_the_diagram_has_the_edges_that_move_and_no_others() -> None:
    lines = render.page().split("```mermaid")[1].split("```")[0].splitlines()
    drawn = set()
    for line in lines:
        if ":" in line:
            ends, _, kinds = line.partition(":")
            source, target = (end.strip() for end in ends.split("-->"))
            drawn |= {(kind.strip(), source.strip("[*]"), target) for kind in kinds.split(",")}
    anywhere = {Kind.CANCEL, Kind.DEADLINE, Kind.PAUSE, Kind.UNPAUSE}
    notes = {rule.kind for rule in RULES if rule.id.startswith("N")}
    wanted = {(k, s or "", t) for k, s, t in EDGES if k not in anywhere | notes}
    assert drawn == wanted
