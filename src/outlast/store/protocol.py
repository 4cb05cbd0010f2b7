"""The contract between the engine and a store: batch verbs on durable state.

A store is a log of transitions per execution, a row per execution that the log folds to, and an
inbox per execution. It never decides by itself: what a verb writes is what ``lifecycle.decide``
says about records read in the same transaction, or what the lease's owner decided and the store
accepts by compare-and-set.

Refusals are answers, not errors: a refused item leaves the rest of its batch alone. Errors are
for the world (``StoreUnavailable`` and its kin) and for bugs of ours (``InternalError``).

Verbs block; the engine calls the writing ones from the commit pipeline's own thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from outlast.lifecycle import Event, Execution, Message, State, Transition
from outlast.store.epoch import Epochs
from outlast.store.webhooks import Webhooks

if TYPE_CHECKING:  # only who has to do with them loads them
    from outlast.access.audit import AuditRow, Deed
    from outlast.access.decide import Grant
    from outlast.access.record import Held, Session, Token, User
    from outlast.schedule import Entry, Request, ScheduleRecord, ScheduleState
    from outlast.store.keys import DataKey

DEFAULT_TENANT = "default"
"""The tenant that is always there, and administers the others."""
DEFAULT_NUMBER = 1
"""Its number."""

ENDS_MAX = 100_000
"""Executions, the newest, among which an id is looked for by its end."""

SUSPECT = 3
"""After so many claims in a row that led to nothing an execution is run apart from its like: their
worker has died each time, by one of them or by none, and alone the innocent make progress."""


class Create(msgspec.Struct):
    """Bring an execution into the world, perhaps with its first claim and start.

    The rows are those of its birth and what follows at once; ``after`` is what they fold to, a
    copy of its own.
    With a key that is taken, nothing is written and the answer names the execution that has it. One
    that depends on others (``waits_on`` in the data of its birth) is refused as ``no_upstream``
    where one of them is not there; those that have ended already are told to it at once.
    ``deed``, for what somebody does from outside, goes into the audit with it.
    """

    after: Execution
    rows: list[Transition]
    deed: Deed | None = None


class CreateMany(msgspec.Struct):
    """Bring executions of one task into the world that differ by their inputs alone: all, or none.

    They wait in their queue and have nothing but what all have: no key, gate, label, budget or
    clock, and nobody that they depend on. They come before all else in their batch. Where one of
    them is there already, none is written, and the item is refused as ``already_exists``.

    Attributes:
        birth: the event of each; without the input and the digest of the input, which are its own.
        at: when they are born.
        ids, payloads, digests: what each is called, its input, and the digest of that.
        deed: as for :class:`Create`, for each.
    """

    birth: Event
    at: int
    ids: list[str]
    payloads: list[bytes]
    digests: list[int]
    deed: Deed | None = None


ALIKE: Final = frozenset(("task", "queue", "priority", "version", "attempt_timeout_us"))
"""The facts that births may have which are written together."""


def are_alike(birth: Event) -> bool:
    """Tell whether executions born by this event have nothing but what all have."""
    facts = birth.data or {}
    return "task" in facts and facts.keys() <= ALIKE


class Write(msgspec.Struct):
    """Rows that the owner of a lease decided on the record it knew.

    Attributes:
        id: the execution.
        fence, nonce, seq: what the stored row must show.
        rows: the rows, in order.
        position: what they leave in ``seq``, ``idle_claims``, ``inbox_seen`` and ``updated_at``.
        after: the whole record they leave, a copy of its own; None when only the position
            changed (steps and most notes).
        inbox_seen: for a decision that gives up the lease: how many messages it has seen, so that
            none is overlooked; None: no matter.
        births: executions that are born with these rows, or not at all; they have no keys, and
            what is written to them comes in a later batch.
        sends: messages to others that go out with these rows; one that is refused is dropped.
        charge: what was spent with these rows, and which reservations end; never refused.
        emits: what goes into its streams with these rows, or by itself where there are none; what
            is there already is passed over.
        progress: how far it says it is; the latest counts.
    """

    id: str
    fence: int
    nonce: bytes | None
    seq: int
    rows: list[Transition]
    position: tuple[int, int, int, int]
    after: Execution | None = None
    inbox_seen: int | None = None
    births: Sequence[Create] = ()
    sends: Sequence[Deliver] = ()
    charge: Charge | None = None
    emits: Sequence[Emission] = ()
    progress: ProgressRow | None = None


class Emission(msgspec.Struct):
    """A value for a stream of an execution.

    Attributes:
        name: of the stream.
        part: its number among those of the same try, from 1, gap-free.
        at: when it was said.
        payload: the value, as JSON.
        step: the key of the step whose body says it; "" is the task's own code.
        attempt: the how-manieth try of the step, or of the whole task, it is.
        lease: the fence under which the step's body ran; 0 for task code, which says the same
            again wherever it is replayed.
    """

    name: str
    part: int
    at: int
    payload: bytes
    step: str = ""
    attempt: int = 1
    lease: int = 0


LOGS = "outlast:logs"
"""The stream that holds what code logs. Unlike others it may have gaps between its parts, as lines
may be added to code; and it is cut at so many items, the last of which says so."""
LOG_LINES_MAX = 10_000


class StreamItem(msgspec.Struct, frozen=True):
    """An item of a stream.

    Attributes:
        name, number: the stream, and the item's place there, from 1, gap-free.
        step, attempt, lease, part, at, payload: as in :class:`Emission`.
    """

    name: str
    number: int
    step: str
    attempt: int
    lease: int
    part: int
    at: int
    payload: bytes

    @property
    def is_anew(self) -> bool:
        """Whether a try begins with it: what an earlier try of the same said is outdated."""
        return self.part == 1

    @property
    def value(self) -> Any:
        """The value."""
        return msgspec.json.decode(self.payload)


class StreamHead(msgspec.Struct, frozen=True):
    """A stream: its name, how many items it has, and when the last one came."""

    name: str
    count: int
    at: int


class ProgressRow(msgspec.Struct, frozen=True):
    """How far an execution says it is.

    Attributes:
        at: when it said so.
        done, total: what is done, and of how much, where that is known.
        text: a remark.
        step: the key of the step that says so; "" is the task's own code.
    """

    at: int
    done: float
    total: float | None = None
    text: str | None = None
    step: str = ""


class Charge(msgspec.Struct):
    """What rows of a log charge to budgets, which know of nothing that no row says.

    Attributes:
        amounts: what was spent, in millionths, by the budget's name; a budget that is not there is
            passed over.
        settled: the keys of the reservations that end with it.
        ends: which others end: those of ``bodies``, with the lease; ``all``, with the history.
        awaits: the budget that the execution is suspended for.
    """

    amounts: Mapping[str, int]
    settled: Sequence[str] = ()
    ends: str | None = None
    awaits: str | None = None


class Reserve(msgspec.Struct):
    """Set amounts aside for what an execution is about to do; by the owner of its lease.

    Refused as ``over_budget`` where one of them does not fit: what is spent and reserved already,
    and this, may not exceed the limit. Asked again under the same key, it changes nothing.

    Attributes:
        execution_id, fence, nonce: the execution, and the lease.
        key: the call it is for; with it the reservation is settled.
        amounts: in millionths, by the budget's name; a budget that is not there has no limit.
        outlives: whether it outlives the lease, as one of task code does.
        deed: none; nobody does it from outside.
    """

    execution_id: str
    fence: int
    nonce: bytes | None
    key: str
    amounts: Mapping[str, int]
    outlives: bool = False
    deed: None = None


class Adjust(msgspec.Struct):
    """Set, raise or reset budgets of one scope.

    Refused as ``no_budget`` where one that shall be raised or reset is not there; those of an
    execution itself are there from its birth, or never. Where the scope
    is an execution that has not ended, its log says so as well.

    Attributes:
        what: ``set``, ``raised`` or ``reset``.
        amounts: by meter: the limit (None: none, it only counts), or by how much it is raised.
        soft: the soft share of the limit, in millionths; only for ``set``.
        period_us: how often it begins anew; only for ``set``.
        actor, now: who changes it, and when.
        id: the same change, sent again, changes nothing.
        deed: what goes into the audit with it.
    """

    scope: str
    what: str
    amounts: Mapping[str, int | None]
    actor: str
    now: int
    id: str
    soft: int | None = None
    period_us: int | None = None
    deed: Deed | None = None


class Offer(msgspec.Struct):
    """A free slot for the execution that a message wakes, so that it need not wait for a claim.

    It is taken only where a claim could but give the execution to this worker, and at once: see
    :func:`outlast.store.admission.at_once`.

    Attributes:
        lease: who offers it.
        tasks: what it can run.
        nonce: of the lease, if it comes to that.
    """

    lease: Lease
    tasks: Collection[str]
    nonce: bytes


class Deliver(msgspec.Struct):
    """A message for an execution; what it does is decided on the row as it is then.

    ``deed``, for what somebody sends from outside, goes into the audit with it. With ``only_if`` it
    is refused (``stale``) where the row's ``seq`` and ``inbox_count`` are others by then. With an
    ``offer``, what it wakes is claimed with it, if no claim has to be asked.
    """

    execution_id: str
    message: Message
    now: int
    deed: Deed | None = None
    only_if: tuple[int, int] | None = None
    offer: Offer | None = None


Item = Create | CreateMany | Write | Deliver | Reserve | Adjust
Heard = Callable[[Sequence[Transition], Sequence[Execution]], None]
"""Hears of rows that were committed, and of the executions that have ended with them."""


class BudgetRow(msgspec.Struct):
    """A budget: a limit on one meter for one scope. Amounts are in millionths.

    Attributes:
        limit: the hard limit; None for one that only counts.
        soft: the share of the limit at which a threshold event is recorded, in millionths.
        charged: all that was ever charged to it.
        charged_before: what of it was charged before the last reset, or turn of the period.
        purged: what of it was charged by executions that have been deleted.
        reserved: what is set aside.
        period_us, turns_at: how often it begins anew, and when next.
        soft_at, spent_up_at: since when it is over its soft limit, and since when nothing is left.
        event_count: how many events it has had.
        stirred: whether somebody who waits for it may go on.
    """

    scope: str
    meter: str
    limit: int | None = None
    soft: int | None = None
    charged: int = 0
    charged_before: int = 0
    purged: int = 0
    reserved: int = 0
    period_us: int | None = None
    turns_at: int | None = None
    soft_at: int | None = None
    spent_up_at: int | None = None
    event_count: int = 0
    stirred: bool = False

    @property
    def name(self) -> str:
        """The scope and the meter, as ``task:fulfil:usd``."""
        return f"{self.scope}:{self.meter}"

    @property
    def spent(self) -> int:
        """What was charged since the last reset, or turn of the period."""
        return self.charged - self.charged_before

    @property
    def left(self) -> int | None:
        """What is neither spent nor set aside; negative where more was spent; None: no limit."""
        return None if self.limit is None else self.limit - self.spent - self.reserved


class BudgetEvent(msgspec.Struct):
    """Something that happened to a budget.

    Attributes:
        name, number: the budget, and the event's number there, from 1.
        what: ``set``, ``raised``, ``reset``, ``turned`` (its period), ``soft`` (the soft limit was
            reached) or ``spent_up`` (nothing is left); the last two once for each time.
        execution_id: whose charge led to it, or None.
        limit, spent: what they were then.
        id: of the change that it was, or None.
    """

    name: str
    number: int
    what: str
    actor: str
    at: int
    execution_id: str | None
    limit: int | None
    spent: int
    id: str | None = None


class Reservation(msgspec.Struct):
    """An amount that an execution has set aside of a budget, for the call with this key."""

    execution_id: str
    key: str
    name: str
    amount: int
    outlives: bool = False


class InboxEntry(msgspec.Struct):
    """A message in an execution's inbox, with its number there (from 1, gap-free)."""

    number: int
    message: Message
    at: int


