"""A server under load: what it has acknowledged is there, however it ended; and all are told."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import pytest

from benchmarks import w10
from benchmarks.bench import url
from outlast.store import open_store


def test_a_kill_under_load_loses_no_acknowledged_create(tmp_path: Path) -> None:
    """Sixteen connections create as fast as they can; the server is killed in the middle of it."""
    file, acks = tmp_path / "outlast.db", tmp_path / "acks"
    for number in range(2):
        with w10.served(url(file)) as server:
            loading = server.load("pairs", 16, 1_000_000, w10.LATER, acks)
            enough, wait = (number + 1) * 150, threading.Event()
            while not acks.exists() or len(acks.read_bytes().splitlines()) < enough:
                assert loading.poll() is None, "the load ended by itself"
                wait.wait(0.01)  # another process writes it
            server.stop(signal.SIGKILL)
            did = json.loads(loading.communicate(timeout=100)[0])
            assert did["unique"] > 0
            told = len(acks.read_bytes().splitlines())
            print(f"life {number}: {did['unique']} pairs made, {told} acknowledged so far")
    acknowledged = [line.decode() for line in acks.read_bytes().splitlines()]
    assert len(set(acknowledged)) == len(acknowledged) >= 300
    store = open_store(url(file), owner="w1", now=1)
    try:
        found, verified = store.get(acknowledged), store.verify()
        print(f"of {verified.executions} executions {len(found)} were acknowledged")
        assert None not in found
        assert verified.defects == [] and verified.executions >= len(acknowledged)
    finally:
        store.close()


@pytest.mark.parametrize("count", [200])
def test_every_reader_sees_every_event_of_its_execution(count: int, tmp_path: Path) -> None:
    """``python -m benchmarks W10`` does the same with 1,000."""
    from benchmarks.report import Result

    found = w10.follow(Result("W10", ""), tmp_path / "outlast.db", count)
    print(f"{count} readers: {found}")
    assert 0 < found["kib_each"] < 200
