"""The rules: what must be true of a file, a ledger, and what was acknowledged, after every life.

It is plain bookkeeping without I/O. Each rule has a name; what breaks it is a sentence. ``checked``
counts how often each rule was really applied, as a checker that checked nothing must fail.

``acked_start``       an acknowledged start is in the file, under its key and its id
``acked_message``     so is an acknowledged answer, signal, cancel, pause or resume, in the inbox
``acked_result``      a result that somebody was given is the one in the file
``log``               logs are gap-free, only grow, and never change; finals stay what they are
``repeated``          a body never starts in a life after the one that recorded its result
``twice_in_a_life``   nor does the same attempt start twice in one process
``output_commit``     whatever an execution had learned when a body was called was in the file
``unknown_execution`` no body runs for an execution, and nothing is stored, that nobody asked for
``mismatch``          no replay diverges
``verify``            ``db verify`` has no complaint
``graceful``          a graceful stop ends in time, with code 0, and keeps no lease
``life_failed``       no life fails of itself, nor hangs
``result``            in the end everything has the result that its program computes
``stuck``             and everything has ended
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from campaigns import programs
from campaigns.ledger import TOKEN, Start
from campaigns.life import Known, Word
from campaigns.life import Start as Order
from campaigns.reading import Found, Row, Snapshot

RULES: Final = (
    "acked_start",
    "acked_message",
    "acked_result",
    "log",
    "repeated",
    "twice_in_a_life",
    "output_commit",
    "unknown_execution",
    "mismatch",
    "verify",
    "graceful",
    "life_failed",
    "result",
    "stuck",
)
FINAL: Final = frozenset({"succeeded", "failed", "timed_out", "cancelled"})


class Violation(Exception):
    """A rule is broken.

    Attributes:
        rule: which.
    """

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule


@dataclass(slots=True)
class Seen:
    """What is known of one execution of the file.

    Attributes:
        recorded: per step key, the life by whose end its result was in the log.
        failed: per step key, the same for a recorded failure, which a new try may repeat.
        attempts: per step key, the last attempt that was recorded as failed, and by which life.
        tokens, instants: what an execution can have learned from its rows.
        starts: how often each attempt of each step started in each life.
        retries: how often the whole task was tried again.
    """

    task: str
    key: str | None
    state: str
    detail: str | None
    rows: list[Row] = field(default_factory=list)
    messages: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    message_count: int = 0
    recorded: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    attempts: dict[str, tuple[int, int]] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    instants: set[int] = field(default_factory=set)
    starts: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    retries: int = 0

    @property
    def seq(self) -> int:
        """How long its log is."""
        return len(self.rows)


class Audit:
    """Everything that is known about one file, from its first life to its last."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self.seen: dict[str, Seen] = {}
        self.acked: dict[str, str] = {}
        self.sent: dict[str, set[str]] = {}
        self.answered: dict[str, set[str]] = {}
        self.results: dict[str, tuple[str, Any]] = {}
        self.checked: Counter[str] = Counter()
        self.acknowledged = 0
        self.bodies = 0
        self.lifted = 0

    # What is asked for

    def order(self, order: Order) -> None:
        """Note that a life is about to be asked to start this."""
        self.orders[order.key] = order

    def unacknowledged(self) -> list[Order]:
        """Give the starts that nobody has acknowledged; the same key makes them safe to repeat."""
        return [order for key, order in self.orders.items() if key not in self.acked]

    def open(self) -> list[Known]:
        """Give the executions of the file that have not ended."""
        return [
            Known(id, self.orders[seen.key], sorted(self.sent.get(id, ())))
            for id, seen in self.seen.items()
            if seen.state not in FINAL and seen.key is not None
        ]

    # What a life told

    def heard(self, lines: Iterable[list[Any]]) -> None:
        """Take in what the engine has acknowledged to a life.

        Raises:
            Violation: the life failed, or a replay diverged.
        """
        for word, *parts in lines:
            if word == Word.START:
                key, id = parts
                self.acknowledged += 1
                if self.acked.setdefault(key, id) != id:
                    raise Violation("acked_start", f"{key} was {self.acked[key]}, and is now {id}")
            elif word == Word.ANSWER:
                self.acknowledged += 1
                self.answered.setdefault(parts[0], set()).add(parts[1])
            elif word == Word.SENT:
                self.acknowledged += 1
                self.sent.setdefault(parts[0], set()).add(parts[1])
            elif word == Word.RESULT:
                self.acknowledged += 1
                self.results[parts[0]] = (parts[1], parts[2])
            elif word == Word.LIFTED:
                self.lifted += 1
            elif word == Word.MISMATCH:
                raise Violation("mismatch", f"{parts[0]}: {parts[1]}")
            elif word == Word.FAILED:
                raise Violation("life_failed", parts[0])

    # What is there

    def look(
        self, life: int, snapshot: Snapshot, starts: list[Start], *, full: bool = False
    ) -> None:
        """Compare the file and the ledger, as a life has left them, with everything known.

        Raises:
            Violation: a rule is broken.
        """
        if full:
            self._check_everything(snapshot)
        for found in snapshot.found:
            self._take(life, found)
        self._check_starts(life, starts)
        if snapshot.count != len(self.seen):
            raise Violation("log", f"{len(self.seen)} executions were there, now {snapshot.count}")
        self._check_witnesses(starts)
        self._check_acknowledged()
        if snapshot.verified is not None:
            self.checked["verify"] += snapshot.verified
            if snapshot.defects:
                raise Violation("verify", "; ".join(snapshot.defects[:3]))

    def _check_starts(self, life: int, starts: list[Start]) -> None:
        """Bodies that ran, against what earlier lives had recorded."""
        for start in starts:
            self.bodies += 1
            seen = self.seen.get(start.execution)
            if seen is None:
                continue  # see the witnesses
            self.checked["repeated"] += 1
            recorded = seen.recorded.get(start.key, seen.failed.get(start.key, life))
            attempt, noted = seen.attempts.get(start.key, (0, life))
            if recorded < life:
                raise Violation(
                    "repeated",
                    f"{start.key} of {start.execution} was recorded by life {recorded}, and ran "
                    f"again in life {life}",
                )
            if start.attempt <= attempt and noted < life:
                raise Violation(
                    "repeated",
                    f"attempt {start.attempt} of {start.key} of {start.execution} ran again, "
                    f"though attempt {attempt} was recorded as failed",
                )

    def _check_witnesses(self, starts: list[Start]) -> None:
        for start in starts:
            seen = self.seen.get(start.execution)
            if seen is None:
                raise Violation(
                    "unknown_execution",
                    f"{start.key} ran for {start.execution}, which is not in the file",
                )
            place = (start.key, start.attempt, start.life)
            seen.starts[place] += 1
            self.checked["twice_in_a_life"] += 1
            if seen.starts[place] > 1 + seen.retries:
                raise Violation("twice_in_a_life", f"{place} of {start.execution}")
            for one in start.witness:
                self.checked["output_commit"] += 1
                known = one[0] == "r" or (
                    int(one[1:]) in seen.instants if one[0] == "n" else one in seen.tokens
                )
                if not known:
                    raise Violation(
                        "output_commit",
                        f"{start.key} of {start.execution} ran in life {start.life} with {one}, "
                        "which is not in the file",
                    )

    def _take(self, life: int, found: Found) -> None:
        """Take in what is new of one execution."""
        self.checked["log"] += 1
        seen = self.seen.get(found.id)
        if seen is None:
            if found.key is None or found.key not in self.orders:
                raise Violation("unknown_execution", f"{found.id} was never asked for")
            seen = self.seen[found.id] = Seen(found.task, found.key, "", None)
        if seen.state in FINAL and (found.rows or seen.state != found.state):
            raise Violation("log", f"{found.id} had ended as {seen.state}, and has changed")
        for row in found.rows:
            self._take_row(life, found.id, seen, row)
        if seen.seq != found.seq:
            raise Violation("log", f"{found.id} has {seen.seq} rows, its row says {found.seq}")
        if seen.rows[-1].to_state != found.state:
            raise Violation("log", f"{found.id} is {found.state}, its log says otherwise")
        for message in found.messages:
            seen.message_count += 1
            if message.number != seen.message_count or message.id in seen.messages:
                raise Violation("log", f"message {message.number} of {found.id} is out of order")
            seen.messages.add(message.id)
            if message.kind == "answer" and message.key is not None:
                seen.answered.add(message.key)
        seen.state, seen.detail = found.state, found.detail
        if found.state == "suspended" and "crash_loop" not in (found.detail or ""):
            raise Violation("mismatch", f"{found.id}: {found.detail}")

    def _take_row(self, life: int, id: str, seen: Seen, row: Row) -> None:
        last = seen.rows[-1] if seen.rows else None
        if row.seq != seen.seq + 1 or (last is not None and row.from_state != last.to_state):
            raise Violation("log", f"row {row.seq} of {id} does not follow on row {seen.seq}")
        if last is not None and (row.fence < last.fence or row.at < last.at):
            raise Violation("log", f"row {row.seq} of {id} has an older fence or time")
        if last is not None and row.kind == "claim" and row.fence <= last.fence:
            raise Violation("log", f"the claim in row {row.seq} of {id} has an old fence")
        seen.rows.append(row)
        seen.instants.add(row.at)
        if row.payload is not None:
            seen.tokens.update(token.decode() for token in TOKEN.findall(row.payload))
        if row.kind == "step" and row.key is not None:
            self._take_step(life, id, seen, row, row.key)
        elif row.kind == "attempt_failed" and row.key is not None:
            data = msgspec.json.decode(row.data or "{}")
            seen.attempts[row.key] = (int(data["attempt"]), life)
        elif row.kind == "retry":
            seen.retries += 1
            seen.failed.clear()
            seen.attempts.clear()

    def _take_step(self, life: int, id: str, seen: Seen, row: Row, key: str) -> None:
        data = msgspec.json.decode(row.data or "{}")
        if data.get("failed"):
            seen.failed[key] = life
            return
        if key in seen.recorded and "reused" not in data:
            raise Violation("repeated", f"{key} of {id} has two results")
        seen.recorded.setdefault(key, life)

    def _check_everything(self, snapshot: Snapshot) -> None:
        """A full reading: no row that was read before has changed or gone."""
        for found in snapshot.found:
            seen = self.seen.get(found.id)
            if seen is None:
                continue
            self.checked["log"] += len(seen.rows)
            if found.rows[: seen.seq] != seen.rows:
                raise Violation("log", f"rows of {found.id} have changed")
            del found.rows[: seen.seq]
            del found.messages[: seen.message_count]

    def _check_acknowledged(self) -> None:
        """Whatever was acknowledged is there."""
        for key, id in self.acked.items():
            self.checked["acked_start"] += 1
            if id not in self.seen or self.seen[id].key != key:
                raise Violation("acked_start", f"{id}, started as {key}, is not in the file")
        for id, sent in self.sent.items():
            self.checked["acked_message"] += len(sent)
            if lost := sent - self.seen[id].messages:
                raise Violation("acked_message", f"{sorted(lost)} to {id} are not in its inbox")
        for id, answered in self.answered.items():
            self.checked["acked_message"] += len(answered)
            if lost := answered - self.seen[id].answered:
                raise Violation("acked_message", f"answers to {sorted(lost)} of {id} are lost")
        for id, (state, value) in self.results.items():
            self.checked["acked_result"] += 1
            if self.outcome(id) != (state, value):
                raise Violation(
                    "acked_result", f"{id} was {state} {value}, and is {self.outcome(id)}"
                )

    def outcome(self, id: str) -> tuple[str, Any]:
        """Give how an execution has ended, in the file."""
        seen = self.seen[id]
        payload = seen.rows[-1].payload
        if seen.state == "succeeded":
            return seen.state, msgspec.json.decode(payload or b"null")
        return seen.state, None

    # The end

    def finish(self) -> dict[str, tuple[str, Any]]:
        """Check what everything came to; gives it by key.

        Raises:
            Violation: something has not ended, or has another result than its program.
        """
        outcomes: dict[str, tuple[str, Any]] = {}
        for key, order in self.orders.items():
            self.checked["stuck"] += 1
            id = self.acked.get(key)
            if id is None:
                raise Violation("stuck", f"{key} was never acknowledged")
            seen = self.seen[id]
            if seen.state not in FINAL:
                raise Violation("stuck", f"{id} ({order}) is {seen.state}: {seen.detail}")
            outcomes[key] = outcome = self.outcome(id)
            self.checked["result"] += 1
            wanted = programs.expected(programs.plan_of(order.task, order.seed))
            allowed: list[tuple[str, Any]] = [("succeeded", wanted)]
            if any(row.kind == "cancel_requested" for row in seen.rows):
                allowed = [("cancelled", None)]
            elif order.task == "cancelled":
                allowed.append(("cancelled", None))
            if outcome not in allowed:
                raise Violation("result", f"{id} ({order}) is {outcome}, not {allowed}")
        return outcomes
