"""Examine a store: what is wrong, why we think so, and what to do about it.

Each check reads, changes nothing, and is bounded: a store of any size is examined in a second or
two. One that fails says so and leaves the others alone. A finding is ``fail`` where work stands
still or may be lost, ``warn`` where it will, and ``ok`` for what was looked at and is right.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from outlast.duration import in_words
from outlast.engine.read.presence import serving
from outlast.errors import OutlastError
from outlast.lifecycle import BrokenLog, State, fold
from outlast.schedule import ScheduleState
from outlast.store.protocol import Census, Filter, Health, Store, WorkerRow
from outlast.store.webhooks import WebhookState

SAMPLE: Final = 200
"""Executions that are looked at by themselves."""
OVERDUE_US: Final = 60_000_000
"""How late the clock may be."""
QUEUE_OLD_US: Final = 15 * 60_000_000
ASKED_LONG_US: Final = 7 * 86_400_000_000
DRAINS_LONG_US: Final = 3_600_000_000
LONG_TRANSACTION_US: Final = 300_000_000
SKEW_US: Final = 2_000_000
FAILOVER_US: Final = 30 * 86_400_000_000
WAL_BYTES_MAX: Final = 512 * 1024 * 1024
FREE_BYTES_MIN: Final = 1024 * 1024 * 1024
FREE_BYTES_LEAST: Final = 64 * 1024 * 1024


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    """What a check has found.

    Attributes:
        check: what was looked at; stable, for programs.
        level: how bad it is.
        what: what was found.
        why: why that matters, or how we know.
        do: what to do about it.
    """

    check: str
    level: Level
    what: str
    why: str = ""
    do: str = ""


class Patient:
    """What the checks look at, each read once.

    Args:
        store: the store.
        now: the instant.
        owner: who has it open as its engine, as a phrase; None where nobody has.
    """

    def __init__(self, store: Store, now: int, owner: str | None) -> None:
        self.store, self.now, self.owner = store, now, owner
        self.health: Health = store.health(now - OVERDUE_US)
        self.census: Census = store.census()
        self.workers: list[WorkerRow] = store.workers(1_000)

    @property
    def is_served(self) -> bool:
        """Whether somebody runs executions here."""
        return self.owner is not None or bool(self.living)

    @property
    def living(self) -> list[WorkerRow]:
        """The workers that live."""
        if not self.store.is_shared:
            return []
        return serving(self.store, self.now)

    def fact(self, name: str) -> Any:
        """Give what the backend says of itself; None where it says nothing."""
        return self.health.facts.get(name)

    def count(self, *states: State) -> int:
        """Count the executions in these states."""
        return sum(self.census.states.get(state, 0) for state in states)


_MOVED: Final = (
    State.QUEUED, State.STARTING, State.RUNNING, State.WAITING, State.RETRY_WAIT, State.SCHEDULED,
)  # fmt: skip
"""The states in which an engine has to do something."""
Check = Callable[[Patient], Iterator[Finding]]


def examine(store: Store, now: int, owner: str | None) -> list[Finding]:
    """Examine a store; gives what was found, the worst first.

    Raises:
        StoreUnavailable: it cannot be read at all.
    """
    patient = Patient(store, now, owner)
    found: list[Finding] = []
    for check in CHECKS:
        name = check.__name__.strip("_")
        try:
            some = list(check(patient))
        except OutlastError as error:
            said = f"{name} could not be looked at"
            some = [Finding(name, Level.WARN, said, error.what, error.do)]
        found += some or [Finding(name, Level.OK, _RIGHT[name])]
    order = [Level.FAIL, Level.WARN, Level.OK]
    return sorted(found, key=lambda one: order.index(one.level))


def worst(findings: Sequence[Finding]) -> Level:
    """Give how bad the worst finding is."""
    levels = {one.level for one in findings}
    return next((one for one in (Level.FAIL, Level.WARN) if one in levels), Level.OK)


def settings(patient: Patient) -> Iterator[Finding]:
    """Whether what is acknowledged is on the disk."""
    mode = patient.fact("journal_mode")
    if mode is not None and mode != "wal":
        what = f"the journal mode is {mode}, not wal"
        why = "readers and the engine stand in each other's way"
        yield Finding("settings", Level.WARN, what, why, "open the file once with an engine")
    for name, wanted in (("fsync", "on"), ("full_page_writes", "on")):
        said = patient.fact(name)
        if said is not None and said != wanted:
            what, why = f"{name} is {said}", "a crash of that machine loses what is there"
            yield Finding("settings", Level.FAIL, what, why, f"ALTER SYSTEM SET {name} = {wanted}")
    said = patient.fact("synchronous_commit")
    if said == "off":
        what, why = "synchronous_commit is off", "a crash loses what was acknowledged last"
        do = "ALTER SYSTEM SET synchronous_commit = on"
        yield Finding("settings", Level.WARN, what, f"{why}; engines set it on for their own", do)
    if patient.fact("is_standby") == "true":
        what, why = "this is a standby", "nothing can be written here"
        yield Finding("settings", Level.FAIL, what, why, "name the primary in the address")


def space(patient: Patient) -> Iterator[Finding]:
    """Whether there is room."""
    free = patient.fact("free_bytes")
    if free is not None and free < FREE_BYTES_MIN:
        level = Level.FAIL if free < FREE_BYTES_LEAST else Level.WARN
        what = f"{free / 1e6:,.0f} MB are left on the disk of the store"
        do = "make room; outlast db prune deletes what has been kept long enough"
        yield Finding("space", level, what, "a full disk stops every execution", do)
    wal = patient.fact("wal_bytes")
    if wal is not None and wal > WAL_BYTES_MAX:
        what = f"the write-ahead log has {wal / 1e6:,.0f} MB"
        why = "somebody has had a read open for a long time, so that it cannot be folded in"
        yield Finding("space", Level.WARN, what, why, "end that process; then it shrinks by itself")
    used, most = patient.fact("connections"), patient.fact("max_connections")
    if used is not None and most is not None and used > most * 0.8:
        what = f"{used} of {most} connections are in use"
        why = "an engine needs four; one that gets none cannot renew its lease"
        yield Finding("space", Level.WARN, what, why, "raise max_connections, or use a pooler")
    longest = patient.fact("longest_us")
    if longest is not None and longest > LONG_TRANSACTION_US:
        what = f"a transaction has been open for {in_words(longest)}"
        why = "nothing that was changed since can be cleaned up, and its locks are held"
        yield Finding("space", Level.WARN, what, why, "look for it in pg_stat_activity")


def clocks(patient: Patient) -> Iterator[Finding]:
    """Whether the clocks agree."""
    theirs = patient.fact("clock_us")
    if theirs is not None and abs(skew := theirs - time.time_ns() // 1_000) > SKEW_US:
        side = "ahead" if skew > 0 else "behind"
        what = f"the clock of the server is {in_words(abs(skew))} {side}"
        why = "executions and leases go by the server's clock; ages that are shown here are off"
        yield Finding("clocks", Level.WARN, what, why, "let both take their time from one source")
    newest = patient.store.page(Filter(limit=1))
    if newest and newest[0].created_at > patient.now + SKEW_US:
        ahead = in_words(newest[0].created_at - patient.now)
        what = f"{newest[0].id} was created {ahead} from now"
        why = "the clock of this machine, or of another one, was set back"
        yield Finding("clocks", Level.WARN, what, why, "see that all clocks are right")


def logs(patient: Patient) -> Iterator[Finding]:
    """Whether the latest logs fold to their rows; ``outlast db verify`` looks at all."""
    records = patient.store.page(Filter(limit=SAMPLE))
    found = patient.store.logs([record.id for record in records]) if records else []
    for record, rows in zip(records, found, strict=True):
        try:
            state, seq = (fold(rows).state, rows[-1].seq) if rows else (None, 0)
        except BrokenLog as error:
            what, why = f"the log of {record.id} is broken", str(error)
            yield Finding("logs", Level.FAIL, what, why, "outlast db verify; restore a backup")
            continue
        if seq == record.seq and state is not record.state:
            what = f"{record.id} is {record.state}, and its log says {state}"
            why = "a row must be what its log adds up to"
            yield Finding("logs", Level.FAIL, what, why, "outlast db verify; report it")


def workers(patient: Patient) -> Iterator[Finding]:
    """Whether somebody runs what there is to run."""
    waiting = patient.count(*_MOVED)
    if waiting and not patient.is_served:
        what = f"{waiting} executions are under way, and no engine runs on this store"
        why = "nothing is claimed, and no timer fires, without one"
        yield Finding("workers", Level.FAIL, what, why, "outlast worker FILE")
    if patient.store.is_shared:
        living = {row.id for row in patient.living}
        late = [row for row in patient.workers if row.is_serving and row.id not in living]
        if late:
            names = ", ".join(f"{row.id} on {row.host}" for row in late[:5])
            what = f"{len(late)} workers have not renewed their leases in time"
            why = f"they died, or cannot reach the store: {names}"
            yield Finding("workers", Level.WARN, what, why, "outlast workers --all")
        for row in patient.living:
            if row.state == "draining" and patient.now - row.seen_at > DRAINS_LONG_US:
                what = f"{row.id} has been draining for long"
                why = f"it still holds {row.leased} executions"
                yield Finding("workers", Level.WARN, what, why, "a second SIGTERM stops it at once")
    known = {task for row in patient.living for task in row.service.tasks}
    if known:
        filter = Filter(states=(State.QUEUED,), limit=SAMPLE)
        unknown = Counter(one.task for one in patient.store.page(filter) if one.task not in known)
        for task, count in unknown.most_common(5):
            what = f"no living worker has the task {task}, and {count} executions wait"
            do = "start a worker with the file that has it; outlast workers shows who has what"
            yield Finding("workers", Level.WARN, what, "nobody else may claim them", do)


def timers(patient: Patient) -> Iterator[Finding]:
    """Whether the clock moves what is due."""
    health = patient.health
    if health.overdue and patient.is_served:
        since = health.overdue_since or patient.now
        many = "1,000 or more" if health.overdue >= 1_000 else str(health.overdue)
        late = in_words(patient.now - since)
        what = f"{many} executions should have moved, the first {late} ago"
        why = "the engine is too busy, or cannot write"
        yield Finding("timers", Level.FAIL, what, why, "look at its processor time and its commits")
    behind = [
        record.name
        for record in patient.store.schedules.page([ScheduleState.ACTIVE])
        if record.next_at is not None and record.next_at < patient.now - OVERDUE_US
    ]
    if behind and patient.is_served:
        what = f"{len(behind)} schedules are late: {', '.join(behind[:5])}"
        do = "outlast schedule show NAME"
        yield Finding(
            "timers", Level.WARN, what, "a slot has passed and nothing was made of it", do
        )


def queues(patient: Patient) -> Iterator[Finding]:
    """Whether what waits gets its turn."""
    paused = {row.setting.name for row in patient.store.capacity.queues() if row.setting.paused_at}
    for name, queue in sorted(patient.census.queues.items()):
        if not queue.queued:
            continue
        if name in paused:
            what = f"the queue {name} is paused, and {queue.queued} executions wait in it"
            do = f"outlast queue resume {name}"
            yield Finding("queues", Level.WARN, what, "an operator has paused it", do)
        elif queue.turn_at is not None and patient.now - queue.turn_at > QUEUE_OLD_US:
            age = in_words(patient.now - queue.turn_at)
            what = f"the next of {queue.queued} executions in the queue {name} has waited for {age}"
            why = "there are too few workers, or too few slots, or none that knows its task"
            yield Finding("queues", Level.WARN, what, why, "outlast queue list; outlast workers")


def stuck(patient: Patient) -> Iterator[Finding]:
    """What waits until somebody looks, by the reason."""
    suspended = patient.count(State.SUSPENDED)
    if suspended:
        reasons = _reasons(patient, State.SUSPENDED, "code")
        what = f"{suspended} executions are suspended: {reasons}"
        do = "outlast ls --state suspended; outlast why ID says what can be done"
        yield Finding("stuck", Level.WARN, what, "they go on only when somebody decides", do)
    blocked = patient.count(State.BLOCKED)
    if blocked:
        reasons = _reasons(patient, State.BLOCKED, "gate")
        what = f"{blocked} executions wait at closed gates: {reasons}"
        yield Finding("stuck", Level.OK, what, "limits and rates do that", "outlast limit list")
    asked = patient.store.page(Filter(states=(State.AWAITING_INPUT,), limit=SAMPLE))
    long = [one for one in asked if patient.now - one.state_at > ASKED_LONG_US]
    if long:
        what = f"{len(long)} executions have waited for people for more than a week"
        do = "outlast inbox; give questions a timeout and an escalation"
        yield Finding("stuck", Level.WARN, what, f"{long[0].id} is one of them", do)


def _reasons(patient: Patient, state: State, fact: str) -> str:
    records = patient.store.page(Filter(states=(state,), limit=SAMPLE))
    said = Counter(str((one.detail or {}).get(fact, "?")) for one in records)
    return ", ".join(f"{name} {count}" for name, count in said.most_common(5))


def budgets(patient: Patient) -> Iterator[Finding]:
    """Which shared budgets are spent."""
    for row in patient.store.budgets(limit=1_000):
        if row.spent_up_at is not None:
            what = f"the budget {row.name} is spent"
            why = "what needs it is suspended, or waits at its gate"
            do = f"outlast budget raise {row.scope} {row.meter}=…"
            yield Finding("budgets", Level.WARN, what, why, do)


def failover(patient: Patient) -> Iterator[Finding]:
    """Whether the store went back in time, and what was lost by it."""
    epochs = patient.store.epochs
    for epoch in epochs.history(5):
        if patient.now - epoch.began_at > FAILOVER_US:
            continue
        losses = [loss for loss in epochs.losses(epoch.number) if loss.is_any]
        ago = in_words(max(0, patient.now - epoch.began_at))
        what = f"the store went back in time {ago} ago ({epoch.cause})"
        if not losses:
            yield Finding("failover", Level.OK, f"{what}, and nobody misses anything")
            continue
        rows = sum(loss.rows_lost for loss in losses)
        missing = sum(loss.missing for loss in losses)
        why = f"{missing} executions and {rows} rows that were acknowledged are not there, at least"
        names = ", ".join(name for loss in losses for name in loss.examples)[:200]
        do = f"look at what they had done outside: {names}" if names else "outlast audit list"
        yield Finding("failover", Level.WARN, what, why, do)


def keys(patient: Patient) -> Iterator[Finding]:
    """Whether payloads are sealed, and by what."""
    sealing = patient.store.sealing
    if sealing is None:
        what = "payloads are not encrypted"
        do = "outlast db new-key, if whoever has the disk must not read them"
        yield Finding("keys", Level.OK, what, "no keys are set for this store", do)
        return
    found = sealing.data_keys()
    yield Finding("keys", Level.OK, f"payloads are sealed, by {len(found)} data keys")


def exposure(patient: Patient) -> Iterator[Finding]:
    """Who else could read the store, or come in."""
    mode = patient.fact("mode")
    if mode is not None and mode & 0o007:
        what = f"anybody on this machine may read the store (mode {mode:o})"
        why = "it holds every input, result and answer, unless they are encrypted"
        yield Finding("exposure", Level.WARN, what, why, "chmod 600, or 640 for a group")
    endless = [one for one in patient.store.access.tokens() if _is_endless(one)]
    if endless:
        names = ", ".join(one.name for one in endless[:5])
        what = f"{len(endless)} tokens never expire: {names}"
        why = "one that leaks counts until somebody notices"
        yield Finding("exposure", Level.WARN, what, why, "outlast token create NAME --expires 90d")


def webhooks(patient: Patient) -> Iterator[Finding]:
    """Whether those who want to be told are."""
    for row in patient.store.webhooks.page():
        name = f"{row.id} ({row.terms.description})" if row.terms.description else row.id
        do = f"outlast webhook show {row.id}; outlast webhook resume {row.id}"
        if row.state is WebhookState.DISABLED:
            what = f"the webhook {name} is disabled: {row.terms.why}"
            why = "it goes on where it was, as long as the feed keeps that: seven days"
            yield Finding("webhooks", Level.FAIL, what, why, do)
        elif row.state is WebhookState.ACTIVE and row.failing_since is not None:
            since = in_words(max(0, patient.now - row.failing_since))
            what = f"the receiver of the webhook {name} has taken nothing for {since}"
            why = f"{row.pending} deliveries wait; after three days it is disabled"
            yield Finding("webhooks", Level.WARN, what, why, do)
        elif row.state is WebhookState.ACTIVE and row.waiting_since is not None:
            late = patient.now - row.waiting_since
            if late > OVERDUE_US:
                what = f"the webhook {name} is {in_words(late)} behind"
                why = f"{row.pending} deliveries wait, and no server delivers them, or too slowly"
                yield Finding("webhooks", Level.WARN, what, why, "outlast server FILE")


def _is_endless(token: Any) -> bool:
    return token.expires_at is None and token.revoked_at is None


CHECKS: Final[tuple[Check, ...]] = (
    settings, space, clocks, logs, workers, timers, queues, stuck, budgets, failover, keys,
    exposure, webhooks,
)  # fmt: skip
_RIGHT: Final = {
    "settings": "what is acknowledged is on the disk",
    "space": "there is room",
    "clocks": "the clocks agree",
    "logs": "the latest logs fold to their rows",
    "workers": "somebody runs what there is to run, or there is nothing",
    "timers": "nothing is overdue",
    "queues": "what waits gets its turn",
    "stuck": "nothing waits for a decision",
    "budgets": "no shared budget is spent",
    "failover": "the store has not gone back in time lately",
    "keys": "the keys fit",
    "exposure": "nothing is open that need not be",
    "webhooks": "who wants to be told is told, or there is nobody",
}

__all__ = ["CHECKS", "Finding", "Level", "examine", "worst"]
