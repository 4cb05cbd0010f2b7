"""Read values by a form (JSON Schema): from a text, or from a person, field by field.

Whatever is read is compared with its own part of the form at once, so that a person is told which
field is wrong, and why, and types only that field again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click

from outlast.cli.words import one_line
from outlast.codec import validate
from outlast.errors import BadPayload, UsageError

Schema = Mapping[str, Any]
YES: Final = ("true", "yes", "y", "on", "1", "ok")
NO: Final = ("false", "no", "n", "off", "0")
_NONE: Final = ("null", "none")
_SCALARS: Final = frozenset({"boolean", "integer", "number", "string", "null"})
DEPTH_MAX: Final = 50
"""How deep a form is asked for; one that contains itself has no end."""
_HINTS: Final = {
    "date": "as 2026-12-31",
    "time": "as 17:30:00",
    "date-time": "as 2026-12-31T17:30:00Z",
    "duration": "as P1DT2H",
    "uuid": "a UUID",
    "decimal": "a decimal number",
    "email": "an address",
}


def read_value(schema: Schema, text: str) -> Any:
    """Read a value by a form: text where text is asked for, words for yes and no, else JSON.

    Raises:
        UsageError: it is no JSON, where that is asked for.
    """
    form = _Form(schema)
    if not form.is_scalar(schema):
        members = form.members(schema)
        begins = text.lstrip()[:1]
        scalars = [part for part in members if form.is_scalar(part)]
        if not scalars or begins in ("{", "["):
            return read_json(text)
        return form.read(scalars, text)
    return form.read(form.members(schema), text)


def read_json(text: str) -> Any:
    """Read JSON.

    Raises:
        UsageError: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{one_line(text, 60)} is no JSON",
            why=str(error),
            do="write JSON, as in 5, true, '\"text\"' or '{\"name\": 1}'",
        ) from None


def prompt(schema: Schema, title: str) -> Any:
    """Ask for a value of a form at the terminal, field by field."""
    return Asker(_read_line, _say).ask(schema, title)


def _read_line(title: str) -> str:
    answer: str = click.prompt(title, default="", show_default=False, err=True)
    return answer


def _say(text: str) -> None:
    click.echo(text, err=True)


class _Form:
    """A form with its named parts."""

    def __init__(self, schema: Schema) -> None:
        self.root = schema
        self._named = schema.get("$defs", {})

    def resolved(self, schema: Any) -> Schema:
        """Follow references within the form."""
        for _ in range(DEPTH_MAX):
            if not isinstance(schema, Mapping):
                return {}
            reference = schema.get("$ref")
            whole = schema.get("allOf")
            if isinstance(reference, str) and reference.startswith("#/$defs/"):
                named = self._named.get(reference.removeprefix("#/$defs/"))
                beside = _without(schema, "$ref")
                schema = {**named, **beside} if isinstance(named, Mapping) else named
            elif isinstance(whole, Sequence) and len(whole) == 1:
                schema = {**self.resolved(whole[0]), **_without(schema, "allOf")}
            else:
                return schema
        return {}

    def members(self, schema: Any) -> list[Schema]:
        """Give what a value may be: the members of a union, or the form itself."""
        schema = self.resolved(schema)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return [one for part in schema[word] for one in self.members(part)]
        kinds = schema.get("type")
        if isinstance(kinds, list):
            return [{**schema, "type": kind} for kind in kinds]
        return [schema]

    def is_scalar(self, schema: Any) -> bool:
        """Tell whether every value of a form is written as one word or text."""
        return all(
            "const" in part or "enum" in part or part.get("type") in _SCALARS
            for part in self.members(schema)
        )

    def check(self, schema: Any, value: object, name: str) -> None:
        """Compare a value with a part of the form.

        Raises:
            BadPayload: it does not fit.
        """
        part = dict(self.resolved(schema))
        validate({**part, "$defs": self._named} if self._named else part, value, name=name)

    def read(self, members: Sequence[Schema], text: str) -> Any:
        """Read a scalar, as the first member of a union that takes it; a text takes everything.

        Raises:
            UsageError: it is no JSON, and no member is a text.
        """
        word = text.strip().lower()
        is_text = any(part.get("type") == "string" for part in members)
        for part in members:
            for choice in _choices(part):
                if text == choice or (not isinstance(choice, str) and word == json.dumps(choice)):
                    return choice
        kinds = {part.get("type") for part in members}
        if "null" in kinds and word in _NONE:
            return None
        if "boolean" in kinds and word in YES + NO and not (kinds & _NUMBERS and word in "01"):
            return word in YES
        if kinds & _NUMBERS:
            try:
                number = json.loads(word)
            except ValueError:
                number = None
            if type(number) in (int, float) and ("number" in kinds or type(number) is int):
                return number
        return text if is_text or any(map(_choices, members)) else read_json(text)


