"""The process that runs bodies of steps for an engine; see :mod:`outlast.engine.steps.processes`.

Its main thread reads a job, finds the step, runs the body and writes what came of it; so a body has
the main thread, and may use signals. stdout and stderr are the engine's own, stdin is empty. A
SIGTERM unwinds the body by :class:`Stopped`, so that its ``finally`` blocks run, and then ends the
process.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.util
import os
import resource
import signal
import struct
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType, ModuleType
from typing import Any, Final, NoReturn

import msgspec

HEAD: Final = struct.Struct("!cI")
"""What everything begins with that the process says: its kind, and how many bytes follow."""
HELLO, READY, BEAT, SPENT, VALUE, FAILED = b"h", b"r", b"b", b"s", b"v", b"f"
EMIT, REPORT, JOT, USED = b"e", b"p", b"j", b"u"
BEGIN, LEAVE = b"b", b"l"
"""What it is told when it is ready to run a body."""
MAIN: Final = "__outlast_main__"
"""What the engine's main program is called here, where it is not the main program."""
SAME_BEAT_SECONDS: Final = 0.02
"""How far apart two heartbeats are, at least, that say the same."""


class Job(msgspec.Struct, array_like=True):
    """A body to run: where its step is defined, its arguments as JSON, and what it may ask for."""

    module: str
    file: str | None
    is_main: bool
    qualname: str
    arguments: bytes
    bytes_max: int
    execution_id: str
    key: str
    attempt: int
    last: bytes | None
    identity: str | None


class Stopped(BaseException):
    """Unwinds a body whose process is told to end."""


def main(jobs: int, answers: int, lifeline: int, parent: int) -> None:
    """Run bodies until nobody wants any more of them."""
    _bind_life(lifeline, parent)
    for descriptor in (jobs, answers, lifeline):
        os.set_inheritable(descriptor, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from outlast.engine.task import current

    current.is_child = True
    _log_as_told()
    child = Child(jobs, answers)
    signal.signal(signal.SIGTERM, child.told_to_end)
    child.say(HELLO, b"")
    while child.run_one():
        pass


def _log_as_told() -> None:
    """Hand over what bodies log, from the level on that the engine's process logs from."""
    import logging

    from outlast.engine.read.logs import LEVEL, begin_capture

    level = os.environ.get(LEVEL, "")
    if level.isdecimal():
        logging.getLogger().setLevel(int(level))
    begin_capture()


def _bind_life(lifeline: int, parent: int) -> None:
    """See to it that this process and its group end when the engine's process does."""
    if sys.platform == "linux":
        # When the write end is closed, the kernel itself signals the group. So it happens also
        # while a body computes in C and no thread of ours can run. PR_SET_PDEATHSIG would be in
        # the way: it ends this process alone, as soon as the thread that started it has died, and
        # that can be before the last thread's death closes the pipe: then nobody is left there
        # to be signalled for, and what the body has started lives on.
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    if os.getppid() != parent:
        os._exit(1)  # it died before we could bind ourselves to it
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True, name="lifeline").start()


