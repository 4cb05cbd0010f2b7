"""Lists among many executions: what is looked at for a page is bounded, whatever its filter."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from outlast.engine.control.listing import SLACK_US, bounded
from outlast.engine.write.identity import IdMaker
from outlast.lifecycle import FINAL, OPEN, Kind, State
from outlast.store.memory import MemoryStore
from outlast.store.protocol import Filter, Item, Part
from outlast.store.sqlite import SqliteStore
from outlast.testing.conformance import begun, born

ROWS_MAX = 200
STEPS_A_ROW = 120
SECOND = 1_000_000
BEGAN = 1_700_000_000 * SECOND
SIZES = (1_000, 4_000)
EVERY: dict[str, dict[str, Any]] = {
    "all": {},
    "none of a task": {"task": "nobody"},
    "few of a task": {"task": "rare"},
    "many of a task": {"task": "t"},
    "all of a state": {"states": (State.SUCCEEDED,)},
    "none of a state": {"states": (State.FAILED,)},
    "none of two states": {"states": (State.FAILED, State.TIMED_OUT)},
    "few of an open state": {"states": (State.QUEUED,)},
    "open": {"states": OPEN},
    "ended or not": {"states": (State.QUEUED, State.CANCELLED)},
    "few of a state and a task": {"states": (State.SUCCEEDED,), "task": "rare"},
    "none of a state and many of a task": {"states": (State.TIMED_OUT,), "task": "t"},
    "open and many of a task": {"states": OPEN, "task": "t"},
    "none of a label": {"labels": {"team": "none"}},
    "few of a label": {"labels": {"team": "few"}},
    "many of a label": {"labels": {"team": "many"}},
    "none of a label among many": {"labels": {"team": "many", "city": "Ulm"}},
    "none of an origin": {"origin": "nobody"},
    "few of an origin": {"origin": "schedule:night"},
    "roots": {"roots": True},
    "roots of a state and a task": {"roots": True, "states": tuple(FINAL), "task": "t"},
    "none since": {"created_after": BEGAN + 1_000_000 * SECOND},
    "few before": {"created_before": BEGAN + 2 * SECOND},
    "a task's before": {"created_before": BEGAN + 200 * SECOND, "task": "t"},
}
FEW = {
    "few of a task": 3,
    "few of an open state": 2,
    "few of a state and a task": 3,
    "few of a label": 3,
    "few before": 3,
}


def _executions(count: int) -> Iterator[Item]:
    """The oldest three are of a rare task and label; two of them all are open."""
    ids = IdMaker()
    for number in range(count):
        now = BEGAN + number * SECOND
        is_old = number < 3
        data = {
            "task": "rare" if is_old else "t",
            "labels": {"team": "few" if is_old else "many"},
            "origin": "schedule:night" if is_old else "cli",
        }
        if number in (5, 6):
            yield born(ids.make(now), now, **data)
            continue
        owner, item = begun(ids.make(now), now=now, nonce=secrets.token_bytes(16), **data)
        yield item
        yield owner.write(Kind.FINISH)


def _steps(store: SqliteStore, look: Callable[[], Part]) -> tuple[int, Part]:
    """Give how many steps of SQLite's machine a look takes, which no other load disturbs."""
    steps = 0

    def step() -> bool:
        nonlocal steps
        steps += 1
        return False

    store.file._reader.set_progress_handler(step, 1)
    try:
        found = look()
    finally:
        store.file._reader.set_progress_handler(None)
    return steps, found


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[SqliteStore]]:
    directory = tmp_path_factory.mktemp("listing")
    made = [SqliteStore(directory / f"{size}.db", owner="w1", now=1) for size in SIZES]
    for store, size in zip(made, SIZES, strict=True):
        items = list(_executions(size))
        assert all(answer.refused is None for answer in store.commit(items))
    yield made
    for store in made:
        store.close()


@pytest.mark.parametrize("name", EVERY)
def test_a_part_costs_the_same_however_many_there_are(stores: list[SqliteStore], name: str) -> None:
    wanted = bounded(Filter(limit=50, **EVERY[name]))
    took = []
    for store in stores:
        steps, part = _steps(store, partial(store.part, wanted, ROWS_MAX))
        if name in FEW:
            assert len(part.found) == FEW[name] and part.before_id is None
        took.append(steps)
    few, many = took
    assert few > 0 and many <= few * 1.1 + ROWS_MAX, took
    assert many < STEPS_A_ROW * ROWS_MAX, took


@pytest.mark.parametrize("name", EVERY)
def test_parts_are_followed_to_the_end(stores: list[SqliteStore], name: str) -> None:
    store = stores[0]
    filter = bounded(Filter(limit=50, **EVERY[name]))
    found, before, parts = [], filter.before_id, 0
    while parts == 0 or before is not None:
        part = store.part(replace(filter, before_id=before), ROWS_MAX)
        found, before, parts = found + part.found, part.before_id, parts + 1
    everything = Filter(limit=SIZES[0], **EVERY[name])
    assert [one.id for one in found] == [one.id for one in store.page(everything)]
    assert parts <= SIZES[0] / 50 + SIZES[0] / ROWS_MAX + 1


def test_bounds_of_ids_leave_nothing_out() -> None:
    """Also where the clock was set back while ids were made."""
    ids = IdMaker()
    late = ids.make(BEGAN + SLACK_US - SECOND)
    born_at = BEGAN
    assert ids.make(born_at) > late
    bounds = bounded(Filter(created_before=born_at, created_after=born_at))
    assert bounds.before_id is not None and bounds.from_id is not None
    assert bounds.from_id < late < ids.make(born_at) < bounds.before_id
    given = bounded(Filter(created_before=born_at, before_id="ex_0", from_id="ex_z"))
    assert (given.before_id, given.from_id) == ("ex_0", "ex_z")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_an_end_of_an_id_is_looked_for_among_the_newest(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for place in ("memory", "relational"):
        monkeypatch.setattr(f"outlast.store.{place}.store.ENDS_MAX", 3)
    store: Any = MemoryStore()
    if kind == "sqlite":
        store = SqliteStore(tmp_path / "outlast.db", owner="w1", now=1)
    ids = [f"ex_{number}abcde{number}" for number in range(5)]
    assert {one.refused for one in store.commit([born(id) for id in ids])} == {None}
    assert [store.find(f"abcde{number}", 5) for number in (1, 2, 4)] == [[], [ids[2]], [ids[4]]]
    assert store.find("abcde", 9) == [] and store.find("e4", 0) == []
    assert store.find("ex_0", 5) == [ids[0]], "what it begins with finds it, however old it is"
    store.close()
