"""The connections: how long and how large the head of a request may be, before anybody reads it.

The guard sees a request once its head is whole. Until then it stands here: the parser alone would
take a head, or the trailers of a body, of any size, for as long as somebody sends them.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle, Transport
from functools import partial
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from outlast.server.guard import WHOLE

HEAD_SECONDS: Final = 10.0
"""How long a head may take to come, from the opening of a connection or its first byte."""
IDLE_SECONDS: Final = 15
"""How long a connection may stay without a request."""
HEAD_BYTES_MAX: Final = 65_536
"""More than the guard takes of headers and address, so that what is a little too long is told."""
MESSAGE_BYTES_MAX: Final = 16_777_216
"""What a whole request may take on the wire: a body in chunks has more bytes than it carries."""


class Corked:
    """A transport that sends the head of an answer with what comes right behind it.

    An answer is written as head and body. Each write of its own is a call of the system, which is
    the dearest thing that is done for a short answer.
    """

    def __init__(self, transport: Transport, loop: AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send, or keep the head of an answer for a moment."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_ANSWER) and data.endswith(_END) and not data.startswith(_GO_ON):
            self._head = data
            self._loop.call_soon(self.flush)
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Send what is kept."""
        if self._head:
            data, self._head = self._head, b""
            self._transport.write(data)

    def close(self) -> None:
        """Send what is kept, and end the connection."""
        self.flush()
        self._transport.close()


_ANSWER: Final = b"HTTP/1.1 "
_GO_ON: Final = b"HTTP/1.1 1"
_END: Final = b"\r\n\r\n"


class Connection(HttpToolsProtocol):
    """A connection that waits for no head for ever, and keeps none that is too long."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._in_head, self._taken = True, 0
        self._head_timer: TimerHandle | None = None
        self._idle_timer: TimerHandle | None = None
        self._idle_since: float | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(Corked(transport, self.loop))  # type: ignore[arg-type]
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._look_again)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._wait_no_more()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it is too much; a head that is not whole by now has its time."""
        self._taken += len(data)
        if self._taken > (HEAD_BYTES_MAX + len(data) if self._in_head else MESSAGE_BYTES_MAX):
            self._give_up()
            return
        super().data_received(data)
        is_partial = self._in_head and self._taken > 0
        if is_partial and self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._look_again)

    def on_headers_complete(self) -> None:
        """Count from here on what the body takes."""
        self._in_head, self._taken = False, 0
        self._wait_no_more()
        scope: Any = self.scope
        super().on_headers_complete()
        scope[WHOLE] = partial(send_whole, self.cycle)  # its task has not begun yet

    def on_message_complete(self) -> None:
        """Expect another head."""
        self._in_head, self._taken = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, if it is there; else the connection is idle from now on.

        It has one timer, which looks when it has been idle for long. One that is set and cancelled
        for each request would cost more than to send its answer's head.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._look_idle)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def _look_idle(self) -> None:
        """End a connection on which nothing has come for long."""
        self._idle_timer = None
        if self._idle_since is None:
            return  # what is asked now sets the next one
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left <= 0:
            self.timeout_keep_alive_handler()
        else:
            self._idle_timer = self.loop.call_later(left, self._look_idle)

    def _wait_no_more(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _look_again(self) -> None:
        """End a connection whose head has not come; an answer under way is finished before."""
        if getattr(self.cycle, "response_complete", True):  # there may be none
            self._give_up()
        else:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._look_again)

    def _give_up(self) -> None:
        self._wait_no_more()
        self.transport.close()


def send_whole(cycle: RequestResponseCycle, status: int, head: bytes, body: bytes) -> bool:
    """Send a whole answer at one go; it costs a third of two messages through ASGI.

    Args:
        cycle: the request and its answer, of which nothing was sent yet.
        status: of the answer.
        head: the headers, up to the empty line; they name the length of the body.
        body: the body.

    Returns:
        Whether it was done; else nothing was.
    """
    if cycle.disconnected:
        return True  # there is nobody to send it to
    if cycle.flow.write_paused or cycle.response_started or cycle.scope["method"] == "HEAD":
        return False
    lines = [STATUS_LINE[status]]
    for name, value in cycle.default_headers:
        lines += (name, b": ", value, b"\r\n")
    if not cycle.keep_alive:
        lines.append(b"connection: close\r\n")
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join((*lines, head, body)))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


__all__ = ["Connection", "send_whole"]
