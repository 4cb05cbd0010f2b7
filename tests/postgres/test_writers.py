"""Several writers at once: each does what it would do alone, and nobody waits in a circle."""

from __future__ import annotations

import fcntl
import os
import queue
import random
import resource
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from outlast.errors import StoreUnavailable
from outlast.lifecycle import Execution, Kind, Message, MessageKind
from outlast.store import open_store
from outlast.store.postgres import PostgresStore
from outlast.store.postgres.address import Address
from outlast.store.postgres.connect import check, open_session
from outlast.store.postgres.hints import TOPICS, PostgresHints
from outlast.store.postgres.session import ConnectionLost, Session
from outlast.store.protocol import Answer, Deliver, Lease
from outlast.store.relational.rows import key_of
from outlast.store.relational.store import _TwoLeases
from outlast.testing.conformance import Owner, T, begun, born, codes, nonces
from outlast.testing.conformance_capacity import limited
from outlast.testing.conformance_schedules import Clerk

WRITERS: Final = 3


def at_once(url: str, act: Callable[[int, PostgresStore], None], count: int = WRITERS) -> int:
    """Let several stores act at the same time; gives how many transactions were run again."""
    failures: list[BaseException] = []
    stores = [PostgresStore(url, owner=f"w{n}", now=T) for n in range(count)]
    barrier = threading.Barrier(count)

    def one(number: int) -> None:
        try:
            barrier.wait()
            act(number, stores[number])
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    retries = sum(store.server.retries for store in stores)
    for store in stores:
        store.close()
    assert failures == []
    return retries


def test_nothing_is_claimed_twice(postgres_store: str) -> None:
    with_rows = open_store(postgres_store, owner="w0", now=T)
    with_rows.commit([born(f"ex_{n:03}") for n in range(200)])
    claimed: list[list[str]] = [[] for _ in range(WRITERS)]

    def act(number: int, store: PostgresStore) -> None:
        empty = 0
        while empty < 3:
            found = store.claim(Lease(f"w{number}"), ["t"], 7, T + 1, nonces(7))
            claimed[number] += [one.execution.id for one in found]
            empty = 0 if found else empty + 1

    at_once(postgres_store, act)
    assert sorted(id for some in claimed for id in some) == [f"ex_{n:03}" for n in range(200)]
    assert with_rows.verify().defects == []
    with_rows.close()


def test_batches_over_the_same_executions_never_wait_in_a_circle(postgres_store: str) -> None:
    """Each names them in an order of its own; what waits in a circle would be run again."""
    ids = [f"ex_{n:02}" for n in range(40)]
    store = open_store(postgres_store, owner="w0", now=T)
    store.commit([born(id) for id in ids])

    def act(number: int, one: PostgresStore) -> None:
        dice = random.Random(number)
        for batch in range(20):
            items = [
                Deliver(
                    id, Message(f"m{number}.{batch}", MessageKind.SIGNAL, "a", "s", None, b"1"), T
                )
                for id in dice.sample(ids, 20)
            ]
            assert set(codes(one.commit(items))) == {None}

    assert at_once(postgres_store, act) == 0
    assert sum(len(store.inbox(id)) for id in ids) == WRITERS * 20 * 20
    assert store.verify().defects == []
    store.close()


def test_an_address_does_not_show_its_password() -> None:
    address = Address.of("postgresql://ann:hush@db.example/shop")
    assert "hush" in address.conninfo
    assert "hush" not in repr(address)
    assert "ann" in repr(address)


def test_a_key_is_given_once(postgres_store: str) -> None:
    given: dict[int, list[Answer]] = {}

    def act(number: int, store: PostgresStore) -> None:
        items = [born(f"ex_{number}_{n:02}", key=f"key {n}") for n in range(30)]
        random.Random(number).shuffle(items)
        given[number] = [answer for item in items for answer in store.commit([item])]

    at_once(postgres_store, act)
    made = [answer for answers in given.values() for answer in answers if answer.refused is None]
    assert len(made) == 30
    assert {len(answers) for answers in given.values()} == {30}
    store = open_store(postgres_store, owner=None, now=T)
    assert store.verify().defects == []
    store.close()


