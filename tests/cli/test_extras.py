"""What needs an extra says which, where the extra is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from outlast.store.keys import drawn_line

from .conftest import TASKS, environment

PROGRAM = """
import sys
sys.modules[sys.argv[1]] = None  # what Python takes for a module that is not there
from outlast.cli.app import run
sys.exit(run(sys.argv[2:]))
"""
HTTP = "http://127.0.0.1:9"
SQL = "postgresql://127.0.0.1:9/nothing"


@pytest.mark.parametrize(
    ("module", "extra", "words"),
    [
        ("httpx", "client", f"ls --store {HTTP}"),
        ("httpx", "client", f"worker {TASKS} --store {HTTP}"),
        ("psycopg", "postgres", f"ls --store {SQL}"),
        ("psycopg", "postgres", f"worker {TASKS} --store {SQL}"),
        ("uvicorn", "server", f"server {TASKS}"),
        ("uvicorn", "server", f"dev {TASKS}"),
        ("argon2", "server", "user add ann --password-stdin"),
        ("prometheus_client", "metrics", f"worker {TASKS} --metrics-port 0"),
        ("opentelemetry", "otel", f"worker {TASKS} --otel"),
        ("cryptography", "encryption", "db init"),
    ],
)
def test_an_extra_that_is_missing_is_named(
    tmp_path: Path, module: str, extra: str, words: str
) -> None:
    make = [sys.executable, "-m", "outlast.cli", "db", "init"]
    if words.startswith("user"):
        subprocess.run(make, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, module, *words.split()],
        cwd=tmp_path,
        env=environment(**({"OUTLAST_KEYS": drawn_line("k")} if extra == "encryption" else {})),
        input="a password of some length\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 2 and "cannot_load" in done.stderr, done
    assert f'pip install "outlast[{extra}]"' in done.stderr
    assert f"there is no {module}" in done.stderr


def test_a_program_is_told_where_it_imports_a_client() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules['httpx'] = None; from outlast import Client",
        ],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert last == 'ModuleNotFoundError: a client needs httpx: pip install "outlast[client]"'
