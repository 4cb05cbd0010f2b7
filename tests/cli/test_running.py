"""run, start and worker: to the end, killed and gone on with, detached, beside another engine."""

from __future__ import annotations

import json
import signal
from collections import Counter

import pytest

from outlast.cli.exits import STORE
from outlast.lifecycle import Kind, State
from outlast.store import sqlite_path

from .conftest import Terminal, until


def bodies(terminal: Terminal) -> Counter[str]:
    """Count how often each body has begun."""
    path = terminal.directory / "bodies.txt"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return Counter(line.split()[0] for line in text.splitlines())


def open_gate(terminal: Terminal) -> None:
    (terminal.directory / "gate").touch()


def test_run_writes_its_result_as_json_and_the_rest_on_stderr(terminal: Terminal) -> None:
    done = terminal.run("run", "tasks.py:hello", "--name", "Ada")
    assert (done.code, done.out) == (0, '"Hello, Ada!"\n')
    said = done.err.splitlines()
    assert said[0].endswith("hello started")
    assert any("note#1 done" in line for line in said)
    assert "succeeded in" in said[-1]


def test_run_quietly(terminal: Terminal) -> None:
    done = terminal.run("run", "-q", "tasks.py:hello", "Ada")
    assert (done.code, done.out, done.err) == (0, '"Hello, Ada!"\n', "")


def test_run_as_json_is_one_object_a_line(terminal: Terminal) -> None:
    done = terminal.run("run", "-o", "json", "tasks.py:hello", "--name", "Ada")
    *rows, end = done.lines
    assert [row["kind"] for row in rows] == ["create", "claim", "start", "step", "finish"]
    assert {row["type"] for row in rows} == {"transition"}
    assert (end["type"], end["state"], end["result"]) == ("execution", "succeeded", "Hello, Ada!")
    assert done.err == ""


def test_run_as_ids(terminal: Terminal) -> None:
    done = terminal.run("run", "-o", "ids", "tasks.py:hello", "Ada")
    assert done.out.strip() == terminal.here("show", "-o", "ids", "last").out.strip()


def test_run_of_a_module(terminal: Terminal) -> None:
    assert terminal.run("run", "-q", "tasks:hello", "Ada").out == '"Hello, Ada!"\n'


def test_arguments_from_json_and_stdin(terminal: Terminal) -> None:
    document = '{"name": "Ada", "loud": true}'
    for words, stdin in (
        (("--json", document), ""),
        (("--json", "-"), document),
        (("-",), document),
        (("--json", '["Ada", true]'), ""),
    ):
        done = terminal.run("run", "-q", "tasks.py:hello", *words, "--new", stdin=stdin)
        assert done.out == '"HELLO, ADA!"\n', words


def test_what_stands_after_two_dashes_is_the_tasks(terminal: Terminal) -> None:
    (terminal.directory / "own.py").write_text(
        "from outlast import task\n@task\nasync def own(key: str, store: int = 0) -> str:\n"
        "    return f'{key} {store}'\n"
    )
    done = terminal.run("run", "-q", "own.py:own", "--", "--key", "K", "--store", "5")
    assert (done.code, done.out) == (0, '"K 5"\n')


def test_errors_that_nobody_takes_are_told_in_a_line(terminal: Terminal) -> None:
    (terminal.directory / "loose.py").write_text(
        "import asyncio\nfrom outlast import step, task\n"
        "@step\nasync def loose() -> None:\n"
        "    asyncio.get_running_loop().call_soon(lambda: 1 / 0)\n    await asyncio.sleep(0.01)\n"
        "@task\nasync def work() -> None:\n    await loose()\n"
    )
    done = terminal.run("run", "loose.py:work")
    assert done.code == 0
    assert "ZeroDivisionError: division by zero" in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in terminal.run("run", "loose.py:work", "--debug").err


def test_a_memory_store_runs_too(terminal: Terminal) -> None:
    done = terminal.run("run", "-q", "--store", "memory:", "tasks.py:hello", "Ada")
    assert done.out == '"Hello, Ada!"\n'
    assert not sqlite_path(terminal.url).exists()


def test_a_failed_execution_shows_the_users_frames_only(terminal: Terminal) -> None:
    done = terminal.run("run", "tasks.py:fails", "--text", "no route")
    assert (done.code, done.out) == (1, "")
    error = done.err[done.err.index("✗ execution_failed") :]
    assert "ValueError: no route" in error
    assert "step broken#1 after 2 attempts" in error
    assert "outlast show ex_" in error
    assert 'tasks.py", line' in error
    assert "outlast/engine" not in done.err


