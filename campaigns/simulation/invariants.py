"""What must be true after each write and at each start of a body, and who checks it.

The numbers are those of ``docs/reliability.md``. A rule that was never applied is no rule, so each
counts how often it was; the campaign fails where one of them was not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from campaigns.simulation.actions import STEP_RETRIES, STREAM, Says, Witness
from campaigns.simulation.chains import Chains
from campaigns.simulation.clockwork import Process
from campaigns.simulation.descents import Family
from campaigns.simulation.edges import Edges
from campaigns.simulation.leases import Book
from campaigns.simulation.programs import SORTS
from campaigns.simulation.reasons import Truth
from campaigns.simulation.slots import SlotBook
from outlast.budget import charged_by
from outlast.lifecycle import (
    FINAL,
    Execution,
    Kind,
    MessageKind,
    State,
    Transition,
    reason_of,
)
from outlast.lifecycle.states import LEASED, PARKED
from outlast.store.protocol import Create, InboxEntry, Write

RULES: Final = {
    "INV-1 log": "an execution's log is numbered 1, 2, 3, …, and its row counts it",
    "INV-2 append-only": "rows of the log and of the inbox never change and never go",
    "INV-3 final": "what has ended never changes again",
    "INV-4 one end": "an execution ends once, by the last row of its log",
    "INV-5 fence": "each claim and takeover raises the fence, each claim draws a new nonce",
    "INV-6 owner": "only the owner of a lease writes: what a stale one sends is refused",
    "INV-7 edges": "a state follows on another only as the lifecycle allows",
    "INV-8 recorded": "a step with a recorded result never starts again, nor has a second one",
    "INV-9 acknowledged": "what was acknowledged is there; what was refused has left no trace",
    "INV-10 reason": "every open execution has a reason, and something that can move it",
    "reasons": "at rest, what `why` says of an execution is so, and what it asks for moves it",
    "INV-10 liveness": "once faults stop, everything comes to an end",
    "INV-11 claims": "every claim is counted; too many without progress suspend",
    "INV-12 fold": "the log folds to the row",
    "INV-13 replay": "a replay asks for what is recorded",
    "INV-15 attempts": "a body is told the attempt that the log says, once a lease",
    "INV-15 output commit": "no body starts before what its execution has learned is durable",
    "INV-17 policy": "no step and no task is tried more often than its policy allows",
    "INV-18 messages": "a message is taken once, in order; a question has one answer",
    "INV-19 inert": "who has given a lease up starts nothing: parked, paused or ended",
    "INV-20 parked": "a parked execution ends by cancel or deadline only, and not without one",
    "INV-21 children": "a child is born with its parent's row; its end is told once, after it",
    "dependencies": "who waits for others begins when all have ended as needed, or is taken along",
    "descents": "what is made of another execution knows what that knew, and runs none of it again",
    "chains": "an execution goes on as one new one, which has its input and its unread signals",
    "slots": "a slot is decided once, in order, by its policies; what it fires is there, once",
    "lease taken": "nobody is taken over before the lease has run out, by the store's clock",
    "lease kept": "who is neither dead nor troubled keeps its lease",
    "lease watched": "no body starts after the lease of its worker has run out",
    "capacity": "a limit is never held by more executions than it has places",
    "money": "a budget says what the log has charged, and what is priced never overruns it",
    "streams": "a stream is numbered 1, 2, 3, …; each part of a try is there, once and in order",
    "timers": "a timer fires once, and never early",
    "results": "an execution ends as its program can, with tokens of its own",
    "sound": "nothing goes wrong inside the engine",
}
"""The rules by name."""
_TOKEN: Final = re.compile(rb"T[bs][0-9a-z][^\"\\\\]*")
_ENDS_BY_CODE: Final = frozenset({Kind.FINISH, Kind.ERROR, Kind.RETRY})
_IDLE_CLAIMS_MAX: Final = 5
_OF_WORKERS: Final = frozenset({"renew", "register", "leave"})


class Violation(BaseException):
    """A rule is broken. Nothing on the way may take it for an error of its own.

    Attributes:
        rule: which.
    """

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        assert rule in RULES, rule
        self.rule = rule


@dataclass(slots=True)
class Seen:
    """What is known of one execution, from what was stored and nothing else.

    Attributes:
        owner, nonce: the process that has the lease, and which lease it is; None: nobody has it.
        gave_up: the leases that their owners have ended themselves, and those owners. One whose
            lease somebody else has ended may not know it yet.
        tries: how often the whole task was tried again.
        recorded, failures, fired, told: of the present try: keys of results, failed attempts,
            timers, children whose end was told.
        reusable: results of earlier tries: key and digest.
        tokens, instants: what its code can have learned.
        started: attempts that began, by lease, try and key.
        died: how many workers had died in a row over what was suspended.
    """

    record: Execution
    rows: list[Transition] = field(default_factory=list)
    inbox: list[InboxEntry] = field(default_factory=list)
    owner: Process | None = None
    nonce: bytes | None = None
    gave_up: set[bytes | Process | None] = field(default_factory=set)
    tries: int = 0
    claims: int = 0
    starts: int = 0
    idle_claims: int = 0
    recorded: set[str] = field(default_factory=set)
    reusable: set[tuple[str, int | None]] = field(default_factory=set)
    failures: dict[str, int] = field(default_factory=dict)
    fired: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    instants: set[int] = field(default_factory=set)
    started: set[tuple[bytes | None, int, str, int]] = field(default_factory=set)
    questions: set[str] = field(default_factory=set)
    sent: set[str] = field(default_factory=set)
    died: int = 0


class Auditor:
    """Sees every write and every start of a body, and compares them with all it knows."""

    def __init__(self, reader: Any, counts: Counter[str]) -> None:
        self.reader = reader
        self.counts = counts
        self.checked: Counter[str] = Counter()
        self.broken: Violation | None = None
        self.seen: dict[str, Seen] = {}
        self.acked_starts: dict[str, str | None] = {}
        self.acked: dict[tuple[str, str], MessageKind] = {}
        self.refused: set[tuple[str, str]] = set()
        self._nonces: set[bytes] = set()
        self.leases: Book | None = None
        self.edges = Edges(self)
        self.family = Family(self)
        self.chains = Chains(self)
        self.truth = Truth(self)
        self.slots = SlotBook(self)

    def check(self, rule: str, holds: bool, *said: object) -> None:
        """Apply a rule.

        Raises:
            Violation: it does not hold.
        """
        self.checked[rule] += 1
        if not holds:
            violation = Violation(rule, " ".join(map(str, said)))
            self.broken = self.broken or violation
            raise violation

    # Writes

    def applied(
        self, process: Process, verb: str, args: tuple[Any, ...], result: Any
    ) -> list[Transition]:
        """See what a call of the store has done; gives the rows it has added."""
        if self.leases is not None:
            self.leases.applied(process, verb, args, result)
            self.counts["renewals"] += verb == "renew" and result is not None
            self.counts["late_renewals"] += verb == "renew" and result is None
        if verb in _OF_WORKERS:
            return []  # what it did to executions all the same shows at the next write
        if verb == "commit":
            self._check_owners(process, args[0], result)
        fresh: list[Transition] = []
        known = list(self.seen)
        born = _born_in(args[0]) if verb == "commit" else []
        plans = verb.startswith("schedules.")
        if plans:
            open_before = self.slots.open_ones()
            for answer in result if isinstance(result, list) else [result]:
                self.check("sound", answer.error is None, verb, answer.error)
                born += answer.made
        ids = list(dict.fromkeys(known + born))
        for id, record in zip(ids, self.reader.get(ids), strict=True):
            if record is None:
                self.check("INV-2 append-only", id not in self.seen, id, "is gone")
                continue
            seen = self.seen.get(id)
            if seen is None:
                seen = self.seen[id] = Seen(record)
            elif seen.record == record:
                continue
            fresh += self._take(process, verb, seen, record)
        if fresh:
            self._check_limits()
        if plans:
            self.slots.applied(open_before)
        return fresh

    def _check_limits(self) -> None:
        """See who holds which limit, from the rows of the executions alone."""
        for task, places in (("sim_gated", 1), ("sim_held", 1)):
            mine = [seen.record for seen in self.seen.values() if seen.record.task == task]
            if not mine:
                continue
            kept = task == "sim_held"
            holders = [
                one.id
                for one in mine
                if one.is_leased or (kept and one.attempt and not one.is_final)
            ]
            self.counts["gated"] += bool(holders)
            self.counts["gated_waits"] += any(one.state is State.BLOCKED for one in mine)
            self.check("capacity", len(holders) <= places, task, "is held by", *holders)

    def _check_money(self, seen: Seen) -> None:
        """Compare an execution's budget with what its log has charged."""
        for budget in self.reader.budgets([f"execution:{seen.record.id}"]):
            charged = charged_by(seen.rows).get(budget.name, 0)
            self.check("money", budget.charged == charged, budget.name, budget.charged, charged)
            over = budget.limit is not None and budget.spent + budget.reserved > budget.limit
            self.check("money", not over, budget)

    def _check_streams(self, seen: Seen) -> None:
        """Read all that an execution has said: nothing twice, and nothing lost on the way."""
        record, id = seen.record, seen.record.id
        items = self.reader.stream(id, STREAM)
        parts: dict[tuple[str, int, int], int] = {}
        for number, item in enumerate(items, 1):
            source = (item.step, item.attempt, item.lease if item.step else 0)
            self.check("streams", item.number == number, id, item.number, number)
            self.check("streams", item.part == parts.get(source, 0) + 1, id, source, item.part)
            parts[source] = item.part
        self.counts["said"] += len(items)
        said = [msgspec.json.decode(item.payload) for item in items]
        for row in seen.rows:
            if row.kind is Kind.STEP and row.payload and _name_of(row.key or "") == "sim_talk":
                token = msgspec.json.decode(row.payload)
                words = [one for one in said if isinstance(one, list) and one[0] == token]
                count = words[0][2] if words else 1
                whole = [[token, number, count] for number in range(1, count + 1)]
                self.check("streams", words == whole, id, row.key, "said", words, "of", whole)
                self.counts["said_by_bodies"] += count
        if record.state is State.SUCCEEDED:
            program = SORTS[record.task].plan(seed_of(seen))
            wanted = sorted(one.number for one in program.walk() if isinstance(one, Says))
            last = [
                word
                for item, word in zip(items, said, strict=True)
                if not item.step and item.attempt == seen.tries + 1
            ]
            self.check("streams", sorted(last) == wanted, id, "said", last, "of", wanted)

    def _check_owners(self, process: Process, batch: Iterable[Any], answers: Any) -> None:
        """No write of a stale owner is stored."""
        born = set()
        for item, answer in zip(batch, answers, strict=True):
            if isinstance(item, Create) and answer.refused is None:
                born.add(item.after.id)
            elif isinstance(item, Write):
                if answer.refused is None:
                    seen = self.seen.get(item.id)
                    owner = process if item.id in born else seen.owner if seen else None
                    self.check(
                        "INV-6 owner", owner is process,
                        f"process {process.number} wrote {[str(r.kind) for r in item.rows]} to",
                        item.id, "whose owner is", owner.number if owner else None,
                    )  # fmt: skip
                    continue
                self.counts[f"refused_{answer.refused}"] += 1
                self.check("sound", answer.refused != "internal_error", item.id, answer.error)

    def _take(self, process: Process, verb: str, seen: Seen, record: Execution) -> list[Transition]:
        """Take in what has changed of one execution."""
        before, id = seen.record, record.id
        fresh: list[Transition] = self.reader.log(id, len(seen.rows))
        self.check(
            "INV-3 final",
            not (seen.rows and before.is_final),
            id,
            "has changed after",
            before.state,
        )
        for row in fresh:
            self._row(process, verb, seen, row)
            seen.rows.append(row)
        seen.record = record
        if record.task == "sim_bounded" and fresh:
            self._check_money(seen)
        self.check("INV-1 log", record.seq == len(seen.rows), id, "row", record.seq, len(seen.rows))
        if record.inbox_count > len(seen.inbox):
            self._take_messages(seen, record)
        self._record(process, seen, record)
        return fresh

    def _take_messages(self, seen: Seen, record: Execution) -> None:
        for entry in self.reader.inbox(record.id, len(seen.inbox)):
            message = entry.message
            self.check(
                "INV-18 messages",
                message.id not in seen.sent,
                record.id,
                "took",
                message.id,
                "twice",
            )
            seen.sent.add(message.id)
            if message.kind is MessageKind.ANSWER and message.key is not None:
                self.check(
                    "INV-18 messages", message.key not in seen.questions,
                    record.id, message.key, "was answered twice",
                )  # fmt: skip
                seen.questions.add(message.key)
            seen.inbox.append(entry)
        self.check("INV-18 messages", len(seen.inbox) == record.inbox_count, record.id, "inbox")

    def _record(self, process: Process, seen: Seen, record: Execution) -> None:
        id = record.id
        if record.is_leased:
            self.check("INV-6 owner", record.worker is not None and record.nonce is not None, id)
        else:
            self.check("INV-6 owner", record.worker is None and record.nonce is None, id)
        self.check(
            "INV-11 claims",
            record.claims == seen.claims and record.attempt == seen.starts
            and seen.idle_claims <= _IDLE_CLAIMS_MAX + 1,
            id, record.claims, seen.claims, record.attempt, seen.starts, seen.idle_claims,
        )  # fmt: skip
        if not record.is_final:
            self.check("INV-10 reason", reason_of(record) is not None and _can_move(record), id,
                       record.state, record.detail)  # fmt: skip

    # Rows of logs

    def _row(self, process: Process, verb: str, seen: Seen, row: Transition) -> None:
        id, kind = row.execution_id, row.kind
        last = seen.rows[-1] if seen.rows else None
        self.check("INV-1 log", row.seq == len(seen.rows) + 1, id, row.seq, "after", len(seen.rows))
        if last is not None:
            self.check("INV-4 one end", last.to_state not in FINAL, id, kind, "after", last.kind)
            self.check("INV-7 edges", row.from_state is last.to_state and row.at >= last.at, id,
                       row.seq, kind, row.from_state, last.to_state)  # fmt: skip
            self._fence(seen, row, last)
        if self.leases is not None and verb == "recover" and row.from_state in LEASED:
            self.counts["lease_takeovers"] += 1
            self.leases.taken(seen.record.worker, process)
        seen.instants.add(row.at)
        if row.payload:
            seen.tokens.update(token.decode() for token in _TOKEN.findall(row.payload))
        number = row.data.get("inbox") if row.data else None
        if number is not None:
            taken = sum(1 for one in seen.rows if one.data and "inbox" in one.data)
            self.check(
                "INV-18 messages", number == taken + 1, id, "took message", number, "as", taken + 1
            )
        check = _ROW_CHECKS.get(kind)
        if check is not None:
            check(self, seen, row)
        self._ownership(process, verb, seen, row)
        if row.to_state in FINAL or kind is Kind.RETRY:
            self._ending(seen, row)

    def _fence(self, seen: Seen, row: Transition, last: Transition) -> None:
        raises = row.kind is Kind.CLAIM or (
            row.from_state in LEASED and row.nonce is None
            and row.kind in (Kind.LEASE_EXPIRED, Kind.WORKER_LOST, Kind.CANCEL, Kind.DEADLINE)
        )  # fmt: skip
        self.check("INV-5 fence", row.fence == last.fence + raises, row.execution_id, row.kind,
                   "has fence", row.fence, "after", last.fence)  # fmt: skip
        if row.kind is Kind.CLAIM:
            assert row.nonce is not None
            self.check("INV-5 fence", row.nonce not in self._nonces, "a nonce came twice")
            self._nonces.add(row.nonce)

    def _ownership(self, process: Process, verb: str, seen: Seen, row: Transition) -> None:
        """Keep our own book of who has the lease."""
        if row.kind is Kind.CLAIM:
            seen.owner, seen.nonce = process, row.nonce
            seen.gave_up.discard(process)
            seen.claims += 1
            seen.idle_claims += 1
        elif row.from_state in LEASED and row.to_state not in LEASED:
            if seen.owner is not None and verb == "commit" and row.nonce is not None:
                seen.gave_up |= {seen.owner, seen.nonce}
            seen.owner = seen.nonce = None
        if row.kind in _PROGRESS or (row.kind is Kind.RESUME and row.from_state is State.SUSPENDED):
            seen.idle_claims = 0

    def _ending(self, seen: Seen, row: Transition) -> None:
        """Nothing that is parked ends by itself."""
        id = row.execution_id
        if row.kind in _ENDS_BY_CODE:
            self.check(
                "INV-20 parked", row.from_state in LEASED, id, row.kind, "in", row.from_state
            )
        elif row.kind is Kind.CANCEL:
            asked = any(one.message.kind is MessageKind.CANCEL for one in self.reader.inbox(id))
            due = self.edges.cancelled(seen, row)
            self.check("INV-20 parked", asked or due, id, "was cancelled by nobody")
        elif row.kind is Kind.DEADLINE:
            deadline = seen.record.deadline_at
            self.check(
                "INV-20 parked", deadline is not None and row.at >= deadline, id, "timed out early"
            )
        else:
            self.check("INV-20 parked", False, id, "ended by", row.kind)
        if row.from_state in PARKED:
            self.counts["ended_while_parked"] += 1

    # Starts of bodies

    def began(
        self,
        process: Process | None,
        lease: bytes | None,
        id: str,
        key: str,
        attempt: int,
        witness: Witness,
    ) -> None:
        """See that a body may start now; ``lease`` is whose it is, None where nobody can say."""
        assert process is not None
        where = f"{key} of {id} in process {process.number}"
        seen = self.seen.get(id)
        if seen is None:
            self.check("INV-15 output commit", False, where, "runs for what is not stored")
            return
        for one in witness:
            if one[0] != "r":
                known = int(one[1:]) in seen.instants if one[0] == "n" else one in seen.tokens
                self.check(
                    "INV-15 output commit", known, where, "began with", one, "which is not stored"
                )
        whose: Any = process if lease is None else lease
        if whose is not seen.owner and whose != seen.nonce:
            self.check(
                "INV-19 inert",
                whose not in seen.gave_up,
                where,
                "began after its lease was given up",
            )
            self.counts["stale_starts"] += 1
            return
        self.check(
            "INV-19 inert", seen.record.state is State.RUNNING, where, "began in", seen.record.state
        )
        self.check("INV-8 recorded", key not in seen.recorded, where, "began, and is recorded")
        failed = seen.failures.get(key, 0)
        self.check(
            "INV-15 attempts", attempt == failed + 1, where, "is attempt", attempt, "after", failed
        )
        place = (seen.record.nonce, seen.tries, key, attempt)
        self.check(
            "INV-15 attempts", place not in seen.started, where, "attempt", attempt, "began twice"
        )
        seen.started.add(place)

    # What was told

    def told_start(self, id: str, key: str | None) -> None:
        """A start was acknowledged."""
        self.acked_starts[id] = key
        seen = self.seen.get(id)
        self.check(
            "INV-9 acknowledged", seen is not None and seen.record.key == key, "start", id, key
        )

    def told_message(self, id: str, message_id: str, kind: MessageKind) -> None:
        """A message was acknowledged."""
        seen = self.seen[id]
        if kind is MessageKind.PAUSE and message_id not in seen.sent:
            return  # it was paused already
        self.acked[id, message_id] = kind
        self.check("INV-9 acknowledged", self._has_come(id, message_id), kind, message_id, "of", id)

    def _has_come(self, id: str, message_id: str) -> bool:
        """Tell whether a message is there: with its receiver, or as whom that went on."""
        return any(message_id in self.seen[one].sent for one in self.chains.of(id))

    def told_refusal(self, id: str, message_id: str) -> None:
        """A message was refused."""
        self.refused.add((id, message_id))
        seen = self.seen.get(id)
        self.check("INV-9 acknowledged", seen is None or message_id not in seen.sent,
                   message_id, "of", id, "was refused, and is there")  # fmt: skip

    def told_end(self, record: Execution, row: Transition) -> None:
        """Somebody was told how an execution has ended."""
        seen = self.seen[record.id]
        self.check("INV-9 acknowledged", seen.record.is_final and seen.rows[-1] == row,
                   "the end of", record.id, "was told as", row.kind)  # fmt: skip

    # The end

    def check_everything(self) -> None:
        """Read all again, and compare."""
        for id, key in self.acked_starts.items():
            self.check("INV-9 acknowledged", id in self.seen, "start", id, key)
        for (id, message_id), kind in self.acked.items():
            self.check("INV-9 acknowledged", self._has_come(id, message_id), kind, message_id, id)
        for id, message_id in self.refused:
            if id in self.seen:
                self.check(
                    "INV-9 acknowledged", message_id not in self.seen[id].sent, message_id, id
                )
        for id, seen in self.seen.items():
            self._check_streams(seen)
            self.edges.at_end(seen)
            (record,) = self.reader.get([id])
            self.check(
                "INV-2 append-only", self.reader.log(id) == seen.rows, id, "its log has changed"
            )
            self.check(
                "INV-2 append-only",
                self.reader.inbox(id) == seen.inbox,
                id,
                "its inbox has changed",
            )
            self.check(
                "INV-3 final" if seen.record.is_final else "INV-12 fold", record == seen.record, id
            )
        self.slots.at_end()
        self.chains.at_end()
        verdict = self.reader.verify()
        self.check("INV-12 fold", not verdict.defects, verdict.defects[:2])