_NUMBERS: Final = {"integer", "number"}


class Asker:
    """Asks a person for a value, line by line.

    Args:
        read: reads a line, given what to show before it.
        say: shows a line.
    """

    def __init__(self, read: Callable[[str], str], say: Callable[[str], None]) -> None:
        self._read, self._say = read, say

    def ask(self, schema: Schema, title: str) -> Any:
        """Ask until the whole fits its form."""
        self._form = _Form(schema)
        while True:
            value = self._ask(schema, title, "", 0)
            if self._fits(schema, value, "it", ""):
                return value

    def _ask(self, schema: Any, title: str, space: str, depth: int) -> Any:
        schema = self._form.resolved(schema)
        if depth > DEPTH_MAX:
            return self._json(schema, title, space)
        if "const" in schema:
            return schema["const"]
        if len(schema.get("enum", ())) == 1:
            return schema["enum"][0]  # the mark of a member of a union
        if self._form.is_scalar(schema):
            return self._scalar(schema, title, space)
        members = self._form.members(schema)
        if len(members) > 1:
            return self._union(members, title, space, depth)
        (member,) = members
        if member.get("type") == "object" or "properties" in member:
            return self._object(member, title, space, depth)
        if member.get("type") == "array":
            return self._array(member, title, space, depth)
        return self._json(member, title, space)

    def _fits(self, schema: Any, value: object, name: str, space: str) -> bool:
        try:
            self._form.check(schema, value, name)
        except BadPayload as error:
            part = error.where.removeprefix(name).lstrip(".")
            self._say(f"{space}  {part + ': ' if part else ''}{error.why}")
            return False
        return True

    def _scalar(self, schema: Any, title: str, space: str) -> Any:
        members = self._form.members(schema)
        hint = _hint(members)
        label = f"{space}{title}{f' [{hint}]' if hint else ''}"
        while True:
            text = self._read(label)
            if not text:
                if "default" in schema:
                    return schema["default"]
                if any(part.get("type") == "null" for part in members):
                    return None
                self._say(f'{space}  it needs a value; "" is an empty text')
                continue
            if text == '""' and any(part.get("type") == "string" for part in members):
                text = ""
            try:
                value = self._form.read(members, text)
            except UsageError:
                self._say(f"{space}  {one_line(text, 60)} is not {_said(members)}")
                continue
            if self._fits(schema, value, "it", space):
                return value

    def _union(self, members: Sequence[Schema], title: str, space: str, depth: int) -> Any:
        others = [part for part in members if part.get("type") != "null"]
        if len(others) == 1:
            given = len(others) == len(members) or self._yes(f"give {title}?", space)
            return self._ask(others[0], title, space, depth + 1) if given else None
        self._say(f"{space}{title}: one of")
        for number, part in enumerate(members, 1):
            self._say(f"{space}  {number}  {_name(part)}")
        while True:
            text = self._read(f"{space}which [1–{len(members)}]").strip()
            names = [_name(part) for part in members]
            if text in names:
                part = members[names.index(text)]
            elif text.isdecimal() and 1 <= int(text) <= len(members):
                part = members[int(text) - 1]
            else:
                self._say(f"{space}  {one_line(text, 60)} is none of them")
                continue
            if part.get("type") == "null":
                return None
            return self._ask(part, title, space, depth + 1)

    def _object(self, schema: Schema, title: str, space: str, depth: int) -> Any:
        fields: Mapping[str, Any] = schema.get("properties") or {}
        more = schema.get("additionalProperties")
        if not fields and not isinstance(more, Mapping):
            return self._json(schema, title, space)
        self._say(f"{space}{title}")
        inside = space + "  "
        value: dict[str, Any] = {}
        for name, field in fields.items():
            is_needed = name in schema.get("required", ())
            if not is_needed and not self._form.is_scalar(field):
                if self._yes(f"give {name}?", inside):
                    value[name] = self._ask(field, name, inside, depth + 1)
            elif is_needed:
                value[name] = self._ask(field, name, inside, depth + 1)
            else:
                self._optional(value, name, field, inside)
        if isinstance(more, Mapping):
            while name := self._read(f"{inside}name of a field (empty: no more)"):
                value[name] = self._ask(more, name, inside, depth + 1)
        return value

    def _optional(self, value: dict[str, Any], name: str, field: Any, space: str) -> None:
        """Ask for a field that may be left out: an empty line leaves it out."""
        members = self._form.members(field)
        default = self._form.resolved(field).get("default")
        said = "left out" if default is None else json.dumps(default, ensure_ascii=False)
        while True:
            text = self._read(f"{space}{name} (empty: {said}){_brackets(members)}")
            if not text:
                return
            try:
                read = self._form.read(members, "" if text == '""' else text)
            except UsageError:
                self._say(f"{space}  {one_line(text, 60)} is not {_said(members)}")
                continue
            if self._fits(field, read, "it", space):
                value[name] = read
                return

    def _array(self, schema: Schema, title: str, space: str, depth: int) -> Any:
        value = [
            self._ask(part, f"{title}[{place}]", space, depth + 1)
            for place, part in enumerate(schema.get("prefixItems", ()))
        ]
        items = schema.get("items", {} if not value else False)
        if items is False:
            return value
        inside = space + "  "
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if not value:
            self._say(f"{space}{title}: a list")
        while most is None or len(value) < most:
            name = f"{title}[{len(value)}]"
            if len(value) < least:
                value.append(self._ask(items, name, inside, depth + 1))
            elif self._form.is_scalar(items):
                one: dict[str, Any] = {}
                self._optional(one, name, _without(self._form.resolved(items), "default"), inside)
                if not one:
                    break
                value += one.values()
            elif self._yes(f"give {name}?", inside):
                value.append(self._ask(items, name, inside, depth + 1))
            else:
                break
        return value

    def _yes(self, title: str, space: str) -> bool:
        return self._read(f"{space}{title} [y/N]").strip().lower() in YES

    def _json(self, schema: Any, title: str, space: str) -> Any:
        while True:
            try:
                value = read_json(self._read(f"{space}{title} (JSON)"))
            except UsageError as error:
                self._say(f"{space}  {error.what}: {error.why}")
                continue
            if self._fits(schema, value, "it", space):
                return value


