"""Arguments from the command line: typed by the signature of the task."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import pytest

from outlast.cli.arguments import read_call
from outlast.engine.task.registry import Task
from outlast.errors import BadPayload, OutlastError, WrongArguments


class Colour(Enum):
    RED = "red"


@dataclass
class Order:
    id: str
    cents: int = 0
    tags: list[str] = field(default_factory=list)


def task_of(fn: Any) -> Task[Any, Any]:
    return Task(fn, None, 0, None, "default", 0, None)


def one(annotation: Any, *words: str) -> Any:
    """Read the words for a task with one parameter ``x`` of this type."""

    async def single(x: Any) -> None: ...

    single.__annotations__["x"] = annotation
    args, kwargs = read_call(task_of(single), words, None)
    (value,) = (*args, *kwargs.values())
    return value


@pytest.mark.parametrize(
    ("annotation", "word", "value"),
    [
        (str, "Ada", "Ada"),
        (str, "5", "5"),
        (str, "true", "true"),
        (str, '"quoted"', '"quoted"'),
        (str, "", ""),
        (str, "ünï ☃", "ünï ☃"),
        (int, "5", 5),
        (int, "-5", -5),
        (float, "1e3", 1000.0),
        (bool, "yes", True),
        (bool, "0", False),
        (Decimal, "5.10", Decimal("5.10")),
        (datetime, "2026-11-21T10:00:00Z", datetime(2026, 11, 21, 10, tzinfo=UTC)),
        (
            UUID,
            "12345678-1234-5678-1234-567812345678",
            UUID("12345678-1234-5678-1234-567812345678"),
        ),
        (Colour, "red", Colour.RED),
        (Literal["a", "b"], "b", "b"),
        (list[int], "[1, 2]", [1, 2]),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (Order, '{"id": "O-1", "cents": 5}', Order("O-1", 5)),
        (int | None, "null", None),
        (int | None, "7", 7),
        (str | None, "Ada", "Ada"),
        (Any, "5", 5),
        (Any, "five", "five"),
        (Any, '{"a": [1]}', {"a": [1]}),
    ],
)
def test_a_value_is_read_by_its_type(annotation: Any, word: str, value: Any) -> None:
    for words in (("--x", word), (f"--x={word}",)):
        assert one(annotation, *words) == value
    if not word.startswith("-"):
        assert one(annotation, word) == value


def test_switches() -> None:
    assert one(bool, "--x") is True
    assert one(bool, "--no-x") is False
    assert one(bool, "--x", "no") is False


def test_a_list_may_be_given_item_by_item() -> None:
    assert one(list[str], "--x", "a", "--x", "5") == ["a", "5"]
    assert one(list[int], "--x", "1", "--x", "2") == [1, 2]
    with pytest.raises(WrongArguments, match="2 times"):
        one(str, "--x", "a", "--x", "b")


def test_values_in_order_names_with_dashes_and_the_rest() -> None:
    async def many(
        first_name: str, count: int, *rest: int, loud: bool = False, **more: Any
    ) -> None: ...

    task = task_of(many)
    assert read_call(task, ("Ada", "2", "3", "4", "--loud", "--extra", "x", "--n", "5"), None) == (
        ("Ada", 2, 3, 4),
        {"loud": True, "extra": "x", "n": 5},
    )
    assert read_call(task, ("--first-name", "Ada", "--count", "2"), None) == (
        ("Ada", 2),
        {"loud": False},
    )
    assert read_call(task, (), '["Ada", 2, 3, 4]') == (("Ada", 2, 3, 4), {"loud": False})
    assert read_call(task, (), '{"first_name": "Ada", "count": 1, "k": [1]}') == (
        ("Ada", 1),
        {"loud": False, "k": [1]},
    )


def test_the_same_input_however_it_is_given() -> None:
    async def order(order: Order, rush: bool = False) -> None: ...

    task = task_of(order)
    calls = [
        read_call(task, ('{"id": "O-1", "cents": 5}',), None),
        read_call(task, ("--no-rush", "--order", '{"cents":5,"id":"O-1"}'), None),
        read_call(task, (), '{"rush": false, "order": {"id": "O-1", "cents": 5, "tags": []}}'),
    ]
    payloads = {task.input.bind(args, kwargs) for args, kwargs in calls}
    assert len(payloads) == 1


@pytest.mark.parametrize(
    ("words", "document", "error", "said"),
    [
        ((), None, WrongArguments, "needs name"),
        (("--nam", "x"), None, WrongArguments, "has no parameter nam"),
        (("a", "1", "b"), None, WrongArguments, "one value too many"),
        (("a", "one"), None, BadPayload, "count does not fit its type"),
        (("a", "1.5"), None, BadPayload, "count does not fit its type"),
        (("--name",), None, WrongArguments, "has no value"),
        ((), "{", WrongArguments, "no JSON"),
        ((), "3", WrongArguments, "neither an object nor an array"),
        ((), '{"name": 5}', BadPayload, "name does not fit its type"),
        ((), '{"nmae": "x"}', WrongArguments, "has no parameter nmae"),
        (("x",), "{}", WrongArguments, "beside a JSON document"),
        ((), '["a", 1, 2]', WrongArguments, "one value too many"),
    ],
)
def test_what_is_refused(
    words: tuple[str, ...], document: str | None, error: type[OutlastError], said: str
) -> None:
    async def greet(name: str, count: int = 1) -> None: ...

    with pytest.raises(error, match=said) as raised:
        read_call(task_of(greet), words, document, target="app.py:greet")
    assert "--name" in raised.value.do or document is not None
    if document is None and words != ("--name",):
        assert raised.value.do == "outlast run app.py:greet --name STR [--count INT]"
