"""Ask a person, wait at most three days, and go on by yourself if nobody answers.

outlast run examples/approval.py:refund --order O-1 --cents 900
outlast answer last '{"approve": true, "note": "loyal customer"}'     # in another terminal
"""

from __future__ import annotations

from dataclasses import dataclass

from outlast import ask, step, task
from outlast.errors import WaitTimeout


@dataclass
class Decision:
    """What the person who is asked must give: shown as a form, and checked."""

    approve: bool
    note: str = ""


@step
async def pay_back(order: str, cents: int) -> str:
    return f"{cents / 100:.2f} paid back for {order}"


@task
async def refund(order: str, cents: int, patience: str = "3d") -> str:
    if cents > 500:
        try:
            decision = await ask(
                f"Refund {cents / 100:.2f} for {order}?", Decision, to="support", timeout=patience
            )
        except WaitTimeout:
            return f"nobody decided on {order} within {patience}"
        if not decision.approve:
            return f"refused: {decision.note}"
    return await pay_back(order, cents)
