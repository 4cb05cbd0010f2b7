"""Schedules: when executions are made by themselves. Pure: no clock, no store, no dice.

``plan`` says when (:class:`Plan`), ``cron`` and ``slots`` compute the instants, ``table`` is the
little lifecycle of a schedule, ``record`` its row and its log, and ``decide`` the only way to
change one.
"""

from outlast.schedule.decide import Birth, Change, decide, slot_key
from outlast.schedule.plan import Plan, Schedule
from outlast.schedule.record import Entry, Request, ScheduleRecord, Wish
from outlast.schedule.slots import fires_at, slots_after
from outlast.schedule.table import REFUSALS, Refused, ScheduleKind, ScheduleState

__all__ = [
    "REFUSALS",
    "Birth",
    "Change",
    "Entry",
    "Plan",
    "Refused",
    "Request",
    "Schedule",
    "ScheduleKind",
    "ScheduleRecord",
    "ScheduleState",
    "Wish",
    "decide",
    "fires_at",
    "slot_key",
    "slots_after",
]
