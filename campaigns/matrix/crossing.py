"""Ask one tenant for what is another's, in every place of a request; nobody may hear of it.

Theory of operation. A request of the table's is made twice: with something of the other tenant's
(an id, a key, a token, a cursor) and with something like it that is nowhere. Both must be answered
alike, but for what was asked for: else the answer tells that the one is there. Besides, no text and
no id of the other tenant may stand in any answer, and its rows stay what they were. That all this
can be seen is looked at as well: its own callers see what was sown, and by the same eyes.
"""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from campaigns.matrix.asking import Asker, Request, forms_of, is_public
from campaigns.matrix.callers import AREAS, Caller
from campaigns.matrix.campaign import EACH, look_about
from campaigns.matrix.sending import LIVE, Answer, ask
from campaigns.matrix.twins import House, Twin, a_house
from outlast.access import Role
from outlast.server.actionqueue.names import RUN, id_of
from outlast.server.auth import COOKIE
from outlast.server.front import HEADER
from outlast.server.route import Route
from outlast.server.table import ROUTES

Names = tuple[tuple[str, str], ...]
DEEDS: Final = 4
"""How often something is done of each kind, where a pair is about it."""
LOOK_EVERY: Final = 60
"""After how many pairs the rows of the tenant that rests are compared."""
TRIES: Final = 3
"""How often what differs is asked again, where asking changes nothing: what goes on by itself
differs once, and what tells something differs each time."""
CONFLICT: Final = 409
"""The status of what is refused for the state that something is in."""
_EXECUTION: Final = re.compile(r"ex_[0-9a-hjkmnp-tv-z]{20}")
_DRAWN: Final = re.compile(
    rb"urn:outlast:request:\w+|ex_[0-9a-hjkmnp-tv-z]{20}|otk_[\w.-]+|cl_[0-9a-f]{20}|oat_[\w.-]+"
    rb"|\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)|[0-9a-f]{64}|whsec_[\w+/=]+"
    rb"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\"number\":\d+|wait \d+ s"
)
"""What is drawn, or is a time: it differs from request to request."""

_OF_ITS_OWN: Final = ("content-length", "etag", "retry-after")
"""Headers that say how long, how new or how soon."""


@dataclass
class Crossed:
    """What was asked, and what was wrong with what came.

    Attributes:
        requests, pairs: how many there were.
        size: of the answers, in bytes, which were looked through.
        kinds: pairs by what was crossed in them.
        statuses: of answers about what is the other tenant's.
        routes: those that were asked.
        deeds: what was done by the one that asks, in its own house.
        own: texts of the one that asks that its callers were shown.
        theirs: texts and names of the other one that its own callers were shown, by the same eyes.
        rows: of the other one, compared; how often.
        failures: what was wrong.
    """

    requests: int = 0
    pairs: int = 0
    size: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    routes: set[str] = field(default_factory=set)
    deeds: Counter[str] = field(default_factory=Counter)
    own: set[bytes] = field(default_factory=set)
    theirs: set[bytes] = field(default_factory=set)
    rows: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pair:
    """A request about what is the other tenant's, and one about what is nowhere.

    Attributes:
        kind: what was crossed.
        there, nowhere: the two requests.
        names: what differs in them, as it is written in each.
    """

    kind: str
    there: Request
    nowhere: Request
    names: Names


async def crossing(
    seed: int,
    *,
    rounds: int = 2,
    failures_max: int = 30,
    routes: Sequence[Route] = ROUTES,
    address: str | None = None,
) -> Crossed:
    """Ask every route, by every caller, for what is another tenant's.

    Args:
        seed: of the dice.
        rounds: how many pairs there are for a route and a caller.
        failures_max: after so many it is enough.
        routes: those that are asked.
        address: of an empty database; None: a file of SQLite, which is thrown away.
    """
    with tempfile.TemporaryDirectory() as directory:
        async with a_house(address or f"sqlite:///{Path(directory) / 'twins.db'}") as house:
            dice = random.Random(seed)
            work = _Crossing(house, dice, seed)
            await work.begin()
            queue = [
                (route, caller)
                for route in routes for caller in house.asks.callers.values()
                for _ in range(rounds)
                if not is_public(route) or caller.name == "ada"
            ]  # fmt: skip
            dice.shuffle(queue)
            for number, (route, caller) in enumerate(queue):
                if len(work.report.failures) >= failures_max:
                    break
                if caller.name == "ada" and route.is_write and not _shuts_out(route):
                    await work.do(route, caller)
                await work.cross(route, caller)
                if number % LOOK_EVERY == LOOK_EVERY - 1:
                    work.compare()
            await work.end()
            return work.report


