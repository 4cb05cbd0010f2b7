"""A store that has gone back in time sees it when it is opened, or connected to again."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import apsw
import psycopg
import pytest

from outlast.errors import StoreFailedOver
from outlast.lifecycle import Kind
from outlast.store import copy_store, open_store
from outlast.store.epoch import EpochLoss
from outlast.store.postgres import PostgresStore
from outlast.store.postgres.history import compared, kept_by
from outlast.store.protocol import Lease, Store
from outlast.store.sqlite import SqliteStore
from outlast.store.sqlite.history import sighted
from outlast.testing.conformance import T, begun, born, codes, nonces
from servers.postgres import Server


def opened(path: Path) -> SqliteStore:
    return SqliteStore(path, owner="w1", now=T)


# SQLite


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one leased execution."""
    file = tmp_path / "outlast.db"
    store = opened(file)
    store.commit([begun("ex_1")[1]])
    store.close()
    return file


def test_a_file_that_is_opened_again_goes_on(path: Path) -> None:
    for _ in range(3):
        store = opened(path)
        assert store.epochs.current().number == 0
        store.close()


def test_a_restored_backup_begins_an_epoch_once(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(path)
    store.backup(tmp_path / "copy.db")
    store.close()
    elsewhere = tmp_path / "elsewhere" / "outlast.db"
    elsewhere.parent.mkdir()
    shutil.copy(tmp_path / "copy.db", elsewhere)
    with caplog.at_level(logging.WARNING, "outlast.store"):
        restored = opened(elsewhere)
    assert "store_failed_over" in caplog.text and "epoch 1" in caplog.text
    (epoch,) = restored.epochs.history()
    assert (epoch.cause, epoch.executions) == ("restored", 1)
    assert restored.verify().defects == []
    (claimed,) = restored.claim(Lease("w1"), ["t"], 1, T + 5, nonces(1))
    assert claimed.execution.fence == epoch.floor
    (deed,) = restored.access.audit(None, 5, newest=True)
    assert deed.what == "store.failed_over"
    restored.close()
    again = opened(elsewhere)
    assert [one.number for one in again.epochs.history()] == [1]
    again.close()
    original = opened(path)
    assert original.epochs.history() == []
    original.close()


def test_an_older_copy_in_its_place_is_seen(path: Path, tmp_path: Path) -> None:
    """Copied by hand while nobody had it open: the witness beside it has seen more."""
    shutil.copy(path, tmp_path / "old.db")
    opened(path).close()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "old.db", path)
    store = opened(path)
    (epoch,) = store.epochs.history()
    assert epoch.cause == "restored" and "older copy" in epoch.detail["why"]
    store.close()
    store = opened(path)
    assert len(store.epochs.history()) == 1
    store.close()


def test_a_witness_outlives_a_killed_owner(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "old.db")
    child = os.fork()
    if child == 0:
        opened(path)
        os._exit(0)  # nothing is closed
    os.waitpid(child, 0)
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "old.db", path)
    store = opened(path)
    assert len(store.epochs.history()) == 1
    store.close()


def test_another_store_in_its_place_is_no_older_one(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    opened(other).close()
    shutil.copy(other, path)
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    store = opened(path)
    assert store.epochs.history() == []
    store.close()


def test_who_only_looks_begins_nothing(path: Path, tmp_path: Path) -> None:
    store = opened(path)
    store.backup(tmp_path / "copy.db")
    store.close()
    guest = SqliteStore(tmp_path / "copy.db", owner=None, now=T)
    assert guest.epochs.history() == []
    assert guest.epochs.keeping().sight["is_copy"] is True
    guest.close()


def test_an_epoch_that_was_not_written_begins_the_next_time(path: Path, tmp_path: Path) -> None:
    """Killed in the middle: all of it is one transaction."""
    store = opened(path)
    store.backup(tmp_path / "copy.db")
    store.close()
    with apsw.Connection(str(tmp_path / "copy.db")) as connection:
        connection.execute(
            "CREATE TRIGGER fails BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    with pytest.raises(Exception, match="no"):
        opened(tmp_path / "copy.db")
    with apsw.Connection(str(tmp_path / "copy.db")) as connection:
        assert connection.execute("SELECT count(*) FROM epoch").fetchall() == [(0,)]
        assert connection.execute("SELECT worker FROM execution").fetchall() == [("w1",)]
        connection.execute("DROP TRIGGER fails")
    store = opened(tmp_path / "copy.db")
    assert len(store.epochs.history()) == 1
    store.close()


@pytest.mark.parametrize(
    ("kept", "witness", "cause"),
    [
        (None, {}, None),
        ({"id": "a", "openings": 3}, {}, None),
        ({"id": "a", "openings": 3}, {"id": "a", "openings": 3}, None),
        ({"id": "a", "openings": 3}, {"id": "a", "openings": 4}, "restored"),
        ({"id": "a", "openings": 3}, {"id": "b", "openings": 9}, None),
        ({"id": "a", "openings": 3, "is_copy": True}, {}, "restored"),
        ({"system": "7", "timeline": 1}, {}, None),
    ],
)
def test_what_a_file_sees_of_itself(
    kept: dict[str, object] | None, witness: dict[str, object], cause: str | None
) -> None:
    sight = sighted(kept, witness, T)
    assert sight.cause == cause
    goes_on = kept is not None and "openings" in kept and cause is None
    assert (sight.identity["id"] == "a") is goes_on
    assert sight.identity["openings"] == (4 if goes_on else 1)


# PostgreSQL

SEEN = {"system": "7", "timeline": 1, "database": 5, "tables": 16_000}


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({}, None),
        ({"timeline": 2}, "promoted"),
        ({"system": "8"}, "restored"),
        ({"system": "8", "timeline": 2}, "restored"),
        ({"tables": 17_000}, "restored"),
        ({"database": 6}, "restored"),
        ({"system": None, "timeline": None}, None),
    ],
)
def test_what_a_server_sees_of_itself(change: dict[str, object], cause: str | None) -> None:
    sight = compared(SEEN, {**SEEN, **change}, T)
    assert sight.cause == cause
    assert bool(sight.why) is (cause is not None)
    # What cannot be asked for now is kept: another role may ask again.
    asked = {name: value for name, value in change.items() if value is not None}
    assert sight.identity == {**SEEN, **asked}
    assert compared(None, {**SEEN, **change}, T).cause is None