class Answer(msgspec.Struct):
    """What became of an item.

    Attributes:
        refused: None when it was stored, else why not: ``fenced``, ``moved``, ``already_exists``,
            ``key_conflict``, ``already_final``, ``already_answered``, ``not_asked``,
            ``no_execution``, ``no_upstream``, ``over_budget``, ``no_budget``, ``tenant_closed``,
            or another refusal of the lifecycle.
        execution: the record after the item, or as it was found; None for a stored write.
        error: the bug behind a refusal ``internal_error``.
        entry: what a delivery put into the inbox; None where it was refused or had come before.
        told: whom the item told something besides, as a parent hears of its child's end: each with
            its record after it and the entry in its inbox.
        owes: whether it left errands to others, or room in a budget that somebody waits for: the
            next sweep sees to it.
        budgets: the budgets that the item touched, or was refused for, after it.
        unclaimed: the executions whose claim and start came with their birth and were not stored,
            as their gates or their queue ask for a claim; they are there, and ``queued``.
        claimed: the execution that a delivery has woken, claimed for whoever made the offer;
            ``execution`` is what it was before that.
    """

    refused: str | None = None
    execution: Execution | None = None
    error: Exception | None = None
    entry: InboxEntry | None = None
    told: Sequence[tuple[Execution, InboxEntry]] = ()
    owes: bool = False
    budgets: Sequence[BudgetRow] = ()
    unclaimed: Sequence[str] = ()
    claimed: Claimed | None = None


