"""The store as a process reaches it: calls fail, come late, or are the last thing their caller did.

At each verb the dice choose between: nothing; an error before anything was applied; an error after
all of it was (to the caller both are ``unknown``); a long wait for the answer; SIGSTOP before or
after; SIGKILL before or after. Whatever was applied is shown to the auditor at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from random import Random
from typing import Any, Final, Protocol

from campaigns.simulation.world.clockwork import Died, Process
from outlast.errors import OutlastError, StoreBusy, StoreFull, StoreUnavailable


class Fault(StrEnum):
    """What can go wrong at a call of the store."""

    FAILS = "fails"
    UNKNOWN = "unknown"
    DELAY = "delay"
    FREEZE_BEFORE = "freeze_before"
    FREEZE_AFTER = "freeze_after"
    CRASH_BEFORE = "crash_before"
    CRASH_AFTER = "crash_after"


READS: Final = frozenset(
    {"get", "log", "logs", "inbox", "unread", "page", "counts", "find", "with_key", "workers",
     "verify", "ended", "changed", "close", "url", "backup", "descents", "asking", "dependents",
     "stream", "streams", "progress", "budgets", "budget_events", "spending", "reservations",
     "expired", "schedules.get", "schedules.page", "schedules.due", "schedules.log",
     "schedules.fate", "capacity.queues", "capacity.queue", "capacity.gates", "capacity.standing",
     "capacity.defects", "feed.head", "feed.read"}
)  # fmt: skip
_NEVER_FAILS: Final = frozenset({"hear", "changed", "close", "url", "hints", "hurry"})
_PARTS: Final = ("schedules", "capacity", "feed")
_ERRORS: Final = (StoreUnavailable, StoreUnavailable, StoreBusy, StoreFull)


@dataclass(frozen=True, slots=True)
class Weather:
    """How often which fault comes, at one call in so many; 0: never.

    Attributes:
        fails, unknown, delay, freeze, crash: at calls that write.
        reads: how often a call that reads fails, or comes late.
        kills: seconds of virtual time between two kills at any callback.
        freezes: the same for two freezes.
        stops: the same for two graceful stops.
        slander: the chance that a process which only froze is taken for dead.
    """

    name: str
    fails: int = 0
    unknown: int = 0
    delay: int = 0
    freeze: int = 0
    crash: int = 0
    reads: int = 0
    kills: float = 0.0
    freezes: float = 0.0
    stops: float = 0.0
    slander: float = 0.0


class Ears(Protocol):
    """Who hears what happens at the disk."""

    counts: Counter[str]

    def note(self, *said: object) -> None:
        """Put something into the trace."""

    def applied(self, process: Process, verb: str, args: tuple[Any, ...], result: Any) -> None:
        """See what a call of the store has done."""

    def crash(self, process: Process, why: str) -> None:
        """Kill a process."""

    def froze(self, process: Process, span_us: int) -> None:
        """Hear that a process was stopped."""

    def trouble(self, process: Process, span_us: int = 0) -> None:
        """Hear that something has gone wrong with a process, and goes on for so long."""

    def look(self, process: Process) -> None:
        """Let a process see whose history the store has, before it writes."""


class Disk:
    """One process's way to the store; it has all verbs of the store's protocol.

    Attributes:
        is_calm: whether nothing goes wrong any more.
    """

    def __init__(
        self, process: Process, store: Any, weather: Weather, dice: Random, ears: Ears
    ) -> None:
        self._process = process
        self._store = store
        self._weather = weather
        self._dice = dice
        self._ears = ears
        self.url = str(store.url)
        self._made: list[str] = []
        self.is_calm = weather == CALM

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        plain = getattr(self._store, verb)
        if verb in _PARTS:
            part: Any = Part(self, verb, plain)
            setattr(self, verb, part)
            self._made.append(verb)
            return part  # type: ignore[no-any-return]
        if not callable(plain) or verb in _NEVER_FAILS:
            return plain  # type: ignore[no-any-return]
        call = self.failing(verb, plain)
        setattr(self, verb, call)
        self._made.append(verb)
        return call

    def let_go(self) -> None:
        """Close the store, whatever the weather: its process is dead."""
        self._store.close()

    def lead_to(self, store: Any) -> None:
        """Lead to another store from now on."""
        self._store = store
        for verb in self._made:
            delattr(self, verb)
        self._made.clear()

    def failing(self, verb: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        """Give a verb of the store as the process reaches it."""
        if verb in READS:
            return lambda *args, **more: self._read(verb, partial(plain, **more), args)
        return lambda *args, **more: self._write(verb, partial(plain, **more), args)

    def changed(self) -> bool:
        """Whether somebody else has written; a process is told of that at once."""
        return True

    def _draw(self) -> Fault | None:
        if self.is_calm:
            return None
        weather, dice = self._weather, self._dice
        for fault, one_in in (
            (Fault.FAILS, weather.fails),
            (Fault.UNKNOWN, weather.unknown),
            (Fault.DELAY, weather.delay),
            (_either(dice, Fault.FREEZE_BEFORE, Fault.FREEZE_AFTER), weather.freeze),
            (_either(dice, Fault.CRASH_BEFORE, Fault.CRASH_AFTER), weather.crash),
        ):
            if one_in and dice.random() * one_in < 1:
                return fault
        return None

    def _write(self, verb: str, plain: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        fault = self._draw()
        ears, process = self._ears, self._process
        if fault is not None:
            ears.counts[fault] += 1
            ears.trouble(process)
            ears.note(process.number, verb, fault)
        if fault is Fault.CRASH_BEFORE:
            ears.crash(process, f"before {verb}")
            raise Died
        if fault is Fault.FREEZE_BEFORE:
            raise Frozen(self.freeze())
        if fault is Fault.FAILS:
            raise self._error(verb)
        if verb != "renew":  # which has a connection of its own
            ears.look(process)
        result = plain(*args)
        ears.applied(process, verb, args, result)
        if fault is Fault.CRASH_AFTER:
            ears.crash(process, f"after {verb}")
            raise Died
        if fault is Fault.UNKNOWN:
            raise self._error(verb, after=True)
        if fault is Fault.FREEZE_AFTER:
            self.freeze()
        if fault is Fault.DELAY and process.thread is not None:
            span = int(5_000_000 * self._dice.random() ** 3)
            ears.trouble(process, span)
            process.thread.tells.add(span, _nothing)
        return result

    def _read(self, verb: str, plain: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        reads = self._weather.reads
        if not self.is_calm and reads and self._dice.random() * reads < 1:
            self._ears.counts["read_fails"] += 1
            self._ears.trouble(self._process)
            self._ears.note(self._process.number, verb, "fails")
            raise self._error(verb)
        return plain(*args)

    def freeze(self) -> int:
        """Stop the process for a while; gives for how long."""
        span = int(60_000_000 * self._dice.random() ** 4) + 1_000
        self._process.freeze(span)
        self._ears.froze(self._process, span)
        return span

    def _error(self, verb: str, *, after: bool = False) -> OutlastError:
        kind = _ERRORS[int(self._dice.random() * len(_ERRORS))]
        if after and kind is StoreBusy:
            kind = StoreUnavailable  # a store that was busy has done nothing, by its word
        return kind(f"simulated: {verb} failed", do="nothing")


class Part:
    """A part of the store that has verbs of its own, as the process reaches it."""

    def __init__(self, disk: Disk, name: str, plain: Any) -> None:
        self._disk, self._name, self._plain = disk, name, plain

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        call = self._disk.failing(f"{self._name}.{verb}", getattr(self._plain, verb))
        setattr(self, verb, call)
        return call


class Frozen(BaseException):
    """The process was stopped just before a call; the call is made when it goes on."""

    def __init__(self, span_us: int) -> None:
        super().__init__(span_us)
        self.span_us = span_us


def _either(dice: Random, one: Fault, other: Fault) -> Fault:
    return one if dice.random() < 0.5 else other


def _nothing() -> None:
    """Take time."""


CALM: Final = Weather("calm")
WEATHERS: Final = (
    CALM,
    Weather("kills", kills=2.0),
    Weather("stops", stops=2.0, kills=10.0),
    Weather("crashes", crash=25),
    Weather("failing", fails=25, unknown=25, reads=40),
    Weather("murky", unknown=8),
    Weather("frozen", freeze=25, freezes=3.0, slander=0.7, delay=20),
    Weather("slander", freezes=2.0, slander=1.0, delay=10, freeze=60),
    Weather("storm", fails=60, unknown=60, delay=30, freeze=60, crash=60, reads=80, kills=5.0,
            freezes=5.0, stops=5.0, slander=0.6),
)  # fmt: skip
"""What can be the matter with a world."""
