"""Passwords, made into something that cannot be turned back: argon2id, at the library's cost."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from outlast.errors import UsageError
from outlast.extras import needed

if TYPE_CHECKING:
    from argon2 import PasswordHasher

LENGTH_MIN: Final = 10
LENGTH_MAX: Final = 1_000


@cache
def _hasher() -> PasswordHasher:
    with needed("server", "users with passwords"):
        from argon2 import PasswordHasher
    return PasswordHasher()


@cache
def _nobodys() -> str:
    """Give what some password was made into, so that a name which is nobody's takes as long."""
    return _hasher().hash("a password that nobody has")


def made_of(password: str) -> str:
    """Make a password into what is stored.

    Raises:
        UsageError: it is too short or too long.
        CannotLoad: argon2-cffi is not installed.
    """
    if not LENGTH_MIN <= len(password) <= LENGTH_MAX:
        raise UsageError(
            f"the password has {len(password):,} characters",
            why=f"{LENGTH_MIN} are the least, {LENGTH_MAX:,} the most",
            do="take several words",
        )
    try:
        return _hasher().hash(password)
    except UnicodeEncodeError:
        raise UsageError("the password is no text", do="write it in UTF-8") from None


def is_right(stored: str | None, password: str) -> bool:
    """Tell whether a password is the one that was stored; for None it takes as long, and is not."""
    from argon2.exceptions import VerificationError

    if len(password) > LENGTH_MAX:
        return False
    try:
        _hasher().verify(stored or _nobodys(), password)
    except (VerificationError, UnicodeEncodeError):
        return False
    return stored is not None


__all__ = ["LENGTH_MAX", "LENGTH_MIN", "is_right", "made_of"]