def _without(schema: Schema, name: str) -> dict[str, Any]:
    return {word: part for word, part in schema.items() if word != name}


def _choices(schema: Schema) -> Sequence[Any]:
    if "const" in schema:
        return [schema["const"]]
    choices = schema.get("enum", ())
    return choices if isinstance(choices, Sequence) else ()


def _hint(members: Sequence[Schema]) -> str:
    """Say in brackets what may be typed."""
    choices = [str(choice) for part in members for choice in _choices(part)]
    kinds = {str(part.get("type")) for part in members}
    if choices:
        said = "/".join(choices)
    elif kinds == {"boolean"}:
        return "y/n"
    elif "boolean" in kinds and kinds <= {"boolean", "null"}:
        said = "y/n"
    else:
        said = next(
            (_HINTS[part["format"]] for part in members if part.get("format") in _HINTS), ""
        )
    if "null" in kinds:
        said = f"{said}, empty: none" if said else "empty: none"
    return said


def _brackets(members: Sequence[Schema]) -> str:
    """Say what may be typed for a field that an empty line leaves out."""
    hint = _hint([part for part in members if part.get("type") != "null"])
    return f" [{hint}]" if hint else ""


def _said(members: Sequence[Schema]) -> str:
    """Say what is wanted."""
    kinds = [str(part["type"]) for part in members if "type" in part]
    words = {"boolean": "yes or no", "integer": "a whole number", "number": "a number"}
    return " or ".join(dict.fromkeys(words.get(kind, kind) for kind in kinds)) or "JSON"


def _name(schema: Schema) -> str:
    """Name a member of a union."""
    kind = schema.get("type")
    return one_line(schema.get("title") or ("none" if kind == "null" else kind) or "JSON", 60)
