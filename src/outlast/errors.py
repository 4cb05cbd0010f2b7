"""Every error a user of Outlast can meet, by who must act.

::

    OutlastError(code, message)
    ├─ UsageError             you called it wrongly
    │   ├─ UnknownTask            no such task is registered here
    │   ├─ WrongArguments         the task or step does not take these arguments
    │   ├─ WrongColour            a def step called plainly in an async def task, or the reverse
    │   ├─ NotDurable             sockets, threads and the like inside task code
    │   ├─ OutsideExecution       ask() or sleep() called where no execution runs
    │   ├─ NoEngine               start() called where no engine is open
    │   ├─ BadPayload             a value JSON cannot carry, or of another type than annotated
    │   ├─ PayloadTooLarge        more bytes than the limit
    │   ├─ BadSchedule            no cron, no time zone, or a part that cannot be
    │   ├─ BadRequest             a request that the server does not take as it stands
    │   ├─ UnknownTenant          the store has no tenant of this name
    │   └─ CannotLoad             the module, file or store address cannot be opened as given
    │       ├─ KeyMissing             the store is encrypted, and its key was not given
    │       └─ KeyWrong               a key of that name was, and it is another one
    ├─ NotFound               no such execution or question
    │   └─ UnknownStep            the execution has no such step to fork from
    ├─ Refused                a legal request at the wrong moment
    │   ├─ TransitionRefused      the lifecycle has no such row
    │   ├─ OverBudget             a reservation does not fit into a budget
    │   ├─ LeaseLost              another owner holds the execution; nothing was written
    │   ├─ Misdirected            the claim is another server's; nothing was done
    │   ├─ KeyConflict            the key is taken by another input
    │   ├─ FeedGap                what came behind this cursor is not all kept any more
    │   ├─ ScheduleRefused        the schedule has ended, is paused already, or is there already
    │   ├─ AlreadyAnswered        the first answer won
    │   │   └─ TokenUsed              it came by this very token
    │   ├─ NameTaken              there is a user of this name already
    │   ├─ NotRecoverable         it goes on, or succeeded: nothing to recover
    │   ├─ Stale                  it has changed since it was read
    │   ├─ TenantClosed           nothing is started or run in this tenant
    │   └─ StoreOwned             another engine owns this file
    ├─ TokenRefused           a token that permits nothing
    │   ├─ TokenInvalid           forged, or changed on the way
    │   ├─ TokenForeign           another store has made it
    │   └─ TokenExpired           its time has passed
    ├─ AccessRefused          the server does not let this caller do it
    │   ├─ Unauthenticated        no credential, or none that is known
    │   ├─ TooManyAttempts        sign-ins under this name have failed; later
    │   └─ Forbidden              the caller lacks the permission
    ├─ ExecutionEnded         the execution asked for a result did not succeed
    │   ├─ ExecutionFailed        its code raised
    │   ├─ ExecutionCancelled     it was cancelled
    │   └─ ExecutionTimedOut      its deadline passed
    │       └─ ExecutionNotStarted    it had not begun in time
    ├─ WaitTimeout            the caller stopped waiting; the execution goes on
    ├─ StepFailed             raised in task code: a step's error cannot be rebuilt
    ├─ StepTimeout            raised in task code: a step's attempt took too long
    ├─ StepQueueTimeout       raised in task code: a step found no thread or process in time
    ├─ StepDeadline           raised in task code: all attempts of a step together took too long
    ├─ HeartbeatLost          raised in task code: a step was silent for too long
    ├─ ProcessDied            raised in task code: the process that ran a step is gone
    ├─ AttemptTimeout         an attempt of the whole task took too long
    ├─ UndoFailed             raised where a saga could not undo all that it had done
    ├─ Deadlock               raised for task code that nothing can ever wake
    ├─ ReplayMismatch         the code changed under a running execution
    ├─ StoreUnavailable       the world; a retry is safe
    │   ├─ StoreBusy              somebody else holds the write lock too long
    │   ├─ StoreFull              the disk is full
    │   ├─ StoreFailedOver        a standby was promoted, or a backup restored
    │   ├─ StoreReadOnly          no right to write there
    │   ├─ Overloaded             the server has more to do than it can; later
    │   └─ ServerUnreachable      no server answers at this address
    ├─ StoreBroken            the file is damaged or is no Outlast database
    ├─ SchemaMismatch         the file's schema is older or newer than this code
    └─ InternalError          our bug: it says which invariant broke

Raised *by* task and step code, to steer retries: :class:`Fatal`, :class:`RetryAfter`.

Every class has a ``code``: a stable snake_case word, documented in ``docs/errors.md`` and never
reused.
The text has four parts, always in this order: what happened, where, why we think so, what to do.
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar


class OutlastError(Exception):
    """What every error of Outlast has: a stable code and the four parts of its text.

    Attributes:
        what: what happened, one sentence.
        where: the execution, file or step it happened in, or "".
        why: what was seen that led to it, or "".
        do: what the reader can do about it, or "".
    """

    code: ClassVar[str] = "error"

    def __init__(self, what: str, *, where: str = "", why: str = "", do: str = "") -> None:
        self.what, self.where, self.why, self.do = what, where, why, do
        super().__init__(what)

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"where: {self.where}")
        if self.why:
            parts.append(f"why: {self.why}")
        if self.do:
            parts.append(f"do: {self.do}")
        return "; ".join(parts).encode(errors="backslashreplace").decode()  # printable anywhere

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(
    kind: type[OutlastError], args: tuple[object, ...], state: dict[str, object]
) -> OutlastError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class UsageError(OutlastError):
    """The call was wrong; trying it again unchanged will fail again."""

    code = "usage"


class UnknownTask(UsageError):
    """No task of that name is registered in this process."""

    code = "unknown_task"


class WrongArguments(UsageError):
    """The task or step does not take these arguments."""

    code = "wrong_arguments"


class WrongColour(UsageError):
    """A step was called the way the other colour of function is called."""

    code = "wrong_colour"


class NotDurable(UsageError):
    """Task code used something that a replay cannot repeat; it belongs in a step."""

    code = "not_durable"


class OutsideExecution(UsageError):
    """A durable call was made where no execution runs."""

    code = "outside_execution"


class NoEngine(UsageError):
    """A task was started where no engine is open."""

    code = "no_engine"


class BadPayload(UsageError):
    """A value cannot be stored: JSON cannot carry it, or it is not of the annotated type.

    Attributes:
        path: which part of a request it is, as a JSON path, where a server says so; or "".
    """

    code = "bad_payload"
    path = ""


class PayloadTooLarge(UsageError):
    """A value is larger than the limit; nothing was written.

    Attributes:
        size_bytes: the size of the encoded value.
        bytes_max: the limit.
    """

    code = "payload_too_large"

    def __init__(
        self,
        what: str,
        *,
        size_bytes: int = 0,
        bytes_max: int = 0,
        where: str = "",
        why: str = "",
        do: str = "",
    ) -> None:
        super().__init__(what, where=where, why=why, do=do)
        self.size_bytes, self.bytes_max = size_bytes, bytes_max


class BadSchedule(UsageError):
    """What was given is no schedule: no cron expression, no time zone, or out of its bounds."""

    code = "bad_schedule"


class BadRequest(UsageError):
    """The server does not take this request: a header, its form or its body is not as it must be.

    Attributes:
        status: the HTTP status it is answered with.
    """

    code = "bad_request"

    def __init__(
        self, what: str, *, status: int = 400, where: str = "", why: str = "", do: str = ""
    ) -> None:
        super().__init__(what, where=where, why=why, do=do)
        self.status = status


class CannotLoad(UsageError):
    """The module, file or store address cannot be opened as given."""

    code = "cannot_load"


class KeyMissing(CannotLoad):
    """The store's payloads are encrypted by a key that was not given; nothing was written."""

    code = "key_missing"


