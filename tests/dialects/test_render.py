"""The page in docs is written from the tables, and says what the design says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from outlast.dialects import DIALECTS, render
from outlast.lifecycle import FINAL, State

from .canonical import situations

FIRST = """
scheduled       queued          QUEUED                 scheduled   INITIALIZED
queued          queued          QUEUED                 ready       INITIALIZED
blocked         queued          WAITING_FOR_RESOURCES  ready       INITIALIZED
starting        starting        INITIALIZING           leased      INITIALIZED
running         running         RUNNING                running     RUNNING
awaiting_input  awaiting_input  RUNNING                suspended   WAITING
waiting         running         RUNNING                suspended   WAITING
retry_wait      running         RUNNING                retry_wait  RUNNING
paused          awaiting_input  RUNNING                suspended   PAUSED
suspended       running         RUNNING                suspended   PAUSED
succeeded       succeeded       SUCCEEDED              completed   COMPLETED
failed          failed          FAILED                 failed      FAILED
timed_out       failed          TIMED_OUT              failed      FAILED
cancelled       cancelled       ABORTED                canceled    CANCELLED
"""
"""The design's table of states; Flyte's two views differ in their parts only."""


def test_the_page_is_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert render.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_page_is_noticed_and_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "docs" / "dialects.md"
    monkeypatch.setattr(render, "PAGE", page)
    assert render.main(["--check"]) == 1
    assert "stale" in capsys.readouterr().err
    assert render.main([]) == 0
    assert render.main(["--check"]) == 0
    page.write_text(page.read_text("utf-8").replace("RETRY", "TRY").replace("ready", "re"), "utf-8")
    assert render.main(["--check"]) == 1


def test_first_visits_are_those_of_the_design() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", render.page().split("## Julep")[0], re.MULTILINE)
    shown = {state: re.findall(r"`(\w+)`", cells) for state, cells in rows}
    for line in FIRST.strip().splitlines():
        state, julep, flyte, actionqueue, autopilotcx = line.split()
        assert shown[state] == [julep, flyte, flyte, actionqueue, autopilotcx]
    assert list(shown) == list(State)


def test_the_page_has_everything() -> None:
    chapters = render.page().split("\n## ")[1:]
    assert [chapter.split("\n")[0] for chapter in chapters] == [
        dialect.title for dialect in DIALECTS.values()
    ]
    for dialect, chapter in zip(DIALECTS.values(), chapters, strict=True):
        rows = chapter.splitlines()
        for edge in dialect.edges:
            ends = [f"`{dialect.label(w)}`" if w else "–" for w in (edge.source, edge.target)]
            assert any(row.startswith(f"| {ends[0]} | {ends[1]} | ") for row in rows), edge
        for way in dialect.ways:
            assert any(row.startswith(f"| {way.when} | ") for row in rows)
        for silence in dialect.silences:
            assert f"- {silence}" in rows
        assert all(f"`{other}` for `{name}`" in chapter for other, name in dialect.aliases.items())


def test_the_page_knows_how_far_each_state_can_have_come() -> None:
    seen: dict[State, set[int]] = {}
    for state, water, *_ in situations():
        seen.setdefault(state, set()).add(water)
    assert {state: sorted(waters) for state, waters in seen.items() if state not in FINAL} == {
        state: list(waters) for state, waters in render.WATER.items()
    }
