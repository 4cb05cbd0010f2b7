"""The handle of an execution: the same for everybody who holds one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Mapping
from decimal import Decimal
from typing import Any, Generic, Protocol, TypeVar

from outlast.budget import Amount
from outlast.codec import as_json
from outlast.duration import Duration, microseconds
from outlast.engine.control.budgets import BudgetState, own_budgets, raise_own, set_own
from outlast.engine.control.descent import Descent, Mode
from outlast.engine.control.token import EXPIRES
from outlast.engine.read.logs import Lines, LogLine, is_of, line_of
from outlast.engine.read.measures import Measures, measures_of
from outlast.engine.read.questions import OpenQuestion, asked_by, open_questions, pick
from outlast.engine.read.ruling import hear
from outlast.engine.read.stream import ITEMS_MAX, Source, Stream, stepped
from outlast.engine.task.registry import Task
from outlast.engine.task.results import outcome_of
from outlast.engine.write.clock import Clock
from outlast.engine.write.request import new_message
from outlast.errors import NotRecoverable, TransitionRefused, WaitTimeout
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import Message, MessageKind, Reason, State, Transition, reason_of
from outlast.naming import checked_labels, checked_name, checked_priority
from outlast.store.protocol import LOGS, Adjust, BudgetRow, Filter, ProgressRow, StreamHead

R = TypeVar("R")
T = TypeVar("T")


class Backing(Source, Protocol):
    """What stands behind a handle: an engine, or whatever reaches one."""

    @property
    def tasks(self) -> Mapping[str, Task[Any, Any]]:
        """The tasks whose results can be read by their types."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the handle's from a thread without a loop."""

    async def read_one(self, id: str) -> Record:
        """Read an execution's row, or raise NotFound."""

    def execution(self, id: str) -> Execution[Any]:
        """Give the handle of an execution."""

    async def read_page(self, filter: Filter) -> list[Record]:
        """List executions, the newest first."""

    async def read_log(self, id: str, after_seq: int = 0) -> list[Transition]:
        """Read an execution's log from behind a row on."""

    async def next_change(self, id: str) -> None:
        """Wait until something may have changed about an execution."""

    async def wait_final(self, id: str) -> tuple[Record, Transition]:
        """Wait for an execution's end; gives its row and the last row of its log."""

    async def asend(self, id: str, message: Message) -> Record:
        """Deliver a message; gives the execution's row after it."""

    @property
    def clock(self) -> Clock:
        """Tells the time."""

    async def aadjust(self, item: Adjust) -> list[BudgetRow]:
        """Change budgets; gives them as they are then."""

    async def read_budgets(self, scopes: Collection[str] | None) -> list[BudgetRow]:
        """Read the budgets of these scopes; None: all shared ones."""

    async def adescend(self, id: str, wish: Descent) -> Record:
        """Make another execution of one; gives its row."""

    async def read_standing(self, record: Record) -> Reason | None:
        """Say what of the capacity it waits for; None where it waits for something else."""

    async def amake_token(self, question: OpenQuestion, actor: str, span_us: int) -> str:
        """Make a token that permits one answer to a question, for so long."""


