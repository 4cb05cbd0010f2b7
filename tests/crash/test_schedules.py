"""SIGKILLs at random moments while slots come: none is lost, none is fired twice."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from outlast.schedule import ScheduleKind, slots_after
from outlast.store.protocol import Filter
from outlast.store.sqlite import SqliteStore

KILLS: Final = 6
NAMES: Final = ("always", "one")
PROGRAM: Final = '''
import sys, threading, time
from outlast import Engine, Schedule, step, task

class Fast:
    """A thousand seconds a second."""
    def now(self):
        return 1_800_000_000_000_000 + (time.time_ns() // 1000 - int(sys.argv[2])) * 1000

Engine.tick_seconds_max = 0.001

@step
async def work() -> None: ...

many = dict(misfire="all", misfire_max=1000, grace="1s")

@task(schedule=Schedule(every="5s", overlap="allow", **many))
async def always() -> None:
    await work()

@task(schedule=Schedule(every="7s", overlap="queue", **many))
async def one() -> None:
    await work()

with Engine(sys.argv[1], clock=Fast(), retention=None):
    print("open", flush=True)
    threading.Event().wait()
'''


def fired(path: Path) -> int:
    store = SqliteStore(path, owner=None, now=1)
    try:
        rows = [store.schedules.get(name) for name in NAMES]
        return sum(row.fired for row in rows if row is not None)
    finally:
        store.close()


def test_kills_lose_and_double_no_slot(tmp_path: Path) -> None:
    path, program = tmp_path / "outlast.db", tmp_path / "program.py"
    program.write_text(PROGRAM, "utf-8")
    dice = random.Random(7)
    begin = time.time_ns() // 1000
    for _ in range(KILLS):
        line = [sys.executable, str(program), f"sqlite:///{path}", str(begin)]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None and process.stdout.readline() == "open\n"
            wanted = fired(path) + dice.randrange(5, 60)
            until = time.monotonic() + 100
            while fired(path) < wanted and time.monotonic() < until:
                assert process.poll() is None
            assert fired(path) >= wanted
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    _check(path)


def _check(path: Path) -> None:
    store = SqliteStore(path, owner=None, now=1)
    assert store.verify().defects == []
    keys = [one.key for one in store.page(Filter(limit=1_000_000))]
    assert len(keys) == len(set(keys)) > 5 * KILLS and None not in keys
    made = 0
    for name in NAMES:
        row = store.schedules.get(name)
        assert row is not None
        fates: dict[int, list[str]] = {}
        for entry in store.schedules.log(name, limit=1_000_000)[::-1]:
            if entry.slot is not None:
                span = slots_after(row.plan, entry.slot - 1)
                while (slot := next(span)) <= (entry.until_slot or entry.slot):
                    fates.setdefault(slot, []).append(str(entry.kind))
        slots = slots_after(row.plan, 0)
        assert [next(slots) for _ in fates] == sorted(fates), "none was passed over"
        assert next(slots) == row.next_slot
        waiting = [["queue"]] if row.waiting_slot is not None else []
        allowed = [["fire"], ["skip"], ["miss"], ["queue", "fire"], *waiting]
        assert all(fate in allowed for fate in fates.values())
        count = sum(ScheduleKind.FIRE in fate for fate in fates.values())
        assert count == row.fired
        made += count
    assert made == len(keys)
    store.close()