class KeyWrong(CannotLoad):
    """A key was given under the right name, and is another one; nothing was written."""

    code = "key_wrong"


class UnknownTenant(UsageError):
    """No tenant of the store has this name."""

    code = "unknown_tenant"


class NotFound(OutlastError):
    """There is no such execution, task or question."""

    code = "not_found"


class UnknownStep(NotFound):
    """The execution has no such step; the text names those that it has."""

    code = "unknown_step"


class Refused(OutlastError):
    """A legal request at the wrong moment; nothing was written."""

    code = "refused"


class TransitionRefused(Refused):
    """The lifecycle has no row for this event in this state.

    Attributes:
        state: the state the execution was in.
        kind: the transition that was asked for.
        refusal: the lifecycle's name for the refusal, as ``already_final``.
    """

    code = "transition_refused"

    def __init__(
        self,
        what: str,
        *,
        state: str = "",
        kind: str = "",
        refusal: str = "",
        where: str = "",
        why: str = "",
        do: str = "",
    ) -> None:
        super().__init__(what, where=where, why=why, do=do)
        self.state, self.kind, self.refusal = state, kind, refusal


class LeaseLost(Refused):
    """Another owner holds the execution now; nothing was written."""

    code = "lease_lost"


class Misdirected(Refused):
    """The claim is one of another server of this store; nothing was done."""

    code = "misdirected"


