"""Registers and counters along whole lives, as tables.

``event by -> state rule/refusal | hw cause held-from attempt failures claims idle``

``by`` is ``own`` (the owner), ``old`` (the owner before), or ``-`` (nobody's lease). ``+n`` lets n
seconds pass. After a refusal the registers are not given: nothing has changed, and that is checked.
"""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from outlast.lifecycle import (
    Event,
    Execution,
    Kind,
    Refusal,
    Transition,
    apply,
    create,
    decide,
    fold,
)
from outlast.lifecycle.table import RULE_OF

SECOND = 1_000_000
START = 100 * SECOND

HISTORIES = {
    "straight through": """
create            -   -> queued          T01             | 0 first    -       0 0 0 0
claim             -   -> starting        T06.queued      | 2 first    -       0 0 1 1
claim             own -> already_claimed
start             own -> running         T10             | 3 -        -       1 0 1 1
start             own -> already_started
step              own -> running         T11             | 3 -        -       1 0 1 0
finish            old -> fenced
finish            own -> succeeded       T25.running     | 3 -        -       1 0 1 0
finish            own -> already_final
cancel            -   -> already_final
""",
    "an answer, and what the code waits for in between": """
create            -   -> queued          T01             | 0 first    -       0 0 0 0
claim             -   -> starting        T06.queued      | 2 first    -       0 0 1 1
start             own -> running         T10             | 3 -        -       1 0 1 1
wait ask          own -> awaiting_input  T14.running     | 3 -        -       1 0 1 0
retry_due         -   -> not_backing_off
error             -   -> not_leased
input_received    -   -> awaiting_input  N03.awaiting_input | 3 -     -       1 0 1 0
resume=input      -   -> queued          T16.awaiting_input | 3 input -       1 0 1 0
claim             -   -> starting        T06.queued      | 3 input    -       1 0 2 1
start             own -> running         T10             | 3 -        -       2 0 2 1
wait timer        own -> waiting         T15.running     | 3 -        -       2 0 2 0
resume=timer      -   -> queued          T16.waiting     | 3 timer    -       2 0 2 0
claim             -   -> starting        T06.queued      | 3 timer    -       2 0 3 1
finish            own -> succeeded       T25.starting    | 3 -        -       2 0 3 1
""",
    "a start time lies ahead, and a gate is closed": """
create due=10     -   -> scheduled       T02             | 0 first    -       0 0 0 0
promote           -   -> not_due
+10
promote           -   -> queued          T03             | 0 first    -       0 0 0 0
promote           -   -> already_queued
block             -   -> blocked         T04             | 1 first    -       0 0 0 0
block             -   -> already_blocked
unblock           -   -> queued          T05             | 1 first    -       0 0 0 0
block             -   -> blocked         T04             | 1 first    -       0 0 0 0
claim             -   -> starting        T06.blocked     | 2 first    -       0 0 1 1
lease_expired     own -> fenced
lease_expired     -   -> queued          T08             | 2 first    -       0 0 1 1
block             -   -> blocked         T04             | 2 first    -       0 0 1 1
""",
    "retries are counted, lost workers and releases are not": """
create            -   -> queued          T01             | 0 first    -       0 0 0 0
claim             -   -> starting        T06.queued      | 2 first    -       0 0 1 1
start             own -> running         T10             | 3 -        -       1 0 1 1
retry due=5 of=1  own -> retry_wait      T22.running     | 3 -        -       1 1 1 0
retry_due         -   -> not_due
+5
retry_due         -   -> queued          T23             | 3 retry    -       1 1 1 0
claim             -   -> starting        T06.queued      | 3 retry    -       1 1 2 1
start             own -> running         T10             | 3 -        -       2 1 2 1
worker_lost       own -> fenced
worker_lost       -   -> retry_wait      T09             | 3 -        -       2 1 2 1
retry_due         -   -> queued          T23             | 3 recovery -       2 1 2 1
claim             -   -> starting        T06.queued      | 3 recovery -       2 1 3 2
start             own -> running         T10             | 3 -        -       3 1 3 2
step              old -> fenced
step              own -> running         T11             | 3 -        -       3 1 3 0
release           own -> queued          T07.running     | 3 recovery -       3 1 3 0
claim             -   -> starting        T06.queued      | 3 recovery -       3 1 4 1
release           own -> queued          T07.starting    | 3 recovery -       3 1 4 0
claim             -   -> starting        T06.queued      | 3 recovery -       3 1 5 1
start             own -> running         T10             | 3 -        -       4 1 5 1
retry due=5 of=1  own -> no_retries_left
error             own -> failed          T26.running     | 3 -        -       4 1 5 1
""",
    "given up while backing off": """
create            -   -> queued          T01             | 0 first    -       0 0 0 0
claim             -   -> starting        T06.queued      | 2 first    -       0 0 1 1
retry due=9 of=3  own -> retry_wait      T22.starting    | 3 -        -       0 1 1 0
exhausted         -   -> failed          T24             | 3 -        -       0 1 1 0
""",
    "pause is an intent while it runs, and is taken at a safe point": """
create            -   -> queued          T01             | 0 first    -       0 0 0 0
claim             -   -> starting        T06.queued      | 2 first    -       0 0 1 1
pause             own -> at_next_safe_point
pause_requested   own -> starting        N02.starting    | 2 first    -       0 0 1 1
pause_requested   own -> already_requested
start             own -> running         T10             | 3 -        -       1 0 1 1
pause             own -> paused          T18             | 3 -        running 1 0 1 1
pause             -   -> already_paused
signal_received   -   -> paused          N04.paused      | 3 -        running 1 0 1 1
unpause           -   -> queued          T19             | 3 unpause  -       1 0 1 1
claim             -   -> starting        T06.queued      | 3 unpause  -       1 0 2 2
start             own -> running         T10             | 3 -        -       2 0 2 2
""",
    "a held wait goes back to waiting, with its clock": """
create            -   -> queued          T01             | 0 first    -       0 0 0 0
pause             -   -> paused          T17.queued      | 0 first    queued  0 0 0 0
unpause           -   -> queued          T19             | 0 first    -       0 0 0 0
claim             -   -> starting        T06.queued      | 2 first    -       0 0 1 1
start             own -> running         T10             | 3 -        -       1 0 1 1
wait timer        own -> waiting         T15.running     | 3 -        -       1 0 1 0
pause             -   -> paused          T17.waiting     | 3 -        waiting 1 0 1 0
resume=timer      -   -> not_parked
unpause           -   -> waiting         T20.waiting     | 3 -        -       1 0 1 0
resume=operator   -   -> queued          T16.waiting     | 3 operator -       1 0 1 0
""",
    "suspension is free of the retry cap, and lifting it is a new start": """
create            -   -> queued          T01             | 0 first    -       0 0 0 0
claim             -   -> starting        T06.queued      | 2 first    -       0 0 1 1
lease_expired     -   -> queued          T08             | 2 first    -       0 0 1 1
claim             -   -> starting        T06.queued      | 2 first    -       0 0 2 2
suspend           own -> suspended       T21.starting    | 3 -        -       0 0 2 0
suspend           -   -> already_suspended
pause             -   -> paused          T17.suspended   | 3 -        suspended 0 0 2 0
unpause           -   -> suspended       T20.suspended   | 3 -        -       0 0 2 0
resume=budget     -   -> queued          T16.suspended   | 3 budget   -       0 0 2 0
cancel            -   -> cancelled       T27.queued      | 3 -        -       0 0 2 0
""",
    "cancel over a live lease waits for the grace, and fences the owner": """
create            -   -> queued          T01             | 0 first    -       0 0 0 0
claim             -   -> starting        T06.queued      | 2 first    -       0 0 1 1
start             own -> running         T10             | 3 -        -       1 0 1 1
cancel grace=30   -   -> in_grace
cancel_requested  own -> running         N01.running     | 3 -        -       1 0 1 1
cancel_requested  own -> already_requested
finish            own -> cancel_pending
cancel grace=30   -   -> in_grace
+30
cancel grace=30   -   -> cancelled       T28.running     | 3 -        -       1 0 1 1
step              own -> already_final
""",
    "its owner cancels at once": """
create            -   -> queued          T01             | 0 first    -       0 0 0 0
claim             -   -> starting        T06.queued      | 2 first    -       0 0 1 1
cancel            own -> cancelled       T28.starting    | 2 -        -       0 0 1 1
""",
    "the deadline ends what runs and what is held": """
create by=20      -   -> queued          T01             | 0 first    -       0 0 0 0
deadline          -   -> not_due
pause             -   -> paused          T17.queued      | 0 first    queued  0 0 0 0
+20
deadline          -   -> timed_out       T29.paused      | 0 -        -       0 0 0 0
""",
}


