"""How fast a webhook is told: deliveries a second of one server, to a receiver of this machine.

``python -m benchmarks.hooks`` starts executions, whose ends are told to one webhook, and counts
what a receiver in a process of its own has taken, until all of it has arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import IO, Final

from benchmarks.place import ROOT
from benchmarks.tasks import nothing
from outlast import Engine

COUNT: Final = 2_000
"""Executions, whose ends are told."""

RECEIVER: Final = """
import socket, sys, threading
ear = socket.create_server(("127.0.0.1", 0), backlog=256)
print(ear.getsockname()[1], flush=True)
taken = 0
def take(line):
    global taken
    with line:
        data = b""
        while b"\\r\\n\\r\\n" not in data:
            data += line.recv(65536)
        head, _, body = data.partition(b"\\r\\n\\r\\n")
        length = next(int(one.split(b":")[1]) for one in head.lower().split(b"\\r\\n")
                      if one.startswith(b"content-length:"))
        while len(body) < length:
            body += line.recv(65536)
        line.sendall(b"HTTP/1.1 204 No Content\\r\\nconnection: close\\r\\n\\r\\n")
    taken += 1
    print(taken, flush=True)
while True:
    take(ear.accept()[0])
"""


def told(directory: Path, count: int) -> tuple[float, float]:
    """Tell a webhook of so many ends; gives the seconds, and our processor time."""
    line = [sys.executable, "-c", RECEIVER]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        try:
            return asyncio.run(_told(directory, count, receiver.stdout))
        finally:
            receiver.kill()


async def _told(directory: Path, count: int, taken: IO[str]) -> tuple[float, float]:
    from outlast.server.courier import Courier

    port = int(taken.readline())
    os.environ["OUTLAST_WEBHOOK_HOSTS"] = f"127.0.0.1:{port}"
    async with Engine(f"sqlite:///{directory}/outlast.db", tasks=[nothing]) as engine:
        hooks = engine.webhooks
        made = await hooks.aadd(f"http://127.0.0.1:{port}/", states=["succeeded"])
        await hooks.apause(made.webhook.id)
        handles = await engine.astart_many(nothing, [()] * count)
        await asyncio.gather(*(handle.aresult() for handle in handles))
        courier = Courier(engine)
        delivering = asyncio.create_task(courier.run())
        began, cost = perf_counter(), process_time()
        await hooks.aresume(made.webhook.id)

        def arrived() -> None:
            for said in taken:
                if int(said) >= count:
                    return

        await asyncio.to_thread(arrived)
        result = perf_counter() - began, process_time() - cost
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)
        return result


def main() -> None:
    """Measure, and print a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--dir", type=Path, default=ROOT)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="outlast-hooks-", dir=asked.dir) as place:
        seconds, cost = told(Path(place), asked.count)
    each = cost / asked.count * 1e6
    rate = asked.count / seconds
    print(f"{asked.count:,} deliveries: {rate:,.0f}/s, {each:.0f} µs of processor time each")


if __name__ == "__main__":
    main()
