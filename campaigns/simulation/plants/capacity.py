"""Mistakes in limits, budgets and schedules."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from msgspec.structs import replace

from campaigns.simulation.plants.plant import Patch, Plant
from outlast.lifecycle.gate import waiting_since
from outlast.store.books import Books


def _limit_overlooked() -> list[Patch]:
    admission: Any = import_module("outlast.store.admission")
    return [(admission, "capacity_of", lambda limit, setting: 1_000_000)]


def _reservation_overlooked() -> list[Patch]:
    plain = Books.reserve

    def reserve(self: Any, item: Any) -> bool:
        budgets = [self.budgets[name] for name in item.amounts if name in self.budgets]
        limits = [budget.limit for budget in budgets]
        for budget in budgets:
            budget.limit = None
        granted = plain(self, item)
        for budget, limit in zip(budgets, limits, strict=True):
            budget.limit = limit
        return granted

    return [(Books, "reserve", reserve)]


def _overlap_overlooked() -> list[Patch]:
    module: Any = import_module("outlast.schedule.decide")
    plain = module._decide_slot

    def decide_slot(step: Any, slot: int, open_ids: Any, **more: Any) -> None:
        plain(step, slot, [], **more)

    return [(module, "_decide_slot", decide_slot)]


def _late_slots_fired() -> list[Patch]:
    module: Any = import_module("outlast.schedule.decide")
    return [(module, "takewhile", lambda is_late, due: [])]


def _rate_overlooked() -> list[Patch]:
    admission: Any = import_module("outlast.store.admission")
    return [(admission, "counts_against_rates", lambda record: False)]


def _priority_overlooked() -> list[Patch]:
    home: Any = import_module("outlast.store.memory.capacity")
    return [(home, "turn_of", lambda record: (waiting_since(record), record.id))]


def _ageing_overlooked() -> list[Patch]:
    home: Any = import_module("outlast.store.memory.capacity")
    return [(home, "turn_of", lambda record: (-record.priority, waiting_since(record), record.id))]


def _capability_overlooked() -> list[Patch]:
    admission: Any = import_module("outlast.store.admission")
    plain = admission.gates_of

    def gates_of(data: Any) -> Any:
        return replace(plain(data), needs=())

    return [(admission, "gates_of", gates_of)]


def _pin_overlooked() -> list[Patch]:
    home: Any = import_module("outlast.store.memory.capacity").Claim
    plain = home.candidates

    def candidates(self: Any, tasks: Any, versions: Any) -> Any:
        return plain(self, tasks, [(task, number) for task in tasks for number in "12"])

    return [(home, "candidates", candidates)]


PLANTS: Final[dict[str, Plant]] = {
    "limit_overlooked": Plant(
        "a claim does not ask whether a limit has room", ("capacity",), _limit_overlooked,
    ),
    "reservation_overlooked": Plant(
        "what a body wants to set aside is granted although it does not fit",
        ("money",), _reservation_overlooked,
    ),
    "overlap_overlooked": Plant(
        "a slot is fired whatever is open, and cancels nothing",
        ("slots",), _overlap_overlooked,
    ),
    "late_slots_fired": Plant(
        "slots that nobody fired in time are fired all the same",
        ("slots",), _late_slots_fired,
    ),
    "rate_overlooked": Plant(
        "a claim does not ask whether a rate has opened", ("rates",), _rate_overlooked,
    ),
    "priority_overlooked": Plant(
        "who came first is taken first, whatever matters more", ("turns",), _priority_overlooked,
    ),
    "ageing_overlooked": Plant(
        "who matters more is taken first, however long others have waited",
        ("turns",), _ageing_overlooked,
    ),
    "capability_overlooked": Plant(
        "a claim does not ask what its worker offers", ("able",), _capability_overlooked,
    ),
    "pin_overlooked": Plant(
        "a claim does not ask which versions its worker has", ("able",), _pin_overlooked,
    ),
}  # fmt: skip
