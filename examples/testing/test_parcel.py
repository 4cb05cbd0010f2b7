"""Tests of ``parcel.py``; see docs/guides/testing.md."""

from __future__ import annotations

import pytest
from parcel import LABELS, send_parcel

from outlast.testing import VirtualEngine


def test_a_released_parcel_is_sent(outlast_engine: VirtualEngine) -> None:
    h = outlast_engine.start(send_parcel, "O-1")
    outlast_engine.advance("2d")
    assert [q.title for q in outlast_engine.pending(h)] == ["Release parcel?"]
    outlast_engine.answer(h, True)
    assert h.result() == "sent with label of O-1"


def test_without_an_answer_it_is_kept(outlast_engine: VirtualEngine) -> None:
    h = outlast_engine.start(send_parcel, "O-1")
    outlast_engine.advance("7d")
    assert h.result() == "kept"


def test_the_carrier_is_asked_again(
    outlast_engine: VirtualEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    h = outlast_engine.start(send_parcel, "O-2")  # nobody has a label for it
    outlast_engine.advance("1m")
    monkeypatch.setitem(LABELS, "O-2", "late label")
    outlast_engine.advance("8d")
    assert h.result() == "kept"
    failed = [row.key for row in h.transitions() if row.kind == "attempt_failed"]
    assert failed == ["book#1"]


@pytest.mark.outlast_crash_everywhere
def test_no_crash_changes_anything(outlast_engine: VirtualEngine) -> None:
    h = outlast_engine.start(send_parcel, "O-1")
    outlast_engine.advance("2d")
    outlast_engine.answer(h, True)
    assert h.result() == "sent with label of O-1"
