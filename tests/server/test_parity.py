"""What an engine gives its callers, a client gives as well: every method, in both colours."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from outlast import Client, Engine
from outlast.engine.feed import Events
from outlast.engine.handle import Execution
from outlast.engine.stream import Stream

from .conftest import TASKS, TOKEN

ENGINE_ONLY = {
    **dict.fromkeys(
        ("adopt", "begin_anew", "doubt", "hint", "is_awaiting_others", "look", "look_at_clock"),
        "it runs executions",
    ),
    **dict.fromkeys(("new_id", "read_secret", "rename", "request", "see_news", "service"), "inner"),
    **dict.fromkeys(("open", "prune", "store", "tick_seconds_max", "offer_remote"), "has a store"),
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