def test_a_failed_execution_as_json(terminal: Terminal) -> None:
    done = terminal.run("run", "-o", "json", "tasks.py:fails", "x")
    assert done.code == 1
    assert done.lines[-1]["state"] == "failed"
    assert done.lines[-1]["failure"]["message"] == "x"


@pytest.mark.parametrize(
    ("task", "code"),
    [
        ("stuck", "deadlock"),
        ("late", "execution_timed_out"),
        ("too_slow", "step_timeout"),
        ("unstorable", "bad_payload"),
    ],
)
def test_other_ends(terminal: Terminal, task: str, code: str) -> None:
    done = terminal.run("run", f"tasks.py:{task}")
    assert done.code == 1
    assert f"✗ {code}" in done.err
    assert "Traceback" not in done.err


def test_killed_and_typed_again_it_goes_on(terminal: Terminal) -> None:
    words = ("run", "tasks.py:gated", "--name", "Ada")
    first = terminal.spawn(*words)
    until(lambda: bodies(terminal)["gate"] == 1)
    first.kill()
    open_gate(terminal)
    done = terminal.run(*words)
    assert (done.code, done.out) == (0, '"Ada through"\n')
    assert "continuing ex_" in done.err
    assert "2 steps already done" in done.err
    assert bodies(terminal) == {"first": 1, "second": 1, "gate": 2, "last": 1}
    assert terminal.here("db", "verify").code == 0


def test_what_goes_on_as_a_new_execution_is_followed_and_found_again(terminal: Terminal) -> None:
    words = ("run", "tasks.py:rounds", "2")
    first = terminal.spawn(*words)
    until(lambda: bodies(terminal)["gate"] == 1)
    first.kill()
    open_gate(terminal)
    done = terminal.run(*words)
    assert (done.code, done.out) == (0, '"round and round"\n')
    assert "continuing ex_" in done.err
    assert bodies(terminal) == {"round-2": 1, "round-1": 1, "round-0": 1, "gate": 2}
    ids = terminal.here("ls", "-o", "ids").out.split()
    assert len(ids) == 3
    assert f"goes on as {ids[1]}" in terminal.here("events", ids[2]).out
    assert terminal.here("watch", ids[2], "-q").out == '"round and round"\n'


def test_children_are_told_by_what_they_came_to(terminal: Terminal) -> None:
    done = terminal.run("run", "tasks.py:family", "Ada")
    assert done.out == '"Hello, Ada! no"\n'
    assert "hello#1 done" in done.err
    assert "fails#1 failed: ValueError: no" in done.err
    family, *children = reversed(terminal.here("ls", "-o", "ids").out.split())
    assert terminal.here("ls", "--roots", "-o", "ids").out.split() == [family]
    assert terminal.here("ls", "--parent", family, "-o", "ids").out.split() == children[::-1]
    shown = terminal.here("show", "last", "-o", "json").json
    assert shown["id"] == family
    assert [(step["key"], step["status"], step["child"]) for step in shown["steps"]] == [
        ("hello#1", "done", children[0]),
        ("fails#1", "failed", children[1]),
    ]
    assert f"{children[1]}  failed: ValueError: no" in terminal.here("show", "last").out


def test_another_input_starts_anew(terminal: Terminal) -> None:
    first = terminal.spawn("run", "tasks.py:gated", "--name", "Ada")
    until(lambda: bodies(terminal)["gate"] == 1)
    first.kill()
    open_gate(terminal)
    done = terminal.run("run", "tasks.py:gated", "--name", "Bob")
    assert "continuing" not in done.err
    assert done.out == '"Bob through"\n'


def test_new_starts_anew(terminal: Terminal) -> None:
    first = terminal.spawn("run", "tasks.py:gated", "Ada")
    until(lambda: bodies(terminal)["gate"] == 1)
    first.kill()
    open_gate(terminal)
    assert "continuing" not in terminal.run("run", "tasks.py:gated", "Ada", "--new").err
    assert len(terminal.here("ls", "-o", "ids").out.split()) == 2


