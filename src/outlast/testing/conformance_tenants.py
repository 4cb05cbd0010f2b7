"""What every store does with tenants: they share a database, and know nothing of each other.

A rich history is played in one tenant, with ids, keys and names that the other one uses as well;
then every verb that reads is called in the other one. Its answers are compared with those of a
store that is alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from outlast.access.decide import Grant
from outlast.access.record import Held, Token
from outlast.access.table import Role
from outlast.errors import TenantClosed
from outlast.lifecycle import Execution, Kind, MessageKind, State, Transition
from outlast.schedule import ScheduleRecord, Wish
from outlast.store.epoch import EpochLoss
from outlast.store.memory import MemoryStore
from outlast.store.protocol import (
    DEFAULT_NUMBER,
    DEFAULT_TENANT,
    Deliver,
    Filter,
    Lease,
    ProgressRow,
    QueueSetting,
    Reserve,
    Service,
    Setting,
    Store,
    Tenant,
    WorkerRow,
)
from outlast.store.webhooks import DeliveryState
from outlast.testing.conformance import (
    ASK,
    Owner,
    T,
    answer_to,
    begun,
    born,
    born_alike,
    codes,
    message,
    nonces,
    one,
    replace,
    state,
)
from outlast.testing.conformance_access import deed, session, token, user
from outlast.testing.conformance_budgets import adjust, reserve, spends, with_budget
from outlast.testing.conformance_capacity import limited, rated
from outlast.testing.conformance_schedules import MINUTE, NAME, Clerk
from outlast.testing.conformance_streams import alone, said
from outlast.testing.conformance_structure import calls_child, edge
from outlast.testing.conformance_webhooks import made as made_webhook
from outlast.testing.conformance_webhooks import told, tried

Beside = Callable[[str], Store]
OTHER: Final = "acme"
SPAN: Final = 3_600_000_000
IDS: Final = ("ex_1", "ex_2", "ex_3", "ex_4", "ex_5", "ex_6", "ex_7", "ex_8", "ex_9", "ex_10")


def busy(store: Store) -> None:
    """Play a history that touches every table."""
    tenant: dict[str, Any] = {"tenant": store.tenant}
    epoch = store.epochs.begin("declared", {"why": "a test"}, T)
    store.epochs.report(EpochLoss(epoch.number, "w0", T, 1))
    store.register(WorkerRow("w1", "host", 7, T, T, SPAN, service=Service(("t",))))
    store.register(WorkerRow("w2", "host", 8, T, T, None))
    store.leave("w2", T + 1)
    store.feed.follow("feed", T)
    assert store.secret("tokens", str(store.tenant).encode() * 32)
    # Settings, budgets, schedules
    store.capacity.set_queue(QueueSetting("slow", 1), deed("queue"))
    store.capacity.set_gate(Setting("mail", 2, None, "ada", T), deed("limit"))
    assert codes(store.commit([adjust("set", 5_000_000), adjust("set", None, "tenant")])) == [
        None,
        None,
    ]
    clerk = Clerk(store)
    assert clerk.create().refused is None
    clerk.run(T + MINUTE)
    # A parent and its child, one that waits for both, one that asks, one that holds a limit
    parent, item = begun("ex_1", key="order", labels={"shop": "one"}, **tenant)
    names: dict[str, Any] = {"parent_id": "ex_1", "root_id": "ex_1", "parent_key": "work#1"}
    assert codes(store.commit([item])) == [None]
    assert codes(store.commit([calls_child(parent, born("ex_2", **names, **tenant))])) == [None]
    birth = born("ex_3", waits_on=[edge("ex_2")], **tenant)
    owner, item = begun("ex_4", nonce=b"4" * 16, **tenant)
    assert codes(store.commit([birth, item])) == [None, None]
    assert one(store, owner.park(Kind.WAIT, T + 1, data=ASK)).refused is None
    assert one(store, Deliver("ex_4", answer_to("q#1", "m1"), T + 2)).refused is None
    asker, item = begun("ex_10", nonce=b"0" * 16, **tenant)
    assert codes(store.commit([item, asker.park(Kind.WAIT, T + 1, data=ASK)])) == [None, None]
    gates = {**limited("mail", 2, hold=True), **rated()}
    assert one(store, born("ex_5", gates=gates, **tenant)).refused is None
    assert one(store, born("ex_6", gates=rated(), **tenant)).refused is None
    for claimed in store.claim(Lease("w1"), ["t"], 10, T + 3, nonces(10, store.tenant)):
        if claimed.execution.id == "ex_2":
            child = Owner(claimed.execution)
            assert one(store, child.write(Kind.START, T + 3)).refused is None
            emits = alone(child, said(1, 2), ProgressRow(T, 1.0, 2.0, "half"))
            assert one(store, emits).refused is None
            assert one(store, child.write(Kind.FINISH, T + 4)).refused is None
    # Money
    payer, item = with_budget("ex_7", scope="tree", **tenant)
    assert one(store, item).refused is None
    assert one(store, reserve(payer, 10, "tree:ex_7:usd", "task:t:usd")).refused is None
    assert one(store, spends(payer, 7, "tree:ex_7:usd", "task:t:usd")).refused is None
    # A descendant, a message, an end that is not told yet, one that is deleted
    made: dict[str, Any] = {"from": {"id": "ex_1", "mode": "rerun"}}
    assert one(store, born("ex_8", **made, **tenant)).refused is None
    note = message("m2", MessageKind.SIGNAL, key="s", payload=b"1")
    assert one(store, Deliver("ex_1", note, T + 5, deed("signal"))).refused is None
    gone, item = begun("ex_9", nonce=b"9" * 16, **tenant)
    assert codes(store.commit([item, gone.write(Kind.FINISH, T + 6)])) == [None, None]
    assert store.purge(["ex_9"], deed("purge")) == 1
    # Webhooks
    hook = made_webhook(store)
    assert store.webhooks.hold("w1", T, T + SPAN)
    assert store.webhooks.advance(hook, "feed", 2, told(("ex_1", 1), ("ex_1", 2)), T)
    (first,) = store.webhooks.due(hook.id, T, 9)
    assert store.webhooks.note(tried(first, DeliveryState.DELIVERED, T + 1))
    # People
    access = store.access
    assert access.add_user(user(), deed("add")) and access.add_token(token(), deed("token"))
    assert access.give(Held("user:ada", Grant(Role.VIEWER, "billing"), T, "os:ada"), deed("grant"))
    assert access.attempt(b"a" * 32, T) == 0
    store.feed.settle()
    assert access.open_session(session(), user().password, b"b" * 32, deed("sign in"))


def _part(store: Store, filter: Filter) -> tuple[list[Execution], str | None]:
    part = store.part(filter, 100)
    return part.found, part.before_id


READS: Final[dict[str, Callable[[Store], Any]]] = {
    "get": lambda store: store.get(IDS),
    "epochs.current": lambda store: store.epochs.current().floor,
    "epochs.history": lambda store: [replace(one, id="") for one in store.epochs.history()],
    "epochs.losses": lambda store: store.epochs.losses(1),
    "find": lambda store: [store.find(text, 9) for text in ("ex", "1")],
    "with_key": lambda store: store.with_key("order"),
    "part": lambda store: [
        _part(store, Filter(states=states, task=task))
        for states in ((), (State.QUEUED,), (State.SUCCEEDED, State.PAUSED))
        for task in (None, "t")
    ],
    "page": lambda store: [
        store.page(one)
        for one in (
            Filter(),
            Filter(task="t", roots=True),
            Filter(parent_id="ex_1"),
            Filter(labels={"shop": "one"}),
            Filter(origin=f"schedule:{NAME}"),
        )
    ],
    "descents": lambda store: store.descents(IDS),
    "counts": lambda store: store.counts(),
    "log": lambda store: [store.log(id) for id in IDS],
    "logs": lambda store: store.logs(IDS),
    "inbox": lambda store: [store.inbox(id) for id in IDS],
    "unread": lambda store: store.unread("w1"),
    "asking": lambda store: [
        store.asking(to, "", 9, newest=newest) for to in (None, "ada") for newest in (True, False)
    ],
    "dependents": lambda store: [store.dependents(id, 9) for id in IDS],
    "stream": lambda store: [store.stream(id, "draft") for id in IDS],
    "streams": lambda store: [store.streams(id) for id in IDS],
    "progress": lambda store: store.progress(IDS),
    "census": lambda store: store.census(),
    "health": lambda store: store.health(T + SPAN).overdue,
    "budgets": lambda store: [
        store.budgets(),
        store.budgets(["task:t", "tenant", "tree:ex_7", "execution:ex_7"]),
    ],
    "budget_events": lambda store: [
        store.budget_events(scope, "usd") for scope in ("task:t", "tenant", "tree:ex_7")
    ],
    "spending": lambda store: [dict(store.spending(id)) for id in IDS],
    "reservations": lambda store: [store.reservations(id) for id in IDS],
    "ended": lambda store: store.ended("", "~", T + SPAN, 99),
    "workers": lambda store: [(row.id, row.state, row.leased) for row in store.workers()],
    "expired": lambda store: store.expired(T + 10),
    "verify": lambda store: store.verify(),
    "schedules.get": lambda store: store.schedules.get(NAME),
    "schedules.page": lambda store: store.schedules.page(),
    "schedules.due": lambda store: store.schedules.due(T + SPAN, 9),
    "schedules.log": lambda store: store.schedules.log(NAME),
    "schedules.fate": lambda store: store.schedules.fate(NAME, T + MINUTE),
    "schedules.defects": lambda store: store.schedules.defects(),
    "capacity.queues": lambda store: store.capacity.queues(),
    "capacity.gates": lambda store: store.capacity.gates(),
    "capacity.queue": lambda store: store.capacity.queue("slow"),
    "capacity.standing": lambda store: [store.capacity.standing(id) for id in IDS],
    "capacity.defects": lambda store: store.capacity.defects(),
    "feed.head": lambda store: (head := store.feed.head()) and (head.name, head.read_at),
    "feed.read": lambda store: sorted(
        (row.execution_id, row.seq) for row in store.feed.read(0, 999)
    ),  # each store has an order of its own between executions
    "webhooks.page": lambda store: store.webhooks.page(),
    "webhooks.get": lambda store: store.webhooks.get("wh_1"),
    "webhooks.due": lambda store: store.webhooks.due("wh_1", T + SPAN, 9),
    "webhooks.deliveries": lambda store: store.webhooks.deliveries("wh_1"),
    "access.users": lambda store: store.access.users(),
    "access.user": lambda store: store.access.user("ada"),
    "access.held": lambda store: [store.access.held(), store.access.held(["user:ada"])],
    "access.tokens": lambda store: store.access.tokens(),
    "access.token": lambda store: store.access.token("abcdefghij"),
    "access.session": lambda store: store.access.session(session().digest),
    "access.audit": lambda store: [
        (row.number, row.what, row.target)
        for newest in (True, False)
        for row in store.access.audit(newest=newest)
    ],
    "access.audit_head": lambda store: store.access.audit_head()[0],
    "access.defects": lambda store: store.access.defects(),
}
"""Every verb that reads what is a tenant's, and how it is asked."""
WRITES: Final = frozenset(
    {
        *("commit", "claim", "sweep", "recover", "register", "renew", "leave", "forget_workers"),
        *("secret", "purge", "epochs.begin", "epochs.report"),
        *("schedules.apply", "schedules.apply_all", "schedules.prune"),
        *("capacity.set_queue", "capacity.set_gate", "capacity.reset_gate"),
        *("feed.follow", "feed.settle", "feed.prune", "feed.end"),
        *("feed.hold_export", "feed.note_exported"),
        *(
            "webhooks.add",
            "webhooks.save",
            "webhooks.remove",
            "webhooks.ping",
            "webhooks.redeliver",
        ),
        *(
            "webhooks.hold",
            "webhooks.let_go",
            "webhooks.advance",
            "webhooks.note",
            "webhooks.prune",
        ),
        *("access.add_user", "access.set_password", "access.disable", "access.give"),
        *("access.take_back", "access.add_token", "access.revoke_token", "access.use_token"),
        *("access.open_session", "access.see_session", "access.end_session", "access.attempt"),
    }
)
"""The verbs that write what is a tenant's."""
OF_ALL: Final = frozenset(
    {
        *("hints", "changed", "close", "backup", "hear", "hurry", "instant", "epochs.keeping"),
        *("tenants.page", "tenants.get", "tenants.add", "tenants.close"),
        *("sealing.data_keys", "sealing.wrap_anew", "sealing.draw_anew", "sealing.seal_anew"),
        "sealing.finish",
    }
)
"""Those of a connection, of the whole database, or of its keys."""


