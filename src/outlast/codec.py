"""JSON payloads by annotated type.

Theory of operation. What a step returns is written once and read in every later replay, so task
code must see the same value the first time as every time after: :meth:`Codec.round_trip` writes
the value, reads its own bytes back and delivers *that*. What cannot come back is refused at the
call, with the path to the guilty part, before anything is written. Three rules decide:

* At an annotated position the value is read back strictly as that type; what does not fit is
  refused. A subclass instance where its base class is annotated is refused too: the base class
  is all that would come back.
* At a position without a type (no annotation, ``Any``, ``object``, a bare ``list``) only values
  that JSON gives back equal are taken: str, int, float, bool, None, and lists and str-keyed dicts
  of these, exactly of these classes.
* NaN and the infinities, lone surrogates, cycles and nesting deeper than :data:`DEPTH_MAX` are
  refused everywhere. JSON has no word for them, and msgspec would write NaN as null.

The bytes are stable: dicts keep their own order, fields theirs, and sets are sorted by the bytes
of their members, because their order differs from process to process and digests must not.

Nothing is ever unpickled or imported, and pydantic is used only where the user's own types have
already imported it.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import hashlib
import inspect
import math
import re
import sys
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, NoReturn, TypeVar

import msgspec
from msgspec import inspect as types_of

from outlast.errors import BadPayload, PayloadTooLarge, WrongArguments

PAYLOAD_BYTES_MAX = 2 * 1024 * 1024
DEPTH_MAX = 200

# A value that shares its parts ([x, x] of [x, x] of …) is small in memory and endless as JSON.
_CONTAINERS_MAX = 4_000_000

_T = TypeVar("_T")
_Bad = tuple[str, str]
"""Where in the value, as a suffix such as ``.items[3]``, and what is wrong there."""

_SCALARS: frozenset[type] = frozenset({str, int, float, bool, type(None)})
_ALWAYS_EXACT = _SCALARS - {float}
_LISTS = (list, tuple, set, frozenset)

_DO_ANNOTATE = (
    "annotate the parameter or the return type with the type meant (dataclass, set[str], "
    "datetime, tuple[int, ...] …), or use only str, int, float, bool, None, and lists and "
    "str-keyed dicts of these"
)
_DO_FIT = "return or pass what the annotation says, or change the annotation"
_DO_PLAIN = "replace it by something JSON can carry, for example None, or text"


class Codec(Generic[_T]):
    """Writes and reads values of one annotated type; make one with :func:`codec_for`.

    ``tp`` is an annotation: a class, a generic, a union, ``Any`` or ``inspect.Parameter.empty``.

    Raises:
        BadPayload: the type has no JSON form, or none that would come back.
    """

    __slots__ = (
        "_check", "_decode", "_deep", "_encode", "_exact", "_schema", "_sort", "name", "tp",
    )  # fmt: skip

    def __init__(self, tp: Any) -> None:
        self.tp = _plain_type(tp)
        self.name = type_name(self.tp)
        plan = _Plan(self.tp, self.name)
        self._check, self._sort = plan.check, plan.sort
        self._exact, self._deep = plan.exact, plan.is_recursive
        self._encode = _ENCODER.encode
        self._schema: dict[str, Any] | None = None
        self._decode = plan.decoder.decode

    def encode(
        self, value: _T, *, bytes_max: int = PAYLOAD_BYTES_MAX, name: str = "value"
    ) -> bytes:
        """Give the bytes of a value, having made sure that they read back.

        Raises:
            BadPayload, PayloadTooLarge: as :meth:`round_trip`.
        """
        return self.round_trip(value, bytes_max=bytes_max, name=name)[0]

    def round_trip(
        self, value: _T, *, bytes_max: int = PAYLOAD_BYTES_MAX, name: str = "result"
    ) -> tuple[bytes, _T]:
        """Give the bytes of a value, and the value as any later reader will get it.

        The second is equal to what :meth:`decode` makes of the first, and never shares a mutable
        part with ``value``. ``name`` is what messages call the value.

        Raises:
            BadPayload: it is not of the annotated type, or would not come back.
            PayloadTooLarge: more than ``bytes_max`` bytes; n bytes of n are taken.
        """
        is_exact = type(value) in self._exact
        if not is_exact and self._check is not None:
            try:
                bad = self._check(value)
            except Exception as error:  # noqa: BLE001 - user classes are read here
                raise self._refused(error, value, name) from None
            if bad is not None:
                raise self._unstorable(bad, name)
        try:
            data = self._encode(value)
            if self._sort is not None:
                data = _sorted_sets(data, self._sort)
        except Exception as error:  # noqa: BLE001 - serializers of user types run here
            raise self._refused(error, value, name) from None
        if len(data) > bytes_max:
            raise too_large(name, len(data), bytes_max)
        if is_exact:
            # The one exact scalar that JSON cannot carry: NaN and the infinities become null.
            if data == b"null" and value is not None:
                raise self._unstorable(("", f"{value!r} has no JSON form"), name)
            return data, value
        if self._deep and _is_too_deep(data):
            raise self._unstorable(("", f"nested deeper than {DEPTH_MAX}"), name)
        try:
            return data, self._decode(data)
        except Exception as error:  # noqa: BLE001 - validators of user types run here
            raise self._refused(error, value, name) from None

    def decode(self, data: bytes, *, name: str = "payload") -> _T:
        """Read a value from its bytes.

        Raises:
            BadPayload: the bytes are not JSON, or not of this type.
        """
        try:
            return self._decode(data)  # type: ignore[no-any-return]
        except Exception as error:  # noqa: BLE001 - validators of user types run here
            path, why = _reading(error, name)
            raise BadPayload(
                f"{path}: the stored bytes do not fit `{self.name}`",
                where=f"{len(data)} bytes",
                why=why,
                do="read them with the type they were written with",
            ) from None

    def json_schema(self) -> dict[str, Any]:
        """Describe the type as JSON Schema; see :func:`json_schema`. It is not to be changed."""
        if self._schema is None:
            self._schema = json_schema(self.tp)
        return self._schema

    def _unstorable(self, bad: _Bad, name: str) -> BadPayload:
        return unstorable(bad, name, f"annotated as `{self.name}`")

    def _refused(self, error: Exception, value: object, name: str) -> BadPayload:
        """Say why a value was refused, from the value itself where the library does not tell."""
        bad = _culprit(value)
        if bad is not None:
            return self._unstorable(bad, name)
        path, why = _reading(error, name)
        if path == name:
            why = f"{why} (the value is of class {type_name(type(value))})"
        return BadPayload(
            f"{path}: does not fit the annotation `{self.name}`",
            where=f"annotated as `{self.name}`",
            why=why,
            do=_DO_FIT,
        )

    def __repr__(self) -> str:
        return f"Codec({self.name})"


@functools.lru_cache(maxsize=4096)
def _cached_codec(tp: Any) -> Codec[Any]:
    return Codec(tp)


def codec_for(tp: Any) -> Codec[Any]:
    """Give the codec of an annotated type; one is built per type and kept.

    Raises:
        BadPayload: the type has no JSON form, or none that would come back.
    """
    try:
        return _cached_codec(tp)
    except TypeError:  # an Annotated with unhashable metadata is a legal annotation
        return Codec(tp)


class InputCodec:
    """Writes and reads the arguments of one function as one JSON object, in parameter order.

    A ``*args`` is a list, a ``**kwargs`` an object, defaults are written out: what an execution was
    started with stays what it was when the code's defaults change. ``localns`` resolves annotations
    that name classes local to a function.

    Raises:
        BadPayload: an annotation cannot be resolved, or its type has no JSON form.
    """

    __slots__ = (
        "_checks",
        "_decode",
        "_deep",
        "_defaults",
        "_encode",
        "_index",
        "_is_simple",
        "_kinds",
        "_names",
        "_positional_count",
        "_sort",
        "_struct",
        "name",
        "signature",
    )

    def __init__(
        self, fn: Callable[..., object], *, localns: Mapping[str, Any] | None = None
    ) -> None:
        hints = hints_of(fn, localns)
        self.signature = inspect.signature(fn)
        self.name = str(getattr(fn, "__qualname__", None) or type(fn).__qualname__)
        parameters = self.signature.parameters.values()
        self._names = tuple(p.name for p in parameters)
        self._kinds = tuple(p.kind for p in parameters)
        self._index = frozenset(self._names)
        by_position = inspect.Parameter.POSITIONAL_OR_KEYWORD
        self._is_simple = {*self._kinds} <= {by_position, inspect.Parameter.KEYWORD_ONLY}
        self._positional_count = self._kinds.count(by_position)
        self._defaults = {
            p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty
        }
        self._struct = self._make_struct(parameters, hints)
        plan = _Plan(self._struct, self._text())
        self._checks = plan.field_checks
        self._sort, self._deep = plan.sort, plan.is_recursive
        self._encode, self._decode = _ENCODER.encode, plan.decoder.decode

    def _make_struct(
        self, parameters: Iterable[inspect.Parameter], hints: Mapping[str, Any]
    ) -> type[msgspec.Struct]:
        fields: list[tuple[str, Any, Any]] = []
        rename = {}
        for n, parameter in enumerate(parameters):
            tp = _plain_type(hints.get(parameter.name, Any))
            default: Any = msgspec.NODEFAULT
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                tp, default = list[tp], msgspec.field(default_factory=list)  # type: ignore[valid-type]
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                is_unpacked = typing.get_origin(tp) is typing.Unpack
                tp = typing.get_args(tp)[0] if is_unpacked else dict[str, tp]  # type: ignore[valid-type]
                default = msgspec.field(default_factory=dict)
            elif parameter.name in self._defaults:
                value = self._defaults[parameter.name]
                if value is None:  # `x: int = None` is common, and meant as Optional
                    tp = typing.Optional[tp]  # noqa: UP045 - tp may be a string or a TypeVar
                default = msgspec.field(default_factory=_constant(value))
            # Fields have names of ours, so that a parameter may be called anything.
            rename[f"p{n}"] = parameter.name
            fields.append((f"p{n}", tp, default))
        try:
            return msgspec.defstruct(
                "Input", fields, rename=rename, forbid_unknown_fields=True, kw_only=True
            )
        except Exception as error:  # noqa: BLE001 - annotations are arbitrary objects
            raise _unsupported(self._text(), error) from None

    def bind(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        bytes_max: int = PAYLOAD_BYTES_MAX,
    ) -> bytes:
        """Give the bytes of a call's arguments, having made sure that they read back.

        Raises:
            WrongArguments: the function does not take these arguments.
            BadPayload: one is not of its annotated type, or would not come back.
            PayloadTooLarge: together they are more than ``bytes_max`` bytes.
        """
        return self._round_trip(args, kwargs, bytes_max)[0]

    def round_trip(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        bytes_max: int = PAYLOAD_BYTES_MAX,
    ) -> tuple[bytes, tuple[Any, ...], dict[str, Any]]:
        """Give what :meth:`bind` gives, and the arguments as :meth:`unbind` reads them.

        Raises:
            WrongArguments, BadPayload, PayloadTooLarge: as :meth:`bind`.
        """
        data, read = self._round_trip(args, kwargs, bytes_max)
        return data, *self._spread(read)

    def unbind(self, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Read the arguments back, to call the function as ``fn(*args, **kwargs)``.

        A parameter that the bytes do not have takes its default of today.

        Raises:
            BadPayload: the bytes are not JSON, or do not fit the parameters of today.
        """
        try:
            read = self._decode(data)
        except Exception as error:  # noqa: BLE001 - validators of user types run here
            path, why = _reading(error, "")
            raise BadPayload(
                f"{path or 'the input'}: the stored bytes do not fit the parameters",
                where=self._text(),
                why=why,
                do="keep the parameters of running executions, or give new ones a default",
            ) from None
        return self._spread(read)

    def json_schema(self) -> dict[str, Any]:
        """Describe the arguments as the JSON Schema of an object, with their defaults.

        Raises:
            BadPayload: a type has no schema.
        """
        schema = json_schema(self._struct)
        definition: dict[str, Any] = schema["$defs"].pop("Input")
        if not schema["$defs"]:
            del schema["$defs"]
        del schema["$ref"]
        definition["title"] = self.name
        for name, field in definition["properties"].items():
            if name in self._defaults:
                try:
                    field["default"] = msgspec.json.decode(_ENCODER.encode(self._defaults[name]))
                except Exception:  # noqa: BLE001, S112 - any default is legal; not all can be shown
                    continue
        return {**definition, **schema}

    def _round_trip(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], bytes_max: int
    ) -> tuple[bytes, Any]:
        values = self._values(args, kwargs)
        try:
            for name, find in self._checks:
                bad = find(values[name])
                if bad is not None:
                    raise unstorable(bad, name, self._text())
            data = self._encode(values)
            if self._sort is not None:
                data = _sorted_sets(data, self._sort)
            if len(data) > bytes_max:
                raise too_large(f"the input of {self.name}", len(data), bytes_max)
            if self._deep and _is_too_deep(data):
                raise unstorable(("", f"nested deeper than {DEPTH_MAX}"), "input", self._text())
            return data, self._decode(data)
        except (BadPayload, PayloadTooLarge):
            raise
        except Exception as error:  # noqa: BLE001 - serializers and validators of user types run here
            raise self._refused(error, values) from None

    def _values(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Assign arguments to parameters as a call does, in parameter order."""
        if self._is_simple and len(args) <= self._positional_count:
            values = dict(zip(self._names, args, strict=False))
            if len(values) == len(self._names) and not kwargs:
                return values
            if kwargs.keys() <= self._index and kwargs.keys().isdisjoint(values):
                given = {**self._defaults, **values, **kwargs}
                if len(given) == len(self._names):
                    return {name: given[name] for name in self._names}
        # The library's own binding is slower, and knows every rule and how to say what is wrong.
        try:
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            for name in self._names:
                if name not in bound.arguments:  # Python 3.13 overlooks a positional-only one
                    raise TypeError(f"missing a required positional-only argument: {name!r}")
        except TypeError as error:
            raise WrongArguments(
                f"{self.name} does not take these arguments: {error}",
                where=self._text(),
                why=f"called with {len(args)} positional and the named {sorted(kwargs)}",
                do="call it as its signature says",
            ) from None
        return bound.arguments

    def _spread(self, read: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        values = msgspec.structs.astuple(read)
        if self._is_simple:
            count = self._positional_count
            if count == len(values):
                return values, {}
            return values[:count], dict(zip(self._names[count:], values[count:], strict=True))
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, kind, value in zip(self._names, self._kinds, values, strict=True):
            if kind is inspect.Parameter.VAR_POSITIONAL:
                args.extend(value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                kwargs.update(value)
            elif kind is inspect.Parameter.KEYWORD_ONLY:
                kwargs[name] = value
            else:
                args.append(value)
        return tuple(args), kwargs

    def _refused(self, error: Exception, values: dict[str, Any]) -> BadPayload:
        for name, value in values.items():
            bad = _culprit(value)
            if bad is not None:
                return unstorable(bad, name, self._text())
        path, why = _reading(error, "")
        if path in values:
            why = f"{why} (the argument is of class {type_name(type(values[path]))})"
        return BadPayload(
            f"{path or 'an argument'}: does not fit its annotation",
            where=self._text(),
            why=why,
            do=_DO_FIT,
        )

    def _text(self) -> str:
        return _cut(f"{self.name}{self.signature}")

    def __repr__(self) -> str:
        return f"InputCodec({self._text()})"


def result_codec(
    fn: Callable[..., object], *, localns: Mapping[str, Any] | None = None
) -> Codec[Any]:
    """Give the codec of what a function is annotated to return; ``Any`` if it is not.

    Raises:
        BadPayload: the annotation cannot be resolved, or its type has no JSON form.
    """
    return codec_for(hints_of(fn, localns).get("return", Any))


def hints_of(fn: Callable[..., object], localns: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Resolve the annotations of a function, of a partial of one, or of a callable object.

    Raises:
        BadPayload: a name in them means nothing where the function is defined.
    """
    target: Any = fn
    while isinstance(target, functools.partial):
        target = target.func
    if not inspect.isroutine(target) and not inspect.isclass(target):
        target = type(target).__call__
    try:
        return typing.get_type_hints(target, localns=dict(localns or {}), include_extras=True)
    except Exception as error:  # noqa: BLE001 - annotations are arbitrary expressions
        name = str(getattr(target, "__qualname__", target))
        raise BadPayload(
            f"an annotation of {name} cannot be resolved: {error}",
            where=f"{getattr(target, '__module__', '?')}.{name}",
            why="Outlast reads and writes values by their annotated types, when the code runs",
            do="import the name at run time, not under TYPE_CHECKING, or define it in the module",
        ) from None


def digest(data: bytes) -> int:
    """Give a signed 64-bit number for bytes, the same in every process and Python version.

    It tells different inputs apart; it is no protection against somebody who looks for a collision.
    """
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)


