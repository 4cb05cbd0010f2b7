"""Follow a log over a connection that may break: it goes on behind the last row that came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import httpx

from outlast.client import reading
from outlast.client.wire import Wire
from outlast.errors import Forbidden, OutlastError, ServerUnreachable
from outlast.lifecycle import FINAL, Transition

PATIENCE: Final = 240
"""How often in a row a connection may fail before it is given up: two minutes."""
AGAIN_SECONDS: Final = 0.5


async def followed(wire: Wire, id: str, seq: int = 0) -> AsyncIterator[Transition]:
    """Give the rows of a log from behind one on as they are recorded, to the final one.

    Raises:
        OutlastError: the server refuses to show it.
        ServerUnreachable: it has not answered for two minutes.
    """
    failures, payload = 0, True
    why = ""
    while failures < PATIENCE:
        try:
            path = f"/executions/{id}/events"
            async with wire.stream(path, after_seq=seq, payload=payload) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise wire.refusal(answer)
                async for line in answer.aiter_lines():
                    failures = 0
                    if line.startswith("event: end"):
                        return
                    if line.startswith('data: {"type":"transition"'):
                        form = reading.read(line[6:].encode(), reading.LogForm, wire.url)
                        row = reading.transition_of(form)
                        seq = row.seq
                        yield row
                        if row.to_state in FINAL:
                            return
        except Forbidden:
            if not payload:
                raise
            payload = False
            continue
        except httpx.TransportError as error:
            why = str(error) or type(error).__name__
        except OutlastError as error:
            if not isinstance(error, ServerUnreachable) and error.code != "overloaded":
                raise
            why = error.why
        failures += 1
        await asyncio.sleep(AGAIN_SECONDS)
    raise ServerUnreachable("no server answers any more", where=wire.url, why=why)


__all__ = ["followed"]
