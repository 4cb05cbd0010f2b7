"""Look through a whole file: every log against its row, every other table against both.

It reads with a connection of its own, so that nobody waits, and a part at a time, so that the
write-ahead log can be emptied in between; what belongs together is read at one instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import apsw
import msgspec

from outlast.budget import charged_by
from outlast.errors import StoreBroken
from outlast.store.decisions import verify_charges, verify_one
from outlast.store.protocol import Verdict
from outlast.store.sqlite.ask import SQL, ask, json_of
from outlast.store.sqlite.budgets import budget_of
from outlast.store.sqlite.connect import open_reader, snapshot, translated
from outlast.store.sqlite.rows import entry_of, execution_of, transition_of

if TYPE_CHECKING:
    from outlast.store.sqlite.store import SqliteStore

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
}
"""Tables that say nothing of their own, and what it means where they say something else."""


def verify(store: SqliteStore) -> Verdict:
    """Look through the file of a store."""
    verdict = Verdict()
    reader = open_reader(store.path)
    try:
        verdict.defects += store.schedules.defects()
        verdict.defects += store.capacity.defects()
        with translated(store.path):
            for (said,) in reader.execute("PRAGMA integrity_check(10)").fetchall():
                if said != "ok":
                    verdict.defects.append(f"the file: {said}")
            for (stray,) in reader.execute(SQL["stray_ids"].text).fetchall():
                _verify_one(reader, str(stray), verdict)
            with snapshot(reader):
                _verify_derived(reader, verdict)
            after = ""
            while True:
                with snapshot(reader):
                    bounds = {"after": after, "limit": AT_ONCE}
                    ids = [str(id) for (id,) in reader.execute(SQL["all_ids"].text, bounds)]
                    for id in ids:
                        _verify_one(reader, id, verdict)
                if len(ids) < AT_ONCE:
                    break
                after = ids[-1]
            return verdict
    except StoreBroken as error:
        verdict.defects.append(f"the file: {error.why}")
        return verdict
    finally:
        reader.close()


def _verify_derived(reader: apsw.Connection, verdict: Verdict) -> None:
    for name, said in DERIVED.items():
        for id, *besides in reader.execute(SQL[name].text).fetchall():
            verdict.defects.append(f"{id}: {said.format(*besides)}")
    for scope, meter, *said in reader.execute(SQL["unbalanced_budgets"].text):
        verdict.defects.append(
            "budget {}:{}: it says {} charged where {} was, and {} reserved where {} is".format(
                scope, meter, *said
            )
        )
    for scope, meter, *said in reader.execute(SQL["miscounted_budgets"].text):
        verdict.defects.append(
            "budget {}:{}: it counts {} events where there are {}".format(scope, meter, *said)
        )


def _verify_one(reader: apsw.Connection, id: str, verdict: Verdict) -> None:
    found = ask(reader, SQL["executions_by_id"], [id])
    rows = reader.execute(SQL["log"].text, {"id": id, "after": 0, "limit": -1}).fetchall()
    entries = reader.execute(SQL["inbox"].text, {"id": id, "after": 0}).fetchall()
    try:
        record = execution_of(found[0]) if found else None
        log = list(map(transition_of, rows))
        verify_one(verdict, id, record, log, list(map(entry_of, entries)))
        charged = charged_by(log)
        spending = {
            f"{scope}:{meter}": int(str(amount))
            for scope, meter, amount in reader.execute(SQL["spending_of"].text, {"id": id})
        }
        if charged or spending:
            scopes = json_of(sorted({name.rpartition(":")[0] for name in charged}))
            bounds = {"scopes": scopes, "after": "", "limit": -1}
            known = map(budget_of, reader.execute(SQL["budgets_of_scopes"].text, bounds))
            verify_charges(verdict, id, charged, spending, {budget.name for budget in known})
    except (LookupError, ValueError, TypeError, AssertionError, msgspec.MsgspecError) as error:
        verdict.defects.append(f"{id}: what is stored is not what Outlast writes: {error!r}")
