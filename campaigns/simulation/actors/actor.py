"""What an actor of the cast is."""

from __future__ import annotations


class Actor:
    """Somebody who uses the engines; made with a market, and dice of its own.

    It draws whether it is in this world, and puts into the world's agenda what it will do.
    """

    def finish(self) -> None:
        """Do what is left to be done when everything has ended."""
