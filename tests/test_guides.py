"""The guides: their programs run, and the commands they show work on what those leave."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

GUIDES = Path(__file__).parents[1] / "docs" / "guides"
_FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.DOTALL)
_COMMAND = re.compile(r"^\$ outlast (.*)$", re.MULTILINE)


def follow(guide: str, directory: Path) -> list[str]:
    """Write and run a guide's programs, then its commands; gives what each printed.

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
        "OUTLAST_STORE": f"sqlite:///{stem}.db",
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
