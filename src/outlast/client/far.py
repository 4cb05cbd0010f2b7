"""What stands behind a client's schedules, queues, limits and webhooks: their offices, over HTTP.

Each has the methods of the one that an engine asks on its store
(:class:`outlast.engine.control.schedules.Book` and its kin), as coroutines; so the managers above
are the engine's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import UNSET, UnsetType

from outlast.client import reading
from outlast.client.reading import read
from outlast.duration import Duration, instant, microseconds, microseconds_of
from outlast.engine.control.capacity import Limits, Queues
from outlast.engine.control.handle import Execution
from outlast.engine.control.schedules import Schedules, asked, backfilling, by_hand
from outlast.engine.control.tenants import Tenants
from outlast.engine.control.webhooks import OVERLAP, NewWebhook, Webhooks
from outlast.errors import NotFound, ScheduleRefused, UnknownTenant
from outlast.naming import checked_name, checked_tenant
from outlast.schedule import (
    Entry,
    Request,
    ScheduleKind,
    ScheduleRecord,
    ScheduleState,
    Wish,
)
from outlast.schedule.plan import plan_of
from outlast.store.protocol import (
    DEFAULT_NUMBER,
    GateRow,
    QueueRow,
    QueueSetting,
    ScheduleAnswer,
    Setting,
    Tenant,
)
from outlast.store.webhooks import (
    Delivery,
    DeliveryKind,
    DeliveryState,
    Terms,
    Wanted,
    Webhook,
    WebhookState,
)

if TYPE_CHECKING:
    from outlast.client.client import Client

T = TypeVar("T")


class _Asking:
    """Asks an office over HTTP, where an engine asks one on its own threads."""

    def __init__(self, client: Client, far: Any) -> None:
        self._engine: Any = client
        self._far = far

    async def _read(self, call: Callable[[Any], Any]) -> Any:
        return await call(self._far)

    async def _change(self, call: Callable[[Any], Any]) -> Any:
        return await call(self._far)


class ClientQueues(_Asking, Queues):
    """The queues behind a server."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, FarOffice(client))


class ClientLimits(_Asking, Limits):
    """The limits and rates behind a server."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, FarOffice(client))


class ClientWebhooks(_Asking, Webhooks):
    """The webhooks of a server."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, FarHooks(client))

    async def _add(self, url: str, wanted: Wanted, description: str) -> NewWebhook:
        made: NewWebhook = await self._far.add(url, wanted, description)
        return made


class ClientTenants(Tenants):
    """The tenants behind a server, by its default one. Numbers are the store's own business."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._engine: Any = client

    async def aadd(self, name: str) -> Tenant:
        """Add a tenant."""
        return await self._post("", {"name": checked_tenant(name)})

    async def aall(self) -> list[Tenant]:
        """List the tenants."""
        said = await self._client.wire.get("/tenants")
        return list(map(_tenant, read(said, reading.TenantPage, self._client.url).items))

    async def aclose(self, name: str) -> Tenant:
        """Close a tenant: nothing is started or claimed in it; what runs goes on until it parks."""
        return await self._post(f"/{checked_tenant(name)}/close", {})

    async def aopen(self, name: str) -> Tenant:
        """Open a tenant again."""
        return await self._post(f"/{checked_tenant(name)}/open", {})

    async def _post(self, path: str, body: Any) -> Tenant:
        try:
            said = await self._client.wire.post(f"/tenants{path}", body)
        except NotFound as error:
            raise UnknownTenant(error.what, do=error.do) from None
        return _tenant(read(said, reading.TenantForm, self._client.url))


def _tenant(form: reading.TenantForm) -> Tenant:
    return Tenant(
        DEFAULT_NUMBER if form.created_at is None else 0,
        form.name,
        reading.us(form.created_at) or 0,
        reading.us(form.closed_at),
    )


class ClientSchedules(_Asking, Schedules):
    """The schedules behind a server."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, FarBook(client))

    async def atrigger(
        self, name: str, why: str | None = None, *, actor: str = "user"
    ) -> Execution[Any]:
        """Make an execution at once, whatever is open; its slots and its count stay as they are."""
        (made,) = (await self._change(asked(name, by_hand(Wish.TRIGGER, actor, why)))).made
        handle: Execution[Any] = self._engine.execution(made)
        return handle

    async def abackfill(
        self, name: str, since: datetime, until: datetime, *, actor: str = "user"
    ) -> Sequence[Execution[Any]]:
        """Make the executions of past slots, both ends included, that have none."""
        bounds = microseconds_of(since), microseconds_of(until)
        answer = await self._change(asked(name, backfilling(*bounds, actor, ())))
        return [self._engine.execution(id) for id in answer.made]


