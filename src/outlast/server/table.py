"""The routes: all that can be called, and what it takes."""

from __future__ import annotations

from typing import Any, Final

from outlast.access import Permission
from outlast.errors import (
    AlreadyAnswered,
    BadSchedule,
    FeedGap,
    KeyConflict,
    LeaseLost,
    Misdirected,
    NameTaken,
    NotFound,
    NotRecoverable,
    OutlastError,
    PayloadTooLarge,
    ScheduleRefused,
    Stale,
    StoreUnavailable,
    TokenRefused,
    TooManyAttempts,
    TransitionRefused,
    Unauthenticated,
    UnknownStep,
    UnknownTask,
    UsageError,
    WrongArguments,
)
from outlast.server import (
    access,
    actionqueue,
    actions,
    executions,
    firehose,
    hooks,
    live,
    rules,
    shapes,
    system,
    tenants,
    work,
)
from outlast.server.route import Route, Scope

P, S = Permission, Scope
_API: Final = "/api/v1"
_ONE: Final = _API + "/executions/{id}"
_TASK: Final = (UnknownTask, WrongArguments, PayloadTooLarge, KeyConflict)
_MATCH: Final = {"If-Match": "Change it only if its ETag is this."}
_TRACE: Final = {"traceparent": "Where the caller's trace is; kept as a label."}
_LAST: Final = {"Last-Event-ID": "Go on behind this event."}


def _read(path: str, handler: Any, answer: Any, **more: Any) -> Route:
    """Make a route that reads something of an execution."""
    more = {"permission": P.EXECUTIONS_READ, "scope": S.EXECUTION, **more}
    return Route(method="GET", path=path, handler=handler, answer=answer, **more)


def _act(word: str, handler: Any, body: Any, *refusals: type[OutlastError], **more: Any) -> Route:
    """Make a route that does something to an execution; with 202: it is on the disk."""
    more = {"permission": P.EXECUTIONS_OPERATE, "key": True, "bodyless": True, **more}
    return Route(
        method="POST",
        path=f"{_ONE}/{word}",
        handler=handler,
        scope=S.EXECUTION,
        body=body,
        answer=more.pop("answer", shapes.ExecutionForm),
        status=202,
        refusals=(TransitionRefused, *refusals),
        tag="actions",
        **more,
    )


