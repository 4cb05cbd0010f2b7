"""Steps in processes of their own: they can be stopped, and nothing of them is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from outlast import Engine, State, now, step, task
from outlast.engine.control.handle import Execution
from outlast.engine.steps import processes
from outlast.engine.write.clock import WallClock
from outlast.errors import (
    AttemptTimeout,
    CannotLoad,
    ExecutionCancelled,
    Fatal,
    HeartbeatLost,
    PayloadTooLarge,
    ProcessDied,
    StepQueueTimeout,
    StepTimeout,
)
from outlast.lifecycle import Kind
from outlast.store.protocol import Filter
from outlast.testing import VirtualEngine

from . import process_steps as steps
from .conftest import run, until


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; who is responsible for it may still have to hear of it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # gone, or going while it is read
        return True
    return state == "Z"


def pids(place: Path) -> list[int]:
    """Give the processes that have noted themselves in a file."""
    return [int(line) for line in place.read_text().split()] if place.exists() else []


async def when(condition: Callable[[], Any]) -> None:
    """Wait for something that another process does."""

    async def holds() -> bool:
        await asyncio.sleep(0.005)  # sleeps: another process's doing can only be asked for
        return bool(condition())

    await until(holds)


class Ahead(WallClock):
    """A clock that can be put forward."""

    forward_us = 0

    def now(self) -> int:
        return super().now() + self.forward_us


@task
async def once(name: str, arguments: list[Any]) -> Any:
    return await getattr(steps, name).aio(*arguments)


async def ends_in(engine: Engine, name: str, *arguments: Any) -> Any:
    """Run a step in a task of its own, and give what it came to."""
    return await (await engine.astart(once, name, list(arguments))).aresult("100s")


# What a body is and gets


def test_arguments_and_results_keep_their_types(url: str) -> None:
    order = steps.Order(7, Decimal("1.10"), datetime(2026, 1, 1, tzinfo=UTC))

    @task
    async def calls() -> list[Any]:
        twice = await steps.doubled.aio(order)
        assert twice == steps.Order(7, Decimal("2.20"), order.at)
        return await steps.told.aio()

    @task
    def sequential() -> str:
        return str(steps.doubled(order).price)

    async def main(engine: Engine) -> None:
        h = await engine.astart(calls)
        assert await h.aresult("100s") == [h.id, "told#1", 1, f"{h.id}:told#1"]
        assert await (await engine.astart(sequential)).aresult("100s") == "2.20"
        row = (await h.atransitions())[3]
        assert row.payload == b'{"number":7,"price":"2.20","at":"2026-01-01T00:00:00Z"}'

    run(main, url)


def test_processes_are_bounded_reused_and_end_when_idle(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "IDLE_SECONDS", 0.1)

    @task
    async def many() -> list[int]:
        return list(await asyncio.gather(*(steps.pid.aio() for _ in range(20))))

    async def main(engine: Engine) -> None:
        seen = set(await (await engine.astart(many)).aresult("100s"))
        assert 1 <= len(seen) <= 2 and os.getpid() not in seen
        await when(lambda: all(map(is_gone, seen)))
        assert await ends_in(engine, "pid") not in seen

    run(main, url, processes=2)


def test_errors_come_back_as_from_threads(url: str, tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        with pytest.raises(steps.Refused, match="refused with 42") as caught:
            await ends_in(engine, "refuses", 42)
        assert caught.value.code == 42
        (handle,) = [Execution(engine, r.id, None) for r in engine.store.page(_ALL)]
        (failed,) = [row for row in await handle.atransitions() if row.kind is Kind.STEP]
        assert b"raise Refused(code)" in failed.payload and b"process_steps.py" in failed.payload
        with pytest.raises(Fatal):
            await ends_in(engine, "fatal", str(tmp_path / "fatal"))
        assert len(pids(tmp_path / "fatal")) == 1
        began = monotonic()
        assert await ends_in(engine, "after", str(tmp_path / "after")) == 2
        assert monotonic() - began >= 0.2
        with pytest.raises(PayloadTooLarge):
            await ends_in(engine, "too_much")

    run(main, url, payload_bytes_max=5_000)


# Ways to die


@pytest.mark.parametrize(
    ("how", "said", "exit_code", "number"),
    [
        ("exit", "ended with exit code 3", 3, ""),
        ("kill", "ended by SIGKILL", None, "SIGKILL"),
        ("term", "ended by SIGTERM", None, "SIGTERM"),
        ("segv", "ended by SIGSEGV", None, "SIGSEGV"),
        ("garbage", "spoke nonsense", None, ""),
        ("close", "spoke no more", None, ""),
    ],
)
def test_a_process_that_dies_is_a_failed_attempt(
    url: str, how: str, said: str, exit_code: int | None, number: str
) -> None:
    async def main(engine: Engine) -> None:
        with pytest.raises(ProcessDied, match=said) as caught:
            await ends_in(engine, "dies", how)
        assert (caught.value.exit_code, caught.value.signal) == (exit_code, number)
        assert await ends_in(engine, "dies", "not at all") == "not at all"

    run(main, url, processes=1)


def test_what_was_said_before_a_death_reaches_the_next_attempt(url: str, tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        assert await ends_in(engine, "dies_twice", str(tmp_path / "pids")) == 2
        assert len(set(pids(tmp_path / "pids"))) == 3

    run(main, url)


def test_a_hundred_kills_leave_nothing_behind(url: str, tmp_path: Path) -> None:
    place = tmp_path / "pids"

    async def main(engine: Engine) -> None:
        before, children = _descriptors(), _children()
        assert await ends_in(engine, "dies_always", str(place)) == 101
        await asyncio.gather(*(ends_in(engine, "pid") for _ in range(4)))
        await engine.worker.processes.close()  # type: ignore[union-attr]
        gc.collect()
        assert _descriptors() <= before
        assert len(set(pids(place))) == 101 and all(map(is_gone, pids(place)))
        assert _children() <= children

    run(main, url, processes=2)


# Being stopped


@pytest.mark.parametrize("name", ["computes", "ignores_cancel", "has_children"])
def test_a_cancel_stops_the_work_before_the_execution_is_cancelled(
    url: str, tmp_path: Path, name: str
) -> None:
    place = tmp_path / "pids"

    async def main(engine: Engine) -> None:
        children = _children()
        h = await engine.astart(once, name.removesuffix("_cancel"), [str(place)])
        ready = Path(f"{place}.ready") if name == "has_children" else place
        await when(ready.exists)
        await h.acancel("enough")
        with pytest.raises(ExecutionCancelled):
            await h.aresult("100s")
        mine = pids(place)
        assert len(mine) == (3 if name == "has_children" else 1)
        assert is_gone(mine[0])
        await when(lambda: all(map(is_gone, mine)))
        assert _children() <= children
        assert engine.store.verify().defects == []

    run(main, url)


def test_a_stopped_body_may_clean_up(url: str, tmp_path: Path) -> None:
    place = tmp_path / "pids"

    async def main(engine: Engine) -> None:
        h = await engine.astart(once, "cleans_up", [str(place)])
        await when(place.exists)
        await h.acancel()
        assert await h.await_("100s") is State.CANCELLED
        assert Path(f"{place}.clean").exists()
        assert all(map(is_gone, pids(place)))

    run(main, url)


def test_no_second_attempt_begins_before_the_first_is_gone(url: str, tmp_path: Path) -> None:
    place = tmp_path / "pids"

    async def main(engine: Engine) -> None:
        h = await engine.astart(once, "ignores", [str(place)])
        await when(lambda: len(pids(place)) == 2)
        assert is_gone(pids(place)[0])
        with pytest.raises(StepTimeout, match="attempt 4 of step ignores#1"):
            await h.aresult("100s")
        assert all(map(is_gone, pids(place)))

    run(main, url)


def test_silence_ends_a_process(url: str, tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        h = await engine.astart(once, "silent", [str(tmp_path / "pids")])
        with pytest.raises(HeartbeatLost):
            await h.aresult("100s")
        assert all(map(is_gone, pids(tmp_path / "pids")))
        notes = [r for r in await h.atransitions() if r.kind is Kind.STEP_ANNOUNCED]
        # A process that takes long to begin is announced before it has said anything.
        assert [row.payload for row in notes if row.payload is not None] == [b'"here"']

    run(main, url)


def test_a_step_that_finds_no_process_in_time_has_not_run(url: str, tmp_path: Path) -> None:
    place = tmp_path / "pids"

    async def main(engine: Engine) -> None:
        h = await engine.astart(once, "computes", [str(place)])
        await when(place.exists)
        with pytest.raises(StepQueueTimeout):
            await ends_in(engine, "hasty")
        await h.acancel()
        await h.await_("100s")
        assert await ends_in(engine, "pid") > 0

    run(main, url, processes=1)


def test_an_attempt_of_the_task_ends_once_its_processes_are_gone(url: str, tmp_path: Path) -> None:
    place = tmp_path / "pids"

    async def main(engine: Engine) -> None:
        await ends_in(engine, "pid")  # a process is ready: none has to start in that time
        options = once.options(attempt_timeout="4s")
        h = await engine.astart_with(options.options, once, ("computes", [str(place)]), {})
        await when(place.exists)
        with pytest.raises(AttemptTimeout):
            await h.aresult("100s")
        assert all(map(is_gone, pids(place)))

    run(main, url)


def test_a_deadline_of_the_execution_stops_its_processes(url: str, tmp_path: Path) -> None:
    place = tmp_path / "pids"

    async def main(engine: Engine) -> None:
        options = once.options(timeout="1h")
        h = await engine.astart_with(options.options, once, ("cleans_up", [str(place)]), {})
        await when(place.exists)
        clock.forward_us = 3_600_000_000
        engine.look_at_clock()
        assert await h.await_("100s") is State.TIMED_OUT
        await when(lambda: all(map(is_gone, pids(place))))
        assert Path(f"{place}.clean").exists()
        assert await ends_in(engine, "pid") > 0

    clock = Ahead()
    run(main, url, processes=1, clock=clock)


def test_closing_the_engine_ends_what_runs(url: str, tmp_path: Path) -> None:
    place = tmp_path / "pids"

    async def main(engine: Engine) -> None:
        await engine.astart(once, "cleans_up", [str(place)])
        await engine.astart(once, "computes", [f"{place}2"])
        await when(lambda: place.exists() and Path(f"{place}2").exists())
        assert await engine.aclose() == 2
        assert Path(f"{place}.clean").exists()
        assert all(map(is_gone, pids(place) + pids(Path(f"{place}2"))))

    run(main, url, patience="10ms", processes=2)


PROGRAM = """
from outlast import Engine, task
from engine import process_steps as steps

