"""The desk: who shows what they have is known, and nobody else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from outlast.access import Grant, Permission, Role
from outlast.access.audit import Deed
from outlast.accounts import password, secret
from outlast.accounts.desk import IDLE_US, NOTED_US, SESSION_US, Desk, checked_subject, checked_user
from outlast.errors import NameTaken, NotFound, TooManyAttempts, Unauthenticated, UsageError
from outlast.store import open_store
from outlast.store.protocol import Store

T = 1_700_000_000_000_000
WORDS = "four words of mine"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of a password is the library's to choose; here it is the least there is."""
    password._nobodys.cache_clear()
    monkeypatch.setattr(password, "_hasher", lambda: PasswordHasher(1, 8, 1))


@pytest.fixture(params=["memory:", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = request.param if request.param == "memory:" else f"sqlite:///{tmp_path}/outlast.db"
    store = open_store(url, owner="w1", now=1)
    yield store
    assert store.access.defects() == []
    store.close()


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store.access)


def deed(at: int = T, what: str = "test") -> Deed:
    return Deed("os:root", "cli", what, at)


def sign_in(desk: Desk, name: str, words: str, now: int = T) -> str:
    """As a door does it."""
    desk.attempt(name, now)
    user = desk.shown(name, words)
    if user is None:
        raise Unauthenticated("no")
    return desk.sign_in(user, deed(now, "sign in"))


def test_who_has_the_password_signs_in(desk: Desk, store: Store) -> None:
    user = desk.add_user("ada", WORDS, deed(), [Grant(Role.VIEWER, "billing")])
    assert user.password.startswith("$argon2id$") and WORDS not in user.password
    text = sign_in(desk, "ada", WORDS)
    caller = desk.by_session(text, T)
    assert (caller.name, caller.user) == ("user:ada", "ada")
    assert caller.rights.allow(Permission.EXECUTIONS_READ, 1, "billing.x")
    assert not caller.rights.allow(Permission.EXECUTIONS_READ, 1, "other")
    assert not caller.rights.allow(Permission.PAYLOADS_READ, 1, "billing")
    assert desk.sign_out(text, deed()) and not desk.sign_out(text, deed())
    with pytest.raises(Unauthenticated):
        desk.by_session(text, T)
    told = [row.what for row in store.access.audit()]
    assert told == ["test", "test", "sign in", "test"]
    with pytest.raises(NameTaken):
        desk.add_user("ada", WORDS, deed())


@pytest.mark.parametrize(
    "words", ["", "four words of min", WORDS + " ", WORDS.upper(), "\ud800" * 12]
)
def test_other_words_do_not(desk: Desk, words: str) -> None:
    desk.add_user("ada", WORDS, deed())
    for name in ("ada", "eve", "\ud800"):
        with pytest.raises(Unauthenticated):
            sign_in(desk, name, words if name == "ada" else WORDS)


def test_a_session_ends_by_itself(desk: Desk) -> None:
    desk.add_user("ada", WORDS, deed())
    text = sign_in(desk, "ada", WORDS)
    assert desk.by_session(text, T + IDLE_US - 1)
    with pytest.raises(Unauthenticated):
        desk.by_session(text, T + IDLE_US)
    now = T
    while now < T + SESSION_US - IDLE_US:
        now += IDLE_US - 1
        desk.note_use(desk.by_session(text, now), now)
    with pytest.raises(Unauthenticated):
        desk.by_session(text, T + SESSION_US)


def test_guesses_wait_also_when_they_come_at_once(desk: Desk) -> None:
    """Whether the name is somebody's, or not."""
    desk.add_user("ada", WORDS, deed())
    for name in ("ada", "eve"):
        for _ in range(5):
            desk.attempt(name, T)
        with pytest.raises(TooManyAttempts) as refused:
            desk.attempt(name, T)
        assert refused.value.retry_after_seconds == 1
    with pytest.raises(TooManyAttempts):
        sign_in(desk, "ada", WORDS)
    assert sign_in(desk, "ada", WORDS, T + 1_000_000), "after the wait, the right one is taken"
    desk.attempt("ada", T + 1_000_000)


def test_whoever_is_disabled_may_do_nothing(desk: Desk) -> None:
    desk.add_user("ada", WORDS, deed(), [Grant(Role.ADMIN)])
    session = sign_in(desk, "ada", WORDS)
    _, own = desk.make_token("ci", [Grant(Role.VIEWER)], deed(), owner="ada")
    assert desk.by_token(own, T).user == "ada"
    assert desk.disable("ada", deed()) and not desk.disable("ada", deed())
    for look in (partial(desk.by_session, session), partial(desk.by_token, own)):
        with pytest.raises(Unauthenticated):
            look(T)
    assert desk.shown("ada", WORDS) is None
    assert desk.disable("ada", deed(), disabled=False)
    assert desk.by_token(own, T) and desk.shown("ada", WORDS)
    with pytest.raises(Unauthenticated):
        desk.by_session(session, T)


def test_another_password_ends_sessions(desk: Desk) -> None:
    desk.add_user("ada", WORDS, deed())
    session = sign_in(desk, "ada", WORDS)
    desk.set_password("ada", "quite other words", deed())
    with pytest.raises(Unauthenticated):
        desk.by_session(session, T)
    assert desk.shown("ada", WORDS) is None and desk.shown("ada", "quite other words")


def test_a_token_is_known_by_its_whole_text_alone(desk: Desk, store: Store) -> None:
    token, text = desk.make_token("ci", [Grant(Role.SUBMITTER)], deed(), expires_at=T + 10)
    assert text.startswith(f"otk_{token.id}.") and len(text) == 58
    caller = desk.by_token(text, T)
    assert (caller.name, caller.user) == (f"token:{token.id}", None)
    assert caller.rights.allow(Permission.EXECUTIONS_START, 1, "t")
    other = text[:-1] + ("A" if text[-1] != "A" else "B")
    _, second = desk.make_token("cd", [Grant(Role.ADMIN)], deed())
    mixed = text[:15] + second[15:]
    for wrong in (
        other,
        mixed,
        text.upper(),
        text + " ",
        text[:-1],
        "",
        token.id,
        "\ud800",
        "otk_",
        "x" * 5_000,
    ):
        with pytest.raises(Unauthenticated):
            desk.by_token(wrong, T)
    with pytest.raises(Unauthenticated):
        desk.by_token(text, T + 10)
    desk.revoke_token(token.id, deed())
    desk.revoke_token(token.id, deed())
    with pytest.raises(Unauthenticated):
        desk.by_token(text, T)
    assert text not in repr(store.access.tokens()) and second[15:] not in repr(store.access.audit())


def test_a_token_never_allows_more_than_its_owner(desk: Desk) -> None:
    desk.add_user("ada", WORDS, deed(), [Grant(Role.OPERATOR, "a")])
    _, text = desk.make_token("ci", [Grant(Role.ADMIN)], deed(), owner="ada")
    rights = desk.by_token(text, T).rights
    assert rights.allow(Permission.EXECUTIONS_OPERATE, 1, "a.b")
    assert not rights.allow(Permission.PAYLOADS_READ, 1, "a.b")
    assert not rights.allow(Permission.EXECUTIONS_OPERATE, 1, "b")
    desk.take_back("user:ada", Grant(Role.OPERATOR, "a"), deed())
    assert not desk.by_token(text, T).rights.allow(Permission.EXECUTIONS_OPERATE, 1, "a.b")


def test_uses_are_noted_once_a_minute(desk: Desk, store: Store) -> None:
    token, text = desk.make_token("ci", [Grant(Role.VIEWER)], deed())
    for now in (T, T + 1, T + NOTED_US - 1):
        desk.note_use(desk.by_token(text, now), now)
    assert store.access.token(token.id) == replace(token, used_at=T)
    desk.note_use(desk.by_token(text, T + NOTED_US), T + NOTED_US)
    assert store.access.token(token.id) == replace(token, used_at=T + NOTED_US)


def test_who_is_not_there_cannot_be_changed(desk: Desk) -> None:
    grant = Grant(Role.VIEWER)
    for call in (
        partial(desk.set_password, "eve", WORDS, deed()),
        partial(desk.disable, "eve", deed()),
        partial(desk.give, "user:eve", grant, deed()),
        partial(desk.take_back, "eve", grant, deed()),
        partial(desk.make_token, "x", [grant], deed(), owner="eve"),
        partial(desk.revoke_token, "0123456789", deed()),
    ):
        with pytest.raises(NotFound):
            call()
    assert desk.give("group:ops", grant, deed())


def test_what_is_no_name_or_password_is_refused(desk: Desk) -> None:
    for name in ("", " a", "a b", "a:b", "a/b", "a@b@c", "x" * 101, "a\n"):
        with pytest.raises(UsageError):
            checked_user(name)
    assert checked_user("ada@example.org") and checked_subject("ada") == "user:ada"
    for subject in ("token:x", "group:", "user:", ":x", "role:x"):
        with pytest.raises(UsageError):
            checked_subject(subject)
    for words in ("", "short", "x" * 1_001):
        with pytest.raises(UsageError) as refused:
            desk.add_user("ada", words, deed())
        assert not words or words not in str(refused.value)
    with pytest.raises(UsageError):
        desk.make_token("ci", [], deed())


def test_texts_cannot_be_guessed() -> None:
    drawn = [secret.drawn_token() for _ in range(500)] + [("s", secret.drawn_session())] * 0
    assert len({text for _, text in drawn}) == 500
    assert all(secret.token_id(text) == id for id, text in drawn)
    session = secret.drawn_session()
    assert secret.looks_like_session(session) and not secret.looks_like_session(drawn[0][1])
    assert secret.form_secret(session) != secret.form_secret(secret.drawn_session())
    assert session not in secret.form_secret(session)


def test_a_name_that_is_nobodys_takes_as_long(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is asked once in both cases; its cost is what takes the time."""
    asked = []

    class Counting(PasswordHasher):
        def verify(self, stored: str | bytes, words: str | bytes) -> bool:  # type: ignore[override]
            asked.append((time.perf_counter(), stored))
            return super().verify(stored, words)

    hasher = Counting(1, 8, 1)
    monkeypatch.setattr(password, "_hasher", lambda: hasher)
    desk.add_user("ada", WORDS, deed())
    assert desk.shown("eve", WORDS) is None and desk.shown("ada", "wrong words") is None
    assert len(asked) == 2 and all(stored for _, stored in asked)