def json_schema(tp: Any) -> dict[str, Any]:
    """Describe an annotated type as JSON Schema 2020-12; pydantic models bring their own.

    Raises:
        BadPayload: a part of the type has no schema.
    """
    definitions: dict[str, Any] = {}

    def schema_hook(cls: type) -> dict[str, Any]:
        if not _is_pydantic(cls):
            return {"description": "any value"} if cls is object else _no_schema()
        # pydantic collects definitions of its own; the prefix keeps those of two models apart.
        prefix = f"{cls.__module__}.{cls.__qualname__}"
        schema: dict[str, Any] = cls.model_json_schema(  # type: ignore[attr-defined]
            by_alias=False, ref_template=f"#/$defs/{prefix}.{{model}}"
        )
        for name, definition in schema.pop("$defs", {}).items():
            definitions[f"{prefix}.{name}"] = definition
        return schema

    try:
        schema = msgspec.json.schema(_plain_type(tp), schema_hook=schema_hook)
    except Exception as error:  # noqa: BLE001 - schema code of user types runs here
        raise _unsupported(type_name(tp), error) from None
    _name_times(types_of.type_info(_plain_type(tp)), schema, schema.get("$defs", {}), set())
    if definitions:
        schema.setdefault("$defs", {}).update(definitions)
    return schema


