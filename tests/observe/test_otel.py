"""Traces: spans of committed rows, with the same ids whoever makes them, through kills."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.status import StatusCode

from outlast import Engine, Retry, step, task
from outlast.engine.task.registry import TASKS as KNOWN
from outlast.lifecycle import State
from outlast.observe.otel import Telemetry
from outlast.observe.otel import export as exporting
from outlast.observe.otel.spans import span_id
from outlast.store import open_store
from outlast.store.protocol import Filter

from . import awaited

TRIES: Counter[str] = Counter()
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNWANTED = PARENT[:-2] + "00"


@step(retries=Retry(2, base="1ms"))
async def pack(order: int) -> int:
    TRIES[str(order)] += 1
    if TRIES[str(order)] == 1 and order == 7:
        raise ValueError("secret text")
    return order


@task
async def parcel(order: int) -> int:
    return await pack(order)


@task
async def traced(order: int) -> int:
    return await pack(order) + await parcel(order + 1)


@task
async def falls() -> None:
    raise LookupError("secret text")


@task
async def turns(left: int) -> int:
    if left:
        turns.continue_as_new(left - 1)
    return 0


@step
async def utter(word: str) -> None:
    logging.getLogger("spoken").warning("%s", word)


@task
async def speaks() -> None:
    await utter("a word")


TASKS = (traced, parcel, falls, turns, speaks)
for one in TASKS:
    KNOWN.pop(one.name)


class Store(SpanExporter):
    """Keeps spans as they come, repeats as well; refuses some."""

    def __init__(self, refuses: int = 0) -> None:
        self.spans: list[ReadableSpan] = []
        self.refuses = refuses

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.refuses:
            self.refuses -= 1
            return SpanExportResult.FAILURE
        self.spans += spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


async def until(said: Any) -> None:
    async with asyncio.timeout(100):
        while not said():
            await asyncio.sleep(0.02)  # sleeps: it looks again


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    TRIES.clear()
    monkeypatch.setattr(exporting, "PAUSE_SECONDS", 0.02)


def has(store: Store, id: str) -> bool:
    return any(
        span.name == "parcel" and (span.attributes or {})["outlast.execution.id"] == id
        for span in store.spans
    )


def ids(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


@awaited
async def test_a_tree_is_one_trace(tmp_path: Path) -> None:
    store = Store()
    async with Engine(f"sqlite:///{tmp_path}/o.db", tasks=TASKS) as engine:
        async with Telemetry(engine, exporter=store, reader=False, records=False) as telemetry:
            await until(engine.store.feed.head)
            handle = await engine.astart(traced, 7)
            await handle.aresult()
            await until(lambda: len(store.spans) >= 5)
            assert telemetry.exported == 5
        (child,) = await handle.achildren()
        log = await engine.read_log(handle.id)
    by_name: dict[str, list[ReadableSpan]] = {}
    for span in store.spans:
        by_name.setdefault(span.name, []).append(span)
    (root,), (inner,) = by_name["traced"], by_name["parcel"]
    assert root.parent is None and inner.parent is not None
    assert inner.parent.span_id == ids(root)[1]
    assert len({ids(span)[0] for span in store.spans}) == 1
    assert len({ids(span) for span in store.spans}) == 5
    failed, done, below = by_name["pack"]
    assert failed.status.status_code is StatusCode.ERROR
    assert done.status.status_code is StatusCode.UNSET
    assert [span.parent and span.parent.span_id for span in (failed, done, below)] == [
        ids(root)[1], ids(root)[1], ids(inner)[1],
    ]  # fmt: skip
    assert [dict(span.attributes or {})["outlast.step.attempt"] for span in (failed, done)] == [
        1,
        2,
    ]
    assert (root.start_time, root.end_time) == (log[0].at * 1_000, log[-1].at * 1_000)
    assert dict(inner.attributes or {})["outlast.execution.id"] == child.id
    assert "start" in [event.name for event in root.events]
    assert "secret" not in "".join(span.to_json() for span in store.spans)


@awaited
async def test_the_callers_trace_goes_on(tmp_path: Path) -> None:
    store = Store()
    async with (
        Engine(f"sqlite:///{tmp_path}/o.db", tasks=TASKS) as engine,
        Telemetry(engine, exporter=store, reader=False, records=False),
    ):
        await until(engine.store.feed.head)
        unwanted = await parcel.options(labels={"traceparent": UNWANTED}).astart(1)
        await unwanted.aresult()
        handle = await parcel.options(labels={"traceparent": PARENT}).astart(2)
        await handle.aresult()
        await until(lambda: len(store.spans) >= 2)
    (step_span, span) = store.spans
    assert span.parent is not None and span.parent.is_remote
    assert f"{ids(span)[0]:032x}" == PARENT[3:35] and f"{span.parent.span_id:016x}" == PARENT[36:52]
    assert ids(step_span)[0] == ids(span)[0]
    assert {dict(one.attributes or {})["outlast.execution.id"] for one in store.spans} == {
        handle.id
    }


@awaited
async def test_failures_reruns_and_continued_ones(tmp_path: Path) -> None:
    store = Store(refuses=2)
    async with (
        Engine(f"sqlite:///{tmp_path}/o.db", tasks=TASKS) as engine,
        Telemetry(engine, exporter=store, reader=False, records=False),
    ):
        await until(engine.store.feed.head)
        handle = await engine.astart(falls)
        while not (await handle.arecord()).is_final:
            await engine.next_change(handle.id)
        again = await handle.arerun()
        while not (await again.arecord()).is_final:
            await engine.next_change(again.id)
        await (await engine.astart(turns, 1)).aresult()
        await until(lambda: len(store.spans) >= 4)
    first, second, before, after = sorted(store.spans, key=lambda span: (span.name, span.end_time))
    assert first.status.status_code is StatusCode.ERROR and first.status.description == "failed"
    (link,) = second.links
    assert (link.context.trace_id, link.context.span_id) == ids(first)
    assert dict(link.attributes or {}) == {"outlast.link": "made of"}
    (link,) = before.links
    assert (link.context.trace_id, link.context.span_id) == ids(after)
    assert dict(link.attributes or {}) == {"outlast.link": "goes on as"}


@awaited
async def test_a_replay_makes_no_span_again(tmp_path: Path) -> None:
    url, store = f"sqlite:///{tmp_path}/o.db", Store()
    for _ in range(3):
        async with (
            Engine(url, tasks=TASKS) as engine,
            Telemetry(engine, exporter=store, reader=False, records=False),
        ):
            await until(engine.store.feed.head)
            handle = await engine.astart(parcel, 2)
            await handle.aresult()
            await until(partial(has, store, handle.id))
    counted = Counter(ids(span) for span in store.spans)
    assert set(counted.values()) == {1}


PROGRAM = """
import asyncio, json, os, sys
sys.path.insert(0, {root!r})
from tests.observe import test_otel
from outlast import Engine
from outlast.observe.otel import Telemetry, export

