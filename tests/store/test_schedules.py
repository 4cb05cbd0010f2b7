"""Schedules in the stores: races, random histories, and the guards of the database."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlast.schedule import (
    Change,
    Plan,
    Request,
    Schedule,
    ScheduleKind,
    ScheduleState,
    Wish,
    decide,
    slots_after,
)
from outlast.schedule.table import CELLS, RULES, refusal
from outlast.store.memory import MemoryStore
from outlast.store.protocol import Store
from outlast.store.sqlite import SqliteStore
from outlast.testing.conformance import T
from outlast.testing.conformance_schedules import MINUTE, NAME, Clerk, draft, every

SECONDS = 1_000_000


def test_two_schedulers_fire_each_slot_once(tmp_path: Path) -> None:
    """Two connections in two threads, as two processes have them; nobody waits for the other."""
    path = tmp_path / "outlast.db"
    owner = SqliteStore(path, owner="w1", now=1)
    Clerk(owner).create(every(overlap="allow"))
    Clerk(owner).create(every(2 * MINUTE, overlap="skip"), name="other")
    rounds, refused, begun = 60, Counter[str | None](), threading.Barrier(2)

    def race(prefix: str) -> None:
        store = SqliteStore(path, owner=None, now=1)
        clerk = Clerk(store, prefix)
        for minute in range(1, rounds + 1):
            begun.wait(100)
            now = T + minute * MINUTE
            for name, seq in store.schedules.due(now, 10)[0]:
                refused[clerk.wish(Wish.ADVANCE, now, name, seq=seq).refused] += 1
        store.close()

    threads = [threading.Thread(target=race, args=(f"ex_{name}",)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    clerk = Clerk(owner)
    assert clerk.run(T + rounds * MINUTE) == []
    assert clerk.slots() == list(range(1, rounds + 1))
    fates = clerk.slots(name="other") + clerk.slots(ScheduleKind.SKIP, "other")
    assert sorted(fates) == list(range(2, rounds + 1, 2))
    assert len(clerk.executions()) == rounds + len(clerk.slots(name="other"))
    assert refused[None] == rounds + rounds // 2 and set(refused) <= {None, "moved"}
    assert owner.verify().defects == []
    owner.close()


class Model:
    """What happened to every slot, by the entries of a log."""

    def __init__(self, clerk: Clerk) -> None:
        self.fates: dict[int, list[str]] = {}
        plan = clerk.row().plan
        for entry in clerk.store.schedules.log(NAME, limit=1_000_000)[::-1]:
            if entry.slot is None:
                continue
            span = _span(plan, entry.slot, entry.until_slot or entry.slot)
            if entry.until_slot is not None:
                assert (entry.data or {})["slots"] == len(span)
            for slot in span:
                self.fates.setdefault(slot, []).append(str(entry.kind))


def _span(plan: Plan, first: int, last: int) -> list[int]:
    return list(takewhile(lambda slot: slot <= last, slots_after(plan, first - 1)))


PLANS = [
    every(overlap="allow"),
    every(overlap="skip", misfire="skip"),
    every(overlap="queue", misfire="all", misfire_max=3),
    every(overlap="cancel_old", jitter_us=5 * MINUTE),
    every(overlap="allow", misfire="all", misfire_max=2, jitter_us=90 * SECONDS),
    every(overlap="allow", count_max=15),
    Schedule(cron="*/7 * * * *", tz="Europe/Berlin", overlap="allow").plan,
    Schedule(cron="*/20 * * * * *", tz="Australia/Lord_Howe", overlap="queue").plan,
]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=st.sampled_from(PLANS), seed=st.integers(0, 2**32))
def test_under_random_histories_no_slot_is_lost_or_doubled(
    plan: Plan, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Time passes and stands still, schedulers die, people pause, trigger and backfill.

    The same happens to a store in memory and to one in SQLite, and they agree in everything.
    """
    path = tmp_path_factory.mktemp("random") / "outlast.db"
    stores: list[Store] = [MemoryStore(), SqliteStore(path, owner="w1", now=1)]
    clerks = [Clerk(store) for store in stores]
    rows = [_history(clerk, plan, random.Random(seed)) for clerk in clerks]
    assert rows[0] == rows[1]
    for store in stores:
        assert store.verify().defects == []
        store.close()


def _history(clerk: Clerk, plan: Plan, dice: random.Random) -> object:
    now = T
    clerk.create(plan)
    stale: int | None = None
    for _ in range(60):
        now += dice.choice((0, SECONDS, 20 * SECONDS, MINUTE, 3 * MINUTE, 40 * MINUTE))
        act = dice.randrange(10)
        if act < 6:
            for name, seq in clerk.store.schedules.due(now, 10)[0]:
                stale = seq
                if dice.random() < 0.1:
                    continue  # the scheduler dies before it writes
                few = clerk.ids(dice.choice((1, 2, 16)))
                clerk.wish(Wish.ADVANCE, now, name, seq=seq, ids=few)
        elif act == 6 and stale is not None:
            clerk.wish(Wish.ADVANCE, now, seq=stale)  # one that has slept writes late
        elif act == 7:
            wish = dice.choice((Wish.PAUSE, Wish.RESUME, Wish.RESUME, Wish.TRIGGER))
            clerk.wish(wish, now)
        elif act == 8:
            since = now - dice.randrange(20) * MINUTE
            clerk.wish(Wish.BACKFILL, now, since=since, until=now)
        else:
            for one in clerk.executions():
                if not one.is_final and dice.random() < 0.5:
                    clerk.end(one.id, now)
    clerk.wish(Wish.RESUME, now)
    clerk.run(now)
    _check(clerk, now)
    kept = [(one.id, one.key, one.state) for one in clerk.executions()]
    return clerk.row(), clerk.store.schedules.log(NAME, limit=100_000), kept


