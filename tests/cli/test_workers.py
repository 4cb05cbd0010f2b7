"""Listing workers, several of them under one supervisor, and what why says of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from outlast.cli.supervising import Supervisor, own_command
from outlast.engine.read.presence import no_taker, serving
from outlast.lifecycle import Execution
from outlast.store import open_store
from outlast.store.memory import MemoryStore
from outlast.store.protocol import Service, WorkerRow
from outlast.testing.conformance import T, born

LONG = 100.0


def worker(id: str, **service: Any) -> WorkerRow:
    offers = {"tasks": ("t",), "slots": 5, **service}
    return WorkerRow(id, "host", 7, T, T, 1_000_000, T + 1_000_000, service=Service(**offers))


def waiting(**data: Any) -> Execution:
    return born("ex_0001", **data).after


@pytest.mark.parametrize(
    ("record", "rows", "code"),
    [
        (waiting(), [worker("w1")], None),
        (waiting(), [], None),
        (waiting(), [worker("w1", tasks=("u",)), worker("w2", tasks=())], "no_worker_task"),
        (waiting(gates={"version": "2"}), [worker("w1")], "no_worker_version"),
        (waiting(gates={"version": "2"}), [worker("w1", versions=(("t", "2"),))], None),
        (waiting(queue="slow"), [worker("w1", queues=("fast",))], "no_worker_queue"),
        (waiting(queue="slow"), [worker("w1", queues=("fast",)), worker("w2")], None),
        (waiting(gates={"needs": ["gpu"]}), [worker("w1")], "no_worker_capability"),
        (
            waiting(gates={"needs": ["gpu"]}, queue="q"),
            [worker("w1", capabilities=("gpu",), queues=("p",)), worker("w2")],
            "no_worker_capability",
        ),
        (waiting(gates={"needs": ["gpu"]}), [worker("w1", capabilities=("gpu",))], None),
        (waiting(), [WorkerRow("w1", "h", 7, T, T, state="draining", service=Service(("t",)))],
         "workers_draining"),
    ],
)  # fmt: skip
def test_why_no_worker_takes_it(record: Execution, rows: list[WorkerRow], code: str | None) -> None:
    reason = no_taker(record, rows)
    assert (None if reason is None else reason.code) == code
    if reason is not None:
        assert reason.text and "outlast worker FILE" in reason.hint


def test_only_those_serve_whose_leases_run() -> None:
    store = MemoryStore(is_shared=True)
    for n, lease_us in enumerate((1, 1_000_000, 1_000_000)):
        store.register(WorkerRow(f"w{n}", "h", n, T + n, T, lease_us))
    store.leave("w2", T + 1)
    assert [row.id for row in serving(store, T + 9)] == ["w1"]


def test_workers_are_listed(url: str, outlast: Any) -> None:
    store = open_store(url, owner="w1", now=T)
    store.register(worker("w1", queues=("q", "r"), capabilities=("gpu",), versions=(("t", "3"),)))
    store.commit([born("ex_0001")])
    said = outlast("workers")
    assert "w1" in said and "active" in said and "q, r (+ gpu)" in said and "t@3" in said
    (item,) = json.loads(outlast("workers", "-o", "json"))["items"]
    assert (item["id"], item["state"], item["pid"], item["slots"]) == ("w1", "active", 7, 5)
    assert outlast("workers", "-o", "ids") == "w1\n"
    assert "takes from the queue default" in outlast("why", "ex_0001")
    store.leave("w1", T + 1)
    assert "no worker runs" in outlast("workers")
    assert "left" in outlast("workers", "--all")
    store.close()


def test_why_names_what_the_owner_lacks(url: str, outlast: Any) -> None:
    store = open_store(url, owner="w1", now=T)
    store.register(worker("w1", tasks=("other",)))
    store.commit([born("ex_0001")])
    assert "no worker that lives knows the task t" in outlast("why", "ex_0001")
    store.close()
    assert "no engine runs on this store" in outlast("why", "ex_0001")
    assert "lost" in outlast("workers", "--all")


def test_a_file_is_not_shared_by_processes(outlast: Any) -> None:
    said = outlast("worker", "anything.py", "--processes", "2", code=2)
    assert "cannot share this store" in said and "postgresql://" in said


def test_the_command_of_one_process() -> None:
    words = ["--store", "x", "worker", "app.py", "--processes", "3", "--queue", "q"]
    kept = ["--store", "x", "worker", "app.py", "--queue", "q"]
    assert own_command(words)[3:] == kept
    assert own_command(["worker", "--processes=3", "app.py"])[3:] == ["worker", "app.py"]


# The supervisor

OBEYS = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready", flush=True)
while True:
    signal.pause()
"""
DEAF = OBEYS.replace("lambda *_: sys.exit(0)", "lambda *_: None")


class Watched:
    """A supervisor in a thread."""

    def __init__(self, code: str, count: int = 2) -> None:
        self.said: list[str] = []
        self.stops = 0
        self.code: int | None = None
        self.supervisor = Supervisor([sys.executable, "-c", code], count, self.said.append)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.code = self.supervisor.run(lambda: self.stops)

    def pids(self) -> list[int]:
        return [one.process.pid for one in self.supervisor.places if one.process is not None]

    def until(self, condition: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + LONG
        while not condition():
            assert time.monotonic() < give_up_at, self.said
            threading.Event().wait(0.01)

    def end(self) -> int | None:
        self.thread.join(LONG)
        assert not self.thread.is_alive()
        return self.code


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_who_dies_is_started_again() -> None:
    watched = Watched(OBEYS)
    watched.until(lambda: len(watched.pids()) == 2)
    first = watched.pids()
    os.kill(first[0], signal.SIGKILL)
    watched.until(lambda: len(set(watched.pids()) - set(first)) == 1)
    assert first[1] in watched.pids()
    assert any("ended by SIGKILL; starts again in 0.5 s" in line for line in watched.said)
    watched.stops = 1
    assert watched.end() == 0
    assert not any(map(is_alive, first))
    assert watched.supervisor.restarts == 1


def test_a_second_wish_stops_at_once() -> None:
    """Who does not stop for the second one either is killed."""
    watched = Watched(DEAF, 1)
    watched.until(lambda: len(watched.pids()) == 1)
    (pid,) = watched.pids()
    watched.stops = 1
    watched.until(lambda: watched.stops == 1 and is_alive(pid))
    watched.stops = 2
    assert watched.end() == 0
    assert not is_alive(pid)


def test_what_cannot_start_stops_all() -> None:
    watched = Watched("import sys; sys.exit(5)", 3)
    assert watched.end() == 5
    assert any("as it began: all stop" in line for line in watched.said)


def test_who_has_no_supervisor_any_more_stops() -> None:
    code = (
        "from outlast.cli.supervising import end_with_supervisor\n"
        "import signal, sys, os\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "end_with_supervisor()\n"
        "print('OUTLAST_SUPERVISED' in os.environ, flush=True)\n"
        "while True: signal.pause()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OUTLAST_SUPERVISED": "1"},
    )
    assert child.stdin is not None and child.stdout is not None
    assert child.stdout.readline() == b"False\n"
    assert child.poll() is None
    child.stdin.close()
    assert child.wait(LONG) == 0
    child.stdout.close()
