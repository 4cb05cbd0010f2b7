"""What people, shells and file systems do to a command: it says so, and loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from outlast.cli import looking, session
from outlast.cli.demonstrating import program_name
from outlast.forms import LAST_US, at
from outlast.lifecycle import State

from .conftest import Terminal, environment

NO_TEXT = b"a\xffb"
"""What a shell can hand over, and no file of ours can hold."""

LOUD = """
from outlast import ask, sleep, task

@task
async def long() -> str:
    for _ in range(200):
        print("x" * 100_000)
        await sleep(0.001)
    return "end"

@task
async def hurried() -> bool:
    return await ask("Sure?", timeout="1h", default=False)
"""

MANY = """
from outlast import step, task

@step
async def one(number: int) -> str:
    return "x" * 5000

@task
async def many() -> int:
    for number in range(100):
        await one(number)
    return 100
"""


def call(terminal: Terminal, *words: str | bytes) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose words need not be text."""
    command = [os.fsencode(sys.executable), b"-m", b"outlast.cli", *map(os.fsencode, words)]
    return subprocess.run(
        command, cwd=terminal.directory, env=environment(), capture_output=True, check=False
    )


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (("show", NO_TEXT), "not_found", 4),
        (("cancel", NO_TEXT), "not_found", 4),
        (("explain", NO_TEXT), "not_found", 4),
        (("ls", "--task", NO_TEXT), "usage", 2),
        (("ls", "--cursor", NO_TEXT), "not_found", 4),
        (("ls", "--store", NO_TEXT), "usage", 2),
        (("start", "tasks.py:hello", "Ada", "--store", NO_TEXT), "usage", 2),
        (("run", "tasks.py:hello", "Ada", "--key", NO_TEXT), "usage", 2),
        (("run", "tasks.py:hello", NO_TEXT), "wrong_arguments", 2),
        (("run", "tasks.py:hello", "--json", b'{"name": "\xff"}'), "wrong_arguments", 2),
        (("run", "tasks.py:hello", "--json", b"[" * 50_000), "wrong_arguments", 2),
        (("run", "tasks.py:hello", "Ada", "--timeout", "9" * 400 + "d"), "usage", 2),
        (("start", "tasks.py:nap", "--delay", "40000d"), "usage", 2),
        (("start", "tasks.py:nap", "--deadline", "99999999999d"), "usage", 2),
        (("ls", "--since", "99999999999d"), "usage", 2),
        (("ls", "--cursor", "nobody"), "not_found", 4),
    ],
)
def test_what_cannot_be_is_told_and_is_no_bug_of_ours(
    terminal: Terminal, words: tuple[str | bytes, ...], code: str, exit_code: int
) -> None:
    terminal.here("db", "init")
    done = call(terminal, *words)
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith(f"✗ {code}  "), lines
    assert [line[2:9].strip() for line in lines[1:4]] == ["where", "why", "do"]
    assert done.returncode == exit_code
    assert terminal.here("ls", "-o", "json").json["items"] == []


def test_a_word_is_what_its_bytes_say_in_any_locale(terminal: Terminal) -> None:
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    terminal.run("start", "tasks.py:hello", "Zoë ✓", **plain)
    assert terminal.here("show", "last", "-o", "json").json["input"]["name"] == "Zoë ✓"


@pytest.mark.parametrize("words", [("cancel", "-"), ("start", "tasks.py:hello", "--json", "-")])
def test_a_closed_stdin_is_told(terminal: Terminal, words: tuple[str, ...]) -> None:
    terminal.here("db", "init")
    shell = f'exec "{sys.executable}" -m outlast.cli {" ".join(words)} <&-'
    done = subprocess.run(
        ["sh", "-c", shell],
        cwd=terminal.directory,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("✗ usage  stdin cannot be read")


@pytest.mark.parametrize("words", ["--version", "--help", "explain", "run tasks.py:hello Ada"])
def test_a_full_disk_is_no_bug_of_ours(terminal: Terminal, words: str) -> None:
    terminal.here("db", "init")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "outlast.cli", *words.split()],
            cwd=terminal.directory,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.count("✗ usage  what it printed could not be written") == 1
    assert "Traceback" not in done.stderr


def test_remarks_that_have_no_room_stop_nothing(terminal: Terminal) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "outlast.cli", "run", "tasks.py:hello", "Ada"],
            cwd=terminal.directory,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, '"Hello, Ada!"\n')


