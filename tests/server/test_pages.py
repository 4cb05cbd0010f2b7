"""What README and the guides say of the server: their commands run, as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .test_cli import TOKEN, begin, end

ROOT = Path(__file__).parents[2]
_RUN = re.compile(r"<!-- run -->\n```sh\n(.*?)```", re.DOTALL)
_FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.DOTALL)


def shell(script: str, directory: Path, url: str) -> str:
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        cwd=directory,
        env={**os.environ, "URL": url, "OUTLAST_TOKEN": TOKEN, "OUTLAST_STORE": url},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def test_the_readme_over_curl(tmp_path: Path) -> None:
    page = (ROOT / "README.md").read_text("utf-8")
    program = re.findall(r"```python\n(# hello\.py\n.*?)```", page, re.DOTALL)[0]
    script = re.findall(r"## Over HTTP.*?```sh\n(.*?)```", page, re.DOTALL)[0]
    (tmp_path / "app.py").write_text(program)
    process, said = begin(tmp_path)
    try:
        script = script.replace("http://127.0.0.1:7575", said["url"])
        script = re.sub(r"^export .*$", "", script, count=1, flags=re.MULTILINE)
        out = shell(script, tmp_path, said["url"])
    finally:
        assert end(process) == 0
    states = re.findall(r'^\{"id":"ex_\w+","task":"hello","state":"(\w+)"', out, re.MULTILINE)
    assert states[0] == "paused" and "paused" not in states[1:]
    assert '"result":"HELLO, ADA!"' in out
    assert states[-1] == "cancelled" or '"is_cancelling":true' in out.splitlines()[-2]


def test_the_guide_of_the_server(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "guides" / "server.md").read_text("utf-8")
    (_, program), (name, follower) = _FILE.findall(page)
    (tmp_path / "app.py").write_text(program)
    (tmp_path / name).write_text(follower)
    process, said = begin(tmp_path)
    try:
        out = shell("\n".join(_RUN.findall(page)), tmp_path, said["url"])
        followed = shell(f"{sys.executable} {name}", tmp_path, said["url"])
    finally:
        assert end(process) == 0
    assert '"required":["order"]' in out and '"result":"parcel 7 sent"' in out
    assert 'ops must answer \\"Release parcel 7?\\"' in out
    assert '"code":"transition_refused"' in out and '"matched":' in out
    assert out.count("\nid: 3\n") == 1 and out.count("\nid: 4\n") == 2
    assert out.count("event: begin") == 1 and out.count('"kind":"create"') >= 2
    assert followed.startswith("ship create ")
    assert out.count("event: end") == 3 and '"value":"packed parcel 7"' in out


def test_the_guide_of_the_client(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "guides" / "client.md").read_text("utf-8")
    for name, program in _FILE.findall(page):
        (tmp_path / name).write_text(program)
    (tmp_path / "app.py").write_text("from shop import buy\n")
    process, said = begin(tmp_path)
    try:
        done = subprocess.run(
            [sys.executable, "till.py"],
            cwd=tmp_path,
            env={**os.environ, "OUTLAST_STORE": said["url"], "OUTLAST_TOKEN": TOKEN},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    finally:
        assert end(process) == 0
    assert done.stdout.splitlines() == [
        "order 7 costs 700",
        "Receipt(order=7, cents=700)",
        "refused: not paid",
        "cancelled",
    ], done.stderr


@pytest.mark.parametrize("guide", ["server.md", "client.md"])
def test_what_the_guides_name_is_there(guide: str) -> None:
    page = (ROOT / "docs" / "guides" / guide).read_text("utf-8")
    paths = json.loads((ROOT / "docs" / "openapi.json").read_text("utf-8"))["paths"]
    for word in re.findall(r"`(?:GET |POST |PUT |PATCH )?(/[a-z./]+)`", page):
        assert f"/api/v1{word}" in paths or word in paths or word == "/api/v1"
