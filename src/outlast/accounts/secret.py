"""Texts that nobody can guess: tokens of programs, and what a browser holds of a session."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Final

TOKEN_PREFIX: Final = "otk_"  # noqa: S105 - so that scanners for secrets know one
SESSION_PREFIX: Final = "ose_"
SECRET_BYTES: Final = 32
_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"  # 32 of them, none like another
_TOKEN: Final = re.compile(r"otk_([a-z0-9]{10})\.[A-Za-z0-9_-]{43}")
_SESSION: Final = re.compile(r"ose_[A-Za-z0-9_-]{43}")


def drawn_token() -> tuple[str, str]:
    """Draw a token; gives its id, which may be known, and the whole, which may not."""
    id = "".join(secrets.choice(_ALPHABET) for _ in range(10))
    return id, f"{TOKEN_PREFIX}{id}.{secrets.token_urlsafe(SECRET_BYTES)}"


def token_id(text: str) -> str | None:
    """Give the id of what looks like a token; None for anything else."""
    found = _TOKEN.fullmatch(text)
    return found[1] if found else None


def drawn_session() -> str:
    """Draw what a browser holds of a session."""
    return SESSION_PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def looks_like_session(text: str) -> bool:
    """Tell whether it is worth asking the store."""
    return _SESSION.fullmatch(text) is not None


def digest_of(text: str) -> bytes:
    """Give what is stored of a secret with 256 random bits: a slow digest would add nothing."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def is_same(one: bytes, other: bytes) -> bool:
    """Compare in a time that does not tell where they differ."""
    return hmac.compare_digest(one, other)


def form_secret(session: str) -> str:
    """Give what a browser's writes must bring along besides its cookie, which scripts cannot read.

    Only who has got it from an answer of the server's can send it; another site's page cannot.
    """
    return hmac.new(session.encode(), b"outlast csrf", hashlib.sha256).hexdigest()


__all__ = [
    "digest_of",
    "drawn_session",
    "drawn_token",
    "form_secret",
    "is_same",
    "looks_like_session",
    "token_id",
]
