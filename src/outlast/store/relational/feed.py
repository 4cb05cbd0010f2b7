"""The feed in SQL: rows of all logs in one order, named by a table that a trigger fills.

Theory of operation. SQLite has one writer at a time, so that a row's number is its position. In
PostgreSQL a number is drawn long before its commit, and a reader that goes by it would pass over
whatever is committed late. There a row has no position until somebody who follows the feed gives
it one (``settle_feed``), under the lock of the feed's own row: positions are given to rows that can
be seen, so what is committed later gets a later one, and no transaction that is held open keeps
others back. Of one execution, what can be seen is always the beginning of its log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.store.protocol import FeedHead, FeedRow, labels_of
from outlast.store.relational.rows import Value, data_of, transition_of
from outlast.store.webhooks import HELD_BACK_US

if TYPE_CHECKING:
    from outlast.store.relational.store import RelationalStore

_WIDTH: Final = 14
"""Columns of a row of a log."""


class RelationalFeed:
    """The verbs on the feed; see the protocol."""

    def __init__(self, store: RelationalStore) -> None:
        self._database = store.database

    def head(self) -> FeedHead | None:
        """See the protocol."""
        rows = self._database.read("feed_head", {})
        if not rows:
            return None
        name, pruned, last, read_at, unsettled, is_whole = rows[0]
        first, newest, at = (int(str(one)) for one in (pruned, last, read_at))
        return FeedHead(str(name), first, newest, at, bool(unsettled), bool(is_whole))

    def follow(self, drawn: str, now: int) -> None:
        """See the protocol."""
        bounds: dict[str, Value] = {"name": drawn, "now": now}
        self._database.write(lambda: self._database.run("begin_feed", bounds))

    def settle(self) -> int:
        """See the protocol."""
        return self._database.write(self._database.settle) if self._database.is_shared else 0

    def read(self, after: int, limit: int, *, payload: bool = False) -> list[FeedRow]:
        """See the protocol."""
        bounds: dict[str, Value] = {"after": after, "limit": limit, "payload": payload}
        found: list[FeedRow] = []
        for columns in self._database.read("feed_rows", bounds):
            position, id, seq, task, labels = columns[_WIDTH:]
            is_there = columns[0] is not None
            found.append(
                FeedRow(
                    int(str(position)),
                    str(id),
                    int(str(seq)),
                    transition_of(columns[:_WIDTH]) if is_there else None,
                    str(task) if is_there else None,
                    labels_of(data_of(labels)),
                )
            )
        return found

    def hold_export(self, holder: str, now: int, until: int) -> int | None:
        """See the protocol."""
        bounds: dict[str, Value] = {"holder": holder, "now": now, "until": until}

        def hold() -> int | None:
            if not self._database.run("hold_export", bounds):
                return None
            ((position,),) = self._database.ask_all("exported", {})
            return int(str(position))

        return self._database.write(hold)

    def note_exported(self, holder: str, position: int, until: int) -> bool:
        """See the protocol."""
        bounds: dict[str, Value] = {"holder": holder, "position": position, "until": until}
        return self._database.write(lambda: self._database.run("note_exported", bounds)) > 0

    def prune(self, before: int, limit: int) -> int:
        """See the protocol."""
        return self._database.write(lambda: self._prune(before, limit))

    def _prune(self, before: int, limit: int) -> int:
        self._database.settle()
        heads = self._database.ask_all("feed_head", {})
        if not heads:
            return 0
        pruned, last = (int(str(one)) for one in heads[0][1:3])
        upto = self._before(before, last)
        ((floor,),) = self._database.ask_all("webhook_floor", {})
        if floor is not None and int(str(floor)) < upto:
            upto = max(int(str(floor)), self._before(before - HELD_BACK_US, last))
        upto = min(upto, pruned + limit)
        if upto <= pruned:
            return 0
        deleted = self._database.run("prune_feed", {"upto": upto})
        self._database.run("note_pruned", {"upto": upto})
        return deleted

    def _before(self, at: int, last: int) -> int:
        """Give the last position before an instant; the last one of all stays for ever."""
        kept = self._database.ask_all("feed_horizon", {"before": at})
        return (int(str(kept[0][0])) if kept else last) - 1  # numbers never go back

    def end(self, before: int) -> bool:
        """See the protocol."""
        return self._database.write(lambda: self._end(before))

    def _end(self, before: int) -> bool:
        if not self._database.run("end_feed", {"before": before}):
            return False
        self._database.run("empty_feed", {})
        return True


__all__ = ["RelationalFeed"]
