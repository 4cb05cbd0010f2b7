"""Requests, made of the route table and of OpenAPI, and the tricks that are played with them."""

from __future__ import annotations

import functools
import json
import random
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.core import NotSet
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from campaigns.drawing import drawn
from campaigns.matrix.callers import CALLERS, STRANGERS, Caller
from outlast.access import Permission
from outlast.server.openapi import document
from outlast.server.route import Route
from outlast.server.table import ROUTES

Headers = tuple[tuple[bytes, bytes], ...]
_PLACE: Final = re.compile(r"\{(\w+)\}")
_JSON: Final = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it goes over the wire.

    Attributes:
        method, target, headers, body: what is sent; the target with its query, quoted.
        caller: who sends it.
        trick: what was done to it, or "".
        route: the line of the table that it leads to, by the letter of its path; None for none.
        places: the segments of the path by their names there.
    """

    method: str
    target: str
    caller: Caller
    headers: Headers = ()
    body: bytes = b""
    trick: str = ""
    route: Route | None = None
    places: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        body = self.body[:200].decode("utf-8", "replace")
        return f"{self.caller.name}: {self.method} {self.target[:300]} {body} ({self.trick})"


@dataclass(frozen=True, slots=True)
class Form:
    """What OpenAPI would send to a route: values for its places, its query and its body."""

    places: dict[str, str]
    query: dict[str, Any]
    headers: dict[str, str]
    body: Any


@functools.cache
def forms_of(each: int, seed: int) -> dict[str, list[Form]]:
    """Make some requests for every operation, as the document says; by the operation's name."""
    told = json.loads(json.dumps(document(ROUTES), default=str))
    for methods in told["paths"].values():
        for operation in methods.values():
            del operation["security"]  # who calls is not its to say
    schema = schemathesis.openapi.from_dict(told, config=SchemathesisConfig())
    found: dict[str, list[Form]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in schema.get_all_operations():
            assert isinstance(one, Ok)
            operation = one.ok()
            made: list[Form] = []
            _draw(operation, each, seed, made)
            found[f"{operation.method.upper()} {operation.path}"] = made
    return found


def _draw(operation: Any, each: int, seed: int, made: list[Form]) -> None:
    @drawn(operation.as_strategy(generation_mode=GenerationMode.POSITIVE), each, seed)
    def draw(case: Any) -> None:
        body = None if isinstance(case.body, NotSet) else case.body
        places = {name: str(value) for name, value in (case.path_parameters or {}).items()}
        made.append(Form(places, dict(case.query or {}), dict(case.headers or {}), body))

    draw()


@dataclass
class Asker:
    """Makes requests.

    Attributes:
        routes: the table.
        forms: what OpenAPI would send, by operation.
        dice: decides.
        values: what there is to put into the places of a path, by the path before them.
        tasks: the names of tasks that there are.
    """

    routes: Sequence[Route]
    forms: dict[str, list[Form]]
    dice: random.Random
    values: dict[str, list[str]] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)

    def plain(self, route: Route, caller: Caller) -> Request:
        """Make a request as the document says, about what there is."""
        form = self.dice.choice(self.forms[f"{route.method} {route.path}"])
        places = {name: self._place(route, name, form) for name in _PLACE.findall(route.path)}
        path = _PLACE.sub(lambda found: quote(places[found[1]], safe=""), route.path)
        some = self.dice.random()  # with all that there is to be asked at once, nothing is found
        query = {
            name: value
            for name, value in form.query.items()
            if name != "cursor" and self.dice.random() < some
        }
        if "wait" in query:
            query["wait"] = "1ms"
        target = path + _query(query)
        headers: Headers = tuple(
            (name.lower().encode(), value.encode("latin-1", "replace"))
            for name, value in form.headers.items()
            if value.isprintable() and value.isascii() and self.dice.random() < 0.3
        )
        body = b""
        if route.body is not None and form.body is not None:
            body = json.dumps(self._plausible(self._some(route, form.body))).encode()
            headers += (_JSON,)
        return self.resolved(
            Request(route.method, target, caller, (*caller.headers, *headers), body)
        )

    def _some(self, route: Route, body: Any) -> Any:
        """Leave out fields that may be left out: what says everything at once is often refused."""
        if not isinstance(body, dict):
            return body
        needed = {one.encode_name for one in msgspec.structs.fields(route.body) if one.required} | {
            "task",
            "value",
            "action",
        }
        some = self.dice.random()
        return {
            name: value for name, value in body.items()
            if name in needed or self.dice.random() < some
        }  # fmt: skip

    def _place(self, route: Route, name: str, form: Form) -> str:
        known = self.values.get(route.path.partition(f"/{{{name}}}")[0])
        if known and self.dice.random() < 0.9:
            return self.dice.choice(known)
        return form.places.get(name) or "nothing"

    def _plausible(self, body: Any) -> Any:
        """Name tasks and executions that there are, where somebody would."""
        if isinstance(body, list):
            return [self._plausible(one) for one in body]
        if not isinstance(body, dict):
            return body
        made = {name: self._plausible(value) for name, value in body.items()}
        for name in made:
            if name in ("task", "workflow_id") and isinstance(made[name], str):
                made[name] = self.dice.choice(self.tasks)
            elif name in ("input", "input_data") and self.dice.random() < 0.7:
                made[name] = {"a": "1"}
            elif name in ("id", "parent") and isinstance(made[name], str):
                made[name] = self.dice.choice(self.values["/api/v1/executions"])
        return made

    def resolved(self, request: Request) -> Request:
        """Say where a request leads, by the letter of its path and of nothing else."""
        path = unquote(request.target.partition("?")[0])
        segments = path.split("/")
        for route in self.routes:
            wanted = route.path.split("/")
            if request.method != route.method or len(wanted) != len(segments):
                continue
            places: dict[str, str] = {}
            for want, got in zip(wanted, segments, strict=True):
                if want.startswith("{") and got:
                    places[want[1:-1]] = got
                elif want != got:
                    break
            else:
                return replace(request, route=route, places=places)
        return replace(request, route=None, places={})

    def tricky(self, route: Route, caller: Caller) -> Request:
        """Make a request with a trick."""
        request = self.plain(route, caller)
        kind = self.dice.choice(KINDS)
        name = self.dice.choice(sorted(kind))
        return self.resolved(replace(kind[name](request, self.dice), trick=name))

    def any_caller(self) -> Caller:
        """Choose somebody; one in five is nobody that is known."""
        return self.dice.choice(STRANGERS if self.dice.random() < 0.2 else CALLERS)


