"""The suite that every store passes, and that a new one has to.

Derive a class in a test module and give it a fixture ``store`` that makes an empty store::

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def store(self) -> Iterator[Store]:
            store = MyStore(...)
            yield store
            store.close()

:class:`Owner`, :func:`born` and :func:`begun` write items as an engine does; tests of one's own may
use them too. Instants are microseconds, as everywhere below the engine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from outlast.lifecycle import (
    OPEN,
    Decision,
    Event,
    Execution,
    Kind,
    Message,
    MessageKind,
    State,
    Transition,
    apply,
    create,
    decide,
    fold,
    note_of,
)
from outlast.lifecycle.record import COLUMNS, Data, copy_of
from outlast.store.protocol import (
    DEFAULT_NUMBER,
    Answer,
    Claimed,
    Create,
    CreateMany,
    Deliver,
    Filter,
    InboxEntry,
    Item,
    Lease,
    Store,
    WorkerRow,
    Write,
)

R = TypeVar("R")
T: Final = 1_700_000_000_000_000
"""The instant at which the suite's stories begin."""
ASK: Final = {"waits": [{"kind": "ask", "key": "q#1", "title": "Ship it?", "outside": True}]}
POSITION: Final = frozenset({"seq", "idle_claims", "inbox_seen", "updated_at"})


def nonces(count: int, seed: int = 0) -> list[bytes]:
    """Give nonces that differ, and are the same in every run."""
    return [(seed * 1_000_003 + place + 1).to_bytes(16) for place in range(count)]


def born(
    id: str,
    now: int = T,
    *,
    task: str = "t",
    payload: bytes | None = b"{}",
    tenant: int = DEFAULT_NUMBER,
    **data: Any,
) -> Create:
    """Make the item that creates an execution; ``data`` are its columns at birth."""
    event = Event(Kind.CREATE, "user", data={"task": task, **data}, payload=payload)
    record, row = create(tenant, id, event, now)
    return Create(record, [row])


def born_alike(ids: Sequence[str], now: int = T, **data: Any) -> CreateMany:
    """Make the item that creates executions which differ by their inputs alone: their numbers."""
    birth = Event(Kind.CREATE, "user", data={"task": "t", **data})
    payloads = [str(number).encode() for number in range(len(ids))]
    return CreateMany(birth, now, list(ids), payloads, [-number for number in range(len(ids))])


def begun(
    id: str, worker: str = "w1", now: int = T, *, nonce: bytes = b"n" * 16, **data: Any
) -> tuple[Owner, Create]:
    """Make the item that creates, claims and starts an execution, and its owner."""
    item = born(id, now, **data)
    owner = Owner(item.after)
    claim = Event(Kind.CLAIM, "engine", 0, nonce, data={"worker": worker})
    rows = [*item.rows, owner.decide(claim, now)]
    rows.append(owner.decide(Event(Kind.START, "engine", 1, nonce), now))
    return owner, Create(copy_of(owner.record), rows)


class Owner:
    """The owner of one execution: decides on its own copy, and makes the items to store."""

    def __init__(self, record: Execution) -> None:
        self.record = copy_of(record)

    def decide(self, event: Event, now: int) -> Transition:
        """Decide an event and apply it to the copy; gives its row."""
        decision = decide(self.record, event, now)
        assert isinstance(decision, Decision), decision
        apply(self.record, decision)
        return decision.transition

    def write(
        self,
        kind: Kind,
        now: int = T,
        *,
        key: str | None = None,
        digest: int | None = None,
        data: Data | None = None,
        payload: bytes | None = None,
        inbox_seen: int | None = None,
    ) -> Write:
        """Decide an event as the owner; gives the item that stores it."""
        before = copy_of(self.record)
        event = Event(kind, "engine", before.fence, before.nonce, key, digest, data, payload)
        row = self.decide(event, now)
        return self._item(before, row, inbox_seen)

    def park(self, kind: Kind, now: int = T, *, data: Data | None = None) -> Write:
        """Give the lease up, unless there is a message that the owner has not seen."""
        return self.write(kind, now, data=data, inbox_seen=self.record.inbox_seen)

    def take(self, entry: InboxEntry, now: int = T) -> Write:
        """Take a message out of the inbox into the log."""
        before = copy_of(self.record)
        self.record.inbox_count = max(self.record.inbox_count, entry.number)
        note = note_of(entry.message, entry.number)
        note.fence, note.nonce = before.fence, before.nonce
        return self._item(before, self.decide(note, now), None)

    def _item(self, before: Execution, row: Transition, inbox_seen: int | None) -> Write:
        after = self.record
        position = (after.seq, after.idle_claims, after.inbox_seen, after.updated_at)
        changed = {name for name in COLUMNS if getattr(before, name) != getattr(after, name)}
        whole = None if changed <= POSITION else copy_of(after)
        return Write(
            after.id, before.fence, before.nonce, before.seq, [row], position, whole, inbox_seen
        )


def replace(thing: R, **changes: Any) -> R:
    """Give a copy of an item, or of a row, with some fields changed."""
    if isinstance(thing, msgspec.Struct):
        return msgspec.structs.replace(thing, **changes)
    copy: R = dataclasses.replace(thing, **changes)  # type: ignore[type-var]
    return copy


def codes(answers: Sequence[Answer]) -> list[str | None]:
    """Give the refusals of a batch's answers."""
    return [answer.refused for answer in answers]


def one(store: Store, item: Item) -> Answer:
    """Commit one item."""
    (answer,) = store.commit([item])
    return answer


def state(store: Store, id: str) -> Execution:
    """Read one execution that exists."""
    (record,) = store.get([id])
    assert record is not None
    return record


def message(
    id: str,
    kind: MessageKind,
    *,
    key: str | None = None,
    data: Data | None = None,
    payload: bytes | None = None,
) -> Message:
    """Make a message from ann."""
    return Message(id, kind, "ann", key, data, payload)


def answer_to(key: str, id: str = "m1", payload: bytes = b'"yes"') -> Message:
    """Make an answer to a question."""
    return message(id, MessageKind.ANSWER, key=key, payload=payload)


def claim_one(store: Store, id: str, now: int = T, *, worker: str = "w1", seed: int = 7) -> Owner:
    """Claim what is queued and start it, as its next owner."""
    for claimed in store.claim(Lease(worker), ["t"], 100, now, nonces(100, seed)):
        if claimed.execution.id == id:
            owner = Owner(claimed.execution)
            assert codes(store.commit([owner.write(Kind.START, now)])) == [None]
            return owner
    raise AssertionError(f"{id} was not to be claimed")


