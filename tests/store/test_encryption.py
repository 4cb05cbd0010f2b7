"""Payloads at rest: nobody reads them without the key, and what was moved cannot be opened."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import CannotLoad, KeyMissing, KeyWrong, StoreBroken
from outlast.lifecycle import Kind, MessageKind
from outlast.schedule import Wish
from outlast.store import render
from outlast.store.keys import Place, Vault, drawn_line, is_sealed, keys_of, parsed
from outlast.store.postgres import PostgresStore
from outlast.store.protocol import Deliver, Emission, Lease, Store
from outlast.store.relational.sealed import KEEPS_ROOT, READS, WRITES, SealedDatabase
from outlast.store.relational.secrecy import PLAIN, SEALED
from outlast.store.relational.skeleton import hidden, shown, skeleton
from outlast.store.relational.tables import tables
from outlast.store.sql import load
from outlast.store.sqlite import SqliteStore
from outlast.testing.conformance import T, begun, born, born_alike, codes, message, nonces
from outlast.testing.conformance_access import deed
from outlast.testing.conformance_schedules import MINUTE, Clerk, ScheduleConformance, draft
from outlast.testing.conformance_streams import StreamsConformance
from outlast.testing.conformance_structure import StructureConformance

from outlast.testing.conformance import StoreConformance  # isort: skip

KEY = "k1 " + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
OTHER = "k1 " + "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXpBQkNERUY="


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLAST_KEYS", KEY)


def opened(path: Path, owner: str | None = "w1") -> SqliteStore:
    return SqliteStore(path / "outlast.db", owner=owner, now=1)


class TestSealed(StoreConformance, StructureConformance, StreamsConformance, ScheduleConformance):
    """Nobody above notices: the same suite."""

    @pytest.fixture
    def store(self, tmp_path: Path, key: None) -> Iterator[Store]:
        store = opened(tmp_path)
        assert isinstance(store.database, SealedDatabase)
        yield store
        store.close()


class TestSealedPostgres(
    StoreConformance, StructureConformance, StreamsConformance, ScheduleConformance
):
    """The same on a server."""

    @pytest.fixture
    def store(self, postgres_store: str, key: None) -> Iterator[Store]:
        store = PostgresStore(postgres_store, owner="w1", now=1)
        assert isinstance(store.database, SealedDatabase)
        yield store
        store.close()


def filled(store: Store, secret: str) -> None:
    """A secret in every payload that a store can be given."""
    payload = f'"{secret}"'.encode()
    runner, run = begun("run", payload=payload)
    step = runner.write(Kind.STEP, key="a#1", payload=payload)
    step.emits = [Emission("words", 1, T, payload)]
    signal = message("s", MessageKind.SIGNAL, payload=payload, key="paid")
    batch = [run, step, born("idle", payload=payload), Deliver("run", signal, T)]
    batch.append(Deliver("idle", message("t", MessageKind.SIGNAL, payload=payload, key="paid"), T))
    alike = born_alike(["like"])
    alike.payloads = [payload]
    assert set(codes(store.commit([alike, *batch]))) == {None}
    Clerk(store).wish(Wish.CREATE, T, draft=draft(input=payload))


def read_back(store: Store) -> list[bytes | None]:
    found = [row.payload for id in ("run", "idle", "like") for row in store.log(id)]
    found += [entry.message.payload for id in ("run", "idle") for entry in store.inbox(id)]
    found += [item.payload for item in store.stream("run", "words")]
    record = store.schedules.get("nightly")
    assert record is not None
    return [*[one for one in found if one is not None], record.input]


def on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.iterdir()))


def test_a_thousand_secrets_are_nowhere_on_the_disk(tmp_path: Path, key: None) -> None:
    words = [f"canary-{secrets.token_hex(12)}" for _ in range(1_000)]
    store = opened(tmp_path)
    filled(store, words[0])
    births = [
        born(f"ex_{number:04}", payload=f'"{word}"'.encode())
        for number, word in enumerate(words[1:])
    ]
    assert set(codes(store.commit(births))) == {None}
    claimed = store.claim(Lease("w1"), ["t"], 5, T, nonces(5))
    assert all(b"canary" in (one.birth.payload or b"") for one in claimed)
    seen = read_back(store)
    assert len(seen) >= 7 and set(seen) == {f'"{words[0]}"'.encode()}
    during = on_disk(tmp_path)
    store.backup(tmp_path / "copy.db")
    store.close()
    for data in (during, on_disk(tmp_path)):
        assert len(data) > 100_000 and b"canary" not in data
        assert not any(word.encode() in data for word in words)
    plain = tmp_path / "plain"
    plain.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OUTLAST_KEYS")
        store = opened(plain)
        filled(store, words[0])
        assert on_disk(plain).count(words[0].encode()) >= 7, "so many places were looked at"
        store.close()


def test_a_wrong_key_is_found_before_the_first_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: None
) -> None:
    store = opened(tmp_path)
    filled(store, "x")
    store.close()
    before = (tmp_path / "outlast.db").read_bytes()
    tried: list[tuple[str | None, type[CannotLoad]]] = [
        (None, KeyMissing), ("k2" + KEY[2:], KeyMissing), (OTHER, KeyWrong), ("k1 short", CannotLoad),
    ]  # fmt: skip
    for given_keys, error in tried:
        monkeypatch.delenv("OUTLAST_KEYS", raising=False)
        if given_keys is not None:
            monkeypatch.setenv("OUTLAST_KEYS", given_keys)
        for owner in ("w2", None):
            with pytest.raises(error) as caught:
                opened(tmp_path, owner)
            assert KEY[3:] not in str(caught.value) and "short" not in str(caught.value)
    assert (tmp_path / "outlast.db").read_bytes() == before
    monkeypatch.setenv("OUTLAST_KEYS", KEY)
    store = opened(tmp_path)
    assert store.verify().defects == []
    store.close()


TAMPERED = {
    "two rows swapped": "UPDATE transition SET payload = (SELECT payload FROM transition WHERE execution_id = 'idle' AND seq = 1) WHERE execution_id = 'run' AND seq = 1",
    "a row of the same log": "UPDATE transition SET payload = (SELECT payload FROM transition WHERE execution_id = 'run' AND seq = 1) WHERE execution_id = 'run' AND seq = 4",
    "a bit flipped": "UPDATE transition SET payload = CAST(substr(payload, 1, 20) || X'00' || substr(payload, 22) AS BLOB) WHERE execution_id = 'run' AND seq = 1",
    "the end cut off": "UPDATE transition SET payload = substr(payload, 1, 30) WHERE execution_id = 'run' AND seq = 1",
    "all but the head cut off": "UPDATE transition SET payload = substr(payload, 1, 6) WHERE execution_id = 'run' AND seq = 1",
    "in the clear": "UPDATE transition SET payload = CAST('\"x\"' AS BLOB) WHERE execution_id = 'run' AND seq = 1",
    "an unknown data key": "UPDATE transition SET payload = CAST(X'C10100000009' || substr(payload, 7) AS BLOB) WHERE execution_id = 'run' AND seq = 1",
    "another version": "UPDATE transition SET payload = CAST(X'C102' || substr(payload, 3) AS BLOB) WHERE execution_id = 'run' AND seq = 1",
    "a message for a row": "UPDATE transition SET payload = (SELECT payload FROM inbox WHERE execution_id = 'run') WHERE execution_id = 'run' AND seq = 1",
}  # fmt: skip


@pytest.mark.parametrize("case", TAMPERED)
def test_what_was_changed_or_moved_is_found(tmp_path: Path, key: None, case: str) -> None:
    store = opened(tmp_path)
    filled(store, "x")
    shell = apsw.Connection(str(store.path))
    for (name,) in shell.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
    ).fetchall():
        shell.execute(f"DROP TRIGGER {name}")
    shell.execute(TAMPERED[case])
    assert shell.changes() == 1
    shell.close()
    with pytest.raises(StoreBroken, match="cannot be opened"):
        store.log("run")
    assert store.verify().defects != []
    store.close()


def test_another_key_wraps_and_another_data_key_seals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: None
) -> None:
    store = opened(tmp_path)
    filled(store, "old")
    store.close()
    new = drawn_line("k2")
    monkeypatch.setenv("OUTLAST_KEYS", f"{new},{KEY}")
    store, guest = opened(tmp_path), opened(tmp_path, None)
    database = store.database
    assert isinstance(database, SealedDatabase)
    assert database.wrap_anew(deed()) == 1 and database.draw_anew(5, deed()) == 2
    assert [row.target for row in store.access.audit()] == ["keys", "keys"]
    assert codes(store.commit([born("late", payload=b'"new"')])) == [None]
    assert guest.log("late")[0].payload == b'"new"', "another process learns the data key"
    store.close()
    guest.close()
    monkeypatch.setenv("OUTLAST_KEYS", new)
    store = opened(tmp_path)
    assert set(read_back(store)) == {b'"old"'} and store.log("late")[0].payload == b'"new"'
    assert store.verify().defects == []
    store.close()
    monkeypatch.setenv("OUTLAST_KEYS", KEY)
    with pytest.raises(KeyMissing):
        opened(tmp_path)


def test_what_was_there_before_is_read_until_it_is_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OUTLAST_KEYS", raising=False)
    store = opened(tmp_path)
    filled(store, "plain")
    store.close()
    monkeypatch.setenv("OUTLAST_KEYS", KEY)
    store = opened(tmp_path)
    assert set(read_back(store)) == {b'"plain"'}
    assert codes(store.commit([born("late", payload=b'"sealed"')])) == [None]
    store.close()
    data = on_disk(tmp_path)
    assert b"plain" in data and b'"sealed"' not in data


def test_keys_are_read_from_a_file_a_command_or_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# mine\n{KEY}\n\nk2: {OTHER[3:]}\n")
    path.chmod(0o600)
    for way in (
        {"OUTLAST_KEYS_FILE": str(path)},
        {"OUTLAST_KEYS_COMMAND": f"cat '{path}'"},
        {"OUTLAST_KEYS": f"{KEY},k2 {OTHER[3:]}"},
    ):
        keys = keys_of(way)
        assert keys is not None and keys.current == "k1" and sorted(keys.known) == ["k1", "k2"]
        assert "ABCDEF" not in repr(keys)
    assert keys_of({}) is None
    path.chmod(0o640)
    bad = [
        {"OUTLAST_KEYS_FILE": str(path)},
        {"OUTLAST_KEYS_FILE": str(tmp_path / "none")},
        {"OUTLAST_KEYS_COMMAND": "false"},
        {"OUTLAST_KEYS_COMMAND": "no-such-command-anywhere"},
        {"OUTLAST_KEYS": KEY, "OUTLAST_KEYS_FILE": str(path)},
    ]
    for way in bad:
        with pytest.raises(CannotLoad):
            keys_of(way)
    for text in ("", "#", "k1", KEY[:-4], f"{KEY}\n{KEY}", "k1 !!!!", "-x " + KEY[3:]):
        with pytest.raises(CannotLoad) as caught:
            parsed(text, "here")
        assert KEY[3:20] not in str(caught.value)
    assert parsed(drawn_line("a.b-c_1"), "here").current == "a.b-c_1"


PLACES = st.builds(
    Place,
    st.sampled_from(["log", "inbox", "stream a", "stream a|1", "schedule"]),
    st.sampled_from([1, 2]),
    st.sampled_from(["a", "b", "a|1", "a\\"]),
    st.integers(0, 3),
)


@given(st.binary(max_size=50), PLACES, PLACES)
def test_a_seal_opens_in_its_place_alone(data: bytes, place: Place, other: Place) -> None:
    vault = Vault({1: b"k" * 32}, whole=True)
    sealed = vault.seal(data, place)
    assert is_sealed(sealed) and vault.open(sealed, place) == data
    assert vault.seal(data, place) != sealed, "nothing tells that two payloads are the same"
    if place != other:
        with pytest.raises(StoreBroken):
            vault.open(sealed, other)
    with pytest.raises(StoreBroken):
        Vault({1: b"x" * 32}, whole=True).open(sealed, place)


def test_a_column_is_sealed_or_plain_for_a_reason() -> None:
    """A new one cannot be forgotten."""
    sealed = [one.name for one in SEALED]
    can_hold = {
        f"{table.name}.{column}"
        for table in tables().values()
        for column, kind in zip(table.columns, table.kinds, strict=True)
        if kind != "INTEGER"
    }
    assert len(sealed) == len(set(sealed)) and not PLAIN.keys() & set(sealed)
    assert can_hold == PLAIN.keys() | set(sealed)
    assert all(PLAIN.values()) and render.main(["--check"]) == 0


SEALED_NAMES: Final = "|".join(sorted({one.column for one in SEALED} - {"value"}))
"""``value`` is a word of SQL's functions as well: who asks for a secret, names its table."""


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_every_statement_with_a_sealed_column_is_known(backend: str) -> None:
    """A new statement that carries one cannot be forgotten."""
    found = set()
    for path in (Path(__file__).parents[2] / "src/outlast/store" / backend).glob("*.sql"):
        pieces = re.split(r"^-- name: (\w+)$", path.read_text("utf-8"), flags=re.MULTILINE)
        for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
            text = re.sub(r"--.*|'[^']*'", "", body)
            text = re.sub(r"::text\b", "", text)
            if re.search(rf"\b({SEALED_NAMES})\b|\b(FROM|INTO|UPDATE) secret\b", text):
                found.add(name)
    anew = {name for one in SEALED for name in (one.stale, one.reseal)}
    known = WRITES.keys() | READS.keys() | anew | {KEEPS_ROOT}
    assert found - LOOKS_ONLY - PLAIN_ONLY == known
    used = {use.column.name for uses in READS.values() for use in uses}
    assert used == {one.name for one in SEALED}, "each is opened somewhere"
    assert {use.column.name for uses in WRITES.values() for use in uses} == used - {"secret.value"}
    for name, uses in READS.items():
        results = load("outlast.store.sqlite")[name].results
        assert not results or all(use.at < results for use in uses)


