"""ActionQueue's shapes: what its daemon answered with, and what it was told."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from outlast.dialects.actionqueue import RunState
from outlast.server.shapes import Incoming


class QueueTask(msgspec.Struct, omit_defaults=True):
    """A task: a schedule, or an execution that no schedule has made."""

    id: str
    run_policy: Any
    constraints: dict[str, Any]
    metadata: dict[str, Any]
    created_at: int
    updated_at: int | None
    parent_task_id: str | None = None
    payload: list[int] | msgspec.UnsetType = msgspec.UNSET
    content_type: str | msgspec.UnsetType | None = msgspec.UNSET


class QueueTasks(msgspec.Struct):
    """Tasks, by priority, the highest first, then by age."""

    tasks: list[QueueTask]
    limit: int
    offset: int


class RunForm(msgspec.Struct):
    """A run: an execution."""

    run_id: str
    task_id: str
    state: RunState
    created_at: int
    scheduled_at: int
    attempt_count: int
    concurrency_key: str | None


class RunPage(msgspec.Struct):
    """Runs, by when they were to begin."""

    runs: list[RunForm]
    limit: int
    offset: int


class HopForm(msgspec.Struct, rename={"source": "from", "target": "to"}):
    """A transition of a run."""

    source: str | None
    target: str
    timestamp: int


class QueueAttempt(msgspec.Struct):
    """A try of a run; its result is ``Success``, ``Failure``, ``Timeout`` or ``Suspended``."""

    attempt_id: str
    started_at: int
    finished_at: int | None
    result: str | None
    error: str | None


class LeaseForm(msgspec.Struct):
    """Who has the run, and until when."""

    owner: str
    expiry: int | None
    acquired_at: int
    updated_at: int


class RunDetail(RunForm):
    """A run, with what happened to it."""

    current_attempt_id: str | None
    state_history: list[HopForm]
    attempts: list[QueueAttempt]
    lease: LeaseForm | None
    block_reason: str | None


class StatsForm(msgspec.Struct):
    """How much there is."""

    total_tasks: int
    total_runs: int
    attempts_total: int
    runs_by_state: dict[str, int]
    latest_sequence: int


class StatusForm(msgspec.Struct):
    """What became of it."""

    status: str


class TaskCancelForm(msgspec.Struct):
    """What became of a task's runs."""

    task_id: str
    status: str
    runs_canceled: int
    runs_already_terminal: int
    runs_total: int


class RunCancelForm(msgspec.Struct):
    """What became of a run."""

    run_id: str
    status: str


class PageQuery(msgspec.Struct):
    """Which part of a list: at most 1,000 at once."""

    limit: str | None = None
    offset: str | None = None


Word = Annotated[str, Meta(min_length=1, max_length=128)]
Id = Annotated[str, Meta(min_length=36, max_length=36)]


class ActorBody(Incoming):
    """An actor: its capabilities are the steps that it can run."""

    identity: Word
    capabilities: Annotated[list[Word], Meta(min_length=1, max_length=100)]
    heartbeat_interval_secs: Annotated[int, Meta(ge=1, le=86_400)]
    actor_id: Id | None = None
    department: Word | None = None
    tenant_id: Id | None = None


class ActorForm(msgspec.Struct):
    """Who was registered."""

    actor_id: str


class ClaimableForm(msgspec.Struct):
    """The runs that have a step which the actor can run."""

    runs: list[RunForm]


class NewTenant(Incoming):
    """A tenant to be; requests name it by the header `Outlast-Tenant`, as `aq-` and its id."""

    tenant_id: Id
    name: Word


class RoleBody(Incoming):
    """A role for the user that the actor's identity names."""

    role: Word
    tenant_id: Id | None = None


class CapabilityBody(Incoming):
    """What the user that the actor's identity names may do."""

    capability: Word
    tenant_id: Id | None = None


class LedgerBody(Incoming):
    """An entry of the ledger; nothing ever changes or deletes one."""

    ledger_key: Word
    payload_base64: Annotated[str, Meta(max_length=1_000_000)]
    actor_id: Id | None = None
    tenant_id: Id | None = None


class LedgerEntry(msgspec.Struct):
    """What was entered."""

    entry_id: str
