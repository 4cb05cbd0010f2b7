"""Epochs: which history of a store this is, and what was lost where another one went on.

Theory of operation. A store can go back in time: a standby is promoted that lacks what the primary
acknowledged last, or a backup is restored. Then fences that were given out are given out again,
owners are ahead of their logs, and nobody is told. So a store knows whose history it has (a
*sight*: what the backend can see of itself, see ``Database.sight``) and keeps what it saw. When it
sees something else, it begins an *epoch*, in one transaction, before anything else is written:

- a row with a number, a name by chance and a *floor*. Every later claim of what was there has a
  fence that is not below it: the instant in microseconds, and fences are counted by ones, so none
  that anybody has ever had is as high;
- every lease ends, and every worker is lost. Whoever lived through it comes back under another
  name and reads everything again;
- the audit says so.

What was lost the store cannot know. Those who lived through it know some of it: what they were told
is durable. They say what of that they did not find (:class:`EpochLoss`): at least so much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from outlast.access.audit import Deed

STEP: Final = 1 << 32
"""A floor is at least so far above the last one, whatever the clock says."""


class Epoch(Struct, frozen=True):
    """One history of a store.

    Attributes:
        number: from 1; 0 is the first history, which nobody had to begin.
        id: drawn by chance, so that two that began apart from the same past are told apart.
        cause: ``promoted``, ``restored`` or ``declared``.
        began_at: when it was noticed.
        floor: no claim has a fence below it.
        executions, workers: whose leases ended by it.
        detail: what was seen before and what is seen now.
    """

    number: int = 0
    id: str = ""
    cause: str = ""
    began_at: int = 0
    floor: int = 0
    executions: int = 0
    workers: int = 0
    detail: Mapping[str, Any] = {}


class EpochLoss(Struct, frozen=True):
    """What one worker knew to be acknowledged when an epoch began, and did not find.

    Attributes:
        epoch: the number.
        worker: who says so, by the name it had then.
        at: when it had looked.
        known: how many executions it knew something of.
        missing: executions that are not there at all.
        behind: executions whose log ends before what was acknowledged.
        rows_lost: rows of logs that were acknowledged and are not there, at least.
        messages: messages that were acknowledged and are not there.
        examples: some of the executions.
    """

    epoch: int
    worker: str
    at: int
    known: int = 0
    missing: int = 0
    behind: int = 0
    rows_lost: int = 0
    messages: int = 0
    examples: Sequence[str] = ()

    @property
    def is_any(self) -> bool:
        """Whether anything was lost."""
        return bool(self.missing or self.behind or self.messages)


class Keeping(Struct, frozen=True):
    """What of what is acknowledged can be lost, as the store is set up now.

    Attributes:
        loses: in what case, and what; one sentence.
        do: what would change that; "" where nothing has to.
        settings: what that rests on, by name.
        sight: by what the store knows its history, by name; None for what it may not ask for.
    """

    loses: str
    do: str = ""
    settings: Mapping[str, Any] = {}
    sight: Mapping[str, Any] = {}


class Epochs(Protocol):
    """The verbs on epochs. Every verb is one transaction."""

    def current(self) -> Epoch:
        """Give the epoch that holds; number 0 where none was ever begun."""

    def history(self, limit: int = 100) -> list[Epoch]:
        """List the epochs, the newest first."""

    def begin(
        self, cause: str, detail: Mapping[str, Any], now: int, deed: Deed | None = None
    ) -> Epoch:
        """Begin an epoch: end every lease, lose every worker, raise the floor of fences."""

    def report(self, loss: EpochLoss) -> None:
        """Note what a worker did not find; a second word of the same one changes nothing."""

    def losses(self, epoch: int) -> list[EpochLoss]:
        """Give what was said to be lost when an epoch began."""

    def keeping(self) -> Keeping:
        """Say what of what is acknowledged can be lost."""


def floor_after(last: Epoch, now: int) -> int:
    """Give the floor of an epoch that begins now."""
    return max(now, last.floor + STEP)


__all__ = ["STEP", "Epoch", "EpochLoss", "Epochs", "Keeping", "floor_after"]
