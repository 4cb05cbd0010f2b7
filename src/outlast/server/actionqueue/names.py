"""ActionQueue's names: ids of tasks, runs and attempts, and the words of its refusals."""

from __future__ import annotations

import uuid
from typing import Any, Final

import msgspec

from outlast.errors import BadRequest, OutlastError
from outlast.server.call import Call
from outlast.server.problem import status_of
from outlast.server.route import Style

TASK, RUN, ATTEMPT = 1, 2, 3
_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_SCHEDULES: Final = uuid.UUID("5c0e1c5e-7a0c-5f0e-8b7e-6f75746c6173")
_LOW: Final = (1 << 62) - 1


# Refusals


class ErrorForm(msgspec.Struct):
    """What went wrong, in ActionQueue's words."""

    error: str
    message: str
    details: dict[str, Any]


WORDS: Final = frozenset(
    {
        "invalid_run_id", "run_not_found", "invalid_task_id", "task_not_found",
        "invalid_tenant_id", "tenant_not_found", "invalid_actor_id", "actor_not_found",
        "invalid_pagination", "invalid_payload",
        "unknown_role", "unknown_capability",
    }
)  # fmt: skip
"""The words it refuses by; all else has the code of our error."""


def refusal(
    word: str, message: str, name: str = "", value: str = "", status: int = 400
) -> BadRequest:
    """Refuse by a word of ActionQueue's, with one detail."""
    return BadRequest(message, status=status, where=word, why=f"{name}={value}" if name else "")


def _told(error: OutlastError, instance: str) -> ErrorForm:
    if isinstance(error, BadRequest) and error.where in WORDS:
        name, _, value = error.why.partition("=")
        return ErrorForm(error.where, error.what, {name: value} if name else {})
    if status_of(error) == 500:
        return ErrorForm("internal_error", "the server met an error that is not yours", {})
    return ErrorForm(error.code, error.what, {})


STYLE: Final = Style(form=ErrorForm, media="application/json", write=_told)


# Names


def id_of(name: str, kind: int, number: int = 0) -> str:
    """Write the id of an execution as a UUID of version 8: as a task, a run or an attempt."""
    bits = 0
    for digit in name.removeprefix("ex_"):
        bits = bits << 5 | _DIGITS.index(digit)
    body = bits << 22 | kind << 18 | number  # 122 bits: 100, 4 and 18
    high, middle, low = body >> 74, body >> 62 & 0xFFF, body & _LOW
    return str(uuid.UUID(int=high << 80 | 8 << 76 | middle << 64 | 2 << 62 | low))


def named(text: str, kind: int) -> str | None:
    """Read the id of an execution out of such a UUID; None where there is none in it.

    Raises:
        ValueError: it is no UUID.
    """
    number = uuid.UUID(text).int
    if number >> 76 & 15 != 8 or number >> 62 & 3 != 2:
        return None
    body = (number >> 80) << 74 | (number >> 64 & 0xFFF) << 62 | number & _LOW
    if body >> 18 & 15 != kind or body & 0x3FFFF:
        return None
    bits = body >> 22
    return "ex_" + "".join(_DIGITS[bits >> shift & 31] for shift in range(95, -5, -5))


def schedule_id(name: str) -> str:
    """Give the id of a schedule as a task."""
    return str(uuid.uuid5(_SCHEDULES, name))


def uuid_in(call: Call, what: str) -> str:
    """Give the UUID that the path names, in the usual spelling.

    Raises:
        BadRequest: it is none, or nil.
    """
    return checked_uuid(call.path["uuid"], what)


def checked_uuid(text: str, what: str) -> str:
    """Give a UUID in the usual spelling.

    Raises:
        BadRequest: it is none, or nil.
    """
    try:
        found = uuid.UUID(text)
    except ValueError:
        found = uuid.UUID(int=0)
    if not found.int or str(found) != text.lower():
        said = f"{text[:80]!a} is no id of {what}"
        raise refusal(f"invalid_{what}_id", said, f"{what}_id", text[:80])
    return str(found)


def no_such(what: str, id: str) -> BadRequest:
    """Say that there is none; the same to whoever may not see it."""
    said = f"there is no {what} {id}"
    return refusal(f"{what}_not_found", said, f"{what}_id", id, 404)


__all__ = [
    "ATTEMPT", "RUN", "STYLE", "TASK", "ErrorForm", "checked_uuid", "id_of", "named", "no_such",
    "refusal", "schedule_id", "uuid_in",
]  # fmt: skip