EXECUTIONS: Final = (
    Route(
        method="POST",
        path=_API + "/executions",
        handler=executions.start_execution,
        permission=P.EXECUTIONS_START,
        scope=S.TASK,
        body=shapes.StartBody,
        answer=shapes.ExecutionForm,
        status=201,
        others={200: "It was started before, under this key."},
        refusals=(*_TASK, NotFound),
        key=True,
        headers=_TRACE,
    ),
    Route(
        method="GET",
        path=_API + "/executions",
        handler=executions.list_executions,
        permission=P.EXECUTIONS_READ,
        scope=S.LISTED,
        query=shapes.ListQuery,
        answer=shapes.ExecutionPage,
    ),
    _read(_ONE, executions.get_execution, shapes.ExecutionForm, query=shapes.ShowQuery),
    Route(
        method="PATCH",
        path=_ONE,
        handler=actions.patch_execution,
        permission=P.EXECUTIONS_OPERATE,
        scope=S.EXECUTION,
        body=shapes.PatchBody,
        answer=shapes.ExecutionForm,
        refusals=(Stale, TransitionRefused),
        headers=_MATCH,
    ),
    _read(
        f"{_ONE}/result",
        executions.get_result,
        shapes.ResultForm,
        query=shapes.ResultQuery,
        permission=P.PAYLOADS_READ,
        others={202: "It goes on."},
    ),
    _read(f"{_ONE}/input", executions.get_input, shapes.InputForm, permission=P.PAYLOADS_READ),
    _read(f"{_ONE}/reason", executions.get_reason, shapes.ReasonAnswer),
    _read(f"{_ONE}/steps", executions.list_steps, shapes.StepPage, query=shapes.StepsQuery),
    _read(f"{_ONE}/attempts", executions.list_attempts, shapes.AttemptPage),
    _read(
        f"{_ONE}/transitions",
        executions.list_transitions,
        shapes.TransitionPage,
        query=shapes.LogQuery,
    ),
    _read(
        f"{_ONE}/events",
        live.watch_execution,
        None,
        query=shapes.LiveQuery,
        media="text/event-stream",
        headers=_LAST,
        tag="live",
    ),
    _read(
        f"{_ONE}/children",
        executions.list_children,
        shapes.ExecutionPage,
        query=shapes.ChildrenQuery,
    ),
    _read(f"{_ONE}/descents", executions.list_descents, shapes.DescentPage),
    _read(f"{_ONE}/metrics", executions.get_metrics, shapes.MeasuresForm),
    _read(
        f"{_ONE}/logs",
        executions.get_logs,
        shapes.LogPage,
        query=shapes.LogsQuery,
        permission=P.PAYLOADS_READ,
    ),
    _read(
        f"{_ONE}/logs/events",
        live.watch_logs,
        None,
        query=shapes.LiveLogsQuery,
        permission=P.PAYLOADS_READ,
        media="text/event-stream",
        headers=_LAST,
        tag="live",
    ),
    _read(f"{_ONE}/progress", executions.get_progress, shapes.ProgressAnswer),
    _read(f"{_ONE}/streams", executions.list_streams, shapes.StreamHeads),
    _read(
        f"{_ONE}/streams/{{name}}",
        executions.get_stream,
        shapes.ItemPage,
        query=shapes.StreamQuery,
        permission=P.PAYLOADS_READ,
    ),
    _read(
        f"{_ONE}/streams/{{name}}/events",
        live.watch_stream,
        None,
        query=shapes.LiveStreamQuery,
        permission=P.PAYLOADS_READ,
        media="text/event-stream",
        headers=_LAST,
        tag="live",
    ),
    _read(
        f"{_ONE}/questions",
        actions.list_own_questions,
        shapes.QuestionPage,
        permission=P.QUESTIONS_READ,
    ),
    _read(f"{_ONE}/budget", executions.get_budget, shapes.BudgetPage, permission=P.BUDGETS_READ),
)

ACTIONS: Final = (
    _act("pause", actions.pause_execution, shapes.ReasonBody),
    _act("resume", actions.resume_execution, shapes.ResumeBody),
    _act("wake", actions.wake_execution, shapes.ReasonBody),
    _act("cancel", actions.cancel_execution, shapes.ReasonBody),
    _act("retry", actions.retry_execution, shapes.RecoverBody, NotRecoverable, KeyConflict,
         others={200: "It was in its back-off, and is tried at once."}),
    _act("rerun", actions.rerun_execution, shapes.RerunBody, *_TASK),
    _act("fork", actions.fork_execution, shapes.ForkBody, UnknownStep, *_TASK, bodyless=False),
    _act("recover", actions.recover_execution, shapes.RecoverBody, NotRecoverable, KeyConflict),
    _act("signal", actions.signal_execution, shapes.SignalBody, PayloadTooLarge,
         permission=P.SIGNALS_SEND, bodyless=False),
    _act("answer", actions.answer_execution, shapes.AnswerBody, AlreadyAnswered, PayloadTooLarge,
         permission=P.QUESTIONS_ANSWER, bodyless=False),
    _act("input", actions.give_input, shapes.AnswerBody, AlreadyAnswered, PayloadTooLarge,
         permission=P.QUESTIONS_ANSWER, bodyless=False),
    _act("pin", actions.pin_execution, shapes.PinBody, bodyless=False),
    _act("priority", actions.prioritize_execution, shapes.PriorityBody, bodyless=False),
    _act("labels", actions.label_execution, shapes.LabelsBody, bodyless=False),
    _act("budget", actions.raise_budget, shapes.RaiseBody, bodyless=False, key=False,
         permission=P.BUDGETS_WRITE, answer=shapes.BudgetPage),
    _act("answer-token", actions.make_answer_token, shapes.TokenBody, AlreadyAnswered, key=False,
         permission=P.QUESTIONS_ANSWER, answer=shapes.TokenForm),
    Route(
        method="POST",
        path=_API + "/bulk",
        handler=actions.do_in_bulk,
        permission=P.EXECUTIONS_OPERATE,
        scope=S.TASK,
        body=shapes.BulkBody,
        answer=shapes.BulkForm,
        tag="actions",
    ),
)  # fmt: skip