PLAIN_ONLY: Final = {"bear_transitions"}
"""Before a vault they are not sent: ``Database.bear`` writes births that are alike as any other."""
LOOKS_ONLY: Final = {
    # They look into facts for what stays plain.
    "save_budgets", "end_empty_lines", "queue_states", "line_of", "place_in_queue", "next_due",
    "place_in_line", "wrong_holders", "asking_oldest", "asking_newest", "wrong_questions",
    "wrong_descents", "wrong_dependencies", "lost_dependencies", "wrong_errands", "wrong_children",
    "wrong_schedules", "queue_census", "waiting_at_budget",
    # They ask whether there is something, or take it away.
    "is_used",
    "claim_executions", "fate_of_slot", "ids_beginning", "ids_ending",
    # Facts that tell of no payload: of the audit, of epochs, of schedules' slots.
    "insert_audit", "audit_oldest", "audit_newest", "epochs", "insert_epoch",
    "insert_schedule_entry", "schedule_log",
}  # fmt: skip


def test_what_stays_of_facts_is_what_statements_look_at() -> None:
    facts: dict[str, Any] = {
        "error": {"type": "E", "message": "secret"},
        "why": "secret",
        "match": {"secret": 1},
        "waits": [{"key": "a#1", "kind": "ask", "to": "ops", "title": "secret", "match": {"n": 1}}],
        "budget": {"name": "tenant:usd", "need": 3, "text": "secret"},
        "from": {"id": "ex_1", "mode": "fork", "step": "a#1", "why": "secret"},
        "question": {"title": "secret"},
        "input_digest": 7_777,
        "since": 5,
        "gate": "rate:x",
        "something new": "secret",
    }
    assert skeleton(facts) == {
        "waits": [{"key": "a#1", "kind": "ask", "to": "ops"}],
        "budget": {"name": "tenant:usd", "need": 3},
        "from": {"id": "ex_1", "mode": "fork", "step": "a#1"},
        "question": True,
        "since": 5,
        "gate": "rate:x",
    }
    vault, place = Vault({1: b"k" * 32}, whole=True), Place("facts", 1, "ex_1", 1)
    text = json.dumps(facts)
    sealed = hidden(vault, text, place)
    assert "secret" not in sealed and "7777" not in sealed
    assert hidden(vault, text, place) == sealed, "what did not change, is not changed in the row"
    assert shown(vault, sealed, place, lambda: None) == text
    with pytest.raises(StoreBroken):
        shown(vault, sealed, Place("facts", 1, "ex_1", 2), lambda: None)
    own = json.dumps({"labels": {"x": 'a "sealed":"b" c', "sealed": "d"}})
    assert shown(vault, hidden(vault, own, place), place, lambda: None) == own
    assert hidden(vault, '{"worker":"w1","attempt":1}', place) == '{"worker":"w1","attempt":1}'


