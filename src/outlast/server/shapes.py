"""The forms of queries, bodies and answers.

What comes in is decoded by these, strictly. What goes out is made by ``outlast.forms``, the same
for the command line; the forms of answers here describe it, and the tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from outlast.engine.control.bulk import Action
from outlast.lifecycle import Kind, State
from outlast.naming import NAME_LENGTH_MAX, PRIORITY_MAX, TEXT_LENGTH_MAX

PAGE_MAX: Final = 500
Name = Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX)]
Text = Annotated[str, Meta(max_length=TEXT_LENGTH_MAX)]
Label = Annotated[str, Meta(max_length=200)]
Span = Annotated[
    str,
    Meta(
        description='A span, as "500ms", "5s", "1h30m" or "2d".',
        pattern=r"^ *([0-9]{1,17}(\.[0-9]{1,6})? *(us|ms|s|m|h|d|w) *)+$",
        max_length=40,
        examples=["30s"],
    ),
]
Limit = Annotated[int, Meta(ge=1, le=PAGE_MAX, description="How many, at most.")]
Cursor = Annotated[str, Meta(max_length=6_000, description="`next` of the page before.")]
Priority = Annotated[int, Meta(ge=-PRIORITY_MAX, le=PRIORITY_MAX)]
Seq = Annotated[int, Meta(ge=0, le=2**53)]
Labels = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=200)], Label], Meta(max_length=32)
]
Amounts = Annotated[
    dict[
        Annotated[str, Meta(pattern="^[a-z][a-z0-9_]{0,62}$")],
        Annotated[str, Meta(pattern=r"^[0-9]{1,12}(\.[0-9]{1,6})?$")],
    ],
    Meta(min_length=1, description="Amounts by meter, as decimal texts: no float is exact."),
]
DialectName = Literal["julep", "flyte", "flyte-action", "actionqueue", "autopilotcx"]
Stated = Annotated[
    list[Annotated[str, Meta(extra_json_schema={"enum": ["open", *State]})]],
    Meta(description="In one of these states; `open` is all but the final ones."),
]
Labelled = Annotated[
    list[Annotated[str, Meta(pattern="^[^=]+=", max_length=401)]],
    Meta(description="With this label, as NAME=VALUE."),
]


class Incoming(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What comes in has no field that nobody knows."""


# Queries


class ListQuery(Incoming):
    """Which executions: all that is given must hold."""

    state: Stated = msgspec.field(default_factory=list)
    task: Name | None = None
    schedule: Name | None = None
    origin: Name | None = None
    parent: Name | None = None
    roots: bool = False
    label: Labelled = msgspec.field(default_factory=list)
    created_after: datetime | None = None
    created_before: datetime | None = None
    find: Annotated[str, Meta(min_length=3, max_length=64, pattern="^[!-~]+$")] | None = None
    cursor: Annotated[str, Meta(max_length=64)] | None = None
    limit: Limit = 50
    dialect: DialectName | None = None


class ShowQuery(Incoming):
    """How an execution is shown."""

    dialect: DialectName | None = None


class ResultQuery(Incoming):
    """How long to wait for the end, at most a minute."""

    wait: Span | None = None


class LogQuery(Incoming):
    """Which rows of a log."""

    after_seq: Seq = 0
    limit: Limit = 100
    payload: bool = False
    dialect: DialectName | None = None


class StepsQuery(Incoming):
    """Which steps."""

    payload: bool = False


class StreamQuery(Incoming):
    """Which items of a stream."""

    after: Seq = 0
    limit: Limit = 100


class LiveQuery(Incoming):
    """Where a stream of events begins."""

    after_seq: Seq = 0
    payload: bool = False


class MetricsQuery(Incoming):
    """Whose metrics."""

    tenants: Literal["all"] | None = None


