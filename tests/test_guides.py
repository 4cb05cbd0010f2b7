"""The guides: their programs run, and the commands they show work on what those leave."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

GUIDES = Path(__file__).parents[1] / "docs" / "guides"
_FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.DOTALL)
_COMMAND = re.compile(r"^\$ outlast (.*)$", re.MULTILINE)


def follow(guide: str, directory: Path, store: str | None = None) -> list[str]:
    """Write and run a guide's programs, then its commands; gives what each printed.

    The store is a SQLite file named like the first program, where none is given.

    Raises:
        subprocess.CalledProcessError: one of them failed.
    """
    text = (GUIDES / guide).read_text(encoding="utf-8")
    lines: list[list[str]] = []
    for name, program in _FILE.findall(text):
        (directory / name).write_text(program, encoding="utf-8")
        lines.append([sys.executable, name])
    lines += [
        [sys.executable, "-m", "outlast.cli", *shlex.split(c)] for c in _COMMAND.findall(text)
    ]
    stem = _FILE.findall(text)[0][0].removesuffix(".py")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OUTLAST_STORE": store or f"sqlite:///{stem}.db",
    }
    return [
        subprocess.run(
            line, cwd=directory, env=environment, capture_output=True, text=True, check=True
        ).stdout
        for line in lines
    ]


def test_housekeeping(tmp_path: Path) -> None:
    program, dry, pruned, copied = follow("housekeeping.md", tmp_path)
    assert program == "pong\ninvoice 7\n"
    assert dry == "0 executions would be deleted\n"
    assert pruned == "0 executions deleted\n"
    assert copied.endswith("2 executions, every log folds to its row\n")


def test_webhooks(tmp_path: Path) -> None:
    program, added, listed = follow("webhooks.md", tmp_path)
    assert program == "whsec_ is shown once\ncharge succeeded\ncharge failed\n"
    assert "secret  whsec_" in added
    assert "task charge; states failed, timed_out" in listed and "books" in listed


def test_tenants(tmp_path: Path) -> None:
    program, listed, ids, verified, closed, opened = follow("tenants.md", tmp_path)
    assert program == "hello ann\nhello uma\nhello eve\n"
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [
        ["default", "1"],
        ["acme", "2"],
        ["umbrella", "3"],
    ]
    assert len(ids.split()) == 2
    assert "3 executions" in verified and "every log folds to its row" in verified
    assert closed == "tenant umbrella closed\n" and opened == "tenant umbrella open\n"


def test_postgresql(tmp_path: Path, postgres_url: str) -> None:
    found = follow("postgresql.md", tmp_path, postgres_url)
    program, status, verified, listed, checked = found
    assert program == "charged 7\ncharged 7\n"
    assert "server   PostgreSQL" in status
    assert "1 executions" in verified and "every log folds to its row" in verified
    assert listed.count("fulfil") == 1
    assert "the last moments" in checked and "never gone back" in checked


def test_schedules(tmp_path: Path) -> None:
    program, week, *shown = follow("schedules.md", tmp_path)
    assert program.splitlines() == [
        "report at 07:00 on Monday through Friday (Europe/Berlin)",
        "report-us at 07:00 on Monday through Friday (America/New_York)",
        "sync every 5m",
        "report of US",
    ]
    number, said = week.splitlines()
    assert number == "5" and said.startswith("its time has not come: ")
    listed, report, following, why, paused, resumed, backfilled, made, cancelled = shown
    assert [line.split()[0] for line in listed.splitlines()] == [
        "NAME",
        "report",
        "report-us",
        "sync",
    ]
    assert "rules    overlap skip · misfire last · jitter 2m" in report
    assert len(following.splitlines()) == 3 and " 07:00:00 -0" in following
    assert why.startswith("2026-03-28 07:00:00+0100 is no slot of at 07:00 on Monday")
    assert paused == "report  paused\nsync  paused\n"
    assert resumed == "report  active\nsync  active\n"
    assert len(backfilled.splitlines()) == 5
    assert made.startswith("hourly  ") and cancelled == "hourly  cancelled\n"


def test_change(tmp_path: Path) -> None:
    marked, shop, gate = follow("change.md", tmp_path)
    assert marked == "shipped\nshipped, checked\n"
    assert shop == "1 fits\n"
    assert gate == "1 open executions: 1 go on, 0 would be suspended, 0 have no task\n"


def test_budgets(tmp_path: Path) -> None:
    program, listed, history, more, again, show = follow("budgets.md", tmp_path)
    assert program.splitlines() == [
        "about About Rain, printed",
        "0.33 of 0.4 spent, 0.07 left",
        "['task:essay:usd']",
        "budget",
        "About Snow",
    ]
    assert [line.split()[:5] for line in listed.splitlines()] == [
        ["SCOPE", "METER", "SPENT", "RESERVED", "LIMIT"],
        ["task:essay", "usd", "0.33", "0", "50"],
    ]
    assert "usd set: 0 of 50 spent (user)" in history
    assert "75" in more and more.splitlines()[1].split()[2] == "0.33"
    assert again.splitlines()[1].split()[2] == "0"
    assert "budget   usd 0.17 of 1.06 spent" in show


def test_timeouts(tmp_path: Path) -> None:
    program, _, why, resumed = follow("timeouts.md", tmp_path)
    assert program in shown("timeouts.md") and len(program.splitlines()) == 3
    assert "its start time lies ahead: 2999-01-31 07:00:00 UTC" in why
    assert "queued" in resumed


def test_processes(tmp_path: Path) -> None:
    program, show = follow("processes.md", tmp_path)
    assert program in shown("processes.md") and len(program.splitlines()) == 3
    assert "ProcessDied: the process of this step was ended by SIGSEGV" in show


def shown(guide: str) -> str:
    """Give a guide's text."""
    return (GUIDES / guide).read_text(encoding="utf-8")


