"""Budgets: what they say is what the logs have charged, and what is priced never overruns them."""

from __future__ import annotations

from collections.abc import Sequence

from campaigns.simulation.rules.topic import Topic
from outlast.budget import charged_by
from outlast.lifecycle import Transition


class Money(Topic):
    """Adds the logs up again."""

    def wrote(self, fresh: Sequence[Transition]) -> None:
        """Look at the budgets of those that have moved."""
        auditor = self.auditor
        for id in dict.fromkeys(row.execution_id for row in fresh):
            seen = auditor.seen[id]
            if seen.record.task != "sim_bounded":
                continue
            for budget in auditor.reader.budgets([f"execution:{id}"]):
                charged = charged_by(seen.rows).get(budget.name, 0)
                is_so = budget.charged == charged
                auditor.check("money", is_so, budget.name, budget.charged, charged)
                over = budget.limit is not None and budget.spent + budget.reserved > budget.limit
                auditor.check("money", not over, budget)
