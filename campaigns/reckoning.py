"""What must be so of a shared store after faults, by what was acknowledged and what bodies did.

It reads the database with SQL of its own. Each rule has a name, and ``checked`` counts how often it
was applied, as a checker that checked nothing must fail.

``acked_start``   an acknowledged start is there, under its key and its id
``acked_message`` so is an acknowledged answer or signal, once, with its value
``acked_result``  a result that somebody was given is the one in the log
``doubled``       a key has one execution, a parent one child, a step one result, and no execution
                  is there that nobody asked for
``repeated``      no body of a step began after its result was recorded
``effect``        a recorded result is that of a body that ran; a result is made of recorded ones
``stuck``         everything has ended, and well
``alive``         no process of the load ends of itself
``verify``        ``db verify`` has no complaint
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg

from campaigns.ledger import TOKEN, Reader, Start
from outlast.store import open_store

RULES: Final = (
    "acked_start",
    "acked_message",
    "acked_result",
    "doubled",
    "repeated",
    "effect",
    "stuck",
    "alive",
    "verify",
)
_EXECUTIONS: Final = "SELECT id, task, state, key, parent_id FROM outlast.execution"
_ROWS: Final = """
SELECT execution_id, seq, kind, at, key, data, payload FROM outlast.transition
 ORDER BY execution_id, seq
"""
_MESSAGES: Final = "SELECT execution_id, id, kind, key, payload FROM outlast.inbox"


@dataclass(slots=True)
class Row:
    """A row of a log."""

    seq: int
    kind: str
    at: int
    key: str | None
    data: dict[str, Any]
    payload: bytes | None


@dataclass(slots=True)
class Reckoning:
    """What was found.

    Attributes:
        broken: by rule, what breaks it.
        checked: how often each rule was applied.
        kinds: how many rows of each kind the logs have.
    """

    broken: list[tuple[str, str]] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    executions: int = 0
    acknowledged: int = 0
    recorded: int = 0
    bodies: int = 0

    def see(self, rule: str, holds: bool, text: str) -> None:
        """Apply a rule."""
        assert rule in RULES
        self.checked[rule] += 1
        if not holds:
            self.broken.append((rule, text))

    def count(self, *rules: str) -> int:
        """Say how often these rules are broken."""
        return sum(rule in rules for rule, _ in self.broken)


class Found:
    """What the database holds."""

    def __init__(self, url: str) -> None:
        with psycopg.connect(url) as connection:
            self.executions = {row[0]: row for row in connection.execute(_EXECUTIONS).fetchall()}
            self.logs: dict[str, list[Row]] = defaultdict(list)
            for id, seq, kind, at, key, data, payload in connection.execute(_ROWS).fetchall():
                facts = msgspec.json.decode(data) if data else {}
                self.logs[id].append(Row(seq, kind, at, key, facts, payload))
            self.messages: dict[str, list[Any]] = defaultdict(list)
            for id, *message in connection.execute(_MESSAGES).fetchall():
                self.messages[id].append(message)

    def rows(self, id: str, kind: str) -> list[Row]:
        """Give the rows of a kind of an execution's log."""
        return [row for row in self.logs.get(id, ()) if row.kind == kind]


def read_acks(paths: Sequence[Path]) -> list[list[Any]]:
    """Read what was acknowledged to clients."""
    return [msgspec.json.decode(line) for path in paths for line in path.read_bytes().splitlines()]


def reckon(url: str, ledger: Path, acks: Sequence[list[Any]]) -> Reckoning:
    """Compare a database with what was acknowledged and what bodies did."""
    reckoning, found = Reckoning(), Found(url)
    starts, _ = Reader(ledger).more()
    reckoning.executions, reckoning.bodies = len(found.executions), len(starts)
    reckoning.acknowledged = len(acks)
    for rows in found.logs.values():
        reckoning.kinds.update(row.kind for row in rows)
    _check_acknowledged(reckoning, found, acks)
    _check_births(reckoning, found, {key for what, key, *_ in acks if what == "start"})
    _check_steps(reckoning, found, starts)
    _check_ends(reckoning, found)
    store = open_store(url, owner=None, now=0)
    try:
        verdict = store.verify()
    finally:
        store.close()
    reckoning.see("verify", not verdict.defects, "; ".join(verdict.defects[:3]))
    reckoning.checked["verify"] = verdict.executions
    return reckoning


