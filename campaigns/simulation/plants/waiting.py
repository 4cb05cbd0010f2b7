"""Mistakes in waits: timers, messages, dependencies."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from msgspec.structs import replace

from campaigns.simulation.plants.plant import Patch, Plant, decide_module
from outlast.engine.drive.driver import Driver
from outlast.engine.drive.waiting import Waiting
from outlast.engine.steps.body import Body
from outlast.engine.write.owner import Owner
from outlast.lifecycle import Event, Kind
from outlast.lifecycle.record import copy_of
from outlast.lifecycle.states import LEASED


def _double_timer() -> list[Patch]:
    plain = Driver._fire_timers

    def fire_timers(self: Any, scope: Any) -> bool:
        timer = scope.next_timer()
        fired = plain(self, scope)
        if fired and timer.number % 2 == 0:
            key = f"timer#{timer.number}"
            self.owner.append(Event(Kind.TIMER_FIRED, "engine", key=key, digest=timer.deadline_at))
        return fired

    return [(Driver, "_fire_timers", fire_timers)]


def _early_timer() -> list[Patch]:
    plain = Waiting.waits

    def waits(self: Any, scope: Any) -> Any:
        found, due_at = plain(self, scope)
        return found, None if due_at is None else due_at - 50_000

    class Hasty:
        def __init__(self, clock: Any) -> None:
            self.clock = clock

        def now(self) -> int:
            return int(self.clock.now()) + 50_000

    fire = Driver._fire_timers

    def fire_timers(self: Any, scope: Any) -> bool:
        worker = self.worker
        clock = worker.clock
        timer = scope.next_timer()
        if timer is None or timer.deadline_at > clock.now() + 50_000:
            return False
        worker.clock = Hasty(clock)
        try:
            before = clock.now
            del before
            append = self.owner.append

            def early(event: Any, **more: Any) -> Any:
                worker.clock = clock
                return append(event, **more)

            self.owner.append = early
            return fire(self, scope)
        finally:
            worker.clock = clock
            del self.owner.append

    return [(Waiting, "waits", waits), (Driver, "_fire_timers", fire_timers)]


def _park_overlooks_messages() -> list[Patch]:
    plain = Owner.try_append

    def try_append(self: Any, event: Any, **more: Any) -> Any:
        return plain(self, event, **{**more, "inbox_seen": None})

    def overlooking(guard: Any) -> Any:
        if guard is None:
            return None

        def unseen(record: Any, event: Any, now: int) -> bool:
            twin = copy_of(record)
            twin.inbox_seen = twin.inbox_count
            return bool(guard(twin, event, now))

        return unseen

    parks = (Kind.WAIT, Kind.PAUSE, Kind.SUSPEND, Kind.RETRY)
    unguarded = {
        (state, kind): tuple(way._replace(guard=overlooking(way.guard)) for way in ways)
        if kind in parks and state in LEASED
        else ways
        for (state, kind), ways in decide_module._WAYS.items()
    }
    return [(Owner, "try_append", try_append), (decide_module, "_WAYS", unguarded)]


def _timer_forgotten() -> list[Patch]:
    plain = Waiting.waits

    def waits(self: Any, scope: Any) -> Any:
        return plain(self, scope)[0], None

    return [(Waiting, "waits", waits)]


def _second_answer_taken() -> list[Patch]:
    decisions: Any = import_module("outlast.store.decisions")
    return [(decisions, "is_answered", lambda message, earlier: False)]


def _message_ids_ignored() -> list[Patch]:
    memory: Any = import_module("outlast.store.memory.store")
    plain = memory.deliver

    def deliver(record: Any, item: Any, earlier: Any, *more: Any) -> Any:
        return plain(record, item, [one for one in earlier if one.id != item.message.id], *more)

    return [(memory, "deliver", deliver)]


def _upstream_taken_for_success() -> list[Patch]:
    def remaining(waits_on: Any, ended: Any) -> Any:
        return [edge for edge in waits_on if edge["id"] != ended.get("upstream")]

    delivery: Any = import_module("outlast.lifecycle.delivery")
    return [(home, "remaining", remaining) for home in (decide_module, delivery)]


def _message_wakes_nobody() -> list[Patch]:
    delivery: Any = import_module("outlast.lifecycle.delivery")
    return [(delivery, "is_awaited", lambda record, message: False)]


def _attempt_timed_from_its_creation() -> list[Patch]:
    plain = Driver._bound_attempt

    def bound_attempt(self: Any, first: Any) -> None:
        plain(self, replace(first, at=first.at - 200_000))

    return [(Driver, "_bound_attempt", bound_attempt)]


def _silence_from_the_beginning() -> list[Patch]:
    return [(Body, "take_beat", lambda self, details: None)]


def _step_timed_in_its_queue() -> list[Patch]:
    limits: Any = import_module("outlast.engine.task.limits")
    plain = limits.Limits.first

    def first(self: Any, now: int, **known: Any) -> Any:
        begun_at = known["begun_at"]
        if begun_at is not None:
            known["begun_at"] = begun_at - 10_000
        return plain(self, now, **known)

    return [(limits.Limits, "first", first)]


PLANTS: Final[dict[str, Plant]] = {
    "double_timer": Plant("a timer fires twice", ("timers",), _double_timer),
    "early_timer": Plant("a timer fires 50 ms too early", ("timers",), _early_timer),
    "timer_forgotten": Plant(
        "an execution parks without the instant at which it is to go on",
        ("INV-10 reason", "INV-10 liveness"), _timer_forgotten,
    ),
    "park_overlooks_messages": Plant(
        "an execution parks although a signal has just come: the lost wake-up",
        ("INV-10 liveness", "INV-18 messages", "reasons"), _park_overlooks_messages,
        seeds=1_200,
    ),
    "second_answer_taken": Plant(
        "a question takes a second answer", ("INV-18 messages",), _second_answer_taken,
    ),
    "message_ids_ignored": Plant(
        "a message that is sent again counts twice", ("INV-18 messages",), _message_ids_ignored,
    ),
    "upstream_taken_for_success": Plant(
        "whatever an execution ends as, those that needed its success begin",
        ("dependencies",), _upstream_taken_for_success,
    ),
    "message_wakes_nobody": Plant(
        "what comes for a parked execution is kept, and does not wake it",
        ("reasons",), _message_wakes_nobody,
    ),
    "attempt_timed_too_soon": Plant(
        "an attempt of a task is timed from before it has begun",
        ("time limits",), _attempt_timed_from_its_creation,
    ),
    "silence_from_the_beginning": Plant(
        "the silence of a body is measured from its beginning, and what it says is not kept",
        ("time limits", "heartbeats"), _silence_from_the_beginning,
    ),
    "step_timed_in_its_queue": Plant(
        "a step is timed from when it was queued", ("time limits",), _step_timed_in_its_queue,
    ),
}  # fmt: skip
