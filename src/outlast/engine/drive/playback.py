"""The code's side of an execution: what it gets to see of its log, when, and what it did before.

Theory of operation. The code learns of the world by outcomes alone: rows of its log, in their
order, each delivered when the code is quiet, so that what it does next follows from the rows so
far. That is the same whether a row has just been written or was read. A row that was read is looked
at only when its turn has come, as only then the code has made the call whose type it is read by.

A claimed log is parted first. What earlier tries of the whole task came by is kept for use again
(results by key, answers and signals for the mailbox); the rows of the current try are delivered as
they were. Between them, witnesses say where the code stood (``trail.py``); if it stands elsewhere,
or asks for something else than is recorded, that is a
:class:`~outlast.engine.replay.scope.Mismatch`. One that was made of another execution plays its
script before it lives (``script.py``).

Three things depend on whether the code does something for the first time: which edits it meets
(``change.py``), what it says to its streams, and what it notes in passing. All are decided here.

Nothing here writes to the log but by the owner, and nothing decides how the execution goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from outlast import failure
from outlast.engine.drive.children import Children, child_end
from outlast.engine.replay.scope import Call, Mismatch, Outcome, Scope
from outlast.engine.replay.script import POINT, Past, Script, is_point
from outlast.engine.replay.thread_scope import ThreadScope
from outlast.engine.replay.trail import (
    OUTCOMES,
    WITNESSES,
    Trail,
    is_of_owner,
    is_of_quiet,
    see,
    told,
)
from outlast.engine.task.change import PREFIX
from outlast.engine.task.note import Noted
from outlast.engine.write.clock import Clock
from outlast.engine.write.emitter import DONE, Said
from outlast.engine.write.owner import Owner
from outlast.errors import OutlastError
from outlast.lifecycle import Event, Kind, Transition
from outlast.lifecycle.lateness import late_answers

_RETRY, _ANNOTATION = Kind.RETRY, Kind.ANNOTATION
_KEPT_BY_RETRY: Final = frozenset({Kind.INPUT_RECEIVED, Kind.SIGNAL_RECEIVED})


class Playback:
    """What one execution's code has seen, and what it is to see next.

    Args:
        owner: writes the log.
        children: know what children came to.
        clock: tells the time.
        birth: the first row of the log.
        past: the life that it takes up, if it was made of another execution.

    Attributes:
        scope: the code; None until it is made.
        outcomes: what the code has not seen yet.
        script: what it brought along of its source; None where it has none, or has not begun.
        memo: the results that earlier tries recorded, by key.
        child_at: when the code has last called a child, or heard of one's end.
    """

    def __init__(
        self, owner: Owner, children: Children, clock: Clock, birth: Transition, past: Past | None
    ) -> None:
        self.scope: Scope | ThreadScope | None = None
        self.outcomes: deque[Outcome | tuple[Transition, int]] = deque()
        self.script: Script | None = None
        self.memo: dict[str, Transition] = {}
        self.child_at = 0
        self._owner = owner
        self._children = children
        self._clock = clock
        self._past = past
        self._log: Sequence[Transition] = (birth,)
        self._trail: Trail | None = None
        self._noted: Noted | None = None
        self._told = 0
        self._vouched: int | None = None

    # What is recorded

    def load(
        self, rows: Sequence[Transition], code: str
    ) -> tuple[list[Transition], list[Transition]]:
        """Part the rows of the current try from those of earlier ones, whose results are kept.

        Args:
            rows: the log.
            code: the mark of today's code.

        Returns:
            The answers and signals of earlier tries, which the current one finds in its mailbox,
            and the rows of the current try. Results of steps are remembered by key.
        """
        assert self.scope is not None
        first = payload_bytes = 0
        has_notes = False
        for place, row in enumerate(rows):
            kind = row.kind
            if kind is _RETRY:
                first = place + 1
            elif kind is _ANNOTATION:
                has_notes = True
            if row.payload is not None and place:
                payload_bytes += len(row.payload)
        current = rows[first:] if first else rows
        if has_notes:
            self._marks().see(rows[:first], current)
            self.scope.changes.load(rows)
        if rows:
            if self._owner.purse is not None:
                self._owner.purse.see(current)
            self._log = rows
            self._owner.payload_bytes += payload_bytes
            self._trail = Trail(current, code)
        if self._past is not None:
            self.script = Script(rows)
        return (self._keep(rows[:first]) if first else []), list(current)

    def _keep(self, earlier: Sequence[Transition]) -> list[Transition]:
        """Remember what earlier tries came by; gives what the current one finds in its mailbox."""
        self._children.take_earlier(earlier)
        for row in earlier:
            if self.script is not None and row.kind in _KEPT_BY_RETRY:
                self.script.spend(row)
            if row.kind is Kind.STEP and not (row.data and row.data.get("failed")):
                assert row.key is not None
                if not (row.data and ("reused" in row.data or "reserved" in row.data)):
                    self.memo[row.key] = row
        late = late_answers(earlier)
        return [row for row in earlier if row.kind in _KEPT_BY_RETRY and row.seq not in late]

    def enter(self, started: Transition) -> None:
        """Let the code begin."""
        assert self.scope is not None
        self._owner.delivered = self._told = started.seq
        if self._owner.is_live:
            self._trail = None
        self.scope.changes.is_past = self._is_past(started.seq)
        self.scope.begin(started.at if self._past is None else self._past.began_at)
        if self.scope.changes.fresh:
            self.mark_changes()

    def told(self, mismatch: Mismatch, stamp: Any) -> dict[str, Any]:
        """Give the facts of a mismatch; nothing is delivered any more."""
        self.outcomes.clear()
        return told(mismatch, self._log, self.scope, stamp)

    # Delivering

    def deliver(self, outcome: Outcome) -> None:
        """Give the code its next outcome, as soon as it is quiet."""
        owner = self._owner
        owner.delivered = max(owner.delivered, outcome.seq)
        self.outcomes.append(outcome)
        self.drain()

    def deliver_row(self, row: Transition, at: int) -> None:
        """Give the code a recorded row; it is read when its turn comes.

        Only then has the code made the call whose type it is read by: a ``def`` task's thread may
        still be on its way to it.
        """
        owner = self._owner
        owner.delivered = max(owner.delivered, row.seq)
        if row.kind is Kind.CHILD_FINISHED:
            self.child_at = self._clock.now()
        if self.script is not None and self.script.point_ahead:
            if is_point(row) and "reused" not in (row.data or {}):
                self.script.point_ahead = False
            at = self.script.when(row)
        self.outcomes.append((row, at))
        self.drain()

    def see(self, row: Transition) -> None:
        """See, when its turn comes, that the code stands where a witness says it stood."""
        self.outcomes.append((row, row.at))
        self.drain()

    def drain(self) -> None:
        """Deliver as long as the code is quiet.

        Raises:
            Mismatch: it is not the code that was recorded.
        """
        scope = self.scope
        assert scope is not None
        while self.outcomes and scope.is_quiet:
            if self._owner.purse is not None and not self._is_counted(self.outcomes[0]):
                return
            one = self.outcomes.popleft()
            if isinstance(one, Outcome):
                outcome = one
            elif one[0].kind in WITNESSES:
                see(scope, one[0])
                continue
            elif is_point(one[0]):
                self._pass_point(scope, *one)
                continue
            else:
                outcome = self._outcome(*one)
            if self._trail is not None or self.script is not None:
                self._look_back(outcome)
            self._told = max(self._told, outcome.seq)  # a start comes before what it delivers
            scope.deliver(outcome)
            if scope.changes.fresh:
                self.mark_changes()
        if self._owner.is_catching_up and self._owner.is_live and not self.outcomes:
            self._owner.caught_up()

    def _is_counted(self, one: Outcome | tuple[Transition, int]) -> bool:
        """Whether it is known what budgets an outcome has crossed; the code goes on after that.

        So what the log is told of a budget stands right behind the row that led to it, also where
        the code would end at once.
        """
        return (one.seq if isinstance(one, Outcome) else one[0].seq) <= self._owner.durable

    def _outcome(self, row: Transition, at: int) -> Outcome:
        """Turn a row of the log into what the code gets to see."""
        if row.kind is Kind.START:
            return Outcome(row.seq, at, "start")
        kind = OUTCOMES[row.kind]
        value: Any = None
        error: BaseException | None = None
        call = self._call_of(row) if row.key is not None else None
        if kind == "step":
            source = row
            if row.data and "reused" in row.data:
                assert row.key is not None
                copied = None if self.script is None else self.script.row(row)
                source = self.memo[row.key] if copied is None else copied
            if source.data and source.data.get("failed"):
                error = failure.rebuild(source.payload or b"")
            elif call is not None and call.kind == "reserve":
                value = row.key  # by which it is settled
            elif call is not None:
                value = self._read(row, call, source.payload or b"null")
        elif kind == "child":
            assert row.key is not None
            copied = None if self.script is None else self.script.row(row)
            if copied is not None:
                return Outcome(row.seq, at, kind, row.key, row.digest, child_end(copied))
            number = self._children.digest_of(row.key) if row.digest is None else row.digest
            return Outcome(row.seq, at, kind, row.key, number, self._children.end(row))
        elif kind in ("input", "signal"):
            value = row.payload
        return Outcome(row.seq, at, kind, row.key, row.digest, value, error)

    def _call_of(self, row: Transition) -> Call | None:
        """Give the open call that a row has the outcome of.

        Raises:
            Mismatch: it is no step any more.
        """
        assert self.scope is not None and row.key is not None
        call = self.scope.open_calls.get(row.key)
        known = call is None or call.kind == "reserve" or hasattr(call.payload, "read")
        if row.kind is Kind.STEP and not known:
            raise Mismatch(Outcome(row.seq, row.at, "step", row.key), self.scope.wanted())
        return None if call is None or row.digest not in (None, call.digest) else call

    def _read(self, row: Transition, call: Call, payload: bytes) -> Any:
        """Read what is recorded by the type that today's code has for it.

        Raises:
            Mismatch: it cannot be read so.
        """
        try:
            return call.payload.read(payload)
        except OutlastError as error:
            assert self.scope is not None
            outcome = Outcome(row.seq, row.at, OUTCOMES[row.kind], row.key, row.digest)
            said = f"what is recorded for {row.key} cannot be read by its type of today"
            why = error.why or error.what
            raise Mismatch(outcome, self.scope.wanted(), said, unfit=why) from error

    def reuse(self, call: Call) -> bool:
        """Give a call the result that an earlier try recorded for it; False if there is none."""
        row = self.memo.get(call.key)
        if row is None or row.digest != call.digest:
            return False
        data = {"reused": row.seq}
        event = Event(Kind.STEP, "engine", key=call.key, digest=call.digest, data=data)
        again = self._owner.append(event)
        self.deliver_row(again, again.at)
        return True

    # Whether it was done before

    def _look_back(self, outcome: Outcome) -> None:
        """Before an outcome is delivered: say whether what the code will do was done before."""
        assert self.scope is not None
        if self._trail is not None and outcome.seq > self._log[-1].seq:
            self._trail = None  # of this lease: what follows is new
            self._log = self._log[:1]
        self.scope.changes.is_past = self._is_past(outcome.seq)

    def _is_past(self, seq: int) -> bool:
        if self._trail is not None and self._trail.holds(seq):
            return True
        script = self.script
        return script is not None and script.point_ahead and script.has_more

    def mark_changes(self) -> None:
        """Write down the edits that the code has met first with them in it.

        Bodies wait for these rows like for outcomes: nothing can rest on a decision that is lost.
        """
        assert self.scope is not None
        if not self.scope.is_quiet:
            return  # a def task's thread may set more of them; it calls when it rests
        owner = self._owner
        for name in self.scope.changes.take_fresh():
            row = owner.append(
                Event(Kind.ANNOTATION, "engine", key=PREFIX + name, data={"changed": name})
            )
            owner.delivered = max(owner.delivered, row.seq)

    def note(self) -> None:
        """Record what the code has said in passing, unless that was recorded before."""
        assert self.scope is not None
        notes, self.scope.notes = self.scope.notes, []
        is_past = self.script is not None and self.script.point_ahead
        for note in notes:
            if self._marks().is_new(note):
                self._owner.append(note.event(reused=is_past))

    def _marks(self) -> Noted:
        if self._noted is None:
            self._noted = Noted()
        return self._noted

    def emit(self, name: str, payload: bytes) -> Said:
        """Append what task code says to a stream; it may come from the thread of a ``def`` task."""
        if self.is_past:
            return self._owner.open_emitter().pass_over(name)
        return self._owner.open_emitter().say(name, payload)

    def jot(self, payload: bytes) -> None:
        """Take a line that task code logs, unless it says again what the store has."""
        if not self.is_past:
            self._owner.open_emitter().jot(payload, place=self._told)

    @property
    def is_past(self) -> bool:
        """Whether task code says again what it has said before, and the store has."""
        return self._told < self._vouched_for()

    def names(self) -> dict[str, object]:
        """Name what a line is about."""
        record = self._owner.record
        return {
            "execution": record.id,
            "task": record.task,
            "attempt": record.failures + 1,
            "worker": record.worker,
            "tenant": record.tenant,
            "root": record.root_id or record.id,
            "traceparent": (record.labels or {}).get("traceparent", ""),
        }

    def report(self, done: float, total: float | None, text: str | None) -> Said:
        """Note how far task code says it is."""
        if self.is_past:
            return DONE
        return self._owner.open_emitter().report(done, total, text)

    def _vouched_for(self) -> int:
        """Give the row up to which the store has what was said before it."""
        if self._vouched is None:
            trails = isinstance(self.scope, ThreadScope) or self._owner.purse is not None
            vouches = is_of_quiet if trails else is_of_owner
            self._vouched = max((row.seq for row in self._log if vouches(row)), default=0)
        return self._vouched

    # The script

    def play(self, *, is_idle: bool) -> bool:
        """Give the code the next of what it brought along, or note that it goes on by itself.

        Args:
            is_idle: the code waits for no body, so that time alone could wake it.
        """
        script, scope = self.script, self.scope
        if script is None:
            return False
        assert scope is not None
        event = script.next(scope)
        if event is None and script.point_ahead:
            reseeds = self._past is not None and self._past.reseeds
            event = Event(
                Kind.ANNOTATION,
                "engine",
                data={POINT: self._owner.record.id if reseeds else None},
            )
        elif event is None and is_idle and not self.outcomes:
            event = script.next_timer(scope)
        if event is None:
            return False
        row = self._owner.append(event)
        script.spend(row)
        self.deliver_row(row, row.at)
        return True

    def _pass_point(self, scope: Scope | ThreadScope, row: Transition, at: int) -> None:
        """Here the code goes on by itself: what it waits for keeps the time that it has left."""
        seed: Any = (row.data or {})[POINT]
        moved_us = scope.pass_point(at, None if seed is None else str(seed).encode())
        for call in scope.open_calls.values():
            if call.kind in ("ask", "event") and call.payload.until is not None:
                call.payload.until += moved_us
            elif call.kind == "step" and call.payload.deadline_at is not None:
                call.payload.deadline_at += moved_us


__all__ = ["Playback"]
