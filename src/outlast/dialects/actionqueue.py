"""ActionQueue: nine states of a run.

From ``actionqueue_core/run/state.rs`` (seed 003: the comments of ``RunState`` for the edges, what
stands in brackets there for their names, ``Display`` for the labels; ``serde`` writes the names of
the variants, so JSON has ``RetryWait`` and a label is ``retry_wait``).

A run is always born Scheduled ("States progress forward through: Scheduled -> …"), so one that is
due at once passes it. A run that is held shows where it was held; what it could not leave by itself
is Suspended.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from outlast.dialects.dialect import Dialect, Edge, Line, Way
from outlast.lifecycle import State


class RunState(StrEnum):
    """003, ``enum RunState``."""

    SCHEDULED = "Scheduled"
    READY = "Ready"
    LEASED = "Leased"
    RUNNING = "Running"
    RETRY_WAIT = "RetryWait"
    SUSPENDED = "Suspended"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"


R = RunState

LABELS: Final[dict[StrEnum, str]] = {word: word.name.lower() for word in RunState}
"""003, ``impl Display``."""

_HELD: Final = (State.PAUSED,)

LINES: Final = (
    Line(R.SCHEDULED, states=(State.SCHEDULED,)),
    Line(R.READY, states=(State.QUEUED, State.BLOCKED)),
    Line(R.LEASED, states=(State.STARTING,)),
    Line(R.RUNNING, states=(State.RUNNING,)),
    Line(R.SUSPENDED, states=(State.AWAITING_INPUT, State.WAITING, State.SUSPENDED)),
    Line(R.RETRY_WAIT, states=(State.RETRY_WAIT,)),
    Line(R.SCHEDULED, states=_HELD, held_from=(State.SCHEDULED,)),
    Line(R.READY, states=_HELD, held_from=(State.QUEUED, State.BLOCKED)),
    Line(R.RETRY_WAIT, states=_HELD, held_from=(State.RETRY_WAIT,)),
    Line(R.SUSPENDED, states=_HELD),
)

# One edge, one row.
# fmt: off
EDGES: Final = (
    Edge(None, R.SCHEDULED, None, "003, lines 5 and 12"),
    Edge(R.SCHEDULED, R.READY, "scheduled_at has passed", "003, Scheduled"),
    Edge(R.SCHEDULED, R.CANCELED, "cancellation", "003, Scheduled"),
    Edge(R.READY, R.LEASED, "leased", "003, Ready"),
    Edge(R.READY, R.CANCELED, "cancellation", "003, Ready"),
    Edge(R.LEASED, R.RUNNING, "execution starts", "003, Leased"),
    Edge(R.LEASED, R.READY, "lease expired", "003, Leased"),
    Edge(R.LEASED, R.CANCELED, "cancellation", "003, Leased"),
    Edge(R.RUNNING, R.RETRY_WAIT, "on failure, if retries remain", "003, Running"),
    Edge(R.RUNNING, R.SUSPENDED, "preempted", "003, Running"),
    Edge(R.RUNNING, R.COMPLETED, "on success", "003, Running"),
    Edge(R.RUNNING, R.FAILED, "on failure, no retries", "003, Running"),
    Edge(R.RUNNING, R.CANCELED, "cancellation", "003, Running"),
    Edge(R.RETRY_WAIT, R.READY, "backoff completes", "003, RetryWait"),
    Edge(R.RETRY_WAIT, R.FAILED, "no more retries remain", "003, RetryWait"),
    Edge(R.RETRY_WAIT, R.CANCELED, "cancellation", "003, RetryWait"),
    Edge(R.SUSPENDED, R.READY, "budget replenished / explicit resume", "003, Suspended"),
    Edge(R.SUSPENDED, R.CANCELED, "cancellation", "003, Suspended"),
)
# fmt: on

WAYS: Final = (
    Way((None, R.SCHEDULED, R.READY), "a create that is due at once"),
    Way((R.RUNNING, R.RETRY_WAIT, R.READY), "a release of running code"),
    Way((R.LEASED, R.RUNNING, R.COMPLETED), "a result before the code has started"),
    Way((R.LEASED, R.RUNNING, R.FAILED), "an error before the code has started"),
    Way((R.LEASED, R.RUNNING, R.RETRY_WAIT), "a failure before the code has started"),
    Way((R.LEASED, R.RUNNING, R.SUSPENDED), "a wait or a suspension before the code has started"),
)

DIALECT: Final = Dialect(
    name="actionqueue",
    title="ActionQueue",
    document="actionqueue_core/run/state.rs (003)",
    words=RunState,
    initial=R.SCHEDULED,
    finals={
        State.SUCCEEDED: R.COMPLETED,
        State.FAILED: R.FAILED,
        State.TIMED_OUT: R.FAILED,
        State.CANCELLED: R.CANCELED,
    },
    lines=LINES,
    edges=EDGES,
    ways=WAYS,
    silences=(
        "what it waits for: waits, pauses of running code and preemptions are all `Suspended`",
        "a closed gate: `blocked` is `Ready`",
        "steps: ActionQueue has no edge from a state to itself",
        "a release of running code: it passes `RetryWait`, though no try is counted",
        "a deadline: it is `Failed` from Running and RetryWait, else `Canceled`, reason `deadline`",
    ),
    labels=LABELS,
)
