"""AutopilotCX: eight workflow states.

From the "Workflow Execution Guide" (seed 004: *State Definitions* for the words, *State
Transitions* 1 to 8 for the edges and their names). RESUMED has no exit there, though 8 says
"Continues execution"; the edge RESUMED → RUNNING is our repair, without it whatever was paused
could never end. ``ExecutionStatus.PENDING`` (*Initialization*) is a second word for INITIALIZED.

RESUMED is no state of ours: it is being dispatched again after a pause, a suspension, or by an
operator's hand.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from outlast.dialects.dialect import Dialect, Edge, Line, Way
from outlast.lifecycle import State


class WorkflowState(StrEnum):
    """004, *State Definitions*."""

    INITIALIZED = "initialized"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"
    RESUMED = "resumed"


W = WorkflowState

LABELS: Final[dict[StrEnum, str]] = {word: word.name for word in WorkflowState}
"""004, *State Transitions*: it writes the names of the members."""

LINES: Final = (
    Line(W.WAITING, states=(State.AWAITING_INPUT, State.WAITING)),
    Line(W.PAUSED, states=(State.PAUSED, State.SUSPENDED), high_water=(3,)),
    Line(
        W.RESUMED,
        states=(State.QUEUED, State.BLOCKED, State.STARTING),
        causes=("unpause", "budget", "operator"),
    ),
    Line(W.RUNNING, high_water=(3,)),
    Line(W.INITIALIZED),
)

_LIST: Final = "004, State Transitions"

# One edge, one row.
# fmt: off
EDGES: Final = (
    Edge(None, W.INITIALIZED, "execution is created", "004, State Definitions"),
    Edge(W.INITIALIZED, W.RUNNING, "execution starts", f"{_LIST} 1"),
    Edge(W.RUNNING, W.WAITING, "step requires input", f"{_LIST} 2"),
    Edge(W.WAITING, W.RUNNING, "input is received", f"{_LIST} 3"),
    Edge(W.RUNNING, W.COMPLETED, "all steps complete", f"{_LIST} 4"),
    Edge(W.RUNNING, W.FAILED, "error", f"{_LIST} 5"),
    Edge(W.RUNNING, W.CANCELLED, "user cancellation", f"{_LIST} 6"),
    Edge(W.RUNNING, W.PAUSED, "pause request", f"{_LIST} 7"),
    Edge(W.PAUSED, W.RESUMED, "resume request", f"{_LIST} 8"),
    Edge(W.RESUMED, W.RUNNING, "continues execution", "our repair", is_repair=True),
)
# fmt: on

_BEFORE: Final = "before the code has started"
_AFTER: Final = "before the code has started again"

# One way, one row.
# fmt: off
WAYS: Final = (
    Way((W.INITIALIZED, W.RUNNING, W.WAITING), f"a wait {_BEFORE}"),
    Way((W.INITIALIZED, W.RUNNING, W.PAUSED), f"a suspension {_BEFORE}"),
    Way((W.INITIALIZED, W.RUNNING, W.COMPLETED), f"a result {_BEFORE}"),
    Way((W.INITIALIZED, W.RUNNING, W.FAILED), f"an error {_BEFORE}"),
    Way((W.INITIALIZED, W.RUNNING, W.CANCELLED), f"a cancel or deadline {_BEFORE}"),
    Way((W.WAITING, W.RUNNING, W.PAUSED), "a pause of a wait"),
    Way((W.WAITING, W.RUNNING, W.CANCELLED), "a cancel or deadline of a wait"),
    Way((W.WAITING, W.RUNNING, W.PAUSED, W.RESUMED), "an operator wakes a wait"),
    Way((W.PAUSED, W.RESUMED, W.RUNNING), "unpaused into what counts as running"),
    Way((W.PAUSED, W.RESUMED, W.RUNNING, W.WAITING), "unpaused into a wait"),
    Way((W.PAUSED, W.RESUMED, W.RUNNING, W.CANCELLED), "a cancel or deadline of a held one"),
    Way((W.RESUMED, W.RUNNING, W.WAITING), f"a wait {_AFTER}"),
    Way((W.RESUMED, W.RUNNING, W.PAUSED), f"a pause or suspension {_AFTER}"),
    Way((W.RESUMED, W.RUNNING, W.COMPLETED), f"a result {_AFTER}"),
    Way((W.RESUMED, W.RUNNING, W.FAILED), f"an error {_AFTER}"),
    Way((W.RESUMED, W.RUNNING, W.CANCELLED), f"a cancel or deadline {_AFTER}"),
)
# fmt: on

DIALECT: Final = Dialect(
    name="autopilotcx",
    title="AutopilotCX",
    document="Workflow Execution Guide (004)",
    words=WorkflowState,
    initial=W.INITIALIZED,
    finals={
        State.SUCCEEDED: W.COMPLETED,
        State.FAILED: W.FAILED,
        State.TIMED_OUT: W.FAILED,
        State.CANCELLED: W.CANCELLED,
    },
    lines=LINES,
    edges=EDGES,
    ways=WAYS,
    silences=(
        "scheduling, gates and leases: before the code runs, all is `INITIALIZED`",
        "retries and lost workers: both are `RUNNING`",
        "who holds it: an operator's pause and the engine's suspension are both `PAUSED`",
        "a cancel, a deadline, a pause or a wait of what is not running: all pass `RUNNING`",
        "a deadline: it is `FAILED` from RUNNING, else `CANCELLED` with reason `deadline`",
    ),
    labels=LABELS,
)
