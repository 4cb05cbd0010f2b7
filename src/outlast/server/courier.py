"""The courier: tells webhooks of what happens, and survives being killed meanwhile.

Theory of operation. One process of a store delivers at a time; it holds a lease in the store, and
whoever takes over where that has run out finds all there is in the store. It reads the feed behind
each webhook's place: what fits becomes deliveries, and the place moves, in one transaction
(:mod:`outlast.store.webhooks`). Each webhook has a task of its own here that makes the requests, so
that a receiver that is slow or down holds up no other. What became of an attempt is written behind
the answer: killed between the two, it is made again, under the same ``webhook-id``.

A receiver that fails is tried with one delivery at a time, with growing pauses; one that took
nothing for three days is disabled. While so many deliveries wait, a webhook's place stays: the feed
keeps what it has not come to, and says ``gap`` where that was too much.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from outlast import forms
from outlast.engine.control.posting import SENDERS, send, signed
from outlast.engine.control.webhooks import Hooks, fits
from outlast.errors import Fatal
from outlast.store.protocol import FeedHead, FeedRow, Store, labels_of
from outlast.store.webhooks import (
    Delivery,
    DeliveryKind,
    DeliveryState,
    Told,
    Webhook,
    WebhookState,
)

if TYPE_CHECKING:
    from outlast.engine.engine import Engine

T = TypeVar("T")
HELD_US: Final = 15_000_000
"""How long another process waits for word of the one that delivers."""
LOOK_SECONDS: Final = 1.0
"""How often it is asked whether there are webhooks, or whether whoever delivers is gone."""
POLL_SECONDS: Final = 0.1
IDLE_SECONDS: Final = 1.0
ROWS_MAX: Final = 500
PENDING_MAX: Final = 1_000
"""Deliveries of a webhook that may wait, before the feed keeps the rest."""
AT_ONCE: Final = 4
"""Requests to one receiver that are under way at once."""
ATTEMPTS_MAX: Final = 15
PAUSE_US: Final = 5_000_000
PAUSE_US_MAX: Final = 3 * 3_600_000_000
PAUSE_FACTOR: Final = 2.5
FAILING_US: Final = 3 * 24 * 3_600_000_000
"""How long a receiver may take nothing, before its webhook is disabled."""
KEPT_US: Final = 7 * 24 * 3_600_000_000
"""How long it is kept what was delivered."""
PRUNE_SECONDS: Final = 600.0
PRUNED_AT_ONCE: Final = 1_000
_encode: Final = msgspec.json.Encoder().encode


class Courier:
    """Delivers the webhooks of an engine's store; the engine keeps it running."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._held_until = 0
        self._pruned_at = float("-inf")

    async def run(self) -> None:
        """Deliver, for as long as this process is the one; then look again.

        Raises:
            OutlastError: the store cannot be used now.
        """
        try:
            while (rows := await self._read(_page)) and await self._hold():
                await self._round(rows)
                await asyncio.sleep(POLL_SECONDS)
        finally:
            await self._stop()
        await asyncio.sleep(LOOK_SECONDS)

    async def _round(self, rows: list[Webhook]) -> None:
        active = {row.id: row for row in rows if row.state is WebhookState.ACTIVE}
        await self._move(list(active.values()))
        for id in self._tasks.keys() - active.keys():
            self._tasks.pop(id).cancel()
        for id in active:
            task = self._tasks.get(id)
            if task is not None and task.done() and not task.cancelled():
                task.exception()  # the store was away: it is begun again
            if task is None or task.done():
                self._news[id] = asyncio.Event()
                self._tasks[id] = asyncio.create_task(self._keep_delivering(id))
        await self._prune()

    # Who delivers

    async def _hold(self) -> bool:
        """Be the one who delivers, or stay it."""
        engine, now = self._engine, self._engine.clock.now()
        if now < self._held_until - HELD_US // 2:
            return True
        until = now + HELD_US
        held = await self._write(lambda store: store.webhooks.hold(engine.name, now, until))
        self._held_until = until if held else 0
        return held

    @property
    def _holds(self) -> bool:
        return self._engine.clock.now() < self._held_until

    async def _stop(self) -> None:
        """Make no more requests, and let another process begin at once."""
        tasks = [*self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._held_until:
            self._held_until = 0
            with contextlib.suppress(Exception):  # it runs out
                await self._write(lambda store: store.webhooks.let_go(self._engine.name))

    # From the feed to deliveries

    async def _move(self, rows: list[Webhook]) -> None:
        if not rows:
            return
        head = await self._head()
        for row in rows:
            if row.pending < PENDING_MAX and (row.feed, row.position) != (head.name, head.last):
                await self._move_one(row, head)

    async def _head(self) -> FeedHead:
        """Give the feed's head, with positions for all that can be seen."""
        engine = self._engine
        while True:
            head: FeedHead | None = await self._read(lambda store: store.feed.head())
            if head is None:  # a copy has none
                import secrets

                name, now = secrets.token_hex(6), engine.clock.now()
                await self._write(partial(_follow, name=name, now=now))
            elif not (head.is_unsettled and await self._write(_settle)):
                return head

    async def _move_one(self, row: Webhook, head: FeedHead) -> None:
        """Make deliveries of what comes next."""
        told: list[Told] = []
        position = row.position
        if row.feed != head.name or not head.pruned <= position <= head.last:
            told.append(Told(DeliveryKind.GAP))
            position = head.pruned
        found = await self._read(lambda store: store.feed.read(position, ROWS_MAX))
        if found:
            position = found[-1].position
        filter = fits(row.terms.wanted)
        told += [_told(one) for one in found if filter.fits(one)]
        now = self._engine.clock.now()
        await self._write(lambda store: store.webhooks.advance(row, head.name, position, told, now))
        if told and row.id in self._news:
            self._news[row.id].set()

    # From deliveries to requests

    async def _keep_delivering(self, id: str) -> None:
        """Deliver what is due to one webhook, while it is active and this process is the one."""
        news = self._news[id]
        while self._holds:
            news.clear()
            row = await self._read(partial(_get, id=id))
            if row is None or row.state is not WebhookState.ACTIVE:
                return
            since = row.failing_since
            if since is not None and self._engine.clock.now() - since > FAILING_US:
                await self._disable(row, "it took nothing for three days")
            elif not await self._deliver_some(row):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_SECONDS):
                        await news.wait()

    async def _deliver_some(self, row: Webhook) -> bool:
        """Try what is due now, if there is anything; gives whether there was."""
        now, limit = self._engine.clock.now(), AT_ONCE if row.failing_since is None else 1
        due = await self._read(lambda store: store.webhooks.due(row.id, now, limit))
        if due:
            secrets = await self._change(lambda hooks: hooks.secrets_of(row))
            await asyncio.gather(*(self._deliver(row, secrets, one) for one in due))
        return bool(due)

    async def _deliver(self, row: Webhook, secrets: tuple[str, ...], one: Delivery) -> None:
        """Make one request, and write what became of it."""
        body = _encode(await self._read(lambda store: said(store, row, one)))
        headers = signed(one.message_id, body, *secrets)
        status: int | None = None
        error: str | None = None
        loop = asyncio.get_running_loop()
        try:
            status = await loop.run_in_executor(SENDERS, send, row.terms.url, body, headers)
            if not 200 <= status < 300:
                error = f"the receiver answered with {status}"
        except Fatal:  # its text names the host, and what is kept of an attempt is not sealed
            error = "not called: the URL leads to no public address"
        except (OSError, http.client.HTTPException, ssl.SSLError) as failed:
            error = f"no answer: {type(failed).__name__}"
        outcome = after(one, self._engine.clock.now(), status, error)
        await self._write(lambda store: store.webhooks.note(outcome))
        if status == http.client.GONE:
            await self._disable(row, "the receiver wants to hear no more (410)")

    async def _disable(self, row: Webhook, why: str) -> None:
        await self._change(lambda hooks: hooks.disable(row.id, row.revision, why))

    async def _prune(self) -> None:
        clock = asyncio.get_running_loop().time
        if clock() - self._pruned_at < PRUNE_SECONDS:
            return
        before = self._engine.clock.now() - KEPT_US
        if not await self._write(lambda store: store.webhooks.prune(before, PRUNED_AT_ONCE)):
            self._pruned_at = clock()

    async def _read(self, look: Callable[[Store], T]) -> T:
        return await self._engine.worker.read(lambda: look(self._engine.store))

    async def _write(self, act: Callable[[Store], T]) -> T:
        return await self._engine.journal.call(lambda: act(self._engine.store))

    async def _change(self, act: Callable[[Hooks], T]) -> T:
        now = self._engine.clock.now
        return await self._write(lambda store: act(Hooks(store, now)))


