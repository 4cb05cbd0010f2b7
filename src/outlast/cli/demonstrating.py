"""The command demo: tells what the director plays."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outlast.cli.exits import FAILED, OK
from outlast.cli.session import Session, is_interactive, shared
from outlast.errors import CannotLoad

if TYPE_CHECKING:
    from outlast.demo.director import Facts

REPORT_LINES = 10


@click.command()
@click.option(
    "--directory",
    default="outlast-demo",
    show_default=True,
    metavar="DIR",
    help="Where its database and report go; what an earlier demo left there is replaced.",
)
@shared
def demo(session: Session, directory: str) -> int:
    """See an execution survive kill -9, on real data, in seconds.

    It looks up the next clock change of every time zone of the tzdata package, one step a zone, is
    killed half-way, runs again, and is checked: no finished step was repeated.
    """
    from outlast.demo.director import Director

    version = _tzdata_version()
    if not session.as_json:
        session.out(
            session.paint("outlast demo", "bold")
            + ": the next clock change of every time zone in the world"
        )
        session.out(f"data: the files of the package tzdata {version}, one step a zone\n")
    teller = _Teller(session)
    director = Director(Path(directory), teller.say, teller.step, teller.progress)
    facts = director.play()
    if session.as_json:
        session.json(_form(facts, str(director.report)))
    else:
        _tell(session, facts, director.report)
    return OK if facts.all_hold else FAILED


def _tzdata_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tzdata")
    except PackageNotFoundError:
        raise CannotLoad(
            "the package tzdata is not installed",
            why="its files are what the demo works on",
            do="pip install tzdata",
        ) from None


class _Teller:
    """Tells the story as it goes on."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_live = is_interactive(sys.stdout) and not session.as_json
        self._shown = 0
        self._has_bar = False

    def say(self, text: str) -> None:
        """Tell a command."""
        if not self._session.as_json:
            self._end_bar()
            self._session.out(self._session.paint(text, "cyan" if text.startswith("$") else "dim"))

    def step(self, text: str) -> None:
        """Tell what happened."""
        if not self._session.as_json:
            self._end_bar()
            self._session.out(f"    {text}")

    def progress(self, done: int, total: int) -> None:
        """Show how far it is: a bar on a terminal, else nothing."""
        if not self._is_live:
            return
        width = 30
        full = min(width, done * width // max(1, total))
        sys.stdout.write(f"\r    {'█' * full}{'░' * (width - full)} {done}/{total} ")
        sys.stdout.flush()
        self._has_bar = True

    def _end_bar(self) -> None:
        if self._has_bar:
            sys.stdout.write("\n")
            self._has_bar = False


def _tell(session: Session, facts: Facts, report: Path) -> None:
    """Tell what was measured, and where to go from here."""
    session.out("")
    session.out(
        session.paint("what was measured", "bold")
        + " (the log beside the ledger of the step bodies)"
    )
    ran_again = len(set(facts.ran_again) & set(facts.in_flight))
    for number, said in (
        (len(facts.steps), f"steps recorded, by {sum(facts.runs.values())} runs of their bodies"),
        (len(facts.recorded), f"recorded before the kill: {len(facts.repeated)} of them ran again"),
        (
            len(facts.in_flight),
            f"under way at the kill: {ran_again} of them ran again, as they must",
        ),
    ):
        session.out(f"    {number:>5} {said}")
    for check, holds in facts.checks.items():
        mark = session.paint("✓", "green") if holds else session.paint("✗", "red")
        session.out(f"    {mark} {check}")
    if report.exists():
        session.out("")
        session.out(session.paint(str(report), "bold"))
        for line in report.read_text(encoding="utf-8").splitlines()[:REPORT_LINES]:
            session.out(f"    {line}")
    session.out("")
    session.out(f"all that in {facts.seconds:.1f} s. Look around:")
    store = f"--store {report.parent / 'demo.db'}"
    for command in ("show", "events"):
        session.out(f"    {program_name()} {command} last {store}")
    session.out("    docs/quickstart.md   your own first task, in five minutes")
    if not facts.all_hold:
        session.out(
            session.paint("a check failed: this is a bug of Outlast, please report it", "red")
        )


def program_name() -> str:
    """Write the name under which a shell here finds this program."""
    import shutil

    called = Path(sys.argv[0])
    found = shutil.which("outlast")
    if called.name != "outlast" or (found is not None and Path(found).samefile(called)):
        return "outlast"
    return str(called)


def _form(facts: Facts, report: str) -> dict[str, object]:
    return {
        "zones": facts.zones,
        "steps": len(facts.steps),
        "bodies": sum(facts.runs.values()),
        "recorded_at_kill": len(facts.recorded),
        "recorded_run_again": len(facts.repeated),
        "in_flight_at_kill": len(facts.in_flight),
        "in_flight_run_again": len(facts.ran_again),
        "checks": facts.checks,
        "seconds": round(facts.seconds, 2),
        "report": report,
    }
