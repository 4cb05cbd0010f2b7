"""The feed where several write: what is committed late comes late, and is not passed over."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from outlast.lifecycle import Kind
from outlast.store.postgres import PostgresStore
from outlast.store.protocol import Item, Store
from outlast.testing.conformance import T, begun, one

Seen = list[tuple[int, str, int]]


def seen(store: Store, after: int = 0) -> Seen:
    """Give positions to all that can be seen, and read it."""
    while store.feed.settle():
        pass
    return [(row.position, row.execution_id, row.seq) for row in store.feed.read(after, 10_000)]


@contextmanager
def held_open(store: PostgresStore, batch: list[Item]) -> Iterator[None]:
    """Write a batch in a transaction that stays open for the length of the block."""
    written, go_on = threading.Event(), threading.Event()

    def act() -> None:
        store._write_batch(batch)
        store.database.ask("executions_by_id", ["ex_0"])  # now all of it is with the server
        written.set()
        assert go_on.wait(100)

    thread = threading.Thread(target=lambda: store.database.transact(act))
    thread.start()
    try:
        assert written.wait(100)
        yield
    finally:
        go_on.set()
        thread.join()


def test_what_is_committed_late_is_not_passed_over(postgres_store: str) -> None:
    """It has drawn its numbers first; whoever goes by those would never see it."""
    late, early = (PostgresStore(postgres_store, owner=f"w{n}", now=T) for n in range(2))
    late.feed.follow("one", T)
    _, born_late = begun("ex_late")
    owner, born_early = begun("ex_early")
    with held_open(late, [born_late]):
        assert one(early, born_early).refused is None
        before = seen(early)
        assert {id for _, id, _ in before} == {"ex_early"}  # nobody waits for who is late
        cursor = before[-1][0]
    after = seen(early, cursor)
    assert {id for _, id, _ in after} == {"ex_late"}
    assert min(position for position, _, _ in after) > cursor
    assert one(early, owner.write(Kind.STEP, key="a#1", payload=b"1")).refused is None
    whole = seen(late)
    assert whole[: len(before) + len(after)] == before + after  # a position is for good
    assert len(whole) == len(before) + len(after) + 1
    late.close()
    early.close()


def test_a_feed_has_begun_only_when_all_who_could_miss_it_have_ended(postgres_store: str) -> None:
    """A transaction that was open before it may have written past it: nobody is told "from now"."""
    late, early = (PostgresStore(postgres_store, owner=f"w{n}", now=T) for n in range(2))
    _, item = begun("ex_late")
    with held_open(late, [item]):
        early.feed.follow("one", T)
        head = early.feed.head()
        assert head is not None
        assert not head.is_whole
    head = early.feed.head()
    assert head is not None
    assert head.is_whole
    late.close()
    early.close()


def test_readers_that_come_and_go_see_what_several_write_once(postgres_store: str) -> None:
    """Four write, two give positions, readers go on from anywhere: each row once, in its order."""
    stores = [PostgresStore(postgres_store, owner=f"w{n}", now=T) for n in range(6)]
    stores[0].feed.follow("one", T)
    writing = threading.Event()
    faults: list[BaseException] = []
    read: list[list[tuple[str, int]]] = [[], []]

    def write(number: int) -> None:
        try:
            dice = random.Random(number)
            owners = []
            for place in range(15):
                owner, item = begun(f"ex_{number}_{place:02}")
                owners.append(owner)
                batch: list[Item] = [item]
                batch += [
                    chosen.write(Kind.STEP, key=f"s{place}", payload=b"1")
                    for chosen in dice.sample(owners, min(3, len(owners)))
                    if chosen is not owner
                ]
                stores[number].commit(batch)
        except BaseException as error:  # noqa: BLE001 - told below
            faults.append(error)

    def follow(number: int) -> None:
        try:
            store, cursor, is_last = stores[4 + number], 0, False
            while True:
                is_last = writing.is_set()
                store.feed.settle()
                rows = store.feed.read(cursor, 7)
                read[number] += [(row.execution_id, row.seq) for row in rows]
                if rows:
                    cursor = rows[-1].position
                elif is_last:
                    return
        except BaseException as error:  # noqa: BLE001 - told below
            faults.append(error)

    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    readers = [threading.Thread(target=follow, args=(n,)) for n in range(2)]
    for thread in writers + readers:
        thread.start()
    for thread in writers:
        thread.join()
    writing.set()
    for thread in readers:
        thread.join()
    assert faults == []
    assert read[0] == read[1]
    assert len(set(read[0])) == len(read[0]) > 200
    ends: dict[str, int] = {}
    for id, seq in read[0]:
        assert seq == ends.get(id, 0) + 1
        ends[id] = seq
    assert ends == {id: len(stores[0].log(id)) for id in ends}
    assert len(ends) == 60
    for store in stores:
        store.close()
