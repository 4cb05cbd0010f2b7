"""What one terminal does while another one's engine owns the file, and what is kept without one."""

from __future__ import annotations

import time

import pytest

from outlast.lifecycle import Kind, State

from .conftest import Terminal, until


def start(terminal: Terminal, *words: str) -> str:
    return terminal.run("start", "-o", "ids", *words).out.strip()


TRIES = 10
"""Of so many one at least finds the machine awake; what looked too seldom would find it never."""


def test_answer_is_seen_within_100_ms(terminal: Terminal) -> None:
    terminal.worker()

    def took() -> int:
        id = start(terminal, "tasks.py:approve", "O-1")
        terminal.in_state(id, State.AWAITING_INPUT)
        done = terminal.here("answer", id, '{"ok": true, "note": "fine"}')
        assert done.code == 0
        assert 'answered "Release O-1?"' in done.out
        terminal.in_state(id, State.SUCCEEDED)
        with terminal.guest() as guest:
            rows = {row.kind: row for row in guest.log(id)}
        assert rows[Kind.FINISH].payload == b'"O-1 released: fine"'
        return rows[Kind.FINISH].at - rows[Kind.INPUT_RECEIVED].at

    assert any(took() < 100_000 for _ in range(TRIES))


def test_answer_reads_words_by_the_form(terminal: Terminal) -> None:
    terminal.worker()
    for word, result in (("yes", b"true"), ("no", b"false"), ("true", b"true")):
        id = start(terminal, "tasks.py:confirm")
        terminal.in_state(id, State.AWAITING_INPUT)
        assert terminal.here("answer", id, word).code == 0
        terminal.in_state(id, State.SUCCEEDED)
        with terminal.guest() as guest:
            assert guest.log(id)[-1].payload == result


def test_answers_that_are_refused(terminal: Terminal) -> None:
    terminal.worker()
    id = start(terminal, "tasks.py:approve", "O-1")
    terminal.in_state(id, State.AWAITING_INPUT)
    wrong = terminal.here("answer", "-o", "json", id, '{"ok": "perhaps"}')
    assert (wrong.code, wrong.error["code"]) == (2, "bad_payload")
    no_json = terminal.here("answer", "-o", "json", id, "perhaps")
    assert (no_json.code, no_json.error["code"]) == (2, "usage")
    nothing = terminal.run("answer", "-o", "json", id)
    assert (nothing.code, nothing.error["code"]) == (2, "usage")
    assert id in nothing.error["do"][0]
    stranger = terminal.here("answer", "-o", "json", id, "{}", "--question", "ask#9")
    assert (stranger.code, stranger.error["code"]) == (4, "not_found")
    assert terminal.here("answer", id, '{"ok": false}').code == 0
    terminal.in_state(id, State.SUCCEEDED)
    late = terminal.here("answer", "-o", "json", id, '{"ok": true}')
    assert (late.code, late.error["code"]) == (4, "not_found")


def test_of_several_questions_one_is_named(terminal: Terminal) -> None:
    terminal.worker()
    id = start(terminal, "tasks.py:twice")
    terminal.in_state(id, State.AWAITING_INPUT)
    unnamed = terminal.here("answer", "-o", "json", id, "yes")
    assert (unnamed.code, unnamed.error["code"]) == (2, "usage")
    keys = [
        question["key"] for question in terminal.here("show", "-o", "json", id).json["questions"]
    ]
    assert len(keys) == 2
    assert terminal.here("answer", id, "yes", "--question", keys[0]).code == 0
    assert terminal.here("answer", id, "no", "--question", keys[1]).code == 0
    terminal.in_state(id, State.SUCCEEDED)


def test_signal(terminal: Terminal) -> None:
    terminal.worker()
    id = start(terminal, "tasks.py:paid")
    assert terminal.here("signal", id, "paid", '{"cents": 900}', "--id", "once").code == 0
    terminal.in_state(id, State.SUCCEEDED)
    with terminal.guest() as guest:
        assert guest.log(id)[-1].payload == b'{"cents":900}'
    late = terminal.here("signal", "-o", "json", id, "paid", "1")
    assert (late.code, late.error["code"]) == (5, "transition_refused")
    assert terminal.here("signal", id, "paid", "no json").code == 2


