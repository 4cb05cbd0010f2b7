"""The doctor: each fault that is planted is found, with what to do; a healthy store has none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from outlast.engine.read.doctor import CHECKS, Finding, Level, Patient, examine, worst
from outlast.errors import StoreUnavailable
from outlast.lifecycle import Event, Kind, create
from outlast.store import open_store
from outlast.store.epoch import EpochLoss
from outlast.store.protocol import DEFAULT_NUMBER, Adjust, Create, Health, QueueSetting, Store
from outlast.testing.conformance import begun

NOW = 1_800_000_000_000_000
DAY_US = 86_400_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "o.db").touch(mode=0o600)
    store = open_store(f"sqlite:///{tmp_path}/o.db", owner="w1", now=1)
    yield store
    store.close()


def waits(id: str, at: int, **more: Any) -> Create:
    data = {"task": "t", "queue": "default", "priority": 0, **more}
    record, row = create(
        DEFAULT_NUMBER, id, Event(Kind.CREATE, "user", data=data, payload=b"[]"), at
    )
    return Create(record, [row])


def found(store: Store, check: str, *, owner: str | None = "w1") -> list[Finding]:
    return [one for one in examine(store, NOW, owner) if one.check == check]


def bad(findings: list[Finding]) -> list[str]:
    return [one.what for one in findings if one.level is not Level.OK]


def test_a_healthy_store_has_nothing(store: Store) -> None:
    findings = examine(store, NOW, "w1")
    assert bad(findings) == [] and worst(findings) is Level.OK
    assert {one.check for one in findings} == {check.__name__ for check in CHECKS}


def test_a_store_in_memory_can_be_examined() -> None:
    assert bad(examine(open_store("memory:", owner="w1", now=1), NOW, "w1")) == []


def test_postgres_can_be_examined(postgres_store: str) -> None:
    store = open_store(postgres_store, owner="w1", now=1)
    try:
        patient = Patient(store, NOW, None)
        assert patient.fact("fsync") in ("on", "off")
        assert isinstance(patient.fact("max_connections"), int)
        findings = examine(store, NOW, None)
        assert {one.check for one in findings} == {check.__name__ for check in CHECKS}
        assert not [one for one in findings if one.level is Level.FAIL and one.check != "settings"]
    finally:
        store.close()


def test_nobody_runs_what_there_is(store: Store) -> None:
    store.commit([waits("ex_1", NOW - 1)])
    (one,) = found(store, "workers", owner=None)
    assert one.level is Level.FAIL and "no engine runs" in one.what and "outlast worker" in one.do
    assert bad(found(store, "workers")) == []


def test_what_waits_for_long_and_paused_queues(store: Store) -> None:
    store.commit([waits("ex_1", NOW - 3_600_000_000), waits("ex_2", NOW - 5, queue="mail")])
    store.capacity.set_queue(QueueSetting("mail", paused_at=NOW - 9, paused_by="ann"))
    old, paused = bad(found(store, "queues"))
    assert old.endswith("has waited for 1h") and paused.startswith("the queue mail is paused")


def test_overdue_timers(store: Store) -> None:
    store.commit([waits("ex_1", NOW - DAY_US, due_at=NOW - DAY_US // 2)])
    (said,) = bad(found(store, "timers"))
    assert said.startswith("1 executions should have moved, the first 12h ago")
    assert bad(found(store, "timers", owner=None)) == []  # that nobody runs it is said elsewhere


def test_what_is_suspended_is_told_by_its_reason(store: Store) -> None:
    owner, item = begun("ex_1")
    store.commit([item])
    data = {"code": "code_mismatch", "text": "x", "hint": "y"}
    write = owner.write(Kind.SUSPEND, NOW - 5, data=data)
    write.inbox_seen = 0
    assert store.commit([write])[0].refused is None
    (said,) = bad(found(store, "stuck"))
    assert said == "1 executions are suspended: code_mismatch 1"


def test_a_budget_that_is_spent(store: Store) -> None:
    store.commit([Adjust("task:t", "set", {"usd": 0}, "ann", 1, "a1")])
    spent = [row for row in store.budgets() if row.spent_up_at is not None]
    said = bad(found(store, "budgets"))
    assert len(said) == len(spent)


def test_a_store_that_went_back_in_time(store: Store) -> None:
    epoch = store.epochs.begin("restored", {}, NOW - 3_600_000_000)
    (one,) = found(store, "failover")
    assert one.level is Level.OK and "nobody misses anything" in one.what
    store.epochs.report(EpochLoss(epoch.number, "w0", NOW - 5, 9, 1, 1, 7, 0, ["ex_1"]))
    (one,) = found(store, "failover")
    assert one.level is Level.WARN and "1h ago (restored)" in one.what
    assert "1 executions and 7 rows" in one.why and "ex_1" in one.do


def test_a_row_that_is_not_what_its_log_says(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.commit([waits("ex_1", NOW - 5)])
    page = store.page

    def lies(filter: Any) -> list[Any]:
        return [replace(one, state="running") for one in page(filter)]

    monkeypatch.setattr(store, "page", lies)
    (said,) = bad(found(store, "logs"))
    assert said == "ex_1 is running, and its log says queued"


@pytest.mark.parametrize(
    ("facts", "check", "level", "word"),
    [
        ({"fsync": "off"}, "settings", Level.FAIL, "fsync"),
        ({"full_page_writes": "off"}, "settings", Level.FAIL, "full_page_writes"),
        ({"synchronous_commit": "off"}, "settings", Level.WARN, "synchronous_commit"),
        ({"is_standby": "true"}, "settings", Level.FAIL, "standby"),
        ({"journal_mode": "delete"}, "settings", Level.WARN, "delete"),
        ({"free_bytes": 10 * 1024 * 1024}, "space", Level.FAIL, "disk"),
        ({"free_bytes": 500 * 1024 * 1024}, "space", Level.WARN, "disk"),
        ({"wal_bytes": 1 << 30}, "space", Level.WARN, "write-ahead"),
        ({"connections": 95, "max_connections": 100}, "space", Level.WARN, "95 of 100"),
        ({"longest_us": 10**9}, "space", Level.WARN, "transaction"),
        ({"clock_us": NOW}, "clocks", Level.WARN, "clock"),
        ({"mode": 0o644}, "exposure", Level.WARN, "644"),
    ],
)
def test_facts_of_the_backend(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    facts: dict[str, Any],
    check: str,
    level: Level,
    word: str,
) -> None:
    plain = store.health(NOW)
    health = Health({**plain.facts, **facts})
    monkeypatch.setattr(store, "health", lambda before: health)
    findings = [one for one in found(store, check) if one.level is not Level.OK]
    assert [(one.level, word in one.what) for one in findings] == [(level, True)]
    assert findings[0].why and findings[0].do


def test_a_check_that_fails_leaves_the_others_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*args: Any, **more: Any) -> Any:
        raise StoreUnavailable("gone for a moment")

    monkeypatch.setattr(store, "budgets", breaks)
    findings = examine(store, NOW, "w1")
    (one,) = [one for one in findings if one.check == "budgets"]
    assert one.level is Level.WARN and "could not be looked at" in one.what
    assert len({one.check for one in findings}) == len(CHECKS)
