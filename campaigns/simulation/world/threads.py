"""Threads of simulated processes: those of ``def`` steps, and those of ``def`` tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

from campaigns.simulation.world.clockwork import Process, ThreadOf
from outlast.engine.replay.thread_scope import ThreadScope


class Turn:
    """The semaphore of a ``def`` task's thread: who lets it go waits until it rests again."""

    def __init__(self, process: Process, thread: ThreadOf) -> None:
        self._process = process
        self._thread = thread
        self._go = threading.Semaphore(0)
        self._rests = threading.Semaphore(0)
        self._is_resting = False

    def start(self, run: Callable[[], None]) -> None:
        """Start the thread, and wait until it rests."""

        def main() -> None:
            try:
                run()
            finally:
                self._rests.release()

        self._thread.now(lambda: self._wait(threading.Thread(target=main, daemon=True).start))

    def acquire(self) -> None:
        """Rest (in the thread)."""
        self._is_resting = True
        self._rests.release()
        self._go.acquire()

    def release(self) -> None:
        """Let the thread go (from the loop), and wait until it rests."""
        if not self._is_resting:
            self._go.release()
            return
        self._is_resting = False
        self._thread.now(lambda: self._wait(self._go.release))

    def _wait(self, let_go: Callable[[], object]) -> None:
        let_go()
        if not self._rests.acquire(timeout=60):
            raise RuntimeError("a def task's thread neither rests nor ends")


class StepThreads(Executor):
    """The pool for bodies of ``def`` steps: each runs in one go, its outcome comes later."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in a thread, some time."""
        future: Future[Any] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whoever asked gets it
                future.set_exception(error)
            else:
                future.set_result(result)

        self._process.new_thread("step").do(work)
        return future

    _threads: frozenset[Any] = frozenset()


class TaskThreads(Executor):
    """Where the threads of ``def`` tasks come from: see :class:`SimThreadScope`."""

    def __init__(self, process: Process) -> None:
        self.process = process

    _threads: frozenset[Any] = frozenset()


class _OneThread(Executor):
    def __init__(self, thread: ThreadOf, turn: Turn) -> None:
        self._thread, self._turn = thread, turn

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self._thread.do(lambda: self._turn.start(partial(fn, *args, **kwargs)))
        return Future()


class SimThreadScope(ThreadScope):
    """The scope of a ``def`` task, whose thread goes on only while everything else waits."""

    def __init__(
        self,
        main: Callable[[], Any],
        *,
        seed: bytes,
        threads: Any,
        on_quiet: Callable[[], None],
    ) -> None:
        thread = threads.process.new_thread("task")
        turn = Turn(threads.process, thread)
        super().__init__(main, seed=seed, threads=_OneThread(thread, turn), on_quiet=on_quiet)
        self._turn = turn  # type: ignore[assignment]
