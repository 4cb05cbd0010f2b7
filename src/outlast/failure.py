"""Errors as data: record an exception, and rebuild it.

Theory of operation. A step's error is written once and raised in every later replay, so task code
must meet the same exception the first time: :func:`round_trip` records the exception and gives the
one rebuilt from the record. The record holds what JSON can carry: class name, text, arguments,
attributes, notes, causes, and the frames of the user's own code (their source lines, never their
local variables). Rebuilding looks the class up among modules that are already imported, makes the
instance with ``__new__`` and fills it in; ``__init__`` is never called, since it may have effects
and other parameters than ``args``. What cannot be rebuilt becomes :class:`StepFailed`, and the
record says so (``is_opaque``), so that a replay decides the same whatever it has imported.

Nothing here ever raises. An exception may do anything when it is looked at (``__str__``,
properties and ``__new__`` are the user's code), and a failure that cannot be recorded would leave
its execution without an end. So every look is guarded, every part is bounded, and the last resort
is a constant.
"""

from __future__ import annotations

import base64
import contextlib
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator

import msgspec

from outlast.errors import StepFailed

MESSAGE_BYTES_MAX = 16 * 1024
FAILURE_BYTES_MAX = 512 * 1024
CAUSES_MAX = 5

_VALUES_SIZE_MAX = 16 * 1024  # of all args, and of all attributes, of one exception
_VALUE_DEPTH_MAX = 20
_GROUP_MAX = 20
_NODES_MAX = 50
_FRAMES_MAX = 50
_NOTES_MAX = 10
_NAME_BYTES_MAX = 500

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_ASYNCIO = os.path.join(os.path.dirname(os.path.abspath(os.__file__)), "asyncio") + os.sep

