"""Users, tokens, grants and the audit in SQL.

Theory of operation of the audit. Rows are appended at the end of the transaction of what they are
about, and of no other. A lock keeps other writers from the head until the commit (SQLite has one
writer anyway), so the chain has one end; it is the last lock that a transaction takes, and only
those with a deed take it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from outlast.access.audit import AuditRow, Chain, Deed, chained
from outlast.access.decide import Grant
from outlast.access.record import Held, Session, Token, User
from outlast.access.table import Role
from outlast.store.auditing import FORGET_US, Said, next_failure
from outlast.store.relational.database import Database, json_of
from outlast.store.relational.rows import Value

if TYPE_CHECKING:
    from outlast.store.relational.store import RelationalStore

_AT_ONCE: Final = 1_000
_FACTS: Final[Mapping[str, Any]] = {}


def append(database: Database, said: Sequence[Said]) -> None:
    """Append to the audit, inside the open transaction and as the last thing in it."""
    if not said:
        return
    database.lock("audit", ["head"])
    ((number, digest),) = database.ask_all("audit_head", {})
    assert isinstance(digest, bytes)
    rows = chained(int(str(number)), digest, said)
    database.send("insert_audit", [(database.tenant, *_values_of(row)) for row in rows])


class RelationalAccess:
    """The verbs on users, tokens, grants and the audit; see the protocol."""

    def __init__(self, store: RelationalStore) -> None:
        self._database = store.database

    def _change(
        self, act: Callable[[], object], deed: Deed, target: str, facts: Mapping[str, Any] = _FACTS
    ) -> bool:
        """Change something, and if that was a change, write its deed."""

        def change() -> bool:
            changed = bool(act())
            if changed:
                append(self._database, [(deed, target, facts)])
            return changed

        return self._database.write(change)

    def add_user(self, user: User, deed: Deed) -> bool:
        """See the protocol."""
        bounds: dict[str, Value] = {
            "name": user.name,
            "password": user.password,
            "created_at": user.created_at,
        }
        run = self._database.run
        return self._change(lambda: run("insert_account", bounds), deed, user.subject)

    def users(self) -> list[User]:
        """See the protocol."""
        return [User(*row) for row in self._database.read("accounts", {})]  # type: ignore[arg-type]

    def user(self, name: str) -> User | None:
        """See the protocol."""
        found = self._database.read("account_by_name", {"name": name})
        return User(*found[0]) if found else None  # type: ignore[arg-type]

    def set_password(self, name: str, password: str, deed: Deed) -> bool:
        """See the protocol."""

        def act() -> int:
            self._database.run("end_sessions", {"account": name})
            return self._database.run("set_password", {"name": name, "password": password})

        return self._change(act, deed, f"user:{name}")

    def disable(self, name: str, at: int | None, deed: Deed) -> bool:
        """See the protocol."""

        def act() -> int:
            if at is not None:
                self._database.run("end_sessions", {"account": name})
            return self._database.run("set_disabled", {"name": name, "at": at})

        return self._change(act, deed, f"user:{name}", {"disabled": at is not None})

    def give(self, held: Held, deed: Deed) -> bool:
        """See the protocol."""
        bounds = {**_grant(held.subject, held.grant), "at": held.at, "actor": held.by}
        run = self._database.run
        facts = {"grant": str(held.grant)}
        return self._change(lambda: run("insert_grant", bounds), deed, held.subject, facts)

    def take_back(self, subject: str, grant: Grant, deed: Deed) -> bool:
        """See the protocol."""
        bounds, run = _grant(subject, grant), self._database.run
        facts = {"grant": str(grant)}
        return self._change(lambda: run("delete_grant", bounds), deed, subject, facts)

    def held(self, subjects: Collection[str] | None = None) -> list[Held]:
        """See the protocol."""
        if subjects is None:
            rows = self._database.read("grants", {})
        else:
            rows = self._database.read("grants_of", {"subjects": json_of(sorted(subjects))})
        return [
            Held(
                str(subject),
                Grant(Role(str(role)), str(task), self._database.tenant),
                int(str(at)),
                str(by),
            )
            for subject, role, task, at, by in rows
        ]

    def add_token(self, token: Token, deed: Deed) -> bool:
        """See the protocol."""
        grants = [[str(one.role), one.task, self._database.tenant] for one in token.grants]
        bounds: dict[str, Value] = {
            "id": token.id,
            "digest": token.digest,
            "name": token.name,
            "owner": token.owner,
            "grants": json_of(grants),
            "created_at": token.created_at,
            "created_by": token.created_by,
            "expires_at": token.expires_at,
        }
        facts = {"name": token.name, "owner": token.owner, "grants": list(map(str, token.grants))}
        run = self._database.run
        return self._change(lambda: run("insert_token", bounds), deed, token.subject, facts)

    def tokens(self) -> list[Token]:
        """See the protocol."""
        return list(map(_token_of, self._database.read("tokens", {})))

    def token(self, id: str) -> Token | None:
        """See the protocol."""
        found = self._database.read("token_by_id", {"id": id})
        return _token_of(found[0]) if found else None

    def revoke_token(self, id: str, at: int, deed: Deed) -> bool:
        """See the protocol."""
        run = self._database.run
        return self._change(lambda: run("revoke_token", {"id": id, "at": at}), deed, f"token:{id}")

    def use_token(self, id: str, at: int) -> None:
        """See the protocol."""
        self._database.write(lambda: self._database.run("use_token", {"id": id, "at": at}))

    def open_session(self, session: Session, password: str, attempt: bytes, deed: Deed) -> bool:
        """See the protocol."""
        bounds: dict[str, Value] = {
            "digest": session.digest,
            "account": session.user,
            "created_at": session.created_at,
            "seen_at": session.seen_at,
            "expires_at": session.expires_at,
        }

        def act() -> bool:
            shown: dict[str, Value] = {"name": session.user, "password": password}
            if not self._database.run("hold_account", shown):
                return False
            self._database.run("expire_sessions", {"now": session.created_at})
            self._database.run("forgive_sign_in", {"digest": attempt})
            self._database.run("insert_session", bounds)
            return True

        return self._change(act, deed, f"user:{session.user}")

    def session(self, digest: bytes) -> Session | None:
        """See the protocol."""
        found = self._database.read("session_by_digest", {"digest": digest})
        return Session(*found[0]) if found else None  # type: ignore[arg-type]

    def see_session(self, digest: bytes, at: int) -> None:
        """See the protocol."""
        bounds: dict[str, Value] = {"digest": digest, "at": at}
        self._database.write(lambda: self._database.run("see_session", bounds))

    def end_session(self, digest: bytes, deed: Deed) -> bool:
        """See the protocol."""
        run, found = self._database.run, self.session(digest)
        if found is None:
            return False
        return self._change(
            lambda: run("end_session", {"digest": digest}), deed, f"user:{found.user}"
        )

    def attempt(self, digest: bytes, now: int) -> int:
        """See the protocol."""
        return self._database.write(lambda: self._attempt(digest, now))

    def _attempt(self, digest: bytes, now: int) -> int:
        self._database.lock("sign_ins", [digest.hex()])
        self._database.run("forget_sign_ins", {"before": now - FORGET_US})
        found = self._database.ask_all("sign_in", {"digest": digest})
        failures, next_at = (int(str(value)) for value in found[0]) if found else (0, now)
        if next_at > now:
            return next_at - now
        failures, next_at = next_failure(failures, next_at, now)
        bounds: dict[str, Value] = {"digest": digest, "failures": failures, "next_at": next_at}
        self._database.run("save_sign_in", bounds)
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
        first = 2**62 if newest else 0
        bounds: dict[str, Value] = {
            "after": first if after is None else after,
            "limit": limit,
            "target": target,
            "actor": by,
        }
        rows = self._database.read("audit_newest" if newest else "audit_oldest", bounds)
        return [AuditRow(*row) for row in rows]  # type: ignore[arg-type]

    def audit_head(self) -> tuple[int, bytes]:
        """See the protocol."""
        ((number, digest),) = self._database.read("audit_head", {})
        assert isinstance(digest, bytes)
        return int(str(number)), digest

    def defects(self) -> list[str]:
        """See the protocol. It reads at one instant, whatever is appended meanwhile."""
        chain = Chain()
        with self._database.reader() as reader, reader.snapshot():
            heads = reader.ask_all("audit_head", {})
            while True:
                bounds: dict[str, Value] = {"after": chain.number, "limit": _AT_ONCE}
                found = reader.ask_all("audit_oldest", {**bounds, "target": None, "actor": None})
                chain.follow(AuditRow(*row) for row in found)  # type: ignore[arg-type]
                if len(found) < _AT_ONCE:
                    break
        chain.end(heads[0] if heads else (0, b""))  # type: ignore[arg-type]
        return chain.defects


def _grant(subject: str, grant: Grant) -> dict[str, Value]:
    return {"subject": subject, "role": str(grant.role), "task": grant.task}


def _token_of(values: Sequence[object]) -> Token:
    columns: list[Any] = list(values)
    columns[4] = tuple(
        Grant(Role(role), task, tenant) for role, task, tenant in msgspec.json.decode(columns[4])
    )
    return Token(*columns)


def _values_of(row: AuditRow) -> tuple[Value, ...]:
    return (
        row.number,
        row.at,
        row.by,
        row.via,
        row.what,
        row.target,
        row.detail,
        row.previous,
        row.digest,
    )


__all__ = ["RelationalAccess", "append"]