def _query(query: dict[str, Any]) -> str:
    if not query:
        return ""
    pairs: list[str] = []
    for name, value in query.items():
        for one in value if isinstance(value, list) else [value]:
            text = json.dumps(one) if isinstance(one, bool) else str(one)
            pairs.append(f"{quote(name, safe='')}={quote(text, safe='', errors='replace')}")
    return "?" + "&".join(pairs)


Trick = Callable[[Request, random.Random], Request]


def _path(change: Callable[[str], str]) -> Trick:
    def trick(request: Request, dice: random.Random) -> Request:
        path, mark, query = request.target.partition("?")
        return replace(request, target=change(path) + mark + query)

    return trick


def _behind(value: str) -> Trick:
    return _path(lambda path: path + quote(value, safe="/%;.~"))


def _last(value: str) -> Trick:
    """Put something else into the last place of a path."""

    def change(path: str) -> str:
        return path.rpartition("/")[0] + "/" + value

    return _path(change)


def _first(value: str) -> Trick:
    """Put something else where an id stands."""

    def change(path: str) -> str:
        parts = path.split("/")
        if len(parts) > 4:
            parts[4] = value
        return "/".join(parts)

    return _path(change)


def _encoded(path: str) -> str:
    return "/" + "".join(f"%{ord(one):02x}" if one.isalnum() else one for one in path[1:])


