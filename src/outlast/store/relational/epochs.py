"""Epochs in SQL: a look at whose history this is, for each connection that writes.

Theory of operation. ``sight`` keeps the last one of each tenant. :meth:`RelationalEpochs.look` is
called when a store is opened, and again for each new connection that writes, before its first
statement; so nothing is written into a history that nobody has looked at. Who finds another
one than is kept begins an epoch; of several at once the first does, under a lock, and the
others find it done. Who comes with what it knew of the last epoch is told by
:class:`outlast.errors.StoreFailedOver`, once: its transaction has not begun, and what it wanted to
write rests on a history that may be lost.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from outlast.errors import StoreFailedOver, StoreReadOnly
from outlast.store.epoch import Epoch, EpochLoss, Keeping, floor_after
from outlast.store.relational.database import Sight

if TYPE_CHECKING:
    from outlast.access.audit import Deed
    from outlast.store.relational.store import RelationalStore

AT_ONCE: Final = 1_000
"""Leases that are ended by one turn of statements; all turns are one transaction."""
_log: Final = logging.getLogger("outlast.store")


class RelationalEpochs:
    """The verbs on epochs; see :class:`outlast.store.epoch.Epochs`."""

    def __init__(self, store: RelationalStore) -> None:
        self._store = store
        self._known: Epoch | None = None

    # Looking

    def look(self, now: int | None = None) -> None:
        """See whether this is the history that it was; begin an epoch where it is another one.

        Raises:
            StoreFailedOver: it is another one than at the last look of this process.
        """
        now = time.time_ns() // 1_000 if now is None else now
        database = self._store.database
        try:
            with database.translated():
                epoch, is_new = database.transact(lambda: self._look(now))
            database.noted()
        except StoreReadOnly:
            epoch, is_new = self.current(), False  # who may not write can do no harm
        if is_new:
            _log.warning(
                "store_failed_over: %s %s: epoch %d began; %d leases of %d workers ended, "
                "fences go on at %d. What the last history had acknowledged and this one "
                "lacks is lost: outlast db check",
                self._store.url,
                _said(epoch),
                epoch.number,
                epoch.executions,
                epoch.workers,
                epoch.floor,
            )
        known, self._known = self._known, epoch
        if known is not None and known.id != epoch.id:
            raise StoreFailedOver(
                "the store has another history than a moment ago",
                where=self._store.url,
                why=_said(epoch),
                do="nothing: the engine comes back by itself; outlast db check says what was lost",
                epoch=epoch.number,
            )

    def _look(self, now: int) -> tuple[Epoch, bool]:
        database = self._store.database
        kept = self._kept()
        sight = database.sight(kept, now)
        if sight is None or (kept == sight.identity and sight.cause is None):
            return self._current(), False
        database.lock("epoch")
        if self._kept() != kept:  # somebody else was first
            kept = self._kept()
            sight = database.sight(kept, now)
            if sight is None or (kept == sight.identity and sight.cause is None):
                return self._current(), False
        identity = msgspec.json.encode(sight.identity)
        database.run("put_identity", {"value": identity})
        if sight.cause is None:
            return self._current(), False
        detail = {"before": kept, "now": sight.identity, "why": sight.why}
        return self._begin(sight.cause, detail, sight.now, _deed(sight)), True

    def _kept(self) -> dict[str, Any] | None:
        found = self._store.database.ask_all("identity", {})
        if not found:
            return None
        value = found[0][0]
        assert isinstance(value, bytes)
        kept: dict[str, Any] = msgspec.json.decode(value)
        return kept

    # The verbs

    def current(self) -> Epoch:
        """See the protocol."""
        found = self.history(1)
        return found[0] if found else Epoch()

    def history(self, limit: int = 100) -> list[Epoch]:
        """See the protocol."""
        return list(map(_epoch_of, self._store.database.read("epochs", {"limit": limit})))

    def _current(self) -> Epoch:
        """Read it inside the open transaction."""
        found = self._store.database.ask_all("epochs", {"limit": 1})
        return _epoch_of(found[0]) if found else Epoch()

    def floor(self) -> int:
        """Give what the fence of a claim is not below, inside the open transaction."""
        return self._current().floor

    def begin(
        self, cause: str, detail: Mapping[str, Any], now: int, deed: Deed | None = None
    ) -> Epoch:
        """See the protocol."""

        def act() -> Epoch:
            self._store.database.lock("epoch")
            return self._begin(cause, detail, now, deed)

        self._known = self._store.database.write(act)
        return self._known

    def _begin(self, cause: str, detail: Mapping[str, Any], now: int, deed: Deed | None) -> Epoch:
        store, last = self._store, self._current()
        workers = store.database.run("end_workers", {})
        executions = 0
        while some := store._recover(None, "", now, AT_ONCE):
            executions += some
        if store.database.run("lose_feed", {}):  # its positions are given out again
            store.database.run("empty_feed", {})
        floor = floor_after(last, now)
        id = secrets.token_hex(8)
        epoch = Epoch(last.number + 1, id, cause, now, floor, executions, workers, detail)
        store.database.run(
            "insert_epoch",
            {
                "number": epoch.number,
                "id": epoch.id,
                "cause": epoch.cause,
                "began_at": epoch.began_at,
                "floor": epoch.floor,
                "executions": epoch.executions,
                "workers": epoch.workers,
                "detail": msgspec.json.encode(epoch.detail).decode(),
            },
        )
        if deed is not None:
            facts = {"cause": cause, "floor": floor, "executions": executions}
            store.audit([(deed, "store", facts)])
        return epoch

    def report(self, loss: EpochLoss) -> None:
        """See the protocol."""
        database = self._store.database
        bounds: dict[str, Any] = msgspec.structs.asdict(loss)
        bounds["examples"] = msgspec.json.encode(list(loss.examples)).decode()
        database.write(lambda: database.run("insert_epoch_loss", bounds))

    def losses(self, epoch: int) -> list[EpochLoss]:
        """See the protocol."""
        return list(map(_loss_of, self._store.database.read("epoch_losses", {"epoch": epoch})))

    def keeping(self) -> Keeping:
        """See the protocol."""
        return self._store.database.keeping()


def _deed(sight: Sight) -> Deed:
    from outlast.access.audit import Deed

    return Deed("engine", "store", "store.failed_over", sight.now)


def _said(epoch: Epoch) -> str:
    return str(epoch.detail.get("why") or epoch.cause)


def _epoch_of(columns: Sequence[Any]) -> Epoch:
    number, id, cause, began_at, floor, executions, workers, detail = columns
    seen = msgspec.json.decode(detail)
    return Epoch(number, id, cause, began_at, floor, executions, workers, seen)


def _loss_of(columns: Sequence[Any]) -> EpochLoss:
    epoch, worker, at, known, missing, behind, rows_lost, messages, examples = columns
    ids = tuple(msgspec.json.decode(examples))
    return EpochLoss(epoch, worker, at, known, missing, behind, rows_lost, messages, ids)


__all__ = ["RelationalEpochs"]