class FeedQuery(Incoming):
    """Which events, and where they begin: all that is given must hold."""

    after: (
        Annotated[
            str,
            Meta(
                max_length=80,
                pattern=r"^(oldest|[0-9a-f]{12}\.[0-9]{1,18})$",
                description="The id of an event; `oldest` is the first that is kept.",
            ),
        ]
        | None
    ) = None
    task: Name | None = None
    prefix: Name | None = None
    state: Stated = msgspec.field(default_factory=list)
    transition: Annotated[
        list[Annotated[str, Meta(extra_json_schema={"enum": [*Kind]})]],
        Meta(description="One of these transitions."),
    ] = msgspec.field(default_factory=list)
    label: Labelled = msgspec.field(default_factory=list)
    payload: bool = False
    dialect: DialectName | None = None


class LiveStreamQuery(Incoming):
    """Where a stream of items begins."""

    after: Seq = 0


class LogsQuery(Incoming):
    """Which lines of an execution's code."""

    after: Seq = 0
    limit: Limit = 100
    step: Annotated[str, Meta(min_length=1, max_length=1_000)] | None = None


class LiveLogsQuery(Incoming):
    """Where a stream of lines begins, and of which step they are."""

    after: Seq = 0
    step: Annotated[str, Meta(min_length=1, max_length=1_000)] | None = None


class ChildrenQuery(Incoming):
    """Which children."""

    cursor: Annotated[str, Meta(max_length=64)] | None = None
    limit: Limit = 50


class QuestionsQuery(Incoming):
    """Which questions."""

    to: Name | None = None
    oldest_first: bool = False
    cursor: Cursor | None = None
    limit: Limit = 50


class SchedulesQuery(Incoming):
    """Which schedules."""

    state: list[Literal["active", "paused", "exhausted", "cancelled"]] = msgspec.field(
        default_factory=list
    )


class NextQuery(Incoming):
    """How many slots."""

    n: Annotated[int, Meta(ge=1, le=100)] = 5


class EntriesQuery(Incoming):
    """Which entries of a schedule's log, the newest first."""

    before: Seq | None = None
    limit: Limit = 50


# Bodies


class AfterBody(Incoming):
    """An execution that another one waits for; see ``outlast.After``."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    need: Literal["success", "end"] = "success"
    or_else: Literal["cancel", "hold"] = "cancel"


class OwnBudgetBody(Incoming):
    """What an execution, or it and everything below it, may spend."""

    limits: Amounts
    scope: Literal["execution", "tree"] = "execution"
    soft: Annotated[float, Meta(gt=0, le=1)] | None = None


class StartBody(Incoming):
    """What to start; ``workflow_id`` and ``input_data`` are other names of task and input."""

    task: Name | UnsetType = UNSET
    workflow_id: Name | UnsetType = UNSET
    input: dict[str, Any] | UnsetType = UNSET
    input_data: dict[str, Any] | UnsetType = UNSET
    key: Name | None = None
    labels: Labels = msgspec.field(default_factory=dict)
    priority: Priority | None = None
    queue: Name | None = None
    delay: Span | None = None
    start_at: datetime | None = None
    timeout: Span | None = None
    queue_timeout: Span | None = None
    attempt_timeout: Span | None = None
    origin: Name | None = None
    after: Annotated[list[AfterBody], Meta(max_length=100)] = msgspec.field(default_factory=list)
    budget: OwnBudgetBody | None = None
    notify: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=2_000)]],
        Meta(max_length=5, description="URLs that are told, signed, when it has ended."),
    ] = msgspec.field(default_factory=list)


class TaskStartBody(Incoming):
    """What to start a task with."""

    input: dict[str, Any] = msgspec.field(default_factory=dict)
    key: Name | None = None
    labels: Labels = msgspec.field(default_factory=dict)
    priority: Priority | None = None
    queue: Name | None = None
    delay: Span | None = None
    start_at: datetime | None = None
    timeout: Span | None = None
    queue_timeout: Span | None = None
    attempt_timeout: Span | None = None
    origin: Name | None = None
    after: Annotated[list[AfterBody], Meta(max_length=100)] = msgspec.field(default_factory=list)
    budget: OwnBudgetBody | None = None
    notify: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=2_000)]],
        Meta(max_length=5, description="URLs that are told, signed, when it has ended."),
    ] = msgspec.field(default_factory=list)


class ReasonBody(Incoming):
    """Why; kept in the log."""

    reason: Text | None = None


class ResumeBody(Incoming):
    """Why, and the version of its task's code that alone may have it from now on."""

    pin: Name | None = None