STORED = Answer()
"""The answer to a write that went through; shared, as it says nothing more."""


class Claimed(msgspec.Struct):
    """An execution that was claimed: its row, its first row of the log, its unseen messages.

    ``log`` is all of it where it was read with the claim.
    """

    execution: Execution
    birth: Transition
    unseen: list[InboxEntry] = msgspec.field(default_factory=list)
    log: list[Transition] | None = None


class Claims(list[Claimed]):
    """What a claim has given.

    Attributes:
        is_held_back: whether a full queue may have kept something from being claimed; a hint.
        is_unfinished: whether there was more to examine than one transaction takes.
        opens_at: when the first of the rates opens that were found closed, or None.
        is_apart: whether some were left for later, as their workers have died several times: one of
            them may be the reason, so a worker runs one of those at a time.
    """

    is_held_back = False
    is_apart = False
    is_unfinished = False
    opens_at: int | None = None


class Lease(msgspec.Struct, frozen=True):
    """Who claims: a process incarnation, and how often a claim may show no progress.

    Attributes:
        worker: the incarnation.
        idle_claims_max: claims in a row without progress after which it is a crash loop.
        queues: the queues it takes from; None for all.
        capabilities: what it offers.
        has_suspect: whether it runs one that may be about to kill it, see :class:`Claims`.
    """

    worker: str
    idle_claims_max: int = 5
    queues: frozenset[str] | None = None
    capabilities: frozenset[str] = frozenset()
    has_suspect: bool = False


class Setting(msgspec.Struct, frozen=True):
    """What an operator has set for a gate, or for all gates of a family.

    Attributes:
        gate: the name, as in ``fulfil``, ``fulfil:ada`` or ``rate:mail``.
        capacity: how many may hold it; of a rate: how many at once after a rest.
        interval_us: of a rate: at most one dispatch each so many microseconds.
        by: who set it.
        at: when.
    """

    gate: str
    capacity: int
    interval_us: int | None
    by: str
    at: int


class QueueSetting(msgspec.Struct, frozen=True):
    """What an operator has set for a queue.

    Attributes:
        name: the queue.
        capacity: how many of its executions may be leased at once; None for any number.
        paused_at: since when nothing is claimed from it, or None.
        paused_by, why: who paused it, and why.
    """

    name: str
    capacity: int | None = None
    paused_at: int | None = None
    paused_by: str | None = None
    why: str | None = None


class QueueRow(msgspec.Struct, frozen=True):
    """A queue that has a setting, or open executions that wait or run.

    Attributes:
        setting: what is set for it.
        queued, blocked, leased: how many of its executions are in which state.
        waiting_since: since when the oldest of those that wait does, or None.
    """

    setting: QueueSetting
    queued: int = 0
    blocked: int = 0
    leased: int = 0
    waiting_since: int | None = None


class QueueCount(msgspec.Struct, frozen=True):
    """How much there is in a queue.

    Attributes:
        queued, leased: how many of its executions wait to be claimed, and are run.
        turn_at: since when the next one waits, a minute earlier for each step of its priority
            (``lifecycle.gate.turn_of``); None where none does.
    """

    queued: int = 0
    leased: int = 0
    turn_at: int | None = None