@task
async def both(place: str) -> None:
    await steps.has_children.aio(place)

if __name__ == "__main__":
    import os, sys, time
    with Engine(sys.argv[1]) as engine:
        h = engine.start(both, sys.argv[2])
        while not os.path.exists(sys.argv[2] + ".ready"):
            time.sleep(0.01)
        fork = os.fork()  # a program may do so; what it gets must not keep the lifeline open
        if not fork:
            time.sleep(600)
        with open(sys.argv[2] + ".fork", "w") as file:
            print(fork, file=file)
        h.result()
"""


def test_a_killed_engine_takes_its_bodies_and_their_children_along(
    url: str, tmp_path: Path
) -> None:
    place, program = tmp_path / "pids", tmp_path / "program.py"
    program.write_text(PROGRAM)
    killed = subprocess.Popen(
        [sys.executable, str(program), url, str(place)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    async def main() -> None:
        await when(lambda: pids(Path(f"{place}.fork")))
        assert len(pids(place)) == 3 and not any(map(is_gone, pids(place)))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        (fork,) = pids(Path(f"{place}.fork"))
        try:
            await when(lambda: all(map(is_gone, pids(place))))
            assert not is_gone(fork)
        finally:
            os.kill(fork, signal.SIGKILL)

    asyncio.run(main())


def test_a_process_outlives_the_thread_that_started_it_but_not_the_lifeline() -> None:
    """The threads of a killed engine end one by one, and its pipes are closed with the last.

    A process that went with the first of them would leave nobody whom the pipe's end could tell to
    take along what the body has started.
    """
    started: list[processes.Process] = []

    def start() -> None:
        started.append(processes.Process())
        started[0].greet()

    thread = threading.Thread(target=start)
    thread.start()
    native = thread.native_id
    thread.join()
    (process,) = started
    try:
        asyncio.run(when(lambda: not Path(f"/proc/self/task/{native}").exists()))
        assert process.is_alive()
        os.close(process._lifeline)
        process._lifeline = -1
        asyncio.run(when(lambda: is_gone(process.pid)))
    finally:
        process.end(at_once=True)


# Where a step is found


SCRIPT = """
import os
from outlast import Engine, step, task