class File(test_otel.Store):
    def export(self, spans):
        with open({out!r}, "a") as file:
            for span in spans:
                file.write(json.dumps([*test_otel.ids(span), span.name]) + "\\n")
        if len(sys.argv) > 1:  # killed between the export and its note
            os.kill(os.getpid(), 9)
        return super().export(spans)

async def main():
    export.PAUSE_SECONDS = 0.02
    export.HELD_US = 300_000
    async with (
        Engine({url!r}, tasks=test_otel.TASKS) as engine,
        Telemetry(engine, exporter=File(), reader=False, records=False) as told,
    ):
        await test_otel.until(engine.store.feed.head)
        for n in range(20, 30):
            await (await engine.astart(test_otel.parcel, n)).aresult()
        await test_otel.until(lambda: told.exported)  # it is its turn: that kills who is to die
        # What ends after the exporter is told the next time: all ends here.
        await test_otel.until(lambda: not sum(engine.store.counts().values()))

asyncio.run(main())
"""


def test_what_was_not_noted_before_a_kill_comes_again_with_the_same_ids(tmp_path: Path) -> None:
    out, url = tmp_path / "spans", f"sqlite:///{tmp_path}/o.db"
    text = PROGRAM.format(root=str(Path(__file__).parents[2]), out=str(out), url=url)
    (tmp_path / "program.py").write_text(text)
    more: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 100, "check": False}
    more["env"] = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = 0
    for words in (["die"], ["die"], []):
        line = [sys.executable, str(tmp_path / "program.py"), *words]
        ended = subprocess.run(line, **more)  # noqa: PLW1510 - it is among them
        killed += ended.returncode == -signal.SIGKILL
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    assert killed == 2
    said = [tuple(json.loads(line)) for line in out.read_text().splitlines()]
    counted = Counter(said)
    assert max(counted.values()) > 1  # some were told again: at least once
    store = open_store(url, owner="w", now=1)
    done = [one for one in store.page(Filter(limit=1_000)) if one.state is State.SUCCEEDED]
    store.close()
    spans = {span for _, span, name in counted if name == "parcel"}
    assert len(done) >= 10 and {span_id(one.id) for one in done} == spans


@awaited
async def test_metrics_are_shown_by_the_same_names(tmp_path: Path) -> None:
    reader = InMemoryMetricReader()
    async with Engine(f"sqlite:///{tmp_path}/o.db", tasks=TASKS) as engine:
        await (await engine.astart(parcel, 2)).aresult()
        async with Telemetry(engine, exporter=InMemorySpanExporter(), reader=reader, records=False):
            data = reader.get_metrics_data()
    assert data is not None
    found: dict[str, Any] = {
        metric.name: metric.data
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    (resource,) = data.resource_metrics
    assert resource.resource.attributes["outlast.tenant"] == "default"
    states = {
        point.attributes["state"]: point.value for point in found["outlast_executions"].data_points
    }
    assert states == {str(state): int(state is State.SUCCEEDED) for state in State}
    (point,) = found["outlast_step_duration_seconds_count"].data_points
    assert (point.attributes["task"], point.value) == ("parcel", 1)


@awaited
async def test_what_code_logs_is_handed_on_with_its_ids(tmp_path: Path) -> None:
    kept = InMemoryLogRecordExporter()
    spans = InMemorySpanExporter()
    async with (
        Engine(f"sqlite:///{tmp_path}/o.db", tasks=TASKS) as engine,
        Telemetry(engine, exporter=spans, reader=False, records=kept),
    ):
        handle = await speaks.options(labels={"traceparent": PARENT}).astart()
        await handle.aresult()
    said = {one.log_record.body: one.log_record for one in kept.get_finished_logs()}
    record = said["a word"]
    facts = dict(record.attributes or {})
    assert facts["outlast.execution"] == handle.id and facts["outlast.task"] == "speaks"
    assert facts["outlast.step"] == "utter#1" and facts["outlast.attempt"] == 1
    assert record.severity_text == "WARNING"
    assert f"{record.trace_id:032x}" == PARENT[3:35] and record.span_id == span_id(handle.id)
