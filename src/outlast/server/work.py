"""Work for workers on other machines: steps that they claim, and what came of them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from outlast import failure
from outlast.budget import amounts_of
from outlast.engine.primitives.emit import checked, encoded
from outlast.engine.read.logs import line_from
from outlast.engine.steps.remote import Claim, RemoteDesk
from outlast.errors import NotFound, Unauthenticated
from outlast.server.call import Call
from outlast.server.shapes import Incoming
from outlast.store.protocol import LOGS

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Token = Annotated[str, Meta(min_length=1, max_length=200)]
LEASE_SECONDS = 30.0
MESSAGE_LENGTH_MAX = 4_000


class ClaimBody(Incoming):
    """Which steps the worker knows, by name; how many it takes, and how long it waits for one.

    It may be silent for ``lease_seconds``; then its claims are others' to take.
    """

    steps: Annotated[list[Name], Meta(min_length=1, max_length=1_000)]
    worker: Name
    limit: Annotated[int, Meta(ge=1, le=100)] = 1
    wait_seconds: Annotated[float, Meta(ge=0, le=30)] = 0.0
    lease_seconds: Annotated[float, Meta(ge=1, le=3_600)] = LEASE_SECONDS


class ClaimForm(msgspec.Struct):
    """A step that was claimed; its token is good for this claim alone.

    ``idempotency_key`` is the same in every attempt of this step and in no other.
    """

    id: str
    token: str
    execution_id: str
    task: str
    step: str
    key: str
    attempt: int
    idempotency_key: str
    input: dict[str, Any]
    last_heartbeat: Any
    lease_seconds: float


class ClaimPage(msgspec.Struct):
    """What was claimed; nothing where nothing was on offer."""

    items: list[ClaimForm]


class ProgressPart(Incoming):
    """How far it is."""

    done: float
    total: float | None = None
    text: Annotated[str, Meta(max_length=1_000)] | None = None


class SaidPart(Incoming):
    """A value for a stream of the execution."""

    stream: Annotated[str, Meta(min_length=1, max_length=100)]
    value: Any


class BeatBody(Incoming):
    """A sign of life, and what the step says of itself; ``details`` is for its next attempt.

    Numbers go up from 1: what was sent twice under one is taken once.
    """

    token: Token
    number: Annotated[int, Meta(ge=1, le=2**53)]
    details: Any = None
    spent: dict[str, Annotated[float, Meta(ge=0, le=1e9)]] = msgspec.field(default_factory=dict)
    progress: ProgressPart | None = None
    said: Annotated[list[SaidPart], Meta(max_length=1_000)] = msgspec.field(default_factory=list)


class BeatForm(msgspec.Struct):
    """Whether to stop what runs, as nobody awaits it; and how long the worker may be silent."""

    stop: bool
    lease_seconds: float


class CompleteBody(Incoming):
    """The value of the step, in the form of its type."""

    token: Token
    output: Any = None


class ReleaseBody(Incoming):
    """Whose claim it is."""

    token: Token


class ErrorPart(Incoming):
    """An error: ``type`` is ``module:Class``, or a word of the worker's own.

    With ``is_final`` the step is not tried again, whatever its retries.
    """

    type: Annotated[str, Meta(min_length=1, max_length=500)]
    message: Annotated[str, Meta(max_length=MESSAGE_LENGTH_MAX)]
    args: Annotated[list[Any], Meta(max_length=50)] = msgspec.field(default_factory=list)
    attributes: dict[str, Any] = msgspec.field(default_factory=dict)
    traceback: Annotated[str, Meta(max_length=64_000)] = ""
    is_final: bool = False


class FailBody(Incoming):
    """Why the attempt failed."""

    token: Token
    error: ErrorPart


async def claim_steps(call: Call) -> dict[str, Any]:
    """Claim steps to run here; waits a while for the first of them where that is asked for."""
    body, desk = call.body, desk_of(call)
    call.asked = True
    claims = await desk.take(
        body.steps,
        call.listed,
        f"{call.actor}/{body.worker}",
        body.lease_seconds,
        body.limit,
        body.wait_seconds,
    )
    try:
        await call.see_still()
    except Unauthenticated:
        for claim in claims:
            desk.release(claim)
        raise
    return {"items": [_written(claim) for claim in claims]}


async def beat_claim(call: Call) -> dict[str, Any]:
    """Say that the step goes on; the answer says whether somebody still awaits it."""
    claim, body = _claim(call), call.body
    stop = desk_of(call).beat(claim)
    if not stop and body.number > claim.heard:
        claim.heard, of = body.number, claim.body
        if body.details is not None:
            of.take_beat(msgspec.json.encode(body.details))
        if body.spent:
            of.spend(amounts_of(body.spent, "spent"))
        for said in body.said:
            if said.stream == LOGS:
                of.jot(line_from(said.value))
            else:
                of.emit(said.stream, encoded(said.stream, said.value))
        if body.progress is not None:
            part = body.progress
            of.report(*checked(part.done, part.total, part.text))
    return {"stop": stop, "lease_seconds": claim.lease_seconds}


async def complete_claim(call: Call) -> None:
    """End the step with its value."""
    claim = _claim(call)
    desk_of(call).complete(claim, msgspec.json.encode(call.body.output))


async def release_claim(call: Call) -> None:
    """Give a step back: it is begun anew elsewhere, and this counts as no try."""
    desk_of(call).release(_claim(call))


async def fail_claim(call: Call) -> None:
    """End the attempt with an error; the step's own retries say what follows."""
    claim, error = _claim(call), call.body.error
    described = failure.Failure(
        type="outlast.errors:Fatal" if error.is_final else error.type,
        message=error.message,
        args=[error.message] if error.is_final else error.args,
        attributes={} if error.is_final else error.attributes,
        traceback=error.traceback,
    )
    desk_of(call).fail(claim, failure.dump(described))


def desk_of(call: Call) -> RemoteDesk:
    """Give where steps for other machines are offered.

    Raises:
        NotFound: this server offers none.
    """
    desk = call.engine.worker.remote
    if desk is None:
        raise NotFound("this server has no steps for other machines")
    return desk


def _claim(call: Call) -> Claim:
    """Give the claim that the path names, to who has its token and may take such work."""
    claim = desk_of(call).claim(call.path["claim"], call.body.token)
    call.allow(claim.task)
    return claim


def _written(claim: Claim) -> dict[str, Any]:
    info = claim.body.info()
    return {
        "id": claim.id,
        "token": claim.token,
        "execution_id": info.execution_id,
        "task": claim.task,
        "step": claim.body.step.name,
        "key": info.key,
        "attempt": info.attempt,
        "idempotency_key": info.idempotency_key,
        "input": msgspec.json.decode(claim.body.call.payload.input),
        "last_heartbeat": info.last_heartbeat,
        "lease_seconds": claim.lease_seconds,
    }


__all__ = [
    "BeatBody", "BeatForm", "ClaimBody", "ClaimForm", "ClaimPage", "CompleteBody", "FailBody",
    "ReleaseBody", "beat_claim", "claim_steps", "complete_claim", "fail_claim", "release_claim",
]  # fmt: skip
