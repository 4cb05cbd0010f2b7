"""Each guard of the schemas refuses its bad write, whoever tries it with raw SQL.

The schema is the last line: what gets here is a bug above, or somebody with a database shell. Each
case names the guard that must answer, so that no case passes by a refusal for another reason. The
cases are written in SQLite's SQL; :mod:`.shells` says them to PostgreSQL, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.lifecycle import EDGES, FINAL, LEASED, Kind, State
from outlast.lifecycle.record import COLUMNS
from outlast.store import open_store
from outlast.store.postgres.address import Address
from outlast.store.postgres.migrate import ready
from outlast.store.protocol import Create, Deliver, Item, Store, WorkerRow, Write
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
from servers.postgres import Server

from .shells import PostgresShell, Shell, SqliteShell

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


ANSWERS = {
    # Where the primary key, or a unique index, is PostgreSQL's guard.
    "a repeat": "transition_pkey",
    "a second birth": EDGE + "|" + SUCCESSOR,
    "an item that is there": "stream_item_pkey",
    "what was said already": "stream_item_once",
    "a repeat in the inbox": "inbox_pkey",
    "a message twice": "inbox_once",
    "a second answer": "inbox_one_answer",
    "with a taken key": "execution_by_key",
    "twice": "execution_pkey",
    # A statement that would change a row is refused before it looks for one.
    "a repeat by REPLACE": FROZEN,
    "a REPLACE of the first row": FROZEN,
    "a message twice by REPLACE": "messages never change",
    "a second answer by REPLACE": "messages never change",
    # A row that is saved over must be a later one.
    "twice by REPLACE": "changes with its log only",
    "with the key of another by REPLACE": "execution_by_key",
    # Looked at in another order: every one of them is broken.
    "a state with the same number": "changes with its log only",
}
"""Which guard answers on PostgreSQL, where it is another one."""


BACKENDS = ["sqlite", "postgres"]


def shell_of(backend: str, directory: Path, request: pytest.FixtureRequest) -> Shell:
    """Make a database, to be spoken to with raw SQL."""
    if backend == "sqlite":
        return SqliteShell(f"sqlite:///{directory / 'outlast.db'}")
    server: Server = request.getfixturevalue("postgres")
    return PostgresShell(server.database(prepare), ANSWERS)


def prepare(url: str) -> None:
    """Make the schema alone: no store has seen itself here, so that a clone is no other one."""
    ready(Address.of(url), 1, owner=True, upgrade=False)


def filled(shell: Shell) -> Store:
    """One running, one waiting, one queued, one ended."""
    store = open_store(shell.url, owner="w1", now=1)
    shell.open()
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
    return store


@pytest.fixture(params=BACKENDS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    shell = shell_of(request.param, tmp_path, request)
    yield shell
    shell.close()


@pytest.fixture
def store(shell: Shell) -> Iterator[Store]:
    store = filled(shell)
    yield store
    store.close()


Kept = tuple[Store, Shell]


@pytest.fixture(scope="module", params=BACKENDS)
def kept(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kept]:
    """The same, for all tests that leave nothing behind."""
    shell = shell_of(request.param, tmp_path_factory.mktemp("guards"), request)
    store = filled(shell)
    yield store, shell
    store.close()
    shell.close()


@pytest.mark.parametrize("case", BAD_WRITES)
def test_the_schema_refuses(kept: Kept, case: str) -> None:
    store, shell = kept
    sql, guard = BAD_WRITES[case]
    before = dump(shell)
    *good, bad = sql.split("; ")
    with shell.trial():
        for statement in good:
            shell.execute(statement)
        with shell.refuses(case, guard):
            shell.execute(bad)
    assert dump(shell) == before
    assert store.verify().defects == []


def test_the_other_answers_are_for_cases_that_there_are() -> None:
    assert ANSWERS.keys() <= BAD_WRITES.keys() | BAD_BIRTHS.keys()


def dump(shell: Shell) -> list[object]:
    tables = ("execution", "transition", "inbox")
    return [shell.rows(f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in tables]


NEW_ROW = (
    "INSERT INTO execution (tenant, id, task, state, seq, fence, high_water, attempt, failures,"
    " claims, idle_claims, inbox_count, inbox_seen, created_at, updated_at, state_at, queue, priority, key,"
    " input_digest, children) VALUES (1, '{id}', 't', '{state}', {seq}, 0, 0, 0, 0, 0, 0, {count}, 0, 1,"
    " {at}, 1, 'default', 0, {key}, 0, 0)"
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
def test_no_execution_is_born(kept: Kept, case: str) -> None:
    sql, guard = BAD_BIRTHS[case]
    _, shell = kept
    with shell.trial():
        shell.execute(BIRTH)
        with shell.refuses(case, guard):
            shell.execute(sql)


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
def test_the_columns_fit_together(kept: Kept, case: str) -> None:
    """CHECK constraints stand without the triggers, so the triggers are taken away first."""
    _, shell = kept
    with shell.trial():
        shell.drop_trigger("execution_changed", "execution")
        with shell.refuses(case, CHECK):
            shell.execute(CHECKED[case])


@pytest.mark.parametrize("column", COLUMNS)
def test_no_column_changes_without_a_row_of_the_log(kept: Kept, column: str) -> None:
    """Whatever else a row gets, it gets with a transition; messages alone are counted apart."""
    _, shell = kept
    ((before,),) = shell.rows(f"SELECT {column} FROM execution WHERE id = 'idle'")
    after = f"{before} + 1" if isinstance(before, int) else "'{}'"
    if column.endswith(("_at", "_by")):
        after = "7"
    with shell.refuses("", "."):
        shell.execute(f"UPDATE execution SET {column} = {after} WHERE id = 'idle'")


def test_a_purge_may_delete_what_has_ended(store: Store, shell: Shell) -> None:
    shell.execute("BEGIN")
    shell.execute("INSERT INTO purge_permit VALUES (1, 'done')")
    shell.execute("DELETE FROM transition WHERE execution_id = 'done'")
    shell.execute("DELETE FROM inbox WHERE execution_id = 'done'")
    shell.execute("DELETE FROM execution WHERE id = 'done'")
    shell.execute("DELETE FROM purge_permit")
    shell.execute("COMMIT")
    assert store.get(["done"]) == [None]
    assert store.verify().defects == []


@pytest.mark.parametrize(
    "table", ["transition", "execution", "inbox", "stream_item", "schedule", "schedule_entry"]
)
def test_nothing_is_truncated(kept: Kept, table: str) -> None:
    """SQLite has no such statement; what it does instead, DELETE without WHERE, is tried above."""
    _, shell = kept
    if isinstance(shell, PostgresShell):
        with shell.refuses("", "append-only|never|by a purge only|only grows"):
            shell.execute(f"TRUNCATE {table} CASCADE")


DESCENT = "INSERT INTO descent (tenant, id, source_id, mode) VALUES (1, '{id}', '{source}', 'fork')"


def test_an_execution_was_made_of_what_its_log_says(store: Store, shell: Shell) -> None:
    source: dict[str, object] = {"from": {"id": "done", "mode": "fork"}}
    assert one(store, born("made", labels={"a": "b"}, **source)).refused is None
    for id, other in (("idle", "done"), ("nobody", "done"), ("made", "idle")):
        with shell.refuses("", "says what it was made of"):
            shell.execute(DESCENT.format(id=id, source=other))
    with shell.refuses("", "never changes"):
        shell.execute("UPDATE descent SET source_id = 'idle' WHERE id = 'made'")
    shell.execute("DELETE FROM label WHERE execution_id = 'made'")
    assert store.verify().defects == ["made: its labels are not those it is found by"]


# A guard that fires inside a batch


def test_a_guard_refuses_the_guilty_item_only(store: Store) -> None:
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
def test_a_value_no_column_can_hold_refuses_its_item_only(store: Store, value: object) -> None:
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


def test_a_refused_create_in_a_guilty_batch_keeps_its_own_answer(store: Store) -> None:
    bad = born("ex_1")
    bad.rows = [replace(bad.rows[0], seq=2)]
    answers = store.commit(
        [bad, born("ex_2", key="k"), Create(born("ex_3").after, born("ex_3").rows)]
    )
    assert codes(answers) == ["internal_error", "already_exists", None]


def test_a_worker_that_is_over_stays_over(store: Store, shell: Shell) -> None:
    store.register(WorkerRow("w1", "host", 1, T, T, 1_000))
    store.leave("w1", T + 1)
    with shell.refuses("", "never serves again"):
        shell.execute("UPDATE worker SET state = 'active', expires_at = 9e15 WHERE id = 'w1'")


# The schema is the lifecycle's


def test_the_edge_table_is_the_lifecycle(kept: Kept) -> None:
    _, shell = kept
    stored = set(shell.rows("SELECT kind, from_state, to_state FROM edge"))
    assert stored == {(str(k), str(s or ""), str(t)) for k, s, t in EDGES}


def words_in(text: str) -> set[str]:
    return {word for word in text.replace("'", " ").replace(",", " ").split() if word in set(State)}


def test_state_lists_in_the_schema_are_the_enum(kept: Kept) -> None:
    _, shell = kept
    check, texts = shell.definitions()
    assert words_in(check) == set(State)
    for name in ("execution_changed", "inbox_successor", "purge_of_ended", "execution_deadline"):
        assert words_in(texts[name]) == FINAL, name
    assert words_in(texts["transition_successor"]) == FINAL | LEASED
    parked = words_in(texts["execution_parked"])
    assert parked == set(State) - FINAL - LEASED - {State.QUEUED}


@pytest.mark.parametrize("kept", ["sqlite"], indirect=True)
def test_no_list_is_searched_for_each_row_of_an_execution(kept: Kept) -> None:
    """A list of three or more is a table to SQLite, and half a microsecond a row.

    PostgreSQL compares short lists one by one: there is nothing to be seen there.
    """
    _, shell = kept
    rows = shell.rows("SELECT name, sql FROM sqlite_schema WHERE tbl_name = 'execution'")
    lists = {name: re.findall(r"\bIN \(('[^)]*)\)", sql or "") for name, sql in rows}
    asked = {name for name, found in lists.items() if any(one.count("'") > 4 for one in found)}
    # Behind a time or a gate that few have, which is asked first.
    assert asked == {
        *("execution_due", "execution_deadline", "execution_start_by", "execution_by_origin"),
        "execution_holds",
    }


def test_the_edge_that_the_guard_spells_out_is_one() -> None:
    assert (Kind.STEP, State.RUNNING, State.RUNNING) in EDGES
    assert {edge for edge in EDGES if edge[0] is Kind.STEP} == {
        (Kind.STEP, State.RUNNING, State.RUNNING)
    }
