"""Look through a whole database: every log against its row, every other table against both.

It reads with a connection of its own, so that nobody waits, and a part at a time, so that the
write-ahead log can be emptied in between; what belongs together is read at one instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from outlast.budget import charged_by
from outlast.errors import StoreBroken
from outlast.store.decisions import verify_charges, verify_one
from outlast.store.protocol import Verdict
from outlast.store.relational.budgets import budget_of
from outlast.store.relational.database import Reader, json_of
from outlast.store.relational.rows import Value, entry_of, execution_of, transition_of

if TYPE_CHECKING:
    from outlast.store.relational.store import RelationalStore

AT_ONCE: Final = 200
"""Executions that are read within one snapshot."""
DERIVED: Final = {
    "wrong_labels": "its labels are not those it is found by",
    "wrong_questions": "its open questions are not those it is found by",
    "wrong_descents": "its log does not say that it was made of what it is found by",
    "wrong_dependencies": "a dependency that its birth does not name: {}",
    "lost_dependencies": "it waits for {}, and nobody will tell it",
    "wrong_errands": "an errand that nobody owes it: {}",
    "lost_errands": "its parent {} has ended, and nobody will tell it",
    "wrong_children": "its parent {} has not made it",
    "wrong_schedules": "no schedule has made it: {}",
    "wrong_reservations": "it has set aside of a budget that there is not: {}",
    "wrong_streams": "its stream {} has a gap, or is nobody's",
    "stray_progress": "it says how far it is, and is not there",
    "left_permits": "its purge was not finished",
    "left_reseals": "its sealing anew was not finished",
    "wrong_sessions": "a session of a user who is not there, or may not sign in",
    "wrong_tokens": "a token of the user {}, who is not there",
    "wrong_grants": "the role {} of somebody who is not there",
}
"""Tables that say nothing of their own, and what it means where they say something else."""


def verify(store: RelationalStore) -> Verdict:
    """Look through the database of a store."""
    verdict = Verdict()
    try:
        verdict.defects += store.schedules.defects()
        verdict.defects += store.capacity.defects()
        verdict.defects += store.access.defects()
        with store.database.reader() as reader:
            verdict.defects += (f"the file: {said}" for said in reader.damage())
            for (stray,) in reader.ask_all("stray_ids", {}):
                _verify_one(reader, str(stray), verdict)
            with reader.snapshot():
                _verify_derived(reader, verdict)
            _verify_all(reader, verdict)
    except StoreBroken as error:
        verdict.defects.append(f"the file: {error.why}")
    return verdict


def _verify_all(reader: Reader, verdict: Verdict) -> None:
    after = ""
    while True:
        with reader.snapshot():
            bounds: dict[str, Value] = {"after": after, "limit": AT_ONCE}
            ids = [str(id) for (id,) in reader.ask_all("all_ids", bounds)]
            for id in ids:
                _verify_one(reader, id, verdict)
        if len(ids) < AT_ONCE:
            break
        after = ids[-1]


def _verify_derived(reader: Reader, verdict: Verdict) -> None:
    for name, said in DERIVED.items():
        for id, *besides in reader.ask_all(name, {}):
            verdict.defects.append(f"{id}: {said.format(*besides)}")
    for scope, meter, *counts in reader.ask_all("unbalanced_budgets", {}):
        verdict.defects.append(
            "budget {}:{}: it says {} charged where {} was, and {} reserved where {} is".format(
                scope, meter, *counts
            )
        )
    for scope, meter, *counts in reader.ask_all("miscounted_budgets", {}):
        verdict.defects.append(
            "budget {}:{}: it counts {} events where there are {}".format(scope, meter, *counts)
        )


def _verify_one(reader: Reader, id: str, verdict: Verdict) -> None:
    found = reader.ask("executions_by_id", [id])
    rows = reader.ask_all("log", {"id": id, "after": 0, "limit": -1})
    entries = reader.ask_all("inbox", {"id": id, "after": 0})
    try:
        record = execution_of(found[0]) if found else None
        log = list(map(transition_of, rows))
        verify_one(verdict, id, record, log, list(map(entry_of, entries)))
        charged = charged_by(log)
        spending = {
            f"{scope}:{meter}": int(str(amount))
            for scope, meter, amount in reader.ask_all("spending_of", {"id": id})
        }
        if charged or spending:
            scopes = json_of(sorted({name.rpartition(":")[0] for name in charged}))
            bounds: dict[str, Value] = {"scopes": scopes, "after": "", "limit": -1}
            known = map(budget_of, reader.ask_all("budgets_of_scopes", bounds))
            verify_charges(verdict, id, charged, spending, {budget.name for budget in known})
    except (LookupError, ValueError, TypeError, AssertionError, msgspec.MsgspecError) as error:
        verdict.defects.append(f"{id}: what is stored is not what Outlast writes: {error!r}")
