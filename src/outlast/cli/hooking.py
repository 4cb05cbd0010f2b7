"""The commands about webhooks: URLs that are told of what happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from outlast.cli.session import Cell, Session, shared
from outlast.cli.words import moment, now_us, one_line, until
from outlast.duration import in_words

if TYPE_CHECKING:
    from outlast.engine.control.webhooks import NewWebhook
    from outlast.store.webhooks import Delivery, Wanted, Webhook

_CONTEXT = {"help_option_names": ["-h", "--help"]}
_SHOWN = 20
_STYLES = {
    "active": ("● active", "cyan"),
    "paused": ("‖ paused", "yellow"),
    "disabled": ("✗ disabled", "red"),
}


@click.group(context_settings=_CONTEXT)
def webhook() -> None:
    """Webhooks: URLs that a server tells of what happens to executions.

    Each is told of what fits its filter, signed, in the order of each execution's log, again and
    again until it answers with 2xx.
    """


@webhook.command()
@click.argument("url")
@click.option("--task", metavar="NAME", help="Of executions of this task.")
@click.option("--prefix", metavar="TEXT", help="Of executions of tasks whose names begin so.")
@click.option("--state", metavar="STATES", default="", help="What led to one of these states.")
@click.option("--transition", metavar="KINDS", default="", help="These transitions.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="With this label.")
@click.option("--description", default="", metavar="TEXT", help="What it is for.")
@shared
def add(
    session: Session,
    url: str,
    task: str | None,
    prefix: str | None,
    state: str,
    transition: str,
    labels: tuple[str, ...],
    description: str,
) -> None:
    """Tell a URL of what happens from now on; the secret is shown this once.

    All that is given must hold; STATES and KINDS are words with commas between.
    """
    from outlast.cli.following import labels_of
    from outlast.engine.control.webhooks import wanted_of

    wanted = wanted_of(task, prefix, _words(state), _words(transition), labels_of(labels))
    with session.guest(make=True) as guest:
        made = guest.webhooks.add(url, wanted, description)
    _tell_secret(session, made)


@webhook.command("ls")
@shared
def ls(session: Session) -> None:
    """List the webhooks: where they lead, whether they fail, what waits."""
    with session.guest() as guest:
        found = guest.webhooks.all()
    if session.as_json:
        from outlast.forms import webhook_form

        session.json({"items": [webhook_form(row) for row in found]})
    elif session.output == "ids":
        for row in found:
            session.out(row.id)
    elif not found:
        session.say("no webhook: outlast webhook add URL makes one")
    else:
        heads = ["WEBHOOK", "STATE", "WAITING", "URL", "ABOUT", "FOR"]
        session.table(heads, [_row(row) for row in found])


@webhook.command()
@click.argument("id")
@click.option("--state", metavar="STATES", default="", help="Deliveries in these states only.")
@shared
def show(session: Session, id: str, state: str) -> None:
    """Show a webhook and what it was told last: what came of it, when it is tried next."""
    with session.guest() as guest:
        row = guest.webhooks.get(id)
        found = guest.webhooks.deliveries(id, states=_words(state), limit=_SHOWN)
    if session.as_json:
        from outlast.forms import delivery_form, webhook_form

        deliveries = [delivery_form(one) for one in found]
        session.json({**webhook_form(row), "deliveries": deliveries})
    elif session.output == "ids":
        for one in found:
            session.out(one.message_id)
    else:
        _show(session, row)
        if found:
            session.out("")
            heads = ["DELIVERY", "ABOUT", "STATE", "ATTEMPTS", "STATUS", "NEXT", "ERROR"]
            session.table(heads, [_delivery(one) for one in found])


@webhook.command()
@click.argument("id")
@shared
def rm(session: Session, id: str) -> None:
    """Delete a webhook, with what it has not delivered yet."""
    with session.guest() as guest:
        guest.webhooks.remove(id)
    if session.as_json:
        session.json({"id": id, "removed": True})
    else:
        session.out(id if session.output == "ids" else f"webhook {id} is deleted")


@webhook.command()
@click.argument("id")
@click.option("--why", metavar="TEXT", help="The reason, for whoever asks why.")
@shared
def pause(session: Session, id: str, why: str | None) -> None:
    """Deliver nothing until it is resumed; it goes on where it was, for up to seven days."""
    with session.guest() as guest:
        row = guest.webhooks.pause(id, why)
    _tell(session, row, "is paused")


@webhook.command()
@click.argument("id")
@shared
def resume(session: Session, id: str) -> None:
    """Deliver again, also where it was disabled; it goes on where it was."""
    with session.guest() as guest:
        row = guest.webhooks.resume(id)
    _tell(session, row, "is active")


@webhook.command()
@click.argument("id")
@click.option("--overlap", default="24h", show_default=True, help="How long both secrets sign.")
@shared
def rotate(session: Session, id: str, overlap: str) -> None:
    """Draw another secret, shown this once; the one before signs as well for a while."""
    with session.guest() as guest:
        made = guest.webhooks.rotate(id, overlap)
    _tell_secret(session, made)


@webhook.command()
@click.argument("id")
@shared
def ping(session: Session, id: str) -> None:
    """Send a delivery that tells of nothing, to see that it arrives."""
    with session.guest() as guest:
        made = guest.webhooks.ping(id)
    _tell_delivery(session, made)


@webhook.command()
@click.argument("id")
@click.argument("number", type=click.IntRange(1))
@shared
def redeliver(session: Session, id: str, number: int) -> None:
    """Deliver something again, at once and under the same id."""
    with session.guest() as guest:
        made = guest.webhooks.redeliver(id, number)
    _tell_delivery(session, made)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _tell_secret(session: Session, made: NewWebhook) -> None:
    if session.as_json:
        from outlast.forms import webhook_form

        session.json({"webhook": webhook_form(made.webhook), "secret": made.secret})
    elif session.output == "ids":
        session.out(made.webhook.id)
    else:
        session.out(f"webhook {made.webhook.id}: {one_line(made.webhook.terms.url)}")
        session.out(f"secret  {made.secret}")
        session.say("it is not shown again; outlast webhook rotate draws another one")


def _tell(session: Session, row: Webhook, said: str) -> None:
    if session.as_json:
        from outlast.forms import webhook_form

        session.json(webhook_form(row))
    else:
        session.out(row.id if session.output == "ids" else f"webhook {row.id} {said}")


def _tell_delivery(session: Session, made: Delivery) -> None:
    if session.as_json:
        from outlast.forms import delivery_form

        session.json(delivery_form(made))
    elif session.output == "ids":
        session.out(made.message_id)
    else:
        session.out(f"delivery {made.number} waits: outlast webhook show {made.webhook_id}")


def _row(row: Webhook) -> list[Cell]:
    return [
        (row.id, "bold"),
        _STYLES[row.state] if row.failing_since is None else ("✗ failing", "red"),
        str(row.pending),
        one_line(row.terms.url, 50),
        _about(row.terms.wanted),
        one_line(row.terms.description, 40) or "–",
    ]


def _about(wanted: Wanted) -> str:
    said = [f"{name} {value}" for name, value in _facts(wanted)]
    return one_line("; ".join(said) or "all that happens", 60)


def _facts(wanted: Wanted) -> list[tuple[str, str]]:
    found = [
        ("task", wanted.task or ""),
        ("prefix", wanted.prefix or ""),
        ("states", ", ".join(wanted.states)),
        ("transitions", ", ".join(wanted.transitions)),
        ("labels", ", ".join(f"{name}={value}" for name, value in wanted.labels.items())),
    ]
    return [(name, value) for name, value in found if value]


def _show(session: Session, row: Webhook) -> None:
    terms = row.terms
    told = [
        ("webhook", row.id),
        ("url", terms.url),
        ("about", _about(terms.wanted)),
        ("for", terms.description),
        ("state", f"{row.state}{': ' + terms.why if terms.why else ''}"),
        ("since", moment(row.created_at)),
        ("waiting", _waiting(row)),
        ("failing", "" if row.failing_since is None else f"since {moment(row.failing_since)}"),
    ]
    for name, value in told:
        if value:
            session.out(f"{name:<9}{one_line(value)}")


def _waiting(row: Webhook) -> str:
    if row.waiting_since is None:
        return "nothing"
    age = in_words(max(0, now_us() - row.waiting_since))
    return f"{row.pending}, the oldest for {age}"


def _delivery(one: Delivery) -> list[Cell]:
    is_pending = one.state == "pending"
    return [
        str(one.number),
        f"{one.execution_id} {one.seq}" if one.execution_id else str(one.kind),
        str(one.state),
        str(one.attempts),
        "–" if one.status is None else str(one.status),
        until(one.next_at, now_us()) if is_pending and one.attempts else "–",
        one_line(one.error or "–", 60),
    ]


__all__ = ["webhook"]