# Kept on a rebuilt exception whose own text came out otherwise than recorded.
_TEXT_KEY = "__outlast_message__"
# Kept on a StepFailed that stands for an exception that could not be rebuilt.
_OPAQUE_KEY = "__outlast_failure__"
# Kept on an exception that came from another process: the frames it was raised in.
_FRAMES_KEY = "__outlast_frames__"
# How JSON carries what exceptions often have among their args: {"$bytes": "…"}, {"$tuple": […]}.
_BYTES_KEY, _TUPLE_KEY = "$bytes", "$tuple"


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is recorded of an exception; its JSON is stable.

    ``type`` is ``module:qualname``. ``cause`` was raised from, or, if ``is_context``, was being
    handled. ``is_opaque`` says that no reader should try to rebuild the class.
    """

    type: str
    message: str
    args: list[object] = []
    attributes: dict[str, object] = {}
    notes: list[str] = []
    traceback: str = ""
    cause: Failure | None = None
    is_context: bool = False
    exceptions: list[Failure] = []
    is_opaque: bool = False


# The fixed codes of last resort; nothing is computed when they are used.
NOT_RECORDED = Failure(
    type="outlast.errors:StepFailed", message="failure_not_recorded", is_opaque=True
)
NOT_READABLE = Failure(
    type="outlast.errors:StepFailed", message="failure_not_readable", is_opaque=True
)
_NOT_RECORDED_BYTES = msgspec.json.encode(NOT_RECORDED)


def describe(exc: BaseException) -> Failure:
    """Record an exception; never raises.

    Describing what :func:`rebuild` made of a record gives that record again, up to the traceback.
    """
    return _recorded(exc)[0]


def dump(failure: Failure) -> bytes:
    """Give the bytes of a record, at most :data:`FAILURE_BYTES_MAX`; never raises."""
    try:
        data = msgspec.json.encode(failure)
        if len(data) <= FAILURE_BYTES_MAX:
            return data
        return msgspec.json.encode(_reduced(failure))
    except Exception:  # noqa: BLE001 - a failure must be recorded, whatever it holds
        return _NOT_RECORDED_BYTES


def load(data: bytes) -> Failure:
    """Read a record; never raises: bytes that are none give :data:`NOT_READABLE`."""
    try:
        return _DECODER.decode(data)
    except Exception:  # noqa: BLE001 - a damaged record must not take the execution with it
        return NOT_READABLE


def rebuild(data: bytes | Failure) -> Exception:
    """Make the exception of a record; never raises, imports nothing and never calls ``__init__``.

    A class that is not imported, is no Exception or cannot be made comes as :class:`StepFailed`
    with ``type``, ``message`` and ``attributes``.
    """
    failure = data if isinstance(data, Failure) else load(data)
    try:
        return _rebuilt(failure)
    except BaseException:  # noqa: BLE001 - __new__ and __str__ of user classes run there
        return _rebuilt(NOT_READABLE)


def rebuild_as_raised(data: bytes) -> Exception:
    """Make the exception of a record that another process has made; never raises.

    Recording it again gives the frames it was raised in there.
    """
    failure = load(data)
    error = rebuild(failure)
    _state_of(error)[_FRAMES_KEY] = failure.traceback
    return error


def round_trip(exc: BaseException) -> tuple[bytes, Exception]:
    """Give the bytes of an exception, and the exception as every later reader will get it.

    The second has the traceback of ``exc``, for debugging; otherwise it is what
    ``rebuild`` makes of the first. Never raises.
    """
    failure, data = _recorded(exc)
    rebuilt = rebuild(failure)
    return data, BaseException.with_traceback(rebuilt, _FIELDS["__traceback__"].__get__(exc))


def _recorded(exc: BaseException) -> tuple[Failure, bytes]:
    # BaseException, because the code of an exception class may raise SystemExit as well as any
    # other; what the process itself is sent (Ctrl-C) meets this window of microseconds hardly ever.
    try:
        failure = _Recorder().record(exc, 0)
        data = msgspec.json.encode(failure)
        if len(data) > FAILURE_BYTES_MAX:
            failure = _reduced(failure)
            data = msgspec.json.encode(failure)
    except BaseException:  # noqa: BLE001 - see above
        return NOT_RECORDED, _NOT_RECORDED_BYTES
    return failure, data


# ---- recording ---------------------------------------------------------------------------------


class _Recorder:
    """Records one exception with its causes and members; bounded in all."""

    def __init__(self) -> None:
        self._nodes_left = _NODES_MAX
        self._open: set[int] = set()

    def record(self, exc: BaseException, depth: int) -> Failure:
        self._nodes_left -= 1
        self._open.add(id(exc))
        try:
            failure = self._record(exc, depth)
        finally:
            self._open.discard(id(exc))
        return failure

    def _record(self, exc: BaseException, depth: int) -> Failure:
        state = _state_of(exc)
        opaque = state.get(_OPAQUE_KEY)
        if type(exc) is StepFailed and isinstance(opaque, Failure):
            base = msgspec.structs.replace(
                opaque,
                notes=_notes_of(state),
                traceback=_frames_of(exc),
                cause=None,
                is_context=False,
            )
        else:
            base = self._plain(exc, state, depth)
        cause, is_context = self._cause(exc, depth)
        failure = msgspec.structs.replace(base, cause=cause, is_context=is_context)
        if failure.is_opaque:
            return failure
        attributes = _rebuilt_attributes(failure, type(exc))
        if attributes is None:
            return _opaque(failure)
        return msgspec.structs.replace(failure, attributes=attributes)

    def _plain(self, exc: BaseException, state: dict[str, object], depth: int) -> Failure:
        kept = state.get(_TEXT_KEY)
        message = kept if type(kept) is str else _text_of(exc)
        args = _values_of(_FIELDS["args"].__get__(exc))
        exceptions: list[Failure] = []
        if issubclass(type(exc), BaseExceptionGroup):
            args = [clean(_GROUP_FIELDS["message"].__get__(exc), MESSAGE_BYTES_MAX)]
            exceptions = self._members(exc, depth)
        return Failure(
            type=_type_of(exc),
            message=message,
            args=[message] if args is None else args,
            attributes=_attributes_of(exc, state),
            notes=_notes_of(state),
            traceback=_frames_of(exc),
            exceptions=exceptions,
        )

    def _members(self, group: BaseException, depth: int) -> list[Failure]:
        return [
            self.record(member, depth + 1)
            for member in _GROUP_FIELDS["exceptions"].__get__(group)[:_GROUP_MAX]
            if self._may_descend(member, depth)
        ]

    def _cause(self, exc: BaseException, depth: int) -> tuple[Failure | None, bool]:
        cause = _FIELDS["__cause__"].__get__(exc)
        is_context = False
        if cause is None and not _FIELDS["__suppress_context__"].__get__(exc):
            cause, is_context = _FIELDS["__context__"].__get__(exc), True
        if cause is None or not self._may_descend(cause, depth):
            return None, False
        return self.record(cause, depth + 1), is_context

    def _may_descend(self, exc: BaseException, depth: int) -> bool:
        return depth < CAUSES_MAX and self._nodes_left > 0 and id(exc) not in self._open


def _opaque(failure: Failure) -> Failure:
    return msgspec.structs.replace(failure, is_opaque=True, args=[failure.message], exceptions=[])


def _reduced(failure: Failure) -> Failure:
    """Keep what says most in the fewest bytes."""
    return Failure(
        type=failure.type,
        message=clean(failure.message, 2000),
        is_opaque=True,
        traceback=clean(failure.traceback, 8000),
    )


def clean(text: object, bytes_max: int) -> str:
    """Make text that every store takes: no lone surrogates, and no more than so many bytes.

    Cleaning what is clean changes nothing.
    """
    if not isinstance(text, str):
        return f"({type.__name__} is no text)"
    # Slicing gives an exact str, and keeps the work small for a message of 100 MB.
    plain = str.__getitem__(text, slice(bytes_max + 1))
    data = str.encode(plain, "utf-8", "backslashreplace")
    if len(data) > bytes_max:
        data = data[: bytes_max - len(_CUT)].decode("utf-8", "ignore").encode() + _CUT
    return data.decode("utf-8")


_CUT = " … (cut)".encode()


def _text_of(exc: BaseException) -> str:
    try:
        return clean(str(exc), MESSAGE_BYTES_MAX)
    except BaseException as error:  # noqa: BLE001 - __str__ is the user's code
        return f"(its __str__ raised {clean(_name_of(type(error)), _NAME_BYTES_MAX)})"


def _name_of(cls: type) -> str:
    # Through `type`, because a metaclass may answer anything, or raise.
    return str(type.__dict__["__qualname__"].__get__(cls))


def _type_of(exc: BaseException) -> str:
    cls = type(exc)
    module = type.__dict__["__module__"].__get__(cls)
    module = module if isinstance(module, str) else "?"
    return f"{clean(module, _NAME_BYTES_MAX)}:{clean(_name_of(cls), _NAME_BYTES_MAX)}"


# The fields of the C struct, past whatever a class defines under their names.
_FIELDS = vars(BaseException)
_GROUP_FIELDS = vars(BaseExceptionGroup)


def _state_of(exc: BaseException) -> dict[str, object]:
    state = object.__getattribute__(exc, "__dict__")
    return state if isinstance(state, dict) else {}


def _notes_of(state: dict[str, object]) -> list[str]:
    notes = state.get("__notes__")
    if not isinstance(notes, list | tuple):
        return []
    texts = (note for note in notes[:_NOTES_MAX] if isinstance(note, str))
    return [clean(note, MESSAGE_BYTES_MAX // 4) for note in texts]


def _values_of(values: tuple[object, ...]) -> list[object] | None:
    """Give values as JSON, or None if any of them would not come back equal."""
    size = _Size(_VALUES_SIZE_MAX)
    plain = [_plain(value, size) for value in values[: _VALUES_SIZE_MAX + 1]]
    return None if any(value is _NOT_PLAIN for value in plain) else plain


def _attributes_of(exc: BaseException, state: dict[str, object]) -> dict[str, object]:
    """Give the attributes that JSON can carry, those in slots (OSError.errno …) too."""
    size = _Size(_VALUES_SIZE_MAX)
    attributes: dict[str, object] = {}
    for name, slot in _slots_of(type(exc)):
        value = None
        with contextlib.suppress(Exception):  # an empty slot raises, AttributeError or TypeError
            value = slot.__get__(exc)
        if value is not None and (plain := _plain(value, size)) is not _NOT_PLAIN:
            attributes[name] = plain
    for name, value in list(state.items())[:1000]:
        is_ours = type(name) is not str or name.startswith("__")
        if not is_ours and name not in attributes and _plain(name, size) is not _NOT_PLAIN:
            plain = _plain(value, size)
            if plain is not _NOT_PLAIN:
                attributes[name] = plain
    return attributes


def _slots_of(
    cls: type,
) -> Iterator[tuple[str, types.MemberDescriptorType | types.GetSetDescriptorType]]:
    for base in type.__dict__["__mro__"].__get__(cls):
        if base in (BaseExceptionGroup, BaseException, object):  # recorded on their own
            continue
        for name, slot in list(type.__dict__["__dict__"].__get__(base).items()):
            kinds = (types.MemberDescriptorType, types.GetSetDescriptorType)
            if type(slot) in kinds and type(name) is str and not name.startswith("__"):
                yield name, slot


class _Size(msgspec.Struct):
    left: int


class _NotPlain:
    pass


_NOT_PLAIN = _NotPlain()
_TAGS = frozenset({_BYTES_KEY, _TUPLE_KEY})


def _plain(value: object, size: _Size, depth: int = 0) -> object:
    """Give a copy of a value as JSON that comes back equal, or _NOT_PLAIN; spends ``size``."""
    size.left -= 1
    if size.left < 0 or depth > _VALUE_DEPTH_MAX:
        return _NOT_PLAIN
    kind = type(value)
    if value is None or kind is bool:
        return value
    if isinstance(value, int | float | str | bytes) and kind in (int, float, str, bytes):
        return _plain_scalar(value, size)
    if isinstance(value, list | tuple) and kind in (list, tuple):
        items: list[object] = []
        for item in value:
            items.append(_plain(item, size, depth + 1))
            if items[-1] is _NOT_PLAIN:
                return _NOT_PLAIN
        return items if kind is list else {_TUPLE_KEY: items}
    if isinstance(value, dict) and kind is dict and value.keys().isdisjoint(_TAGS):
        pairs: dict[str, object] = {}
        for key, item in value.items():
            plain = _plain(item, size, depth + 1)
            if type(key) is not str or plain is _NOT_PLAIN:
                return _NOT_PLAIN
            if _plain_scalar(key, size) is _NOT_PLAIN:
                return _NOT_PLAIN
            pairs[key] = plain
        return pairs
    return _NOT_PLAIN


def _plain_scalar(value: float | str | bytes, size: _Size) -> object:
    if isinstance(value, int):
        return value if value.bit_length() < 1024 else _NOT_PLAIN
    if isinstance(value, float):
        return value if value - value == 0.0 else _NOT_PLAIN  # not NaN, not infinite
    size.left -= len(value)
    if size.left < 0:
        return _NOT_PLAIN
    if isinstance(value, bytes):
        return {_BYTES_KEY: base64.b64encode(value).decode("ascii")}
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return _NOT_PLAIN
    return value


def _from_plain(value: object) -> object:
    if isinstance(value, list):
        return [_from_plain(item) for item in value]
    if isinstance(value, dict):
        if value.keys() == {_BYTES_KEY} and isinstance(value[_BYTES_KEY], str):
            return base64.b64decode(value[_BYTES_KEY])
        if value.keys() == {_TUPLE_KEY} and isinstance(value[_TUPLE_KEY], list):
            return tuple(map(_from_plain, value[_TUPLE_KEY]))
        return {key: _from_plain(item) for key, item in value.items()}
    return value


def _frames_of(exc: BaseException) -> str:
    """Write the frames of the user's code, the innermost last; "" if there are none."""
    kept_frames = _state_of(exc).get(_FRAMES_KEY)
    if type(kept_frames) is str:
        return clean(kept_frames, MESSAGE_BYTES_MAX)
    try:
        kept: list[tuple[types.FrameType, int]] = []
        place: types.TracebackType | None = _FIELDS["__traceback__"].__get__(exc)
        while place is not None:
            if not place.tb_frame.f_code.co_filename.startswith((_HERE, _ASYNCIO)):
                kept.append((place.tb_frame, place.tb_lineno))
                if len(kept) > 2 * _FRAMES_MAX:
                    del kept[: _FRAMES_MAX // 2]  # a recursion of thousands must not be kept whole
            place = place.tb_next
        frames = traceback.StackSummary.extract(iter(kept[-_FRAMES_MAX:]))
        return clean("".join(frames.format()), MESSAGE_BYTES_MAX)
    except Exception:  # noqa: BLE001 - source files may be anything; the record goes on without
        return ""


# ---- rebuilding --------------------------------------------------------------------------------


def _rebuilt_attributes(failure: Failure, cls: type) -> dict[str, object] | None:
    """Try the record out: give the attributes the exception will come back with, None if it cannot.

    They may be more than were recorded: ``__new__`` makes some out of the args.
    """
    try:
        if _class_of(failure.type) is not cls:
            return None
        error = _made(failure)
        return _attributes_of(error, _state_of(error))
    except BaseException:  # noqa: BLE001 - __new__ and __str__ of user classes run there
        return None


def _rebuilt(failure: Failure) -> Exception:
    if not failure.is_opaque:
        try:
            return _made(failure)
        except BaseException:  # noqa: BLE001 - __new__ and __str__ of user classes run there
            failure = _opaque(failure)
    error = StepFailed(type=failure.type, message=failure.message)
    attributes = {name: _from_plain(value) for name, value in failure.attributes.items()}
    _state_of(error).update({"attributes": attributes, _OPAQUE_KEY: failure})
    _link(error, failure)
    return error


def _made(failure: Failure) -> Exception:
    """Make the exception of the recorded class; raises whatever stands in its way."""
    cls = _class_of(failure.type)
    args = tuple(_from_plain(value) for value in failure.args)
    if issubclass(cls, ExceptionGroup):
        make: Callable[..., Exception] = cls.__new__
        error = make(cls, *args, [_rebuilt(member) for member in failure.exceptions])
    else:
        try:
            error = cls.__new__(cls, *args)
        except Exception:  # noqa: BLE001 - the user's __new__ may take other arguments than args
            error = cls.__new__(cls)
        _FIELDS["args"].__set__(error, args)
    if type(error) is not cls:  # OSError.__new__ gives a subclass for some numbers
        raise TypeError(f"{cls.__name__}.__new__ makes another class")
    state = _state_of(error)
    slots = dict(_slots_of(cls))
    for name, value in failure.attributes.items():
        if name in slots:
            with contextlib.suppress(TypeError, AttributeError):  # one that cannot be set
                slots[name].__set__(error, _from_plain(value))
        else:
            state[name] = _from_plain(value)
    if _text_of(error) != failure.message:
        state[_TEXT_KEY] = failure.message
    _link(error, failure)
    return error


def _link(error: Exception, failure: Failure) -> None:
    if failure.notes:
        _state_of(error)["__notes__"] = list(failure.notes)
    if failure.cause is not None and failure.is_context:
        _FIELDS["__context__"].__set__(error, _rebuilt(failure.cause))
    elif failure.cause is not None:
        _FIELDS["__cause__"].__set__(error, _rebuilt(failure.cause))


def _class_of(name: str) -> type[Exception]:
    """Find an exception class among the modules that are imported already.

    Raises:
        LookupError: there is none of that name, or it is no subclass of Exception.
    """
    module_name, _, qualname = name.partition(":")
    module = sys.modules.get(module_name)
    if not isinstance(module, types.ModuleType):
        raise LookupError(name)  # noqa: TRY004 - the record's fault, not the caller's
    # Past `__getattr__` of modules, which often import what they are asked for.
    found: object = object.__getattribute__(module, "__dict__").get(qualname.partition(".")[0])
    for part in qualname.split(".")[1:]:
        found = type.__dict__["__dict__"].__get__(found).get(part)
    if not issubclass(type(found), type) or not issubclass(found, Exception):  # type: ignore[arg-type]
        raise LookupError(name)  # noqa: TRY004
    return found  # type: ignore[return-value]


_DECODER = msgspec.json.Decoder(Failure)