class PinBody(Incoming):
    """The version of its task's code that alone may have it; null lets any version have it."""

    version: Name | None


class ResetBody(Incoming):
    """The meters to begin anew; by default all of the scope."""

    meters: list[Annotated[str, Meta(pattern="^[a-z][a-z0-9_]{0,62}$")]] = msgspec.field(
        default_factory=list
    )


class RerunBody(Incoming):
    """What the input is to be instead; arguments that are not named stay."""

    input: dict[str, Any] = msgspec.field(default_factory=dict)
    reason: Text | None = None
    key: Name | None = None


class ForkBody(Incoming):
    """From which step: its key, its name where it is the only one, or its place from 1."""

    from_step: Name | Annotated[int, Meta(ge=1, le=10**9)]
    input: dict[str, Any] = msgspec.field(default_factory=dict)
    reason: Text | None = None
    key: Name | None = None


class RecoverBody(Incoming):
    """Why, and under which key."""

    reason: Text | None = None
    key: Name | None = None


class SignalBody(Incoming):
    """A signal; sent again under the same id, it is taken once."""

    name: Name
    value: Any = None
    id: Name | None = None


class EventBody(Incoming):
    """An event: a signal for every open execution, or those of a task, or with these labels."""

    name: Name
    value: Any = None
    task: Name | None = None
    labels: Labels = msgspec.field(default_factory=dict)


class AnswerBody(Incoming):
    """An answer, in the form that the question asks for; its key where several are open."""

    value: Any
    key: Name | None = None


class TokenBody(Incoming):
    """For which question, for how long, and who the answer is noted for."""

    key: Name | None = None
    expires: Span = "7d"
    actor: Name | None = None


class SecretBody(Incoming):
    """The URL whose secret is asked for."""

    url: Annotated[str, Meta(min_length=1, max_length=2_000)]


class LookBody(Incoming):
    """A token of a question."""

    token: Annotated[str, Meta(min_length=1, max_length=16_000)]


class TokenAnswerBody(Incoming):
    """A token of a question, and the answer."""

    token: Annotated[str, Meta(min_length=1, max_length=16_000)]
    value: Any


class RaiseBody(Incoming):
    """By how much to raise limits."""

    raise_: Amounts = msgspec.field(name="raise")


class PriorityBody(Incoming):
    """The new priority."""

    priority: Priority


class LabelsBody(Incoming):
    """Labels to set; those given as null are taken away."""

    labels: Annotated[
        dict[Annotated[str, Meta(min_length=1, max_length=200)], Label | None], Meta(max_length=32)
    ]


class PatchBody(Incoming):
    """What to change."""

    labels: Annotated[
        dict[Annotated[str, Meta(min_length=1, max_length=200)], Label | None], Meta(max_length=32)
    ] = msgspec.field(default_factory=dict)
    priority: Priority | None = None


class FilterBody(Incoming):
    """Which executions: all that is given must hold."""

    states: list[State] = msgspec.field(default_factory=list)
    task: Name | None = None
    schedule: Name | None = None
    parent: Name | None = None
    roots: bool = False
    labels: Labels = msgspec.field(default_factory=dict)
    created_after: datetime | None = None
    created_before: datetime | None = None


class BulkBody(Incoming):
    """What is to be done to all that the filter fits."""

    action: Action
    filter: FilterBody
    reason: Text | None = None
    dry_run: bool = False


class WhenBody(Incoming):
    """When: exactly one of ``every``, ``cron`` and ``at``."""

    every: Span | None = None
    cron: Annotated[str, Meta(max_length=200)] | None = None
    at: datetime | None = None
    tz: Annotated[str, Meta(max_length=100)] = "UTC"
    jitter: Span = "0s"
    start: datetime | None = None
    end: datetime | None = None
    count: Annotated[int, Meta(ge=1, le=10**12)] | None = None
    overlap: Literal["skip", "queue", "cancel_old", "allow"] = "skip"
    misfire: Literal["skip", "last", "all"] = "last"
    misfire_max: Annotated[int, Meta(ge=1, le=1_000)] = 100
    grace: Span = "30s"