def _check_acknowledged(reckoning: Reckoning, found: Found, acks: Sequence[list[Any]]) -> None:
    for what, id, *parts in acks:
        if what == "start":
            key, id = id, parts[0]
            row = found.executions.get(id)
            reckoning.see("acked_start", row is not None and row[3] == key, f"{id} ({key}) is lost")
        elif what == "signal":
            number, value = parts
            payloads = [one[3] for one in found.messages[id] if one[0] == number]
            there = payloads == [msgspec.json.encode(value)]
            reckoning.see("acked_message", there, f"signal {value} to {id}: there is {payloads}")
        elif what == "answer":
            key, value = parts
            payloads = [one[3] for one in found.messages[id] if one[1:3] == ["answer", key]]
            there = payloads == [msgspec.json.encode(value)]
            reckoning.see("acked_message", there, f"answer {value} to {id}: there is {payloads}")
        elif what == "result":
            ends = [row.payload for row in found.rows(id, "finish")]
            right = [msgspec.json.decode(end or b"null") for end in ends] == [parts[0]]
            reckoning.see("acked_result", right, f"{id} gave {parts[0]}, its log has {ends}")


def _check_births(reckoning: Reckoning, found: Found, asked: set[str]) -> None:
    """Nothing was born twice, nor without anybody who asked for it."""
    keys: Counter[str] = Counter()
    children: Counter[str] = Counter()
    for id, _, _, key, parent in found.executions.values():
        if key is not None:
            keys[key] += 1
        elif parent is not None:
            children[parent] += 1
        else:
            reckoning.see("doubled", False, f"{id} was asked for by nobody")
    for key, count in keys.items():
        right = count == 1 and key in asked
        reckoning.see("doubled", right, f"{key} has {count} executions, asked: {key in asked}")
    for parent, count in children.items():
        heard = len(found.rows(parent, "child_finished"))
        right = count == heard == 1
        reckoning.see("doubled", right, f"{parent} has {count} children, and heard of {heard}")


def _check_steps(reckoning: Reckoning, found: Found, starts: Sequence[Start]) -> None:
    began: dict[tuple[str, str], list[Start]] = defaultdict(list)
    for start in starts:
        began[start.execution, start.key].append(start)
        if start.execution not in found.executions:
            reckoning.see("doubled", False, f"{start.key} ran for {start.execution}: it is nowhere")
    for id in found.executions:
        recorded: Counter[str] = Counter()
        for row in found.rows(id, "step"):
            key = row.key or ""
            recorded[key] += 1
            reckoning.recorded += 1
            again = [one for one in began[id, key] if int(one.witness[0][1:]) > row.at]
            reckoning.see("repeated", not again, f"{key} of {id} ran again after row {row.seq}")
            tokens = {token.decode() for token in TOKEN.findall(row.payload or b"")}
            ran = tokens <= {one.token for one in began[id, key]} and len(tokens) == 1
            reckoning.see("effect", ran, f"{key} of {id} has a result that no body gave: {tokens}")
        for key, count in recorded.items():
            reckoning.see("doubled", count == 1, f"{key} of {id} has {count} results")


def _check_ends(reckoning: Reckoning, found: Found) -> None:
    for id, _, state, _, _ in found.executions.values():
        reckoning.see("stuck", state == "succeeded", f"{id} is {state}")
        ends = found.rows(id, "finish")
        if not ends:
            continue
        tokens = set(TOKEN.findall(ends[0].payload or b""))
        known = {
            token
            for row in found.logs[id]
            if row.kind != "finish" and row.payload is not None
            for token in TOKEN.findall(row.payload)
        }
        right = tokens <= known and bool(tokens)
        reckoning.see("effect", right, f"{id} ended with {sorted(tokens - known)}")


__all__ = ["RULES", "Reckoning", "read_acks", "reckon"]
