"""Read a task's arguments from the command line, by the types of its signature."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from outlast.codec import Codec, codec_for, hints_of, type_name
from outlast.errors import BadPayload, WrongArguments

if TYPE_CHECKING:
    from outlast.engine.task.registry import Task

Call = tuple[tuple[Any, ...], dict[str, Any]]
_YES: Final = ("true", "yes", "y", "on", "1")
_NO: Final = ("false", "no", "n", "off", "0")
_MANY: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def read_call(
    task: Task[Any, Any], words: Sequence[str], document: str | None, *, target: str = ""
) -> Call:
    """Give the arguments of a call, from words or from a JSON document.

    Args:
        task: whose signature says what is taken.
        words: ``--name value``, ``--name=value``, ``--flag``, ``--no-flag``, or plain values, in
            the order of the parameters.
        document: a JSON object of named arguments, or an array of positional ones.
        target: what the task was called, for messages.

    Raises:
        WrongArguments: there is one too many, or one is missing.
        BadPayload: a value is not of its parameter's type.
    """
    reader = _Reader(task, target or f"FILE:{task.name}")
    if document is not None:
        if words:
            raise reader.wrong(f"{' '.join(words)} beside a JSON document", "give one or the other")
        return reader.from_document(document)
    return reader.from_words(words)


class _Reader:
    def __init__(self, task: Task[Any, Any], target: str) -> None:
        self._task, self._target = task, target
        self._signature = task.input.signature
        try:
            hints = hints_of(task.fn)
        except BadPayload:
            hints = {}
        self._hints = hints
        self._parameters = self._signature.parameters

    def from_document(self, document: str) -> Call:
        try:
            value = msgspec.json.decode(document.encode("utf-8", "surrogateescape"))
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise self.wrong(
                "this is no JSON", f"{self._usage()} --json '{{\"name\": …}}'", str(error)
            ) from None
        if isinstance(value, list):
            named: dict[str, list[Any]] = {}
            for name, item in self._assign(value):
                named.setdefault(name, []).append(item)
            value = {name: self._gathered(name, items) for name, items in named.items()}
        if not isinstance(value, dict):
            raise self.wrong(
                "the JSON document is neither an object nor an array",
                "an object has the arguments by name, an array in order",
            )
        return self._built({name: msgspec.json.encode(item) for name, item in value.items()})

    def _gathered(self, name: str, items: list[Any]) -> Any:
        many = self._parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
        return items if many else items[0]

    def from_words(self, words: Sequence[str]) -> Call:
        plain, named = self._sorted(words)
        texts: dict[str, list[str]] = {}
        for name, text in [*self._assign(plain), *named]:
            texts.setdefault(name, []).append(text)
        return self._built({name: self._read(name, given) for name, given in texts.items()})

    def _sorted(self, words: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
        """Part words into plain values and named ones."""
        plain: list[str] = []
        named: list[tuple[str, str]] = []
        left = [self._as_text(word) for word in words]
        while left:
            word = left.pop(0)
            if word == "--":
                continue
            if not word.startswith("--"):
                plain.append(word)
                continue
            name, has_value, text = word[2:].partition("=")
            name = name.replace("-", "_") if name.replace("-", "_") in self._parameters else name
            if name not in self._parameters and self._is_switch_off(name):
                named.append((name[3:].replace("-", "_"), "false"))
            elif has_value:
                named.append((name, text))
            elif self._hints.get(name) is bool and not (left and left[0].lower() in _YES + _NO):
                named.append((name, "true"))
            elif left:
                named.append((name, left.pop(0)))
            else:
                raise self.wrong(f"--{name} has no value", f"--{name} VALUE")
        return plain, named

    def _as_text(self, word: str) -> str:
        """Give a word as the text that its bytes are, whatever the locale made of them."""
        try:
            return word.encode("utf-8", "surrogateescape").decode()
        except UnicodeError as error:
            raise self.wrong(f"{word[:80]!a} is no text", why=f"it is no UTF-8: {error}") from None

    def _is_switch_off(self, name: str) -> bool:
        return name.startswith("no-") and self._hints.get(name[3:].replace("-", "_")) is bool

    def _assign(self, values: Sequence[Any]) -> list[tuple[str, Any]]:
        """Give plain values their parameters, in order."""
        assigned: list[tuple[str, Any]] = []
        names = [
            parameter.name
            for parameter in self._parameters.values()
            if parameter.kind
            in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        ]
        rest = next(
            (
                p.name
                for p in self._parameters.values()
                if p.kind is inspect.Parameter.VAR_POSITIONAL
            ),
            None,
        )
        for place, value in enumerate(values):
            if place < len(names):
                assigned.append((names[place], value))
            elif rest is not None:
                assigned.append((rest, value))
            else:
                raise self.wrong(f"{value!r} is one value too many")
        return assigned

    def _read(self, name: str, texts: list[str]) -> bytes:
        """Read the values of one parameter; gives JSON that fits its type, if any does."""
        parameter = self._parameters.get(name)
        hint = self._hints.get(name, Any)
        if parameter is not None and parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return b"[" + b",".join(_value(text, codec_for(hint)) for text in texts) + b"]"
        if len(texts) == 1:
            return _value(texts[0], codec_for(hint))
        for items in (
            [msgspec.json.encode(text) for text in texts],
            [_json(text) for text in texts],
        ):
            together = b"[" + b",".join(item for item in items if item is not None) + b"]"
            if None not in items and _fits(together, codec_for(hint)):
                return together
        raise self.wrong(f"--{name} is given {len(texts)} times", f"--{name} VALUE, once")

    def _built(self, given: Mapping[str, bytes]) -> Call:
        """Make the arguments from JSON by parameter, having looked for strangers and gaps."""
        rest = next(
            (p.name for p in self._parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD),
            None,
        )
        document: dict[str, Any] = {}
        others: dict[str, Any] = {}
        for name, data in given.items():
            parameter = self._parameters.get(name)
            if parameter is not None and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                document[name] = msgspec.Raw(data)
            elif rest is not None:
                others[name] = msgspec.Raw(data)
            else:
                near = difflib.get_close_matches(name, self._parameters, 1)
                raise self.wrong(
                    f"{self._task.name} has no parameter {name}",
                    why=f"did you mean {near[0]}?" if near else "",
                )
        if rest is not None:
            document[rest] = others
        missing = [
            name
            for name, parameter in self._parameters.items()
            if parameter.default is inspect.Parameter.empty
            and parameter.kind not in _MANY
            and name not in document
        ]
        if missing:
            raise self.wrong(f"{self._task.name} needs {' and '.join(missing)}")
        try:
            return self._task.input.unbind(msgspec.json.encode(document))
        except BadPayload as error:
            raise BadPayload(
                error.what.replace(
                    ": the stored bytes do not fit the parameters", " does not fit its type"
                ),
                where=error.where,
                why=error.why,
                do=self._usage(),
            ) from None

    def wrong(self, what: str, do: str = "", why: str = "") -> WrongArguments:
        return WrongArguments(
            what, where=f"{self._task.name}{self._signature}", why=why, do=do or self._usage()
        )

    def _usage(self) -> str:
        words = [f"outlast run {self._target}"]
        for name, parameter in self._parameters.items():
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                words.append(f"[{name.upper()}…]")
                continue
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                words.append("[--NAME VALUE…]")
                continue
            word = f"--{name.replace('_', '-')} {type_name(self._hints.get(name, Any)).upper()}"
            is_needed = parameter.default is inspect.Parameter.empty
            words.append(word if is_needed else f"[{word}]")
        return " ".join(words)


def _value(text: str, codec: Codec[Any]) -> bytes:
    """Read one value: as text where the type takes text, else as JSON."""
    as_text, as_json = msgspec.json.encode(text), _json(text)
    if codec.tp in (Any, object):
        return as_json or as_text
    if codec.tp is bool and text.lower() in _YES + _NO:
        return b"true" if text.lower() in _YES else b"false"
    if _fits(as_text, codec) or as_json is None:
        return as_text
    return as_json


def _json(text: str) -> bytes | None:
    data = text.encode()
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    return data


def _fits(data: bytes, codec: Codec[Any]) -> bool:
    try:
        codec.decode(data)
    except BadPayload:
        return False
    return True
