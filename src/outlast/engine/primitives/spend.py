"""What code calls to spend: ``spend`` says what was spent, ``reserve`` sets something aside before.

Both may be called in task code and in the bodies of steps. In a body, what is spent is recorded
with its outcome. In task code it is a row of its own, known by its place like a step: a replay, and
another try of the task, meet it and count it once.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import msgspec

from outlast.budget import Amount, amounts_of
from outlast.codec import digest
from outlast.engine.task.current import current_scope, current_step
from outlast.engine.write.purse import ReserveCall
from outlast.errors import UsageError, WrongColour


def spend(**meters: Amount) -> None:
    """Say what was spent, as ``spend(usd=0.012, tokens=830)``; never refused.

    In a step's body it takes the place of what the step was said to cost on these meters; said
    again, it adds up. Outside an execution it does nothing.

    Raises:
        UsageError: an amount is negative or no number, or its name no meter.
    """
    amounts = amounts_of(meters, "spend")
    body = current_step.get()
    if body is not None:
        body.spend(amounts)
        return
    scope: Any = current_scope.get()
    if scope is not None:
        scope.note("spend", _digest(amounts), {"spent": amounts})


def reserve(**meters: Amount) -> Reserved:
    """Set amounts aside for a block, before they are spent.

    Write ``async with reserve(usd=0.50) as r: … r.settle(usd=0.31)``, or ``with`` in ``def`` code.
    In task code it waits until they fit: the execution is suspended as long as they do not. In a
    step's body it raises :class:`outlast.errors.OverBudget`; where the body lets that go, the
    execution is suspended, and the body runs again from its start when there is room.

    Left without a ``settle``, all of it counts as spent. What a killed body had set aside counts as
    spent as well.

    Raises:
        UsageError: an amount is negative or no number, or its name no meter.
    """
    return Reserved(amounts_of(meters, "reservation"))


class Reserved:
    """An amount that is set aside; see :func:`reserve`."""

    def __init__(self, amounts: Mapping[str, int]) -> None:
        self._amounts = dict(amounts)
        self._body: Any = None
        self._scope: Any = None
        self._key: str | None = None
        self._is_open = False

    def settle(self, **meters: Amount) -> None:
        """Say what was really spent; on meters that are not named, nothing. Only the first counts.

        Raises:
            UsageError: an amount is negative or no number, or the block is over.
        """
        self._settle(amounts_of(meters, "settlement") if meters else {})

    def _settle(self, amounts: Mapping[str, int]) -> None:
        if not self._is_open:
            raise UsageError("this reservation is settled already", do="use spend(…)")
        self._is_open = False
        if self._body is not None:
            self._body.settle(self._key, amounts)
        elif self._scope is not None:
            data: dict[str, object] = {"settles": self._key, "spent": dict(amounts)}
            self._scope.note(f"{self._key}/settle", _digest(amounts), data, whole=True)

    def __enter__(self) -> Self:
        self._body, self._scope = current_step.get(), current_scope.get()
        if self._body is not None:
            self._key = self._body.reserve_blocking(self._amounts)
        elif self._scope is not None:
            if self._scope.is_async:
                raise WrongColour(
                    "with reserve(…) in an async def task", do="async with reserve(…)"
                )
            amounts = self._amounts
            self._key = self._scope.call(
                "reserve", "reserve", _digest(amounts), ReserveCall(amounts)
            )
        self._is_open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_open:
            self._settle(self._amounts)

    async def __aenter__(self) -> Self:
        self._body, self._scope = current_step.get(), current_scope.get()
        if self._body is not None:
            self._key = await self._body.reserve(self._amounts)
        elif self._scope is not None:
            if not self._scope.is_async:
                raise WrongColour("async with reserve(…) in a def task", do="with reserve(…)")
            amounts = self._amounts
            self._key = await self._scope.call(
                "reserve", "reserve", _digest(amounts), ReserveCall(amounts)
            )
        self._is_open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)


def _digest(amounts: Mapping[str, int]) -> int:
    return digest(msgspec.json.encode(sorted(amounts.items())))


__all__ = ["Reserved", "reserve", "spend"]