def _born_in(batch: Iterable[Any]) -> list[str]:
    """Name the executions that a batch brings into the world, if it is stored."""
    found = []
    for item in batch:
        if isinstance(item, Create):
            found.append(item.after.id)
        found += [birth.after.id for birth in getattr(item, "births", ())]
    return found


def seed_of(seen: Seen) -> int:
    """Give the seed that an execution was started with."""
    return int(msgspec.json.decode(seen.rows[0].payload or b"{}")["seed"])


def _can_move(record: Execution) -> bool:
    """Tell whether something is there that can move an open execution."""
    state = record.state
    if state in (State.WAITING, State.RETRY_WAIT, State.SCHEDULED):
        return (
            record.due_at is not None
            or bool((record.detail or {}).get("waits_on"))
            or any(wait.get("kind") not in ("timer", "retry") for wait in _waits(record))
        )
    if state is State.AWAITING_INPUT:
        timers = [wait for wait in _waits(record) if wait.get("kind") in ("timer", "retry")]
        return bool(_waits(record)) and (not timers or record.due_at is not None)
    return True


def _waits(record: Execution) -> list[Any]:
    waits: Any = (record.detail or {}).get("waits")
    return list(waits or ())


def _on_create(auditor: Auditor, seen: Seen, row: Transition) -> None:
    auditor.family.born(seen, row)
    auditor.chains.born(seen, row)
    parent_id = seen.record.parent_id
    if parent_id is not None and seen.record.parent_key is not None:
        parent = auditor.seen.get(parent_id)
        named = parent is not None and any(
            one.data and one.data.get("child") == row.execution_id for one in parent.rows
        )
        auditor.check("INV-21 children", named, row.execution_id, "is a child of nobody")
        auditor.counts["children"] += 1