class Execution(Generic[R]):
    """One execution of a task. Every method has an async twin, with an ``a`` before its name.

    Attributes:
        id: its name in the store.
    """

    __slots__ = ("__weakref__", "_engine", "_task", "id")

    def __init__(self, engine: Backing, id: str, task: Task[Any, R] | None) -> None:
        self.id = id
        self._engine = engine
        self._task = task

    def __repr__(self) -> str:
        return f"<Execution {self.id}>"

    async def arecord(self) -> Record:
        """Read its row.

        Raises:
            NotFound: there is no such execution.
        """
        return await self._engine.read_one(self.id)

    def record(self) -> Record:
        """Read its row, as :meth:`arecord`."""
        return self._engine.run(self.arecord())

    async def astatus(self) -> State:
        """Give its state."""
        return (await self.arecord()).state

    def status(self) -> State:
        """Give its state."""
        return self._engine.run(self.astatus())

    async def areason(self) -> Reason | None:
        """Say why it is not moving; None once it has ended."""
        record = await self.arecord()
        return await self._engine.read_standing(record) or reason_of(record)

    def reason(self) -> Reason | None:
        """Say why it is not moving, as :meth:`areason`."""
        return self._engine.run(self.areason())

    async def await_(self, timeout: Duration | None = None) -> State:
        """Wait until it has ended and give its state.

        Raises:
            WaitTimeout: it took longer; the execution goes on.
        """
        return (await self._wait(timeout))[0].state

    def wait(self, timeout: Duration | None = None) -> State:
        """Wait until it has ended, as :meth:`await_`."""
        return self._engine.run(self.await_(timeout))

    async def _wait(self, timeout: Duration | None) -> tuple[Record, Transition]:
        if timeout is None:
            return await self._engine.wait_final(self.id)
        try:
            async with asyncio.timeout(microseconds(timeout) / 1e6) as limit:
                return await self._engine.wait_final(self.id)
        except TimeoutError:
            if not limit.expired():
                raise
            raise WaitTimeout(
                f"{self.id} has not ended in time",
                why=f"the wait was for {timeout}",
                do="wait again; the execution goes on",
            ) from None

    async def aresult(self, timeout: Duration | None = None) -> R:
        """Wait for its result.

        Raises:
            WaitTimeout: it took longer; the execution goes on.
            Exception: what its code raised, where the class is known here; else ExecutionFailed.
            ExecutionCancelled, ExecutionTimedOut: it ended so.
        """
        record, last = await self._wait(timeout)
        result: R = outcome_of(record, last, self._task or self._engine.tasks.get(record.task))
        return result

    def result(self, timeout: Duration | None = None) -> R:
        """Wait for its result, as :meth:`aresult`."""
        return self._engine.run(self.aresult(timeout))

    async def abudget(self) -> dict[str, BudgetState]:
        """Give its own budgets by meter, as they are now; empty where it has none."""
        return await own_budgets(self._engine, self.id)

    def budget(self) -> dict[str, BudgetState]:
        """Give its own budgets by meter, as :meth:`abudget`."""
        return self._engine.run(self.abudget())

    async def aset_budget(
        self,
        *,
        soft: float | Decimal | None = None,
        actor: str = "user",
        **meters: Amount,
    ) -> dict[str, BudgetState]:
        """Give it budgets of its own while it is open, or other limits: ``set_budget(usd=2)``.

        A new one counts from here on. It holds for this execution alone: only at its start can it
        be given one for all that it makes.

        Args:
            soft: the share of a limit at which a threshold event is recorded, as 0.8.
            actor: who says so.
            meters: the limits by meter.

        Raises:
            TransitionRefused: it has ended.
            UsageError: a limit is no amount, or a name no meter.
        """
        await set_own(self._engine, self.id, soft, meters, actor)
        return await self.abudget()

    def set_budget(
        self,
        *,
        soft: float | Decimal | None = None,
        actor: str = "user",
        **meters: Amount,
    ) -> dict[str, BudgetState]:
        """Give it budgets of its own, as :meth:`aset_budget`."""
        return self._engine.run(self.aset_budget(soft=soft, actor=actor, **meters))

    async def araise_budget(
        self, *, actor: str = "user", **meters: Amount
    ) -> dict[str, BudgetState]:
        """Let it spend more, as ``raise_budget(usd=1)``; it goes on if it was suspended for that.

        Raises:
            NotFound: it has no budget of its own on this meter.
        """
        await raise_own(self._engine, self.id, meters, actor)
        return await self.abudget()

    def raise_budget(self, *, actor: str = "user", **meters: Amount) -> dict[str, BudgetState]:
        """Let it spend more, as :meth:`araise_budget`."""
        return self._engine.run(self.araise_budget(actor=actor, **meters))

    async def atransitions(self) -> list[Transition]:
        """Read its log."""
        return await self._engine.read_log(self.id)

    def transitions(self) -> list[Transition]:
        """Read its log."""
        return self._engine.run(self.atransitions())

    async def awatch(self) -> AsyncIterator[Transition]:
        """Give every row of its log as it is recorded, from the first to the final one."""
        seq = 0
        while True:
            rows = await self._engine.read_log(self.id, seq)
            for row in rows:
                seq = row.seq
                yield row
                if row.to_state in _FINAL:
                    return
            await self._engine.next_change(self.id)

    def watch(self) -> Iterator[Transition]:
        """Give every row of its log as it is recorded, as :meth:`awatch`, from a thread."""
        return stepped(self.awatch(), self._engine.run)

    async def achildren(
        self, *, before: str | None = None, limit: int = 100
    ) -> list[Execution[Any]]:
        """Give its children, the newest first, a page at a time.

        Args:
            before: the id of the last one of the page before.
            limit: how many.
        """
        wanted = Filter(parent_id=self.id, before_id=before, limit=limit)
        found = await self._engine.read_page(wanted)
        return [self._engine.execution(record.id) for record in found]

    def children(self, *, before: str | None = None, limit: int = 100) -> list[Execution[Any]]:
        """Give its children, as :meth:`achildren`."""
        return self._engine.run(self.achildren(before=before, limit=limit))

    def stream(self, name: str, *, after: int = 0) -> Stream:
        """Give the items of one of its streams as they come, to its end: ``for`` or ``async for``.

        Where it goes on as a new execution, the items go on with those of that one.
        Each has a ``value``, and a ``number`` from 1 with which to go on later.

        Args:
            name: of the stream; it need not be there yet.
            after: the number of the last item that you have.
        """
        return Stream(self._engine, self.id, name, after)

    async def ametrics(self) -> Measures:
        """Say what it took so far, or in all: times by state and step, attempts, resources, errors.

        Raises:
            NotFound: there is no such execution.
        """
        record = await self.arecord()
        log = await self._engine.read_log(record.id)
        return measures_of(record.id, log, self._engine.clock.now())

    def metrics(self) -> Measures:
        """Say what it took, as :meth:`ametrics`."""
        return self._engine.run(self.ametrics())

    async def alogs(self, step: str | None = None) -> list[LogLine]:
        """Read what its code has logged through ``logging``, in the order in which it was written.

        What was logged just before a kill may be missing; so may what was said too fast, or too
        much: then a line says so.

        Args:
            step: only lines of this step: a key, ``pack#1``, or a name, ``pack``.
        """
        lines: list[LogLine] = []
        after = 0
        while items := await self._engine.read_stream(self.id, LOGS, after, ITEMS_MAX):
            lines += (line for line in map(line_of, items) if is_of(line, step))
            after = items[-1].number
        return lines

    def logs(self, step: str | None = None) -> list[LogLine]:
        """Read what its code has logged, as :meth:`alogs`."""
        return self._engine.run(self.alogs(step))

    def follow_logs(self, step: str | None = None, *, after: int = 0) -> Lines:
        """Give what its code logs as it comes, to its end: ``for`` or ``async for``."""
        return Lines(self._engine, self.id, step, after)

    async def astreams(self) -> list[StreamHead]:
        """Name its streams, with how many items each has."""
        return await self._engine.read_streams(self.id)

    def streams(self) -> list[StreamHead]:
        """Name its streams, as :meth:`astreams`."""
        return self._engine.run(self.astreams())

    async def aprogress(self) -> ProgressRow | None:
        """Say how far it is, in its own words; None where it never said so."""
        return await self._engine.read_progress(self.id)

    def progress(self) -> ProgressRow | None:
        """Say how far it is, as :meth:`aprogress`."""
        return self._engine.run(self.aprogress())

    async def acancel(self, why: str | None = None, *, actor: str = "user") -> None:
        """Ask it to end; its code sees ``CancelledError``. Asking again changes nothing.

        Raises:
            TransitionRefused: it has ended in another way.
        """
        try:
            await self._send(MessageKind.CANCEL, actor, data={"why": why} if why else None)
        except TransitionRefused as refused:
            if refused.state != State.CANCELLED:
                raise

    def cancel(self, why: str | None = None, *, actor: str = "user") -> None:
        """Ask it to end, as :meth:`acancel`."""
        self._engine.run(self.acancel(why, actor=actor))

    abort, aabort = cancel, acancel

    async def apause(self, why: str | None = None, *, actor: str = "user") -> None:
        """Hold it at the next safe point; asking again changes nothing."""
        await self._send(MessageKind.PAUSE, actor, data={"why": why} if why else None)

    def pause(self, why: str | None = None, *, actor: str = "user") -> None:
        """Hold it, as :meth:`apause`."""
        self._engine.run(self.apause(why, actor=actor))

    async def aresume(self, *, pin: str | None = None, actor: str = "user") -> None:
        """Let it go on: after a pause, a suspension, or before its time has come.

        Args:
            pin: leave it to code of this version; see :meth:`apin`.
            actor: who resumes it.
        """
        await self._send(MessageKind.RESUME, actor, data=_pin(pin) if pin is not None else None)

    def resume(self, *, pin: str | None = None, actor: str = "user") -> None:
        """Let it go on, as :meth:`aresume`."""
        self._engine.run(self.aresume(pin=pin, actor=actor))

    async def apin(self, version: str | None, *, actor: str = "user") -> None:
        """Leave it to code of this version of its task, from the next time that it is claimed.

        Only an engine that has that version takes it; ``outlast why`` says so while none does.

        Args:
            version: the version, as in ``@task(version="1")``; None lets any version have it.
            actor: who says so.
        """
        await self._send(MessageKind.NOTE, actor, data=_pin(version))

    def pin(self, version: str | None, *, actor: str = "user") -> None:
        """Leave it to code of a version, as :meth:`apin`."""
        self._engine.run(self.apin(version, actor=actor))

    async def aquestions(self) -> list[OpenQuestion]:
        """Give its questions that somebody can still answer, the oldest first.

        Raises:
            NotFound: there is no such execution.
        """
        record = await self.arecord()
        told = asked_by(record)
        return open_questions(record, await self.atransitions()) if told is None else told

    def questions(self) -> list[OpenQuestion]:
        """Give its open questions, as :meth:`aquestions`."""
        return self._engine.run(self.aquestions())

    async def aquestion(self, key: str | None = None) -> OpenQuestion:
        """Give the open question that an answer would be for.

        Raises:
            AlreadyAnswered: this question has its answer.
            NotFound: it asks nothing, or not this.
            UsageError: it asks several questions, and no key was given.
        """
        record = await self.arecord()
        told = asked_by(record)
        if told and (key is None or any(question.key == key for question in told)):
            return pick(told, key, record)
        log = await self.atransitions()
        return pick(open_questions(record, log), key, record, log)

    def question(self, key: str | None = None) -> OpenQuestion:
        """Give the open question that an answer would be for, as :meth:`aquestion`."""
        return self._engine.run(self.aquestion(key))

    async def alabel(self, *, actor: str = "user", **labels: str | None) -> None:
        """Set labels, and take away those given as None; the others stay.

        Raises:
            UsageError: a label is no name or no text.
            TransitionRefused: it has ended.
        """
        await self._send(MessageKind.LABELS, actor, data={"labels": checked_labels(labels)})

    def label(self, *, actor: str = "user", **labels: str | None) -> None:
        """Set labels, as :meth:`alabel`."""
        self._engine.run(self.alabel(actor=actor, **labels))

    async def aprioritize(self, priority: int, *, actor: str = "user") -> None:
        """Give it another priority: among those that are queued, the highest is taken first.

        Raises:
            TransitionRefused: it has ended.
        """
        await self._send(MessageKind.PRIORITY, actor, data={"priority": checked_priority(priority)})

    def prioritize(self, priority: int, *, actor: str = "user") -> None:
        """Give it another priority, as :meth:`aprioritize`."""
        self._engine.run(self.aprioritize(priority, actor=actor))

    # Made of it

    async def arerun(
        self,
        edits: Mapping[str, Any] | None = None,
        /,
        *,
        why: str | None = None,
        actor: str = "user",
        **more: Any,
    ) -> Execution[R]:
        """Start it again from nothing, as another execution; gives the handle of that one.

        Args:
            edits: arguments by name that take the place of the recorded ones; also as keywords.
            why: kept with the new execution.
            actor: who wants it.
            more: further edits.

        Raises:
            WrongArguments, BadPayload, PayloadTooLarge: the edited input does not fit; nothing was
                written.
            UnknownTask: the input is edited, and its task is not known here.
        """
        wish = Descent(mode=Mode.RERUN, edits={**(edits or {}), **more}, why=why, actor=actor)
        return await self._descend(wish)

    def rerun(
        self,
        edits: Mapping[str, Any] | None = None,
        /,
        *,
        why: str | None = None,
        actor: str = "user",
        **more: Any,
    ) -> Execution[R]:
        """Start it again from nothing, as :meth:`arerun`."""
        return self._engine.run(self.arerun(edits, why=why, actor=actor, **more))

    async def afork(
        self,
        edits: Mapping[str, Any] | None = None,
        /,
        *,
        from_step: str | int,
        why: str | None = None,
        actor: str = "user",
        **more: Any,
    ) -> Execution[R]:
        """Make another execution that has done what this one had before a step, and goes on anew.

        It may be made of an execution that has ended or that goes on. Steps that are called with
        other arguments, as the input is edited, run again.

        Args:
            edits: arguments by name that take the place of the recorded ones; also as keywords.
            from_step: the key of the step, as ``charge#1``; its name, where there is one only; or
                its place among the steps, from 1.
            why: kept with the new execution.
            actor: who wants it.
            more: further edits.

        Raises:
            UnknownStep: it has no such step; the text names those that there are.
            WrongArguments, BadPayload, PayloadTooLarge, UnknownTask: as :meth:`arerun`.
        """
        edited = {**(edits or {}), **more}
        wish = Descent(mode=Mode.FORK, step=from_step, edits=edited, why=why, actor=actor)
        return await self._descend(wish)

    def fork(
        self,
        edits: Mapping[str, Any] | None = None,
        /,
        *,
        from_step: str | int,
        why: str | None = None,
        actor: str = "user",
        **more: Any,
    ) -> Execution[R]:
        """Make another execution that goes on anew from a step, as :meth:`afork`."""
        return self._engine.run(
            self.afork(edits, from_step=from_step, why=why, actor=actor, **more)
        )

    async def arecover(self, *, why: str | None = None, actor: str = "user") -> Execution[R]:
        """Make another execution of one that failed: finished steps are reused, the rest runs.

        Raises:
            NotRecoverable: it has not ended, or succeeded.
        """
        return await self._descend(Descent(mode=Mode.RECOVER, why=why, actor=actor))

    def recover(self, *, why: str | None = None, actor: str = "user") -> Execution[R]:
        """Make another execution of one that failed, as :meth:`arecover`."""
        return self._engine.run(self.arecover(why=why, actor=actor))

    async def aretry(self, *, why: str | None = None, actor: str = "user") -> Execution[R]:
        """Try it again now; gives this handle, or that of the execution that takes its place.

        One in its back-off is tried at once; one that failed, timed out or was cancelled is
        recovered, see :meth:`arecover`.

        Raises:
            NotRecoverable: it is in neither of these states.
        """
        record = await self.arecord()
        if record.state is State.RETRY_WAIT:
            await self._send(MessageKind.RESUME, actor, data={"why": why} if why else None)
            return self
        if not record.is_final:
            raise NotRecoverable(
                f"{self.id} is {record.state}: there is nothing to try again",
                where=f"{self.id}, {record.state}",
                do=f"outlast why {self.id}",
            )
        return await self.arecover(why=why, actor=actor)

    def retry(self, *, why: str | None = None, actor: str = "user") -> Execution[R]:
        """Try it again now, as :meth:`aretry`."""
        return self._engine.run(self.aretry(why=why, actor=actor))

    async def _descend(self, wish: Descent) -> Execution[R]:
        made = await self._engine.adescend(self.id, wish)
        return Execution(self._engine, made.id, self._task)

    async def aanswer(self, value: Any, *, key: str | None = None, actor: str = "user") -> None:
        """Answer its question; the first answer wins.

        Args:
            value: the answer, in the form that the question asks for: an instance, or its JSON.
            key: which question, where several are open.
            actor: who answers.

        Raises:
            BadPayload: the answer does not have the form that is asked for; nothing was written.
            AlreadyAnswered: somebody was first.
            NotFound: it asks nothing, or its question ended before the answer was taken.
        """
        question = await self.aquestion(key)
        payload = question.check(value)
        message = new_message(MessageKind.ANSWER, actor, key=question.key, payload=payload)
        await hear(self._engine, await self._engine.asend(self.id, message), question.key)

    async def aanswer_token(
        self, key: str | None = None, *, expires: Duration = EXPIRES, actor: str | None = None
    ) -> str:
        """Make a token with which somebody may answer its question, once.

        It is signed, safe in a URL, and good for this question only, whoever it is put to
        meanwhile. It is for :meth:`outlast.Engine.answer_by_token` and ``outlast answer --token``.

        Args:
            key: which question, where several are open.
            expires: for how long it is good.
            actor: who the answer will be noted for; by default who has to answer.

        Raises:
            AlreadyAnswered: the question has its answer.
            NotFound: it asks nothing, or not this.
            UsageError: it asks several questions, and no key was given.
        """
        question = await self.aquestion(key)
        span_us = microseconds(expires)
        return await self._engine.amake_token(question, actor or question.to or "token", span_us)

    def answer_token(
        self, key: str | None = None, *, expires: Duration = EXPIRES, actor: str | None = None
    ) -> str:
        """Make a token for an answer, as :meth:`aanswer_token`."""
        return self._engine.run(self.aanswer_token(key, expires=expires, actor=actor))

    def answer(self, value: Any, *, key: str | None = None, actor: str = "user") -> None:
        """Answer its question, as :meth:`aanswer`."""
        self._engine.run(self.aanswer(value, key=key, actor=actor))

    async def asignal(
        self, name: str, value: Any = None, *, id: str | None = None, actor: str = "user"
    ) -> None:
        """Send it a signal; kept until its code waits for one of this name.

        Args:
            name: what the code waits for.
            value: anything that has a JSON form.
            id: sent again under the same id, it is taken once.
            actor: who sends it.
        """
        payload = as_json(value, name="signal")
        await self._send(MessageKind.SIGNAL, actor, key=name, payload=payload, id=id)

    def signal(
        self, name: str, value: Any = None, *, id: str | None = None, actor: str = "user"
    ) -> None:
        """Send it a signal, as :meth:`asignal`."""
        self._engine.run(self.asignal(name, value, id=id, actor=actor))

    async def _send(self, kind: MessageKind, actor: str, **parts: Any) -> None:
        await self._engine.asend(self.id, new_message(kind, actor, **parts))


def _pin(version: str | None) -> dict[str, Any]:
    return {"pin": None if version is None else checked_name(version, "version")}


_FINAL = (State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.CANCELLED)
