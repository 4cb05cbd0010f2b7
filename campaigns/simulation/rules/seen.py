"""What is known of an execution, from what was stored and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from campaigns.simulation.world.clockwork import Process
from outlast.lifecycle import Execution, Transition
from outlast.store.protocol import InboxEntry


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
        is_purged: whether it was deleted since.
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
    is_purged: bool = False


def seed_of(seen: Seen) -> int:
    """Give the seed that an execution was started with."""
    return int(msgspec.json.decode(seen.rows[0].payload or b"{}")["seed"])


def start_by(seen: Seen) -> int | None:
    """Give the instant by which it must have begun, as long as it has not."""
    at: Any = (seen.rows[0].data or {}).get("start_by") if not seen.starts else None
    return None if at is None else int(at)


def name_of(key: str) -> str:
    """Give the name of the step that has this key."""
    return key.rpartition("/")[2].partition("#")[0].partition(":")[0]
