"""``verify`` finds what somebody with a database shell, and no guards, has done to a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw
import pytest

from outlast.access import Grant, Role
from outlast.access.record import Held
from outlast.lifecycle import Kind, MessageKind
from outlast.store.memory import MemoryStore
from outlast.store.protocol import Deliver, Emission, Item, Lease, ProgressRow, Store
from outlast.store.relational.rows import Value
from outlast.store.sql import Statement
from outlast.store.sqlite import SqliteStore
from outlast.store.sqlite import database as module
from outlast.testing.conformance import (
    ASK,
    Owner,
    T,
    answer_to,
    begun,
    born,
    codes,
    message,
    state,
)
from outlast.testing.conformance_access import PASSWORD, deed, session, token, user
from outlast.testing.conformance_budgets import adjust, reserve, spends
from outlast.testing.conformance_schedules import MINUTE, Clerk
from outlast.testing.conformance_structure import calls_child, child_of, edge

# what was done -> what verify says, beginning with the execution
TAMPERING = {
    "a row of the log deleted": ("DELETE FROM transition WHERE execution_id = 'run' AND seq = 4", "run: row 5 is not"),
    "the last row of the log deleted": ("DELETE FROM transition WHERE execution_id = 'run' AND seq = 5", "run: its log does not fold to its row: seq"),
    "the first row of the log deleted": ("DELETE FROM transition WHERE execution_id = 'run' AND seq = 1", "run: the first row is claim, not create"),
    "a whole log deleted": ("DELETE FROM transition WHERE execution_id = 'run'", "run: the log is empty"),
    "a row of the log changed": ("UPDATE transition SET to_state = 'starting' WHERE execution_id = 'run' AND seq = 4", "run: row 4"),
    "a kind changed": ("UPDATE transition SET kind = 'finish' WHERE execution_id = 'run' AND seq = 5", "run: row 5"),
    "a fence changed": ("UPDATE transition SET fence = 7 WHERE execution_id = 'run' AND seq = 4", "run: row 4"),
    "a nonce changed": ("UPDATE transition SET nonce = zeroblob(16) WHERE execution_id = 'run' AND seq = 4", "run: row 4"),
    "two rows swapped": ("UPDATE transition SET seq = -4 WHERE execution_id = 'done' AND seq = 4; UPDATE transition SET seq = 4 WHERE execution_id = 'done' AND seq = 5; UPDATE transition SET seq = 5 WHERE execution_id = 'done' AND seq = -4", "done: row 5"),
    "a row inserted": ("INSERT INTO transition SELECT tenant, execution_id, 6, kind, from_state, to_state, fence, nonce, actor, at, key, digest, data, payload FROM transition WHERE execution_id = 'run' AND seq = 5", "run: its log does not fold to its row: seq"),
    "an unknown kind": ("UPDATE transition SET kind = 'fly' WHERE execution_id = 'run' AND seq = 4", "run: what is stored is not what Outlast writes"),
    "facts that are no JSON": ("UPDATE transition SET data = '{' WHERE execution_id = 'wait' AND seq = 4", "wait: what is stored is not"),
    "a state changed": ("UPDATE execution SET state = 'blocked' WHERE id = 'idle'", "idle: its log does not fold to its row: state"),
    "a result undone": ("UPDATE execution SET state = 'failed' WHERE id = 'done'", "done: its log does not fold to its row: state"),
    "a retry given": ("UPDATE execution SET failures = 3 WHERE id = 'run'", "run: its log does not fold to its row: failures"),
    "a wait made due": ("UPDATE execution SET due_at = 1 WHERE id = 'wait'", "wait: its log does not fold to its row: due_at"),
    "another priority": ("UPDATE execution SET priority = 9 WHERE id = 'idle'", "idle: its log does not fold to its row: priority"),
    "an execution deleted": ("DELETE FROM execution WHERE id = 'done'", "done: its log, or its inbox, has no row"),
    "an execution and its first row deleted": ("DELETE FROM execution WHERE id = 'done'; DELETE FROM transition WHERE execution_id = 'done' AND seq = 1", "done: its log, or its inbox, has no row"),
    "a message deleted": ("DELETE FROM inbox WHERE execution_id = 'wait'", "wait: its row counts 1 messages, its inbox has 0"),
    "a message inserted": ("INSERT INTO inbox VALUES (1, 'run', 2, 'm9', 'note', 'a', NULL, NULL, NULL, 1)", "run: its row counts 1 messages, its inbox has 2"),
    "a message for nobody": ("INSERT INTO inbox VALUES (1, 'none', 1, 'm9', 'note', 'a', NULL, NULL, NULL, 1)", "none: its log, or its inbox, has no row"),
    "an answer changed": ("UPDATE inbox SET payload = X'00' WHERE execution_id = 'wait'", "wait: row 5 is not what message 1 says"),
    "an answer changed in the log": ("UPDATE transition SET payload = X'00' WHERE execution_id = 'wait' AND seq = 5", "wait: row 5 is not what message 1 says"),
    "somebody else's answer": ("UPDATE inbox SET actor = 'eve' WHERE execution_id = 'wait'", "wait: row 5 is not what message 1 says"),
    "an unread message forgotten": ("UPDATE execution SET inbox_seen = 1 WHERE id = 'run'", "run: its log does not fold to its row: inbox_seen"),
    "the same execution for another tenant": ("UPDATE transition SET tenant = 2 WHERE execution_id = 'idle'", "idle:"),
}  # fmt: skip


def fill(store: Store) -> None:
    runner, run = begun("run")
    waiter, wait = begun("wait")
    ender, done = begun("done")
    items: list[Item] = [
        run,
        runner.write(Kind.STEP, key="a#1"),
        runner.write(Kind.TIMER_FIRED),
        wait,
        waiter.park(Kind.WAIT, data={**ASK, "due_at": T + 9}),
        done,
        ender.write(Kind.STEP),
        ender.write(Kind.FINISH),
        born("idle"),
        Deliver("run", answer_to("q#1"), T),
        Deliver("wait", answer_to("early"), T),
    ]
    assert set(codes(store.commit(items))) == {None}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "outlast.db", owner="w1", now=1)
    fill(store)
    yield store
    store.close()


@pytest.mark.parametrize("case", TAMPERING)
def test_tampering_is_found(store: SqliteStore, case: str) -> None:
    sql, said = TAMPERING[case]
    assert store.verify().defects == []
    shell = apsw.Connection(str(store.path))
    for (name,) in shell.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
    ).fetchall():
        shell.execute(f"DROP TRIGGER {name}")
    shell.execute(sql)
    shell.close()
    defects = store.verify().defects
    assert any(defect.startswith(said) for defect in defects), defects
    assert len({defect.partition(":")[0] for defect in defects}) == 1, "and nobody else is blamed"


# Tables that say nothing of their own: what was done -> what verify says
DERIVED = {
    "a question forgotten": ("DELETE FROM question", "asks: its open questions"),
    "a question for somebody else": ("UPDATE question SET recipient = 'eve'", "asks: its open questions"),
    "a question that nobody asked": ("INSERT INTO question VALUES (1, 'parent', 'q#1', NULL)", "parent: its open questions"),
    "a label forgotten": ("DELETE FROM label", "asks: its labels"),
    "a label that it has not": ("INSERT INTO label VALUES (1, 'team', 'y', 'parent')", "parent: its labels"),
    "an origin forgotten": ("DELETE FROM descent", "asks: its log does not say"),
    "another origin": ("UPDATE descent SET source_id = 'parent'", "asks: its log does not say"),
    "a dependency forgotten": ("DELETE FROM dependency", "waits: it waits for asks, and nobody"),
    "a dependency on another": ("INSERT INTO dependency VALUES (1, 'waits', 'parent', 'parent')", "waits: a dependency that its birth"),
    "a dependency on nobody": ("UPDATE dependency SET watched_id = 'nobody'", "waits: "),
    "an errand forgotten": ("DELETE FROM errand", "orphan: its parent ended has ended"),
    "an errand for nobody": ("UPDATE errand SET execution_id = 'nobody'", "nobody: an errand"),
    "an errand of somebody who lives": ("INSERT INTO errand VALUES (9, 1, 'child', 'parent', 'parent', 'failed')", "child: an errand"),
    "an errand of another kind": ("UPDATE errand SET what = 'upstream'", "orphan: "),
    "a child of another": ("UPDATE execution SET parent_key = 'work#9' WHERE id = 'child'", "child: "),
    "a child not counted": ("UPDATE execution SET children = 0 WHERE id = 'parent'", "parent: its log does not fold to its row: children"),
    "a holder forgotten": ("DELETE FROM holder", "held: is no holder by the index"),
    "a holder too many": ("INSERT INTO holder VALUES (1, 'k', 'parent')", "parent: is a holder by the index only"),
    "a charge forgotten": ("DELETE FROM spending", "budget execution:parent:usd: "),
    "a charge made up": ("UPDATE budget SET charged = 9 WHERE scope = 'execution:parent'", "budget execution:parent:usd: "),
    "a reservation forgotten": ("DELETE FROM reservation", "budget execution:parent:usd: "),
    "a reservation of no budget": ("UPDATE reservation SET scope = 'task:x'", "parent: it has set aside"),
    "an event forgotten": ("DELETE FROM budget_event", "budget task:t:usd: it counts 1 events"),
    "a schedule renamed": ("UPDATE schedule SET name = 'other'; UPDATE schedule_entry SET name = 'other'", "ex_s000016: no schedule has made it"),
    "an entry forgotten": ("DELETE FROM schedule_entry WHERE seq = 2", "schedule nightly: its row is at 2"),
    "another's execution": ("UPDATE schedule_entry SET execution_id = 'held' WHERE seq = 2", "held: no schedule has made it"),
    "a stream with a gap": ("DELETE FROM stream_item WHERE number = 1", "parent: its stream draft"),
    "a stream of nobody": ("UPDATE stream_item SET execution_id = 'nobody'", "nobody: its stream draft"),
    "progress of nobody": ("UPDATE progress SET execution_id = 'nobody'", "nobody: it says how far it is"),
    "a sealing half done": ("INSERT INTO reseal_permit VALUES (1)", "payloads: its sealing anew"),
    "a session of a user who may not sign in": ("UPDATE account SET disabled_at = 1", "ada: a session"),
    "a session of nobody": ("UPDATE session SET account = 'eve'", "eve: a session"),
    "a token of nobody": ("UPDATE token SET owner = 'eve'", "abcdefghij: a token"),
    "a role of nobody": ("UPDATE role_grant SET subject = 'user:eve'", "user:eve: the role viewer"),
    "a row of the audit changed": ("UPDATE audit SET actor = 'eve' WHERE number = 2", "audit: row 2 is not what"),
    "a row of the audit deleted": ("DELETE FROM audit WHERE number = 2", "audit: row 3 comes after row 1"),
    "a row of the audit exchanged": ("UPDATE audit SET previous = zeroblob(32) WHERE number = 3", "audit: row 3 does not follow"),
    "the end of the audit cut off": ("DELETE FROM audit WHERE number = 4", "audit: its head is at row 4"),
    "the whole audit deleted": ("DELETE FROM audit", "audit: its head is at row 4"),
    "the head of the audit forged": ("UPDATE audit_head SET digest = zeroblob(32)", "audit: its head"),
    "the head of the audit deleted": ("DELETE FROM audit_head", "audit: its head"),
    "a purge half done": ("INSERT INTO purge_permit VALUES (1, 'ended')", "ended: its purge was not finished"),
}  # fmt: skip


def fill_derived(store: Store) -> None:
    """Something in every derived table."""
    asker, asks = begun("asks", labels={"team": "x"}, **{"from": {"id": "gone", "mode": "fork"}})
    parent, item = begun("parent", budget={"scope": "execution", "limits": {"usd": 90}})
    ended, second = begun("ended")
    _, child = child_of(parent, "child")
    _, orphan = child_of(ended, "orphan")
    limit = {"name": "k", "of": "k", "capacity": 1, "hold": False}
    emitted = calls_child(parent, child)
    emitted.emits = [Emission("draft", part, T, b"1") for part in (1, 2)]
    emitted.progress = ProgressRow(T, 1.0)
    batch: list[Item] = [
        asks,
        asker.park(Kind.WAIT, data=ASK),
        item,
        second,
        emitted,
        calls_child(ended, orphan),
        ended.write(Kind.FINISH),
        born("held", gates={"limits": [limit]}, priority=9),
        adjust("set", 50),
    ]
    assert set(codes(store.commit(batch))) == {None}
    spent = [
        born("waits", waits_on=[edge("asks")]),
        spends(parent, 7, "execution:parent:usd"),
        reserve(parent, 5, "execution:parent:usd"),
    ]
    assert set(codes(store.commit(spent))) == {None}
    (claimed,) = store.claim(Lease("w1"), ["t"], 1, T, [b"h" * 16])
    assert claimed.execution.id == "held"
    clerk = Clerk(store)
    clerk.create()
    assert clerk.run(T + MINUTE) == ["ex_s000016"]
    store.access.add_user(user(), deed())
    store.access.add_token(token(owner="ada"), deed())
    store.access.give(Held("user:ada", Grant(Role.VIEWER), T, "os:ada"), deed())
    store.access.open_session(session(), PASSWORD, b"n" * 32, deed())


@pytest.fixture
def derived(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "outlast.db", owner="w1", now=1)
    fill_derived(store)
    assert store.verify().defects == []
    yield store
    store.close()


@pytest.mark.parametrize("case", DERIVED)
def test_what_derived_tables_say_is_compared(derived: SqliteStore, case: str) -> None:
    sql, said = DERIVED[case]
    shell = apsw.Connection(str(derived.path))
    names = shell.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for (name,) in names:
        shell.execute(f"DROP TRIGGER {name}")
    shell.execute(sql)
    shell.close()
    defects = derived.verify().defects
    assert any(defect.startswith(said) for defect in defects), defects


MEANT = {
    *("meta", "migration", "edge", "worker", "execution", "transition", "inbox", "schedule"),
    *("queue_setting", "gate_setting", "rate", "account", "sign_in", "data_key", "secret"),
    *("tenant", "feed_state", "feed", "sight", "epoch", "epoch_loss"),
    *("webhook", "webhook_delivery", "webhook_sender"),
}
"""Tables that say something of their own, or are checked with the executions' rows."""


