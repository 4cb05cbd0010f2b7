"""Every subcommand of the groups that look after a store, against a server; and lists there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from outlast.cli.app import run
from outlast.cli.budgeting import budget
from outlast.cli.hooking import webhook
from outlast.cli.queueing import limit, queue
from outlast.cli.scheduling import schedule
from outlast.cli.tenancy import tenant
from outlast.client.client import Client
from outlast.engine.task.registry import TASKS
from outlast.server import veil
from outlast.store.protocol import Filter
from tests.server.conftest import TOKEN, Served, a_server, total

GROUPS = (schedule, queue, limit, webhook, tenant, budget)
Call = Callable[..., Any]
PLAN = ("@FILE:total", "--every", "1h")
STORY = (
    f"schedule create nightly {' '.join(PLAN)} -- --a 1",
    "schedule ls",
    "schedule show nightly",
    "schedule next nightly",
    "schedule pause nightly --why lunch",
    "schedule resume nightly",
    "schedule trigger nightly",
    "schedule update nightly @FILE:total --every 2h -- --a 2",
    "schedule backfill nightly 2026-01-01T00:00 2026-01-01T05:00",
    "schedule why nightly 2026-01-01T02:00",
    "schedule cancel nightly",
    "queue ls",
    "queue limit default 5",
    "queue pause default --why lunch",
    "queue resume default",
    "limit set stock 4",
    "limit ls",
    "webhook add https://example.org/x --task total",
    "webhook ls",
    "webhook show @HOOK",
    "webhook pause @HOOK",
    "webhook resume @HOOK",
    "webhook ping @HOOK",
    "webhook redeliver @HOOK 1",
    "webhook rotate @HOOK",
    "webhook rm @HOOK",
    "tenant ls",
    "tenant add acme",
    "tenant close acme",
    "tenant open acme",
    "budget ls",
    "budget set tenant usd=5",
    "budget raise tenant usd=1",
    "budget show tenant",
    "budget reset tenant",
)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Served]:
    monkeypatch.setenv("OUTLAST_TOKEN", TOKEN)
    with a_server(f"sqlite:///{tmp_path / 'served.db'}") as served:
        yield served


@pytest.fixture
def outlast(served: Served, capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*words: str) -> str:
        got = run(["--store", served.url, *words])
        said = capsys.readouterr()
        assert got == 0, (words, said.out, said.err)
        return said.out

    return call


def test_every_subcommand_works_against_a_server(tmp_path: Path, outlast: Call) -> None:
    names = {(group.name, name) for group in GROUPS for name in group.commands}
    assert all(isinstance(group, click.Group) for group in GROUPS)
    assert {tuple(one.split()[:2]) for one in STORY} == names, "each of them is tried"
    file = tmp_path / "app.py"
    file.write_text("from outlast import task\n@task\nasync def total(a: int) -> int: ...\n")
    said: dict[str, str] = {}
    hook = ""
    for line in STORY:
        TASKS.pop("total", None)  # each command is a process of its own elsewhere
        try:
            words = line.replace("@FILE", str(file)).replace("@HOOK", hook).split()
            said[" ".join(words[:2])] = found = outlast(*words)
        finally:
            TASKS.pop("total", None)
        hook = hook or "".join(re.findall(r"wh_[0-9a-f]+", found)[:1])
    assert "every 1h" in said["schedule ls"] and "paused" in said["schedule pause"]
    assert said["schedule trigger"].startswith("ex_") and "triggered" in said["schedule trigger"]
    assert said["schedule why"] and said["schedule next"].count("\n") == 5
    assert "5 at a time" in said["queue limit"] and "stock" in said["limit ls"]
    assert "whsec_" in said["webhook rotate"] and "delivery 1" in said["webhook ping"]
    assert "acme" in said["tenant open"] and "6" in said["budget raise"]


def test_a_list_goes_on_behind_short_pages(
    served: Served, outlast: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server looks at so many rows for a page; who lists, gets all of it all the same."""
    monkeypatch.setattr(veil, "ROWS_MAX", 5)
    with Client(served.url) as client:
        rare = [client.start("asks", name="Ada").id for _ in range(2)]
        common = [client.start(total, a).id for a in range(30)]
        for id in common:
            client.execution(id).result()
        parts = client.run(client.wire.get("/executions", label="team=none", limit=10))
        assert json.loads(parts)["items"] == []
        for id in rare:
            client.execution(id).label(team="few")
        page = client.run(client.read_page(Filter(labels={"team": "few"}, limit=10)))
        assert sorted(one.id for one in page) == sorted(rare)
        found = client.run(client.read_page(Filter(roots=True, task="asks", limit=10)))
        assert sorted(one.id for one in found) == sorted(rare)
    ids = outlast("ls", "--task", "asks", "-o", "ids").split()
    assert sorted(ids) == sorted(rare)
    everything = outlast("ls", "--limit", "100", "-o", "ids").split()
    assert sorted(everything) == sorted(rare + common)
