"""A guest of a store that is behind a server: what the command line uses for ``--store http://…``.

It is :class:`outlast.engine.guest.Guest` with another inside. What that reads of its store, this
reads over HTTP (:class:`RemoteStore`); what it writes in a transaction of its own, this asks the
server for. What only the file itself can do, as a backup, is refused.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import quote

import msgspec

from outlast.client import reading
from outlast.client.client import Client
from outlast.client.following import fed, followed
from outlast.client.reading import read
from outlast.duration import instant, microseconds_of
from outlast.engine.bulk import BulkReport
from outlast.engine.descent import Descent
from outlast.engine.doctor import Finding
from outlast.engine.feed import EventFilter, FeedEvent
from outlast.engine.guest import Guest
from outlast.engine.handle import Execution
from outlast.engine.inbox import QuestionPage
from outlast.engine.questions import OpenQuestion
from outlast.engine.registry import StartOptions, Task
from outlast.errors import (
    CannotLoad,
    NameTaken,
    NotFound,
    OutlastError,
    ScheduleRefused,
    ServerUnreachable,
)
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import Message, MessageKind, Reason, Transition
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
    Adjust,
    Answer,
    BudgetEvent,
    BudgetRow,
    Filter,
    GateRow,
    InboxEntry,
    ProgressRow,
    QueueRow,
    QueueSetting,
    Setting,
    StreamHead,
    StreamItem,
    Tenant,
    WorkerRow,
)
from outlast.store.protocol import (
    Descent as Made,
)

T = TypeVar("T")
TICK_SECONDS: Final = 0.05


def is_server(url: str) -> bool:
    """Tell whether an address is a server's."""
    return url.startswith(("http://", "https://"))


