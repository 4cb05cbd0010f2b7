"""The names that people give: keys, queues, signals, senders, questions, reasons."""

from __future__ import annotations

from typing import Final

from outlast.errors import UsageError

NAME_LENGTH_MAX: Final = 1_000
"""Characters of a key, queue, sender, signal or step."""
TEXT_LENGTH_MAX: Final = 10_000
"""Characters of a question or a reason."""


def checked_name(name: str, what: str) -> str:
    """Give a name back, having seen that it can be stored and looked up.

    Raises:
        UsageError: it is empty, too long, no text, or holds a lone surrogate.
    """
    if not name:
        raise UsageError(f"the {what} is empty", do="leave it out, or name it")
    return checked_text(name, what, length_max=NAME_LENGTH_MAX)


def checked_text(text: str, what: str, *, length_max: int = TEXT_LENGTH_MAX) -> str:
    """Give a text back, having seen that it can be stored.

    Raises:
        UsageError: it is too long, no text, or holds a lone surrogate.
    """
    if not isinstance(text, str):
        raise UsageError(f"the {what} is {type(text).__name__}, not str")
    if len(text) > length_max:
        raise UsageError(
            f"the {what} has {len(text):,} characters", why=f"the limit is {length_max:,}"
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


__all__ = ["NAME_LENGTH_MAX", "TEXT_LENGTH_MAX", "checked_name", "checked_text"]
