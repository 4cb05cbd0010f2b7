"""Who has which lease until when, from what the store was told and nothing else."""

from __future__ import annotations

from typing import Any, Final, Protocol

from campaigns.simulation.world.clockwork import Process

PROBE_US: Final = 2_000_000
"""How long after some trouble an engine may take to come back by another name."""


class Judge(Protocol):
    """Who applies rules."""

    def check(self, rule: str, holds: bool, *said: object) -> None:
        """Apply a rule."""


class Book:
    """Who has which lease until when, from what the store was told and nothing else.

    Attributes:
        until: by worker, in true time.
    """

    def __init__(self, judge: Judge, lease_us: int) -> None:
        self._judge = judge
        self._lease_us = lease_us
        self.until: dict[str, int] = {}
        self._of: dict[str, Process] = {}
        self._left: set[str] = set()
        self._troubled: dict[Process, list[tuple[int, int]]] = {}

    def applied(self, process: Process, verb: str, args: tuple[Any, ...], result: Any) -> None:
        """See what a call of the store has done to leases."""
        now = process.clockwork.now_us
        if verb == "register":
            row = args[0]
            if row.lease_us is not None and row.id not in self.until:
                self.until[row.id], self._of[row.id] = now + row.lease_us, process
        elif verb == "renew" and result is not None:
            self.until[args[0]] = now + args[1]
        elif verb == "leave" and args[0] in self.until:
            self.until[args[0]] = min(now, self.until[args[0]])
            self._left.add(args[0])

    def trouble(self, process: Process, span_us: int = 0) -> None:
        """Something has gone wrong with a process, and goes on for so long."""
        now = process.clockwork.now_us
        span = (now, max(now + span_us, process.frozen_until))
        self._troubled.setdefault(process, []).append(span)

    def taken(self, name: str | None, by: Process) -> None:
        """See that what a worker held is taken over now."""
        if name not in self.until:
            return
        now, of = by.clockwork.now_us, self._of[name]
        self._judge.check(
            "lease taken", self.until[name] <= now,
            name, "was taken over by", by.number, "before", self.until[name],
        )  # fmt: skip
        end = self.until[name]  # whoever takes it over may come much later
        begin = end - self._lease_us - PROBE_US
        self._judge.check(
            "lease kept",
            of.is_dead or name in self._left
            or any(a <= end and b >= begin for a, b in self._troubled.get(of, ())),
            name, "of process", of.number, "has run out at", end, "and nothing was wrong with it",
        )  # fmt: skip

    def began(self, process: Process, name: str) -> None:
        """See that a body starts in the loop of a process that goes by this name."""
        if process.thread is None and name in self.until:
            now = process.clockwork.now_us
            self._judge.check(
                "lease watched", now <= self.until[name],
                "a body started in process", process.number, "whose lease ended at",
                self.until[name],
            )  # fmt: skip