def test_people(tmp_path: Path) -> None:
    program, escalated, inbox, shown, why, schema, answered = follow("people.md", tmp_path)
    assert program.splitlines() == [
        "['Release parcel 4?', 'Release parcel 3?']",
        "parcel 1 sent, by hand",
        "parcel 2 kept, as JSON",
        "parcel 3 sent, by token",
    ]
    assert escalated.splitlines() == [
        'role:boss must answer "Release parcel 7?", as role:ops did not',
        "parcel 7 sent, the boss",
        "parcel 8 kept, nobody answered",
    ]
    head, line = inbox.splitlines()
    assert head.split()[:4] == ["ID", "QUESTION", "TO", "TITLE"]
    assert "role:ops" in line and "Release parcel 4?" in line and "1d 23h" in line
    assert 'ask#1 "Release parcel 4?" to role:ops' in shown
    assert 'role:ops must answer "Release parcel 4?"' in why
    assert '"title": "Verdict"' in schema
    assert 'answered "Release parcel 4?"' in answered


def test_signals(tmp_path: Path) -> None:
    program, news, before, missed, after, taken = follow("signals.md", tmp_path)
    assert news == "reached 2 once\n['1 boxes, paid', '4 boxes, paid']\n"
    assert program == "5 boxes, paid\n"
    for said in (before, after):
        assert 'it waits for the signal packed with {"order": 9}' in said
    assert "(awaiting_input)" in missed and "(queued)" in taken


def test_control(tmp_path: Path) -> None:
    program, listed, dry, paused, cancelled, retried, again, why = follow("control.md", tmp_path)
    assert program.splitlines() == [
        "a box of tea for 500 / failed",
        "a box of jam for 500",
        "a box of tea for 7",
        "a box of tea for 9",
        "3 would be cancelled",
        "1 cancelled: cancelled",
    ]
    assert listed.count("order") == 4 and "fork of ex_" in listed and "recover of ex_" in listed
    assert dry.startswith("This cancels 2 executions (oldest ")
    assert paused == "pause: 2 of 2 executions\n"
    assert cancelled == "cancel: 2 of 2 executions\n"
    assert retried.startswith("This retries 1 execution (")
    assert "made by rerun of ex_" in again
    assert "made by   rerun of ex_" in why and "no engine runs on this store" in why


def test_capacity(tmp_path: Path) -> None:
    program, queues, paused, resumed, limited, free, limits, *rest = follow("capacity.md", tmp_path)
    assert program == "mail to ada and m1 trained\nlimit_full\n"
    assert "slow" in queues and "‖ paused" in queues and "orders" in queues
    assert (paused, resumed) == ("queue orders: paused\n", "queue orders: open\n")
    assert (limited, free) == ("queue orders: 20 at a time\n", "queue orders: without a limit\n")
    assert "fulfil:ada" in limits and "fulfil:bob" in limits
    assert rest[:3] == [
        "limit fulfil: 2\n",
        "limit fulfil:ada: 3\n",
        "limit fulfil:ada: as its task says\n",
    ]
    assert rest[3] == "limit rate:mail: one each 600ms\n"
    assert "has ended" in rest[5]


