"""JSON as the server takes it: exactly one meaning, of a bounded size.

A key that stands twice, a number that is none, a field that nobody knows or something after the end
would each mean one thing here and another elsewhere; so each is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from outlast.errors import BadPayload, BadRequest

T = TypeVar("T")
DEPTH_MAX: Final = 64
BODY_BYTES_MAX: Final = 2_097_152
_OPENING: Final = re.compile(rb"[\[{]")
_PLACE: Final = re.compile(r" - at `(.+)`$")
_DO: Final = "GET /openapi.json says which form it must have"


def unfit(path: str, why: str, where: str) -> BadPayload:
    """Make the error of a part of a request, by its JSON path, that does not have its form."""
    error = BadPayload(f"{path}: {why}", where=where, why=why, do=_DO)
    error.path = path
    return error


def decoded(data: bytes, form: type[T]) -> T:
    """Read a body.

    Raises:
        BadRequest: it is no JSON of one meaning.
        BadPayload: it does not have the form.
    """
    looked_through(data)
    try:
        return msgspec.json.decode(data, type=form)
    except msgspec.ValidationError as error:
        raise _unfit(error, "body") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise _no_json(str(error)) from None


def looked_through(data: bytes) -> None:
    """See that a document has one meaning and is not too deep.

    Raises:
        BadRequest: it does not.
    """
    if len(_OPENING.findall(data)) > DEPTH_MAX and _depth(data) > DEPTH_MAX:
        raise _no_json(f"it is nested deeper than {DEPTH_MAX}")
    try:
        _LOOK(data.decode())
    except _Double as error:
        raise _no_json(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise _no_json(str(error)) from None


def converted(words: Mapping[str, Any], form: type[T]) -> T:
    """Read the parameters of a query string.

    Raises:
        BadPayload: they do not have the form.
    """
    try:
        return msgspec.convert(words, form, strict=False)
    except msgspec.ValidationError as error:
        raise _unfit(error, "query") from None


class _Double(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Double(f"the key {twice[:80]!a} stands twice in one object")
    return found


def _no_number(word: str) -> None:
    raise _Double(f"{word} is no number of JSON")


_LOOK: Final = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number).decode


def _depth(data: bytes) -> int:
    """Count how deep a document is nested, brackets in texts left out."""
    deepest = depth = 0
    for token in re.finditer(rb'"(?:[^"\\]|\\.)*"|[\[{\]}]', data):
        sign = token.group()
        if sign in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif sign in (b"]", b"}"):
            depth -= 1
    return deepest


def _unfit(error: msgspec.ValidationError, where: str) -> BadPayload:
    text = str(error)
    place = _PLACE.search(text)
    return unfit(place.group(1) if place else "$", _PLACE.sub("", text), where)


def _no_json(why: str) -> BadRequest:
    why = why.encode(errors="backslashreplace").decode()
    return BadRequest("the body is no JSON that can be taken", where="body", why=why[:400], do=_DO)


__all__ = ["BODY_BYTES_MAX", "DEPTH_MAX", "converted", "decoded", "looked_through", "unfit"]
