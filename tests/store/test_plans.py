"""Query plans of the hot statements, recorded: each goes by its index and none turns into a scan."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from outlast.lifecycle import Decision, Event, Kind, decide
from outlast.store.protocol import Item
from outlast.store.relational.rows import CLAIMED
from outlast.store.relational.secrecy import SEALED
from outlast.store.sql import KEPT_ROWS_MAX, PADDED, TEXT_MAX, Statement, load
from outlast.store.sqlite.connect import open_reader
from outlast.store.sqlite.store import SqliteStore
from outlast.testing.conformance import T, begun, born

SQL = load("outlast.store.sqlite")
FILES = {
    name: "\n".join((file.read_text("utf-8")) for file in [Path(str(path))])
    for path in (Path(__file__).parents[2] / "src/outlast/store/sqlite").glob("*.sql")
    for name in [path.name]
}
SOURCE = "".join(
    file.read_text("utf-8")
    for folder in ("relational", "sqlite")
    for file in (Path(__file__).parents[2] / "src/outlast/store" / folder).glob("*.py")
)

# One line of a plan each, the parts that matter; "v" is the batch's own rows.
PLANS = {
    "webhook_by_id": [
        "SEARCH w USING PRIMARY KEY (tenant=? AND id=?)",
        "SEARCH d USING COVERING INDEX webhook_delivery_pending (tenant=? AND webhook_id=?)",
        "SEARCH d USING INDEX webhook_delivery_pending (tenant=? AND webhook_id=?)",
    ],
    "save_webhook": ["SEARCH webhook USING PRIMARY KEY (tenant=? AND id=?)"],
    "delete_webhook": ["SEARCH webhook USING PRIMARY KEY (tenant=? AND id=?)"],
    "move_webhook": ["SEARCH webhook USING PRIMARY KEY (tenant=? AND id=?)"],
    "number_deliveries": ["SEARCH webhook USING PRIMARY KEY (tenant=? AND id=?)"],
    "numbered": ["SEARCH webhook USING PRIMARY KEY (tenant=? AND id=?)"],
    "note_attempt": [
        "SEARCH webhook USING PRIMARY KEY (tenant=? AND id=?)",
        "SEARCH d USING PRIMARY KEY (tenant=? AND webhook_id=? AND number=?)",
    ],
    "note_delivery": [
        "SEARCH webhook_delivery USING PRIMARY KEY (tenant=? AND webhook_id=? AND number=?)"
    ],
    "redeliver": [
        "SEARCH webhook_delivery USING PRIMARY KEY (tenant=? AND webhook_id=? AND number=?)"
    ],
    "deliveries": [
        "SEARCH d USING PRIMARY KEY (tenant=? AND webhook_id=? AND number<?)",
    ],
    "delete_deliveries": [
        "SEARCH webhook_delivery USING PRIMARY KEY (tenant=? AND webhook_id=?)",
    ],
    "prune_deliveries": [
        "SEARCH webhook_delivery USING PRIMARY KEY (tenant=? AND webhook_id=? AND number=?)",
        "SEARCH d USING INDEX webhook_delivery_over (tenant=? AND created_at<?)",
    ],
    "let_webhooks_go": ["SEARCH webhook_sender USING INTEGER PRIMARY KEY (rowid=?)"],
    "feed_rows": [
        "SEARCH f USING INTEGER PRIMARY KEY (rowid>?)",
        "SEARCH t USING PRIMARY KEY (tenant=? AND execution_id=? AND seq=?) LEFT-JOIN",
        "SEARCH e USING PRIMARY KEY (tenant=? AND id=?) LEFT-JOIN",
    ],
    "prune_feed": ["SEARCH feed USING INTEGER PRIMARY KEY (rowid<?)"],
    "note_pruned": ["SEARCH feed_state USING INTEGER PRIMARY KEY (rowid=?)"],
    "hold_export": ["SEARCH feed_state USING INTEGER PRIMARY KEY (rowid=?)"],
    "note_exported": ["SEARCH feed_state USING INTEGER PRIMARY KEY (rowid=?)"],
    "exported": ["SEARCH feed_state USING INTEGER PRIMARY KEY (rowid=?)"],
    "end_feed": ["SEARCH feed_state USING INTEGER PRIMARY KEY (rowid=?)"],
    "lose_feed": ["SEARCH feed_state USING INTEGER PRIMARY KEY (rowid=?)"],
    "account_by_name": ["SEARCH account USING PRIMARY KEY (tenant=? AND name=?)"],
    "set_password": ["SEARCH account USING PRIMARY KEY (tenant=? AND name=?)"],
    "hold_account": ["SEARCH account USING PRIMARY KEY (tenant=? AND name=?)"],
    "set_disabled": ["SEARCH account USING PRIMARY KEY (tenant=? AND name=?)"],
    "grants_of": ["SEARCH role_grant USING PRIMARY KEY (tenant=? AND subject=?)"],
    "delete_grant": ["SEARCH role_grant USING PRIMARY KEY (tenant=? AND subject=? AND role=?"],
    "token_by_id": ["SEARCH token USING PRIMARY KEY (tenant=? AND id=?)"],
    "revoke_token": ["SEARCH token USING PRIMARY KEY (tenant=? AND id=?)"],
    "use_token": ["SEARCH token USING PRIMARY KEY (tenant=? AND id=?)"],
    "session_by_digest": ["SEARCH session USING PRIMARY KEY (tenant=? AND digest=?)"],
    "see_session": ["SEARCH session USING PRIMARY KEY (tenant=? AND digest=?)"],
    "end_session": ["SEARCH session USING PRIMARY KEY (tenant=? AND digest=?)"],
    "end_sessions": ["SEARCH session USING INDEX session_of_account (tenant=? AND account=?)"],
    "expire_sessions": ["SEARCH session USING INDEX session_expires (tenant=? AND expires_at<?)"],
    "sign_in": ["SEARCH sign_in USING PRIMARY KEY (tenant=? AND digest=?)"],
    "forgive_sign_in": ["SEARCH sign_in USING PRIMARY KEY (tenant=? AND digest=?)"],
    "forget_sign_ins": ["SEARCH sign_in USING INDEX sign_in_next (tenant=? AND next_at<?)"],
    "audit_head": ["SEARCH audit_head USING PRIMARY KEY (tenant=?)"],
    "refused_heads": ["SEARCH e USING PRIMARY KEY (tenant=? AND id=?) LEFT-JOIN"],
    "first_between": [
        "SEARCH execution USING PRIMARY KEY (tenant=? AND id>? AND id<?)",
        "SEARCH tenant USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "taken_ids": ["SEARCH execution USING PRIMARY KEY (tenant=? AND id=?)"],
    "move_executions": ["SEARCH execution USING PRIMARY KEY (tenant=? AND id=?)"],
    "save_executions": ["SEARCH execution USING PRIMARY KEY (tenant=? AND id=?)"],
    "claim_executions": ["SEARCH execution USING PRIMARY KEY (tenant=? AND id=?)"],
    "save_told_executions": ["SEARCH execution USING PRIMARY KEY (tenant=? AND id=?)"],
    "count_messages": ["SEARCH execution USING PRIMARY KEY (tenant=? AND id=?)"],
    "earlier_messages": [
        "SCAN v",
        "SEARCH i USING INDEX sqlite_autoindex_inbox_2 (tenant=? AND execution_id=? AND id=?)",
        "SCAN v",
        "SEARCH i USING INDEX inbox_one_answer (tenant=? AND execution_id=? AND key=?)",
    ],
    "executions_by_id": ["SEARCH execution USING PRIMARY KEY (tenant=? AND id=?)"],
    "executions_by_key": ["SEARCH execution USING INDEX execution_by_key (tenant=? AND key=?)"],
    "queued_executions": [
        "SEARCH e USING INDEX execution_queued (tenant=? AND queue=? AND <expr>=? AND <expr>>?)",
        "SEARCH t USING PRIMARY KEY (tenant=? AND execution_id=? AND seq=?)",
    ],
    "due_executions": [
        "SEARCH execution USING INDEX execution_due (tenant=? AND due_at>? AND due_at<?)"
    ],
    "overdue_executions": [
        "SEARCH execution USING INDEX execution_deadline (tenant=? AND deadline_at>? AND deadline_at<?)"
    ],
    "unstarted_executions": [
        "SEARCH execution USING INDEX execution_start_by (tenant=? AND start_by>? AND start_by<?)"
    ],
    "next_due": [
        "SEARCH execution USING INDEX execution_due (tenant=? AND due_at>?)",
        "SEARCH execution USING INDEX execution_deadline (tenant=? AND deadline_at>?)",
        "SEARCH execution USING INDEX execution_start_by (tenant=? AND start_by>?)",
        "SEARCH line USING COVERING INDEX line_opens (tenant=? AND look_at>?)",
    ],
    "waiting_codes": [
        "SEARCH execution USING INDEX execution_queued (tenant=? AND queue=?)",
        "SEARCH e USING INDEX execution_queued (tenant=? AND queue=? AND <expr>>?)",
    ],
    "waiting_queues": [
        "SEARCH execution USING COVERING INDEX execution_queued (tenant=?)",
        "SEARCH e USING COVERING INDEX execution_queued (tenant=? AND queue>?)",
        "SEARCH s USING PRIMARY KEY (tenant=? AND name=?) LEFT-JOIN",
        "SEARCH line USING COVERING INDEX line_look (tenant=?)",
        "SEARCH l USING COVERING INDEX line_look (tenant=? AND queue>?)",
        "SEARCH s USING PRIMARY KEY (tenant=? AND name=?) LEFT-JOIN",
    ],
    "epoch_losses": ["SEARCH epoch_loss USING PRIMARY KEY (tenant=? AND epoch=?)"],
    "insert_epoch_loss": ["SEARCH l USING PRIMARY KEY (tenant=? AND epoch=? AND worker=?)"],
    "identity": ["SEARCH sight USING PRIMARY KEY (tenant=?)"],
    "open_lines": [
        "SEARCH line USING COVERING INDEX line_look (tenant=? AND queue=? AND look_at>? AND look_at<?)"
    ],
    "look_for_capabilities": ["SEARCH line USING PRIMARY KEY (tenant=? AND gate=?)"],
    "blocked_executions": [
        "SEARCH e USING INDEX execution_blocked (tenant=? AND <expr>=? AND queue=? AND <expr>>?)",
        "SEARCH t USING PRIMARY KEY (tenant=? AND execution_id=? AND seq=?)",
    ],
    "end_empty_lines": [
        "SEARCH line USING PRIMARY KEY (tenant=? AND gate=? AND queue=?)",
        "SEARCH e USING INDEX execution_blocked (tenant=? AND <expr>=? AND queue=?)",
    ],
    "close_lines": ["SEARCH line USING PRIMARY KEY (tenant=? AND gate=? AND queue=?)"],
    "holders": ["SEARCH holder USING PRIMARY KEY (tenant=? AND gate=?)"],
    "queue_holders": ["SEARCH execution USING COVERING INDEX execution_leased (tenant=?"],
    "arrival": ["SEARCH rate USING PRIMARY KEY (tenant=? AND gate=?)"],
    "end_rates": ["SEARCH rate USING COVERING INDEX rate_arrival (tenant=? AND arrival_at<?)"],
    "gate_setting": ["SEARCH gate_setting USING PRIMARY KEY (tenant=? AND gate=?)"],
    "queue_setting": ["SEARCH queue_setting USING PRIMARY KEY (tenant=? AND name=?)"],
    "end_gate_setting": ["SEARCH gate_setting USING PRIMARY KEY (tenant=? AND gate=?)"],
    "look_at_gate": ["SEARCH line USING PRIMARY KEY (tenant=? AND gate>? AND gate<?)"],
    "place_in_queue": ["SEARCH e USING INDEX execution_queued (tenant=? AND queue=?)"],
    "place_in_line": ["SEARCH e USING INDEX execution_blocked (tenant=? AND <expr>=?)"],
    "leased_executions": ["SEARCH execution USING INDEX execution_leased (tenant=? AND worker>?)"],
    "unread_executions": ["SEARCH execution USING INDEX execution_leased (tenant=? AND worker=?)"],
    "renew_worker": ["SEARCH worker USING PRIMARY KEY (tenant=? AND id=?)"],
    "leave_worker": ["SEARCH worker USING PRIMARY KEY (tenant=? AND id=?)"],
    "executions_page": ["SEARCH execution USING PRIMARY KEY (tenant=? AND id>? AND id<?)"],
    "executions_floor": ["SEARCH execution USING PRIMARY KEY (tenant=? AND id>? AND id<?)"],
    "task_ids": [
        (
            "SEARCH execution USING COVERING INDEX execution_by_task "
            "(tenant=? AND task=? AND id>? AND id<?)"
        )
    ],
    "picked_page": ["SEARCH execution USING PRIMARY KEY (tenant=? AND id=?)"],
    "task_floor": [
        (
            "SEARCH execution USING COVERING INDEX execution_by_task "
            "(tenant=? AND task=? AND id>? AND id<?)"
        )
    ],
    "ended_page": [
        "SEARCH execution USING INDEX execution_ended (tenant=? AND state=? AND id>? AND id<?)"
    ],
    "ended_floor": [
        (
            "SEARCH execution USING COVERING INDEX execution_ended "
            "(tenant=? AND state=? AND id>? AND id<?)"
        )
    ],
    "parked_page": [
        "SEARCH execution USING INDEX execution_parked (tenant=? AND state=? AND id>? AND id<?)"
    ],
    "parked_floor": [
        (
            "SEARCH execution USING COVERING INDEX execution_parked "
            "(tenant=? AND state=? AND id>? AND id<?)"
        )
    ],
    "many_open": [
        "SEARCH execution USING COVERING INDEX execution_queued (tenant=?)",
        "SEARCH execution USING COVERING INDEX execution_leased (tenant=? AND worker>?)",
        "SEARCH execution USING COVERING INDEX execution_parked (tenant=? AND state=?)",
    ],
    "open_executions_page": ["SEARCH execution USING PRIMARY KEY (tenant=? AND id=?)"],
    "labelled_page": [
        (
            "SEARCH l USING PRIMARY KEY "
            "(tenant=? AND name=? AND value=? AND execution_id>? AND execution_id<?)"
        ),
        "SEARCH e USING PRIMARY KEY (tenant=? AND id=?)",
        "SEARCH o USING PRIMARY KEY (tenant=? AND name=? AND value=? AND execution_id=?)",
    ],
    "labelled_floor": [
        (
            "SEARCH label USING PRIMARY KEY "
            "(tenant=? AND name=? AND value=? AND execution_id>? AND execution_id<?)"
        )
    ],
    "descents": [
        "SEARCH descent USING PRIMARY KEY (tenant=? AND id=?)",
        "SEARCH descent USING INDEX descent_of_source (tenant=? AND source_id=?)",
    ],
    "ids_beginning": ["SEARCH execution USING PRIMARY KEY (tenant=? AND id>? AND id<?)"],
    "open_counts": [
        "SEARCH execution USING COVERING INDEX execution_queued (tenant=?)",
        "SEARCH execution USING INDEX execution_leased (tenant=? AND worker>?)",
        "SEARCH execution USING COVERING INDEX execution_parked (tenant=? AND state=?)",
    ],
    "overdue": ["SEARCH execution USING INDEX execution_due (tenant=? AND due_at>? AND due_at<?)"],
    "ended_counts": [
        "SEARCH execution USING COVERING INDEX execution_ended (tenant=? AND state=?)",
    ],
    "queue_census": [
        "SEARCH execution USING COVERING INDEX execution_queued (tenant=?)",
        "SEARCH execution USING COVERING INDEX execution_leased (tenant=? AND worker>?)",
    ],
    "ended_executions": ["SEARCH execution USING PRIMARY KEY (tenant=? AND id>? AND id<?)"],
    "purge_transitions": ["SEARCH transition USING PRIMARY KEY (tenant=? AND execution_id=?)"],
    "purge_messages": ["SEARCH inbox USING PRIMARY KEY (tenant=? AND execution_id=?)"],
    "purge_executions": ["SEARCH execution USING PRIMARY KEY (tenant=? AND id=?)"],
    "permit_purge": ["SEARCH e USING PRIMARY KEY (tenant=? AND id=?)"],
    "logs": [
        "SEARCH t USING PRIMARY KEY (tenant=? AND execution_id=?)",
    ],
    "log": ["SEARCH transition USING PRIMARY KEY (tenant=? AND execution_id=? AND seq>?)"],
    "inboxes": ["SEARCH i USING PRIMARY KEY (tenant=? AND execution_id=?)"],
    "inbox": ["SEARCH inbox USING PRIMARY KEY (tenant=? AND execution_id=? AND number>?)"],
    "insert_errands": [
        "SCAN v",
        "SEARCH d USING COVERING INDEX dependency_watched (tenant=? AND watched_id=?)",
        "SCAN v",
        "SEARCH c USING INDEX execution_children (tenant=? AND parent_id=?)",
    ],
    "owing": [
        "SEARCH d USING PRIMARY KEY (tenant=? AND execution_id=? AND upstream_id=?)",
    ],
    "owe_successor": ["SEARCH p USING PRIMARY KEY (tenant=? AND id=?)"],
    "purge_dependencies": ["SEARCH dependency USING PRIMARY KEY (tenant=? AND execution_id=?)"],
    "purge_watched": [
        "SEARCH dependency USING COVERING INDEX dependency_watched (tenant=? AND watched_id=?)"
    ],
    "watch_successor": [
        "SEARCH dependency USING COVERING INDEX dependency_watched (tenant=? AND watched_id=?)"
    ],
    "children_page": [
        (
            "SEARCH execution USING INDEX execution_children "
            "(tenant=? AND parent_id=? AND id>? AND id<?)"
        )
    ],
    "children_floor": [
        (
            "SEARCH execution USING COVERING INDEX execution_children "
            "(tenant=? AND parent_id=? AND id>? AND id<?)"
        )
    ],
    "end_errands": ["SEARCH errand USING COVERING INDEX errand_next (tenant=? AND number=?)"],
    "schedule_by_name": ["SEARCH schedule USING PRIMARY KEY (tenant=? AND name=?)"],
    "schedules_page": ["SEARCH schedule USING PRIMARY KEY (tenant=? AND name>?)"],
    "due_schedules": [
        "SEARCH schedule USING INDEX schedule_due (tenant=? AND next_at>? AND next_at<?)"
    ],
    "next_schedule_at": [
        "SEARCH schedule USING COVERING INDEX schedule_due (tenant=? AND next_at>?)"
    ],
    "freed_schedules": [
        "SEARCH s USING INDEX schedule_waiting (tenant=?)",
        "SEARCH e USING INDEX execution_by_origin (tenant=? AND origin=?)",
    ],
    "open_of_origin": ["SEARCH execution USING INDEX execution_by_origin (tenant=? AND origin=?)"],
    "save_schedule": ["SEARCH schedule USING PRIMARY KEY (tenant=? AND name=?)"],
    "schedule_log": ["SEARCH schedule_entry USING PRIMARY KEY (tenant=? AND name=? AND seq<?)"],
    "fate_of_slot": ["SEARCH schedule_entry USING PRIMARY KEY (tenant=? AND name=?)"],
    "prune_schedule_log": ["SEARCH e USING COVERING INDEX schedule_entry_at (tenant=? AND at<?)"],
    "secret": ["SEARCH secret USING PRIMARY KEY (tenant=? AND name=?)"],
    "all_ids": ["SEARCH execution USING PRIMARY KEY (tenant=? AND id>?)"],
}
ASKING = [
    "SEARCH question USING PRIMARY KEY (tenant=? AND execution_id",
    "SEARCH question USING COVERING INDEX question_recipient (tenant=? AND recipient=?",
    "SEARCH e USING INDEX execution_leased (tenant=? AND worker>?)",
    "SEARCH t",
    "SEARCH e USING INDEX execution_queued (tenant=?)",
    "SEARCH t",
    "SEARCH e USING INDEX execution_parked (tenant=? AND state=? AND id",
    "SEARCH t",
]
_WEBHOOK = ["SEARCH webhook USING PRIMARY KEY (tenant=? AND id=?)"]
_DELIVERY = [
    "SEARCH webhook_delivery USING PRIMARY KEY (tenant=? AND webhook_id=? AND number=?)",
]
_PENDING = "SEARCH d USING COVERING INDEX webhook_delivery_pending (tenant=? AND webhook_id=?)"
PLANS |= {
    **dict.fromkeys(
        (
            *("delete_webhook", "move_webhook", "note_attempt", "number_deliveries", "numbered"),
            "save_webhook",
        ),
        _WEBHOOK,
    ),
    **dict.fromkeys(("note_delivery", "redeliver"), _DELIVERY),
    "prune_deliveries": [
        *_DELIVERY,
        "SEARCH d USING INDEX webhook_delivery_over (tenant=? AND created_at<?)",
    ],
    "webhook_by_id": ["SEARCH w USING PRIMARY KEY (tenant=? AND id=?)", _PENDING],
    "webhooks": ["SEARCH w USING PRIMARY KEY (tenant=?)", _PENDING],
    "deliveries": [
        "SEARCH d USING PRIMARY KEY (tenant=? AND webhook_id=? AND number<?)",
    ],
    "any_stirred": ["SEARCH b EXISTS USING COVERING INDEX budget_stirred (tenant=?)"],
    "spent_up_budgets": [
        "SEARCH budget USING INDEX budget_spent_up (tenant=? AND scope>? AND scope<?)"
    ],
    "budgets_by_name": ["SEARCH b USING PRIMARY KEY (tenant=? AND scope=? AND meter=?)"],
    "budgets_of_scopes": ["SEARCH budget USING PRIMARY KEY (tenant=? AND scope=?"],
    "shared_budgets": ["SEARCH budget USING PRIMARY KEY (tenant=? AND scope>? AND scope<?)"],
    "turning_budgets": ["SEARCH budget USING INDEX budget_turns (tenant=? AND turns_at>?"],
    "stirred_budgets": ["SEARCH budget USING INDEX budget_stirred (tenant=?)"],
    "save_budgets": ["SEARCH e USING INDEX execution_over_budget (tenant=? AND <expr>=?"],
    "calm_budget": ["SEARCH budget USING PRIMARY KEY (tenant=? AND scope=? AND meter=?)"],
    "waiting_for_budget": [
        "SEARCH execution USING INDEX execution_over_budget (tenant=? AND <expr>=? AND <expr><?)"
    ],
    "reservations_of": ["SEARCH r USING PRIMARY KEY (tenant=? AND execution_id=?)"],
    "end_reservations": ["SEARCH reservation USING PRIMARY KEY (tenant=? AND execution_id=?"],
    "waiting_at_budget": [
        "SEARCH execution USING INDEX execution_over_budget (tenant=? AND <expr>=? AND <expr><?)"
    ],
    "known_changes": ["SEARCH budget_event USING COVERING INDEX budget_event_once"],
    "budget_events": ["SEARCH budget_event USING PRIMARY KEY (tenant=? AND scope=? AND meter=?)"],
    "spendings": ["SEARCH s USING PRIMARY KEY (tenant=? AND execution_id=?)"],
    "spending_of": ["SEARCH spending USING PRIMARY KEY (tenant=? AND execution_id=?)"],
    "purge_spending": ["SEARCH spending USING PRIMARY KEY (tenant=? AND execution_id=?)"],
    "purge_tree_spending": [
        "SEARCH spending USING INDEX spending_by_budget (tenant=? AND scope=?)"
    ],
    "purge_budgets": ["SEARCH budget USING PRIMARY KEY (tenant=? AND scope=?)"],
    "purge_budget_events": ["SEARCH budget_event USING PRIMARY KEY (tenant=? AND scope=?)"],
    "dependents": [
        "SEARCH dependency USING COVERING INDEX dependency_watched (tenant=? AND watched_id=?)"
    ],
    "stream_ends": ["SEARCH s USING PRIMARY KEY (tenant=? AND execution_id=? AND name=?)"],
    "stream_parts": [
        "SEARCH s USING COVERING INDEX stream_item_once (tenant=? AND execution_id=? AND name=?"
    ],
    "stream_items": [
        "SEARCH stream_item USING PRIMARY KEY (tenant=? AND execution_id=? AND name=? AND number>?)"
    ],
    "progress_of": ["SEARCH progress USING PRIMARY KEY (tenant=? AND execution_id=?)"],
    "purge_stream_items": ["SEARCH stream_item USING PRIMARY KEY (tenant=? AND execution_id=?)"],
    "purge_progress": ["SEARCH progress USING PRIMARY KEY (tenant=? AND execution_id=?)"],
}
WRITES_ONLY = {
    *("insert_webhook", "insert_deliveries", "hold_webhooks"),
    "hold_writers",
    *("add_spending", "insert_reservations", "insert_budget_events"),
    *("keep_secret", "begin_feed"),
    *("insert_webhook", "insert_deliveries", "hold_webhooks"),
    "insert_descents",
    "insert_transitions",
    *("insert_executions", "insert_plain_executions", "bear_transitions", "bear_executions"),
    "insert_messages",
    "put_worker",
    "insert_dependencies",
    "insert_schedule",
    "insert_schedule_entry",
    *("put_lines", "put_rates", "put_queue_setting", "put_gate_setting"),
    *("insert_stream_items", "save_progress", "insert_account", "insert_grant", "insert_token"),
    *("insert_session", "save_sign_in", "insert_audit", "insert_epoch", "put_identity"),
}
RESEALS = {name for one in SEALED for name in (one.stale, one.reseal)}
READS_ALL = {
    *("count_webhooks", "webhook_floor", "let_webhooks_go"),  # a tenant has some webhooks
    *("delete_deliveries", "due_deliveries"),  # those that are kept of one webhook
    *RESEALS,
    *("permit_reseal", "end_reseal", "left_reseals"),
    *("data_keys", "save_data_key", "insert_data_key", "is_used"),
    *("webhooks", "count_webhooks", "webhook_floor"),  # a hundred rows
    "due_deliveries",  # sorts what is pending, about a thousand rows
    *("tenants", "tenant_by_name", "insert_tenant", "set_closed"),  # a handful of rows
    *("accounts", "grants", "tokens", "wrong_sessions", "wrong_tokens", "wrong_grants"),
    *("audit_oldest", "audit_newest"),  # by the numbers of its key, or a filter nobody waits for
    *re.findall(r"^-- name: (\w+)$", FILES["verify.sql"], re.MULTILINE),
    *("unbalanced_budgets", "purge_shares", "purge_reservations"),
    *("empty_feed", "feed_head", "feed_horizon"),  # in the order of its numbers, to the first
    *("stray_ids", "ids_ending", "workers", "end_purge", "errands", "purge_errands"),
    "asking_oldest",
    "asking_newest",
    *("broken_schedules", "wrong_labels"),
    *("gate_settings", "queue_settings", "queue_states", "gate_names", "line_of", "wrong_holders"),
    "stream_heads",
    "store_settings",
    "instant",  # no table at all
    *("holding_workers", "lose_workers", "forget_workers", "expired_workers", "protected_workers"),
    *("serving_workers", "end_workers"),
    "epochs",  # the newest first, by its key; there are a few in the life of a store
}
"""Not hot: a verify, a search by an id's end, tables of a hundred rows, and a purge."""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apsw.Connection]:
    path = tmp_path_factory.mktemp("plans") / "outlast.db"
    SqliteStore(path, owner="w1", now=1).close()
    reader = open_reader(path)
    reader.execute("PRAGMA query_only = OFF")
    yield reader
    reader.close()