class RemoteGuest(Guest):
    """A guest of a server.

    Args:
        url: its address.
        token: the token; by default ``OUTLAST_TOKEN``.
        tenant: whose executions; by default ``OUTLAST_TENANT``, else the server's default.
    """

    def __init__(self, url: str, token: str | None = None, *, tenant: str | None = None) -> None:
        self.client = Client(url, token=token, tenant=tenant)
        super().__init__(url, tenant=tenant, opened=RemoteStore(self.client))  # type: ignore[arg-type]

    def close(self) -> None:
        """Let go of the connections."""
        self.client.close()

    def owner(self) -> str | None:
        """Say that the server's engine serves the store."""
        return f"the server {self.url}"

    def serving(self) -> list[WorkerRow]:
        """Give the workers that live: the server knows them."""
        return self.store.workers()

    @property
    def tenants(self) -> Any:
        """The tenants behind the server, by its default one."""
        return RemoteTenants(self.client)

    @property
    def book(self) -> Any:
        """The schedules behind the server."""
        return RemoteBook(self.client)

    @property
    def office(self) -> Any:
        """The queues and limits behind the server."""
        return RemoteOffice(self.client)

    def standing(self, record: Record, owner: str | None) -> Reason | None:
        """Say why an execution is not moving, as the server knows it."""
        return self.client.run(self.client.read_standing(record))

    def input_schema(self, task: str) -> Mapping[str, Any]:
        """Give what a task of the server takes, as JSON Schema.

        Raises:
            NotFound: the server knows no such task.
        """
        said = self.client.run(self.client.wire.get(f"/tasks/{quote(task, safe='')}"))
        schema: Mapping[str, Any] = msgspec.json.decode(said)["input_schema"]
        return schema

    def start(
        self,
        task: Task[Any, Any] | str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: StartOptions,
    ) -> tuple[Record, bool]:
        """Start an execution there; gives its row, and whether it is new."""
        return self.client.run(self.client.astart_row(options, task, args, kwargs))

    def descend(self, id: str, wish: Descent, task: Task[Any, Any] | None = None) -> Record:
        """Make another execution of one; gives its row."""
        return self.client.run(self.client.adescend(id, wish))

    def _send(
        self,
        id: str,
        kind: MessageKind,
        actor: str,
        *,
        key: str | None = None,
        data: dict[str, Any] | None = None,
        payload: bytes | None = None,
        message_id: str | None = None,
    ) -> Record:
        from outlast.engine.request import new_message

        message: Message = new_message(
            kind, actor, key=key, data=data, payload=payload, id=message_id
        )
        return self.client.run(self.client.asend(id, message))

    def answer(
        self, id: str, value: object, *, key: str | None = None, actor: str = "user"
    ) -> Record:
        """Answer an open question of an execution; the first answer wins."""
        question = self.question(id, key)
        return self._send(
            id, MessageKind.ANSWER, actor, key=question.key, payload=question.check(value)
        )

    def answer_token(
        self, id: str, key: str | None = None, *, span_us: int, actor: str | None = None
    ) -> str:
        """Make a token with which somebody may answer a question, once."""
        question = self.question(id, key)
        by = actor or question.to or "token"
        return self.client.run(self.client.amake_token(question, by, span_us))

    def question_by_token(self, token: str) -> OpenQuestion:
        """Give the question that a token permits to answer."""
        return self.client.question_by_token(token)

    def answer_by_token(self, token: str, value: object) -> Record:
        """Answer a question with a token; gives the execution's row."""
        handle: Execution[Any] = self.client.answer_by_token(token, value)
        return handle.record()

    def inbox(self, to: str | None = None, **more: Any) -> QuestionPage:
        """Give the open questions of all executions."""
        return self.client.questions(to, **more)

    def bulk(
        self,
        action: str,
        filter: Filter,
        *,
        why: str | None = None,
        actor: str = "user",
        confirm: Callable[[BulkReport], bool] = lambda report: True,
    ) -> BulkReport:
        """Do something to all executions that a filter fits."""
        report = self.client.bulk(action, filter, dry_run=True)
        if not confirm(report):
            return report
        return self.client.bulk(action, filter, why=why)

    def adjust(self, item: Adjust) -> Answer:
        """Change budgets; gives what the store would say."""
        return Answer(budgets=self.client.run(self.client.aadjust(item)))

    def follow(
        self, id: str, after_seq: int = 0, *, poll_seconds: float = TICK_SECONDS
    ) -> Iterator[Sequence[Transition]]:
        """Give the rows of a log as the server sends them, to the final one."""
        came: queue.SimpleQueue[Transition | BaseException | None] = queue.SimpleQueue()

        async def listen() -> None:
            try:
                async for row in followed(self.client.wire, id, after_seq):
                    came.put(row)
                came.put(None)
            except OutlastError as error:
                came.put(error)

        stop = self.client.spawn(listen())
        try:
            while True:
                try:
                    found = came.get(timeout=poll_seconds)
                except queue.Empty:
                    yield ()
                    continue
                if found is None:
                    return
                if isinstance(found, BaseException):
                    raise found
                yield (found,)
        finally:
            stop()

    def publish(
        self,
        name: str,
        value: object = None,
        *,
        key: str | None = None,
        task: str | None = None,
        labels: Mapping[str, str] | None = None,
        actor: str = "user",
    ) -> Record:
        """Publish an event; gives the execution that sends it."""
        sent = self.client.publish(name, value, key=key, task=task, labels=labels)
        return self.client.run(self.client.read_one(sent.id))

    def events(
        self, after: str | None, filter: EventFilter
    ) -> Iterator[tuple[str, list[FeedEvent]]]:
        """Give what happens to all executions, as the server sends it."""
        came: queue.SimpleQueue[FeedEvent | str | BaseException] = queue.SimpleQueue()
        query: dict[str, Any] = {
            "state": [*filter.states],
            "transition": [*filter.kinds],
            "label": [f"{name}={value}" for name, value in filter.labels.items()],
        }
        for name in ("task", "prefix"):
            if (word := getattr(filter, name)) is not None:
                query[name] = word

        async def listen() -> None:
            try:
                async for one in fed(self.client.wire, after, query):
                    came.put(one)
            except OutlastError as error:
                came.put(error)

        stop = self.client.spawn(listen())
        cursor: str | None = None
        try:
            while True:
                try:
                    found = came.get(timeout=TICK_SECONDS)
                except queue.Empty:
                    if cursor is not None:
                        yield cursor, []
                    continue
                if isinstance(found, BaseException):
                    raise found
                cursor = found if isinstance(found, str) else found.cursor
                yield cursor, [] if isinstance(found, str) else [found]
        finally:
            stop()

    def _may_have_changed(self) -> bool:
        return True


class RemoteTenants:
    """The verbs on tenants, over HTTP."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def page(self) -> list[Tenant]:
        """List them; numbers are the store's own business."""
        data = self._client.run(self._client.wire.get("/tenants"))
        items = read(data, reading.TenantPage, self._client.url).items
        return [
            Tenant(
                DEFAULT_NUMBER if one.created_at is None else 0,
                one.name,
                reading.us(one.created_at) or 0,
                reading.us(one.closed_at),
            )
            for one in items
        ]

    def get(self, name: str) -> Tenant | None:
        """Read one."""
        return next((one for one in self.page() if one.name == name), None)

    def add(self, name: str, now: int, deed: object = None) -> bool:
        """Add one; the server says who did it, and when."""
        try:
            self._client.run(self._client.wire.post("/tenants", {"name": name}))
        except NameTaken:
            return False
        return True

    def close(self, name: str, at: int | None, deed: object = None) -> bool:
        """Close one, or open it."""
        word = "open" if at is None else "close"
        self._client.run(self._client.wire.post(f"/tenants/{name}/{word}", {}))
        return True