class Own(Exception):
    pass

@step(on="process")
def where(fails: bool) -> str:
    if fails:
        raise Own("mine")
    return f"{__name__} {os.getpid()}"

@task
async def calls(fails: bool = False) -> str:
    try:
        return await where.aio(fails)
    except Own as error:
        return f"caught {error!r}"

GUARD
    with Engine("memory:") as engine:
        print(engine.start(calls).result(), engine.start(calls, True).result(), os.getpid())
"""


def script(directory: Path, guard: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program with steps of its own."""
    (directory / "own.py").write_text(SCRIPT.replace("GUARD", guard))
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )


@pytest.mark.parametrize("words", [["own.py"], ["-m", "own"]])
def test_a_program_may_hold_its_steps_itself(tmp_path: Path, words: list[str]) -> None:
    done = script(tmp_path, 'if __name__ == "__main__":', *words)
    name, child, *error, parent = done.stdout.split()
    assert name == ("__outlast_main__" if words == ["own.py"] else "own"), done
    assert " ".join(error) == "caught Own('mine')" and child != parent


def test_a_program_without_a_guard_is_told_so(tmp_path: Path) -> None:
    done = script(tmp_path, "if True:", "own.py")
    assert "CannotLoad" in done.stderr and 'if __name__ == "__main__":' in done.stderr


