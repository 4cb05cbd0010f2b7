"""Whatever an exception does, it is recorded; what is rebuilt is what was recorded."""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import sys
import types
from dataclasses import dataclass
from typing import Any, Self

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast import failure as failure_module
from outlast.errors import BadPayload, PayloadTooLarge, RetryAfter, StepFailed
from outlast.failure import (
    CAUSES_MAX,
    FAILURE_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    NOT_READABLE,
    NOT_RECORDED,
    Failure,
    clean,
    describe,
    dump,
    load,
    rebuild,
    round_trip,
)

INIT_CALLS: list[str] = []


class Declined(Exception):
    def __init__(self, code: str, *, retry: bool) -> None:
        INIT_CALLS.append(code)
        super().__init__(f"declined: {code}")
        self.code, self.retry = code, retry


class Slotted(Exception):
    __slots__ = ("left", "right")
    left: int


@dataclass
class Data(Exception):
    code: int
    names: list[str]


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


class OwnNew(Exception):
    def __new__(cls, *args: object, needed: int) -> Self:
        return super().__new__(cls, *args)

    def __init__(self, *args: object, needed: int) -> None:
        super().__init__(*args)


class NoRead(Exception):
    """Its text needs an attribute that JSON cannot carry."""

    def __init__(self, response: object) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"status {self.response.status}"  # type: ignore[attr-defined]


class NewRaises(Exception):
    allowed = True

    def __new__(cls, *args: object) -> Self:
        if not cls.allowed:
            raise SystemExit(3)
        return super().__new__(cls, *args)


