"""Send requests: straight into the app, or over a socket to a server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from campaigns.matrix.asking import Request

LIVE: Final = b"text/event-stream"
SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; of live events the beginning."""

    status: int
    headers: dict[str, str]
    body: bytes


async def ask(app: Any, request: Request) -> Answer:
    """Ask an app, as a server would; a reader of live events leaves when it has read some."""
    raw, _, query = request.target.partition("?")
    headers = list(request.headers)
    if not any(name == b"host" for name, _ in headers) and request.trick != "no host":
        headers.append((b"host", b"test"))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "path": unquote(raw),
        "raw_path": raw.encode(),
        "query_string": query.encode(),
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
        "scheme": "http",
        "root_path": "",
    }
    gone, live = asyncio.Event(), asyncio.Event()
    parts: list[bytes] = []
    start: dict[str, Any] = {}
    is_read = False

    async def receive() -> dict[str, Any]:
        nonlocal is_read
        if not is_read:
            is_read = True
            return {"type": "http.request", "body": request.body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            if (b"content-type", LIVE) in message["headers"]:
                live.set()
            return
        parts.append(message["body"])
        if message.get("more_body") and len(parts) > 2:
            gone.set()

    running = asyncio.ensure_future(app(scope, receive, send))
    try:
        async with asyncio.timeout(SECONDS):
            begun = asyncio.ensure_future(live.wait())
            await asyncio.wait([running, begun], return_when=asyncio.FIRST_COMPLETED)
            begun.cancel()
            if not running.done():  # somebody who reads for a moment
                await asyncio.wait([running], timeout=LOOK_SECONDS)
                gone.set()
                running.cancel()
            await asyncio.wait([running])
    except TimeoutError:
        raise AssertionError(f"no answer came to {request}") from None
    if not running.cancelled() and running.exception() is not None:
        raise AssertionError(f"the app fell over {request}") from running.exception()
    said = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
    return Answer(start["status"], said, b"".join(parts))


async def ask_by_socket(address: tuple[str, int], request: Request) -> Answer | None:
    """Ask a server; None where it ended the connection without a word."""
    headers = list(request.headers)
    if not any(name == b"host" for name, _ in headers) and request.trick != "no host":
        headers.append((b"host", f"{address[0]}:{address[1]}".encode()))
    headers += [(b"content-length", str(len(request.body)).encode()), (b"connection", b"close")]
    head = f"{request.method} {request.target} HTTP/1.1\r\n".encode()
    head += b"".join(name + b": " + value + b"\r\n" for name, value in headers) + b"\r\n"
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection(*address)
        data = b""
        try:
            writer.write(head + request.body)
            while True:
                part = await reader.read(65_536)
                data += part
                if not part or (LIVE in data.partition(b"\r\n\r\n")[0] and b"retry:" in data):
                    break
        except ConnectionError:
            pass  # what is too long is not read to its end
        finally:
            writer.close()
    if b"\r\n\r\n" not in data:
        return None
    top, _, body = data.partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    said = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines[1:])
    }
    if len(body) < int(said.get("content-length", "0")) and request.method != "HEAD":
        return None  # it did not wait for a body that nobody has asked for, and was cut off
    return Answer(int(lines[0].split()[1]), said, body)
