"""Several engines on one store: leases, takeovers, the watchdog, hints, and a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from outlast import Engine, step, task, wait_for
from outlast.engine.cluster.fleet import FEW, LOOKS_PER_SECOND, Fleet
from outlast.engine.cluster.membership import Membership, in_parts
from outlast.engine.write.clock import WallClock
from outlast.errors import NotFound, StoreUnavailable, UsageError
from outlast.lifecycle import Kind, Message, MessageKind, State
from outlast.store.memory import MemoryStore
from outlast.store.protocol import Deliver, Renewal, Store, WorkerRow

ran: list[tuple[str, int]] = []
gate: list[asyncio.Event] = []
hold = threading.Event()


@pytest.fixture(autouse=True)
def _forget() -> None:
    ran.clear()
    gate[:] = []
    hold.clear()


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


async def until(condition: Callable[[], bool], seconds: float = 100.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0)


class Shared(Engine):
    """An engine on a store in memory that others have as well.

    Its lease is longer than any test: it runs out where a test says so, see :func:`run_out`.
    """

    def __init__(self, store: MemoryStore, **options: Any) -> None:
        super().__init__("memory:", **{"lease": "10m", **options})
        self._shared = store

    def _open_store(self, now: int) -> Store:
        return self._shared


class Deaf(MemoryStore):
    """A store whose hints are all lost."""

    def hints(self, heard: Callable[[str], None]) -> None:
        return None


class Weak(MemoryStore):
    """A store that cannot be renewed at while it is ``down``."""

    down = False
    failed = 0

    def renew(self, *args: Any, **more: Any) -> Renewal | None:
        if self.down:
            self.failed += 1
            raise StoreUnavailable("the network is gone")
        return super().renew(*args, **more)


class Shaky(MemoryStore):
    """A store at which a worker's row is put only after a while, or not at all."""

    def __init__(self) -> None:
        super().__init__(is_shared=True)
        self.registered: list[str] = []
        self.came = threading.Event()
        self.fails_after: threading.Event | None = None

    def register(self, worker: WorkerRow) -> int:
        self.registered.append(worker.id)
        if self.fails_after is not None:
            waits, self.fails_after = self.fails_after, None
            self.came.set()
            assert waits.wait(100)
            raise StoreUnavailable("the connection broke during a commit")
        return super().register(worker)


@step
async def first(value: int) -> int:
    ran.append(("first", value))
    return value


@step
async def second(value: int) -> int:
    ran.append(("second", value))
    await gate[0].wait()
    return value


@task
async def fleet_two(value: int) -> int:
    return await first(value) + await second(value)


@task
async def fleet_three(value: int) -> int:
    return await first(value) + await second(value) + await first(value + 100)


@task
async def fleet_waits() -> str:
    return str(await wait_for("go", str))


@task
async def fleet_quick(value: int) -> int:
    return await first(value)


@task
async def fleet_other(value: int) -> int:
    return await first(value)


def kill(engine: Engine) -> None:
    """End an engine as SIGKILL would, but for its memory: it renews no more, and writes nothing."""
    engine.is_open = False
    for service in engine._services:
        service.cancel()
    assert engine.fleet is not None
    engine.fleet.let_go()
    engine.worker._open = False
    for driver in list(engine.worker.drivers.values()):
        driver.drop(at_once=True)
    from outlast.engine.task.current import closed

    closed(engine)


def run_out(store: MemoryStore, name: str, at: int = 0) -> None:
    """Have the store take a lease for over, or say when it is."""
    rows = store.members._rows
    rows[name] = replace(rows[name], expires_at=at)


def renew(membership: Membership) -> None:
    """Have the renewing thread renew at once."""
    with membership._lock:
        membership._sent_at -= membership.lease_us / 1e6 / 2
    membership._wake.set()


def kinds(store: MemoryStore, id: str) -> list[Kind]:
    return [row.kind for row in store.log(id)]


