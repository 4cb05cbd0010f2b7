"""What people do with webhooks: :class:`Hooks` on a store, :class:`Webhooks` on an engine.

A webhook tells a URL of what happens to all executions that fit its filter. Whoever serves the
engine delivers (:mod:`outlast.server.courier`); here is what is said and read.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from outlast.duration import Duration, microseconds
from outlast.engine.control.asking import Asking
from outlast.engine.read.feed import EventFilter, filter_of, follow_outside
from outlast.engine.write.acting import deed
from outlast.errors import NotFound, UsageError
from outlast.naming import checked_text
from outlast.store.protocol import Store
from outlast.store.webhooks import (
    Delivery,
    DeliveryState,
    Terms,
    Wanted,
    Webhook,
    WebhookState,
)

if TYPE_CHECKING:
    from outlast.engine.engine import Engine

WEBHOOKS_MAX: Final = 100
"""How many a tenant has at most."""
DESCRIPTION_LENGTH_MAX: Final = 500
OVERLAP: Final = "24h"
"""How long the secret before signs as well, where nobody says."""
OVERLAP_US_MAX: Final = 30 * 24 * 3_600_000_000
DELIVERIES_MAX: Final = 500
SECRET: Final = "webhook-subscriptions"  # noqa: S105 - the name under which the store keeps it


class NewWebhook(msgspec.Struct, frozen=True):
    """A webhook, and the secret that signs from now on: it is shown this once.

    Attributes:
        webhook: the webhook.
        secret: as receivers need it, ``whsec_…``.
    """

    webhook: Webhook
    secret: str


def fits(wanted: Wanted) -> EventFilter:
    """Give the filter of a webhook."""
    return filter_of(wanted.task, wanted.prefix, wanted.states, wanted.transitions, wanted.labels)


def wanted_of(
    task: str | None = None,
    prefix: str | None = None,
    states: Collection[str] = (),
    transitions: Collection[str] = (),
    labels: Mapping[str, str] | None = None,
) -> Wanted:
    """Make what a webhook is about of words.

    Raises:
        UsageError: there is no such state or transition.
    """
    filter_of(task, prefix, states, transitions, labels)
    return Wanted(
        task=task,
        prefix=prefix,
        states=tuple(sorted(map(str, states))),
        transitions=tuple(sorted(map(str, transitions))),
        labels=dict(labels or {}),
    )


class Hooks:
    """The webhooks of a store, for one thread; a guest and an engine share it.

    Args:
        store: the open store.
        now: gives the time.
    """

    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._store, self._webhooks, self._now = store, store.webhooks, now

    def all(self) -> Sequence[Webhook]:
        """List the webhooks, by id."""
        return self._webhooks.page()

    def get(self, id: str) -> Webhook:
        """Read a webhook.

        Raises:
            NotFound: there is none.
        """
        row = self._webhooks.get(id)
        if row is None:
            raise no_webhook(id)
        return row

    def add(
        self, url: str, wanted: Wanted, description: str = "", cursor: str | None = None
    ) -> NewWebhook:
        """Add a webhook, which is told of what comes behind a cursor; None: from now on.

        Raises:
            UsageError: the URL cannot be called, or there are too many.
        """
        from outlast.engine.control.posting import checked_url

        terms = Terms(url=checked_url(url), wanted=wanted, description=_described(description))
        if cursor is None:
            pages = follow_outside(self._store, None, EventFilter(), self._now)
            cursor, _ = next(pages)
            pages.close()  # type: ignore[attr-defined]
        feed, _, position = cursor.rpartition(".")
        now = self._now()
        row = Webhook(
            id="wh_" + secrets.token_hex(8),
            revision=1,
            state=WebhookState.ACTIVE,
            terms=terms,
            secret_version=1,
            former_until=None,
            created_at=now,
            updated_at=now,
            feed=feed,
            position=int(position),
        )
        if not self._webhooks.add(row, WEBHOOKS_MAX, deed()):
            raise UsageError(
                f"there are {WEBHOOKS_MAX} webhooks already",
                why="each reads all that happens",
                do="outlast webhook rm ID\nor widen the filter of one",
            )
        return NewWebhook(row, self._secret(row))

    def change(
        self,
        id: str,
        *,
        url: str | UnsetType = UNSET,
        wanted: Wanted | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
    ) -> Webhook:
        """Change what is given; what waits is delivered to the new URL."""
        from outlast.engine.control.posting import checked_url

        said: dict[str, Any] = {}
        if url is not UNSET:
            said["url"] = checked_url(url)
        if wanted is not UNSET:
            said["wanted"] = wanted
        if description is not UNSET:
            said["description"] = _described(description)
        return self._change(id, lambda row: replace(row, terms=replace(row.terms, **said)))

    def pause(self, id: str, why: str | None = None) -> Webhook:
        """Deliver nothing until it is resumed; it goes on where it was, for up to seven days."""
        if why is not None:
            checked_text(why, "reason")
        return self._change(id, lambda row: stopped(row, WebhookState.PAUSED, why))

    def resume(self, id: str) -> Webhook:
        """Deliver again, also what was disabled. Again changes nothing."""
        return self._change(id, lambda row: stopped(row, WebhookState.ACTIVE, None))

    def rotate(self, id: str, overlap: Duration = OVERLAP) -> NewWebhook:
        """Draw another secret; the one before signs as well for a while.

        Raises:
            UsageError: the overlap is longer than 30 days.
        """
        span = microseconds(overlap)
        if not 0 <= span <= OVERLAP_US_MAX:
            raise UsageError("the two secrets overlap for 30 days at most", where="overlap")
        until = self._now() + span if span else None
        row = self._change(
            id,
            lambda row: replace(row, secret_version=row.secret_version + 1, former_until=until),
        )
        return NewWebhook(row, self._secret(row))

    def remove(self, id: str) -> None:
        """Delete a webhook, with what it has not delivered yet.

        Raises:
            NotFound: there is none.
        """
        if not self._webhooks.remove(id, deed()):
            raise no_webhook(id)

    def ping(self, id: str) -> Delivery:
        """Send a delivery that tells of nothing, to see that it arrives; gives it as it waits."""
        number = self._webhooks.ping(id, self._now(), deed())
        if number is None:
            raise no_webhook(id)
        return self._delivery(id, number)

    def deliveries(
        self,
        id: str,
        *,
        states: Collection[str] = (),
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[Delivery]:
        """List what it was told, the newest first: what came of it, when it is tried next."""
        self.get(id)
        try:
            wanted = [str(DeliveryState(state)) for state in states]
        except ValueError as error:
            raise UsageError(f"{error}", do=", ".join(DeliveryState)) from None
        return self._webhooks.deliveries(id, wanted, before, min(limit, DELIVERIES_MAX))

    def redeliver(self, id: str, number: int) -> Delivery:
        """Deliver something again, at once and under the same id.

        Raises:
            NotFound: it is forgotten, or was never there.
        """
        self.get(id)
        if not self._webhooks.redeliver(id, number, self._now(), deed()):
            raise NotFound(
                f"webhook {id} has no delivery {number}", do=f"outlast webhook show {id}"
            )
        return self._delivery(id, number)

    def secrets_of(self, row: Webhook) -> tuple[str, ...]:
        """Give the secrets that sign now, the newest first. Writes, the first time."""
        if row.former_until is None or row.former_until < self._now():
            return (self._secret(row),)
        return self._secret(row), self._secret(replace(row, secret_version=row.secret_version - 1))

    def disable(self, id: str, revision: int, why: str) -> None:
        """Deliver nothing until somebody has looked; unless it was changed meanwhile."""
        row = self._webhooks.get(id)
        if row is not None and row.revision == revision:
            self._webhooks.save(_revised(stopped(row, WebhookState.DISABLED, why), self._now()))

    def _secret(self, row: Webhook) -> str:
        from outlast.engine.control.posting import secret_of

        root = self._store.secret(SECRET, secrets.token_bytes(32))
        return secret_of(root, f"{row.id}:{row.secret_version}")

    def _delivery(self, id: str, number: int) -> Delivery:
        (found,) = self._webhooks.deliveries(id, (), number + 1, 1)
        return found

    def _change(self, id: str, act: Callable[[Webhook], Webhook]) -> Webhook:
        while True:
            row = self.get(id)
            after = act(row)
            if after == row:
                return row
            after = _revised(after, self._now())
            if self._webhooks.save(after, deed()):
                return after


def stopped(row: Webhook, state: WebhookState, why: str | None) -> Webhook:
    """Give a webhook in a state, with the reason; as it is where it is in that state already."""
    if row.state is state:
        return row
    return replace(row, state=state, terms=replace(row.terms, why=why))


def _revised(row: Webhook, now: int) -> Webhook:
    return replace(row, revision=row.revision + 1, updated_at=now)


def _described(text: str) -> str:
    checked_text(text, "description")
    if len(text) > DESCRIPTION_LENGTH_MAX:
        raise UsageError(f"a description has at most {DESCRIPTION_LENGTH_MAX} characters")
    return text


def no_webhook(id: str) -> NotFound:
    """Say that there is no such webhook."""
    return NotFound(f"there is no webhook {id[:64]!a}", do="outlast webhook ls")


class Webhooks(Asking[Hooks]):
    """The webhooks of an engine's store. Every method has an async twin, with an ``a`` before it.

    All but ``list`` and ``add`` raise ``NotFound`` where there is no such webhook. Deliveries are
    made by a server of this store.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, Hooks)

    async def aadd(
        self,
        url: str,
        *,
        task: str | None = None,
        prefix: str | None = None,
        states: Collection[str] = (),
        transitions: Collection[str] = (),
        labels: Mapping[str, str] | None = None,
        description: str = "",
    ) -> NewWebhook:
        """Tell a URL of what happens from now on to executions that fit all that is given.

        Args:
            url: whom to tell; with TLS, and public, unless ``OUTLAST_WEBHOOK_HOSTS`` names it.
            task: of executions of this task.
            prefix: of executions of tasks whose names begin so.
            states: that led to one of these states.
            transitions: of these transitions.
            labels: of executions that have all these labels.
            description: what it is for.

        Raises:
            UsageError: the URL cannot be called, a word is none, or there are too many webhooks.
            StoreUnavailable: the feed cannot be begun yet; ask again.
        """
        wanted = wanted_of(task, prefix, states, transitions, labels)
        return await self._add(url, wanted, description)

    async def _add(self, url: str, wanted: Wanted, description: str) -> NewWebhook:
        pages = self._engine.tail.follow(None)
        cursor, _ = await anext(pages)
        await pages.aclose()  # type: ignore[attr-defined]
        return await self._change(lambda hooks: hooks.add(url, wanted, description, cursor))

    def add(
        self,
        url: str,
        *,
        task: str | None = None,
        prefix: str | None = None,
        states: Collection[str] = (),
        transitions: Collection[str] = (),
        labels: Mapping[str, str] | None = None,
        description: str = "",
    ) -> NewWebhook:
        """Tell a URL of what happens, as :meth:`aadd`."""
        return self._engine.run(
            self.aadd(
                url,
                task=task,
                prefix=prefix,
                states=states,
                transitions=transitions,
                labels=labels,
                description=description,
            )
        )

    async def alist(self) -> Sequence[Webhook]:
        """List the webhooks, by id."""
        return await self._read(lambda hooks: hooks.all())

    def list(self) -> Sequence[Webhook]:
        """List the webhooks, as :meth:`alist`."""
        return self._engine.run(self.alist())

    async def aget(self, id: str) -> Webhook:
        """Read a webhook."""
        return await self._read(lambda hooks: hooks.get(id))

    def get(self, id: str) -> Webhook:
        """Read a webhook, as :meth:`aget`."""
        return self._engine.run(self.aget(id))

    async def achange(
        self,
        id: str,
        *,
        url: str | UnsetType = UNSET,
        wanted: Wanted | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
    ) -> Webhook:
        """Change what is given; what waits is delivered to the new URL.

        Raises:
            UsageError: the URL cannot be called.
        """
        return await self._change(
            lambda hooks: hooks.change(id, url=url, wanted=wanted, description=description)
        )

    def change(
        self,
        id: str,
        *,
        url: str | UnsetType = UNSET,
        wanted: Wanted | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
    ) -> Webhook:
        """Change what is given, as :meth:`achange`."""
        change = self.achange(id, url=url, wanted=wanted, description=description)
        return self._engine.run(change)

    async def apause(self, id: str, why: str | None = None) -> Webhook:
        """Deliver nothing until it is resumed; it goes on where it was, for up to seven days."""
        return await self._change(lambda hooks: hooks.pause(id, why))

    def pause(self, id: str, why: str | None = None) -> Webhook:
        """Deliver nothing until it is resumed, as :meth:`apause`."""
        return self._engine.run(self.apause(id, why))

    async def aresume(self, id: str) -> Webhook:
        """Deliver again, also where it was disabled."""
        return await self._change(lambda hooks: hooks.resume(id))

    def resume(self, id: str) -> Webhook:
        """Deliver again, as :meth:`aresume`."""
        return self._engine.run(self.aresume(id))

    async def arotate(self, id: str, overlap: Duration = OVERLAP) -> NewWebhook:
        """Draw another secret; the one before signs as well for a while.

        Raises:
            UsageError: the overlap is longer than 30 days.
        """
        return await self._change(lambda hooks: hooks.rotate(id, overlap))

    def rotate(self, id: str, overlap: Duration = OVERLAP) -> NewWebhook:
        """Draw another secret, as :meth:`arotate`."""
        return self._engine.run(self.arotate(id, overlap))

    async def aremove(self, id: str) -> None:
        """Delete a webhook, with what it has not delivered yet."""
        await self._change(lambda hooks: hooks.remove(id))

    def remove(self, id: str) -> None:
        """Delete a webhook, as :meth:`aremove`."""
        self._engine.run(self.aremove(id))

    async def aping(self, id: str) -> Delivery:
        """Send a delivery that tells of nothing; gives it as it waits."""
        return await self._change(lambda hooks: hooks.ping(id))

    def ping(self, id: str) -> Delivery:
        """Send a delivery that tells of nothing, as :meth:`aping`."""
        return self._engine.run(self.aping(id))

    async def adeliveries(
        self,
        id: str,
        *,
        states: Collection[str] = (),
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[Delivery]:
        """List what it was told, the newest first: what came of it, when it is tried next.

        Args:
            id: the webhook.
            states: ``pending``, ``delivered``, ``failed``; by default all.
            before: the number to go on before.
            limit: how many at most, up to 500.
        """
        return await self._read(
            lambda hooks: hooks.deliveries(id, states=states, before=before, limit=limit)
        )

    def deliveries(
        self,
        id: str,
        *,
        states: Collection[str] = (),
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[Delivery]:
        """List what it was told, as :meth:`adeliveries`."""
        return self._engine.run(self.adeliveries(id, states=states, before=before, limit=limit))

    async def aredeliver(self, id: str, number: int) -> Delivery:
        """Deliver something again, at once and under the same id.

        Raises:
            NotFound: it is forgotten, or was never there.
        """
        return await self._change(lambda hooks: hooks.redeliver(id, number))

    def redeliver(self, id: str, number: int) -> Delivery:
        """Deliver something again, as :meth:`aredeliver`."""
        return self._engine.run(self.aredeliver(id, number))


__all__ = ["Hooks", "NewWebhook", "Webhooks", "fits", "no_webhook", "wanted_of"]
