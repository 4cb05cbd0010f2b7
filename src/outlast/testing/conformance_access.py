"""What every store does for users, tokens and grants; and the audit, which misses no change."""

from __future__ import annotations

from dataclasses import replace

from msgspec.structs import replace as evolve

from outlast.access.audit import GENESIS, Chain, Deed
from outlast.access.decide import Grant
from outlast.access.record import Held, Session, Token, User
from outlast.access.table import Role
from outlast.lifecycle import Kind, MessageKind
from outlast.schedule import Request, Wish
from outlast.store.auditing import FORGET_US, FREE_FAILURES, WAIT_MAX_US
from outlast.store.protocol import Create, Deliver, Item, QueueSetting, Setting, Store
from outlast.testing.conformance import (
    Owner,
    T,
    begun,
    born,
    born_alike,
    codes,
    message,
    one,
    state,
)
from outlast.testing.conformance_budgets import adjust
from outlast.testing.conformance_schedules import Clerk

PASSWORD = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2g"  # noqa: S105 - nobody's


def deed(what: str = "test", at: int = T, by: str = "os:ada") -> Deed:
    """Make a deed."""
    return Deed(by, "cli", what, at)


def user(name: str = "ada") -> User:
    """Make a user."""
    return User(name, PASSWORD, T)


def token(id: str = "abcdefghij", owner: str | None = None) -> Token:
    """Make a token."""
    grants = (Grant(Role.VIEWER, "billing"), Grant(Role.SUBMITTER))
    return Token(id, id.encode().ljust(32), "deploy", owner, grants, T, "os:ada", T + 9)


def session(name: str = "ada", number: int = 1, at: int = T) -> Session:
    """Make a session."""
    return Session(bytes([number]) * 32, name, at, at, at + 100)


def actions(store: Store) -> list[tuple[str, str]]:
    """Give what the audit tells, in order; the chain must hold."""
    assert store.access.defects() == []
    rows = store.access.audit(limit=1_000)
    chain = Chain()
    chain.follow(rows)
    chain.end(store.access.audit_head())
    assert chain.defects == []
    return [(row.what, row.target) for row in rows]


