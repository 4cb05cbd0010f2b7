"""Requests to a server: sent, repeated where that is safe, and their refusals raised as errors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import httpx
import msgspec

from outlast.client.reading import error_of
from outlast.errors import InternalError, OutlastError, Overloaded, ServerUnreachable, UsageError

API: Final = "/api/v1"
TRIES: Final = 4
BASE_SECONDS: Final = 0.1
_encode: Final = msgspec.json.Encoder().encode


class Wire:
    """A connection to a server; for one event loop.

    Args:
        url: the address of the server, as ``http://127.0.0.1:7575``.
        token: the token.
        transport: what carries the requests; tests bring their own.
        tenant: whose things; None: those of the server's default tenant.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        tenant: str | None = None,
    ) -> None:
        self.url = checked_url(url)
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        if tenant is not None:
            headers["outlast-tenant"] = tenant
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=headers,
            timeout=httpx.Timeout(90.0, connect=5.0),
            transport=transport,
            trust_env=False,
        )

    async def get(self, path: str, **query: Any) -> bytes:
        """Read something.

        Raises:
            OutlastError: what the server refused it with.
            ServerUnreachable: nothing answers.
        """
        return (await self.send("GET", path, query=query)).content

    async def post(
        self, path: str, body: Any = None, *, key: str | None = None, method: str = "POST"
    ) -> bytes:
        """Change something; with a key it is safe to repeat, and is repeated.

        Raises:
            OutlastError: what the server refused it with.
            ServerUnreachable: nothing answers; without a key, whether it was done is unknown.
        """
        return (await self.send(method, path, body=body, key=key)).content

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a request and give its answer."""
        given = {name: value for name, value in (query or {}).items() if value is not None}
        headers = dict(headers or {})
        if body is not None:
            headers["content-type"] = "application/json"
        if key is not None:
            headers["idempotency-key"] = key
        is_safe = method == "GET" or key is not None
        for tried in range(1, TRIES + 1):
            try:
                answer = await self._http.request(
                    method,
                    API + path,
                    params=given,
                    content=None if body is None else _encode(body),
                    headers=headers,
                )
                refusal = None if answer.is_success else _refusal(answer)
            except httpx.TransportError as error:
                refusal = self._unreachable(error)
                if not is_safe and not isinstance(error, httpx.ConnectError):
                    raise refusal from None
            if refusal is None:
                return answer
            if tried == TRIES or not isinstance(refusal, ServerUnreachable | Overloaded):
                raise refusal
            await asyncio.sleep(BASE_SECONDS * 2**tried)
        raise AssertionError("the last try has an end")

    def stream(self, path: str, **query: Any) -> Any:
        """Open a stream of events; an async context manager of an ``httpx.Response``."""
        return self._http.stream(
            "GET", API + path, params=query, timeout=httpx.Timeout(60.0, connect=5.0)
        )

    def refusal(self, answer: httpx.Response) -> OutlastError:
        """Give the error that an answer tells."""
        return _refusal(answer)

    def _unreachable(self, error: httpx.TransportError) -> ServerUnreachable:
        return ServerUnreachable(
            "no server answers", where=self.url, why=str(error) or type(error).__name__
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()


def _refusal(answer: httpx.Response) -> OutlastError:
    try:
        document = msgspec.json.decode(answer.content)
    except msgspec.DecodeError:
        document = None
    if not isinstance(document, dict) or "code" not in document:
        return InternalError(
            f"a server answered with {answer.status_code}, and it is none of Outlast's",
            where=str(answer.url),
        )
    return error_of(document)


def checked_url(url: str) -> str:
    """Give a server's address back, without a slash at its end.

    Raises:
        UsageError: it is none.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"{url[:200]!a} is no server's address", do="as http://127.0.0.1:7575")
    return str(parsed).rstrip("/")


__all__ = ["API", "Wire", "checked_url"]
