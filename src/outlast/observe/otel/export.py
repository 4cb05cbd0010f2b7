"""Hand what is committed on to OpenTelemetry, and survive being killed meanwhile.

Theory of operation. Spans are made of the feed (:mod:`outlast.engine.read.feed`), in which every
row of every log has its place, whichever process wrote it. How far they were handed on is noted in
the store, behind the exporter's answer: a kill between the two hands some on again, with the same
ids. So each is exported at least once, and none twice under another id. One process does it at a
time; where it is silent for some seconds, another one goes on from its note.

What the exporter does not take is tried again, with growing pauses; meanwhile the feed keeps a day.
Where more than that was missed, it goes on with the oldest that is kept, and says so in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from outlast.errors import FeedGap, OutlastError
from outlast.lifecycle import Execution
from outlast.observe.otel.records import Records
from outlast.observe.otel.spans import Spans, ends, related
from outlast.store.protocol import FeedRow, Store

if TYPE_CHECKING:
    from outlast.engine.engine import Engine

HELD_US: Final = 15_000_000
"""How long another process waits for word of the one that exports."""
PAUSE_SECONDS: Final = 1.0
PAUSE_SECONDS_MAX: Final = 60.0
BATCH_MAX: Final = 500
STOP_SECONDS: Final = 3.0
"""How long what is left may take when it is stopped; the next one goes on with it."""
LOG_ROWS_MAX: Final = 1_000
"""Rows of an execution's log that its span's events are made of."""
KEPT_MAX: Final = 5_000
_log: Final = logging.getLogger("outlast.otel")


class Telemetry:
    """Hands on the traces of a store, and the metrics of an engine; use it with ``async with``.

    Args:
        engine: the engine, which is open; or will be when this is entered.
        exporter: takes the spans; by default OTLP over HTTP, as the standard environment says
            (``OTEL_EXPORTER_OTLP_ENDPOINT`` and its kin). False: no traces.
        reader: takes the metrics, likewise.
        records: takes what this process logs, likewise.
        resource: who says so; by default as the environment says (``OTEL_SERVICE_NAME``), else the
            service ``outlast``, with the tenant as ``outlast.tenant``.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        exporter: SpanExporter | bool = True,
        reader: MetricReader | bool = True,
        records: LogRecordExporter | bool = True,
        resource: Resource | None = None,
    ) -> None:
        self._engine = engine
        ours = Resource({"service.name": "outlast", "outlast.tenant": engine.tenant})
        self._resource = resource or ours.merge(_named())
        self._exporter = _otlp_spans() if exporter is True else exporter or None
        self._reader = _otlp_metrics() if reader is True else reader or None
        self._records = _otlp_records() if records is True else records or None
        self._handler: Records | None = None
        self._spans = Spans(self._resource)
        self._task: asyncio.Task[None] | None = None
        self._meters: MeterProvider | None = None
        self._is_stopping = asyncio.Event()
        self.exported = 0

    async def __aenter__(self) -> Telemetry:
        if self._exporter is not None:
            self._task = asyncio.create_task(self._keep_exporting())
        if self._reader is not None:
            self._meters = _measured(self._engine, self._reader, self._resource)
        if self._records is not None:
            self._handler = Records(self._records, self._resource)
            logging.getLogger().addHandler(self._handler)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._is_stopping.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=STOP_SECONDS)
        if self._exporter is not None:
            await asyncio.to_thread(self._exporter.shutdown)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._meters is not None:
            await asyncio.to_thread(self._meters.shutdown)
        if self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
            await asyncio.to_thread(self._handler.end)

    async def _keep_exporting(self) -> None:
        pause = PAUSE_SECONDS
        while True:
            try:
                if await self._export_some():
                    pause = PAUSE_SECONDS
                    continue
                pause = PAUSE_SECONDS
            except OutlastError as error:
                _log.warning("traces are held up: %s", error, extra={"event": "otel.held_up"})
                pause = min(2 * pause, PAUSE_SECONDS_MAX)
            if self._is_stopping.is_set():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._is_stopping.wait()

    async def _export_some(self) -> bool:
        """Hand on what comes next, if this process is the one; gives whether there may be more."""
        engine, store = self._engine, self._engine.store
        write: Callable[[Callable[[], Any]], Any] = engine.journal.call
        now = engine.clock.now()
        await write(partial(store.feed.follow, _name(engine), now))
        hold = partial(store.feed.hold_export, engine.name, now, now + HELD_US)
        position: int | None = await write(hold)
        if position is None:
            return False
        head = await engine.worker.read(store.feed.head)
        if head is not None and head.is_unsettled:
            await write(store.feed.settle)
        if head is not None and position < head.pruned:
            missed = FeedGap(f"{head.pruned - position} rows were forgotten before their traces")
            _log.warning("%s", missed, extra={"event": "otel.gap"})
            position = head.pruned
        rows = await engine.worker.read(partial(store.feed.read, position, BATCH_MAX))
        if not rows:
            return False
        spans = await engine.worker.read(partial(self._made, store, rows))
        if spans and not await self._handed_over(spans):
            return False
        self.exported += len(spans)
        until = engine.clock.now() + HELD_US
        done = partial(store.feed.note_exported, engine.name, rows[-1].position, until)
        return bool(await write(done))

    async def _handed_over(self, spans: Sequence[ReadableSpan]) -> bool:
        """Give spans to the exporter; tells whether it took them."""
        assert self._exporter is not None
        begun = monotonic()
        try:
            result = await asyncio.to_thread(self._exporter.export, spans)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
            _log.warning("the exporter failed: %r", error, extra={"event": "otel.failed"})
            return False
        if result is not SpanExportResult.SUCCESS:
            took = monotonic() - begun
            said = "the exporter did not take %d spans, after %.1f s"
            _log.warning(said, len(spans), took, extra={"event": "otel.refused"})
            return False
        return True

    def _made(self, store: Store, rows: Sequence[FeedRow]) -> list[ReadableSpan]:
        """Make the spans of some rows; reads the store."""
        records = _read(store, {row.execution_id for row in rows})
        roots = _read(store, {one.root_id for one in records.values() if one.root_id})
        ended = [row.execution_id for row in rows if row.transition and ends(row.transition)]
        made = {one.id: one.source_id for one in store.descents(ended)} if ended else {}
        spans: list[ReadableSpan] = []
        for row in rows:
            record = records.get(row.execution_id)
            if record is None or row.transition is None:
                continue  # it was deleted since
            root = roots.get(record.root_id or "")
            if not self._spans.is_wanted(record, root):
                continue
            span = self._spans.of_row(row.transition, record, root)
            if span is not None:
                spans.append(span)
            if ends(row.transition):
                spans.append(self._whole(store, record, root, made.get(record.id)))
        return spans

    def _whole(
        self, store: Store, record: Execution, root: Execution | None, source_id: str | None
    ) -> ReadableSpan:
        log = store.log(record.id, max(0, record.seq - LOG_ROWS_MAX))
        named = related(record, source_id)
        others = _read(store, {id for _, id in named})
        tops = _read(store, {one.root_id for one in others.values() if one.root_id})
        linked = [
            (how, others[id], tops.get(others[id].root_id or ""))
            for how, id in named
            if id in others
        ]
        return self._spans.of_execution(record, root, log, linked)


