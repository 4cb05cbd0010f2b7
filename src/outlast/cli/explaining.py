"""The command explain."""

from __future__ import annotations

import dataclasses

import click

from outlast.cli.explain import Explanation, explain, explanations
from outlast.cli.session import Session, shared


@click.command("explain")
@click.argument("code", required=False)
@shared
def explain_code(session: Session, code: str | None) -> None:
    """Explain an error code, offline; without one, list them all."""
    if code is None:
        every = list(explanations())
        if session.as_json:
            session.json([dataclasses.asdict(one) for one in every])
        elif session.output == "ids":
            session.out("\n".join(one.code for one in every))
        else:
            session.table(
                ["CODE", "EXIT", "MEANING"],
                [[(one.code, "bold"), str(one.exit_code), one.meaning] for one in every],
            )
        return
    found = explain(code)
    if session.as_json:
        session.json(dataclasses.asdict(found))
    else:
        session.out(text_of(found))


def text_of(one: Explanation) -> str:
    """Write an explanation for people."""
    lines = [f"{one.code}  {one.meaning}", f"  why     {one.why}"]
    label = "do"
    for remedy in one.do:
        lines.append(f"  {label:<7} {remedy}")
        label = ""
    lines.append(f"  class   outlast.errors.{one.name}, exit code {one.exit_code}")
    return "\n".join(lines)