@pytest.mark.parametrize("store_type", [MemoryStore, Deaf])
def test_another_engine_takes_over(store_type: type[MemoryStore]) -> None:
    async def main() -> None:
        gate.append(asyncio.Event())
        store = store_type(is_shared=True)
        one, two = Shared(store, tasks=[fleet_two]), Shared(store, tasks=[fleet_two])
        await one.open()
        handle = await one.astart(fleet_two, 4)
        await until(lambda: ("second", 4) in ran)
        async with two:
            assert two.fleet is not None
            for _ in range(3):
                await two.fleet.look_for_expired()
            assert Kind.WORKER_LOST not in kinds(store, handle.id)
            kill(one)
            run_out(store, one.name)
            await until(lambda: ran.count(("second", 4)) == 2)
            gate[0].set()
            assert await two.execution(handle.id).aresult() == 8
            assert ran.count(("first", 4)) == 1
            assert two.fleet.taken == 1
            states = {row.id: row.state for row in store.workers()}
            assert states == {one.name: "lost", two.name: "active"}
        assert store.workers()[0].state == "left"
        assert store.verify().defects == []
        await one.journal.close()

    run(main())


def test_a_stopped_renewal_stops_bodies_and_then_drops_all() -> None:
    """The watchdog: first no body starts, then all is dropped; the late result is thrown away."""

    async def main() -> None:
        gate.append(asyncio.Event())
        store = Weak(is_shared=True)
        async with Shared(store, tasks=[fleet_two, fleet_quick], lease="2s") as one:
            name = one.name
            handle = await one.astart(fleet_two, 1)
            await until(lambda: ("second", 1) in ran)
            store.down = True
            assert one.fleet is not None and one.fleet.membership is not None
            membership = one.fleet.membership
            await until(lambda: not membership.may_begin())
            assert one.worker.free == 0
            started = await one.astart(fleet_quick, 7)  # it is stored, and waits
            await until(lambda: membership.name == one.name != name)
            membership.lease_us = 600_000_000  # from here on it loses none
            membership.joined(one.name, membership.lease_us, membership.now())
            run_out(store, one.name, 2**62)
            assert one.fleet.losses == 1 and store.failed > 0
            store.down = False
            assert await started.aresult() == 7
            await until(lambda: ran.count(("second", 1)) == 2)
            gate[0].set()
            assert await handle.aresult() == 2
            assert ran.count(("first", 1)) == 1
            assert kinds(store, handle.id).count(Kind.CLAIM) == 2
        assert store.verify().defects == []

    run(main())


def test_a_renewal_that_succeeds_again_lets_bodies_start() -> None:
    async def main() -> None:
        gate.append(asyncio.Event())
        store = MemoryStore(is_shared=True)
        async with Shared(store, tasks=[fleet_three], lease="20s") as one:
            assert one.fleet is not None and one.fleet.membership is not None
            membership, name = one.fleet.membership, one.name
            handle = await one.astart(fleet_three, 1)
            await until(lambda: ("second", 1) in ran)
            membership._sent_at -= 18
            membership._until -= 18
            assert not membership.may_begin()
            gate[0].set()
            await until(lambda: one.worker._was_held_up)
            assert ("first", 101) not in ran
            membership._wake.set()
            assert await handle.aresult() == 103
            assert membership.may_begin() and one.name == name
            assert one.fleet.losses == 0

    run(main())


def test_the_taken_over_learns_it_from_its_renewal() -> None:
    async def main() -> None:
        gate.append(asyncio.Event())
        store = MemoryStore(is_shared=True)
        async with Shared(store, tasks=[fleet_two]) as one:
            name = one.name
            handle = await one.astart(fleet_two, 1)
            await until(lambda: ("second", 1) in ran)
            store.leave(name, one.clock.now())  # as if its lease had run out
            assert store.recover([name], "somebody", one.clock.now(), 10) == 1
            assert one.fleet is not None and one.fleet.membership is not None
            renew(one.fleet.membership)
            await until(lambda: one.name != name)
            gate[0].set()
            assert await handle.aresult() == 2
        assert store.verify().defects == []

    run(main())


@pytest.mark.parametrize("store_type", [MemoryStore, Deaf])
def test_messages_and_results_cross_processes(store_type: type[MemoryStore]) -> None:
    async def main() -> None:
        store = store_type(is_shared=True)
        only_starts = Shared(store, tasks=[fleet_waits], slots=0)
        async with Shared(store, tasks=[fleet_waits, fleet_two]) as one, only_starts as web:
            handle = await web.astart(fleet_waits)
            await until(lambda: store.get([handle.id])[0].state is not State.QUEUED)  # type: ignore[union-attr]
            await web.execution(handle.id).asignal("go", "now")
            assert await handle.aresult() == "now"
            assert not web.worker.drivers and one.worker.drivers == {}
            assert [row.id for row in store.workers()] == [one.name]
            gate.append(asyncio.Event())
            running = await web.astart(fleet_two, 3)
            await until(lambda: ("second", 3) in ran)
            await web.execution(running.id).acancel()  # its owner hears of it while a body runs
            await until(lambda: store.get([running.id])[0].state is State.CANCELLED)  # type: ignore[union-attr]

    run(main())


