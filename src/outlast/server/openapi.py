"""The OpenAPI 3.1 document, made of the route table alone; ``python -m outlast.server.openapi``.

Every refusal that a route can answer with is in it: those of its own line, and those that follow
from what it is (a body can be too long, a caller unknown). ``docs/openapi.json`` is the snapshot.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from outlast import __version__, errors
from outlast.access import Permission
from outlast.errors import OutlastError
from outlast.server.problem import MEDIA, Problem, status_of
from outlast.server.route import Route, Scope
from outlast.server.shapes import ExecutionForm

SNAPSHOT: Final = Path("docs") / "openapi.json"
_REF: Final = "#/components/schemas/{name}"
_SEGMENT: Final = re.compile(r"\{(\w+)\}")
_TITLES: Final = {
    400: "The request is none that is taken.",
    401: "The caller is not known.",
    403: "The caller may not do this.",
    404: "There is no such thing, or none that the caller may see.",
    405: "Another method is taken here.",
    408: "The body took too long to come.",
    409: "Not now: the problem says in which state it is.",
    410: "It is not kept any more.",
    412: "It has changed since.",
    413: "The body, or what it carries, is too long.",
    414: "The address is too long.",
    415: "The body is not JSON.",
    421: "The server is not called by this name, or the claim is another server's.",
    422: "A part of the request does not have its form; the problem names it.",
    429: "Too many requests; Retry-After says when to come again.",
    431: "The headers are too long.",
    503: "The server or its store has too much to do; Retry-After says when to come again.",
}
_SECONDS: Final = {"schema": {"type": "integer", "minimum": 0}}
_GIVEN: Final[dict[int, dict[str, Any]]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    405: {"Allow": {"schema": {"type": "string"}}},
    429: {"Retry-After": _SECONDS},
    503: {"Retry-After": _SECONDS},
}
"""Headers of refusals, by status."""
_ETAG: Final[dict[str, Any]] = {
    "ETag": {
        "description": "The version of the execution; send it as If-Match to change only that.",
        "schema": {"type": "string"},
    }
}


@functools.cache
def encoded() -> bytes:
    """Give the document of the whole table as JSON."""
    from outlast.server.table import ROUTES

    return msgspec.json.format(msgspec.json.encode(document(ROUTES)), indent=2) + b"\n"


def document(routes: tuple[Route, ...]) -> dict[str, Any]:
    """Describe routes."""
    forms: list[Any] = [Problem]
    for route in routes:
        forms += [one for one in (route.body, route.answer) if one is not None]
        forms += [] if route.style is None else [route.style.form]
        forms += [field.type for field in msgspec.structs.fields(route.query)]
    shown, components = msgspec.json.schema_components(forms, ref_template=_REF)
    schemas = dict(zip(map(id, forms), shown, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Outlast",
            "version": __version__,
            "summary": "Python functions that finish what they started",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {
                str(status): {
                    "description": said,
                    "headers": _GIVEN.get(status, {}),
                    "content": {MEDIA: {"schema": {"$ref": _REF.format(name="Problem")}}},
                }
                for status, said in _TITLES.items()
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, schemas: Mapping[int, Any]) -> dict[str, Any]:
    doc = inspect.getdoc(route.handler) or ""
    summary, _, more = doc.partition("\n\n")
    permission = route.permission
    assert permission is not None
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": summary.replace("\n", " "),
        "tags": [route.tag],
        "x-permission": permission,
        "security": [] if permission is Permission.ANYONE else [{"token": []}],
    }
    if more:
        operation["description"] = more.replace("\n", " ")
    parameters = _parameters(route)
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.bodyless,
            "content": {"application/json": {"schema": schemas[id(route.body)]}},
        }
    operation["responses"] = _responses(route, schemas)
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _SEGMENTS.get(name, _TEXT)}
        for name in _SEGMENT.findall(route.path)
    ]
    if route.query is not None:
        schema = msgspec.json.schema(route.query)
        own = schema["$defs"].pop(route.query.__name__)
        for name, form in own["properties"].items():
            found.append(
                {
                    "name": name,
                    "in": "query",
                    "required": name in own.get("required", ()),
                    "schema": _plain(form, schema["$defs"]),
                }
            )
    headers = {**route.headers}
    if route.key:
        headers["Idempotency-Key"] = "Sent again under the same key, it happens once."
    found += [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": said,
            "schema": _HEADERS.get(name, {"type": "string", "maxLength": 255}),
        }
        for name, said in headers.items()
    ]
    if route.name == "follow_events":
        found[-1]["schema"] = {"type": "string", "pattern": r"^[0-9a-f]{12}\.[0-9]{1,18}$"}
    return found


_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": 200}
_SEGMENTS: Final[dict[str, Any]] = {
    "uuid": {"type": "string", "format": "uuid"},
    "id": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[!-.0-~]+$"},
}
_HEADERS: Final[dict[str, Any]] = {
    "Last-Event-ID": {"type": "string", "pattern": "^([!-9;-~]{1,64}:)?[0-9]{1,15}$"},
    "Idempotency-Key": {
        "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$",
    },
}  # fmt: skip


def _plain(form: Any, definitions: Mapping[str, Any]) -> Any:
    """Write a parameter's schema without references, and without null: it is left out instead."""
    if isinstance(form, list):
        return [_plain(one, definitions) for one in form]
    if not isinstance(form, dict):
        return form
    if "$ref" in form:
        return _plain(definitions[form["$ref"].rpartition("/")[2]], definitions)
    options = form.get("anyOf")
    if options is not None:
        left = [one for one in options if one != {"type": "null"}]
        if len(left) == 1:
            rest = {name: value for name, value in form.items() if name not in ("anyOf", "default")}
            return _plain({**left[0], **rest}, definitions)
    if None in form.get("enum", ()):
        form = {**form, "enum": [one for one in form["enum"] if one is not None]}
        form.pop("default", None)
    return {name: _plain(value, definitions) for name, value in form.items()}


