"""Limits: who holds which, from the rows of the executions alone."""

from __future__ import annotations

from collections.abc import Sequence

from campaigns.simulation.rules.topic import Topic
from outlast.lifecycle import State, Transition


class Limits(Topic):
    """No limit is held by more than it has places."""

    def wrote(self, fresh: Sequence[Transition]) -> None:
        """See who holds which limit."""
        auditor = self.auditor
        for task, places in (("sim_gated", 1), ("sim_held", 1)):
            mine = [seen.record for seen in auditor.seen.values() if seen.record.task == task]
            if not mine:
                continue
            kept = task == "sim_held"
            holders = [
                one.id
                for one in mine
                if one.is_leased or (kept and one.attempt and not one.is_final)
            ]
            auditor.counts["gated"] += bool(holders)
            auditor.counts["gated_waits"] += any(one.state is State.BLOCKED for one in mine)
            auditor.check("capacity", len(holders) <= places, task, "is held by", *holders)
