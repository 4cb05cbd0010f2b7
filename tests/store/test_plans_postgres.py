"""Query plans of PostgreSQL, recorded: each statement goes by its index, on every version.

They are made as the store makes them: prepared once, for any parameters. The executions' tables are
large and most of what is in them has ended; the others are as empty as on the first day, as a plan
made then is kept while they grow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from outlast.store import open_store, prepare
from outlast.store.postgres.connect import PLANS
from outlast.store.postgres.statements import statements
from servers.postgres import Server

STATEMENTS = {name: one for name, one in statements().items() if not one.text.startswith(b"LOCK ")}
FILL = """
SET LOCAL session_replication_role = replica;
CREATE TEMPORARY TABLE one AS
SELECT 'ex_' || lpad(n::text, 24, '0') AS id, n,
       CASE WHEN n % 10 = 0 THEN (ARRAY[
         'queued', 'blocked', 'waiting', 'awaiting_input', 'suspended', 'retry_wait', 'scheduled',
         'running'])[1 + n / 10 % 8] ELSE 'succeeded' END AS state
  FROM generate_series(1, 20000) AS n;
INSERT INTO transition (tenant, execution_id, seq, kind, from_state, to_state, fence, actor, at)
SELECT 1, o.id, s, 'step', 'running', 'running', 1, 'engine', 1
  FROM one AS o CROSS JOIN generate_series(1, 4) AS s;
INSERT INTO execution (tenant, id, task, state, seq, fence, nonce, worker, high_water, attempt,
                       failures, claims, idle_claims, inbox_count, inbox_seen, created_at,
                       updated_at, state_at, queue, priority, input_digest, children, due_at,
                       detail)
SELECT 1, id, 'bench', state, 4, 1, CASE WHEN state = 'running' THEN decode(repeat('6e', 16), 'hex') END,
       CASE WHEN state = 'running' THEN 'w1' END, 3, 1, 0, 1, 0, 0, 0, n, n, n, 'default', 0, 0, 0,
       n, '{"gate": "g", "budget": {"name": "task:x:usd", "need": 5}}'
  FROM one;