def _end_with(lifeline: int) -> NoReturn:
    """Wait for the end of the engine's process: nothing is ever written to this pipe."""
    os.read(lifeline, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


class Child:
    """Runs one body after another."""

    def __init__(self, jobs: int, answers: int) -> None:
        self._jobs, self._answers = jobs, answers
        self._is_in_body = self._is_told = False

    def run_one(self) -> bool:
        """Run one body; False if there will be none any more."""
        head = self._read(4)
        if head is None:
            return False
        data = self._read(int.from_bytes(head, "big"))
        if data is None:
            return False
        outcome = self._run(msgspec.msgpack.decode(data, type=Job))
        if self._is_told:
            self._end_as_told()
        if outcome is not None:
            self.say(*outcome)
        return True

    def told_to_end(self, number: int, frame: FrameType | None) -> None:
        """Take a SIGTERM: unwind the body, or end at once where none runs."""
        self._is_told = True
        if not self._is_in_body:
            self._end_as_told()
        raise Stopped

    def say(self, kind: bytes, data: bytes) -> None:
        """Write something to the engine."""
        view = memoryview(HEAD.pack(kind, len(data)) + data)
        while view:
            view = view[os.write(self._answers, view) :]

    def _run(self, job: Job) -> tuple[bytes, bytes] | None:
        from outlast import failure

        try:
            step = find(job)
            args, kwargs = step.input.unbind(job.arguments)
            self.say(READY, b"")
            if self._read(1) != BEGIN:
                return None
            self._is_in_body = True
            before = time.process_time_ns()
            try:
                return VALUE, self._value(job, step, args, kwargs)
            finally:
                self._is_in_body = False
                self.say(USED, msgspec.msgpack.encode((_cpu_us(before), _memory_bytes())))
        except BaseException as error:  # noqa: BLE001 - the border of user code
            described = failure.describe(error)
            module = MAIN if job.module == "__main__" else job.module
            if job.is_main:
                described = _renamed(described, module)
            return FAILED, failure.dump(described)

    def _value(self, job: Job, step: Any, args: Any, kwargs: Any) -> bytes:
        from outlast.engine.task.current import current_step

        current_step.set(_Body(self, job))
        try:
            value = step.fn(*args, **kwargs)
        finally:
            current_step.set(None)
        data: bytes = step.output.encode(value, bytes_max=job.bytes_max, name="result")
        return data

    def _read(self, size: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < size:
            data = os.read(self._jobs, size - len(parts))
            if not data:
                return None
            parts += data
        return bytes(parts)

    def _end_as_told(self) -> NoReturn:
        """End by the very signal, so that whoever waits for us sees it."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # there is nothing left to do about it
                stream.flush()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(128 + signal.SIGTERM)


def _cpu_us(before_ns: int) -> int:
    return (time.process_time_ns() - before_ns) // 1_000


def _memory_bytes() -> int:
    """Give the most memory that this process ever had."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1_024


class _Body:
    """What a body's code can ask and tell here; see :class:`outlast.engine.steps.body.Body`."""

    def __init__(self, child: Child, job: Job) -> None:
        self._child, self._job = child, job
        self._lock = threading.Lock()
        self._said: bytes | None = None
        self._said_at = float("-inf")

    def info(self) -> Any:
        from outlast.engine.task.current import StepInfo

        job = self._job
        last = None if job.last is None else msgspec.json.decode(job.last)
        return StepInfo(job.execution_id, job.key, job.attempt, job.identity, last)

    def beat(self, details: bytes | None) -> None:
        with self._lock:  # threads of the body may call it, too
            now = time.monotonic()
            if details == self._said and now - self._said_at < SAME_BEAT_SECONDS:
                return
            self._said, self._said_at = details, now
            self._child.say(BEAT, details or b"")

    def spend(self, amounts: Mapping[str, int]) -> None:
        self._child.say(SPENT, msgspec.json.encode(amounts))

    def reserve_blocking(self, amounts: Mapping[str, int]) -> str:
        from outlast.errors import UsageError

        raise UsageError(
            "a step in a process of its own cannot reserve",
            do="give the step its cost: @step(cost={…}), or reserve in the task",
        )

    def emit(self, name: str, payload: bytes) -> None:
        with self._lock:
            self._child.say(EMIT, msgspec.msgpack.encode((name, payload)))

    def jot(self, payload: bytes) -> None:
        with self._lock:
            self._child.say(JOT, payload)

    def names(self) -> Mapping[str, object]:
        job = self._job
        return {"execution": job.execution_id, "step": job.key, "attempt": job.attempt}

    def report(self, done: float, total: float | None, text: str | None) -> None:
        with self._lock:
            self._child.say(REPORT, msgspec.msgpack.encode((done, total, text)))


def find(job: Job) -> Any:
    """Import the module of a job and give its step.

    Raises:
        CannotLoad: it cannot be imported, or has no such step.
    """
    from outlast.engine.task.registry import DefStep
    from outlast.errors import CannotLoad

    try:
        found: Any = _module_of(job)
        for name in job.qualname.split("."):
            found = getattr(found, name)
    except Stopped:
        raise
    except BaseException as error:  # the module's own code runs here
        raise CannotLoad(
            f"the process of this step cannot import it: {type(error).__name__}: {error}",
            where=f"{job.module}:{job.qualname}",
            why="a step's process imports the file that defines it, under another name than "
            "__main__"
            if job.is_main
            else "",
            do='keep what the program does under: if __name__ == "__main__":',
        ) from error
    if isinstance(found, DefStep):
        return found
    if callable(found):
        return DefStep(found)  # it was made a step of under another name
    raise CannotLoad(f"{job.module}:{job.qualname} is no step", where=str(job.file))


def _module_of(job: Job) -> ModuleType:
    if job.is_main and job.module == "__main__":
        module = sys.modules.get(MAIN) or _load(MAIN, str(job.file))
        sys.modules["__main__"] = module
        return module
    held = sys.modules.get(job.module)
    if held is not None:
        return held
    try:
        spec = importlib.util.find_spec(job.module)
    except (ImportError, ValueError):
        spec = None
    if spec is not None and (job.file is None or _is_same(spec.origin, job.file)):
        return importlib.import_module(job.module)
    if job.file is None:
        return importlib.import_module(job.module)
    return _load(job.module, job.file)


def _is_same(origin: str | None, file: str) -> bool:
    return origin is not None and os.path.realpath(origin) == os.path.realpath(file)


def _load(name: str, file: str) -> ModuleType:
    """Import a file under a name."""
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _renamed(described: Any, module: str) -> Any:
    """Call the classes of the engine's main program as they are called there."""
    name = described.type
    if name.startswith(f"{module}:"):
        name = "__main__" + name[len(module) :]
    return msgspec.structs.replace(
        described,
        type=name,
        cause=None if described.cause is None else _renamed(described.cause, module),
        exceptions=[_renamed(one, module) for one in described.exceptions],
    )


__all__ = [
    "BEAT",
    "BEGIN",
    "EMIT",
    "FAILED",
    "HEAD",
    "HELLO",
    "JOT",
    "LEAVE",
    "READY",
    "REPORT",
    "SPENT",
    "USED",
    "VALUE",
    "Job",
    "main",
]
