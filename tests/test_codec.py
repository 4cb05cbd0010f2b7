"""The codec gives back what it took, or refuses it and says where."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import functools
import json
import math
import subprocess
import sys
import urllib.request
import uuid
from dataclasses import dataclass, field
from typing import (
    Annotated,
    Any,
    ForwardRef,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    TypedDict,
    TypeVar,
)

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast import codec as codec_module
from outlast.codec import (
    DEPTH_MAX,
    PAYLOAD_BYTES_MAX,
    InputCodec,
    codec_for,
    digest,
    json_schema,
    result_codec,
    validate,
)
from outlast.errors import BadPayload, PayloadTooLarge, WrongArguments

T = TypeVar("T")
UTC = datetime.UTC


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


@dataclass(frozen=True)
class Item:
    name: str
    price: decimal.Decimal


@dataclass
class Basket:
    items: list[Item] = field(default_factory=list)
    note: str | None = None


@dataclass
class BigBasket(Basket):
    extra: int = 0


@dataclass
class Loose:
    x: Any = None
    ratio: float | None = None


@dataclass
class Node:
    below: Node | None = None
    extra: Any = None


@dataclass
class Box(Generic[T]):
    inside: T


class Point(msgspec.Struct, frozen=True):
    x: int
    y: int = 0


class Cat(msgspec.Struct, tag=True):
    lives: set[str]


class Dog(msgspec.Struct, tag=True):
    bones: set[str]


class Row(TypedDict):
    id: int
    tags: set[str]


class Pair(NamedTuple):
    left: int
    right: str = ""


class Inner(pydantic.BaseModel):
    at: datetime.datetime
    amount: decimal.Decimal


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")
    full_name: str = pydantic.Field(alias="fullName")
    inner: Inner
    tags: set[str] = set()
    ratio: float | None = None
    anything: Any = None

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def shout(self) -> str:
        return self.full_name.upper()


class Child(Inner):
    more: int = 0


@dataclass
class Holder:
    model: Model
    maybe: Inner | None
    many: list[Inner]


UserId = NewType("UserId", int)
AT = datetime.datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=UTC)
INNER = Inner(at=AT, amount=decimal.Decimal("1.10"))
MODEL = Model(fullName="Ann", inner=INNER, tags={"b", "a"}, ratio=1.5, anything={"a": [1]})

TAKEN: list[tuple[Any, Any]] = [
    (str, "a\0\u20ac\U0001f600"),
    (str, ""),
    (int, 0),
    (int, 2**64),
    (int, -(2**200)),
    (float, 1.0),
    (float, -0.0),
    (float, 5e-324),
    (float, 1.7976931348623157e308),
    (bool, True),
    (None, None),
    (Any, None),
    (Any, 1),
    (Any, 1.0),
    (Any, {"a": [1, {"b": None}]}),
    (list, [1]),
    (Any, 2**70),
    (Any, "\0"),
    (object, {"a": 1}),
    (dict, {"z": 1, "a": 2}),
    (dict[str, int], {"n": 1}),
    (dict[int, str], {1: "a"}),
    (dict[uuid.UUID, int], {uuid.UUID(int=1): 1}),
    (dict[datetime.date, float], {datetime.date(2020, 1, 1): 1.5}),
    (tuple[int, ...], (1, 2)),
    (tuple[int, str], (1, "a")),
    (set[int], {3, 1}),
    (frozenset[str], frozenset({"a", "b"})),
    (set[Colour], {Colour.RED, Colour.BLUE}),
    (set[Item], {Item("b", decimal.Decimal(2)), Item("a", decimal.Decimal(1))}),
    (list[set[tuple[int, str]]], [{(2, "a"), (1, "b")}]),
    (Colour, Colour.RED),
    (Level, Level.LOW),
    (dict[Colour, int], {Colour.RED: 1}),
    (bytes, b"\x00\xff"),
    (uuid.UUID, uuid.UUID(int=7)),
    (datetime.datetime, AT),
    (datetime.datetime, AT.replace(tzinfo=None)),
    (datetime.date, AT.date()),
    (datetime.time, AT.time()),
    (datetime.timedelta, datetime.timedelta(days=-3, microseconds=1)),
    (decimal.Decimal, decimal.Decimal("1.10")),
    (Literal["a", 1], "a"),
    (int | str, "1"),
    (Optional[int], None),  # noqa: UP045 - both spellings
    (int | float, 1),
    (int | float, 1.0),
    (Item | None, Item("a", decimal.Decimal("0.10"))),
    (Basket, Basket([Item("a", decimal.Decimal(1))], "x")),
    (Box[Item], Box(Item("a", decimal.Decimal(1)))),
    (Box[int], Box(1)),
    (Point, Point(1)),
    (list[Point], [Point(1), Point(2, 3)]),
    (Pair, Pair(1, "x")),
    (Row, {"id": 1, "tags": {"b", "a"}}),
    (Cat | Dog, Dog({"y", "x"})),
    (list[Cat | Dog], [Cat({"q", "p"})]),
    (Loose, Loose({"a": [1]}, 1.5)),
    (Node, Node(Node(None, [1]))),
    (UserId, UserId(3)),
    (Annotated[int, msgspec.Meta(ge=0)], 3),
    (Annotated[int, ["unhashable"]], 3),
    (Model, MODEL),
    (Inner | None, None),
    (list[Inner], [INNER]),
    (dict[str, Inner], {"a": INNER}),
    (Holder, Holder(MODEL, INNER, [INNER])),
    (pydantic.RootModel[list[int]], pydantic.RootModel[list[int]]([1])),
]


@pytest.mark.parametrize(("tp", "value"), TAKEN, ids=range(len(TAKEN)))
def test_taken(tp: Any, value: Any) -> None:
    codec = codec_for(tp)
    data, live = codec.round_trip(value)
    replayed = codec.decode(data)
    assert type(live) is type(value)
    assert live == value == replayed
    assert repr(replayed) == repr(codec.decode(codec.encode(live)))
    assert codec.round_trip(replayed)[0] == data
    json.loads(data)  # it is JSON for others too


def _cycle() -> list[Any]:
    value: list[Any] = []
    value.append({"self": value})
    return value


def _deep(n: int) -> Any:
    value: Any = 1
    for _ in range(n):
        value = [value]
    return value


def _shared() -> Any:
    value: Any = [1]
    for _ in range(60):
        value = [value, value]
    return value


NAN, INF = math.nan, math.inf
ANNOTATE, PLAIN, FIT = "annotat", "replace", "return or pass what the annotation says"

# annotation, value, the path and words in the message, the advice
REFUSED: list[tuple[Any, Any, str, str]] = [
    (Any, {"items": [0, 1, 2, {"price": {1}}]}, "result.items[3].price: set", ANNOTATE),
    (Any, (1, 2), "result: tuple", ANNOTATE),
    (Any, [[(1,)]], "result[0][0]: tuple", ANNOTATE),
    (Any, {"a": AT}, "result.a: datetime.datetime", ANNOTATE),
    (Any, Item("a", decimal.Decimal(1)), "Item does not come back", ANNOTATE),
    (Any, INNER, "Inner does not come back", ANNOTATE),
    (Any, {"a": Level.LOW}, "Level does not come back", ANNOTATE),
    (Any, collections.OrderedDict(a=1), "OrderedDict", ANNOTATE),
    (Any, Pair(1), "Pair", ANNOTATE),
    (Any, b"a", "result: bytes", ANNOTATE),
    (Any, {1: 2}, "result[1]: a key of class int", ANNOTATE),
    (Any, {"a": {None: 2}}, "result.a[None]: a key of class None", ANNOTATE),
    (Any, NAN, "result: nan has no JSON form", PLAIN),
    (Any, [1.5, -INF], "result[1]: -inf", PLAIN),
    (Any, {"a b": [NAN]}, "result['a b'][0]: nan", PLAIN),
    (float, NAN, "result: nan", PLAIN),
    (float, INF, "result: inf", PLAIN),
    (float | None, NAN, "result: nan", PLAIN),
    (list[float | None], [None, NAN], "result[1]: nan", PLAIN),
    (list[float], [1.0, NAN], "result[1]: nan", PLAIN),
    (set[float], {NAN}, "result[0]: nan", PLAIN),
    (dict[float, int], {NAN: 1}, "a key nan", PLAIN),
    (dict[str, float], {"x": INF}, "result.x: inf", PLAIN),
    (Loose, Loose(ratio=NAN), "result.ratio: nan", PLAIN),
    (Loose, Loose(x=[NAN]), "result.x[0]: nan", PLAIN),
    (Loose, Loose(x=(1,)), "result.x: tuple", ANNOTATE),
    (list[Loose], [Loose(), Loose(x={1})], "result[1].x: set", ANNOTATE),
    (Node, Node(Node(None, {1})), "result.below.extra: set", ANNOTATE),
    (dict[str, Any], {"a": (1,)}, "result.a: tuple", ANNOTATE),
    (tuple[int, Any], (1, {2}), "result[1]: set", ANNOTATE),
    (dict[str, Any] | None, {"a": (1,)}, "result.a: tuple", ANNOTATE),
    (Model, MODEL.model_copy(update={"ratio": NAN}), "result.ratio: nan", PLAIN),
    (Model, MODEL.model_copy(update={"anything": (1,)}), "result.anything: tuple", ANNOTATE),
    (Basket, BigBasket(), "BigBasket would come back as its base class", ANNOTATE),
    (list[Basket], [Basket(), BigBasket()], "result[1]: ", ANNOTATE),
    (list[Inner], [Child(at=AT, amount=decimal.Decimal(1))], "result[0]: ", ANNOTATE),
    (str, "a\ud800", "result: text with a lone surrogate", PLAIN),
    (Any, {"a": ["\udfff"]}, "result.a[0]: text with a lone surrogate", PLAIN),
    (dict[str, int], {"\ud800": 1}, "a lone surrogate", PLAIN),
    (Basket, Basket([Item("\ud800", decimal.Decimal(1))]), "result.items[0].name: text", PLAIN),
    (int, 10**5000, "bits is too long for JSON", PLAIN),
    (Any, {"a": [10**5000]}, "result.a[0]: an int of", PLAIN),
    (Any, _cycle(), "it contains itself", PLAIN),
    (Any, _deep(DEPTH_MAX + 1), "nested deeper than 200", PLAIN),
    (Any, _deep(5000), "nested deeper than 200", PLAIN),
    (Any, [1, 1j], "result[1]: complex", ANNOTATE),
    (list[int], [1, 1j], "result[1]: complex has no JSON form", PLAIN),
    (int, "x", "Expected `int`, got `str` (the value is of class str)", FIT),
    (int, True, "Expected `int`, got `bool`", FIT),
    (int, 1.0, "Expected `int`, got `float`", FIT),
    (bool, 1, "got `int`", FIT),
    (str, None, "got `null`", FIT),
    (None, 1, "got `int`", FIT),
    (list[int], [1, "x"], "result[1]: does not fit the annotation `list[int]`", FIT),
    (Basket, Basket(note=3), "result.note: does not fit", FIT),  # type: ignore[arg-type]
    (Colour, "green", "does not fit", FIT),
    (Literal["a"], "b", "does not fit", FIT),
    (Annotated[int, msgspec.Meta(ge=0)], -1, "`int` >= 0", FIT),
    (tuple[int, str], (1,), "does not fit", FIT),
    (Inner, {"at": "never", "amount": 1}, "Inner", FIT),
]


@pytest.mark.parametrize(("tp", "value", "words", "advice"), REFUSED, ids=range(len(REFUSED)))
def test_refused(tp: Any, value: Any, words: str, advice: str) -> None:
    with pytest.raises(BadPayload) as caught:
        codec_for(tp).round_trip(value)
    error = caught.value
    assert words in str(error)
    assert advice in error.do
    assert error.what.startswith("result")
    assert error.what and error.where and error.why and error.do
    assert error.__suppress_context__ or error.__context__ is None  # no traceback of msgspec
    assert len(str(error)) < 2000


@pytest.mark.parametrize(
    "tp",
    [
        complex,
        collections.deque[int],
        dict[int | str, int],
        datetime.date | str,
        Basket | Item,
        Model | Inner,
        list[ForwardRef("NoSuchName")],  # type: ignore[misc]
        set[int] | list[int],
        object(),
    ],
    ids=range(9),
)
def test_refused_types(tp: Any) -> None:
    with pytest.raises(BadPayload) as caught:
        codec_for(tp)
    assert caught.value.do and caught.value.why


def test_delivered_is_a_copy_and_of_the_annotated_type() -> None:
    mine = {"a": [1]}
    live = codec_for(Any).round_trip(mine)[1]
    live["a"].append(2)
    assert mine == {"a": [1]}
    assert codec_for(list[int]).round_trip((1, 2))[1] == [1, 2]
    assert codec_for(Basket).round_trip({"note": "x"})[1] == Basket(note="x")
    data, live = codec_for(float).round_trip(1)
    assert (data, type(live)) == (b"1", float)


def test_subclasses_of_scalars_come_back_plain_where_annotated() -> None:
    class Float64(float):
        """Like numpy's."""

    live = codec_for(list[float]).round_trip([Float64(1.5)])[1]
    assert type(live[0]) is float
    with pytest.raises(BadPayload, match=r"result\[0\]: nan"):
        codec_for(list[float]).round_trip([Float64("nan")])


