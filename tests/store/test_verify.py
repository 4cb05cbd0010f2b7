"""``verify`` finds what somebody with a database shell, and no guards, has done to a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw
import pytest

from outlast.lifecycle import Kind
from outlast.store.memory import MemoryStore
from outlast.store.protocol import Deliver, Item, Store
from outlast.store.sql import Statement
from outlast.store.sqlite import SqliteStore
from outlast.store.sqlite import verify as module
from outlast.store.sqlite.rows import Value
from outlast.testing.conformance import ASK, T, answer_to, begun, born, codes, state

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
        if reader not in (store._writer, store._reader) and list(values) == ["moving"]:
            assert codes(store.commit([next(steps)])) == [None]
        return found

    monkeypatch.setattr(module, "ask", meanwhile)
    assert store.verify().defects == []
    assert next(steps, None) is None, "it did move on"
    assert state(store, "moving").seq == 4