class _Crossing:
    """Makes pairs, asks them and compares."""

    def __init__(self, house: House, dice: random.Random, seed: int) -> None:
        self.report = Crossed()
        self._house, self._dice = house, dice
        self._own, self._theirs = (Asker(ROUTES, forms_of(EACH, seed), dice) for _ in range(2))
        self._ids: list[str] = []
        self._cursor = ""
        self._since: list[str] = []
        self._told: set[str] = set()
        self._before: dict[str, set[tuple[Any, ...]]] = {}

    async def _send(self, request: Request) -> Answer:
        return await ask(self._house.door, request)

    async def begin(self) -> None:
        """Find out what there is on both sides, and keep what the other one's rows are."""
        await self._look_again()
        rests = self._house.rests
        await look_about(self._theirs, self._send, rests.callers["ada"])
        for prefix, found in self._theirs.values.items():  # only what the one that asks lacks
            own = set(self._own.values.get(prefix, ()))
            self._theirs.values[prefix] = [one for one in found if one not in own]
        self._ids = [one for one in self._theirs.values["/api/v1/executions"] if "ex_" in one]
        self._ids = [one for one in self._ids if one in rests.world.ids]
        self._theirs.values["/api/v1/claims"] = [rests.secrets["claim"]]
        for place in ("runs", "tasks"):
            known = [id_of(id, RUN) for id in self._ids[:20]]
            self._theirs.values[f"/actionqueue/api/v1/{place}"] = known
        answer = await self._get(rests, "/api/v1/events")
        self._cursor = next(
            line.removeprefix("id: ")
            for line in answer.body.decode().splitlines()
            if line.startswith("id: ")
        )
        self._before = self._house.stored()

    async def _look_again(self) -> None:
        await look_about(self._own, self._send, self._house.asks.callers["ada"])

    async def _get(self, twin: Twin, path: str) -> Answer:
        caller = twin.callers["ada"]
        return await self._send(Request("GET", path, caller, caller.headers))

    async def do(self, route: Route, caller: Caller) -> None:
        """Do things to what is the caller's own; what comes of them stays there as well."""
        for _ in range(DEEDS):
            request = self._own.plain(route, caller)
            self._since.append(str(request))
            answer = await self._asked(request)
            if answer.status < 400:
                self.report.deeds[route.name] += 1
                await self._house.asks.settle()

    async def cross(self, route: Route, caller: Caller) -> None:
        """Ask one pair, and judge it."""
        request = self._own.plain(route, caller)
        kept = tuple(one for one in request.headers if one[0] != b"idempotency-key")
        # Either would make both of a pair one.
        request = _without_key(replace(request, headers=kept))
        ways = [
            list(way(route, request))
            for way in (self._by_path, self._by_headers, self._by_query, self._by_body)
        ]
        pairs = [pair for pair in map(self._any, ways) if pair is not None]
        if not pairs:
            return
        pair = self._dice.choice(pairs)
        report = self.report
        report.pairs += 1
        report.kinds[pair.kind] += 1
        report.routes.add(f"{route.method} {route.path}")
        self._since.append(str(pair.there))
        for _ in range(TRIES):
            there = await self._asked(pair.there)
            nowhere = await self._asked(pair.nowhere)
            alike = _bare(there, pair.names, 0, is_write=route.is_write) == _bare(
                nowhere, pair.names, 1, is_write=route.is_write
            )
            if alike or route.is_write:
                break
        report.statuses[there.status] += 1
        if not alike and there.status < 400 and nowhere.status == CONFLICT:
            alike = await self._is_by_its_state(pair, request, there)
        if not alike:
            self._fail(pair, there, f"it differs from what is nowhere: {nowhere.status} ", nowhere)
        if there.status < 400 and route.is_write:
            await self._house.asks.settle()

    async def _is_by_its_state(self, pair: Pair, plain: Request, there: Answer) -> bool:
        """Tell whether what was granted once was refused then for what had come of the first.

        A wake, say, leaves nothing to wake. When all is at rest again, either the second is granted
        as well, or so is not even what names nothing of anybody's, and that in the same words.
        """
        wanted = _bare(there, pair.names, 0, is_write=True)
        for _ in range(TRIES):
            await self._house.asks.settle()
            second = await self._asked(pair.nowhere)
            refused = _bare(second, pair.names, 1, is_write=True)
            if refused == wanted:
                return True
            await self._house.asks.settle()
            third = await self._asked(plain)
            if second.status == CONFLICT and refused == _bare(third, pair.names, 1, is_write=True):
                return True
        return False

    async def _asked(self, request: Request) -> Answer:
        """Ask, and see that nothing of the other tenant is in the answer."""
        answer, report = await self._send(request), self.report
        report.requests += 1
        data = answer.body + repr(answer.headers).encode()
        report.size += len(data)
        if answer.status >= 500:
            self._fail_at(request, answer, "it is an error of the server's")
        report.own |= {one.text for one in self._house.asks.world.sower.found_in(data)}
        said = _said(request)
        if request.method != "GET" and answer.status < 400:  # what they have said themselves
            self._told |= set(_seen(self._house.rests, said))
        for place in _seen(self._house.rests, data):
            if place.encode() not in said and place not in self._told:
                self._fail_at(request, answer, f"it shows {place} of another tenant")
        return answer

    def compare(self) -> None:
        """See that the other tenant's rows are what they were."""
        after = self._house.stored()
        for table, rows in self._before.items():
            self.report.rows[table] += len(rows)
            changed = after[table] ^ rows
            if changed:
                self.report.failures.append(
                    f"rows of {table} of another tenant were changed: {list(changed)[:2]}\nby\n"
                    + "\n".join(f"  {said}" for said in self._since)
                )
        self._before = after
        self._since.clear()

    async def end(self) -> None:
        """See that nothing was changed, and that what must not be seen can be."""
        self.compare()
        rests = self._house.rests
        if not rests.has_its_claim:
            self.report.failures.append("the claim of another tenant was ended")
        paths = [one.path for one in ROUTES if one.method == "GET" and "{" not in one.path]
        paths += [f"/api/v1/executions/{id}/input" for id in self._ids]
        for path in paths:
            answer = await self._get(rests, path)
            self.report.theirs |= {one.encode() for one in _seen(rests, answer.body)}

    def _fail(self, pair: Pair, answer: Answer, fault: str, other: Answer) -> None:
        said = other.body[:400].decode("utf-8", "replace")
        self._fail_at(pair.there, answer, f"{pair.kind}: {fault}{said}")

    def _fail_at(self, request: Request, answer: Answer, fault: str) -> None:
        said = answer.body[:400].decode("utf-8", "replace")
        self.report.failures.append(f"{fault}\n  {request}\n  {answer.status} {said}")

    # Pairs

    def _any(self, found: Sequence[Pair]) -> Pair | None:
        return self._dice.choice(found) if found else None

    def _by_path(self, route: Route, request: Request) -> Iterator[Pair]:
        if not request.places:
            return
        name, value = next(iter(request.places.items()))
        prefix = route.path.partition(f"/{{{name}}}")[0]
        known = self._theirs.values.get(prefix) or ["of-umbrella"]
        there = self._dice.choice(known)
        nowhere = _never(there)
        pairs = [(there, nowhere)]
        made = []
        for of in (there, nowhere):
            first, mark, query = request.target.partition("?")
            path = first.replace(_quoted(value), _quoted(of), 1) + mark + query
            one = replace(request, target=path, places={**request.places, name: of})
            if name == "claim":
                token = self._house.rests.secrets["claim's token"]
                one = _with_field(one, "token", token if of == there else _never(token))
            made.append(one)
        yield Pair(f"path: {name}", made[0], made[1], tuple(pairs))

    def _by_headers(self, route: Route, request: Request) -> Iterator[Pair]:
        secrets, rests = self._house.rests.secrets, self._house.rests

        def pair(name: str, there: str, *drop: str, nowhere: str | None = None) -> Pair:
            other = nowhere or _never(there)
            kept = tuple(one for one in request.headers if one[0].decode() not in (name, *drop))
            made = [
                replace(request, headers=(*kept, (name.encode(), value.encode())))
                for value in (there, other)
            ]
            return Pair(f"header: {name}", made[0], made[1], ((there, other),))

        if not is_public(route):  # by that name, those are the other tenant's own doors
            yield pair(HEADER, rests.name)
            token = secrets[self._dice.choice(list(Role))]
            yield pair("authorization", f"Bearer {token}", "cookie")
            yield pair("cookie", f"{COOKIE}={secrets['session']}", "authorization")
        if route.key:
            yield pair("idempotency-key", self._key())
        if "If-Match" in route.headers:
            yield pair("if-match", '"2.1"', nowhere='"97.3"')
        if "Last-Event-ID" in route.headers and "{" not in route.path:
            yield pair("last-event-id", self._cursor)

    def _key(self) -> str:
        return f"own-of-umbrella-{self._dice.choice(AREAS)}"

    def _by_query(self, route: Route, request: Request) -> Iterator[Pair]:
        for one in msgspec.structs.fields(route.query):
            name = one.encode_name
            make = _QUERIES.get(name)
            if make is None:
                continue
            there = make(self)
            path, _, query = request.target.partition("?")
            kept = [part for part in query.split("&") if part and part.partition("=")[0] != name]
            made = [
                replace(request, target=f"{path}?" + "&".join([*kept, f"{name}={_quoted(value)}"]))
                for value in (there, _never(there))
            ]
            yield Pair(f"query: {name}", made[0], made[1], ((there, _never(there)),))

    def _by_body(self, route: Route, request: Request) -> Iterator[Pair]:
        if route.body is None:
            return
        for one in msgspec.structs.fields(route.body):
            make = _BODIES.get(one.encode_name)
            if make is None:
                continue
            said, there = make(self)
            made = [_with_field(request, one.encode_name, said(value))
                    for value in (there, _never(there))]  # fmt: skip
            yield Pair(f"body: {one.encode_name}", made[0], made[1], ((there, _never(there)),))

    def id(self) -> str:
        """Give the id of an execution of the other tenant."""
        return self._dice.choice(self._ids)

    def label(self) -> str:
        """Give a label of the other tenant."""
        found = self._house.rests.world.sower.sown.values()
        return self._dice.choice([one.text.decode() for one in found if one.place == "label"])

    def secret(self, name: str) -> str:
        """Give a secret of the other tenant."""
        return self._house.rests.secrets[name]