class StrRaises(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class StrExits(Exception):
    def __str__(self) -> str:
        raise SystemExit(1)


class StrIsNone(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]  # noqa: PLE0307


class StrRecurses(Exception):
    def __str__(self) -> str:
        return str(self)


class BadText(str):
    def __getitem__(self, key: object) -> str:
        raise RuntimeError

    def encode(self, *args: object) -> bytes:
        raise RuntimeError


class StrIsOdd(Exception):
    def __str__(self) -> str:
        return BadText("odd")


class Hostile(Exception):
    """Answers nothing."""

    __hash__ = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError


class LyingMeta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


class Lying(Exception, metaclass=LyingMeta):
    pass


class LiesAboutClass(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return ExceptionGroup


class ArgsProperty(Exception):
    args = property(lambda self: 1 / 0)


class OwnOSError(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(errno.ENOENT, "gone", path)
        self.extra = path


class OwnGroup(ExceptionGroup[Exception]):
    pass


def local_class() -> Exception:
    class Local(Exception):
        pass

    return Local("x")


def with_(error: BaseException, **state: object) -> Any:
    error.__dict__.update(state)
    return error


def caught(error: BaseException, cause: BaseException | None = None) -> Any:
    """Raise an exception, so that it has a traceback."""
    try:
        raise error from cause
    except BaseException as raised:  # noqa: BLE001 - SystemExit and all
        return raised


def while_handling(error: BaseException, other: BaseException) -> Any:
    try:
        try:
            raise other
        except BaseException:  # noqa: BLE001 - the implicit context is what is meant
            raise error  # noqa: B904 - not from anything
    except BaseException as raised:  # noqa: BLE001 - SystemExit and all
        return raised


def validation_error() -> Exception:
    class Model(pydantic.BaseModel):
        x: int

    with pytest.raises(pydantic.ValidationError) as info:
        Model(x="no")  # type: ignore[arg-type]
    return info.value


def cyclic(error: BaseException) -> BaseException:
    value: list[object] = []
    value.append(value)
    error.args = (value,)
    error.__dict__["loop"] = value
    return error


def noted(error: BaseException, *notes: str) -> BaseException:
    for note in notes:
        error.add_note(note)
    return error


# Those that come back as themselves: class, args, text, attributes.
WHOLE: list[Any] = [
    ValueError("bad", 3, None, 1.5, ["a", {"b": 1}]),
    ValueError(),
    KeyError("k"),
    Exception("\0\u20ac"),
    Declined("funds", retry=True),
    Data(3, ["a"]),
    Frozen(4),
    OSError(errno.ENOENT, "gone", "/tmp/x"),
    FileNotFoundError(errno.ENOENT, "gone", "/a", None, "/b"),
    OSError("only text"),
    OwnOSError("/p"),
    UnicodeDecodeError("utf-8", b"\xff\x00", 0, 1, "bad"),
    UnicodeEncodeError("ascii", "\xe4", 0, 1, "bad"),
    ImportError("no", name="n", path="p"),
    SyntaxError("bad", ("f.py", 1, 2, "x=")),
    StopIteration(3),
    AttributeError("no", name="n"),
    NameError("no", name="n"),
    TimeoutError("late"),
    RecursionError("deep"),
    json.JSONDecodeError("msg", "doc", 0),
    subprocess.CalledProcessError(3, ["a"]),
    RetryAfter(3.0, "later"),
    BadPayload("what", where="w", why="y", do="d"),
    PayloadTooLarge("big", size_bytes=3, bytes_max=2),
    StepFailed(type="a:b", message="m"),
    noted(ValueError("x"), "first", "second"),
    ExceptionGroup("two", [ValueError(1), Data(2, [])]),
    OwnGroup("one", [KeyError("k")]),
    ExceptionGroup("nested", [ExceptionGroup("inner", [OSError(2, "x")])]),
    ValueError({"a": b"bytes"}),
    msgspec.ValidationError("bad"),
    asyncio.QueueFull("full"),
    with_(ValueError("x"), status=404, data={"a": [1]}),
    ValueError((1, (b"", [("x",)]))),
]
# Those that lose a part: the class stays.
PARTLY: list[Any] = [
    ValueError(object()),
    ValueError({1}),
    ValueError(float("nan")),
    ValueError("x" * 100_000),
    ValueError("\ud800"),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no"),
    ValueError({1: 2}),
    cyclic(ValueError("x")),
    ValueError(10**5000),
    KeyError(object()),
    NoRead(types.SimpleNamespace(status=500)),
    StrRaises("x"),
    StrExits("x"),
    StrIsNone("x"),
    StrRecurses("x"),
    StrIsOdd("x"),
    ArgsProperty("x"),
    with_(ValueError("x"), conn=object(), good=1),
    with_(ValueError("x"), big="y" * 100_000),
    ValueError({"$bytes": 1}),
    with_(ValueError("x"), **{"\ud800": 1, "ok": 2}),
    noted(ValueError("x"), "\ud800", "n" * 100_000),
    ExceptionGroup("many", [ValueError(n) for n in range(100)]),
    Slotted("x"),
    Frozen(object()),  # type: ignore[arg-type]
    with_(ValueError("x"), __notes__="no list"),
    with_(ValueError("x"), __notes__=[1, "a"]),
    LiesAboutClass("x"),
    ValueError([[[]]] * 10),
    ValueError("\x01" * 16_000),
    ValueError({"$tuple": 1}),
]
# Those that come back as StepFailed.
LOST: list[Any] = [
    OwnNew("x", needed=1),
    KeyboardInterrupt("stop"),
    SystemExit(3),
    GeneratorExit(),
    asyncio.CancelledError("c"),
    local_class(),
    validation_error(),
    BaseExceptionGroup("b", [KeyboardInterrupt()]),
    types.new_class("Made", (Exception,), {}, lambda ns: ns.update(__module__="no.such.module"))(
        "x"
    ),
    types.new_class("Made", (Exception,), {}, lambda ns: ns.update(__module__=3))("x"),
    types.new_class("Data", (Exception,), {}, lambda ns: ns.update(__module__=__name__))(
        "another of that name"
    ),
]
CASES = [*WHOLE, *PARTLY, *LOST]


def bare(failure: Failure) -> Failure:
    """A record without tracebacks."""
    return msgspec.structs.replace(
        failure,
        traceback="",
        cause=None if failure.cause is None else bare(failure.cause),
        exceptions=[bare(member) for member in failure.exceptions],
    )


def seen(error: BaseException) -> list[str | None]:
    """What a reader sees of an exception, where it lets itself be seen."""
    texts: list[str | None] = []
    for look in (
        str,
        BaseException.__repr__,
        lambda e: repr(sorted(object.__getattribute__(e, "__dict__").items())),
    ):
        try:
            texts.append(look(error))
        except BaseException as raised:  # noqa: BLE001 - SystemExit and all
            texts.append(type(raised).__name__)
    return texts


def check(error: BaseException) -> tuple[Failure, Exception]:
    """What holds of every exception."""
    data, live = round_trip(error)
    assert len(data) <= FAILURE_BYTES_MAX
    json.loads(data)
    record = load(data)
    assert record != NOT_READABLE
    replayed = rebuild(data)
    assert type(live) is type(replayed)
    assert seen(live) == seen(replayed)
    assert bare(describe(live)) == bare(record) == bare(describe(replayed)) == bare(describe(error))
    assert bare(load(dump(describe(replayed)))) == bare(record)
    assert round_trip(replayed)[0] == dump(describe(replayed))
    assert len(record.message.encode()) <= MESSAGE_BYTES_MAX
    return record, live


@pytest.mark.parametrize("error", CASES, ids=range(len(CASES)))
def test_every_case(error: BaseException) -> None:
    before = len(INIT_CALLS)
    check(error)
    record, _ = check(caught(error))
    assert record != NOT_RECORDED
    assert len(INIT_CALLS) == before


@pytest.mark.parametrize("error", WHOLE, ids=range(len(WHOLE)))
def test_comes_back_whole(error: Exception) -> None:
    record, live = check(error)
    assert not record.is_opaque
    assert type(live) is type(error)
    assert str(live) == str(error)
    assert repr(live) == repr(error)
    state = {name: value for name, value in vars(live).items() if not name.startswith("__out")}
    assert state == vars(error)
    if isinstance(error, OSError):
        for name in ("errno", "strerror", "filename", "filename2"):
            assert getattr(live, name) == getattr(error, name)
    if not isinstance(error, ExceptionGroup):
        assert live.args == error.args


@pytest.mark.parametrize("error", PARTLY, ids=range(len(PARTLY)))
def test_keeps_its_class(error: Exception) -> None:
    record, live = check(error)
    assert type(live) is type(error)
    assert not record.is_opaque


def test_a_class_that_answers_nothing() -> None:
    # Not parameters of a test: pytest itself cannot look at them.
    record, live = check(Hostile("x"))
    assert (record.type, record.message, type(live)) == (f"{__name__}:Hostile", "x", Hostile)
    record, live = check(Lying("x"))
    assert (record.type, type(live)) == (f"{__name__}:Lying", StepFailed)


@pytest.mark.parametrize("error", LOST, ids=range(len(LOST)))
def test_comes_back_as_step_failed(error: BaseException) -> None:
    record, live = check(error)
    assert record.is_opaque
    assert type(live) is StepFailed
    assert live.type == record.type != ""
    assert live.type.endswith(type(error).__qualname__)
    assert live.message == record.message == str(error)


def test_attributes_in_slots() -> None:
    error = Slotted("x")
    error.left = 3  # the right one stays empty
    record, live = check(error)
    assert record.attributes == {"left": 3}
    assert isinstance(live, Slotted) and live.left == 3 and not hasattr(live, "right")


def test_lost_parts_are_lost_alone() -> None:
    record, live = check(with_(ValueError("x"), conn=object(), status=404))
    assert record.attributes == {"status": 404}
    assert vars(live) == {"status": 404}
    record, live = check(NoRead(types.SimpleNamespace(status=500)))
    assert record.message == "status 500"
    assert isinstance(live, NoRead)
    assert describe(live).message == "status 500"  # although its own __str__ now raises
    lost = check(with_(local_class(), status=404))[1]
    assert lost.attributes == {"status": 404}  # type: ignore[attr-defined]


def test_causes() -> None:
    error = caught(ValueError("outer"), cause=caught(KeyError("inner"), cause=OSError(2, "x")))
    record, live = check(error)
    assert record.cause and record.cause.cause and not record.is_context
    assert isinstance(live.__cause__, KeyError) and isinstance(live.__cause__.__cause__, OSError)
    record, live = check(while_handling(ValueError("outer"), KeyError("inner")))
    assert record.is_context and isinstance(live.__context__, KeyError) and live.__cause__ is None
    record, live = check(caught(ValueError("alone"), cause=None))
    assert record.cause is None
    record, live = check(caught(ValueError("outer"), cause=KeyboardInterrupt()))
    assert isinstance(live.__cause__, StepFailed)


def test_causes_are_cut_at_five_and_cycles_closed() -> None:
    chain = ValueError("0")
    for n in range(1, 1000):
        outer = ValueError(str(n))
        outer.__cause__ = chain
        chain = outer
    record, _ = check(chain)
    count = 0
    while record.cause is not None:
        record, count = record.cause, count + 1
    assert count == CAUSES_MAX
    left, right = ValueError("l"), ValueError("r")
    left.__cause__, right.__cause__ = right, left
    record, _ = check(left)
    assert record.cause and record.cause.cause is None
    group = ExceptionGroup("g", [left])
    left.__cause__ = group
    check(group)


def test_a_wide_and_deep_group_is_bounded() -> None:
    leaf: Exception = with_(ValueError("x" * 16_000), big="y" * 15_000)
    for _ in range(4):
        leaf = ExceptionGroup("g", [leaf] * 10)
    record, _ = check(leaf)
    assert record.message.startswith("g")


def test_huge_record_is_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_module, "FAILURE_BYTES_MAX", 30_000)
    error = with_(caught(ValueError("\x01" * 6000)), big="y" * 15_000)
    data, live = round_trip(error)
    assert len(data) <= 30_000
    assert type(live) is type(rebuild(data)) is StepFailed
    assert bare(describe(live)) == bare(load(data))
    assert "(cut)" in load(data).message


def test_traceback_has_only_the_users_frames() -> None:
    def user_code() -> None:
        secret = "hunter2"  # noqa: F841 - locals must not be recorded
        raise ValueError("x")

    def through_outlast() -> None:
        clean_code = compile("def call(f):\n    f()", failure_module.__file__, "exec")
        scope: dict[str, Any] = {}
        exec(clean_code, scope)  # a frame that claims to be in the package
        scope["call"](user_code)

    async def main() -> None:
        await asyncio.wait_for(asyncio.to_thread(through_outlast), 10)

    with pytest.raises(ValueError, match="x") as info:
        asyncio.run(main())
    record, live = check(info.value)
    assert "in user_code" in record.traceback and "in main" in record.traceback
    assert 'raise ValueError("x")' in record.traceback
    assert "failure.py" not in record.traceback.replace("test_failure.py", "")
    assert "asyncio/" not in record.traceback
    assert "= hunter2" not in record.traceback
    assert live.__traceback__ is info.value.__traceback__
    assert describe(live).traceback == record.traceback
    assert rebuild(dump(record)).__traceback__ is None


def test_recursion_error() -> None:
    def down() -> None:
        down()

    with pytest.raises(RecursionError) as info:
        down()
    record, live = check(info.value)
    assert isinstance(live, RecursionError)
    assert len(record.traceback.encode()) <= MESSAGE_BYTES_MAX


def test_the_message_may_have_100_mb() -> None:
    record, live = check(ValueError("x" * 100_000_000))
    assert type(live) is ValueError and live.args == (record.message,)
    assert record.message.endswith("(cut)")
    assert len(dump(record)) < 100_000


def test_a_new_that_exits_is_no_way_out() -> None:
    error = NewRaises("x")
    data = round_trip(error)[0]
    NewRaises.allowed = False
    try:
        lost = rebuild(data)
        assert type(lost) is StepFailed
        assert type(round_trip(error)[1]) is StepFailed
    finally:
        NewRaises.allowed = True
    # This record was made where it could not be rebuilt: every later reader decides the same.
    assert type(rebuild(describe(lost))) is StepFailed
    assert type(rebuild(data)) is NewRaises


def test_opaque_stays_opaque_where_the_class_is_there() -> None:
    record = msgspec.structs.replace(describe(ValueError("x")), is_opaque=True)
    assert type(rebuild(record)) is StepFailed


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:BaseException",
        "builtins:KeyboardInterrupt",
        "builtins:int",
        "builtins:eval",
        "builtins",
        "",
        ":",
        "builtins:",
        ":ValueError",
        "no.such:Error",
        "builtins:ValueError.__class__",
        "builtins:ValueError.__subclasses__",
        "wave:Error",
        "builtins:__dict__",
        "sys:modules.os",
    ],
)
def test_data_chooses_only_imported_exception_classes(name: str) -> None:
    sys.modules.pop("wave", None)
    live = rebuild(dump(Failure(type=name, message="m")))
    assert type(live) is StepFailed
    assert (live.type, live.message) == (name, "m")
    assert "wave" not in sys.modules