def _check(clerk: Clerk, now: int) -> None:
    row, fates = clerk.row(), Model(clerk).fates
    by_clock = {
        slot: [kind for kind in kinds if kind != "backfill"] for slot, kinds in fates.items()
    }
    slots = sorted(slot for slot, kinds in by_clock.items() if kinds)
    last = slots[-1] if slots else T - 1
    assert _span(row.plan, T, last) == slots, "no slot was passed over"
    for slot in slots:
        waits = slot == row.waiting_slot
        expected = [["fire"], ["skip"], ["miss"], ["queue", "fire"], *([["queue"]] * waits)]
        assert by_clock[slot] in expected
    assert sum("fire" in kinds for kinds in fates.values()) == row.fired
    keys = Counter(one.key for one in clerk.executions() if one.key is not None)
    assert set(keys.values()) <= {1}
    made = {slot for slot, kinds in fates.items() if {"fire", "backfill"} & set(kinds)}
    assert len(keys) == len(made)
    if row.state is ScheduleState.ACTIVE and row.next_at is not None:
        assert row.next_at > now
        assert row.next_slot == next(slots_after(row.plan, last))


# The table


def test_every_state_and_kind_has_one_answer() -> None:
    assert len(CELLS) == sum(len(rule.sources) for rule in RULES), "one rule for each cell"
    assert len({rule.id for rule in RULES}) == len(RULES)
    for state in (None, *ScheduleState):
        for kind in ScheduleKind:
            refused = refusal(state, kind)
            assert (refused is None) == ((state, kind) in CELLS)


def test_deciding_changes_no_record() -> None:
    row = draft(every(), seq=1, next_slot=T + MINUTE, next_at=T + MINUTE)
    before = str(row)
    for wish in Wish:
        request = Request(wish=wish, draft=draft(every(2 * MINUTE)), seq=1, ids=("a", "b"))
        decide(row, request, T + MINUTE)
    assert str(row) == before


def test_a_slot_that_is_none_any_more_is_passed() -> None:
    """As the zone's rules may change after it was computed."""
    plan = every(anchor_at=T + MINUTE)
    moved = draft(plan, next_slot=T + MINUTE + 7, next_at=T + MINUTE + 7)
    change = decide(moved, Request(wish=Wish.ADVANCE, seq=0, ids=("x",)), T + MINUTE + 7)
    assert isinstance(change, Change) and change.births == []
    assert change.after.next_slot == T + 2 * MINUTE
    assert [entry.kind for entry in change.entries] == [ScheduleKind.UPDATE]


# Guards


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[apsw.Connection]:
    path = tmp_path / "outlast.db"
    store = SqliteStore(path, owner="w1", now=1)
    clerk = Clerk(store)
    clerk.create(every(overlap="allow"))
    clerk.run(T + MINUTE)
    store.close()
    connection = apsw.Connection(str(path))
    yield connection
    connection.close()


ENTRY = "INSERT INTO schedule_entry VALUES (1, 'nightly', {seq}, '{kind}', {at}, 'x', {slot}, NULL, NULL, NULL)"
LATE = T + 10**12
GUARDS = [
    (ENTRY.format(seq=4, kind="skip", at=LATE, slot=5), "successor"),
    (ENTRY.format(seq=2, kind="skip", at=LATE, slot=5), "successor"),
    (ENTRY.format(seq=3, kind="skip", at=5, slot=5), "successor"),
    (ENTRY.format(seq=3, kind="party", at=LATE, slot=5), "CHECK"),
    (ENTRY.format(seq=3, kind="fire", at=LATE, slot=T + MINUTE), "UNIQUE"),
    ("UPDATE schedule_entry SET slot = 7 WHERE seq = 2", "append-only"),
    ("DELETE FROM schedule_entry WHERE seq = 2", "newest"),
    ("UPDATE schedule SET next_at = next_at + 1", "with its log"),
    ("UPDATE schedule SET seq = 3", "with its log"),
    ("UPDATE schedule SET seq = 1", "with its log"),
    ("UPDATE schedule SET name = 'other'", "with its log"),
    ("UPDATE schedule SET state = 'asleep'", "CHECK"),
    ("UPDATE schedule SET state = 'cancelled'", "CHECK"),
    ("UPDATE schedule SET next_slot = NULL, next_at = NULL", "CHECK"),
    ("UPDATE schedule SET next_at = next_slot - 1", "CHECK"),
    ("DELETE FROM schedule", "never deleted"),
    ("INSERT OR REPLACE INTO schedule SELECT * FROM schedule", "made once"),
]


@pytest.mark.parametrize(("text", "said"), GUARDS, ids=[said for _, said in GUARDS])
def test_a_guard_fires(shell: apsw.Connection, text: str, said: str) -> None:
    with pytest.raises(apsw.ConstraintError, match=said):
        shell.execute(text)


def test_what_is_legal_passes_the_guards(shell: apsw.Connection) -> None:
    shell.execute(ENTRY.format(seq=3, kind="skip", at=LATE, slot=5))
    shell.execute(f"UPDATE schedule SET seq = 3, updated_at = {LATE}")
    shell.execute("DELETE FROM schedule_entry WHERE seq = 1")


def test_verify_sees_a_row_that_left_its_log(tmp_path: Path, shell: apsw.Connection) -> None:
    shell.execute("DROP TRIGGER schedule_changed")
    shell.execute("UPDATE schedule SET seq = 7")
    store = SqliteStore(tmp_path / "outlast.db", owner="w1", now=1)
    assert store.verify().defects == ["schedule nightly: its row is at 7, its log ends at 2"]
    store.close()
