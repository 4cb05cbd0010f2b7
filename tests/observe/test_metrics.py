"""Metrics: every state, each committed transition once, bounded labels, a role of their own."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from outlast import Engine, Retry, sleep, step, task
from outlast.engine.task.registry import TASKS as KNOWN
from outlast.engine.write.tally import FRESH_MAX, OTHERS, TASKS_MAX, Spread, Tally
from outlast.errors import StoreUnavailable
from outlast.lifecycle import EDGES, Kind, State, Transition
from outlast.lifecycle.table import RULES
from outlast.observe.metrics import Metrics
from outlast.observe.port import Port

from . import awaited

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
TRIES: dict[str, int] = {}
STEP = Transition(1, "ex_1", 4, Kind.STEP, State.RUNNING, State.RUNNING, 1, b"n" * 16, "engine", 1)


@step(retries=Retry(2, base="1ms"))
async def flaky(name: str) -> str:
    TRIES[name] = TRIES.get(name, 0) + 1
    if TRIES[name] == 1:
        raise ValueError("once")
    return name


@task
async def measured(name: str) -> str:
    return await flaky(name)


@task
async def dozes(span: str) -> None:
    await sleep(span)


for one in (measured, dozes):
    KNOWN.pop(one.name)


def read(text: bytes) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


@awaited
async def test_a_scrape_has_every_state_and_each_transition_once(tmp_path: Path) -> None:
    TRIES.clear()
    engine = Engine(f"sqlite:///{tmp_path}/o.db", tasks=[measured, dozes])
    async with engine:
        metrics = Metrics(engine)
        handles = [await engine.astart(measured, f"n{n}") for n in range(5)]
        await asyncio.gather(*(handle.aresult() for handle in handles))
        parked = await engine.astart(dozes, "1h")
        while (await parked.arecord()).state is not State.WAITING:
            await engine.next_change(parked.id)
        samples = read(await asyncio.to_thread(metrics.text))
        logs = [row for handle in (*handles, parked) for row in await engine.read_log(handle.id)]
    for state in State:
        wanted = {State.SUCCEEDED: 5, State.WAITING: 1}.get(state, 0)
        assert of(samples, "outlast_executions", state=state) == wanted
    for rule in RULES:
        labels = {"rule": rule.id, "kind": rule.kind, "from": rule.source or "none"}
        happened = [
            row for row in logs
            if (row.kind, row.from_state, row.to_state) == (rule.kind, rule.source, rule.target)
        ]  # fmt: skip
        counted = of(samples, "outlast_transitions_total", **labels, to=rule.target)
        assert counted == len(happened), rule.id
    assert of(samples, "outlast_step_retries_total") == 5
    assert of(samples, "outlast_executions_started_total", task=measured.name) == 5
    assert of(samples, "outlast_executions_ended_total", task=measured.name, state="succeeded") == 5
    assert of(samples, "outlast_step_duration_seconds_count", task=measured.name) == 10
    assert of(samples, "outlast_execution_duration_seconds_count", task=measured.name) == 5
    batches = of(samples, "outlast_commit_duration_seconds_count")
    assert 1 <= batches <= of(samples, "outlast_commit_items_sum")
    assert of(samples, "outlast_store_up") == 1
    assert of(samples, "outlast_slots_used") == 0
    assert of(samples, "outlast_warm_copies") == 0
    assert ("process_cpu_seconds_total", frozenset()) in samples
    assert not [key for key in samples if any("ex_" in value for _, value in key[1])]


@awaited
async def test_a_replay_counts_nothing_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/o.db"
    async with Engine(url, tasks=[dozes]) as engine:
        id = (await engine.astart(dozes, "1h")).id
        while (await engine.read_one(id)).state is not State.WAITING:
            await engine.next_change(id)
    engine = Engine(url, tasks=[dozes])
    async with engine:
        await engine.execution(id).aresume()
        metrics = Metrics(engine)
        while (await engine.read_one(id)).attempt < 2:
            await engine.next_change(id)
        samples = read(metrics.text())
        log = await engine.read_log(id)
    counted = sum(
        value for (name, _), value in samples.items() if name == "outlast_transitions_total"
    )
    born = next(n for n, row in enumerate(log) if row.kind is Kind.WAIT) + 1
    assert counted == len(log) - born


def test_each_edge_is_one_rule() -> None:
    rules = {(rule.kind, rule.source, rule.target) for rule in RULES}
    assert len(rules) == len(RULES)
    assert len(EDGES) >= len(rules)


@awaited
async def test_a_store_that_does_not_answer_fails_no_scrape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(f"sqlite:///{tmp_path}/o.db", tasks=[dozes])
    async with engine:

        def breaks() -> Any:
            raise StoreUnavailable("it is gone")

        monkeypatch.setattr(engine.store, "census", breaks)
        samples = read(Metrics(engine).text())
    assert of(samples, "outlast_store_up") == 0
    assert not [name for name, _ in samples if name == "outlast_executions"]


@awaited
async def test_the_store_is_asked_once_however_many_scrape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(f"sqlite:///{tmp_path}/o.db", tasks=[dozes])
    async with engine:
        asked, census = 0, engine.store.census

        def counted() -> Any:
            nonlocal asked
            asked += 1
            return census()

        monkeypatch.setattr(engine.store, "census", counted)
        metrics = Metrics(engine)
        for _ in range(20):
            metrics.text()
        assert asked == 1
        metrics._stock._until = 0
        metrics.text()
        assert asked == 2


def test_tasks_are_bounded() -> None:
    tally = Tally()
    for n in range(TASKS_MAX + 50):
        tally.spans_of(f"t{n}").add(1)
    assert len(tally.steps) == TASKS_MAX + 1
    assert sum(tally.steps[OTHERS].fold()[0]) == 50


@pytest.mark.parametrize(
    ("quantity", "place"), [(1, 0), (1_000, 0), (1_001, 1), (10_000, 1), (10_001, 2), (10**12, 2)]
)
def test_a_spread_counts_up_to_and_with_its_bounds(quantity: int, place: int) -> None:
    spread = Spread((0.001, 0.01), 1_000_000)
    spread.add(quantity)
    assert spread.fold() == ([int(n == place) for n in range(3)], quantity)
    assert spread.fold() == ([int(n == place) for n in range(3)], quantity)


def test_a_spread_is_sorted_in_before_it_grows() -> None:
    tally = Tally()
    spread = tally.spans_of("t")
    for n in range(FRESH_MAX * 3 + 7):
        spread.add(n)
        if n % 100 == 0:
            tally.committed([STEP], [])
    assert len(spread._fresh) < FRESH_MAX + 100
    assert sum(spread.fold()[0]) == FRESH_MAX * 3 + 7


@awaited
async def test_a_worker_shows_its_metrics_on_a_port(tmp_path: Path) -> None:
    engine = Engine(f"sqlite:///{tmp_path}/o.db", tasks=[dozes])
    async with engine:
        with Port(Metrics(engine), "127.0.0.1", 0) as port:

            def ask(url: str) -> bytes:
                with urllib.request.urlopen(url, timeout=100) as answer:
                    return bytes(answer.read())

            samples = read(await asyncio.to_thread(ask, port.url))
            assert of(samples, "outlast_slots") == 4_000
            with pytest.raises(urllib.error.HTTPError, match="404"):
                await asyncio.to_thread(ask, port.url.replace("metrics", "elsewhere"))