def test_modules_are_not_asked_to_import() -> None:
    module = types.ModuleType("lazy_module_for_test")

    asked: list[str] = []

    def getattr_(name: str) -> object:
        asked.append(name)
        raise AttributeError(name)

    module.__getattr__ = getattr_  # type: ignore[method-assign]
    sys.modules[module.__name__] = module
    try:
        assert type(rebuild(Failure(type=f"{module.__name__}:Error", message=""))) is StepFailed
        assert asked == []
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"type":1}',
        b"\xff",
        b"[" * 100_000,
        b'{"type":"a:b","message":"m","args":3}',
    ],
)
def test_damaged_records(data: bytes) -> None:
    assert load(data) == NOT_READABLE
    assert isinstance(rebuild(data), StepFailed)
    assert describe(rebuild(data)) == NOT_READABLE


@pytest.mark.parametrize(
    "attributes",
    [
        {"__class__": 1, "__dict__": 2, "__traceback__": 3, "args": 4},
        {"errno": "x", "characters_written": "y"},
        {"a": {"$bytes": "no base64 !"}},
        {"b": {"$bytes": 3}},
    ],
)
def test_odd_records_are_harmless(attributes: dict[str, object]) -> None:
    for kind in ("builtins:OSError", "builtins:ValueError", f"{__name__}:Slotted"):
        live = rebuild(Failure(type=kind, message="m", attributes=attributes, args=[1]))
        check(live)


