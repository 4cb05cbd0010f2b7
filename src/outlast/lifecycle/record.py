"""The three things the lifecycle is about: the execution's row, an event, and a row of its log.

Instants are integers: microseconds since 1970 in UTC. The floors above turn them into datetimes.

They are msgspec's structs, as each step makes four: a dataclass takes three times as long to make
and ten times as long to copy (decision 0027). They hold nothing that could hold them, so that the
collector need not look at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from outlast.lifecycle.states import FINAL, LEASED, Kind, State

Data = Mapping[str, object]
"""Facts of the engine about a transition, as JSON: never the user's payloads."""


class Execution(Struct, gc=False):
    """One run of a task with an input: the row that the log folds to.

    Treat it as a value: only :func:`~outlast.lifecycle.decide.apply` changes one, and only its
    owner's private copy. ``inbox_count`` alone is no function of the log: it counts the messages
    that were ever put into the inbox, ``inbox_seen`` those that the log has taken in.
    ``updated_at`` is the time of the last row of the log, ``state_at`` that of the row that led to
    the state. ``parent_id``, ``parent_key`` and ``root_id`` name the execution and the call that
    made it, and the first of its tree; ``children`` counts those that it made itself. ``start_by``
    is when it must have begun; it goes with the first start. ``gates`` says what a claim must find
    open, None for nothing.
    """

    tenant: int
    id: str
    task: str
    state: State
    seq: int
    fence: int = 0
    nonce: bytes | None = None
    worker: str | None = None
    high_water: int = 0
    cause: str | None = None
    paused_from: State | None = None
    attempt: int = 0
    failures: int = 0
    claims: int = 0
    idle_claims: int = 0
    inbox_count: int = 0
    inbox_seen: int = 0
    cancel_at: int | None = None
    pause_at: int | None = None
    created_at: int = 0
    updated_at: int = 0
    state_at: int = 0
    started_at: int | None = None
    due_at: int | None = None
    deadline_at: int | None = None
    queue: str = "default"
    priority: int = 0
    key: str | None = None
    input_digest: int = 0
    version: str | None = None
    parent_id: str | None = None
    origin: str | None = None
    parent_key: str | None = None
    root_id: str | None = None
    start_by: int | None = None
    children: int = 0
    gates: Data | None = None
    labels: Data | None = None
    detail: Data | None = None

    @property
    def pin(self) -> str | None:
        """The version of its task's code that alone may run it; None: any may."""
        version = (self.gates or {}).get("version")
        return version if isinstance(version, str) else None

    @property
    def is_final(self) -> bool:
        """Whether it has ended; a final execution never changes again."""
        return self.state in FINAL

    @property
    def is_leased(self) -> bool:
        """Whether a worker owns it now."""
        return self.state in LEASED


COLUMNS: Final = Execution.__struct_fields__
"""The columns of an execution's row, in order; every store has exactly these."""


def copy_of(record: Execution) -> Execution:
    """Copy a record."""
    twin: Execution = record.__copy__()  # type: ignore[attr-defined]
    return twin


def continued_as(ended: Execution) -> str | None:
    """Name the execution as which one that has ended goes on, if any."""
    name = (ended.detail or {}).get("continued_as")
    return name if isinstance(name, str) else None


class Event(Struct, gc=False):
    """What somebody wants to happen to an execution.

    ``fence`` and ``nonce`` are the writer's lease, for events by an owner; a claim brings the
    nonce it draws. ``data`` holds facts of the engine, ``payload`` bytes of the user.
    """

    kind: Kind
    actor: str
    fence: int = 0
    nonce: bytes | None = None
    key: str | None = None
    digest: int | None = None
    data: Data | None = None
    payload: bytes | None = None


class Transition(Struct, gc=False):
    """One row of the log: an event that happened, with its place and its two states."""

    tenant: int
    execution_id: str
    seq: int
    kind: Kind
    from_state: State | None
    to_state: State
    fence: int
    nonce: bytes | None
    actor: str
    at: int
    key: str | None = None
    digest: int | None = None
    data: Data | None = None
    payload: bytes | None = None


TRANSITION_COLUMNS: Final = Transition.__struct_fields__
"""The columns of a row of the log, in order."""


def event_of(row: Transition) -> Event:
    """Give back the event that a row of the log records; folding a log decides these again."""
    fence = row.fence
    if row.kind is Kind.CLAIM or (row.nonce is None and row.from_state in LEASED):
        fence -= 1  # the fence it was decided against: this row raised it
    return Event(row.kind, row.actor, fence, row.nonce, row.key, row.digest, row.data, row.payload)
