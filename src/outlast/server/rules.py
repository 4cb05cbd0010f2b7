"""Schedules, queues, limits, budgets: what decides when and how much is run."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from outlast import forms
from outlast.engine.control.budgets import limits_of
from outlast.engine.control.schedules import no_schedule
from outlast.errors import NotFound, UsageError
from outlast.lifecycle.gate import RATE
from outlast.schedule import Schedule, ScheduleRecord
from outlast.server.call import Call, Reply, checked_word
from outlast.server.executions import arguments, aware, task_of
from outlast.server.shapes import WhenBody
from outlast.server.strict import unfit

LOG_MAX: Final = 500


# Schedules


async def list_schedules(call: Call) -> dict[str, Any]:
    """List the schedules, by name."""
    found = await call.engine.schedules.alist(*call.query.state)
    items = [_schedule(call, one) for one in found if call.listed(one.task)]
    call.asked = True
    return {"items": items}


async def get_schedule(call: Call) -> dict[str, Any]:
    """Show a schedule."""
    return _schedule(call, await _own(call))


async def put_schedule(call: Call) -> Reply:
    """Make a schedule, or plan it anew; a pause stays, and so does its log."""
    body, name = call.body, _name(call)
    call.allow(body.task)
    task = task_of(call.engine, body.task)
    args, kwargs = arguments(task, body.input)
    plan = _planned(body.when)
    schedules = call.engine.schedules
    try:
        before = await schedules.aget(name)
    except NotFound:
        if call.headers.get("if-match") == "*":
            raise
        made = await schedules.acreate(name, task, plan, *args, **kwargs)
        return Reply(_schedule(call, made), 201)
    sees = call.identity.rights.see(call.tenant, before.task)
    call.allow(before.task if sees else None)  # what must not be seen is not named
    is_new = call.headers.get("if-none-match") == "*"
    change = schedules.acreate if is_new else schedules.aupdate
    return Reply(_schedule(call, await change(name, task, plan, *args, **kwargs)))


def _planned(when: WhenBody) -> Schedule:
    for name in ("at", "start", "end"):
        if getattr(when, name) is not None:
            aware(getattr(when, name), f"when.{name}")
    return Schedule(
        every=when.every,
        cron=when.cron,
        at=when.at,
        tz=when.tz,
        jitter=when.jitter,
        start=when.start,
        end=when.end,
        count=when.count,
        overlap=when.overlap,
        misfire=when.misfire,
        misfire_max=when.misfire_max,
        grace=when.grace,
    )


async def delete_schedule(call: Call) -> dict[str, Any]:
    """End a schedule for good; open executions go on."""
    name = (await _own(call)).name
    return _schedule(call, await call.engine.schedules.acancel(name, actor=call.actor))


async def pause_schedule(call: Call) -> dict[str, Any]:
    """Hold a schedule: no slot is fired until it is resumed."""
    name, why = (await _own(call)).name, call.body.reason
    return _schedule(call, await call.engine.schedules.apause(name, why, actor=call.actor))


async def resume_schedule(call: Call) -> dict[str, Any]:
    """Let a schedule go on, with its next slot."""
    name, why = (await _own(call)).name, call.body.reason
    return _schedule(call, await call.engine.schedules.aresume(name, why, actor=call.actor))


async def trigger_schedule(call: Call) -> dict[str, Any]:
    """Make an execution of a schedule at once; its slots and its count stay as they are."""
    name = (await _own(call)).name
    made = await call.engine.schedules.atrigger(name, call.body.reason, actor=call.actor)
    return {"items": [made.id]}


async def backfill_schedule(call: Call) -> dict[str, Any]:
    """Make the executions of past slots, both ends included, that have none."""
    name, body = (await _own(call)).name, call.body
    made = await call.engine.schedules.abackfill(
        name, aware(body.since, "since"), aware(body.until, "until"), actor=call.actor
    )
    return {"items": [one.id for one in made]}


async def next_slots(call: Call) -> dict[str, Any]:
    """Give the next slots of a schedule; a paused one's as if it were resumed now."""
    name = (await _own(call)).name
    return {"name": name, "slots": list(await call.engine.schedules.anext(name, call.query.n))}


async def list_entries(call: Call) -> dict[str, Any]:
    """List the log of a schedule, the newest entry first."""
    record, query = await _own(call), call.query
    entries = await call.read(
        lambda store: store.schedules.log(record.name, query.before, query.limit)
    )
    return {"items": [forms.entry_form(one) for one in entries]}