@pytest.mark.parametrize(
    ("commit", "names", "loses", "does"),
    [
        ("on", "", "last moments", True),
        ("off", "", "last moments", True),
        ("local", "*", "last moments", True),
        ("remote_write", "*", "written to its disk", False),
        ("on", "FIRST 1 (b)", "nothing, as long as", False),
        ("off", "FIRST 1 (b)", "nothing, as long as", False),
        ("remote_apply", "ANY 1 (b, c)", "nothing, as long as", False),
    ],
)
def test_what_can_be_lost_is_said(commit: str, names: str, loses: str, does: bool) -> None:
    keeping = kept_by((commit, names, 1, 1), SEEN)
    assert loses in keeping.loses
    assert bool(keeping.do) is does


@pytest.fixture
def store(postgres_store: str) -> Iterator[Store]:
    store = open_store(postgres_store, owner="w1", now=T)
    yield store
    store.close()


def pretend(url: str, change: str) -> None:
    """Let what is kept be of another history."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE outlast.sight SET identity = convert_to((convert_from(identity, 'UTF8')::jsonb"
            f" || '{change}')::text, 'UTF8')".encode()
        )


def cut(store: Store) -> None:
    """End the connection that writes."""
    assert isinstance(store, PostgresStore)
    assert store.server._writer is not None
    store.server._writer.close()


def test_who_lived_through_it_is_told_once_and_before_it_writes(
    store: Store, postgres_store: str
) -> None:
    owner, item = begun("ex_1")
    store.commit([item])
    stale = owner.write(Kind.FINISH)
    pretend(postgres_store, '{"timeline": 0}')
    assert codes(store.commit([born("ex_2")])) == [None]  # the connection is still the same one
    cut(store)
    with pytest.raises(StoreFailedOver, match="another history") as caught:
        store.commit([stale])
    assert caught.value.epoch == 1
    assert store.epochs.current().cause == "promoted"
    assert codes(store.commit([stale])) == ["fenced"]
    assert store.verify().defects == []


def test_of_several_the_first_begins_it_and_the_others_are_told(
    store: Store, postgres_store: str
) -> None:
    other = open_store(postgres_store, owner="w2", now=T)
    pretend(postgres_store, '{"timeline": 0}')
    for one in (store, other):
        cut(one)
        with pytest.raises(StoreFailedOver):
            one.commit([born("ex_2")])
        assert codes(one.commit([born(f"ex_{id(one)}")])) == [None]
    other.close()
    assert len(store.epochs.history()) == 1
    third = open_store(postgres_store, owner="w3", now=T)
    third.close()
    assert len(store.epochs.history()) == 1


def test_a_look_that_failed_is_made_again(
    store: Store, postgres_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written over a connection whose history nobody has seen."""
    pretend(postgres_store, '{"timeline": 0}')
    cut(store)
    with monkeypatch.context() as patch:
        patch.setattr(store.epochs, "_begin", lambda *_: 1 / 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                store.commit([born("ex_2")])
    with pytest.raises(StoreFailedOver):
        store.commit([born("ex_2")])
    assert codes(store.commit([born("ex_2")])) == [None]


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_pooler_that_goes_over_to_another_server_is_noticed(
    store: Store, postgres_store: str, monkeypatch: pytest.MonkeyPatch, is_whole: bool
) -> None:
    """The connection lives on, and leads elsewhere: nothing is done before somebody has looked."""
    assert isinstance(store, PostgresStore)
    assert codes(store.commit([born("ex_1")])) == [None]
    writer = store.server._writer
    assert writer is not None
    writer.server = b"1.5"
    pretend(postgres_store, '{"timeline": 0}')
    monkeypatch.setattr(store.server, "_may_be_hasty", lambda: is_whole)
    with pytest.raises(StoreFailedOver):
        store.commit([born("ex_2")])
    assert writer.is_broken and store.get(["ex_2"]) == [None]
    assert codes(store.commit([born("ex_2")])) == [None]


def test_a_clone_and_a_restored_dump_are_other_histories(postgres: Server) -> None:
    url = postgres.database()
    store = open_store(url, owner="w1", now=T)
    store.commit([begun("ex_1")[1]])
    store.close()
    clone = postgres.database(made_by=_filled)
    cloned = open_store(clone, owner="w1", now=T)
    assert [one.cause for one in cloned.epochs.history()] == ["restored"]
    assert cloned.verify().defects == []
    cloned.close()
    restored = postgres.database()
    dump, load = (
        subprocess.Popen(
            [postgres.installation.programs / "pg_dump", "--schema=outlast", url],
            stdout=subprocess.PIPE,
        ),
        [postgres.installation.programs / "psql", "-q", "-v", "ON_ERROR_STOP=1", restored],
    )
    subprocess.run(load, stdin=dump.stdout, check=True, stdout=subprocess.DEVNULL)
    assert dump.stdout is not None
    dump.stdout.close()
    assert dump.wait() == 0
    there = open_store(restored, owner="w2", now=T)
    (epoch,) = there.epochs.history()
    assert epoch.cause == "restored" and epoch.executions == 1
    assert there.verify().defects == []
    there.close()


def _filled(url: str) -> None:
    store = open_store(url, owner="w1", now=T)
    store.commit([begun("ex_1")[1]])
    store.close()


def test_a_copy_into_another_database_is_no_other_history(
    postgres_url: str, path: Path, tmp_path: Path
) -> None:
    """Nothing was lost; but a copy of a backup is what it was."""
    copy_store(f"sqlite:///{path}", postgres_url, T)
    there = open_store(postgres_url, owner="w1", now=T)
    assert there.epochs.history() == []
    there.epochs.begin("declared", {}, T + 5)
    there.epochs.report(EpochLoss(1, "w1", T, 1, 1, 0, 0, 0, ("ex_1",)))
    (claimed,) = there.claim(Lease("w1"), ["t"], 1, T + 6, nonces(1))
    there.leave("w1", T + 7)
    there.close()
    copy_store(postgres_url, f"sqlite:///{tmp_path}/back.db", T)
    back = opened(tmp_path / "back.db")
    assert [one.number for one in back.epochs.history()] == [1]
    assert back.epochs.losses(1) == [EpochLoss(1, "w1", T, 1, 1, 0, 0, 0, ("ex_1",))]
    assert back.verify().defects == []
    assert back.recover(None, "w9", T + 8, 9) == 1
    (again,) = back.claim(Lease("w1"), ["t"], 1, T + 9, nonces(1, 3))
    assert again.execution.fence > claimed.execution.fence
    back.backup(tmp_path / "backup.db")
    back.close()
    with psycopg.connect(postgres_url) as connection:
        connection.execute("DROP SCHEMA outlast CASCADE")
    copy_store(f"sqlite:///{tmp_path}/backup.db", postgres_url, T)
    there = open_store(postgres_url, owner="w1", now=T)
    assert [one.cause for one in there.epochs.history()] == ["restored", "declared"]
    there.close()


def test_a_role_that_may_not_ask_says_so(postgres: Server) -> None:
    url = postgres.database()
    open_store(url, owner="w1", now=T).close()
    name = url.rpartition("/")[2]
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (
            f"CREATE ROLE plain_{name} LOGIN PASSWORD 'p'",
            f"GRANT USAGE ON SCHEMA outlast TO plain_{name}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA outlast TO plain_{name}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA outlast TO plain_{name}",
            "DELETE FROM outlast.sight",
        ):
            connection.execute(statement.encode())
    plain = f"postgresql://plain_{name}:p@{url.rpartition('@')[2]}"
    store = open_store(plain, owner="w1", now=T)  # by default everybody may ask
    assert all(value is not None for value in store.epochs.keeping().sight.values())
    store.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM outlast.sight")
        connection.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    store = open_store(plain, owner="w1", now=T)
    sight = store.epochs.keeping().sight
    assert sight["system"] is None and sight["timeline"] == 1
    assert "pg_control_system" in store.epochs.keeping().do
    assert codes(store.commit([born("ex_1")])) == [None]
    store.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM outlast.sight")
        connection.execute("REVOKE EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) FROM PUBLIC")
    store = open_store(plain, owner="w1", now=T)
    assert store.epochs.keeping().sight["timeline"] is None
    store.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA outlast FROM plain_{name}".encode()
        )
    pretend(url, '{"timeline": 7, "database": 1}')
    store = open_store(plain, owner=None, now=T)  # it may only read, and does no harm
    assert store.epochs.history() == []
    store.close()