_SUFFIXES: Final = (
    *("/", "//", "/.", "/..", "/../", "%2f", "%2F", "%5c", "%00", "%20", "%0a", ".", "..", "~"),
    *(";", ";a=b", "%", "%zz", "%c0%af", "%e2%80%ae", ".json", "/healthz", "%2fhealthz"),
    *("/../healthz", "/..%2f..%2fhealthz", "%2e%2e%2fme", "/%2e%2e/me", "//healthz", ";/healthz"),
    *("%3f/healthz", "%23", "/readyz", "/openapi.json", "\uff0fhealthz", "%252fhealthz"),
)
_VALUES: Final = (
    *("..", ".", "%2e%2e", "*", "%25", "%00", "a%00b", "%ff", "%ed%a0%80", "null", "undefined"),
    *("'%20OR%201=1--", "%22%3b%20DROP%20TABLE%20execution", "$%7b7*7%7d", "%7b%7b7*7%7d%7d"),
    *("-1", "0", "x" * 64, "x" * 65, "x" * 201, "%F0%9F%92%A5", "ex_" + "0" * 20, "ex_hidden"),
    *("%2fetc%2fpasswd", "..%2f..%2f..%2fetc%2fpasswd", "1e309", "%20", "%c3%a9", "total"),
)
PATHS: Final[dict[str, Trick]] = {
    **{f"path + {one}": _behind(one) for one in _SUFFIXES},
    **{f"last = {one[:20]}": _last(one) for one in _VALUES},
    **{f"id = {one[:20]}": _first(one) for one in _VALUES},
    "two slashes before": _path(lambda path: "/" + path),
    "a dot before": _path(lambda path: "/." + path),
    "an encoded dot before": _path(lambda path: "/%2e" + path),
    "from healthz up": _path(lambda path: "/healthz/.." + path),
    "all of it encoded": _path(_encoded),
    "encoded twice": _path(lambda path: _encoded(path).replace("%", "%25")),
    "encoded slashes": _path(lambda path: "/" + path[1:].replace("/", "%2f")),
    "in capitals": _path(str.upper),
    "with a capital": _path(lambda path: path.replace("api", "Api", 1)),
    "two slashes within": _path(lambda path: path.replace("/v1/", "/v1//", 1)),
    "a backslash": _path(lambda path: path.replace("/v1/", "/v1%5c", 1)),
    "up and down": _path(lambda path: path.replace("/v1/", "/v1/me/../", 1)),
    "another version": _path(lambda path: path.replace("/v1/", "/v2/", 1)),
    "no version": _path(lambda path: path.replace("/v1/", "/", 1)),
    "very long": _path(lambda path: path + "/x" * 4_000),
    "too long": _path(lambda path: path + "/" + "x" * 9_000),
    "deep": _path(lambda path: path + "/.." * 300),
}  # fmt: skip


def _more(*headers: tuple[str, str]) -> Trick:
    added = tuple((name.encode(), value.encode("latin-1")) for name, value in headers)
    return lambda request, dice: replace(request, headers=(*request.headers, *added))


def _instead(name: str, *values: str) -> Trick:
    def trick(request: Request, dice: random.Random) -> Request:
        kept = tuple(one for one in request.headers if one[0] != name.encode())
        added = tuple((name.encode(), value.encode("latin-1")) for value in values)
        return replace(request, headers=(*kept, *added))

    return trick


HEADERS: Final[dict[str, Trick]] = {
    "another address behind": _more(("x-original-url", "/healthz"), ("x-rewrite-url", "/healthz")),
    "another method behind": _more(("x-http-method-override", "GET"), ("x-http-method", "DELETE")),
    "from inside": _more(("x-forwarded-for", "127.0.0.1"), ("x-real-ip", "127.0.0.1"),
                         ("forwarded", "for=127.0.0.1;host=localhost"), ("via", "1.1 localhost")),
    "another host behind": _more(("x-forwarded-host", "evil.example"), ("x-host", "evil.example")),
    "another user behind": _more(("x-remote-user", "admin"), ("remote-user", "admin"),
                                 ("x-user", "admin"), ("x-tenant", "2"), ("x-outlast-tenant", "2")),
    "a token beside": _more(("x-authorization", "Bearer admin"), ("x-api-key", "admin")),
    "a cookie beside": _more(("cookie", "outlast_session=admin; outlast_session=ose_" + "a" * 43)),
    "another host": _instead("host", "evil.example"),
    "two hosts": _instead("host", "test", "evil.example"),
    "no host": _instead("host"),
    "a host with a path": _instead("host", "test/healthz"),
    "a host with a user": _instead("host", "test@evil.example"),
    "a host with a dot": _instead("host", "test."),
    "a page elsewhere": _more(("origin", "https://evil.example")),
    "two origins": _more(("origin", "http://test"), ("origin", "https://evil.example")),
    "a page of nobody": _more(("origin", "null")),
    "no type": _instead("content-type"),
    "text": _instead("content-type", "text/plain"),
    "a form": _instead("content-type", "application/x-www-form-urlencoded"),
    "a part": _instead("content-type", "multipart/form-data; boundary=x"),
    "two types": _instead("content-type", "application/json", "text/plain"),
    "a charset": _instead("content-type", "application/json; charset=utf-16"),
    "packed": _more(("content-encoding", "gzip")),
    "a key": _more(("idempotency-key", "k1")),
    "no key": _more(("idempotency-key", "")),
    "a long key": _more(("idempotency-key", "k" * 300)),
    "a strange key": _more(("idempotency-key", "http:admin:\u00e9 \u00ff")),
    "a strange tag": _more(("if-match", 'W/"1.0", *')),
    "a strange event": _more(("last-event-id", "-1")),
    "a strange trace": _more(("traceparent", "00-" + "f" * 300)),
    "another language": _more(("accept", "application/xml;q=1"), ("accept-language", "x" * 200)),
    "a range": _more(("range", "bytes=0-1,5-,-1"), ("if-range", "x")),
    "many": _more(*((f"x-many-{number}", "v") for number in range(100))),
    "long ones": _more(("x-long", "v" * 20_000)),
    "an upgrade": _more(("connection", "upgrade"), ("upgrade", "websocket"),
                        ("sec-websocket-key", "x"), ("sec-websocket-version", "13")),
}  # fmt: skip


