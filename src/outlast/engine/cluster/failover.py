"""What an engine does when its store has gone back in time: drop all, come back, say what is lost.

Theory of operation. The store says so once, before it takes anything more of this process
(:class:`outlast.errors.StoreFailedOver`): by then every lease has ended, and no fence of before is
good. What the engine has in memory rests on a history that may be lost, so it is dropped, and the
engine comes back as a new incarnation, as after a commit that failed.

Before that, what it knows to be acknowledged is written down: how far the log of each execution
that ran here was durable, which ones have ended here, were started or were sent something from
here, as far as that is not long ago. Once it is back, it looks for all of that, and says what is
not there: in the log of the process, and in the store. That is at least what was lost: others may
know of more, and whoever has ended meanwhile says nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from outlast.errors import OutlastError, StoreFailedOver
from outlast.lifecycle import Execution, Transition
from outlast.store.epoch import EpochLoss
from outlast.store.protocol import Answer, Create, CreateMany, Deliver, Store, Write

if TYPE_CHECKING:
    from outlast.engine.engine import Engine

RECALLED_MAX: Final = 4_000
"""Starts, and as many messages, that were acknowledged last and are looked for."""
EXAMPLES_MAX: Final = 10
AGAIN_SECONDS: Final = 0.5
"""How long after a failure it looks, or tells, again."""
AT_ONCE: Final = 500
TAIL: Final = 200
"""Rows of a log's end that are read first."""
CLOCKS_US: Final = 60_000_000
"""By how much the clock of whoever deletes may be ahead."""
_log: Final = logging.getLogger("outlast.engine")


class Known(Struct, frozen=True):
    """How far an execution's log was acknowledged.

    Attributes:
        seq: the last row.
        nonce: of the lease it was written under; None for a row that no owner wrote.
        at: its instant; None where it is not known.
        due_at: from when on it may be gone as it was deleted; None: it runs, or is kept for ever.
    """

    seq: int
    nonce: bytes | None = None
    at: int | None = None
    due_at: int | None = None


class Recall:
    """What was acknowledged to this process last, beside the rows of executions that run here.

    Attributes:
        keep: is called when a commit has failed, before those who sent it hear of that.
        births: the executions: their ids and tasks, and since when they were there.
        messages: for whom, by which id, and when.
    """

    def __init__(self, keep: Callable[[], None]) -> None:
        self.keep = keep
        self.births: deque[tuple[str, str, int]] = deque(maxlen=RECALLED_MAX)
        self.messages: deque[tuple[str, str, int]] = deque(maxlen=RECALLED_MAX)

    def take(self, batch: Iterable[tuple[Any, Any]], answers: Sequence[Answer]) -> None:
        """Hear what became of a batch."""
        for (item, _), answer in zip(batch, answers, strict=True):
            kind = type(item)
            if answer.refused == "already_exists" and answer.execution is not None:
                self._born(answer.execution)  # it was there, and is acknowledged now
            if kind is Write or answer.refused is not None:
                continue
            if kind is Create:
                self._born(item.after)
            elif kind is CreateMany:
                task = str((item.birth.data or {})["task"])
                self.births.extend((id, task, item.at) for id in item.ids)
            elif kind is Deliver:  # also what was there already, and is acknowledged now
                self.messages.append((item.execution_id, item.message.id, item.now))

    def _born(self, record: Execution) -> None:
        self.births.append((record.id, record.task, record.created_at))


