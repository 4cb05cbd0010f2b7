"""Log records handed on to OpenTelemetry, with the ids of what they are about.

OpenTelemetry calls its Python interface for logs unstable; this is the only module that uses it.
"""

from __future__ import annotations

import logging
import traceback
from typing import Any, Final

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import TraceFlags

from outlast.engine.read.logs import ids_here, is_replayed
from outlast.observe.logs import IDS
from outlast.observe.otel.spans import TRACE, Caller, span_id, trace_id

_OWN: Final = ("opentelemetry", "urllib3", "requests", "outlast.otel")
"""Loggers of what hands records on: to hand theirs on would never end."""
_SEVERITIES: Final = (
    (logging.CRITICAL, SeverityNumber.FATAL),
    (logging.ERROR, SeverityNumber.ERROR),
    (logging.WARNING, SeverityNumber.WARN),
    (logging.INFO, SeverityNumber.INFO),
)


class Records(logging.Handler):
    """Hands records on; what a replay says again is dropped.

    Args:
        exporter: takes them.
        resource: who says so.
    """

    def __init__(self, exporter: LogRecordExporter, resource: Resource) -> None:
        super().__init__()
        self._provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_log_record_processor(BatchLogRecordProcessor(exporter))

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record on."""
        if record.name.startswith(_OWN) or is_replayed():
            return
        try:
            self._provider.get_logger(record.name).emit(told(record, ids_here()))
        except Exception:  # noqa: BLE001 - it is no business of the code that logs
            self.handleError(record)

    def end(self) -> None:
        """Hand on what is left, and stop."""
        self._provider.shutdown()


def told(record: logging.LogRecord, ids: dict[str, Any]) -> LogRecord:
    """Write a record as OpenTelemetry has it.

    It is put into its execution's trace where that is known here: a child's is that of its root,
    whose caller only the store knows.
    """
    facts = {**ids, **{name: getattr(record, name) for name in IDS if hasattr(record, name)}}
    attributes: dict[str, Any] = {
        f"outlast.{name}": facts[name] for name in IDS if isinstance(facts.get(name), str | int)
    }
    event = getattr(record, "event", None)
    if isinstance(event, str):
        attributes["event.name"] = event
    if record.exc_info and record.exc_info[1] is not None:
        attributes["exception.type"] = type(record.exc_info[1]).__name__
        text = "".join(traceback.format_exception(record.exc_info[1]))
        attributes["exception.stacktrace"] = text
    trace: dict[str, Any] = {}
    execution = ids.get("execution")
    if execution is not None and ids.get("root") == execution:
        caller = Caller.of({TRACE: ids.get(TRACE, "")})
        trace = {
            "trace_id": trace_id(execution) if caller is None else caller.trace_id,
            "span_id": span_id(execution),
            "trace_flags": TraceFlags(TraceFlags.SAMPLED),
        }
    severity = next((one for least, one in _SEVERITIES if record.levelno >= least), None)
    return LogRecord(
        timestamp=int(record.created * 1e9),
        severity_text=record.levelname,
        severity_number=severity or SeverityNumber.DEBUG,
        body=record.getMessage(),
        attributes=attributes,
        **trace,
    )


__all__ = ["Records", "told"]