def _on_child_finished(auditor: Auditor, seen: Seen, row: Transition) -> None:
    id = auditor.family.child_of(row) or str((row.data or {}).get("child"))
    auditor.family.reused(seen, row)
    child = auditor.reader.get([id])[0]
    auditor.check("INV-21 children", child is not None and child.is_final, id, "has not ended")
    auditor.check("INV-21 children", id not in seen.told, "the end of", id, "was told twice")
    seen.told.add(id)


def _on_claim(auditor: Auditor, seen: Seen, row: Transition) -> None:
    auditor.edges.claimed(seen, row)


def _on_upstream_ended(auditor: Auditor, seen: Seen, row: Transition) -> None:
    auditor.edges.heard(seen, row)


def _on_start(auditor: Auditor, seen: Seen, row: Transition) -> None:
    seen.starts += 1


def _on_step(auditor: Auditor, seen: Seen, row: Transition) -> None:
    assert row.key is not None
    auditor.check("INV-8 recorded", row.key not in seen.recorded, row.key, "of", row.execution_id,
                  "has a second result")  # fmt: skip
    seen.recorded.add(row.key)
    auditor.family.reused(seen, row)
    auditor.family.ran(row)
    attempts = int(str((row.data or {}).get("attempts", 1)))
    auditor.check("INV-17 policy", attempts <= 1 + _retries_of(row.key), row.key, attempts)