class Life:
    """An execution that a table drives."""

    def __init__(self) -> None:
        self.now = START
        self.rows: list[Transition] = []
        self.leases: list[tuple[int, bytes]] = [(0, b"")]
        self.record: Execution | None = None

    def event(self, words: list[str], by: str) -> Event:
        name, _, cause = words[0].partition("=")
        kind = Kind(name)
        said = dict(word.split("=") for word in words[1:] if "=" in word)
        data: dict[str, object] = {"task": "t", "retries": int(said.get("of", 0))}
        if "due" in said:
            data["due_at"] = self.now + int(said["due"]) * SECOND
        if "by" in said:
            data["deadline_at"] = self.now + int(said["by"]) * SECOND
        if "grace" in said:
            data["grace_us"] = int(said["grace"]) * SECOND
        if kind is Kind.WAIT:
            data["waits"] = [{"kind": words[1], "outside": words[1] == "ask"}]
        if cause:
            data["cause"] = cause
        fence, nonce = {"own": self.leases[-1], "old": self.leases[max(-2, -len(self.leases))]}.get(
            by, (0, None)
        )
        if kind is Kind.CLAIM and by == "-":
            nonce = bytes([len(self.leases)]) * 16
        return Event(kind, "somebody", fence, nonce, data=data)

    def take(self, words: list[str], by: str) -> str:
        """Apply an event; gives its rule, or its refusal."""
        event = self.event(words, by)
        if self.record is None:
            self.record, row = create(1, "ex", event, self.now)
        else:
            decision = decide(self.record, event, self.now)
            if isinstance(decision, Refusal):
                return decision.code
            apply(self.record, decision)
            row = decision.transition
        self.rows.append(row)
        if row.kind is Kind.CLAIM:
            assert row.nonce is not None
            self.leases.append((row.fence, row.nonce))
        return RULE_OF[row.kind, row.from_state, row.to_state].id

    def registers(self) -> list[str]:
        record = self.record
        assert record is not None
        return [
            str(value)
            for value in (
                record.high_water,
                record.cause or "-",
                record.paused_from or "-",
                record.attempt,
                record.failures,
                record.claims,
                record.idle_claims,
            )
        ]


