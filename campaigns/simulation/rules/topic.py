"""What a topic of rules is: a book of its own, and what it hears.

To add rules, name them in ``names``, write one class in a module of its own deriving from
:class:`Topic`, and list it in ``topics``. It hears what it overrides, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from outlast.lifecycle import Transition

if TYPE_CHECKING:
    from campaigns.simulation.rules.auditor import Auditor
    from campaigns.simulation.rules.seen import Seen
    from campaigns.simulation.world.clockwork import Process


class Topic:
    """Rules that belong together."""

    def __init__(self, auditor: Auditor) -> None:
        self.auditor = auditor

    def called(self, process: Process, verb: str, args: tuple[Any, ...], result: Any) -> None:
        """Hear of a call of the store that writes, before its rows are looked at."""

    def body(self, process: Process, seen: Seen, key: str, attempt: int) -> None:
        """Hear that a body starts, by who has the lease."""

    def row(self, seen: Seen, row: Transition) -> None:
        """Hear of a row of a log; ``seen`` is what was known before it."""

    def wrote(self, fresh: Sequence[Transition]) -> None:
        """Hear that a write has added rows, once all of them are known."""

    def at_rest(self, now: int) -> None:
        """All has settled, and nothing fails any more; some may be open still."""

    def at_end(self) -> None:
        """Everything has ended: compare all."""
