"""Code that changes under open executions: it fits what is recorded, or says that it does not.

The book has who wrote what with which version. Two versions that were made to fit never mismatch,
but where the older one comes to what the newer has marked; what an execution has decided about the
edit it keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from campaigns.simulation.rules.seen import Seen, name_of
from campaigns.simulation.rules.topic import Topic
from campaigns.simulation.tasks import edited
from outlast.lifecycle import Kind, State, Transition

if TYPE_CHECKING:
    from campaigns.simulation.rules.auditor import Auditor

RULE: Final = "code"


class Code(Topic):
    """Knows which versions have run each execution."""

    def __init__(self, auditor: Auditor) -> None:
        super().__init__(auditor)
        self._ran: dict[str, set[str]] = {}

    def row(self, seen: Seen, row: Transition) -> None:
        """See that nothing is told to mismatch that fits."""
        if seen.record.task != edited.NAME or seen.owner is None:
            return
        version, ran = seen.owner.code, self._ran.setdefault(row.execution_id, set())
        if row.kind is Kind.STEP:
            ran.add(version)
            others = name_of(row.key or "") == "sim_other"
            holds = not others or "bad" in ran or (version == "new" and is_marked(seen))
            self.auditor.check(RULE, holds, row.execution_id, "has the edit, by", version, ran)
        elif row.kind is Kind.SUSPEND and (row.data or {}).get("code") == "code_mismatch":
            self.auditor.counts[f"mismatches_{version}"] += 1
            fits = ran <= {"old", "new"} and (version == "new" or not is_marked(seen))
            holds = version == "bad" or not fits
            self.auditor.check(RULE, holds, row.execution_id, "mismatches", version, ran)
            self.auditor.check(RULE, ran != {version}, row.execution_id, "mismatches its own code")
        elif row.kind is Kind.ANNOTATION and "changed" in (row.data or {}):
            self.auditor.check(RULE, not is_marked(seen), row.execution_id, "is marked twice")

    def at_end(self) -> None:
        """See that who has the edit was marked, and who was not has it not."""
        for seen in self.auditor.seen.values():
            ran = self._ran.get(seen.record.id, set())
            if seen.record.task != edited.NAME or seen.record.state is not State.SUCCEEDED:
                continue
            self.auditor.counts["edited"] += len(ran) > 1
            has = any(
                row.kind is Kind.STEP and name_of(row.key or "") == "sim_other" for row in seen.rows
            )
            fits = "bad" in ran or has == is_marked(seen)
            self.auditor.check(RULE, fits, seen.record.id, "has it", has, "marked", not has)


def is_marked(seen: Seen) -> bool:
    """Tell whether an execution has been decided to have the edit."""
    return any((row.data or {}).get("changed") == edited.EDIT for row in seen.rows)
