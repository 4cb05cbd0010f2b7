"""Read back what a server writes: the other side of ``outlast.forms``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec

from outlast.budget import millionths
from outlast.duration import microseconds_of
from outlast.engine.control.bulk import Action
from outlast.engine.read.questions import OpenQuestion
from outlast.errors import InternalError, OutlastError, ServerUnreachable, by_code
from outlast.lifecycle import Execution, Kind, Reason, State, Transition
from outlast.store.protocol import DEFAULT_NUMBER, BudgetRow, ProgressRow, StreamHead, StreamItem

T = TypeVar("T")
KINDS: Final = by_code()
OWNED: Final = bytes(16)
"""Stands for the nonce of a lease, which a server keeps to itself."""
_NULL: Final = msgspec.Raw(b"null")


class RowForm(msgspec.Struct, kw_only=True):
    """An execution's row, as a server writes it."""

    id: str
    task: str
    state: State
    seq: int
    fence: int
    worker: str | None
    high_water: int
    cause: str | None
    paused_from: State | None
    attempt: int
    failures: int
    claims: int
    idle_claims: int
    inbox_count: int
    inbox_seen: int
    cancel_at: datetime | None
    pause_at: datetime | None
    created_at: datetime
    updated_at: datetime
    state_at: datetime
    started_at: datetime | None
    due_at: datetime | None
    deadline_at: datetime | None
    start_by: datetime | None
    queue: str
    priority: int
    key: str | None
    input_digest: str | None
    version: str | None
    parent_id: str | None
    origin: str | None
    parent_key: str | None
    root_id: str | None
    children: int
    gates: dict[str, Any] | None
    labels: dict[str, str]
    detail: dict[str, Any] | None


class RowPage(msgspec.Struct):
    """A page of rows."""

    items: list[RowForm]
    next: str | None


class LogForm(msgspec.Struct):
    """A row of a log, as a server writes it."""

    id: str
    seq: int
    kind: Kind
    from_: State | None = msgspec.field(name="from")
    to: State
    at: datetime
    actor: str
    key: str | None
    data: dict[str, Any] | None
    fence: int
    is_owned: bool
    digest: str | None
    payload: msgspec.Raw = _NULL


class FedForm(LogForm):
    """A row of a log as an event of the firehose."""

    task: str = ""
    labels: dict[str, str] = {}


class PublishedForm(msgspec.Struct):
    """An event that was published."""

    id: str
    name: str
    reached: int | None


class LogPage(msgspec.Struct):
    """A page of a log."""

    items: list[LogForm]
    next: int | None


class ItemForm(msgspec.Struct):
    """An item of a stream, as a server writes it."""

    name: str
    number: int
    step: str
    attempt: int
    lease: int
    part: int
    at: datetime
    value: msgspec.Raw


class ItemPage(msgspec.Struct):
    """A page of a stream."""

    items: list[ItemForm]
    next: int | None


class HeadForm(msgspec.Struct):
    """A stream, as a server writes it."""

    name: str
    count: int
    at: datetime


class HeadPage(msgspec.Struct):
    """The streams of an execution."""

    items: list[HeadForm]


class ReasonForm(msgspec.Struct):
    """Why an execution is where it is."""

    code: str
    text: str
    since: datetime
    until: datetime | None
    hint: str


class ReasonAnswer(msgspec.Struct):
    """The reason of one execution."""

    reason: ReasonForm | None


class ProgressForm(msgspec.Struct):
    """How far an execution is."""

    done: float
    total: float | None
    text: str | None
    step: str | None
    at: datetime


class ProgressAnswer(msgspec.Struct):
    """The progress of one execution."""

    progress: ProgressForm | None


class QuestionForm(msgspec.Struct):
    """An open question."""

    id: str
    task: str
    key: str
    title: str
    to: str | None
    schema: dict[str, Any]
    asked_at: datetime
    until: datetime | None
    late: str | None
    refused: str | None


class QuestionsForm(msgspec.Struct):
    """A page of questions."""

    items: list[QuestionForm]
    next: str | None


class BudgetForm(msgspec.Struct):
    """A budget."""

    scope: str
    meter: str
    spent: str
    reserved: str
    limit: str | None
    soft: float | None
    period_us: int | None
    turns_at: datetime | None


class BudgetPage(msgspec.Struct):
    """Budgets."""

    items: list[BudgetForm]


class BulkForm(msgspec.Struct):
    """What an action on many executions came to."""

    action: Action
    matched: int
    oldest_at: datetime | None
    sample: list[str]
    done: int
    made: list[str]
    refused: dict[str, int]
    is_dry: bool


def read(data: bytes, form: type[T], url: str) -> T:
    """Read an answer.

    Raises:
        ServerUnreachable: what answers there is no server of ours, or of another version.
    """
    try:
        return msgspec.json.decode(data, type=form)
    except msgspec.DecodeError as error:
        raise ServerUnreachable(
            "what answers is not read here",
            where=url,
            why=str(error),
            do="the same version on both",
        ) from None


