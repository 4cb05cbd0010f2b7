"""Signing in, and the users, tokens, grants and audit of the store.

A browser gets a cookie that scripts cannot read and other sites' pages cannot send; what it changes
must bring along ``x-outlast-form`` besides, which only an answer of this server tells.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from outlast import forms
from outlast.access import Grant, Role, checked_prefix
from outlast.access.audit import AuditRow, Deed
from outlast.access.record import Token, User
from outlast.accounts.desk import Desk, checked_subject, checked_user, unknown
from outlast.accounts.password import LENGTH_MAX, LENGTH_MIN, made_of
from outlast.accounts.secret import form_secret
from outlast.engine.write.acting import deed
from outlast.errors import NotFound
from outlast.naming import NAME_LENGTH_MAX
from outlast.server import crowd
from outlast.server.auth import COOKIE, cookie_of
from outlast.server.call import Call, Reply, checked_word

T = TypeVar("T")
_LOCAL: Final = ("localhost", "127.0.0.1", "[::1]")

Name = Annotated[str, Meta(min_length=1, max_length=100)]
Password = Annotated[str, Meta(min_length=LENGTH_MIN, max_length=LENGTH_MAX)]
Prefix = Annotated[str, Meta(max_length=200, description="Whole segments, as `billing.charge`.")]
Holder = Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX, examples=["group:ops"])]


class SignInBody(msgspec.Struct, forbid_unknown_fields=True):
    """Who one is."""

    name: Annotated[str, Meta(max_length=NAME_LENGTH_MAX)]
    password: Annotated[str, Meta(max_length=LENGTH_MAX)]


class MeForm(msgspec.Struct):
    """Who calls; ``form`` is what a browser sends along as ``x-outlast-form``."""

    name: str
    permissions: list[str]
    form: str | None = None


class RoleForm(msgspec.Struct, forbid_unknown_fields=True):
    """A role, for all tasks or for those under a prefix."""

    role: Role
    task: Prefix = ""


class UserForm(msgspec.Struct):
    """A user."""

    name: str
    roles: list[RoleForm]
    created_at: datetime
    disabled_at: datetime | None


class UserPage(msgspec.Struct):
    """The users, by name."""

    items: list[UserForm]


class UserBody(msgspec.Struct, forbid_unknown_fields=True):
    """A user to be."""

    name: Name
    password: Password
    roles: Annotated[list[RoleForm], Meta(max_length=50)] = []


class UserPatch(msgspec.Struct, forbid_unknown_fields=True):
    """What shall be otherwise."""

    disabled: bool | UnsetType = UNSET
    password: Password | UnsetType = UNSET


class TokenForm(msgspec.Struct):
    """A token; never what it is."""

    id: str
    name: str
    owner: str | None
    roles: list[RoleForm]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    used_at: datetime | None
    revoked_at: datetime | None


class NewTokenForm(TokenForm):
    """A token that has just been made: what it is, is told only now."""

    token: str = ""


class TokenPage(msgspec.Struct):
    """The tokens, the newest first."""

    items: list[TokenForm]


class TokenBody(msgspec.Struct, forbid_unknown_fields=True):
    """A token to be."""

    name: Name
    roles: Annotated[list[RoleForm], Meta(min_length=1, max_length=50)]
    owner: Name | None = None
    days: Annotated[int, Meta(ge=1, le=3_650)] | None = 90


class GrantForm(msgspec.Struct):
    """A role that somebody has."""

    who: str
    role: Role
    task: str
    at: datetime
    by: str


class GrantPage(msgspec.Struct):
    """Who has which role, by holder."""

    items: list[GrantForm]


class GrantBody(msgspec.Struct, forbid_unknown_fields=True):
    """A role for somebody: ``user:NAME`` or ``group:NAME``."""

    who: Holder
    role: Role
    task: Prefix = ""


class GrantQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which grant."""

    who: Holder
    role: Role
    task: Prefix = ""