class ScheduleBody(Incoming):
    """A schedule: which task, with what, and when."""

    task: Name
    when: WhenBody
    input: dict[str, Any] = msgspec.field(default_factory=dict)


class BackfillBody(Incoming):
    """The first and the last instant of past slots."""

    since: datetime
    until: datetime


class QueueBody(Incoming):
    """What to set: whether it is paused, and how many of it may run at once (null: any number)."""

    paused: bool | UnsetType = UNSET
    reason: Text | None = None
    capacity: Annotated[int, Meta(ge=0, le=2**31)] | UnsetType | None = UNSET


class RateBody(Incoming):
    """At most so many a period, and at once after a rest."""

    count: Annotated[int, Meta(ge=1, le=10**9)]
    period: Span
    burst: Annotated[int, Meta(ge=1, le=10**9)] = 1


class LimitBody(Incoming):
    """How many may hold a limit; or the rate, for one whose name begins with ``rate:``."""

    capacity: Annotated[int, Meta(ge=0, le=2**31)] | UnsetType = UNSET
    rate: RateBody | UnsetType = UNSET


class BudgetBody(Incoming):
    """Limits by meter; null only counts."""

    limits: Annotated[
        dict[
            Annotated[str, Meta(pattern="^[a-z][a-z0-9_]{0,62}$")],
            Annotated[str, Meta(pattern=r"^[0-9]{1,12}(\.[0-9]{1,6})?$")] | None,
        ],
        Meta(min_length=1),
    ]
    soft: Annotated[float, Meta(gt=0, le=1)] | None = None
    period: Span | None = None


# Answers

Json = Any
When = datetime | None


class ReasonForm(msgspec.Struct):
    """Why an execution is where it is."""

    code: str
    text: str
    since: datetime
    until: When
    hint: str


class DialectForm(msgspec.Struct):
    """An execution's status in another system's words."""

    name: DialectName
    status: str
    is_final: bool
    number: int | None = None


class ExecutionForm(msgspec.Struct):
    """An execution's row; fields may be added to it."""

    id: str
    task: str
    state: State
    is_cancelling: bool
    is_pausing: bool
    reason: ReasonForm | None
    error: Mapping[str, Json] | None
    created_at: datetime
    started_at: When
    state_at: datetime
    updated_at: datetime
    due_at: When
    deadline_at: When
    seq: int
    attempt: int
    failures: int
    claims: int
    worker: str | None
    queue: str
    priority: int
    key: str | None
    version: str | None
    origin: str | None
    labels: Mapping[str, str]
    parent_id: str | None
    parent_key: str | None
    root_id: str | None
    children: int
    detail: Mapping[str, Json] | None
    dialect: DialectForm | None = None


class ExecutionPage(msgspec.Struct):
    """A page of executions, the newest first."""

    items: list[ExecutionForm]
    next: str | None


class ResultForm(msgspec.Struct):
    """What an execution came to; null, and no more, while it goes on."""

    id: str
    state: State
    result: Json
    failure: Mapping[str, Json] | None
    continued_as: str | None = None


class InputForm(msgspec.Struct):
    """What an execution was started with."""

    id: str
    input: Json


class ReasonAnswer(msgspec.Struct):
    """Why an execution is not moving; null where it has ended."""

    id: str
    state: State
    reason: ReasonForm | None


class FailureForm(msgspec.Struct):
    """An attempt that failed."""

    attempt: int
    at: datetime
    type: str
    message: str | None


class StepForm(msgspec.Struct):
    """A step, as far as the log has it."""

    key: str
    status: str
    title: str | None
    to: str | None
    attempts: int
    since: When
    ended_at: When
    retry_at: When
    child: str | None
    failures: list[FailureForm]
    payload: Json = None


class StepPage(msgspec.Struct):
    """The steps of an execution, in the order in which they were noted."""

    items: list[StepForm]


class AttemptForm(msgspec.Struct):
    """An attempt of a step, or of the whole task (step null)."""

    step: str | None
    attempt: int
    began_at: When
    ended_at: When
    outcome: str
    type: str | None = None
    message: str | None = None


