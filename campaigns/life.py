"""One life: a process that opens the engine on the file it is given, and works until it dies.

It takes back what the lives before it left, starts executions, answers, signals, cancels, pauses
and resumes at random, and tells its parent over a pipe of everything the engine has acknowledged,
after it has. Lines are JSON arrays; the first part is the word in :class:`Word`.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import traceback
from enum import StrEnum
from functools import partial
from typing import Any, Final, NoReturn

import msgspec

import outlast.store.sqlite.store  # noqa: F401 - before the fork: it takes longer than most lives
from campaigns import ledger, plants, points, programs
from outlast import Engine, State
from outlast.engine.control.handle import Execution
from outlast.engine.write.request import new_message
from outlast.errors import (
    AlreadyAnswered,
    ExecutionCancelled,
    NoEngine,
    NotFound,
    TransitionRefused,
)
from outlast.lifecycle import Execution as Record
from outlast.lifecycle import MessageKind
from outlast.store.protocol import Filter


class Word(StrEnum):
    """What a life tells its parent."""

    READY = "ready"
    BODY = "body"  # the first body of this life has begun
    START = "start"  # key, id
    ANSWER = "answer"  # execution, question
    SENT = "sent"  # execution, message id
    RESULT = "result"  # execution, state, value
    POINT = "point"  # name
    MISMATCH = "mismatch"  # execution, what was recorded and what was wanted
    LIFTED = "lifted"  # execution
    STOPPED = "stopped"  # how many were handed back
    FAILED = "failed"  # traceback


class Start(msgspec.Struct):
    """An execution to start."""

    key: str
    task: str
    seed: int


class Known(msgspec.Struct):
    """An open execution: its id, its start, and what was acknowledged to its senders."""

    id: str
    start: Start
    sent: list[str] = []


class Plan(msgspec.Struct):
    """Everything a life is to do; the same for a forked child and a fresh interpreter."""

    path: str
    ledger: str
    life: int
    seed: int
    starts: list[Start] = []
    known: list[Known] = []
    point: str | None = None
    nth: int = 1
    drain: bool = False
    linger_us: int = 200_000
    checkpoint_pages: int = 4_000
    slots: int = 1_000
    plant: str | None = None


TICK_SECONDS: Final = 0.004
OPEN_FILTER: Final = Filter(states=(State.AWAITING_INPUT, State.SUSPENDED, State.PAUSED), limit=200)


class Life:
    """A process between its birth and its end."""

    def __init__(self, plan: Plan, pipe: int) -> None:
        self._plan = plan
        self._pipe = pipe
        self._dice = random.Random(plan.seed)
        self._known = {one.id: one for one in plan.known}
        self._stop = asyncio.Event()
        self._followed: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    def tell(self, word: Word, *parts: object) -> None:
        """Send the parent a line, whole."""
        os.write(self._pipe, msgspec.json.encode([word, *parts]) + b"\n")

    async def run(self) -> None:
        """Live."""
        plan = self._plan
        ledger.on_first_body(partial(self.tell, Word.BODY))
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.set_exception_handler(self._crashed)
        engine = await Engine(
            f"sqlite:///{plan.path}", slots=plan.slots, threads=6, patience="300ms"
        ).open()
        self._engine = engine
        self.tell(Word.READY)
        for one in plan.known:
            if plan.drain or self._dice.random() < 0.3:
                self._follow(engine.execution(one.id))
        self._spawn(self._start_all())
        self._spawn(self._operate())
        await self._stop.wait()
        for task in self._tasks:
            task.cancel()
        handed = await engine.aclose()
        if self._failure is not None:
            raise self._failure
        self.tell(Word.STOPPED, handed)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._stop.is_set():
            self._failure = self._failure or error
            self._stop.set()

    def _crashed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback of the engine failed: nobody else would hear of it."""
        error = context.get("exception") or RuntimeError(str(context.get("message")))
        self._failure = self._failure or error
        self._stop.set()

    async def _pause(self, seconds: float) -> None:
        """Go on after a moment, or at once when it is time to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            pass

    # What users do

    async def _start_all(self) -> None:
        for start in self._plan.starts:
            if self._stop.is_set():
                return
            task = programs.TASKS[start.task]
            handle = await task.options(key=start.key).astart(start.seed)
            self.tell(Word.START, start.key, handle.id)
            self._known[handle.id] = Known(handle.id, start)
            self._follow(handle)
            if self._dice.random() < 0.5:
                await self._pause(self._dice.random() * 0.006)

    def _follow(self, handle: Execution[Any]) -> None:
        if handle.id not in self._followed:
            self._followed.add(handle.id)
            self._spawn(self._report_end(handle))

    async def _report_end(self, handle: Execution[Any]) -> None:
        value: object = None
        try:
            value = await handle.aresult()
            state = State.SUCCEEDED
        except ExecutionCancelled:
            state = State.CANCELLED
        except NoEngine:
            return
        except Exception as error:  # noqa: BLE001 - no program raises one: the audit will say so
            state, value = State.FAILED, repr(error)
        self.tell(Word.RESULT, handle.id, state, value)
        self._known.pop(handle.id, None)

    async def _operate(self) -> None:
        """Look again and again for something to do."""
        while not self._stop.is_set():
            await self._pause(TICK_SECONDS)
            if self._stop.is_set():
                return
            for record in await self._read(OPEN_FILTER):
                await self._tend(record)
            await self._disturb()
            if self._plan.drain and not self._known and not self._engine.store.counts():
                self._stop.set()

    async def _read(self, filter: Filter) -> list[Record]:
        return await self._engine.worker.read(lambda: self._engine.store.page(filter))

    async def _tend(self, record: Record) -> None:
        """Give a parked execution what it waits for."""
        handle = self._engine.execution(record.id)
        if record.state is State.SUSPENDED:
            if (record.detail or {}).get("code") != "crash_loop":
                self.tell(Word.MISMATCH, record.id, str(record.detail))
                self._known.pop(record.id, None)
                return
            if await self._send(record.id, MessageKind.RESUME, f"lift{record.fence}"):
                self.tell(Word.LIFTED, record.id)
        elif record.state is State.PAUSED:
            if self._plan.drain or self._dice.random() < 0.3:
                await self._send(record.id, MessageKind.RESUME, f"resume{record.seq}")
        elif self._plan.drain or self._dice.random() < 0.5:
            await self._answer(handle)

    async def _answer(self, handle: Execution[Any]) -> None:
        for question in await handle.aquestions():
            try:
                await handle.aanswer(programs.answer_of(handle.id, question.key), key=question.key)
            except (AlreadyAnswered, NotFound, TransitionRefused):
                continue
            self.tell(Word.ANSWER, handle.id, question.key)

    async def _disturb(self) -> None:
        """Signal, answer, cancel and pause executions whatever they are doing."""
        chosen = list(self._known.values())
        if not self._plan.drain:
            chosen = self._dice.sample(chosen, min(3, len(chosen)))
        for one in chosen:
            await self._signal(one)
            if self._plan.drain:
                continue
            if one.start.task == "cancelled" and self._dice.random() < 0.15:
                await self._send(one.id, MessageKind.CANCEL, f"cancel{self._dice.random()}")
            elif self._dice.random() < 0.04:
                await self._send(one.id, MessageKind.PAUSE, f"pause{self._dice.random()}")
            elif self._dice.random() < 0.3:
                await self._answer(self._engine.execution(one.id))

    async def _signal(self, one: Known) -> None:
        """Send the next of the signals that the program waits for; the same id each time."""
        for number in programs.signals_in(programs.plan_of(one.start.task, one.start.seed)):
            name, id, value = programs.signal_of(one.id, number)
            if id in one.sent:
                continue
            payload = msgspec.json.encode(value)
            if await self._send(one.id, MessageKind.SIGNAL, id, key=name, payload=payload):
                one.sent.append(id)
            if not self._plan.drain:
                return

    async def _send(self, execution: str, kind: MessageKind, id: str, **parts: Any) -> bool:
        """Send a message and tell that it was taken; a refusal is no matter here."""
        message = new_message(kind, "campaign", id=id, **parts)
        try:
            record = await self._engine.asend(execution, message)
        except (TransitionRefused, NotFound):
            return False
        if kind is not MessageKind.PAUSE or record.is_leased:
            self.tell(Word.SENT, execution, id)  # a pause of what is paused is not kept
        return True


def live(plan: Plan, pipe: int) -> NoReturn:
    """Be the life of a plan, in this process, to its end."""
    code = 1
    life: Life | None = None
    try:
        prepare(plan)
        life = Life(plan, pipe)
        if plan.point is not None:
            points.arm(plan.point, plan.nth, lambda name: life.tell(Word.POINT, name))
        asyncio.run(life.run())
        code = 0
    except BaseException:  # noqa: BLE001 - the parent hears of it, whatever it is
        text = traceback.format_exc()
        os.write(pipe, msgspec.json.encode([Word.FAILED, text[-3000:]]) + b"\n")
    finally:
        os._exit(code)


def prepare(plan: Plan) -> None:
    """Set up the process: its ledger, its dice, and the limits that make rare things common."""
    from outlast.engine.drive import waiting
    from outlast.store.sqlite import connect

    random.seed(plan.seed)
    ledger.open_ledger(plan.ledger, plan.life)
    waiting.LINGER_US = plan.linger_us  # type: ignore[misc]
    connect.CHECKPOINT_PAGES = plan.checkpoint_pages  # type: ignore[misc]
    if plan.plant is not None:
        plants.PLANTS[plan.plant].put_in()


if __name__ == "__main__":  # a fresh interpreter: the plan comes on stdin, the pipe is stdout
    live(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan), 1)
