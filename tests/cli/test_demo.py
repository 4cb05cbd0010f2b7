"""The demo: a real kill, a real second process, and numbers that add up."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from outlast.demo.tasks import Change, report_on

from .conftest import Terminal


def test_the_demo_holds_what_it_claims_and_can_be_played_again(terminal: Terminal) -> None:
    for _ in range(2):
        facts = terminal.run("demo", "-o", "json").json
        assert all(facts["checks"].values())
        assert len(facts["checks"]) == 6
        assert facts["steps"] == facts["zones"] + 2
        assert facts["recorded_at_kill"] >= facts["zones"] // 2
        assert facts["recorded_at_kill"] < facts["steps"]
        assert facts["recorded_run_again"] == 0
        assert facts["bodies"] == facts["steps"] + facts["in_flight_run_again"]
        assert facts["seconds"] < 30
    report = Path(facts["report"])
    assert report == Path("outlast-demo/report.md")
    text = (terminal.directory / report).read_text(encoding="utf-8")
    assert text.startswith("# The next clock changes of the world")
    assert "- Europe/Berlin: " in text


def test_the_demo_tells_its_story(terminal: Terminal) -> None:
    done = terminal.run("demo", "--directory", "elsewhere")
    assert done.code == 0
    assert "kill -9" in done.out
    assert "steps already done" in done.out
    assert "0 of them ran again" in done.out
    assert "elsewhere/report.md" in done.out
    assert "docs/quickstart.md" in done.out
    assert "✗" not in done.out
    shown = terminal.here("show", "last", "--store", "elsewhere/demo.db")
    assert "✓ succeeded" in shown.out


def test_nothing_of_somebody_else_is_removed(terminal: Terminal) -> None:
    mine = terminal.directory / "outlast-demo" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("keep me")
    assert terminal.run("demo", "-o", "json").code == 0
    assert mine.read_text() == "keep me"


def test_a_demo_beside_a_running_one_is_refused(terminal: Terminal) -> None:
    (terminal.directory / "outlast-demo").mkdir()
    worker = terminal.spawn("worker", "tasks.py", "--store", "outlast-demo/demo.db")
    worker.line_with("serving")
    done = terminal.run("demo", "-o", "json")
    assert (done.code, done.error["code"]) == (5, "store_owned")


def test_the_report() -> None:
    at = datetime(2027, 3, 28, 1, tzinfo=UTC)
    text = report_on(at, [Change("A/B", at, 3600, 7200), Change("C/D", None, -12600, -12600)])
    assert "1 of 2 zones change their clocks" in text
    assert "| 2027-03-28 01:00 | +1 h | 1 | A/B |" in text
    assert "- A/B: 2027-03-28 01:00:00 UTC, from UTC+01:00 to UTC+02:00" in text
    assert "- C/D: stays at UTC-03:30" in text