def test_cancel_of_what_waits_and_of_what_runs(terminal: Terminal) -> None:
    terminal.worker()
    waits, runs = start(terminal, "tasks.py:nap"), start(terminal, "tasks.py:gated", "Ada")
    terminal.in_state(waits, State.WAITING)
    terminal.in_state(runs, State.RUNNING)
    done = terminal.here("cancel", waits, runs, "--why", "not needed")
    assert done.code == 0
    for id in (waits, runs):
        terminal.in_state(id, State.CANCELLED)
        assert terminal.here("cancel", id).code == 0  # asking again changes nothing
    failed = terminal.run("watch", waits)
    assert failed.code == 1
    assert "✗ execution_cancelled" in failed.err
    assert "not needed" in failed.err


def test_cancel_reads_ids_from_stdin_and_tries_all(terminal: Terminal) -> None:
    ids = [start(terminal, "tasks.py:nap", f"{n}h") for n in (1, 2)]
    done = terminal.run("cancel", "-", stdin="\n".join([ids[0], "ex_nobody", ids[1]]))
    assert done.code == 4
    assert "✗ not_found" in done.err
    assert [line.split()[0] for line in done.out.splitlines()] == ids
    with terminal.guest() as guest:
        assert {guest.record(id).state for id in ids} == {State.CANCELLED}


def test_pause_and_resume(terminal: Terminal) -> None:
    terminal.worker()
    id = start(terminal, "tasks.py:nap", "1h")
    terminal.in_state(id, State.WAITING)
    assert terminal.here("pause", id, "--why", "lunch").code == 0
    terminal.in_state(id, State.PAUSED)
    assert terminal.here("pause", id).code == 0
    assert terminal.here("resume", id).code == 0
    terminal.in_state(id, State.WAITING)
    ended = start(terminal, "tasks.py:hello", "Ada")
    terminal.in_state(ended, State.SUCCEEDED)
    for verb in ("pause", "resume", "cancel"):
        refused = terminal.here(verb, "-o", "json", ended)
        assert (refused.code, refused.error["code"]) == (5, "transition_refused"), verb
        assert ended in refused.error["do"][0]


def test_answer_and_cancel_without_an_engine_are_kept(terminal: Terminal) -> None:
    worker = terminal.worker()
    asked, napping = start(terminal, "tasks.py:confirm"), start(terminal, "tasks.py:nap")
    terminal.in_state(asked, State.AWAITING_INPUT)
    terminal.in_state(napping, State.WAITING)
    worker.kill()
    done = terminal.here("answer", asked, "yes")
    assert done.code == 0
    assert "kept for the next engine" in done.err
    again = terminal.here("answer", "-o", "json", asked, "no")
    assert (again.code, again.error["code"]) in ((4, "not_found"), (5, "already_answered"))
    assert terminal.here("cancel", napping).code == 0
    terminal.worker()
    terminal.in_state(asked, State.SUCCEEDED)
    terminal.in_state(napping, State.CANCELLED)
    assert terminal.here("db", "verify").code == 0


def test_a_cancel_ends_the_run_of_another_terminal(terminal: Terminal) -> None:
    def took() -> float:
        running = terminal.spawn("run", "tasks.py:nap", "--new")
        running.line_with("waits for")
        began = time.monotonic()
        assert terminal.here("cancel", "last", "--why", "enough").code == 0
        running.line_with("execution_cancelled")
        seconds = time.monotonic() - began
        assert running.end().code == 1
        return seconds

    assert any(took() < 1.0 for _ in range(TRIES))


def test_an_answer_ends_the_run_of_another_terminal(terminal: Terminal) -> None:
    running = terminal.spawn("run", "tasks.py:confirm")
    running.line_with("→ outlast answer ex_")
    assert terminal.here("answer", "last", "yes").code == 0
    done = running.end()
    assert (done.code, done.out) == (0, "true\n")


def test_watch_writes_plain_lines_and_the_result(terminal: Terminal) -> None:
    terminal.worker()
    id = start(terminal, "tasks.py:confirm")
    watching = terminal.spawn("watch", id)
    watching.line_with("waits for an answer")
    terminal.here("answer", id, "yes")
    done = watching.end()
    assert done.code == 0
    assert done.out.splitlines()[-1] == "true"
    assert "confirm created" in done.out.splitlines()[0]
    rows = terminal.run("watch", "-o", "json", id).lines
    assert [row["type"] for row in rows[-2:]] == ["transition", "execution"]
    assert terminal.run("watch", "-q", id).out == "true\n"