class Census(msgspec.Struct, frozen=True):
    """How many executions there are, those that have ended as well.

    Attributes:
        states: by state; one that is not named has none.
        queues: by queue; only those in which something waits or runs.
    """

    states: Mapping[State, int]
    queues: Mapping[str, QueueCount]


class Health(msgspec.Struct, frozen=True):
    """What a store says of itself to whoever examines it.

    Attributes:
        facts: what the backend knows, by name: settings, sizes in bytes, spans in microseconds;
            what it does not have is not there. ``memory:`` has none.
        overdue: how many executions the clock should have moved before an instant, up to 1,000.
        overdue_since: since when the first of them is due, or None.
    """

    facts: Mapping[str, str | int]
    overdue: int = 0
    overdue_since: int | None = None


class GateRow(msgspec.Struct, frozen=True):
    """A gate that has a setting, holders or executions that wait at it.

    Attributes:
        gate: its name.
        setting: what is set for just this name.
        holders: who holds it, where it is a limit.
        waiting: how many wait.
        next_id: who is next, or None.
    """

    gate: str
    setting: Setting | None
    holders: Sequence[str]
    waiting: int
    next_id: str | None


class Standing(msgspec.Struct, frozen=True):
    """Where an execution that waits for a worker stands.

    Attributes:
        gate: the gate whose line it stands in; None for its queue.
        place: its place in that line, from 1.
        holders: who holds the gate; for a queue with a limit, who runs in it.
        queue: what is set for its queue.
        capacity: how many may hold the gate, as it is now; None where it is no limit.
    """

    gate: str | None
    place: int
    holders: Sequence[str]
    queue: QueueSetting
    capacity: int | None = None


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which executions are meant; all that is given must hold. Newest first, by id.

    Attributes:
        states: they are in one of these; empty: in any.
        task: of this task.
        origin: started by this.
        input_digest: with this input.
        created_after: created at this instant or later, in microseconds since 1970.
        created_before: created at this instant or earlier.
        labels: with all these labels.
        parent_id: children of this execution.
        roots: only those that no other execution made.
        before_id: with smaller ids than this: the next page.
        from_id: with this id, or greater ones.
        limit: how many, at most.
    """

    states: tuple[State, ...] = ()
    task: str | None = None
    origin: str | None = None
    input_digest: int | None = None
    created_after: int | None = None
    created_before: int | None = None
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    parent_id: str | None = None
    roots: bool = False
    before_id: str | None = None
    from_id: str | None = None
    limit: int = 50


class Part(msgspec.Struct, frozen=True):
    """As much of a list as a bounded look has found.

    Attributes:
        found: executions, the newest first: all that fit above ``before_id``, up to the limit.
        before_id: where the next part begins, if there may be one. It need not be the id of one
            that was found, nor of one that whoever asks may see.
    """

    found: list[Execution]
    before_id: str | None


class Descent(msgspec.Struct, frozen=True):
    """Of which execution another one was made, how, and from which step on."""

    id: str
    source_id: str
    mode: str
    step: str | None = None


class Service(msgspec.Struct, frozen=True):
    """What a worker offers.

    Attributes:
        tasks: the tasks it knows, in order.
        versions: the versions of tasks it knows, as (task, version).
        queues: the queues it takes from, in order; None for all.
        capabilities: what it offers besides, in order.
        slots: how many executions it holds at once; 0: unknown.
    """

    tasks: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    queues: tuple[str, ...] | None = None
    capabilities: tuple[str, ...] = ()
    slots: int = 0


class WorkerRow(msgspec.Struct, frozen=True):
    """A process incarnation that serves, or served, this store.

    A lease belongs to it, not to its executions: one row, one renewal, however many it runs. The
    store's own clock judges; a row that is not there counts as expired.

    Attributes:
        id: the incarnation; never used again.
        host, pid: the process.
        started_at, seen_at: when it began, and was heard of last.
        lease_us: how long its lease is after each renewal; None where it needs none, as a lock
            proves that no other engine has the store.
        expires_at: when its lease runs out; None without one.
        state: ``active``, ``draining`` (it claims no more), ``left`` (by itself), or ``lost`` (its
            lease ran out, and its executions were taken over).
        service: what it offers.
        leased: how many executions it holds; only told when it is listed.
    """

    id: str
    host: str
    pid: int
    started_at: int
    seen_at: int
    lease_us: int | None = None
    expires_at: int | None = None
    state: str = "active"
    service: Service = Service()
    leased: int = 0

    @property
    def is_serving(self) -> bool:
        """Whether it has neither left nor been lost."""
        return self.state in ("active", "draining")


class Renewal(msgspec.Struct, frozen=True):
    """The answer to a renewal that came in time.

    Attributes:
        unread: the executions it holds that have messages it has not taken.
        at: the instant by the store's clock, between the asking and the answer.
        serving: how many workers have a lease that runs, this one included.
    """

    unread: Sequence[str] = ()
    at: int = 0
    serving: int = 1


class Inside(msgspec.Struct, frozen=True):
    """How to write inside a transaction of the caller's own, through its connection.

    Attributes:
        check: raises where the connection cannot be used; tells whether to begin a transaction.
        birth: writes a birth; the connection's lock is held by the caller.
    """

    check: Callable[[Any], bool]
    birth: Callable[[Any, Create], Answer]


class Hints(Protocol):
    """Words between processes that something may have changed.

    One may be lost, come twice or late; nothing that must be right depends on any. Topics:

    - ``work``: there may be something to claim, or an instant for the clock;
    - ``inbox``: an execution that a worker holds has a message;
    - ``ended``: an execution has ended for which somebody may wait.
    """

    def send(self, topic: str) -> None:
        """Tell the other processes, soon, and together with what else there is to tell.

        Never waits, never fails; from any thread.
        """

    def close(self) -> None:
        """Tell and hear nothing more."""


class Verdict(msgspec.Struct):
    """What ``verify`` found: how much it checked, and every defect as a sentence."""

    executions: int = 0
    transitions: int = 0
    messages: int = 0
    defects: list[str] = msgspec.field(default_factory=list)


class Ended(msgspec.Struct):
    """An execution that has ended, as far as its deletion goes."""

    id: str
    task: str
    state: State
    ended_at: int


class ScheduleAnswer(msgspec.Struct):
    """What became of a request to a schedule.

    Attributes:
        refused: None when it was fulfilled, else why not; one of ``schedule.REFUSALS``.
        record: the row after it, or as it was found.
        made: the executions that were made by it, by id.
        cancelled: those that were sent a cancel.
        more: whether there is more to advance at this instant.
        error: the fault behind a refusal ``internal_error``.
    """

    refused: str | None = None
    record: ScheduleRecord | None = None
    made: list[str] = msgspec.field(default_factory=list)
    cancelled: list[str] = msgspec.field(default_factory=list)
    more: bool = False
    error: Exception | None = None


class Schedules(Protocol):
    """The verbs on schedules. Every verb is one transaction."""

    def apply(
        self, name: str, request: Request, now: int, deed: Deed | None = None
    ) -> ScheduleAnswer:
        """Decide a request (``schedule.decide``) and write what it does.

        The schedule's row and log, the executions it makes and the cancels it sends are one
        transaction. Of several that advance the same row, one is first and the others are refused
        as ``moved``. An execution whose key or id is there already is not made again.
        """

    def apply_all(self, requests: Sequence[tuple[str, Request]], now: int) -> list[ScheduleAnswer]:
        """Decide requests to several schedules, as :meth:`apply` does, in one transaction.

        One that cannot be decided or written (its time zone is gone, or a bug of ours) is answered
        with ``internal_error``, and the others are as if it were not there.

        Raises:
            StoreUnavailable: nothing of it may be taken as written or as not written.
        """

    def get(self, name: str) -> ScheduleRecord | None:
        """Read a schedule."""

    def page(
        self, states: Sequence[ScheduleState] = (), after: str = "", limit: int = 1_000
    ) -> list[ScheduleRecord]:
        """List schedules by name, those after one."""

    def due(self, now: int, limit: int) -> tuple[list[tuple[str, int]], int | None]:
        """Give the schedules to advance, with the seq of each, and the next instant of any.

        Those whose instant has come, by instant, and those of which a slot waits and may go.
        """

    def log(self, name: str, before: int | None = None, limit: int = 100) -> list[Entry]:
        """Read a schedule's log, the newest entry first, those before one."""

    def fate(self, name: str, slot: int) -> list[Entry]:
        """Give the entries of a log that are about a slot, the newest first."""

    def prune(self, before: int, limit: int) -> int:
        """Delete old entries of all logs, but for the newest of each; gives how many."""

    def defects(self) -> list[str]:
        """Say which rows do not stand at the end of their logs."""