class AuditForm(msgspec.Struct):
    """A row of the audit."""

    number: int
    at: datetime
    by: str
    via: str
    what: str
    target: str
    detail: dict[str, Any]
    previous: str
    digest: str


class AuditPage(msgspec.Struct):
    """Rows of the audit, the newest first."""

    items: list[AuditForm]


class AuditQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which rows."""

    before: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    by: Annotated[str, Meta(max_length=NAME_LENGTH_MAX)] | None = None
    target: Annotated[str, Meta(max_length=NAME_LENGTH_MAX)] | None = None


class ChainForm(msgspec.Struct):
    """What following the audit's chain from its beginning has found."""

    rows: int
    head: str
    defects: list[str]


# Who one is


async def sign_in(call: Call) -> Reply:
    """Sign in with a name and a password; the answer sets a cookie."""
    name, password, source = call.body.name, call.body.password, call.source_of()
    now = call.engine.clock.now()
    crowd.let_in(source)
    await _write(call, lambda desk, _: desk.attempt(name, now, source))
    user = await crowd.hashed(lambda: _desk(call).shown(name, password), source)
    if user is None:
        raise unknown()
    done = Deed(user.subject, "api", "sign_in", now)
    text: str = await call.engine.journal.call(lambda: _desk(call).sign_in(user, done, source))
    caller = await call.read(lambda store: Desk(store.access).by_session(text, now))
    rights = [str(one) for one in caller.rights.permissions(call.tenant)]
    form = MeForm(caller.name, rights, form_secret(text))
    return Reply(form, headers={"set-cookie": _cookie(call, text)})


async def sign_out(call: Call) -> Reply:
    """Sign out: the session is over, and its cookie is of no use any more."""
    text = cookie_of(call.headers)
    if text is not None:
        await _write(call, lambda desk, done: desk.sign_out(text, done))
    return Reply(status=204, headers={"set-cookie": _cookie(call, "", seconds=0)})


async def get_me(call: Call) -> MeForm:
    """Say who calls, and what they may do somewhere."""
    rights = [str(one) for one in call.identity.rights.permissions(call.tenant)]
    return MeForm(call.identity.name, rights, call.identity.form)


def _cookie(call: Call, text: str, *, seconds: int = 7 * 86_400) -> str:
    host = call.headers.get("host", "").rpartition(":")[0] or call.headers.get("host", "")
    secure = "" if host in _LOCAL else "; Secure"
    return f"{COOKIE}={text}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{secure}"


# Users


async def list_users(call: Call) -> UserPage:
    """List the users, by name."""
    users, held = await call.read(lambda store: (store.access.users(), store.access.held()))
    roles: dict[str, list[RoleForm]] = {}
    for one in held:
        roles.setdefault(one.subject, []).append(_role(one.grant))
    return UserPage([_user(one, roles.get(one.subject, [])) for one in users])


async def add_user(call: Call) -> UserForm:
    """Add a user."""
    body = call.body
    grants = _grants(body.roles)
    checked_user(body.name)
    made = await crowd.hashed(lambda: made_of(body.password), call.actor)
    user: User = await _write(call, lambda desk, done: desk.enroll(body.name, made, done, grants))
    return _user(user, list(map(_role, grants)))


async def patch_user(call: Call) -> UserForm:
    """Disable a user, or let the user sign in again; set another password."""
    name, body = checked_word(call.path["name"], "user"), call.body
    if body.disabled is not UNSET:
        await _write(call, lambda desk, done: desk.disable(name, done, disabled=body.disabled))
    if body.password is not UNSET:
        made = await crowd.hashed(lambda: made_of(body.password), call.actor)
        await _write(call, lambda desk, done: desk.set_made(name, made, done))
    user, held = await call.read(
        lambda store: (store.access.user(name), store.access.held([f"user:{name}"]))
    )
    if user is None:
        raise NotFound(f"there is no user {name}")
    return _user(user, [_role(one.grant) for one in held])


def _user(user: User, roles: list[RoleForm]) -> UserForm:
    return UserForm(user.name, roles, _at(user.created_at), _may_be_at(user.disabled_at))


