"""Signed one-time tokens: whoever holds one may answer one question, and nothing else.

Theory of operation. A token is four parts with dots between, all of letters that need no quoting
in a URL: ``ot1``, the mark of the store, what it permits, and an HMAC-SHA256 over all of that. The
key is a secret that the store draws when the first token is made and keeps for good; backups have
it, and nothing shows it. The mark is made of that secret, too: it tells a token of another store
from a forged one.

A token permits nothing by itself. It leads to an answer like any other, so it is used up by the
rule that the first answer wins, which the database guards; no list of used tokens is kept. The note
of an answer says by which token it came.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Final

import msgspec

from outlast.errors import TokenExpired, TokenForeign, TokenInvalid
from outlast.store.protocol import DEFAULT_NUMBER

SECRET_NAME: Final = "answer_tokens"  # noqa: S105 - where it is kept
SECRET_BYTES: Final = 32
EXPIRES: Final = "7d"
TEXT_LENGTH_MAX: Final = 16_000
"""Characters of a token: names in it have at most 1,000 each, of up to four bytes."""
_VERSION: Final = "ot1"


class Permit(msgspec.Struct, frozen=True, array_like=True):
    """What a token permits.

    Attributes:
        id: random; the note of the answer names it.
        tenant: whose execution it is.
        execution_id: the execution.
        key: the question.
        title: a digest of its text, so that a changed code's question of this key is another.
        to: who had to answer it.
        actor: who the answer is noted for.
        expires_at: when it ends, in microseconds since 1970.
    """

    id: str
    tenant: int
    execution_id: str
    key: str
    title: str
    to: str | None
    actor: str
    expires_at: int


def drawn() -> bytes:
    """Draw what may become a store's secret."""
    return secrets.token_bytes(SECRET_BYTES)


def title_digest(title: str) -> str:
    """Stand for a question's text."""
    return hashlib.blake2b(title.encode(), digest_size=8).hexdigest()


def permit(
    execution_id: str,
    key: str,
    title: str,
    to: str | None,
    actor: str,
    expires_at: int,
    tenant: int = DEFAULT_NUMBER,
) -> Permit:
    """Make a permit with an id of its own."""
    digest = title_digest(title)
    return Permit(secrets.token_hex(8), tenant, execution_id, key, digest, to, actor, expires_at)


def sign(secret: bytes, permitted: Permit) -> str:
    """Write a token."""
    said = f"{_VERSION}.{_mark(secret)}.{_text(msgspec.json.encode(permitted))}"
    return f"{said}.{_signature(secret, said)}"


def read(secret: bytes, token: object, now: int, tenant: int = DEFAULT_NUMBER) -> Permit:
    """Read a token of a tenant.

    Raises:
        TokenForeign: another store has made it.
        TokenInvalid: nobody has made it, or it was changed on the way.
        TokenExpired: its time has passed.
    """
    if not isinstance(token, str) or len(token) > TEXT_LENGTH_MAX or not token.isascii():
        raise _invalid("it is no text of a token")
    said, _, signature = token.strip().rpartition(".")
    version, _, rest = said.partition(".")
    mark, _, body = rest.partition(".")
    if version != _VERSION or not body:
        raise _invalid(f'a token begins with "{_VERSION}." and has four parts')
    # Both are compared whatever the other gives, and in constant time: no guess gets any nearer.
    is_ours = hmac.compare_digest(mark.encode(), _mark(secret).encode())
    is_signed = hmac.compare_digest(signature.encode(), _signature(secret, said).encode())
    if not is_ours:
        raise TokenForeign(
            "this token is for another store",
            why="its mark is not this store's",
            do="name the store that it was made for: --store, OUTLAST_STORE",
        )
    if not is_signed:
        raise _invalid("its signature does not fit")
    try:
        permitted = msgspec.json.decode(_bytes(body), type=Permit)
    except (msgspec.MsgspecError, binascii.Error) as error:
        raise _invalid(str(error)) from None
    if permitted.tenant != tenant:
        raise _invalid("it is for another tenant")
    if now >= permitted.expires_at:
        raise TokenExpired(
            "this token has expired",
            where=f"{permitted.execution_id}, {permitted.key}",
            do="ask for a new one",
        )
    return permitted


def _invalid(why: str) -> TokenInvalid:
    return TokenInvalid(
        "this is no token of this store", why=why, do="copy the whole token, or ask for a new one"
    )


def _mark(secret: bytes) -> str:
    return _text(hmac.digest(secret, b"outlast: the mark of a store", "sha256")[:6])


def _signature(secret: bytes, said: str) -> str:
    return _text(hmac.digest(secret, b"outlast: an answer token\0" + said.encode(), "sha256"))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