def test_when_nothing_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(failure_module, "_Recorder", broken)
    data, live = round_trip(ValueError("x"))
    assert load(data) == NOT_RECORDED
    assert isinstance(live, StepFailed) and live.message == "failure_not_recorded"
    assert describe(ValueError("x")) == NOT_RECORDED


def test_clean() -> None:
    assert clean("a\ud800b\0\u20ac", 100) == "a\\ud800b\0\u20ac"
    assert clean("x" * 40, 40) == "x" * 40
    assert clean("x" * 41, 40) == "x" * 30 + " … (cut)"


@given(st.text(alphabet=st.characters()), st.integers(20, 60))
def test_clean_text(text: str, bytes_max: int) -> None:
    once = clean(text, bytes_max)
    assert len(once.encode()) <= bytes_max
    assert clean(once, bytes_max) == once
    if len(text.encode("utf-8", "backslashreplace")) <= bytes_max and text.isascii():
        assert once == text


# ---- Hypothesis --------------------------------------------------------------------------------

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(alphabet=st.characters())
    | st.binary()
    | st.builds(object)
    | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.sets(st.integers(), max_size=2)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)
classes = st.sampled_from(
    [
        Exception,
        ValueError,
        KeyError,
        OSError,
        FileNotFoundError,
        StopIteration,
        ImportError,
        SystemExit,
        UnicodeDecodeError,
        UnicodeEncodeError,
        SyntaxError,
        AttributeError,
        Slotted,
        Data,
        Frozen,
        Declined,
        NoRead,
        StrRaises,
        StrIsOdd,
        Hostile,
        LiesAboutClass,
        ArgsProperty,
        OwnOSError,
        BadPayload,
        RetryAfter,
        StepFailed,
        KeyboardInterrupt,
        type("Local", (ValueError,), {}),
    ]
)