def _name_times(info: types_of.Type, schema: Any, named: Mapping[str, Any], seen: set[int]) -> None:
    """Say which texts are dates with times; the library leaves that out where a zone may lack.

    Without it nobody could tell, before an answer is taken, that "soon" is no time.
    """
    while isinstance(schema, dict) and "$ref" in schema:
        schema = named.get(str(schema["$ref"]).rpartition("/")[2])
    if not isinstance(schema, dict) or (id(schema) in seen and _parts(info)):
        return
    seen.add(id(schema))
    if isinstance(info, types_of.UnionType):
        for part in schema.get("anyOf", ()):
            for member in info.types:
                if _is_form_of(part, member, named):
                    _name_times(member, part, named, seen)
    elif isinstance(info, types_of.DateTimeType):
        schema.setdefault("format", "date-time")
    elif isinstance(info, types_of.TimeType):
        schema.setdefault("format", "time")
    elif isinstance(info, types_of.DictType):
        _name_times(info.value_type, schema.get("additionalProperties"), named, seen)
    elif isinstance(info, types_of.TupleType):
        for item, part in zip(info.item_types, schema.get("prefixItems", ()), strict=False):
            _name_times(item, part, named, seen)
    elif hasattr(info, "fields"):
        for place, field in enumerate(info.fields):
            form = schema.get("properties", {}).get(field.encode_name)
            if form is None and len(schema.get("prefixItems", ())) > place:
                form = schema["prefixItems"][place]
            _name_times(field.type, form, named, seen)
    elif hasattr(info, "item_type"):
        _name_times(info.item_type, schema.get("items"), named, seen)


