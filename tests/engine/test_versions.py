"""Versions of a task: an execution goes on with its own, and a pinned one with no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from outlast import State, sleep, step, task
from outlast.engine.task.registry import Task, is_newer
from outlast.errors import UsageError
from outlast.lifecycle import Kind
from outlast.store import open_store
from outlast.store.protocol import Lease
from outlast.testing import VirtualEngine


@step
async def note(text: str) -> str:
    return text


def version(number: str | None, **options: Any) -> Task[Any, Any]:
    @task(name="fulfil", version=number, **options)
    async def fulfil() -> str:
        await note(f"first {number}")
        await sleep("1d")
        return f"{number}"

    return fulfil


def test_an_execution_goes_on_with_its_own_version_where_it_is() -> None:
    one, two = version("1"), version("2")
    with VirtualEngine(tasks=[two, one]) as engine:
        assert engine.tasks["fulfil"] is two
        old, new = engine.start(one), engine.start(two)
        engine.advance("1d")
        assert (old.result(), new.result()) == ("1", "2")
        assert (old.record().version, new.record().version) == ("1", "2")
        (start,) = [row for row in old.transitions() if row.kind is Kind.START][:1]
        assert start.data == {"code": one.code, "version": "1"}


def test_a_pinned_execution_waits_for_its_version() -> None:
    one, two = version("1", pin=True), version("2")
    with VirtualEngine(tasks=[two]) as engine:
        pinned = engine.start(one)
        engine.advance("2d")
        assert pinned.status() is State.QUEUED
        reason = pinned.reason()
        assert reason is not None and "pinned to version 1 of fulfil" in reason.text
        plain = engine.start(version("1"))
        engine.advance("1d")
        assert plain.result() == "2", "one that is not pinned takes the newest"
        pinned.pin(None)
        engine.advance("1d")
        assert pinned.result() == "2"
        assert engine.store.verify().defects == []


def test_a_suspended_execution_is_left_to_its_version() -> None:
    one, two = version("1"), version("2")
    with VirtualEngine(tasks=[one, two]) as engine:
        engine.worker.versions = {}
        engine._tasks = {"fulfil": one}  # the process of yesterday
        engine.worker.tasks = engine._tasks
        handle = engine.start(one)
        engine.worker.tasks = {"fulfil": two}  # the deploy
        handle.resume()
        assert handle.status() is State.SUSPENDED
        handle.resume(pin="1")
        assert handle.status() is State.QUEUED
        engine.worker.versions = {("fulfil", "1"): one}
        engine.look()
        engine.advance("1d")
        assert handle.result() == "1"
        assert handle.record().gates == {"version": "1"}
        assert engine.store.verify().defects == []


@pytest.mark.parametrize("address", ["memory:", "sqlite"])
def test_a_claim_passes_over_what_is_pinned_to_others(address: str, tmp_path: Any) -> None:
    from outlast.lifecycle import Event, create
    from outlast.store.protocol import Create

    url = address if address == "memory:" else f"sqlite:///{tmp_path / 'outlast.db'}"
    store = open_store(url, owner="w1", now=1)
    births: list[tuple[str, dict[str, object] | None]] = [
        ("a", None),
        ("b", {"version": "1"}),
        ("c", {"version": "2"}),
        ("d", {"needs": ["x"]}),
    ]
    for id, gates in births:
        data: dict[str, object] = {"task": "t", "input_digest": 1}
        if gates is not None:
            data["gates"] = gates
        record, row = create(1, id, Event(Kind.CREATE, "user", data=data, payload=b"{}"), 1)
        (answer,) = store.commit([Create(record, [row])])
        assert answer.refused is None

    def claim(versions: list[tuple[str, str]], seed: int) -> list[str]:
        nonces = [bytes([seed, n]) * 8 for n in range(9)]
        lease = Lease("w1", capabilities=frozenset("x"))
        claimed = store.claim(lease, ["t"], 9, 2, nonces, versions)
        return [one.execution.id for one in claimed]

    assert claim([("other", "1"), ("t", "3")], 1) == ["a", "d"]
    assert claim([("t", "2")], 2) == ["c"]
    assert claim([("t", "1"), ("t", "2")], 3) == ["b"]
    assert store.verify().defects == []
    store.close()


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ("10", "9"),
        ("2", "1"),
        ("1", None),
        ("2026-11-19", "2026-2-1"),
        ("1.10.0", "1.9"),
        ("b", "a"),
    ],
)
def test_numbers_in_versions_count_as_numbers(newer: str, older: str | None) -> None:
    assert is_newer(newer, older) and not is_newer(older, newer)


def test_a_pin_needs_a_version() -> None:
    pin: Callable[..., Any] = task(pin=True)
    with pytest.raises(UsageError, match="has no version"):
        pin(note.fn)