class AttemptPage(msgspec.Struct):
    """The attempts of an execution, in the order in which they ended."""

    items: list[AttemptForm]


class TransitionForm(msgspec.Struct):
    """A row of a log; or a transition as another system would have written it.

    Attributes:
        id, actor, key, data, fence, is_owned, payload: of a row of ours.
        name, is_synthetic, reason, action: in another system's words (docs/dialects.md).
    """

    seq: int
    at: datetime
    kind: Kind
    from_: str | None = msgspec.field(name="from")
    to: str
    id: str | UnsetType = UNSET
    actor: str | UnsetType = UNSET
    key: str | UnsetType | None = UNSET
    data: Mapping[str, Json] | UnsetType | None = UNSET
    fence: int | UnsetType = UNSET
    is_owned: bool | UnsetType = UNSET
    payload: Json = None
    name: str | UnsetType | None = UNSET
    is_synthetic: bool | UnsetType = UNSET
    reason: str | UnsetType | None = UNSET
    action: str | UnsetType = UNSET


class TransitionPage(msgspec.Struct):
    """Rows of a log in order; ``next`` is the ``after_seq`` of the next page."""

    items: list[TransitionForm]
    next: int | None


class StreamHeadForm(msgspec.Struct):
    """A stream."""

    name: str
    count: int
    at: datetime


class StreamHeads(msgspec.Struct):
    """The streams of an execution."""

    items: list[StreamHeadForm]


class ItemForm(msgspec.Struct):
    """An item of a stream."""

    name: str
    number: int
    step: str
    attempt: int
    lease: int
    part: int
    at: datetime
    value: Json


class ItemPage(msgspec.Struct):
    """Items of a stream; ``next`` is the ``after`` of the next page."""

    items: list[ItemForm]
    next: int | None


class FindingForm(msgspec.Struct):
    """What a check of the doctor has found."""

    check: str
    level: Literal["ok", "warn", "fail"]
    what: str
    why: str
    do: str


class DoctorForm(msgspec.Struct):
    """All that the doctor has found, the worst first; ``level`` is that of the worst."""

    level: Literal["ok", "warn", "fail"]
    findings: list[FindingForm]


class TryForm(msgspec.Struct):
    """An attempt of a step; ``ran_us`` 0 is less than a millisecond, None was not measured."""

    attempt: int
    ended_at: datetime
    ran_us: int
    waited_us: int
    cpu_us: int | None
    memory_bytes: int | None
    error: str | None


class StepMeasuresForm(msgspec.Struct):
    """What a step took."""

    key: str
    ran_us: int
    tries: list[TryForm]


class MeasuresForm(msgspec.Struct):
    """What an execution took so far, or in all."""

    id: str
    task: str
    state: State
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    duration_us: int
    queued_us: int
    run_us: int
    parked_us: int
    by_state_us: dict[str, int]
    attempts: int
    retries: int
    claims: int
    takeovers: int
    cpu_us: int
    memory_bytes: int | None
    errors: dict[str, int]
    steps: list[StepMeasuresForm]


class LogLineForm(msgspec.Struct):
    """A line that an execution's code has logged."""

    number: int
    at: datetime
    level: str
    logger: str
    message: str
    step: str | None
    attempt: int
    error: str | None
    is_cut: bool
    lost: int


class LogPage(msgspec.Struct):
    """Lines; ``next`` is the ``after`` of the next page."""

    items: list[LogLineForm]
    next: int | None


class ProgressForm(msgspec.Struct):
    """How far an execution says it is."""

    done: float
    total: float | None
    text: str | None
    step: str | None
    at: datetime


class ProgressAnswer(msgspec.Struct):
    """How far an execution says it is; null where it never said so."""

    id: str
    progress: ProgressForm | None


class DescentForm(msgspec.Struct):
    """Of which execution another one was made, and how."""

    id: str
    source: str
    mode: str
    step: str | None


class DescentPage(msgspec.Struct):
    """Of what an execution was made, and what was made of it."""

    items: list[DescentForm]


class QuestionForm(msgspec.Struct):
    """An open question."""

    id: str
    task: str
    key: str
    title: str
    to: str | None
    schema: Mapping[str, Json]
    asked_at: datetime
    until: When
    late: str | None
    refused: str | None


