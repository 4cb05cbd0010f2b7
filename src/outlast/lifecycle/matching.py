"""Which signals a wait is for: a pattern of JSON that their value must contain."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence


def contains(value: object, wanted: object) -> bool:
    """Tell whether a JSON value contains a pattern.

    An object contains another if it has all its fields, each containing what is wanted there. All
    else must be equal as JSON is: ``1`` is ``1.0``, but ``true`` is not ``1``, and a list has the
    same items in the same order.
    """
    if isinstance(wanted, Mapping):
        return isinstance(value, Mapping) and all(
            name in value and contains(value[name], part) for name, part in wanted.items()
        )
    return is_equal(value, wanted)


def is_equal(one: object, other: object) -> bool:
    """Tell whether two JSON values are the same value."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(is_equal(one[n], other[n]) for n in one)
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    if isinstance(one, Sequence) and isinstance(other, Sequence):
        return len(one) == len(other) and all(map(is_equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def payload_contains(payload: bytes | None, wanted: object) -> bool:
    """Tell whether the JSON in a payload contains a pattern; what is no JSON contains nothing."""
    try:
        value = json.loads(payload or b"null")
    except (ValueError, RecursionError):
        return False
    return contains(value, wanted)