def test_an_engine_claims_only_what_it_knows() -> None:
    async def main() -> None:
        store = MemoryStore(is_shared=True)
        async with (
            Shared(store, tasks=[fleet_quick]) as one,
            Shared(store, tasks=[fleet_other]) as two,
        ):
            handles = [await one.astart(fleet_other, n) for n in range(5)]
            assert [await handle.aresult() for handle in handles] == [0, 1, 2, 3, 4]
            workers = {
                row.data["worker"]
                for h in handles
                for row in store.log(h.id)
                if row.kind is Kind.CLAIM and row.data
            }
            assert workers == {two.name}

    run(main())


def test_a_loop_that_computes_keeps_its_lease() -> None:
    """The renewal is not of the loop."""

    async def main() -> None:
        store = MemoryStore(is_shared=True)
        async with Shared(store, tasks=[fleet_quick]) as one:
            name, before = one.name, store.workers()[0].seen_at
            assert one.fleet is not None and one.fleet.membership is not None
            renew(one.fleet.membership)
            end = time.monotonic() + 100
            while store.workers()[0].seen_at == before:
                assert time.monotonic() < end
            assert await (await one.astart(fleet_quick, 1)).aresult() == 1
            assert one.name == name

    run(main())


def test_many_engines_take_over_from_many() -> None:
    """What was held is taken over once, whoever else looks."""

    async def main() -> None:
        store = MemoryStore(is_shared=True)
        gate.append(asyncio.Event())
        old = [Shared(store, tasks=[fleet_two], slots=20) for _ in range(5)]
        for engine in old:
            await engine.open()
        handles = [await old[n % 5].astart(fleet_two, n) for n in range(60)]
        await until(lambda: len({one for one in ran if one[0] == "second"}) == 60)
        for engine in old:
            kill(engine)
            run_out(store, engine.name)
        gate[0].set()
        async with contextlib.AsyncExitStack() as stack:
            new = [
                await stack.enter_async_context(Shared(store, tasks=[fleet_two])) for _ in range(5)
            ]
            results = [await new[0].execution(handle.id).aresult() for handle in handles]
            assert results == [2 * n for n in range(60)]
            assert sum(engine.fleet.taken for engine in new if engine.fleet) == 60
        lost = [kind for handle in handles for kind in kinds(store, handle.id)]
        assert lost.count(Kind.WORKER_LOST) == 60
        assert all(ran.count(("first", n)) == 1 for n in range(60))
        assert store.verify().defects == []
        for engine in old:
            await engine.journal.close()

    run(main())


def test_a_graceful_end_hands_back_and_leaves() -> None:
    async def main() -> None:
        gate.append(asyncio.Event())
        store = MemoryStore(is_shared=True)
        async with Shared(store, tasks=[fleet_two]) as two:
            one = Shared(store, tasks=[fleet_two], patience=0)
            two.worker._open = False  # so that the first one has it
            await one.open()
            handle = await one.astart(fleet_two, 5)
            await until(lambda: ("second", 5) in ran)
            two.worker._open = True
            name = one.name
            assert await one.aclose() == 1
            gate[0].set()
            assert await two.execution(handle.id).aresult() == 10
            assert Kind.WORKER_LOST not in kinds(store, handle.id)
            assert [row.state for row in store.workers() if row.id == name] == ["left"]

    run(main())


def test_a_short_lease_is_refused() -> None:
    with pytest.raises(UsageError, match="shorter than 100 ms"):
        Engine("memory:", lease="50ms")


def test_expired_workers_are_parted_by_chance() -> None:
    dead = [f"w{n}" for n in range(20)]
    parts = in_parts(dead, random.Random(1))
    assert sorted(name for part in parts for name in part) == sorted(dead)
    assert [len(part) for part in parts] == [8, 8, 4]
    assert parts != in_parts(dead, random.Random(2))


def plain(values: Iterable[float]) -> list[float]:
    return [round(value, 3) for value in values]