def plan(reader: apsw.Connection, text: str) -> list[str]:
    return [str(row[3]) for row in reader.execute(f"EXPLAIN QUERY PLAN {text}", bindings(text))]


def bindings(text: str) -> dict[str, None] | list[None]:
    names = re.findall(r":(\w+)", text)
    return dict.fromkeys(names) if names else [None] * text.count("?")


def texts(statement: Statement) -> list[str]:
    """The texts that are really sent: for one row and for many, plain and packed."""
    sizes = (1, 64) if statement.columns else (0,)
    plain = [statement.many(rows) if rows else statement.text for rows in sizes]
    return plain + ([statement.packed(rows) for rows in sizes] if statement.results else [])


@pytest.mark.parametrize("name", PLANS)
def test_plan(reader: apsw.Connection, name: str) -> None:
    for text in texts(SQL[name]):
        lines = plan(reader, text)
        wanted = iter(lines)
        for part in PLANS[name]:
            assert any(line.startswith(part) for line in wanted), f"{part} is not in {lines}"
        scans = [line for line in lines if line.startswith("SCAN")]
        allowed = {"v", "json_each", "r", "p", "e", "errand", "CONSTANT", f"{len(scans)}-ROW"}
        allowed |= {"q", "w"} if name == "waiting_queues" else set()  # a step a queue
        allowed |= {"x"} if name == "waiting_queues" else set()  # the last epoch
        allowed |= {"c"} if name == "waiting_codes" else set()  # a step a task, or version
        allowed |= {"q", "c", "f"} if name == "queue_census" else set()  # as both
        for line in scans:
            what = line.split()[1].rstrip("-0123456789)").replace("(subquery", "v")
            assert what in allowed or "CONSTANT ROW" in line or "VALUES" in line, lines
        sorts = [line for line in lines if "TEMP B-TREE" in line]
        assert not sorts or name in ("open_counts", "turning_budgets", "queue_census"), (
            lines
        )  # it groups what is leased, never more