def _on_attempt_failed(auditor: Auditor, seen: Seen, row: Transition) -> None:
    assert row.key is not None and row.data is not None
    failed = seen.failures.get(row.key, 0)
    attempt = int(str(row.data["attempt"]))
    auditor.check("INV-15 attempts", attempt == failed + 1, row.key, attempt, "after", failed)
    auditor.check("INV-17 policy", attempt <= _retries_of(row.key), row.key, "attempt", attempt)
    seen.failures[row.key] = attempt


def _on_timer(auditor: Auditor, seen: Seen, row: Transition) -> None:
    assert row.key is not None and row.digest is not None
    auditor.check(
        "timers", row.key not in seen.fired, row.key, "of", row.execution_id, "fired twice"
    )
    early = row.at < row.digest and not auditor.family.reused(seen, row)
    auditor.check("timers", not early, row.key, "of", row.execution_id, "fired early")
    seen.fired.add(row.key)


def _on_annotation(auditor: Auditor, seen: Seen, row: Transition) -> None:
    if auditor.family.copied(row):
        at: Any = (row.data or {})["at"]
        seen.instants.add(int(at))


def _on_due(auditor: Auditor, seen: Seen, row: Transition) -> None:
    data = row.data or {}
    if data.get("cause") in ("timer", "wait_expired") or (
        row.kind is Kind.RETRY_DUE and not data.get("trigger")
    ):
        due_at = _due_of(seen)
        auditor.check("timers", due_at is not None and row.at >= due_at, row.execution_id, row.kind,
                      "before it was due")  # fmt: skip


