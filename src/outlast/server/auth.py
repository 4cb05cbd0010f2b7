"""Who calls, and what they may do: the seam that users, keys and roles stand behind.

An :class:`Authenticator` makes an :class:`Identity` of a request, or refuses it; :func:`authorize`
alone decides whether an identity may do something. Nothing else in the server looks at either a
header or a role. The first authenticator is :class:`FirstToken`: one token with every permission,
drawn when the server first starts.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

from outlast.access import EVERYTHING, Permission, Rights
from outlast.errors import Forbidden, StoreReadOnly, Unauthenticated
from outlast.store.protocol import DEFAULT_NUMBER

PREFIX: Final = "otk_"
"""What a token begins with, so that scanners for secrets know one."""
TOKEN_BYTES: Final = 32
TOKEN_LENGTH_MAX: Final = 8_000
COOKIE: Final = "outlast_session"
FORM_HEADER: Final = "x-outlast-form"


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller that is known.

    Attributes:
        name: who it is: the actor of what it does.
        tenant: the one tenant whose things it sees.
        rights: what it may do.
        form: what a browser's writes must bring along; None for who came without a cookie.
    """

    name: str
    tenant: int = DEFAULT_NUMBER
    rights: Rights = EVERYTHING
    form: str | None = None


class Authenticator(Protocol):
    """Makes an identity of what a request brings."""

    async def authenticate(self, headers: Mapping[str, str]) -> Identity:
        """Say who calls.

        Args:
            headers: of the request, by names in lower case.

        Raises:
            Unauthenticated: nobody that is known.
        """


def may(identity: Identity, permission: Permission, tenant: int, task: str | None) -> bool:
    """Tell whether an identity may do something to a task's executions, or to a whole tenant."""
    return identity.tenant == tenant and identity.rights.allow(permission, tenant, task)


def authorize(identity: Identity, permission: Permission, tenant: int, task: str | None) -> None:
    """See that an identity may do something.

    Raises:
        Forbidden: it may not.
    """
    if not may(identity, permission, tenant, task):
        what = f"{permission} for {'everything' if task is None else f'the task {task}'}"
        raise Forbidden(f"{identity.name} lacks the permission {what}", where=identity.name)


def cookie_of(headers: Mapping[str, str]) -> str | None:
    """Give what the session's cookie holds; None where there is none, or several."""
    found = [
        value
        for name, _, value in (
            part.strip().partition("=") for part in headers.get("cookie", "").split(";")
        )
        if name == COOKIE
    ]
    return found[0] if len(found) == 1 else None


def see_form(identity: Identity, headers: Mapping[str, str]) -> None:
    """See that a browser's write was made by a page of ours.

    Raises:
        Forbidden: it came with a cookie alone, which a page of somebody else's may have sent.
    """
    said = headers.get(FORM_HEADER, "")
    if identity.form is not None and not hmac.compare_digest(said.encode(), identity.form.encode()):
        raise Forbidden(
            "a write with a cookie needs what its page was told",
            where=FORM_HEADER,
            do="send `form` of GET /api/v1/me along",
        )


class FirstToken:
    """One token that may do everything, kept as a digest in a file that only its owner can read.

    Args:
        digest: the SHA-256 of the token, as hexadecimal digits. (A token has 256 random bits: a
            slow hash would add nothing.)
    """

    def __init__(self, digest: str, *, name: str = "admin") -> None:
        self._digest = digest
        self._identity = Identity(name)

    @classmethod
    def of(cls, token: str) -> Self:
        """Take a token that is given, as by the environment."""
        return cls(_digest(token))

    @classmethod
    def drawn(cls) -> tuple[Self, str]:
        """Draw a token that is kept nowhere, for a store without a file; gives it as well."""
        token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        return cls.of(token), token

    @classmethod
    def at(cls, path: Path) -> tuple[Self, str | None]:
        """Take the token of a file, or draw one and write its digest; gives what was drawn.

        Raises:
            StoreReadOnly: the file cannot be read or made.
        """
        try:
            try:
                mode = path.stat().st_mode & 0o777
                if mode & 0o077:
                    path.chmod(0o600)
                return cls(path.read_text("ascii").strip()), None
            except FileNotFoundError:
                made, token = cls.drawn()
                _write_new(path, _digest(token))
                return made, token
        except FileExistsError:  # another server was first
            return cls(path.read_text("ascii").strip()), None
        except OSError as error:
            raise StoreReadOnly(
                "the token's file cannot be used", where=str(path), why=error.strerror or str(error)
            ) from None

    async def authenticate(self, headers: Mapping[str, str]) -> Identity:
        """Take the token of ``authorization: Bearer``, compared in constant time.

        Raises:
            Unauthenticated: there is none, or it is another one.
        """
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and 0 < len(token) <= TOKEN_LENGTH_MAX:
            if hmac.compare_digest(_digest(token.strip()), self._digest):
                return self._identity
            raise Unauthenticated("this token is not known here")
        raise Unauthenticated("the request brings no token")


def token_path(store: str) -> Path | None:
    """Say where the digest of a store's first token is kept: beside its file."""
    prefix = "sqlite:///"
    return Path(store[len(prefix) :] + ".token") if store.startswith(prefix) else None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _write_new(path: Path, text: str) -> None:
    """Write a file that was not there, for its owner only, whole or not at all."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    # A name that nobody can guess, and never a file or link that somebody else has put there.
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        draft.unlink()


__all__ = [
    "COOKIE",
    "FORM_HEADER",
    "Authenticator",
    "FirstToken",
    "Identity",
    "authorize",
    "cookie_of",
    "may",
    "see_form",
    "token_path",
]
