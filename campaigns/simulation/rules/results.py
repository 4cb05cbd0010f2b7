"""What executions come to: what their programs can come to, with tokens of their own."""

from __future__ import annotations

import msgspec

from campaigns.simulation.rules.seen import Seen, seed_of
from campaigns.simulation.rules.topic import Topic
from campaigns.simulation.tasks.programs import SORTS
from outlast.lifecycle import MessageKind, State
from outlast.lifecycle.record import continued_as

RULE = "results"


class Results(Topic):
    """Compares what everything came to with what its program can come to."""

    def at_end(self) -> None:
        """Look at each execution."""
        counts = self.auditor.counts
        for seen in self.auditor.seen.values():
            counts[f"ended_{seen.record.state}"] += 1
            counts["executions"] += 1
            counts["replays"] += max(0, seen.starts - 1)
            self._one(seen)

    def _one(self, seen: Seen) -> None:
        check, record, last = self.auditor.check, seen.record, seen.rows[-1]
        id, sort = record.id, SORTS[record.task]
        possible = set(sort.ends)
        if any(entry.message.kind is MessageKind.CANCEL for entry in seen.inbox):
            possible.add("cancelled")
        if record.deadline_at is not None:
            possible.add("timed_out")
        if (last.data or {}).get("by") == "upstream":
            possible.add("cancelled")  # which is judged by the rule of dependencies
        is_possible = str(record.state) in possible
        check(RULE, is_possible, id, record.state, possible, (last.data or {}).get("error"))
        if record.state is not State.SUCCEEDED or continued_as(record) is not None:
            return
        came = msgspec.json.decode(last.payload or b"{}")
        tokens = came["tokens"]
        check(RULE, came["total"] == sort.plan(seed_of(seen)).total(), id, came["total"])
        check(RULE, len(set(tokens)) == len(tokens), id, "learned twice", tokens)
        check(RULE, seen.tokens.issuperset(tokens), id, "learned what is not stored")
