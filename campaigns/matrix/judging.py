"""Judge answers by the tables: the route's line, ``access.decide``, and OpenAPI."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

import jsonschema_rs

from campaigns.matrix.asking import Request, is_public
from campaigns.matrix.callers import TENANT
from campaigns.matrix.sending import Answer
from campaigns.matrix.world import World
from outlast.access import Permission, Rights
from outlast.server.auth import Identity
from outlast.server.openapi import document
from outlast.server.problem import MEDIA
from outlast.server.route import Route, Scope, Style

_LACKS: Final = re.compile(
    r"^(\S+) lacks the permission ([a-z:]+)(?: for (?:(everything)|the task (.+)))?$", re.DOTALL
)
_ID: Final = re.compile(r"ex_[0-9a-hjkmnp-tv-z]{20}")
_NOBODY: Final = frozenset({401, 400, 403, 405, 414, 421, 431})
"""What somebody without a credential may be told at a route that takes one; 403: of elsewhere."""
SECRETS: Final = (b"$argon2", b"BEGIN PRIVATE", b"Traceback (most recent")


@dataclass
class Report:
    """What was asked, and what was wrong with what came."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    tricks: Counter[str] = field(default_factory=Counter)
    seen: set[tuple[str, str]] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class Judge:
    """Judges answers.

    Args:
        routes: the table.
        world: what there is, and what was sown in it.
        report: takes what was wrong.
    """

    def __init__(self, routes: Sequence[Route], world: World, report: Report) -> None:
        self._world, self._report, self._routes = world, report, routes
        told = json.loads(json.dumps(document(tuple(routes)), default=str))
        self._components = told["components"]
        self._made: dict[str, Any] = {}
        self._documented = {
            f"{method.upper()} {path}": {
                status: self._validators(answer)
                for status, answer in operation["responses"].items()
            }
            for path, methods in told["paths"].items()
            for method, operation in methods.items()
        }
        self._problem = self._validator({"$ref": "#/components/schemas/Problem"})

    def _validators(self, answer: Any) -> dict[str, Any]:
        if "$ref" in answer:
            answer = self._components["responses"][answer["$ref"].rpartition("/")[2]]
        return {
            media: self._validator(content["schema"])
            for media, content in answer.get("content", {}).items()
        }

    def _validator(self, schema: Any) -> Any:
        """Give what checks by a schema: sixteen hundred answers have some sixty among them."""
        name = json.dumps(schema, sort_keys=True)
        if name not in self._made:
            whole = {**schema, "components": self._components}
            self._made[name] = jsonschema_rs.validator_for(whole)
        return self._made[name]

    def judge(self, request: Request, answer: Answer) -> None:
        """See that an answer is what it may be."""
        report, route = self._report, request.route
        report.requests += 1
        report.statuses[answer.status] += 1
        report.tricks[request.trick] += 1
        if route is not None:
            report.seen.add((f"{route.method} {route.path}", request.caller.name))
        for fault in self.faults(request, answer):
            self.fail(request, answer, fault)

    def fail(self, request: Request, answer: Answer, fault: str) -> None:
        """Note what is wrong with an answer."""
        said = answer.body[:400].decode("utf-8", "replace")
        self._report.failures.append(f"{fault}\n  {request}\n  {answer.status} {said}")

    def faults(self, request: Request, answer: Answer) -> list[str]:
        """List what is wrong with an answer."""
        found: list[str] = []
        if answer.status >= 500:
            found.append("it is an error of the server's")
        found += self._form(request, answer)
        found += self._rights(request, answer)
        rights = None if request.caller.identity is None else request.caller.identity.rights
        if request.caller.identity is not None and request.caller.identity.tenant != TENANT:
            rights = None
        for canary in self._world.sower.found_in(answer.body):
            if not canary.may_be_seen(rights):
                found.append(f"a {canary.kind} of {canary.area} is shown: {canary.place}")
        known = unquote(unquote(request.target)) + request.body.decode("utf-8", "replace")
        for id in set(_ID.findall(answer.body.decode("utf-8", "replace"))):
            area = self._world.ids.get(id)
            if area is None or id in known:
                continue
            if rights is None or not rights.see(TENANT, f"{area}.total"):
                found.append(f"{id} of {area} is named")
        found += [f"a secret is shown: {one!r}" for one in SECRETS if one in answer.body]
        return found

    # The form

    def _form(self, request: Request, answer: Answer) -> list[str]:
        """Compare status and body with what OpenAPI says of them."""
        route, media = request.route, answer.headers.get("content-type", "").partition(";")[0]
        if request.method == "HEAD" and not answer.body:
            return [] if answer.status == 405 else ["HEAD is answered"]
        value: Any = None
        if answer.body and media.endswith("json"):
            try:
                value = json.loads(answer.body)
            except ValueError:
                return ["the body is no JSON"]
        elif answer.body:
            value = answer.body.decode("utf-8", "replace")  # a text: of metrics
        styled = self._style_at(request)
        if answer.status >= 400 and (styled is None or media == MEDIA):
            if media != MEDIA or not self._problem.is_valid(value):
                return ["it is refused without a problem"]
            if value["status"] != answer.status:
                return ["the problem names another status"]
            if styled is not None:
                return []  # who stands before all routes speaks for all of them in one way
        if route is None:
            return [] if answer.status >= 400 else ["it is answered at no route's address"]
        documented = self._documented[f"{route.method} {route.path}"].get(str(answer.status))
        if documented is None:
            return ["the status is not documented"]
        if media == "text/event-stream":
            return [] if media in documented else ["the media type is not documented"]
        if not answer.body:
            return [] if not documented or answer.status in (204, 304) else ["there is no body"]
        if media not in documented:
            return [f"the media type {media} is not documented"]
        faults = list(documented[media].iter_errors(value))[:2]
        return [f"the body does not have its form: {one.message[:200]}" for one in faults]

    def _style_at(self, request: Request) -> Style | None:
        """Give the style in which refusals are written at an address; None for problems."""
        if request.route is not None:
            return request.route.style
        path = unquote(request.target.partition("?")[0])
        styles = {one.path.split("/")[1]: one.style for one in self._routes if one.style}
        return styles.get(path.strip("/").partition("/")[0])

    # The rights

    def _rights(self, request: Request, answer: Answer) -> list[str]:
        route, identity = request.route, request.caller.identity
        outcomes = self._report.outcomes
        if route is None or is_public(route):
            outcomes["public, or nothing"] += 1
            return []
        if identity is None:
            outcomes["stranger"] += 1
            return [] if answer.status in _NOBODY else ["a stranger is let in"]
        if answer.status == 401 and "authorization" not in request.trick:
            return ["somebody who is known is not"]
        problem = json.loads(answer.body) if answer.status >= 400 and answer.body else {}
        is_told = answer.status in (200, 202, 403) and problem.get("code") != "bad_request"
        if is_told and self._is_hidden(request, route, identity):
            return ["it is told to be there"]
        if answer.status == 403 and problem.get("code") == "forbidden":
            outcomes["refused"] += 1
            return self._refused(route, identity, str(problem["detail"]))
        if answer.status < 400:
            outcomes["let in"] += 1
            return self._let_in(request, route, identity, answer)
        if answer.status == 404 and route.scope is Scope.EXECUTION:
            outcomes["not there"] += 1
            id = request.places.get("id", "")
            area = self._world.ids.get(id)
            is_told = f"no execution {id}" in problem.get("detail", "")
            if area is not None and is_told and _sees(identity, f"{area}.total"):
                return ["what the caller may see is not there"]
        return []

    def _is_hidden(self, request: Request, route: Route, identity: Identity) -> bool:
        """Tell whether a request is about an execution that is there, and not for the caller."""
        area = self._world.ids.get(request.places.get("id", ""))
        is_about = route.scope is Scope.EXECUTION and area is not None
        return is_about and not _sees(identity, f"{area}.total")

    def _refused(self, route: Route, identity: Identity, detail: str) -> list[str]:
        """See that whoever is told to lack a permission does."""
        told = _LACKS.match(detail)
        if told is None:
            return ["it does not say what is lacking"]
        permission, everything, task = Permission(told[2]), told[3], told[4]
        if identity.tenant != TENANT:
            return []
        if everything is None and task is None:
            has = identity.rights.allow_somewhere(permission, TENANT)
        else:
            has = identity.rights.allow(permission, TENANT, task)
        return ["it is refused to somebody who may"] if has else []

    def _let_in(
        self, request: Request, route: Route, identity: Identity, answer: Answer
    ) -> list[str]:
        """See that whoever is let in may do that."""
        permission = route.permission
        assert permission is not None
        if identity.tenant != TENANT:
            return ["somebody of another tenant is let in"]
        rights = identity.rights
        value = json.loads(answer.body) if answer.body[:1] in (b"{", b"[") else {}
        if route.scope is Scope.TENANT:
            good = rights.allow(permission, TENANT, None)
        elif route.scope is Scope.EXECUTION:
            area = self._world.ids.get(request.places.get("id", ""))
            good = area is None or rights.allow(permission, TENANT, f"{area}.total")
        elif route.scope is Scope.LISTED:
            good = rights.allow_somewhere(permission, TENANT) and all(
                rights.allow(permission, TENANT, str(one.get("task", one.get("name"))))
                for one in value.get("items", ())  # live events have none
            )
        else:
            good = self._for_task(request, rights, permission, value)
        return [] if good else [f"it is done without {permission}"]

    def _for_task(
        self, request: Request, rights: Rights, permission: Permission, value: Any
    ) -> bool:
        """Tell whether somebody may do what a handler has found out to be about a task."""
        assert request.route is not None
        has_body = request.route.body is not None and request.body.strip()
        said: Any = json.loads(request.body) if has_body else {}
        named: list[str | None] = []
        if isinstance(value, Mapping) and "task" in value:
            named.append(str(value["task"]))
        elif isinstance(said, Mapping) and "filter" in said:
            named.append(said["filter"].get("task"))
        elif isinstance(said, Mapping) and "action" in said:
            named.append(None)
        else:
            name = request.places.get("name")
            if name is None:
                return True  # what it is about, only it knows; what it tells is looked at
            named.append(f"{name.partition('-')[0]}.total" if "-" in name else name)
        return all(rights.allow(permission, TENANT, one) for one in named)


def _sees(identity: Identity, task: str) -> bool:
    return identity.tenant == TENANT and identity.rights.see(TENANT, task)