EVENTS: Final = (
    Route(
        method="GET",
        path=_API + "/events",
        handler=firehose.follow_events,
        permission=P.EXECUTIONS_READ,
        scope=S.LISTED,
        query=shapes.FeedQuery,
        media="text/event-stream",
        headers=_LAST,
        refusals=(FeedGap,),
        tag="live",
    ),
    Route(
        method="POST",
        path=_API + "/events",
        handler=firehose.publish_event,
        permission=P.SIGNALS_SEND,
        scope=S.TASK,
        body=shapes.EventBody,
        answer=shapes.PublishedForm,
        status=201,
        others={
            200: "It was published before, under this key.",
            202: "It is on the disk, and on its way.",
        },
        refusals=(PayloadTooLarge, KeyConflict, WrongArguments),
        key=True,
        tag="live",
    ),
)

PEOPLE: Final = (
    Route(
        method="GET",
        path=_API + "/questions",
        handler=actions.list_questions,
        permission=P.QUESTIONS_READ,
        scope=S.LISTED,
        query=shapes.QuestionsQuery,
        answer=shapes.QuestionPage,
        tag="people",
    ),
    Route(
        method="POST",
        path=_API + "/answers/look",
        handler=actions.look_by_token,
        permission=P.ANYONE,
        scope=S.NONE,
        body=shapes.LookBody,
        answer=shapes.QuestionForm,
        refusals=(TokenRefused, AlreadyAnswered, NotFound),
        tag="people",
    ),
    Route(
        method="POST",
        path=_API + "/answers",
        handler=actions.answer_by_token,
        permission=P.ANYONE,
        scope=S.NONE,
        body=shapes.TokenAnswerBody,
        answer=shapes.QuestionForm,
        refusals=(TokenRefused, AlreadyAnswered, TransitionRefused, NotFound, PayloadTooLarge),
        tag="people",
    ),
)


def _task(method: str, path: str, handler: Any, answer: Any, **more: Any) -> Route:
    return Route(
        method=method,
        path=_API + path,
        handler=handler,
        answer=answer,
        scope=more.pop("scope", S.TASK),
        **more,
    )


def _schedule(
    word: str, handler: Any, answer: Any, *refusals: type[OutlastError], **more: Any
) -> Route:
    more = {"method": "POST", "permission": P.SCHEDULES_WRITE, **more}
    return _task(
        more.pop("method"),
        "/schedules/{name}" + word,
        handler,
        answer,
        refusals=(NotFound, *refusals),
        tag="schedules",
        **more,
    )


def _hook(
    method: str,
    path: str,
    handler: Any,
    answer: Any,
    *refusals: type[OutlastError],
    **more: Any,
) -> Route:
    """Make a route about webhooks, which tell of the whole tenant."""
    more = {"permission": P.WEBHOOKS_WRITE, "scope": S.TENANT, "tag": "webhooks", **more}
    return _task(method, "/webhooks" + path, handler, answer, refusals=refusals, **more)