def _method(word: str) -> Trick:
    return lambda request, dice: replace(request, method=word)


METHODS: Final[dict[str, Trick]] = {
    f"method {word}": _method(word)
    for word in ("GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE", "PROPFIND",
                 "get", "Post", "GETX", "CONNECT", "SEARCH")
}  # fmt: skip


def _body(data: bytes) -> Trick:
    def trick(request: Request, dice: random.Random) -> Request:
        kept = tuple(one for one in request.headers if one[0] != b"content-type")
        return replace(request, headers=(*kept, _JSON), body=data)

    return trick


def _strange(request: Request, dice: random.Random) -> Request:
    """Put something strange into one field of the body."""
    try:
        body = json.loads(request.body)
    except ValueError:
        return replace(request, body=b"{}", headers=(*request.headers, _JSON))
    if isinstance(body, dict):
        name = dice.choice([*body, "unknown", "__class__", "tenant", "actor"])
        body[name] = dice.choice([
            None, True, -1, 2**70, 1e308, "", "\0", "\ud800", "x" * 100_000, [], {}, [[]],
            {"$ref": "#"}, "\u202e", "../../etc/passwd", "<script>alert(1)</script>", "0" * 400,
        ])  # fmt: skip
    return replace(request, body=json.dumps(body).encode())


BODIES: Final[dict[str, Trick]] = {
    "strange field": _strange,
    "strange field 2": _strange,
    "strange field 3": _strange,
    **{
        f"body {data[:12]!r}": _body(data)
        for data in (
            *(b"", b"{}", b"[]", b"null", b"{", b'"', b"0", b"NaN", b'{"a": NaN}', b"\xff\xfe{}"),
            *(b'{"task": "a", "task": "b"}', b"\xef\xbb\xbf{}", b"[" * 5_000, b"{}{}", b"{} x"),
            *(b'{"a":' * 100 + b"1" + b"}" * 100, b'{"value": 1e999}', b'{"a": "\\ud800"}'),
            *(b"1" * 10_000, b'{"reason": "\\u0000"}', b"\x1f\x8b\x08\x00", b" " * 3_000_000),
        )
    },
}


def _asked(text: str) -> Trick:
    def trick(request: Request, dice: random.Random) -> Request:
        path, mark, query = request.target.partition("?")
        return replace(request, target=f"{path}?{query}{'&' if mark else ''}{text}")

    return trick


QUERIES: Final[dict[str, Trick]] = {
    f"query {text[:20]}": _asked(text)
    for text in (
        *("x=1", "limit=0", "limit=501", "limit=x", "limit=1e3", "limit=1&limit=2", "cursor=%00"),
        *("cursor=~", "cursor=~" + "A" * 50, "cursor=../x", "state=none", "%ff=1", "a", "=", "&&"),
        *("payload=true", "payload=1", "after=99999999999999999999", "after_seq=-1", "find=ex_"),
        *("label=x", "label=team%3D", "created_after=0", "created_after=2020-01-01T00:00:00Z"),
        *("dialect=julep", "dialect=x", "token=admin", "access_token=admin", "tenant=2"),
        *("&".join(f"q{number}=1" for number in range(101)), "x=" + "y" * 7_000, "n=101"),
    )
}
KINDS: Final = (PATHS, PATHS, HEADERS, METHODS, BODIES, BODIES, QUERIES)
"""All tricks; some kinds are played more often."""


def is_public(route: Route) -> bool:
    """Tell whether a route takes no credential."""
    return route.permission is Permission.ANYONE