def test_exactly_200_deep_is_taken() -> None:
    assert codec_for(Any).round_trip(_deep(DEPTH_MAX))[1] == _deep(DEPTH_MAX)
    node = None
    for _ in range(DEPTH_MAX):
        node = Node(node)
    assert codec_for(Node).round_trip(node)[1] == node
    with pytest.raises(BadPayload, match="nested deeper than 200"):
        codec_for(Node).round_trip(Node(node))


def test_cycle_in_typed_value() -> None:
    node = Node()
    node.below = node
    with pytest.raises(BadPayload, match=r"result\.below: it contains itself"):
        codec_for(Node).round_trip(node)


def test_shared_parts_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_module, "_CONTAINERS_MAX", 1000)
    with pytest.raises(BadPayload, match="too many parts"):
        codec_for(Any).round_trip(_shared())


def test_user_code_that_raises_is_a_bad_payload() -> None:
    @dataclass
    class Picky:
        x: int

        def __post_init__(self) -> None:
            if self.x > 1:
                raise KeyError("too large")

    bad = Picky(1)
    bad.x = 2
    with pytest.raises(BadPayload, match="KeyError"):
        codec_for(Picky).round_trip(bad)


@pytest.mark.parametrize("size", [-1, 0, 1])
def test_size_limit(size: int) -> None:
    value = "x" * (100 - 2 + size)
    if size <= 0:
        assert len(codec_for(str).encode(value, bytes_max=100)) == 100 + size
        return
    with pytest.raises(PayloadTooLarge) as caught:
        codec_for(str).encode(value, bytes_max=100)
    assert (caught.value.size_bytes, caught.value.bytes_max) == (101, 100)