def _is_form_of(schema: Mapping[str, Any], info: types_of.Type, named: Mapping[str, Any]) -> bool:
    """Tell whether this member of a union is the one with this schema."""
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if isinstance(info, types_of.DateTimeType | types_of.TimeType):
        return schema.get("type") == "string" and "format" not in schema
    cls = getattr(info, "cls", None)
    if name:
        return cls is not None and bool(named.get(name, {}).get("title") == cls.__name__)
    return schema.get("type") in ("array", "object") and cls is None and bool(_parts(info))


def _no_schema() -> NoReturn:
    raise NotImplementedError


def as_json(value: object, *, name: str = "value") -> bytes:
    """Write a value whose reader is not known here: an instance of a class by that class.

    Raises:
        BadPayload: it has no JSON form, or a part of it would not come back.
        PayloadTooLarge: it is too large.
    """
    cls = type(value)
    is_typed = isinstance(value, _TYPED) or dataclasses.is_dataclass(cls) or _is_pydantic(cls)
    return codec_for(cls if is_typed else Any).encode(value, name=name)


_TYPED = (
    msgspec.Struct,
    enum.Enum,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
)


def as_pattern(value: object, *, name: str = "pattern") -> Any:
    """Give the JSON of a pattern, in which there may be instances of classes at any depth.

    Raises:
        BadPayload: a part of it has no JSON form.
    """
    bad = _culprit(value)
    if bad is not None:
        raise unstorable(bad, name, type_name(type(value)))
    return msgspec.json.decode(_ENCODER.encode(value))


def validate(schema: Mapping[str, Any], value: object, *, name: str = "value") -> None:
    """Check a JSON value against a JSON Schema; references to elsewhere are never fetched.

    Raises:
        BadPayload: it does not fit, with the path to the part that does not; or the schema is bad.
    """
    try:
        if len(schema) == 1 and type(value) in _FITTING.get(str(schema.get("type")), ()):
            return  # a checker would say the same, and to load one takes 0.2 s
        checker = _checker(_ENCODER.encode(schema))
        error = next(checker.iter_errors(value), None)
        if error is not None:
            from jsonschema.exceptions import best_match

            error = best_match(checker.iter_errors(value))
    except Exception as failure:  # noqa: BLE001 - a bad schema, $ref to nowhere, endless $ref
        raise BadPayload(
            f"{name}: cannot be checked, the schema is not usable",
            where="its JSON Schema",
            why=_cut(f"{type(failure).__name__}: {failure}"),
            do="correct the schema",
        ) from None
    if error is not None:
        path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)
        raise BadPayload(
            f"{name}{path}: does not fit its schema",
            where=name + path,
            why=_cut(error.message.replace(repr(error.instance), "it")),  # the value is a payload
            do="correct the value and send it again",
        )