Make = Callable[[_Crossing], str]
_QUERIES: Final[dict[str, Make]] = {
    "cursor": _Crossing.id,
    "parent": _Crossing.id,
    "find": _Crossing.id,
    "after": lambda work: work._cursor,
    "schedule": lambda work: "schedule-of-umbrella",
    "origin": lambda work: "schedule:schedule-of-umbrella",
    "label": lambda work: "own=" + work.label(),
    "who": lambda work: "group:of-umbrella",
    "by": lambda work: "user:ada-of-umbrella",
    "target": lambda work: "user:ada-of-umbrella",
    "to": lambda work: "of-umbrella",
}
"""What of the other tenant's is put into a query, by the parameter's name."""


def _shuts_out(route: Route) -> bool:
    """Tell whether a route may take from callers what they ask with."""
    return route.tag == "access" and route.method != "POST"


def _plain(value: str) -> Any:
    return value


_BODIES: Final[dict[str, Callable[[_Crossing], tuple[Callable[[str], Any], str]]]] = {
    "after": lambda work: (lambda id: [{"id": id}], work.id()),
    "key": lambda work: (_plain, "own-of-umbrella-billing"),
    "id": lambda work: (_plain, work.id()),
    "filter": lambda work: (lambda id: {"parent": id}, work.id()),
    "token": lambda work: (_plain, work.secret("answer")),
    "owner": lambda work: (_plain, "ada-of-umbrella"),
    "who": lambda work: (_plain, "group:of-umbrella"),
    "name": lambda work: (_plain, "ada-of-umbrella"),
    "queue": lambda work: (_plain, "queue-of-umbrella"),
    "origin": lambda work: (_plain, "from-umbrella"),
    "labels": lambda work: (lambda value: {"own": value}, "of-umbrella"),
    "value": lambda work: (lambda value: {"id": value}, work.id()),
    "input": lambda work: (lambda value: {"a": value}, work.id()),
    "ledger_key": lambda work: (_plain, "own-of-umbrella"),
    "worker": lambda work: (_plain, "of-umbrella"),
}
"""What of the other tenant's is put into a body, by the field's name."""


