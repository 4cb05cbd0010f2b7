"""ActionQueue's daemon: its routes, its shapes and its words, before our engine.

Theory of operation. A task of ActionQueue is what makes runs. Here that is a schedule, or any other
execution by itself, with one run; a run is an execution. Its ids are UUIDs, so ours, of 100 bits,
are put into one of version 8, and read out of it again: nothing is looked up. States and histories
are those of ``dialects/actionqueue.py``. Lists are in its orders, by whole seconds, and look at the
newest 10,000 executions; whoever has more pages through ``/api/v1``.

What it promised and did not do is done by what stands behind: leases end, roles are asked for at
each route, a cancel reaches what runs, a crash strands nothing.
"""

from __future__ import annotations

from typing import Any, Final

from outlast.access import Permission
from outlast.errors import NameTaken, NotFound
from outlast.server.actionqueue import actors, forms, runs
from outlast.server.actionqueue.names import STYLE
from outlast.server.route import Route, Scope
from outlast.server.shapes import MetricsQuery

HOME: Final = "/actionqueue"
P, S = Permission, Scope


def _route(method: str, path: str, handler: Any, answer: Any, **more: Any) -> Route:
    more = {"permission": P.EXECUTIONS_READ, "scope": S.LISTED, "tag": "actionqueue", **more}
    return Route(
        method=method, path=HOME + path, handler=handler, answer=answer, style=STYLE, **more
    )


_ANYONE: Final[dict[str, Any]] = {"permission": P.ANYONE, "scope": S.NONE}
_WORK: Final[dict[str, Any]] = {"permission": P.WORK_TAKE}
_SET: Final[dict[str, Any]] = {"permission": P.ACCESS_WRITE, "scope": S.TENANT}
_OPERATE: Final[dict[str, Any]] = {"permission": P.EXECUTIONS_OPERATE, "scope": S.TASK}
_PAUSE: Final[dict[str, Any]] = {"permission": P.CAPACITY_WRITE, "scope": S.TENANT}
_V1, _V2 = "/api/v1", "/api/v2"

ROUTES: Final = (
    _route("GET", "/healthz", runs.aq_healthz, forms.StatusForm, **_ANYONE),
    _route("GET", "/ready", runs.aq_ready, forms.StatusForm, **_ANYONE),
    _route(
        "GET",
        "/metrics",
        runs.aq_metrics,
        str,
        query=MetricsQuery,
        permission=P.METRICS_READ,
        scope=S.TENANT,
        media="text/plain",
    ),
    _route("GET", _V1 + "/stats", runs.aq_stats, forms.StatsForm),
    _route("GET", _V1 + "/tasks", runs.aq_list_tasks, forms.QueueTasks, query=forms.PageQuery),
    _route("GET", _V1 + "/tasks/{uuid}", runs.aq_get_task, forms.QueueTask, scope=S.TASK),
    _route("GET", _V1 + "/runs", runs.aq_list_runs, forms.RunPage, query=forms.PageQuery),
    _route("GET", _V1 + "/runs/{uuid}", runs.aq_get_run, forms.RunDetail, scope=S.TASK),
    _route(
        "POST", _V1 + "/tasks/{uuid}/cancel", runs.aq_cancel_task, forms.TaskCancelForm, **_OPERATE
    ),
    _route(
        "POST", _V1 + "/runs/{uuid}/cancel", runs.aq_cancel_run, forms.RunCancelForm, **_OPERATE
    ),
    _route("POST", _V1 + "/engine/pause", runs.aq_pause_engine, forms.StatusForm, **_PAUSE),
    _route("POST", _V1 + "/engine/resume", runs.aq_resume_engine, forms.StatusForm, **_PAUSE),
    _route(
        "POST",
        _V2 + "/actors/register",
        actors.aq_register_actor,
        forms.ActorForm,
        body=forms.ActorBody,
        status=201,
        refusals=(NotFound,),
        **_WORK,
    ),
    _route(
        "POST", _V2 + "/actors/{uuid}/heartbeat", actors.aq_beat_actor, forms.StatusForm, **_WORK
    ),
    _route("DELETE", _V2 + "/actors/{uuid}", actors.aq_remove_actor, forms.StatusForm, **_WORK),
    _route(
        "GET", _V2 + "/actors/{uuid}/claimable", actors.aq_claimable, forms.ClaimableForm, **_WORK
    ),
    _route(
        "POST",
        _V2 + "/tenants",
        actors.aq_add_tenant,
        None,
        body=forms.NewTenant,
        status=201,
        refusals=(NameTaken,),
        **_SET,
    ),
    _route(
        "POST",
        _V2 + "/actors/{uuid}/roles",
        actors.aq_give_role,
        None,
        body=forms.RoleBody,
        status=204,
        **_SET,
    ),
    _route(
        "POST",
        _V2 + "/actors/{uuid}/capabilities",
        actors.aq_give_capability,
        None,
        body=forms.CapabilityBody,
        status=204,
        **_SET,
    ),
    _route(
        "POST",
        _V2 + "/ledger",
        actors.aq_append_ledger,
        forms.LedgerEntry,
        body=forms.LedgerBody,
        status=201,
        refusals=(NotFound,),
        permission=P.EXECUTIONS_START,
        scope=S.TASK,
    ),
)
"""ActionQueue's routes, as its daemon had them, and as it should have had them."""

__all__ = ["HOME", "ROUTES"]