class _QueueForm(msgspec.Struct):
    queue: str
    capacity: int | None
    paused_at: datetime | None
    paused_by: str | None
    why: str | None
    queued: int = 0
    blocked: int = 0
    leased: int = 0
    waiting_since: datetime | None = None


class _Queues(msgspec.Struct):
    items: list[_QueueForm]


class _RuleForm(msgspec.Struct):
    name: str
    capacity: int
    interval_us: int | None
    by: str
    at: datetime


class _LimitForm(msgspec.Struct):
    limit: str
    setting: _RuleForm | None
    holders: list[str]
    waiting: int
    next: str | None


class _Limits(msgspec.Struct):
    items: list[_LimitForm]


class _Far:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def _call(
        self,
        method: str,
        path: str,
        form: type[T],
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        **query: Any,
    ) -> T:
        sent = await self._client.wire.send(method, path, body=body, query=query, headers=headers)
        return read(sent.content, form, self._client.url)


class FarOffice(_Far):
    """What :class:`outlast.engine.control.capacity.Office` does, over HTTP."""

    async def queues(self) -> list[QueueRow]:
        """List the queues, by name."""
        return [
            QueueRow(
                _queue(one), one.queued, one.blocked, one.leased, reading.us(one.waiting_since)
            )
            for one in (await self._call("GET", "/queues", _Queues)).items
        ]

    async def pause(
        self, queue: str, why: str | None = None, *, actor: str = "user"
    ) -> QueueSetting:
        """Let nothing be claimed from a queue."""
        return await self._patch(queue, {"paused": True, "reason": why})

    async def resume(self, queue: str) -> QueueSetting:
        """Let a paused queue go on."""
        return await self._patch(queue, {"paused": False})

    async def limit_queue(self, queue: str, capacity: int | None) -> QueueSetting:
        """Let at most so many executions of a queue run at once."""
        return await self._patch(queue, {"capacity": capacity})

    async def _patch(self, name: str, body: Any) -> QueueSetting:
        return _queue(
            await self._call("PATCH", f"/queues/{quote(name, safe='')}", _QueueForm, body)
        )

    async def gates(self) -> list[GateRow]:
        """List the limits, rates and capabilities, by name."""
        return [
            GateRow(one.limit, _rule(one.setting), one.holders, one.waiting, one.next)
            for one in (await self._call("GET", "/limits", _Limits)).items
        ]

    async def set_limit(self, name: str, capacity: int, *, actor: str = "user") -> Setting:
        """Set how many may hold a limit."""
        return await self._put(name, {"capacity": capacity})

    async def set_rate(
        self, name: str, count: int, period: Any, *, burst: int = 1, actor: str = "user"
    ) -> Setting:
        """Set a rate."""
        name = name if name.startswith("rate:") else f"rate:{name}"
        rate = {"count": count, "period": f"{microseconds(period)}us", "burst": burst}
        return await self._put(name, {"rate": rate})

    async def _put(self, name: str, body: Any) -> Setting:
        made = await self._call("PUT", f"/limits/{quote(name, safe='')}", _RuleForm, body)
        setting = _rule(made)
        assert setting is not None
        return setting

    async def reset(self, name: str) -> None:
        """Take back what was set."""
        await self._client.wire.send("DELETE", f"/limits/{quote(name, safe='')}")


def _queue(form: _QueueForm) -> QueueSetting:
    return QueueSetting(
        form.queue, form.capacity, reading.us(form.paused_at), form.paused_by, form.why
    )