def us(at: datetime | None) -> int | None:
    """Give an instant in microseconds."""
    return None if at is None else microseconds_of(at)


class TenantForm(msgspec.Struct):
    """A tenant."""

    name: str
    created_at: datetime | None
    closed_at: datetime | None


class TenantPage(msgspec.Struct):
    """The tenants."""

    items: list[TenantForm]


def record_of(form: RowForm) -> Execution:
    """Give a row back."""
    return Execution(
        DEFAULT_NUMBER,
        form.id,
        form.task,
        form.state,
        form.seq,
        fence=form.fence,
        nonce=OWNED if form.state in (State.STARTING, State.RUNNING) else None,
        worker=form.worker,
        high_water=form.high_water,
        cause=form.cause,
        paused_from=form.paused_from,
        attempt=form.attempt,
        failures=form.failures,
        claims=form.claims,
        idle_claims=form.idle_claims,
        inbox_count=form.inbox_count,
        inbox_seen=form.inbox_seen,
        cancel_at=us(form.cancel_at),
        pause_at=us(form.pause_at),
        created_at=microseconds_of(form.created_at),
        updated_at=microseconds_of(form.updated_at),
        state_at=microseconds_of(form.state_at),
        started_at=us(form.started_at),
        due_at=us(form.due_at),
        deadline_at=us(form.deadline_at),
        queue=form.queue,
        priority=form.priority,
        key=form.key,
        input_digest=int(form.input_digest or 0),
        version=form.version,
        parent_id=form.parent_id,
        origin=form.origin,
        parent_key=form.parent_key,
        root_id=form.root_id,
        start_by=us(form.start_by),
        children=form.children,
        gates=form.gates,
        labels=form.labels or None,
        detail=form.detail,
    )


def transition_of(form: LogForm) -> Transition:
    """Give a row of a log back; a payload that is null and none that there is are the same."""
    payload = bytes(form.payload)
    return Transition(
        DEFAULT_NUMBER,
        form.id,
        form.seq,
        form.kind,
        form.from_,
        form.to,
        form.fence,
        OWNED if form.is_owned else None,
        form.actor,
        microseconds_of(form.at),
        form.key,
        None if form.digest is None else int(form.digest),
        form.data,
        None if payload == b"null" else payload,
    )


def item_of(form: ItemForm) -> StreamItem:
    """Give an item of a stream back."""
    return StreamItem(
        form.name,
        form.number,
        form.step,
        form.attempt,
        form.lease,
        form.part,
        microseconds_of(form.at),
        bytes(form.value),
    )


def head_of(form: HeadForm) -> StreamHead:
    """Give a stream's head back."""
    return StreamHead(form.name, form.count, microseconds_of(form.at))


def reason_of(form: ReasonForm | None) -> Reason | None:
    """Give a reason back."""
    if form is None:
        return None
    return Reason(form.code, form.text, microseconds_of(form.since), us(form.until), form.hint)


def progress_of(form: ProgressForm | None) -> ProgressRow | None:
    """Give how far an execution is back."""
    if form is None:
        return None
    return ProgressRow(microseconds_of(form.at), form.done, form.total, form.text, form.step or "")


def question_of(form: QuestionForm) -> OpenQuestion:
    """Give a question back."""
    return OpenQuestion(
        form.key,
        form.title,
        form.to,
        form.schema,
        microseconds_of(form.asked_at),
        us(form.until),
        form.late,
        form.refused,
        form.id,
        form.task,
    )


def budget_of(form: BudgetForm) -> BudgetRow:
    """Give a budget back, as far as it is shown."""
    return BudgetRow(
        form.scope,
        form.meter,
        limit=None if form.limit is None else _amount(form.limit),
        soft=None if form.soft is None else round(form.soft * 1_000_000),
        charged=_amount(form.spent),
        reserved=_amount(form.reserved),
        period_us=form.period_us,
        turns_at=us(form.turns_at),
    )


def _amount(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    return sign * millionths(text.removeprefix("-"), "budget")


def error_of(document: Mapping[str, Any]) -> OutlastError:
    """Rebuild the error that a problem tells: the same class, the same four parts."""
    kind = KINDS.get(str(document.get("code")), InternalError)
    error = kind.__new__(kind)
    OutlastError.__init__(
        error,
        str(document.get("detail", "the server refused it, and did not say why")),
        where=str(document.get("where", "")),
        why=str(document.get("why", "")),
        do="\n".join(map(str, document.get("do", ()))),
    )
    further = {
        "state": document.get("state", ""), "refusal": document.get("refusal", ""), "kind": "",
        "status": document.get("status", 400), "retry_after_seconds": 1,
        "size_bytes": 0, "bytes_max": 0,
    }  # fmt: skip
    for name, value in further.items():
        if not hasattr(error, name):
            setattr(error, name, value)
    return error
