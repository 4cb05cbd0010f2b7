"""How an engine's managers (schedules, queues, limits, webhooks) ask the office behind them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from outlast.errors import StoreUnavailable
from outlast.store.protocol import Store

if TYPE_CHECKING:
    from outlast.engine.engine import Engine

T = TypeVar("T")
OfficeT = TypeVar("OfficeT")
OfficeT_co = TypeVar("OfficeT_co", covariant=True)


class Opens(Protocol[OfficeT_co]):
    """Makes an office on a store, for one thread."""

    def __call__(self, store: Store, now: Callable[[], int]) -> OfficeT_co: ...


class Asking(Generic[OfficeT]):
    """Asks an office on an engine's threads: reads beside its writes, changes in turn with them.

    Args:
        engine: the engine; one on a thread of its own is asked from any thread.
        opens: makes the office.
    """

    def __init__(self, engine: Engine, opens: Opens[OfficeT]) -> None:
        self._engine = engine
        self._opens = opens

    async def _read(self, call: Callable[[OfficeT], T]) -> T:
        engine = self._engine
        return await engine.request(lambda: engine.worker.read(lambda: call(self._office())))

    async def _change(self, call: Callable[[OfficeT], T]) -> T:
        return await self._engine.request(partial(self._apply, call))

    async def _apply(self, call: Callable[[OfficeT], T]) -> T:
        engine = self._engine
        try:
            done = await engine.journal.call(lambda: call(self._office()))
        except StoreUnavailable:
            engine.doubt()  # it may have been done
            raise
        self._changed(done)
        return done

    def _changed(self, done: Any) -> None:
        """Have the engine look at what a change lets go on."""

    def _office(self) -> OfficeT:
        return self._opens(self._engine.store, self._engine.clock.now)


__all__ = ["Asking"]