def _rule(form: _RuleForm | None) -> Setting | None:
    if form is None:
        return None
    at = microseconds_of(form.at)
    return Setting(form.name, form.capacity, form.interval_us, form.by, at)


class _ScheduleForm(msgspec.Struct):
    name: str
    task: str
    state: ScheduleState
    why: str | None
    plan: dict[str, Any]
    is_declared: bool
    next_slot: datetime | None
    next_at: datetime | None
    waiting_slot: datetime | None
    fired: int
    last_slot: datetime | None
    last_execution_id: str | None
    seq: int
    created_at: datetime
    state_at: datetime
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Schedules(msgspec.Struct):
    items: list[_ScheduleForm]


class _Slots(msgspec.Struct):
    slots: list[datetime]


class _EntryForm(msgspec.Struct):
    seq: int
    kind: ScheduleKind
    at: datetime
    actor: str
    slot: datetime | None
    until_slot: datetime | None
    execution_id: str | None
    data: dict[str, Any] | None


class _Entries(msgspec.Struct):
    items: list[_EntryForm]


class _Ids(msgspec.Struct):
    items: list[str]


class FarBook(_Far):
    """What :class:`outlast.engine.control.schedules.Book` does, over HTTP."""

    async def get(self, name: str) -> ScheduleRecord:
        """Read a schedule."""
        return _schedule(await self._call("GET", self._path(name), _ScheduleForm))

    async def every(self, states: Sequence[ScheduleState] = ()) -> list[ScheduleRecord]:
        """List all schedules by name."""
        page = await self._call("GET", "/schedules", _Schedules, state=list(states) or None)
        return [_schedule(one) for one in page.items]

    async def next(self, name: str, count: int = 5) -> list[datetime]:
        """Give its next slots, in its time zone."""
        from outlast.schedule.plan import wall

        tz = (await self.get(name)).plan.tz
        page = await self._call("GET", self._path(name, "next"), _Slots, n=min(count, 100))
        return [wall(microseconds_of(one), tz) for one in page.slots]

    async def log(self, name: str, before: int | None = None, limit: int = 100) -> list[Entry]:
        """Read a schedule's log, the newest entry first."""
        path, few = self._path(name, "log"), min(limit, 500)
        page = await self._call("GET", path, _Entries, before=before, limit=few)
        return [
            Entry(
                one.seq,
                one.kind,
                microseconds_of(one.at),
                one.actor,
                reading.us(one.slot),
                reading.us(one.until_slot),
                one.execution_id,
                one.data,
            )
            for one in page.items
        ]

    async def fate(self, name: str, at: datetime) -> str:
        """Say what became of a slot, as far as its log is shown."""
        from outlast.engine.read.fate import fate_of

        record, slot = await self.get(name), microseconds_of(at)
        about = [one for one in await self.log(name, None, 500) if _is_about(one, slot)]
        return fate_of(record, about, slot, time.time_ns() // 1000)

    async def apply(self, name: str, request: Request) -> Any:
        """Make a request.

        Raises:
            ScheduleRefused: it cannot take this now, or not over HTTP.
        """
        made: list[str] = []
        if request.wish in (Wish.CREATE, Wish.UPDATE) and request.draft is not None:
            only = "if-none-match" if request.wish is Wish.CREATE else "if-match"
            record = await self._call(
                "PUT", self._path(name), _ScheduleForm, _put_body(request.draft), {only: "*"}
            )
        elif request.wish is Wish.CANCEL:
            record = await self._call("DELETE", self._path(name), _ScheduleForm)
        elif request.wish in (Wish.PAUSE, Wish.RESUME):
            path = self._path(name, str(request.wish))
            record = await self._call("POST", path, _ScheduleForm, {"reason": request.why})
        else:
            body: dict[str, Any] = {"reason": request.why}
            if request.wish is Wish.BACKFILL:
                body = {"since": instant(request.since), "until": instant(request.until)}
            elif request.wish is not Wish.TRIGGER:
                raise ScheduleRefused(f"{request.wish} is not possible over HTTP")
            made = (await self._call("POST", self._path(name, str(request.wish)), _Ids, body)).items
            record = await self._call("GET", self._path(name), _ScheduleForm)
        return ScheduleAnswer(record=_schedule(record), made=made)

    def _path(self, name: str, word: str = "") -> str:
        return f"/schedules/{quote(name, safe='')}" + (f"/{word}" if word else "")


def _is_about(entry: Entry, slot: int) -> bool:
    return entry.slot is not None and entry.slot <= slot <= (entry.until_slot or entry.slot)


def _put_body(draft: ScheduleRecord) -> dict[str, Any]:
    plan = draft.plan
    when: dict[str, Any] = {
        "every": None if plan.every_us is None else f"{plan.every_us}us",
        "cron": plan.cron,
        "at": None if plan.at is None else instant(plan.at),
        "tz": plan.tz,
        "jitter": f"{plan.jitter_us}us",
        "start": None if plan.start_at is None else instant(plan.start_at),
        "end": None if plan.end_at is None else instant(plan.end_at),
        "count": plan.count_max,
        "overlap": plan.overlap,
        "misfire": plan.misfire,
        "misfire_max": plan.misfire_max,
        "grace": f"{plan.grace_us}us",
    }
    when = {name: value for name, value in when.items() if value is not None}
    return {"task": draft.task, "when": when, "input": msgspec.Raw(draft.input)}


def _schedule(form: _ScheduleForm) -> ScheduleRecord:
    return ScheduleRecord(
        DEFAULT_NUMBER,
        form.name,
        form.task,
        plan_of(form.plan),
        form.state,
        seq=form.seq,
        is_declared=form.is_declared,
        next_slot=reading.us(form.next_slot),
        next_at=reading.us(form.next_at),
        waiting_slot=reading.us(form.waiting_slot),
        fired=form.fired,
        last_slot=reading.us(form.last_slot),
        last_execution_id=form.last_execution_id,
        created_at=microseconds_of(form.created_at),
        state_at=microseconds_of(form.state_at),
        input=bytes(form.input),
        why=form.why,
    )


class _WantedForm(msgspec.Struct):
    task: str | None
    prefix: str | None
    states: tuple[str, ...]
    transitions: tuple[str, ...]
    labels: dict[str, str]


class _WebhookForm(msgspec.Struct, kw_only=True):
    id: str
    url: str
    filter: _WantedForm
    description: str
    state: WebhookState
    reason: str | None
    created_at: datetime
    updated_at: datetime
    former_secret_until: datetime | None
    failing_since: datetime | None
    pending: int
    waiting_since: datetime | None


class _NewForm(msgspec.Struct):
    webhook: _WebhookForm
    secret: str


class _WebhookPage(msgspec.Struct):
    items: list[_WebhookForm]


class _DeliveryForm(msgspec.Struct, kw_only=True):
    number: int
    kind: DeliveryKind
    execution_id: str | None
    seq: int | None
    state: DeliveryState
    attempts: int
    created_at: datetime
    next_at: datetime | None
    tried_at: datetime | None
    status: int | None
    error: str | None


class _DeliveryPage(msgspec.Struct):
    items: list[_DeliveryForm]


class FarHooks(_Far):
    """What :class:`outlast.engine.control.webhooks.Hooks` does, over HTTP.

    Where a webhook is in the feed, and which of its secrets signs, is the server's own business.
    """

    async def all(self) -> Sequence[Webhook]:
        """List the webhooks, by id."""
        page = await self._call("GET", "/webhooks", _WebhookPage)
        return [_webhook(one) for one in page.items]

    async def get(self, id: str) -> Webhook:
        """Read a webhook."""
        return _webhook(await self._call("GET", _hook(id), _WebhookForm))

    async def add(
        self, url: str, wanted: Wanted, description: str = "", cursor: str | None = None
    ) -> NewWebhook:
        """Add a webhook, which is told of what comes from now on."""
        body = {"url": url, "filter": _wanted(wanted), "description": description}
        return _new(await self._call("POST", "/webhooks", _NewForm, body))

    async def change(
        self,
        id: str,
        *,
        url: str | UnsetType = UNSET,
        wanted: Wanted | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
    ) -> Webhook:
        """Change what is given."""
        filter = UNSET if wanted is UNSET else _wanted(wanted)
        said = {"url": url, "filter": filter, "description": description}
        body = {name: value for name, value in said.items() if value is not UNSET}
        return await self.get(id) if not body else await self._patch(id, body)

    async def pause(self, id: str, why: str | None = None) -> Webhook:
        """Deliver nothing until it is resumed."""
        return await self._patch(id, {"state": "paused", "reason": why})

    async def resume(self, id: str) -> Webhook:
        """Deliver again."""
        return await self._patch(id, {"state": "active"})

    async def _patch(self, id: str, body: Any) -> Webhook:
        return _webhook(await self._call("PATCH", _hook(id), _WebhookForm, body))

    async def rotate(self, id: str, overlap: Duration = OVERLAP) -> NewWebhook:
        """Draw another secret."""
        body = {"overlap": f"{microseconds(overlap)}us"}
        return _new(await self._call("POST", _hook(id, "/secret"), _NewForm, body))

    async def remove(self, id: str) -> None:
        """Delete a webhook."""
        await self._client.wire.send("DELETE", _hook(id))

    async def ping(self, id: str) -> Delivery:
        """Send a delivery that tells of nothing."""
        return _delivery(id, await self._call("POST", _hook(id, "/ping"), _DeliveryForm))

    async def deliveries(
        self,
        id: str,
        *,
        states: Collection[str] = (),
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[Delivery]:
        """List what it was told, the newest first."""
        query: dict[str, Any] = {
            "state": list(states) or None,
            "before": before,
            "limit": min(limit, 500),
        }
        page = await self._call("GET", _hook(id, "/deliveries"), _DeliveryPage, **query)
        return [_delivery(id, one) for one in page.items]

    async def redeliver(self, id: str, number: int) -> Delivery:
        """Deliver something again."""
        path = _hook(id, f"/deliveries/{number}/redeliver")
        return _delivery(id, await self._call("POST", path, _DeliveryForm))


def _hook(id: str, word: str = "") -> str:
    return f"/webhooks/{quote(checked_name(id, 'webhook'), safe='')}{word}"


def _wanted(wanted: Wanted) -> dict[str, Any]:
    return {
        "task": wanted.task,
        "prefix": wanted.prefix,
        "states": list(wanted.states),
        "transitions": list(wanted.transitions),
        "labels": dict(wanted.labels),
    }


def _webhook(form: _WebhookForm) -> Webhook:
    said = form.filter
    wanted = Wanted(
        task=said.task,
        prefix=said.prefix,
        states=said.states,
        transitions=said.transitions,
        labels=said.labels,
    )
    terms = Terms(url=form.url, wanted=wanted, description=form.description, why=form.reason)
    return Webhook(
        id=form.id,
        revision=0,
        state=form.state,
        terms=terms,
        secret_version=0,
        former_until=reading.us(form.former_secret_until),
        created_at=microseconds_of(form.created_at),
        updated_at=microseconds_of(form.updated_at),
        feed="",
        position=0,
        failing_since=reading.us(form.failing_since),
        pending=form.pending,
        waiting_since=reading.us(form.waiting_since),
    )


def _new(form: _NewForm) -> NewWebhook:
    return NewWebhook(_webhook(form.webhook), form.secret)


def _delivery(id: str, form: _DeliveryForm) -> Delivery:
    return Delivery(
        webhook_id=id,
        number=form.number,
        kind=form.kind,
        execution_id=form.execution_id or "",
        seq=form.seq or 0,
        state=form.state,
        attempts=form.attempts,
        created_at=microseconds_of(form.created_at),
        next_at=reading.us(form.next_at) or 0,
        tried_at=reading.us(form.tried_at),
        status=form.status,
        error=form.error,
    )


__all__ = [
    "ClientLimits",
    "ClientQueues",
    "ClientSchedules",
    "ClientTenants",
    "ClientWebhooks",
    "FarBook",
    "FarHooks",
    "FarOffice",
]