def test_every_statement_is_planned_or_excused() -> None:
    assert SQL.keys() == PLANS.keys() | WRITES_ONLY | READS_ALL


@pytest.mark.parametrize("name", SQL)
def test_every_statement_prepares_and_is_used(reader: apsw.Connection, name: str) -> None:
    for text in texts(SQL[name]):
        reader.execute(f"EXPLAIN {text}", bindings(text)).fetchall()
    assert name in RESEALS or f'"{name}"' in SOURCE, "a statement nobody sends"


def test_widths_are_those_of_the_rows() -> None:
    for statement in SQL.values():
        assert bool(statement.columns) is ("{rows}" in statement.text), statement.name
    for name in ("insert_transitions", "insert_executions", "insert_messages"):
        columns = re.search(r"\(([^)]*)\)\s*(?:VALUES|SELECT)", SQL[name].text)
        assert columns is not None and len(columns[1].split(",")) == SQL[name].columns
    for name in (
        *("move_executions", "save_executions", "save_told_executions", "count_messages"),
        "claim_executions",
    ):
        used = {int(number) for number in re.findall(r"v\.column(\d+)", SQL[name].text)}
        assert used == set(range(1, SQL[name].columns + 1))


def test_short_texts_stay_in_the_cache_of_prepared_statements() -> None:
    """apsw keeps no text above 16 KiB: it would be compiled anew for every commit."""
    for statement in SQL.values():
        if statement.columns:
            for rows in (*statement.blocks, *(PADDED if statement.padded else ()), KEPT_ROWS_MAX):
                text = statement.packed(rows) if statement.results else statement.many(rows)
                assert statement.is_kept(rows) and len(text) < TEXT_MAX, statement.name


