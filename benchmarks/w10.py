"""W10: the server over HTTP, with its load from a process of its own.

``pairs``: so many connections each create an execution and read it, over and over: in the variant
as it is defined nothing is run (it is to begin in an hour), in ``run`` the server runs one step of
each as well. ``readers``: so many connections each follow one execution's events, which then end;
each must have seen every row of its log, and no other. ``page``: the first page of the list, by
several filters, where a million executions have ended.

The server's processor time is read from ``/proc``: what a pair takes of it hardly depends on who
else uses the machine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks import checks, w9
from benchmarks.bench import Bench, percentile, url
from benchmarks.place import ROOT, child_environment, remove
from benchmarks.report import Result
from outlast.store import open_store

FULL: Final = {"pairs": 20_000, "connections": 64, "readers": 1_000, "listed": 1_000_000}
QUICK: Final = {"pairs": 3_000, "connections": 64, "readers": 200, "listed": 100_000}
TOKEN: Final = "a token for benchmarks only"
INPUT: Final = '"task":"chain","input":{"first":0,"steps":1}'
LATER: Final = f'{{{INPUT},"delay":"1h"}}'
AT_ONCE: Final = f"{{{INPUT}}}"
PAGES: Final = 20
FILTERS: Final = (
    "", "state=succeeded", "state=failed", "state=failed,timed_out", "state=open", "task=chain",
    "task=other", "task=chain&state=failed", "label=a%3Db", "origin=other", "schedule=other",
    "created_after=2100-01-01T00:00:00Z", "created_before=2000-01-01T00:00:00Z",
)  # fmt: skip
"""Filters of which all, or none, of those that are listed fit."""
FITTING: Final = ("", "state=succeeded", "task=chain")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Served:
    """A server in a process of its own."""

    def __init__(self, store: str, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.served", store],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        checks.expect(bool(line), "the server did not start")
        place = urlsplit(json.loads(line)["url"])
        self.host, self.port = str(place.hostname), int(place.port or 0)

    def cpu_seconds(self) -> float:
        """Give the processor time that it has taken."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_kib(self) -> int:
        """Give the memory that it holds."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0])

    def load(self, *words: object) -> subprocess.Popen[str]:
        """Begin a load."""
        given = ("benchmarks.load", words[0], self.host, self.port, TOKEN, *words[1:])
        return subprocess.Popen(
            [sys.executable, "-m", *map(str, given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
            cwd=ROOT,
        )

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any, float]:
        """Make one request; gives the status, the answer, and how long it took."""
        connection = HTTPConnection(self.host, self.port, timeout=60)
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        began = perf_counter()
        data = None if body is None else json.dumps(body)
        connection.request(method, f"/api/v1{path}", data, headers)
        answer = connection.getresponse()
        said = answer.read()
        took = perf_counter() - began
        connection.close()
        return answer.status, json.loads(said), took

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it."""
        self.process.send_signal(number)
        self.process.communicate(timeout=60)


@contextmanager
def served(store: str) -> Iterator[Served]:
    """Serve a store for the length of a block."""
    server = Served(store, child_environment(OUTLAST_TOKEN=TOKEN))
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def run(bench: Bench, *, pairs: int, connections: int, readers: int, listed: int) -> Result:
    """Measure pairs, readers and pages."""
    result = Result("W10", f"create and get over HTTP, {connections} connections")
    for _ in bench.each_round(result):
        for name, file in bench.files(["", "run"]):
            result.add(name, **_pairs(result, file, pairs, connections, runs=name == "run"))
        for _, file in bench.files(["readers"]):
            result.add("readers", **follow(result, file, readers))
    full = bench.directory / "listed.db"
    w9.fill(full, listed)
    with served(url(full)) as server:
        for words in FILTERS:
            took = []
            for _ in range(PAGES):
                status, page, seconds = server.ask(
                    "GET", f"/executions?{words or 'roots=false'}&limit=50"
                )
                checks.expect(status == 200, f"a page was refused: {page}")
                took.append(seconds)
            some = min(50, listed) if words in FITTING else 0
            checks.expect(len(page["items"]) == some, f"?{words} gave {len(page['items'])}")
            result.add("page", **{f"{words.replace('=', '_') or 'all'}_ms": median(took) * 1e3})
    slowest = max(one.median for (variant, _), one in result.figures.items() if variant == "page")
    result.add(page_ms=slowest)
    result.check(f"{listed:,} executions listed by {len(FILTERS)} filters")
    remove(full)
    return result


def _pairs(
    result: Result, file: Path, count: int, connections: int, *, runs: bool
) -> dict[str, float]:
    body = AT_ONCE if runs else LATER
    with served(url(file)) as server:
        warm, _ = server.load("pairs", connections, connections, body).communicate()
        before = server.cpu_seconds()
        loading = server.load("pairs", connections, count, body)
        said, _ = loading.communicate()
        checks.expect(loading.returncode == 0 and bool(warm), "the load failed")
        found = json.loads(said)
        took = server.cpu_seconds() - before
        if runs:
            (last,) = found["last"]
            server.ask("GET", f"/executions/{last}/result?wait=60s")
    checks.expect(found["unique"] == found["count"] == count, "not every create was its own")
    with checks.look(url(file)) as look:
        there = sum(look.states().values())
    checks.expect(there == count + connections, f"{there:,} executions are there")
    result.check(f"{there:,} executions created, each read once")
    return {
        "pairs_per_s": count / found["seconds"],
        "p50_ms": percentile(found["took"], 0.5) * 1e3,
        "p99_ms": percentile(found["took"], 0.99) * 1e3,
        "cpu_us_a_pair": took / count * 1e6,
        "load_us_a_pair": found["cpu"] / count * 1e6,
    }


def follow(result: Result, file: Path, count: int) -> dict[str, float]:
    """Let so many read events, and see that each saw all; gives what a reader holds, and the time.

    Raises:
        Unverified: one missed an event, or saw one twice.
    """
    with served(url(file)) as server:
        ids = []
        for _ in range(count):
            status, said, _ = server.ask("POST", "/executions", json.loads(LATER))
            checks.expect(status == 201, f"a create was refused: {said}")
            ids.append(said["id"])
        before = server.memory_kib()
        loading = server.load("readers")
        assert loading.stdin is not None
        assert loading.stdout is not None
        loading.stdin.write(json.dumps(ids) + "\n")
        loading.stdin.flush()
        begun = loading.stdout.readline()
        checks.expect(bool(begun) and json.loads(begun)["begun"] == count, "not all could read")
        held = server.memory_kib() - before
        began = perf_counter()
        status, said, _ = server.ask(
            "POST", "/bulk", {"action": "cancel", "filter": {"task": "chain"}}
        )
        checks.expect(status == 200 and said["done"] == count, f"not all were cancelled: {said}")
        rest, _ = loading.communicate()
        seconds = perf_counter() - began
        seen = json.loads(rest.splitlines()[-1])["seen"]
    store = open_store(url(file), owner=None, now=0)
    try:
        for id, seqs in zip(ids, seen, strict=True):
            checks.expect(seqs == [row.seq for row in store.log(id)], f"{id} was told {seqs}")
    finally:
        store.close()
    result.check(f"{count:,} readers saw every event of their execution, once")
    return {"kib_each": held / count, "all_told_s": seconds}


__all__ = ["LATER", "Served", "follow", "run", "served"]
