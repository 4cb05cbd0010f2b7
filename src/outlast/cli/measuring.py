"""What an execution took, told to people: outlast show ID --metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.cli.session import Cell, Session
from outlast.cli.words import moment, one_line
from outlast.duration import in_words

if TYPE_CHECKING:
    from outlast.engine.read.measures import Measures, StepMeasures

_MIB = 1024 * 1024


def show_measures(session: Session, measures: Measures) -> None:
    """Write what an execution took."""
    if session.as_json:
        from outlast.forms import measures_form

        session.json(measures_form(measures))
        return
    if session.output == "ids":
        session.out(measures.id)
        return
    session.out(
        f"{session.paint(measures.id, 'bold')}  {one_line(measures.task)}  {measures.state}"
    )
    session.out(f"  created   {moment(measures.created_at)}")
    if measures.started_at is not None:
        session.out(f"  started   {moment(measures.started_at)}")
    if measures.ended_at is not None:
        session.out(f"  ended     {moment(measures.ended_at)}")
    parts = {"queued": measures.queued_us, "run": measures.run_us, "parked": measures.parked_us}
    told = ", ".join(f"{name} {in_words(span)}" for name, span in parts.items() if span)
    session.out(f"  lasted    {in_words(measures.duration_us)}" + (f": {told}" if told else ""))
    session.out(
        f"  attempts  {measures.attempts}, {measures.retries} retries, {measures.claims} claims, "
        f"{measures.takeovers} takeovers"
    )
    if measures.cpu_us:
        session.out(f"  processor {in_words(measures.cpu_us)} in steps")
    if measures.memory_bytes is not None:
        session.out(f"  memory    {measures.memory_bytes / _MIB:.0f} MiB in a step's process")
    if measures.errors:
        said = ", ".join(f"{one_line(name, 60)} {n}" for name, n in measures.errors.items())
        session.out(f"  errors    {said}")
    if measures.steps:
        heads = ["STEP", "TRIES", "RAN", "WAITED", "PROCESSOR", "MEMORY", "ERRORS"]
        session.table(heads, [_row(step) for step in measures.steps])


def _row(step: StepMeasures) -> list[Cell]:
    waited = sum(one.waited_us for one in step.tries)
    cpu = sum(one.cpu_us or 0 for one in step.tries)
    memory = max((one.memory_bytes or 0 for one in step.tries), default=0)
    errors = [one.error for one in step.tries if one.error is not None]
    return [
        (one_line(step.key, 60), "bold"),
        str(len(step.tries)),
        in_words(step.ran_us) if step.ran_us else "<1ms",
        in_words(waited) if waited else "",
        in_words(cpu) if cpu else "",
        f"{memory / _MIB:.0f} MiB" if memory else "",
        one_line(", ".join(errors), 60),
    ]


__all__ = ["show_measures"]