@st.composite
def exceptions(draw: st.DrawFn, depth: int = 0) -> BaseException:
    if depth < 2 and draw(st.integers(0, 5)) == 0:
        members = draw(st.lists(exceptions(depth + 1), min_size=1, max_size=3))
        error: BaseException = BaseExceptionGroup(draw(st.text()), members)
    else:
        cls: Any = draw(classes)
        args = tuple(draw(st.lists(values, max_size=3)))
        error = cls.__new__(cls) if issubclass(cls, OSError) else cls.__new__(cls, *args)
        BaseException.__dict__["args"].__set__(error, args)
        object.__getattribute__(error, "__dict__").update(
            draw(st.dictionaries(st.text(), values, max_size=3))
        )
    for note in draw(st.lists(st.text(), max_size=2)):
        state = object.__getattribute__(error, "__dict__")
        state["__notes__"] = [*(state.get("__notes__") or []), note]
    if depth < 2 and draw(st.booleans()):
        place = draw(st.sampled_from(["__cause__", "__context__"]))
        BaseException.__dict__[place].__set__(error, draw(exceptions(depth + 1)))
    return error


class Held:
    """Keeps Hypothesis from looking at an exception that cannot be looked at."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        return str(describe(self.error))


@st.composite
def held_exceptions(draw: st.DrawFn) -> Held:
    return Held(draw(exceptions()))


@settings(max_examples=400, deadline=None)
@given(held_exceptions())
def test_any_exception(held: Held) -> None:
    check(held.error)


@settings(max_examples=200)
@given(
    st.builds(
        Failure,
        type=st.text()
        | st.sampled_from(["builtins:ValueError", "builtins:OSError", f"{__name__}:Data"]),
        message=st.text(),
        args=st.lists(st.text() | st.integers(), max_size=5),
        attributes=st.dictionaries(st.text(), st.integers() | st.text(), max_size=3),
    )
)
def test_any_record_is_rebuilt(record: Failure) -> None:
    first = describe(rebuild(dump(record)))
    assert bare(describe(rebuild(first))) == bare(first)