def refusals_of(route: Route) -> dict[int, list[str]]:
    """Give every code that a route may refuse with, by status."""
    kinds: list[type[OutlastError]] = [*route.refusals]
    statuses = {400, 405, 414, 421, 431, 503}
    if route.permission is not Permission.ANYONE:
        kinds += [errors.Unauthenticated, errors.Forbidden]
    if route.scope is Scope.EXECUTION or _SEGMENT.search(route.path):
        kinds.append(errors.NotFound)
    if route.is_write:
        statuses.add(403)  # a page of another origin
    if route.body is not None:
        statuses |= {408, 413, 415}
    kinds.append(errors.BadPayload)  # also a query where there is none to be
    found: dict[int, list[str]] = {status: [] for status in statuses}
    for kind in kinds:
        found.setdefault(status_of(kind), []).append(kind.code)
    return {status: sorted(set(codes)) for status, codes in sorted(found.items())}


_EVENT: Final = {
    "type": "object",
    "description": "One event of the stream.",
    "properties": {
        "event": {"type": "string"},
        "id": {"type": "string", "description": "Send it as Last-Event-ID to go on behind it."},
        "data": {"type": "string", "description": "JSON."},
        "retry": {"type": "integer"},
    },
}


def _responses(route: Route, schemas: Mapping[int, Any]) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "It worked."}
    if route.media == "text/event-stream":
        good["content"] = {route.media: {"schema": _EVENT}}
    elif route.answer is not None:
        good["content"] = {route.media: {"schema": schemas[id(route.answer)]}}
    if route.answer is ExecutionForm:
        good["headers"] = _ETAG
    responses: dict[str, Any] = {str(route.status): good}
    for status, said in route.others.items():
        responses[str(status)] = {**good, "description": said}
    for status, codes in refusals_of(route).items():
        refusal: dict[str, Any] = {"$ref": f"#/components/responses/{status}"}
        if route.style is not None:
            own = {"schema": schemas[id(route.style.form)]}
            early = {"schema": {"$ref": _REF.format(name="Problem")}}  # before it has its route
            content = {route.style.media: own, MEDIA: early}
            refusal = {"description": _TITLES[status], "content": content}
            refusal["headers"] = _GIVEN.get(status, {})
        if codes:
            refusal["description"] = f"{_TITLES[status]} Codes: {', '.join(codes)}."
        responses[str(status)] = refusal
    return responses


def main(words: list[str]) -> int:
    """Write the snapshot; with ``--check`` only compare it."""
    if "--check" in words:
        is_same = SNAPSHOT.exists() and SNAPSHOT.read_bytes() == encoded()
        if not is_same:
            sys.stderr.write(f"{SNAPSHOT} is out of date: python -m outlast.server.openapi\n")
        return 0 if is_same else 1
    SNAPSHOT.write_bytes(encoded())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