class StoreConformance:
    """What the engine relies on. Each test gets an empty store from the fixture ``store``."""

    def check(self, store: Store) -> None:
        """Every log folds to its row, whatever a test has done."""
        assert store.verify().defects == []

    # Creating

    def test_create(self, store: Store) -> None:
        item = born("ex_1", payload=b'{"a": 1}', queue="q", input_digest=-5)
        answer = one(store, item)
        assert (answer.refused, answer.execution) == (None, item.after)
        assert store.get(["ex_1", "ex_2"]) == [item.after, None]
        assert store.log("ex_1") == item.rows
        assert fold(store.log("ex_1")) == item.after
        self.check(store)

    def test_births_of_every_kind_survive_side_by_side(self, store: Store) -> None:
        items = [
            born("ex_01"),
            born("ex_02", T + 1, task="u", queue="q", priority=-3, input_digest=-5, version="2"),
            born("ex_03", due_at=T + 9),
            born("ex_04", deadline_at=T + 9),
            born("ex_05", start_by=T + 9),
            born("ex_06", key="k"),
            born("ex_07", gates={"version": "1"}),
            born("ex_08", labels={"a": "b"}),
            born("ex_09", origin="o"),
            born("ex_10", version="2", labels={"c": "d"}),
            born("ex_11", waits_on=[{"id": "ex_01", "need": "success", "or_else": "cancel"}]),
            begun("ex_12")[1],
            born("ex_13", T + 2),
        ]
        assert codes(store.commit(items)) == [None] * len(items)
        assert store.get([item.after.id for item in items]) == [item.after for item in items]
        assert {
            one.execution.id for one in store.claim(Lease("w1"), ["t"], 9, T + 3, nonces(9))
        } == {
            *("ex_01", "ex_04", "ex_05", "ex_06", "ex_08", "ex_09", "ex_10", "ex_13"),
        }
        self.check(store)

    def test_births_that_are_alike_are_as_each_by_itself(self, store: Store) -> None:
        ids = [f"ex_{number:04}" for number in range(130)]
        facts: dict[str, Any] = {"queue": "q", "priority": -3, "version": "2"}
        apart = {"attempt_timeout_us": 5}
        extreme = CreateMany(
            Event(Kind.CREATE, "ann", data={"task": "t", **facts, **apart}),
            T + 1,
            ["ex_ü1", "ex_ü2", "ex_ü3"],
            [b"", b"\x00\xc1\xff", '"ü"'.encode()],
            [-(2**63), 2**63 - 1, 0],
        )
        wide = born_alike(["ex_w", "ex_wide"], **facts)
        assert codes(store.commit([born_alike(ids, **facts), extreme, wide])) == [None] * 3
        expected = [
            born(id, T, payload=str(number).encode(), input_digest=-number, **facts)
            for some in (ids, wide.ids)
            for number, id in enumerate(some)
        ]
        for id, payload, number in zip(extreme.ids, extreme.payloads, extreme.digests, strict=True):
            more = {**facts, **apart, "input_digest": number}
            event = Event(Kind.CREATE, "ann", data={"task": "t", **more}, payload=payload)
            record, row = create(DEFAULT_NUMBER, id, event, T + 1)
            expected.append(Create(record, [row]))
        names = [*ids, *wide.ids, *extreme.ids]
        assert store.get(names) == [one.after for one in expected]
        assert store.logs(names) == [one.rows for one in expected]
        owner = claim_one(store, "ex_0003", T + 2)
        assert one(store, owner.write(Kind.STEP, T + 3, key="s#1")).refused is None
        self.check(store)

    def test_births_that_are_alike_come_all_or_none(self, store: Store) -> None:
        assert one(store, born("ex_2")).refused is None
        assert codes(
            store.commit(
                [
                    born("ex_7", waits_on=[{"id": "ex_3", "need": "end", "or_else": "hold"}]),
                    born_alike(["ex_1", "ex_2"]),
                    born_alike(["ex_3", "ex_4"]),
                    born_alike(["ex_5", "ex_5"]),
                    born_alike(["ex_6"], key="k"),
                    born_alike(["ex_4", "ex_8"]),
                    born("ex_4"),
                    Deliver("ex_4", message("m1", MessageKind.PAUSE), T),
                ]
            )
        ) == [
            *(None, "already_exists", None, "already_exists", "internal_error", "already_exists"),
            *("already_exists", None),
        ]
        there = store.get([f"ex_{number}" for number in range(1, 9)])
        assert [None if row is None else row.id for row in there] == [
            *(None, "ex_2", "ex_3", "ex_4", None, None, "ex_7", None),
        ]
        self.check(store)

    def test_every_column_survives(self, store: Store) -> None:
        owner, item = begun(
            "ex_1",
            queue="q",
            priority=-3,
            key="k",
            input_digest=-(2**63),
            version="v",
            parent_id="ex_0",
            parent_key="child#1",
            root_id="ex_0",
            origin="o",
            deadline_at=T + 10**9,
            gates={"version": "7"},
            labels={"team": "ü"},
        )
        assert one(store, item).refused is None
        wait = owner.park(
            Kind.WAIT, T + 3, data={**ASK, "due_at": T + 5, "nested": {"a": [1, None, "ü"]}}
        )
        assert one(store, wait).refused is None
        assert state(store, "ex_1") == owner.record
        for column in COLUMNS:
            assert type(getattr(state(store, "ex_1"), column)) is type(
                getattr(owner.record, column)
            )
        assert one(store, Deliver("ex_1", message("m", MessageKind.PAUSE), T + 6)).refused is None
        held = state(store, "ex_1")
        assert (held.state, held.paused_from) == (State.PAUSED, State.AWAITING_INPUT)
        self.check(store)

    def test_every_sort_of_value_survives_in_the_log(self, store: Store) -> None:
        owner, item = begun("ex_1")
        assert one(store, item).refused is None
        payloads = [None, b"", b"\x00\xff", "ü€😀".encode(), b"x" * 100_000]
        writes = [
            owner.write(
                Kind.STEP,
                T + n,
                key=f'k "{n}" ü\\',
                digest=(-1) ** n * (2**62 + n),
                data={"text": 'ü \u2028 \\ "', "n": n, "deep": [{"a": None}]},
                payload=payload,
            )
            for n, payload in enumerate(payloads)
        ]
        assert codes(store.commit(writes)) == [None] * 5
        assert store.log("ex_1")[3:] == [write.rows[0] for write in writes]
        self.check(store)

    def test_a_key_names_one_execution(self, store: Store) -> None:
        first = born("ex_1", key="k", input_digest=1)
        assert one(store, first).refused is None
        answers = store.commit(
            [
                born("ex_2", key="k", input_digest=1),
                born("ex_3", key="k", input_digest=2),
                born("ex_4", key="other", input_digest=1),
                born("ex_5", input_digest=1),
            ]
        )
        assert codes(answers) == ["already_exists", "key_conflict", None, None]
        assert answers[0].execution == answers[1].execution == first.after
        assert store.get(["ex_2", "ex_3"]) == [None, None]
        assert store.log("ex_2") == store.log("ex_3") == []
        assert store.with_key("k") == first.after
        assert store.with_key("nobody's") is None
        self.check(store)

    def test_the_same_key_with_another_task_is_a_conflict(self, store: Store) -> None:
        one(store, born("ex_1", key="k", input_digest=1))
        other = born("ex_2", key="k", input_digest=1, task="another")
        assert one(store, other).refused == "key_conflict"

    def test_the_same_key_twice_in_a_batch(self, store: Store) -> None:
        batch = [
            born("ex_1", key="k", input_digest=1),
            born("ex_2", key="k", input_digest=1),
            born("ex_3", key="k", input_digest=2),
        ]
        answers = store.commit(batch)
        assert codes(answers) == [None, "already_exists", "key_conflict"]
        assert answers[1].execution == answers[2].execution == batch[0].after
        self.check(store)

    def test_a_create_sent_twice_is_stored_once(self, store: Store) -> None:
        item = born("ex_1")
        assert codes(store.commit([item, born("ex_2")])) == [None, None]
        answers = store.commit([born("ex_1"), born("ex_3")])
        assert codes(answers) == ["already_exists", None]
        assert answers[0].execution == item.after
        self.check(store)

    def test_what_follows_a_refused_create_is_refused_with_it(self, store: Store) -> None:
        one(store, born("ex_1", key="k", input_digest=1))
        owner, item = begun("ex_2", key="k", input_digest=1)
        batch: list[Item] = [item, owner.write(Kind.STEP), owner.write(Kind.FINISH)]
        assert codes(store.commit(batch)) == ["already_exists"] * 3
        assert store.get(["ex_2"]) == [None]

    def test_a_stale_write_takes_nothing_along(self, store: Store) -> None:
        stale, item = begun("ex_1")
        assert one(store, item).refused is None
        assert store.recover(["w1"], "w2", T + 1, 10) == 1
        owner = claim_one(store, "ex_1", T + 2, worker="w2")
        batch = [
            stale.write(Kind.STEP, T + 3, key="s#1", payload=b"1"),
            owner.write(Kind.STEP, T + 3, key="s#1", payload=b"2"),
            stale.write(Kind.FINISH, T + 4, payload=b"1"),
            owner.write(Kind.FINISH, T + 4, payload=b"2"),
        ]
        # "fenced" or "already_final": by then its successor may have ended it
        refused = codes(store.commit(batch))
        assert refused[1] is refused[3] is None
        assert refused[0] == "fenced" and refused[2] in ("fenced", "already_final")
        assert store.log("ex_1")[-1].payload == b"2"
        self.check(store)

    def test_a_whole_life_in_one_batch(self, store: Store) -> None:
        owner, item = begun("ex_1")
        batch: list[Item] = [item]
        batch += [owner.write(Kind.STEP, T + n, key=f"s#{n}", payload=b"1") for n in range(3)]
        batch.append(owner.write(Kind.FINISH, T + 9, payload=b"2"))
        answers = store.commit(batch)
        assert codes(answers) == [None] * 5
        assert answers[0].execution == item.after, "the answer to a create is the record it made"
        assert (item.after.state, item.after.seq) == (State.RUNNING, 3), "items stay as they were"
        assert state(store, "ex_1") == owner.record
        assert [row.kind for row in store.log("ex_1")] == [
            "create",
            "claim",
            "start",
            "step",
            "step",
            "step",
            "finish",
        ]
        self.check(store)

    # Owners' writes

    def test_items_of_one_execution_apply_in_order(self, store: Store) -> None:
        owner, item = begun("ex_1")
        one(store, item)
        batch: list[Item] = [owner.write(Kind.STEP, T + n, key=f"s#{n}") for n in range(5)]
        batch.append(owner.park(Kind.WAIT, T + 6, data={**ASK, "due_at": T + 50}))
        assert codes(store.commit(batch)) == [None] * 6
        assert state(store, "ex_1") == owner.record
        self.check(store)

    def test_many_executions_in_one_batch(self, store: Store) -> None:
        pairs = [begun(f"ex_{n:04}", nonce=n.to_bytes(16)) for n in range(1, 701)]
        assert set(codes(store.commit([item for _, item in pairs]))) == {None}
        steps = [owner.write(Kind.STEP, T + 1, key="s") for owner, _ in pairs]
        ends = [owner.write(Kind.FINISH, T + 2) for owner, _ in pairs[::2]]
        assert set(codes(store.commit([*steps, *ends]))) == {None}
        found = store.get([owner.record.id for owner, _ in pairs])
        assert found == [owner.record for owner, _ in pairs]
        self.check(store)

    def test_a_stale_writer_is_refused(self, store: Store) -> None:
        owner, item = begun("ex_1")
        one(store, item)
        stale = [
            replace(Owner(owner.record).write(Kind.STEP), **wrong)
            for wrong in (
                {"fence": 0},
                {"fence": 2},
                {"nonce": b"o" * 16},
                {"nonce": None},
                {"seq": 2},
                {"seq": 4},
            )
        ]
        for write in stale:
            assert one(store, write).refused == "fenced"
        assert state(store, "ex_1") == owner.record
        assert one(store, owner.write(Kind.STEP)).refused is None

    def test_a_writer_of_nothing_and_of_what_has_ended(self, store: Store) -> None:
        owner, item = begun("ex_1")
        assert one(store, owner.write(Kind.STEP)).refused == "no_execution"
        owner, item = begun("ex_1")
        one(store, item)
        late = Owner(owner.record)
        assert one(store, owner.write(Kind.FINISH)).refused is None
        assert codes(store.commit([late.write(Kind.STEP), late.write(Kind.FINISH)])) == (
            ["already_final"] * 2
        )
        self.check(store)

    def test_one_refused_item_leaves_the_rest_of_its_batch_alone(self, store: Store) -> None:
        pairs = [begun(f"ex_{n:02}", nonce=n.to_bytes(16)) for n in range(1, 21)]
        store.commit([item for _, item in pairs])
        steps = [owner.write(Kind.STEP, T + 1) for owner, _ in pairs]
        guilty = pairs[7][0].record.id
        steps[7] = replace(steps[7], fence=9)
        assert codes(store.commit([*steps, born("ex_99")])) == [None] * 7 + ["fenced"] + [None] * 13
        assert [
            record.seq for record in store.get([f"ex_{n:02}" for n in range(1, 21)]) if record
        ] == [3 if f"ex_{n:02}" == guilty else 4 for n in range(1, 21)]
        self.check(store)

    def test_after_a_refused_item_the_later_ones_of_its_execution_are_refused(
        self, store: Store
    ) -> None:
        owner, item = begun("ex_1")
        one(store, item)
        batch = [owner.write(Kind.STEP, T + n) for n in range(4)]
        batch[2] = replace(batch[2], nonce=b"o" * 16)
        assert codes(store.commit(batch)) == [None, None, "fenced", "fenced"]
        assert state(store, "ex_1").seq == 5
        self.check(store)

    def test_nothing_follows_a_final_item_in_its_batch(self, store: Store) -> None:
        owner, item = begun("ex_1")
        one(store, item)
        late = Owner(owner.record)
        end = owner.write(Kind.FINISH)
        stale = replace(late.write(Kind.STEP), seq=4)
        assert codes(store.commit([end, stale])) == [None, "already_final"]
        self.check(store)

    def test_rows_that_the_lifecycle_would_not_make(self, store: Store) -> None:
        pairs = [begun(f"ex_{n}", nonce=n.to_bytes(16)) for n in range(1, 5)]
        store.commit([item for _, item in pairs])
        batch: list[Item] = [owner.write(Kind.STEP, T + 1) for owner, _ in pairs]
        wrong = batch[1]
        assert isinstance(wrong, Write)
        wrong.rows = [replace(wrong.rows[0], to_state=State.SUCCEEDED)]
        later = pairs[1][0].write(Kind.STEP, T + 2)
        bad_birth = born("ex_9")
        bad_birth.rows = [replace(bad_birth.rows[0], kind=Kind.PROMOTE)]
        answers = store.commit([*batch, later, bad_birth, born("ex_5")])
        assert codes(answers) == [
            None,
            "internal_error",
            None,
            None,
            "internal_error",
            "internal_error",
            None,
        ]
        assert answers[1].error is not None
        assert state(store, "ex_2").seq == 3
        assert store.get(["ex_9"]) == [None]
        self.check(store)

    # Messages

    def test_a_message_for_a_leased_execution_waits_in_its_inbox(self, store: Store) -> None:
        owner, item = begun("ex_1")
        one(store, item)
        answer = one(store, Deliver("ex_1", answer_to("q#1"), T + 5))
        assert answer.refused is None and answer.execution is not None
        assert (answer.execution.inbox_count, answer.execution.inbox_seen) == (1, 0)
        assert len(store.log("ex_1")) == 3
        assert store.inbox("ex_1") == [InboxEntry(1, answer_to("q#1"), T + 5)]
        assert store.unread("w1") == ["ex_1"] and store.unread("w2") == []
        assert one(store, owner.write(Kind.STEP)).refused is None, "it makes no step stale"
        assert one(store, owner.take(store.inbox("ex_1")[0])).refused is None
        assert store.unread("w1") == []
        assert store.inbox("ex_1", 1) == []
        assert store.log("ex_1")[-1].payload == b'"yes"'
        self.check(store)

    def test_no_wake_up_is_lost_between_looking_and_parking(self, store: Store) -> None:
        owner, item = begun("ex_1")
        one(store, item)
        one(store, Deliver("ex_1", answer_to("q#1"), T + 5))
        before = copy_of(owner.record)
        for kind, data in (
            (Kind.WAIT, ASK),
            (Kind.SUSPEND, {"code": "budget"}),
            (Kind.RETRY, {"retries": 3, "due_at": T + 9}),
            (Kind.PAUSE, None),
        ):
            assert one(store, Owner(before).park(kind, data=data)).refused == "moved"
        step = owner.write(Kind.STEP)
        batch = [step, owner.park(Kind.WAIT, data=ASK)]
        assert codes(store.commit(batch)) == [None, "moved"], "what came before it is stored"
        assert state(store, "ex_1").seq == 4
        owner = Owner(state(store, "ex_1"))
        taken = owner.take(store.inbox("ex_1")[0])
        assert codes(store.commit([taken, owner.park(Kind.WAIT, data=ASK)])) == [None, None]
        self.check(store)

    def test_a_park_that_is_followed_by_more_is_checked_too(self, store: Store) -> None:
        owner, item = begun("ex_1")
        one(store, item)
        one(store, Deliver("ex_1", answer_to("q#1"), T + 5))
        stale = Owner(owner.record).write(Kind.STEP)
        assert codes(store.commit([owner.park(Kind.WAIT, data=ASK), stale])) == ["moved", "moved"]
        assert state(store, "ex_1").state is State.RUNNING

    def test_a_message_for_nobody(self, store: Store) -> None:
        assert one(store, Deliver("ex_1", answer_to("q#1"), T)).refused == "no_execution"

    def test_an_answer_wakes_what_waits_for_it(self, store: Store) -> None:
        owner, item = begun("ex_1")
        store.commit([item, owner.park(Kind.WAIT, data=ASK)])
        assert one(store, Deliver("ex_1", answer_to("else", "m0"), T + 5)).refused is None
        assert state(store, "ex_1").state is State.AWAITING_INPUT, "kept, and no reason to wake"
        answer = one(store, Deliver("ex_1", answer_to("q#1"), T + 6))
        assert answer.execution == state(store, "ex_1")
        record = state(store, "ex_1")
        assert (record.state, record.cause, record.inbox_count, record.inbox_seen) == (
            State.QUEUED,
            "input",
            2,
            2,
        )
        assert [row.kind for row in store.log("ex_1")[4:]] == [
            "input_received",
            "input_received",
            "resume",
        ]
        self.check(store)

    def test_an_early_answer_is_kept(self, store: Store) -> None:
        one(store, born("ex_1"))
        assert one(store, Deliver("ex_1", answer_to("q#1"), T + 1)).refused is None
        assert [row.kind for row in store.log("ex_1")] == ["create", "input_received"]
        (claimed,) = store.claim(Lease("w1"), ["t"], 1, T + 2, nonces(1))
        assert (claimed.execution.inbox_seen, claimed.unseen) == (1, [])
        self.check(store)

    def test_a_message_for_one_version_of_a_row_alone(self, store: Store) -> None:
        one(store, born("ex_1"))
        before = state(store, "ex_1")
        seen = before.seq, before.inbox_count
        first, other = (
            Deliver(
                "ex_1", message(id, MessageKind.PRIORITY, data={"priority": n}), T, only_if=seen
            )
            for id, n in (("a", 1), ("b", 2))
        )
        assert codes(store.commit([first, other])) == [None, "stale"], "also in one batch"
        assert one(store, other).refused == "stale" and one(store, first).refused is None
        after = state(store, "ex_1")
        assert (after.priority, after.inbox_count) == (1, 1)
        other.only_if = after.seq, after.inbox_count
        assert one(store, other).refused is None and state(store, "ex_1").priority == 2
        self.check(store)

    def test_the_first_answer_wins(self, store: Store) -> None:
        one(store, born("ex_1"))
        batch: list[Item] = [
            Deliver("ex_1", answer_to("q#1", "m1", b"1"), T),
            Deliver("ex_1", answer_to("q#1", "m2", b"2"), T),
            Deliver("ex_1", answer_to("q#2", "m3", b"3"), T),
        ]
        assert codes(store.commit(batch)) == [None, "already_answered", None]
        assert (
            one(store, Deliver("ex_1", answer_to("q#2", "m4", b"4"), T)).refused
            == "already_answered"
        )
        assert [entry.message.payload for entry in store.inbox("ex_1")] == [b"1", b"3"]
        self.check(store)

    def test_the_first_answer_wins_while_it_is_leased(self, store: Store) -> None:
        _, item = begun("ex_1")
        one(store, item)
        one(store, Deliver("ex_1", answer_to("q#1", "m1"), T))
        assert one(store, Deliver("ex_1", answer_to("q#1", "m2"), T)).refused == "already_answered"
        signal = message("m3", MessageKind.SIGNAL, key="q#1")
        assert one(store, Deliver("ex_1", signal, T)).refused is None, "a signal is no answer"

    def test_a_message_sent_twice_is_taken_once(self, store: Store) -> None:
        _, item = begun("ex_1")
        store.commit([item, born("ex_2")])
        for id in ("ex_1", "ex_2"):
            signal = message("m1", MessageKind.SIGNAL, key="go")
            twice: list[Item] = [Deliver(id, signal, T), Deliver(id, signal, T + 1)]
            assert codes(store.commit(twice)) == [None, None]
            assert one(store, Deliver(id, signal, T + 2)).refused is None
            assert len(store.inbox(id)) == 1
        assert len(store.log("ex_2")) == 2
        self.check(store)

    def test_cancel_pause_and_resume(self, store: Store) -> None:
        one(store, born("ex_1"))
        story = [
            (MessageKind.PAUSE, None, State.PAUSED),
            (MessageKind.PAUSE, "already_paused", State.PAUSED),
            (MessageKind.RESUME, None, State.QUEUED),
            (MessageKind.CANCEL, None, State.CANCELLED),
            (MessageKind.CANCEL, "already_final", State.CANCELLED),
            (MessageKind.RESUME, "already_final", State.CANCELLED),
        ]
        for n, (kind, refused, after) in enumerate(story):
            answer = one(store, Deliver("ex_1", message(f"m{n}", kind), T + n))
            assert (answer.refused, state(store, "ex_1").state) == (refused, after)
            assert answer.execution == state(store, "ex_1")
        assert len(store.inbox("ex_1")) == 3, "what was refused left no trace"
        self.check(store)

    def test_a_held_answer_wakes_when_the_hold_ends(self, store: Store) -> None:
        owner, item = begun("ex_1")
        store.commit([item, owner.park(Kind.WAIT, data={**ASK, "due_at": T + 100})])
        for n, sent in enumerate((message("m1", MessageKind.PAUSE), answer_to("q#1", "m2"))):
            assert one(store, Deliver("ex_1", sent, T + n)).refused is None
        assert state(store, "ex_1").state is State.PAUSED
        assert store.sweep(T + 200, 10) == (0, None), "the clock does not move what is held"
        one(store, Deliver("ex_1", message("m3", MessageKind.RESUME), T + 300))
        record = state(store, "ex_1")
        assert (record.state, record.cause) == (State.QUEUED, "unpause")
        self.check(store)

    def test_deliveries_see_what_owners_wrote_in_the_same_batch(self, store: Store) -> None:
        owner, item = begun("ex_1")
        other, item2 = begun("ex_2", nonce=b"o" * 16)
        store.commit([item, item2])
        batch: list[Item] = [
            Deliver("ex_1", answer_to("q#1"), T + 5),
            Deliver("ex_2", answer_to("q#1"), T + 5),
            owner.park(Kind.WAIT, data=ASK),
            other.write(Kind.FINISH),
            Deliver("ex_3", message("m9", MessageKind.PAUSE), T + 5),
            born("ex_3"),
        ]
        assert codes(store.commit(batch)) == [None, "already_final", None, None, None, None]
        assert state(store, "ex_1").state is State.QUEUED
        assert state(store, "ex_3").state is State.PAUSED
        self.check(store)

    def test_what_a_dead_owner_had_not_read_is_not_lost(self, store: Store) -> None:
        _, item = begun("ex_1")
        _, item2 = begun("ex_2", nonce=b"o" * 16)
        _, item3 = begun("ex_3", nonce=b"p" * 16)
        store.commit([item, item2, item3])
        batch: list[Item] = [
            Deliver("ex_1", answer_to("q#1"), T + 1),
            Deliver("ex_2", message("m1", MessageKind.CANCEL), T + 1),
            Deliver("ex_3", message("m1", MessageKind.PAUSE), T + 1),
            Deliver("ex_3", message("m2", MessageKind.PAUSE), T + 2),
            Deliver("ex_3", answer_to("q#1", "m3"), T + 3),
        ]
        assert codes(store.commit(batch)) == [None] * 5
        assert store.recover(None, "w2", T + 9, 10) == 3
        records = [state(store, f"ex_{n}") for n in (1, 2, 3)]
        assert [record.state for record in records] == [State.QUEUED, State.CANCELLED, State.PAUSED]
        assert all(record.inbox_seen == record.inbox_count for record in records)
        assert [row.kind for row in store.log("ex_1")][-1] == "input_received"
        assert store.log("ex_3")[-1].payload == b'"yes"'
        self.check(store)

    def test_what_an_owner_left_unread_at_its_release_comes_first(self, store: Store) -> None:
        for id, nonce in (("ex_1", b"n" * 16), ("ex_2", b"o" * 16), ("ex_3", b"p" * 16)):
            owner, item = begun(id, nonce=nonce)
            one(store, item)
            sent = message("m1", MessageKind.CANCEL) if id == "ex_3" else answer_to("q#1")
            assert one(store, Deliver(id, sent, T + 1)).refused is None
            assert one(store, owner.write(Kind.RELEASE, T + 2)).refused is None
        late = [Deliver(id, answer_to("q#2", "m2", b"2"), T + 3) for id in ("ex_2", "ex_3")]
        assert codes(store.commit(late)) == [None, "already_final"]
        notes = [row for row in store.log("ex_2") if row.kind is Kind.INPUT_RECEIVED]
        assert [(row.key, row.payload) for row in notes] == [("q#1", b'"yes"'), ("q#2", b"2")]
        assert state(store, "ex_3").state is State.CANCELLED
        claimed = {
            one.execution.id: one for one in store.claim(Lease("w2"), ["t"], 9, T + 4, nonces(9))
        }
        assert [entry.message for entry in claimed["ex_1"].unseen] == [answer_to("q#1")]
        assert claimed["ex_2"].unseen == []
        self.check(store)

    # Claiming

    def test_claim(self, store: Store) -> None:
        item = born("ex_1", payload=b"[1]")
        one(store, item)
        (claimed,) = store.claim(Lease("w1"), ["t"], 5, T + 1, nonces(5))
        record = claimed.execution
        assert claimed.birth == item.rows[0] and claimed.unseen == []
        assert (record.state, record.fence, record.nonce, record.worker) == (
            State.STARTING,
            1,
            nonces(1)[0],
            "w1",
        )
        assert (record.claims, record.idle_claims, record.high_water) == (1, 1, 2)
        assert state(store, "ex_1") == record
        assert store.claim(Lease("w2"), ["t"], 5, T + 2, nonces(5, 1)) == []
        self.check(store)

    def test_claims_go_by_priority_then_age(self, store: Store) -> None:
        for n, (id, priority) in enumerate([("c", 0), ("b", 0), ("a", 5), ("d", -1), ("e", 5)]):
            one(store, born(f"ex_{id}", T + n, priority=priority))
        one(store, born("ex_0", T, priority=0))  # as old as c, and before it by id
        order: list[str] = []
        for n in range(7):
            claimed = store.claim(Lease("w1"), ["t"], 1, T + 9, nonces(1, n))
            order += [one.execution.id for one in claimed]
        assert order == ["ex_a", "ex_e", "ex_0", "ex_c", "ex_b", "ex_d"]

    def test_another_priority_changes_the_order(self, store: Store) -> None:
        store.commit([born("ex_1"), born("ex_2")])
        first = message("m1", MessageKind.PRIORITY, data={"priority": 9})
        assert one(store, Deliver("ex_2", first, T)).refused is None
        (claimed,) = store.claim(Lease("w1"), ["t"], 1, T, nonces(1))
        assert claimed.execution.id == "ex_2" and claimed.execution.priority == 9
        self.check(store)

    def test_claims_never_exceed_their_limit(self, store: Store) -> None:
        store.commit([born(f"ex_{n:03}") for n in range(300)])
        sizes = [
            len(store.claim(Lease("w1"), ["t"], limit, T, nonces(400, limit)))
            for limit in (0, 1, 7, 256, 100)
        ]
        assert sizes == [0, 1, 7, 256, 36]
        store.commit([born("ey_1"), born("ey_2")])
        assert len(store.claim(Lease("w1"), ["t"], 9, T, nonces(1, 99))) == 1, "a nonce each"
        self.check(store)

    def test_claims_are_of_known_tasks(self, store: Store) -> None:
        store.commit([born("ex_1"), born("ex_2", task="other")])
        assert store.claim(Lease("w1"), ["unknown"], 9, T, nonces(9)) == []
        assert store.claim(Lease("w1"), [], 9, T, nonces(9)) == []
        (claimed,) = store.claim(Lease("w1"), ["other", "unknown"], 9, T, nonces(9))
        assert claimed.execution.id == "ex_2"

    def test_only_what_is_queued_is_claimed(self, store: Store) -> None:
        owner, item = begun("ex_1")
        ended, item2 = begun("ex_2", nonce=b"o" * 16)
        store.commit(
            [
                item,
                item2,
                ended.write(Kind.FINISH),
                born("ex_3", due_at=T + 9),
                born("ex_4"),
                Deliver("ex_4", message("m", MessageKind.PAUSE), T),
            ]
        )
        assert store.claim(Lease("w2"), ["t"], 9, T, nonces(9)) == []
        assert one(store, owner.park(Kind.WAIT, data=ASK)).refused is None
        assert store.claim(Lease("w2"), ["t"], 9, T, nonces(9)) == []

    def test_an_old_owner_is_fenced_by_the_next(self, store: Store) -> None:
        old, item = begun("ex_1")
        one(store, item)
        assert store.recover(None, "w2", T + 5, 10) == 1
        new = claim_one(store, "ex_1", T + 6, worker="w2")
        assert new.record.fence == 3, "the takeover and the claim each raise it"
        for kind in (Kind.STEP, Kind.FINISH, Kind.ERROR, Kind.RELEASE):
            assert one(store, Owner(old.record).write(kind)).refused == "fenced"
        assert one(store, new.write(Kind.FINISH)).refused is None
        self.check(store)

    def test_a_crash_loop_is_suspended(self, store: Store) -> None:
        one(store, born("ex_1"))
        lease = Lease("w1", idle_claims_max=3)
        for n in range(3):
            (claimed,) = store.claim(lease, ["t"], 1, T + n, nonces(1, n))
            assert claimed.execution.idle_claims == n + 1
            assert one(store, Owner(claimed.execution).write(Kind.START, T + n)).refused is None
            assert store.recover(["w1"], "", T + n, 9) == 1
        assert store.claim(lease, ["t"], 1, T + 5, nonces(1, 5)) == []
        record = state(store, "ex_1")
        assert (record.state, record.claims, record.failures) == (State.SUSPENDED, 4, 0)
        assert record.detail is not None and record.detail["code"] == "crash_loop"
        assert one(store, Deliver("ex_1", message("m1", MessageKind.RESUME), T + 6)).refused is None
        (claimed,) = store.claim(lease, ["t"], 1, T + 7, nonces(1, 6))
        assert claimed.execution.idle_claims == 1, "whoever lifts it gives it a new start"
        self.check(store)

    def test_a_step_shows_progress(self, store: Store) -> None:
        one(store, born("ex_1"))
        lease = Lease("w1", idle_claims_max=1)
        for n in range(4):
            (claimed,) = store.claim(lease, ["t"], 1, T + n, nonces(1, n))
            owner = Owner(claimed.execution)
            store.commit([owner.write(Kind.START, T + n), owner.write(Kind.STEP, T + n)])
            store.recover(["w1"], "", T + n, 9)
        assert state(store, "ex_1").idle_claims == 0

    def test_a_crash_loop_with_unread_messages_is_suspended_too(self, store: Store) -> None:
        owner, item = begun("ex_1")
        one(store, item)
        one(store, Deliver("ex_1", answer_to("q#1"), T + 1))
        one(store, Deliver("ex_1", message("m2", MessageKind.RESUME), T + 1))
        one(store, owner.write(Kind.RELEASE, T + 2))
        store.commit([born("ex_2")])
        assert store.claim(Lease("w1", idle_claims_max=0), ["t"], 9, T + 3, nonces(9)) == []
        record = state(store, "ex_1")
        assert (record.state, record.inbox_seen) == (State.SUSPENDED, 2)
        assert [row.kind for row in store.log("ex_1")][-3:] == [
            "input_received",
            "annotation",
            "suspend",
        ]
        assert state(store, "ex_2").state is State.SUSPENDED
        self.check(store)

    # The clock

    def test_a_start_time_is_kept_to_the_instant(self, store: Store) -> None:
        store.commit([born("ex_1", due_at=T + 10), born("ex_2", due_at=T + 20)])
        assert store.sweep(T + 9, 9) == (0, T + 10)
        assert state(store, "ex_1").state is State.SCHEDULED
        assert store.sweep(T + 10, 9) == (1, T + 20)
        assert state(store, "ex_1").state is State.QUEUED
        assert store.sweep(T + 25, 9) == (1, None)
        assert store.log("ex_2")[-1].kind is Kind.PROMOTE
        self.check(store)

    def test_waits_end_by_the_clock(self, store: Store) -> None:
        items: list[Item] = []
        for id, data in (
            ("ex_1", {"waits": [{"kind": "timer"}], "due_at": T + 5}),
            ("ex_2", {**ASK, "due_at": T + 5}),
            ("ex_3", ASK),
        ):
            owner, item = begun(id, nonce=id.encode().ljust(16))
            items += [item, owner.park(Kind.WAIT, data=data)]
        retried, item = begun("ex_4", nonce=b"4" * 16)
        items += [item, retried.park(Kind.RETRY, data={"retries": 1, "due_at": T + 5})]
        assert set(codes(store.commit(items))) == {None}
        assert store.sweep(T + 4, 9) == (0, T + 5)
        assert store.sweep(T + 5, 9) == (3, None)
        records = [state(store, id) for id in ("ex_1", "ex_2", "ex_4")]
        assert [(record.state, record.cause) for record in records] == [
            (State.QUEUED, "timer"),
            (State.QUEUED, "wait_expired"),
            (State.QUEUED, "retry"),
        ]
        assert state(store, "ex_3").state is State.AWAITING_INPUT
        self.check(store)

    def test_what_has_not_begun_in_time_is_ended(self, store: Store) -> None:
        owner, item = begun("ex_1", start_by=T + 10)
        answers = store.commit([item, born("ex_2", start_by=T + 10), born("ex_3", start_by=T + 30)])
        assert codes(answers) == [None, None, None]
        assert state(store, "ex_1").start_by is None, "it has begun"
        assert store.sweep(T + 9, 10) == (0, T + 10)
        assert store.sweep(T + 10, 10) == (1, T + 30)
        assert [state(store, id).state for id in ("ex_1", "ex_2", "ex_3")] == [
            State.RUNNING,
            State.TIMED_OUT,
            State.QUEUED,
        ]
        assert store.log("ex_2")[-1].data == {"why": "not_started"}
        assert one(store, owner.write(Kind.STEP, T + 11)).refused is None
        self.check(store)

    def test_a_deadline_ends_everything_that_is_open(self, store: Store) -> None:
        owner, item = begun("ex_1", deadline_at=T + 10)
        waiter, item2 = begun("ex_2", nonce=b"o" * 16, deadline_at=T + 10)
        store.commit(
            [
                item,
                item2,
                waiter.park(Kind.WAIT, data={**ASK, "due_at": T + 10}),
                born("ex_3", deadline_at=T + 10),
                Deliver("ex_3", message("m", MessageKind.PAUSE), T),
            ]
        )
        assert store.sweep(T + 9, 9) == (0, T + 10)
        assert store.sweep(T + 10, 9) == (3, None)
        records = [state(store, id) for id in ("ex_1", "ex_2", "ex_3")]
        assert {record.state for record in records} == {State.TIMED_OUT}
        assert records[0].fence == 2, "over a live lease the fence rises"
        assert one(store, owner.write(Kind.FINISH)).refused == "already_final"
        self.check(store)

    def test_a_sweep_is_bounded_and_says_there_is_more(self, store: Store) -> None:
        store.commit([born(f"ex_{n}", due_at=T + n) for n in range(1, 8)])
        assert store.sweep(T + 100, 3) == (3, T + 4)
        assert [state(store, f"ex_{n}").state for n in (3, 4)] == [State.QUEUED, State.SCHEDULED]
        assert store.sweep(T + 100, 3) == (3, T + 7)
        assert store.sweep(T + 100, 3) == (1, None)

    def test_dependencies_are_not_met_by_the_clock(self, store: Store) -> None:
        edges = [{"id": "ex_0", "need": "success", "or_else": "cancel"}]
        one(store, begun("ex_0")[1])
        one(store, born("ex_1", due_at=T + 5, waits_on=edges))
        one(store, born("ex_2", waits_on=edges))
        assert store.sweep(T + 50, 9) == (0, None)
        assert state(store, "ex_1").state is State.SCHEDULED
        assert one(store, Deliver("ex_1", message("m", MessageKind.RESUME), T + 51)).refused is None
        assert state(store, "ex_1").state is State.QUEUED, "triggered by hand"
        self.check(store)

    def test_an_empty_store_is_never_due(self, store: Store) -> None:
        assert store.sweep(T, 9) == (0, None)
        assert store.claim(Lease("w"), ["t"], 9, T, nonces(9)) == []
        assert store.commit([]) == []

    # Recovery

    def test_recover_takes_back_from_the_dead_only(self, store: Store) -> None:
        store.commit(
            [
                begun(f"ex_{n}", worker, nonce=n.to_bytes(16))[1]
                for n, worker in enumerate(("w1", "w2", "w3", "w3"), 1)
            ]
        )
        assert store.recover(["w2", "nobody"], "w3", T + 5, 9) == 1
        assert store.recover([], "w3", T + 5, 9) == 0
        assert store.recover(None, "w3", T + 5, 9) == 1
        assert [state(store, f"ex_{n}").state for n in (1, 2, 3, 4)] == [
            State.QUEUED,
            State.QUEUED,
            State.RUNNING,
            State.RUNNING,
        ]
        record = state(store, "ex_1")
        assert (record.cause, record.failures, record.fence, record.worker) == (
            "recovery",
            0,
            2,
            None,
        )
        self.check(store)

    def test_recover_of_what_had_not_started(self, store: Store) -> None:
        one(store, born("ex_1"))
        store.claim(Lease("w1"), ["t"], 1, T, nonces(1))
        assert store.recover(None, "w2", T + 5, 9) == 1
        assert [row.kind for row in store.log("ex_1")] == ["create", "claim", "lease_expired"]
        assert state(store, "ex_1").cause == "first"

    def test_recover_is_bounded(self, store: Store) -> None:
        store.commit([begun(f"ex_{n}", nonce=n.to_bytes(16))[1] for n in range(1, 8)])
        assert [store.recover(None, "w2", T, 3) for _ in range(4)] == [3, 3, 1, 0]
        self.check(store)

    # Reading

    def test_pages_of_one_state(self, store: Store) -> None:
        """Parked and unhappy ones are read along indexes of their own, with the other filters."""
        cancel = Message("m", MessageKind.CANCEL, "user")
        for number in range(6):
            id = f"ex_{number}"
            assert one(store, born(id, T + number, origin="o" if number % 2 else None)) is not None
            if number < 4:
                one(store, Deliver(id, cancel, T + 10))
            else:
                one(store, Deliver(id, Message("p", MessageKind.PAUSE, "user"), T + 10))

        def ids(state: State, **chosen: object) -> list[str]:
            return [one.id for one in store.page(Filter(states=(state,), **chosen))]  # type: ignore[arg-type]

        assert ids(State.CANCELLED) == ["ex_3", "ex_2", "ex_1", "ex_0"]
        assert ids(State.CANCELLED, limit=2, before_id="ex_3") == ["ex_2", "ex_1"]
        assert ids(State.CANCELLED, origin="o") == ["ex_3", "ex_1"]
        assert ids(State.PAUSED) == ["ex_5", "ex_4"]
        assert ids(State.PAUSED, task="other") == ids(State.FAILED) == []
        assert ids(State.PAUSED, limit=1, created_before=T + 4) == ["ex_4"]

    def test_pages(self, store: Store) -> None:
        store.commit(
            [
                born(f"ex_{n:02}", T + n, origin="o" if n % 2 else None, input_digest=n % 3)
                for n in range(10)
            ]
        )
        owner, item = begun("ex_10", now=T + 10, task="other")
        store.commit([item, owner.write(Kind.FINISH)])

        def ids(**chosen: object) -> list[str]:
            return [record.id for record in store.page(Filter(**chosen))]  # type: ignore[arg-type]

        assert ids(limit=3) == ["ex_10", "ex_09", "ex_08"]
        assert ids(limit=3, before_id="ex_08") == ["ex_07", "ex_06", "ex_05"]
        assert ids(before_id="ex_00") == []
        assert ids(states=(State.SUCCEEDED,)) == ["ex_10"] == ids(task="other")
        assert ids(states=(State.QUEUED,), limit=2) == ["ex_09", "ex_08"]
        assert ids(states=(State.QUEUED, State.SUCCEEDED), limit=2) == ["ex_10", "ex_09"]
        assert ids(states=(State.PAUSED,)) == ids(states=(State.FAILED,)) == []
        assert ids(states=(State.RUNNING, State.PAUSED)) == []
        assert ids(origin="o", limit=2) == ["ex_09", "ex_07"]
        assert ids(origin="o", input_digest=0) == ["ex_09", "ex_03"]
        assert ids(created_after=T + 9) == ["ex_10", "ex_09"]
        assert ids(states=(State.QUEUED,), created_after=T + 8, before_id="ex_09") == ["ex_08"]
        assert store.page(Filter(limit=1))[0] == owner.record

    def test_parts_come_to_what_a_page_gives(self, store: Store) -> None:
        """Whatever little is looked at for one of them; and a part ends above the next."""
        items: list[Item] = []
        for n in range(12):
            data: dict[str, Any] = {"origin": "o"} if n % 2 else {}
            items.append(
                born(f"ex_{n:02}", T + n, labels={"a": "b"} if n % 5 == 0 else None, **data)
            )
        for n in range(12, 18):
            owner, item = begun(f"ex_{n}", now=T + n, task="other", nonce=n.to_bytes(16))
            items += [item] if n == 15 else [item, owner.write(Kind.FINISH)]
        assert all(answer.refused is None for answer in store.commit(items))
        pause, cancel = (
            Message("m", kind, "user") for kind in (MessageKind.PAUSE, MessageKind.CANCEL)
        )
        store.commit([Deliver(f"ex_{n:02}", pause, T + 20) for n in range(4)])
        store.commit([Deliver(f"ex_{n:02}", cancel, T + 20) for n in range(4, 6)])
        filters: list[dict[str, Any]] = [
            {},
            {"task": "other"},
            {"task": "nobody"},
            {"origin": "o"},
            {"labels": {"a": "b"}},
            {"labels": {"a": "b"}, "states": (State.PAUSED,)},
            {"states": (State.PAUSED,)},
            {"states": (State.PAUSED,), "origin": "o"},
            {"states": (State.CANCELLED,), "task": "other"},
            {"states": (State.SUCCEEDED, State.CANCELLED)},
            {"states": (State.SUCCEEDED, State.CANCELLED), "roots": True},
            {"states": (State.RUNNING, State.QUEUED, State.CANCELLED)},
            {"states": OPEN, "task": "other"},
            {"states": (State.FAILED, State.TIMED_OUT)},
            {"created_before": T + 9, "from_id": "ex_03"},
            {"created_after": T + 9, "before_id": "ex_13"},
        ]
        for filter in (Filter(limit=3, **one) for one in filters):
            wanted = [one.id for one in store.page(replace(filter, limit=100))]
            for rows_max in (1, 2, 5, 1_000):
                found: list[str] = []
                before, parts = filter.before_id, 0
                while parts == 0 or before is not None:
                    part = store.part(replace(filter, before_id=before), rows_max)
                    ids = [one.id for one in part.found]
                    assert len(ids) <= 3 and (part.before_id is None or before != part.before_id)
                    assert part.before_id is None or all(id >= part.before_id for id in ids)
                    found, before, parts = found + ids, part.before_id, parts + 1
                    assert parts <= 20
                assert found == wanted, (filter, rows_max)

    def test_find(self, store: Store) -> None:
        store.commit([born(id) for id in ("ex_1aa", "ex_1ab", "ex_2aa", "ex_3xab")])
        assert store.find("ex_1", 9) == ["ex_1aa", "ex_1ab"]
        assert store.find("ex_1", 1) == ["ex_1aa"]
        assert store.find("ex_2aa", 9) == ["ex_2aa"]
        assert store.find("aa", 9) == ["ex_2aa", "ex_1aa"]
        assert store.find("aa", 1) == ["ex_2aa"]
        assert store.find("xab", 9) == ["ex_3xab"]
        assert store.find("%", 9) == store.find("zz", 9) == []

    def test_counts(self, store: Store) -> None:
        waiter, item = begun("ex_1")
        runner, item2 = begun("ex_2", nonce=b"o" * 16)
        ender, item3 = begun("ex_3", nonce=b"p" * 16)
        assert store.counts() == {}
        store.commit(
            [
                item,
                item2,
                item3,
                waiter.park(Kind.WAIT, data=ASK),
                ender.write(Kind.FINISH),
                born("ex_4"),
                born("ex_5"),
                born("ex_6", due_at=T + 9),
            ]
        )
        assert runner.record.is_leased
        assert store.counts() == {
            State.AWAITING_INPUT: 1,
            State.RUNNING: 1,
            State.QUEUED: 2,
            State.SCHEDULED: 1,
        }

    def test_logs_are_read_in_parts(self, store: Store) -> None:
        owner, item = begun("ex_1")
        store.commit([item, *(owner.write(Kind.STEP, T + n, key=f"s#{n}") for n in range(1200))])
        whole = store.log("ex_1")
        assert [row.seq for row in whole] == list(range(1, 1204))
        assert store.log("ex_1", 1200) == whole[1200:]
        assert store.log("ex_1", 3, 2) == whole[3:5]
        assert store.log("ex_1", 100, 700) == whole[100:800]
        assert store.log("ex_1", 0, 0) == store.log("ex_1", 5000) == store.log("ex_9") == []
        assert state(store, "ex_1") == owner.record

    def test_workers(self, store: Store) -> None:
        for n, id in enumerate(("w1", "w2", "w3")):
            store.register(WorkerRow(id, "host", 10 + n, T + n, T + n))
        store.register(WorkerRow("w1", "host", 10, T, T + 50))
        seen = {"w1": T + 50, "w2": T + 1, "w3": T + 2}
        rows = store.workers()
        if any(row.seen_at > T + 50 for row in rows):  # by a clock of the store's own
            seen = {row.id: row.seen_at for row in rows}
            assert seen["w1"] == max(seen.values()), "it was heard of last"
        assert rows == [
            WorkerRow("w3", "host", 12, T + 2, seen["w3"]),
            WorkerRow("w2", "host", 11, T + 1, seen["w2"]),
            WorkerRow("w1", "host", 10, T, seen["w1"]),
        ]

    def test_records_are_copies(self, store: Store) -> None:
        one(store, born("ex_1"))
        found = state(store, "ex_1")
        found.priority = 99
        (claimed,) = store.claim(Lease("w1"), ["t"], 1, T, nonces(1))
        assert isinstance(claimed, Claimed)
        claimed.execution.seq = 77
        assert (state(store, "ex_1").priority, state(store, "ex_1").seq) == (0, 2)

    def test_verify_counts_what_it_checked(self, store: Store) -> None:
        owner, item = begun("ex_1")
        store.commit(
            [
                item,
                owner.write(Kind.STEP),
                born("ex_2"),
                Deliver("ex_2", answer_to("q"), T),
                Deliver("ex_1", answer_to("q"), T),
            ]
        )
        verdict = store.verify()
        assert (verdict.executions, verdict.transitions, verdict.messages, verdict.defects) == (
            2,
            6,
            2,
            [],
        )

    def test_nothing_else_has_written(self, store: Store) -> None:
        unknown = store.is_shared  # where nobody can tell, it may always be
        assert store.changed() is unknown
        one(store, born("ex_1"))
        assert store.changed() is unknown, "one's own writes are no news"

    # What has ended

    def test_what_has_ended_is_listed_in_the_order_of_ids(self, store: Store) -> None:
        for id, now in (("ex_3", T + 3), ("ex_1", T + 9), ("ex_2", T + 2)):
            owner, item = begun(id)
            store.commit([item, owner.write(Kind.FINISH, now)])
        open_one, item = begun("ex_0")
        store.commit([item, open_one.write(Kind.STEP)])
        everything = store.ended("", "ex_9", T + 99, 10)
        assert [(one.id, one.state, one.task) for one in everything] == [
            (id, State.SUCCEEDED, "t") for id in ("ex_1", "ex_2", "ex_3")
        ]
        assert [one.ended_at for one in everything] == [T + 9, T + 2, T + 3]
        assert [one.id for one in store.ended("", "ex_9", T + 3, 10)] == ["ex_2"]
        assert [one.id for one in store.ended("ex_1", "ex_3", T + 99, 10)] == ["ex_2"]
        assert [one.id for one in store.ended("", "ex_9", T + 99, 1)] == ["ex_1"]

    def test_a_purge_deletes_what_has_ended_and_nothing_else(self, store: Store) -> None:
        owner, item = begun("ex_1", key="k")
        store.commit([item, Deliver("ex_1", answer_to("q"), T)])
        (entry,) = store.inbox("ex_1")
        store.commit([owner.take(entry), owner.write(Kind.FINISH)])
        runner, running = begun("ex_2")
        store.commit([running, born("ex_3")])
        assert store.purge(["ex_1", "ex_1", "ex_2", "ex_3", "ex_9"]) == 1
        assert store.get(["ex_1"]) == [None]
        assert store.log("ex_1") == []
        assert store.inbox("ex_1") == []
        assert store.with_key("k") is None
        assert one(store, runner.write(Kind.STEP)).refused is None
        assert one(store, born("ex_4", key="k")).refused is None, "its key is free again"
        assert store.purge([]) == 0
        assert store.verify().defects == []