def test_default_size_limit() -> None:
    codec_for(str).encode("x" * (PAYLOAD_BYTES_MAX - 2))
    with pytest.raises(PayloadTooLarge):
        codec_for(str).encode("x" * (PAYLOAD_BYTES_MAX - 1))


def test_order_is_kept_and_sets_are_sorted() -> None:
    assert codec_for(dict[str, int]).encode({"b": 1, "a": 2}) == b'{"b":1,"a":2}'
    tp = dict[str, set[str]]
    assert codec_for(tp).encode({"z": {"b", "a"}, "y": set()}) == b'{"z":["a","b"],"y":[]}'
    many = {str(n) for n in range(50)}
    assert codec_for(list[Dog]).encode([Dog(many)]) == codec_for(list[Dog]).encode(
        [Dog({*sorted(many)[::-1]})]
    )


_CHILD = """
from test_codec import *
tags = set("abcdef")
values = [(Model, MODEL), (Row, {"id": 1, "tags": tags}), (list[Cat | Dog], [Cat(tags)])]
print([digest(codec_for(tp).encode(value)) for tp, value in values])
"""


def test_bytes_and_digest_do_not_depend_on_the_process() -> None:
    def run(seed: str) -> str:
        path = ":".join([str(__file__).rpartition("/")[0], *sys.path])
        return subprocess.run(
            [sys.executable, "-c", _CHILD],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert run("1") == run("2") != ""


def test_digest() -> None:
    assert digest(b"") == -1970711489451281740  # pinned: it is stored
    assert -(2**63) <= digest(b'{"n":1}') < 2**63
    assert len({digest(str(n).encode()) for n in range(10_000)}) == 10_000


@pytest.mark.parametrize("data", [b"", b"{", b'"x"', b"\xff", b"[" * 100_000, b"1e999", b"null"])
def test_decode_refuses(data: bytes) -> None:
    with pytest.raises(BadPayload) as caught:
        codec_for(dict[str, int]).decode(data)
    assert caught.value.__suppress_context__


# ---- Hypothesis --------------------------------------------------------------------------------

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
odd = st.recursive(
    plain
    | st.floats()
    | st.binary()
    | st.dates()
    | st.text(alphabet=st.characters())
    | st.just("\ud800")
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.sampled_from([Level.LOW, Colour.RED]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
        | st.builds(Loose, inner)
    ),
    max_leaves=8,
)


def _same(left: Any, right: Any) -> bool:
    """Equal, and of the same classes all the way down."""
    return bool(left == right) and repr(left) == repr(right)


@given(plain)
def test_any_takes_all_plain_values(value: Any) -> None:
    data, live = codec_for(Any).round_trip(value)
    assert _same(live, value)
    assert _same(codec_for(Any).decode(data), value)


@settings(max_examples=400, deadline=None)
@given(odd)
def test_any_gives_back_the_same_or_refuses(value: Any) -> None:
    try:
        data, live = codec_for(Any).round_trip(value)
    except BadPayload:
        return
    assert _same(live, value)
    assert _same(codec_for(Any).decode(data), value)


@given(odd)
def test_any_inside_a_type_gives_back_the_same_or_refuses(value: Any) -> None:
    try:
        live = codec_for(list[Loose | None]).round_trip([Loose(value), None])[1]
    except BadPayload:
        return
    assert _same(live, [Loose(value), None])


_TYPED: list[Any] = [
    list[float],
    dict[str, list[int]],
    tuple[str, bool],
    set[int],
    frozenset[str],
    bytes,
    datetime.datetime,
    datetime.date,
    datetime.timedelta,
    uuid.UUID,
    Optional[float],  # noqa: UP045 - both spellings
    dict[int, str | None],
    list[Pair],
    list[Point],
    Colour | None,
]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_typed_values_come_back(data: st.DataObject) -> None:
    tp = data.draw(st.sampled_from(_TYPED))
    value = data.draw(st.from_type(tp))
    codec = codec_for(tp)
    try:
        encoded, live = codec.round_trip(value)
    except BadPayload as error:
        assert "nan" in str(error) or "inf" in str(error) or "surrogate" in str(error)
        return
    assert type(live) is type(value) and live == value
    assert codec.round_trip(codec.decode(encoded))[0] == encoded


# ---- arguments ---------------------------------------------------------------------------------


def simple(x: int, y: str = "a") -> float:
    return x + len(y)


def full(
    a: int, /, b: Item, *rest: float, c: set[str], d: Basket | None = None, **more: int
) -> None:
    pass


def bare(x, *args, y=1, **kwargs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003, ANN201
    pass


def optional(
    x: int = None,  # type: ignore[assignment]  # noqa: RUF013 - common, and meant as Optional
    self: str = "s",
    type: str = "t",
) -> None:
    pass


ITEM = Item("a", decimal.Decimal("1.5"))
CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any], bytes]] = [
    (simple, (1,), {}, b'{"x":1,"y":"a"}'),
    (simple, (), {"y": "b", "x": 2}, b'{"x":2,"y":"b"}'),
    (simple, (1, "z"), {}, b'{"x":1,"y":"z"}'),
    (optional, (), {}, b'{"x":null,"self":"s","type":"t"}'),
    (
        full,
        (1, ITEM, 2.0, 3.5),
        {"c": {"q", "p"}, "m": 4},
        b'{"a":1,"b":{"name":"a","price":"1.5"},"rest":[2.0,3.5],"c":["p","q"],"d":null,"more":{"m":4}}',
    ),
    (bare, ([1],), {}, b'{"x":[1],"args":[],"y":1,"kwargs":{}}'),
    (bare, (1, 2, "3"), {"y": None, "z": {}}, b'{"x":1,"args":[2,"3"],"y":null,"kwargs":{"z":{}}}'),
    (lambda: None, (), {}, b"{}"),
    (functools.partial(simple, 5), (), {}, b'{"y":"a"}'),
]


