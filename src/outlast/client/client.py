"""The client: what an engine gives its callers, over HTTP.

It is what stands behind a handle (:class:`outlast.engine.control.handle.Backing`), so that the
handles are the very same as those of an engine, and everything that is built on them. What it may
do is decided by the server; who did it is noted there by the token, whatever ``actor`` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

import httpx
import msgspec

from outlast.budget import UNIT
from outlast.client import reading
from outlast.client.far import (
    ClientLimits,
    ClientQueues,
    ClientSchedules,
    ClientTenants,
    ClientWebhooks,
)
from outlast.client.following import fed
from outlast.client.reading import read
from outlast.client.wire import Wire
from outlast.duration import instant
from outlast.engine.background import LoopThread
from outlast.engine.control.budgets import Budgets
from outlast.engine.control.bulk import BulkReport, action_of
from outlast.engine.control.descent import Descent, Mode
from outlast.engine.control.group import Group
from outlast.engine.control.handle import Execution
from outlast.engine.primitives.publishing import Published
from outlast.engine.read.feed import Events, filter_of
from outlast.engine.read.inbox import QuestionPage
from outlast.engine.read.questions import OpenQuestion
from outlast.engine.task.current import closed, opened
from outlast.engine.task.registry import PLAIN, TASKS, StartOptions, Task, by_name
from outlast.engine.write.clock import Clock, WallClock
from outlast.errors import Forbidden, NoEngine, OutlastError, UsageError
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import Message, MessageKind, Reason, Transition
from outlast.lifecycle.record import continued_as
from outlast.naming import SCHEDULE_ORIGIN, checked_tenant
from outlast.store.protocol import (
    Adjust,
    BudgetRow,
    Filter,
    ProgressRow,
    StreamHead,
    StreamItem,
)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
PAGE: Final = 500
WAIT: Final = "30s"
CHANGE_SECONDS: Final = 0.25
"""How long one who watches waits for an event before looking: streams have none of their own."""
AT_ONCE: Final = 16
"""Starts that are under way at once, of many."""
KEEP_SECONDS: Final = 20.0
"""How long the events of an execution are listened to that nobody asks for any more."""


class Client:
    """Speaks to a server; gives the same handles as an engine.

    Use it with ``async with``, or with ``with`` from a thread; each method of a handle works as
    with an :class:`outlast.Engine`. Without either, the methods without an ``a`` work as well.

    Args:
        url: the server's address, as ``http://127.0.0.1:7575``; by default ``OUTLAST_STORE``.
        token: the token; by default ``OUTLAST_TOKEN``.
        tenant: whose executions; by default ``OUTLAST_TENANT``, else the server's default.
        tasks: the tasks whose results are read by their types; by default every task defined in
            this process.
        transport: what carries the requests; for tests.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        tenant: str | None = None,
        tasks: Iterable[Task[Any, Any]] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        said = tenant or os.environ.get("OUTLAST_TENANT")
        self.tenant = None if said is None else checked_tenant(said)
        self.url = url or os.environ.get("OUTLAST_STORE") or ""
        self._token = token or os.environ.get("OUTLAST_TOKEN")
        self._transport = transport
        self._tasks = None if tasks is None else by_name(tasks)
        self.wire = Wire(self.url, self._token, transport, tenant=self.tenant)
        self.clock: Clock = WallClock()
        self.budgets = Budgets(self)
        self.schedules = ClientSchedules(self)
        self.queues, self.limits = ClientQueues(self), ClientLimits(self)
        self.webhooks = ClientWebhooks(self)
        self.tenants = ClientTenants(self)
        self._thread: LoopThread | None = None
        self._ears: dict[str, _Ear] = {}

    async def __aenter__(self) -> Self:
        opened(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        opened(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def aclose(self) -> None:
        """Let go of the connections; executions go on."""
        closed(self)
        for ear in list(self._ears.values()):
            await ear.close()
        self._ears.clear()
        await self.wire.close()

    def close(self) -> None:
        """Let go of the connections, from a thread."""
        closed(self)
        if self._thread is not None:
            with contextlib.suppress(NoEngine):
                self._thread.run(self.aclose())
            self._thread.stop()
            self._thread = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of a handle's from a thread without a loop."""
        if self._thread is None:
            self._thread = LoopThread()
        return self._thread.run(coroutine)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> Callable[[], None]:
        """Begin a coroutine beside the caller's thread; gives what stops it."""
        if self._thread is None:
            self._thread = LoopThread()
        began: list[asyncio.Task[None]] = []

        async def begin() -> None:
            began.append(asyncio.create_task(coroutine))

        async def stop() -> None:
            began[0].cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await began[0]

        thread = self._thread
        try:
            thread.run(begin())
        except BaseException:
            coroutine.close()  # its loop has ended, and never begins it
            raise
        return lambda: thread.run(stop())

    @property
    def tasks(self) -> Mapping[str, Task[Any, Any]]:
        """The tasks whose results can be read by their types."""
        return TASKS if self._tasks is None else self._tasks

    # Starting

    async def astart(
        self, task: Task[P, R] | str, /, *args: P.args, **kwargs: P.kwargs
    ) -> Execution[R]:
        """Start an execution and give its handle, once it is durable there.

        Args:
            task: a task, or the name of one whose code is not here; it takes arguments by name.
            args: the arguments.
            kwargs: the same, by name.

        Raises:
            WrongArguments, BadPayload, PayloadTooLarge, UnknownTask: nothing was written.
            ServerUnreachable, StoreUnavailable: whether it was started is unknown; with a key it is
                safe to repeat.
        """
        return await self.astart_with(PLAIN, task, args, kwargs)

    def start(self, task: Task[P, R] | str, /, *args: P.args, **kwargs: P.kwargs) -> Execution[R]:
        """Start an execution, as :meth:`astart`, from a thread."""
        return self.run(self.astart_with(PLAIN, task, args, kwargs))

    def start_with(
        self,
        options: StartOptions,
        task: Task[Any, R] | str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Execution[R]:
        """Start an execution with options, as :meth:`astart_with`, from a thread."""
        return self.run(self.astart_with(options, task, args, kwargs))

    async def astart_with(
        self,
        options: StartOptions,
        task: Task[Any, R] | str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Execution[R]:
        """Start an execution with options.

        Raises:
            KeyConflict: the key belongs to another task or input; nothing was written.
            UsageError: a limit, a rate or a capability is given, which only the task's code can.
        """
        record, _ = await self.astart_row(options, task, args, kwargs)
        return Execution(self, record.id, None if isinstance(task, str) else task)

    async def astart_many(
        self,
        task: Task[Any, R],
        inputs: Iterable[tuple[Any, ...]],
        options: StartOptions = PLAIN,
    ) -> list[Execution[R]]:
        """Start an execution for each tuple of arguments, some at once; gives them in order.

        Raises:
            WrongArguments, BadPayload, PayloadTooLarge, ServerUnreachable, StoreUnavailable: which
                of them were started is unknown.
        """
        room = asyncio.Semaphore(AT_ONCE)

        async def one(args: tuple[Any, ...]) -> Execution[R]:
            async with room:
                return await self.astart_with(options, task, args, {})

        return list(await asyncio.gather(*map(one, inputs)))

    def start_many(
        self, task: Task[Any, R], inputs: Iterable[tuple[Any, ...]]
    ) -> list[Execution[R]]:
        """Start many executions, as :meth:`astart_many`, from a thread."""
        return self.run(self.astart_many(task, inputs))

    async def astart_row(
        self,
        options: StartOptions,
        task: Task[Any, R] | str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> tuple[Record, bool]:
        """Start an execution, as :meth:`astart_with`; gives its row, and whether it is new."""
        body = _start_body(options, task, args, kwargs)
        answer = await self.wire.send("POST", "/executions", body=body)
        record = reading.record_of(read(answer.content, reading.RowForm, self.url))
        return record, answer.status_code == 201

    async def adescend(self, id: str, wish: Descent) -> Record:
        """Make another execution of one; gives its row."""
        body: dict[str, Any] = {"reason": wish.why, "key": wish.key}
        if wish.mode is not Mode.RECOVER:
            document = {} if wish.document is None else msgspec.json.decode(wish.document)
            body["input"] = {**document, **(wish.edits or {})}
        if wish.mode is Mode.FORK:
            body["from_step"] = wish.step
        return await self._row(self.wire.post(f"/executions/{id}/{wish.mode}", body))

    # Messages

    async def asend(self, id: str, message: Message) -> Record:
        """Deliver a message to an execution; gives its row after it."""
        word, body = _spoken(message)
        key = None if message.kind is MessageKind.SIGNAL else message.id
        if message.kind is MessageKind.SIGNAL:
            body["id"] = message.id
        return await self._row(self.wire.post(f"/executions/{id}/{word}", body, key=key))

    async def amake_token(self, question: OpenQuestion, actor: str, span_us: int) -> str:
        """Make a token that permits one answer to a question, for so long."""
        body = {"key": question.key, "expires": f"{span_us}us", "actor": actor}
        said = await self.wire.post(f"/executions/{question.execution_id}/answer-token", body)
        return str(msgspec.json.decode(said)["token"])

    async def aquestion_by_token(self, token: str) -> OpenQuestion:
        """Give the question that a token permits to answer."""
        said = await self.wire.post("/answers/look", {"token": token})
        return reading.question_of(read(said, reading.QuestionForm, self.url))

    def question_by_token(self, token: str) -> OpenQuestion:
        """Give the question of a token, as :meth:`aquestion_by_token`."""
        return self.run(self.aquestion_by_token(token))

    async def aanswer_by_token(self, token: str, value: Any) -> Execution[Any]:
        """Answer a question with a token; gives the handle of its execution."""
        said = await self.wire.post("/answers", {"token": token, "value": value})
        return self.execution(read(said, reading.QuestionForm, self.url).id)

    def answer_by_token(self, token: str, value: Any) -> Execution[Any]:
        """Answer a question with a token, as :meth:`aanswer_by_token`."""
        return self.run(self.aanswer_by_token(token, value))

    async def aquestions(
        self,
        to: str | None = None,
        *,
        oldest_first: bool = False,
        cursor: str | None = None,
        limit: int = 50,
    ) -> QuestionPage:
        """Give the questions of all executions that somebody can still answer, a page at a time."""
        said = await self.wire.get(
            "/questions", to=to, oldest_first=oldest_first, cursor=cursor, limit=min(limit, PAGE)
        )
        page = read(said, reading.QuestionsForm, self.url)
        return QuestionPage([reading.question_of(one) for one in page.items], page.next)

    def questions(self, to: str | None = None, **more: Any) -> QuestionPage:
        """Give open questions, as :meth:`aquestions`."""
        return self.run(self.aquestions(to, **more))

    async def abulk(
        self,
        action: str,
        filter: Filter,
        *,
        why: str | None = None,
        actor: str = "user",
        dry_run: bool = False,
    ) -> BulkReport:
        """Do something to all executions that a filter fits, as :meth:`outlast.Engine.abulk`."""
        body = {
            "action": action_of(action),
            "filter": _filter_body(filter),
            "reason": why,
            "dry_run": dry_run,
        }
        said = read(await self.wire.post("/bulk", body), reading.BulkForm, self.url)
        return BulkReport(
            said.action,
            said.matched,
            reading.us(said.oldest_at),
            said.sample,
            said.done,
            said.made,
            said.refused,
            said.is_dry,
        )

    def bulk(self, action: str, filter: Filter, **more: Any) -> BulkReport:
        """Do something to all executions that a filter fits, as :meth:`abulk`."""
        return self.run(self.abulk(action, filter, **more))

    # Looking

    def execution(self, id: str) -> Execution[Any]:
        """Give the handle of an execution by its id; it is looked up at the first use."""
        return Execution(self, id, None)

    async def apublish(
        self,
        name: str,
        value: Any = None,
        *,
        key: str | None = None,
        task: str | None = None,
        labels: Mapping[str, str] | None = None,
        actor: str = "user",
    ) -> Published:
        """Send an event to every execution that is open, as :meth:`outlast.Engine.apublish`.

        Who publishes it is the token's name.
        """
        body = {"name": name, "value": value, "task": task, "labels": dict(labels or {})}
        answer = await self.wire.send("POST", "/events", body=body, key=key)
        said = read(answer.content, reading.PublishedForm, self.url)
        reached = said.reached
        if reached is None:
            reached = await self.execution(said.id).aresult()
        return Published(said.id, said.name, reached, answer.status_code != 200)

    def publish(self, name: str, value: Any = None, **more: Any) -> Published:
        """Send an event to every execution that is open, as :meth:`apublish`."""
        return self.run(self.apublish(name, value, **more))

    def events(
        self,
        *,
        after: str | None = None,
        task: str | None = None,
        prefix: str | None = None,
        states: Collection[str] = (),
        transitions: Collection[str] = (),
        labels: Mapping[str, str] | None = None,
        payload: bool = False,
    ) -> Events:
        """Give what happens to all executions, as :meth:`outlast.Engine.events`.

        Of those that the token may read. Where the server is away it goes on once it is back.
        """
        filter_of(task, prefix, states, transitions, labels)
        query: dict[str, Any] = {
            "task": task,
            "prefix": prefix,
            "state": [*states],
            "transition": [*transitions],
            "label": [f"{name}={value}" for name, value in (labels or {}).items()],
            "payload": payload,
        }
        given = {name: value for name, value in query.items() if value is not None}
        return Events(lambda cursor: fed(self.wire, cursor, given), self.run, after)

    def group(self, name: str) -> Group:
        """Give the executions that are started under a name, as :meth:`outlast.Engine.group`."""
        return Group(self, name)

    async def read_one(self, id: str) -> Record:
        """Read an execution's row."""
        return await self._row(self.wire.get(f"/executions/{id}"))

    async def read_page(self, filter: Filter) -> list[Record]:
        """List executions, the newest first."""
        found: list[Record] = []
        before = filter.before_id
        while True:
            limit = min(PAGE, filter.limit - len(found))
            said = await self.wire.get(
                "/executions", **{**_filter_query(filter), "cursor": before, "limit": limit}
            )
            page = read(said, reading.RowPage, self.url)
            found += [reading.record_of(one) for one in page.items]
            before = page.next
            if before is None or len(found) >= filter.limit:
                return found

    async def read_log(self, id: str, after_seq: int = 0) -> list[Transition]:
        """Read an execution's log from behind a row on; its payloads, where they may be read."""
        rows: list[Transition] = []
        seq: int | None = after_seq
        sees = True
        while seq is not None:
            try:
                said = await self.wire.get(
                    f"/executions/{id}/transitions", after_seq=seq, limit=PAGE, payload=sees
                )
            except Forbidden:
                if not sees:
                    raise
                sees = False
                continue
            page = read(said, reading.LogPage, self.url)
            rows += [reading.transition_of(one) for one in page.items]
            seq = page.next
        return rows

    async def next_change(self, id: str) -> None:
        """Wait until something may have changed about an execution."""
        ear = self._ears.get(id)
        if ear is None or ear.task.done():
            ear = self._ears[id] = _Ear(self, id)
        await ear.hear()

    async def wait_final(self, id: str) -> tuple[Record, Transition]:
        """Wait for an execution's end; gives its row and the last row of its log."""
        while True:
            answer = await self.wire.send("GET", f"/executions/{id}/result", query={"wait": WAIT})
            if answer.status_code == 202:
                continue
            record = await self.read_one(str(msgspec.json.decode(answer.content)["id"]))
            successor = continued_as(record)
            if successor is not None:
                id = successor
                continue
            rows = await self.read_log(record.id, record.seq - 1)
            return record, rows[-1]

    async def read_standing(self, record: Record) -> Reason | None:
        """Say why an execution is not moving, as the server knows it."""
        said = await self.wire.get(f"/executions/{record.id}/reason")
        return reading.reason_of(read(said, reading.ReasonAnswer, self.url).reason)

    async def read_stream(self, id: str, name: str, after: int, limit: int) -> list[StreamItem]:
        """Read a stream of an execution from behind an item on."""
        said = await self.wire.get(
            f"/executions/{id}/streams/{name}", after=after, limit=min(limit, PAGE)
        )
        return [reading.item_of(one) for one in read(said, reading.ItemPage, self.url).items]

    async def read_streams(self, id: str) -> list[StreamHead]:
        """Name the streams of an execution."""
        said = await self.wire.get(f"/executions/{id}/streams")
        return [reading.head_of(one) for one in read(said, reading.HeadPage, self.url).items]

    async def read_progress(self, id: str) -> ProgressRow | None:
        """Say how far an execution is, in its own words."""
        said = await self.wire.get(f"/executions/{id}/progress")
        return reading.progress_of(read(said, reading.ProgressAnswer, self.url).progress)

    # Budgets

    async def read_budgets(self, scopes: Collection[str] | None) -> list[BudgetRow]:
        """Read the budgets of these scopes; None: all shared ones."""
        paths = ["/budgets"] if scopes is None else [f"/budgets/{one}" for one in scopes]
        rows: list[BudgetRow] = []
        for path in paths:
            page = read(await self.wire.get(path), reading.BudgetPage, self.url)
            rows += [reading.budget_of(one) for one in page.items]
        return rows

    async def aadjust(self, item: Adjust) -> list[BudgetRow]:
        """Change budgets; gives them as they are then."""
        path = f"/budgets/{item.scope}"
        if item.what == "reset":
            said = await self.wire.post(f"{path}/reset", {"meters": list(item.amounts)})
        elif item.what == "raised":
            said = await self.wire.post(f"{path}/raise", {"raise": _amounts(item.amounts)})
        else:
            body: dict[str, Any] = {"limits": _amounts(item.amounts)}
            if item.soft is not None:
                body["soft"] = item.soft / UNIT
            if item.period_us is not None:
                body["period"] = f"{item.period_us}us"
            said = await self.wire.post(path, body, method="PUT")
        page = read(said, reading.BudgetPage, self.url)
        return [reading.budget_of(one) for one in page.items]

    async def _row(self, said: Coroutine[Any, Any, bytes]) -> Record:
        return reading.record_of(read(await said, reading.RowForm, self.url))


class _Ear:
    """Listens to the events of one execution, for as long as somebody asks what is new."""

    def __init__(self, client: Client, id: str) -> None:
        self._client, self._id = client, id
        self._news = asyncio.Event()
        self._asked_at = asyncio.get_running_loop().time()
        self.task = asyncio.create_task(self._listen())

    async def hear(self) -> None:
        """Wait for news, and not for long: what has no event is looked for as well."""
        self._asked_at = asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHANGE_SECONDS):
                await self._news.wait()
        self._news.clear()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OutlastError, httpx.HTTPError):
            seq = (await self._client.read_one(self._id)).seq
            path = f"/executions/{self._id}/events"
            async with self._client.wire.stream(path, after_seq=seq) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith(("id:", "event:")):
                        self._news.set()
                    if loop.time() - self._asked_at > KEEP_SECONDS:
                        return

    async def close(self) -> None:
        """Stop listening."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


def _start_body(
    options: StartOptions, task: Task[Any, Any] | str, args: tuple[Any, ...], kwargs: Any
) -> dict[str, Any]:
    """Write a start.

    Raises:
        UsageError: it has what cannot be said over HTTP.
        WrongArguments, BadPayload, PayloadTooLarge: the task does not take these arguments.
    """
    if isinstance(task, str):
        if args:
            raise UsageError(f"the arguments of {task} have no names here", do="give them by name")
        name, given = task, msgspec.json.encode(dict(kwargs))
    else:
        name, given = task.name, task.input.bind(args, kwargs)
    if options.demand != PLAIN.demand:
        raise UsageError(
            "a limit, a rate or a capability is not taken over HTTP", do="say it in @task(…)"
        )
    body: dict[str, Any] = {
        "task": name,
        "input": msgspec.Raw(given),
        "key": options.key,
        "delay": _span(options.delay_us),
        "start_at": None if options.start_at is None else instant(options.start_at),
        "timeout": _span(options.deadline_us),
        "queue_timeout": _span(options.queue_timeout_us),
        "attempt_timeout": _span(options.attempt_timeout_us),
        "priority": options.priority,
        "queue": options.queue,
        "origin": options.origin,
        "labels": dict(options.labels or {}) or None,
        "after": [one.edge() for one in options.after] or None,
    }
    if options.budget is not None:
        budget = options.budget
        body["budget"] = {"scope": budget.scope, "limits": _amounts(budget.limits)}
        if budget.soft is not None:
            body["budget"]["soft"] = budget.soft / UNIT
    return {name: value for name, value in body.items() if value is not None}


def _spoken(message: Message) -> tuple[str, dict[str, Any]]:
    """Give the action of a message, and its body."""
    data: Any = message.data or {}
    payload = None if message.payload is None else msgspec.Raw(message.payload)
    if message.kind is MessageKind.ANSWER:
        return "answer", {"value": payload, "key": message.key}
    if message.kind is MessageKind.SIGNAL:
        return "signal", {"name": message.key, "value": payload}
    if message.kind is MessageKind.LABELS:
        return "labels", {"labels": data["labels"]}
    if message.kind is MessageKind.PRIORITY:
        return "priority", {"priority": data["priority"]}
    if message.kind is MessageKind.NOTE:
        return "pin", {"version": data["pin"]}
    if message.kind is MessageKind.RESUME:
        return "resume", {"pin": data.get("pin")}
    return str(message.kind), {"reason": data.get("why")}


def _span(span_us: int | None) -> str | None:
    return None if span_us is None else f"{span_us}us"


def _amounts(amounts: Mapping[str, int | None]) -> dict[str, str | None]:
    return {
        meter: None if amount is None else f"{amount // UNIT}.{amount % UNIT:06}"
        for meter, amount in amounts.items()
    }


def _filter_query(filter: Filter) -> dict[str, Any]:
    return {
        "state": list(filter.states) or None,
        "task": filter.task,
        "origin": filter.origin,
        "parent": filter.parent_id,
        "roots": filter.roots or None,
        "label": [f"{name}={value}" for name, value in filter.labels.items()] or None,
        "created_after": _when(filter.created_after),
        "created_before": _when(filter.created_before),
    }


def _filter_body(filter: Filter) -> dict[str, Any]:
    body: dict[str, Any] = {
        "states": list(filter.states),
        "task": filter.task,
        "parent": filter.parent_id,
        "roots": filter.roots,
        "labels": dict(filter.labels),
        "created_after": _when(filter.created_after),
        "created_before": _when(filter.created_before),
    }
    if filter.origin is not None:
        if not filter.origin.startswith(SCHEDULE_ORIGIN):
            raise UsageError("only the origin of a schedule can be acted on over HTTP")
        body["schedule"] = filter.origin.removeprefix(SCHEDULE_ORIGIN)
    return {name: value for name, value in body.items() if value is not None}


def _when(at: int | None) -> str | None:
    return None if at is None else instant(at).isoformat()


__all__ = ["Client"]
