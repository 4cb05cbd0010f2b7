"""The owner's side of a log: deciding what comes next, writing it, and what of it is durable.

Theory of operation. Whoever holds the lease of an execution alone writes its log. It decides in
memory, so the row is there at once, and hands it to the journal; the store accepts by comparing
(fence, nonce, seq). The log in memory is thus ahead of the disk, and two numbers say how far:
``durable`` is the last row that the store has, ``delivered`` the last that the code has learned of.
Effects wait until ``durable >= delivered``.

Giving the lease up is a row like any other, but the store refuses it with ``moved`` if a message
came that the owner has not seen. So the record as it was before is kept until the answer is there
(``before_park``), and nothing else is written meanwhile. Any other refusal means that the lease is
gone: what is in memory is worthless.

What the execution says of itself (streams, progress) rides with its rows, or goes out alone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from msgspec.structs import replace

from outlast.engine.write.clock import Clock
from outlast.engine.write.emitter import Emitter
from outlast.engine.write.journal import Journal, Submitter
from outlast.engine.write.purse import Purse
from outlast.errors import InternalError
from outlast.lifecycle import Event, Execution, Kind, Refusal, Transition, applied, decide
from outlast.store.protocol import Answer, Create, Deliver, Write

if TYPE_CHECKING:
    from outlast.engine.steps.body import Body

_DEADLINE: Final = Kind.DEADLINE
_POSITION: Final = frozenset({"seq", "idle_claims", "inbox_seen", "updated_at"})
_MAKING: Final = threading.Lock()


class _Nobody:
    """Stands for the driver of what is over.

    Its parts hold each other in cycles while it lives. They are cut at the end, so that all of it
    is freed at once: what only the collector finds costs more than the rest of a step.
    """

    __slots__ = ()

    def settled(self, item: Write, answer: Answer) -> None:
        """Hear what became of a write, in vain."""

    def let_go(self) -> None:
        """Hear of what is under way by itself, in vain."""

    def pump(self) -> None:
        """Go on, in vain."""

    def suspend_mismatch(self, mismatch: Exception) -> None:
        """Hear that the code is another one, in vain."""


NOBODY: Final = _Nobody()


class Desk(Protocol):
    """Where an owner writes."""

    journal: Journal
    clock: Clock
    loop: asyncio.AbstractEventLoop


class Hearer(Submitter, Protocol):
    """Hears what became of what an owner writes."""

    def let_go(self) -> None:
        """Hear of what is under way by itself: it has ended, and its parts are not needed."""


class Owner:
    """One lease of an execution, seen from the one who holds it.

    Args:
        desk: where it writes.
        record: the execution as it was claimed.
        bodies: the bodies under way, by key: a row that gives the lease up says what they spent.
        hears: is told what became of each write.

    Attributes:
        record: the execution as the last row has left it.
        row: the last row that was decided.
        durable, delivered: the last row that the store has, and that the code has learned of.
        before_park: the record before the lease was given up, until the store has answered.
        is_live: the code stands where the log ends, and goes on by itself.
        is_over: nothing is done any more.
        purse: what it may spend; None where it charges no budget.
        emitter: what it says of itself; None until it says something.
        is_catching_up: the code, in a thread, is still on its way through what is recorded. What
            it says there may be the words of other code than the recorded: they wait.
        payload_bytes: what the rows that passed through here carry of the user's values.
    """

    def __init__(
        self,
        desk: Desk,
        record: Execution,
        birth: Transition,
        bodies: Mapping[str, Body],
        hears: Hearer,
    ) -> None:
        self.record = record
        self.row = birth
        self.durable = record.seq
        self.delivered = 0
        self.before_park: Execution | None = None
        self.is_live = False
        self.is_over = False
        self.purse: Purse | None = None
        self.emitter: Emitter | None = None
        self.is_catching_up = False
        self.payload_bytes = len(birth.payload or b"")
        self._desk = desk
        self._bodies = bodies
        self._hears: Hearer = hears

    @property
    def may_write(self) -> bool:
        """Whether the lease is held for certain: it was not given up, and nothing is over."""
        return not self.is_over and self.before_park is None

    @property
    def is_held(self) -> bool:
        """Whether a pause was asked for; one that is being cancelled is not held up by it."""
        return self.record.pause_at is not None and self.record.cancel_at is None

    # Rows

    def append(
        self,
        event: Event,
        *,
        inbox_seen: int | None = None,
        births: Sequence[Create] = (),
        sends: Sequence[Deliver] = (),
    ) -> Transition:
        """Decide an event, apply it, and send it to the journal; gives its row."""
        refused = self.try_append(event, inbox_seen=inbox_seen, births=births, sends=sends)
        if refused is not None:
            raise InternalError(f"{event.kind} was refused: {refused.code}", where=self.record.id)
        return self.row

    def try_append(
        self,
        event: Event,
        *,
        inbox_seen: int | None = None,
        births: Sequence[Create] = (),
        sends: Sequence[Deliver] = (),
    ) -> Refusal | None:
        """Append an event, unless the lifecycle refuses it: then give why."""
        record = self.record
        fence, nonce, seq = record.fence, record.nonce, record.seq
        if event.nonce is None and event.kind is not _DEADLINE:
            event.fence, event.nonce = fence, nonce
        charge = None if self.purse is None else self.purse.charge_for(event, self._bodies)
        decision = decide(record, event, self._desk.clock.now())
        if isinstance(decision, Refusal):
            return decision
        # A record stays as it is: those on their way to the store are not copied.
        self.record = after = applied(record, decision)
        if charge is not None and self.purse is not None:
            self.purse.sent(charge)
        self.row = row = decision.transition
        if row.payload is not None:
            self.payload_bytes += len(row.payload)
        speaker = None if self.emitter is None else self._speaker
        emits, progress = ((), None) if speaker is None else speaker.ride()
        moved = decision.changes.keys() <= _POSITION
        self._desk.journal.submit(
            Write(
                record.id,
                fence,
                nonce,
                seq,
                [row],
                (after.seq, after.idle_claims, after.inbox_seen, after.updated_at),
                None if moved else after,
                inbox_seen,
                births,
                sends,
                charge=charge,
                emits=emits,
                progress=progress,
            ),
            self._hears,
        )
        return None

    def count(self, number: int) -> None:
        """Know of a message by its number: so many are in the inbox at least."""
        if number > self.record.inbox_count:
            self.record = replace(self.record, inbox_count=number)

    def give_up(self, event: Event, births: Sequence[Create] = ()) -> None:
        """Give the lease up by this event, unless there is a message that was not seen.

        Nothing happens until the store has said yes or no.
        """
        self.before_park = self.record
        self.append(event, inbox_seen=self.record.inbox_seen, births=births)

    def keep(self) -> Transition:
        """Go on with the lease, as a message came first; gives the row that was refused."""
        assert self.before_park is not None
        self.record, self.before_park = self.before_park, None
        return self.row

    def written(self, item: Write, answer: Answer) -> None:
        """Hear what became of a write."""
        if self.emitter is not None:
            if answer.refused == "moved":
                self.emitter.take_back(list(item.emits), item.progress)
            elif not item.rows and answer.refused is None:
                self.emitter.went_alone()
        if answer.refused is None:
            self.durable = item.position[0]

    # Between two leases

    def rest(self) -> None:
        """Do nothing while nobody holds the lease; :meth:`hold` may come."""
        self.is_over, self.is_live = True, False
        if self.emitter is not None:
            self.emitter.close()

    def hold(self, record: Execution) -> None:
        """Hold the next lease, as a copy that has rested since the last one."""
        self.record, self.before_park = record, None
        self.durable = record.seq
        self.is_over = False
        said, self.emitter = self.emitter, None
        if said is not None:
            self.open_emitter().follow(said)

    # What goes along

    def open_emitter(self) -> Emitter:
        """Give who takes what is said; from any thread."""
        if self.emitter is None:
            with _MAKING:
                if self.emitter is None:
                    desk, record = self._desk, self.record
                    self.emitter = Emitter(
                        desk.loop,
                        desk.clock.now,
                        record.fence,
                        record.failures + 1,
                        self._emit_alone,
                    )
        return self.emitter

    def let_go(self) -> None:
        """Need the driver no more to hear what becomes of what is under way, if that is all."""
        if self.purse is None and self.emitter is None:
            self._hears.let_go()

    def close(self) -> None:
        """Write nothing more, and let go of who hears; what is under way is still told."""
        self.is_over = True
        self._hears = NOBODY
        if self.purse is not None:
            self.purse.close()
        if self.emitter is not None:
            self.emitter.close()

    @property
    def _speaker(self) -> Emitter | None:
        """The emitter, if what was said may go out; a thread that says too much is let go on."""
        emitter = self.emitter
        mute = emitter is not None and self.is_catching_up and not emitter.is_full
        return None if mute else emitter

    def caught_up(self) -> None:
        """The code has come to where the log ends, as it is recorded: what it said may go out."""
        self.is_catching_up = False
        self._emit_alone()

    def _emit_alone(self) -> None:
        """Write what was said without a row, as none has come."""
        speaker = self._speaker
        if not self.may_write or speaker is None:
            return  # it rides with the row, or is nobody's, or waits
        said = speaker.alone()
        if said is None:
            return
        record = self.record
        position = (record.seq, record.idle_claims, record.inbox_seen, record.updated_at)
        lease = (record.id, record.fence, record.nonce, record.seq)
        item = Write(*lease, [], position, emits=said[0], progress=said[1])
        self._desk.journal.submit(item, self._hears)


__all__ = ["NOBODY", "Desk", "Owner"]