# Tokens


async def list_tokens(call: Call) -> TokenPage:
    """List the tokens, the newest first; never what they are."""
    found = await call.read(lambda store: store.access.tokens())
    return TokenPage([TokenForm(**_token(one)) for one in found])


async def create_token(call: Call) -> NewTokenForm:
    """Make a token; what it is, is told only in this answer."""
    body = call.body
    grants, now = _grants(body.roles), call.engine.clock.now()
    expires_at = None if body.days is None else now + body.days * 86_400_000_000
    token, text = await _write(
        call,
        lambda desk, done: desk.make_token(
            body.name, grants, done, owner=body.owner, expires_at=expires_at
        ),
    )
    return NewTokenForm(**_token(token), token=text)


async def revoke_token(call: Call) -> Reply:
    """Let a token count no more; again changes nothing."""
    id = checked_word(call.path["id"], "token")
    await _write(call, lambda desk, done: desk.revoke_token(id, done))
    return Reply(status=204)


def _token(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "owner": token.owner,
        "roles": list(map(_role, token.grants)),
        "created_at": _at(token.created_at),
        "created_by": token.created_by,
        "expires_at": _may_be_at(token.expires_at),
        "used_at": _may_be_at(token.used_at),
        "revoked_at": _may_be_at(token.revoked_at),
    }


# Grants


async def list_grants(call: Call) -> GrantPage:
    """List who has which role."""
    held = await call.read(lambda store: store.access.held())
    return GrantPage(
        [
            GrantForm(one.subject, one.grant.role, one.grant.task, _at(one.at), one.by)
            for one in held
        ]
    )


async def put_grant(call: Call) -> Reply:
    """Grant a role; again changes nothing."""
    subject, grant = checked_subject(call.body.who), _grant(call.body)
    await _write(call, lambda desk, done: desk.give(subject, grant, done))
    return Reply(status=204)


async def delete_grant(call: Call) -> Reply:
    """Take a role back."""
    subject, grant = checked_subject(call.query.who), _grant(call.query)
    await _write(call, lambda desk, done: desk.take_back(subject, grant, done))
    return Reply(status=204)


# The audit


async def list_audit(call: Call) -> AuditPage:
    """List the audit, the newest row first."""
    asked: AuditQuery = call.query
    rows = await call.read(
        lambda store: store.access.audit(
            asked.before, asked.limit, newest=True, target=asked.target, by=asked.by
        )
    )
    return AuditPage(list(map(_audit, rows)))


async def verify_audit(call: Call) -> ChainForm:
    """Follow the audit's chain from its beginning; note its head elsewhere, to compare."""
    defects, (number, digest) = await call.read(
        lambda store: (store.access.defects(), store.access.audit_head())
    )
    return ChainForm(number, f"{number}:{digest.hex()}", defects)


def _audit(row: AuditRow) -> AuditForm:
    return AuditForm(
        row.number,
        _at(row.at),
        row.by,
        row.via,
        row.what,
        row.target,
        msgspec.json.decode(row.detail),
        row.previous.hex(),
        row.digest.hex(),
    )


# Small things


def _desk(call: Call) -> Desk:
    return Desk(call.engine.store.access)


async def _write(call: Call, change: Callable[[Desk, Deed], T]) -> T:
    """Change something on the journal's thread, as a deed of who calls."""
    done = deed()
    assert done is not None
    return await call.engine.journal.call(lambda: change(_desk(call), done))


def _grants(roles: list[RoleForm]) -> tuple[Grant, ...]:
    return tuple(dict.fromkeys(map(_grant, roles)))


def _grant(said: Any) -> Grant:
    return Grant(said.role, checked_prefix(said.task))


def _role(grant: Grant) -> RoleForm:
    return RoleForm(grant.role, grant.task)


def _at(at: int) -> Any:
    return forms.at(at)


def _may_be_at(at: int | None) -> Any:
    return None if at is None else forms.at(at)
