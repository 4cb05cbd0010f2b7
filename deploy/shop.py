"""What the files of this directory serve, until they serve your own tasks."""

from __future__ import annotations

from outlast import ask, sleep, step, task


@step(retries=3, timeout="10s")
async def pack(order: int) -> str:
    """Pack an order."""
    return f"parcel {order}"


@task
async def ship(order: int) -> str:
    """Pack an order, and ask before it leaves."""
    parcel = await pack(order)
    if not await ask(f"Release {parcel}?", bool, to="ops", timeout="2d", default=False):
        return f"{parcel} kept"
    await sleep("1s")
    return f"{parcel} sent"
