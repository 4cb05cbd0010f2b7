"""Processes for the bodies of steps that must be stoppable: a small pool of them, kept warm.

Theory of operation. A process is started afresh (``subprocess``, never a fork of this process and
its threads) and runs :mod:`outlast.engine.steps.process_child`. Arguments, results and failures
cross as the codec's JSON, and a step is named by its module and qualified name: nothing is ever
pickled. Each body in flight has a thread of the pool, which talks to the process; so everything
here blocks, and there are as many threads as processes. All else is called on the engine's loop.

No process outlives what it belongs to:

* It leads a session of its own, and whoever ends it kills that whole group, so what the body has
  started dies with it.
* It holds the read end of a pipe, the lifeline, whose only write end is here. When this process
  dies, however that happens, the kernel closes it and signals SIGKILL to the group.

``_lock`` guards which process works for which call, and every signal is sent under it: none can
reach a process that already works for somebody else, nor a process id that is another's by now, as
only a process that is taken out of this association is ever waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import thread as pool_module
from typing import TYPE_CHECKING, Any, Final

import msgspec

from outlast import failure
from outlast.engine.replay import eager
from outlast.engine.steps.process_child import (
    BEAT,
    BEGIN,
    EMIT,
    FAILED,
    HEAD,
    HELLO,
    JOT,
    LEAVE,
    READY,
    REPORT,
    SPENT,
    USED,
    VALUE,
    Job,
)
from outlast.errors import CannotLoad, ProcessDied

if TYPE_CHECKING:
    from outlast.engine.steps.body import Body

IDLE_SECONDS: Final = 30.0
"""How long a process is kept that nobody needs."""
END_SECONDS: Final = 2.0
"""How long a process that is not needed may take to end by itself."""
CLOSE_SECONDS: Final = 5.0
"""How long bodies may clean up when the engine is closed, whatever their grace."""
FRAME_BYTES_MIN: Final = 1024 * 1024
"""What a process may always send at once: failures and heartbeats are bounded by themselves."""
POLL_SECONDS: Final = 0.2
"""How often to see whether a process lives, where the kernel cannot tell."""


class ProcessCall:
    """One body that runs in a process, or waits for one.

    Attributes:
        future: gives its value, or the error it raised, on the engine's loop.
    """

    def __init__(self, pool: ProcessPool, body: Body, bytes_max: int) -> None:
        self.body = body
        self.bytes_max = bytes_max
        self.process: Process | None = None
        self._is_stopped = False
        self._pool = pool
        self.future: asyncio.Future[Any] = asyncio.wrap_future(
            pool.threads.submit(pool.run, self), loop=pool.loop
        )
        pool.futures.add(self.future)
        self.future.add_done_callback(pool.futures.discard)

    def stop(self, grace_us: int) -> None:
        """Stop it: SIGTERM to its group now, SIGKILL after the grace."""
        was_stopping, self._is_stopped = self._is_stopped, True
        if grace_us and not was_stopping:
            self._signal(signal.SIGTERM)
            self._pool.loop.call_later(grace_us / 1e6, self._signal, signal.SIGKILL)
        elif not grace_us:
            self._signal(signal.SIGKILL)

    def is_stopped(self) -> bool:
        """Tell whether somebody has stopped it."""
        return self._is_stopped

    def _signal(self, number: int) -> None:
        with self._pool.lock:
            if self.process is not None:
                self.process.signal(number)


class ProcessPool:
    """Processes that run bodies, one each.

    Args:
        loop: the engine's loop.
        limit: how many there are at most.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        self.loop = loop
        self.lock = threading.Lock()
        self.threads = ThreadPoolExecutor(limit, "outlast-process")
        self.processes: set[Process] = set()
        self.working: set[ProcessCall] = set()
        self.futures: set[asyncio.Future[Any]] = set()
        self._idle: list[tuple[float, Process]] = []
        self._trimming: asyncio.TimerHandle | None = None
        self._is_closed = False

    def call(self, body: Body, bytes_max: int) -> ProcessCall:
        """Run a body in a process, as soon as one is free."""
        return ProcessCall(self, body, bytes_max)

    def run(self, call: ProcessCall) -> Any:
        """Run a body; called in a thread of the pool.

        Raises:
            Exception: what the body raised, rebuilt.
            ProcessDied: its process ended before it.
            CannotLoad: no other process can find the step.
        """
        if call.is_stopped():
            return None  # before it had a process to stop; nobody hears of this
        self.working.add(call)
        try:
            return self._run(call)
        finally:
            self.working.discard(call)

    def _run(self, call: ProcessCall) -> Any:
        body = call.body
        job = _job_of(body, call.bytes_max)
        process = self._take()
        is_whole = False
        try:
            with self.lock:
                call.process = process
                was_stopped = call.is_stopped()
            if was_stopped:
                return None
            try:
                kind, data = process.ask(msgspec.msgpack.encode(job), body, call.bytes_max)
                is_whole = True
            finally:
                with self.lock:
                    call.process = None
        finally:
            if is_whole and not call.is_stopped() and not self._is_closed:
                self._put_back(process)
            else:
                self._end(process, at_once=True)
        if kind == VALUE:
            return body.step.output.decode(data) if body.begun_at is not None else None
        error = failure.rebuild_as_raised(data)
        raise eager.Escaped(error) if isinstance(error, StopIteration) else error

    def _take(self) -> Process:
        """Give a process that is ready: a warm one, or a new one."""
        while True:
            with self.lock:
                process = self._idle.pop()[1] if self._idle else None
            if process is None:
                break
            if process.is_alive():
                return process
            self._end(process, at_once=True)
        process = Process()
        with self.lock:
            self.processes.add(process)
        try:
            process.greet()
        except BaseException:
            self._end(process, at_once=True)
            raise
        return process

    def _put_back(self, process: Process) -> None:
        with self.lock:
            self._idle.append((time.monotonic(), process))
        with contextlib.suppress(RuntimeError):  # the loop is closed: so is the engine
            self.loop.call_soon_threadsafe(self._trim_later)

    def _trim_later(self) -> None:
        if self._trimming is None and not self._is_closed:
            self._trimming = self.loop.call_later(IDLE_SECONDS / 2, self._trim)

    def _trim(self) -> None:
        """End the processes that nobody has needed for a while."""
        self._trimming = None
        before = time.monotonic() - IDLE_SECONDS
        with self.lock:
            old = [process for since, process in self._idle if since <= before]
            self._idle = [(since, one) for since, one in self._idle if since > before]
        for process in old:
            self.threads.submit(self._end, process)
        if self._idle:
            self._trim_later()

    def _end(self, process: Process, *, at_once: bool = False) -> None:
        """End a process that works for nobody, with all that it has started."""
        process.end(at_once=at_once)
        with self.lock:
            self.processes.discard(process)

    async def close(self) -> None:
        """End every process; those whose bodies are being stopped have a little time."""
        self._is_closed = True
        until = time.monotonic() + CLOSE_SECONDS
        if self._trimming is not None:
            self._trimming.cancel()
        with self.lock:
            idle, self._idle = self._idle, []
        for _, process in idle:
            self.threads.submit(self._end, process)
        while self.processes or self.futures:
            await asyncio.sleep(0.005)
            if time.monotonic() > until:
                for call in list(self.working):
                    call.stop(0)
        self.threads.shutdown(wait=False, cancel_futures=True)
        for thread in self.threads._threads:  # the standard library offers no other way
            pool_module._threads_queues.pop(thread, None)  # type: ignore[attr-defined]


