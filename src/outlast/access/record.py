"""What a store keeps of users, tokens, sessions and grants; secrets only as digests."""

from __future__ import annotations

from dataclasses import dataclass

from outlast.access.decide import Grant


@dataclass(frozen=True, slots=True)
class User:
    """A person who signs in with a password.

    Attributes:
        name: the name; as the holder of grants it is ``user:NAME``.
        password: what argon2id made of the password, with its salt and cost.
        created_at: since when.
        disabled_at: since when nothing is allowed any more, or None.
    """

    name: str
    password: str
    created_at: int
    disabled_at: int | None = None

    @property
    def subject(self) -> str:
        """The holder of its grants."""
        return f"user:{self.name}"


@dataclass(frozen=True, slots=True)
class Token:
    """A text by which a program shows who it is.

    Attributes:
        id: the part of it that may be known: 10 characters.
        digest: the SHA-256 of the whole; it has 256 random bits, so a slow hash would add nothing.
        name: what it is for.
        owner: the user whose rights bound it, or None.
        grants: what it was made for; they never change.
        created_at, created_by: when, and by whom.
        expires_at: until when it counts, or None.
        used_at: when it was last used, to the minute; None for never.
        revoked_at: since when it counts no more, or None.
    """

    id: str
    digest: bytes
    name: str
    owner: str | None
    grants: tuple[Grant, ...]
    created_at: int
    created_by: str
    expires_at: int | None = None
    used_at: int | None = None
    revoked_at: int | None = None

    @property
    def subject(self) -> str:
        """Who acts with it."""
        return f"token:{self.id}"

    def is_good(self, now: int) -> bool:
        """Whether it counts at an instant."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class Session:
    """That a user has signed in.

    Attributes:
        digest: the SHA-256 of what the browser holds.
        user: the name.
        created_at, seen_at: when it began, and when it was last used, to the minute.
        expires_at: when it ends, whatever happens.
    """

    digest: bytes
    user: str
    created_at: int
    seen_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Held:
    """A grant, and who has it.

    Attributes:
        subject: ``user:NAME``, or ``group:NAME`` of an OpenID provider.
        grant: the grant.
        at, by: since when, and who gave it.
    """

    subject: str
    grant: Grant
    at: int
    by: str


__all__ = ["Held", "Session", "Token", "User"]