def test_every_derived_table_has_a_case(derived: SqliteStore) -> None:
    shell = apsw.Connection(str(derived.path))
    tables = {
        str(name)
        for (name,) in shell.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    }
    shell.close()
    tried = {table for table in tables for sql, _ in DERIVED.values() if f" {table}" in sql}
    assert tables - MEANT - tried == {"line"}  # tests/store/test_capacity.py


def test_a_purge_leaves_nothing_in_any_table(derived: SqliteStore) -> None:
    """Whatever tables there will be: each column that names an execution is looked at."""
    stop = [Deliver(id, message("stop", MessageKind.CANCEL), T + 1) for id in ("asks", "waits")]
    assert set(codes(derived.commit(stop))) == {None}
    owner = Owner(state(derived, "parent"))
    assert codes(derived.commit([owner.write(Kind.FINISH, T + 1)])) == [None]
    shell = apsw.Connection(str(derived.path))
    columns = shell.execute(
        "SELECT m.name, c.name FROM sqlite_schema AS m, pragma_table_info(m.name) AS c"
        " WHERE m.type = 'table' AND (c.name = 'execution_id'"
        " OR (m.name IN ('execution', 'descent') AND c.name = 'id'))"
    ).fetchall()
    apart = {("budget_event", "execution_id"), ("schedule_entry", "execution_id")}
    places = set(columns) - apart  # the histories of a budget and a schedule tell who it was
    assert {"question", "label", "holder", "errand", "stream_item"} <= {one for one, _ in places}
    gone = ("asks", "waits", "parent")
    before = {one for one in places if left(shell, one, gone)}
    assert len(before) > 6
    assert derived.purge(gone) == 3
    assert {one for one in places if left(shell, one, gone)} == set()
    assert shell.execute("SELECT * FROM budget WHERE scope = 'execution:parent'").fetchall() == []
    shell.close()
    assert derived.verify().defects == []


