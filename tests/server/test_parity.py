"""What an engine gives its callers, a client gives as well: every method, in both colours."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from outlast import Client, Engine, Schedule
from outlast.engine.control.handle import Execution
from outlast.engine.read.feed import Events
from outlast.engine.read.stream import Stream
from outlast.errors import NotFound, ScheduleRefused, UnknownTenant

from .conftest import TASKS, TOKEN

ENGINE_ONLY = {
    **dict.fromkeys(
        (
            "adopt",
            "begin_anew",
            "doubt",
            "hint",
            "is_awaiting_others",
            "look",
            "look_at_clock",
            "expect",
        ),
        "it runs executions",
    ),
    **dict.fromkeys(
        ("new_id", "new_ids", "read_secret", "rename", "request", "see_news", "service"), "inner"
    ),
    **dict.fromkeys(
        (
            "open",
            "prune",
            "rules",
            "store",
            "read_part",
            "tick_seconds_max",
            "offer_remote",
            "attend",
        ),
        "has a store",
    ),
}
"""What only makes sense where executions run, and why."""
CLIENT_ONLY = {"spawn": "the command line's"}
LOOSER = {"start", "astart", "start_with", "astart_with", "astart_row"}
"""They take the name of a task as well, whose code is not there."""
ALONE = {
    "abort",
    "stream",
    "follow_logs",
    "id",
    "run",
    "execution",
    "group",
    "events",
    "tasks",
    "close",
    "url",
}
"""What needs no twin: it does not wait, or gives what is iterated in either way."""
TWINS = {"wait": "await_"}


def public(kind: type) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in dir(kind) if not name.startswith("_")}


def parameters(method: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(method).parameters.values()
    return [(one.name, one.kind, one.default) for one in found]


def test_a_client_has_what_an_engine_has() -> None:
    engine, client = public(Engine), public(Client)
    assert engine.keys() - client.keys() == ENGINE_ONLY.keys()
    assert client.keys() - engine.keys() == CLIENT_ONLY.keys()


def shared() -> Iterator[str]:
    engine = public(Engine)
    for name in sorted(engine.keys() & public(Client).keys() - LOOSER):
        if callable(engine[name]):
            yield name


@pytest.mark.parametrize("name", list(shared()))
def test_it_is_called_in_the_same_way(name: str) -> None:
    """A client may give up words that are the engine's own; it asks for none that others do not."""
    engine, client = (parameters(getattr(kind, name)) for kind in (Engine, Client))
    given = {one for one, kind, _ in client if kind is inspect.Parameter.VAR_KEYWORD}
    missing = [one for one in engine if one not in client and not given]
    assert missing == [] or name == "asend", missing
    assert [one for one in client if one not in engine and one[0] not in given] == []


def waiting(kind: type) -> Iterator[str]:
    for name, member in public(kind).items():
        is_async = inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
        if callable(member) and not is_async and name not in ALONE:
            yield name


@pytest.mark.parametrize("name", list(waiting(Execution)))
def test_each_method_of_a_handle_has_its_twin(name: str) -> None:
    twin = getattr(Execution, TWINS.get(name, f"a{name}"))
    assert inspect.iscoroutinefunction(twin) or inspect.isasyncgenfunction(twin)
    assert parameters(twin) == parameters(getattr(Execution, name))


@pytest.mark.parametrize("kind", [Execution, Client])
def test_nothing_is_there_in_one_colour_only(kind: type) -> None:
    names = public(kind)
    inner = {"adescend", "asend", "amake_token", "aadjust", "astart_row"}
    for name, member in names.items():
        if name.startswith("a") and inspect.iscoroutinefunction(member) and name not in inner:
            assert name[1:] in names or name in TWINS.values(), name


def managers(owner: Any) -> dict[str, Any]:
    """What is reached as an attribute and has methods in both colours."""
    return {
        name: one
        for name, one in vars(owner).items()
        if not name.startswith("_") and any(hasattr(one, f"a{word}") for word in public(type(one)))
    }


