"""The table of permissions and roles: what there is to be allowed, and who is allowed it.

A permission is asked for at each door; a role is a set of permissions. Nothing else says who may do
what: the pages, the checks and the tests read these two tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Permission(StrEnum):
    """What a caller may do."""

    ANYONE = "anyone"
    SELF = "self"
    SYSTEM_READ = "system:read"
    METRICS_READ = "metrics:read"
    TASKS_READ = "tasks:read"
    EXECUTIONS_READ = "executions:read"
    PAYLOADS_READ = "payloads:read"
    EXECUTIONS_START = "executions:start"
    EXECUTIONS_OPERATE = "executions:operate"
    QUESTIONS_READ = "questions:read"
    QUESTIONS_ANSWER = "questions:answer"
    SIGNALS_SEND = "signals:send"
    SCHEDULES_READ = "schedules:read"
    SCHEDULES_WRITE = "schedules:write"
    CAPACITY_READ = "capacity:read"
    CAPACITY_WRITE = "capacity:write"
    BUDGETS_READ = "budgets:read"
    BUDGETS_WRITE = "budgets:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    WORK_TAKE = "work:take"
    ACCESS_READ = "access:read"
    ACCESS_WRITE = "access:write"
    AUDIT_READ = "audit:read"


PERMISSIONS: Final[Mapping[Permission, str]] = {
    Permission.ANYONE: "what needs no credential: whether the server lives, and signing in",
    Permission.SELF: "see who one is, and sign out",
    Permission.SYSTEM_READ: "see the server, its engine and workers, and what is wrong with them",
    Permission.METRICS_READ: "read the metrics: numbers by task, queue and budget",
    Permission.TASKS_READ: "see which tasks there are, with the forms of their inputs",
    Permission.EXECUTIONS_READ: "see executions: state, reason, log, steps, without any payload",
    Permission.PAYLOADS_READ: "read payloads: inputs, results, errors, answers, streams",
    Permission.EXECUTIONS_START: "start executions",
    Permission.EXECUTIONS_OPERATE: "pause, resume, cancel, retry, rerun, fork, label, prioritize",
    Permission.QUESTIONS_READ: "see the open questions",
    Permission.QUESTIONS_ANSWER: "answer questions",
    Permission.SIGNALS_SEND: "send signals",
    Permission.SCHEDULES_READ: "see schedules and their logs",
    Permission.SCHEDULES_WRITE: "make, change, pause, trigger and end schedules",
    Permission.CAPACITY_READ: "see queues, limits and rates, and who holds them",
    Permission.CAPACITY_WRITE: "pause and limit queues, set limits and rates",
    Permission.BUDGETS_READ: "see budgets and what was spent",
    Permission.BUDGETS_WRITE: "set, raise and reset budgets",
    Permission.WEBHOOKS_READ: "see webhooks, their URLs and what was delivered; never a secret",
    Permission.WEBHOOKS_WRITE: "make, change, pause and delete webhooks, see their new secrets",
    Permission.WORK_TAKE: "claim steps as a remote worker, with the payloads they need",
    Permission.ACCESS_READ: "see users, tokens and grants; never a secret",
    Permission.ACCESS_WRITE: "make and disable users and tokens, grant and take back roles",
    Permission.AUDIT_READ: "read the audit, and verify it",
}
"""Every permission, and what it is for."""


class Role(StrEnum):
    """A set of permissions that is granted as one."""

    VIEWER = "viewer"
    PAYLOAD_READER = "payload-reader"
    MONITOR = "monitor"
    OPERATOR = "operator"
    SUBMITTER = "submitter"
    AUTHOR = "author"
    WORKER = "worker"
    AUDITOR = "auditor"
    ADMIN = "admin"


_VIEWER: Final = frozenset(
    {
        Permission.ANYONE,
        Permission.SELF,
        Permission.SYSTEM_READ,
        Permission.METRICS_READ,
        Permission.TASKS_READ,
        Permission.EXECUTIONS_READ,
        Permission.QUESTIONS_READ,
        Permission.SCHEDULES_READ,
        Permission.CAPACITY_READ,
        Permission.BUDGETS_READ,
    }
)
_OPERATOR: Final = _VIEWER | {
    Permission.EXECUTIONS_OPERATE,
    Permission.QUESTIONS_ANSWER,
    Permission.SIGNALS_SEND,
    Permission.CAPACITY_WRITE,
    Permission.WEBHOOKS_READ,
}
_SUBMITTER: Final = frozenset(
    {
        Permission.ANYONE,
        Permission.SELF,
        Permission.TASKS_READ,
        Permission.EXECUTIONS_READ,
        Permission.EXECUTIONS_START,
    }
)

ROLES: Final[Mapping[Role, tuple[str, frozenset[Permission]]]] = {
    Role.VIEWER: ("looks on, and sees no payload", _VIEWER),
    Role.PAYLOAD_READER: (
        "a viewer who may read payloads as well",
        _VIEWER | {Permission.PAYLOADS_READ},
    ),
    Role.MONITOR: (
        "scrapes metrics, and sees nothing else",
        frozenset({Permission.ANYONE, Permission.SELF, Permission.METRICS_READ}),
    ),
    Role.OPERATOR: ("keeps things going, without reading payloads", _OPERATOR),
    Role.SUBMITTER: ("starts executions, as another program does", _SUBMITTER),
    Role.AUTHOR: (
        "writes tasks: tries them, looks into them, sets their schedules and budgets",
        _OPERATOR
        | _SUBMITTER
        | {Permission.PAYLOADS_READ, Permission.SCHEDULES_WRITE, Permission.BUDGETS_WRITE},
    ),
    Role.WORKER: (
        "runs steps on another machine",
        frozenset({Permission.ANYONE, Permission.SELF, Permission.WORK_TAKE}),
    ),
    Role.AUDITOR: (
        "sees who may do what, and who did what; no payload, and changes nothing",
        _VIEWER | {Permission.ACCESS_READ, Permission.AUDIT_READ, Permission.WEBHOOKS_READ},
    ),
    Role.ADMIN: ("may do everything", frozenset(Permission)),
}
"""Every role: what it is for, and its permissions."""

__all__ = ["PERMISSIONS", "ROLES", "Permission", "Role"]
