"""What is deleted: what has ended and was kept long enough, all of it, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from campaigns.simulation.rules.topic import Topic

if TYPE_CHECKING:
    from campaigns.simulation.rules.auditor import Auditor
    from campaigns.simulation.rules.seen import Seen
    from campaigns.simulation.world.clockwork import Process

RULE: Final = "purges"


class Purges(Topic):
    """Knows what was deleted; the others go on to know what it was."""

    def __init__(self, auditor: Auditor) -> None:
        super().__init__(auditor)
        self.kept_us: int | None = None

    def gone(self, process: Process, verb: str, args: tuple[Any, ...], seen: Seen) -> None:
        """Hear that an execution is not there any more."""
        auditor, id = self.auditor, seen.record.id
        asked = verb == "purge" and id in args[0]
        auditor.check("INV-2 append-only", asked, id, "is gone by", verb)
        auditor.check(RULE, seen.record.is_final, id, "was deleted in", seen.record.state)
        ended_at, now = seen.rows[-1].at, process.now()
        due = self.kept_us is not None and ended_at + self.kept_us <= now
        auditor.check(RULE, due, id, "ended at", ended_at, "and was deleted at", now)
        reader = auditor.reader
        left = [*reader.log(id), *reader.inbox(id), *reader.streams(id)]
        auditor.check(RULE, not left, id, "has left", left[:1])
        auditor.counts["purged"] += 1
        seen.is_purged = True

    def pruned(self, at: int) -> None:
        """Hear that all has been deleted that was due at an instant."""
        for seen in self.auditor.seen.values():
            if seen.record.is_final and not seen.is_purged:
                due_at = seen.rows[-1].at + (self.kept_us or 0)
                self.auditor.check(RULE, due_at > at, seen.record.id, "was due at", due_at, at)