def test_a_client_has_the_managers_of_an_engine() -> None:
    engine, client = managers(Engine("memory:")), managers(Client("http://127.0.0.1:1"))
    assert engine.keys() == client.keys()
    assert engine.keys() >= {"schedules", "queues", "limits", "budgets", "tenants", "webhooks"}
    for name, one in engine.items():
        there, here = public(type(one)), public(type(client[name]))
        assert there.keys() == here.keys(), name
        for word, method in there.items():
            assert parameters(method) == parameters(here[word]), (name, word)
            is_async = word.startswith("a") and word[1:] in there
            assert inspect.iscoroutinefunction(here[word]) == is_async, (name, word)
            assert is_async or f"a{word}" in there, (name, word)


def test_what_is_iterated_is_iterated_in_both_ways() -> None:
    for kind in (Stream, Events):
        assert hasattr(kind, "__aiter__") and hasattr(kind, "__iter__")


def test_the_handle_is_the_very_same(served: Any) -> None:
    with Client(served.url, token=TOKEN, tasks=TASKS) as client:
        handles = client.start_many(TASKS[0], [(1,), (2,), (3,)])
        assert [one.result() for one in handles] == [3, 4, 5]
        assert type(handles[0]) is Execution
        rows = list(handles[0].watch())
        assert rows == handles[0].transitions()
        assert rows[-1].to_state == "succeeded"
        assert client.publish("nothing", task="total").reached == 0


def test_its_managers_do_what_an_engines_do(served: Any) -> None:
    with Client(served.url, token=TOKEN, tasks=TASKS) as client:
        made = client.schedules.create("nightly", TASKS[0], Schedule(cron="0 3 * * *"), 4, b=5)
        assert made == client.schedules.get("nightly") and made.input == b'{"a":4,"b":5}'
        assert client.schedules.trigger("nightly").result() == 9
        assert client.schedules.pause("nightly", "holiday").why == "holiday"
        assert [one.name for one in client.schedules.list("paused")] == ["nightly"]
        assert client.schedules.resume("nightly").state == "active"
        assert len(client.schedules.next("nightly", 2)) == 2
        assert [one.kind for one in client.schedules.log("nightly", 2)] == ["resume", "pause"]
        day = datetime(2025, 3, 1, tzinfo=UTC)
        filled = client.schedules.backfill("nightly", day, day + timedelta(days=2))
        assert [one.result() for one in filled] == [9, 9]
        assert "backfilled" in client.schedules.why("nightly", day.replace(hour=3))
        hourly = Schedule(every="1h")
        with pytest.raises(ScheduleRefused) as refused:
            client.schedules.create("nightly", TASKS[0], hourly, 1)
        assert refused.value.refusal == "already_exists"
        with pytest.raises(NotFound):
            client.schedules.update("weekly", TASKS[0], hourly, 1)
        assert (
            client.schedules.update("nightly", TASKS[0], hourly, 1).plan.every_us == 3_600_000_000
        )
        assert client.schedules.cancel("nightly").has_ended
        with pytest.raises(NotFound):
            client.schedules.get("weekly")
        assert client.queues.pause("slow", "later").why == "later"
        assert client.queues.limit("slow", 3).capacity == 3
        assert client.queues.resume("slow").paused_at is None
        assert [row.setting.name for row in client.queues.list()] == ["slow"]
        assert client.limits.set("k", 2).capacity == 2
        assert client.limits.set_rate("r", 10, "1s", burst=2).interval_us == 100_000
        assert {row.gate for row in client.limits.list()} == {"k", "rate:r"}
        client.limits.reset("k")
        with pytest.raises(NotFound):
            client.limits.reset("k")
        assert client.tenants.add("acme").name == "acme"
        assert client.tenants.close("acme").closed_at is not None
        assert client.tenants.open("acme").closed_at is None
        assert {one.name for one in client.tenants.all()} == {"default", "acme"}
        with pytest.raises(UnknownTenant):
            client.tenants.close("nobody")
