"""Look through a whole database: every log against its row, every other table against both.

It reads with a connection of its own, so that nobody waits, and a part at a time, so that the
write-ahead log can be emptied in between; what belongs together is read at one instant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
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
ROWS_AT_ONCE: Final = 1_000
"""Rows of logs after which a statement reads no more executions."""
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
            with reader.snapshot():
                strays = [str(id) for (id,) in reader.ask_all("stray_ids", {})]
                _verify_some(reader, strays, verdict)
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
            _verify_some(reader, ids, verdict)
        if len(ids) < AT_ONCE:
            break
        after = ids[-1]


def _verify_some(reader: Reader, ids: Sequence[str], verdict: Verdict) -> None:
    """Check executions that are read together, as far as their logs are short."""
    found = {str(row[1]): row for row in (reader.ask("executions_by_id", ids) if ids else ())}
    together, count = [], 0
    for id in ids:
        together.append(id)
        count += _length(found.get(id))
        if count >= ROWS_AT_ONCE:
            _verify_these(reader, together, found, verdict)
            together, count = [], 0
    if together:
        _verify_these(reader, together, found, verdict)


def _length(columns: Sequence[object] | None) -> int:
    """Say how long a log is by its row, which may be wrong."""
    said = columns[4] if columns else 1
    return said if isinstance(said, int) else 1


def _verify_these(
    reader: Reader, ids: Sequence[str], found: Mapping[str, Sequence[object]], verdict: Verdict
) -> None:
    logs, messages, spending = (defaultdict[str, list[Sequence[object]]](list) for _ in range(3))
    for row in reader.ask("logs", ids):
        logs[str(row[1])].append(row)
    for row in reader.ask("inboxes", ids):
        messages[str(row[8])].append(row[:8])
    for row in reader.ask("spendings", ids):
        spending[str(row[0])].append(row[1:])
    for id in ids:
        _verify_one(reader, id, found.get(id), logs[id], messages[id], spending[id], verdict)


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


def _verify_one(
    reader: Reader,
    id: str,
    columns: Sequence[object] | None,
    rows: Sequence[Sequence[object]],
    entries: Sequence[Sequence[object]],
    spent: Sequence[Sequence[object]],
    verdict: Verdict,
) -> None:
    try:
        record = None if columns is None else execution_of(columns)
        log = sorted(map(transition_of, rows), key=lambda row: row.seq)
        inbox = sorted(map(entry_of, entries), key=lambda entry: entry.number)
        verify_one(verdict, id, record, log, inbox)
        charged = charged_by(log)
        spending = {f"{scope}:{meter}": int(str(amount)) for scope, meter, amount in spent}
        if charged or spending:
            scopes = json_of(sorted({name.rpartition(":")[0] for name in charged}))
            bounds: dict[str, Value] = {"scopes": scopes, "after": "", "limit": -1}
            known = map(budget_of, reader.ask_all("budgets_of_scopes", bounds))
            verify_charges(verdict, id, charged, spending, {budget.name for budget in known})
    except (LookupError, ValueError, TypeError, AssertionError, msgspec.MsgspecError) as error:
        verdict.defects.append(f"{id}: what is stored is not what Outlast writes: {error!r}")