def test_births_under_the_same_keys_never_wait_in_a_circle(postgres_store: str) -> None:
    """Whichever order a batch names them in."""
    circles: list[BaseException] = []
    orders: list[list[str]] = []

    def act(number: int, store: PostgresStore) -> None:
        plain, send = store.server._transact, store.server.send

        def sent(name: str, rows: Sequence[Sequence[Any]]) -> None:
            if name == "insert_executions":
                orders.append([key_of(tuple(row)) for row in rows])
            send(name, rows)

        def transact(act: Callable[[], list[Answer]]) -> list[Answer]:
            try:
                return plain(act)
            except psycopg.errors.DeadlockDetected as error:
                circles.append(error)
                raise

        store.server._transact = transact  # type: ignore[assignment, method-assign]
        store.server.send = sent  # type: ignore[method-assign]
        dice = random.Random(number)
        for batch in range(15):
            items = [born(f"ex_{number}_{batch}_{n}", key=f"{batch} {n}") for n in range(60)]
            dice.shuffle(items)
            assert set(codes(store.commit(items))) <= {None, "already_exists"}

    at_once(postgres_store, act)
    assert circles == []
    assert orders and all(keys == sorted(keys) for keys in orders), "they go in by their keys"


def test_a_limit_is_never_exceeded_and_never_forgotten(postgres_store: str) -> None:
    """More claimers than places: who leaves lets the next one in, whoever looks meanwhile."""
    store = open_store(postgres_store, owner="w0", now=T)
    store.commit([born(f"ex_{n:02}", gates=limited(capacity=2)) for n in range(24)])
    inside: set[str] = set()
    done: list[str] = []
    most: list[int] = []
    lock = threading.Lock()

    def act(number: int, one: PostgresStore) -> None:
        for _ in range(500):
            claims = one.claim(Lease(f"w{number}"), ["t"], 5, T + 1, nonces(5))
            with lock:
                inside.update(claimed.execution.id for claimed in claims)
                most.append(len(inside))
            for claimed in claims:
                owner = Owner(claimed.execution)
                with lock:
                    inside.discard(claimed.execution.id)
                items = [owner.write(Kind.START), owner.write(Kind.FINISH)]
                assert codes(one.commit(items)) == [None, None]
                with lock:
                    done.append(claimed.execution.id)
            with lock:
                if len(done) == 24:
                    return

    at_once(postgres_store, act)
    assert max(most) == 2
    assert len(done) == len(set(done)) == 24, "nobody was forgotten in its line"
    assert store.verify().defects == []
    store.close()


def test_a_stale_item_leaves_the_others_of_its_batch_alone(postgres_store: str) -> None:
    store = PostgresStore(postgres_store, owner="w0", now=T)
    owners = []
    for n in range(20):
        owner, item = begun(f"ex_{n:02}", nonce=n.to_bytes(16, "big"))
        assert codes(store.commit([item])) == [None]
        owners.append(owner)
    owners[7].write(Kind.STEP)  # never stored, so that what follows it does not fit
    items = [owner.write(Kind.STEP) for owner in owners]
    answers = codes(store.commit(items))
    assert [n for n, answer in enumerate(answers) if answer is not None] == [7]
    assert store.server.retries == 0, "a refusal is an answer, and breaks nothing off"
    store.close()


