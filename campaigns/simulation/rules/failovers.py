"""A store that went back in time: no lease of before is good, and what is lost is told honestly.

This book outlives histories: what the others know is put back to what the standby knew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from campaigns.simulation.rules.topic import Topic
from outlast.lifecycle import Kind, Transition
from outlast.store.epoch import Epoch, EpochLoss

if TYPE_CHECKING:
    from campaigns.simulation.rules.auditor import Auditor
    from campaigns.simulation.rules.seen import Seen
    from campaigns.simulation.world.clockwork import Process
    from campaigns.simulation.world.node import SimEngine


RULE: Final = "failover"
_CLOCKS_US: Final = 60_000_000
HONEST: Final = "losses"


@dataclass
class _Survivor:
    """What a process that lives through it must miss: at least so much.

    Attributes:
        executions, messages: and when each came.
        rows: that it knew to be durable, of logs of executions that it ran, by execution.
        names: by which names it may say so; None while it was told of nothing.
    """

    executions: dict[str, int]
    messages: dict[tuple[str, str], int]
    rows: dict[str, int]
    names: list[str] | None = None


@dataclass
class _Loss:
    """What one failover has lost."""

    executions: set[str]
    rows: Counter[str]
    messages: int
    survivors: dict[Process, _Survivor]


class Failovers(Topic):
    """Knows what each history had, and compares the next one with it."""

    def __init__(self, auditor: Auditor) -> None:
        super().__init__(auditor)
        self._starts: dict[Process, set[str]] = {}
        self._messages: dict[Process, set[tuple[str, str]]] = {}
        self._floor = 0
        self._floored: set[str] = set()
        self._highest: dict[str, int] = {}
        self._losses: list[_Loss] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Failovers:
        return self

    def started(self, by: Process, id: str) -> None:
        """Hear that a process has acknowledged a start."""
        self._starts.setdefault(by, set()).add(id)

    def accepted(self, by: Process, id: str, message_id: str) -> None:
        """Hear that a process has acknowledged a message."""
        self._messages.setdefault(by, set()).add((id, message_id))

    def promoted(self, before: Auditor, now: Auditor, engines: Iterable[SimEngine]) -> None:
        """See what is lost: what the last history had, and this one has not."""
        self.auditor = now
        old, new = before.seen, now.seen
        gone = old.keys() - new.keys()
        rows = {id: len(old[id].rows) - len(seen.rows) for id, seen in new.items()}
        still = _sent(new)
        unsent = {one: at for one, at in _sent(old).items() if one not in still}
        survivors = {}
        for engine in engines:
            one = survivors[engine.process] = _Survivor(
                {id: _born(old[id]) for id in self._starts.get(engine.process, set()) & gone},
                {
                    one: unsent[one]
                    for one in self._messages.get(engine.process, set()) & set(unsent)
                },
                {},
            )
            for driver in engine.worker.drivers.values():
                id, durable = driver.record.id, driver.owner.durable
                if id in gone:
                    one.executions[id] = _born(old[id])
                elif durable > len(new[id].rows):
                    one.rows[id] = durable - len(new[id].rows)
        self._losses.append(_Loss(set(gone), Counter(rows), len(unsent), survivors))
        self._starts, self._messages, self._floored = {}, {}, set(new)
        now.counts["failover_executions"] += len(gone)
        now.counts["failover_rows"] += sum(rows.values())
        if now.leases is not None:
            now.leases.until.clear()

    def begun(self, epoch: Epoch) -> None:
        """Hear of the epoch: every lease has ended."""
        self._floor = epoch.floor
        for record in map(self.auditor.record_of, sorted(self._floored)):
            self.auditor.check(RULE, not record.is_leased, record.id, "has a lease of before")

    def told(self, process: Process, names: list[str]) -> None:
        """Hear that a process knows of the last failover; it may say so by any of its names."""
        survivor = self._losses[-1].survivors.get(process)
        if survivor is not None:
            survivor.names = names

    def row(self, seen: Seen, row: Transition) -> None:
        """No lease has a fence that any lease of any history had."""
        if row.kind is not Kind.CLAIM:
            return
        id, highest = row.execution_id, self._highest.get(row.execution_id, 0)
        least = self._floor if id in self._floored else 0
        holds = row.fence > highest and row.fence >= least
        self.auditor.check(RULE, holds, id, "is claimed with", row.fence, "after", highest, least)
        self._highest[id] = row.fence

    def at_end(self) -> None:
        """See that whoever lived through it has said what is lost: no less, and no more."""
        for number, loss in enumerate(self._losses, 1):
            said = {one.worker: one for one in self.auditor.reader.epochs.losses(number)}
            for one in said.values():
                most = (len(loss.executions), loss.rows.total(), loss.messages)
                self.auditor.check(
                    HONEST,
                    one.missing <= most[0] and one.rows_lost <= most[1] and one.messages <= most[2],
                    one, "is more than", most,
                )  # fmt: skip
            if number < len(self._losses):
                continue  # what was said of an earlier one may be lost with it
            for process, survivor in loss.survivors.items():
                if not process.is_dead and survivor.names is not None:
                    self._is_honest(process.number, survivor, [said.get(n) for n in survivor.names])

    def _is_honest(self, number: int, survivor: _Survivor, reports: list[EpochLoss | None]) -> None:
        """See that a process that lives says no less than it must."""
        told = next((one for one in reports if one is not None), None)
        self.auditor.check(HONEST, told is not None, "process", number, "says nothing", survivor)
        assert told is not None
        self.auditor.counts["losses_told"] += told.is_any
        holds = (
            told.missing >= self._count(survivor.executions, told.at)
            and told.behind >= len(survivor.rows)
            and told.rows_lost >= len(survivor.rows)  # what has come since may hide the others
            and told.messages >= self._count(survivor.messages, told.at)
        )
        self.auditor.check(HONEST, holds, "process", number, "says", told, "and knew of", survivor)

    def _count(self, came: dict[Any, int], now: int) -> int:
        """Count those that cannot have been deleted by now, whose ever clock says so."""
        kept_us = self.auditor.purges.kept_us
        return sum(kept_us is None or at + kept_us > now + _CLOCKS_US for at in came.values())


def _born(seen: Seen) -> int:
    return seen.record.created_at


def _sent(seen: dict[str, Seen]) -> dict[tuple[str, str], int]:
    return {(id, one.message.id): one.at for id, known in seen.items() for one in known.inbox}
