"""One file's campaign: some fifty lives on one database, from its making to its last result."""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from campaigns import points
from campaigns.audit import Audit, Violation
from campaigns.ledger import Reader
from campaigns.life import Plan, Start, Word
from campaigns.reading import Snapshot
from campaigns.zygote import Ending, When, read_file, run_life, when_of

LIVES_PER_FILE: Final = 50
OPEN_MAX: Final = 24
"""Executions that are open at once; more would only make each life's beginning longer."""
_TASKS: Final = (
    "program",
    "program",
    "program",
    "program",
    "program_def",
    "program_def",
    "restless",
    "cancelled",
)
_POINTS: Final = tuple(points.POINTS)


class Counts(msgspec.Struct):
    """What a campaign did, in numbers.

    Attributes:
        lives: processes that opened, or tried to open, an engine on a file.
        kills: those that a SIGKILL ended.
        kills_at_points: those of them that died at a named point.
        kills_in_flight: those of them that left at least one execution under a lease.
        bodies_cut: step bodies that had begun and had not ended when a kill came.
        stops: lives that ended by SIGTERM.
        fresh: lives that were fresh interpreters.
        acknowledged: starts, messages and results that the engine acknowledged.
        lost: acknowledged things that were not in the file afterwards.
        recorded: results of steps in the files' logs.
        repeated: step bodies that ran again though their result was recorded.
        bodies: step bodies that began.
        recovered: executions taken back from a dead process.
        lifted: executions whose crash loop was capped, and that were resumed.
        verified: runs of ``db verify``.
        grown: lives during which a checkpoint made the main file grow.
        points: deaths at each named point.
        checked: how often each rule was applied.
    """

    files: int = 0
    lives: int = 0
    kills: int = 0
    kills_at_points: int = 0
    kills_in_flight: int = 0
    bodies_cut: int = 0
    stops: int = 0
    fresh: int = 0
    executions: int = 0
    acknowledged: int = 0
    lost: int = 0
    recorded: int = 0
    repeated: int = 0
    bodies: int = 0
    recovered: int = 0
    lifted: int = 0
    verified: int = 0
    grown: int = 0
    points: dict[str, int] = {}
    checked: dict[str, int] = {}

    def add(self, other: Counts) -> None:
        """Add another campaign's numbers."""
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, dict):
                setattr(self, name, dict(Counter(mine) + Counter(theirs)))
            else:
                setattr(self, name, mine + theirs)

    def line(self) -> str:
        """Write the counts that matter most, in one line."""
        return (
            f"{self.lives} lives, {self.kills} kills ({self.kills_at_points} at named points, "
            f"{self.kills_in_flight} with work in flight, {self.bodies_cut} bodies cut short), "
            f"{self.stops} graceful stops, {self.acknowledged} acknowledged writes, "
            f"{self.lost} lost, {self.recorded} recorded steps, {self.repeated} repeated, "
            f"{self.verified} verify runs"
        )


@dataclass(slots=True)
class Options:
    """How a file's campaign goes.

    Attributes:
        lives: how many lives, before the one that brings everything to its end.
        ending: "mixed", or "kill" or "term": every life ends so.
        plant: a planted bug to put into every life.
        parent: where its directory is made; on a disk.
        keep: whether to keep the directory where a rule was broken.
        patience: seconds without a word after which a life that should end by itself hangs.
    """

    parent: Path
    lives: int = LIVES_PER_FILE
    ending: str = "mixed"
    plant: str | None = None
    keep: bool = False
    patience: float = 20.0


