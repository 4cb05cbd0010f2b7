"""Spans of committed transitions, with ids that follow from the execution's.

Theory of operation. A span is made of rows of a log alone: nothing is measured here, and no code of
the user's is run. Its ids are digests of the execution's id and of the row's place in its log, and
the trace is that of the root of its tree, or the one that its start was given as ``traceparent``.
So whoever makes the spans of a row again, after a kill, a takeover or a replay, makes the same.

- An execution is one span, from its birth to its end; its events are what happened to it meanwhile.
- Each attempt of a step is a span below it, as long as the row of its outcome says that it ran.
- A child's span is below that of its parent. What was made of another one, or goes on as another,
  is linked with that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from outlast import __version__
from outlast.lifecycle import FINAL, Execution, Kind, State, Transition
from outlast.lifecycle.record import continued_as

TRACE: Final = "traceparent"
"""The label that holds where the caller's trace is."""
EVENTS_MAX: Final = 200
_PARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_FAILED: Final = (State.FAILED, State.TIMED_OUT)
_SCOPE: Final = InstrumentationScope("outlast", __version__)
_TOLD: Final = frozenset(
    {
        *(Kind.START, Kind.WAIT, Kind.RESUME, Kind.SUSPEND, Kind.RETRY, Kind.WORKER_LOST),
        *(Kind.LEASE_EXPIRED, Kind.RELEASE, Kind.PAUSE, Kind.UNPAUSE, Kind.CANCEL_REQUESTED),
        *(Kind.BLOCK, Kind.UNBLOCK, Kind.INPUT_RECEIVED, Kind.SIGNAL_RECEIVED),
    }
)
"""The transitions that are events of an execution's span."""


def span_id(*parts: object) -> int:
    """Give the id of the span that these name; never 0."""
    data = "\0".join(map(str, ("outlast", *parts))).encode()
    return int.from_bytes(sha256(data).digest()[:8], "big") or 1


def trace_id(root_id: str) -> int:
    """Give the id of the trace of a tree; never 0."""
    return int.from_bytes(sha256(b"outlast\0trace\0" + root_id.encode()).digest()[:16], "big") or 1


class Caller:
    """Where a trace comes from, as a ``traceparent`` says it."""

    __slots__ = ("is_sampled", "span_id", "trace_id")

    def __init__(self, trace: int, span: int, *, is_sampled: bool) -> None:
        self.trace_id, self.span_id, self.is_sampled = trace, span, is_sampled

    @classmethod
    def of(cls, labels: Mapping[str, object] | None) -> Caller | None:
        """Read the label of an execution; None where it has none that can be read."""
        found = _PARENT.fullmatch(str((labels or {}).get(TRACE, "")))
        if found is None:
            return None
        trace, span = int(found[1], 16), int(found[2], 16)
        return cls(trace, span, is_sampled=bool(int(found[3], 16) & 1)) if trace and span else None