@pytest.mark.parametrize(("fn", "args", "kwargs", "expected"), CALLS)
def test_bind(fn: Any, args: Any, kwargs: Any, expected: bytes) -> None:
    codec = InputCodec(fn)
    data, live_args, live_kwargs = codec.round_trip(args, kwargs)
    assert data == expected == codec.bind(args, kwargs)
    assert codec.unbind(data) == (live_args, live_kwargs)
    assert codec.bind(live_args, live_kwargs) == data  # calling with them is the same call
    assert codec.signature.bind(*live_args, **live_kwargs)


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "words"),
    [
        (simple, (), {}, "missing a required argument: 'x'"),
        (simple, (1, "a", 2), {}, "too many positional"),
        (simple, (1,), {"x": 2}, "multiple values for argument 'x'"),
        (simple, (1,), {"z": 2}, "unexpected keyword argument 'z'"),
        (full, (), {"a": 1, "b": ITEM, "c": set()}, "positional"),
    ],
)
def test_wrong_arguments(fn: Any, args: Any, kwargs: Any, words: str) -> None:
    with pytest.raises(WrongArguments) as caught:
        InputCodec(fn).bind(args, kwargs)
    assert words in str(caught.value)
    assert f"{fn.__name__}(" in caught.value.where


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "words"),
    [
        (simple, ("x",), {}, "x: does not fit its annotation"),
        (simple, (1, "\ud800"), {}, "y: text with a lone"),
        (bare, ((1,),), {}, "x: tuple"),
        (bare, (1, {2}), {}, "args[0]: set"),
        (bare, (1,), {"k": [b""]}, "kwargs.k[0]: bytes"),
        (full, (1, Item("a", "x")), {"c": set()}, "b.price"),  # type: ignore[arg-type]
        (bare, (_cycle(),), {}, "x[0].self: it contains itself"),
    ],
)
def test_bad_arguments(fn: Any, args: Any, kwargs: Any, words: str) -> None:
    with pytest.raises(BadPayload) as caught:
        InputCodec(fn).bind(args, kwargs)
    assert caught.value.what.startswith(words)
    assert f"{fn.__name__}(" in caught.value.where and caught.value.do