def _due_of(seen: Seen) -> int | None:
    """Give the instant of the wait that the log has come to."""
    for row in reversed(seen.rows):
        if row.kind is Kind.WORKER_LOST:
            return row.at
        if row.kind in (Kind.WAIT, Kind.RETRY):
            due: Any = (row.data or {}).get("due_at")
            return int(due) if due is not None else None
    return None


def _on_retry(auditor: Auditor, seen: Seen, row: Transition) -> None:
    seen.tries += 1
    auditor.family.tries_again(row.execution_id)
    auditor.check("INV-17 policy", seen.tries <= SORTS[seen.record.task].retries,
                  row.execution_id, "is tried again for the", seen.tries, "th time")  # fmt: skip
    seen.recorded.clear()
    seen.failures.clear()
    seen.fired.clear()
    seen.told.clear()


def _on_suspend(auditor: Auditor, seen: Seen, row: Transition) -> None:
    data = row.data or {}
    code = data.get("code")
    auditor.check("INV-13 replay", code != "code_mismatch", row.execution_id, data)
    auditor.check("INV-11 claims", code != "crash_loop" or seen.idle_claims > _IDLE_CLAIMS_MAX,
                  row.execution_id, "crash_loop after", seen.idle_claims)  # fmt: skip
    auditor.counts["suspended"] += 1
    seen.died = seen.idle_claims - 1