class Spans:
    """Makes spans of rows.

    Args:
        resource: who says so.
    """

    def __init__(self, resource: Resource) -> None:
        self._resource = resource

    def of_row(
        self, row: Transition, record: Execution, root: Execution | None
    ) -> ReadableSpan | None:
        """Make the span of an attempt of a step; None for a row that is about none.

        Args:
            row: the row, without its payload.
            record: its execution.
            root: the root of its tree; None where that has been deleted.
        """
        data: Mapping[str, Any] = row.data or {}
        if row.kind not in (Kind.STEP, Kind.ATTEMPT_FAILED) or row.key is None:
            return None
        if "reused" in data or "reserved" in data:
            return None  # nothing was run for it
        within = self.context(record, root)
        failed = row.kind is Kind.ATTEMPT_FAILED or bool(data.get("failed"))
        attributes: dict[str, Any] = {
            "outlast.execution.id": record.id,
            "outlast.task": record.task,
            "outlast.step.key": row.key,
            "outlast.step.attempt": int(data.get("attempt", data.get("attempts", 1))),
            "outlast.seq": row.seq,
        }
        for name in ("waited_us", "cpu_us", "memory_bytes"):
            if name in data:
                attributes[f"outlast.step.{name}"] = data[name]
        return self._made(
            row.key.rpartition("#")[0] or row.key,
            SpanContext(
                within.trace_id, span_id(record.id, row.seq), is_remote=False,
                trace_flags=within.trace_flags,
            ),
            within,
            (row.at - int(data.get("ran_us", 0)), row.at),
            attributes,
            status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
        )  # fmt: skip

    def of_execution(
        self,
        record: Execution,
        root: Execution | None,
        log: Sequence[Transition],
        linked: Sequence[tuple[str, Execution, Execution | None]],
    ) -> ReadableSpan:
        """Make the span of an execution that has ended.

        Args:
            record: it.
            root: the root of its tree.
            log: its rows, without payloads.
            linked: what it is linked with: how, the other one, and the root of that.
        """
        last = log[-1]
        attributes: dict[str, Any] = {
            "outlast.execution.id": record.id,
            "outlast.task": record.task,
            "outlast.state": str(record.state),
            "outlast.queue": record.queue,
            "outlast.attempts": record.attempt,
            "outlast.claims": record.claims,
        }
        if record.version is not None:
            attributes["outlast.version"] = record.version
        links = [
            Link(self.context(other, its_root), {"outlast.link": how})
            for how, other, its_root in linked
        ]
        events = [
            Event(f"{row.kind}", {"outlast.seq": row.seq, **_reason(row)}, row.at * 1_000)
            for row in log
            if row.kind in _TOLD
        ]
        error = StatusCode.ERROR if record.state in _FAILED else StatusCode.UNSET
        return self._made(
            record.task,
            self.context(record, root),
            self._above(record, root),
            (record.created_at, last.at),
            attributes,
            status=Status(error, str(record.state) if error is StatusCode.ERROR else None),
            links=links,
            events=events[:EVENTS_MAX],
            kind=SpanKind.CONSUMER if Caller.of(record.labels) else SpanKind.INTERNAL,
        )

    def context(self, record: Execution, root: Execution | None) -> SpanContext:
        """Give the place of an execution's span: the same, whoever asks."""
        top = record if record.root_id is None else root
        caller = None if top is None else Caller.of(top.labels)
        trace = caller.trace_id if caller is not None else trace_id(record.root_id or record.id)
        return SpanContext(
            trace, span_id(record.id), is_remote=False, trace_flags=TraceFlags(_flags(caller))
        )

    def is_wanted(self, record: Execution, root: Execution | None) -> bool:
        """Tell whether its trace is to be shown: its caller may have said that it is not."""
        top = record if record.root_id is None else root
        caller = None if top is None else Caller.of(top.labels)
        return caller is None or caller.is_sampled

    def _above(self, record: Execution, root: Execution | None) -> SpanContext | None:
        here = self.context(record, root)
        if record.parent_id is not None:
            return SpanContext(here.trace_id, span_id(record.parent_id), is_remote=False)
        caller = Caller.of(record.labels)
        if caller is None:
            return None
        return SpanContext(caller.trace_id, caller.span_id, is_remote=True)

    def _made(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        times: tuple[int, int],
        attributes: Mapping[str, Any],
        *,
        status: Status,
        links: Sequence[Link] = (),
        events: Sequence[Event] = (),
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> ReadableSpan:
        return ReadableSpan(
            name=name,
            context=context,
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            events=events,
            links=links,
            kind=kind,
            status=status,
            start_time=times[0] * 1_000,
            end_time=times[1] * 1_000,
            instrumentation_scope=_SCOPE,
        )


def _flags(caller: Caller | None) -> int:
    return TraceFlags.SAMPLED if caller is None or caller.is_sampled else TraceFlags.DEFAULT


def _reason(row: Transition) -> dict[str, str]:
    """Say why, by a word of the engine's; what is said in a text may be the user's."""
    said = (row.data or {}).get("code", (row.data or {}).get("cause"))
    return {"outlast.reason": said} if isinstance(said, str) else {}


def ends(row: Transition) -> bool:
    """Tell whether a row ends its execution."""
    return row.to_state in FINAL


def related(record: Execution, source_id: str | None) -> list[tuple[str, str]]:
    """Name what an execution is linked with: how, and the id of the other one."""
    found = [] if source_id is None else [("made of", source_id)]
    successor = continued_as(record)
    return [*found, ("goes on as", successor)] if successor is not None else found


__all__ = ["Caller", "Spans", "ends", "related", "span_id", "trace_id"]