def _end_connections(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_connection_that_was_ended_is_made_anew(postgres_store: str) -> None:
    store = PostgresStore(postgres_store, owner="w0", now=T)
    assert codes(store.commit([born("ex_1")])) == [None]
    assert store.with_key("k") is None
    _end_connections(postgres_store)
    assert codes(store.commit([born("ex_2")])) == [None]
    assert [one is not None for one in store.get(["ex_1", "ex_2"])] == [True, True]
    store.close()


def test_a_connection_that_breaks_before_the_commit_has_done_nothing(postgres_store: str) -> None:
    """So the transaction is run again, and what it says is said once."""
    store = PostgresStore(postgres_store, owner="w0", now=T)
    seen = []

    def act() -> str:
        seen.append(store.database.ask_all("all_ids", {"after": "", "limit": 10}))
        if len(seen) == 1:
            _end_connections(postgres_store)
        store._write_batch([born("ex_1")])
        return "done"

    assert store.database.write(act) == "done"
    assert seen == [[], []]
    assert store.get(["ex_1"]) != [None]
    store.close()


def test_a_commit_without_an_answer_is_told_as_unknown(
    postgres_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was stored or not: here it was."""
    store = PostgresStore(postgres_store, owner="w0", now=T)
    session = store.server._session()
    drain = session.drain

    def cut() -> object:
        result = drain()
        if result.command_status == b"COMMIT":
            monkeypatch.undo()
            raise session._lost("cut")
        return result

    monkeypatch.setattr(session, "drain", cut)
    with pytest.raises(StoreUnavailable, match="during a commit"):
        store.commit([born("ex_1")])
    assert codes(store.commit([born("ex_1")])) == ["already_exists"]
    store.close()


def test_a_pooler_that_loses_prepared_statements_is_noticed(postgres_store: str) -> None:
    """Behind one in transaction mode, the next transaction may be on another server process."""
    store = PostgresStore(postgres_store, owner="w0", now=T)
    assert codes(store.commit([born("ex_1")])) == [None]
    session = store.server._session()
    session.prepares = False
    session.queue(b"DEALLOCATE ALL")
    session.drain()
    session.prepares = True
    assert codes(store.commit([born("ex_2")])) == [None]
    assert not session.prepares and store.server.retries == 1
    assert codes(store.commit([born("ex_3")])) == [None]
    store.close()


def test_a_pooler_may_give_a_server_on_which_everything_is_prepared(
    postgres_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else has prepared there what is asked first, and again what is asked at length."""
    PostgresStore(postgres_store, owner="w0", now=T).close()
    address = Address.of(postgres_store)
    for long in (False, True):
        session = open_session(address, long=long)
        session.prepares = True
        check(session, address)
        server = session._connection
        server.pgconn.exit_pipeline_mode()
        monkeypatch.setattr(
            "outlast.store.postgres.connect.connect", lambda _, one=server, **_more: one
        )
        session = open_session(address, long=long)
        assert session.prepares is not long
        session.close()
        monkeypatch.undo()


@pytest.mark.parametrize("place", range(1, 6))
def test_answers_that_were_not_waited_for_are_nobody_elses(
    postgres_store: str, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """Control-C, in the middle of the answers to a reading."""
    store = PostgresStore(postgres_store, owner="w0", now=T)
    store.commit([born("ex_1")])
    store.get(["ex_1"])
    take, calls = Session._next, []

    def interrupted(session: Session) -> object:
        calls.append(1)
        if len(calls) == place:
            raise KeyboardInterrupt
        return take(session)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "_next", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.get(["ex_1"])
    assert store.server._readers == []
    assert [one is not None for one in store.get(["ex_1", "ex_2"])] == [True, False]
    store.close()


def test_a_key_that_somebody_took_in_the_same_instant_is_nobodys_guilt(
    postgres_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a batch is written item by item, as another item is guilty, or of another lease."""
    store = PostgresStore(postgres_store, owner="w0", now=T)
    other = PostgresStore(postgres_store, owner="w1", now=T)
    look = store._with_keys

    def then_taken(keys: Sequence[str]) -> list[Execution]:
        found = look(keys)
        monkeypatch.undo()
        assert codes(other.commit([born("ex_2", key="k")])) == [None]
        return found

    def two_leases(*_: object) -> list[Answer]:
        raise _TwoLeases

    monkeypatch.setattr(store, "_with_keys", then_taken)
    monkeypatch.setattr(store, "_write_batch", two_leases)
    (answer,) = store.commit([born("ex_1", key="k")])
    assert answer.refused != "internal_error", answer.error
    assert answer.execution is not None
    assert answer.execution.id == "ex_2"
    store.close()
    other.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_schedule_that_several_make_at_once_is_made_once(postgres_store: str) -> None:
    names = [f"s{n:02}" for n in range(25)]
    answers: list[list[str | None]] = [[] for _ in range(WRITERS)]

    def act(number: int, store: PostgresStore) -> None:
        clerk = Clerk(store, f"ex_{number}")
        answers[number] = [clerk.create(name=name).refused for name in names]

    at_once(postgres_store, act)
    assert answers == [[None] * len(names)] * WRITERS, "the same one again is no conflict"
    store = open_store(postgres_store, owner="w0", now=T)
    assert [one.name for one in store.schedules.page()] == names
    assert [len(store.schedules.log(name)) for name in names] == [1] * len(names)
    assert store.schedules.defects() == []
    store.close()


def test_a_forked_child_has_connections_of_its_own(postgres_store: str) -> None:
    """Two processes at one connection would take each other's answers."""
    store = PostgresStore(postgres_store, owner="w0", now=T)
    store.commit([born("ex_1")])
    assert store.renew("w0", 1_000_000, T) is None, "it was never registered"
    assert store.get(["ex_1"]) != [None]
    before = _server_processes(store)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.commit([born("ex_2")])
            store.renew("w0", 1_000_000, T)
            read = store.get(["ex_1", "ex_2"])
            code = 0 if None not in read and not _server_processes(store) & before else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert codes(store.commit([born("ex_2"), born("ex_3")])) == ["already_exists", None]
    assert None not in store.get(["ex_1", "ex_2", "ex_3"])
    assert _server_processes(store) == before, "they are as they were"
    store.close()


def _server_processes(store: PostgresStore) -> set[int]:
    server = store.server
    sessions = [server._writer, server._beater, *server._readers]
    assert None not in sessions
    return {one._pg.backend_pid for one in sessions if one is not None}


def test_a_renewal_does_not_wait_for_a_server_that_is_gone(
    postgres_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried on a new connection, while the lease still runs."""
    store = PostgresStore(postgres_store, owner="w0", now=T)
    store.renew("w0", 1_000_000, T)
    beater, writer = store.server._beater, store.server._writer
    assert beater is not None
    assert writer is not None
    assert beater._patience_ms * 2 < 10_000 < writer._patience_ms
    monkeypatch.setattr(beater, "_patience_ms", 20)
    with psycopg.connect(postgres_store) as other:
        other.execute("LOCK TABLE worker")
        beater.queue(b"SELECT count(*) FROM outlast.worker")
        with pytest.raises(ConnectionLost):
            beater.drain()
    assert store.renew("w0", 1_000_000, T) is None
    assert store.server._beater is not beater
    store.close()


def test_who_has_no_lease_waits_for_no_silent_server(
    postgres_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would come back only after the longest that a statement may take."""
    monkeypatch.setattr("outlast.store.postgres.session.HURRY_S", 0.02)
    monkeypatch.setattr("outlast.store.postgres.session._PART_MS", 20)
    store = PostgresStore(postgres_store, owner="w0", now=T)
    assert codes(store.commit([born("ex_1")])) == [None]
    with psycopg.connect(postgres_store) as other:
        other.execute("LOCK TABLE outlast.execution")
        threading.Timer(0.1, store.hurry, [True]).start()  # while it waits
        with pytest.raises(StoreUnavailable, match="no word from the server"):
            store.commit([born("ex_2")])
    store.hurry(False)
    # The server had all of it, and may have gone on once the table was free: nobody knows.
    assert codes(store.commit([born("ex_2")])) in ([None], ["already_exists"])
    assert store.get(["ex_2"])[0] is not None
    store.close()


def test_hints_are_heard_by_a_process_with_many_files(
    postgres_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Descriptors above 1023 are as good as others."""
    PostgresStore(postgres_store, owner="w0", now=T).close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    high = max(soft, 2_048)
    resource.setrlimit(resource.RLIMIT_NOFILE, (high, hard))
    pipe = os.pipe

    def high_pipe() -> tuple[int, ...]:
        low = pipe()
        found = tuple(fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 1_100) for one in low)
        for one in low:
            os.close(one)
        return found

    heard: queue.Queue[str] = queue.Queue()
    with monkeypatch.context() as patched:
        patched.setattr("outlast.store.postgres.hints.os.pipe", high_pipe)
        one = PostgresHints(Address.of(postgres_store), 1, heard.put)
    other = PostgresHints(Address.of(postgres_store), 1, lambda _: None)
    try:
        assert {heard.get(timeout=100) for _ in TOPICS} == set(TOPICS)
        other.send("inbox")
        assert heard.get(timeout=100) == "inbox"
    finally:
        one.close()
        other.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_is_said_when_hints_have_ended_goes_into_nobodys_file(
    postgres_store: str, tmp_path: Path
) -> None:
    """The numbers of their pipe are given to whatever is opened next."""
    PostgresStore(postgres_store, owner="w0", now=T).close()
    heard: queue.Queue[str] = queue.Queue()
    hints = PostgresHints(Address.of(postgres_store), 1, heard.put)
    assert {heard.get(timeout=100) for _ in TOPICS} == set(TOPICS)
    numbers = hints._wake, hints._wakes
    hints.close()
    hints._thread.join(100)
    others = [os.open(tmp_path / str(n), os.O_RDWR | os.O_CREAT) for n in range(len(numbers))]
    try:
        hints._is_over = False  # as one sees it who was about to send
        hints.send("work")
        assert [os.fstat(one).st_size for one in others] == [0, 0]
    finally:
        for one in others:
            os.close(one)


def test_nothing_is_prepared_where_the_address_says_so(postgres_store: str) -> None:
    store = PostgresStore(f"{postgres_store}&prepare=off", owner="w0", now=T)
    assert codes(store.commit([born("ex_1")])) == [None]
    (claimed,) = store.claim(Lease("w0"), ["t"], 1, T + 1, nonces(1))
    assert claimed.execution.id == "ex_1"
    assert store.renew("w0", 1_000_000, T) is None, "it was never registered"
    with psycopg.connect(postgres_store) as connection:
        prepared = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
    assert prepared == (0,)
    assert store.server._session()._prepared == {}
    store.close()


def test_a_process_that_stands_still_gives_its_locks_back(
    postgres_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was about to do is undone, and done again when it goes on."""
    monkeypatch.setattr("outlast.store.postgres.connect.IDLE_TIMEOUT_MS", 100)
    frozen = PostgresStore(postgres_store, owner="w0", now=T)
    other = PostgresStore(postgres_store, owner="w1", now=T)
    assert codes(other.commit([born("ex_1"), born("ex_2")])) == [None, None]
    told = Message("m1", MessageKind.SIGNAL, "a", "s", None, b"1")
    rounds: list[int] = []

    def act() -> list[str]:
        found = frozen._claim(Lease("w0"), {"t"}, (), 5, T + 1, nonces(5))
        if not rounds:  # it stands still in the middle of its first transaction
            assert codes(other.commit([Deliver("ex_1", told, T + 2)])) == [None]
        rounds.append(len(found))
        return [one.execution.id for one in found]

    assert frozen.database.write(act) == ["ex_1", "ex_2"]
    assert rounds == [2, 2] and frozen.server.retries == 1
    assert len(frozen.inbox("ex_1")) == 1 and frozen.verify().defects == []
    frozen.close()
    other.close()