def seen(store: Store) -> dict[str, Any]:
    """Give what every verb that reads tells, without whose it is."""
    return {name: _plain(read(store)) for name, read in READS.items()}


def _plain(told: Any) -> Any:
    """Take the tenant's number out of what is told; all else is to be equal."""
    if isinstance(told, list | tuple):
        return [_plain(one) for one in told]
    if isinstance(told, dict):
        return {name: _plain(one) for name, one in told.items()}
    if isinstance(told, Execution | Transition):
        return replace(told, tenant=0, nonce=told.nonce and b"n" * 16)
    if isinstance(told, Held):
        return replace(told, grant=replace(told.grant, tenant=0))
    if isinstance(told, Token):
        return replace(told, grants=tuple(replace(one, tenant=0) for one in told.grants))
    return replace(told, tenant=0) if isinstance(told, ScheduleRecord) else told


@contextmanager
def alone_with(act: Callable[[Store], None] | None = None) -> Iterator[Store]:
    """Have a store that is alone, by the oracle."""
    store = MemoryStore()
    if act is not None:
        act(store)
    yield store


class TenantsConformance:
    """The suite; each store gives it fixtures ``store`` and ``beside``.

    ``beside(name)`` opens the same database for another tenant, which it makes where there is none.
    """

    def test_a_tenant_sees_nothing_of_another_one(self, store: Store, beside: Beside) -> None:
        busy(store)
        other = beside(OTHER)
        with alone_with() as empty:
            assert seen(other) == seen(empty)
        assert other.tenant != store.tenant == DEFAULT_NUMBER

    def test_the_same_names_are_others(self, store: Store, beside: Beside) -> None:
        busy(store)
        other, before = beside(OTHER), seen(store)
        busy(other)
        assert seen(store) == before
        with alone_with(busy) as single:
            lone = seen(single)
        # What made the other tenant is in the audit of the first one.
        assert {name for name in lone if lone[name] != before[name]} <= AUDITED
        told = seen(other)
        assert {name for name in lone if lone[name] != told[name]} == set()
        assert store.verify().defects == other.verify().defects == []

    def test_a_tenant_changes_nothing_of_another_one(self, store: Store, beside: Beside) -> None:
        busy(store)
        other, before = beside(OTHER), seen(store)
        theirs = Owner(state(store, "ex_1"))
        payer = Owner(state(store, "ex_7"))
        stop = message("m9", MessageKind.CANCEL)
        answers = other.commit(
            [
                theirs.write(Kind.FINISH, T + 9),
                Deliver("ex_4", stop, T + 9),
                Reserve("ex_7", payer.record.fence, payer.record.nonce, "k", {"task:t:usd": 1}),
            ]
        )
        assert codes(answers)[:2] == ["no_execution", "no_execution"]
        assert codes(answers)[2] is not None
        assert other.claim(Lease("w9"), ["t"], 99, T + SPAN, nonces(99)) == []
        assert other.sweep(T + SPAN, 99) == (0, None)
        assert other.recover(None, "w9", T + SPAN, 99) == other.recover(["w1"], "w9", T, 99) == 0
        assert other.renew("w1", SPAN, T + 1) is None and other.expired(T + 2 * SPAN) == []
        other.leave("w1", T + 9)
        assert other.forget_workers(T + SPAN) == other.purge(IDS, deed("purge")) == 0
        assert other.schedules.prune(T + SPAN, 99) == other.feed.prune(T + SPAN, 99) == 0
        assert other.feed.settle() == 0 and not other.feed.end(T + SPAN)
        assert not other.capacity.reset_gate("mail", deed("reset"))
        access = other.access
        assert not access.take_back("user:ada", Grant(Role.VIEWER, "billing"), deed("revoke"))
        assert not access.revoke_token("abcdefghij", T, deed("revoke"))
        assert not access.disable("ada", T, deed("disable"))
        assert not access.set_password("ada", user().password, deed("password"))
        assert not access.end_session(session().digest, deed("sign out"))
        access.use_token("abcdefghij", T)
        access.see_session(session().digest, T + 50)
        assert other.secret("tokens", b"o" * 32) == b"o" * 32
        assert store.secret("tokens", b"x" * 32) != b"o" * 32
        assert seen(store) == before

    def test_nobody_depends_on_another_tenants(self, store: Store, beside: Beside) -> None:
        one(store, born("ex_1"))
        other = beside(OTHER)
        waits = born("ex_2", waits_on=[edge("ex_1")], tenant=other.tenant)
        assert one(other, waits).refused == "no_upstream"

    def test_what_belongs_to_another_tenant_is_not_written(
        self, store: Store, beside: Beside
    ) -> None:
        """A record that came from elsewhere is a bug above; it is refused, and not given away."""
        other = beside(OTHER)
        assert one(other, born("ex_1")).refused == "internal_error"
        assert one(store, born("ex_1", tenant=other.tenant)).refused == "internal_error"
        assert store.get(["ex_1"]) == other.get(["ex_1"]) == [None]
        assert store.verify().defects == other.verify().defects == []

    def test_tenants_are_kept(self, store: Store) -> None:
        tenants = store.tenants
        default = Tenant(DEFAULT_NUMBER, DEFAULT_TENANT)
        assert tenants.page() == [default] and tenants.get(OTHER) is None
        assert tenants.add(OTHER, T, deed("tenant")) and not tenants.add(OTHER, T, deed("tenant"))
        assert not tenants.add(DEFAULT_TENANT, T, deed("tenant"))
        acme = Tenant(2, OTHER, T)
        assert tenants.page() == [default, acme] and tenants.get(OTHER) == acme
        assert tenants.close(OTHER, T + 1, deed("close"))
        assert not tenants.close(OTHER, T + 2, deed("close"))
        assert tenants.get(OTHER) == Tenant(2, OTHER, T, T + 1)
        assert tenants.close(OTHER, None, deed("open")) and tenants.get(OTHER) == acme
        assert not tenants.close(OTHER, None, deed("open"))
        assert not tenants.close(DEFAULT_TENANT, T, deed("close"))
        assert not tenants.close("nobody", T, deed("close"))
        said = [(row.what, row.target) for row in store.access.audit()]
        assert said == [(what, f"tenant:{OTHER}") for what in ("tenant", "close", "open")]

    def test_in_a_closed_tenant_nothing_begins(self, store: Store, beside: Beside) -> None:
        other = beside(OTHER)
        clerk = Clerk(other)
        assert clerk.create().refused is None
        owner, item = begun("ex_1", tenant=other.tenant)
        assert codes(other.commit([item, born("ex_2", key="k", tenant=other.tenant)])) == [
            None,
            None,
        ]
        assert store.tenants.close(OTHER, T + 1, deed("close"))
        assert one(other, born("ex_3", tenant=other.tenant)).refused == "tenant_closed"
        assert one(other, born_alike(["ex_4", "ex_5"])).refused == "tenant_closed"
        assert one(other, born("ex_3", key="k", tenant=other.tenant)).refused == "already_exists"
        assert other.claim(Lease("w1"), ["t"], 9, T + 2, nonces(9)) == []
        assert other.schedules.due(T + SPAN, 9) == ([], None)
        try:
            clerk.wish(Wish.TRIGGER, T + SPAN)
        except TenantClosed:
            pass
        else:
            raise AssertionError("a schedule fired")
        # What runs goes on, and can be told something.
        child = born("ex_4", parent_id="ex_1", root_id="ex_1", parent_key="work#1",
                     tenant=other.tenant)  # fmt: skip
        assert one(other, calls_child(owner, child)).refused is None
        assert one(other, Deliver("ex_1", message("m1", MessageKind.PAUSE), T + 2)).refused is None
        assert one(store, born("ex_3")).refused is None
        assert store.tenants.close(OTHER, None, deed("open"))
        claimed = other.claim(Lease("w1"), ["t"], 9, T + 3, nonces(9, 2))
        assert sorted(one.execution.id for one in claimed) == ["ex_2", "ex_4"]
        assert other.schedules.due(T + SPAN, 9)[0] != []
        assert other.verify().defects == []


AUDITED: Final = {"access.audit", "access.audit_head"}


__all__ = ["OF_ALL", "READS", "WRITES", "TenantsConformance", "busy", "seen"]
