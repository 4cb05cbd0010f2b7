"""Play the demo: run the task in a child process, kill it half-way, run it again, and check.

Every number that is told is measured in this very run: from the log in the database, and from the
ledger to which each step's body adds a line of its own, outside of Outlast.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from outlast.demo.tasks import LEDGER, REPORT
from outlast.engine.guest import Guest
from outlast.errors import InternalError, StoreOwned, UsageError
from outlast.lifecycle import FINAL, Kind, State, Transition
from outlast.store import owner_of
from outlast.store.protocol import Filter

DATABASE: Final = "demo.db"
PATIENCE_SECONDS: Final = 60.0
_OURS: Final = (
    REPORT,
    LEDGER,
    DATABASE,
    f"{DATABASE}-wal",
    f"{DATABASE}-shm",
    f"{DATABASE}.owner",
    "report.draft",
    "first.log",
    "second.log",
)
Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(slots=True)
class Facts:
    """What was measured.

    Attributes:
        zones: how many zones the package has.
        recorded: the steps that were recorded when the first process was killed.
        begun: the steps whose bodies had begun until then, by key.
        runs: how often each step's body began, in all.
        steps: how often each step's outcome is in the log.
        repeated: recorded steps whose bodies ran again.
        checks: what was checked, and whether it holds.
        seconds: how long all took.
    """

    zones: int = 0
    recorded: set[str] = field(default_factory=set)
    begun: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    repeated: list[str] = field(default_factory=list)
    checks: dict[str, bool] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def in_flight(self) -> list[str]:
        """The steps under way at the kill: begun, and not recorded."""
        return sorted(self.begun.keys() - self.recorded)

    @property
    def ran_again(self) -> list[str]:
        """The steps whose bodies began more than once."""
        return sorted(key for key, count in self.runs.items() if count > 1)

    @property
    def all_hold(self) -> bool:
        """Whether every check holds."""
        return bool(self.checks) and all(self.checks.values())


class Director:
    """Plays the demo in a directory."""

    def __init__(
        self, directory: Path, say: Say, step: Say, progress: Callable[[int, int], None]
    ) -> None:
        self.directory = directory
        self.facts = Facts()
        self._say, self._step, self._progress = say, step, progress
        self._url = f"sqlite:///{directory / DATABASE}"
        self._began = time.monotonic()
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def report(self) -> Path:
        """Where the report is."""
        return self.directory / REPORT

    def play(self) -> Facts:
        """Play it; gives what was measured.

        Raises:
            StoreOwned: another demo runs in this directory.
            InternalError: a process of it did not do what it should.
        """
        self._clear()
        self.facts.zones = _zones_of_package()
        try:
            with self._started("first.log") as guest:
                id = self._first(guest)
            with self._started("second.log") as guest:
                self._second(guest, id)
                self._measure(guest, id)
        finally:
            if self._child is not None and self._child.poll() is None:
                self._child.kill()
                self._child.wait()
        self._verify()
        self.facts.seconds = time.monotonic() - self._began
        return self.facts

    def _clear(self) -> None:
        """Begin afresh: only files that a demo makes are taken away."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                "the demo cannot make its directory",
                where=str(self.directory),
                why=error.strerror or str(error),
                do="name one that you may write in: outlast demo --directory DIR",
            ) from None
        if (self.directory / DATABASE).exists():
            owner = owner_of(self._url)
            if owner is not None:
                raise StoreOwned(
                    "another demo is running here",
                    where=str(self.directory),
                    why=owner,
                    do="let it end, or give another --directory",
                )
        for name in _OURS:
            (self.directory / name).unlink(missing_ok=True)

    # The two processes

    def _started(self, log: str) -> Guest:
        """Run the task in a process of its own; gives its store, opened beside it."""
        words = [
            "run",
            "outlast.demo:clock_changes",
            str(self.directory),
            "--store",
            str(self.directory / DATABASE),
        ]
        self._say(f"$ outlast {' '.join(words)}")
        guest = Guest(
            self._url, make=True
        )  # before its engine comes: making takes the owner's lock
        with open(self.directory / log, "wb") as file:
            self._child = subprocess.Popen(
                _outlast(words), stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        return guest

    def _first(self, guest: Guest) -> str:
        """Watch the first process, and kill it when half of the zones are recorded."""
        assert self._child is not None
        half = self.facts.zones // 2
        id = self._wait(
            lambda: guest.find("last") if guest.store.page(Filter(limit=1)) else None, "first.log"
        )
        done = 0
        for rows in guest.follow(id, poll_seconds=0.001):
            done += sum(row.kind is Kind.STEP for row in rows)
            if rows:
                self._progress(done, self.facts.zones)
            if done >= half:
                self._child.send_signal(signal.SIGKILL)
                break
            self._check_alive("first.log")
        code = self._child.wait()
        if code != -signal.SIGKILL:
            raise InternalError(
                f"the first process ended by itself, with {code}",
                where=str(self.directory / "first.log"),
            )
        log = guest.log(id)
        self.facts.recorded = {str(row.key) for row in log if row.kind is Kind.STEP}
        self.facts.begun = self._ledger()
        self._step(
            f"kill -9 {self._child.pid}, with {len(self.facts.recorded)} steps recorded and "
            f"{len(self.facts.in_flight)} under way"
        )
        return id

    def _second(self, guest: Guest, id: str) -> None:
        """Watch the second process: the same command, to the question and to the end."""
        assert self._child is not None
        said = self._wait(self._continuing, "second.log")
        self._step(said)
        done = len(self.facts.recorded)
        asked = False
        for rows in guest.follow(id, guest.record(id).seq, poll_seconds=0.002):
            done += sum(row.kind is Kind.STEP for row in rows)
            if rows:
                self._progress(min(done, self.facts.zones), self.facts.zones)
            if rows and rows[-1].to_state is State.AWAITING_INPUT and not asked:
                asked = True
                self._answer(guest, id)
            if not rows:
                self._check_alive("second.log")
        if not asked and guest.record(id).state not in FINAL:
            raise InternalError("nothing was asked", where=id)
        if self._child.wait(PATIENCE_SECONDS) != 0:
            raise InternalError(
                "the second process failed", where=str(self.directory / "second.log")
            )

    def _answer(self, guest: Guest, id: str) -> None:
        """Answer the question as somebody else would: from another process."""
        title = guest.question(id).title
        self._step(f'it asks: "{title}"')
        self._say("    the demo answers that itself, from a second process:")
        words = ["answer", id, "yes", "--store", str(self.directory / DATABASE)]
        self._say(f"$ outlast {' '.join(words)}")
        done = subprocess.run(
            _outlast(words), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode != 0:
            raise InternalError("the answer was refused", why=done.stderr.decode(errors="replace"))

    def _continuing(self) -> str | None:
        """Find what the second process says of itself."""
        text = (self.directory / "second.log").read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.startswith("continuing ")]
        return f'it says: "{lines[0]}"' if lines else None

    def _wait(self, look: Callable[[], T | None], log: str) -> T:
        """Look until there is something to see."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while True:
            seen = look()
            if seen is not None:
                return seen
            self._check_alive(log)
            if time.monotonic() > give_up_at:
                raise InternalError("nothing happened", where=str(self.directory / log))
            time.sleep(0.002)

    def _check_alive(self, log: str) -> None:
        assert self._child is not None
        if self._child.poll() not in (None, 0):
            tail = (self.directory / log).read_text(encoding="utf-8", errors="replace")[-500:]
            raise InternalError(
                f"a process of the demo ended with {self._child.returncode}",
                where=str(self.directory / log),
                why=tail,
            )

    # What came of it

    def _ledger(self) -> Counter[str]:
        """Count how often each step's body has begun."""
        text = (self.directory / LEDGER).read_text(encoding="utf-8")
        return Counter(json.loads(line)["step"] for line in text.splitlines())

    def _measure(self, guest: Guest, id: str) -> None:
        """Compare the ledger with the log."""
        facts = self.facts
        log: Sequence[Transition] = guest.log(id)
        facts.runs = self._ledger()
        facts.steps = Counter(str(row.key) for row in log if row.kind is Kind.STEP)
        facts.repeated = sorted(
            key for key in facts.recorded if facts.runs[key] != facts.begun[key]
        )
        listed = (
            sum(
                line.startswith("- ")
                for line in self.report.read_text(encoding="utf-8").splitlines()
            )
            if self.report.exists()
            else 0
        )
        facts.checks = {
            "the execution succeeded": guest.record(id).state is State.SUCCEEDED,
            "no step that was recorded ran again": not facts.repeated,
            "every step is recorded exactly once": len(facts.steps) == facts.zones + 2
            and set(facts.steps.values()) == {1},
            "only steps under way at the kill ran twice": set(facts.ran_again)
            <= set(facts.in_flight),
            f"the report has all {facts.zones} zones": listed == facts.zones,
        }

    def _verify(self) -> None:
        """Let the database be checked by the command that everybody has."""
        words = ["db", "verify", "--store", str(self.directory / DATABASE)]
        self._say(f"$ outlast {' '.join(words)}")
        done = subprocess.run(
            _outlast(words), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        self._step(
            done.stdout.decode(errors="replace").strip().removeprefix("✓ ")
            or "it could not be checked"
        )
        self.facts.checks["the database is sound, and every log folds to its row"] = (
            done.returncode == 0
        )


def _zones_of_package() -> int:
    from importlib.resources import files

    return len(files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())


def _outlast(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "outlast.cli", *words]
