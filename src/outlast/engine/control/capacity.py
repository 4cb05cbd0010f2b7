"""What people do with queues and limits: :class:`Office` on a store, two services on an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from outlast.duration import Duration
from outlast.engine.control.asking import Asking
from outlast.engine.write.acting import deed
from outlast.errors import NotFound, UsageError
from outlast.lifecycle.gate import RATE
from outlast.naming import checked_name, checked_text
from outlast.store.protocol import GateRow, QueueRow, QueueSetting, Setting, Store

if TYPE_CHECKING:
    from outlast.engine.engine import Engine

CAPACITY_MAX = 2**31


def names_of(names: Iterable[str], what: str) -> frozenset[str]:
    """Give names as a set.

    Raises:
        UsageError: one is no name, or a single text was given.
    """
    if isinstance(names, str):
        raise UsageError(f"{what} names are several", do=f'write ("{names}",)')
    return frozenset(checked_name(name, what) for name in names)


class Office:
    """The queues and limits of a store, for one thread; a guest and an engine share it.

    Args:
        store: the open store.
        now: gives the time.
    """

    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._capacity, self._now = store.capacity, now

    def queues(self) -> list[QueueRow]:
        """List the queues that have a rule, or open executions that wait or run, by name."""
        return self._capacity.queues()

    def pause(self, queue: str, why: str | None = None, *, actor: str = "user") -> QueueSetting:
        """Let nothing be claimed from a queue; what runs goes on. Again changes nothing."""
        checked_name(actor, "sender")
        if why is not None:
            checked_text(why, "reason")
        setting = self._queue(queue)
        if setting.paused_at is None:
            setting = replace(setting, paused_at=self._now(), paused_by=actor, why=why)
            self._capacity.set_queue(setting, deed())
        return setting

    def resume(self, queue: str) -> QueueSetting:
        """Let a paused queue go on. Again changes nothing."""
        setting = replace(self._queue(queue), paused_at=None, paused_by=None, why=None)
        self._capacity.set_queue(setting, deed())
        return setting

    def limit_queue(self, queue: str, capacity: int | None) -> QueueSetting:
        """Let at most so many executions of a queue run at once; None for any number."""
        setting = replace(self._queue(queue), capacity=_checked(capacity))
        self._capacity.set_queue(setting, deed())
        return setting

    def _queue(self, name: str) -> QueueSetting:
        return self._capacity.queue(checked_name(name, "queue"))

    def gates(self) -> list[GateRow]:
        """List the limits, rates and capabilities that are set, held or waited at, by name."""
        return self._capacity.gates()

    def set_limit(self, name: str, capacity: int, *, actor: str = "user") -> Setting:
        """Set how many may hold a limit, or each limit of a family, whatever its task says."""
        checked = _checked(capacity)
        assert checked is not None
        if checked_name(name, "limit").startswith(RATE):
            raise UsageError(f"{name} is a rate", do=f"outlast limit set {name} 100/1m")
        return self._set(Setting(name, checked, None, checked_name(actor, "sender"), self._now()))

    def set_rate(
        self, name: str, count: int, period: Duration, *, burst: int = 1, actor: str = "user"
    ) -> Setting:
        """Set a rate, or each rate of a family, whatever its task says."""
        from outlast.engine.task.gate import Rate

        rate = Rate(count, period, burst=burst)
        name = checked_name(name, "rate")
        name = name if name.startswith(RATE) else RATE + name
        by = checked_name(actor, "sender")
        return self._set(Setting(name, rate.burst, rate.interval_us, by, self._now()))

    def _set(self, setting: Setting) -> Setting:
        self._capacity.set_gate(setting, deed())
        return setting

    def reset(self, name: str) -> None:
        """Take back what was set for a limit or rate: what its task says counts again.

        Raises:
            NotFound: nothing was set.
        """
        if not self._capacity.reset_gate(checked_name(name, "limit"), deed()):
            raise NotFound(f"nothing is set for {name}", do="outlast limit ls")


def _checked(capacity: int | None) -> int | None:
    if capacity is None or (type(capacity) is int and 0 <= capacity <= CAPACITY_MAX):
        return capacity
    raise UsageError(f"{capacity!r} is no whole number from 0 on")


class _Manager(Asking[Office]):
    """Has the engine look at its gates again after each change."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, Office)

    def _changed(self, done: Any) -> None:
        self._engine.look()


