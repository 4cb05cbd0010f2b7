"""What is shown of an engine to those who run it.

``Metrics(engine).text()`` gives its metrics for Prometheus (``pip install outlast[metrics]``), and
``Port(metrics, host, port)`` shows them on a port. ``setup_logs("json", "info")`` writes what a
process logs; ``Ids`` gives the records of your own handlers the ids of the code that makes them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from outlast.observe.logs import Ids as Ids
    from outlast.observe.logs import Json as Json
    from outlast.observe.logs import Text as Text
    from outlast.observe.logs import setup_logs as setup_logs
    from outlast.observe.metrics import Metrics as Metrics
    from outlast.observe.port import Port as Port

_HOMES: Final = {
    "Ids": "logs",
    "Json": "logs",
    "Metrics": "metrics",
    "Port": "port",
    "Text": "logs",
    "setup_logs": "logs",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for: each part has packages of its own that it needs."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = ["Ids", "Json", "Metrics", "Port", "Text", "setup_logs"]
