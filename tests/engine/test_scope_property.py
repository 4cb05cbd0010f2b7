"""Random programs replay exactly: every prefix of every log, parked there and gone on with."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import warnings
import zlib
from collections.abc import Callable
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlast.engine.replay.scope import Call, Outcome, Scope
from outlast.engine.task.current import current_scope

START = 1_700_000_000_000_000
Body = list[tuple[Any, ...]]
within: ContextVar[int] = ContextVar("within", default=-1)

LEAVES: tuple[Callable[[random.Random], tuple[Any, ...]], ...] = (
    lambda r: ("step", r.choice("abc")),
    lambda r: ("shared", r.randrange(10)),
    lambda r: ("sleep", r.choice((1, 2, 0.5, 1e-7))),
    lambda r: ("wait", r.choice(("FIRST_COMPLETED", "ALL_COMPLETED", "FIRST_EXCEPTION"))),
    lambda r: ("yield",),
    lambda r: ("put",),
    lambda r: ("set",),
    lambda r: ("dice",),
    lambda r: ("notify",),
    lambda r: ("waited", r.choice((1, 3)), "ALL_COMPLETED"),
    lambda r: ("join", r.randrange(4)),
    lambda r: ("cancel", r.randrange(4)),
    lambda r: ("bad", "x"),
    lambda r: ("raise",),
    lambda r: ("get",),
    lambda r: ("stand",),
    lambda r: ("ask",),
    lambda r: ("event", r.randrange(2)),
)
WEIGHTS = (16, 4, 4, 4, 3, 2, 3, 1, 2, 2, 2, 2, 2, 1, 1, 2, 2, 2)
NODES: tuple[str, ...] = (
    "gather",
    "settle",
    "group",
    "spawn",
    "spawn",
    "as_completed",
    "timeout",
    "wait_for",
    "wait_for",
    "lock",
    "sem",
    "finally",
    "finally",
    "catch",
    "catch_all",
    "shield",
    "generator",
    "callback",
    "stubborn",
)


def program(r: random.Random) -> Body:
    """Draw a program: some branches that run beside a body whose parts may fail one by one."""
    spawned = [("spawn", body(r, 2)) for _ in range(r.randint(0, 3))]
    return spawned + [("catch", body(r, 3)) for _ in range(r.randint(2, 6))]


def body(r: random.Random, depth: int) -> Body:
    parts: Body = []
    for _ in range(r.randint(1, 4)):
        if depth and r.random() < 0.5:
            parts.append(node(r, depth))
        else:
            parts.append(r.choices(LEAVES, WEIGHTS)[0](r))
    return parts


def node(r: random.Random, depth: int) -> tuple[Any, ...]:
    kind = r.choice(NODES)
    if kind in ("gather", "settle", "group", "as_completed"):
        return kind, [body(r, depth - 1) for _ in range(r.randint(1, 3))]
    if kind in ("timeout", "wait_for"):
        return kind, r.choice((0, 1, 1.5, 4)), body(r, depth - 1)
    if kind == "finally":
        return kind, body(r, depth - 1), body(r, 0)
    return kind, body(r, depth - 1)


@dataclass
class World:
    """What the branches of one execution share."""

    trace: list[Any] = field(default_factory=list)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    shared: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lock = asyncio.Lock()
        self.sem = asyncio.Semaphore(2)
        self.queue: asyncio.Queue[int] = asyncio.Queue(2)
        self.event = asyncio.Event()
        self.condition = asyncio.Condition()
        self.names: dict[asyncio.Task[Any], int] = {}


class Match:
    """A predicate on signals, as a call for an event carries it."""

    def __init__(self, parity: int) -> None:
        self.parity = parity

    def match(self, value: int) -> bool:
        return value % 2 == self.parity


class Interpreter:
    """Runs one program once, as task code."""

    def __init__(self) -> None:
        self.world: World | None = None

    @property
    def trace(self) -> list[Any]:
        return self.world.trace if self.world is not None else []

    def note(self, *what: Any) -> None:
        assert self.world is not None
        self.world.trace.append(what)
        self.world.shared.append(what)

    async def main(self, body: Body) -> Any:
        self.world = World()
        await self.run(body)
        return len(self.world.shared)

    async def run(self, body: Body) -> Any:
        try:
            for one in body:
                await getattr(self, "do_" + one[0])(*one[1:])
        except asyncio.CancelledError:
            self.note("cancelled")
            raise
        return len(self.trace)

    def call(self, name: str, kind: str = "step", payload: Any = None) -> Any:
        scope = scope_here()
        assert self.world is not None
        digest = zlib.crc32(repr(self.world.shared[-4:]).encode())
        return scope.call(kind, name, digest, payload)

    def spawn(self, body: Body) -> asyncio.Task[Any]:
        assert self.world is not None
        number = len(self.world.tasks)
        task = asyncio.create_task(self.numbered(number, body))
        self.world.names[task] = number
        self.world.tasks.append(task)
        return task

    async def numbered(self, number: int, body: Body) -> Any:
        within.set(number)
        return await self.run(body)

    async def do_step(self, name: str) -> None:
        self.note(name, await self.call(name))

    async def do_bad(self, name: str) -> None:
        await self.call("bad")

    async def do_sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.note("slept", scope_here().now())

    async def do_yield(self) -> None:
        await asyncio.sleep(0)
        self.note("yielded")

    async def do_gather(self, bodies: list[Body]) -> None:
        self.note(await asyncio.gather(*[self.run(b) for b in bodies], self.call("g")))

    async def do_settle(self, bodies: list[Body]) -> None:
        got = await asyncio.gather(*[self.run(b) for b in bodies], return_exceptions=True)
        self.note([type(one).__name__ for one in got])

    async def do_group(self, bodies: list[Body]) -> None:
        async with asyncio.TaskGroup() as group:
            for body in bodies:
                group.create_task(self.run(body))
            group.create_task(self.call("t"))
        self.note("group")

    async def do_spawn(self, body: Body) -> None:
        self.spawn(body)

    async def do_join(self, number: int) -> None:
        assert self.world is not None
        # Never an older one: tasks that wait for each other cannot even be cancelled.
        if within.get() < number < len(self.world.tasks):
            task = self.world.tasks[number]
            if not (task.cancelled() and scope_here().is_closed):  # its own, old CancelledError
                self.note("joined", await task)

    async def do_cancel(self, number: int) -> None:
        assert self.world is not None
        if number < len(self.world.tasks):
            self.note("cancelling", self.world.tasks[number].cancel())

    async def do_wait(self, mode: str, timeout: float | None = None) -> None:
        assert self.world is not None
        names = self.world.names
        tasks = [t for t in self.world.tasks if names[t] != within.get()]
        if tasks:
            done, pending = await asyncio.wait(tasks, timeout=timeout, return_when=mode)
            self.note([names[t] for t in done], [names[t] for t in pending])

    async def do_waited(self, timeout: float, mode: str) -> None:
        await self.do_wait(mode, timeout)

    async def do_put(self) -> None:
        assert self.world is not None
        await self.world.queue.put(len(self.trace))
        self.note("put")

    async def do_get(self) -> None:
        assert self.world is not None
        self.note("got", await self.world.queue.get())

    async def do_set(self) -> None:
        assert self.world is not None
        self.world.event.set()
        self.note("set")

    async def do_stand(self) -> None:
        assert self.world is not None
        await self.world.event.wait()
        async with self.world.condition:
            self.note("stood")

    async def do_notify(self) -> None:
        assert self.world is not None
        async with self.world.condition:
            await self.call("c")
            self.world.condition.notify_all()

    async def do_shared(self, number: int) -> None:
        assert self.world is not None
        self.world.shared.append(number)

    async def do_ask(self) -> None:
        self.note("answer", await self.call("ask", "ask"))

    async def do_event(self, parity: int) -> None:
        self.note("signal", await self.call("news", "event", Match(parity)))

    async def do_dice(self) -> None:
        scope = scope_here()
        self.note(scope.random.random(), str(scope.uuid4()))

    async def do_raise(self) -> None:
        raise ValueError(len(self.trace))

    async def do_as_completed(self, bodies: list[Body]) -> None:
        for first in asyncio.as_completed([self.spawn(b) for b in bodies]):
            self.note("completed", await first)

    async def do_timeout(self, seconds: float, body: Body) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.run(body)
        except TimeoutError:
            self.note("timed out")

    async def do_wait_for(self, seconds: float, body: Body) -> None:
        try:
            await asyncio.wait_for(self.run(body), seconds)
        except TimeoutError:
            self.note("timed out waiting")

    async def do_lock(self, body: Body) -> None:
        assert self.world is not None
        async with self.world.lock:
            await self.run(body)

    async def do_sem(self, body: Body) -> None:
        assert self.world is not None
        async with self.world.sem:
            await self.run(body)

    async def do_finally(self, body: Body, last: Body) -> None:
        try:
            await self.run(body)
        finally:
            await self.run(last)

    async def do_catch(self, body: Body) -> None:
        try:
            await self.run(body)
        except Exception as error:
            self.note("caught", type(error).__name__)

    async def do_catch_all(self, body: Body) -> None:
        try:
            await self.run(body)
        except BaseException as error:
            self.note("caught all", type(error).__name__)
            await self.call("undo")

    async def do_stubborn(self, body: Body) -> None:
        for _ in range(3):
            try:
                await self.run(body)
                return
            except BaseException as error:
                self.note("again", type(error).__name__)

    async def do_shield(self, body: Body) -> None:
        await asyncio.shield(self.spawn(body))

    async def do_callback(self, body: Body) -> None:
        asyncio.get_running_loop().call_later(1, self.spawn, body)

    async def do_generator(self, body: Body) -> None:
        async def numbers() -> Any:
            try:
                for number in range(2):
                    await self.run(body)
                    yield number
            finally:
                await self.call("close")

        async with aclosing(numbers()) as generator:
            async for number in generator:
                self.note("number", number)


def scope_here() -> Scope:
    scope = current_scope.get()
    assert isinstance(scope, Scope)
    return scope


def identity(calls: list[Call]) -> list[tuple[str, int]]:
    return [(call.key, call.digest) for call in calls]


class Run:
    """A scope with its program, and what an engine would have seen of it."""

    def __init__(self, body: Body) -> None:
        self.interpreter = Interpreter()
        self.scope = Scope(lambda: self.interpreter.main(body), seed=b"seed")
        self.open: dict[str, Call] = {}
        self.seen: list[Any] = []

    def begin(self) -> None:
        self.scope.begin(START)

    def look(self) -> Any:
        """Take what an engine takes, and give all that can be told from outside."""
        calls, abandoned = self.scope.take_calls(), self.scope.take_abandoned()
        for call in calls:
            self.open[call.key] = call
        for call in abandoned:
            if call.kind != "ask" or call.key in self.open:  # one that was given up at once
                del self.open[call.key]
        self.seen.append(
            (
                identity(calls),
                identity(abandoned),
                list(self.scope.open_calls),
                self.scope.next_timer(),
                self.scope.finished,
                self.scope.stuck,
                len(self.interpreter.trace),
            )
        )
        return self.seen[-1]

    def deliver(self, outcome: Outcome) -> None:
        self.open.pop(outcome.key or "", None)
        self.scope.deliver(outcome)

    def end(self) -> Any:
        return (
            self.interpreter.trace,
            self.scope.finished,
            self.scope.result,
            tree(self.scope.exception),
            self.scope.stuck,
        )


def tree(error: BaseException | None) -> Any:
    if isinstance(error, BaseExceptionGroup):
        return [tree(one) for one in error.exceptions]
    return repr(error)


def choose(run: Run, r: random.Random, number: int, extras: dict[str, int]) -> Outcome | None:
    """Let something happen that could happen now."""
    scope, seq = run.scope, number + 2
    at = scope.now() + r.choice((0, 1, 400_000, 1_000_000))
    choices: list[Outcome] = []
    for call in run.open.values():
        if call.kind == "step":
            error = ValueError(call.key) if call.name == "bad" else None
            choices.append(Outcome(seq, at, "step", call.key, call.digest, seq, error))
        elif call.kind == "ask":
            choices.append(Outcome(seq, at, "input", call.key, None, seq))
    timer = scope.next_timer()
    if timer is not None:
        late = max(at, timer.deadline_at)
        choices.append(Outcome(seq, late, "timer", timer.key, timer.deadline_at))
    waiting = len(choices)
    if extras["signal"] and r.random() < 0.5:
        choices.append(Outcome(seq, at, "signal", "news", None, seq))
        choices.append(Outcome(seq, at, "input", f"ask#{r.randint(1, 2)}", None, seq))
    if extras["cancel"] and r.random() < 0.2:
        choices.append(Outcome(seq, at, "cancel"))
    if extras["start"]:
        choices.append(Outcome(seq, at, "start"))
    if not choices or (not waiting and r.random() < 0.2):
        return None
    chosen = r.choice(choices)
    early = chosen.kind == "input" and chosen.key not in scope.open_calls
    extra = "signal" if early else chosen.kind
    if extra in extras:
        extras[extra] -= 1
    return chosen


def live(what: Body, r: random.Random) -> tuple[Run, list[Outcome], list[Any]]:
    """Run a program for the first time; gives its log and what was seen after each row."""
    run = Run(what)
    log: list[Outcome] = []
    extras = {"signal": 3, "cancel": r.choice((0, 0, 1, 2)), "start": 1}
    run.begin()
    run.look()
    while not run.scope.finished and len(log) < 40:
        outcome = choose(run, r, len(log), extras)
        if outcome is None:
            break
        log.append(outcome)
        run.deliver(outcome)
        run.look()
    return run, log, run.seen


def park(run: Run) -> None:
    """Close a scope: whatever its code does then has no effect, and it never sees a cancel."""
    trace = run.interpreter.trace
    before = len(trace)
    open_before = dict(run.scope.open_calls)
    states = {key: call.state for key, call in open_before.items()}
    run.scope.close()
    assert run.scope.take_calls() == []
    assert run.scope.take_abandoned() == []
    assert {key: call.state for key, call in open_before.items()} == states
    assert ("cancelled",) not in trace[before:]
    assert not any("CancelledError" in repr(noted) for noted in trace[before:])


def check_every_prefix(what: Body, r: random.Random) -> None:
    first, log, seen = live(what, r)
    end = first.end()
    end = (list(end[0]), *end[1:])
    first.scope.close()
    for length in range(len(log) + 1):
        again = Run(what)
        again.begin()
        for outcome in log[:length]:
            again.deliver(outcome)
        # Nothing was taken during the replay: what is open now is what was open then, in order.
        calls = again.scope.take_calls()
        assert [call.key for call in calls] == seen[length][2] == list(again.scope.open_calls)
        # Questions are told of in a replay as well: whether they were closed stands in the log.
        assert [call for call in again.scope.take_abandoned() if call.kind != "ask"] == []
        assert (again.scope.next_timer(), again.scope.finished) == seen[length][3:5]
        if not again.scope.finished:
            park(again)
        resumed = Run(what)
        resumed.begin()
        resumed.look()
        for place, outcome in enumerate(log):
            assert resumed.seen[-1] == seen[place]
            resumed.deliver(outcome)
            resumed.look()
            if place == length:
                break
        for outcome in log[length + 1 :]:
            resumed.deliver(outcome)
        assert resumed.end() == end
        resumed.scope.close()


class Complaints:
    """Collects what Python would print of forgotten coroutines and destroyed tasks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        self.unraisable: list[Any] = []
        self.caplog = caplog
        monkeypatch.setattr(sys, "unraisablehook", lambda args: self.unraisable.append(repr(args)))

    def none(self) -> bool:
        gc.collect()
        destroyed = [r.message for r in self.caplog.records if "destroyed" in r.message]
        return not self.unraisable and not destroyed


@pytest.mark.timeout(600)  # its exception would come to the program that is tried
@given(r=st.randoms(use_true_random=False))
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)
def test_every_prefix_of_a_random_program_replays(
    r: random.Random, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "outlast.engine")
    check_every_prefix(program(r), r)


@pytest.mark.parametrize("seed", range(12))
def test_seeded_programs_replay_without_complaints(
    seed: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "outlast.engine")
    complaints = Complaints(monkeypatch, caplog)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(15):
            r = random.Random(seed * 1000 + number)
            check_every_prefix(program(r), r)
        assert complaints.none(), complaints.unraisable
