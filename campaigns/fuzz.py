"""Throw requests at the server that fit its OpenAPI document, and such that do not.

``python -m campaigns.fuzz [--requests N] [--seed S]`` serves an engine on a loopback port, with an
execution in each state that it can be brought into, and lets schemathesis make the requests of
every operation: half of them as the document says, half broken in some part. Its checks say that no
answer is an error of the server's, that each status and form is documented, that what is broken is
refused. ``tests/server/test_fuzz.py`` runs the short form.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import hypothesis
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from campaigns.drawing import drawn
from outlast import Engine, State, ask, sleep, step, stream, task
from outlast.engine.control.handle import Execution
from outlast.server.auth import FirstToken
from outlast.server.openapi import document
from outlast.server.serving import Address, serve
from outlast.server.table import ROUTES

TOKEN: Final = "a token for the fuzzer only"
EXCLUDED: Final = (
    "positive_data_acceptance",  # a task that is not there fits every schema
    "use_after_free",  # ended things stay readable here: nothing is freed
    "ensure_resource_availability",
    "missing_required_header",  # there is none but authorization
    "ignored_auth",
)


@step
async def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@task
async def total(a: int, b: int = 2) -> int:
    """Add two numbers, and say so."""
    await stream("said", a)
    return await add(a, b)


@task
async def asks(name: str) -> bool:
    """Ask somebody."""
    return await ask(f"Send {name}?", bool, to="ops")


@task
async def rests(span: str) -> None:
    """Sleep."""
    await sleep(span)


@task
async def fails(text: str) -> None:
    """Fail."""
    raise ValueError(text)


@dataclasses.dataclass
class Report:
    """What was sent, and what came."""

    requests: int = 0
    statuses: Counter[int] = dataclasses.field(default_factory=Counter)
    operations: Counter[str] = dataclasses.field(default_factory=Counter)
    failures: list[str] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def a_server() -> Iterator[tuple[str, list[str], str]]:
    """Serve; gives the URL, the ids of what is there, and that of one that has ended."""
    said: list[Any] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    until: asyncio.Future[None] = loop.create_future()

    async def main() -> None:
        engine = Engine("memory:", tasks=(total, asks, rests, fails))
        serving = asyncio.create_task(
            serve(engine, FirstToken.of(TOKEN), Address(port=0), said.append, until)
        )
        while not said:
            await asyncio.sleep(0.01)  # sleeps: for the thread of the server to listen
        said.extend(await _filled(engine))
        ready.set()
        await serving

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield said[0], said[1], said[2]
    finally:
        loop.call_soon_threadsafe(until.set_result, None)
        thread.join(30)
        loop.close()


async def _filled(engine: Engine) -> tuple[list[str], str]:
    """Make an execution for each state that it takes nobody's doing to come into."""
    done = await engine.astart(total, 1)
    await done.await_()
    bad = await engine.astart(fails, "no")
    await bad.await_()
    open_ones: list[Execution[Any]] = [
        await engine.astart(asks, "Ada"),
        await engine.astart(rests, "30d"),
        await engine.astart(rests, "30d"),
    ]
    await open_ones[2].apause()
    while (await open_ones[0].astatus()) is not State.AWAITING_INPUT:
        await engine.next_change(open_ones[0].id)
    return [done.id, bad.id, *(one.id for one in open_ones)], done.id


def fuzz(each: int, seed: int) -> Report:
    """Send ``each`` requests of both kinds to every operation."""
    report = Report()
    told = json.loads(json.dumps(document(ROUTES), default=str))
    for methods in told["paths"].values():
        for one in methods.values():
            del one["security"]  # every request has a token: tests/server/test_routes.py has none
    schema = schemathesis.openapi.from_dict(told, config=SchemathesisConfig())
    schema.config.checks.negative_data_rejection.expected_statuses += [
        "405", "408", "412", "413", "414", "421", "431",
    ]  # fmt: skip
    checks = [
        check for name in CHECKS.get_all_names() if name not in EXCLUDED
        for check in CHECKS.get_by_names([name])
    ]  # fmt: skip
    with a_server() as (url, ids, ended), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for found in schema.get_all_operations():
            assert isinstance(found, Ok)
            operation = found.ok()
            is_endless = operation.path.endswith(("/events", "/result"))
            ids_here = [ended] if is_endless else ids
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                _fuzz_one(operation, mode, url, ids_here, checks, each, seed, report)
    return report


def _fuzz_one(
    operation: Any,
    mode: GenerationMode,
    url: str,
    ids: Sequence[str],
    checks: list[Any],
    each: int,
    seed: int,
    report: Report,
) -> None:
    strategy = operation.as_strategy(generation_mode=mode)
    if "{id}" in operation.path:
        known = [
            operation.as_strategy(generation_mode=mode, path_parameters={"id": id}) for id in ids
        ]
        strategy = st.one_of(strategy, *known)

    @drawn(strategy, each, seed)
    def send(case: Any) -> None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        answer = case.call(base_url=url, headers=headers, timeout=20)
        report.requests += 1
        report.statuses[answer.status_code] += 1
        report.operations[f"{case.method} {case.path}"] += 1
        try:
            case.validate_response(answer, checks=checks)
        except FailureGroup as failures:
            for one in failures.exceptions:
                said = f"{case.method} {case.formatted_path}: {one.title}: {one.message}"
                report.failures.append(f"{said}\n  {case.as_curl_command()}\n  {answer.text[:300]}")

    with contextlib.suppress(hypothesis.errors.Unsatisfiable):
        send()


def main(words: Sequence[str]) -> int:
    """Run it; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(words)
    report = fuzz(max(1, asked.requests // (2 * len(ROUTES))), asked.seed)
    print(f"{report.requests} requests to {len(report.operations)} operations")
    print(", ".join(f"{status}: {count}" for status, count in sorted(report.statuses.items())))
    for failure in report.failures[:50]:
        print(failure)
    print(f"{len(report.failures)} failures")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