def _work(
    word: str, handler: Any, answer: Any, body: Any, *refusals: type[OutlastError], **more: Any
) -> Route:
    """Make a route for workers on other machines."""
    known = () if not word else (LeaseLost, Misdirected, PayloadTooLarge)
    return _task(
        "POST",
        f"/claims{word}",
        handler,
        answer,
        permission=P.WORK_TAKE,
        body=body,
        refusals=(*known, NotFound, *refusals),
        tag="work",
        **{"status": 204, **more},
    )


RULES: Final = (
    _task("GET", "/tasks", system.list_tasks, shapes.TaskPage, permission=P.TASKS_READ,
          scope=S.LISTED, tag="tasks"),
    _task("GET", "/tasks/{name}", system.get_task, shapes.TaskForm, permission=P.TASKS_READ,
          refusals=(NotFound,), tag="tasks"),
    _task("POST", "/tasks/{name}/executions", executions.start_task, shapes.ExecutionForm,
          permission=P.EXECUTIONS_START, body=shapes.TaskStartBody, bodyless=True, status=201,
          others={200: "It was started before, under this key."}, refusals=(NotFound, *_TASK),
          key=True, headers=_TRACE, tag="tasks"),
    _task("GET", "/schedules", rules.list_schedules, shapes.SchedulePage, scope=S.LISTED,
          permission=P.SCHEDULES_READ, query=shapes.SchedulesQuery, tag="schedules"),
    _schedule("", rules.get_schedule, shapes.ScheduleForm, method="GET",
              permission=P.SCHEDULES_READ),
    _schedule("", rules.put_schedule, shapes.ScheduleForm, BadSchedule, ScheduleRefused, *_TASK,
              method="PUT", body=shapes.ScheduleBody, others={201: "It was made."},
              headers={"If-None-Match": "`*`: only if there is none, or the very same.",
                       "If-Match": "`*`: only if there is one."}),
    _schedule("", rules.delete_schedule, shapes.ScheduleForm, ScheduleRefused, method="DELETE"),
    _schedule("/pause", rules.pause_schedule, shapes.ScheduleForm, ScheduleRefused,
              body=shapes.ReasonBody, bodyless=True),
    _schedule("/resume", rules.resume_schedule, shapes.ScheduleForm, ScheduleRefused,
              body=shapes.ReasonBody, bodyless=True),
    _schedule("/trigger", rules.trigger_schedule, shapes.MadeForm, ScheduleRefused,
              body=shapes.ReasonBody, bodyless=True, status=201),
    _schedule("/backfill", rules.backfill_schedule, shapes.MadeForm, ScheduleRefused,
              body=shapes.BackfillBody, status=201),
    _schedule("/next", rules.next_slots, shapes.NextForm, method="GET", query=shapes.NextQuery,
              permission=P.SCHEDULES_READ),
    _schedule("/log", rules.list_entries, shapes.EntryPage, method="GET",
              query=shapes.EntriesQuery, permission=P.SCHEDULES_READ),
    _task("GET", "/queues", rules.list_queues, shapes.QueuePage, scope=S.TENANT,
          permission=P.CAPACITY_READ, tag="capacity"),
    _task("PATCH", "/queues/{name}", rules.patch_queue, shapes.QueueForm, scope=S.TENANT,
          permission=P.CAPACITY_WRITE, body=shapes.QueueBody, refusals=(NotFound,), tag="capacity"),
    _task("GET", "/limits", rules.list_limits, shapes.LimitPage, scope=S.TENANT,
          permission=P.CAPACITY_READ, tag="capacity"),
    _task("PUT", "/limits/{name}", rules.put_limit, shapes.RuleForm, scope=S.TENANT,
          permission=P.CAPACITY_WRITE, body=shapes.LimitBody, refusals=(NotFound,), tag="capacity"),
    _task("DELETE", "/limits/{name}", rules.delete_limit, None, scope=S.TENANT, status=204,
          permission=P.CAPACITY_WRITE, refusals=(NotFound,), tag="capacity"),
    _task("GET", "/budgets", rules.list_budgets, shapes.BudgetPage, scope=S.TENANT,
          permission=P.BUDGETS_READ, tag="budgets"),
    _task("GET", "/budgets/{scope}", rules.get_budgets, shapes.BudgetPage, scope=S.TENANT,
          permission=P.BUDGETS_READ, refusals=(NotFound,), tag="budgets"),
    _task("PUT", "/budgets/{scope}", rules.put_budget, shapes.BudgetPage, scope=S.TENANT,
          permission=P.BUDGETS_WRITE, body=shapes.BudgetBody, refusals=(NotFound,), tag="budgets"),
    _task("POST", "/budgets/{scope}/raise", rules.raise_shared_budget, shapes.BudgetPage,
          scope=S.TENANT, permission=P.BUDGETS_WRITE, body=shapes.RaiseBody, refusals=(NotFound,),
          tag="budgets"),
    _task("POST", "/budgets/{scope}/reset", rules.reset_budget, shapes.BudgetPage, scope=S.TENANT,
          permission=P.BUDGETS_WRITE, body=shapes.ResetBody, bodyless=True, refusals=(NotFound,),
          tag="budgets"),
    _task("POST", "/webhooks/secret", system.webhook_secret, shapes.SecretForm, scope=S.TENANT,
          permission=P.ACCESS_WRITE, body=shapes.SecretBody, tag="system"),
    _hook("GET", "", hooks.list_webhooks, hooks.WebhookPage, permission=P.WEBHOOKS_READ),
    _hook("POST", "", hooks.add_webhook, hooks.NewWebhookForm, UsageError, StoreUnavailable,
          body=hooks.WebhookBody, status=201),
    _hook("GET", "/{id}", hooks.get_webhook, hooks.WebhookForm, NotFound,
          permission=P.WEBHOOKS_READ),
    _hook("PATCH", "/{id}", hooks.patch_webhook, hooks.WebhookForm, NotFound, UsageError,
          body=hooks.WebhookPatch),
    _hook("DELETE", "/{id}", hooks.delete_webhook, None, NotFound, status=204),
    _hook("POST", "/{id}/secret", hooks.rotate_secret, hooks.NewWebhookForm, NotFound, UsageError,
          body=hooks.RotateBody, bodyless=True),
    _hook("POST", "/{id}/ping", hooks.ping_webhook, hooks.DeliveryForm, NotFound, status=202),
    _hook("GET", "/{id}/deliveries", hooks.list_deliveries, hooks.DeliveryPage, NotFound,
          query=hooks.DeliveriesQuery, permission=P.WEBHOOKS_READ),
    _hook("POST", "/{id}/deliveries/{number}/redeliver", hooks.redeliver, hooks.DeliveryForm,
          NotFound, status=202),
    _work("", work.claim_steps, work.ClaimPage, work.ClaimBody, scope=S.LISTED, status=200),
    _work("/{claim}/heartbeat", work.beat_claim, work.BeatForm, work.BeatBody, UsageError,
          status=200),
    _work("/{claim}/complete", work.complete_claim, None, work.CompleteBody),
    _work("/{claim}/fail", work.fail_claim, None, work.FailBody),
    _work("/{claim}/release", work.release_claim, None, work.ReleaseBody),
    _task("GET", "/workers", system.list_workers, shapes.WorkerPage, scope=S.TENANT,
          permission=P.SYSTEM_READ, tag="system"),
    _task("GET", "/system/doctor", system.get_doctor, shapes.DoctorForm, scope=S.TENANT,
          permission=P.SYSTEM_READ, tag="system"),
    _task("GET", "/system/info", system.get_info, shapes.InfoForm, scope=S.TENANT,
          permission=P.SYSTEM_READ, tag="system"),
)  # fmt: skip

