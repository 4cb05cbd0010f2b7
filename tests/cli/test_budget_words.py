"""How rows about money are told."""

from __future__ import annotations

from outlast import Budget, spend, step, task
from outlast.cli.words import sentence
from outlast.testing import engine as virtual


@step
async def costly() -> None:
    spend(usd=0.6)


@task(name="told", budget=Budget(usd=1, soft=0.5))
async def told() -> None:
    await costly()
    spend(usd=0.1)
    await costly()
    await costly()


def test_budgets_are_told_row_by_row() -> None:
    with virtual(tasks=[told]) as engine:
        run = engine.start(told)
        engine.advance("1s")
        run.raise_budget(usd=5, actor="ann")
        run.result()
        said = [sentence(row) for row in run.transitions()]
    name = f"budget execution:{run.id}"
    for line in (
        f"{name}:usd is at its soft limit: usd 0.60 of 1 spent",
        "spent usd 0.10",
        f"{name}:usd is spent: usd 1.30 of 1 spent",
        f"{name} was raised by ann: usd 1.30 of 6 spent",
        "goes on: it has a budget again",
    ):
        assert line in said
