"""The commands about queues and limits, and what why says of them."""

from __future__ import annotations

from typing import Any

import pytest

from outlast.lifecycle import Kind
from outlast.store import open_store
from outlast.store.protocol import Create, Lease, Store
from outlast.testing.conformance import Owner, born, nonces
from outlast.testing.conformance_structure import calls_child

NOW = 1_767_225_600_000_000


def limited(capacity: int = 1, *, hold: bool = False) -> dict[str, Any]:
    return {"limits": [{"name": "k:a", "of": "k", "capacity": capacity, "hold": hold}]}


def claim(store: Store, seed: int = 0) -> list[Owner]:
    found = store.claim(Lease("w1"), ["t"], 9, NOW + 9, nonces(9, seed))
    owners = [Owner(claimed.execution) for claimed in found]
    store.commit([owner.write(Kind.START, NOW + 9) for owner in owners])
    return owners


def fill(url: str) -> None:
    """One inside, two that wait at its gate, and one in another queue."""
    store = open_store(url, owner="w1", now=NOW)
    items = [born(f"ex_000{n}", NOW + n, gates=limited()) for n in range(3)]
    store.commit([*items, born("ex_000q", NOW, queue="q", task="other")])
    claim(store)
    store.close()


def test_why_names_the_gate_its_holders_and_the_place(url: str, outlast: Any) -> None:
    fill(url)
    said = outlast("why", "ex_0002")
    assert "the limit k:a lets 1 in at a time, now ex_0000; it is number 2 in line" in said
    assert "no engine runs on this store" in said and "outlast limit set k:a" in said
    assert "number 1 in line" in outlast("show", "ex_0001")
    assert '"limit_full"' in outlast("why", "ex_0001", "-o", "json")
    assert "waits at the gate k:a" in outlast("events", "ex_0001")


def test_limits_are_listed_set_and_taken_back(url: str, outlast: Any) -> None:
    fill(url)
    table = outlast("limit", "ls").splitlines()
    assert table[1].split() == ["k:a", "–", "1", "ex_0000", "2", "ex_0001"]
    assert outlast("limit", "set", "k", "3", "--by", "ann") == "limit k: 3\n"
    rate = outlast("limit", "set", "rate:mail", "100/1m", "--burst", "5")
    assert rate == "limit rate:mail: one each 600ms, 5 at once\n"
    assert outlast("limit", "ls", "-o", "ids").split() == ["k", "k:a", "rate:mail"]
    assert '"by": "ann"' in outlast("limit", "ls", "-o", "json")
    assert '"interval_us": 600000' in outlast("limit", "set", "mail", "100/1m", "-o", "json")
    assert outlast("limit", "set", "k", "none") == "limit k: as its task says\n"
    assert "nothing is set" in outlast("limit", "set", "k", "none", code=4)


def test_queues_are_listed_paused_limited_and_resumed(url: str, outlast: Any) -> None:
    fill(url)
    assert outlast("queue", "pause", "q", "--why", "lunch", "--by", "ann") == "queue q: paused\n"
    assert "ann paused the queue q: lunch; it is number 1 there" in outlast("why", "ex_000q")
    assert outlast("queue", "limit", "default", "1") == "queue default: 1 at a time\n"
    lines = outlast("queue", "ls").splitlines()
    assert lines[1].split()[:7] == ["default", "●", "open", "0", "2", "1", "1"]
    assert lines[2].split()[:7] == ["q", "‖", "paused", "1", "0", "0", "–"]
    assert '"paused_by": "ann"' in outlast("queue", "ls", "-o", "json")
    assert outlast("queue", "ls", "-o", "ids").split() == ["default", "q"]
    assert outlast("queue", "resume", "q") == "queue q: open\n"
    outlast("queue", "limit", "q", "0")
    assert "the queue q runs 0 at a time" in outlast("why", "ex_000q")


@pytest.mark.parametrize(
    "words",
    [
        ("limit", "set", "k", "many"),
        ("limit", "set", "k", "-- -1"),
        ("limit", "set", "k", "1/never"),
        ("limit", "set", "k", "3", "--burst", "2"),
        ("limit", "set", "rate:mail", "3"),
        ("limit", "set", "", "3"),
        ("queue", "limit", "q", "1.5"),
        ("queue", "pause", ""),
    ],
)
def test_what_makes_no_sense_is_refused(url: str, outlast: Any, words: tuple[str, ...]) -> None:
    fill(url)
    outlast(*words, code=2)
    assert outlast("limit", "ls", "-o", "ids").split() == ["k:a"]


def test_an_empty_file_has_neither(url: str, outlast: Any) -> None:
    open_store(url, owner="w1", now=NOW).close()
    assert outlast("queue", "ls").startswith("no queue: ")
    assert outlast("limit", "ls").startswith("no limit is set")


def test_why_sees_a_parent_that_holds_what_its_child_needs(url: str, outlast: Any) -> None:
    store = open_store(url, owner="w1", now=NOW)
    store.commit([born("ex_parent", NOW, gates=limited(hold=True))])
    (parent,) = claim(store)
    family = {"parent_id": "ex_parent", "root_id": "ex_parent", "parent_key": "work#1"}
    child: Create = born("ex_child", NOW + 9, gates=limited(), **family)
    store.commit([calls_child(parent, child, NOW + 9)])
    assert claim(store, 1) == []
    store.close()
    said = outlast("why", "ex_child")
    assert "ex_parent, which made it and may wait for it, holds the limit k:a" in said
    assert '"limit_deadlock"' in outlast("why", "ex_child", "-o", "json")
