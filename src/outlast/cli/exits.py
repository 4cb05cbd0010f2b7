"""Which error ends the command with which exit code: the one table."""

from __future__ import annotations

from typing import Final

from outlast import errors

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
AUTH: Final = 3
NOT_FOUND: Final = 4
CONFLICT: Final = 5
TIMED_OUT_WAITING: Final = 6
STORE: Final = 7
INTERNAL: Final = 70
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

MEANINGS: Final[dict[int, str]] = {
    OK: "it worked",
    FAILED: "the execution failed, was cancelled, or is suspended by a change of its code",
    USAGE: "the command, its arguments or the task were called wrongly; or its output had no room",
    AUTH: "not allowed: no credential or permission, or a token that is forged, expired or foreign",
    NOT_FOUND: "there is no such execution, question or step",
    CONFLICT: "a legal request at the wrong moment: ended, answered before, owned by another",
    TIMED_OUT_WAITING: "the wait is over, the execution goes on",
    STORE: "the store cannot be used: missing, busy, full, damaged, of another version",
    INTERNAL: "a bug of Outlast",
    INTERRUPTED: "Ctrl-C or SIGTERM; the execution is kept",
    BROKEN_PIPE: "who read our output went away; the execution is kept",
}
"""Every exit code there is."""

EXITS: Final[dict[type[errors.OutlastError], int]] = {
    errors.OutlastError: INTERNAL,
    errors.UsageError: USAGE,
    errors.UnknownTask: USAGE,
    errors.WrongArguments: USAGE,
    errors.WrongColour: USAGE,
    errors.NotDurable: USAGE,
    errors.OutsideExecution: USAGE,
    errors.NoEngine: USAGE,
    errors.BadPayload: USAGE,
    errors.PayloadTooLarge: USAGE,
    errors.BadSchedule: USAGE,
    errors.BadRequest: USAGE,
    errors.CannotLoad: USAGE,
    errors.KeyMissing: STORE,
    errors.KeyWrong: STORE,
    errors.UnknownTenant: USAGE,
    errors.NotFound: NOT_FOUND,
    errors.UnknownStep: NOT_FOUND,
    errors.Refused: CONFLICT,
    errors.TransitionRefused: CONFLICT,
    errors.LeaseLost: CONFLICT,
    errors.Misdirected: CONFLICT,
    errors.KeyConflict: CONFLICT,
    errors.ScheduleRefused: CONFLICT,
    errors.FeedGap: CONFLICT,
    errors.AlreadyAnswered: CONFLICT,
    errors.NotRecoverable: CONFLICT,
    errors.NameTaken: CONFLICT,
    errors.Stale: CONFLICT,
    errors.OverBudget: CONFLICT,
    errors.TokenUsed: CONFLICT,
    errors.StoreOwned: CONFLICT,
    errors.TenantClosed: CONFLICT,
    errors.TokenRefused: AUTH,
    errors.TokenInvalid: AUTH,
    errors.TokenForeign: AUTH,
    errors.TokenExpired: AUTH,
    errors.AccessRefused: AUTH,
    errors.Unauthenticated: AUTH,
    errors.Forbidden: AUTH,
    errors.TooManyAttempts: AUTH,
    errors.ExecutionEnded: FAILED,
    errors.ExecutionFailed: FAILED,
    errors.ExecutionCancelled: FAILED,
    errors.ExecutionTimedOut: FAILED,
    errors.ExecutionNotStarted: FAILED,
    errors.WaitTimeout: TIMED_OUT_WAITING,
    errors.StepFailed: FAILED,
    errors.StepTimeout: FAILED,
    errors.StepQueueTimeout: FAILED,
    errors.StepDeadline: FAILED,
    errors.HeartbeatLost: FAILED,
    errors.ProcessDied: FAILED,
    errors.AttemptTimeout: FAILED,
    errors.UndoFailed: FAILED,
    errors.Deadlock: FAILED,
    errors.ReplayMismatch: FAILED,
    errors.StoreUnavailable: STORE,
    errors.StoreBusy: STORE,
    errors.StoreFull: STORE,
    errors.StoreFailedOver: STORE,
    errors.StoreReadOnly: STORE,
    errors.Overloaded: STORE,
    errors.ServerUnreachable: STORE,
    errors.StoreBroken: STORE,
    errors.SchemaMismatch: STORE,
    errors.InternalError: INTERNAL,
}


def exit_of(error: errors.OutlastError) -> int:
    """Give the exit code of an error; a class without a row takes its nearest ancestor's."""
    return next(EXITS[kind] for kind in type(error).__mro__ if kind in EXITS)