class AccessConformance:
    """Users, tokens, grants, sign-ins and the audit."""

    def test_users_are_kept(self, store: Store) -> None:
        """A name is taken once; what changes nothing leaves nothing in the audit."""
        access = store.access
        assert access.users() == [] and access.user("ada") is None
        assert access.add_user(user("bob"), deed("add")) and access.add_user(user(), deed("add"))
        assert not access.add_user(replace(user(), password=PASSWORD + "x"), deed("add"))
        assert access.users() == [user(), user("bob")] and access.user("bob") == user("bob")
        assert access.disable("ada", T + 1, deed("disable"))
        assert not access.disable("ada", T + 2, deed("disable"))
        assert access.user("ada") == replace(user(), disabled_at=T + 1)
        assert access.disable("ada", None, deed("enable")) and access.user("ada") == user()
        assert not access.disable("eve", T, deed("disable"))
        assert access.set_password("bob", PASSWORD + "y", deed("password"))
        assert not access.set_password("eve", PASSWORD, deed("password"))
        assert access.user("bob") == User("bob", PASSWORD + "y", T)
        assert actions(store) == [
            ("add", "user:bob"), ("add", "user:ada"), ("disable", "user:ada"),
            ("enable", "user:ada"), ("password", "user:bob"),
        ]  # fmt: skip

    def test_grants_are_kept(self, store: Store) -> None:
        access = store.access
        access.add_user(user(), deed())
        wide, narrow = Grant(Role.VIEWER), Grant(Role.OPERATOR, "billing.charge")
        held = [Held("group:ops", wide, T, "os:ada"), Held("user:ada", narrow, T, "os:ada")]
        for one_ in [*held, Held("user:ada", wide, T, "os:ada")]:
            assert access.give(one_, deed("grant")) and not access.give(one_, deed("grant"))
        assert access.take_back("user:ada", wide, deed("revoke"))
        assert not access.take_back("user:ada", wide, deed("revoke"))
        assert not access.take_back("user:ada", Grant(Role.OPERATOR), deed("revoke"))
        assert access.held() == held and access.held(["user:ada", "group:x"]) == held[1:]
        assert access.held([]) == []
        assert [one_ for one_, _ in actions(store)] == ["test", *["grant"] * 3, "revoke"]
        assert '"operator@billing.charge"' in access.audit()[2].detail

    def test_tokens_are_kept(self, store: Store) -> None:
        access = store.access
        access.add_user(user(), deed())
        assert access.add_token(token(), deed("token")) and not access.add_token(token(), deed())
        other = replace(token("0123456789", "ada"), created_at=T + 1, expires_at=None)
        assert access.add_token(other, deed("token"))
        assert access.tokens() == [other, token()] and access.token("abcdefghij") == token()
        assert access.token("x") is None
        access.use_token("abcdefghij", T + 5)
        assert access.token("abcdefghij") == replace(token(), used_at=T + 5)
        assert access.revoke_token("abcdefghij", T + 6, deed("revoke"))
        assert not access.revoke_token("abcdefghij", T + 7, deed("revoke"))
        assert not access.revoke_token("x", T + 7, deed("revoke"))
        revoked = access.token("abcdefghij")
        assert revoked is not None and revoked.revoked_at == T + 6 and not revoked.is_good(T)
        assert token().is_good(T + 8) and not token().is_good(T + 9) and other.is_good(10**18)
        told = [("token", "token:abcdefghij"), ("token", "token:0123456789")]
        assert actions(store)[1:] == [*told, ("revoke", "token:abcdefghij")]
        assert all("abcdefghij   " not in row.detail for row in access.audit()), "no digest"

    def test_sessions_end(self, store: Store) -> None:
        """By themselves, by signing out, by a new password, and with their user."""
        access = store.access
        for name in ("ada", "bob"):
            access.add_user(user(name), deed())
        for number in (1, 2, 3):
            access.open_session(session(number=number), PASSWORD, b"n" * 32, deed("sign in"))
        access.open_session(session("bob", 4, T - 90), PASSWORD, b"n" * 32, deed("sign in"))
        access.see_session(bytes([1]) * 32, T + 5)
        assert access.session(bytes([1]) * 32) == replace(session(), seen_at=T + 5)
        assert access.end_session(bytes([2]) * 32, deed("sign out"))
        assert not access.end_session(bytes([2]) * 32, deed("sign out"))
        access.open_session(session("bob", 5, T + 10), PASSWORD, b"n" * 32, deed("sign in"))
        assert access.session(bytes([4]) * 32) is None, "its time was over"
        access.set_password("ada", PASSWORD, deed("password"))
        assert access.session(bytes([1]) * 32) is None and access.session(bytes([3]) * 32) is None
        access.disable("bob", T, deed("disable"))
        assert access.session(bytes([5]) * 32) is None
        for name in ("bob", "eve"):
            opened = access.open_session(session(name, 6), PASSWORD, b"n" * 32, deed("sign in"))
            assert not opened, "nobody who may not sign in has a session"
        access.add_user(user("zoe"), deed())
        access.set_password("zoe", PASSWORD + "x", deed("password"))
        opened = access.open_session(session("zoe", 6), PASSWORD, b"n" * 32, deed("sign in"))
        assert not opened, "nor who has shown the password of yesterday"
        assert access.session(bytes([6]) * 32) is None
        assert [name for name, _ in actions(store)].count("sign in") == 5

    def test_failed_sign_ins_wait(self, store: Store) -> None:
        """Longer and longer; one that succeeds, or a day of rest, forgives them."""
        access, name, now = store.access, b"d" * 32, T
        for _ in range(FREE_FAILURES):
            assert access.attempt(name, now) == 0
        waits = []
        for _ in range(12):
            assert access.attempt(name, now) == 0
            wait = access.attempt(name, now)
            assert wait > 0 and access.attempt(name, now + wait - 1) == 1
            waits.append(wait)
            now += wait
        assert waits == sorted(waits) and waits[0] == 1_000_000 and waits[-1] == WAIT_MAX_US
        assert access.attempt(b"e" * 32, now) == 0, "nobody else has to wait"
        assert access.attempt(name, now + FORGET_US + 1) == 0
        assert access.attempt(name, now + FORGET_US + 1) == 0, "it begins anew"
        access.add_user(user(), deed())
        while not access.attempt(name, now + FORGET_US + 1):
            pass
        access.open_session(session(), PASSWORD, name, deed())
        assert access.attempt(name, T) == 0

    def test_deeds_go_into_the_audit_with_what_they_change(self, store: Store) -> None:
        """Births, messages and budgets; what is refused, or was there already, leaves nothing."""
        runner, item = begun("run")
        batch: list[Item] = [
            replace_deed(born("made", key="k"), "start"),
            item,
            runner.write(Kind.STEP),
            Deliver("run", message("m1", MessageKind.PAUSE), T + 1, deed("note")),
            Deliver("gone", message("m1", MessageKind.PAUSE), T + 1, deed("note")),
            replace_deed(born("again", key="k"), "start"),
        ]
        assert codes(store.commit(batch)) == [
            None,
            None,
            None,
            None,
            "no_execution",
            "already_exists",
        ]
        assert actions(store) == [("start", "made"), ("note", "run")]
        assert codes(
            store.commit([Deliver("run", message("m1", MessageKind.PAUSE), T + 2, deed("note"))])
        ) == [None]
        budget = adjust("set", 50)
        budget.deed = deed("budget")
        assert one(store, budget).refused is None
        stop = Deliver(
            "run", message("stop", MessageKind.CANCEL), T + 3, deed("cancel", by="user:b")
        )
        assert one(store, stop).refused is None
        assert actions(store)[2:] == [("budget", "budget:task:t"), ("cancel", "run")]
        last = store.access.audit(limit=1, newest=True)[0]
        assert (last.at, last.by, last.via, last.detail) == (
            T + 3,
            "user:b",
            "cli",
            '{"message":"cancel"}',
        )

    def test_births_that_are_alike_leave_a_deed_each(self, store: Store) -> None:
        made = born_alike(["ex_1", "ex_2"])
        made.deed = deed("start", T + 5)
        assert codes(store.commit([made, evolve(made, ids=["ex_3", "ex_2"])])) == [
            None,
            "already_exists",
        ]
        assert actions(store) == [("start", "ex_1"), ("start", "ex_2")]
        assert {(row.at, row.detail) for row in store.access.audit()} == {(T, '{"task":"t"}')}

    def test_a_guilty_item_leaves_no_deed(self, store: Store) -> None:
        """The others of its batch do, also where each is written by itself."""
        bad = replace_deed(born("bad"), "start")
        bad.after.priority = 2**70
        good = replace_deed(born("good"), "start")
        answers = codes(store.commit([bad, good]))
        assert answers == ["internal_error", None]
        assert actions(store) == [("start", "good")]

    def test_other_verbs_leave_deeds(self, store: Store) -> None:
        store.capacity.set_queue(QueueSetting("q", 3), deed("queue"))
        store.capacity.set_gate(Setting("k", 1, None, "ops", T), deed("limit"))
        assert store.capacity.reset_gate("k", deed("reset"))
        assert not store.capacity.reset_gate("k", deed("reset"))
        Clerk(store).create()
        pause = Request(wish=Wish.PAUSE, actor="ops")
        assert store.schedules.apply("nightly", pause, T, deed("pause")).refused is None
        assert store.schedules.apply("none", pause, T, deed("pause")).refused is not None
        _, item = begun("run")
        store.commit([item])
        store.commit([Owner(state(store, "run")).write(Kind.FINISH)])
        assert store.purge(["run", "none"], deed("prune")) == 1
        assert store.purge(["run"], deed("prune")) == 0
        assert actions(store) == [
            ("queue", "queue:q"), ("limit", "limit:k"), ("reset", "limit:k"),
            ("pause", "schedule:nightly"), ("prune", "executions"),
        ]  # fmt: skip

    def test_the_audit_is_read_by_page(self, store: Store) -> None:
        access = store.access
        assert access.audit_head() == (0, GENESIS) and access.audit() == []
        for number in range(7):
            access.add_user(user(f"u{number}"), deed(at=T + number, by=f"os:{number % 2}"))
        assert [row.number for row in access.audit(2, 3)] == [3, 4, 5]
        assert [row.number for row in access.audit(limit=2, newest=True)] == [7, 6]
        assert [row.number for row in access.audit(6, 2, newest=True)] == [5, 4]
        assert [row.number for row in access.audit(by="os:1")] == [2, 4, 6]
        assert [row.at for row in access.audit(target="user:u3")] == [T + 3]


def replace_deed(item: Create, what: str) -> Create:
    """Give an item its deed."""
    item.deed = deed(what)
    return item