def left(shell: apsw.Connection, place: tuple[str, str], ids: Sequence[str]) -> bool:
    table, column = place
    sql = f"SELECT 1 FROM {table} WHERE {column} IN (?, ?, ?)"
    return bool(shell.execute(sql, ids).fetchall())


def test_memory_is_checked_as_well() -> None:
    store = MemoryStore()
    fill(store)
    assert store.verify().defects == []
    del store._logs["run"][3]
    store._records["idle"].priority = 9
    store._inboxes["wait"].clear()
    said = {defect.partition(":")[0] for defect in store.verify().defects}
    assert said == {"run", "idle", "wait"}


def test_more_than_one_part(tmp_path: Path) -> None:
    """Executions are read some hundred at a time."""
    store = SqliteStore(tmp_path / "outlast.db", owner="w1", now=1)
    store.commit([born(f"ex_{n:04}") for n in range(450)])
    verdict = store.verify()
    assert (verdict.executions, verdict.transitions, verdict.defects) == (450, 450, [])
    store.close()


def test_what_moves_on_during_a_verify_is_no_defect(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row, log and inbox are read at one instant, whatever is written between the three."""
    runner, item = begun("moving", nonce=b"m" * 16)
    assert codes(store.commit([item])) == [None]
    ask = module.ask
    steps = iter([runner.write(Kind.STEP)])

    def meanwhile(reader: apsw.Connection, statement: Statement, values: Sequence[Value]) -> object:
        found = ask(reader, statement, values)
        is_row = statement.name == "executions_by_id" and "moving" in values
        if is_row and reader not in (store.file.writer, store.file._reader):
            assert codes(store.commit([next(steps)])) == [None]
        return found

    monkeypatch.setattr(module, "ask", meanwhile)
    assert store.verify().defects == []
    assert next(steps, None) is None, "it did move on"
    assert state(store, "moving").seq == 4
