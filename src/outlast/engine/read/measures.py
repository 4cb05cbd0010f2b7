"""What an execution took: times, attempts, errors and resources, by its log alone.

Rows of outcomes say how long the attempt ran where that was a millisecond or longer, how long it
waited for a thread or process before, which processor time it took in its thread or process, and
the peak of that process's memory. What is not said took less, or cannot be measured: the processor
time of a coroutine, the memory of a thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from outlast import failure
from outlast.engine.read.birth import birth_in
from outlast.lifecycle import FINAL, Kind, State, Transition

LEAST_US: Final = 1_000
"""What is shorter is not said."""
_QUEUED: Final = (State.QUEUED, State.BLOCKED)
_RUN: Final = (State.STARTING, State.RUNNING)


class Try(msgspec.Struct, frozen=True):
    """An attempt of a step that has ended.

    Attributes:
        attempt: the how-manieth, from 1.
        ended_at: when its outcome was recorded.
        ran_us: how long it ran; 0 where that was less than a millisecond.
        waited_us: how long it waited for a thread or process before.
        cpu_us: the processor time of its thread or process; None where nobody measured it.
        memory_bytes: the peak of its process's memory since that was started; None for others.
        error: the type of what it failed with, or None.
    """

    attempt: int
    ended_at: int
    ran_us: int = 0
    waited_us: int = 0
    cpu_us: int | None = None
    memory_bytes: int | None = None
    error: str | None = None


class StepMeasures(msgspec.Struct, frozen=True):
    """What a step took: all its attempts that have ended, in order."""

    key: str
    tries: list[Try]

    @property
    def ran_us(self) -> int:
        """How long its attempts ran, together."""
        return sum(one.ran_us for one in self.tries)


class Measures(msgspec.Struct, frozen=True):
    """What an execution took so far, or in all; times are in microseconds.

    Attributes:
        id, task, state: which it is.
        created_at, started_at, ended_at: its birth, the first start of its code, its end.
        duration_us: from birth to end, or until now.
        queued_us: how much of that it waited for a worker, or at a gate.
        run_us: how much of it a worker had it.
        parked_us: the rest: it waited for people, times and others, or was held.
        by_state: how long it was in each state.
        attempts, retries: how often its code was started, and tried again after it had failed.
        claims, takeovers: how often it was claimed, and taken back from a worker that died.
        steps: what each step took, in the order of their outcomes.
        cpu_us: the processor time of its steps, as far as it was measured.
        memory_bytes: the most that one of its steps' processes had; None where none was measured.
        errors: how often attempts of its steps, and of itself, failed, by the type of the error.
    """

    id: str
    task: str
    state: State
    created_at: int
    started_at: int | None
    ended_at: int | None
    duration_us: int
    queued_us: int
    run_us: int
    parked_us: int
    by_state: Mapping[State, int]
    attempts: int
    retries: int
    claims: int
    takeovers: int
    steps: list[StepMeasures]
    cpu_us: int
    memory_bytes: int | None
    errors: Mapping[str, int]


def measures_of(id: str, log: Sequence[Transition], now: int) -> Measures:
    """Measure an execution by its log.

    Raises:
        NotFound: it was deleted since it was found.
    """
    birth, last = birth_in(id, log), log[-1]
    ended_at = last.at if last.to_state in FINAL else None
    until = now if ended_at is None else ended_at
    by_state = _by_state(log, max(until, last.at))
    steps = _steps(log)
    tries = [one for step in steps for one in step.tries]
    memory = [one.memory_bytes for one in tries if one.memory_bytes is not None]
    errors = [one.error for one in tries if one.error is not None]
    errors += [_type(row) for row in log if row.kind is Kind.RETRY or row.to_state is State.FAILED]
    kinds = [row.kind for row in log]
    queued = sum(by_state.get(state, 0) for state in _QUEUED)
    run = sum(by_state.get(state, 0) for state in _RUN)
    duration = max(until, last.at) - birth.at
    return Measures(
        id=id,
        task=str((birth.data or {}).get("task", "")),
        state=last.to_state,
        created_at=birth.at,
        started_at=next((row.at for row in log if row.kind is Kind.START), None),
        ended_at=ended_at,
        duration_us=duration,
        queued_us=queued,
        run_us=run,
        parked_us=duration - queued - run,
        by_state=by_state,
        attempts=kinds.count(Kind.START),
        retries=kinds.count(Kind.RETRY),
        claims=kinds.count(Kind.CLAIM),
        takeovers=kinds.count(Kind.WORKER_LOST) + kinds.count(Kind.LEASE_EXPIRED),
        steps=steps,
        cpu_us=sum(one.cpu_us or 0 for one in tries),
        memory_bytes=max(memory, default=None),
        errors={name: errors.count(name) for name in sorted(set(errors))},
    )


def _by_state(log: Sequence[Transition], until: int) -> dict[State, int]:
    spans: dict[State, int] = {}
    for row, following in zip(log, [*log[1:], None], strict=True):
        end = until if following is None else following.at
        if row.to_state not in FINAL:
            spans[row.to_state] = spans.get(row.to_state, 0) + end - row.at
    return spans


def _steps(log: Sequence[Transition]) -> list[StepMeasures]:
    tries: dict[str, list[Try]] = {}
    for row in log:
        data: Mapping[str, Any] = row.data or {}
        if row.key is None or row.kind not in (Kind.STEP, Kind.ATTEMPT_FAILED):
            continue
        if "reused" in data or "reserved" in data:
            continue  # nothing was run for it
        failed = row.kind is Kind.ATTEMPT_FAILED or bool(data.get("failed"))
        tries.setdefault(row.key, []).append(
            Try(
                attempt=int(data.get("attempt", data.get("attempts", 1))),
                ended_at=row.at,
                ran_us=int(data.get("ran_us", 0)),
                waited_us=int(data.get("waited_us", 0)),
                cpu_us=data.get("cpu_us"),
                memory_bytes=data.get("memory_bytes"),
                error=_type(row) if failed else None,
            )
        )
    return [StepMeasures(key, some) for key, some in tries.items()]


def _type(row: Transition) -> str:
    """Name the type of the error that a row records; never what it says."""
    said = (row.data or {}).get("error")
    if isinstance(said, Mapping) and "type" in said:
        return str(said["type"]).rpartition(":")[2]
    if row.payload is None:
        return "?"
    return failure.load(row.payload).type.rpartition(":")[2]


def told(
    ran_us: int, waited_us: int, cpu_us: int | None, memory_bytes: int | None
) -> dict[str, object]:
    """Say what an attempt took, for the row of its outcome."""
    data: dict[str, object] = {}
    if ran_us >= LEAST_US:
        data["ran_us"] = ran_us
    if waited_us >= LEAST_US:
        data["waited_us"] = waited_us
    if cpu_us is not None and cpu_us >= LEAST_US:
        data["cpu_us"] = cpu_us
    if memory_bytes is not None:
        data["memory_bytes"] = memory_bytes
    return data


__all__ = ["LEAST_US", "Measures", "StepMeasures", "Try", "measures_of", "told"]