class Failover:
    """One engine's part in it; all methods are for its loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pending: list[tuple[int, str, dict[str, Known], set[tuple[str, str, int]]]] = []
        self._dropped: dict[str, Known] = {}
        self.recall = Recall(self._keep)
        engine.journal.recall = self.recall

    def dropping(self, error: OutlastError | None) -> None:
        """Keep how far executions are durable that run here, as they are about to be dropped.

        A lease may be found gone before anybody says that it went with the history it was in.
        """
        self._keep()
        if isinstance(error, StoreFailedOver):
            self._noticed(error)

    def _keep(self) -> None:
        for driver in self._engine.worker.drivers.values():
            owner = driver.owner
            held = owner.before_park or owner.record
            self._dropped[held.id] = Known(owner.durable, held.nonce)

    def _noticed(self, error: StoreFailedOver) -> None:
        """Write down all that was acknowledged."""
        engine, rules = self._engine, self._engine.rules
        known = {
            id: Known(1, due_at=rules.due_at(task, None, at)) for id, task, at in self.recall.births
        }
        for record, row in engine.recent.values():
            due_at = rules.due_at(record.task, record.state, row.at)
            known[record.id] = Known(row.seq, row.nonce, row.at, due_at)
        known |= self._dropped
        self._pending.append((error.epoch, engine.name, known, set(self.recall.messages)))
        _log.warning(
            "store_failed_over: %s; everything in memory is dropped (%d executions ran here), "
            "and read again",
            error,
            len(self._dropped),
        )
        engine.recent.clear()
        self.recall.births.clear()
        self.recall.messages.clear()
        self._dropped.clear()

    async def account(self) -> None:
        """Look for what was acknowledged, and say what of it is lost."""
        engine = self._engine
        membership = engine.fleet.membership if engine.fleet is not None else None
        if membership is not None and membership.name == engine.name:
            self._dropped.clear()  # it has joined since: the history is the one that is known
        while self._pending and engine.is_open:
            pending = self._pending[0]
            epoch, worker, known, messages = pending
            try:
                loss = await engine.worker.read(
                    lambda: missed(
                        engine.store,
                        EpochLoss(epoch, worker, engine.clock.now()),  # noqa: B023
                        known,  # noqa: B023
                        messages,  # noqa: B023
                        engine.rules.shortest_us,
                    )
                )
                await engine.journal.call(lambda: engine.store.epochs.report(loss))  # noqa: B023
            except OutlastError:
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            if pending in self._pending:  # else somebody else has just come back, too
                self._pending.remove(pending)
                tell(loss)


def tell(loss: EpochLoss) -> None:
    """Say what was lost, for people."""
    if not loss.is_any:
        _log.warning(
            "store_failed_over: of %d executions that %s knew, nothing acknowledged is lost",
            loss.known,
            loss.worker,
        )
        return
    _log.error(
        "store_failed_over: acknowledged and lost, of %d executions that %s knew: "
        "%d executions, at least %d rows of the logs of %d others, %d messages; as %s. "
        "Their steps run again; what has no key has to be started again: outlast db check",
        loss.known,
        loss.worker,
        loss.missing,
        loss.rows_lost,
        loss.behind,
        loss.messages,
        ", ".join(loss.examples),
    )


def missed(
    store: Store,
    loss: EpochLoss,
    known: Mapping[str, Known],
    messages: Iterable[tuple[str, str, int]],
    kept_us: int | None = None,
) -> EpochLoss:
    """Look for what was acknowledged; gives the loss with its counts.

    What is not there, and may have been deleted as it has ended long ago, is not told as lost.
    ``kept_us`` is how long anything is kept at least after its end; None: for ever.
    """
    sent: dict[str, dict[str, int]] = {}
    for id, message, at in messages:
        sent.setdefault(id, {})[message] = at
    ids = sorted(known.keys() | sent.keys())
    records: dict[str, Execution] = {}
    for start in range(0, len(ids), AT_ONCE):
        for record in store.get(ids[start : start + AT_ONCE]):
            if record is not None:
                records[record.id] = record
    missing = [
        id for id in sorted(known) if id not in records and not _is_past(known[id].due_at, loss.at)
    ]
    short = {
        id: lost
        for id in sorted(known.keys() & records.keys())
        if (lost := _rows_lost(store, records[id], known[id]))
    }
    if kept_us is not None:  # to one that is gone: it had not ended by then, if it was deleted
        sent = {
            id: {name: at for name, at in names.items() if not _is_past(at + kept_us, loss.at)}
            if id not in records
            else names
            for id, names in sent.items()
        }
    unsent = {
        id: len(names.keys() - {entry.message.id for entry in store.inbox(id)})
        for id, names in sent.items()
    }
    forgetful = [id for id, count in unsent.items() if count]
    examples = list(dict.fromkeys([*missing, *sorted(short), *sorted(forgetful)]))
    return EpochLoss(
        loss.epoch,
        loss.worker,
        loss.at,
        len(known),
        len(missing),
        len(short),
        sum(short.values()),
        sum(unsent.values()),
        tuple(examples[:EXAMPLES_MAX]),
    )


def _is_past(at: int | None, now: int) -> bool:
    return at is not None and at <= now + CLOCKS_US


def _rows_lost(store: Store, record: Execution, known: Known) -> int:
    """Count the rows that were acknowledged and are not in the log, at least."""
    if known.seq <= 1:
        return 0  # it is there
    if record.is_final and record.seq == known.seq and known.at in (None, record.updated_at):
        return 0
    after = max(0, known.seq - TAIL)
    kept = _kept(store.log(record.id, after, TAIL), known)
    if kept is None and after:
        kept = _kept(store.log(record.id, 0, after), known)
    if kept is None:
        return max(1, known.seq - record.seq)  # not even its lease is there
    return known.seq - kept


def _kept(rows: Sequence[Transition], known: Known) -> int | None:
    """Give the last row that was written under the lease, or is the row itself."""
    found = [
        row.seq
        for row in rows
        if row.seq <= known.seq
        and row.nonce == known.nonce
        and (known.nonce is not None or (row.seq == known.seq and row.at == known.at))
    ]
    return max(found, default=None)


__all__ = ["Failover", "Known", "Recall", "missed", "tell"]