class KeyConflict(Refused):
    """The key belongs to an execution with another task or input."""

    code = "key_conflict"


class FeedGap(Refused):
    """What came behind this cursor of the feed is not all kept any more."""

    code = "feed_gap"


class ScheduleRefused(Refused):
    """The schedule cannot take this now; nothing was written.

    Attributes:
        refusal: why not, as ``docs/guides/schedules.md`` names it: ``already_exists``,
            ``already_paused``, ``not_paused``, ``schedule_ended`` …
    """

    code = "schedule_refused"

    def __init__(
        self, what: str, *, refusal: str = "", where: str = "", why: str = "", do: str = ""
    ) -> None:
        super().__init__(what, where=where, why=why, do=do)
        self.refusal = refusal


class AlreadyAnswered(Refused):
    """The question was answered before; the first answer won."""

    code = "already_answered"


class OverBudget(Refused):
    """A step's body wanted to set aside more than is left of a budget.

    Where the body lets it go, that is no outcome: the execution is suspended until there is room.
    """

    code = "over_budget"


class NameTaken(Refused):
    """There is a user of this name already; nothing was written."""

    code = "name_taken"


class NotRecoverable(Refused):
    """The execution has not failed, timed out or been cancelled: there is nothing to recover."""

    code = "not_recoverable"


class Stale(Refused):
    """The execution has changed since the version that If-Match names; nothing was written."""

    code = "stale"


class TokenUsed(AlreadyAnswered):
    """This token was used before; it permits one answer."""

    code = "token_used"


class StoreOwned(Refused):
    """Another engine owns this database file."""

    code = "store_owned"


class TenantClosed(Refused):
    """The tenant is closed: nothing is started or run in it."""

    code = "tenant_closed"


class TokenRefused(OutlastError):
    """A token permits nothing here; nothing was written."""

    code = "token_refused"


class TokenInvalid(TokenRefused):
    """This store has made no such token: it is forged, or was changed on the way."""

    code = "token_invalid"


class TokenForeign(TokenRefused):
    """The token was made by another store."""

    code = "token_foreign"


class TokenExpired(TokenRefused):
    """The token's time has passed."""

    code = "token_expired"


class AccessRefused(OutlastError):
    """The server does not let this caller do what it asks for; nothing was done."""

    code = "access_refused"


class Unauthenticated(AccessRefused):
    """The request has no credential, or one that the server does not know."""

    code = "unauthenticated"


class TooManyAttempts(AccessRefused):
    """Sign-ins under this name have failed too often; it has to wait.

    Attributes:
        retry_after_seconds: when it may be tried again.
    """

    code = "too_many_attempts"

    def __init__(
        self,
        what: str,
        *,
        retry_after_seconds: int = 1,
        where: str = "",
        why: str = "",
        do: str = "",
    ) -> None:
        super().__init__(what, where=where, why=why, do=do)
        self.retry_after_seconds = retry_after_seconds


class Forbidden(AccessRefused):
    """The caller is known, and lacks the permission for this."""

    code = "forbidden"


class ExecutionEnded(OutlastError):
    """The execution ended, but not in success."""

    code = "execution_ended"


class ExecutionFailed(ExecutionEnded):
    """The execution's code raised an error that cannot be rebuilt here."""

    code = "execution_failed"


class ExecutionCancelled(ExecutionEnded):
    """The execution was cancelled."""

    code = "execution_cancelled"


class ExecutionTimedOut(ExecutionEnded):
    """The execution's own deadline passed."""

    code = "execution_timed_out"


class ExecutionNotStarted(ExecutionTimedOut):
    """The execution had not begun in time; none of its code has run."""

    code = "execution_not_started"


class WaitTimeout(OutlastError, TimeoutError):
    """The caller stopped waiting; the execution itself goes on."""

    code = "wait_timeout"


class StepFailed(OutlastError):
    """A step failed with an error whose class cannot be rebuilt.

    Attributes:
        type: the class of the original error, as ``module:qualname``.
        message: its text.
    """

    code = "step_failed"

    def __init__(
        self,
        what: str = "",
        *,
        type: str = "",
        message: str = "",
        where: str = "",
        why: str = "",
        do: str = "",
    ) -> None:
        super().__init__(what or f"{type}: {message}", where=where, why=why, do=do)
        self.type, self.message = type, message


