"""The names that people give: keys, queues, signals, senders, questions, reasons."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

from outlast.errors import UsageError

NAME_LENGTH_MAX: Final = 1_000
"""Characters of a key, queue, sender, signal or step."""
TEXT_LENGTH_MAX: Final = 10_000
"""Characters of a question or a reason."""
SCHEDULE_ORIGIN: Final = "schedule:"
"""What the origin of a schedule's executions begins with; its name follows."""
LABELS_MAX: Final = 32
"""Labels that are set at once."""
LABEL_LENGTH_MAX: Final = 200
"""Characters of a label's name, and of its value."""
PRIORITY_MAX: Final = 2**31 - 1
_TENANT: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def checked_name(name: str, what: str) -> str:
    """Give a name back, having seen that it can be stored and looked up.

    Raises:
        UsageError: it is empty, too long, no text, or holds a NUL or a lone surrogate.
    """
    if not name:
        raise UsageError(f"the {what} is empty", do="leave it out, or name it")
    return checked_text(name, what, length_max=NAME_LENGTH_MAX)


def checked_tenant(name: str) -> str:
    """Give a name back, having seen that it can be a tenant's.

    Raises:
        UsageError: it is not of small letters, digits, "-" and "_", 63 at most, a letter first.
    """
    if not _TENANT.fullmatch(str(name)):
        raise UsageError(
            f"{str(name)[:80]!a} is no name of a tenant",
            do='write small letters, digits, "-" and "_", a letter first, 63 at most',
        )
    return name


def tenant_of(name: str | None) -> str:
    """Give the name of the tenant that is meant: the environment's, else ``default``.

    Raises:
        UsageError: it can be no tenant's.
    """
    return checked_tenant(name or os.environ.get("OUTLAST_TENANT") or "default")


def checked_text(text: str, what: str, *, length_max: int = TEXT_LENGTH_MAX) -> str:
    """Give a text back, having seen that it can be stored.

    Raises:
        UsageError: it is too long, no text, or holds a NUL or a lone surrogate.
    """
    if not isinstance(text, str):
        raise UsageError(f"the {what} is {type(text).__name__}, not str")
    if len(text) > length_max:
        raise UsageError(
            f"the {what} has {len(text):,} characters", why=f"the limit is {length_max:,}"
        )
    if "\0" in text:  # PostgreSQL has no such character
        raise UsageError(
            f"the {what} cannot be stored: {text[:80]!a}",
            why=f"a NUL character at place {text.index(chr(0))}",
        )
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the {what} cannot be stored: {text[:80]!a}",
                why=f"a lone surrogate at place {error.start}",
            ) from None
    return text


def checked_labels(labels: Mapping[str, str | None]) -> dict[str, str | None]:
    """Give labels back, having seen that they can be stored and looked up.

    Raises:
        UsageError: there are too many, a name is none, or a value is no text.
    """
    if len(labels) > LABELS_MAX:
        raise UsageError(f"{len(labels)} labels are too many", why=f"the limit is {LABELS_MAX}")
    for name, value in labels.items():
        checked_text(checked_name(name, "label"), "label", length_max=LABEL_LENGTH_MAX)
        if value is not None:
            checked_text(value, f'label "{name}"', length_max=LABEL_LENGTH_MAX)
    return dict(labels)


def checked_priority(priority: int) -> int:
    """Give a priority back, having seen that it can be stored.

    Raises:
        UsageError: it is no whole number, or too large.
    """
    if type(priority) is not int:
        raise UsageError(f"the priority is {type(priority).__name__}, not int")
    if abs(priority) > PRIORITY_MAX:
        raise UsageError(
            f"the priority {priority} is too large", why=f"the limit is {PRIORITY_MAX}"
        )
    return priority


__all__ = [
    "NAME_LENGTH_MAX",
    "SCHEDULE_ORIGIN",
    "TEXT_LENGTH_MAX",
    "checked_labels",
    "checked_name",
    "checked_priority",
    "checked_tenant",
    "checked_text",
    "tenant_of",
]
