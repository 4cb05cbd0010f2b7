"""A guest of a store that is behind a server: what the command line uses for ``--store http://…``.

It is :class:`outlast.engine.guest.Guest` with another inside. What that reads of its store, this
reads over HTTP (:class:`RemoteStore`); what it writes in a transaction of its own, this asks the
server for. What only the file itself can do, as a backup, is refused.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import quote

import msgspec

from outlast.client import reading
from outlast.client.client import Client
from outlast.client.far import FarBook, FarHooks, FarOffice
from outlast.client.following import fed, followed
from outlast.client.reading import read
from outlast.engine.control.bulk import BulkReport
from outlast.engine.control.descent import Descent
from outlast.engine.control.handle import Execution
from outlast.engine.guest import Guest
from outlast.engine.read.doctor import Finding
from outlast.engine.read.feed import EventFilter, FeedEvent
from outlast.engine.read.inbox import QuestionPage
from outlast.engine.read.questions import OpenQuestion
from outlast.engine.task.registry import StartOptions, Task
from outlast.errors import (
    CannotLoad,
    NameTaken,
    NotFound,
    OutlastError,
    ServerUnreachable,
)
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import Message, MessageKind, Reason, Transition
from outlast.store.protocol import (
    Adjust,
    Answer,
    BudgetEvent,
    BudgetRow,
    Filter,
    InboxEntry,
    ProgressRow,
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
        return _Waiting(self.client, FarBook(self.client))

    @property
    def webhooks(self) -> Any:
        """The webhooks behind the server."""
        return _Waiting(self.client, FarHooks(self.client))

    @property
    def office(self) -> Any:
        """The queues and limits behind the server."""
        return _Waiting(self.client, FarOffice(self.client))

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
        from outlast.engine.write.request import new_message

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
        return self._client.tenants.all()

    def get(self, name: str) -> Tenant | None:
        """Read one."""
        return next((one for one in self.page() if one.name == name), None)

    def add(self, name: str, now: int, deed: object = None) -> bool:
        """Add one; the server says who did it, and when."""
        try:
            self._client.tenants.add(name)
        except NameTaken:
            return False
        return True

    def close(self, name: str, at: int | None, deed: object = None) -> bool:
        """Close one, or open it."""
        change = self._client.tenants.open if at is None else self._client.tenants.close
        change(name)
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

    def instant(self, now: int) -> int:
        """Give the instant that is given: what happens there gets the server's own."""
        return now

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


class _Waiting:
    """An office that is asked over HTTP, for a thread: each call waits for its answer."""

    def __init__(self, client: Client, far: Any) -> None:
        self._client, self._far = client, far

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._far, name)
        return lambda *args, **more: self._client.run(method(*args, **more))


__all__ = ["RemoteGuest", "is_server"]
