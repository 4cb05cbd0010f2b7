"""The commands that look: ls, show, events, why; as a table and as JSON."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from outlast import Engine, State
from outlast.cli.loading import load_module
from outlast.engine.guest import Guest

from .conftest import TASKS, Terminal, until

Zoo = dict[str, str]


@pytest.fixture(scope="module")
def zoo_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Zoo]:
    """A database with an execution in every state that people meet."""
    directory = tmp_path_factory.mktemp("zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        (directory / "zoo_tasks.py").write_bytes(TASKS.read_bytes())
        tasks = load_module(str(directory / "zoo_tasks.py"))
        path = directory / "zoo.db"
        zoo = _populate(tasks, f"sqlite:///{path}")
    return path, zoo


def _populate(tasks: object, url: str) -> Zoo:
    started = {
        "hello": ("Ada",),
        "fails": ("no\x1b[31m route",),
        "approve": ("O-1",),
        "nap": (),
        "paid": (),
        "again": (),
        "late": (),
        "twice": (),
        "stuck": (),
    }
    with Engine(url) as engine:
        handles = {
            name: engine.start(getattr(tasks, name), *args) for name, args in started.items()
        }
        handles["held"] = engine.start(tasks.nap, "2h")  # type: ignore[attr-defined]
        handles["cancelled"] = engine.start(tasks.nap, "3h")  # type: ignore[attr-defined]
        for name, state in {
            "hello": State.SUCCEEDED,
            "fails": State.FAILED,
            "approve": State.AWAITING_INPUT,
            "nap": State.WAITING,
            "paid": State.AWAITING_INPUT,
            "again": State.RETRY_WAIT,
            "late": State.TIMED_OUT,
            "twice": State.AWAITING_INPUT,
            "held": State.WAITING,
            "cancelled": State.WAITING,
            "stuck": State.FAILED,
        }.items():
            handle = handles[name]
            until(lambda handle=handle, state=state: handle.status() is state)  # type: ignore[misc]
        handles["held"].pause("lunch", actor="eve")
        handles["cancelled"].cancel("not needed", actor="eve")
        until(lambda: handles["cancelled"].status() is State.CANCELLED)
    with Guest(url) as guest:
        from outlast.engine.task.registry import StartOptions

        queued, _ = guest.start(tasks.hello, ("Bob",), {}, StartOptions(key="bob"))  # type: ignore[attr-defined]
        due, _ = guest.start(tasks.hello, ("Eve",), {}, StartOptions(delay_us=3_600_000_000))  # type: ignore[attr-defined]
    return {name: handle.id for name, handle in handles.items()} | {
        "queued": queued.id,
        "scheduled": due.id,
    }


@pytest.fixture
def zoo(terminal: Terminal, zoo_file: tuple[Path, Zoo]) -> Zoo:
    """The zoo, as the store of this terminal."""
    path, ids = zoo_file
    for name in (path.name, f"{path.name}-wal"):
        if path.with_name(name).exists():
            shutil.copy(path.with_name(name), terminal.directory / name.replace("zoo", "outlast"))
    return ids


def test_ls_shows_every_execution_and_why(terminal: Terminal, zoo: Zoo) -> None:
    done = terminal.here("ls")
    lines = done.out.splitlines()
    assert done.code == 0
    assert lines[0].split() == ["ID", "TASK", "STATE", "WHY", "/", "ERROR", "AGE", "ATT"]
    assert len(lines) == 1 + len(zoo)
    said = {line.split()[0]: line for line in lines[1:]}
    assert "✓ succeeded" in said[zoo["hello"]]
    assert r"ValueError: no\x1b[31m route" in said[zoo["fails"]]
    assert 'ops must answer "Release O-1?"' in said[zoo["approve"]]
    assert "by eve: not needed" in said[zoo["cancelled"]]
    assert "eve paused it: lunch" in said[zoo["held"]]
    assert "nobody there" in said[zoo["again"]]
    assert "\x1b" not in done.out
    assert f"{len(zoo)} shown" in done.err


def test_ls_as_json_pages_through_all(terminal: Terminal, zoo: Zoo) -> None:
    seen: list[str] = []
    cursor: list[str] = []
    while True:
        page = terminal.here("ls", "-o", "json", "--limit", "5", *cursor).json
        seen += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = ["--cursor", page["next"]]
    assert seen == sorted(zoo.values(), reverse=True)


def test_ls_names_the_next_page(terminal: Terminal, zoo: Zoo) -> None:
    first = terminal.here("ls", "--limit", "1")
    newest = terminal.here("ls", "-o", "ids", "--limit", "1").out.strip()
    assert f"--cursor {newest}" in first.err


def test_ls_filters(terminal: Terminal, zoo: Zoo) -> None:
    assert terminal.here("ls", "-o", "ids", "--state", "queued").out.split() == [zoo["queued"]]
    both = terminal.here("ls", "-o", "ids", "--state", "paused, timed_out").out.split()
    assert set(both) == {zoo["held"], zoo["late"]}
    assert zoo["hello"] not in terminal.here("ls", "-o", "ids", "--state", "open").out
    naps = terminal.here("ls", "-o", "ids", "--task", "nap").out.split()
    assert set(naps) == {zoo["nap"], zoo["held"], zoo["cancelled"]}
    assert len(terminal.here("ls", "-o", "ids", "--since", "1h").out.split()) == len(zoo)
    nothing = terminal.here("ls", "--since", "0s")
    assert (nothing.code, nothing.out) == (0, "")
    assert "no execution fits" in nothing.err


def test_ls_of_an_empty_store_says_what_to_do(terminal: Terminal) -> None:
    terminal.here("db", "init")
    assert "outlast run FILE:TASK" in terminal.here("ls").err


def test_show_tells_steps_attempts_and_the_error(terminal: Terminal, zoo: Zoo) -> None:
    said = terminal.here("show", zoo["fails"]).out
    assert "✗ failed" in said
    assert '{"text":"no\\u001b[31m route"}' in said
    assert "✓ note#1" in said
    assert "✗ broken#1" in said
    assert "failed, attempt 2" in said
    assert "attempt 1 failed: ValueError" in said
    assert "in broken" in said  # the user's own frames
    assert "outlast/engine" not in said
    assert "\x1b" not in said


def test_show_as_json_has_everything(terminal: Terminal, zoo: Zoo) -> None:
    shown = terminal.here("show", "-o", "json", zoo["approve"]).json
    assert (shown["id"], shown["task"], shown["state"]) == (
        zoo["approve"],
        "approve",
        "awaiting_input",
    )
    assert shown["input"] == {"order": "O-1"}
    assert shown["reason"]["code"] == "awaiting_input"
    assert [(one["key"], one["status"]) for one in shown["steps"]] == [
        ("note#1", "done"),
        ("ask#1", "asked"),
    ]
    assert shown["steps"][0]["payload"] == "O-1"
    (question,) = shown["questions"]
    assert (question["key"], question["title"], question["to"]) == ("ask#1", "Release O-1?", "ops")
    assert shown["created_at"].endswith("Z")


def test_show_of_the_ended_has_result_or_failure(terminal: Terminal, zoo: Zoo) -> None:
    assert terminal.here("show", "-o", "json", zoo["hello"]).json["result"] == "Hello, Ada!"
    failure = terminal.here("show", "-o", "json", zoo["fails"]).json["failure"]
    assert failure["type"] == "builtins:ValueError"
    assert 'result   "Hello, Ada!"' in terminal.here("show", zoo["hello"]).out
    assert terminal.here("show", "-o", "ids", zoo["hello"][-6:]).out.strip() == zoo["hello"]
    assert "outlast.errors:Deadlock" in terminal.here("show", "-o", "json", zoo["stuck"]).out


def test_an_id_may_be_given_in_part(terminal: Terminal, zoo: Zoo) -> None:
    id = zoo["hello"]
    for part in (id, id[:-2], id[-5:], f"ex_{id[-5:]}", id.removeprefix("ex_")):
        if part == id[:-2] and sum(other.startswith(part) for other in zoo.values()) > 1:
            continue
        assert terminal.here("show", "-o", "ids", part).out.strip() == id, part
    newest = max(zoo.values())
    assert terminal.here("show", "-o", "ids", "last").out.strip() == newest


def test_events_tell_the_log(terminal: Terminal, zoo: Zoo) -> None:
    lines = terminal.here("events", zoo["fails"]).out.splitlines()
    assert [line.split()[2] for line in lines] == [
        "create",
        "claim",
        "start",
        "step",
        "attempt_failed",
        "step",
        "error",
    ]
    assert "broken#1 failed after 2 attempts: ValueError" in lines[5]
    assert lines[-1].endswith("→ failed")
    rows = terminal.here("events", "-o", "json", "--payload", zoo["fails"]).lines
    assert [row["seq"] for row in rows] == list(range(1, 8))
    assert rows[3]["payload"] == "fine"
    assert "payload" not in terminal.here("events", "-o", "json", zoo["fails"]).lines[0]
    assert '"fine"' in terminal.here("events", "--payload", zoo["fails"]).out


@pytest.mark.parametrize(
    ("name", "because", "do"),
    [
        ("queued", "no engine runs on this store", "outlast worker FILE"),
        ("scheduled", "its start time lies ahead", "no engine runs on this store now"),
        ("approve", 'ops must answer "Release O-1?"', "outlast answer ex_"),
        ("paid", "it waits for the signal paid", "outlast signal ex_"),
        ("nap", "it waits for a timer", "no engine runs on this store now"),
        ("again", "attempt 1 of 4 failed (nobody there)", "no engine runs on this store now"),
        ("held", "eve paused it: lunch", "outlast resume ex_"),
        ("hello", "", "outlast show ex_"),
        ("cancelled", "by eve: not needed", "outlast show ex_"),
    ],
)
def test_why_has_an_answer(terminal: Terminal, zoo: Zoo, name: str, because: str, do: str) -> None:
    done = terminal.here("why", zoo[name])
    assert done.code == 0
    assert f"because   {because}" in done.out or not because
    assert f"do        {do}" in done.out
    reason = terminal.here("why", "-o", "json", zoo[name]).json["reason"]
    assert (reason is None) == (name in ("hello", "cancelled"))


def test_db_status_and_verify(terminal: Terminal, zoo: Zoo) -> None:
    status = terminal.here("db", "status").out
    assert "none runs now" in status
    assert "1 paused" in status
    counted = terminal.here("db", "status", "-o", "json").json
    assert counted["open"]["awaiting_input"] == 3
    verdict = terminal.here("db", "verify", "-o", "json").json
    assert (verdict["executions"], verdict["defects"]) == (len(zoo), [])
    assert "every log folds to its row" in terminal.here("db", "verify").out