def test_watch_without_an_id_follows_all(terminal: Terminal) -> None:
    terminal.worker()
    watching = terminal.spawn("watch", "-o", "json", "--task", "confirm")
    seen = terminal.spawn("watch", "--state", "succeeded")
    watching.line_with('"begin"')
    seen.line_with("following")
    other = start(terminal, "tasks.py:nap")
    id = start(terminal, "tasks.py:confirm")
    watching.line_with('"kind":"wait"')
    terminal.here("answer", id, "yes")
    seen.line_with(f"{id}  confirm")
    watching.signal(2)
    done = watching.end()
    assert done.code == 130
    begun, *told = done.lines
    assert begun["type"] == "begin"
    assert {line["id"] for line in told} == {id}
    cursor = told[0]["cursor"]
    rest = terminal.run("watch", "-o", "json", "--after", cursor, "--timeout", "50ms")
    assert rest.code == 0
    assert [line for line in rest.lines if line.get("id") == id][: len(told) - 1] == told[1:]
    oldest = terminal.run("watch", "-o", "json", "--after", "oldest", "--timeout", "50ms")
    assert other in {line.get("id") for line in oldest.lines}
    seen.signal(2)
    seen.end()
    gone = terminal.run("watch", "--after", "000000000000.1", "-o", "json")
    assert (gone.code, gone.error["code"]) == (5, "feed_gap")
    assert terminal.run("watch", id, "--task", "x").code == 2


def test_watch_ends_when_it_is_interrupted_or_waits_too_long(terminal: Terminal) -> None:
    terminal.worker()
    id = start(terminal, "tasks.py:nap")
    watching = terminal.spawn("watch", id)
    watching.line_with("waits for")
    watching.signal(2)
    done = watching.end()
    assert done.code == 130
    assert f"{id} goes on" in done.err
    bounded = terminal.run("watch", id, "--timeout", "50ms", "-o", "json")
    assert (bounded.code, bounded.error["code"]) == (6, "wait_timeout")


def test_reading_commands_work_beside_an_engine(terminal: Terminal) -> None:
    worker = terminal.worker()
    id = start(terminal, "tasks.py:gated", "Ada")
    until(
        lambda: (
            (terminal.directory / "bodies.txt").exists()
            and "gate" in (terminal.directory / "bodies.txt").read_text()
        )
    )
    assert "running" in terminal.here("ls").out
    assert "✓ note#2" in terminal.here("show", id).out
    assert "its code runs on worker" in terminal.here("why", id).out
    assert terminal.here("events", id).code == 0
    assert terminal.here("db", "verify").code == 0
    assert f"process {worker.process.pid}" in terminal.here("db", "status").out
    assert terminal.here("db", "init").code == 0
    owned = terminal.here("db", "upgrade", "-o", "json")
    assert (owned.code, owned.error["code"]) == (5, "store_owned")


@pytest.mark.parametrize("verb", ["show", "events", "why", "watch", "answer", "cancel", "pause"])
def test_every_verb_knows_who_is_not_there(terminal: Terminal, verb: str) -> None:
    terminal.here("db", "init")
    for id in ("ex_nobody", "last"):
        done = terminal.here(verb, "-o", "json", id)
        assert (done.code, done.error["code"]) == (4, "not_found"), id


def test_publish_reaches_all_that_are_open(terminal: Terminal) -> None:
    id = start(terminal, "tasks.py:confirm")
    kept = terminal.run("publish", "news", '{"n": 1}', "--key", "k")
    assert kept.code == 0
    assert "kept for the next engine" in kept.err
    terminal.worker()
    told = terminal.run("publish", "news", '{"n": 1}', "--key", "k", "-o", "json")
    assert told.json["reached"] == 1
    assert told.json["id"] == kept.out.split()[0]
    none = terminal.run("publish", "news", "--task", "nap")
    assert "reached 0 executions" in none.out
    assert terminal.run("publish", "news", "--label", "x").code == 2
    terminal.here("answer", id, "yes")
