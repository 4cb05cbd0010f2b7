"""The desk where users and tokens are made, and where somebody shows who they are.

Theory of operation. What is stored of a secret is a digest, so the store's thief cannot use it. A
sign-in counts as failed before the password is looked at, in a transaction of its own, so guesses
that come at once wait as well; the one that succeeds forgives the others. A name that is nobody's
takes as long, and waits as long, as one that is somebody's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from outlast.access import Grant, Rights
from outlast.access.audit import Deed
from outlast.access.record import Held, Session, Token, User
from outlast.accounts import password as passwords
from outlast.accounts import secret
from outlast.errors import NameTaken, NotFound, TooManyAttempts, Unauthenticated, UsageError
from outlast.naming import checked_text
from outlast.store.protocol import Access

NAME_LENGTH_MAX: Final = 100
SESSION_US: Final = 7 * 86_400_000_000
"""How long a session lasts at most."""
IDLE_US: Final = 8 * 3_600_000_000
"""How long it lasts unused."""
NOTED_US: Final = 60_000_000
"""How exactly the last use of a token or session is noted: a write a minute, not a request."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who has shown who they are.

    Attributes:
        name: the actor of what they do: ``user:ada``, ``token:…``.
        rights: what they may do.
        user: the user's name, or None for a token without an owner.
        used_at: when the token or session was last noted as used.
        session: its digest, for who has signed in.
    """

    name: str
    rights: Rights
    user: str | None = None
    used_at: int = 0
    session: bytes | None = None


class Desk:
    """Makes, changes and asks; every change is a deed of whoever makes it.

    Args:
        access: the verbs of the store; the writing ones are called from the caller's thread.
    """

    def __init__(self, access: Access) -> None:
        self._access = access

    # Users

    def add_user(self, name: str, password: str, deed: Deed, grants: Sequence[Grant] = ()) -> User:
        """Add a user; takes its time on purpose.

        Raises:
            NameTaken: there is one of this name.
            UsageError: the name, or the password, is none.
        """
        return self.enroll(name, passwords.made_of(password), deed, grants)

    def enroll(self, name: str, made: str, deed: Deed, grants: Sequence[Grant] = ()) -> User:
        """Add a user, with what was made of the password already.

        Raises:
            NameTaken: there is one of this name.
            UsageError: the name is none.
        """
        user = User(checked_user(name), made, deed.at)
        if not self._access.add_user(user, deed):
            raise NameTaken(f"there is a user {name} already", do=f"outlast user password {name}")
        for grant in grants:
            self.give(user.subject, grant, deed)
        return user

    def set_password(self, name: str, password: str, deed: Deed) -> None:
        """Give a user another password, and end the sessions; takes its time on purpose.

        Raises:
            NotFound: there is no such user.
            UsageError: the password is none.
        """
        self.set_made(name, passwords.made_of(password), deed)

    def set_made(self, name: str, made: str, deed: Deed) -> None:
        """Give a user another password, of which something was made already; sessions end.

        Raises:
            NotFound: there is no such user.
        """
        if not self._access.set_password(name, made, deed):
            raise no_user(name)

    def disable(self, name: str, deed: Deed, *, disabled: bool = True) -> bool:
        """Let a user do nothing any more, or let them again; gives whether it changed anything.

        Raises:
            NotFound: there is no such user.
        """
        changed = self._access.disable(name, deed.at if disabled else None, deed)
        if not changed and self._access.user(name) is None:
            raise no_user(name)
        return changed

    # Grants

    def give(self, subject: str, grant: Grant, deed: Deed) -> bool:
        """Grant a role to ``user:NAME`` or ``group:NAME``; gives whether it was not there.

        Raises:
            NotFound: there is no such user.
        """
        self._see(subject)
        return self._access.give(Held(subject, grant, deed.at, deed.by), deed)

    def take_back(self, subject: str, grant: Grant, deed: Deed) -> None:
        """Take a grant back.

        Raises:
            NotFound: it was not there.
        """
        if not self._access.take_back(checked_subject(subject), grant, deed):
            raise NotFound(f"{subject} does not have the role {grant}", do="outlast role ls")

    def _see(self, subject: str) -> None:
        kind, _, name = checked_subject(subject).partition(":")
        if kind == "user" and self._access.user(name) is None:
            raise no_user(name)

    # Tokens

    def make_token(
        self,
        name: str,
        grants: Sequence[Grant],
        deed: Deed,
        *,
        owner: str | None = None,
        expires_at: int | None = None,
    ) -> tuple[Token, str]:
        """Make a token; gives it, and the text that is shown once.

        Raises:
            NotFound: there is no such owner.
            UsageError: it would permit nothing, or the name is none.
        """
        if not grants:
            raise UsageError("a token without a role permits nothing", do="name one with --role")
        if owner is not None and self._access.user(owner) is None:
            raise no_user(owner)
        checked_text(name, "token's name", length_max=NAME_LENGTH_MAX)
        if not name or not name.isprintable():
            raise UsageError(f"{name[:80]!a} is no name for a token", do="say what it is for")
        while True:
            id, text = secret.drawn_token()
            token = Token(
                id,
                secret.digest_of(text),
                name,
                owner,
                tuple(dict.fromkeys(grants)),
                deed.at,
                deed.by,
                expires_at,
            )
            if self._access.add_token(token, deed):
                return token, text

    def revoke_token(self, id: str, deed: Deed) -> None:
        """Let a token count no more; again changes nothing.

        Raises:
            NotFound: there is no such token.
        """
        if not self._access.revoke_token(id, deed.at, deed) and self._access.token(id) is None:
            raise NotFound(f"there is no token {id[:80]!a}", do="outlast token ls")

    # Who is it?

    def by_token(self, text: str, now: int) -> Caller:
        """Say who shows a token; reads only.

        Raises:
            Unauthenticated: it is nobody's, or counts no more. Which of them is not said.
        """
        id = secret.token_id(text)
        token = None if id is None else self._access.token(id)
        # Compared in any case, so that an id that is there answers no later than one that is not.
        digest = bytes(32) if token is None else token.digest
        same = secret.is_same(secret.digest_of(text), digest)
        if token is None or not same or not token.is_good(now):
            raise unknown()
        layers = [token.grants]
        if token.owner is not None:
            owner = self._access.user(token.owner)
            if owner is None or owner.disabled_at is not None:
                raise unknown()
            layers.append(self._grants_of(owner))
        return Caller(token.subject, Rights(tuple(layers)), token.owner, token.used_at or 0)

    def by_session(self, text: str, now: int) -> Caller:
        """Say who has signed in; reads only.

        Raises:
            Unauthenticated: nobody, or the session is over.
        """
        if not secret.looks_like_session(text):
            raise unknown()
        digest = secret.digest_of(text)
        session = self._access.session(digest)
        if session is None or now >= session.expires_at or now >= session.seen_at + IDLE_US:
            raise unknown()
        user = self._access.user(session.user)
        if user is None or user.disabled_at is not None:
            raise unknown()
        rights = Rights((self._grants_of(user),))
        return Caller(user.subject, rights, user.name, session.seen_at, digest)

    def _grants_of(self, user: User) -> tuple[Grant, ...]:
        return tuple(held.grant for held in self._access.held([user.subject]))

    def note_use(self, caller: Caller, now: int) -> None:
        """Note that a token or session was used, once a minute."""
        if now - caller.used_at < NOTED_US:
            return
        if caller.session is not None:
            self._access.see_session(caller.session, now)
        elif caller.name.startswith("token:"):
            self._access.use_token(caller.name.removeprefix("token:"), now)

    def attempt(self, name: str, now: int, source: str = "") -> None:
        """Count a sign-in as failed before it is tried; writes.

        It is counted under the name and where it comes from, so that nobody elsewhere is made to
        wait by it.

        Raises:
            TooManyAttempts: it must wait; nothing was counted.
        """
        wait = self._access.attempt(_attempt_of(name, source), now)
        if wait:
            seconds = -(-wait // 1_000_000)
            raise TooManyAttempts(
                "too many sign-ins under this name have failed",
                retry_after_seconds=seconds,
                do=f"wait {seconds} s",
            )

    def shown(self, name: str, password: str) -> User | None:
        """Give the user whose name and password these are; takes its time on purpose."""
        user = self._access.user(name) if name.isprintable() else None
        right = passwords.is_right(None if user is None else user.password, password)
        return user if right and user is not None and user.disabled_at is None else None

    def sign_in(self, user: User, deed: Deed, source: str = "") -> str:
        """Open a session for who has shown the right password; gives the text for the browser.

        Args:
            user: as it was when the password was looked at.
            deed: who does it.
            source: where the sign-in comes from, as it was counted.

        Raises:
            Unauthenticated: the user has another password by now, or is disabled.
        """
        text = secret.drawn_session()
        at = deed.at
        session = Session(secret.digest_of(text), user.name, at, at, at + SESSION_US)
        attempt = _attempt_of(user.name, source)
        if not self._access.open_session(session, user.password, attempt, deed):
            raise unknown()
        return text

    def sign_out(self, text: str, deed: Deed) -> bool:
        """End a session; gives whether it was there."""
        return self._access.end_session(secret.digest_of(text), deed)


def _attempt_of(name: str, source: str) -> bytes:
    """Give what is kept of a name that was typed: it may be a password, in the wrong place."""
    said = f"sign-in {len(source)} {source} {name}"
    return hashlib.sha256(said.encode(errors="surrogatepass")).digest()


def checked_user(name: str) -> str:
    """Give a user's name back, having seen that it is one.

    Raises:
        UsageError: it is none.
    """
    good = name and len(name) <= NAME_LENGTH_MAX and name.isprintable() and name == name.strip()
    if not good or (any(mark in name for mark in ":/@ ") and not _is_mail(name)):
        raise UsageError(
            f"{name[:80]!a} is no user's name", do="letters, digits, - and _; or an address of mail"
        )
    return name


def _is_mail(name: str) -> bool:
    return name.count("@") == 1 and not any(mark in name for mark in ":/ ")


def checked_subject(subject: str) -> str:
    """Give the holder of a grant back; a bare name is a user's.

    Raises:
        UsageError: it is none.
    """
    kind, colon, name = subject.partition(":")
    if not colon:
        return f"user:{checked_user(subject)}"
    if kind not in ("user", "group") or not name.isprintable() or not name:
        raise UsageError(f"{subject[:80]!a} can hold no role", do="write user:NAME or group:NAME")
    return subject


def no_user(name: str) -> NotFound:
    """Say that there is no such user."""
    return NotFound(f"there is no user {name[:80]!a}", do="outlast user ls")


def unknown() -> Unauthenticated:
    """Say that a credential is not known here, in the same words whatever is wrong with it."""
    return Unauthenticated("this credential is not known here, or counts no more")


__all__ = ["Caller", "Desk", "checked_subject", "checked_user", "unknown"]