class StepTimeout(OutlastError, TimeoutError):
    """An attempt of a step took longer than its timeout."""

    code = "step_timeout"


class StepQueueTimeout(OutlastError, TimeoutError):
    """A step waited too long for a thread or process; its body has not run."""

    code = "step_queue_timeout"


class StepDeadline(OutlastError, TimeoutError):
    """All attempts of a step together took longer than its deadline."""

    code = "step_deadline"


class HeartbeatLost(OutlastError, TimeoutError):
    """An attempt of a step gave no sign of life for too long."""

    code = "heartbeat_lost"


class ProcessDied(OutlastError):
    """The process that ran a step ended, or spoke nonsense, before the step was done.

    Attributes:
        exit_code: what it exited with; None if a signal ended it.
        signal: the name of that signal, or "".
    """

    code = "process_died"

    def __init__(
        self,
        what: str,
        *,
        exit_code: int | None = None,
        signal: str = "",
        where: str = "",
        why: str = "",
        do: str = "",
    ) -> None:
        super().__init__(what, where=where, why=why, do=do)
        self.exit_code, self.signal = exit_code, signal


class AttemptTimeout(OutlastError, TimeoutError):
    """An attempt of the whole task took longer than its timeout."""

    code = "attempt_timeout"


class UndoFailed(OutlastError):
    """A saga could not undo all that it had done; what it could, it has undone."""

    code = "undo_failed"


class Deadlock(OutlastError):
    """Nothing can ever wake this task again: every branch waits for something nobody will do."""

    code = "deadlock"


class ReplayMismatch(OutlastError):
    """The code asked for something else than the log has recorded at this place."""

    code = "code_mismatch"


class StoreUnavailable(OutlastError):
    """The store cannot be reached or written now; a retry is safe."""

    code = "store_unavailable"


class StoreBusy(StoreUnavailable):
    """Somebody else held the write lock for too long."""

    code = "store_busy"


class StoreFull(StoreUnavailable):
    """The disk is full; what was acknowledged is safe."""

    code = "store_full"


class StoreFailedOver(StoreUnavailable):
    """The store has gone back: a standby was promoted, or a backup restored. Nothing was written.

    What was acknowledged last may be lost.

    Attributes:
        epoch: the number of the epoch that has begun.
    """

    code = "store_failed_over"

    def __init__(
        self, what: str, *, where: str = "", why: str = "", do: str = "", epoch: int = 0
    ) -> None:
        super().__init__(what, where=where, why=why, do=do)
        self.epoch = epoch


class StoreReadOnly(StoreUnavailable):
    """There is no right to write there."""

    code = "store_read_only"


class Overloaded(StoreUnavailable):
    """The server has more to do than it can; nothing was done.

    Attributes:
        retry_after_seconds: when it is worth asking again.
    """

    code = "overloaded"

    def __init__(
        self,
        what: str,
        *,
        retry_after_seconds: int = 1,
        where: str = "",
        why: str = "",
        do: str = "",
    ) -> None:
        super().__init__(what, where=where, why=why, do=do)
        self.retry_after_seconds = retry_after_seconds


class ServerUnreachable(StoreUnavailable):
    """No Outlast server answers at this address; whether it did what was asked is unknown."""

    code = "server_unreachable"


class StoreBroken(OutlastError):
    """The file is damaged, or it is not an Outlast database."""

    code = "store_broken"


class SchemaMismatch(OutlastError):
    """The schema of the store is older or newer than this code."""

    code = "schema_mismatch"


class InternalError(OutlastError):
    """A bug of ours; the text says which invariant broke."""

    code = "internal_error"


class Fatal(Exception):
    """Raise it in a step or task: this error is final, do not retry."""


class RetryAfter(Exception):
    """Raise it in a step or task: try again, but not before this delay.

    Args:
        delay: how long to wait at least, in seconds or as a timedelta.
    """

    def __init__(self, delay: float | timedelta, message: str = "") -> None:
        self.delay_seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        super().__init__(message or f"retry after {self.delay_seconds:g} s")


def by_code() -> dict[str, type[OutlastError]]:
    """Give every class of errors by its code."""
    found: dict[str, type[OutlastError]] = {}
    kinds: list[type[OutlastError]] = [OutlastError]
    while kinds:
        kind = kinds.pop()
        if kind.__module__ == __name__:
            found[kind.code] = kind
            kinds += kind.__subclasses__()
    return found