def test_input_size_limit() -> None:
    codec = InputCodec(simple)
    size = len(codec.bind((1,), {}))
    assert codec.bind((1,), {}, bytes_max=size)
    with pytest.raises(PayloadTooLarge):
        codec.bind((1,), {}, bytes_max=size - 1)


def test_a_parameter_added_since_takes_its_default() -> None:
    assert InputCodec(simple).unbind(b'{"x":3}') == ((3, "a"), {})
    assert InputCodec(bare).unbind(b'{"x":3}') == ((3,), {"y": 1})
    for data in (b"{}", b'{"x":3,"gone":1}', b'{"x":"3"}', b"[]", b"", b'{"x":null}'):
        with pytest.raises(BadPayload, match="do not fit the parameters"):
            InputCodec(simple).unbind(data)


def test_hints_that_cannot_be_resolved() -> None:
    def fn(x: NoSuchThing) -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    with pytest.raises(BadPayload, match="NoSuchThing") as caught:
        InputCodec(fn)
    assert "fn" in caught.value.what and "import" in caught.value.do


def test_local_classes_are_found_in_localns() -> None:
    @dataclass
    class Local:
        x: int

    def fn(value: Local) -> Local:
        return value

    assert InputCodec(fn, localns=locals()).round_trip((Local(1),), {})[1] == (Local(1),)
    assert result_codec(fn, localns=locals()).tp is Local


