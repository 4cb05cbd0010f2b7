"""The lifecycle: one exact state machine for all executions, as data. No clock, I/O or dice."""

from outlast.lifecycle.decide import (
    BrokenLog,
    Decision,
    Refusal,
    applied,
    apply,
    create,
    decide,
    fold,
)
from outlast.lifecycle.delivery import Message, MessageKind, events_of, note_of
from outlast.lifecycle.reason import Reason, reason_of
from outlast.lifecycle.record import Event, Execution, Transition
from outlast.lifecycle.retry import NO_RETRY, RetryPolicy
from outlast.lifecycle.states import FINAL, LEASED, OPEN, PARKED, Kind, State
from outlast.lifecycle.table import EDGES, REFUSALS, RULES, Rule

__all__ = [
    "EDGES",
    "FINAL",
    "LEASED",
    "NO_RETRY",
    "OPEN",
    "PARKED",
    "REFUSALS",
    "RULES",
    "BrokenLog",
    "Decision",
    "Event",
    "Execution",
    "Kind",
    "Message",
    "MessageKind",
    "Reason",
    "Refusal",
    "RetryPolicy",
    "Rule",
    "State",
    "Transition",
    "applied",
    "apply",
    "create",
    "decide",
    "events_of",
    "fold",
    "note_of",
    "reason_of",
]
