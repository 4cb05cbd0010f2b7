"""Births that are one item: all of them are there, each with its own input, or none is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from campaigns.simulation.rules.topic import Topic
from outlast.store.protocol import CreateMany

if TYPE_CHECKING:
    from campaigns.simulation.world.clockwork import Process

RULE: Final = "batches"


class Batches(Topic):
    """Looks at each item of many births just after its commit."""

    def called(self, process: Process, verb: str, args: tuple[Any, ...], result: Any) -> None:
        """Look at what a commit has brought into the world."""
        if verb != "commit":
            return
        for item, answer in zip(args[0], result, strict=True):
            if isinstance(item, CreateMany) and answer.refused != "already_exists":
                self._one(item, is_stored=answer.refused is None)

    def _one(self, item: CreateMany, *, is_stored: bool) -> None:
        auditor = self.auditor
        there = [record is not None for record in auditor.reader.get(item.ids)]
        wanted = len(item.ids) if is_stored else 0
        auditor.counts["batches"] += 1
        auditor.counts["batch_births"] += wanted
        auditor.check(RULE, sum(there) == wanted, sum(there), "are there of", len(item.ids))
        if is_stored:
            for id, payload in zip(item.ids, item.payloads, strict=True):
                (birth,) = auditor.reader.log(id)[:1]
                auditor.check(RULE, birth.payload == payload, id, birth.payload, payload)

    def started(self, ids: Sequence[str], inputs: Sequence[bytes]) -> None:
        """Hear that somebody was told of these births, in this order."""
        auditor = self.auditor
        auditor.check(RULE, len(ids) == len(inputs), len(ids), "were told of", len(inputs))
        for id, payload in zip(ids, inputs, strict=True):
            auditor.promises.started(id, None)
            found = auditor.seen[id].rows[0].payload
            auditor.check(RULE, found == payload, id, "was told as that of", payload, found)