@pytest.mark.parametrize("name", HISTORIES)
def test_history(name: str) -> None:
    life = Life()
    for line in HISTORIES[name].strip().splitlines():
        if line.startswith("+"):
            life.now += int(line) * SECOND
            continue
        asked, verdict, registers = re.fullmatch(r"(.*)->([^|]*)\|?(.*)", line).groups()  # type: ignore[union-attr]
        *words, by = asked.split()
        before = replace(life.record) if life.record is not None else None
        said = life.take(words, by)
        if len(verdict.split()) == 1:
            assert said == verdict.strip(), line
            assert life.record == before, "a refusal changes nothing"
            continue
        assert life.record is not None
        assert [life.record.state, said] == verdict.split(), line
        assert life.registers() == registers.split(), line
    assert fold(life.rows) == life.record


def test_the_tables_use_every_rule_that_moves() -> None:
    """A new rule wants a line in a table; the ones left out differ in their source only."""
    text = "\n".join(HISTORIES.values())
    families = {rule.id.split(".")[0] for rule in RULE_OF.values() if rule.id.startswith("T")}
    assert families - set(re.findall(r"T\d\d", text)) == {"T12", "T13"}


def test_paused_keeps_detail_and_due_time() -> None:
    life = Life()
    for words in ("create due=10",):
        life.take(words.split(), "-")
    assert life.record is not None
    due_at = life.record.due_at
    life.take(["pause"], "-")
    assert life.record.due_at is None, "the clock does not move what an operator holds"
    assert life.record.detail is not None and life.record.detail["by"] == "somebody"
    life.take(["unpause"], "-")
    after = life.record
    assert (str(after.state), after.due_at, after.detail) == ("scheduled", due_at, None)