class Queues(_Manager):
    """The queues of an engine's store. Every method has an async twin, with an ``a`` before it.

    What is set lasts: it is in the store, and counts from the next claim on.
    """

    async def alist(self) -> list[QueueRow]:
        """List the queues that have a rule, or open executions that wait or run, by name."""
        return await self._read(lambda office: office.queues())

    def list(self) -> list[QueueRow]:
        """List the queues, as :meth:`alist`."""
        return self._engine.run(self.alist())

    async def apause(
        self, queue: str, why: str | None = None, *, actor: str = "user"
    ) -> QueueSetting:
        """Let nothing be claimed from a queue; what runs goes on, and no execution changes."""
        return await self._change(lambda office: office.pause(queue, why, actor=actor))

    def pause(self, queue: str, why: str | None = None, *, actor: str = "user") -> QueueSetting:
        """Pause a queue, as :meth:`apause`."""
        return self._engine.run(self.apause(queue, why, actor=actor))

    async def aresume(self, queue: str) -> QueueSetting:
        """Let a paused queue go on."""
        return await self._change(lambda office: office.resume(queue))

    def resume(self, queue: str) -> QueueSetting:
        """Let a paused queue go on, as :meth:`aresume`."""
        return self._engine.run(self.aresume(queue))

    async def alimit(self, queue: str, capacity: int | None) -> QueueSetting:
        """Let at most so many executions of a queue run at once; None for any number."""
        return await self._change(lambda office: office.limit_queue(queue, capacity))

    def limit(self, queue: str, capacity: int | None) -> QueueSetting:
        """Limit a queue, as :meth:`alimit`."""
        return self._engine.run(self.alimit(queue, capacity))


class Limits(_Manager):
    """The limits and rates of an engine's store. Every method has an async twin, with an ``a``.

    A name is that of a limit (``fulfil:ada``), or of its family (``fulfil``), which counts for all
    of them where none is set for the name itself. Rates are ``rate:…``. Whoever is inside already
    stays inside.
    """

    async def alist(self) -> list[GateRow]:
        """List what is set, held or waited at: limits, rates and capabilities, by name."""
        return await self._read(lambda office: office.gates())

    def list(self) -> list[GateRow]:
        """List the limits, as :meth:`alist`."""
        return self._engine.run(self.alist())

    async def aset(self, name: str, capacity: int, *, actor: str = "user") -> Setting:
        """Set how many may hold a limit, whatever its task says."""
        return await self._change(lambda office: office.set_limit(name, capacity, actor=actor))

    def set(self, name: str, capacity: int, *, actor: str = "user") -> Setting:
        """Set a limit, as :meth:`aset`."""
        return self._engine.run(self.aset(name, capacity, actor=actor))

    async def aset_rate(
        self, name: str, count: int, period: Duration, *, burst: int = 1, actor: str = "user"
    ) -> Setting:
        """Set a rate, whatever its task says."""
        return await self._change(
            lambda office: office.set_rate(name, count, period, burst=burst, actor=actor)
        )

    def set_rate(
        self, name: str, count: int, period: Duration, *, burst: int = 1, actor: str = "user"
    ) -> Setting:
        """Set a rate, as :meth:`aset_rate`."""
        return self._engine.run(self.aset_rate(name, count, period, burst=burst, actor=actor))

    async def areset(self, name: str) -> None:
        """Take back what was set: what the task says counts again.

        Raises:
            NotFound: nothing was set.
        """
        await self._change(lambda office: office.reset(name))

    def reset(self, name: str) -> None:
        """Take back what was set, as :meth:`areset`."""
        self._engine.run(self.areset(name))


__all__ = ["Limits", "Office", "Queues", "names_of"]