"""

# fmt: off
PLANS_OF = {
    "queued_executions": {"execution_queued", "transition_pkey"},
    "blocked_executions": {"execution_blocked", "transition_pkey"},
    "due_executions": {"execution_due"},
    "overdue_executions": {"execution_deadline"},
    "unstarted_executions": {"execution_start_by"},
    "unread_executions": {"execution_unread"},
    "queue_holders": {"execution_leased"},
    "waiting_for_budget": {"execution_over_budget"},
    "save_budgets": {"execution_over_budget"},
    "freed_schedules": {"execution_by_origin", "schedule_waiting", "tenant_pkey"},
    "open_of_origin": {"execution_by_origin"},
    "children_page": {"execution_children"},
    "insert_errands": {"dependency_watched", "execution_children"},
    "executions_by_id": {"execution_pkey"},
    "executions_by_key": {"execution_by_key"},
    "executions_page": {"execution_pkey"},
    "executions_floor": {"execution_pkey"},
    "task_ids": {"execution_by_task"},
    "picked_page": {"execution_pkey"},
    "task_floor": {"execution_by_task"},
    "ended_page": {"execution_ended"},
    "ended_floor": {"execution_ended"},
    "parked_floor": {"execution_parked"},
    "children_floor": {"execution_children"},
    "labelled_floor": {"label_pkey"},
    "many_open": {"execution_queued", "execution_leased", "execution_parked"},
    "parked_page": {"execution_parked"},
    "lock_executions": {"execution_pkey"},
    "refused_heads": {"execution_pkey"},
    "move_executions": {"execution_pkey"},
    "save_executions": {"execution_pkey"},
    "claim_executions": {"execution_pkey"},
    "save_told_executions": {"execution_pkey"},
    "count_messages": {"execution_pkey"},
    "ended_executions": {"execution_pkey"},
    "ids_beginning": {"execution_pkey"},
    "all_ids": {"execution_pkey"},
    "logs": {"transition_pkey"},
    "log": {"transition_pkey"},
    "inbox": {"inbox_pkey"},
    "inboxes": {"inbox_pkey"},
    "earlier_messages": {"inbox_once", "inbox_one_answer"},
    "place_in_queue": {"execution_queued"},
    "place_in_line": {"execution_blocked"},
    "end_empty_lines": {"execution_blocked", "line_pkey"},
    "close_lines": {"line_pkey"},
    "look_for_capabilities": {"line_pkey"},
    "holders": {"holder_pkey"},
    "arrival": {"rate_pkey"},
    "budgets_by_name": {"budget_pkey"},
    "reservations_of": {"reservation_pkey"},
    "end_reservations": {"reservation_pkey"},
    "spending_of": {"spending_pkey"},
    "spendings": {"spending_pkey"},
    "known_changes": {"budget_event_once"},
    "descents": {"descent_pkey", "descent_of_source"},
    "labelled_page": {"label_pkey", "execution_pkey"},
    "dependents": {"dependency_watched"},
    "watch_successor": {"dependency_watched"},
    "stream_ends": {"stream_item_pkey"},
    "stream_parts": {"stream_item_once"},
    "stream_items": {"stream_item_pkey"},
    "due_schedules": {"schedule_due", "tenant_pkey"},
    "schedule_by_name": {"schedule_pkey"},
    "schedule_log": {"schedule_entry_pkey"},
    "renew_worker": {"worker_pkey"},
    "session_by_digest": {"session_pkey"},
    "sign_in": {"sign_in_pkey"},
    "token_by_id": {"token_pkey"},
    "open_counts": {"execution_queued", "execution_leased", "execution_parked"},
    "waiting_queues": {"execution_queued", "line_look", "queue_setting_pkey", "tenant_pkey", "epoch_pkey"},
    "overdue": {"execution_due"},
    "ended_counts": {"execution_ended"},
    "queue_census": {"execution_queued", "execution_leased"},
}
# fmt: on
READS_ALL = {
    *("forget_workers", "protected_workers", "serving_workers", "workers", "expired_workers"),
    *("end_purge", "purge_errands", "left_permits", "lost_dependencies", "lost_errands"),
    *("wrong_errands", "wrong_tokens", "empty_feed", "end_workers"),
}
"""A hundred rows at most, a purge, or a verify."""

PARTS = 4
OF_PARTS = {
    "inbox_tenant_execution_id_id_key": "inbox_once",
    "inbox_tenant_execution_id_key_idx": "inbox_one_answer",
    "stream_item_tenant_execution_id_name_step_attempt_lease__idx": "stream_item_once",
}
"""How the index of a partition is called, without its number, and that of the whole."""

Plans = dict[str, list[str]]


@pytest.fixture(scope="module", params=[1, PARTS], ids=["whole", "parted"])
def plans(every_postgres: Server, request: pytest.FixtureRequest) -> Iterator[Plans]:
    """The plans of all statements, also where logs lie in partitions."""
    url = every_postgres.database()
    prepare(url, 1, request.param)
    with psycopg.connect(url, autocommit=True, options="-c search_path=outlast") as connection:
        with connection.transaction():
            connection.execute(FILL.encode())
        connection.execute(b"VACUUM ANALYZE execution, transition")
        with connection.transaction():
            connection.execute(settings().encode())
            yield {name: plan(connection, name) for name in STATEMENTS}


def settings() -> str:
    """What the store sets for its transactions, as far as plans are concerned."""
    found = re.findall(r"set_config\('(enable_\w+|plan_cache_mode|jit)', '(\w+)'", PLANS.decode())
    assert ("enable_seqscan", "off") in found and len(found) >= 4
    return "; ".join(f"SET LOCAL {name} = {value}" for name, value in found)


def plan(connection: psycopg.Connection[Any], name: str) -> list[str]:
    statement = STATEMENTS[name]
    count = len(statement.types) or len(statement.names)
    connection.execute(b"PREPARE p AS " + statement.text)
    # Of no execution no partition would be read.
    given = ["'ex_1'" if one == "id" else "NULL" for one in statement.names] or ["NULL"] * count
    values = f"({', '.join(given)})" if count else ""
    rows = connection.execute(f"EXPLAIN (COSTS OFF) EXECUTE p{values}".encode()).fetchall()
    connection.execute(b"DEALLOCATE p")
    return [str(row[0]) for row in rows]


def indexes(lines: list[str]) -> set[str]:
    found = re.findall(r"(?:Scan (?:Backward )?using|Bitmap Index Scan on) (\w+)", "\n".join(lines))
    return {OF_PARTS.get(name, name) for name in (re.sub(r"_p\d+_", "_", one) for one in found)}


@pytest.mark.parametrize("name", PLANS_OF)
def test_a_statement_goes_by_its_index(plans: Plans, name: str) -> None:
    lines = plans[name]
    assert indexes(lines) == PLANS_OF[name], lines
    # A condition on the tenant alone would read all there is by an index.
    found = [line for line in lines if "Index Cond" in line]
    assert (found and not any(line.strip() == "Index Cond: (tenant = 1)" for line in found)) or (
        name
        in (
            "open_counts",
            "many_open",
            "ended_counts",
            "queue_census",
            "waiting_queues",
            "freed_schedules",
        )
    ), lines


def test_what_is_sought_by_its_id_goes_by_the_key_also_on_the_first_day(
    every_postgres: Server,
) -> None:
    """A plan made before there is any execution is kept while there come to be millions."""
    url = every_postgres.database()
    open_store(url, owner="w0", now=1).close()
    by_id = [name for name, used in PLANS_OF.items() if used == {"execution_pkey"}]
    with (
        psycopg.connect(url, autocommit=True, options="-c search_path=outlast") as connection,
        connection.transaction(),
    ):
        connection.execute(settings().encode())
        for name in by_id:
            lines = plan(connection, name)
            assert indexes(lines) == {"execution_pkey"}, (name, lines)


def test_nothing_is_scanned_and_nothing_hashed(plans: Plans) -> None:
    """Tables are never read from end to end; nor is what has been read kept to be joined."""
    for name, lines in plans.items():
        bad = [
            line
            for line in lines
            if re.search(r"Seq Scan on (?!new_row|old_row)|Hash Join|Merge Join", line)
        ]
        assert not bad or name in READS_ALL, (name, lines)


def test_a_claim_is_not_sorted(plans: Plans) -> None:
    """What waits comes in the order of its turn from the index, however much there is."""
    for name in (
        "queued_executions",
        "blocked_executions",
        "due_executions",
        "executions_page",
        "task_ids",
        "task_floor",
    ):
        assert not [line for line in plans[name] if "Sort" in line], "\n".join(plans[name])


def test_the_table_names_statements_that_there_are() -> None:
    assert PLANS_OF.keys() | READS_ALL <= STATEMENTS.keys()
