"""A worker without a database: it takes steps from a server, runs their bodies, and says what came.

Theory of operation. The worker asks for steps that it knows, by name, and waits at the server until
there is one. A body runs as it would beside an engine: a coroutine on the loop, a function in a
thread. Meanwhile heartbeats renew its claim and carry along what it says of itself. An answer that
says *stop*, or that the claim is no more, ends the body: a coroutine is cancelled, a function finds
out at its next heartbeat, and what it gives is thrown away. Nothing that happens here can do harm
there: whatever is late is refused by the claim's token.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec

from outlast import failure
from outlast.client.wire import Wire
from outlast.codec import PAYLOAD_BYTES_MAX
from outlast.duration import Duration, microseconds
from outlast.engine.read.logs import begin_capture, end_capture
from outlast.engine.replay.eager import Escaped, guarded_call
from outlast.engine.task.current import StepInfo, current_step
from outlast.engine.task.registry import REMOTE_STEPS
from outlast.engine.write.emitter import DONE, Said
from outlast.errors import (
    LeaseLost,
    Misdirected,
    Overloaded,
    ServerUnreachable,
    StoreUnavailable,
    UsageError,
)
from outlast.store.protocol import LOGS

if TYPE_CHECKING:
    from outlast.engine.task.registry import AsyncStep, DefStep

    Step = AsyncStep[Any, Any] | DefStep[Any, Any]

WAIT_SECONDS: Final = 20.0
"""How long it waits at the server for something to do."""
PAUSE_SECONDS: Final = 0.5
PAUSE_SECONDS_MAX: Final = 10.0
SAID_MAX: Final = 1_000
"""Items that wait for a heartbeat before lines of a log are lost."""
"""How long it waits before it asks a server again that cannot be reached: ever longer."""
SAY_SECONDS: Final = 0.25
"""How soon it passes on what a body says of itself."""
_AWAY: Final = (ServerUnreachable, StoreUnavailable, Overloaded)
MISDIRECTED_SECONDS: Final = (0.0, 0.0, *[0.05] * 18)
"""The pauses between tries to find the server that has given a claim."""


class RemoteWorker:
    """Runs steps with ``on="remote"`` for a server.

    Args:
        url: the server's address, as ``https://ops.example``.
        token: a token with the role ``worker``; by default ``OUTLAST_TOKEN``.
        steps: what it runs; by default every such step defined in this process.
        name: what it is called in the server's errors; by default the machine's name and its pid.
        concurrency: how many bodies it runs at once.
        lease: how long it may be silent before others may take its steps.
        patience: how long a stop waits for bodies under way; then they are given back.
        transport: what carries the requests; for tests.

    Attributes:
        done, failed, lost: how many bodies came to a value, to an error, and were run in vain, as
            their claim was no more.

    Raises:
        UsageError: there is no step to run.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        steps: Iterable[Step] | None = None,
        name: str | None = None,
        concurrency: int = 10,
        lease: Duration = "30s",
        patience: Duration = "5s",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        known: Iterable[Any] = REMOTE_STEPS.values() if steps is None else steps
        self.steps: Mapping[str, Any] = {step.name: step for step in known}
        if not self.steps:
            raise UsageError(
                "there is no step to run for others",
                why='no function here has @step(on="remote")',
                do='put @step(on="remote") before a function',
            )
        self.name = name or f"{socket.gethostname()}.{os.getpid()}"
        self.done = self.failed = self.lost = 0
        self._turns = self._is_known = False
        self._wire = Wire(
            url,
            token or os.environ.get("OUTLAST_TOKEN"),
            transport,
            tenant=os.environ.get("OUTLAST_TENANT"),
        )
        self._concurrency = concurrency
        self._lease_seconds = microseconds(lease) / 1e6
        self._patience_seconds = microseconds(patience) / 1e6
        self._threads = ThreadPoolExecutor(concurrency, "outlast-remote")
        self._jobs: set[asyncio.Task[None]] = set()

    async def run(
        self,
        until: asyncio.Event,
        on_away: Callable[[Exception], None] | None = None,
        on_known: Callable[[], None] | None = None,
    ) -> None:
        """Take steps and run them until somebody wants it to stop.

        Args:
            until: is set when it is to stop.
            on_away: is told when the server cannot be reached, once each time.
            on_known: is told when the server has let it take steps for the first time.

        Raises:
            Unauthenticated, Forbidden: the token is not known, or may not take steps.
        """
        begin_capture()
        try:
            await self._take_steps(until, on_away, on_known)
        finally:
            end_capture()

    async def _take_steps(
        self,
        until: asyncio.Event,
        on_away: Callable[[Exception], None] | None,
        on_known: Callable[[], None] | None,
    ) -> None:
        stop = asyncio.ensure_future(until.wait())
        pause = 0.0
        try:
            while not until.is_set():
                free = self._concurrency - len(self._jobs)
                if not free:
                    await asyncio.wait({stop, *self._jobs}, return_when=asyncio.FIRST_COMPLETED)
                    continue
                asking = asyncio.ensure_future(self._claim(free))
                await asyncio.wait({stop, asking}, return_when=asyncio.FIRST_COMPLETED)
                if not asking.done():
                    asking.cancel()
                    break
                try:
                    claims = asking.result()
                except _AWAY as error:
                    if not pause and on_away is not None:
                        on_away(error)
                    pause = min(max(PAUSE_SECONDS, 2 * pause), PAUSE_SECONDS_MAX)
                    await asyncio.wait({stop}, timeout=pause)
                    continue
                pause = 0.0
                if not self._is_known:
                    self._is_known = True
                    if on_known is not None:
                        on_known()
                for claim in claims:
                    job = asyncio.ensure_future(self._serve(claim))
                    self._jobs.add(job)
                    job.add_done_callback(self._jobs.discard)
        finally:
            stop.cancel()
            await self._end()

    async def _end(self) -> None:
        """Wait for what is under way, for a while; give back the rest."""
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=self._patience_seconds)
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._wire.close()

    async def _claim(self, limit: int) -> list[dict[str, Any]]:
        """Ask for steps; where there was nothing, go on over another connection.

        Behind an address that several servers share, that leads to another one of them.
        """
        body = {
            "steps": list(self.steps),
            "worker": self.name,
            "limit": min(limit, 100),
            "wait_seconds": WAIT_SECONDS if self._is_known and not self._turns else 0.0,
            "lease_seconds": self._lease_seconds,
        }
        headers = {"connection": "close"} if self._turns else {}
        answer = await self._wire.send("POST", "/claims", body=body, headers=headers)
        items: list[dict[str, Any]] = msgspec.json.decode(answer.content)["items"]
        self._turns = not items and not self._turns
        return items

    async def _serve(self, claim: dict[str, Any]) -> None:
        """Run the body of a claim, and say what came of it."""
        body = _RemoteBody(claim)
        place = f"/claims/{claim['id']}/"
        running = asyncio.ensure_future(self._run(self.steps[claim["step"]], claim, body))
        beating = asyncio.ensure_future(self._beat(place, claim, body))
        try:
            await asyncio.wait({running, beating}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():  # nobody awaits it any more
                self.lost += 1
                body.is_unwanted = True
                running.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await running
                return
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await beating
            word, outcome = running.result()
            if body.has_something():
                await self._tell(place + "heartbeat", body.take(claim["token"]))
            if await self._tell(place + word, {"token": claim["token"], **outcome}):
                if word == "complete":
                    self.done += 1
                else:
                    self.failed += 1
            else:
                self.lost += 1
        except asyncio.CancelledError:
            body.is_unwanted = True
            for task in (running, beating):
                task.cancel()
            await asyncio.gather(running, beating, return_exceptions=True)
            with contextlib.suppress(Exception):  # else its lease runs out
                await self._post(place + "release", {"token": claim["token"]})
            raise

    async def _run(
        self, step: Any, claim: dict[str, Any], body: _RemoteBody
    ) -> tuple[str, dict[str, Any]]:
        """Run a body; gives how to say what came of it."""
        try:
            args, kwargs = step.input.unbind(msgspec.json.encode(claim["input"]))
            context = contextvars.copy_context()
            context.run(current_step.set, body)
            if inspect.iscoroutinefunction(step.fn):
                value = await asyncio.create_task(step.fn(*args, **kwargs), context=context)
            else:
                value = await asyncio.get_running_loop().run_in_executor(
                    self._threads, lambda: context.run(guarded_call, step.fn, *args, **kwargs)
                )
            data = step.output.encode(value, bytes_max=PAYLOAD_BYTES_MAX, name="result")
        except asyncio.CancelledError:
            raise
        except BaseException as raised:  # noqa: BLE001 - the border of user code
            error = raised.error if isinstance(raised, Escaped) else raised
            described = failure.describe(error)
            return "fail", {
                "error": {
                    "type": described.type,
                    "message": described.message[:4_000],
                    "args": list(described.args)[:50],
                    "attributes": described.attributes,
                    "traceback": described.traceback[:64_000],
                }
            }
        return "complete", {"output": msgspec.json.decode(data)}

    async def _beat(self, place: str, claim: dict[str, Any], body: _RemoteBody) -> None:
        """Renew a claim, and pass on what its body says; ends when nobody awaits it any more."""
        loop = asyncio.get_running_loop()
        rhythm = self._lease_seconds / 3
        until = loop.time() + self._lease_seconds
        while loop.time() < until:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rhythm):
                    await body.has_news(loop)
                    await asyncio.sleep(min(SAY_SECONDS, rhythm))
            asked_at = loop.time()
            try:
                answer = await self._post(place + "heartbeat", body.take(claim["token"]))
                body.was_taken()
            except LeaseLost:
                return
            except _AWAY:
                await asyncio.sleep(min(PAUSE_SECONDS, rhythm / 2))
                continue
            if msgspec.json.decode(answer)["stop"]:
                return
            until = asked_at + self._lease_seconds

    async def _post(self, place: str, said: dict[str, Any]) -> bytes:
        """Say something of a claim to the server that gave it.

        Where several share an address, another connection leads to another one of them.
        """
        headers: dict[str, str] = {}
        for pause in MISDIRECTED_SECONDS:
            try:
                answer = await self._wire.send("POST", place, body=said, headers=headers)
            except Misdirected:
                headers = {"connection": "close"}
                await asyncio.sleep(pause)
            else:
                return answer.content
        raise ServerUnreachable(
            "the server that gave a claim is not found again behind its address",
            where=self._wire.url,
            do="give each server an address, and each its workers",
        )

    async def _tell(self, place: str, said: dict[str, Any]) -> bool:
        """Say what came of a body, as long as the claim may hold; gives whether it was taken."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._lease_seconds
        while True:
            try:
                await self._post(place, said)
            except LeaseLost:
                return False
            except _AWAY:
                if loop.time() > until:
                    return False
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            return True


class _RemoteBody:
    """What a body's code can ask and tell here; see :class:`outlast.engine.steps.body.Body`."""

    def __init__(self, claim: dict[str, Any]) -> None:
        identity, _, _ = claim["idempotency_key"].partition(":")
        self._info = StepInfo(
            claim["execution_id"], claim["key"], claim["attempt"], identity, claim["last_heartbeat"]
        )
        self.is_unwanted = False
        self._lock = threading.Lock()
        self._details: bytes | None = None
        self._spent: dict[str, int] = {}
        self._said: list[dict[str, Any]] = []
        self._progress: dict[str, Any] | None = None
        self._number = 0
        self._unheard: dict[str, Any] | None = None
        self._news: Callable[[], None] | None = None

    def info(self) -> StepInfo:
        return self._info

    def beat(self, details: bytes | None) -> None:
        self._see_wanted()
        if details is not None:
            self._note(_details=details)

    def spend(self, amounts: Mapping[str, int]) -> None:
        with self._lock:
            for meter, amount in amounts.items():
                self._spent[meter] = self._spent.get(meter, 0) + amount
        self._note()

    async def reserve(self, amounts: Mapping[str, int]) -> str:
        return self.reserve_blocking(amounts)

    def reserve_blocking(self, amounts: Mapping[str, int]) -> str:
        raise UsageError(
            "a step on another machine cannot reserve",
            do="give the step its cost: @step(cost={…}), or reserve in the task",
        )

    def emit(self, name: str, payload: bytes) -> Said:
        self._see_wanted()
        with self._lock:
            self._said.append({"stream": name, "value": msgspec.json.decode(payload)})
        self._note()
        return DONE

    def jot(self, payload: bytes) -> None:
        with self._lock:
            if self.is_unwanted or len(self._said) >= SAID_MAX:
                return
            self._said.append({"stream": LOGS, "value": msgspec.json.decode(payload)})
        self._note()

    def names(self) -> Mapping[str, object]:
        info = self._info
        return {"execution": info.execution_id, "step": info.key, "attempt": info.attempt}

    def report(self, done: float, total: float | None, text: str | None) -> Said:
        self._see_wanted()
        self._note(_progress={"done": done, "total": total, "text": text})
        return DONE

    def has_something(self) -> bool:
        """Tell whether there is something to say."""
        with self._lock:
            return self._has_something()

    def _has_something(self) -> bool:
        return bool(self._unheard or self._details or self._spent or self._said or self._progress)

    def was_taken(self) -> None:
        """Hear that what was said last has been heard."""
        self._unheard = None

    def take(self, token: str) -> dict[str, Any]:
        """Give what a heartbeat is to say: the same again, under its number, until it was heard."""
        with self._lock:
            if self._unheard is not None:
                return self._unheard
            self._number += 1
            said: dict[str, Any] = {"token": token, "number": self._number}
            if self._details is not None:
                said["details"] = msgspec.json.decode(self._details)
            if self._spent:
                said["spent"] = {meter: amount / 1e6 for meter, amount in self._spent.items()}
            if self._progress is not None:
                said["progress"] = self._progress
            if self._said:
                said["said"] = self._said
            self._details, self._spent, self._progress, self._said = None, {}, None, []
            self._unheard = said
            return said

    async def has_news(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until there is something to say."""
        heard = asyncio.Event()
        with self._lock:
            if self._has_something():
                return

            def hear() -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(heard.set)

            self._news = hear
        try:
            await heard.wait()
        finally:
            self._news = None

    def _note(self, **changes: Any) -> None:
        with self._lock:
            for name, value in changes.items():
                setattr(self, name, value)
            news = self._news
        if news is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                news()

    def _see_wanted(self) -> None:
        if self.is_unwanted:
            raise asyncio.CancelledError("this attempt is over: nobody awaits it any more")


__all__ = ["RemoteWorker"]
