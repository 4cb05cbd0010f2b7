"""Arguments of a task whose code is not here: read by the schema that its server shows."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from outlast.cli.prompting import NO, YES, read_json, read_value
from outlast.errors import UsageError, WrongArguments


def is_name(target: str) -> bool:
    """Tell whether a target may be the name of a task, as it names no file and nothing in one."""
    return ":" not in target and "/" not in target and not target.endswith(".py")


def read_arguments(
    task: str, schema: Mapping[str, Any], words: Sequence[str], document: str | None
) -> dict[str, Any]:
    """Read the arguments of a task, from words or from a JSON document; the server checks them.

    Args:
        task: its name.
        schema: what its input is, as JSON Schema.
        words: ``--name value``, ``--name=value``, ``--flag``, ``--no-flag``, or plain values, in
            the order of the schema.
        document: a JSON object of named arguments, or an array of them in order.

    Raises:
        WrongArguments: there is one too many, or one is missing.
        UsageError: a value is no JSON where its form wants that.
    """
    reader = _Reader(task, schema)
    if document is None:
        return reader.from_words(words)
    if words:
        raise reader.wrong(f"{' '.join(words)} beside a JSON document", "give one or the other")
    return reader.from_document(document)


class _Reader:
    def __init__(self, task: str, schema: Mapping[str, Any]) -> None:
        self._task = task
        self._schema = schema
        self._fields: Mapping[str, Mapping[str, Any]] = schema.get("properties") or {}

    def from_document(self, document: str) -> dict[str, Any]:
        value = read_json(document)
        if isinstance(value, list):
            return self._whole(dict(self._in_order(value)))
        if not isinstance(value, dict):
            raise self.wrong("the JSON document is neither an object nor an array")
        return self._whole(value)

    def from_words(self, words: Sequence[str]) -> dict[str, Any]:
        given: dict[str, Any] = {}
        plain: list[str] = []
        left = list(words)
        while left:
            word = left.pop(0)
            if word == "--":
                continue
            if not word.startswith("--"):
                plain.append(word)
                continue
            said, has_value, text = word[2:].partition("=")
            name = said if said in self._fields else said.replace("-", "_")
            off = name.removeprefix("no_")
            if name not in self._fields and self._is_switch(off):
                given[off] = False
            elif has_value:
                given[name] = self._read(name, text)
            elif self._is_switch(name) and not (left and left[0].lower() in YES + NO):
                given[name] = True
            elif left:
                given[name] = self._read(name, left.pop(0))
            else:
                raise self.wrong(f"--{said} has no value")
        for name, text in self._in_order(plain):
            given[name] = self._read(name, text)
        return self._whole(given)

    def _is_switch(self, name: str) -> bool:
        return self._fields.get(name, {}).get("type") == "boolean"

    def _in_order(self, values: Sequence[Any]) -> list[tuple[str, Any]]:
        if len(values) > len(self._fields):
            raise self.wrong(f"{values[len(self._fields)]!r} is one value too many")
        return list(zip(self._fields, values, strict=False))

    def _read(self, name: str, text: str) -> Any:
        field = self._fields.get(name)
        if field is None:
            raise self._stranger(name)
        named = self._schema.get("$defs")
        try:
            return read_value({**field, "$defs": named} if named else field, text)
        except UsageError as error:
            raise self.wrong(f"--{name}: {error.what}", why=error.why) from None

    def _whole(self, given: dict[str, Any]) -> dict[str, Any]:
        strangers = given.keys() - self._fields.keys()
        if strangers and self._schema.get("additionalProperties") is False:
            raise self._stranger(min(strangers))
        missing = [name for name in self._schema.get("required", ()) if name not in given]
        if missing:
            raise self.wrong(f"{self._task} needs {' and '.join(missing)}")
        return given

    def _stranger(self, name: str) -> WrongArguments:
        near = difflib.get_close_matches(name, self._fields, 1)
        why = f"did you mean {near[0]}?" if near else ""
        return self.wrong(f"{self._task} has no parameter {name}", why=why)

    def wrong(self, what: str, do: str = "", why: str = "") -> WrongArguments:
        usage = [f"outlast start {self._task}"]
        needed = self._schema.get("required", ())
        for name in self._fields:
            word = f"--{name.replace('_', '-')} VALUE"
            usage.append(word if name in needed else f"[{word}]")
        return WrongArguments(what, where=self._task, why=why, do=do or " ".join(usage))


__all__ = ["is_name", "read_arguments"]
