"""Signals: which one a wait takes, when it comes, and what it says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast import State, blocking, sleep, task, wait_for
from outlast.errors import BadPayload, TransitionRefused, UsageError, WaitTimeout
from outlast.lifecycle import Kind
from outlast.lifecycle.matching import contains, payload_contains
from outlast.testing import VirtualEngine, crash_everywhere
from outlast.testing import engine as virtual


@dataclass
class Packed:
    order: int
    boxes: int = 1


COLOURS = ["async", "def"]


def waiting(colour: str, times: int = 1, **options: Any) -> Any:
    """Make a task of this colour that waits for signals, one after the other."""

    @task(name="waits")
    async def waits() -> list[Any]:
        return [plain(await wait_for("packed", **options)) for _ in range(times)]

    @task(name="waits")
    def waits_plainly() -> list[Any]:
        return [plain(blocking.wait_for("packed", **options)) for _ in range(times)]

    return waits if colour == "async" else waits_plainly


def plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, Packed) else value


# The pattern

_scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "1", 1.5])
values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("value", "wanted", "fits"),
    [
        ({"order": 7, "at": "x"}, {"order": 7}, True),
        ({"order": 8}, {"order": 7}, False),
        ({"order": "7"}, {"order": 7}, False),
        ({"order": 7.0}, {"order": 7}, True),
        ({"ok": 1}, {"ok": True}, False),
        ({"ok": True}, {"ok": 1}, False),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, True),
        ({"a": {"c": 2}}, {"a": {"b": None}}, False),
        ({"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 1}]}, False),
        ({"a": [1, 2]}, {"a": [1, 2]}, True),
        ({"a": [1]}, {"a": [True]}, False),
        ({"a": None}, {"a": None}, True),
        ({}, {"a": None}, False),
        ([], {}, False),
        (None, {}, False),
        ({"a": 1}, {}, True),
    ],
)
def test_what_contains_what(value: Any, wanted: Any, fits: bool) -> None:
    assert contains(value, wanted) is fits
    assert payload_contains(msgspec.json.encode(value), wanted) is fits


def grown(pattern: Any, extra: Any) -> Any:
    """Add a field to every object of a pattern."""
    if isinstance(pattern, dict):
        return {**{name: grown(part, extra) for name, part in pattern.items()}, "more": extra}
    return pattern


@given(values, values)
def test_a_value_contains_itself_and_what_it_has_grown_from(value: Any, extra: Any) -> None:
    assert contains(value, value)
    assert contains(grown(value, extra), value)
    if isinstance(value, Mapping):
        assert not contains(value, grown(value, extra))


def test_what_is_no_json_contains_nothing() -> None:
    assert not payload_contains(b"{", {})
    assert not payload_contains(b"[" * 100_000, {})


# Waits


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(
    "match",
    [{"order": 7}, lambda packed: packed.order == 7],
    ids=["pattern", "test"],
)
def test_a_wait_takes_what_fits_and_leaves_the_rest(colour: str, early: bool, match: Any) -> None:
    @task(name="takes_two")
    async def takes_two() -> list[Any]:
        await sleep("1h")
        mine = await wait_for("packed", Packed, match=match)
        return [plain(mine), await wait_for("packed")]

    @task(name="takes_two")
    def takes_two_plainly() -> list[Any]:
        blocking.sleep("1h")
        mine = blocking.wait_for("packed", Packed, match=match)
        return [plain(mine), blocking.wait_for("packed")]

    waits = takes_two if colour == "async" else takes_two_plainly

    def scenario(engine: VirtualEngine) -> Any:
        h = engine.start(waits)
        if not early:
            engine.advance("1h")
        h.signal("packed", {"order": 8, "boxes": 1})
        h.signal("packed", Packed(7, 3))
        engine.advance("1h")
        return h.result()

    report = crash_everywhere(scenario, tasks=[waits])
    assert report.result == [{"order": 7, "boxes": 3}, {"order": 8, "boxes": 1}]


@pytest.mark.parametrize("colour", COLOURS)
def test_a_signal_for_nobody_wakes_nobody(colour: str) -> None:
    """A wait with a pattern is not replayed for each signal that is not its own."""
    waits = waiting(colour, match={"order": 7})
    with virtual(tasks=[waits]) as engine:
        h = engine.start(waits)
        assert h.status() is State.AWAITING_INPUT
        for order in range(5):
            h.signal("packed", {"order": order})
        assert [row.kind for row in h.transitions()[-5:]] == [Kind.SIGNAL_RECEIVED] * 5
        assert h.record().claims == 1
        h.signal("packed", {"order": 7})
        assert h.result() == [{"order": 7}]
        assert engine.store.verify().defects == []


def test_branches_share_signals_by_their_patterns() -> None:
    @task
    async def many() -> list[Any]:
        orders = [wait_for("packed", Packed, match={"order": n}) for n in range(4)]
        found = await asyncio.gather(*orders)
        return [one.boxes for one in found]

    def scenario(engine: VirtualEngine) -> Any:
        h = engine.start(many)
        for order in (2, 0, 3, 1):
            h.signal("packed", Packed(order, boxes=10 + order))
        return h.result()

    assert crash_everywhere(scenario, tasks=[many]).result == [10, 11, 12, 13]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=8), st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_each_wait_takes_the_oldest_that_fits(sent: list[int], wanted: list[int]) -> None:
    """The model: a list of signals, and waits that take the first of theirs, in order."""

    @task(name="in_turn")
    async def in_turn() -> list[list[int]]:
        return [
            await wait_for("n", list[int], match=lambda one, n=n: one[0] == n, timeout="1h")
            for n in wanted
        ]

    left = [[n, place] for place, n in enumerate(sent)]
    expected: list[list[int]] | None = []
    for n in wanted:
        fitting = [one for one in left if one[0] == n]
        if not fitting:
            expected = None
            break
        left.remove(fitting[0])
        assert expected is not None
        expected.append(fitting[0])
    with virtual(tasks=[in_turn]) as engine:
        h = engine.start(in_turn)
        for place, n in enumerate(sent):
            with contextlib.suppress(TransitionRefused):  # it has all it wanted
                h.signal("n", [n, place])
        if expected is None:
            engine.advance("4h")
            with pytest.raises(WaitTimeout):
                h.result()
        else:
            assert h.result() == expected


@pytest.mark.parametrize("colour", COLOURS)
def test_why_shows_the_pattern(colour: str) -> None:
    waits = waiting(colour, match={"order": UUID(int=7), "to": {"country": "NL"}})
    with virtual(tasks=[waits]) as engine:
        h = engine.start(waits)
        (wait,) = h.record().detail["waits"]  # type: ignore[index]
        pattern = {"order": str(UUID(int=7)), "to": {"country": "NL"}}
        assert wait["match"] == pattern
        reason = h.reason()
        assert reason is not None
        said = f'{{"order": "{UUID(int=7)}", "to": {{"country": "NL"}}}}'
        assert reason.text == f"it waits for the signal packed with {said}"
        assert reason.hint == f"outlast signal {h.id} packed"


def test_why_names_the_test() -> None:
    def is_mine(value: Any) -> bool:
        return bool(value)

    for match, said in ((is_mine, "is_mine"), (lambda value: True, "the lambda in line")):
        waits = waiting("async", match=match)
        with virtual(tasks=[waits]) as engine:
            reason = engine.start(waits).reason()
            assert reason is not None and said in reason.text


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("early", [True, False])
def test_a_signal_of_another_form_is_a_typed_error_and_taken(colour: str, early: bool) -> None:
    @task(name="skips")
    async def skips() -> Any:
        await sleep("1h")
        try:
            return plain(await wait_for("packed", Packed))
        except BadPayload as error:
            return [error.code, plain(await wait_for("packed", Packed))]

    @task(name="skips")
    def skips_plainly() -> Any:
        blocking.sleep("1h")
        try:
            return plain(blocking.wait_for("packed", Packed))
        except BadPayload as error:
            return [error.code, plain(blocking.wait_for("packed", Packed))]

    waits = skips if colour == "async" else skips_plainly

    def scenario(engine: VirtualEngine) -> Any:
        h = engine.start(waits)
        if not early:
            engine.advance("1h")
        h.signal("packed", "no such thing")
        h.signal("packed", {"order": 1})
        engine.advance("1h")
        return h.result()

    report = crash_everywhere(scenario, tasks=[waits])
    assert report.result == ["bad_payload", {"order": 1, "boxes": 1}]


@pytest.mark.parametrize("colour", COLOURS)
def test_a_test_is_only_asked_about_values_that_have_the_form(colour: str) -> None:
    seen: list[Any] = []

    def is_seven(packed: Packed) -> bool:
        seen.append(packed)
        return packed.order == 7

    waits = waiting(colour, form=Packed, match=is_seven)
    with virtual(tasks=[waits]) as engine:
        h = engine.start(waits)
        h.signal("packed", "no such thing")
        h.signal("packed", {"order": 7})
        assert h.result() == [{"order": 7, "boxes": 1}]
        assert seen and all(isinstance(one, Packed) for one in seen)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("early", [True, False])
def test_a_test_that_raises_fails_its_wait_and_the_signal_stays(colour: str, early: bool) -> None:
    def breaks(value: Any) -> bool:
        raise LookupError("broken")

    @task(name="survives")
    async def survives() -> Any:
        await sleep("1h")
        try:
            await wait_for("packed", match=breaks, timeout="1d")
        except LookupError:
            return await wait_for("packed")

    @task(name="survives")
    def survives_plainly() -> Any:
        blocking.sleep("1h")
        try:
            blocking.wait_for("packed", match=breaks, timeout="1d")
        except LookupError:
            return blocking.wait_for("packed")

    waits = survives if colour == "async" else survives_plainly

    def scenario(engine: VirtualEngine) -> Any:
        h = engine.start(waits)
        if not early:
            engine.advance("1h")
        h.signal("packed", 5)
        engine.advance("1h")
        return h.result()

    assert crash_everywhere(scenario, tasks=[waits]).result == 5


@pytest.mark.parametrize("colour", COLOURS)
def test_none_that_fits_in_time(colour: str) -> None:
    waits = waiting(colour, match={"order": 7}, timeout="1h")
    with virtual(tasks=[waits]) as engine:
        h = engine.start(waits)
        h.signal("packed", {"order": 8})
        engine.advance("1h")
        with pytest.raises(WaitTimeout, match='no signal "packed" came within 1h'):
            h.result()


def test_what_is_no_match_is_refused() -> None:
    for match in (7, [1], "order"):
        waits = waiting("async", match=match)
        with virtual(tasks=[waits]) as engine, pytest.raises(UsageError):
            engine.start(waits).result()
    waits = waiting("async", match={"order": object()})
    with virtual(tasks=[waits]) as engine, pytest.raises(BadPayload):
        engine.start(waits).result()


@pytest.mark.parametrize("colour", COLOURS)
def test_signals_while_paused_and_sent_twice(colour: str) -> None:
    waits = waiting(colour, times=2, match={"order": 7})

    def scenario(engine: VirtualEngine) -> Any:
        h = engine.start(waits)
        h.pause()
        for number in (1, 1, 2):
            h.signal("packed", {"order": 7, "n": number}, id=f"m{number}")
        h.signal("packed", {"order": 9})
        h.resume()
        return h.result()

    assert crash_everywhere(scenario, tasks=[waits]).result == [
        {"order": 7, "n": 1},
        {"order": 7, "n": 2},
    ]
