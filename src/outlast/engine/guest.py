"""Access to a store without owning it: another process may run its engine, or none does.

A guest reads, starts executions and sends messages, in short transactions of its own. It never
claims and never runs anything; what it leaves is taken up by the engine that owns the store, within
100 ms where one runs, else by the next. A guest is for one thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from msgspec.structs import replace

from outlast.engine.write.acting import signed
from outlast.errors import (
    AlreadyAnswered,
    InternalError,
    NotFound,
    OutlastError,
    SchemaMismatch,
    StoreOwned,
    TransitionRefused,
    UnknownTask,
    UsageError,
)
from outlast.lifecycle import FINAL, OPEN, Message, MessageKind, State, Transition, create
from outlast.lifecycle import Execution as Record
from outlast.lifecycle.record import continued_as
from outlast.naming import checked_name, checked_priority, tenant_of
from outlast.store import DEFAULT_URL, open_store, owner_of, shown
from outlast.store.protocol import (
    Adjust,
    Answer,
    Create,
    Deliver,
    Filter,
    Store,
    StreamItem,
    Tenants,
)

if TYPE_CHECKING:
    from outlast.engine.control.bulk import BulkReport
    from outlast.engine.control.capacity import Office
    from outlast.engine.control.descent import Descent
    from outlast.engine.control.schedules import Book
    from outlast.engine.control.token import Permit
    from outlast.engine.control.webhooks import Hooks
    from outlast.engine.read.feed import EventFilter, FeedEvent
    from outlast.engine.read.inbox import QuestionPage
    from outlast.engine.read.questions import OpenQuestion
    from outlast.engine.task.registry import StartOptions, Task
    from outlast.engine.write.clock import Clock
    from outlast.engine.write.identity import IdMaker
    from outlast.lifecycle import Reason
    from outlast.store.protocol import Hints, WorkerRow

POLL_SECONDS: Final = 0.02
"""How often a follower looks whether the file has changed: one read of a number in the file."""
REREAD_SECONDS: Final = 1.0
"""How often it reads the log all the same."""
TEXT_MIN: Final = 3
"""How many characters of an id somebody must write at least."""
FOUND_MAX: Final = 6
OPENING_SECONDS: Final = 5.0
"""How long another process may take to make the file it has begun."""


class Guest:
    """A store, opened beside whoever owns it.

    Args:
        store: the address of the store; by default the environment's ``OUTLAST_STORE``, else
            ``sqlite:///outlast.db``.
        tenant: whose executions; by default the environment's ``OUTLAST_TENANT``, else ``default``.
        make: make the file if it is not there, for a start that the next engine takes up.
        opened: a store that is open already, for the process that owns it; it is not closed here.

    Attributes:
        address: the address of the store, which may have a password.
        tenant: whose executions.
        url: it, without.

    Raises:
        SchemaMismatch, StoreBroken, StoreReadOnly, CannotLoad: the store cannot be used.
        UnknownTenant: there is no such tenant.
    """

    def __init__(
        self,
        store: str | None = None,
        *,
        tenant: str | None = None,
        make: bool = False,
        opened: Store | None = None,
    ) -> None:
        self.address = store or os.environ.get("OUTLAST_STORE") or DEFAULT_URL
        self.url = shown(self.address)
        self.tenant = tenant_of(tenant)
        self._is_lent = opened is not None
        self._wrote = False
        self._ids: IdMaker | None = None
        self._hints: Hints | None = None
        if opened is not None:
            self.store = opened
        else:
            open = _opened_or_made if make else _opened
            self.store = open(self.address, self.tenant)

    @cached_property
    def _clock(self) -> Clock:
        """The clock by which it writes; not that of this machine, where others go by another."""
        from outlast.engine.write.clock import clock_of

        return clock_of(self.store)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store."""
        if self._hints is not None:
            self._hints.close()  # what is to be said is said first
        if not self._is_lent:
            self.store.close()

    def owner(self) -> str | None:
        """Say which process runs the engine of this store, as a phrase; None when none does."""
        if not self.store.is_shared:
            return owner_of(self.address, self.store.tenant)
        count = len(self.serving())
        return None if not count else f"{count} worker{'s' if count > 1 else ''}"

    def standing(self, record: Record, owner: str | None) -> Reason | None:
        """Say what of the capacity an execution waits for; None where it waits for something else.

        ``owner`` is the process that runs the engine of this store, or None.
        """
        from outlast.engine.read.standing import standing

        return standing(self.store, record, owner)

    def serving(self) -> list[WorkerRow]:
        """Give the workers that live."""
        from outlast.engine.read.presence import serving

        if not self.store.is_shared and owner_of(self.address, self.store.tenant) is None:
            return []
        return serving(self.store, self._clock.now())

    @property
    def tenants(self) -> Tenants:
        """The tenants of the store, by its default one."""
        return self.store.tenants

    @property
    def webhooks(self) -> Hooks:
        """The webhooks of the store."""
        from outlast.engine.control.webhooks import Hooks

        return Hooks(self.store, self._clock.now)

    # Schedules

    @property
    def book(self) -> Book:
        """The schedules of the store."""
        from outlast.engine.control.schedules import Book

        return Book(self.store, self._clock.now)

    @property
    def office(self) -> Office:
        """The queues and limits of the store."""
        from outlast.engine.control.capacity import Office

        return Office(self.store, self._clock.now)

    def new_ids(self, count: int) -> tuple[str, ...]:
        """Make ids for executions."""
        from outlast.engine.write.identity import IdMaker

        self._ids = self._ids or IdMaker()
        now = self._clock.now()
        return tuple(self._ids.make(now) for _ in range(count))

    # Starting

    def start(
        self,
        task: Task[Any, Any] | str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: StartOptions,
    ) -> tuple[Record, bool]:
        """Start an execution, durably; gives its row, and whether it is new.

        With a key, the same task and input always mean the same execution.

        Raises:
            UnknownTask: it is only named: what it takes is known by its code, or by a server.
            KeyConflict: the key belongs to another task or input; nothing was written.
            WrongArguments, BadPayload, PayloadTooLarge: nothing was written.
            StoreUnavailable: whether it was started is unknown; with a key it is safe to repeat.
        """
        from outlast.engine.write.identity import IdMaker
        from outlast.engine.write.request import birth_event, read_birth

        if isinstance(task, str):
            raise UnknownTask(f"the code of {task} is needed to start it here", do="FILE.py:TASK")
        self._ids = self._ids or IdMaker()
        payload = task.input.bind(args, kwargs)
        now = self._clock.now()
        record, row = create(
            self.store.tenant,
            self._ids.make(now),
            birth_event(task, payload, options, now),
            now,
        )
        answer = self._commit(Create(record, [row]))
        return read_birth(answer, options.key), answer.refused is None

    def descend(self, id: str, wish: Descent, task: Task[Any, Any] | None = None) -> Record:
        """Make another execution of one: a rerun, a fork, a recovery; gives its row.

        Args:
            id: the source.
            wish: what is to be made of it.
            task: its task, which only an edited input needs.

        Raises:
            NotFound: there is no such execution.
            UnknownStep, NotRecoverable, UnknownTask, WrongArguments, BadPayload, PayloadTooLarge,
            KeyConflict: it cannot be made so; nothing was written.
        """
        from outlast.engine.control.descent import descend
        from outlast.engine.write.identity import IdMaker
        from outlast.engine.write.request import read_birth

        self._ids = self._ids or IdMaker()
        now = self._clock.now()
        source, log = self.record(id), self.log(id)
        item = descend(source, log, wish, task, self._ids.make(now), now)
        return read_birth(self._commit(item), wish.key)

    # Messages

    def answer(
        self, id: str, value: object, *, key: str | None = None, actor: str = "user"
    ) -> Record:
        """Answer an open question of an execution; the first answer wins.

        Raises:
            BadPayload: the answer does not have the form that is asked for; nothing was written.
            AlreadyAnswered: somebody was first.
            NotFound: it asks nothing, or not this, or its question ended before this was taken.
            UsageError: it asks several questions, and no key was given.
        """
        question = self.question(id, key)
        payload = question.check(value)
        record = self._send(id, MessageKind.ANSWER, actor, key=question.key, payload=payload)
        return self._heard(record, question.key)

    def _heard(self, sent: Record, key: str) -> Record:
        """Wait until an answer has its place in the log; gives the row that it has left."""
        from outlast.engine.read.ruling import hear_from_outside

        def read(after_seq: int) -> tuple[Record, Sequence[Transition]]:
            return self.record(sent.id), self.store.log(sent.id, after_seq)

        hear_from_outside(read, lambda: self.owner() is not None, sent, key, POLL_SECONDS)
        return sent

    def question(self, id: str, key: str | None = None) -> OpenQuestion:
        """Give the open question that an answer would be for.

        Raises:
            AlreadyAnswered: this question has its answer.
            NotFound: it asks nothing, or not this; or there is no such execution.
            UsageError: it asks several questions, and no key was given.
        """
        from outlast.engine.read.questions import open_questions, pick

        record, log = self.record(id), self.log(id)
        return pick(open_questions(record, log), key, record, log)

    def answer_token(
        self, id: str, key: str | None = None, *, span_us: int, actor: str | None = None
    ) -> str:
        """Make a token with which somebody may answer a question, once.

        Raises:
            AlreadyAnswered, NotFound, UsageError: as :meth:`question`.
        """
        from outlast.engine.control.permitted import token_for

        question = self.question(id, key)
        by = actor or question.to or "token"
        now, tenant = self._clock.now(), self.store.tenant
        return token_for(self._secret(), question, by, span_us, now, tenant)

    def question_by_token(self, token: str) -> OpenQuestion:
        """Give the question that a token permits to answer.

        Raises:
            TokenInvalid, TokenForeign, TokenExpired: it permits nothing here.
            AlreadyAnswered: the question has its answer; TokenUsed: by this token.
            NotFound: the question is open no more.
        """
        return self._permitted(token)[1]

    def answer_by_token(self, token: str, value: object) -> Record:
        """Answer a question with a token; gives the execution's row.

        Raises:
            BadPayload: the answer does not have the form that is asked for; nothing was written,
                and the token is still good.
            TokenInvalid, TokenForeign, TokenExpired, AlreadyAnswered, TokenUsed, NotFound: as
                :meth:`question_by_token`.
        """
        from outlast.engine.control.permitted import answered, permitted_answer
        from outlast.engine.write.request import read_delivery

        permit, question = self._permitted(token)
        message = permitted_answer(permit, question, value)
        answer = self._commit(Deliver(permit.execution_id, message, self._clock.now()))
        try:
            return self._heard(read_delivery(answer, permit.execution_id, message), question.key)
        except AlreadyAnswered as error:
            raise answered(permit, self.log(permit.execution_id), error) from None

    def _permitted(self, token: str) -> tuple[Permit, OpenQuestion]:
        from outlast.engine.control import token as tokens
        from outlast.engine.control.permitted import permitted_question

        permit = tokens.read(self._secret(), token, self._clock.now(), self.store.tenant)
        record = self.record(permit.execution_id)
        return permit, permitted_question(permit, record, self.log(record.id))

    def _secret(self) -> bytes:
        from outlast.engine.control import token as tokens

        return self.store.secret(tokens.SECRET_NAME, tokens.drawn())

    def inbox(
        self,
        to: str | None = None,
        *,
        oldest_first: bool = False,
        cursor: str | None = None,
        limit: int = 50,
    ) -> QuestionPage:
        """Give the open questions of all executions, as :meth:`outlast.Engine.questions`."""
        from outlast.engine.read.inbox import Wanted, read_page

        wanted = Wanted(to, oldest_first, cursor, limit)
        wanted.check()
        return read_page(self.store, wanted)

    def signal(
        self,
        id: str,
        name: str,
        value: object = None,
        *,
        message_id: str | None = None,
        actor: str = "user",
    ) -> Record:
        """Send a signal; it is kept until the code waits for one of this name.

        Raises:
            NotFound: there is no such execution.
            TransitionRefused: it has ended.
        """
        from outlast.codec import as_json

        payload = as_json(value, name="signal")
        return self._send(
            id, MessageKind.SIGNAL, actor, key=name, payload=payload, message_id=message_id
        )

    def cancel(self, id: str, why: str | None = None, *, actor: str = "user") -> Record:
        """Ask an execution to end; asking again changes nothing.

        Raises:
            NotFound: there is no such execution.
            TransitionRefused: it has ended in another way.
        """
        try:
            return self._send(id, MessageKind.CANCEL, actor, data=_why(why))
        except TransitionRefused as refused:
            if refused.state == State.CANCELLED:
                return self.record(id)
            raise

    def pause(self, id: str, why: str | None = None, *, actor: str = "user") -> Record:
        """Hold an execution at its next safe point; asking again changes nothing.

        Raises:
            NotFound, TransitionRefused: as :meth:`cancel`.
        """
        return self._send(id, MessageKind.PAUSE, actor, data=_why(why))

    def resume(self, id: str, *, pin: str | None = None, actor: str = "user") -> Record:
        """Let an execution go on: after a pause, a suspension, or before its time has come.

        With ``pin`` only code of that version of its task may have it from now on.

        Raises:
            NotFound, TransitionRefused: as :meth:`cancel`.
        """
        data = None if pin is None else {"pin": checked_name(pin, "version")}
        return self._send(id, MessageKind.RESUME, actor, data=data)

    def label(self, id: str, labels: Mapping[str, str | None], *, actor: str = "user") -> Record:
        """Set labels of an execution, and take away those given as None.

        Raises:
            NotFound, TransitionRefused: as :meth:`cancel`.
        """
        return self._send(id, MessageKind.LABELS, actor, data={"labels": dict(labels)})

    def prioritize(self, id: str, priority: int, *, actor: str = "user") -> Record:
        """Give an execution another priority.

        Raises:
            UsageError: it is too large.
            NotFound, TransitionRefused: as :meth:`cancel`.
        """
        data = {"priority": checked_priority(priority)}
        return self._send(id, MessageKind.PRIORITY, actor, data=data)

    def bulk(
        self,
        action: str,
        filter: Filter,
        *,
        why: str | None = None,
        actor: str = "user",
        confirm: Callable[[BulkReport], bool] = lambda report: True,
    ) -> BulkReport:
        """Do something to all executions that a filter fits, as :meth:`outlast.Engine.bulk`.

        Args:
            action: ``cancel``, ``pause``, ``resume``, ``retry`` or ``rerun``.
            filter: which executions.
            why: kept in the log of each.
            actor: who wants it.
            confirm: is shown what it would be done to; only if it agrees, something is done.

        Raises:
            UsageError: there is no such action.
        """
        from outlast.engine.control.bulk import Bulk, action_of

        bulk = Bulk(action_of(action), filter, why, actor)
        report, found = bulk.find(self.store)
        if not confirm(report):
            report.is_dry = True
            return report
        for part in bulk.parts(self.store, report, found):
            for came in self._wished(part, report):
                report.take(came)
        return report

    def _wished(
        self, part: list[tuple[str, Message | Descent]], report: BulkReport
    ) -> list[Record | OutlastError]:
        """Do what is wished for some executions; messages share a transaction."""
        from outlast.engine.write.request import read_delivery

        now = self._clock.now()
        come: list[Record | OutlastError] = []
        sent = [(id, wish) for id, wish in part if isinstance(wish, Message)]
        answers = self.store.commit([Deliver(id, wish, now) for id, wish in sent])
        self._wrote = True
        for (id, message), answer in zip(sent, answers, strict=True):
            try:
                come.append(read_delivery(answer, id, message))
            except OutlastError as error:
                come.append(error)
        for id, wish in part:
            if isinstance(wish, Message):
                continue
            try:
                come.append(self.descend(id, wish))
            except OutlastError as error:
                come.append(error)
            else:
                report.made.append(come[-1].id)  # type: ignore[union-attr]
        return come

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
        from outlast.engine.write.request import new_message, read_delivery, successor_of

        message = new_message(kind, actor, key=key, data=data, payload=payload, id=message_id)
        answer = self._commit(Deliver(id, message, self._clock.now()))
        while (successor := successor_of(answer)) is not None:
            id = successor
            answer = self._commit(Deliver(id, message, self._clock.now()))
        return read_delivery(answer, id, message)

    def adjust(self, item: Adjust) -> Answer:
        """Change budgets, durably; gives the store's answer."""
        return self._commit(item)

    def _commit(self, item: Create | Deliver | Adjust) -> Answer:
        (answer,) = self.store.commit([signed(item)])
        self._wrote = True
        if self.store.is_shared and not self._is_lent:
            self._hint()
        if answer.error is not None:
            raise (
                answer.error
                if isinstance(answer.error, OutlastError)
                else InternalError(f"the store refused an item: {answer.error}", where=self.url)
            )
        return answer

    def _hint(self) -> None:
        """Tell the workers of a shared store that there is something to see."""
        if self._hints is None:
            self._hints = self.store.hints(lambda topic: None)
        if self._hints is not None:
            for topic in ("work", "inbox", "ended"):
                self._hints.send(topic)

    # Reading

    def find(self, text: str) -> str:
        """Give the id that somebody means: a whole one, its beginning or end, or ``last``.

        The last one is the newest that is nobody's child: children come and go by themselves.

        Raises:
            NotFound: there is none.
            UsageError: several fit, or the text is too short to tell.
        """
        if text == "last":
            newest = self.store.page(Filter(roots=True, limit=1))
            if not newest:
                raise NotFound(
                    "there is no execution yet", where=self.url, do="outlast run FILE:TASK"
                )
            return newest[0].id
        if not _is_writable(text):
            raise NotFound(f"there is no execution {text[:80]!a}", where=self.url, do="outlast ls")
        text = text.strip("…")
        bare = text.removeprefix("ex_")
        if len(bare) < TEXT_MIN:
            raise UsageError(
                f'"{text}" is too short to name an execution',
                do=f"write at least {TEXT_MIN} characters of its id, from its beginning or end",
            )
        if self.store.get([text])[0] is not None:
            return text
        found: list[str] = []
        for wanted in dict.fromkeys((text, f"ex_{bare}", bare)):
            found = self.store.find(wanted, FOUND_MAX)
            if found:
                break
        if not found:
            raise NotFound(f"there is no execution {text}", where=self.url, do="outlast ls")
        if len(found) > 1:
            more = " and more" if len(found) == FOUND_MAX else ""
            raise UsageError(
                f'"{text}" fits several executions',
                where=self.url,
                why=", ".join(found[: FOUND_MAX - 1]) + more,
                do="write more characters of the id",
            )
        return found[0]

    def record(self, id: str) -> Record:
        """Read an execution's row.

        Raises:
            NotFound: there is none.
        """
        (record,) = self.store.get([id])
        if record is None:
            raise NotFound(f"there is no execution {id}", where=self.url, do="outlast ls")
        return record

    def log(self, id: str, after_seq: int = 0) -> list[Transition]:
        """Read an execution's log, in order."""
        return self.store.log(id, after_seq)

    def questions(self, id: str) -> list[OpenQuestion]:
        """Give the questions of an execution that somebody can still answer, the oldest first.

        Raises:
            NotFound: there is no such execution.
        """
        from outlast.engine.read.questions import asked_by, open_questions

        record = self.record(id)
        told = asked_by(record)
        return open_questions(record, self.log(id)) if told is None else told

    def open_twin(self, task: str, payload_digest: int, origin: str) -> Record | None:
        """Find the newest open execution of a task with this input and origin.

        One that has gone on as a new execution is open as long as the last of these is.
        """
        wanted = Filter(task=task, input_digest=payload_digest, origin=origin, limit=1)
        found = self.store.page(replace(wanted, states=OPEN)) or self.store.page(wanted)
        twin = found[0] if found else None
        while twin is not None and (name := continued_as(twin)) is not None:
            twin = self.store.get([name])[0]
        return twin if twin is not None and not twin.is_final else None

    def follow(
        self, id: str, after_seq: int = 0, *, poll_seconds: float = POLL_SECONDS
    ) -> Iterator[Sequence[Transition]]:
        """Give the rows of a log as they are recorded, to the final one.

        It looks whether there are more ``1 / poll_seconds`` times a second, and gives an empty
        sequence each time there are none, so that its caller can do something else as well.
        """
        read_at = float("-inf")
        seq = after_seq
        while True:
            rows: Sequence[Transition] = ()
            if self._may_have_changed() or time.monotonic() - read_at > REREAD_SECONDS:
                read_at = time.monotonic()
                rows = self.store.log(id, seq)
            yield rows
            if rows:
                seq = rows[-1].seq
                if rows[-1].to_state in FINAL:
                    return
            else:
                time.sleep(poll_seconds)

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
        """Publish an event, as :meth:`outlast.Engine.publish`; gives what sends it.

        An engine sends it; it waits for one where none runs.
        """
        from outlast.engine.primitives.publishing import event, wish

        options, args = wish(name, value, key, task, labels, actor)
        return self.start(event, args, {}, options)[0]

    def events(
        self, after: str | None, filter: EventFilter
    ) -> Iterator[tuple[str, list[FeedEvent]]]:
        """Give what happens to all executions, as it comes, and the cursor behind it.

        The list is empty if there is nothing; the first one is, and says where it begins.

        Raises:
            FeedGap: what came behind the cursor is not all kept any more.
            UsageError: it is no cursor.
        """
        from outlast.engine.read.feed import follow_outside

        for page in follow_outside(self.store, after, filter, self._clock.now):
            yield page
            if not page[1]:
                time.sleep(POLL_SECONDS)

    def stream(
        self,
        id: str,
        name: str,
        after: int = 0,
        *,
        follow: bool = False,
        poll_seconds: float = POLL_SECONDS,
    ) -> Iterator[tuple[str, Sequence[StreamItem]]]:
        """Give the items of a stream, some at once: those that are there, or all to the end.

        Where the execution has gone on as a new one, the items of that one's stream follow.

        Args:
            id: the execution.
            name: of the stream.
            after: the number of the last item that is known.
            follow: wait for more until the execution has ended; then an empty sequence comes each
                time there are none.
            poll_seconds: how often to look.

        Returns:
            The execution that they are of, and the items.
        """
        from outlast.engine.read.stream import ITEMS_MAX

        read_at = float("-inf")
        while True:
            ended: Record | None = None
            if self._may_have_changed() or time.monotonic() - read_at > REREAD_SECONDS:
                read_at = time.monotonic()
                record = self.record(id)  # asked first: then nothing follows
                ended = record if record.is_final else None
                while items := self.store.stream(id, name, after, ITEMS_MAX):
                    after = items[-1].number
                    yield id, items
            successor = None if ended is None else continued_as(ended)
            if successor is not None:
                id, after, read_at = successor, 0, float("-inf")
                continue
            if ended is not None or not follow:
                return
            yield id, ()
            time.sleep(poll_seconds)

    def _may_have_changed(self) -> bool:
        """Tell whether to read again; who lent us its store writes on the same connection."""
        wrote, self._wrote = self._wrote, False
        return self._is_lent or self.store.changed() or wrote


def _is_writable(text: str) -> bool:
    """Tell whether a text can be looked up at all: a lone surrogate is in no file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _why(why: str | None) -> dict[str, Any] | None:
    return {"why": why} if why else None


def _opened(url: str, tenant: str) -> Store:
    return open_store(url, owner=None, now=time.time_ns() // 1000, tenant=tenant)


def _opened_or_made(url: str, tenant: str) -> Store:
    """Open a store, making its file first if there is none: by owning it for a moment."""
    from outlast.engine.write.identity import worker_name

    give_up_at = time.monotonic() + OPENING_SECONDS
    while True:
        try:
            return _opened(url, tenant)
        except SchemaMismatch as mismatch:
            try:
                open_store(url, owner=worker_name(), now=time.time_ns() // 1000).close()
            except StoreOwned:  # its engine is just making it
                if time.monotonic() > give_up_at:
                    raise mismatch from None
                time.sleep(POLL_SECONDS)