class Process:
    """One process; whoever took it from the pool has it alone."""

    def __init__(self) -> None:
        job_end, self._jobs = os.pipe()
        self._answers, answer_end = os.pipe()
        life_end, self._lifeline = os.pipe()
        _lifelines.add(self._lifeline)
        theirs = (job_end, answer_end, life_end)
        try:
            self._popen = subprocess.Popen(
                [
                    sys.executable,
                    *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
                    "-P",
                    "-c",
                    _BOOTSTRAP,
                    json.dumps([*map(str, sys.path)]),
                    *map(str, theirs),
                    str(os.getpid()),
                ],
                pass_fds=theirs,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            self._close()
            raise
        finally:
            for end in theirs:
                os.close(end)
        self.pid = self._popen.pid
        self._buffer = bytearray()
        self._pidfd = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None
        self._poller = select.poll()
        self._poller.register(self._answers, select.POLLIN)
        if self._pidfd is not None:
            self._poller.register(self._pidfd, select.POLLIN)

    def greet(self) -> None:
        """Wait until it is ready.

        Raises:
            ProcessDied: it ended instead.
        """
        kind, _ = self._frame(FRAME_BYTES_MIN)
        if kind != HELLO:
            raise self._nonsense()

    def ask(self, job: bytes, body: Body, bytes_max: int) -> tuple[bytes, bytes]:
        """Let it do a job; gives how that ended, and the bytes of its value or failure.

        An attempt begins when the step has been imported: the time before is not the body's.

        Raises:
            ProcessDied: it ended, or said what it should not.
        """
        with contextlib.suppress(BrokenPipeError):  # then it is dead, which is heard below
            _write(self._jobs, _HEAD.pack(len(job)) + job)
        while True:
            kind, data = self._frame(max(bytes_max, FRAME_BYTES_MIN))
            if kind == READY:
                may_begin = body.begin()
                with contextlib.suppress(BrokenPipeError):
                    _write(self._jobs, BEGIN if may_begin else LEAVE)
                if not may_begin:
                    return VALUE, b"null"  # nobody hears of this
            elif kind == BEAT:
                body.take_beat(data or None)
            elif kind == SPENT:
                body.spend(msgspec.json.decode(data))
            elif kind == USED:
                body.cpu_us, body.memory_bytes = msgspec.msgpack.decode(data)
            elif kind == JOT:
                body.jot(data)
            elif kind in (EMIT, REPORT):
                with contextlib.suppress(asyncio.CancelledError):  # it is being stopped
                    said = msgspec.msgpack.decode(data)
                    (body.emit if kind == EMIT else body.report)(*said)
            elif kind in (VALUE, FAILED):
                return kind, data
            else:
                raise self._nonsense()

    def is_alive(self) -> bool:
        """Whether it waits for a job: one that has ended, or says something, is of no use."""
        return not self._poller.poll(0) and (self._pidfd is not None or not self._has_exited())

    def signal(self, number: int) -> None:
        """Signal it and all that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def end(self, *, at_once: bool) -> None:
        """End it, by itself if it may, and wait for it."""
        if not at_once:
            os.close(self._jobs)
            self._jobs = -1
            self._wait(END_SECONDS)
        self._reap()
        self._close()

    # Inside

    def _frame(self, bytes_max: int) -> tuple[bytes, bytes]:
        """Read one thing that it says."""
        while True:
            if len(self._buffer) >= HEAD.size:
                kind, size = HEAD.unpack_from(self._buffer)
                if (
                    kind not in (HELLO, READY, BEAT, SPENT, VALUE, FAILED, EMIT, REPORT, JOT, USED)
                    or size > bytes_max
                ):
                    raise self._nonsense()
                if len(self._buffer) >= HEAD.size + size:
                    data = bytes(self._buffer[HEAD.size : HEAD.size + size])
                    del self._buffer[: HEAD.size + size]
                    return kind, data
            self._read_more()

    def _read_more(self) -> None:
        timeout = None if self._pidfd is not None else POLL_SECONDS * 1000
        ready = {descriptor for descriptor, _ in self._poller.poll(timeout)}
        if self._answers in ready:
            data = os.read(self._answers, 256 * 1024)
            if data:
                self._buffer += data
                return
            self._wait(END_SECONDS)  # it has closed its end: it ends, or is of no use
            raise self._death()
        if self._pidfd in ready or (self._pidfd is None and self._has_exited()):
            raise self._death()

    def _wait(self, seconds: float) -> None:
        """Wait for its end, without taking its process id from it yet."""
        until = time.monotonic() + seconds
        while not self._has_exited() and time.monotonic() < until:
            if self._pidfd is not None:
                ending = select.poll()  # not select(), which knows no descriptors above 1023
                ending.register(self._pidfd, select.POLLIN)
                ending.poll(max(0.0, until - time.monotonic()) * 1_000)
            else:
                time.sleep(POLL_SECONDS / 20)

    def _has_exited(self) -> bool:
        if self._popen.returncode is not None:
            return True
        try:
            left = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True  # somebody else in this process has waited for it
        return left is not None

    def _reap(self) -> int | None:
        """Kill it and all that it has started, and take its exit code."""
        if self._popen.returncode is None:
            self.signal(signal.SIGKILL)
            self._popen.wait()
        return self._popen.returncode

    def _close(self) -> None:
        for name in ("_jobs", "_answers", "_lifeline", "_pidfd"):
            descriptor = getattr(self, name, None)
            if descriptor is not None and descriptor >= 0:
                _lifelines.discard(descriptor)
                os.close(descriptor)
                setattr(self, name, -1)

    def _death(self) -> ProcessDied:
        has_exited = self._has_exited()
        code = self._reap()
        if not has_exited or code is None:
            return ProcessDied("the process of this step spoke no more", do=_LOOK)
        if code >= 0:
            said = f"the process of this step ended with exit code {code}"
            return ProcessDied(said, exit_code=code, do=_LOOK)
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        why = "nobody here sent it: perhaps the kernel, for want of memory" if code == -9 else ""
        said = f"the process of this step was ended by {name}"
        return ProcessDied(said, signal=name, why=why, do=_LOOK)

    def _nonsense(self) -> ProcessDied:
        self._reap()
        return ProcessDied(
            "the process of this step spoke nonsense",
            why="what it wrote to the engine's own pipe cannot be read",
            do="let the body write to no file descriptor that it has not opened",
        )


def _job_of(body: Body, bytes_max: int) -> Job:
    """Describe a body so that another process finds the step and its arguments.

    Raises:
        CannotLoad: it is defined where no other process can find it.
    """
    fn = body.step.fn
    module = sys.modules.get(fn.__module__)
    file = getattr(module, "__file__", None)
    spec = getattr(module, "__spec__", None)
    is_main = fn.__module__ == "__main__"
    why = ""
    if "<locals>" in fn.__qualname__ or "<lambda>" in fn.__qualname__:
        why = f"{fn.__qualname__} is defined inside a function"
    elif module is None or (is_main and file is None and spec is None):
        why = f"{fn.__module__} is no file and no module that can be imported"
    if why:
        raise CannotLoad(
            f"step {body.step.name} cannot run in a process",
            where=body.step.where,
            why=why,
            do="define it at the top of a module or file",
        )
    info = body.info()
    return Job(
        module=spec.name if is_main and spec is not None else fn.__module__,
        file=None if file is None else os.path.abspath(file),
        is_main=is_main,
        qualname=fn.__qualname__,
        arguments=body.call.payload.input,
        bytes_max=bytes_max,
        execution_id=info.execution_id,
        key=info.key,
        attempt=info.attempt,
        last=body.last,
        identity=info.identity,
    )


def _let_go() -> None:
    """Close the lifelines in a fork of this process: it is not the engine, and may live longer."""
    for descriptor in _lifelines:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


_HEAD: Final = struct.Struct("!I")
_BOOTSTRAP: Final = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from outlast.engine.steps.process_child import main; main(*map(int, sys.argv[2:6]))"
)
_lifelines: Final[set[int]] = set()
os.register_at_fork(after_in_child=_let_go)
_LOOK: Final = "look at what it wrote to stderr, and at the kernel's log"


__all__ = ["ProcessCall", "ProcessPool"]
