"""A bad network for tests that have no event loop: the proxy of the campaigns, in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Self, TypeVar

from campaigns.proxy import Cut, Phase, Place, Proxy

T = TypeVar("T")
LONG = 100.0


class Network:
    """Stands before a server; everything may be called from the test's own thread."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.proxy = Proxy("127.0.0.1", port)
        asyncio.run_coroutine_threadsafe(self.proxy.open(), self._loop).result(LONG)

    def url(self, direct: str) -> str:
        return self.proxy.url(direct)

    def do(self, act: Callable[[], T]) -> T:
        """Call something on the proxy's loop."""

        async def there() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(there(), self._loop).result(LONG)

    def cut(self, to_server: bool, kind: str, phase: Phase, skips: int = 0) -> Callable[[], Cut]:
        """Arm a cut; what it gives waits until it is made."""
        made = self.do(lambda: self.proxy.arm(Cut(Place(to_server, kind, phase), skips)))

        async def come() -> Cut:
            async with asyncio.timeout(LONG):
                return await made

        return lambda: asyncio.run_coroutine_threadsafe(come(), self._loop).result(LONG)

    def delay(self, seconds: float) -> None:
        def set_it() -> None:
            self.proxy.delay_s = seconds

        self.do(set_it)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.proxy.close(), self._loop).result(LONG)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LONG)
        self._loop.close()
