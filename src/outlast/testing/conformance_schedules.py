"""The suite about schedules that every store passes; see :mod:`outlast.testing.conformance`."""

from __future__ import annotations

from typing import Any, Final

from outlast.lifecycle import Execution, Message, MessageKind
from outlast.schedule import (
    Plan,
    Request,
    ScheduleKind,
    ScheduleRecord,
    ScheduleState,
    Wish,
    slot_key,
)
from outlast.store.protocol import DEFAULT_NUMBER, Deliver, Filter, ScheduleAnswer, Store
from outlast.testing.conformance import T, born

MINUTE: Final = 60_000_000
NAME: Final = "nightly"


def every(span: int = MINUTE, **parts: Any) -> Plan:
    """Make a plan whose slots are whole spans after ``T``."""
    start: Plan = Plan(every_us=span, start_at=T + span)
    return Plan(**{**start.as_data(), **parts})


def draft(plan: Plan | None = None, name: str = NAME, **columns: Any) -> ScheduleRecord:
    """Make the row of a schedule that shall be."""
    return ScheduleRecord(
        DEFAULT_NUMBER,
        name,
        "t",
        plan or every(),
        ScheduleState.ACTIVE,
        **{"input": b"[1]", **columns},
    )


class Clerk:
    """Makes requests to one store, with ids that differ."""

    def __init__(self, store: Store, prefix: str = "ex_s") -> None:
        self.store, self.prefix, self.count = store, prefix, 0

    def ids(self, count: int = 16) -> tuple[str, ...]:
        """Give ids that nobody had."""
        self.count += count
        return tuple(f"{self.prefix}{self.count - count + place:06}" for place in range(count))

    def wish(self, wish: Wish, now: int, name: str = NAME, **parts: Any) -> ScheduleAnswer:
        """Make a request."""
        parts.setdefault("ids", self.ids(1_000 if wish is Wish.BACKFILL else 16))
        return self.store.schedules.apply(name, Request(wish=wish, **parts), now)

    def create(self, plan: Plan | None = None, now: int = T, name: str = NAME) -> ScheduleAnswer:
        """Make a schedule."""
        return self.wish(Wish.CREATE, now, name, draft=draft(plan, name))

    def run(self, now: int) -> list[str]:
        """Advance all that is due, as a scheduler does; gives the executions made."""
        made: list[str] = []
        while due := self.store.schedules.due(now, 100)[0]:
            for name, seq in due:
                made += self.wish(Wish.ADVANCE, now, name, seq=seq).made
        return made

    def slots(self, kind: ScheduleKind = ScheduleKind.FIRE, name: str = NAME) -> list[int]:
        """Give which slots something became of, in minutes after ``T``, in order."""
        log = self.store.schedules.log(name, limit=100_000)[::-1]
        found = [one.slot for one in log if one.kind is kind and one.slot is not None]
        return [(slot - T) // MINUTE for slot in found]

    def executions(self) -> list[Execution]:
        """Give all executions, the oldest first."""
        return self.store.page(Filter(limit=100_000))[::-1]

    def end(self, id: str, now: int) -> None:
        """End an execution."""
        message = Message(f"end {id}", MessageKind.CANCEL, "test")
        (answer,) = self.store.commit([Deliver(id, message, now)])
        assert answer.refused is None

    def row(self, name: str = NAME) -> ScheduleRecord:
        """Read the row."""
        found = self.store.schedules.get(name)
        assert found is not None
        return found

    def kinds(self, name: str = NAME) -> list[str]:
        """Give the kinds of the log's entries, in order, and see that it has no gap."""
        log = self.store.schedules.log(name, limit=100_000)[::-1]
        assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
        assert self.row(name).seq == len(log)
        return [str(entry.kind) for entry in log]


class ScheduleConformance:
    """What schedules do in every store; see :mod:`outlast.testing.conformance`."""

    def test_a_schedule_is_read_back(self, store: Store) -> None:
        clerk = Clerk(store)
        answer = clerk.create()
        assert answer.refused is None and answer.record == clerk.row()
        row = clerk.row()
        assert (row.next_slot, row.next_at, row.seq) == (T + MINUTE, T + MINUTE, 1)
        assert row.plan == every(anchor_at=T + MINUTE)
        assert store.schedules.page() == [row]
        assert store.schedules.get("other") is None and store.schedules.log("other") == []

    def test_creating_the_same_again_changes_nothing(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create()
        assert clerk.create(now=T + 5).refused is None and clerk.kinds() == ["create"]
        assert clerk.create(every(2 * MINUTE)).refused == "already_exists"

    def test_a_slot_makes_its_execution_in_one_transaction(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create()
        assert clerk.run(T + MINUTE - 1) == []
        (id,) = clerk.run(T + MINUTE)
        (execution,) = clerk.executions()
        assert execution.id == id and execution.state == "queued"
        assert execution.origin == "schedule:nightly"
        assert execution.key == slot_key(NAME, T + MINUTE)
        assert store.log(id)[0].payload == b"[1]"
        row = clerk.row()
        assert (row.fired, row.last_slot, row.last_execution_id) == (1, T + MINUTE, id)
        assert row.next_slot == T + 2 * MINUTE
        assert clerk.run(T + MINUTE) == [] and clerk.slots() == [1]

    def test_of_two_schedulers_one_is_first(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(overlap="allow"))
        seq = clerk.row().seq
        assert clerk.wish(Wish.ADVANCE, T + MINUTE, seq=seq).refused is None
        assert clerk.wish(Wish.ADVANCE, T + MINUTE, seq=seq).refused == "moved"
        assert len(clerk.executions()) == 1

    def test_several_are_advanced_together_and_a_bad_one_alone_is_left(self, store: Store) -> None:
        clerk = Clerk(store)
        for name in ("a", "b", "c"):
            clerk.create(name=name)
        requests = [
            (name, Request(wish=Wish.ADVANCE, seq=seq, ids=clerk.ids()))
            for name, seq in store.schedules.due(T + MINUTE, 10)[0]
        ]
        cron = Plan(cron="* * * * *", tz="No/Where")
        clerk.wish(Wish.CREATE, T, "d", draft=draft(every(), "d"))
        answers = store.schedules.apply_all(requests, T + MINUTE)
        assert [len(answer.made) for answer in answers] == [1, 1, 1]
        bad = [
            ("d", Request(wish=Wish.ADVANCE, seq=1, ids=clerk.ids())),
            ("e", Request(wish=Wish.CREATE, draft=draft(cron, "e"))),
            ("a", Request(wish=Wish.PAUSE)),
            ("none", Request(wish=Wish.PAUSE)),
        ]
        answers = store.schedules.apply_all(bad, T + MINUTE)
        refused = [answer.refused for answer in answers]
        assert refused == [None, "internal_error", None, "no_schedule"]
        assert answers[1].error is not None and store.schedules.get("e") is None
        assert len(answers[0].made) == 1 and clerk.row("a").state is ScheduleState.PAUSED
        assert store.verify().defects == []

    def test_due_gives_what_is_due_and_the_next_instant(self, store: Store) -> None:
        clerk = Clerk(store)
        assert store.schedules.due(T, 10) == ([], None)
        clerk.create(every(2 * MINUTE), name="b")
        clerk.create(name="a")
        assert store.schedules.due(T, 10) == ([], T + MINUTE)
        assert store.schedules.due(T + 2 * MINUTE, 10)[0] == [("a", 1), ("b", 1)]
        assert store.schedules.due(T + 2 * MINUTE, 1)[0] == [("a", 1)]
        clerk.wish(Wish.PAUSE, T, "a")
        assert store.schedules.due(T + 2 * MINUTE, 10)[0] == [("b", 1)]

    def test_overlap_skip(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create()
        (id,) = clerk.run(T + MINUTE)
        assert clerk.run(T + 2 * MINUTE) == []
        clerk.end(id, T + 2 * MINUTE + 1)
        assert len(clerk.run(T + 3 * MINUTE)) == 1
        assert clerk.slots() == [1, 3] and clerk.slots(ScheduleKind.SKIP) == [2]
        (entry, *_) = store.schedules.fate(NAME, T + 2 * MINUTE)
        assert entry.kind is ScheduleKind.SKIP and entry.execution_id == id

    def test_overlap_queue_keeps_one(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(overlap="queue"))
        (id,) = clerk.run(T + MINUTE)
        assert clerk.run(T + 2 * MINUTE) == [] and clerk.run(T + 3 * MINUTE) == []
        assert clerk.row().waiting_slot == T + 2 * MINUTE
        clerk.end(id, T + 3 * MINUTE + 1)
        assert [name for name, _ in store.schedules.due(T + 3 * MINUTE + 2, 10)[0]] == [NAME]
        (second,) = clerk.run(T + 3 * MINUTE + 2)
        assert clerk.slots() == [1, 2] and clerk.slots(ScheduleKind.SKIP) == [3]
        assert clerk.slots(ScheduleKind.QUEUE) == [2] and clerk.row().waiting_slot is None
        (found,) = store.get([second])
        assert found is not None and found.key == slot_key(NAME, T + 2 * MINUTE)

    def test_overlap_cancel_old(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(overlap="cancel_old"))
        (first,) = clerk.run(T + MINUTE)
        answer = clerk.wish(Wish.ADVANCE, T + 2 * MINUTE, seq=clerk.row().seq)
        assert answer.cancelled == [first] and len(answer.made) == 1
        old, new = store.get([first, *answer.made])
        assert old is not None and old.state == "cancelled"
        assert new is not None and new.state == "queued"

    def test_overlap_allow(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(overlap="allow"))
        for minute in (1, 2, 3):
            clerk.run(T + minute * MINUTE)
        assert clerk.slots() == [1, 2, 3]

    def test_only_its_own_executions_overlap(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create()
        store.commit([born("ex_other", origin="schedule:nightly2"), born("ex_none")])
        assert len(clerk.run(T + MINUTE)) == 1

    def test_late_slots_by_policy(self, store: Store) -> None:
        clerk = Clerk(store)
        fired = {}
        for policy, most in (("skip", 1), ("last", 1), ("all", 3), ("all", 100)):
            plan = every(overlap="allow", misfire=policy, misfire_max=most)
            name = f"{policy} {most}"
            clerk.create(plan, name=name)
            clerk.run(T + 10 * MINUTE + 40_000_000)
            fired[name] = clerk.slots(name=name)
            missed = clerk.slots(ScheduleKind.MISS, name)
            assert missed == ([1] if len(fired[name]) < 10 else [])
            assert clerk.row(name).next_slot == T + 11 * MINUTE
        assert fired == {
            "skip 1": [],
            "last 1": [10],
            "all 3": [8, 9, 10],
            "all 100": list(range(1, 11)),
        }
        (entry,) = store.schedules.fate("last 1", T + 5 * MINUTE)
        assert entry.kind is ScheduleKind.MISS and entry.until_slot == T + 9 * MINUTE
        assert entry.data == {"why": "late", "slots": 9, "is_all": True}

    def test_within_its_grace_a_slot_is_on_time(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(misfire="skip", grace_us=MINUTE // 2))
        assert len(clerk.run(T + MINUTE + MINUTE // 2)) == 1
        assert clerk.run(T + 2 * MINUTE + MINUTE // 2 + 1) == []

    def test_a_long_absence_is_decided_in_parts(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(1_000_000, overlap="allow", misfire="all", misfire_max=5))
        end = T + 7_000 * 1_000_000 + 40_000_000  # the last 31 are within the grace
        answer = clerk.wish(Wish.ADVANCE, end, seq=1)
        assert answer.more and answer.made == []
        made = clerk.run(end)
        assert len(made) == 5 + 31
        missed = [
            entry
            for entry in store.schedules.log(NAME, limit=1_000)
            if entry.kind is ScheduleKind.MISS
        ]
        assert sum((entry.data or {})["slots"] for entry in missed) == 7_040 - 36

    def test_the_count_is_kept(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(count_max=2, overlap="allow"))
        clerk.run(T + MINUTE)
        clerk.run(T + 2 * MINUTE)
        row = clerk.row()
        assert row.state is ScheduleState.EXHAUSTED and row.next_slot is None
        assert clerk.kinds() == ["create", "fire", "fire", "exhaust"]
        assert clerk.run(T + 3 * MINUTE) == []

    def test_one_that_waits_counts(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(count_max=2, overlap="queue"))
        (id,) = clerk.run(T + MINUTE)
        clerk.run(T + 2 * MINUTE)
        assert clerk.row().next_slot is None and clerk.row().state is ScheduleState.ACTIVE
        clerk.end(id, T + 2 * MINUTE)
        assert len(clerk.run(T + 9 * MINUTE)) == 1
        assert clerk.row().state is ScheduleState.EXHAUSTED and clerk.row().fired == 2

    def test_its_end_exhausts_it(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(end_at=T + 2 * MINUTE, overlap="allow"))
        clerk.run(T + MINUTE)
        clerk.run(T + 2 * MINUTE)
        assert clerk.slots() == [1, 2] and clerk.row().state is ScheduleState.EXHAUSTED
        assert clerk.create(every(end_at=T), now=T + MINUTE).refused == "no_slot"

    def test_once(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(Plan(at=T + 90_000_000))
        assert clerk.run(T + MINUTE) == []
        assert len(clerk.run(T + 2 * MINUTE)) == 1
        assert clerk.row().state is ScheduleState.EXHAUSTED
        clerk.create(Plan(at=T - 10 * MINUTE), name="late")
        assert len(clerk.run(T)) == 1
        clerk.create(Plan(at=T - 10 * MINUTE, misfire="skip"), name="too late")
        assert clerk.run(T) == [] and clerk.kinds("too late") == ["create", "miss", "exhaust"]

    def test_a_pause_fires_nothing_and_says_so(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create()
        assert clerk.wish(Wish.PAUSE, T, why="holidays").refused is None
        assert clerk.wish(Wish.PAUSE, T).refused == "already_paused"
        assert clerk.row().why == "holidays"
        assert clerk.run(T + 5 * MINUTE) == []
        assert clerk.wish(Wish.ADVANCE, T + 5 * MINUTE, seq=clerk.row().seq).made == []
        assert clerk.wish(Wish.RESUME, T + 5 * MINUTE + 1).refused is None
        assert clerk.wish(Wish.RESUME, T + 5 * MINUTE + 1).refused == "not_paused"
        assert clerk.run(T + 5 * MINUTE + 2) == []
        assert len(clerk.run(T + 6 * MINUTE)) == 1
        assert clerk.kinds() == ["create", "pause", "resume", "miss", "fire"]
        (entry,) = store.schedules.fate(NAME, T + 3 * MINUTE)
        assert entry.data == {"why": "paused", "slots": 5, "is_all": True}

    def test_what_has_ended_refuses(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create()
        assert clerk.wish(Wish.CANCEL, T).refused is None
        for wish in (Wish.PAUSE, Wish.RESUME, Wish.CANCEL, Wish.TRIGGER, Wish.BACKFILL):
            assert clerk.wish(wish, T + MINUTE).refused == "schedule_ended", wish
        update = clerk.wish(Wish.UPDATE, T, draft=draft(every(2 * MINUTE)))
        assert update.refused == "schedule_ended"
        assert clerk.run(T + 9 * MINUTE) == []
        for wish in (Wish.PAUSE, Wish.RESUME, Wish.CANCEL, Wish.TRIGGER, Wish.ADVANCE):
            assert clerk.wish(wish, T, "none").refused == "no_schedule", wish

    def test_its_name_is_free_again_and_its_log_goes_on(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(overlap="allow"))
        clerk.run(T + MINUTE)
        clerk.wish(Wish.CANCEL, T + MINUTE)
        assert clerk.create(every(overlap="allow"), now=T + MINUTE).refused is None
        assert clerk.row().fired == 0
        assert len(clerk.run(T + 2 * MINUTE)) == 1, "the first slot is not fired again"
        assert clerk.kinds() == ["create", "fire", "cancel", "create", "fire"]
        assert clerk.slots() == [1, 2]

    def test_trigger_makes_one_at_once_and_once_per_id(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create()
        ids = clerk.ids(1)
        assert clerk.wish(Wish.TRIGGER, T, ids=ids).made == list(ids)
        assert clerk.wish(Wish.TRIGGER, T, ids=ids).made == []
        assert clerk.kinds() == ["create", "trigger"] and len(clerk.executions()) == 1
        row = clerk.row()
        assert (row.fired, row.next_slot) == (0, T + MINUTE)
        assert clerk.run(T + MINUTE) == [], "what was triggered is open"
        clerk.wish(Wish.PAUSE, T + MINUTE)
        assert len(clerk.wish(Wish.TRIGGER, T + MINUTE).made) == 1

    def test_backfill_makes_what_is_not_there(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(misfire="skip", overlap="allow"))
        clerk.run(T + 3 * MINUTE)  # 1 and 2 are late
        assert clerk.slots() == [3]
        answer = clerk.wish(Wish.BACKFILL, T + 3 * MINUTE, since=T, until=T + 60 * MINUTE)
        assert len(answer.made) == 2 and clerk.slots(ScheduleKind.BACKFILL) == [1, 2]
        again = clerk.wish(Wish.BACKFILL, T + 3 * MINUTE, since=T, until=T + 60 * MINUTE)
        assert again.made == [] and len(clerk.executions()) == 3
        assert clerk.row().fired == 1
        too_many = clerk.wish(Wish.BACKFILL, T + 9_000 * MINUTE, since=T, until=T + 9_000 * MINUTE)
        assert too_many.refused is None, "but what is due is left to the clock"
        clerk.wish(Wish.PAUSE, T + 9_000 * MINUTE)
        too_many = clerk.wish(Wish.BACKFILL, T + 9_000 * MINUTE, since=T, until=T + 9_000 * MINUTE)
        assert too_many.refused == "too_many"

    def test_with_too_few_ids_nothing_is_backfilled_or_triggered(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(misfire="skip", overlap="allow"))
        clerk.run(T + 3 * MINUTE)  # 1 and 2 are late
        span: dict[str, Any] = {"since": T, "until": T + 60 * MINUTE}
        short = clerk.wish(Wish.BACKFILL, T + 3 * MINUTE, ids=clerk.ids(1), **span)
        assert (short.refused, short.made) == ("too_many", [])
        assert clerk.wish(Wish.TRIGGER, T + 3 * MINUTE, ids=()).refused == "too_many"
        assert clerk.slots(ScheduleKind.BACKFILL) == [] and len(clerk.executions()) == 1
        enough = clerk.wish(Wish.BACKFILL, T + 3 * MINUTE, ids=clerk.ids(3), **span)
        assert len(enough.made) == 2

    def test_a_slot_that_waits_stays_where_an_advance_has_no_ids(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(overlap="queue"))
        (first,) = clerk.run(T + MINUTE)
        clerk.run(T + 2 * MINUTE)
        clerk.end(first, T + 2 * MINUTE)
        answer = clerk.wish(Wish.ADVANCE, T + 2 * MINUTE, seq=clerk.row().seq, ids=())
        assert (answer.refused, answer.made, answer.more) == (None, [], True)
        assert clerk.row().waiting_slot == T + 2 * MINUTE
        assert len(clerk.run(T + 2 * MINUTE)) == 1 and clerk.slots() == [1, 2]

    def test_a_slot_whose_key_is_taken_keeps_that_execution(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(overlap="allow"))
        store.commit([born("ex_taken", key=slot_key(NAME, T + MINUTE), task="other")])
        assert clerk.run(T + MINUTE) == [] and clerk.slots() == [1]
        (entry,) = store.schedules.fate(NAME, T + MINUTE)
        assert entry.execution_id == "ex_taken" == clerk.row().last_execution_id
        assert entry.data == {"was_there": True}

    def test_planned_anew(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(overlap="allow"))
        clerk.run(T + MINUTE)
        same = draft(every(overlap="allow"))
        assert clerk.wish(Wish.UPDATE, T + MINUTE, draft=same).refused is None
        assert clerk.kinds() == ["create", "fire"]
        other = draft(every(overlap="allow"), input=b"[2]")
        late = T + 3 * MINUTE
        clerk.wish(Wish.UPDATE, late, draft=other)
        assert clerk.row().next_slot == T + 2 * MINUTE, "what is late stays due"
        clerk.wish(Wish.UPDATE, late, draft=draft(every(5 * MINUTE)))
        assert clerk.row().next_slot == T + 5 * MINUTE
        clerk.wish(Wish.PAUSE, late)
        clerk.wish(Wish.UPDATE, late, draft=draft(every(7 * MINUTE)))
        assert clerk.row().state is ScheduleState.PAUSED
        assert clerk.row().next_slot == T + 7 * MINUTE

    def test_declared_ones_come_and_go_with_their_code(self, store: Store) -> None:
        clerk = Clerk(store)
        plan = Plan(every_us=MINUTE)

        def declare(now: int, plan: Plan = plan) -> ScheduleState:
            clerk.wish(Wish.DECLARE, now, draft=draft(plan))
            return clerk.row().state

        assert declare(T) is ScheduleState.ACTIVE and clerk.row().is_declared
        assert clerk.row().next_slot == T + MINUTE
        declare(T + 7)
        assert clerk.row().next_slot == T + MINUTE, "a redeploy does not move its slots"
        clerk.wish(Wish.PAUSE, T + 8)
        by_hand = clerk.wish(Wish.UPDATE, T + 8, draft=draft(Plan(every_us=9 * MINUTE)))
        assert by_hand.refused == "declared", "the next deploy would undo it"
        assert declare(T + 9) is ScheduleState.PAUSED, "a pause survives a redeploy"
        assert declare(T + 9, Plan(every_us=2 * MINUTE)) is ScheduleState.PAUSED
        assert declare(T + 10) is ScheduleState.PAUSED
        clerk.wish(Wish.RETIRE, T + 11)
        assert clerk.row().state is ScheduleState.CANCELLED
        assert declare(T + 12) is ScheduleState.ACTIVE
        clerk.wish(Wish.CANCEL, T + 13)
        assert declare(T + 14) is ScheduleState.CANCELLED, "so does a cancel"
        clerk.create(now=T + 15)
        assert not clerk.row().is_declared
        seq = clerk.row().seq
        declare(T + 16)
        assert clerk.row().seq == seq, "what is made by hand is left alone"

    def test_a_clock_that_goes_back_repeats_nothing(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(overlap="allow"))
        clerk.run(T + 2 * MINUTE)
        assert clerk.run(T) == []
        clerk.wish(Wish.PAUSE, T)
        clerk.wish(Wish.RESUME, T)
        assert clerk.run(T + 2 * MINUTE) == []
        assert len(clerk.run(T + 3 * MINUTE)) == 1
        log = store.schedules.log(NAME)
        assert [one.at for one in log] == sorted((one.at for one in log), reverse=True)

    def test_the_log_is_read_in_parts_and_pruned(self, store: Store) -> None:
        clerk = Clerk(store)
        clerk.create(every(overlap="allow"))
        for minute in range(1, 10):
            clerk.run(T + minute * MINUTE)
        assert [one.seq for one in store.schedules.log(NAME, limit=3)] == [10, 9, 8]
        assert [one.seq for one in store.schedules.log(NAME, 8, 2)] == [7, 6]
        assert store.schedules.prune(T + 5 * MINUTE, 3) == 3
        assert store.schedules.prune(T + 99 * MINUTE, 100) == 6
        assert [one.seq for one in store.schedules.log(NAME)] == [10]
        assert len(clerk.run(T + 10 * MINUTE)) == 1
        assert store.verify().defects == []

    def test_pages_go_by_name_and_state(self, store: Store) -> None:
        clerk = Clerk(store)
        for name in ("b", "a", "c"):
            clerk.create(name=name)
        clerk.wish(Wish.PAUSE, T, "b")
        names = [one.name for one in store.schedules.page(limit=2)]
        assert names == ["a", "b"]
        assert [one.name for one in store.schedules.page(after="b")] == ["c"]
        assert [one.name for one in store.schedules.page([ScheduleState.PAUSED])] == ["b"]
