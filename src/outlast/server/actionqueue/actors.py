"""Actors: workers that say who they are; their roles, and the ledger.

They take steps for other machines, by ``/api/v1/claims`` under their id.
"""

from __future__ import annotations

import base64
import uuid
from typing import Any, Final

from outlast.access import Grant, Role
from outlast.accounts.desk import Desk, checked_subject
from outlast.engine.steps.remote import Actor
from outlast.engine.task.registry import StartOptions, task
from outlast.engine.write.acting import deed
from outlast.server.actionqueue.names import RUN, checked_uuid, id_of, no_such, refusal, uuid_in
from outlast.server.actionqueue.runs import LIMIT, run_form, states_of
from outlast.server.call import Call, Reply
from outlast.server.tenants import see_default
from outlast.server.work import desk_of

_TENANT: Final = "aq-"
"""What the names of tenants that were made here begin with; then comes their id."""
ROLES: Final = {"Operator": Role.OPERATOR, "Auditor": Role.AUDITOR, "Gatekeeper": Role.OPERATOR}
CAPABILITIES: Final = {
    "CanSubmit": Role.SUBMITTER,
    "CanExecute": Role.WORKER,
    "CanReview": Role.PAYLOAD_READER,
    "CanApprove": Role.OPERATOR,
    "CanCancel": Role.OPERATOR,
}


@task(name="outlast.ledger", retention=None)
async def ledger(ledger_key: str, payload_base64: str, actor_id: str | None) -> int:
    """Keep an entry of the ledger: its input is the entry. Gives how long its payload is."""
    return len(base64.b64decode(payload_base64))


async def aq_add_tenant(call: Call) -> Reply:
    """Add a tenant under the id that the caller has for it; only the default one's callers may."""
    see_default(call)
    await call.engine.tenants.aadd(_TENANT + checked_uuid(call.body.tenant_id, "tenant"))
    return Reply(status=201)


def _see_own(call: Call) -> None:
    """See that a body that names a tenant names that of the request.

    Raises:
        BadRequest: it names another one; whether that is there is not told.
    """
    named = call.body.tenant_id
    if named is not None:
        id = checked_uuid(named, "tenant")
        if call.engine.tenant != _TENANT + id:
            raise no_such("tenant", id)


async def aq_register_actor(call: Call) -> dict[str, str]:
    """Register an actor; again under the same id, it is the same one, with what is said now."""
    body = call.body
    _see_own(call)
    id = str(uuid.uuid4()) if body.actor_id is None else checked_uuid(body.actor_id, "actor")
    call.asked = True
    actor = Actor(
        id, body.identity, tuple(body.capabilities), body.heartbeat_interval_secs, call.actor
    )
    desk_of(call).register(actor)
    return {"actor_id": id}


async def aq_beat_actor(call: Call) -> dict[str, str]:
    """Take an actor's sign of life."""
    desk_of(call).register(_actor(call))
    return {"status": "ok"}


async def aq_remove_actor(call: Call) -> dict[str, str]:
    """Let an actor go; what it has goes to others."""
    desk_of(call).remove(_actor(call).id)
    return {"status": "ok"}


async def aq_claimable(call: Call) -> dict[str, Any]:
    """List the runs that have a step for this actor; it claims them by ``/api/v1/claims``."""
    actor = _actor(call)
    found = desk_of(call).on_offer(actor.capabilities)
    records = [await call.engine.read_one(id) for id in found[:LIMIT]]
    seen = [one for one in records if call.listed(one.task)]
    words = await states_of(call, seen)
    return {"runs": [run_form(one, word) for one, word in zip(seen, words, strict=True)]}


async def aq_give_role(call: Call) -> None:
    """Give a role to the user that an actor's identity names."""
    await _give(call, ROLES.get(call.body.role), call.body.role, "role")


async def aq_give_capability(call: Call) -> None:
    """Let the user that an actor's identity names do something."""
    await _give(call, CAPABILITIES.get(call.body.capability), call.body.capability, "capability")


async def aq_append_ledger(call: Call) -> Reply:
    """Append an entry to the ledger: an execution that is kept for ever, sealed as all others."""
    body = call.body
    call.allow(ledger.name)
    _see_own(call)
    try:
        base64.b64decode(body.payload_base64, validate=True)
    except ValueError:  # no base64, or no ASCII at all
        raise refusal("invalid_payload", "payload_base64 is not base64") from None
    options = StartOptions(actor=call.actor, labels={"ledger_key": body.ledger_key})
    given = (body.ledger_key, body.payload_base64, body.actor_id)
    record, _ = await call.engine.astart_row(options, ledger, given, {})
    return Reply({"entry_id": id_of(record.id, RUN)}, 201)


async def _give(call: Call, role: Role | None, word: str, what: str) -> None:
    _see_own(call)
    actor = desk_of(call).actor(uuid_in(call, "actor"))
    if actor is None:
        raise no_such("actor", call.path["uuid"])
    if role is None:
        try:
            role = Role(word)
        except ValueError:
            said = f"there is no {what} {word!a}"
            raise refusal(f"unknown_{what}", said, what, word) from None
    done = deed()
    assert done is not None
    grant = Grant(role, tenant=call.tenant)
    access = call.engine.store.access
    subject = checked_subject(f"user:{actor.identity}")
    await call.engine.journal.call(lambda: Desk(access).give(subject, grant, done))


def _actor(call: Call) -> Actor:
    """Give the actor that the path names, to who has registered it."""
    call.asked = True
    id = uuid_in(call, "actor")
    actor = desk_of(call).actor(id)
    if actor is None or actor.registered_by != call.actor:
        raise no_such("actor", id)
    return actor