def test_the_command_line_finds_them_in_a_file(tmp_path: Path) -> None:
    done = script(tmp_path, "if False:", "-m", "outlast.cli", "run", "own.py:calls", "-q")
    assert done.stdout.startswith('"own ') or done.stdout.startswith("own "), done


def test_a_step_inside_a_function_cannot_be_found(url: str) -> None:
    @step(on="process")
    def local() -> None: ...

    @task
    async def calls() -> None:
        await local.aio()

    async def main(engine: Engine) -> None:
        with pytest.raises(CannotLoad, match="is defined inside a function"):
            await (await engine.astart(calls)).aresult("100s")

    run(main, url)


def test_tests_run_them_in_threads_where_time_is_virtual(outlast_engine: VirtualEngine) -> None:
    @step(on="process", timeout="1h")
    def local() -> int:
        return os.getpid()

    @task
    async def calls() -> list[Any]:
        return [await local.aio(), await steps.told.aio(), str(now())]

    h = outlast_engine.start(calls)
    mine, info, _ = h.result()
    assert mine == os.getpid()
    assert info == [h.id, "told#1", 1, f"{h.id}:told#1"]


def _descriptors() -> int:
    """Count what a process is reached by; files of the store come as there is to read."""
    found = 0
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was the listing's own
            found += os.readlink(one).startswith(("pipe:", "anon_inode:[pidfd]"))
    return found


def _children() -> set[str]:
    """Name the processes that this one has, zombies included."""
    out = subprocess.run(
        ["ps", "-o", "pid=,stat=,args=", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    lines = (line for line in out.splitlines() if "<defunct>" in line or "process_child" in line)
    return {line.split()[0] for line in lines}


_ALL = Filter(limit=10)