class Campaign:
    """Lives on one file; everything about it follows from its seed, but for the time."""

    def __init__(self, seed: int, options: Options) -> None:
        self.seed = seed
        self.options = options
        self.counts = Counts(files=1)
        self.audit = Audit()
        self._dice = random.Random(seed)
        self._orders = random.Random(f"orders {seed}")
        self._directory = Path(tempfile.mkdtemp(prefix=f"kill-{seed}-", dir=options.parent))
        self._path = self._directory / "outlast.db"
        self._reader = Reader(self._directory / "ledger")
        self._size = 0

    def run(self) -> dict[str, tuple[str, Any]]:
        """Do it all; gives how each execution ended, by its key.

        Raises:
            Violation: a rule is broken.
        """
        broken = True
        try:
            for life in range(1, self.options.lives + 1):
                self._live(life)
            outcomes = self._drain(self.options.lives + 1)
            broken = False
            return outcomes
        except Violation as violation:
            if violation.rule.startswith("acked"):
                self.counts.lost += 1
            elif violation.rule == "repeated":
                self.counts.repeated += 1
            raise
        finally:
            self._count()
            if not (broken and self.options.keep):
                shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def directory(self) -> Path:
        """Where its file and its ledger are."""
        return self._directory

    def _live(self, life: int) -> None:
        dice = self._dice
        plan = self._plan(life)
        fresh = life == 7
        when = when_of(dice, fresh=fresh)
        point = dice.choice(_POINTS)
        nth = dice.choice((1, 1, 1, 2, 3, 5, 8))
        to_term = dice.random() < (0.5 if point.startswith("stop.") else 0.1)
        if self.options.ending != "mixed":
            to_term = self.options.ending == "term"
        at_point = not fresh and dice.random() < 0.45
        if life == 1 and dice.random() < 0.6:  # the only life that makes the schema
            at_point, point, nth = True, dice.choice(_POINTS[:5]), dice.choice((1, 2, 3))
        if at_point and self.options.ending != "term":
            plan.point, plan.nth = point, nth
            when = When(0.05, by=signal.SIGTERM if point.startswith("stop.") else signal.SIGKILL)
        elif to_term:
            when = When(when.after, by=signal.SIGTERM, fresh=fresh)
        plan.known = self.audit.open()
        ending = run_life(plan, when, self.options.patience)
        self.counts.lives += 1
        self.counts.fresh += fresh
        self._after(life, ending, full=life % 50 == 0 or dice.random() < 0.02)

    def _plan(self, life: int) -> Plan:
        dice = self._dice
        plan = Plan(
            str(self._path),
            str(self._directory / "ledger"),
            life,
            dice.getrandbits(32),
            linger_us=dice.choice((500, 3_000, 200_000)),
            checkpoint_pages=dice.choice((8, 60, 4_000)),
            slots=dice.choice((3, 1_000, 1_000)),
            plant=self.options.plant,
        )
        plan.starts = self.audit.unacknowledged()
        room = OPEN_MAX - len(self.audit.open()) - len(plan.starts)
        for _ in range(min(room, dice.randint(1, 6))):
            number = len(self.audit.orders) + 1
            order = Start(f"k{number}", self._orders.choice(_TASKS), self._orders.getrandbits(30))
            self.audit.order(order)
            plan.starts.append(order)
        return plan

    def _after(self, life: int, ending: Ending, *, full: bool, drained: bool = False) -> None:
        """Check what a life has left."""
        starts, ends = self._reader.more()
        audit, counts = self.audit, self.counts
        audit.heard(ending.lines)
        snapshot = self._read(full=full)
        audit.look(life, snapshot, starts, full=full)
        if ending.hung and drained:
            audit.finish()
        if ending.hung:
            raise Violation("life_failed", f"life {life} did not end; it told {ending.lines[-3:]}")
        if ending.killed:
            counts.kills += 1
            counts.kills_in_flight += bool(snapshot.leased)
            counts.bodies_cut += sum(start.token not in ends for start in starts)
            for word, *parts in ending.lines:
                if word == Word.POINT:
                    counts.kills_at_points += 1
                    counts.points[parts[0]] = counts.points.get(parts[0], 0) + 1
        else:
            counts.stops += not drained
            audit.checked["graceful"] += 1
            if ending.code or snapshot.leased:
                raise Violation(
                    "graceful", f"life {life} ended with {ending.code} and kept {snapshot.leased}"
                )
        counts.verified += snapshot.verified is not None
        counts.grown += snapshot.size_bytes > self._size
        self._size = snapshot.size_bytes
        if self._dice.random() < 0.5:  # the next life must also find its way without the index
            (self._directory / "outlast.db-shm").unlink(missing_ok=True)

    def _read(self, *, full: bool) -> Snapshot:
        seqs = {id: seen.seq for id, seen in self.audit.seen.items()}
        inboxes = {id: seen.message_count for id, seen in self.audit.seen.items()}
        return read_file(self._path, seqs, inboxes, full=full)

    def _drain(self, life: int) -> dict[str, tuple[str, Any]]:
        """Bring everything to its end."""
        plan = self._plan(life)
        plan.drain, plan.known, plan.slots = True, self.audit.open(), 1_000
        ending = run_life(plan, When(None), self.options.patience)
        self.counts.lives += 1
        self._after(life, ending, full=True, drained=True)
        return self.audit.finish()

    def _count(self) -> None:
        audit, counts = self.audit, self.counts
        counts.executions = len(audit.seen)
        counts.acknowledged = audit.acknowledged
        counts.bodies = audit.bodies
        counts.lifted = audit.lifted
        counts.checked = dict(audit.checked)
        for seen in audit.seen.values():
            counts.recorded += len(seen.recorded) + len(seen.failed)
            counts.recovered += sum(row.kind == "worker_lost" for row in seen.rows)
