"""The handle of an execution: the same for everybody who holds one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, Generic, Protocol, TypeVar

from outlast.codec import as_json
from outlast.duration import Duration, microseconds
from outlast.engine.questions import OpenQuestion, asked_by, open_questions, pick
from outlast.engine.registry import Task
from outlast.engine.request import new_message
from outlast.engine.results import outcome_of
from outlast.errors import WaitTimeout
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import Message, MessageKind, Reason, State, Transition, reason_of

R = TypeVar("R")
T = TypeVar("T")


class Backing(Protocol):
    """What stands behind a handle: an engine, or whatever reaches one."""

    @property
    def tasks(self) -> Mapping[str, Task[Any, Any]]:
        """The tasks whose results can be read by their types."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the handle's from a thread without a loop."""

    async def read_one(self, id: str) -> Record:
        """Read an execution's row, or raise NotFound."""

    async def read_log(self, id: str, after_seq: int = 0) -> list[Transition]:
        """Read an execution's log from behind a row on."""

    async def next_change(self, id: str) -> None:
        """Wait until something may have changed about an execution."""

    async def wait_final(self, id: str) -> tuple[Record, Transition]:
        """Wait for an execution's end; gives its row and the last row of its log."""

    async def asend(self, id: str, message: Message) -> Record:
        """Deliver a message; gives the execution's row after it."""


class Execution(Generic[R]):
    """One execution of a task. Every method has an async twin, with an ``a`` before its name.

    Attributes:
        id: its name in the store.
    """

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
        return reason_of(await self.arecord())

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

    async def acancel(self, why: str | None = None, *, actor: str = "user") -> None:
        """Ask it to end; its code sees ``CancelledError``. Asking again changes nothing.

        Raises:
            TransitionRefused: it has ended in another way.
        """
        await self._send(MessageKind.CANCEL, actor, data={"why": why} if why else None)

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

    async def aresume(self, *, actor: str = "user") -> None:
        """Let it go on: after a pause, a suspension, or before its time has come."""
        await self._send(MessageKind.RESUME, actor)

    def resume(self, *, actor: str = "user") -> None:
        """Let it go on, as :meth:`aresume`."""
        self._engine.run(self.aresume(actor=actor))

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

    async def aanswer(self, value: Any, *, key: str | None = None, actor: str = "user") -> None:
        """Answer its question; the first answer wins.

        Args:
            value: the answer, in the form that the question asks for: an instance, or its JSON.
            key: which question, where several are open.
            actor: who answers.

        Raises:
            BadPayload: the answer does not have the form that is asked for; nothing was written.
            AlreadyAnswered: somebody was first.
            NotFound: it asks nothing.
        """
        question = await self.aquestion(key)
        payload = question.check(value)
        await self._send(MessageKind.ANSWER, actor, key=question.key, payload=payload)

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


_FINAL = (State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.CANCELLED)
