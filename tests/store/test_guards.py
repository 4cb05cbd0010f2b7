"""Each guard of the SQLite schema refuses its bad write, whoever tries it with raw SQL.

The schema is the last line: what gets here is a bug above, or somebody with a database shell. Each
case names the guard that must answer, so that no case passes by a refusal for another reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from outlast.lifecycle import EDGES, FINAL, LEASED, Kind, State
from outlast.lifecycle.record import COLUMNS
from outlast.store.protocol import Create, Deliver, Item, WorkerRow, Write
from outlast.store.sqlite import SqliteStore
from outlast.testing.conformance import (
    ASK,
    Owner,
    T,
    answer_to,
    begun,
    born,
    codes,
    one,
    replace,
    state,
)

NONCE = "X'" + (b"n" * 16).hex() + "'"
OTHER = "X'" + (b"o" * 16).hex() + "'"

ROW = (
    "INSERT INTO transition (tenant, execution_id, seq, kind, from_state, to_state, fence, nonce,"
    " actor, at) VALUES (1, {id}, {seq}, {kind}, {source}, {target}, {fence}, {nonce}, 'a', {at})"
)
STREAM = "numbered without a gap"


def item(number: int, part: int = 1) -> str:
    """An item of a stream of the running execution, in SQL."""
    return (
        "INSERT INTO stream_item (tenant, execution_id, name, number, step, attempt, lease, part,"
        f" at, payload) VALUES (1, 'run', 'draft', {number}, '', 1, 0, {part}, 1, X'31')"
    )


LATER = 10**16
"""A time after everything that is stored."""


def row(
    id: str = "run",
    seq: int = 4,
    kind: str = "step",
    source: str = "running",
    target: str = "running",
    fence: int = 1,
    nonce: str = NONCE,
    at: int = LATER,
) -> str:
    """A row of the log in SQL: by default a legal step of the running execution."""
    texts = {"id": id, "kind": kind, "source": source, "target": target}
    return ROW.format(
        seq=seq,
        fence=fence,
        nonce=nonce,
        at=at,
        **{name: f"'{text}'" for name, text in texts.items()},
    )


def replacing(sql: str) -> str:
    return sql.replace("INSERT", "INSERT OR REPLACE", 1)


SUCCESSOR = "not a legal successor"
EDGE = "no such edge"
FROZEN = "the log is append-only"
LAST_ROW = "does not equal the last row"
FINAL_ROW = "a final execution never changes"
DOWN = "never go down"
CHECK = "CHECK constraint failed"
BIRTH = row("new", 1, "create", "", "queued", 0, "NULL")
COPY = "INSERT INTO execution SELECT 1, '{id}', task, state, {columns} FROM execution WHERE id = '{of}'"

BAD_WRITES: dict[str, tuple[str, str]] = {
    # the log: numbers
    "a gap": (row(seq=5), SUCCESSOR),
    "a repeat": (row(seq=3), SUCCESSOR),
    "a repeat by REPLACE": (replacing(row(seq=3)), SUCCESSOR),
    "a REPLACE of the first row": (replacing(row(seq=1, kind="create", source="", target="queued", fence=0, nonce="NULL")), SUCCESSOR),
    "number zero": (row("new", 0, "create", "", "queued", 0, "NULL"), SUCCESSOR),
    "a log that begins in the middle": (row("new", 2), SUCCESSOR),
    "a log that begins with something else": (row("new", 1, "step"), SUCCESSOR),
    "a birth with a fence": (row("new", 1, "create", "", "queued", 1, "NULL"), SUCCESSOR),
    "a birth with a nonce": (row("new", 1, "create", "", "queued", 0), SUCCESSOR),
    "a second birth": (row("run", 4, "create", "", "queued", 0, "NULL"), SUCCESSOR),
    # streams
    "a gap in a stream": (item(number=2), STREAM),
    "an item that is there": (f"{item(number=1)}; {item(number=1, part=2)}", STREAM),
    "what was said already": (f"{item(number=1)}; {item(number=2)}", "UNIQUE"),
    "a changed item": (f"{item(number=1)}; UPDATE stream_item SET payload = X'32'", "only grows"),
    "a lost item": (f"{item(number=1)}; DELETE FROM stream_item", "by a purge only"),
    # the log: edges
    "a wrong from-state": (row(source="starting"), SUCCESSOR),
    "an edge that is none": (row(kind="step", target="succeeded"), EDGE),
    "an edge of another kind": (row(kind="finish", target="failed"), EDGE),
    "an unknown kind": (row(kind="explode"), EDGE),
    "an unknown state": (row(kind="finish", target="exploded"), EDGE),
    "a birth into the middle": (row("new", 1, "create", "", "running", 0, "NULL"), EDGE),
    "a time that goes back": (row(at=1), SUCCESSOR),
    # the log: leases
    "a stale fence": (row(fence=0), SUCCESSOR),
    "a fence too high": (row(fence=2), SUCCESSOR),
    "a wrong nonce": (row(nonce=OTHER), SUCCESSOR),
    "no nonce": (row(nonce="NULL"), SUCCESSOR),
    "a takeover without a higher fence": (row(kind="worker_lost", target="retry_wait", nonce="NULL"), SUCCESSOR),
    "a takeover that jumps": (row(kind="worker_lost", target="retry_wait", nonce="NULL", fence=3), SUCCESSOR),
    "a takeover by a kind that is none": (row(kind="finish", target="succeeded", nonce="NULL", fence=2), SUCCESSOR),
    "a lease where nobody owns it": (row("wait", 5, "resume", "awaiting_input", "queued"), SUCCESSOR),
    "a fence raised by no claim": (row("wait", 5, "resume", "awaiting_input", "queued", 2, "NULL"), SUCCESSOR),
    "a claim without a nonce": (row("idle", 2, "claim", "queued", "starting", 1, "NULL"), SUCCESSOR),
    "a claim with a short nonce": (row("idle", 2, "claim", "queued", "starting", 1, "X'00'"), SUCCESSOR),
    "a claim that raises no fence": (row("idle", 2, "claim", "queued", "starting", 0), SUCCESSOR),
    # the log: ends
    "a row after the end": (row("done", 5, "annotation", "succeeded", "succeeded"), SUCCESSOR),
    "a second end": (row("done", 5, "cancel", "succeeded", "cancelled", 2, "NULL"), SUCCESSOR),
    # the log: append-only
    "an update of the log": ("UPDATE transition SET payload = X'00' WHERE execution_id = 'done'", FROZEN),
    "an update or replace of the log": ("UPDATE OR REPLACE transition SET seq = 2 WHERE seq = 3", FROZEN),
    "a delete from the log": ("DELETE FROM transition WHERE execution_id = 'done' AND seq = 4", FROZEN),
    "a truncated log": ("DELETE FROM transition", FROZEN),
    "an actor without a name": (row().replace("'a'", "''"), CHECK),
    # executions
    "a state without its row of the log": ("UPDATE execution SET state = 'queued', nonce = NULL, worker = NULL, seq = 4 WHERE id = 'run'", LAST_ROW),
    "a state with the same number": ("UPDATE execution SET state = 'starting' WHERE id = 'run'", "changes with its log only"),
    "a number without its row": (f"UPDATE execution SET updated_at = {LATER}, seq = 4 WHERE id = 'run'", LAST_ROW),
    "a row left behind its log": (f"{row()}; {row(seq=5)}; UPDATE execution SET updated_at = {LATER}, seq = 4 WHERE id = 'run'", LAST_ROW),
    "a fence that is not its row's": (f"{row()}; UPDATE execution SET updated_at = {LATER}, seq = 4, fence = 2 WHERE id = 'run'", LAST_ROW),
    "a nonce that is not its row's": (f"{row()}; UPDATE execution SET updated_at = {LATER}, seq = 4, fence = 2, claims = 2, nonce = {OTHER} WHERE id = 'run'", LAST_ROW),
    "a number that falls": (f"UPDATE execution SET updated_at = {LATER}, seq = 2 WHERE id = 'run'", DOWN),
    "another time than its row's": (f"{row()}; UPDATE execution SET seq = 4 WHERE id = 'run'", LAST_ROW),
    "a time without its row": ("UPDATE execution SET updated_at = updated_at + 1 WHERE id = 'run'", "changes with its log only"),
    "a fence that falls": (f"{row()}; UPDATE execution SET updated_at = {LATER}, seq = 4, fence = 0, claims = 0, idle_claims = 0, nonce = NULL, worker = NULL, state = 'queued' WHERE id = 'run'", DOWN),
    "a high water that falls": (f"{row()}; UPDATE execution SET updated_at = {LATER}, seq = 4, high_water = 2 WHERE id = 'run'", DOWN),
    "attempts that fall": (f"{row()}; UPDATE execution SET updated_at = {LATER}, seq = 4, attempt = 0 WHERE id = 'run'", DOWN),
    "claims that fall": (f"{row('wait', 5, 'annotation', 'awaiting_input', 'awaiting_input', 1, 'NULL')}; UPDATE execution SET updated_at = {LATER}, seq = 5, claims = 0, idle_claims = 0 WHERE id = 'wait'", DOWN),
    "an uncounted claim": (f"{row('wait', 5, 'resume', 'awaiting_input', 'queued', 1, 'NULL')}; {row('wait', 6, 'claim', 'queued', 'starting', 2, OTHER)}; UPDATE execution SET updated_at = {LATER}, seq = 6, state = 'starting', fence = 2, nonce = {OTHER}, worker = 'w2' WHERE id = 'wait'", "raises the fence and is counted"),
    "another owner with the same nonce": (f"{row()}; UPDATE execution SET updated_at = {LATER}, seq = 4, worker = 'w2' WHERE id = 'run'", "a new owner draws a new nonce"),
    "a priority without its row": ("UPDATE execution SET priority = 9 WHERE id = 'run'", "changes with its log only"),
    "a deadline moved": ("UPDATE execution SET deadline_at = 9 WHERE id = 'idle'", "changes with its log only"),
    "a wait made due": ("UPDATE execution SET due_at = 1 WHERE id = 'wait'", "changes with its log only"),
    "another result of what has ended": ("UPDATE execution SET detail = '{}' WHERE id = 'done'", FINAL_ROW),
    "another state of what has ended": ("UPDATE execution SET state = 'queued' WHERE id = 'done'", FINAL_ROW),
    "an unknown state of a row": (f"{row()}; UPDATE execution SET updated_at = {LATER}, seq = 4, state = 'exploded' WHERE id = 'run'", CHECK),
    "another task": ("UPDATE execution SET task = 'other' WHERE id = 'run'", "who an execution is"),
    "another key": ("UPDATE execution SET key = 'other' WHERE id = 'idle'", "who an execution is"),
    "another input": ("UPDATE execution SET input_digest = 9 WHERE id = 'idle'", "who an execution is"),
    "another tenant": ("UPDATE execution SET tenant = 2 WHERE id = 'idle'", "who an execution is"),
    "another birthday": ("UPDATE execution SET created_at = 9 WHERE id = 'idle'", "who an execution is"),
    "a deleted execution": ("DELETE FROM execution WHERE id = 'done'", "by a purge only"),
    "a purge of what is open": ("INSERT INTO purge_permit VALUES (1, 'run')", "only what has ended"),
    "messages miscounted": ("UPDATE execution SET inbox_count = 5 WHERE id = 'run'", "counts the messages"),
    # messages
    "a gap in the inbox": ("INSERT INTO inbox VALUES (1, 'run', 3, 'm9', 'note', 'a', NULL, NULL, NULL, 1)", "without a gap"),
    "a repeat in the inbox": ("INSERT INTO inbox VALUES (1, 'run', 1, 'm9', 'note', 'a', NULL, NULL, NULL, 1)", "without a gap"),
    "an inbox that begins with two": ("INSERT INTO inbox VALUES (1, 'idle', 2, 'm9', 'note', 'a', NULL, NULL, NULL, 1)", "without a gap"),
    "a message twice": ("INSERT INTO inbox VALUES (1, 'run', 2, 'm1', 'note', 'a', NULL, NULL, NULL, 1)", "taken once"),
    "a message twice by REPLACE": ("INSERT OR REPLACE INTO inbox VALUES (1, 'run', 2, 'm1', 'note', 'a', NULL, NULL, NULL, 1)", "taken once"),
    "a second answer": ("INSERT INTO inbox VALUES (1, 'run', 2, 'm2', 'answer', 'a', 'q#1', NULL, X'00', 1)", "the first answer wins"),
    "a second answer by REPLACE": ("INSERT OR REPLACE INTO inbox VALUES (1, 'run', 2, 'm2', 'answer', 'a', 'q#1', NULL, X'00', 1)", "the first answer wins"),
    "a message for what has ended": ("INSERT INTO inbox VALUES (1, 'done', 1, 'm1', 'note', 'a', NULL, NULL, NULL, 1)", "that have not ended"),
    "a message for nobody": ("INSERT INTO inbox VALUES (1, 'new', 1, 'm1', 'note', 'a', NULL, NULL, NULL, 1)", "that have not ended"),
    "a changed message": ("UPDATE inbox SET payload = X'00'", "messages never change"),
    "a deleted message": ("DELETE FROM inbox", "deleted by a purge only"),
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """One running, one waiting, one queued, one ended."""
    store = SqliteStore(tmp_path / "outlast.db", owner="w1", now=1)
    _, run = begun("run")
    waiter, wait = begun("wait")
    ender, done = begun("done")
    items: list[Item] = [
        run,
        wait,
        waiter.park(Kind.WAIT, data=ASK),
        done,
        ender.write(Kind.FINISH),
        born("idle", key="k", priority=1),
        Deliver("run", answer_to("q#1"), T),
    ]
    assert set(codes(store.commit(items))) == {None}
    yield store
    store.close()


@pytest.mark.parametrize("case", BAD_WRITES)
def test_the_schema_refuses(store: SqliteStore, case: str) -> None:
    sql, guard = BAD_WRITES[case]
    shell = apsw.Connection(str(store.path))
    before = dump(shell)
    shell.execute("BEGIN IMMEDIATE")
    *good, bad = sql.split("; ")
    for statement in good:
        shell.execute(statement)
    with pytest.raises(apsw.ConstraintError, match=guard):
        shell.execute(bad)
    shell.execute("ROLLBACK")
    assert dump(shell) == before
    shell.close()
    assert store.verify().defects == []


def dump(shell: apsw.Connection) -> list[object]:
    return [
        shell.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()
        for table in ("execution", "transition", "inbox")
    ]


NEW_ROW = (
    "INSERT INTO execution (tenant, id, task, state, seq, fence, high_water, attempt, failures,"
    " claims, idle_claims, inbox_count, inbox_seen, created_at, updated_at, state_at, queue, priority, key,"
    " input_digest) VALUES (1, '{id}', 't', '{state}', {seq}, 0, 0, 0, 0, 0, 0, {count}, 0, 1, {at}, 1,"
    " 'default', 0, {key}, 0)"
)
BAD_BIRTHS = {
    "without a log": (NEW_ROW.format(at=LATER, id="none", state="queued", seq=1, count=0, key="NULL"), LAST_ROW),
    "in another state than its log": (NEW_ROW.format(at=LATER, id="new", state="blocked", seq=1, count=0, key="NULL"), LAST_ROW),
    "with another number": (NEW_ROW.format(at=LATER, id="new", state="queued", seq=2, count=0, key="NULL"), LAST_ROW),
    "with messages": (NEW_ROW.format(at=LATER, id="new", state="queued", seq=1, count=1, key="NULL"), "counted as they come"),
    "with a taken key": (NEW_ROW.format(at=LATER, id="new", state="queued", seq=1, count=0, key="'k'"), "exists already"),
    "twice": (NEW_ROW.format(at=LATER, id="idle", state="queued", seq=1, count=0, key="NULL"), "exists already"),
    "twice by REPLACE": (replacing(NEW_ROW.format(at=LATER, id="idle", state="queued", seq=1, count=0, key="NULL")), "exists already"),
    "with the key of another by REPLACE": (replacing(NEW_ROW.format(at=LATER, id="new", state="queued", seq=1, count=0, key="'k'")), "exists already"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_BIRTHS)
def test_no_execution_is_born(store: SqliteStore, case: str) -> None:
    sql, guard = BAD_BIRTHS[case]
    shell = apsw.Connection(str(store.path))
    shell.execute("BEGIN IMMEDIATE")
    shell.execute(BIRTH)
    with pytest.raises(apsw.ConstraintError, match=guard):
        shell.execute(sql)
    shell.execute("ROLLBACK")
    shell.close()


CHECKED = {
    "a lease without an owner": "UPDATE execution SET worker = NULL WHERE id = 'run'",
    "a nonce of the wrong length": "UPDATE execution SET nonce = X'00' WHERE id = 'run'",
    "leased without a nonce": "UPDATE execution SET nonce = NULL, worker = NULL WHERE id = 'run'",
    "a nonce where nobody owns it": f"UPDATE execution SET nonce = {NONCE}, worker = 'w' WHERE id = 'idle'",
    "a wait for nothing": "UPDATE execution SET detail = NULL WHERE id = 'wait'",
    "more idle claims than claims": "UPDATE execution SET idle_claims = 9 WHERE id = 'run'",
    "more claims than fences": "UPDATE execution SET claims = 9 WHERE id = 'run'",
    "more messages seen than came": "UPDATE execution SET inbox_seen = 9 WHERE id = 'run'",
    "held from nowhere": "UPDATE execution SET paused_from = 'queued' WHERE id = 'idle'",
    "a high water of four": "UPDATE execution SET high_water = 4 WHERE id = 'run'",
    "a negative fence": "UPDATE execution SET fence = -1, claims = -2 WHERE id = 'idle'",
    "a back-off without an end": "UPDATE execution SET state = 'retry_wait' WHERE id = 'idle'",
    "a schedule without a time": "UPDATE execution SET state = 'scheduled' WHERE id = 'idle'",
}


@pytest.mark.parametrize("case", CHECKED)
def test_the_columns_fit_together(store: SqliteStore, case: str) -> None:
    """CHECK constraints stand without the triggers, so the triggers are taken away first."""
    shell = apsw.Connection(str(store.path))
    shell.execute("BEGIN IMMEDIATE")
    shell.execute("DROP TRIGGER execution_changed")
    with pytest.raises(apsw.ConstraintError, match=CHECK):
        shell.execute(CHECKED[case])
    shell.execute("ROLLBACK")
    shell.close()


@pytest.mark.parametrize("column", COLUMNS)
def test_no_column_changes_without_a_row_of_the_log(store: SqliteStore, column: str) -> None:
    """Whatever else a row gets, it gets with a transition; messages alone are counted apart."""
    shell = apsw.Connection(str(store.path))
    ((kind, before),) = shell.execute(
        f"SELECT typeof({column}), {column} FROM execution WHERE id = 'idle'"
    ).fetchall()
    after = f"{before} + 1" if kind == "integer" else "'{}'"
    if column.endswith("_at"):
        after = "7"
    with pytest.raises(apsw.ConstraintError):
        shell.execute(f"UPDATE execution SET {column} = {after} WHERE id = 'idle'")
    shell.close()


def test_a_purge_may_delete_what_has_ended(store: SqliteStore) -> None:
    shell = apsw.Connection(str(store.path))
    shell.execute("BEGIN IMMEDIATE")
    shell.execute("INSERT INTO purge_permit VALUES (1, 'done')")
    shell.execute("DELETE FROM transition WHERE execution_id = 'done'")
    shell.execute("DELETE FROM inbox WHERE execution_id = 'done'")
    shell.execute("DELETE FROM execution WHERE id = 'done'")
    shell.execute("DELETE FROM purge_permit")
    shell.execute("COMMIT")
    shell.close()
    assert store.get(["done"]) == [None]
    assert store.verify().defects == []


DESCENT = "INSERT INTO descent (tenant, id, source_id, mode) VALUES (1, '{id}', '{source}', 'fork')"


def test_an_execution_was_made_of_what_its_log_says(store: SqliteStore) -> None:
    source: dict[str, object] = {"from": {"id": "done", "mode": "fork"}}
    assert one(store, born("made", labels={"a": "b"}, **source)).refused is None
    shell = apsw.Connection(str(store.path))
    for id, other in (("idle", "done"), ("nobody", "done"), ("made", "idle")):
        with pytest.raises(apsw.ConstraintError, match="says what it was made of"):
            shell.execute(DESCENT.format(id=id, source=other))
    with pytest.raises(apsw.ConstraintError, match="never changes"):
        shell.execute("UPDATE descent SET source_id = 'idle' WHERE id = 'made'")
    shell.execute("DELETE FROM label WHERE execution_id = 'made'")
    shell.close()
    assert store.verify().defects == ["made: its labels are not those it is found by"]


# A guard that fires inside a batch


def test_a_guard_refuses_the_guilty_item_only(store: SqliteStore) -> None:
    pairs = [begun(f"ex_{n}", nonce=n.to_bytes(16)) for n in range(1, 6)]
    store.commit([item for _, item in pairs])
    batch: list[Item] = [owner.write(Kind.STEP, T + 1) for owner, _ in pairs]
    guilty = batch[2]
    assert isinstance(guilty, Write)
    guilty.rows = [replace(guilty.rows[0], kind=Kind.FINISH)]
    batch += [Deliver("ex_9", answer_to("q"), T), born("ex_9"), pairs[2][0].write(Kind.STEP)]
    answers = store.commit(batch)
    assert codes(answers) == [
        None,
        None,
        "internal_error",
        None,
        None,
        None,
        None,
        "internal_error",
    ]
    assert "no such edge" in str(answers[2].error)
    assert [state(store, f"ex_{n}").seq for n in range(1, 6)] == [4, 4, 3, 4, 4]
    assert state(store, "ex_9").inbox_count == 1
    assert store.verify().defects == []


@pytest.mark.parametrize(
    "value", ["\ud800", 2**63, {"a": object()}], ids=["surrogate", "too large", "no JSON"]
)
def test_a_value_no_column_can_hold_refuses_its_item_only(
    store: SqliteStore, value: object
) -> None:
    owner, item = begun("ex_1")
    other, item2 = begun("ex_2")
    store.commit([item, item2])
    columns: dict[str, object] = (
        {"key": value}
        if isinstance(value, str)
        else {"digest": value}
        if isinstance(value, int)
        else {"data": value}
    )
    bad = owner.write(Kind.STEP, T, **columns)  # type: ignore[arg-type]
    assert codes(store.commit([bad, other.write(Kind.STEP)])) == ["internal_error", None]
    assert [state(store, id).seq for id in ("ex_1", "ex_2")] == [3, 4]
    assert one(store, Owner(state(store, "ex_1")).write(Kind.STEP)).refused is None, (
        "no open transaction"
    )


def test_a_refused_create_in_a_guilty_batch_keeps_its_own_answer(store: SqliteStore) -> None:
    bad = born("ex_1")
    bad.rows = [replace(bad.rows[0], seq=2)]
    answers = store.commit(
        [bad, born("ex_2", key="k"), Create(born("ex_3").after, born("ex_3").rows)]
    )
    assert codes(answers) == ["internal_error", "already_exists", None]


def test_a_worker_that_is_over_stays_over(store: SqliteStore) -> None:
    store.register(WorkerRow("w1", "host", 1, T, T, 1_000))
    store.leave("w1", T + 1)
    shell = apsw.Connection(str(store.path))
    with pytest.raises(apsw.ConstraintError, match="never serves again"):
        shell.execute("UPDATE worker SET state = 'active', expires_at = 9e15 WHERE id = 'w1'")
    shell.close()


# The schema is the lifecycle's


def test_the_edge_table_is_the_lifecycle(store: SqliteStore) -> None:
    shell = apsw.Connection(str(store.path))
    stored = set(shell.execute("SELECT kind, from_state, to_state FROM edge"))
    shell.close()
    assert stored == {(str(k), str(s or ""), str(t)) for k, s, t in EDGES}


def words_in(text: str) -> set[str]:
    return {word for word in text.replace("'", " ").replace(",", " ").split() if word in set(State)}


def test_state_lists_in_the_schema_are_the_enum(store: SqliteStore) -> None:
    shell = apsw.Connection(str(store.path))
    texts = {
        str(name): str(sql) for name, sql in shell.execute("SELECT name, sql FROM sqlite_schema")
    }
    shell.close()
    check = texts["execution"].partition("state IN (")[2].partition(")")[0]
    assert words_in(check) == set(State)
    for name in ("execution_changed", "inbox_successor", "purge_of_ended", "execution_deadline"):
        assert words_in(texts[name]) == FINAL, name
    assert words_in(texts["transition_successor"]) == FINAL | LEASED
    parked = words_in(texts["execution_parked"])
    assert parked == set(State) - FINAL - LEASED - {State.QUEUED}


def test_the_edge_that_the_guard_spells_out_is_one() -> None:
    assert (Kind.STEP, State.RUNNING, State.RUNNING) in EDGES
    assert {edge for edge in EDGES if edge[0] is Kind.STEP} == {
        (Kind.STEP, State.RUNNING, State.RUNNING)
    }