class Tenant(msgspec.Struct, frozen=True):
    """Whom rows belong to; every key begins with its number.

    Attributes:
        number: its own in this store, from 1; never used again.
        name: what people call it.
        created_at: when it was made; 0 for the one that is always there.
        closed_at: since when nothing is started or claimed in it, or None.
    """

    number: int
    name: str
    created_at: int = 0
    closed_at: int | None = None


class Tenants(Protocol):
    """The verbs on tenants: the only ones that see more than one. Each is one transaction.

    A deed goes into the audit of the tenant whose store this is.
    """

    def page(self) -> list[Tenant]:
        """List the tenants, by number."""

    def get(self, name: str) -> Tenant | None:
        """Read a tenant."""

    def add(self, name: str, now: int, deed: Deed | None = None) -> bool:
        """Add a tenant; gives whether the name was free."""

    def close(self, name: str, at: int | None, deed: Deed | None = None) -> bool:
        """Close a tenant, or with None open it again; gives whether that has changed anything.

        In a closed one nothing is claimed, no schedule fires, and a :class:`Create` is refused as
        ``tenant_closed``; what runs goes on until it gives up its lease. The default one is never
        closed.
        """


class Capacity(Protocol):
    """The verbs on queues and gates. Every verb is one transaction."""

    def queues(self) -> list[QueueRow]:
        """List the queues, by name."""

    def set_queue(self, setting: QueueSetting, deed: Deed | None = None) -> None:
        """Set what holds for a queue, from the next claim on."""

    def gates(self, limit: int = 1_000) -> list[GateRow]:
        """List the gates, by name."""

    def set_gate(self, setting: Setting, deed: Deed | None = None) -> None:
        """Set what holds for a gate, or a family of gates, and let those who wait look again."""

    def reset_gate(self, gate: str, deed: Deed | None = None) -> bool:
        """Take a setting back; gives whether there was one."""

    def queue(self, name: str) -> QueueSetting:
        """Give what is set for a queue."""

    def standing(self, id: str) -> Standing | None:
        """Say where an execution stands; None for one that waits for no worker."""

    def defects(self) -> list[str]:
        """Say where the indexes of holders and lines are not what the executions' rows say."""


