"""The commit pipeline: what is submitted together is written together, in order, and bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from outlast.engine.write import journal as module
from outlast.engine.write.journal import Journal
from outlast.errors import NoEngine, StoreBusy, StoreFull, StoreUnavailable
from outlast.lifecycle import Kind
from outlast.store.memory import MemoryStore
from outlast.store.protocol import Answer, Create, Item
from outlast.testing.conformance import begun, born


class Recorded(MemoryStore):
    """Remembers its batches; stands still while its gate is closed, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def commit(self, batch: Sequence[Item]) -> list[Answer]:
        self.gate.wait(100)
        if self.failure is not None:
            raise self.failure
        self.batches.append([item.after.id for item in batch if isinstance(item, Create)])
        return super().commit(batch)


class Told:
    """A submitter that keeps what it is told, and closes a future when it has all of it."""

    def __init__(self, count: int) -> None:
        self.answers: list[tuple[str, str | None]] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count = count

    def settled(self, item: Any, answer: Answer) -> None:
        self.answers.append((item.after.id, answer.refused))
        if len(self.answers) == self._count:
            self.done.set_result(None)


def with_journal(main: Callable[[Journal, Recorded], Awaitable[None]]) -> Recorded:
    store = Recorded()

    async def run() -> None:
        journal = Journal(store, asyncio.get_running_loop())
        async with asyncio.timeout(100):
            await main(journal, store)
            store.gate.set()
            await journal.close()

    asyncio.run(run())
    return store


def submit(journal: Journal, told: Told, ids: Sequence[str], payload: bytes = b"{}") -> None:
    for id in ids:
        item = born(id)
        item.rows[0].payload = payload
        journal.submit(item, told)


def test_one_turn_is_one_batch() -> None:
    ids = [f"ex_{n:03}" for n in range(100)]

    async def main(journal: Journal, store: Recorded) -> None:
        told = Told(100)
        submit(journal, told, ids)
        await told.done
        assert told.answers == [(id, None) for id in ids]
        assert (journal.batches, journal.items) == (1, 100)

    assert with_journal(main).batches == [ids]


def test_what_comes_during_a_commit_shares_the_next_one() -> None:
    async def main(journal: Journal, store: Recorded) -> None:
        told = Told(4)
        store.gate.clear()
        submit(journal, told, ["ex_1"])
        for id in ("ex_2", "ex_3", "ex_4"):
            await asyncio.sleep(0)  # another turn of the loop
            submit(journal, told, [id])
        await asyncio.sleep(0)
        store.gate.set()
        await told.done

    batches = with_journal(main).batches
    assert [id for batch in batches for id in batch] == ["ex_1", "ex_2", "ex_3", "ex_4"]
    assert len(batches) <= 2


def test_batches_are_bounded_in_rows_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_MAX", 10)
    monkeypatch.setattr(module, "BYTES_MAX", 1_000)
    ids = [f"ex_{n:02}" for n in range(30)]

    async def main(journal: Journal, store: Recorded) -> None:
        rows, bytes_ = Told(25), Told(5)
        submit(journal, rows, ids[:25])
        submit(journal, bytes_, ids[25:], payload=b"x" * 400)
        await rows.done
        await bytes_.done

    sizes = [len(batch) for batch in with_journal(main).batches]
    assert sizes == [10, 10, 8, 2], "10 rows at most, and no more once 1,000 bytes are in"


def test_a_job_runs_after_what_was_submitted_before_it() -> None:
    seen: list[int] = []

    async def main(journal: Journal, store: Recorded) -> None:
        told = Told(3)
        submit(journal, told, ["ex_1", "ex_2", "ex_3"])
        await journal.call(lambda: seen.append(sum(map(len, store.batches))))
        await told.done

    with_journal(main)
    assert seen == [3]


def test_a_failed_commit_is_unknown_to_all_and_ends_nothing() -> None:
    failures: list[str] = []

    async def main(journal: Journal, store: Recorded) -> None:
        journal.on_failure = lambda error: failures.append(error.code)
        store.failure = StoreFull("no room")
        told = Told(2)
        submit(journal, told, ["ex_1", "ex_2"])
        await told.done
        assert told.answers == [("ex_1", "unknown"), ("ex_2", "unknown")]
        store.failure = RuntimeError("nobody thought of this")
        with pytest.raises(StoreUnavailable):
            await journal.commit(born("ex_3"))
        store.failure = None
        assert (await journal.commit(born("ex_3"))).refused is None

    with_journal(main)
    assert failures == ["store_full", "store_unavailable"]


def test_a_busy_store_has_written_nothing_and_only_owners_begin_anew() -> None:
    failures: list[str] = []

    async def main(journal: Journal, store: Recorded) -> None:
        journal.on_failure = lambda error: failures.append(error.code)
        store.failure = StoreBusy("others had it")
        with pytest.raises(StoreBusy):
            await journal.commit(born("ex_1"))
        assert failures == []
        owner, _ = begun("ex_2")
        with pytest.raises(StoreBusy):
            await journal.commit(owner.write(Kind.FINISH))

    with_journal(main)
    assert failures == ["store_busy"]


def test_a_submitter_that_fails_keeps_the_others_from_nothing() -> None:
    async def main(journal: Journal, store: Recorded) -> None:
        complaints: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))

        class Fails:
            def settled(self, item: Any, answer: Answer) -> None:
                raise RuntimeError("a bug")

        told = Told(1)
        journal.submit(born("ex_1"), Fails())
        submit(journal, told, ["ex_2"])
        await told.done
        assert complaints == ["outlast failed to go on after a commit"]
        assert (await journal.commit(born("ex_3"))).refused is None

    with_journal(main)


def test_a_full_journal_makes_callers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKLOG_MAX", 4)

    async def main(journal: Journal, store: Recorded) -> None:
        told = Told(4)
        store.gate.clear()
        submit(journal, told, ["ex_1", "ex_2", "ex_3", "ex_4"])
        waiting = asyncio.ensure_future(journal.commit(born("ex_5")))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done() and journal._pending == 4
        store.gate.set()
        await told.done
        assert (await waiting).refused is None

    with_journal(main)


def test_a_closed_journal_says_so() -> None:
    async def main() -> None:
        journal = Journal(MemoryStore(), asyncio.get_running_loop())
        await journal.close()
        with pytest.raises(NoEngine):
            journal.submit(born("ex_1"), Told(1))
        with pytest.raises(NoEngine):
            await journal.call(lambda: None)

    asyncio.run(main())


def test_what_is_written_when_the_loop_has_closed_is_told_to_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loop may close between any look at it and the call: the journal's thread ends quietly."""
    loop = asyncio.new_event_loop()
    journal = Journal(MemoryStore(), loop)
    loop.close()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "is_closed", lambda: False)
        journal._tell(lambda: None)
    journal.stop()
