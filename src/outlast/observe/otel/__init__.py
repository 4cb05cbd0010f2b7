"""OpenTelemetry: traces of what was committed, and metrics (``pip install outlast[otel]``)."""

from __future__ import annotations

from outlast.observe.otel.export import Telemetry
from outlast.observe.otel.spans import Spans

__all__ = ["Spans", "Telemetry"]
