"""What was told: an acknowledgement is kept, and what was refused has left no trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from campaigns.simulation.rules.topic import Topic
from outlast.lifecycle import Execution, MessageKind, Transition

if TYPE_CHECKING:
    from campaigns.simulation.rules.auditor import Auditor


class Promises(Topic):
    """A book of all that clients were told."""

    def __init__(self, auditor: Auditor) -> None:
        super().__init__(auditor)
        self._starts: dict[str, str | None] = {}
        self._acked: dict[tuple[str, str], MessageKind] = {}
        self._refused: set[tuple[str, str]] = set()

    def started(self, id: str, key: str | None) -> None:
        """A start was acknowledged."""
        self._starts[id] = key
        seen = self.auditor.seen.get(id)
        self.auditor.check(
            "INV-9 acknowledged", seen is not None and seen.record.key == key, "start", id, key
        )

    def accepted(self, id: str, message_id: str, kind: MessageKind) -> None:
        """A message was acknowledged."""
        seen = self.auditor.seen[id]
        if kind is MessageKind.PAUSE and message_id not in seen.sent:
            return  # it was paused already
        self._acked[id, message_id] = kind
        self.auditor.check(
            "INV-9 acknowledged", self._has_come(id, message_id), kind, message_id, "of", id
        )

    def _has_come(self, id: str, message_id: str) -> bool:
        """Tell whether a message is there: with its receiver, or as whom that went on."""
        seen, chain = self.auditor.seen, self.auditor.chains.of(id)
        return any(message_id in seen[one].sent for one in chain)

    def refused(self, id: str, message_id: str) -> None:
        """A message was refused."""
        seen = self.auditor.seen.get(id)
        if seen is not None and seen.is_purged:
            return  # it may have taken it the first time
        self._refused.add((id, message_id))
        self.auditor.check("INV-9 acknowledged", seen is None or message_id not in seen.sent,
                   message_id, "of", id, "was refused, and is there")  # fmt: skip

    def ended(self, record: Execution, row: Transition) -> None:
        """Somebody was told how an execution has ended."""
        seen = self.auditor.seen[record.id]
        self.auditor.check("INV-9 acknowledged", seen.record.is_final and seen.rows[-1] == row,
                   "the end of", record.id, "was told as", row.kind)  # fmt: skip

    def at_end(self) -> None:
        """See that all of it is so still."""
        check, seen = self.auditor.check, self.auditor.seen
        for id, key in self._starts.items():
            check("INV-9 acknowledged", id in seen, "start", id, key)
        for (id, message_id), kind in self._acked.items():
            check("INV-9 acknowledged", self._has_come(id, message_id), kind, message_id, id)
        for id, message_id in self._refused:
            if id in seen:
                check("INV-9 acknowledged", message_id not in seen[id].sent, message_id, id)
