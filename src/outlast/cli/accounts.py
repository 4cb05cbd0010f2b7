"""The commands about users, tokens and roles."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from outlast.cli.session import Cell, Session, is_interactive, read_stdin, shared, span_of
from outlast.cli.words import moment, now_us
from outlast.errors import UsageError

if TYPE_CHECKING:
    from outlast.access import Grant
    from outlast.access.audit import Deed
    from outlast.access.record import Held, Token, User
    from outlast.accounts.desk import Desk

_HELP = {"help_option_names": ["-h", "--help"]}


@contextmanager
def _desk(session: Session) -> Iterator[tuple[Desk, Deed]]:
    from outlast.accounts.desk import Desk
    from outlast.engine.write.acting import deed

    with session.guest() as guest:
        done = deed()
        assert done is not None
        yield Desk(guest.store.access), done


def _grants(roles: Sequence[str], default: str = "") -> tuple[Grant, ...]:
    """Read roles as ROLE or ROLE@TASK."""
    from outlast.access import Grant, checked_prefix, checked_role

    found = []
    for text in roles:
        role, at, task = text.partition("@")
        if at and not task:
            raise UsageError(f'"{text[:80]}" names no task', do=f"write {role}@TASK, or {role}")
        found.append(Grant(checked_role(role), checked_prefix(task or default)))
    return tuple(found)


def _password(from_stdin: bool) -> str:
    """Ask for a password without showing it, or read one line of stdin; never from argv."""
    if from_stdin:
        lines = read_stdin("--password-stdin").splitlines()
        if len(lines) != 1:
            raise UsageError("stdin has not one line", where="--password-stdin")
        return lines[0]
    if not is_interactive(sys.stdin, sys.stderr):
        raise UsageError(
            "there is no terminal to ask for the password on",
            why="a password among the words of a command is seen by others",
            do="pipe it in, with --password-stdin",
        )
    said = click.prompt("password", hide_input=True, confirmation_prompt=True, err=True)
    return str(said)


_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")
_roles = click.option(
    "--role", "roles", multiple=True, metavar="ROLE[@TASK]", help="A role it gets; repeatable."
)


@click.group(context_settings=_HELP)
def user() -> None:
    """Users of a server: add them, disable them, set passwords.

    A password is asked for without being shown, and is stored as argon2id makes it. A user without
    a role may do nothing.
    """


@user.command()
@click.argument("name")
@_roles
@_stdin
@shared
def add(session: Session, name: str, roles: Sequence[str], password_stdin: bool) -> None:
    """Add a user."""
    from outlast.accounts.desk import checked_user

    grants = _grants(roles)
    checked_user(name)
    with _desk(session) as (desk, deed):
        made = desk.add_user(name, _password(password_stdin), deed, grants)
    if session.as_json:
        session.json({"name": made.name, "roles": list(map(str, grants))})
        return
    session.out(f"user {name}" + _with(grants))
    if not grants:
        session.say(f"without a role, {name} may do nothing: outlast role grant {name} ROLE")


@user.command("ls")
@shared
def users(session: Session) -> None:
    """List the users, with their roles."""
    with session.guest() as guest:
        found, held = guest.store.access.users(), guest.store.access.held()
    if session.as_json:
        session.json({"items": [_user_form(one, held) for one in found]})
    elif session.output == "ids":
        for one in found:
            session.out(one.name)
    elif not found:
        session.say("no user; add one with: outlast user add NAME --role ROLE")
    else:
        heads = ["NAME", "ROLES", "SINCE", "STATE"]
        session.table(heads, [_user_row(one, held) for one in found])


def _roles_of(subject: str, held: Sequence[Held]) -> list[str]:
    return [str(one.grant) for one in held if one.subject == subject]


def _user_form(one: User, held: Sequence[Held]) -> dict[str, Any]:
    return {
        "name": one.name,
        "roles": _roles_of(one.subject, held),
        "created_at": one.created_at,
        "disabled_at": one.disabled_at,
    }


def _user_row(one: User, held: Sequence[Held]) -> list[Cell]:
    state: Cell = ("disabled", "red") if one.disabled_at is not None else "active"
    roles = ", ".join(_roles_of(one.subject, held)) or "–"
    return [(one.name, "bold"), roles, moment(one.created_at), state]


@user.command()
@click.argument("name")
@click.option("--undo", is_flag=True, help="Let the user sign in again.")
@shared
def disable(session: Session, name: str, undo: bool) -> None:
    """Let a user do nothing any more: sessions end, and tokens of the user's count no more."""
    with _desk(session) as (desk, deed):
        changed = desk.disable(name, deed, disabled=not undo)
    word = "active" if undo else "disabled"
    session.out(f"user {name} is {word}" + ("" if changed else " already"))


@user.command()
@click.argument("name")
@_stdin
@shared
def password(session: Session, name: str, password_stdin: bool) -> None:
    """Give a user another password; sessions end."""
    with _desk(session) as (desk, deed):
        desk.set_password(name, _password(password_stdin), deed)
    session.out(f"user {name} has another password")


@click.group(context_settings=_HELP)
def token() -> None:
    """Tokens for programs: make, list and revoke them.

    A token permits what its roles say, and where it has an owner, only what the owner may do as
    well. It is shown once and stored as a digest. The server takes it as "authorization: Bearer".
    """


