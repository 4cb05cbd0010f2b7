"""Who sees every write and every start of a body, and applies the rules."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from campaigns.simulation.rules.batches import Batches
from campaigns.simulation.rules.chains import Chains
from campaigns.simulation.rules.descents import Family
from campaigns.simulation.rules.edges import Edges
from campaigns.simulation.rules.failovers import Failovers
from campaigns.simulation.rules.feed import Feed
from campaigns.simulation.rules.leases import Book
from campaigns.simulation.rules.names import Violation
from campaigns.simulation.rules.promises import Promises
from campaigns.simulation.rules.purges import Purges
from campaigns.simulation.rules.reasons import Truth
from campaigns.simulation.rules.rows import IDLE_CLAIMS_MAX, PROGRESS, ROW_CHECKS
from campaigns.simulation.rules.seen import Seen, start_by
from campaigns.simulation.rules.slots import SlotBook
from campaigns.simulation.rules.times import Times
from campaigns.simulation.rules.topic import Topic
from campaigns.simulation.rules.topics import TOPICS
from campaigns.simulation.tasks.steps import Witness
from campaigns.simulation.world.clockwork import Process
from outlast.lifecycle import FINAL, Execution, Kind, MessageKind, State, Transition, reason_of
from outlast.lifecycle.states import LEASED, PARKED
from outlast.store.protocol import Create, CreateMany, Write

_TOKEN: Final = re.compile(rb"T[bs][0-9a-z][^\"\\\\]*")
_ENDS_BY_CODE: Final = frozenset({Kind.FINISH, Kind.ERROR, Kind.RETRY})
_OF_WORKERS: Final = frozenset({"renew", "register", "leave"})


class Auditor:
    """Sees every write and every start of a body, and compares them with all it knows."""

    def __init__(self, reader: Any, counts: Counter[str]) -> None:
        self.reader = reader
        self.counts = counts
        self.checked: Counter[str] = Counter()
        self.broken: Violation | None = None
        self.seen: dict[str, Seen] = {}
        self._nonces: set[bytes] = set()
        self.leases: Book | None = None
        self.edges = Edges(self)
        self.family = Family(self)
        self.chains = Chains(self)
        self.truth = Truth(self)
        self.slots = SlotBook(self)
        self.promises = Promises(self)
        self.failovers = Failovers(self)
        self.times = Times(self)
        self.batches = Batches(self)
        self.purges = Purges(self)
        self.feed = Feed(self)
        self.is_skewed = False
        self.topics: list[Topic] = [
            self.promises,
            self.failovers,
            self.times,
            self.batches,
            self.purges,
            self.feed,
            *(topic(self) for topic in TOPICS),
        ]
        self._called = [one.called for one in self.topics if _hears(one, "called")]
        self._of_rows = [one.row for one in self.topics if _hears(one, "row")]
        self._bodies = [one.body for one in self.topics if _hears(one, "body")]
        self._wrote = [one.wrote for one in self.topics if _hears(one, "wrote")]

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

    def record_of(self, id: str) -> Execution:
        """Give the row of an execution: as it is, or as it was when it was deleted."""
        (found,) = self.reader.get([id])
        if found is None:
            found = self.seen[id].record
        return found  # type: ignore[no-any-return]

    # Writes

    def applied(
        self, process: Process, verb: str, args: tuple[Any, ...], result: Any
    ) -> list[Transition]:
        """See what a call of the store has done; gives the rows it has added."""
        if self.leases is not None:
            self.leases.applied(process, verb, args, result)
            self.counts["renewals"] += verb == "renew" and result is not None
            self.counts["late_renewals"] += verb == "renew" and result is None
        for called in self._called:
            called(process, verb, args, result)
        if verb in _OF_WORKERS:
            return []  # what it did to executions all the same shows at the next write
        if verb == "commit":
            self._check_owners(process, args[0], result)
        fresh: list[Transition] = []
        known = [id for id, seen in self.seen.items() if not seen.is_purged]
        born = _born_in(args[0]) if verb == "commit" else []
        plans = verb.startswith("schedules.") and verb != "schedules.prune"
        if plans:
            open_before = self.slots.open_ones()
            for answer in result if isinstance(result, list) else [result]:
                self.check("sound", answer.error is None, verb, answer.error)
                born += answer.made
        ids = list(dict.fromkeys(known + born))
        for id, record in zip(ids, self.reader.get(ids), strict=True):
            seen = self.seen.get(id)
            if record is None:
                if seen is not None and not seen.is_purged:
                    self.purges.gone(process, verb, args, seen)
                continue
            if seen is None:
                seen = self.seen[id] = Seen(record)
            elif seen.record == record:
                continue
            fresh += self._take(process, verb, seen, record)
        if fresh:
            for wrote in self._wrote:
                wrote(fresh)
        if plans:
            self.slots.applied(open_before)
        return fresh

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
            and seen.idle_claims <= IDLE_CLAIMS_MAX + 1,
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
        check = ROW_CHECKS.get(kind)
        if check is not None:
            check(self, seen, row)
        for of_rows in self._of_rows:
            of_rows(seen, row)
        self._ownership(process, verb, seen, row)
        if row.to_state in FINAL or kind is Kind.RETRY:
            self._ending(seen, row)

    def _fence(self, seen: Seen, row: Transition, last: Transition) -> None:
        raises = row.kind is Kind.CLAIM or (
            row.from_state in LEASED and row.nonce is None
            and row.kind in (Kind.LEASE_EXPIRED, Kind.WORKER_LOST, Kind.CANCEL, Kind.DEADLINE)
        )  # fmt: skip
        floor: Any = (row.data or {}).get("floor", 0)  # judged by the rule of failovers
        self.check("INV-5 fence", row.fence == max(last.fence + raises, floor), row.execution_id,
                   row.kind, "has fence", row.fence, "after", last.fence)  # fmt: skip
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
        if row.kind in PROGRESS or (row.kind is Kind.RESUME and row.from_state is State.SUSPENDED):
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
            late = [at for at in (seen.record.deadline_at, start_by(seen)) if at is not None]
            self.check("INV-20 parked", bool(late) and row.at >= min(late), id, "timed out early")
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
        for body in self._bodies:
            body(process, seen, key, attempt)

    # The end

    def check_everything(self) -> None:
        """Read all again, and compare."""
        for id, seen in self.seen.items():
            self.edges.at_end(seen)
            (record,) = self.reader.get([id])
            if seen.is_purged:
                self.check("purges", record is None, id, "is there again")
                continue
            same = self.reader.log(id) == seen.rows
            self.check("INV-2 append-only", same, id, "its log has changed")
            same = self.reader.inbox(id) == seen.inbox
            self.check("INV-2 append-only", same, id, "its inbox has changed")
            rule = "INV-3 final" if seen.record.is_final else "INV-12 fold"
            self.check(rule, record == seen.record, id)
        self.slots.at_end()
        self.chains.at_end()
        for topic in self.topics:
            topic.at_end()
        verdict = self.reader.verify()
        self.check("INV-12 fold", not verdict.defects, verdict.defects[:2])


def _hears(topic: Topic, name: str) -> bool:
    return getattr(type(topic), name) is not getattr(Topic, name)


def _born_in(batch: Iterable[Any]) -> list[str]:
    """Name the executions that a batch brings into the world, if it is stored."""
    found = []
    for item in batch:
        if isinstance(item, Create):
            found.append(item.after.id)
        elif isinstance(item, CreateMany):
            found += item.ids
        found += [birth.after.id for birth in getattr(item, "births", ())]
    return found


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