def _on_takeover(auditor: Auditor, seen: Seen, row: Transition) -> None:
    auditor.counts["takeovers"] += 1


_ROW_CHECKS: Final = {
    Kind.CREATE: _on_create,
    Kind.CHILD_FINISHED: _on_child_finished,
    Kind.CLAIM: _on_claim,
    Kind.UPSTREAM_ENDED: _on_upstream_ended,
    Kind.START: _on_start,
    Kind.STEP: _on_step,
    Kind.ATTEMPT_FAILED: _on_attempt_failed,
    Kind.TIMER_FIRED: _on_timer,
    Kind.ANNOTATION: _on_annotation,
    Kind.RESUME: _on_due,
    Kind.RETRY_DUE: _on_due,
    Kind.RETRY: _on_retry,
    Kind.SUSPEND: _on_suspend,
    Kind.WORKER_LOST: _on_takeover,
    Kind.LEASE_EXPIRED: _on_takeover,
}
_PROGRESS: Final = frozenset(
    {Kind.STEP, Kind.WAIT, Kind.RETRY, Kind.SUSPEND, Kind.TIMER_FIRED, Kind.ATTEMPT_FAILED,
     Kind.RELEASE, Kind.INIT_BRANCH, Kind.FINISH_BRANCH}
)  # fmt: skip


def _retries_of(key: str) -> int:
    """Give how often the step with this key may be tried again."""
    return STEP_RETRIES.get(_name_of(key), 0)


def _name_of(key: str) -> str:
    """Give the name of the step that has this key."""
    return key.rpartition("/")[2].partition("#")[0].partition(":")[0]