class RemoteStore:
    """What the command line reads of a store, read over HTTP."""

    def __init__(self, client: Client) -> None:
        self.url, self._client = client.url, client
        self.is_shared = True

    def __getattr__(self, name: str) -> NoReturn:
        raise CannotLoad(
            "this is done with the store itself, not over HTTP",
            where=self.url,
            why=f"a server does not offer {name}",
            do="outlast … --store, with the file or database, where the server runs",
        )

    def close(self) -> None:
        """Close nothing: the guest closes the client."""

    def changed(self) -> bool:
        """Tell that something may have changed."""
        return True

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._client.run(coroutine)

    def _get(self, path: str, form: type[T], **query: Any) -> T:
        return read(self._run(self._client.wire.get(path, **query)), form, self.url)

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """Read executions by id, in order."""
        return [self._one(id) for id in ids]

    def _one(self, id: str) -> Record | None:
        try:
            return self._run(self._client.read_one(quote(id, safe="")))
        except NotFound:
            return None

    def findings(self) -> list[Finding]:
        """Let the server examine its store."""
        return self._get("/system/doctor", _Findings).findings

    def find(self, text: str, limit: int) -> list[str]:
        """Give ids that begin, or end, with this text."""
        page = self._get("/executions", reading.RowPage, find=text[:64], limit=limit)
        return [one.id for one in page.items]

    def page(self, filter: Filter) -> list[Record]:
        """List executions, newest first."""
        return self._run(self._client.read_page(filter))

    def log(self, id: str, after_seq: int = 0, limit: int = -1) -> list[Transition]:
        """Read an execution's log in order."""
        rows = self._run(self._client.read_log(id, after_seq))
        return rows if limit < 0 else rows[:limit]

    def inbox(self, id: str, after: int = 0) -> list[InboxEntry]:
        """Read nothing: what a cancel waits for, the server's reason says."""
        return []

    def descents(self, ids: Sequence[str]) -> list[Made]:
        """Tell of what these executions were made, and what was made of them."""
        found: list[Made] = []
        for id in ids:
            for one in self._get(f"/executions/{id}/descents", _Descents).items:
                made = Made(one.id, one.source, one.mode, one.step)
                if made not in found:
                    found.append(made)
        return found

    def dependents(self, id: str, limit: int) -> list[str]:
        """Name nobody: a server does not tell who waits for an execution."""
        return []

    def progress(self, ids: Collection[str]) -> dict[str, ProgressRow]:
        """Say how far these executions are, as far as the server answers: it is a hint."""
        found: dict[str, ProgressRow] = {}
        with contextlib.suppress(ServerUnreachable):
            for id in ids:
                row = self._run(self._client.read_progress(id))
                if row is not None:
                    found[id] = row
        return found

    def streams(self, id: str) -> list[StreamHead]:
        """Name the streams of an execution."""
        return self._run(self._client.read_streams(id))

    def stream(self, id: str, name: str, after: int = 0, limit: int = -1) -> list[StreamItem]:
        """Read a stream of an execution from behind an item on."""
        few = 500 if limit < 0 else limit
        return self._run(self._client.read_stream(id, name, after, few))

    def workers(self) -> list[WorkerRow]:
        """Give the known process incarnations, newest first."""
        return []

    def budgets(self, scopes: Collection[str] | None = None) -> list[BudgetRow]:
        """Read budgets."""
        return self._run(self._client.read_budgets(scopes))

    def budget_events(self, scope: str, meter: str) -> list[BudgetEvent]:
        """Read nothing: a server shows budgets, not their history."""
        return []


class _DescentForm(msgspec.Struct):
    id: str
    source: str
    mode: str
    step: str | None


class _Findings(msgspec.Struct):
    findings: list[Finding]


class _Descents(msgspec.Struct):
    items: list[_DescentForm]


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


class _Remote:
    def __init__(self, client: Client) -> None:
        self._client = client

    def _call(self, method: str, path: str, form: type[T], body: Any = None, **query: Any) -> T:
        sent = self._client.wire.send(method, path, body=body, query=query)
        return read(self._client.run(sent).content, form, self._client.url)


