"""A server in a process of its own, for W10: the one that users start, with one task."""

from __future__ import annotations

import asyncio
import cProfile
import os
import sys

from benchmarks.child import say
from benchmarks.tasks import chain
from outlast import Engine
from outlast.server.auth import Authenticator
from outlast.server.known import StoreAuthenticator
from outlast.server.serving import Address, first_token, serve


async def main(store: str) -> None:
    """Serve a store until a signal; says where."""
    engine = Engine(store, tasks=[chain])
    first, _ = first_token(store)
    known: Authenticator = StoreAuthenticator(engine, first)
    await serve(engine, known, Address(port=0), lambda url: say(url=url, pid=os.getpid()))


if __name__ == "__main__":
    profiled = os.environ.get("OUTLAST_BENCH_PROFILE")
    if profiled:
        profile = cProfile.Profile()
        profile.enable()
        asyncio.run(main(*sys.argv[1:]))
        profile.disable()
        profile.dump_stats(profiled)
    else:
        asyncio.run(main(*sys.argv[1:]))
