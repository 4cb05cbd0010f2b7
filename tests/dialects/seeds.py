"""What the documents of the other systems say, typed off them: the tables are compared with this.

Julep: "Execution State Machine in Julep", its bullets and its diagram, and the page "Executions".
Flyte: the diagram of "Workflow Execution State Machine". ActionQueue: the comments of ``RunState``
in ``actionqueue_core/run/state.rs``. AutopilotCX: the list of the "Workflow Execution Guide".
"""

from __future__ import annotations

import re
from typing import Final

Pair = tuple[str | None, str]

JULEP_BULLETS: Final = """
- `queued` → `starting`
- `starting` → `running`, `awaiting_input`, `cancelled`, `succeeded`, `failed`
- `running` → `running`, `awaiting_input`, `cancelled`, `succeeded`, `failed`
- `awaiting_input` → `running`, `cancelled`
"""

JULEP_DIAGRAM: Final = """
    [*] --> queued
    queued --> starting
    queued --> cancelled
    starting --> cancelled
    starting --> failed
    starting --> running
    running --> running
    running --> awaiting_input
    running --> cancelled
    running --> failed
    running --> succeeded
    awaiting_input --> running
    awaiting_input --> cancelled
"""

JULEP_TYPES: Final = "init init_branch finish finish_branch wait resume error step cancelled"
JULEP_PAGE_TYPES: Final = "init start step wait resume finish error cancel"

JULEP_NEXT: Final = {
    None: "init init_branch error cancelled",
    "init": "wait step init_branch finish error cancelled",
    "init_branch": "wait step init_branch finish_branch finish error cancelled",
    "wait": "resume step finish_branch finish cancelled",
    "resume": "wait step init_branch finish_branch finish error cancelled",
    "step": "wait step init_branch finish_branch finish error cancelled",
    "finish_branch": "wait step init_branch finish_branch finish error cancelled",
    "finish": "",
    "error": "",
    "cancelled": "",
}
"""Which type may follow which, by the trigger of Julep's own database (migration 000012)."""

FLYTE_DIAGRAM: Final = """
[*] --> QUEUED: Run Created
QUEUED --> WAITING_FOR_RESOURCES: Backend Scheduling
WAITING_FOR_RESOURCES --> INITIALIZING: Resource Allocation
INITIALIZING --> RUNNING: Container Startup
RUNNING --> SUCCEEDED: Task Success
RUNNING --> FAILED: Task Error
RUNNING --> TIMED_OUT: Execution Timeout
QUEUED --> ABORTED: Manual Abort
WAITING_FOR_RESOURCES --> ABORTED: Manual Abort
INITIALIZING --> ABORTED: Manual Abort
RUNNING --> ABORTED: Manual Abort
"""

FLYTE_NUMBERS: Final = """
QUEUED 1, WAITING_FOR_RESOURCES 2, INITIALIZING 3, RUNNING 4, SUCCEEDED 5, FAILED 6, ABORTED 7,
TIMED_OUT 8, PAUSED 9, RECOVERED 10
"""
"""``ActionPhase`` of Flyte's client."""

FLYTE_CONDITIONS: Final = """
[*] --> PAUSED
[*] --> RECOVERED
PAUSED --> SUCCEEDED
PAUSED --> TIMED_OUT
PAUSED --> ABORTED
"""

ACTIONQUEUE_COMMENTS: Final = """
Scheduled: -> Ready (when scheduled_at has passed), -> Canceled
Ready: -> Leased (when leased), -> Canceled
Leased: -> Running (when execution starts), -> Ready (lease expired), -> Canceled
Running: -> RetryWait (on failure, if retries remain), -> Suspended (preempted),
-> Completed (on success), -> Failed (on failure, no retries), -> Canceled
RetryWait: -> Ready (when backoff completes), -> Failed (if no more retries remain), -> Canceled
Suspended: -> Ready (when budget replenished / explicit resume), -> Canceled
"""

ACTIONQUEUE_DISPLAY: Final = """
Scheduled scheduled
Ready ready
Leased leased
Running running
RetryWait retry_wait
Suspended suspended
Completed completed
Failed failed
Canceled canceled
"""

AUTOPILOTCX_LIST: Final = """
1. INITIALIZED → RUNNING: Occurs when execution starts
2. RUNNING → WAITING: Occurs when step requires input
3. WAITING → RUNNING: Occurs when input is received
4. RUNNING → COMPLETED: Occurs when all steps complete
5. RUNNING → FAILED: Occurs on error
6. RUNNING → CANCELLED: Occurs on user cancellation
7. RUNNING → PAUSED: Occurs on pause request
8. PAUSED → RESUMED: Occurs on resume request
"""

AUTOPILOTCX_VALUES: Final = """
INITIALIZED = "initialized"
RUNNING = "running"
WAITING = "waiting"
COMPLETED = "completed"
FAILED = "failed"
CANCELLED = "cancelled"
PAUSED = "paused"
RESUMED = "resumed"
"""


def diagram(text: str) -> dict[Pair, str | None]:
    """Read the arrows of a mermaid diagram, with their labels."""
    return {
        (None if source == "[*]" else source, target): name
        for source, target, name in re.findall(r"(\S+) --> (\w+)(?:: (.*))?", text)
    }


def bullets(text: str) -> set[Pair]:
    """Read lists of the form "from → to, to"."""
    found: set[Pair] = set()
    for line in text.strip().splitlines():
        source, *targets = re.findall(r"`(\w+)`", line)
        found |= {(source, target) for target in targets}
    return found


def actionqueue() -> dict[Pair, str]:
    """Read the comments of ``RunState``."""
    found: dict[Pair, str] = {(None, "Scheduled"): ""}
    for source, rest in re.findall(r"(\w+): (->(?:[^:]|\n)*)(?=\n\w+:|\n$)", ACTIONQUEUE_COMMENTS):
        for target, name in re.findall(r"-> (\w+)(?: \(([^)]*)\))?", rest):
            found[source, target] = name
    return found


def autopilotcx() -> dict[Pair, str]:
    """Read the list of the guide, in the values of its words."""
    found: dict[Pair, str] = {(None, "initialized"): ""}
    for source, target, name in re.findall(r"(\w+) → (\w+): Occurs (.*)", AUTOPILOTCX_LIST):
        found[source.lower(), target.lower()] = name
    return found


EDGES: Final[dict[str, set[Pair]]] = {
    "julep": bullets(JULEP_BULLETS) | set(diagram(JULEP_DIAGRAM)),
    "flyte": set(diagram(FLYTE_DIAGRAM)),
    "flyte-action": set(diagram(FLYTE_DIAGRAM)) | set(diagram(FLYTE_CONDITIONS)),
    "actionqueue": set(actionqueue()),
    "autopilotcx": set(autopilotcx()),
}
"""The edges of each system, as its document has them."""

REPAIRS: Final[dict[str, set[Pair]]] = {"autopilotcx": {("resumed", "running")}}
"""The edges that a document lacks and a system cannot do without."""

INITIAL: Final = {
    "julep": "queued",
    "flyte": "QUEUED",
    "flyte-action": "QUEUED",
    "actionqueue": "Scheduled",
    "autopilotcx": "initialized",
}
FINALS: Final = {
    "julep": {"succeeded", "failed", "cancelled"},
    "flyte": {"SUCCEEDED", "FAILED", "ABORTED", "TIMED_OUT"},
    "flyte-action": {"SUCCEEDED", "FAILED", "ABORTED", "TIMED_OUT", "RECOVERED"},
    "actionqueue": {"Completed", "Failed", "Canceled"},
    "autopilotcx": {"completed", "failed", "cancelled"},
}
