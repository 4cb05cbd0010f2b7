"""The commands that control, one by one and many at once, and what is shown of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

import outlast
from outlast import Engine, State, step, task
from outlast.cli.editing import edited
from outlast.engine.guest import Guest
from outlast.errors import UnknownTask, UsageError

from .conftest import Terminal, until

CONTROLLED = """
import outlast
from outlast import Engine, sleep, step, task

@step
async def charge(cents: int) -> str:
    if cents < 0:
        raise ValueError("no money")
    return f"paid {cents}"

@step
async def pack(what: str) -> str:
    return what

@task(labels={"team": "shop"})
async def order(what: str, cents: int = 5, tags: list[str] = []) -> str:
    packed = await pack(what)
    return f"{packed} {await charge(cents)}"

@task
async def nap() -> None:
    await sleep("1h")

if __name__ == "__main__":
    with Engine("outlast.db" if False else "sqlite:///outlast.db") as engine:
        good, bad = engine.start(order, "tea"), engine.start(order, "jam", -1)
        good.wait()
        bad.wait()
        for handle in [engine.start(nap) for _ in range(3)]:
            while handle.status() is not outlast.State.WAITING:
                handle.record()
"""


@pytest.fixture
def shop(terminal: Terminal) -> Terminal:
    """A store with one order that went well, one that failed, and three naps."""
    (terminal.directory / "shop.py").write_text(CONTROLLED, encoding="utf-8")
    import subprocess
    import sys

    from .conftest import environment

    subprocess.run(
        [sys.executable, "shop.py"], cwd=terminal.directory, env=environment(), check=True
    )
    return terminal


def only(terminal: Terminal, state: str) -> str:
    """The id of the one execution in a state."""
    (id,) = terminal.here("ls", "--state", state, "-o", "ids").out.split()
    return id


def work_off(terminal: Terminal, id: str) -> State:
    """Let an engine run until an execution has ended."""
    worker = terminal.spawn("worker", "shop.py")
    worker.line_with("serving")
    state = terminal.in_state(id, State.SUCCEEDED, State.FAILED)
    worker.signal(15)
    worker.end()
    return state


def test_an_edited_fork_is_shown_from_both_sides(shop: Terminal) -> None:
    bad = only(shop, "failed")
    made = shop.run(
        *("fork", bad, "--from", "charge", "--set", "cents=7", "--file", "shop.py"),
        *("--reason", "coupon", "-o", "json"),
    )
    assert made.code == 0, made.err
    fork = made.json["id"]
    assert f"made     {fork}, by fork from charge#1" in shop.here("show", bad).out
    assert f"made by  fork of {bad} from charge#1: coupon" in shop.here("show", fork).out
    assert f"fork of {bad}" in shop.here("ls").out
    assert f"made by   fork of {bad} from charge#1" in shop.here("why", fork).out
    shown = shop.here("show", bad, "-o", "json").json
    assert shown["from"] is None
    assert [one["id"] for one in shown["descendants"]] == [fork]
    assert work_off(shop, fork) is State.SUCCEEDED
    shown = shop.here("show", fork, "-o", "json").json
    assert shown["result"] == "jam paid 7"
    assert shown["from"] == {"id": fork, "source": bad, "mode": "fork", "step": "charge#1"}
    assert [step["payload"] for step in shown["steps"]] == ["jam", "paid 7"]
    events = shop.here("events", fork).out
    assert "can be reused, from row" in events and "goes on by itself" in events


def test_a_fork_of_an_unknown_step_names_the_others(shop: Terminal) -> None:
    done = shop.here("fork", only(shop, "failed"), "--from", "pay", "-o", "json")
    assert (done.code, done.error["code"]) == (4, "unknown_step")
    assert "pack#1, charge#1" in done.err


def test_rerun_without_the_code_takes_the_recorded_input(shop: Terminal) -> None:
    good = only(shop, "succeeded")
    made = shop.here("rerun", good, "-o", "json")
    assert made.code == 0
    with shop.guest() as guest:
        recorded = [guest.log(id)[0].payload for id in (good, made.json["id"])]
    assert recorded[0] == recorded[1]
    refused = shop.here("rerun", good, "--set", "cents=7", "-o", "json")
    assert (refused.code, refused.error["code"]) == (2, "unknown_task")


def test_an_edited_input_that_does_not_fit_writes_nothing(shop: Terminal) -> None:
    before = shop.here("ls", "-o", "ids").out
    good = only(shop, "succeeded")
    for edit in (["--set", "cents=much"], ["--set", "sents=7"], ["--json", '{"what": 5}']):
        done = shop.run("rerun", good, *edit, "--file", "shop.py", "-o", "json")
        assert (done.code, done.error["code"]) == (2, "bad_payload"), done.err
    assert shop.here("ls", "-o", "ids").out == before


def test_recover_and_retry_make_another_execution(shop: Terminal) -> None:
    bad = only(shop, "failed")
    for command in ("recover", "retry"):
        done = shop.here(command, bad)
        assert done.code == 0
        assert f"made by recover of {bad}, 1 finished step reused" in done.out
    refused = shop.here("recover", only(shop, "succeeded"), "-o", "json")
    assert (refused.code, refused.error["code"]) == (5, "not_recoverable")


def test_labels_and_priority(shop: Terminal) -> None:
    ids = shop.here("ls", "--label", "team=shop", "-o", "ids").out.split()
    assert len(ids) == 2
    naps = shop.here("ls", "--task", "nap", "-o", "ids").out.split()
    assert shop.here("label", *naps[:2], "team=night", "size=7").code == 0
    assert shop.here("ls", "--label", "team=night", "-o", "ids").out.split() == naps[:2]
    assert shop.here("label", naps[0], "team=").code == 0
    assert shop.here("ls", "--label", "team=night", "-o", "ids").out.split() == naps[1:2]
    assert "labels   size=7 team=night" in shop.here("show", naps[1]).out
    assert shop.here("priority", naps[0], "-3").code == 0
    assert shop.here("show", naps[0], "-o", "json").json["priority"] == -3
    assert shop.here("ls", "--label", "team").code == 2
    assert shop.here("label", naps[0]).code == 2


def test_a_start_takes_labels_and_a_priority(shop: Terminal) -> None:
    done = shop.run("start", "shop.py:nap", "--label", "a=b", "--priority", "7", "-o", "json")
    assert done.code == 0, done.err
    shown = shop.here("show", done.json["id"], "-o", "json").json
    assert (shown["labels"], shown["priority"]) == ({"a": "b"}, 7)


def test_many_are_cancelled_at_once(shop: Terminal) -> None:
    select = ("cancel", "--task", "nap", "--state", "waiting")
    dry = shop.here(*select, "--dry-run")
    assert dry.code == 0 and dry.out.startswith("This cancels 3 executions (oldest ")
    piped = shop.here(*select)
    assert piped.code == 2 and "--yes to do it" in piped.err
    assert len(shop.here("ls", "--state", "waiting", "-o", "ids").out.split()) == 3
    done = shop.here(*select, "--yes", "--why", "enough", "-o", "json")
    assert (done.json["matched"], done.json["done"], done.json["refused"]) == (3, 3, {})
    assert "enough" in shop.here("ls", "--state", "cancelled").out
    assert shop.here(*select, "--yes").out == "no execution fits\n"


def test_the_number_is_typed_at_a_terminal(shop: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    from outlast.cli import controlling

    typed = iter(["4", "3"])
    monkeypatch.setattr(controlling, "is_interactive", lambda *streams: True)
    monkeypatch.setattr(controlling.click, "prompt", lambda *words, **options: next(typed))
    no = shop.here("pause", "--task", "nap")
    assert (no.code, no.out) == (2, "") and "nothing was done" in no.err
    yes = shop.here("pause", "--task", "nap")
    assert yes.out == "pause: 3 of 3 executions\n"
    assert shop.here("resume", "--task", "nap", "--yes").out == "resume: 3 of 3 executions\n"


def test_many_are_retried_once(shop: Terminal) -> None:
    first = shop.here("retry", "--task", "order", "--yes", "-o", "json")
    assert (first.code, first.json["done"], len(first.json["made"])) == (0, 1, 1)
    again = shop.here("retry", "--task", "order", "--yes", "-o", "json")
    assert (again.code, again.json["refused"]) == (5, {"already_recovered": 1})
    reruns = shop.here("rerun", "--label", "team=shop", "--older", "0s", "--yes", "-o", "ids")
    assert len(reruns.out.split()) == 2


def test_ids_and_a_filter_exclude_each_other(shop: Terminal) -> None:
    assert shop.here("cancel").code == 2
    assert shop.here("cancel", "ex_1", "--task", "nap").code == 2
    assert shop.here("cancel", "ex_1", "--dry-run").code == 2
    assert shop.here("rerun", "--task", "nap", "--set", "a=1").code == 2


def test_ids_come_from_stdin(shop: Terminal) -> None:
    ids = shop.here("ls", "--task", "nap", "-o", "ids").out
    assert shop.run("cancel", "-", stdin=ids).out.count("cancel asked for") == 3


def test_inputs_are_edited_by_path() -> None:
    @task
    async def takes(order: dict[str, int], name: str, tags: list[str]) -> None: ...

    recorded = b'{"order": {"cents": 1}, "name": "a", "tags": ["x", "y"]}'
    sets = ["order.cents=900", "order.more=2", "name=7", "tags.1=z"]
    assert json.loads(edited(recorded, None, sets, False, takes)) == {
        "order": {"cents": 900, "more": 2},
        "name": "7",
        "tags": ["x", "z"],
    }
    for path in ("order.cents.x=1", "tags.5=1", "nobody.x=1", "name"):
        with pytest.raises(UsageError):
            edited(recorded, None, [path], False, takes)
    with pytest.raises(UnknownTask):
        edited(recorded, None, ["name=b"], False, None)


@step
async def stubborn() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)


@step
async def slow_end() -> None:
    await asyncio.Event().wait()


@task
async def cleans_up() -> None:
    try:
        await stubborn()
    except asyncio.CancelledError:
        await slow_end()


def test_a_cancel_under_way_is_shown_with_what_is_alive(terminal: Terminal, tmp_path: Path) -> None:
    with Engine(terminal.url) as engine:
        handle = engine.start(cleans_up)
        until(lambda: handle.status() is State.RUNNING)
        handle.cancel("enough")
        until(lambda: "slow_end" in terminal.here("why", handle.id).out)
        said = terminal.here("why", handle.id).out
        assert "running, cancelling" in said
        assert "asked to cancel it: enough; still under way: slow_end#1, for " in said
        assert "until" in said and "left" in said
        assert "running, cancelling" in terminal.here("ls").out
        assert "slow_end#1" in terminal.here("show", handle.id).out
        assert terminal.here("show", handle.id, "-o", "json").json["is_cancelling"]


def test_a_cancel_that_waits_for_an_engine_is_told(terminal: Terminal) -> None:
    running = terminal.spawn("run", "tasks.py:gated", "--name", "x")
    until((terminal.directory / "bodies.txt").exists)
    with terminal.guest() as guest:
        id = until(lambda: guest.store.page(outlast.Filter(limit=1)))[0].id
        terminal.in_state(id, State.RUNNING)
        running.kill()
        until(lambda: guest.owner() is None)
        assert guest.record(id).is_leased
        assert terminal.here("cancel", id, "--why", "late").code == 0
    for command in (("why", id), ("show", id)):
        said = terminal.here(*command).out
        assert "running, cancelling" in said
        assert "late; no engine runs: it will be cancelled when one starts" in said
    assert "running, cancelling" in terminal.here("ls").out
    assert terminal.here("why", id, "-o", "json").json["reason"]["code"] == "cancelling"
    terminal.worker()
    terminal.in_state(id, State.CANCELLED)


def test_bulk_of_an_engine_reports_what_refused(tmp_path: Path) -> None:
    @task
    async def waits() -> None:
        await outlast.wait_for("end")

    with outlast.testing.engine() as engine:
        handles = [engine.start(waits) for _ in range(450)]
        engine.advance("1s")
        dry = engine.bulk("cancel", outlast.Filter(task="waits"), dry_run=True)
        assert (dry.matched, dry.done, dry.is_dry, len(dry.sample)) == (450, 0, True, 5)
        assert dry.oldest_at == handles[0].record().created_at
        handles[0].cancel()
        every = outlast.Filter(states=(State.AWAITING_INPUT, State.CANCELLED))
        report = engine.bulk("cancel", every, why="all")
        assert (report.matched, report.done, report.refused) == (450, 449, {"already_final": 1})
        assert {handle.status() for handle in handles} == {State.CANCELLED}
        with pytest.raises(UsageError):
            engine.bulk("delete", every)
        assert Guest(opened=engine.store).bulk("retry", every).made