class RemoteOffice(_Remote):
    """What :class:`outlast.engine.capacity.Office` does, over HTTP."""

    def queues(self) -> list[QueueRow]:
        """List the queues, by name."""
        return [
            QueueRow(
                _queue(one), one.queued, one.blocked, one.leased, reading.us(one.waiting_since)
            )
            for one in self._call("GET", "/queues", _Queues).items
        ]

    def pause(self, queue: str, why: str | None = None, *, actor: str = "user") -> QueueSetting:
        """Let nothing be claimed from a queue."""
        return self._patch(queue, {"paused": True, "reason": why})

    def resume(self, queue: str) -> QueueSetting:
        """Let a paused queue go on."""
        return self._patch(queue, {"paused": False})

    def limit_queue(self, queue: str, capacity: int | None) -> QueueSetting:
        """Let at most so many executions of a queue run at once."""
        return self._patch(queue, {"capacity": capacity})

    def _patch(self, name: str, body: Any) -> QueueSetting:
        return _queue(self._call("PATCH", f"/queues/{quote(name, safe='')}", _QueueForm, body))

    def gates(self) -> list[GateRow]:
        """List the limits, rates and capabilities, by name."""
        return [
            GateRow(one.limit, _rule(one.setting), one.holders, one.waiting, one.next)
            for one in self._call("GET", "/limits", _Limits).items
        ]

    def set_limit(self, name: str, capacity: int, *, actor: str = "user") -> Setting:
        """Set how many may hold a limit."""
        return self._put(name, {"capacity": capacity})

    def set_rate(
        self, name: str, count: int, period: Any, *, burst: int = 1, actor: str = "user"
    ) -> Setting:
        """Set a rate."""
        from outlast.duration import microseconds

        name = name if name.startswith("rate:") else f"rate:{name}"
        rate = {"count": count, "period": f"{microseconds(period)}us", "burst": burst}
        return self._put(name, {"rate": rate})

    def _put(self, name: str, body: Any) -> Setting:
        made = self._call("PUT", f"/limits/{quote(name, safe='')}", _RuleForm, body)
        setting = _rule(made)
        assert setting is not None
        return setting

    def reset(self, name: str) -> None:
        """Take back what was set."""
        sent = self._client.wire.send("DELETE", f"/limits/{quote(name, safe='')}")
        self._client.run(sent)


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


class RemoteBook(_Remote):
    """What :class:`outlast.engine.schedules.Book` does, over HTTP."""

    def get(self, name: str) -> ScheduleRecord:
        """Read a schedule."""
        return _schedule(self._call("GET", self._path(name), _ScheduleForm))

    def every(self, states: Sequence[ScheduleState] = ()) -> list[ScheduleRecord]:
        """List all schedules by name."""
        page = self._call("GET", "/schedules", _Schedules, state=list(states) or None)
        return [_schedule(one) for one in page.items]

    def next(self, name: str, count: int = 5) -> list[datetime]:
        """Give its next slots, in its time zone."""
        from outlast.schedule.plan import wall

        tz = self.get(name).plan.tz
        page = self._call("GET", self._path(name, "next"), _Slots, n=min(count, 100))
        return [wall(microseconds_of(one), tz) for one in page.slots]

    def log(self, name: str, before: int | None = None, limit: int = 100) -> list[Entry]:
        """Read a schedule's log, the newest entry first."""
        path, few = self._path(name, "log"), min(limit, 500)
        page = self._call("GET", path, _Entries, before=before, limit=few)
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

    def fate(self, name: str, at: datetime) -> str:
        """Say what became of a slot, as far as its log is shown."""
        from outlast.engine.fate import fate_of

        record, slot = self.get(name), microseconds_of(at)
        about = [one for one in self.log(name, None, 500) if _is_about(one, slot)]
        return fate_of(record, about, slot, time.time_ns() // 1000)

    def apply(self, name: str, request: Request) -> Any:
        """Make a request.

        Raises:
            ScheduleRefused: it cannot take this now, or not over HTTP.
        """
        from outlast.store.protocol import ScheduleAnswer

        made: list[str] = []
        if request.wish in (Wish.CREATE, Wish.UPDATE) and request.draft is not None:
            record = self._call("PUT", self._path(name), _ScheduleForm, _put_body(request.draft))
        elif request.wish is Wish.CANCEL:
            record = self._call("DELETE", self._path(name), _ScheduleForm)
        elif request.wish in (Wish.PAUSE, Wish.RESUME):
            path = self._path(name, str(request.wish))
            record = self._call("POST", path, _ScheduleForm, {"reason": request.why})
        else:
            body: dict[str, Any] = {"reason": request.why}
            if request.wish is Wish.BACKFILL:
                body = {"since": instant(request.since), "until": instant(request.until)}
            elif request.wish is not Wish.TRIGGER:
                raise ScheduleRefused(f"{request.wish} is not possible over HTTP")
            made = self._call("POST", self._path(name, str(request.wish)), _Ids, body).items
            record = self._call("GET", self._path(name), _ScheduleForm)
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


__all__ = ["RemoteGuest", "is_server"]
