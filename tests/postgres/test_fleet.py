"""Real worker processes on one PostgreSQL: killed, stopped, and stopped together.

What was really done is printed, and counted: a test of faults that hit nothing is no test. Limits
are generous, as the machine may be busy; what is measured stands beside what is promised.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import outlast
from outlast import Engine
from outlast.errors import OutlastError
from outlast.lifecycle import Kind, State
from outlast.store import open_store
from outlast.store.postgres.hints import PostgresHints
from outlast.store.protocol import Create, Lease, Service, Store, WorkerRow
from outlast.testing.conformance import born, nonces
from servers.postgres import Server

from . import fleet_app
from .fleet_app import held, quick

APP = Path(fleet_app.__file__)
LONG = 100.0
LEASE_S = 2.0
MANY = 12


@pytest.fixture
def url(postgres: Server) -> Iterator[str]:
    address = postgres.database()
    open_store(address, owner="setup", now=now()).close()
    yield address
    postgres.drop(address)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url, owner=None, now=now())
    yield store
    store.close()


def now() -> int:
    return time.time_ns() // 1000


def until(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait until a condition holds, and give what it gave."""
    give_up_at = time.monotonic() + LONG
    while not (found := condition()):
        assert time.monotonic() < give_up_at, f"it never came: {what}"
        threading.Event().wait(0.01)
    return found


class Worker:
    """A worker in a process of its own."""

    def __init__(self, url: str, folder: Path, lease: float = LEASE_S, gate: str = "gate") -> None:
        roots = [str(Path(outlast.__file__).parents[1]), str(APP.parents[2])]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.postgres.fleet_app", url, f"{lease:g}s"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=APP.parents[2],
            env={**os.environ, **paths(folder, gate), "PYTHONPATH": os.pathsep.join(roots)},
        )
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.names = [self.heard()["name"]]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(line)

    def heard(self) -> dict[str, Any]:
        """Give the next thing it says."""
        said: dict[str, Any] = json.loads(self._said.get(timeout=LONG))
        return said

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(LONG)
        self._reader.join(LONG)
        assert self.process.stdout is not None
        self.process.stdout.close()


def paths(folder: Path, gate: str = "gate") -> dict[str, str]:
    return {"LEDGER": str(folder / "ledger"), "GATE": str(folder / gate)}


