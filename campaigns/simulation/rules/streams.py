"""Streams: nothing that was said is there twice, and nothing is lost on the way."""

from __future__ import annotations

import msgspec

from campaigns.simulation.rules.seen import Seen, name_of, seed_of
from campaigns.simulation.rules.topic import Topic
from campaigns.simulation.tasks.leaves import Says
from campaigns.simulation.tasks.programs import SORTS
from campaigns.simulation.tasks.steps import STREAM
from outlast.lifecycle import Kind, State


class Streams(Topic):
    """A stream has all that the code has said, in its order, and no more."""

    def at_end(self) -> None:
        """Read all that each execution has said."""
        for seen in self.auditor.seen.values():
            if not seen.is_purged:
                self._one(seen)

    def _one(self, seen: Seen) -> None:
        auditor, record, id = self.auditor, seen.record, seen.record.id
        items = auditor.reader.stream(id, STREAM)
        parts: dict[tuple[str, int, int], int] = {}
        for number, item in enumerate(items, 1):
            source = (item.step, item.attempt, item.lease if item.step else 0)
            auditor.check("streams", item.number == number, id, item.number, number)
            auditor.check("streams", item.part == parts.get(source, 0) + 1, id, source, item.part)
            parts[source] = item.part
        auditor.counts["said"] += len(items)
        said = [msgspec.json.decode(item.payload) for item in items]
        for row in seen.rows:
            if row.kind is Kind.STEP and row.payload and name_of(row.key or "") == "sim_talk":
                token = msgspec.json.decode(row.payload)
                words = [one for one in said if isinstance(one, list) and one[0] == token]
                count = words[0][2] if words else 1
                whole = [[token, number, count] for number in range(1, count + 1)]
                auditor.check("streams", words == whole, id, row.key, "said", words, "of", whole)
                auditor.counts["said_by_bodies"] += count
        if record.state is State.SUCCEEDED:
            program = SORTS[record.task].plan(seed_of(seen))
            wanted = sorted(one.number for one in program.walk() if isinstance(one, Says))
            last = [
                word
                for item, word in zip(items, said, strict=True)
                if not item.step and item.attempt == seen.tries + 1
            ]
            auditor.check("streams", sorted(last) == wanted, id, "said", last, "of", wanted)
