"""A parcel that waits for days, for an answer, and for a carrier that often fails.

pytest examples/testing        # tests all that, crashes included, in less than a second
"""

from __future__ import annotations

from outlast import Retry, ask, sleep, step, task

LABELS = {"O-1": "label of O-1"}


@step(retries=Retry(5, base="10m", cap="1h"))
async def book(order: str) -> str:
    return LABELS[order]


@task
async def send_parcel(order: str) -> str:
    label = await book(order)
    await sleep("2d")  # the customer may still change their mind
    if await ask("Release parcel?", timeout="5d", default=False):
        return f"sent with {label}"
    return "kept"
