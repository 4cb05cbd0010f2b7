"""The option --otel: hand on traces and metrics while a command runs executions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TYPE_CHECKING, Final

import click

from outlast.extras import needed

if TYPE_CHECKING:
    from outlast.engine.engine import Engine

OTEL: Final = click.option(
    "--otel",
    is_flag=True,
    help="Hand traces and metrics on by OTLP, as OTEL_EXPORTER_OTLP_ENDPOINT says.",
)


def telemetry(
    engine: Engine, *, wanted: bool, records: bool = True
) -> AbstractAsyncContextManager[object] | None:
    """Give what hands on traces and metrics of an engine, if that is wanted.

    What is logged is the process's own: of several engines in it, one has ``records``.

    Raises:
        CannotLoad: it needs packages that are not there.
    """
    if not wanted:
        return None
    with needed("otel", "OpenTelemetry"):
        from outlast.observe.otel import Telemetry
    return Telemetry(engine, records=records)


@contextmanager
def told(engine: Engine, *, wanted: bool) -> Iterator[None]:
    """Hand on traces and metrics of an engine with a loop of its own, while a block runs."""
    telling = telemetry(engine, wanted=wanted)
    if telling is None:
        yield
        return
    engine.run(telling.__aenter__())
    try:
        yield
    finally:
        if engine.is_open:
            engine.run(telling.__aexit__(None, None, None))


__all__ = ["OTEL", "telemetry", "told"]