def test_methods_and_callable_objects() -> None:
    class Service:
        def __call__(self, x: set[int]) -> set[int]:
            return x

        def method(self, x: set[int]) -> None:
            pass

    for fn in (Service(), Service().method):
        assert InputCodec(fn).bind(({2, 1},), {}) == b'{"x":[1,2]}'
    assert result_codec(Service()).tp == set[int]
    assert result_codec(bare).tp is Any
    assert result_codec(full).round_trip(None) == (b"null", None)


# ---- schemas -----------------------------------------------------------------------------------


def test_schemas_accept_what_the_codec_writes() -> None:
    for tp, value in TAKEN:
        validate(json_schema(tp), json.loads(codec_for(tp).encode(value)))
    for fn, args, kwargs, _ in CALLS:
        codec = InputCodec(fn)
        schema = codec.json_schema()
        validate(schema, json.loads(codec.bind(args, kwargs)))
        with pytest.raises(BadPayload):
            validate(schema, [])


def test_input_schema_is_a_form() -> None:
    schema = InputCodec(simple).json_schema()
    assert schema["properties"] == {
        "x": {"type": "integer"},
        "y": {"type": "string", "default": "a"},
    }
    assert schema["required"] == ["x"]
    assert schema["title"] == "simple"
    assert "$ref" not in schema and "$defs" not in schema