def test_a_batch_is_few_statements() -> None:
    for statement in SQL.values():
        if statement.columns:
            sizes = list(statement.sizes(1_000))
            assert sum(rows for rows, _ in sizes) == 1_000 and len(sizes) < 15
            assert all(rows <= written for rows, written in sizes)
            assert 128 in statement.blocks and statement.blocks[-1] == 32
            parts = [(82, 96)] if statement.padded else [(32, 32), (32, 32), (18, 18)]
            assert list(statement.sizes(128 + 82)) == [(128, 128), *parts]
            assert list(statement.sizes(KEPT_ROWS_MAX)) == [(KEPT_ROWS_MAX, KEPT_ROWS_MAX)]
            assert not statement.is_kept(18), "any number of rows: it is seldom used twice"
            assert statement.columns * statement.blocks[0] < 32_766, "SQLite's limit of parameters"


def test_padding_does_nothing(reader: apsw.Connection) -> None:
    """The rows that a statement is padded with are passed over."""
    padded = [statement for statement in SQL.values() if statement.padded]
    assert {"insert_transitions", "move_executions", "refused_heads"} <= {
        one.name for one in padded
    }
    for statement in padded:
        before = reader.total_changes()
        nothing = [None] * (PADDED[0] * statement.columns)
        assert not reader.execute(statement.many(PADDED[0]), nothing).get, statement.name
        assert reader.total_changes() == before, statement.name


