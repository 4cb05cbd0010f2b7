"""What those who use the engines need of their world."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from outlast.lifecycle import Message

if TYPE_CHECKING:
    from campaigns.simulation.actors.clients import Client
    from campaigns.simulation.rules.auditor import Auditor
    from campaigns.simulation.world.clockwork import Process
    from campaigns.simulation.world.node import SimEngine


class Market(Protocol):
    """What clients need of their world."""

    dice: Random
    auditor: Auditor
    reader: Any
    answering: Process | None

    def later(self, delay_us: int, what: Callable[[], None]) -> None:
        """Do something later."""

    def ask(
        self,
        make: Callable[[SimEngine], Coroutine[Any, Any, Any]],
        heard: Callable[[Any, BaseException | None], None],
        lost: Callable[[], None],
    ) -> None:
        """Ask some worker; either it is heard, or it was lost."""

    def deliver_as_guest(self, id: str, message: Message) -> str | None:
        """Write a message from a process beside the engines; gives the refusal."""

    def note(self, *said: object) -> None:
        """Put something into the trace."""

    def count(self, name: str) -> None:
        """Count something."""

    def id_of(self, number: int) -> str | None:
        """Give the execution that is known to be that of an order."""

    def cares(self, client: Client, id: str) -> None:
        """Hear which execution a client has started."""