def test_the_schema_keeps_data_keys(tmp_path: Path, key: None) -> None:
    store = opened(tmp_path)
    shell = apsw.Connection(str(store.path))
    for sql, said in (
        ("DELETE FROM data_key", "kept for good"),
        ("UPDATE data_key SET number = 2", "stays the same"),
        ("INSERT INTO data_key VALUES (1, 3, 'k', zeroblob(60), 1, 1)", "without a gap"),
        ("INSERT INTO data_key VALUES (1, 2, 'k', zeroblob(59), 1, 1)", "CHECK"),
    ):
        with pytest.raises(apsw.ConstraintError, match=said):
            shell.execute(sql)
    shell.close()
    assert Clerk(store).run(T + MINUTE) == []
    store.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE transition SET payload = X'C10100'",
        "INSERT INTO reseal_permit VALUES (1); UPDATE transition SET payload = X'00' WHERE payload IS NOT NULL",
        "INSERT INTO reseal_permit VALUES (1); UPDATE transition SET payload = NULL",
        "INSERT INTO reseal_permit VALUES (1); UPDATE transition SET actor = 'eve'",
        "INSERT INTO reseal_permit VALUES (1); UPDATE transition SET payload = X'C101', actor = 'eve'",
        "INSERT INTO reseal_permit VALUES (1); UPDATE inbox SET payload = X'C101', data = 'x'",
        "INSERT INTO reseal_permit VALUES (1); UPDATE stream_item SET payload = X'C101', at = 1",
        "INSERT INTO reseal_permit VALUES (1); UPDATE schedule SET input = X'C101', state = 'paused'",
        "INSERT INTO reseal_permit VALUES (1); UPDATE schedule SET input = X'00'",
        'UPDATE transition SET data = \'{"sealed":"wQEA"}\'',
        "INSERT INTO reseal_permit VALUES (1); UPDATE transition SET data = '{}'",
        "INSERT INTO reseal_permit VALUES (1); UPDATE transition SET data = NULL",
        'INSERT INTO reseal_permit VALUES (1); UPDATE transition SET data = \'{"task":"x","sealed":"wQEA"}\'',
        "INSERT INTO reseal_permit VALUES (1); UPDATE inbox SET data = '{\"x\":1}'",
        'INSERT INTO reseal_permit VALUES (1); UPDATE execution SET detail = \'{"a":1,"sealed":"wQEA"}\'',
        "INSERT INTO reseal_permit VALUES (1); UPDATE execution SET detail = '{\"sealed\":\"wQEA\"}', labels = 'x'",
        "INSERT INTO reseal_permit VALUES (1); UPDATE execution SET labels = 'x'",
    ],
)
def test_sealing_anew_is_all_that_its_permit_permits(tmp_path: Path, key: None, sql: str) -> None:
    store = opened(tmp_path)
    filled(store, "x")
    shell = apsw.Connection(str(store.path))
    with pytest.raises(apsw.ConstraintError, match="guard: "), shell:
        shell.execute(sql)
    shell.close()
    store.close()
