"""The route table: what there is to call, and what a caller needs for it.

Theory of operation. A route is one line of a table, and everything about it stands there: the
method and the path, the permission and what it is asked for, the forms of query, body and answer,
and the errors it may refuse with. The dispatcher, the check of permissions and the OpenAPI document
all read this one line, so none of them can know a route that the others do not. A line without a
permission or a scope stops the server before it listens (:func:`checked`); nothing is decided by
the text of a path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from outlast.access import Permission
from outlast.errors import InternalError, OutlastError

if TYPE_CHECKING:
    from outlast.server.call import Call


class Scope(StrEnum):
    """What a permission is asked for, and who asks.

    ``NONE``: nothing; only for what anyone may see. ``TENANT``: the dispatcher, for the tenant.
    ``EXECUTION``: the dispatcher, for the task of the execution that the path names. ``TASK``: the
    handler, for the task that it finds out (:meth:`~outlast.server.call.Call.allow`); a handler
    that has not asked gets no answer out. ``LISTED``: the handler, for each thing that it lists.
    """

    NONE = "none"
    TENANT = "tenant"
    EXECUTION = "execution"
    TASK = "task"
    LISTED = "listed"


Handler = Callable[["Call"], Awaitable[Any]]


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """No parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How refusals are written, where that is not as problems.

    Attributes:
        form: the form of such an answer.
        media: its media type.
        write: makes it of an error and the name of the request.
    """

    form: type[msgspec.Struct]
    media: str
    write: Callable[[OutlastError, str], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of the table.

    Attributes:
        method, path: what is called; ``{name}`` in a path is one segment.
        handler: what answers; the first line of its docstring is the summary.
        permission, scope: what it takes, and for what that is asked.
        query: the form of the query string.
        body: the form of the body; None where there is none.
        bodyless: whether the body may be left out.
        answer: the form of the answer's body; None where it has none.
        status: of the answer, where the handler says nothing else.
        others: further statuses of good answers, with what they mean.
        refusals: errors besides those that every route may answer with.
        media: the media type of the answer.
        key: whether it takes an Idempotency-Key.
        headers: further request headers that it reads, with what they are for.
        tag: the group it is shown in.
        style: how it writes refusals; None for problems.
    """

    method: str
    path: str
    handler: Handler
    permission: Permission | None = None
    scope: Scope | None = None
    query: type[msgspec.Struct] = Nothing
    body: Any = None
    bodyless: bool = False
    answer: Any = None
    status: int = 200
    others: Mapping[int, str] = field(default_factory=dict)
    refusals: Sequence[type[OutlastError]] = ()
    media: str = "application/json"
    key: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    tag: str = "executions"
    style: Style | None = None

    @property
    def name(self) -> str:
        """What the operation is called: the name of its handler."""
        return str(getattr(self.handler, "__name__", "handler"))

    @property
    def is_write(self) -> bool:
        """Whether it may change anything."""
        return self.method not in _SAFE


_SAFE: Final = ("GET",)


def checked(routes: Sequence[Route]) -> Sequence[Route]:
    """Give the table back, having seen that every line says who may call it.

    Raises:
        InternalError: one does not; no server starts with it.
    """
    seen: set[tuple[str, str]] = set()
    names: set[str] = set()
    for route in routes:
        where = f"{route.method} {route.path}"
        fault = _fault(route)
        if (route.method, route.path) in seen:
            fault = "it stands in the table twice"
        if route.name in names:
            fault = f"its handler's name, {route.name}, is another route's as well"
        if fault is not None:
            raise InternalError("the server does not start with this route", where=where, why=fault)
        seen.add((route.method, route.path))
        names.add(route.name)
    return routes


def _fault(route: Route) -> str | None:
    if route.permission is None:
        return "it names no permission"
    if route.scope is None:
        return "it does not say for what the permission is asked"
    if (route.permission is Permission.ANYONE) != (route.scope is Scope.NONE):
        return "what anyone may call has no scope, and all else has one"
    if route.scope is Scope.EXECUTION and "{id}" not in route.path:
        return "its scope is an execution, and its path names none"
    return None


__all__ = ["Handler", "Nothing", "Permission", "Route", "Scope", "Style", "checked"]
