"""Steps for other machines: offered, and taken by workers that speak HTTP and may die.

Theory of operation. A body that runs elsewhere is one of its execution's bodies like any other: its
attempts, limits, retries and its end are decided here, by whoever holds the execution's lease. What
is added is the offer. A worker asks for steps by name and gets a *claim*: the arguments and a token
that is good for this one claim. It renews the claim by heartbeats, and ends it with a value or an
error. A worker that falls silent loses the claim, and the step is offered again; what it says later
is refused, as its token is of a claim that is no more. After too many such losses the attempt
fails, so that a step that kills its workers does not go round for ever.

All of it is in memory, on the engine's loop, and belongs to the process that runs the execution: if
that dies, another one runs the body again, as it does with bodies of its own.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from outlast import failure
from outlast.engine.replay import eager
from outlast.errors import LeaseLost, Misdirected, PayloadTooLarge, ProcessDied
from outlast.lifecycle import Reason

if TYPE_CHECKING:
    from outlast.engine.steps.body import Body

REMOTE: Final = "remote"
"""The capability of an engine whose remote steps are served."""
LOSSES_MAX: Final = 5
"""How often a step is offered again whose worker fell silent."""
TOKEN_BYTES: Final = 24
SILENCES: Final = 3
"""How many heartbeats an actor may miss."""
SEEN_SECONDS: Final = 60.0
"""How long a worker that has asked for a step counts as one that will ask again."""


class Claim:
    """A step that a worker on another machine has taken.

    Attributes:
        id: its name; no secret.
        token: who has it, has the claim; a secret.
        body: the attempt.
        task: the task whose execution it belongs to.
        worker: how the worker calls itself.
        lease_seconds: how long it may be silent.
        heard: the number of the last heartbeat whose news were taken.
    """

    def __init__(self, call: RemoteCall, worker: str, lease_seconds: float) -> None:
        self.id = call.desk.mark + secrets.token_hex(10)
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        self.body = call.body
        self.task = call.task
        self.worker = worker
        self.lease_seconds = lease_seconds
        self.call = call
        self.heard = 0
        self.alarm: asyncio.TimerHandle | None = None


class Actor(msgspec.Struct, frozen=True):
    """A worker that has said who it is, and gives signs of life of its own.

    Attributes:
        id: its name.
        identity: who it says it is.
        capabilities: the steps that it can run.
        interval_seconds: how often it says that it lives; after three silences it is gone.
        registered_by: the caller that has registered it, and who alone speaks for it.
    """

    id: str
    identity: str
    capabilities: tuple[str, ...]
    interval_seconds: int
    registered_by: str


class RemoteCall:
    """One body that runs on another machine, or waits for a worker there.

    Attributes:
        future: gives its value, or the error it raised, on the engine's loop.
        claim: who has it; None while it is on offer.
        losses: how many workers that had taken it fell silent.
    """

    def __init__(self, desk: RemoteDesk, body: Body, bytes_max: int) -> None:
        self.body, self.task, self.bytes_max = body, body.task, bytes_max
        self.future: asyncio.Future[Any] = desk.loop.create_future()
        self.claim: Claim | None = None
        self.losses = 0
        self.is_stopped = False
        self.desk = desk

    def stop(self, grace_us: int) -> None:
        """Stop it: its worker hears it with the next heartbeat, and is not waited for longer."""
        if self.future.done() or self.claim is None or not grace_us:
            self.leave()
        elif not self.is_stopped:
            self.desk.loop.call_later(grace_us / 1e6, self.leave)
        self.is_stopped = True

    def leave(self) -> None:
        """Wait no longer; nobody hears of a value."""
        self.desk.forget(self)
        if not self.future.done():
            self.future.set_result(None)


class RemoteDesk:
    """What is on offer to workers on other machines, and what they have taken.

    Args:
        loop: the engine's loop; everything here is for it alone.
        has_others: whether other servers of this store may have desks of their own.

    Attributes:
        mark: what the names of its claims begin with; no other desk has the same.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, has_others: bool = False) -> None:
        self.loop = loop
        self.mark = f"cl_{secrets.token_hex(4)}_"
        self._has_others = has_others
        self._offers: dict[str, deque[RemoteCall]] = {}
        self._claims: dict[str, Claim] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._seen: dict[str, float] = {}
        self._actors: dict[str, tuple[Actor, asyncio.TimerHandle]] = {}
        self._is_closed = False

    # For the engine

    def call(self, body: Body, bytes_max: int) -> RemoteCall:
        """Offer a body."""
        call = RemoteCall(self, body, bytes_max)
        self._offers.setdefault(body.step.name, deque()).append(call)
        self._wake()
        return call

    def forget(self, call: RemoteCall) -> None:
        """Take back an offer, or what was taken."""
        claim = call.claim
        if claim is not None:
            self._end(claim)
        elif (offers := self._offers.get(call.body.step.name)) is not None and call in offers:
            offers.remove(call)
            if not offers:
                del self._offers[call.body.step.name]

    def close(self) -> None:
        """Let nobody wait any more."""
        self._is_closed = True
        self._wake()

    def waiting(self) -> Mapping[str, int]:
        """Count what is on offer, by step."""
        return {name: len(offers) for name, offers in self._offers.items()}

    def reason(self, id: str, since: int) -> Reason | None:
        """Say which remote step an execution waits for; None where it waits for none."""
        for offers in self._offers.values():
            for call in offers:
                if call.body.info().execution_id == id:
                    return self._untaken(call, since)
        for claim in self._claims.values():
            if claim.body.info().execution_id == id:
                key = claim.body.call.key
                return Reason("running", f"step {key} runs at {claim.worker}", since)
        return None

    def _untaken(self, call: RemoteCall, since: int) -> Reason:
        name, key = call.body.step.name, call.body.call.key
        if self.loop.time() - self._seen.get(name, float("-inf")) < SEEN_SECONDS:
            text = f"step {key} waits for a remote worker; all that take {name} have enough to do"
            return Reason("remote_workers_busy", text, since)
        text = f"step {key} waits for a remote worker, and none has asked for {name} of late"
        hint = f"outlast worker FILE --store URL, with the file that defines {name} and this URL"
        return Reason("no_remote_worker", text, since, None, hint)

    # For workers

    async def take(
        self,
        steps: Collection[str],
        may: Callable[[str], bool],
        worker: str,
        lease_seconds: float,
        limit: int,
        wait_seconds: float,
    ) -> list[Claim]:
        """Give claims on up to ``limit`` steps, as soon as there is one, or none after the wait.

        Args:
            steps: the names of the steps that the worker knows.
            may: tells whether it may take steps of a task's executions.
            worker: how it calls itself.
            lease_seconds: how long it may be silent from now on.
            limit: how many it takes at most.
            wait_seconds: how long it waits for the first.
        """
        until = self.loop.time() + wait_seconds
        while True:
            for name in steps:
                self._seen[name] = self.loop.time()
            claims = self._take(steps, may, worker, lease_seconds, limit)
            left = until - self.loop.time()
            if claims or left <= 0 or self._is_closed:
                return claims
            waiting: asyncio.Future[None] = self.loop.create_future()
            self._waiting.add(waiting)
            alarm = self.loop.call_later(left, _settle, waiting)
            try:
                await waiting
            finally:
                alarm.cancel()
                self._waiting.discard(waiting)

    def _take(
        self,
        steps: Collection[str],
        may: Callable[[str], bool],
        worker: str,
        lease_seconds: float,
        limit: int,
    ) -> list[Claim]:
        claims: list[Claim] = []
        for name in steps:
            offers = self._offers.get(name, deque())
            passed: list[RemoteCall] = []
            while offers and len(claims) < limit:
                call = offers.popleft()
                if not may(call.task):
                    passed.append(call)
                elif call.body.begun_at is not None or call.body.begin():
                    claim = call.claim = Claim(call, worker, lease_seconds)
                    self._claims[claim.id] = claim
                    self._renew(claim)
                    claims.append(claim)
            offers.extendleft(reversed(passed))
            if not offers:
                self._offers.pop(name, None)
        return claims

    def register(self, actor: Actor) -> None:
        """Note that an actor lives."""
        self._forget(actor.id)
        alarm = self.loop.call_later(SILENCES * actor.interval_seconds, self.remove, actor.id)
        self._actors[actor.id] = actor, alarm

    def actor(self, id: str) -> Actor | None:
        """Give an actor that lives."""
        return self._actors[id][0] if id in self._actors else None

    def remove(self, id: str) -> None:
        """Let an actor go: what it has claimed under its id is offered again."""
        actor = self._forget(id)
        if actor is not None:
            worker = f"{actor.registered_by}/{id}"
            for claim in [one for one in self._claims.values() if one.worker == worker]:
                self._lose(claim)

    def _forget(self, id: str) -> Actor | None:
        actor, alarm = self._actors.pop(id, (None, None))
        if alarm is not None:
            alarm.cancel()
        return actor

    def on_offer(self, steps: Collection[str]) -> list[str]:
        """Name the executions that have one of these steps on offer, each once."""
        calls = [call for name in steps for call in self._offers.get(name, ())]
        return list(dict.fromkeys(call.body.info().execution_id for call in calls))

    def claim(self, id: str, token: str) -> Claim:
        """Give a claim to who has its token.

        Raises:
            LeaseLost: it is no more, or was never this caller's.
            Misdirected: another server gave it, one that may still live.
        """
        if self._has_others and not id.startswith(self.mark):
            raise Misdirected(
                "this claim was given by another server of this store",
                where=id[:80],
                why="steps for other machines belong to the server that runs their executions",
                do="try again over a new connection, where several servers share an address",
            )
        claim = self._claims.get(id)
        if claim is None or not hmac.compare_digest(claim.token.encode(), token.encode()):
            raise LeaseLost(
                "this claim is no more",
                where=id[:80],
                why="the worker was silent for too long, the step was stopped or has ended, or the "
                "server was started anew; whoever has the step now will end it",
                do="stop what runs for it, and claim the next",
            )
        return claim

    def beat(self, claim: Claim) -> bool:
        """Take a sign of life; gives whether the worker is to stop, as nobody awaits it."""
        self._renew(claim)
        claim.body.take_beat(None)
        return claim.call.is_stopped

    def complete(self, claim: Claim, data: bytes) -> None:
        """Take the value of a step, as JSON.

        Raises:
            BadPayload, PayloadTooLarge: it is none of the step's type; the claim goes on.
        """
        call = claim.call
        if len(data) > call.bytes_max:
            raise PayloadTooLarge(
                f"the result of step {claim.body.call.key} has {len(data)} bytes",
                where=claim.id,
                why=f"{call.bytes_max} are the most",
            )
        value = claim.body.step.output.decode(data)
        self._end(claim)
        call.future.set_result(None if call.is_stopped else value)

    def fail(self, claim: Claim, data: bytes) -> None:
        """Take the error of a step, as :mod:`outlast.failure` records it."""
        call = claim.call
        self._end(claim)
        error = failure.rebuild_as_raised(data)
        if call.is_stopped:
            call.future.set_result(None)
        else:
            call.future.set_exception(
                eager.Escaped(error) if isinstance(error, StopIteration) else error
            )

    def release(self, claim: Claim) -> None:
        """Offer a step again that its worker gives back."""
        self._end(claim)
        self._offer_again(claim.call)

    # Inside

    def _renew(self, claim: Claim) -> None:
        if claim.alarm is not None:
            claim.alarm.cancel()
        claim.alarm = self.loop.call_later(claim.lease_seconds, self._lose, claim)

    def _lose(self, claim: Claim) -> None:
        """Give up on a worker that is silent: another one may have the step."""
        call = claim.call
        self._end(claim)
        call.losses += 1
        if not call.is_stopped and call.losses > LOSSES_MAX:
            call.future.set_exception(
                ProcessDied(
                    f"{call.losses} remote workers fell silent while they ran this step",
                    why=f"{claim.worker} was the last of them",
                    do="look at what they wrote, and at their kernels' logs",
                )
            )
        else:
            self._offer_again(call)

    def _offer_again(self, call: RemoteCall) -> None:
        if call.is_stopped:
            call.future.set_result(None)
        else:
            self._offers.setdefault(call.body.step.name, deque()).appendleft(call)
            self._wake()

    def _end(self, claim: Claim) -> None:
        self._claims.pop(claim.id, None)
        claim.call.claim = None
        if claim.alarm is not None:
            claim.alarm.cancel()

    def _wake(self) -> None:
        for waiting in self._waiting:
            _settle(waiting)


def _settle(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


__all__ = ["REMOTE", "Actor", "Claim", "RemoteCall", "RemoteDesk"]