def test_a_key_means_one_execution_also_when_it_has_ended(terminal: Terminal) -> None:
    words = ("run", "tasks.py:hello", "Ada", "--key", "greet")
    first, second = terminal.run(*words), terminal.run(*words)
    assert first.out == second.out == '"Hello, Ada!"\n'
    assert "has ended before, 1 step already done" in second.err
    assert bodies(terminal) == {"Ada": 1}
    other = terminal.run("run", "-o", "json", "tasks.py:hello", "Bob", "--key", "greet")
    assert (other.code, other.error["code"]) == (5, "key_conflict")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_detaches_and_says_how_to_come_back(terminal: Terminal, number: int) -> None:
    running = terminal.spawn("run", "tasks.py:nap")
    running.line_with("waits for")
    running.signal(number)
    done = running.end()
    assert done.code == 130
    assert "detached: ex_" in done.err
    assert "1 step done" in done.err
    assert "outlast run tasks.py:nap" in done.err
    assert terminal.here("ls", "-o", "json").json["items"][0]["state"] == "waiting"
    assert terminal.here("db", "status", "-o", "json").json["owner"] is None


def test_a_second_signal_ends_at_once(terminal: Terminal) -> None:
    running = terminal.spawn("run", "tasks.py:gated", "Ada")
    until(lambda: bodies(terminal)["gate"] == 1)
    running.signal(signal.SIGINT)
    running.line_with("once more stops at once")
    running.signal(signal.SIGINT)
    assert running.end().code == 130
    open_gate(terminal)
    assert terminal.run("run", "tasks.py:gated", "Ada").out == '"Ada through"\n'


def test_the_wait_can_be_bounded(terminal: Terminal) -> None:
    done = terminal.run("run", "tasks.py:nap", "--timeout", "100ms")
    assert done.code == 6
    assert "✗ wait_timeout" in done.err
    assert "outlast run tasks.py:nap" in done.err
    assert terminal.here("ls", "-o", "json").json["items"][0]["state"] == "waiting"


def test_changed_code_is_told_and_nothing_is_lost(terminal: Terminal) -> None:
    first = terminal.spawn("run", "tasks.py:gated", "Ada")
    until(lambda: bodies(terminal)["gate"] == 1)
    first.kill()
    open_gate(terminal)
    source = terminal.directory / "tasks.py"
    old = source.read_text(encoding="utf-8")
    source.write_text(old.replace('await note("second")', 'await hold("gate")'), encoding="utf-8")
    done = terminal.run("run", "tasks.py:gated", "Ada")
    assert done.code == 1
    assert "✗ code_mismatch" in done.err
    assert "recorded    note#1 → note#2" in done.err
    assert "code wants  note#1 → hold#1" in done.err
    assert "tasks.py:" in done.err
    assert "--new" in done.err
    why = terminal.here("why", "last").out
    assert "recorded    note#1 → note#2" in why
    assert "code wants  note#1 → hold#1" in why
    assert "do one      outlast fork ex_" in why
    assert "            outlast resume ex_" in why
    assert "nothing was run twice" in why
    assert "code wants" in terminal.here("show", "last").out
    source.write_text(old, encoding="utf-8")
    again = terminal.run("run", "tasks.py:gated", "Ada")
    assert again.out == '"Ada through"\n'
    assert bodies(terminal)["second"] == 1


def test_beside_another_engine_run_is_refused_and_start_is_taken(terminal: Terminal) -> None:
    worker = terminal.worker()
    refused = terminal.run("run", "-o", "json", "tasks.py:hello", "Ada")
    assert (refused.code, refused.error["code"]) == (5, "store_owned")
    assert f"process {worker.process.pid}" in refused.error["why"]
    assert any("outlast start" in remedy for remedy in refused.error["do"])
    started = terminal.run("start", "tasks.py:hello", "Ada")
    id = started.out.split()[0]
    assert "kept for the next engine" not in started.err
    assert terminal.run("watch", id).out.splitlines()[-1] == '"Hello, Ada!"'


def test_start_is_kept_for_the_next_engine(terminal: Terminal) -> None:
    done = terminal.run("start", "tasks.py:hello", "--name", "Ada")
    assert "kept for the next engine" in done.err
    assert "outlast worker tasks.py" in done.err
    id = done.out.split()[0]
    terminal.worker()
    assert terminal.in_state(id, State.SUCCEEDED)