class Access(Protocol):
    """The verbs on users, tokens, grants and the audit. Every verb is one transaction.

    Each change comes with its deed, and the audit's row is written with it. One that changes
    nothing leaves nothing.
    """

    def add_user(self, user: User, deed: Deed) -> bool:
        """Add a user; gives whether the name was free."""

    def users(self) -> list[User]:
        """List the users by name."""

    def user(self, name: str) -> User | None:
        """Read a user."""

    def set_password(self, name: str, password: str, deed: Deed) -> bool:
        """Set what a password was made into, and end the user's sessions; gives whether there."""

    def disable(self, name: str, at: int | None, deed: Deed) -> bool:
        """Disable a user, and end the sessions; or with None let the user sign in again.

        Gives whether that has changed anything.
        """

    def give(self, held: Held, deed: Deed) -> bool:
        """Grant a role; gives whether it was not there."""

    def take_back(self, subject: str, grant: Grant, deed: Deed) -> bool:
        """Take a grant back; gives whether it was there."""

    def held(self, subjects: Collection[str] | None = None) -> list[Held]:
        """List the grants of these holders, by default of all, by holder."""

    def add_token(self, token: Token, deed: Deed) -> bool:
        """Add a token; gives whether its id was free."""

    def tokens(self) -> list[Token]:
        """List the tokens, the newest first."""

    def token(self, id: str) -> Token | None:
        """Read a token."""

    def revoke_token(self, id: str, at: int, deed: Deed) -> bool:
        """Let a token count no more; gives whether it did."""

    def use_token(self, id: str, at: int) -> None:
        """Note when a token was used."""

    def open_session(self, session: Session, password: str, attempt: bytes, deed: Deed) -> bool:
        """Let a user be signed in, and forgive the failures under this name.

        Sessions whose time is over are deleted on the way.

        Args:
            session: the session.
            password: what was stored of the password when it was looked at.
            attempt: the digest under which the sign-in was counted.
            deed: who does it.

        Returns:
            False, and nothing was written, where the user has another password by now, is disabled,
            or is not there.
        """

    def session(self, digest: bytes) -> Session | None:
        """Read a session."""

    def see_session(self, digest: bytes, at: int) -> None:
        """Note when a session was used."""

    def end_session(self, digest: bytes, deed: Deed) -> bool:
        """End a session; gives whether it was there."""

    def attempt(self, digest: bytes, now: int) -> int:
        """Count a sign-in as failed before it is tried; gives for how long it must wait instead.

        Args:
            digest: of the name that it is under, and of where it comes from.
            now: the instant.

        Returns:
            0, or in how many microseconds it may be tried; then nothing was counted.
        """

    def audit(
        self,
        after: int | None = None,
        limit: int = 100,
        *,
        newest: bool = False,
        target: str | None = None,
        by: str | None = None,
    ) -> list[AuditRow]:
        """Read the audit, behind a row, from its beginning; or the newest first, before a row."""

    def audit_head(self) -> tuple[int, bytes]:
        """Give the number and the digest of the last row."""

    def defects(self) -> list[str]:
        """Follow the audit's chain from its beginning, and say what does not fit."""


class FeedHead(msgspec.Struct, frozen=True):
    """How far the feed goes.

    Attributes:
        name: drawn when it was begun; positions say nothing in one of another name.
        pruned: the last position that is kept no more.
        last: the last position there is.
        read_at: when it was followed last.
        is_unsettled: whether there are rows that have no position yet.
        is_whole: whether every row from its beginning on is in it, or will be.
    """

    name: str
    pruned: int
    last: int
    read_at: int
    is_unsettled: bool = False
    is_whole: bool = True


class FeedRow(msgspec.Struct, frozen=True):
    """A row of a log, at its position in the feed.

    Attributes:
        position: its place; later rows have larger ones.
        execution_id, seq: the row.
        transition: it, without its payload where that was not asked for; None: purged since.
        task: the execution's task; None: purged since.
        labels: the execution's labels, as they are now.
    """

    position: int
    execution_id: str
    seq: int
    transition: Transition | None
    task: str | None
    labels: Mapping[str, str]


def labels_of(facts: Mapping[str, object] | None) -> Mapping[str, str]:
    """Give labels as an execution's row has them."""
    return {} if facts is None else {name: str(value) for name, value in facts.items()}


class Feed(Protocol):
    """The verbs on the feed: the rows of all logs, in the order in which they can be seen.

    Every verb is one transaction. A row has one position for good, the same for whoever reads; of
    one execution they come in the order of its log. It is kept from its first ``follow`` on.
    """

    def head(self) -> FeedHead | None:
        """Say how far it goes; None where nobody follows it."""

    def follow(self, drawn: str, now: int) -> None:
        """See that it is kept, under the name ``drawn`` where it is begun, and note who reads.

        A writing verb.
        """

    def settle(self) -> int:
        """Give positions to rows that have none; gives to how many. A writing verb."""

    def read(self, after: int, limit: int, *, payload: bool = False) -> list[FeedRow]:
        """Read it from behind a position on."""

    def hold_export(self, holder: str, now: int, until: int) -> int | None:
        """Be the one who hands all of it on, until an instant, and then until it is asked again.

        Gives the position up to which that was done; None while somebody else does it, or there is
        no feed. A writing verb.
        """

    def note_exported(self, holder: str, position: int, until: int) -> bool:
        """Note how far it was handed on, and go on doing it; False: somebody else does it now.

        A writing verb.
        """

    def prune(self, before: int, limit: int) -> int:
        """Forget, from its beginning, rows that were recorded before an instant.

        What a webhook has not come to stays for ``webhooks.HELD_BACK_US`` longer. Gives how many,
        at most ``limit``. A writing verb.
        """

    def end(self, before: int) -> bool:
        """Keep it no more if nobody has followed it since an instant, and there is no webhook.

        A writing verb.
        """


