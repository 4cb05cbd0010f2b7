"""The server itself, the tasks behind it, the processes that serve its store."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from outlast import __version__, forms
from outlast.engine.task.registry import Task
from outlast.errors import BadPayload, NotFound, StoreUnavailable
from outlast.server.call import Call, Reply, checked_word
from outlast.server.tenants import see_default

if TYPE_CHECKING:
    from outlast.engine.engine import Engine
    from outlast.observe.metrics import Metrics


async def healthz(call: Call) -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "ok"}


async def readyz(call: Call) -> dict[str, str]:
    """Say that the store can be read."""
    try:
        await call.read(lambda store: store.counts())
    except StoreUnavailable:
        raise
    return {"status": "ok"}


async def get_info(call: Call) -> dict[str, Any]:
    """Say what serves here, and how much there is to do."""
    counts = await call.read(lambda store: store.counts())
    return {
        "version": __version__,
        "worker": call.engine.name,
        "tasks": len(call.engine.tasks),
        "open": counts,
        "backlog": call.engine.journal.backlog,
    }


async def webhook_secret(call: Call) -> dict[str, str]:
    """Show the secret that webhooks to a URL are signed with, for whoever receives them."""
    from outlast.server.webhook import checked_url, secret_of

    url = checked_url(call.body.url, "$.url")
    return {"url": url, "secret": await secret_of(call.engine, url)}


async def list_workers(call: Call) -> dict[str, Any]:
    """List the process incarnations that serve, or served, this store, the newest first."""
    found = await call.read(lambda store: store.workers())
    items = [
        {
            "id": one.id,
            "host": one.host,
            "pid": one.pid,
            "started_at": forms.at(one.started_at),
            "seen_at": forms.at(one.seen_at),
            "is_this": one.id == call.engine.name,
        }
        for one in found
    ]
    return {"items": items}


async def list_tasks(call: Call) -> dict[str, Any]:
    """List the tasks that the engine knows, by name, with the forms of input and output."""
    known = sorted(call.engine.tasks.items())
    items = [task_form(task) for name, task in known if call.listed(name)]
    call.asked = True
    return {"items": items}


async def get_task(call: Call) -> dict[str, Any]:
    """Show a task, with the forms of its input and output as JSON Schema."""
    name = checked_word(call.path["name"], "task")
    call.allow(name)
    task = call.engine.tasks.get(name)
    if task is None:
        raise NotFound(f"there is no task {name[:80]}", do="GET /api/v1/tasks")
    return task_form(task)


def task_form(task: Task[Any, Any]) -> dict[str, Any]:
    """Write a task."""
    return {
        "name": task.name,
        "version": task.version,
        "queue": task.queue,
        "priority": task.priority,
        "doc": inspect.getdoc(task.fn),
        "schedule": None if task.schedule is None else task.schedule.plan.in_words(),
        "input_schema": _schema(task, "input"),
        "output_schema": _schema(task, "output"),
    }


def _schema(task: Task[Any, Any], side: str) -> dict[str, Any] | None:
    """Give the JSON Schema of a task's input or output; None where its type has none."""
    try:
        schema: dict[str, Any] = getattr(task, side).json_schema()
    except BadPayload:
        return None
    return schema


async def get_doctor(call: Call) -> dict[str, Any]:
    """Examine the store and its workers: what is wrong, why, and what to do."""
    from outlast.engine.read.doctor import examine, worst

    engine = call.engine
    found = await call.read(lambda store: examine(store, engine.clock.now(), "this server"))
    return {"level": worst(found), "findings": [forms.finding_form(one) for one in found]}


async def scrape_metrics(call: Call) -> Reply:
    """Give the metrics of the tenant's engine, for Prometheus.

    With `tenants=all` those of all engines of this server, each sample with the label `tenant`; for
    callers of the default tenant.
    """
    from outlast.observe.metrics import MEDIA, HouseMetrics

    engine = call.engine
    metrics: Metrics | HouseMetrics = _metrics_of(engine)
    if call.query.tenants is not None:
        see_default(call)
        metrics = HouseMetrics(lambda: map(_metrics_of, (engine, *engine.beside)))
    return Reply(await engine.worker.read(metrics.text), headers={"content-type": MEDIA})


def _metrics_of(engine: Engine) -> Metrics:
    from outlast.observe.metrics import Metrics

    metrics = _METRICS.get(engine)
    if metrics is None:
        metrics = _METRICS[engine] = Metrics(engine)
    return metrics


_METRICS: Final[WeakKeyDictionary[Engine, Metrics]] = WeakKeyDictionary()


async def get_openapi(call: Call) -> Reply:
    """Describe all of this, as OpenAPI 3.1."""
    from outlast.server.openapi import encoded

    return Reply(encoded(), headers={"content-type": "application/json"})