def _read(store: Store, ids: Iterable[str]) -> dict[str, Execution]:
    wanted = sorted(ids)
    return {one.id: one for one in store.get(wanted) if one is not None} if wanted else {}


def _name(engine: Engine) -> str:
    """Draw a name for the feed, for the case that it is begun now."""
    import secrets

    return secrets.token_hex(6)


def _named() -> Resource:
    """Give what the environment says of this service, and nothing else."""
    import os

    said = Resource.create()
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name" not in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        return Resource({k: v for k, v in said.attributes.items() if k != "service.name"})
    return said


def _otlp_spans() -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _otlp_records() -> LogRecordExporter:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

    return OTLPLogExporter()


def _otlp_metrics() -> MetricReader:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return PeriodicExportingMetricReader(OTLPMetricExporter())


def _measured(engine: Engine, reader: MetricReader, resource: Resource) -> MeterProvider:
    """Show the metrics of an engine to OpenTelemetry: the same numbers, by the same names.

    Of histograms it has the count and the sum; the buckets are Prometheus' only.
    """
    from outlast.observe.metrics import Metrics

    provider = MeterProvider(metric_readers=[reader], resource=resource)
    meter = provider.get_meter("outlast")
    metrics = Metrics(engine)
    last: list[Any] = []

    def families() -> list[Any]:
        if not last or monotonic() - last[0] > 1.0:
            last[:] = [monotonic(), [one for one in metrics.collect() if one.type != "info"]]
        found: list[Any] = last[1]
        return found

    def observe(name: str, suffix: str) -> Callable[[CallbackOptions], list[Observation]]:
        def callback(options: CallbackOptions) -> list[Observation]:
            return [
                Observation(sample.value, dict(sample.labels))
                for family in families()
                if family.name == name
                for sample in family.samples
                if sample.name == name + suffix
            ]

        return callback

    for family in families():
        if family.type == "gauge":
            again = [observe(family.name, "")]
            meter.create_observable_gauge(family.name, again, description=family.documentation)
        elif family.type == "counter":
            again = [observe(family.name, "_total")]
            meter.create_observable_counter(family.name, again, description=family.documentation)
        elif family.type == "histogram":
            for suffix in ("_count", "_sum"):
                again = [observe(family.name, suffix)]
                meter.create_observable_counter(family.name + suffix, again)
    return provider


__all__ = ["Telemetry"]