def test_start_with_options(terminal: Terminal) -> None:
    words = (
        "start",
        "-o",
        "json",
        "tasks.py:hello",
        "Ada",
        "--key",
        "k",
        "--delay",
        "1h",
        "--deadline",
        "2h",
    )
    first, second = terminal.run(*words).json, terminal.run(*words).json
    assert (first["state"], first["key"], first["origin"], first["is_new"]) == (
        "scheduled",
        "k",
        "start",
        True,
    )
    assert (second["id"], second["is_new"]) == (first["id"], False)
    assert first["due_at"] < first["deadline_at"]
    other = terminal.run("start", "-o", "ids", "tasks.py:hello", "Bob", "--key", "k")
    assert (other.code, other.out) == (5, "")


def test_worker_drains_on_sigterm(terminal: Terminal) -> None:
    worker = terminal.worker()
    assert f"pid {worker.process.pid}" in worker.seen[0]
    id = terminal.run("start", "-o", "ids", "tasks.py:gated", "Ada").out.strip()
    until(lambda: bodies(terminal)["gate"] == 1)
    worker.signal(signal.SIGTERM)
    worker.line_with("stopping at a safe point")
    open_gate(terminal)
    done = worker.end()
    assert done.code == 0
    assert "SIGTERM" in done.err
    with terminal.guest() as guest:
        log = guest.log(id)
    keys = [row.key for row in log if row.kind is Kind.STEP]
    assert keys[:3] == ["note#1", "note#2", "hold#1"]  # what was under way has ended
    terminal.worker()
    assert terminal.in_state(id, State.SUCCEEDED)
    assert bodies(terminal)["gate"] == 1


def test_worker_ends_when_its_file_is_gone(terminal: Terminal) -> None:
    """Nobody writes anything; the next one begins with a new file."""
    worker = terminal.worker()
    for file in terminal.directory.glob("outlast.db*"):
        file.unlink()
    done = worker.end()
    assert done.code == STORE, done
    assert "deleted or replaced" in done.err
    terminal.worker()


def test_worker_stops_at_once_on_the_second_signal(terminal: Terminal) -> None:
    worker = terminal.worker("--patience", "1h")
    terminal.run("start", "tasks.py:gated", "Ada")
    until(lambda: bodies(terminal)["gate"] == 1)
    worker.signal(signal.SIGINT)
    worker.line_with("stopping at a safe point")
    worker.signal(signal.SIGINT)
    assert worker.end().code == 130


def test_worker_goes_on_with_what_a_killed_one_left(terminal: Terminal) -> None:
    worker = terminal.worker()
    id = terminal.run("start", "-o", "ids", "tasks.py:gated", "Ada").out.strip()
    until(lambda: bodies(terminal)["gate"] == 1)
    worker.kill()
    why = terminal.here("why", id).out
    assert "is gone; the next engine takes it back" in why
    open_gate(terminal)
    terminal.worker()
    assert terminal.in_state(id, State.SUCCEEDED)
    assert bodies(terminal) == {"first": 1, "second": 1, "gate": 2, "last": 1}


def test_worker_as_json(terminal: Terminal) -> None:
    worker = terminal.spawn("worker", "-o", "json", "tasks.py")
    said = json.loads(worker.line_with("worker"))
    assert said["pid"] == worker.process.pid
    assert "hello" in said["tasks"]
    assert said["store"] == "sqlite:///outlast.db"


def test_check_is_a_gate_before_a_deploy(terminal: Terminal) -> None:
    first = terminal.spawn("run", "tasks.py:gated", "Ada")
    until(lambda: bodies(terminal)["gate"] == 1)
    first.kill()
    before = terminal.here("events", "last").out
    fits = terminal.run("check", "tasks.py")
    assert (fits.code, fits.out.splitlines()[-1][:28]) == (0, "1 open executions: 1 go on, ")
    source = terminal.directory / "tasks.py"
    old = source.read_text(encoding="utf-8")
    source.write_text(old.replace('await note("first")', 'await note("1st")'), encoding="utf-8")
    breaks = terminal.run("check", "tasks.py")
    assert breaks.code == 1
    assert "✗ gated  note#1 is called with other arguments than recorded" in breaks.out
    assert "recorded    note#1" in breaks.out and "tasks.py:" in breaks.out
    as_json = terminal.run("check", "-o", "json", "tasks.py")
    assert as_json.code == 1 and '"verdict":"mismatch"' in as_json.out.replace(" ", "")
    source.write_text("", encoding="utf-8")
    gone = terminal.run("check", "tasks.py")
    assert gone.code == 1 and "today's code has no task gated" in gone.out
    assert terminal.here("events", "last").out == before
