"""The SQLite file: its rights, its schema, its owner, and what is wrong with other files."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from outlast.errors import (
    CannotLoad,
    OutlastError,
    SchemaMismatch,
    StoreBroken,
    StoreFull,
    StoreOwned,
    StoreReadOnly,
)
from outlast.lifecycle import Kind
from outlast.store import open_store, owner_of, sqlite_path
from outlast.store.protocol import Deliver
from outlast.store.sqlite import SqliteStore, migrate
from outlast.testing.conformance import T, answer_to, begun, born, codes, one, state

OPEN = """
import os, sys, time
from pathlib import Path
from outlast.store.sqlite import SqliteStore
from outlast.testing.conformance import T, born, one, answer_to
from outlast.store.protocol import Deliver
path = Path(sys.argv[1])
"""


def python(script: str, *args: str, **more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-c", OPEN + script, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def run(script: str, *args: str, **more: object) -> str:
    process = python(script, *args, **more)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return out.strip()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outlast.db"


@pytest.fixture
def closed(path: Path) -> Path:
    """A database with something in it, closed cleanly."""
    store = SqliteStore(path, owner="w1", now=1)
    store.commit([born(f"ex_{n:03}", payload=b"x" * 500) for n in range(200)])
    store.close()
    (path.parent / "outlast.db.owner").unlink()
    return path


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir() if file.is_file()}


# Rights


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_every_file_is_for_its_user_alone(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = SqliteStore(path, owner="w1", now=1)
        one(store, born("ex_1"))
        modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in path.parent.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert modes == {f"outlast.db{end}": 0o600 for end in ("", "-wal", "-shm", ".owner")}


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that another user can reach."""
    directory = Path(tempfile.mkdtemp(prefix="outlast-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


TRY = """
try:
    SqliteStore(path, owner=(sys.argv[2] or None), now=1)
except Exception as error:
    print(type(error).__name__)
else:
    print("opened")
"""


def as_nobody(path: Path, owner: str = "w1") -> str:
    """Try to open a file as a user without any right there; root has every right."""
    if os.getuid() != 0:
        return run(TRY, str(path), owner)
    script = "os.setgid(65534); os.setuid(65534)" + TRY  # after the imports: it may not read those
    return run(script, str(path), owner)


@pytest.mark.parametrize("owner", ["w1", ""])
def test_a_file_without_the_right_to_write(public: Path, owner: str) -> None:
    path = public / "outlast.db"
    SqliteStore(path, owner="w1", now=1).close()
    public.chmod(0o777 if os.getuid() == 0 else 0o755)
    for mode in (0o444, 0o000):
        path.chmod(mode)
        assert as_nobody(path, owner) == "StoreReadOnly"
    path.chmod(0o600)


@pytest.mark.parametrize("owner", ["w1", ""])
def test_a_directory_without_the_right_to_write(public: Path, owner: str) -> None:
    path = public / "outlast.db"
    SqliteStore(path, owner="w1", now=1).close()
    path.chmod(0o666)
    public.chmod(0o555)
    before = contents(public)
    assert as_nobody(path, owner) == "StoreReadOnly"
    assert contents(public) == before
    if owner:
        assert as_nobody(public / "new.db", owner) == "StoreReadOnly"
    public.chmod(0o755)


def test_a_file_that_opens_for_reading_only(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system mounted read-only, where the rights say nothing."""

    class ReadOnly(apsw.Connection):
        def __init__(self, filename: str, **_: object) -> None:
            super().__init__(filename, flags=apsw.SQLITE_OPEN_READONLY)

    before = contents(closed.parent)
    monkeypatch.setattr(apsw, "Connection", ReadOnly)
    with pytest.raises(StoreReadOnly, match="no right to write"):
        SqliteStore(closed, owner="w1", now=1)
    assert contents(closed.parent) == before


# Paths


def test_paths_that_can_be_no_database(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    for path, said in (
        (tmp_path / "dir", "is a directory"),
        (tmp_path / "no" / "x.db", "does not exist"),
    ):
        for owner in ("w1", None):
            with pytest.raises(CannotLoad, match=said):
                SqliteStore(path, owner=owner, now=1)
    assert [file.name for file in tmp_path.iterdir()] == ["dir"], "nothing is left behind"


def test_urls() -> None:
    assert sqlite_path("sqlite:///a.db") == Path("a.db")
    assert sqlite_path("sqlite:////tmp/a.db") == Path("/tmp/a.db")
    for url in ("sqlite:///", "sqlite://a.db", "mysql://x", "a.db", ""):
        with pytest.raises(CannotLoad):
            open_store(url, owner=None, now=1)


def test_a_guest_makes_no_file(path: Path) -> None:
    with pytest.raises(SchemaMismatch, match="does not exist yet"):
        SqliteStore(path, owner=None, now=1)
    assert not list(path.parent.iterdir())


def test_a_guest_makes_no_schema(path: Path) -> None:
    path.touch()
    with pytest.raises(SchemaMismatch, match="no schema yet"):
        SqliteStore(path, owner=None, now=1)
    assert contents(path.parent) == {"outlast.db": b""}


# Other people's files


def foreign(path: Path) -> None:
    shell = apsw.Connection(str(path))
    shell.execute("CREATE TABLE theirs (a)")
    shell.close()


def foreign_wal(path: Path) -> None:
    shell = apsw.Connection(str(path))
    shell.execute("PRAGMA journal_mode = WAL").fetchall()
    shell.execute("CREATE TABLE theirs (a)")
    shell.close()


def foreign_mark(path: Path) -> None:
    shell = apsw.Connection(str(path))
    shell.execute("PRAGMA application_id = 77; CREATE TABLE theirs (a)").fetchall()
    shell.close()


def text(path: Path) -> None:
    path.write_text("These are the notes of a meeting. " * 99)


def short_text(path: Path) -> None:
    path.write_text("hello")


def truncated(path: Path) -> None:
    SqliteStore(path, owner="w1", now=1).close()
    path.with_name("outlast.db.owner").unlink()
    os.truncate(path, 3 * 4096 + 100)


def bad_header(path: Path) -> None:
    SqliteStore(path, owner="w1", now=1).close()
    path.with_name("outlast.db.owner").unlink()
    with path.open("r+b") as file:
        file.seek(16)
        file.write(b"\xff" * 40)


def bad_schema_page(path: Path) -> None:
    SqliteStore(path, owner="w1", now=1).close()
    path.with_name("outlast.db.owner").unlink()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 300)


@pytest.mark.parametrize("owner", ["w1", None])
@pytest.mark.parametrize(
    "make",
    [foreign, foreign_wal, foreign_mark, text, short_text, truncated, bad_header, bad_schema_page],
)
def test_what_is_no_outlast_database_is_left_as_it_is(
    path: Path, make: object, owner: str | None
) -> None:
    make(path)  # type: ignore[operator]
    before = contents(path.parent)
    with pytest.raises(StoreBroken) as caught:
        SqliteStore(path, owner=owner, now=1)
    assert caught.value.do and str(path) in str(caught.value)
    after = contents(path.parent)
    assert {name: after.pop(name) for name in before} == before
    assert not after.get("outlast.db-wal"), "SQLite may leave an empty log beside a damaged file"


def test_a_damaged_page_is_found(closed: Path) -> None:
    shell = apsw.Connection(str(closed))
    ((page,),) = (
        shell.execute(
            "SELECT pageno FROM dbstat WHERE name = 'transition' AND pagetype = 'leaf' LIMIT 1"
        )
        if has_dbstat(shell)
        else shell.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'transition'")
    )
    shell.close()
    with closed.open("r+b") as file:
        file.seek((int(str(page)) - 1) * 4096)
        file.write(b"\xa5" * 4096)
    store = SqliteStore(closed, owner="w1", now=1)
    assert any(defect.startswith("the file:") for defect in store.verify().defects)
    with pytest.raises(StoreBroken):
        [store.log(f"ex_{n:03}") for n in range(200)]
    store.close()


def has_dbstat(shell: apsw.Connection) -> bool:
    try:
        shell.execute("SELECT 1 FROM dbstat LIMIT 1").fetchall()
    except apsw.SQLError:
        return False
    return True


# Schemas


def set_version(path: Path, version: int) -> None:
    shell = apsw.Connection(str(path))
    shell.execute(f"PRAGMA user_version = {version}")
    shell.close()


@pytest.mark.parametrize("owner", ["w1", None])
@pytest.mark.parametrize(("version", "said"), [(migrate.NEWEST + 1, "newer"), (0, "older")])
def test_another_schema_is_refused(
    closed: Path, owner: str | None, version: int, said: str
) -> None:
    set_version(closed, version)
    before = contents(closed.parent)
    with pytest.raises(SchemaMismatch, match=f"{said} than this code's"):
        SqliteStore(closed, owner=owner, now=1)
    assert contents(closed.parent) == before


@pytest.mark.parametrize("owner", ["w1", None])
def test_another_lifecycle_is_refused(closed: Path, owner: str | None) -> None:
    shell = apsw.Connection(str(closed))
    shell.execute("INSERT INTO edge VALUES ('fly', 'queued', 'running')")
    shell.close()
    before = contents(closed.parent)
    with pytest.raises(SchemaMismatch, match="edge table"):
        SqliteStore(closed, owner=owner, now=1)
    assert contents(closed.parent) == before


def test_a_newer_schema_with_a_log_left_by_a_crash_is_left_as_it_is(
    path: Path, tmp_path: Path
) -> None:
    """Also closing the file again must not copy the write-ahead log into it."""
    store = SqliteStore(path, owner="w1", now=1)
    one(store, born("ex_1"))
    set_version(path, migrate.NEWEST + 1)
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", crashed)
    store.close()
    before = contents(crashed)
    with pytest.raises(SchemaMismatch, match="newer"):
        SqliteStore(crashed / "outlast.db", owner="w1", now=1)
    after = contents(crashed)
    assert {name: after[name] for name in before} == before


def test_an_upgrade_is_asked_for(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = migrate.NEWEST + 1
    monkeypatch.setattr(migrate, "NEWEST", newest)
    more = (newest, "CREATE TABLE more (a INTEGER) STRICT;")
    monkeypatch.setattr(migrate, "MIGRATIONS", [*migrate.MIGRATIONS, more])
    before = contents(closed.parent)
    for owner in ("w1", None):
        with pytest.raises(SchemaMismatch, match="upgrade"):
            SqliteStore(closed, owner=owner, now=1)
    assert contents(closed.parent) == before
    store = SqliteStore(closed, owner="w1", now=5, upgrade=True)
    assert store.verify().executions == 200 and store.verify().defects == []
    store.close()
    SqliteStore(closed, owner=None, now=1).close()
    shell = apsw.Connection(str(closed))
    assert shell.execute("SELECT * FROM migration").fetchall() == [
        *((number, 1) for number, _ in migrate.MIGRATIONS[:-1]),
        (newest, 5),
    ]
    assert shell.pragma("user_version") == newest
    shell.close()


def test_a_migration_that_fails_leaves_nothing(
    closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = migrate.NEWEST + 1
    monkeypatch.setattr(migrate, "NEWEST", newest)
    more = (newest, "CREATE TABLE more (a INTEGER) STRICT; CREATE TABLE execution (a);")
    monkeypatch.setattr(migrate, "MIGRATIONS", [*migrate.MIGRATIONS, more])
    with pytest.raises(OutlastError):
        SqliteStore(closed, owner="w1", now=5, upgrade=True)
    monkeypatch.undo()
    store = SqliteStore(closed, owner="w1", now=6)
    assert store.verify().executions == 200
    store.close()
    shell = apsw.Connection(str(closed))
    assert not shell.execute("SELECT 1 FROM sqlite_schema WHERE name = 'more'").fetchall()
    shell.close()


def test_the_schema_is_what_the_migrations_say(closed: Path) -> None:
    shell = apsw.Connection(str(closed))
    stored = {
        squeezed(str(sql))
        for (sql,) in shell.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
    }
    assert shell.pragma("application_id") == migrate.APPLICATION_ID
    assert shell.pragma("user_version") == migrate.NEWEST
    shell.close()
    said: set[str] = set()
    for _, migration in migrate.MIGRATIONS:
        for piece in re.split(
            r"\n(?=CREATE |INSERT )", re.sub(r"^--.*$", "", migration, flags=re.MULTILINE)
        ):
            made = re.sub(
                r"DROP TRIGGER \w+;|^INSERT [^;]*;|^SELECT 1;", "", piece, flags=re.MULTILINE
            )
            if made.strip():
                said.add(squeezed(made))
            for name in re.findall(r"DROP TRIGGER (\w+);", piece):  # made anew after it
                said = {one for one in said if not one.startswith(f"CREATE TRIGGER {name} ")}
    assert stored == said


def squeezed(sql: str) -> str:
    return " ".join(re.sub(r"--.*", "", sql).split()).rstrip(";").strip()


def test_migrations_are_numbered_without_a_gap() -> None:
    numbers = [number for number, _ in migrate.MIGRATIONS]
    assert numbers == list(range(1, migrate.NEWEST + 1))


# A full disk


def test_a_full_disk_leaves_nothing_half_written(path: Path) -> None:
    store = SqliteStore(path, owner="w1", now=1)
    owner, item = begun("ex_1")
    one(store, item)
    full = store.file.writer
    ((pages,),) = full.execute("PRAGMA page_count").fetchall()
    full.execute(f"PRAGMA max_page_count = {int(str(pages)) + 3}").fetchall()
    huge = [born(f"ex_2{n}", payload=b"x" * 9_000) for n in range(9)]
    with pytest.raises(StoreFull, match="the disk is full"):
        store.commit([owner.write(Kind.STEP), *huge])
    assert state(store, "ex_1").seq == 3 and store.get(["ex_20"]) == [None]
    assert store.verify().defects == []
    again, _ = begun("ex_1")
    assert one(store, again.write(Kind.STEP, payload=b"small")).refused is None, "it goes on"
    full.execute("PRAGMA max_page_count = 1000000").fetchall()
    assert set(codes(store.commit([again.write(Kind.STEP), *huge]))) == {None}
    assert store.verify().defects == []
    store.close()


def test_an_i_o_error_is_said_as_it_is(path: Path) -> None:
    store = SqliteStore(path, owner="w1", now=1)
    assert one(store, born("ex_1")).refused is None

    def broken_disk(*_: object) -> bool:
        raise apsw.IOError("disk I/O error")

    store.file.writer.set_commit_hook(broken_disk)
    with pytest.raises(OutlastError) as caught:
        one(store, born("ex_2"))
    assert caught.value.code == "store_unavailable"
    store.file.writer.set_commit_hook(None)
    assert store.get(["ex_2"]) == [None]
    assert one(store, born("ex_2")).refused is None
    store.close()


# Owners


def test_a_second_owner_in_the_same_process(path: Path) -> None:
    store = SqliteStore(path, owner="w1", now=1)
    for alias in (path, path.parent / "." / "outlast.db"):
        with pytest.raises(StoreOwned, match="this very process"):
            SqliteStore(alias, owner="w2", now=1)
    link = path.with_name("link.db")
    link.symlink_to(path)
    with pytest.raises(StoreOwned):
        SqliteStore(link, owner="w2", now=1)
    assert owner_of(f"sqlite:///{path}") == "this very process"
    assert one(store, born("ex_1")).refused is None, "the first is none the worse for it"
    with pytest.raises(StoreOwned, match=f"process {os.getpid()} on "):
        raise_from(run(ATTEMPT, str(path)))
    store.close()
    assert owner_of(f"sqlite:///{path}") is None
    SqliteStore(path, owner="w2", now=1).close()


ATTEMPT = """
from outlast.errors import StoreOwned
try:
    SqliteStore(path, owner="w9", now=1)
except StoreOwned as error:
    print(error)
"""
HOLD = """
store = SqliteStore(path, owner="w1", now=1)
one(store, born("ex_1"))
print(os.getpid(), flush=True)
sys.stdin.read()
store.close()
"""


def raise_from(said: str) -> None:
    if said:
        raise StoreOwned(said)


def test_an_owner_in_another_process_is_named(path: Path) -> None:
    holder = python(HOLD, str(path))
    assert holder.stdout is not None and holder.stdin is not None
    pid = holder.stdout.readline().strip()
    with pytest.raises(StoreOwned, match=f"process {pid} on "):
        SqliteStore(path, owner="w2", now=1)
    owner = owner_of(f"sqlite:///{path}")
    assert owner is not None and f"process {pid} on " in owner
    holder.stdin.close()
    holder.stdin = None
    holder.communicate(timeout=100)
    assert holder.returncode == 0
    store = SqliteStore(path, owner="w2", now=1)
    assert state(store, "ex_1").seq == 1
    store.close()


def test_the_lock_dies_with_its_process(path: Path) -> None:
    holder = python(HOLD, str(path))
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=100)
    assert owner_of(f"sqlite:///{path}") is None
    store = SqliteStore(path, owner="w2", now=1)
    assert state(store, "ex_1").seq == 1, "what was acknowledged is there"
    assert store.verify().defects == []
    store.close()


FORK = """
store = SqliteStore(path, owner="w1", now=1)
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(1, b"forked\\n")
    os.read(reading, 1)   # outlives its parent
    os._exit(0)
sys.stdin.read()
os.kill(os.getpid(), 9)
"""


def test_a_forked_child_does_not_hold_the_lock(path: Path) -> None:
    """A lock by ``flock`` would live on in the child."""
    parent = python(FORK, str(path), start_new_session=True)
    assert parent.stdout is not None and parent.stdin is not None
    try:
        assert parent.stdout.readline() == "forked\n"
        with pytest.raises(StoreOwned):
            SqliteStore(path, owner="w2", now=1)
        parent.stdin.close()
        assert parent.wait(100) == -signal.SIGKILL
        SqliteStore(path, owner="w2", now=1).close()
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.stdin = None
        parent.communicate(timeout=100)


CHILD_ENDS = """
store = SqliteStore(path, owner="w1", now=1)
one(store, born("ex_1"))
store.file.writer.execute("PRAGMA cache_size = 5")     # so that the transaction spills into the log
store.file.writer.execute("BEGIN IMMEDIATE")
for n in range(3_000):
    store.file.writer.execute("INSERT INTO worker (tenant, id, host, pid, started_at, seen_at, state, service)"
                              " VALUES (1, ?, '', 1, 1, 1, 'left', '{}')", (f"{n:05}" + "x" * 500,))
child = os.fork()
if child == 0:
    store = None           # and the interpreter ends as it always does
    sys.exit(0)
os.waitpid(child, 0)
assert store.file.writer.execute("SELECT count(*) FROM worker").fetchall() == [(3_000,)]
store.file.writer.execute("COMMIT")
print(one(store, born("ex_2")).refused, len(store.verify().defects))
again = SqliteStore(path, owner=None, now=1)
print(again.get(["ex_2"])[0].id)
sys.stdin.read()
"""


def test_a_forked_child_that_ends_does_its_parent_no_harm(path: Path) -> None:
    parent = python(CHILD_ENDS, str(path))
    assert parent.stdout is not None and parent.stdin is not None
    assert [parent.stdout.readline().strip() for _ in range(2)] == ["None 0", "ex_2"]
    with pytest.raises(StoreOwned):
        SqliteStore(path, owner="w2", now=1)
    _, err = parent.communicate(timeout=100)
    assert (parent.returncode, err) == (0, "")


def test_other_connections_of_this_process_keep_the_locks(path: Path) -> None:
    """Opening and closing the file in passing would drop the record locks that SQLite holds."""
    store = SqliteStore(path, owner="w1", now=1)
    one(store, born("ex_1"))
    for _ in range(3):
        SqliteStore(path, owner=None, now=1).close()
        owner_of(f"sqlite:///{path}")
    run("store = SqliteStore(path, owner=None, now=1); store.close()", str(path))
    assert path.with_name("outlast.db-wal").exists(), "no other process thinks it is the last"
    assert one(store, born("ex_2")).refused is None
    assert store.verify().defects == []
    store.close()


# Connections


def test_connections_are_set_as_they_must_be(path: Path) -> None:
    """A commit is on the disk when it returns, readers cannot write, and guests stay short."""
    owner = SqliteStore(path, owner="w1", now=1)
    guest = SqliteStore(path, owner=None, now=1)
    for store, pages in ((owner, 4_000), (guest, 0)):
        writer = store.file.writer
        assert (writer.pragma("journal_mode"), writer.pragma("synchronous")) == ("wal", 2)
        assert (writer.pragma("wal_autocheckpoint"), writer.pragma("mmap_size")) == (pages, 0)
        assert store.file._reader.pragma("query_only") == 1
        with pytest.raises(apsw.ReadOnlyError):
            store.file._reader.execute("DELETE FROM worker")
    guest.close()
    owner.close()


# Guests

GUEST = """
store = SqliteStore(path, owner=None, now=1)
print(one(store, born("ex_2")).refused, one(store, Deliver("ex_1", answer_to("q#1"), T)).refused)
store.close()
"""


def test_a_guest_submits_and_delivers_beside_the_owner(path: Path) -> None:
    store = SqliteStore(path, owner="w1", now=1)
    owner, item = begun("ex_1")
    one(store, item)
    assert store.changed() is False
    assert run(GUEST, str(path)) == "None None"
    assert store.changed() is True
    assert store.changed() is False, "told once"
    assert store.unread("w1") == ["ex_1"]
    assert one(store, owner.park(Kind.WAIT, data={"waits": []})).refused == "moved"
    assert state(store, "ex_2").state == "queued"
    assert store.verify().defects == []
    store.close()


def test_a_guest_works_without_an_owner(path: Path) -> None:
    store = SqliteStore(path, owner="w1", now=1)
    one(store, born("ex_1"))
    store.close()
    assert run(GUEST, str(path)) == "None None"
    store = SqliteStore(path, owner="w2", now=1)
    assert state(store, "ex_1").inbox_count == 1 and state(store, "ex_2").seq == 1
    store.close()


def test_two_writers_take_turns(path: Path) -> None:
    """A guest in a thread of its own against the owner: nobody is told the file is locked."""
    script = """
store = SqliteStore(path, owner=None, now=1)
print(sum(one(store, born(f"gx_{n:04}")).refused is None for n in range(150)))
"""
    store = SqliteStore(path, owner="w1", now=1)
    guest = python(script, str(path))
    done = [one(store, born(f"ex_{n:04}")).refused for n in range(150)]
    out, err = guest.communicate(timeout=100)
    assert (out.strip(), err, set(done)) == ("150", "", {None})
    assert store.verify().executions == 300
    store.close()


def test_a_backup_is_a_database_like_any_other(path: Path, tmp_path: Path) -> None:
    store = SqliteStore(path, owner="w1", now=1)
    owner, item = begun("ex_1")
    store.commit([item, owner.write(Kind.STEP)])
    source, target = apsw.Connection(str(path)), apsw.Connection(str(tmp_path / "copy.db"))
    with target.backup("main", source, "main") as backup:
        backup.step(1)
        one(store, owner.write(Kind.STEP))  # it begins again, and has this as well
        backup.step(-1)
    source.close()
    target.close()
    copy = SqliteStore(tmp_path / "copy.db", owner="w2", now=1)
    assert copy.verify().defects == [] and state(copy, "ex_1").seq == 5
    assert one(copy, Deliver("ex_1", answer_to("q"), T)).refused is None
    assert copy.recover(None, "w2", T, 9) == 1
    copy.close()
    assert one(store, owner.write(Kind.STEP)).refused is None
    store.close()
