"""Errors as RFC 9457 problems: the one table of which error is which status."""

from __future__ import annotations

from typing import Final

import msgspec

from outlast import errors
from outlast.errors import BadPayload, BadRequest, OutlastError, Overloaded, TransitionRefused

MEDIA: Final = "application/problem+json"

STATUSES: Final[dict[type[OutlastError], int]] = {
    errors.OutlastError: 500,
    errors.UsageError: 400,
    errors.UnknownTask: 422,
    errors.WrongArguments: 422,
    errors.BadPayload: 422,
    errors.BadSchedule: 422,
    errors.PayloadTooLarge: 413,
    errors.NotFound: 404,
    errors.Refused: 409,
    errors.FeedGap: 410,
    errors.Misdirected: 421,
    errors.Stale: 412,
    errors.TokenRefused: 403,
    errors.Unauthenticated: 401,
    errors.TooManyAttempts: 429,
    errors.AccessRefused: 403,
    errors.NoEngine: 503,
    errors.StoreUnavailable: 503,
    errors.InternalError: 500,
}
"""A class without a row takes its nearest ancestor's; :class:`BadRequest` says its own."""


class Fault(msgspec.Struct):
    """A part of a request that does not have its form."""

    path: str
    message: str


class Problem(msgspec.Struct, omit_defaults=True):
    """What went wrong (RFC 9457), with what to do about it.

    Attributes:
        type: a URI that names the kind of error: ``urn:outlast:`` and the code.
        title: the same in words, the same for every error of this code.
        status: the status of the answer.
        detail: what happened.
        code: the stable word (docs/errors.md).
        where, why, do: where it happened, why we think so, what to do, a remedy each.
        errors: the parts of the request that do not have their form.
        state: the state in which the execution refused an action.
        refusal: the lifecycle's name, or a schedule's, for that refusal.
        instance: the request; the server's log names it as well.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    where: str = ""
    why: str = ""
    do: list[str] = msgspec.field(default_factory=list)
    errors: list[Fault] = msgspec.field(default_factory=list)
    state: str = ""
    refusal: str = ""
    instance: str = ""


def status_of(error: OutlastError | type[OutlastError]) -> int:
    """Give the status an error is answered with."""
    if isinstance(error, BadRequest):
        return error.status
    kind = error if isinstance(error, type) else type(error)
    return next(STATUSES[one] for one in kind.__mro__ if one in STATUSES)


def problem_of(error: OutlastError, *, instance: str = "") -> Problem:
    """Tell an error; one of ours is told without its inside, as whoever reads it may be anybody."""
    status = status_of(error)
    title = str(KINDS[error.code].__doc__).partition("\n")[0]
    problem = Problem(
        f"urn:outlast:{error.code}", title, status, error.what, error.code, instance=instance
    )
    if status == 500:
        problem.detail = "the server met an error that is not yours; its log has more"
        return problem
    problem.where, problem.why, problem.do = error.where, error.why, error.do.splitlines()
    if isinstance(error, BadPayload) and error.path:
        problem.errors = [Fault(error.path, error.why)]
    if isinstance(error, TransitionRefused):
        problem.state, problem.refusal = error.state, error.refusal
    elif isinstance(error, errors.ScheduleRefused):
        problem.refusal = error.refusal
    return problem


def headers_of(error: OutlastError) -> dict[str, str]:
    """Give the headers that belong to an error."""
    if status_of(error) == 405:
        return {"allow": error.do}
    if isinstance(error, errors.Unauthenticated):
        return {"www-authenticate": 'Bearer realm="outlast"'}
    if isinstance(error, Overloaded | errors.TooManyAttempts):
        return {"retry-after": str(error.retry_after_seconds)}
    return {"retry-after": "1"} if status_of(error) == 503 else {}


KINDS: Final = errors.by_code()
"""Every class of errors by its code."""

__all__ = [
    "KINDS",
    "MEDIA",
    "Fault",
    "Problem",
    "headers_of",
    "problem_of",
    "status_of",
]
