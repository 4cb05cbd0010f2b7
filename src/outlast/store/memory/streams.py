"""Streams and progress in memory."""

from __future__ import annotations

from collections.abc import Collection

from outlast.store.emitting import Ends, Parts, placed, try_of
from outlast.store.protocol import LOGS, ProgressRow, StreamHead, StreamItem, Write


class MemoryStreams:
    """The streams of all executions; for callers that hold the store's lock."""

    def __init__(self) -> None:
        self._items: dict[str, dict[str, list[StreamItem]]] = {}
        self._progress: dict[str, ProgressRow] = {}
        self._ends: Ends = {}
        self._parts: Parts = {}

    def take(self, item: Write) -> None:
        """Append what a write emits."""
        ends = {key: self._ends.get(key, 0) for key in ((item.id, one.name) for one in item.emits)}
        parts = {
            key: self._parts.get(key, 0) for key in (try_of(item.id, one) for one in item.emits)
        }
        for id, one in placed([(item.id, item.emits)], ends, parts):
            self._items.setdefault(id, {}).setdefault(one.name, []).append(one)
        self._ends |= ends  # not before nothing is missing
        self._parts |= parts
        if item.progress is not None:
            self._progress[item.id] = item.progress

    def read(self, id: str, name: str, after: int, limit: int) -> list[StreamItem]:
        """Read a stream from behind an item on."""
        items = self._items.get(id, {}).get(name, [])
        return items[after:] if limit < 0 else items[after : after + limit]

    def heads(self, id: str) -> list[StreamHead]:
        """Name the streams of an execution."""
        streams = sorted(self._items.get(id, {}).items())
        return [
            StreamHead(name, len(items), items[-1].at) for name, items in streams if name != LOGS
        ]

    def progress(self, ids: Collection[str]) -> dict[str, ProgressRow]:
        """Say how far these executions are."""
        return {id: self._progress[id] for id in ids if id in self._progress}

    def purge(self, id: str) -> None:
        """Forget an execution."""
        self._items.pop(id, None)
        self._progress.pop(id, None)
        for end in [end for end in self._ends if end[0] == id]:
            del self._ends[end]
        for source in [source for source in self._parts if source.execution_id == id]:
            del self._parts[source]
