"""How long executions are kept after they have ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from outlast.duration import Duration, microseconds
from outlast.errors import UsageError

DEFAULT: Final = "30d"
"""How long an execution is kept after its end, where nobody says otherwise."""
_ENDS: Final = ("succeeded", "failed", "timed_out", "cancelled")


class Retention:
    """How long an execution is kept after its end, by the state it ended in; None is for ever.

    Args:
        keep: for every state that is not named.
        succeeded, failed, timed_out, cancelled: for this one.

    Raises:
        UsageError: one of them is no duration.
    """

    def __init__(
        self,
        keep: Duration | None = DEFAULT,
        *,
        succeeded: Duration | object | None = ...,
        failed: Duration | object | None = ...,
        timed_out: Duration | object | None = ...,
        cancelled: Duration | object | None = ...,
    ) -> None:
        given = dict(zip(_ENDS, (succeeded, failed, timed_out, cancelled), strict=True))
        spans = {state: keep if span is ... else span for state, span in given.items()}
        self._us: Mapping[str, int | None] = {
            state: None if span is None else microseconds(span)  # type: ignore[arg-type]
            for state, span in spans.items()
        }

    def kept_us(self, state: str) -> int | None:
        """Give how long one that ended in this state is kept, in microseconds; None: for ever."""
        return self._us[state]

    @property
    def shortest_us(self) -> int | None:
        """The shortest of them, in microseconds; None when everything is kept."""
        return min((us for us in self._us.values() if us is not None), default=None)


def retention_of(given: Duration | Retention | None) -> Retention:
    """Read what ``retention=`` takes: a duration for all states, a :class:`Retention`, or None.

    Raises:
        UsageError: it is none of them.
    """
    if isinstance(given, Retention):
        return given
    if isinstance(given, bool):
        raise UsageError(f"{given} is no retention", do='retention="30d", or None to keep all')
    return Retention(given)


__all__ = ["DEFAULT", "Retention", "retention_of"]