@token.command()
@click.argument("name")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    metavar="ROLE[@TASK]",
    help="A role it gets, perhaps for tasks under a prefix only; repeatable.",
)
@click.option("--owner", metavar="USER", help="The user whose rights bound it.")
@click.option("--expires", metavar="DURATION", default="90d", show_default=True, help="Or never.")
@shared
def create(
    session: Session, name: str, roles: Sequence[str], owner: str | None, expires: str
) -> None:
    """Make a token and show it, this once; NAME says what it is for."""
    span = None if expires == "never" else span_of("--expires", expires)
    grants = _grants(roles)
    with _desk(session) as (desk, deed):
        expires_at = None if span is None else now_us() + span
        made, text = desk.make_token(name, grants, deed, owner=owner, expires_at=expires_at)
    if session.as_json:
        session.json({**_token_form(made), "token": text})
        return
    session.out(text)
    until = "for good" if made.expires_at is None else f"until {moment(made.expires_at)}"
    session.say(f"token {made.id} for {name}{_with(grants)}, {until}; it is shown only now")


def _with(grants: Sequence[Grant]) -> str:
    return f" with {', '.join(map(str, grants))}" if grants else ""


@token.command("ls")
@shared
def tokens(session: Session) -> None:
    """List the tokens, the newest first; never what they are."""
    with session.guest() as guest:
        found = guest.store.access.tokens()
    if session.as_json:
        session.json({"items": [_token_form(one) for one in found]})
    elif session.output == "ids":
        for one in found:
            session.out(one.id)
    elif not found:
        session.say("no token; make one with: outlast token create NAME --role ROLE")
    else:
        now = now_us()
        heads = ["ID", "NAME", "OWNER", "ROLES", "EXPIRES", "USED", "STATE"]
        session.table(heads, [_token_row(one, now) for one in found])


def _token_form(one: Token) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "owner": one.owner,
        "roles": list(map(str, one.grants)),
        "created_at": one.created_at,
        "created_by": one.created_by,
        "expires_at": one.expires_at,
        "used_at": one.used_at,
        "revoked_at": one.revoked_at,
    }


def _token_row(one: Token, now: int) -> list[Cell]:
    state: Cell = "good"
    if one.revoked_at is not None:
        state = ("revoked", "red")
    elif not one.is_good(now):
        state = ("expired", "yellow")
    return [
        (one.id, "bold"),
        one.name,
        one.owner or "–",
        ", ".join(map(str, one.grants)),
        "never" if one.expires_at is None else moment(one.expires_at),
        "never" if one.used_at is None else moment(one.used_at),
        state,
    ]


@token.command()
@click.argument("id")
@shared
def revoke(session: Session, id: str) -> None:
    """Let a token count no more, by its id; within a second, also on a server that runs."""
    with _desk(session) as (desk, deed):
        desk.revoke_token(id, deed)
    session.out(f"token {id} is revoked")


@click.group(context_settings=_HELP)
def role() -> None:
    """Who may do what: grant roles and take them back.

    WHO is a user's name, or group:NAME for a group that an OpenID provider names. --task limits a
    role to tasks under a prefix of whole segments. docs/roles.md has all roles and permissions.
    """


_task = click.option(
    "--task", default="", metavar="PREFIX", help="Only for tasks under it: billing, billing.charge."
)


@role.command("grant")
@click.argument("who")
@click.argument("name", metavar="ROLE")
@_task
@shared
def grant_(session: Session, who: str, name: str, task: str) -> None:
    """Grant a role."""
    from outlast.accounts.desk import checked_subject

    (grant,) = _grants([name], task)
    subject = checked_subject(who)
    with _desk(session) as (desk, deed):
        new = desk.give(subject, grant, deed)
    session.out(f"{subject} has {grant}" + ("" if new else " already"))


@role.command("revoke")
@click.argument("who")
@click.argument("name", metavar="ROLE")
@_task
@shared
def take_back(session: Session, who: str, name: str, task: str) -> None:
    """Take a role back."""
    from outlast.accounts.desk import checked_subject

    (grant,) = _grants([name], task)
    subject = checked_subject(who)
    with _desk(session) as (desk, deed):
        desk.take_back(subject, grant, deed)
    session.out(f"{subject} has {grant} no more")


@role.command("ls")
@shared
def roles(session: Session) -> None:
    """List who has which role."""
    with session.guest() as guest:
        held = guest.store.access.held()
    if session.as_json:
        session.json(
            {
                "items": [
                    {
                        "who": one.subject,
                        "role": str(one.grant.role),
                        "task": one.grant.task,
                        "at": one.at,
                        "by": one.by,
                    }
                    for one in held
                ]
            }
        )
    elif not held:
        session.say("nobody has a role; grant one with: outlast role grant WHO ROLE")
    else:
        heads = ["WHO", "ROLE", "TASKS", "SINCE", "BY"]
        session.table(
            heads,
            [
                [
                    (one.subject, "bold"),
                    str(one.grant.role),
                    one.grant.task or "all",
                    moment(one.at),
                    one.by,
                ]
                for one in held
            ],
        )


__all__ = ["role", "token", "user"]