_SELF: Final[dict[str, Any]] = {"permission": P.SELF, "scope": S.TENANT, "tag": "access"}
_SEE: Final[dict[str, Any]] = {"permission": P.ACCESS_READ, "scope": S.TENANT, "tag": "access"}
_SET: Final[dict[str, Any]] = {"permission": P.ACCESS_WRITE, "scope": S.TENANT, "tag": "access"}
_AUDIT: Final[dict[str, Any]] = {"permission": P.AUDIT_READ, "scope": S.TENANT, "tag": "access"}
ACCESS: Final = (
    _task("POST", "/session", access.sign_in, access.MeForm, permission=P.ANYONE, scope=S.NONE,
          body=access.SignInBody, refusals=(Unauthenticated, TooManyAttempts), tag="access"),
    _task("DELETE", "/session", access.sign_out, None, status=204, **_SELF),
    _task("GET", "/me", access.get_me, access.MeForm, **_SELF),
    _task("GET", "/users", access.list_users, access.UserPage, **_SEE),
    _task("POST", "/users", access.add_user, access.UserForm, body=access.UserBody, status=201,
          refusals=(NameTaken,), **_SET),
    _task("PATCH", "/users/{name}", access.patch_user, access.UserForm, body=access.UserPatch,
          refusals=(NotFound,), **_SET),
    _task("GET", "/tokens", access.list_tokens, access.TokenPage, **_SEE),
    _task("POST", "/tokens", access.create_token, access.NewTokenForm, body=access.TokenBody,
          status=201, refusals=(NotFound,), **_SET),
    _task("DELETE", "/tokens/{id}", access.revoke_token, None, status=204, refusals=(NotFound,),
          **_SET),
    _task("GET", "/grants", access.list_grants, access.GrantPage, **_SEE),
    _task("PUT", "/grants", access.put_grant, None, body=access.GrantBody, status=204,
          refusals=(NotFound,), **_SET),
    _task("DELETE", "/grants", access.delete_grant, None, query=access.GrantQuery, status=204,
          refusals=(NotFound,), **_SET),
    _task("GET", "/tenants", tenants.list_tenants, tenants.TenantPage, **_SEE),
    _task("POST", "/tenants", tenants.add_tenant, tenants.TenantForm, body=tenants.TenantBody,
          status=201, refusals=(NameTaken,), **_SET),
    _task("POST", "/tenants/{name}/close", tenants.close_tenant, tenants.TenantForm,
          refusals=(NotFound,), **_SET),
    _task("POST", "/tenants/{name}/open", tenants.open_tenant, tenants.TenantForm,
          refusals=(NotFound,), **_SET),
    _task("GET", "/audit", access.list_audit, access.AuditPage, query=access.AuditQuery, **_AUDIT),
    _task("GET", "/audit/chain", access.verify_audit, access.ChainForm, **_AUDIT),
)  # fmt: skip

SYSTEM: Final = (
    Route(
        method="GET",
        path="/healthz",
        handler=system.healthz,
        permission=P.ANYONE,
        scope=S.NONE,
        answer=shapes.HealthForm,
        tag="system",
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=system.readyz,
        permission=P.ANYONE,
        scope=S.NONE,
        answer=shapes.HealthForm,
        tag="system",
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=system.scrape_metrics,
        permission=P.METRICS_READ,
        scope=S.TENANT,
        query=shapes.MetricsQuery,
        answer=str,
        media="text/plain",
        tag="system",
    ),
    Route(
        method="GET",
        path="/openapi.json",
        handler=system.get_openapi,
        permission=P.SYSTEM_READ,
        scope=S.TENANT,
        answer=dict[str, Any],
        tag="system",
    ),
)

ROUTES: Final = (
    *EXECUTIONS,
    *ACTIONS,
    *EVENTS,
    *PEOPLE,
    *RULES,
    *ACCESS,
    *SYSTEM,
    *actionqueue.ROUTES,
)
"""All routes; those that are called most often stand first."""