async def _own(call: Call) -> ScheduleRecord:
    """Give the schedule that the path names, if the caller may do this to it."""
    record = await call.engine.schedules.aget(_name(call))
    if not call.identity.rights.see(call.tenant, record.task):
        raise no_schedule(record.name)  # in the words of one that is not there
    call.allow(record.task)
    return record


def _name(call: Call) -> str:
    return checked_word(call.path["name"], "schedule")


def _schedule(call: Call, record: ScheduleRecord) -> dict[str, Any]:
    from outlast.access import Permission

    form = forms.schedule_form(record)
    if not call.may(Permission.PAYLOADS_READ, record.task):
        form["input"] = None
    return form


# Queues, limits


async def list_queues(call: Call) -> dict[str, Any]:
    """List the queues that have a rule, or executions that wait or run, by name."""
    return {"items": [forms.queue_form(row) for row in await call.engine.queues.alist()]}


async def patch_queue(call: Call) -> dict[str, Any]:
    """Pause, resume or limit a queue; what runs goes on."""
    name, body = checked_word(call.path["name"], "queue"), call.body
    queues = call.engine.queues
    setting = None
    if body.capacity is not UNSET:
        setting = await queues.alimit(name, body.capacity)
    if body.paused is True:
        setting = await queues.apause(name, body.reason, actor=call.actor)
    elif body.paused is False:
        setting = await queues.aresume(name)
    if setting is None:
        raise unfit("$", "the body sets nothing", "body")
    return forms.setting_form(setting)


async def list_limits(call: Call) -> dict[str, Any]:
    """List the limits, rates and capabilities that are set, held or waited at, by name."""
    return {"items": [forms.gate_form(row) for row in await call.engine.limits.alist()]}


async def put_limit(call: Call) -> dict[str, Any]:
    """Set a limit, or a rate, whatever its task says."""
    name, body = checked_word(call.path["name"], "limit"), call.body
    if (body.capacity is UNSET) == (body.rate is UNSET):
        raise unfit("$", "the body is to have one of capacity and rate", "body")
    if body.rate is not UNSET:
        if not name.startswith(RATE):
            raise UsageError("a rate's name begins with rate:", do=f"PUT …/limits/{RATE}{name}")
        rate = body.rate
        setting = await call.engine.limits.aset_rate(
            name, rate.count, rate.period, burst=rate.burst, actor=call.actor
        )
    else:
        setting = await call.engine.limits.aset(name, body.capacity, actor=call.actor)
    return forms.rule_form(setting)


async def delete_limit(call: Call) -> Reply:
    """Take back what was set for a limit or rate: what its task says counts again."""
    await call.engine.limits.areset(checked_word(call.path["name"], "limit"))
    return Reply(status=204)


# Budgets


async def list_budgets(call: Call) -> dict[str, Any]:
    """List the budgets that executions share: those of tasks, and of the tenant."""
    return {"items": [forms.budget_form(row) for row in await call.engine.read_budgets(None)]}


async def get_budgets(call: Call) -> dict[str, Any]:
    """Show the budgets of a scope: ``task:NAME``, ``tenant``, ``execution:ID`` or ``tree:ID``."""
    rows = await call.engine.read_budgets([_scope(call)])
    return {"items": [forms.budget_form(row) for row in rows]}


async def put_budget(call: Call) -> dict[str, Any]:
    """Give a scope its limits; what it has spent stays."""
    scope, body = _scope(call), call.body
    limits_of(body.limits)
    await call.engine.budgets.aset(
        scope, period=body.period, soft=body.soft, actor=call.actor, **body.limits
    )
    return await get_budgets(call)


async def raise_shared_budget(call: Call) -> dict[str, Any]:
    """Raise the limits of a scope; what is suspended for them goes on."""
    await call.engine.budgets.araise_(_scope(call), actor=call.actor, **call.body.raise_)
    return await get_budgets(call)


async def reset_budget(call: Call) -> dict[str, Any]:
    """Begin the budgets of a scope anew: nothing is spent."""
    await call.engine.budgets.areset(_scope(call), *call.body.meters, actor=call.actor)
    return await get_budgets(call)


def _scope(call: Call) -> str:
    from outlast.budget import checked_scope

    return checked_scope(checked_word(call.path["scope"], "budget"))
