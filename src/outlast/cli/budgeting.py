"""The commands about budgets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from outlast.budget import shown
from outlast.cli.session import Cell, Session, shared
from outlast.cli.words import moment, now_us
from outlast.errors import NotFound, OutlastError, UsageError

if TYPE_CHECKING:
    from outlast.engine.guest import Guest
    from outlast.store.protocol import BudgetEvent, BudgetRow

_WORDS = {
    "set": "set",
    "raised": "raised",
    "reset": "reset: nothing is spent",
    "turned": "its period begins anew",
    "soft": "the soft limit is reached",
    "spent_up": "nothing is left",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def budget() -> None:
    """Limit what is spent: list budgets, set them, raise them, begin anew.

    SCOPE is task:NAME, tenant, or an execution's id for a budget of its own. An engine that runs
    takes up what is changed here within 100 ms, and executions that were suspended go on.
    """


@budget.command()
@shared
def ls(session: Session) -> None:
    """List the budgets of tasks and of the tenant."""
    with session.guest() as guest:
        rows = guest.store.budgets()
    _list(session, rows)


@budget.command()
@click.argument("scope")
@shared
def show(session: Session, scope: str) -> None:
    """Show the budgets of a scope, and what happened to them."""
    with session.guest() as guest:
        scopes = _scopes(guest, scope)
        rows = guest.store.budgets(scopes)
        events = [
            event for row in rows for event in guest.store.budget_events(row.scope, row.meter)
        ]
    if not rows:
        raise NotFound(f"{scope} has no budget", do=f"outlast budget set {scope} METER=AMOUNT")
    if session.as_json:
        from outlast.forms import budget_form, event_form

        items = [budget_form(row) for row in rows]
        session.json({"items": items, "events": [event_form(event) for event in events]})
        return
    _list(session, rows)
    for event in sorted(events, key=lambda event: event.at):
        session.out(f"{moment(event.at)}  {_told(event)}")


def _told(event: BudgetEvent) -> str:
    limit = "no limit" if event.limit is None else f"of {shown(event.limit)}"
    by = event.execution_id or event.actor
    meter = event.name.rpartition(":")[2]
    return f"{meter} {_WORDS[event.what]}: {shown(event.spent)} {limit} spent ({by})"


@budget.command("set")
@click.argument("scope")
@click.argument("amounts", nargs=-1, required=True, metavar="METER=AMOUNT…")
@click.option("--soft", type=float, help="Record when this share of a limit is spent: 0.8.")
@click.option("--period", metavar="DURATION", help="Begin anew every so often: 1d.")
@shared
def set_(
    session: Session, scope: str, amounts: Sequence[str], soft: float | None, period: str | None
) -> None:
    """Give a scope its limits, as usd=50; METER=none only counts."""
    from outlast.budget import share_of
    from outlast.duration import microseconds
    from outlast.engine.control.budgets import limits_of

    limits = limits_of({meter: None if said == "none" else said for meter, said in _pairs(amounts)})
    period_us = None if period is None else microseconds(period)
    _change(session, scope, "set", limits, soft=share_of(soft), period_us=period_us)


@budget.command("raise")
@click.argument("scope")
@click.argument("amounts", nargs=-1, required=True, metavar="METER=AMOUNT…")
@shared
def raise_(session: Session, scope: str, amounts: Sequence[str]) -> None:
    """Raise limits by so much, as usd=1; what is suspended for them goes on."""
    from outlast.budget import amounts_of

    _change(session, scope, "raised", amounts_of(dict(_pairs(amounts)), "raise"))


@budget.command()
@click.argument("scope")
@click.argument("meters", nargs=-1, metavar="[METER]…")
@shared
def reset(session: Session, scope: str, meters: Sequence[str]) -> None:
    """Begin anew: nothing is spent; by default on every meter of the scope."""
    with session.guest() as guest:
        rows = guest.store.budgets(_scopes(guest, scope))
    _change(session, scope, "reset", dict.fromkeys(meters or [row.meter for row in rows]))


def _change(session: Session, scope: str, what: str, amounts: dict[str, Any], **more: Any) -> None:
    from outlast.engine.control.budgets import adjustment, check_open, no_budget, read_adjusted

    if not amounts:
        raise no_budget(scope)
    with session.guest() as guest:
        scopes = _scopes(guest, scope)
        there = {row.scope for row in guest.store.budgets(scopes)}
        named = next((one for one in scopes if one in there), scopes[0])
        if what == "set" and named.startswith("execution:"):
            check_open(guest.record(named.partition(":")[2]))
        item = adjustment(what, named, amounts, "user", now_us(), **more)
        rows = read_adjusted(guest.adjust(item), item)
    _list(session, rows)


def _pairs(amounts: Iterable[str]) -> list[tuple[str, str]]:
    pairs = []
    for text in amounts:
        meter, equals, amount = text.partition("=")
        if not equals:
            raise UsageError(f'"{text[:80]}" is no amount on a meter', do="write usd=50")
        pairs.append((meter, amount))
    return pairs


def _scopes(guest: Guest, text: str) -> list[str]:
    """Give the scopes that somebody means: a scope, or an execution's own."""
    from outlast.budget import checked_scope
    from outlast.engine.control.budgets import own_scopes

    try:
        return [checked_scope(text)]
    except OutlastError:
        return own_scopes(guest.find(text))


def _list(session: Session, rows: Sequence[BudgetRow]) -> None:
    if session.as_json:
        from outlast.forms import budget_form

        session.json({"items": [budget_form(row) for row in rows]})
    elif session.output == "ids":
        for row in rows:
            session.out(row.name)
    elif not rows:
        session.say("no budget; set one with: outlast budget set task:NAME usd=50")
    else:
        heads = ["SCOPE", "METER", "SPENT", "RESERVED", "LIMIT", "LEFT", "BEGINS ANEW"]
        session.table(heads, [_row(row) for row in rows])


def _row(row: BudgetRow) -> list[Cell]:
    left = row.left
    return [
        (row.scope, "bold"),
        row.meter,
        shown(row.spent),
        shown(row.reserved),
        "none" if row.limit is None else shown(row.limit),
        "–" if left is None else (shown(left), "red" if left <= 0 else "green"),
        "–" if row.turns_at is None else moment(row.turns_at),
    ]


def in_a_line(row: BudgetRow) -> str:
    """Say what was spent of a budget."""
    reserved = f", {shown(row.reserved)} reserved" if row.reserved else ""
    limit = "" if row.limit is None else f" of {shown(row.limit)}"
    tree = " (with all it made)" if row.scope.startswith("tree:") else ""
    return f"{row.meter} {shown(row.spent)}{limit} spent{reserved}{tree}"


__all__ = ["budget", "in_a_line"]