@pytest.fixture
def workers(url: str, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(**options: Any) -> Worker:
        made.append(Worker(url, tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one.end()


def ledger(folder: Path) -> Counter[tuple[str, str, int]]:
    """Count what the bodies have written: start or end, step, number."""
    lines = (folder / "ledger").read_text().splitlines() if (folder / "ledger").exists() else []
    return Counter((what, name, int(number)) for what, name, number, _ in map(str.split, lines))


def owners(store: Store, ids: list[str]) -> dict[str, str | None]:
    return {one.id: one.worker for one in store.get(ids) if one is not None}


async def start_many(url: str, count: int) -> list[str]:
    async with Engine(url, tasks=[held, quick], slots=0) as engine:
        return [one.id for one in await engine.astart_many(held, [(n,) for n in range(count)])]


def all_are(store: Store, ids: list[str], state: State) -> bool:
    return all(one is not None and one.state is state for one in store.get(ids))


def check_logs(store: Store, ids: list[str], folder: Path) -> None:
    """Nothing recorded ran again, and every log adds up."""
    found = ledger(folder)
    for n, id in enumerate(ids):
        rows = store.log(id)
        steps = [row.key for row in rows if row.kind is Kind.STEP]
        assert sorted(map(str, steps)) == ["before#1", "gated#1"], steps
        assert found["start", "before", n] == 1, "a recorded step ran again"
    assert store.verify().defects == []


def test_a_killed_worker_is_taken_over_from(
    url: str,
    store: Store,
    workers: Callable[..., Worker],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, two = workers(), workers()
    ids = asyncio.run(start_many(url, MANY))
    until(lambda: all(ledger(tmp_path)["start", "gated", n] for n in range(MANY)), "all began")
    by = Counter(owners(store, ids).values())
    victim, heir = (one, two) if by[one.names[0]] >= by[two.names[0]] else (two, one)
    held_by_victim = [id for id, name in owners(store, ids).items() if name == victim.names[0]]
    assert held_by_victim, by
    victim.kill()
    killed_at = time.monotonic()
    until(
        lambda: all(name == heir.names[0] for name in owners(store, ids).values()), "the takeover"
    )
    took = time.monotonic() - killed_at
    with capsys.disabled():
        print(
            f"\n  killed with {len(held_by_victim)} executions in flight; all are another worker's "
            f"after {took:.2f} s (lease {LEASE_S:g} s, promised {LEASE_S + 1:g} s)",
            file=sys.stderr,
            flush=True,
        )
    assert took < LEASE_S + 10
    (tmp_path / "gate").touch()
    until(lambda: all_are(store, ids, State.SUCCEEDED), "the end of all")
    for id in ids:
        lost = [row for row in store.log(id) if row.kind in (Kind.WORKER_LOST, Kind.LEASE_EXPIRED)]
        assert len(lost) == (id in held_by_victim)
    check_logs(store, ids, tmp_path)
    assert {row.id: row.state for row in store.workers()}[victim.names[0]] == "lost"


@pytest.mark.parametrize("while_running", [True, False])
def test_a_stopped_worker_writes_nothing_when_it_goes_on(
    url: str,
    store: Store,
    workers: Callable[..., Worker],
    tmp_path: Path,
    while_running: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It goes on while another one runs what it had, or after that has finished it."""
    one = workers(lease=1.0, gate="first")
    ids = asyncio.run(start_many(url, MANY))
    until(lambda: all(ledger(tmp_path)["start", "gated", n] for n in range(MANY)), "all began")
    assert set(owners(store, ids).values()) == {one.names[0]}
    one.kill(signal.SIGSTOP)
    two = workers(lease=5.0)
    until(lambda: set(owners(store, ids).values()) == {two.names[0]}, "the takeover")
    until(lambda: all(ledger(tmp_path)["start", "gated", n] == 2 for n in range(MANY)), "all again")
    if not while_running:
        (tmp_path / "gate").touch()
        until(lambda: all_are(store, ids, State.SUCCEEDED), "the end of all")
    seqs = {record.id: record.seq for record in store.get(ids) if record is not None}
    (tmp_path / "first").touch()  # what it ran ends when it goes on
    one.kill(signal.SIGCONT)
    again = one.heard()
    assert again["name"] != one.names[0]
    assert seqs == {record.id: record.seq for record in store.get(ids) if record is not None}
    before = 0 if while_running else MANY
    late = sum(count for (what, name, _), count in ledger(tmp_path).items()
               if (what, name) == ("end", "gated")) - before  # fmt: skip
    if while_running:
        (tmp_path / "gate").touch()
        until(lambda: all_are(store, ids, State.SUCCEEDED), "the end of all")
    one.kill(signal.SIGTERM)
    last = one.heard()
    assert one.process.wait(LONG) == 0
    refused = Counter(last["refused"])
    with capsys.disabled():
        print(
            f"\n  stopped past its lease with {MANY} executions in flight: {late} late results, "
            f"{dict(refused)} refused, {last['losses']} lease lost; 0 rows written",
            file=sys.stderr,
            flush=True,
        )
    assert set(refused) <= {"fenced", "already_final"}
    assert late or refused or last["losses"], "it did nothing late"
    for id in ids:
        rows = store.log(id)
        lost = next(row.seq for row in rows if row.kind is Kind.WORKER_LOST)
        assert all(row.nonce != rows[1].nonce for row in rows if row.seq > lost)
    check_logs(store, ids, tmp_path)


def test_workers_come_back_after_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of its processes are killed, while two workers run; nothing has to be told."""
    with Server() as server:
        url = server.database()
        store = open_store(url, owner="setup", now=now())
        # A lease in which bodies end, however busy the machine is while the server stops.
        pair = [Worker(url, tmp_path, lease=20.0) for _ in range(2)]
        try:
            ids = asyncio.run(start_many(url, MANY))
            until(lambda: all(ledger(tmp_path)["start", "gated", n] for n in range(MANY)), "began")
            server.stop(signal.SIGQUIT)
            (tmp_path / "gate").touch()
            until(lambda: all(ledger(tmp_path)["end", "gated", n] for n in range(MANY)), "ended")
            server.start()
            began = time.monotonic()
            until(lambda: reads(store) and all_are(store, ids, State.SUCCEEDED), "the end of all")
            took = time.monotonic() - began
            check_logs(store, ids, tmp_path)
            assert any(row.state == "active" for row in store.workers())
        finally:
            for one in pair:
                one.end()
            store.close()
    with capsys.disabled():
        print(f"\n  all ended {took:.1f} s after the server came back", file=sys.stderr, flush=True)


def reads(store: Store) -> bool:
    try:
        return bool(store.workers(1))
    except OutlastError:
        return False


def test_hundreds_of_workers_that_died_at_once(
    url: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dead, each = 200, 5
    writer = open_store(url, owner="setup", now=now())
    at = now()
    ids = [f"ex_{n:05}" for n in range(dead * each)]
    for begin in range(0, len(ids), 500):
        writer.commit([born_quick(id, at) for id in ids[begin : begin + 500]])
    for n in range(dead):
        writer.register(WorkerRow(f"dead{n}", "h", 1, at, at, 1, service=Service()))
        assert len(writer.claim(Lease(f"dead{n}"), ["quick"], each, at, nonces(each, n))) == each
    assert len(writer.expired(at)) == dead
    writer.close()
    os.environ.update(paths(tmp_path))
    began = time.monotonic()

    async def main() -> list[int]:
        async with (
            Engine(url, tasks=[quick], slots=300) as one,
            Engine(url, tasks=[quick], slots=300) as two,
            Engine(url, tasks=[quick], slots=300) as three,
        ):
            for id in ids:
                await one.execution(id).aresult()
            return [engine.fleet.taken for engine in (one, two, three) if engine.fleet]

    taken = asyncio.run(main())
    took = time.monotonic() - began
    with capsys.disabled():
        print(
            f"\n  {dead} dead workers with {dead * each} executions: taken over and finished by 3 "
            f"engines in {took:.1f} s, {taken} each",
            file=sys.stderr,
            flush=True,
        )
    assert sum(taken) == dead * each
    assert Counter(row.state for row in store.workers(1_000)) == {"lost": dead, "left": 3}
    for id in ids[::50]:
        kinds = [row.kind for row in store.log(id)]
        assert kinds.count(Kind.LEASE_EXPIRED) == 1 and kinds.count(Kind.CLAIM) == 2
    assert all(count == 1 for count in ledger(tmp_path).values())


def born_quick(id: str, at: int) -> Create:
    return born(id, at, task="quick", payload=b'{"number":' + str(int(id[3:])).encode() + b"}")


def test_a_supervisor_keeps_its_workers(
    url: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {**os.environ, **paths(tmp_path), "OUTLAST_STORE": url}
    command = [sys.executable, "-m", "outlast.cli", "worker", str(APP), "--processes", "2"]
    supervisor = subprocess.Popen(
        [*command, "--lease", "2s", "--concurrency", "50"], env=environment, cwd=tmp_path
    )
    try:

        def active() -> list[WorkerRow]:
            return [row for row in store.workers() if row.state == "active"]

        first = until(lambda: rows if len(rows := active()) == 2 else None, "two workers")
        assert len({row.pid for row in first}) == 2 and os.getpid() != first[0].pid
        assert {row.service.slots for row in first} == {50}
        assert all("held" in row.service.tasks for row in first)
        os.kill(first[0].pid, signal.SIGKILL)
        pids = {row.pid for row in first}
        until(lambda: any(row.pid not in pids for row in active()), "one in its place")
        listed = subprocess.run(
            [sys.executable, "-m", "outlast.cli", "workers", "-o", "json"],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert first[1].id in [item["id"] for item in json.loads(listed.stdout)["items"]]
        ids = asyncio.run(start_many(url, 4))
        (tmp_path / "gate").touch()
        until(lambda: all_are(store, ids, State.SUCCEEDED), "the end of all")
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(LONG) == 0
        # Of the killed one it is not known yet where nobody has looked since its lease ran out.
        states = Counter(row.state for row in store.workers() if row.id != first[0].id)
        assert states == {"left": 2}
    finally:
        supervisor.kill()
        supervisor.wait(LONG)


@pytest.mark.parametrize("hints", [True, False])
def test_a_result_comes_from_another_process(
    url: str,
    workers: Callable[..., Worker],
    tmp_path: Path,
    hints: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not hints:
        monkeypatch.setattr(PostgresHints, "send", lambda self, topic: None)
        monkeypatch.setattr(PostgresHints, "_hear", lambda self, pid, payload: None)
    workers()

    async def main() -> list[float]:
        spans = []
        async with Engine(url, tasks=[quick], slots=0) as web:
            for n in range(8):
                began = time.monotonic()
                handle = await web.astart(quick, n)
                assert await handle.aresult() == n
                spans.append(time.monotonic() - began)
        return sorted(spans)

    spans = asyncio.run(main())
    with capsys.disabled():
        said = "with hints" if hints else "with all hints lost"
        print(
            f"\n  started here, run there, result here, {said}: median {spans[4] * 1e3:.0f} ms",
            file=sys.stderr,
            flush=True,
        )
    assert spans[-1] < LONG


def test_hints_are_coalesced_and_come(url: str) -> None:
    heard: list[str] = []
    one, two = open_store(url, owner=None, now=now()), open_store(url, owner=None, now=now())
    first, second = one.hints(lambda topic: None), two.hints(heard.append)
    assert isinstance(first, PostgresHints) and isinstance(second, PostgresHints)
    until(lambda: first.is_listening and second.is_listening, "listening")
    del heard[:]
    for _ in range(500):
        first.send("work")
    first.send("ended")
    until(lambda: {"work", "ended"} <= set(heard), "the hints")
    first.close()
    second.close()
    assert second.received <= first.sent < 50
    assert set(heard) == {"work", "ended"}
    one.close()
    two.close()