def _page(store: Store) -> list[Webhook]:
    return store.webhooks.page()


def _settle(store: Store) -> bool:
    return store.feed.settle() > 0


def _get(store: Store, id: str) -> Webhook | None:
    return store.webhooks.get(id)


def _follow(store: Store, name: str, now: int) -> None:
    store.feed.follow(name, now)


def _told(row: FeedRow) -> Told:
    kind = DeliveryKind.GAP if row.transition is None else DeliveryKind.TRANSITION
    return Told(kind, row.execution_id, row.seq)


def said(store: Store, row: Webhook, one: Delivery) -> Mapping[str, Any]:
    """Give what a receiver is told; never a payload. Reads the store."""
    head = {"webhook": row.id, "number": one.number}
    if one.kind is DeliveryKind.PING:
        return {"type": "ping", **head}
    if one.kind is DeliveryKind.GAP and not one.execution_id:
        return {"type": "gap", **head, "why": "forgotten"}
    (record,) = store.get([one.execution_id])
    log = store.log(one.execution_id, one.seq - 1, 1) if record is not None else []
    about = {**head, "id": one.execution_id}
    if record is None or not log:
        return {"type": "gap", **about, "seq": one.seq, "why": "purged"}
    return {
        "type": "execution.transition",
        **about,
        "task": record.task,
        "labels": labels_of(record.labels),
        "data": forms.log_form(log[0], payload=False),
    }


def after(one: Delivery, now: int, status: int | None, error: str | None) -> Delivery:
    """Give a delivery as it is behind an attempt."""
    attempts = one.attempts + 1
    tried = replace(one, attempts=attempts, tried_at=now, status=status, error=error)
    if error is None:
        return replace(tried, state=DeliveryState.DELIVERED)
    if attempts >= ATTEMPTS_MAX:
        return replace(tried, state=DeliveryState.FAILED)
    pause = min(PAUSE_US * PAUSE_FACTOR ** (attempts - 1), PAUSE_US_MAX)
    return replace(tried, next_at=now + int(pause))


__all__ = ["Courier", "after", "said"]
