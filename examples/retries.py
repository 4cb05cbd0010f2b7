"""Retries: how often, how far apart, which errors never, and when a service says when.

outlast run examples/retries.py:fetch_report
"""

from __future__ import annotations

from pathlib import Path

from outlast import Fatal, Retry, RetryAfter, step, task, this_step


class BadRequest(Exception):
    """The service will never take this, however often it is asked."""


@step(retries=Retry(5, base="100ms", cap="2s", give_up_on=(BadRequest,)), timeout="10s")
async def fetch(name: str) -> str:
    attempt = this_step().attempt
    if attempt == 1:
        raise ConnectionError("the service is not there yet")
    if attempt == 2:
        raise RetryAfter(0.2, "the service says: come back in 0.2 s")
    # The same key in every attempt: a service that knows it does not do the work twice.
    return f"{name}, asked for with {this_step().idempotency_key.rpartition(':')[2]}"


@step
async def save(text: str, path: str) -> str:
    if not text:
        raise Fatal("an empty report is no report")  # final at once, whatever the policy
    Path(path).write_text(text, encoding="utf-8")
    return path


@task
async def fetch_report(path: str = "report.txt") -> str:
    return await save(await fetch("the report"), path)