class QuestionPage(msgspec.Struct):
    """A page of open questions."""

    items: list[QuestionForm]
    next: str | None


class TokenForm(msgspec.Struct):
    """A token that permits one answer, once; it is shown here and never again."""

    token: str
    id: str
    key: str


class SecretForm(msgspec.Struct):
    """The secret that requests to a URL are signed with."""

    url: str
    secret: str


class BulkForm(msgspec.Struct):
    """What an action on many executions means, and what became of it."""

    action: Action
    matched: int
    oldest_at: When
    sample: list[str]
    done: int
    made: list[str]
    refused: Mapping[str, int]
    is_dry: bool


class TaskForm(msgspec.Struct):
    """A task that the engine knows."""

    name: str
    version: str | None
    queue: str
    priority: int
    doc: str | None
    schedule: str | None
    input_schema: Mapping[str, Json] | None
    output_schema: Mapping[str, Json] | None


class TaskPage(msgspec.Struct):
    """The tasks that the engine knows, by name."""

    items: list[TaskForm]


class ScheduleForm(msgspec.Struct):
    """A schedule's row."""

    name: str
    task: str
    state: str
    why: str | None
    when: str
    plan: Mapping[str, Json]
    is_declared: bool
    next_slot: When
    next_at: When
    waiting_slot: When
    fired: int
    last_slot: When
    last_execution_id: str | None
    input: Json
    seq: int
    created_at: When
    state_at: When


class SchedulePage(msgspec.Struct):
    """The schedules, by name."""

    items: list[ScheduleForm]


class NextForm(msgspec.Struct):
    """The next slots of a schedule."""

    name: str
    slots: list[datetime]


class EntryForm(msgspec.Struct):
    """An entry of a schedule's log."""

    seq: int
    kind: str
    at: datetime
    actor: str
    slot: When
    until_slot: When
    execution_id: str | None
    data: Mapping[str, Json] | None


class EntryPage(msgspec.Struct):
    """Entries of a schedule's log, the newest first."""

    items: list[EntryForm]


class MadeForm(msgspec.Struct):
    """The executions that were made."""

    items: list[str]


class QueueForm(msgspec.Struct):
    """A queue."""

    queue: str
    capacity: int | None
    paused_at: When
    paused_by: str | None
    why: str | None
    queued: int | None = None
    blocked: int | None = None
    leased: int | None = None
    waiting_since: When = None


class QueuePage(msgspec.Struct):
    """The queues, by name."""

    items: list[QueueForm]


class RuleForm(msgspec.Struct):
    """What an operator has set for a limit or rate."""

    name: str
    capacity: int
    interval_us: int | None
    by: str
    at: datetime


class LimitForm(msgspec.Struct):
    """A limit, rate or capability."""

    limit: str
    setting: RuleForm | None
    holders: list[str]
    waiting: int
    next: str | None


class LimitPage(msgspec.Struct):
    """What is set, held or waited at, by name."""

    items: list[LimitForm]


class BudgetForm(msgspec.Struct):
    """A budget; amounts are decimal texts."""

    scope: str
    meter: str
    spent: str
    reserved: str
    limit: str | None
    left: str | None
    soft: float | None
    period_us: int | None
    turns_at: When


class BudgetPage(msgspec.Struct):
    """Budgets, by name."""

    items: list[BudgetForm]


class WorkerForm(msgspec.Struct):
    """A process incarnation that serves, or served, this store."""

    id: str
    host: str
    pid: int
    started_at: datetime
    seen_at: datetime
    is_this: bool


class WorkerPage(msgspec.Struct):
    """The workers, the newest first."""

    items: list[WorkerForm]


class InfoForm(msgspec.Struct):
    """The server, and how much there is to do."""

    version: str
    worker: str
    tasks: int
    open: Mapping[State, int]
    backlog: int


class PublishedForm(msgspec.Struct):
    """An event: the execution that sends it, and how many it has reached; null: on its way."""

    id: str
    name: str
    reached: int | None


class HealthForm(msgspec.Struct):
    """Whether it is well."""

    status: Literal["ok"]
