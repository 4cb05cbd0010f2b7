"""A port that gives the metrics of an engine, for workers that have no server.

It answers ``GET /metrics`` and nothing else, from threads of its own: a scrape waits for no loop.
"""

from __future__ import annotations

import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from outlast.errors import CannotLoad

if TYPE_CHECKING:
    from outlast.observe.metrics import Metrics

PATIENCE_SECONDS: Final = 5.0
"""How long a scraper may take to ask, and to read."""


class Port:
    """Listens until it is closed; use it with ``with``.

    Args:
        metrics: what it gives.
        host, port: where it listens; port 0 takes a free one.

    Attributes:
        url: where the metrics are.

    Raises:
        CannotLoad: it cannot listen there.
    """

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        handler = type("Handler", (_Handler,), {"metrics": metrics})
        try:
            self._server = _Server((host, port), handler)
        except OSError as error:
            raise CannotLoad(
                f"the metrics cannot be shown on {host}:{port}",
                where="--metrics-port",
                why=error.strerror or str(error),
                do="--metrics-port 0 takes a free one",
            ) from None
        self.url = f"http://{host}:{self._server.server_address[1]}/metrics"
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="outlast-metrics", daemon=True
        )

    def __enter__(self) -> Port:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    metrics: Metrics
    timeout = PATIENCE_SECONDS  # type: ignore[mutable-override]
    server_version = "outlast"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        from outlast.observe.metrics import MEDIA

        text = self.metrics.text()
        self.send_response(HTTPStatus.OK)
        self.send_header("content-type", MEDIA)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape is no news."""


__all__ = ["Port"]
