"""The bodies of one execution's steps: which calls wait for one, and what each attempt came to.

Theory of operation. A step that the code calls waits here until nothing holds it back: all that the
code has learned is durable, its budget has room, its back-off is over. Then its body starts, as an
attempt with a number. A body that ends at once reports so after all the others were started, so
that outcomes come one by one and no stack grows.

What an attempt came to is decided here, once: a result, a failure that is tried again (a row says
so, and the next attempt waits until that row is durable, or attempts could not be counted), or a
failure that the code gets to see. A body that nobody awaits any more is stopped and named in the
log; what it reports later is nobody's. Processes take a while to stop, and the end of the execution
waits for them (``ending``).

How many attempts have failed, and until when the next one waits, is a function of the log: a replay
recalls it from the rows.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Protocol

from outlast import failure
from outlast.engine.drive.playback import Playback
from outlast.engine.read.measures import LEAST_US
from outlast.engine.replay.scope import Call, CallState, Mismatch, Outcome
from outlast.engine.steps.body import Body, Host
from outlast.engine.steps.progress import Progress
from outlast.engine.write.emitter import Emitter
from outlast.engine.write.owner import NOBODY, Owner
from outlast.engine.write.purse import spent_by
from outlast.errors import (
    BadPayload,
    CannotLoad,
    Fatal,
    OutlastError,
    OverBudget,
    PayloadTooLarge,
    RetryAfter,
    StepDeadline,
    StepQueueTimeout,
)
from outlast.lifecycle import Event, Kind, Transition
from outlast.lifecycle.record import Data

ANNOUNCE_US: Final = 1_000_000
"""How long a step runs before a note says so."""
NEVER_RETRIED: Final = (Fatal, BadPayload, PayloadTooLarge)
"""What fails for good, in a task as in a step."""
_STEP_NEVER_RETRIED: Final = (*NEVER_RETRIED, CannotLoad, StepDeadline, StepQueueTimeout)
_ABANDONED: Final = CallState.ABANDONED
_STEP: Final = Kind.STEP  # to look a member of an enum up takes as long as to make a row


class Life(Protocol):
    """Whose bodies they are."""

    def pump(self) -> None:
        """Go on, as something has changed."""

    def suspend_mismatch(self, mismatch: Mismatch) -> None:
        """Hear that the code is not the one that was recorded."""


class Attempts:
    """The attempts of one leased execution.

    Args:
        life: is told to go on.
        owner: writes the log.
        playback: hands outcomes to the code.
        host: where bodies run.
        bodies: where those under way are kept, by key; the owner looks at it, too.
        identity: in whose name they speak to services outside, if not in the execution's.

    Attributes:
        calls: what waits for its body.
        back_offs: until when the next attempt of a call has to wait; see :meth:`backing_off`.
        ending: bodies that nobody awaits, and that take a while to stop.
        has_granted: task code was given what it set aside, and may go on.
    """

    def __init__(
        self,
        life: Life,
        owner: Owner,
        playback: Playback,
        host: Host,
        bodies: dict[str, Body],
        identity: str | None,
    ) -> None:
        self.owner = owner
        self.bodies = bodies
        self.calls: list[Call] = []
        self.back_offs: dict[str, int] = {}
        self.ending: frozenset[Body] = frozenset()
        self.has_granted = False
        self._life = life
        self._playback = playback
        self._host = host
        self._identity = identity
        self._at_once: list[Body] = []
        self._failures: dict[str, int] = {}
        self._spans = host.tally.spans_of(owner.record.task)
        self._late: deque[tuple[Body, Any, BaseException | None]] = deque()
        self._announced: dict[str, object] = {}
        self._progress: Progress | None = None
        self._reporting = False

    @property
    def task(self) -> str:
        """The task whose execution it is."""
        return self.owner.record.task

    def names(self) -> Mapping[str, object]:
        """Name what a line of the execution is about."""
        return self._playback.names()

    def recall(self, row: Transition) -> None:
        """Take up what a recorded row says about attempts."""
        key = row.key
        if key is None:
            return
        if row.kind is Kind.STEP:
            self.back_offs.pop(key, None)
        elif row.kind is Kind.ATTEMPT_FAILED:
            assert row.data is not None
            self._failures[key] = int(str(row.data["attempt"]))
            self.back_offs[key] = int(str(row.data["retry_at"]))
        elif row.kind is Kind.STEP_ANNOUNCED:
            self._announced[key] = row.digest
            if row.payload is not None:
                self._beats().recall(row)

    # Starting

    def start_calls(self) -> None:
        """Start the bodies that nothing holds back: all that was delivered is durable.

        What ended at once waits for :meth:`report_ended`.
        """
        owner = self.owner
        if owner.is_over or owner.before_park is not None or owner.is_held or not owner.is_live:
            return
        script = self._playback.script
        if script is not None and script.point_ahead:
            return
        if owner.emitter is not None and owner.emitter.is_full:
            return  # what was said is written first, and its end comes here again
        if not self._host.may_begin():
            self._host.held_up()
            return
        calls, self.calls = self.calls, []
        purse = owner.purse
        if purse is not None:
            purse.look()
        for call in calls:
            if call.state is _ABANDONED:
                continue  # by the code, which has gone on with what was granted just now
            if self.back_offs and self.back_offs.get(call.key, 0) > self._host.clock.now():
                self.calls.append(call)  # the alarm starts it
                continue
            may_go = True if purse is None else purse.admits(call)
            if may_go:
                self._start(call)
            elif may_go is False:
                self.calls.append(call)  # it is short of a budget

    def _start(self, call: Call) -> None:
        if call.kind == "reserve":
            self._grant(call)
            return
        if self.back_offs:
            self.back_offs.pop(call.key, None)
        owner = self.owner
        body = Body(
            call,
            self._failures.get(call.key, 0) + 1,
            owner.record.id,
            self._host,
            self._playback.scope,
            self,
            None if self._progress is None else self._progress.last(call.key),
            self._identity,
        )
        body.purse = owner.purse
        self.bodies[call.key] = body
        if body.start():
            self._at_once.append(body)

    def _grant(self, call: Call) -> None:
        """Give task code what it wanted to set aside."""
        if self.owner.purse is not None:
            self.owner.purse.granted_to_code(call)
        data = {"reserved": dict(call.payload.amounts)}
        row = self.owner.append(
            Event(Kind.STEP, "engine", key=call.key, digest=call.digest, data=data)
        )
        self.has_granted = True
        self._playback.deliver_row(row, row.at)

    def reuse_next(self) -> bool:
        """Give a retried execution the result that an earlier try recorded for the same call."""
        if not self._playback.memo:
            return False
        for call in self.calls:
            if self._playback.reuse(call):
                self.calls.remove(call)
                return True
        return False

    def is_any_due(self) -> bool:
        """Tell whether a body waits for no time: it starts once all that was learned is durable."""
        if not self.back_offs:
            return bool(self.calls)
        now = self._host.clock.now()
        return any(self.back_offs.get(call.key, 0) <= now for call in self.calls)

    def backing_off(self) -> list[tuple[str, int]]:
        """Name the calls whose next attempt has to wait, and until when.

        The calls decide: what an attempt that failed has noted says nothing about a call that was
        given up since, and a replay does not hear of that.
        """
        if not self.back_offs:
            return []
        return [
            (call.key, self.back_offs[call.key])
            for call in self.calls
            if call.key in self.back_offs
        ]

    # Ending

    def report_ended(self) -> None:
        """Take the outcomes of bodies that ended as they were started, one after another."""
        if self._reporting:
            return  # it is further up the stack, and will come to them
        self._reporting = True
        try:
            while self._at_once:
                self._finish_some()
        finally:
            self._reporting = False

    def _finish_some(self) -> None:
        ended, self._at_once = self._at_once, []
        ended.reverse()
        try:
            while ended:
                ended.pop().finish()
        finally:
            if ended:  # one of them has raised an error of ours; the others come next
                ended.reverse()
                self._at_once[:0] = ended

    def body_done(self, body: Body, value: Any, error: BaseException | None) -> None:
        """Record what a body came to and deliver it."""
        owner, key = self.owner, body.call.key
        if owner.is_over or self.bodies.get(key) is not body:
            if body in self.ending:
                self.ending -= {body}
                self._life.pump()
            return  # late: the lease is gone, or nobody awaits it
        if body.call.state is _ABANDONED:
            self.abandon(body.call)
            self._life.pump()
            return
        if owner.purse is not None and self._playback.outcomes:
            self._late.append((body, value, error))  # what comes first may give this one up
            return
        del self.bodies[key]
        step = body.step
        payload: bytes
        if error is None:
            try:
                payload, value = step.output.round_trip(
                    value, bytes_max=self._host.payload_bytes_max, name="result"
                )
            except OutlastError as refused:
                refused.where = f"step {key} of {owner.record.id}, {step.where}"
                error = refused
        if isinstance(error, OverBudget) and owner.purse is not None:
            self._come_back(body, error)
            self._life.pump()
            return
        if error is not None:
            if body.details is not None:
                self._beats().note(body, self._host.clock.now())
            retry_at = self._retry_at(body, error)
            if retry_at is not None and (body.deadline_at is None or retry_at < body.deadline_at):
                self._try_again(body, error, retry_at)
                self._life.pump()
                return
            if retry_at is not None:
                error = _too_late(body, error)
        data: Data | None = None
        raised = error
        if error is not None:
            payload, value = failure.round_trip(error)
            data = {"failed": True, "attempts": body.attempt}
            error, value = value, None
        elif body.attempt > 1:
            data = {"attempts": body.attempt}
        if owner.purse is not None or body.spent is not None or step.cost is not None:
            data = {**(data or {}), **self._spent_by(body, raised)} or None
        ran = body.ran_us()
        self._spans.add(ran)
        if ran >= LEAST_US or body.memory_bytes is not None:
            data = {**(data or {}), **body.took(ran)}
        row = owner.append(
            Event(_STEP, "engine", key=key, digest=body.call.digest, data=data, payload=payload)
        )
        try:
            self._playback.deliver(
                Outcome(row.seq, row.at, "step", row.key, row.digest, value, error)
            )
        except Mismatch as mismatch:
            self._life.suspend_mismatch(mismatch)
            return
        self._life.pump()

    @property
    def are_done(self) -> bool:
        """Whether no body runs: all there are have ended, and wait to be reported."""
        late = {body.call.key for body, _, _ in self._late}
        return not self.bodies or self.bodies.keys() <= late

    def report_late(self) -> bool:
        """Report the next body that ended while an outcome waited; gives whether there was one.

        With a budget an outcome is delivered once it is durable, and only then it is known whether
        the code still awaits the others: a row for one that it has given up would fit no replay.
        """
        while self._late:
            body, value, error = self._late.popleft()
            if self.bodies.get(body.call.key) is body:
                self.body_done(body, value, error)
                return True
        return False

    def _retry_at(self, body: Body, error: BaseException) -> int | None:
        """Say when a step is tried again after a failed attempt; None if its policy says never."""
        policy = body.step.policy
        failures = body.attempt - 1
        asked = isinstance(error, RetryAfter)
        if isinstance(error, _STEP_NEVER_RETRIED) or not (
            policy.allows(failures, error) or (asked and failures < max(policy.retries, 1))
        ):
            return None
        at_least = round(error.delay_seconds * 1e6) if isinstance(error, RetryAfter) else 0
        delay = policy.delay_us(failures + 1, random.random(), at_least_us=at_least)
        retry_at: int = self._host.clock.now() + delay
        return retry_at

    def _try_again(self, body: Body, error: BaseException, retry_at: int) -> None:
        """Note a failed attempt of a step, which is tried again."""
        key = body.call.key
        ran = body.ran_us()
        self._spans.add(ran)
        data = {"attempt": body.attempt, "retry_at": retry_at, **body.took(ran)}
        data |= self._spent_by(body, error)
        row = self.owner.append(
            Event(
                Kind.ATTEMPT_FAILED,
                "engine",
                key=key,
                digest=body.call.digest,
                data=data,
                payload=failure.dump(failure.describe(error)),
            )
        )
        # The next attempt depends on it: it waits until this is durable.
        self.owner.delivered = row.seq
        self._failures[key] = body.attempt
        self.back_offs[key] = retry_at
        self.calls.append(body.call)

    def _come_back(self, body: Body, error: OverBudget) -> None:
        """A body could not set aside what it needs: that is no outcome, it runs again later."""
        data = {"over_budget": error.what, **self._spent_by(body)}
        self.owner.append(Event(Kind.ANNOTATION, "engine", key=body.call.key, data=data))
        self.calls.append(body.call)

    def _spent_by(
        self, body: Body, error: BaseException | None = None, *, lost: bool = False
    ) -> dict[str, object]:
        """Say what a body has spent, for the row of its outcome."""
        if self.owner.purse is not None:
            spent = self.owner.purse.spent_by(body, error, lost=lost)
        elif body.spent is None and body.step.cost is None:
            return {}
        else:
            spent = spent_by(body, lost=lost)
        return {"spent": spent} if spent else {}

    @property
    def are_idle(self) -> bool:
        """Whether there is nothing of them: no body, and no call that waits for one."""
        return not (self.calls or self.bodies or self.ending or self._late or self._at_once)

    # Stopping

    def abandon(self, call: Call, why: str | None = None) -> None:
        """Nobody awaits this call any more: its body is stopped where that is possible."""
        self.back_offs.pop(call.key, None)
        if call in self.calls:
            self.calls.remove(call)
        body = self.bodies.pop(call.key, None)
        if body is None:
            if self.owner.purse is not None:
                self.owner.purse.drop(call)
            return
        if body.stop():
            self.ending |= {body}  # the end of the execution waits for a process
        data = {"attempt": body.attempt, **({} if why is None else {"why": why})}
        data |= self._spent_by(body, lost=True)
        self.owner.append(Event(Kind.CALL_ABANDONED, "engine", key=call.key, data=data))

    def stop(self, *, at_once: bool) -> None:
        """Stop all bodies, or ignore what they come to, for good."""
        for body in self.bodies.values():
            body.stop(at_once=at_once)
        self.bodies.clear()
        self._life = NOBODY

    # What they say while they run

    def _beats(self) -> Progress:
        if self._progress is None:
            self._progress = Progress(self.owner.append)
        return self._progress

    def beaten(self, body: Body) -> None:
        """Write down what a body has just said, now or when it is time."""
        if self.owner.is_over or self._is_ahead or self.bodies.get(body.call.key) is not body:
            return  # what is still under way later is noted by :meth:`announce`
        wait_us = self._beats().take(body, self._host.clock.now())
        if wait_us:
            self._host.loop.call_later(wait_us / 1e6, self.beaten, body)

    def open_emitter(self) -> Emitter:
        """Give who takes what bodies say of themselves; from any thread."""
        return self.owner.open_emitter()

    def note_beats(self) -> None:
        """Write down what bodies have said last, as the lease is about to be given up."""
        for body in self.bodies.values():
            if body.details is not None and not self._is_ahead:
                self._beats().note(body, self._host.clock.now())

    @property
    def _is_ahead(self) -> bool:
        """Whether the log has outcomes that the code has yet to see, as a budget is being asked.

        They may have it give up what is under way: a row behind them must not say that it waits.
        """
        return bool(self._playback.outcomes)

    def announce(self, now: int) -> None:
        """Note the steps that have run for long, so that everybody can see what is under way."""
        owner = self.owner
        if self._is_ahead or not (owner.may_write and owner.is_live):
            return
        for key, body in self.bodies.items():
            if body.details is not None:
                self.beaten(body)  # that says as well that it is under way
                continue
            is_late = now - body.started_at >= ANNOUNCE_US
            if is_late and key not in self._announced and body.call.state is not _ABANDONED:
                self._announced[key] = body.call.digest
                data = {"attempt": body.attempt, "since": body.started_at}
                digest = body.call.digest
                owner.append(
                    Event(Kind.STEP_ANNOUNCED, "engine", key=key, digest=digest, data=data)
                )


def _too_late(body: Body, error: BaseException) -> StepDeadline:
    """Make the error of a step whose next attempt could not begin before its deadline."""
    said = f"the next attempt of step {body.call.key} would begin after the step's deadline"
    late = StepDeadline(said, where=body.info().execution_id, why=f"attempt {body.attempt} failed")
    late.__cause__ = error
    return late


__all__ = ["ANNOUNCE_US", "NEVER_RETRIED", "Attempts", "Life"]
