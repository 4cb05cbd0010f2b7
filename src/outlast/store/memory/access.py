"""Users, tokens, grants and the audit in memory."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from dataclasses import replace

from outlast.access.audit import GENESIS, AuditRow, Chain, Deed, chained
from outlast.access.decide import Grant
from outlast.access.record import Held, Session, Token, User
from outlast.store.auditing import FORGET_US, Said, next_failure


class MemoryAccess:
    """The verbs on users, tokens, grants and the audit; see the protocol."""

    def __init__(self, lock: threading.RLock, tenant: int) -> None:
        self.lock, self._tenant = lock, tenant
        self._users: dict[str, User] = {}
        self._held: dict[tuple[str, Grant], Held] = {}
        self._tokens: dict[str, Token] = {}
        self._sessions: dict[bytes, Session] = {}
        self._attempts: dict[bytes, tuple[int, int]] = {}
        self._audit: list[AuditRow] = []

    def _own(self, grant: Grant) -> Grant:
        """Give a grant as one of this tenant: it can be of no other."""
        return replace(grant, tenant=self._tenant)

    def append(self, said: Iterable[Said]) -> None:
        """Append to the audit."""
        self._audit.extend(chained(*self.audit_head(), said))

    def add_user(self, user: User, deed: Deed) -> bool:
        """See the protocol."""
        with self.lock:
            if user.name in self._users:
                return False
            self._users[user.name] = user
            self.append([(deed, user.subject, {})])
            return True

    def users(self) -> list[User]:
        """See the protocol."""
        with self.lock:
            return [self._users[name] for name in sorted(self._users)]

    def user(self, name: str) -> User | None:
        """See the protocol."""
        return self._users.get(name)

    def set_password(self, name: str, password: str, deed: Deed) -> bool:
        """See the protocol."""
        with self.lock:
            user = self._users.get(name)
            if user is None:
                return False
            self._end_sessions(name)
            self._users[name] = replace(user, password=password)
            self.append([(deed, user.subject, {})])
            return True

    def disable(self, name: str, at: int | None, deed: Deed) -> bool:
        """See the protocol."""
        with self.lock:
            user = self._users.get(name)
            if user is None or (user.disabled_at is None) == (at is None):
                return False
            if at is not None:
                self._end_sessions(name)
            self._users[name] = replace(user, disabled_at=at)
            self.append([(deed, user.subject, {"disabled": at is not None})])
            return True

    def _end_sessions(self, name: str) -> None:
        for digest in [one.digest for one in self._sessions.values() if one.user == name]:
            del self._sessions[digest]

    def give(self, held: Held, deed: Deed) -> bool:
        """See the protocol."""
        held = replace(held, grant=self._own(held.grant))
        with self.lock:
            if (held.subject, held.grant) in self._held:
                return False
            self._held[held.subject, held.grant] = held
            self.append([(deed, held.subject, {"grant": str(held.grant)})])
            return True

    def take_back(self, subject: str, grant: Grant, deed: Deed) -> bool:
        """See the protocol."""
        with self.lock:
            if self._held.pop((subject, self._own(grant)), None) is None:
                return False
            self.append([(deed, subject, {"grant": str(grant)})])
            return True

    def held(self, subjects: Collection[str] | None = None) -> list[Held]:
        """See the protocol."""
        with self.lock:
            found = [
                one for one in self._held.values() if subjects is None or one.subject in subjects
            ]
        return sorted(found, key=lambda one: (one.subject, one.grant.role, one.grant.task))

    def add_token(self, token: Token, deed: Deed) -> bool:
        """See the protocol."""
        facts = {"name": token.name, "owner": token.owner, "grants": list(map(str, token.grants))}
        with self.lock:
            if token.id in self._tokens:
                return False
            grants = tuple(map(self._own, token.grants))
            self._tokens[token.id] = replace(token, grants=grants)
            self.append([(deed, token.subject, facts)])
            return True

    def tokens(self) -> list[Token]:
        """See the protocol."""
        with self.lock:
            return sorted(self._tokens.values(), key=lambda one: (-one.created_at, one.id))

    def token(self, id: str) -> Token | None:
        """See the protocol."""
        return self._tokens.get(id)

    def revoke_token(self, id: str, at: int, deed: Deed) -> bool:
        """See the protocol."""
        with self.lock:
            token = self._tokens.get(id)
            if token is None or token.revoked_at is not None:
                return False
            self._tokens[id] = replace(token, revoked_at=at)
            self.append([(deed, token.subject, {})])
            return True

    def use_token(self, id: str, at: int) -> None:
        """See the protocol."""
        with self.lock:
            if id in self._tokens:
                self._tokens[id] = replace(self._tokens[id], used_at=at)

    def open_session(self, session: Session, password: str, attempt: bytes, deed: Deed) -> bool:
        """See the protocol."""
        with self.lock:
            user = self._users.get(session.user)
            if user is None or user.disabled_at is not None or user.password != password:
                return False
            for digest, one in list(self._sessions.items()):
                if one.expires_at <= session.created_at:
                    del self._sessions[digest]
            self._attempts.pop(attempt, None)
            self._sessions[session.digest] = session
            self.append([(deed, user.subject, {})])
            return True

    def session(self, digest: bytes) -> Session | None:
        """See the protocol."""
        return self._sessions.get(digest)

    def see_session(self, digest: bytes, at: int) -> None:
        """See the protocol."""
        with self.lock:
            if digest in self._sessions:
                self._sessions[digest] = replace(self._sessions[digest], seen_at=at)

    def end_session(self, digest: bytes, deed: Deed) -> bool:
        """See the protocol."""
        with self.lock:
            session = self._sessions.pop(digest, None)
            if session is not None:
                self.append([(deed, f"user:{session.user}", {})])
            return session is not None

    def attempt(self, digest: bytes, now: int) -> int:
        """See the protocol."""
        with self.lock:
            for old, (_, at) in list(self._attempts.items()):
                if at < now - FORGET_US:
                    del self._attempts[old]
            failures, next_at = self._attempts.get(digest, (0, now))
            if next_at > now:
                return next_at - now
            self._attempts[digest] = next_failure(failures, next_at, now)
            return 0

    def audit(
        self,
        after: int | None = None,
        limit: int = 100,
        *,
        newest: bool = False,
        target: str | None = None,
        by: str | None = None,
    ) -> list[AuditRow]:
        """See the protocol."""
        with self.lock:
            rows = self._audit[::-1] if newest else self._audit[:]
        return [
            row
            for row in rows
            if (after is None or (row.number < after if newest else row.number > after))
            and target in (None, row.target)
            and by in (None, row.by)
        ][:limit]

    def audit_head(self) -> tuple[int, bytes]:
        """See the protocol."""
        return (self._audit[-1].number, self._audit[-1].digest) if self._audit else (0, GENESIS)

    def defects(self) -> list[str]:
        """See the protocol."""
        chain = Chain()
        with self.lock:
            chain.follow(self._audit)
            chain.end(self.audit_head())
        return chain.defects