def test_schema_refusals_have_the_path() -> None:
    schema = json_schema(Basket)
    with pytest.raises(BadPayload, match=r"form\.items\[0\]: does not fit") as caught:
        validate(schema, {"items": [{"name": "a"}]}, name="form")
    assert "price" in caught.value.why
    nested = json_schema(list[Holder])
    assert all(ref in json.dumps(nested["$defs"]) for ref in ("test_codec.Model", "Inner"))
    with pytest.raises(BadPayload, match="not usable"):
        validate({"type": 3}, 1)


@pytest.mark.parametrize("kind", ["boolean", "string", "integer", "number", "null", ["string"]])
@pytest.mark.parametrize("value", [True, 0, 1, 1.0, 1.5, "", "a", None, [], {}, 2**70])
def test_a_plain_schema_is_checked_as_any_other(kind: object, value: object) -> None:
    fits = codec_module._checker(json.dumps({"type": kind}).encode()).is_valid(value)
    if fits:
        validate({"type": kind}, value)
    else:
        with pytest.raises(BadPayload, match="does not fit"):
            validate({"type": kind}, value)


def test_what_fits_a_plain_schema_needs_no_checker() -> None:
    code = (
        "import sys; from outlast.codec import validate; validate({'type': 'boolean'}, True); "
        "assert 'jsonschema' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_schemas_are_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **kwargs: asked.append(args))
    with pytest.raises(BadPayload, match="not usable"):
        validate({"$ref": "http://127.0.0.1:9/x.json"}, 1)
    assert asked == []


def test_importing_the_codec_is_light() -> None:
    code = (
        "import sys; import outlast.codec as c; c.codec_for(dict[str, int]).round_trip({'n': 1})\n"
        "print([m for m in ('pydantic', 'jsonschema') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert out.strip() == "[]"