_FITTING: Final[Mapping[str, tuple[type, ...]]] = {
    "boolean": (bool,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
}
"""Types whose values fit a schema that names this type and nothing else; others may fit as well."""


@functools.lru_cache(maxsize=256)
def _checker(schema: bytes) -> Any:
    """Make what checks values against a schema; to make it costs more than many a check.

    Raises:
        jsonschema.SchemaError: it is no schema.
    """
    import jsonschema  # costs 50 ms; only forms and the API need it
    from referencing import Registry

    read = msgspec.json.decode(schema)
    jsonschema.Draft202012Validator.check_schema(read)
    # An empty registry: without it a $ref to a URL would make this process fetch it.
    return jsonschema.Draft202012Validator(read, registry=Registry(), format_checker=_formats())


@functools.cache
def _formats() -> Any:
    """Make the checker of formats: those of our types are read as they will be read later.

    jsonschema leaves out the formats of dates and times where no further package is installed.
    """
    import jsonschema

    checker = jsonschema.FormatChecker(
        [
            name
            for name in jsonschema.Draft202012Validator.FORMAT_CHECKER.checkers
            if name not in _READ_AS
        ]
    )
    for name, tp in _READ_AS.items():
        checker.checks(name)(functools.partial(_is_read_as, tp))
    return checker


def _is_read_as(tp: Any, value: object) -> bool:
    if not isinstance(value, str):
        return True  # a format says nothing of what is no text
    try:
        msgspec.convert(value, tp)
    except (msgspec.ValidationError, ValueError):
        return False
    return True


_READ_AS: dict[str, Any] = {
    "date-time": datetime.datetime,
    "date": datetime.date,
    "time": datetime.time,
    "duration": datetime.timedelta,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
}
"""The formats that schemas of annotated types have, and the types that read them."""


def type_name(tp: Any) -> str:
    """Write an annotation as a person would, in at most 200 characters."""
    if tp is Any or tp is inspect.Parameter.empty:
        return "Any"
    if tp is type(None):
        return "None"
    if isinstance(tp, type) and typing.get_origin(tp) is None:
        return tp.__name__ if tp.__module__ == "builtins" else f"{tp.__module__}.{tp.__qualname__}"
    return _cut(repr(tp).replace("typing.", ""))


def unstorable(bad: _Bad, name: str, where: str) -> BadPayload:
    """Make the error for a part of a value that would not come back."""
    path, why = bad
    do = _DO_ANNOTATE if "annotat" in why else _DO_PLAIN
    return BadPayload(
        f"{name}{path}: {why}", where=where, why="it would not come back equal", do=do
    )


def too_large(name: str, size_bytes: int, bytes_max: int) -> PayloadTooLarge:
    """Make the error for a payload over its limit."""
    return PayloadTooLarge(
        f"{name}: {size_bytes:,} bytes of JSON, {bytes_max:,} are allowed",
        size_bytes=size_bytes,
        bytes_max=bytes_max,
        do="keep large data in a file or an object store, and pass its address",
    )


# ---- types -------------------------------------------------------------------------------------


class _Check(msgspec.Struct, frozen=True):
    """A test that a value of a type will come back equal.

    ``ok`` are the classes whose instances pass without a look inside, so that a list of thousands
    of them is passed by one ``set(map(type, …))``.
    """

    ok: frozenset[type]
    find: Callable[[Any], _Bad | None]


_Sort = Callable[[Any], Any]


class _Plan:
    """What has to be known of a type beforehand: decoder, checks, and where its sets are."""

    def __init__(self, tp: Any, name: str) -> None:
        self.is_recursive = False
        self._checks: dict[Any, list[_Check | None]] = {}
        self._sorts: dict[Any, list[_Sort | None]] = {}
        self._alive: list[Any] = []  # the memo goes by id, so nothing may be freed meanwhile
        try:
            self.decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(tp, dec_hook=_dec_hook)
            info = types_of.type_info(tp)
        except Exception as error:  # noqa: BLE001 - annotations are arbitrary objects
            raise _unsupported(name, error) from None
        self._refuse_types(info, name)
        check = self._check(info)
        self.check = None if check is None else check.find
        self.field_checks: tuple[tuple[str, Callable[[Any], _Bad | None]], ...] = ()
        if isinstance(info, types_of.StructType):
            self.field_checks = tuple(
                (field.encode_name, check.find)
                for field in info.fields
                if (check := self._check(field.type)) is not None
            )
        self.sort = self._sorter(info)
        self.exact = frozenset(_exact_classes(info))

    def _refuse_types(self, root: types_of.Type, name: str) -> None:
        """Refuse what msgspec lets through although it cannot, or would come back as another."""
        todo, seen = [root], set()
        while todo:
            info = todo.pop()
            if id(info) in seen:
                continue
            seen.add(id(info))
            if isinstance(info, types_of.CustomType):
                if info.cls is not object and not _is_pydantic(info.cls):
                    raise _unsupported(name, f"{type_name(info.cls)} has no JSON form")
            elif isinstance(info, types_of.DictType):
                keys = info.key_type
                is_mixed = isinstance(keys, types_of.UnionType) and len(keys.types) > 1
                if is_mixed:
                    raise _unsupported(name, "JSON keys are text: 1 and '1' would become one key")
            todo.extend(_parts(info))

    # -- checks

    def _check(self, info: types_of.Type) -> _Check | None:
        key: Any = info.cls if isinstance(info, types_of.CustomType) else id(info)
        if key in self._checks:
            cell = self._checks[key]
            if not cell:  # we are inside this very type: look it up when it is used
                self.is_recursive = True
                return _Check(frozenset(), lambda value: cell[0].find(value) if cell[0] else None)
            return cell[0]
        self._alive.append(info)
        cell = self._checks[key] = []
        cell.append(self._make_check(info))
        return cell[0]

    def _make_check(self, info: types_of.Type) -> _Check | None:
        match info:
            case types_of.AnyType():
                return _ANY
            case types_of.CustomType() if info.cls is object:
                return _ANY
            case types_of.UnionType():
                return self._union_check(info)
            case types_of.TupleType():
                return _tuple_check([self._check(item) for item in info.item_types])
            case types_of.DictType():
                has_float_keys = isinstance(info.key_type, types_of.FloatType)
                return _dict_check(self._check(info.value_type), has_float_keys)
            case types_of.TypedDictType():
                checks = self._field_checks((f.name, f.type) for f in info.fields)
                return _fields_check(dict, checks, _item) if checks else None
            case types_of.DataclassType() | types_of.StructType() | types_of.NamedTupleType():
                checks = self._field_checks((f.name, f.type) for f in info.fields)
                return _fields_check(_origin(info.cls), checks, getattr)
            case types_of.CustomType():
                checks = self._field_checks(self._pydantic_fields(info.cls))
                return _fields_check(info.cls, checks, getattr)
            case _:
                item = getattr(info, "item_type", None)
                check = None if item is None else self._check(item)
                return None if check is None else _list_check(check)

    def _field_checks(
        self, fields: Iterable[tuple[str, types_of.Type]]
    ) -> list[tuple[str, _Check]]:
        checks = ((name, self._check(info)) for name, info in fields)
        return [(name, check) for name, check in checks if check is not None]

    def _pydantic_fields(self, cls: Any) -> list[tuple[str, types_of.Type]]:
        fields = []
        for name, field in cls.model_fields.items():
            try:
                info = types_of.type_info(field.annotation)
            except Exception:  # noqa: BLE001, S112 - a type only pydantic knows; it checks it
                continue
            self._alive.append(info)
            fields.append((name, info))
        return fields

    def _union_check(self, info: types_of.UnionType) -> _Check | None:
        kinds = {type(member) for member in info.types}
        if types_of.AnyType in kinds:
            return _ANY
        members = [
            (_classes_of(member), check)
            for member in info.types
            if (check := self._check(member)) is not None
        ]
        if {types_of.FloatType, types_of.NoneType} <= kinds:
            # The only annotated position where msgspec's null for NaN would be read without a word.
            members.append(((float,), _Check(frozenset(), _find_nan)))
        if not members:
            return None

        def find(value: Any) -> _Bad | None:
            for classes, check in members:
                if isinstance(value, classes):
                    return check.find(value)
            return None

        ok = frozenset().union(*(check.ok for _, check in members)) | {type(None)}
        return _Check(ok, find)

    # -- sets

    def _sorter(self, info: types_of.Type) -> _Sort | None:
        """Give a function that sorts the sets in the parsed JSON of a type; None if it has none."""
        key: Any = info.cls if isinstance(info, types_of.CustomType) else id(info)
        if key in self._sorts:
            cell = self._sorts[key]
            return cell[0] if cell else lambda tree: cell[0](tree) if cell[0] else tree
        self._alive.append(info)
        cell = self._sorts[key] = []
        if not _has_sets(info, self._pydantic_fields):
            cell.append(None)
        else:
            cell.append(self._make_sorter(info))
        return cell[0]

    def _make_sorter(self, info: types_of.Type) -> _Sort | None:
        match info:
            case types_of.SetType() | types_of.FrozenSetType():
                item = self._sorter(info.item_type) or _same
                return lambda tree: (
                    sorted(map(item, tree), key=_ENCODER.encode) if isinstance(tree, list) else tree
                )
            case types_of.ListType() | types_of.VarTupleType():
                item = self._sorter(info.item_type) or _same
                return lambda tree: list(map(item, tree)) if isinstance(tree, list) else tree
            case types_of.TupleType():
                return _index_sorter([self._sorter(item) for item in info.item_types])
            case types_of.NamedTupleType():
                return _index_sorter([self._sorter(field.type) for field in info.fields])
            case types_of.StructType(array_like=True):
                head: list[_Sort | None] = [] if info.tag is None else [None]
                return _index_sorter(head + [self._sorter(f.type) for f in info.fields])
            case types_of.DictType():
                value = self._sorter(info.value_type) or _same
                return lambda tree: (
                    {k: value(v) for k, v in tree.items()} if isinstance(tree, dict) else tree
                )
            case types_of.UnionType():
                return self._union_sorter(info)
            case types_of.CustomType():
                return _key_sorter((n, self._sorter(t)) for n, t in self._pydantic_fields(info.cls))
            case types_of.TypedDictType() | types_of.DataclassType() | types_of.StructType():
                return _key_sorter((f.encode_name, self._sorter(f.type)) for f in info.fields)
            case _:
                return None

    def _union_sorter(self, info: types_of.UnionType) -> _Sort:
        structs: dict[object, _Sort] = {}
        by_kind: dict[type, _Sort] = {}
        tag_field = None
        for member in info.types:
            sort = self._sorter(member) or _same
            if isinstance(member, types_of.StructType) and member.tag is not None:
                tag_field = member.tag_field
                structs[member.tag] = sort
                kind = list if member.array_like else dict
            elif isinstance(member, types_of.CustomType):
                by_kind[list] = sort
                kind = dict
            else:
                kind = (
                    list
                    if hasattr(member, "item_type")
                    or isinstance(member, types_of.TupleType | types_of.NamedTupleType)
                    else dict
                )
            by_kind.setdefault(kind, sort)

        def sorted_union(tree: Any) -> Any:
            tag = None
            if isinstance(tree, dict) and tag_field is not None:
                tag = tree.get(tag_field)
            elif isinstance(tree, list) and tag_field is not None and tree:
                tag = tree[0]
            if isinstance(tag, str | int) and tag in structs:
                return structs[tag](tree)
            return by_kind.get(type(tree), _same)(tree)

        return sorted_union


def _same(tree: Any) -> Any:
    return tree


def _index_sorter(sorts: list[_Sort | None]) -> _Sort:
    def sorted_items(tree: Any) -> Any:
        if isinstance(tree, list):
            for n, sort in enumerate(sorts[: len(tree)]):
                if sort is not None:
                    tree[n] = sort(tree[n])
        return tree

    return sorted_items


def _key_sorter(sorts: Iterable[tuple[str, _Sort | None]]) -> _Sort:
    wanted = [(name, sort) for name, sort in sorts if sort is not None]

    def sorted_keys(tree: Any) -> Any:
        if isinstance(tree, dict):
            for name, sort in wanted:
                if name in tree:
                    tree[name] = sort(tree[name])
        return tree

    return sorted_keys


def _sorted_sets(data: bytes, sort: _Sort) -> bytes:
    return _ENCODER.encode(sort(msgspec.json.decode(data)))


def _parts(info: types_of.Type) -> list[types_of.Type]:
    parts = [getattr(info, name, None) for name in ("item_type", "key_type", "value_type")]
    parts += [*getattr(info, "item_types", ()), *getattr(info, "types", ())]
    parts += [field.type for field in getattr(info, "fields", ())]
    return [part for part in parts if part is not None]


def _has_sets(
    root: types_of.Type, pydantic_fields: Callable[[Any], list[tuple[str, types_of.Type]]]
) -> bool:
    todo, seen = [root], set()
    while todo:
        info = todo.pop()
        key: Any = info.cls if isinstance(info, types_of.CustomType) else id(info)
        if key in seen:
            continue
        seen.add(key)
        if isinstance(info, types_of.SetType | types_of.FrozenSetType):
            return True
        if isinstance(info, types_of.CustomType) and _is_pydantic(info.cls):
            todo.extend(part for _, part in pydantic_fields(info.cls))
        todo.extend(_parts(info))
    return False


def _exact_classes(info: types_of.Type) -> set[type]:
    """The immutable classes whose values come back as they are, so that reading can be skipped."""
    if info == types_of.AnyType():
        return set(_SCALARS)
    if isinstance(info, types_of.UnionType):
        return set().union(*map(_exact_classes, info.types))
    for plain, cls in _PLAIN:
        if info == plain:  # equal only without constraints; those must be checked by reading
            return {cls}
    return set()


_PLAIN: tuple[tuple[types_of.Type, type], ...] = (
    (types_of.StrType(), str),
    (types_of.IntType(), int),
    (types_of.FloatType(), float),
    (types_of.BoolType(), bool),
    (types_of.NoneType(), type(None)),
)


def _classes_of(info: types_of.Type) -> tuple[type, ...]:
    """The Python classes a member of a union is written as."""
    cls = getattr(info, "cls", None)
    if cls is not None:
        return (_origin(cls),)
    if isinstance(info, types_of.DictType | types_of.TypedDictType):
        return (dict,)
    return _LISTS


def _origin(cls: Any) -> Any:
    return typing.get_origin(cls) or cls


def _plain_type(tp: Any) -> Any:
    return Any if tp is inspect.Parameter.empty or tp in (typing.NoReturn, typing.Never) else tp


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _unsupported(name: str, error: object) -> BadPayload:
    return BadPayload(
        f"values of the type `{_cut(name)}` cannot be stored as JSON",
        where="the annotation",
        why=_cut(str(error)),
        do="use a dataclass, TypedDict, msgspec.Struct, pydantic model or a type of the standard "
        "library that JSON can carry; a union needs members that JSON can tell apart "
        "(tagged Structs, or one pydantic model with a discriminated field)",
    )


# ---- values ------------------------------------------------------------------------------------


def _find_inexact(value: Any) -> _Bad | None:
    bad = _inexact(value, 0, [_CONTAINERS_MAX])
    if bad is not _ENDLESS:
        return bad
    return _culprit(value) or ("", f"nested deeper than {DEPTH_MAX}, or too many parts")


def _inexact(value: Any, depth: int, budget: list[int]) -> _Bad | None:
    """Find what would not come back equal at a position without a type."""
    cls = type(value)
    if cls in _ALWAYS_EXACT:
        return None
    if cls is float:
        return _find_nan(value)
    if cls is not list and cls is not dict:
        return "", f"{type_name(cls)} does not come back as itself without an annotation"
    budget[0] -= 1
    if depth >= DEPTH_MAX or budget[0] < 0:
        return _ENDLESS
    if cls is list:
        if _ALWAYS_EXACT.issuperset(map(type, value)):
            return None
        for n, item in enumerate(value):
            kind = type(item)
            if kind in _ALWAYS_EXACT or (kind is float and item - item == 0.0):
                continue
            if (bad := _inexact(item, depth + 1, budget)) is not None:
                return bad if bad is _ENDLESS else (f"[{n}]{bad[0]}", bad[1])
        return None
    if not _STR.issuperset(map(type, value)):
        key = next(key for key in value if type(key) is not str)
        return f"[{_brief(key)}]", (
            f"a key of class {type_name(type(key))} does not come back as itself "
            "without an annotation"
        )
    if _ALWAYS_EXACT.issuperset(map(type, value.values())):
        return None
    for key, item in value.items():
        kind = type(item)
        if kind in _ALWAYS_EXACT or (kind is float and item - item == 0.0):  # neither NaN nor inf
            continue
        if (bad := _inexact(item, depth + 1, budget)) is not None:
            return bad if bad is _ENDLESS else (f"{_key(key)}{bad[0]}", bad[1])
    return None


_STR: frozenset[type] = frozenset({str})
# Too deep, or too many parts: the search from the top tells which, and where a cycle closes.
_ENDLESS: _Bad = ("", "endless")
_ANY = _Check(_ALWAYS_EXACT, _find_inexact)


def _find_nan(value: float) -> _Bad | None:
    return None if math.isfinite(value) else ("", f"{float(value)!r} has no JSON form")


def _list_check(item: _Check) -> _Check:
    def find(value: Any) -> _Bad | None:
        if not isinstance(value, _LISTS) or item.ok.issuperset(map(type, value)):
            return None
        for n, part in enumerate(value):
            if type(part) not in item.ok and (bad := item.find(part)) is not None:
                return f"[{n}]{bad[0]}", bad[1]
        return None

    return _Check(frozenset(), find)


def _tuple_check(items: list[_Check | None]) -> _Check | None:
    def find(value: Any) -> _Bad | None:
        if isinstance(value, list | tuple):
            for n, (part, item) in enumerate(zip(value, items, strict=False)):
                if item is not None and (bad := item.find(part)) is not None:
                    return f"[{n}]{bad[0]}", bad[1]
        return None

    return _Check(frozenset(), find) if any(items) else None


def _dict_check(item: _Check | None, has_float_keys: bool) -> _Check | None:
    def find(value: Any) -> _Bad | None:
        if not isinstance(value, dict):
            return None
        if has_float_keys:
            for key in value:
                if isinstance(key, float) and not math.isfinite(key):
                    return f"[{key!r}]", f"a key {key!r} has no JSON form"
        if item is None or item.ok.issuperset(map(type, value.values())):
            return None
        for key, part in value.items():
            if type(part) not in item.ok and (bad := item.find(part)) is not None:
                return f"{_key(key)}{bad[0]}", bad[1]
        return None

    return _Check(frozenset(), find) if item is not None or has_float_keys else None


def _fields_check(
    cls: type, fields: list[tuple[str, _Check]], get: Callable[[Any, str, Any], Any]
) -> _Check:
    def find(value: Any) -> _Bad | None:
        if type(value) is not cls:
            if not isinstance(value, cls) or cls is dict:
                return None  # reading it decides whether it fits
            return "", (
                f"{type_name(type(value))} would come back as its base class "
                f"{type_name(cls)}, which is what is annotated"
            )
        for name, check in fields:
            part = get(value, name, None)
            if type(part) not in check.ok and (bad := check.find(part)) is not None:
                return f".{name}{bad[0]}", bad[1]
        return None

    return _Check(frozenset() if fields else frozenset({cls}), find)


def _item(value: dict[str, Any], name: str, default: Any) -> Any:
    return value.get(name, default)


def _culprit(value: Any) -> _Bad | None:
    """Find the part of a value that has no JSON form at all, whatever the annotation."""
    return _Search().find(value, 0)


class _Search:
    """One search; parts that were found good are not looked at again, however often shared."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._good: dict[int, object] = {}  # holds the part, so that its id stays its own

    def find(self, value: Any, depth: int) -> _Bad | None:
        if isinstance(value, str):
            return _find_surrogate(value)
        if isinstance(value, float):
            return _find_nan(value)
        parts = self._parts(value)
        if parts is None:
            return self._leaf(value)
        if id(value) in self._good:
            return None
        if id(value) in self._open:
            return "", "it contains itself"
        if depth > 2 * DEPTH_MAX:  # past the limit by as much again, to tell a cycle from depth
            return "", f"nested deeper than {DEPTH_MAX}"
        self._open.add(id(value))
        for suffix, part in parts:
            if (bad := self.find(part, depth + 1)) is not None:
                return _cut_path(suffix + bad[0]), bad[1]
        self._open.discard(id(value))
        self._good[id(value)] = value
        return None

    def _parts(self, value: Any) -> list[tuple[str, Any]] | None:
        if isinstance(value, dict):
            keys = [(f"[{_brief(k)}]", k) for k in value if isinstance(k, str | float)]
            return keys + [(_key(k), v) for k, v in value.items()]
        if isinstance(value, _LISTS):
            return [(f"[{n}]", item) for n, item in enumerate(value)]
        names = getattr(type(value), "__struct_fields__", None)
        if names is None:
            names = getattr(type(value), "__dataclass_fields__", None)
        if names is None and _is_pydantic(type(value)):
            names = value.__dict__
        if names is None:
            return None
        return [(f".{name}", getattr(value, name, None)) for name in names]

    def _leaf(self, value: Any) -> _Bad | None:
        try:
            _ENCODER.encode(value)
        except Exception as error:  # noqa: BLE001 - serializers of user types run here
            if isinstance(value, int):
                return "", f"an int of {int(value).bit_length()} bits is too long for JSON"
            if "unsupported" in str(error) or isinstance(error, TypeError | NotImplementedError):
                return "", f"{type_name(type(value))} has no JSON form"
            return "", _cut(f"{type_name(type(value))} cannot be written: {error}")
        return None


def _find_surrogate(value: str) -> _Bad | None:
    try:
        str.encode(value)
    except UnicodeEncodeError as error:
        found = value[error.start]
        return "", f"text with a lone surrogate ({found!a} at {error.start}) is not Unicode text"
    return None


def _is_too_deep(data: bytes) -> bool:
    # Brackets in text only make this say "perhaps"; counting is C, and settles nearly all values.
    if data.count(b"[") + data.count(b"{") <= DEPTH_MAX:
        return False
    level: list[Any] = [msgspec.json.decode(data)]
    for _ in range(DEPTH_MAX):
        below: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                below.extend(part.values())
            elif isinstance(part, list):
                below.extend(part)
        level = [part for part in below if isinstance(part, dict | list)]
        if not level:
            return False
    return True


def _reading(error: Exception, name: str) -> _Bad:
    """Translate a reader's error into a path that starts with ``name``, and a reason."""
    text = _text(error)
    found = _AT.search(text)
    if found is None or not isinstance(error, msgspec.ValidationError):
        kind = "" if isinstance(error, msgspec.MsgspecError) else f"{type(error).__name__}: "
        return name, _cut(kind + text)
    path = found[1].replace("$", name, 1)
    return (path if name else path.lstrip(".")), _cut(text[: found.start()])


_AT = re.compile(r" - at `([^`]*)`\Z", re.DOTALL)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the user's own error class
        return type(error).__name__


def _key(key: object) -> str:
    return f".{key}" if type(key) is str and key.isidentifier() else f"[{_brief(key)}]"


def _brief(key: object) -> str:
    # Only plain keys are shown: the repr of anything else is the user's code, and may be a secret.
    if isinstance(key, str):
        return ascii(str(key[:40]))
    return repr(key) if type(key) in (int, float, bool, type(None)) else type_name(type(key))


def _cut(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."


def _cut_path(path: str) -> str:
    return path if len(path) <= 300 else path[:150] + " … " + path[-140:]


# ---- hooks -------------------------------------------------------------------------------------


def _is_pydantic(cls: Any) -> bool:
    # Looked up, never imported: a type can only be a model if its module has been imported.
    pydantic = sys.modules.get("pydantic")
    model = getattr(pydantic, "BaseModel", None)
    return model is not None and isinstance(cls, type) and issubclass(cls, model)


def _enc_hook(value: Any) -> Any:
    if _is_pydantic(type(value)):
        # By name and without computed fields: only so can every model be read back.
        dumped = value.model_dump(mode="json", by_alias=False, round_trip=True)
        bad = _find_inexact(dumped)
        if bad is not None:
            raise ValueError(f"{type_name(type(value))}{bad[0]}: {bad[1]}")
        return dumped
    for plain in (str, int, float):  # numpy.float64 and the like, where a plain one is annotated
        if isinstance(value, plain):
            return plain(value)
    raise NotImplementedError(f"{type_name(type(value))} is unsupported")


def _dec_hook(cls: type, value: Any) -> Any:
    if _is_pydantic(cls):
        # From text and not from objects: a strict model takes a date as a str only there.
        return cls.model_validate_json(_ENCODER.encode(value), **_by_name())  # type: ignore[attr-defined]
    if cls is object:
        return value
    raise NotImplementedError(f"{type_name(cls)} is unsupported")


@functools.cache
def _by_name() -> dict[str, bool]:
    """The arguments that make pydantic take field names; they came with 2.11."""
    pydantic = sys.modules["pydantic"]
    version = tuple(int(part) for part in pydantic.VERSION.split(".")[:2])
    return {"by_name": True, "by_alias": True} if version >= (2, 11) else {}


_ENCODER = msgspec.json.Encoder(enc_hook=_enc_hook)
