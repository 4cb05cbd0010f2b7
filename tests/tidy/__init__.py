"""The rules of the repository. Each of these tests is shown a planted fault that it must see."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ROOT / "src" / "outlast"

_NOT_OURS: Final = {"dist", "build", "__pycache__", "outlast-demo"}


def files() -> Iterator[Path]:
    """Give the files of the repository: what git tracks or would, else what is not hidden."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # an unpacked source distribution
        found = [
            path
            for path in ROOT.rglob("*")
            if not any(
                part.startswith(".") or part in _NOT_OURS for part in path.relative_to(ROOT).parts
            )
        ]
    return (path for path in sorted(found) if path.is_file())
