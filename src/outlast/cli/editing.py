"""Edit the input of an execution that is made of another one: by paths, in an editor, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from outlast.cli.prompting import read_json
from outlast.cli.words import one_line
from outlast.errors import BadPayload, UnknownTask, UsageError

if TYPE_CHECKING:
    from outlast.engine.task.registry import Task


def edited(
    recorded: bytes,
    document: str | None,
    sets: Sequence[str],
    in_editor: bool,
    task: Task[Any, Any] | None,
) -> bytes:
    """Give an input as it is to be, as JSON.

    Args:
        recorded: the input as it is.
        document: what takes its place, as JSON.
        sets: values by path, as ``order.cents=900``; a value is JSON, or else a text.
        in_editor: let a person edit it.
        task: whose types the values must fit.

    Raises:
        UsageError: a path leads nowhere, or what came is no JSON.
        UnknownTask: nobody knows the types.
    """
    if task is None:
        raise UnknownTask(
            "an input is edited by the types of its task",
            why="the file that defines the task was not named",
            do="add --file FILE, or leave the input as it is",
        )
    if document is not None:
        recorded = document.encode()
        read_json(document)
    whole = json.loads(recorded)
    if in_editor:
        text = click.edit(json.dumps(whole, indent=2, ensure_ascii=False), extension=".json")
        if text is None:
            raise UsageError("the input was not edited", do="save it in the editor")
        whole = read_json(text)
    texts = [word.partition("=") for word in sets]
    for path, has_value, value in texts:
        if not has_value:
            raise UsageError(f'"{one_line(path, 40)}" has no value', do="--set NAME=VALUE")
        _put(whole, path, _value(value))
    if not _fits(whole, task):
        for path, _, value in texts:  # what looks like JSON may be meant as a text
            before = json.loads(json.dumps(whole))
            _put(whole, path, value)
            if _fits(whole, task):
                break
            whole = before
    return json.dumps(whole, ensure_ascii=False).encode()


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _fits(whole: Any, task: Task[Any, Any]) -> bool:
    try:
        task.input.unbind(json.dumps(whole).encode())
    except BadPayload:
        return False
    return True


def _put(whole: Any, path: str, value: Any) -> None:
    """Put a value where a path leads to; the last name of it may be new."""
    *steps, last = path.split(".")
    place = whole
    try:
        for step in steps:
            place = place[int(step) if isinstance(place, list) else step]
        place[int(last) if isinstance(place, list) else last] = value
    except (LookupError, TypeError, ValueError):
        raise UsageError(
            f'the input has no place "{one_line(path, 80)}"', do="outlast show ID, to see it"
        ) from None
