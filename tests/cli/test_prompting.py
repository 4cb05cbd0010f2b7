"""Values asked for at a terminal: every sort of form, and what is said of a wrong value."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict
from uuid import UUID

import msgspec
import pytest
from pydantic import BaseModel, Field

from outlast.cli.prompting import Asker, read_value
from outlast.codec import codec_for, json_schema
from outlast.errors import UsageError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Address:
    city: str
    zip: str | None = None


@dataclass
class Order:
    amount: int
    to: Address
    gift: bool = False
    notes: list[str] = field(default_factory=list)
    colour: Colour = Colour.RED


class Card(msgspec.Struct, tag=True):
    number: str


class Cash(msgspec.Struct, tag=True):
    cents: int


class Person(TypedDict, total=False):
    name: str
    age: int


class Model(BaseModel):
    count: Annotated[int, Field(ge=1, le=3)]
    at: datetime.datetime
    address: Address | None = None


class Tree(msgspec.Struct):
    name: str
    children: list[Tree] = []


def type_in(tp: Any, *lines: str) -> tuple[Any, list[str]]:
    """Type lines at the prompts for a form; gives the value, by its type, and all that was said.

    What is left over, or missing, fails the test.
    """
    said: list[str] = []
    typed: Iterator[str] = iter(lines)

    def read(title: str) -> str:
        said.append(title)
        return next(typed)

    schema = tp if isinstance(tp, dict) else json_schema(tp)
    value = Asker(read, said.append).ask(schema, "Q?")
    assert next(typed, None) is None, "there were more lines than questions"
    if not isinstance(tp, dict):
        value = codec_for(tp).decode(msgspec.json.encode(value))
    return value, said


DAY = datetime.date(2026, 12, 31)


@pytest.mark.parametrize(
    ("tp", "lines", "value"),
    [
        (bool, ["y"], True),
        (bool, ["perhaps", "no"], False),
        (int, ["five", "5.5", "5"], 5),
        (float, ["x", "1e3"], 1000.0),
        (str, ["5"], "5"),
        (str, ["", '""'], ""),
        (str | None, [""], None),
        (int | None, ["null"], None),
        (int | None, ["7"], 7),
        (int | str, ["7"], 7),
        (int | str, ["seven"], "seven"),
        (bool | int, ["1"], 1),
        (bool | int, ["yes"], True),
        (Literal["a", "b"], ["c", "b"], "b"),
        (Literal["a", 1, None], ["1"], 1),
        (Colour, ["green", "blue"], Colour.BLUE),
        (datetime.date, ["31.12.", "2026-12-31"], DAY),
        (datetime.time, ["noon", "12:30:00"], datetime.time(12, 30)),
        (
            datetime.datetime,
            ["tomorrow", "2026-12-31T10:00:00Z"],
            datetime.datetime(2026, 12, 31, 10, tzinfo=datetime.UTC),
        ),
        (datetime.datetime | None, ["soon", ""], None),
        (Decimal, ["much", "1.50"], Decimal("1.50")),
        (UUID, ["7", str(UUID(int=7))], UUID(int=7)),
        (Annotated[int, msgspec.Meta(ge=3)], ["2", "3"], 3),
        (list[int], ["1", "x", "2", ""], [1, 2]),
        (list[int], [""], []),
        (tuple[int, str], ["1", "a"], (1, "a")),
        (set[int], ["1", "2", ""], {1, 2}),
        (dict[str, int], ["a", "1", "b", "x", "2", ""], {"a": 1, "b": 2}),
        (Any, ["{", '{"a": [1]}'], {"a": [1]}),
        (Person, ["", "Ada"], {"name": "Ada"}),
        (Person, ["", ""], {}),
        (Card | Cash, ["3", "Cash", "x", "7"], Cash(7)),
        (Card | Cash, ["1", "4711"], Card("4711")),
        (Card | Cash | None, ["3"], None),
        (Address | None, ["n"], None),
        (Address | None, ["y", "Delft", ""], Address("Delft")),
        (list[Address], ["y", "Delft", "", "n"], [Address("Delft")]),
        (
            Order,
            ["5", "Delft", "2600", "y", "y", "first", "second", "", "blue"],
            Order(5, Address("Delft", "2600"), True, ["first", "second"], Colour.BLUE),
        ),
        (Order, ["5", "Delft", "", "", "n", ""], Order(5, Address("Delft"))),
        (Tree, ["a", "y", "y", "b", "n", "n"], Tree("a", [Tree("b")])),
        (
            Model,
            ["4", "3", "now", "2026-12-31T10:00:00Z", "n"],
            Model(count=3, at=datetime.datetime(2026, 12, 31, 10, tzinfo=datetime.UTC)),
        ),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, ["1", "2", ""], [1, 2]),
        ({"type": "integer", "default": 3}, [""], 3),
        ({"const": 7}, [], 7),
        ({"type": ["integer", "null"]}, [""], None),
        ({"allOf": [{"type": "integer"}], "minimum": 2}, ["1", "2"], 2),
        ({"type": "object"}, ["5", "{}"], {}),
    ],
)
def test_every_form_is_asked_for(tp: Any, lines: list[str], value: Any) -> None:
    assert type_in(tp, *lines)[0] == value


def test_a_wrong_field_is_named_and_asked_for_alone() -> None:
    value, said = type_in(Model, "9", "2", "soon", "2026-12-31T10:00:00Z", "n")
    assert value.count == 2
    assert said == [
        "Q?",
        "  count",
        "    it is greater than the maximum of 3",
        "  count",
        "  at [as 2026-12-31T17:30:00Z]",
        "    it is not a 'date-time'",
        "  at [as 2026-12-31T17:30:00Z]",
        "  give address? [y/N]",
    ]


def test_what_may_be_typed_is_shown() -> None:
    said = type_in(Order, "5", "Delft", "", "", "n", "")[1]
    assert '  colour (empty: "red") [blue/red]' in said
    assert "  gift (empty: false) [y/n]" in said
    assert type_in(bool, "y")[1] == ["Q? [y/n]"]
    assert type_in(int | None, "")[1] == ["Q? [empty: none]"]
    assert type_in(int, "x", "1")[1][1] == "  x is not a whole number"


def test_a_whole_that_does_not_fit_is_asked_for_again() -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    value, said = type_in(schema, "1", "1", "", "1", "2", "")
    assert value == [1, 2]
    assert said.count("  it has non-unique elements") == 1


def test_a_form_that_contains_itself_for_ever_has_an_end() -> None:
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}
    assert type_in(schema, "5")[0] == 5


@pytest.mark.parametrize(
    ("tp", "text", "value"),
    [
        (int | str, "7", 7),
        (int | str, "x", "x"),
        (str, "null", "null"),
        (str, '{"a": 1}', '{"a": 1}'),
        (Address | str, "text", "text"),
        (Address | str, '{"city": "Delft"}', {"city": "Delft"}),
        (datetime.date, "2026-12-31", "2026-12-31"),
        (Decimal, "1.5", "1.5"),
        (Colour, "red", "red"),
        (bool | None, "no", False),
        (list[int] | None, "null", None),
    ],
)
def test_a_value_on_the_command_line_is_read_by_its_form(tp: Any, text: str, value: Any) -> None:
    assert read_value(json_schema(tp), text) == value


def test_a_value_that_is_no_json_is_refused() -> None:
    for tp in (int, Order, list[int]):
        with pytest.raises(UsageError, match="is no JSON"):
            read_value(json_schema(tp), "perhaps")
