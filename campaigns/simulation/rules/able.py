"""Who may run what: code, version and capabilities, from a table of the checker's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from campaigns.simulation.rules.seen import Seen, name_of
from campaigns.simulation.rules.topic import Topic
from campaigns.simulation.tasks import pinned
from campaigns.simulation.tasks.small import NEED, apart, needy
from outlast.lifecycle import Kind, Transition

if TYPE_CHECKING:
    from campaigns.simulation.world.clockwork import Process

RULE: Final = "able"


class Able(Topic):
    """Nobody takes, or begins, what it lacks the code or a capability for."""

    def called(self, process: Process, verb: str, args: tuple[Any, ...], result: Any) -> None:
        """Look at who claims what."""
        if verb == "claim":
            for one in result or ():
                self._fits(process, one.execution.id, one.execution.task, one.birth)

    def row(self, seen: Seen, row: Transition) -> None:
        """Look at who begins, and at what code it has begun with."""
        if row.kind is Kind.START and seen.owner is not None:
            self._fits(seen.owner, seen.record.id, seen.record.task, seen.rows[0])
        elif row.kind is Kind.STEP and seen.record.task == pinned.NAME:
            version = str((seen.rows[0].data or {})["version"])
            is_own = name_of(row.key or "") == pinned.STEP_OF[version]
            self.auditor.check(RULE, is_own, seen.record.id, "of", version, "has run", row.key)

    def _fits(self, process: Process, id: str, task: str, birth: Transition) -> None:
        lacks = None
        if task == needy.name:
            self.auditor.counts["needy"] += 1
            lacks = None if NEED in process.offers else NEED
        elif task == apart.name:
            self.auditor.counts["apart"] += 1
            lacks = None if process.is_first else task
        elif task == pinned.NAME:
            version = str((birth.data or {})["version"])
            self.auditor.counts[f"pinned_{version}"] += 1
            lacks = None if version in pinned.KNOWN[process.code] else version
        said = (id, "is taken by process", process.number, "which lacks", lacks)
        self.auditor.check(RULE, lacks is None, *said)
