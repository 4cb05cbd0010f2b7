"""The feed: who follows is told each row once, in the order of its log, and misses none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from campaigns.simulation.rules.seen import Seen
from campaigns.simulation.rules.topic import Topic
from outlast.lifecycle import Transition

if TYPE_CHECKING:
    from campaigns.simulation.rules.auditor import Auditor

RULE: Final = "feed"
_KEPT_US: Final = 86_000_000_000
"""For so long, and by what clocks may be wrong less, a cursor is good."""


class Feed(Topic):
    """All rows in the order of their commits, and how much of them a reader was told."""

    def __init__(self, auditor: Auditor) -> None:
        super().__init__(auditor)
        self._rows: list[tuple[str, int]] = []
        self._from: int | None = None
        self._told: dict[str, int] = {}
        self._may_have_gap = False
        self._looked_at = 0

    def row(self, seen: Seen, row: Transition) -> None:
        """Take in a row that was committed."""
        self._rows.append((row.execution_id, row.seq))

    def promoted(self) -> None:
        """Hear that the store went back in time: positions are given out anew."""
        self._may_have_gap, self._from = True, None

    def begun(self) -> None:
        """Hear that somebody follows from now on."""
        self._from, self._told, self._may_have_gap = len(self._rows), {}, False

    def gap(self, now: int) -> None:
        """Hear that a reader was told that it may have missed something."""
        may_have = self._may_have_gap or now - self._looked_at >= _KEPT_US
        self.auditor.check(RULE, may_have, "a reader was told of a gap")

    def told(self, events: Iterable[tuple[str, Transition | None]], now: int) -> None:
        """Hear what a reader was told."""
        auditor = self.auditor
        self._looked_at = now
        for id, row in events:  # none: it may have been cut short before it was refused
            is_good = not self._may_have_gap
            auditor.check(RULE, is_good, "a cursor of before a failover is good still")
            seen = auditor.seen[id]
            if row is None:
                auditor.check(RULE, seen.is_purged, id, "is said to be deleted")
                continue
            last, known = self._told.get(id, 0), seen.rows[row.seq - 1]
            auditor.check(RULE, row.seq > last, id, row.seq, "was told after", last)
            auditor.check(RULE, known.kind is row.kind, id, row.seq, "was told as", row.kind)
            self._told[id] = row.seq
            auditor.counts["feed_rows"] += 1
            is_next = not last or row.seq == last + 1
            auditor.check(RULE, is_next, id, row.seq, "was told just after", last)

    def at_end(self) -> None:
        """See that all that came since somebody follows was told."""
        if self._from is None:
            return
        for id, seq in self._rows[self._from :]:
            is_told = self._told.get(id, 0) >= seq or self.auditor.seen[id].is_purged
            self.auditor.check(RULE, is_told, id, seq, "was never told")