class Slow(Membership):
    """A membership whose time is set."""

    at = 100.0

    def now(self) -> float:
        return self.at


@pytest.mark.parametrize("serving", [1, 4, 20, 200, 1_000])
def test_many_engines_do_not_look_all_at_once(serving: int) -> None:
    fleet = Fleet.__new__(Fleet)
    fleet._dice = random.Random(serving)
    fleet.membership = Membership(MemoryStore(), 10_000_000, WallClock(), print, print)
    fleet.membership.serving = serving
    waits = sorted(fleet.stagger() for _ in range(serving))
    if serving <= FEW:
        assert waits[-1] == 0
        return
    assert waits[0] < 10 / LOOKS_PER_SECOND, "the first one is there soon, however many there are"
    soon = sum(wait < 0.05 for wait in waits)
    assert soon <= 0.05 * 4 * LOOKS_PER_SECOND, f"{soon} of {serving} look within 50 ms"


def test_the_lease_is_measured_from_when_the_renewal_was_sent() -> None:
    store = MemoryStore(is_shared=True)
    heard: list[Any] = []

    class Clock:
        def now(self) -> int:
            return int(membership.at * 1e6)

    class Late(MemoryStore):
        def renew(self, *args: Any, **more: Any) -> Renewal | None:
            membership.at += 4.0  # the answer takes long
            return Renewal()

    store = Late(is_shared=True)
    membership = Slow(store, 10_000_000, Clock(), heard.append, heard.append)
    assert membership.expires_in() is None and not membership.may_begin()
    membership.joined("w1", 10_000_000, 100.0)
    membership.at = 105.0
    assert plain([membership.expires_in() or 0]) == [5.0]
    membership.beat()
    assert heard == [Renewal()] and membership.renewals == 1
    assert plain([membership.expires_in() or 0]) == [6.0]
    membership.at = 105.0 + 8.4
    assert membership.may_begin()
    membership.at = 105.0 + 8.6
    assert not membership.may_begin()
    membership.left()
    assert membership.beat() > 0 and len(heard) == 1


def test_who_waits_for_what_is_deleted_before_it_has_looked_is_told() -> None:
    store = MemoryStore(is_shared=True)

    async def main() -> None:
        async with Shared(store, tasks=()) as engine:
            handle = await engine.astart(fleet_quick, 1)
            waiting = asyncio.create_task(engine.wait_final(handle.id))
            await until(lambda: handle.id in engine._waiters)
            with store._lock:  # nobody looks in between
                message = Message("m", MessageKind.CANCEL, "user")
                (answer,) = store.commit([Deliver(handle.id, message, engine.clock.now())])
                assert answer.refused is None
                assert store.purge([handle.id]) == 1
            with pytest.raises(NotFound):
                async with asyncio.timeout(100):
                    await waiting

    run(main())


def test_what_runs_is_dropped_with_the_name_under_which_it_runs() -> None:
    """Under a name that was forsaken others take over; so nothing begins under it any more."""

    async def main() -> None:
        gate[:] = [asyncio.Event()]
        async with Shared(MemoryStore(is_shared=True), tasks=[fleet_two]) as engine:
            await engine.astart(fleet_two, 1)
            await until(lambda: ("second", 1) in ran)
            (driver,) = engine.worker.drivers.values()
            engine.rename()
            assert driver.is_over and not engine.worker.drivers

    run(main())


def _rejoining() -> bool:
    coroutines = [one.get_coro() for one in asyncio.all_tasks()]
    return any(getattr(one, "__name__", "") == "_rejoin" for one in coroutines)


def test_who_comes_back_twice_joins_once() -> None:
    """A join that failed for an older name does not put the newer one, that has joined, at risk."""

    async def main() -> None:
        gate[:] = [asyncio.Event()]
        store, late = Shaky(), threading.Event()
        async with Shared(store, tasks=[fleet_two]) as engine:
            store.fails_after = late
            engine.begin_anew()
            await until(store.came.is_set)
            engine.begin_anew()
            late.set()
            name = engine.name
            handle = await engine.astart(fleet_two, 1)
            await until(lambda: ("second", 1) in ran)
            await until(lambda: not _rejoining())  # the one that had failed as well
            assert engine.name == name and store.registered.count(name) == 1
            gate[0].set()
            assert await handle.aresult("100s") == 2

    run(main())
