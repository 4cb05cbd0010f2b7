"""Epochs in memory; such a store never goes back by itself."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from outlast.store.epoch import Epoch, EpochLoss, Keeping, floor_after

if TYPE_CHECKING:
    from outlast.access.audit import Deed
    from outlast.store.memory.store import MemoryStore


class MemoryEpochs:
    """The verbs on epochs; see :class:`outlast.store.epoch.Epochs`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._epochs: list[Epoch] = []
        self._losses: dict[tuple[int, str], EpochLoss] = {}

    def current(self) -> Epoch:
        """See the protocol."""
        return self._epochs[-1] if self._epochs else Epoch()

    def history(self, limit: int = 100) -> list[Epoch]:
        """See the protocol."""
        return self._epochs[::-1][:limit]

    def begin(
        self, cause: str, detail: Mapping[str, Any], now: int, deed: Deed | None = None
    ) -> Epoch:
        """See the protocol."""
        store, last = self._store, self.current()
        with store._lock:
            workers = store.members.end_all()
            executions = 0
            while some := store.recover(None, "", now, 1_000):
                executions += some
            store.feed.lose()  # its positions would be given to other rows
            floor, id = floor_after(last, now), secrets.token_hex(8)
            epoch = Epoch(last.number + 1, id, cause, now, floor, executions, workers, dict(detail))
            self._epochs.append(epoch)
            if deed is not None:
                facts = {"cause": cause, "floor": floor, "executions": executions}
                store.access.append([(deed, "store", facts)])
        return epoch

    def report(self, loss: EpochLoss) -> None:
        """See the protocol."""
        with self._store._lock:
            self._losses.setdefault((loss.epoch, loss.worker), loss)

    def losses(self, epoch: int) -> list[EpochLoss]:
        """See the protocol."""
        return [self._losses[key] for key in sorted(self._losses) if key[0] == epoch]

    def keeping(self) -> Keeping:
        """See the protocol."""
        return Keeping("everything, with this process: it is in memory")


__all__ = ["MemoryEpochs"]