class Resealed(msgspec.Struct, frozen=True):
    """What a call of :meth:`Sealing.seal_anew` has done.

    Attributes:
        looked: values that were looked at.
        sealed: those of them that were sealed.
    """

    looked: int
    sealed: int


class Sealing(Protocol):
    """The verbs on an encrypted store's keys. Every verb is one transaction."""

    def data_keys(self) -> list[DataKey]:
        """List the data keys, as they are kept: wrapped."""

    def wrap_anew(self, deed: Deed) -> int:
        """Wrap all data keys by the current key; gives how many. Older keys are needed no more."""

    def draw_anew(self, now: int, deed: Deed) -> int:
        """Draw another data key, which seals from now on; gives its number."""

    def seal_anew(self, limit: int) -> Resealed:
        """Look at up to so many values that the newest data key has not sealed, and seal them.

        Also those in the clear. Facts with nothing to seal in them are looked at as well. When
        none was looked at, there is nothing left; a kill between two calls, or in one, loses
        nothing.
        """

    def finish(self, deed: Deed) -> None:
        """Refuse from now on what is in the clear; for an owner, when all is sealed anew."""


class Store(Protocol):
    """Durable state of one tenant. Every verb is one transaction.

    Attributes:
        url: its address.
        tenant: the number of the tenant whose rows it reads and writes, and no others.
        is_shared: whether many engines may hold leases in it at once. Else having it open as its
            owner proves that every earlier one is dead.
    """

    url: str
    tenant: int
    is_shared: bool

    @property
    def tenants(self) -> Tenants:
        """The verbs on tenants."""

    @property
    def access(self) -> Access:
        """The verbs on users, tokens, grants and the audit."""

    @property
    def epochs(self) -> Epochs:
        """The verbs on epochs: what happens where a store goes back in time."""

    @property
    def sealing(self) -> Sealing | None:
        """The verbs on keys; None where payloads are plain."""

    @property
    def feed(self) -> Feed:
        """The verbs on the feed."""

    @property
    def webhooks(self) -> Webhooks:
        """The verbs on webhooks."""

    @property
    def capacity(self) -> Capacity:
        """The verbs on queues and gates."""

    @property
    def schedules(self) -> Schedules:
        """The verbs on schedules."""

    def commit(self, batch: Sequence[Item]) -> list[Answer]:
        """Write a batch in one transaction and give each item its answer, in order.

        Stored items are durable when this returns. Items of one execution apply in order; after a
        refused one the later ones of that execution are refused as well.

        Raises:
            StoreUnavailable: nothing of the batch may be taken as written or as not written.
        """

    def claim(
        self,
        lease: Lease,
        tasks: Collection[str],
        limit: int,
        now: int,
        nonces: Sequence[bytes],
        versions: Collection[tuple[str, str]] = (),
    ) -> Claims:
        """Claim up to ``limit`` executions of these tasks, in the order of their turn (T06).

        A turn comes by priority and waiting time together (``lifecycle.gate.turn_of``). Taken are
        those that are ``queued``, and those ``blocked`` ones whose gate has opened; one whose gate
        is closed is moved to ``blocked`` (T04), or from one gate to another (T05, T04). Paused and
        full queues are passed over.

        One that is pinned (``gates["version"]``) only if its task and version are in ``versions``.

        One whose claims without progress are used up is suspended as ``crash_loop`` instead.
        """

    def sweep(self, now: int, limit: int) -> tuple[int, int | None]:
        """Move what the clock moves: promote (T03), resume (T16), retry_due (T23), deadline (T29).

        Budgets whose period is over begin anew, and executions that are suspended for one which
        has room again are resumed (T16).
        Before that it runs errands: what executions that have ended owe to their open children,
        and to those that depend on them. At most ``limit`` of both: errands as they came up, then
        executions past their deadline, then by the time they were due.

        Returns:
            How many executions moved, and the next instant at which one will be due.
        """

    def recover(self, dead: Collection[str] | None, alive: str, now: int, limit: int) -> int:
        """Take the executions of dead workers back (T08, T09 then T23); gives their number.

        ``dead`` None means every worker but ``alive``. One whose lease has not run out by the
        store's clock, in this very transaction, is passed over, whoever takes it for dead; one that
        has is ``lost`` from here on. Of two that recover at once, one may give 0 and leave it to
        the other.
        """

    def register(self, worker: WorkerRow) -> int:
        """Note that a process incarnation serves this store.

        With ``lease_us`` its lease begins now, by the store's clock. Registered again, only when it
        was seen changes.

        Returns:
            How many workers have a lease that runs, as :class:`Renewal` says.
        """

    def renew(
        self, worker: str, lease_us: int, now: int, *, draining: bool = False
    ) -> Renewal | None:
        """Let a lease run for so long from now on, by the store's clock.

        It goes out on a connection of its own: it waits for no other verb, nor for what holds one
        up. For one thread at a time.

        Returns:
            None if it came too late, or there is no such worker: it has none of its leases any
            more, and needs a new name.
        """

    def leave(self, worker: str, now: int) -> None:
        """Note that an incarnation is over; what it holds, if anything, may be taken over."""

    def expired(self, now: int, *, thorough: bool = False) -> list[str]:
        """Name the workers whose leases have run out and who are not ``lost`` yet.

        ``thorough``: all that hold executions and have no lease that runs, in any state, or no row.
        """

    def forget_workers(self, before: int) -> int:
        """Delete those that have left or were lost and were seen last before an instant."""

    def workers(self, limit: int = 100) -> list[WorkerRow]:
        """Give the known process incarnations: those that serve, then the others, newest first."""

    def hurry(self, is_on: bool) -> None:
        """Bear no long silence from now on, or again; any thread, also while another one waits.

        A process whose lease is over has nothing to lose by giving up what it waits for: that is
        refused anyway. What was given up is as what broke: of a commit nobody knows.
        """

    def hints(self, heard: Callable[[str], None]) -> Hints | None:
        """Hear words of other processes from here on, and send some; None where there are none.

        Args:
            heard: is told the topic of each, from any thread.
        """

    def get(self, ids: Sequence[str]) -> list[Execution | None]:
        """Read executions by id, in order."""

    def find(self, text: str, limit: int) -> list[str]:
        """Give up to ``limit`` ids that begin with this text; else newer ones that end with it.

        Ends are looked for among the newest :data:`ENDS_MAX`: whoever means an older one, names
        how it begins.
        """

    def with_key(self, key: str) -> Execution | None:
        """Read the execution that was submitted under this key."""

    def page(self, filter: Filter) -> list[Execution]:
        """List executions, newest first; it looks at as many rows as that takes."""

    def part(self, filter: Filter, rows_max: int) -> Part:
        """List executions, newest first, and look at about so many rows at most.

        Where few fit among many, a part is shorter than its limit, or empty, and the list goes on
        behind it all the same. A list of what has ended, of one task, of children or of one label
        is looked up, however many others there are.
        """

    def descents(self, ids: Sequence[str]) -> list[Descent]:
        """Tell of what these executions were made, and what was made of them, in order of ids."""

    def counts(self) -> dict[State, int]:
        """Count the open executions by state."""

    def census(self) -> Census:
        """Count all executions by state, and what waits by queue; it reads indexes only."""

    def health(self, before: int) -> Health:
        """Say how the store is set up, how large it is, and what was due before an instant."""

    def hear(self, heard: Heard | None) -> None:
        """Tell of what this object commits from here on; one hears at a time.

        ``heard`` is called on the writing thread, after the commit and before the verb returns,
        with rows of logs in their order and the executions that have ended with them. What was
        rolled back is never told, nor what another process writes.
        """

    def log(self, id: str, after_seq: int = 0, limit: int = -1) -> list[Transition]:
        """Read an execution's log in order; a negative limit reads to its end."""

    def logs(self, ids: Sequence[str]) -> list[list[Transition]]:
        """Read whole logs of several executions at once, each in order."""

    def inbox(self, id: str, after: int = 0) -> list[InboxEntry]:
        """Read an execution's inbox in order."""

    def unread(self, worker: str) -> list[str]:
        """Give the executions that this worker owns and that have messages it has not taken."""

    def asking(self, to: str | None, after_id: str, limit: int, *, newest: bool) -> list[str]:
        """Name executions that may have open questions, by id: the newest first, or the oldest.

        Those that wait for an answer are named for certain, and only if they ask ``to`` where that
        is given; of others the log has a question, and who wants to know reads it.

        Args:
            to: whom they ask, or None for all.
            after_id: the one before the first, in that order; "" begins.
            limit: how many at most.
            newest: in which order.
        """

    def dependents(self, id: str, limit: int) -> list[str]:
        """Name executions that depend on this one, or on one that goes on as it, by id."""

    def stream(self, id: str, name: str, after: int = 0, limit: int = -1) -> list[StreamItem]:
        """Read a stream of an execution from behind an item on; a negative limit reads all."""

    def streams(self, id: str) -> list[StreamHead]:
        """Name the streams of an execution."""

    def progress(self, ids: Collection[str]) -> dict[str, ProgressRow]:
        """Say how far these executions are, those that said so."""

    def secret(self, name: str, drawn: bytes) -> bytes:
        """Give the secret of this name; at the first call it becomes ``drawn``, for good.

        It is as safe as the store: a copy of that has it, too. A writing verb.
        """

    def budgets(
        self, scopes: Collection[str] | None = None, *, after: str = "", limit: int = -1
    ) -> list[BudgetRow]:
        """Read the budgets of these scopes, by default all shared ones, in the order of names.

        A negative limit reads all; ``after`` is the scope to go on behind.
        """

    def budget_events(self, scope: str, meter: str) -> list[BudgetEvent]:
        """Read what happened to a budget, in order."""

    def spending(self, execution_id: str) -> Mapping[str, int]:
        """Give what an execution has charged in all, in millionths, by the budget's name."""

    def reservations(self, execution_id: str) -> list[Reservation]:
        """Read what an execution has set aside."""

    def verify(self) -> Verdict:
        """Fold every log and compare it, and what it charged to budgets; check the file itself."""

    def ended(self, after_id: str, before_id: str, before: int, limit: int) -> list[Ended]:
        """List executions between two ids that ended before an instant, in the order of ids."""

    def purge(self, ids: Sequence[str], deed: Deed | None = None) -> int:
        """Delete executions that have ended, with all that belongs to them; gives how many.

        One that is open, or not there, is passed over. The audit keeps what it said of them.
        """

    def backup(self, path: Path) -> None:
        """Copy everything, as it is at one instant, into a new file, while others go on.

        Raises:
            CannotLoad: the file is there already, or cannot be made.
        """

    def instant(self, now: int) -> int:
        """Give the instant by the store's own clock; ``now``, where it has none. Any thread."""

    def changed(self) -> bool:
        """Tell whether another process has written since the last call; True if nobody knows.

        Raises:
            StoreBroken: what was opened is not there any more; a write would say the same.
        """

    def close(self) -> None:
        """Let go of every resource; the object is of no use afterwards."""