def test_streams(tmp_path: Path) -> None:
    program, draft, log, shown = follow("streams.md", tmp_path)
    assert program.splitlines() == [
        "1 durable write#1",
        "2 code write#1",
        "3 finishes write#2",
        "4 what write#2",
        "5 it write#3",
        "6 started write#3",
        "[{'part': 2}, {'part': 3}]",
        "(3.0, 3.0, 'part 3 written')",
    ]
    assert draft.split() == ["durable", "code", "finishes", "what", "it", "started"]
    assert [line.split('"value":')[1].split(',"at"')[0] for line in log.splitlines()] == [
        '{"part":1}',
        '{"part":2}',
        '{"part":3}',
    ]
    assert "progress 3 of 3 (100 %), part 3 written" in shown
    assert "streams  draft (6), log (3)" in shown


def test_structure(tmp_path: Path) -> None:
    program, tree, roots = follow("structure.md", tmp_path)
    assert program.splitlines() == [
        "Ulm ['succeeded', 'succeeded', 'succeeded']",
        "['hotel in Ulm', 'car in Ulm']",
        "failed ['hotel in Ulm', 'car in Ulm']",
        "24",
        "4",
        "[22, 24, 24] {'succeeded': 3}",
    ]
    assert "plan" in tree and "succeeded" in tree
    assert "cheapest" in roots and "trip" in roots


def test_security(tmp_path: Path) -> None:
    program, first, second, tokens, grant, roles, revoked, paused, listed, chain = follow(
        "security.md", tmp_path
    )
    assert program.strip() in ("queued", "starting", "running", "awaiting_input")
    assert first.startswith("otk_") and second.startswith("otk_")
    assert "submitter@billing" in tokens and first[15:].strip() not in tokens
    assert grant == "group:ops has operator@billing\n" and "group:ops  operator  billing" in roles
    assert revoked == "group:ops has operator@billing no more\n"
    assert "paus" in paused and "role revoke" in listed and "token create" in listed
    assert chain.startswith("5 rows, each follows from the one before; head 5:")


def test_workers(tmp_path: Path) -> None:
    program, listed = follow("workers.md", tmp_path)
    assert program == "order 7 packed\nex_\n"
    (worker,) = json.loads(listed)["items"]
    assert worker["state"] == "left" and worker["tasks"] == ["fulfil", "picture"]
    assert worker["lease_us"] is None and worker["leased"] == 0


def test_observability(tmp_path: Path) -> None:
    program, id, took, form, findings = follow("observability.md", tmp_path)
    assert "pack#1" in took and json.loads(form)["steps"][0]["key"] == "pack#1"
    assert "there is room" in findings and "✗" not in findings
    assert program in shown("observability.md") and len(program.splitlines()) == 4
    assert id.startswith("ex_")


def test_encryption(tmp_path: Path) -> None:
    program, line = follow("encryption.md", tmp_path)
    assert program.split("\n") == ["dear Ada", "False", "key_missing", ""]
    assert line.startswith("k1 ") and len(line) == 48


def test_move_to_postgres(tmp_path: Path, postgres_url: str) -> None:
    def run(*words: str) -> str:
        return subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "OUTLAST_STORE": postgres_url,
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert follow("move-to-postgres.md", tmp_path) == ["awaiting_input\n"]
    copied = run("-m", "outlast.cli", "db", "copy", "sqlite:///desk.db", postgres_url)
    assert "counts and digests of all are equal" in copied and "start nothing on it" in copied
    assert run("desk.py", "yes") == "order 7 shipped\n"


def test_stuck(tmp_path: Path) -> None:
    program, listed, why, inbox = follow("../troubleshooting/stuck-waiting.md", tmp_path)
    assert program == ""
    for said in ("it waits for a timer", 'the signal payment with {"order": 7}', "Pay 250?"):
        assert said in listed
    assert "it waits for a timer" in why and "left)" in why
    assert "finance" in inbox


def test_the_reasons_of_the_page_are_reasons() -> None:
    text = (GUIDES.parent / "troubleshooting" / "stuck-waiting.md").read_text(encoding="utf-8")
    sources = "".join(
        path.read_text(encoding="utf-8") for path in (GUIDES.parents[1] / "src").rglob("*.py")
    )
    codes = [
        code
        for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", row)
    ]
    assert len(codes) > 20
    spelled = {code for code in codes if f'"{code}"' in sources}
    assert set(codes) - spelled == {
        "waiting_timer",
        "waiting_child",
        "waiting_retry",
    }  # f"waiting_{…}"


def test_failing(tmp_path: Path) -> None:
    program, shown, events = follow("../troubleshooting/fails-repeatedly.md", tmp_path)
    assert program == "ConnectionError\n"
    assert shown.count("the bank does not answer") == 6 and "attempt 4" in shown
    assert events.count("attempt_failed") == 3


def test_remote(tmp_path: Path) -> None:
    (program,) = follow("remote.md", tmp_path)
    assert program == "dawn.mp4\n"
