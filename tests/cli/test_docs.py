"""The pages say what is so: generated ones are fresh, and the commands of the others work."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from outlast.cli import render
from outlast.cli.app import outlast
from outlast.cli.commands import COMMANDS
from outlast.lifecycle import State

from .conftest import Terminal, environment

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/quickstart.md", "docs/concepts.md", "docs/cli.md", "docs/errors.md"]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def test_the_generated_pages_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert render.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_page_is_noticed_and_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(render, "DOCS", tmp_path / "docs")
    assert render.main(["--check"]) == 1
    assert "cli.md is stale" in capsys.readouterr().err
    assert render.main([]) == 0
    assert render.main(["--check"]) == 0


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    text = text_of(page)
    anchors = {
        "#" + re.sub(r"[^\w -]", "", head).lower().replace(" ", "-")
        for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target in anchors, target
        else:
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_shows_is_one(page: str) -> None:
    shown = re.findall(r"^\$ (outlast .*?)(?:\s+#.*)?$", text_of(page), re.MULTILINE)
    inline = re.findall(r"`(outlast [a-z]+[^`]*)`", text_of(page))
    for line in [*shown, *inline]:
        words = shlex.split(line)[1:]
        if words[0] == "COMMAND":
            continue
        context, command = click.Context(outlast), outlast
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            for name in words.pop(0).split("|"):  # as in tenant add|ls
                found = command.get_command(context, name)
                assert found is not None, line
            command = found
        known = {option for one in command.params for option in one.opts}
        if "ignore_unknown_options" not in command.context_settings:
            assert {word for word in words if word.startswith("-") and len(word) > 1} <= known, line


def test_every_command_has_a_section() -> None:
    text = text_of("docs/cli.md")
    assert all(f"\n## outlast {name}\n" in text for name in COMMANDS)


def test_the_example_of_the_readme_is_that_of_the_examples() -> None:
    (block,) = re.findall(r"```python\n# hello.py\n(.*?)```", text_of("README.md"), re.DOTALL)
    example = (ROOT / "examples/hello.py").read_text(encoding="utf-8")
    assert example.endswith(block.split("\n\n", 1)[1])
    assert len(block.strip().splitlines()) <= 17


def test_the_quickstart(terminal: Terminal) -> None:
    for name, code in re.findall(
        r"<!-- file: (\S+) -->\n```python\n(.*?)```", text_of("docs/quickstart.md"), re.DOTALL
    ):
        (terminal.directory / name).write_text(code.replace('sleep("30s")', 'sleep("300ms")'))
    words = ("run", "shop.py:fulfil", "--order", "O-1")
    first = terminal.spawn(*words)
    first.line_with("charging O-1")
    first.line_with("waits for")
    first.kill()
    again = terminal.run(*words)
    assert "1 step already done" in again.err
    assert "charging" not in again.out
    assert again.out.splitlines()[-1] == '["receipt for O-1: 9.00","O-1 is on its way"]'
    for command in ("ls", "show last", "events last", "why last"):
        assert terminal.here(*command.split()).code == 0
    worker = terminal.spawn("worker", "shop.py")
    worker.line_with("serving fulfil")
    start = ("start", "shop.py:fulfil", "--order", "O-2", "--cents", "9900", "--key", "order-O-2")
    id = terminal.run(*start).out.split()[0]
    assert terminal.run(*start).out.split()[0] == id
    terminal.in_state(id, State.AWAITING_INPUT)
    assert "Ship O-2 for 99.00?" in terminal.here("why", "last").out
    worker.kill()
    assert terminal.here("answer", "last", "yes").code == 0
    terminal.spawn("worker", "shop.py").line_with("serving")
    assert (
        terminal.run("watch", "last").out.splitlines()[-1]
        == '["receipt for O-2: 99.00","O-2 is on its way"]'
    )
    assert terminal.here("explain", "store_owned").code == 0
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=terminal.directory,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "charging" or done.stdout.startswith("ex_")