@pytest.mark.parametrize("command", [("run", "loud.py:long"), ("worker", "loud.py")])
def test_a_reader_that_leaves_is_no_error_of_the_code(
    terminal: Terminal, command: tuple[str, ...]
) -> None:
    (terminal.directory / "loud.py").write_text(LOUD, encoding="utf-8")
    terminal.run("start", "loud.py:long", "--key", "k")
    words = (*command, "--key", "k") if command[0] == "run" else command
    process = subprocess.Popen(
        [sys.executable, "-m", "outlast.cli", *words],
        cwd=terminal.directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    while b"xxx" not in process.stdout.readline():
        pass
    process.stdout.close()
    if command[0] == "run":
        assert process.wait(100) == 141
        assert terminal.here("ls", "-o", "json").json["items"][0]["state"] in ("waiting", "queued")
        again = terminal.run(*words)
        assert again.code == 0, again
        assert again.out.splitlines()[-1] == '"end"'
    else:
        with terminal.guest() as guest:
            id = guest.find("last")
        terminal.in_state(id, State.SUCCEEDED)
        process.terminate()
        assert process.wait(100) == 0


def test_the_command_to_come_back_does_not_start_anew(terminal: Terminal) -> None:
    running = terminal.spawn("run", "tasks.py:nap", "--new")
    running.line_with("waits for")
    running.signal(2)
    done = running.end()
    assert done.code == 130
    assert done.err.splitlines()[-1] == "go on with   outlast run tasks.py:nap"


def test_an_instant_without_a_date_is_shown(terminal: Terminal) -> None:
    assert str(at(LAST_US * 1000)).startswith("9999-12-31")
    far = 200_000 * 366 * 86_400_000_000
    terminal.here("db", "init")
    code = (
        "from tasks import nap; from outlast.engine.guest import Guest;"
        "from outlast.engine.task.registry import StartOptions\n"
        "with Guest('sqlite:///outlast.db') as guest:"
        f" guest.start(nap, (), {{}}, StartOptions(delay_us={far}))"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=terminal.directory, env=environment(), check=True
    )
    assert terminal.here("ls", "-o", "json").json["items"][0]["due_at"].startswith("9999")
    assert terminal.here("show", "last").code == 0


def test_a_large_input_is_shown(terminal: Terminal) -> None:
    terminal.run("start", "tasks.py:hello", "A" * 200)
    shown = terminal.here("show", "last").out
    assert f'"name": "{"A" * 200}"' in shown


def test_what_is_waited_for_comes_before_how_long(terminal: Terminal) -> None:
    (terminal.directory / "loud.py").write_text(LOUD, encoding="utf-8")
    running = terminal.spawn("run", "loud.py:hurried")
    line = running.line_with("waits for")
    assert line.index("an answer to") < line.index(", or for ")
    running.kill()


@pytest.mark.parametrize("width", [20, 50, 79])
def test_a_narrow_terminal_shows_what_tells_ids_apart(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    id = terminal.run("start", "tasks.py:hello", "Ada").out.split()[0]
    for module in (session, looking):
        monkeypatch.setattr(module, "width_of", lambda stream: width)
    lines = terminal.here("ls").out.splitlines()
    shown = lines[1].split()[0]
    assert shown == f"…{id[-5:]}"
    assert terminal.here("show", shown, "-o", "ids").out == f"{id}\n"
    assert max(map(len, lines)) <= max(width, 45)


def test_the_demo_says_that_its_directory_cannot_be(terminal: Terminal) -> None:
    Path("taken").write_text("", encoding="utf-8")
    done = terminal.here("demo", "--directory", "taken/demo")
    assert done.code == 2
    assert "✗ usage  the demo cannot make its directory" in done.err


def test_a_file_without_a_line_is_still_named(terminal: Terminal) -> None:
    Path("nul.py").write_bytes(b"x = 1\n\0")
    done = terminal.run("run", "nul.py:x")
    assert done.code == 2
    assert "where   None" not in done.err
    assert "nul.py" in done.err.splitlines()[1]


def test_help_is_that_of_the_command(terminal: Terminal) -> None:
    Path("many.py").write_text(
        "from outlast import task\n@task\nasync def many(*xs: int, **more: int) -> int: return 1\n"
    )
    assert "do      outlast ls --help" in terminal.here("ls", "--task").err
    assert "COMMAND" not in terminal.here("cancel", "abc", "--why", "x" * 20_000).err
    assert "[XS…] [--NAME VALUE…]" in terminal.run("run", "many.py:many", "x").err


def test_the_program_is_named_as_a_shell_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin/outlast"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert program_name() == str(program)
    monkeypatch.setenv("PATH", str(program.parent))
    assert program_name() == "outlast"
    monkeypatch.setattr(sys, "argv", ["/somewhere/__main__.py"])
    assert program_name() == "outlast"


def test_a_store_without_room_is_told_and_loses_nothing(terminal: Terminal) -> None:
    (terminal.directory / "many.py").write_text(MANY, encoding="utf-8")
    code = (
        "import resource, signal, sys; from outlast.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "sys.argv = ['outlast', 'run', 'many.py:many']; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=terminal.directory,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while not (line := process.stderr.readline()).startswith("! store_"):
        assert line, "it ended, and said nothing"
    process.terminate()
    assert process.wait(100) == 130
    process.stderr.close()
    assert terminal.here("db", "verify").code == 0
    assert terminal.run("run", "many.py:many").out == "100\n"