def _without_key(request: Request) -> Request:
    try:
        body = json.loads(request.body)
    except ValueError:
        return request
    if not isinstance(body, dict) or "key" not in body:
        return request
    del body["key"]
    return replace(request, body=json.dumps(body).encode())


def _with_field(request: Request, name: str, value: Any) -> Request:
    try:
        body = json.loads(request.body)
    except ValueError:
        body = {}
    headers = request.headers
    if not request.body:
        headers = (*headers, (b"content-type", b"application/json"))
    if not isinstance(body, dict):
        return request
    return replace(request, body=json.dumps({**body, name: value}).encode(), headers=headers)


def _never(value: str) -> str:
    """Give something like a name, of as many characters, that is nobody's."""
    place = len(value) - 9 if len(value) > 20 else len(value) - 1
    old = value[place]
    digits = "0123456789"
    new = digits[(digits.index(old) + 1) % 10] if old in digits else "a" if old == "b" else "b"
    return value[:place] + new + value[place + 1 :]


def _quoted(value: str) -> str:
    from urllib.parse import quote

    return quote(value, safe="")


def _said(request: Request) -> bytes:
    from urllib.parse import unquote

    headers = repr(request.headers).encode()
    return unquote(request.target).encode() + request.body + headers


def _seen(twin: Twin, data: bytes) -> Iterator[str]:
    """Give what stands in an answer and is a tenant's: texts that were sown, and its ids."""
    for canary in twin.world.sower.found_in(data):
        yield canary.text.decode()
    for id in set(_EXECUTION.findall(data.decode("utf-8", "replace"))):
        if id in twin.world.ids:
            yield id
    if f"of-{twin.name}".encode() in data:
        yield f"of-{twin.name}"


def _bare(answer: Answer, names: Names, side: int, *, is_write: bool) -> tuple[int, bytes]:
    """Give what an answer says, without what was asked for and what is drawn for each."""
    headers = [f"{name}: {value}\n" for name, value in sorted(answer.headers.items())
               if name not in _OF_ITS_OWN]  # fmt: skip
    said = answer.body
    if answer.status < 400 and (is_write or LIVE in answer.headers["content-type"].encode()):
        # What was done is the caller's own, and each time something else; of what goes on there is
        # only a beginning, as long as the moment was.
        said = " ".join(sorted(json.loads(said))).encode() if said[:1] == b"{" else b""
    said += "".join(headers).encode()
    for pair in names:
        for form in (pair[side], _quoted(pair[side]), json.dumps(pair[side])[1:-1]):
            said = said.replace(form.encode(), b"NAME")
    return answer.status, _DRAWN.sub(b"DRAWN", said)


__all__ = ["Crossed", "crossing"]