@pytest.mark.parametrize("file", FILES)
def test_style(file: str) -> None:
    """Named columns only, no literal instants, nothing longer than 45 lines."""
    for piece in FILES[file].split("-- name: ")[1:]:
        assert "SELECT *" not in piece and "now()" not in piece
        assert piece.rstrip().count("\n") <= 45, piece.splitlines()[0]
        assert piece.rstrip().endswith(";")


@pytest.mark.parametrize("name", ["asking_oldest", "asking_newest"])
def test_the_inbox_is_read_by_its_index(reader: apsw.Connection, name: str) -> None:
    """What waits is taken from its index in order; only the few others are sorted."""
    lines = plan(reader, SQL[name].text)
    wanted = iter(lines)
    for part in ASKING:
        assert any(line.startswith(part) for line in wanted), f"{part} is not in {lines}"
    scans = [line for line in lines if line.startswith("SCAN")]
    assert all("VALUES" in line or "subquery" in line for line in scans), scans


def test_a_page_of_the_inbox_costs_the_same_however_many_wait(tmp_path: Path) -> None:
    """Counted in instructions of SQLite's machine, which no other load disturbs."""
    store = SqliteStore(tmp_path / "outlast.db", owner="w1", now=1)
    costs: list[list[int]] = []
    made = 0
    for total in (100, 2_000):
        batch: list[Item] = []
        while made < total:
            owner, item = begun(f"ex_{made:05}", nonce=made.to_bytes(16))
            ask = {"kind": "ask", "key": "ask#1", "to": f"r{made % 5}", "outside": True}
            batch += [item, owner.park(Kind.WAIT, data={"waits": [ask], "due_at": None})]
            made += 1
        assert all(answer.refused is None for answer in store.commit(batch))
        costs.append([])
        for to in (None, "r3", "nobody"):
            for newest in (True, False):
                count = 0

                def counted() -> bool:
                    nonlocal count
                    count += 1
                    return False

                store.file._reader.set_progress_handler(counted, 10)
                found = store.asking(to, "", 10, newest=newest)
                store.file._reader.set_progress_handler(None)
                assert len(found) == (0 if to == "nobody" else 10)
                costs[-1].append(count)
    few, many = costs
    assert min(few) > 0 and all(b <= a + 10 for a, b in zip(few, many, strict=True)), costs
    store.close()


def test_a_claim_changes_no_more_than_its_statement_writes() -> None:
    births: list[dict[str, Any]] = [
        {},
        {"priority": 3, "deadline_at": T + 9, "start_by": T + 5, "labels": {"a": "b"}},
        {"gates": {"limits": [{"name": "x", "of": "x", "capacity": 1, "hold": False}]}},
    ]
    for data in births:
        record = born("ex_1", **data).after
        record.detail, record.due_at = {"since": T}, T  # it was blocked, and waited
        decision = decide(record, Event(Kind.CLAIM, "e", nonce=b"n" * 16, data={"worker": "w"}), T)
        assert isinstance(decision, Decision)
        taken_away = {"due_at": None, "detail": None}
        changed = {
            name
            for name, value in decision.changes.items()
            if not (name in taken_away and value is None)
        }
        assert changed <= set(CLAIMED)
        assert taken_away.keys() <= decision.changes.keys()
