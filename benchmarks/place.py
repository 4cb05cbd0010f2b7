"""Where a benchmark runs: a fresh directory on a real disk, and a description of the machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw

import outlast
from benchmarks.tasks import LEDGER

ROOT: Final = Path(__file__).resolve().parent.parent
DEFAULT: Final = ROOT / ".bench"
_MEMORY: Final = {"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"}


class NotADisk(Exception):
    """The directory is in memory: an fsync there costs nothing: no figure means anything."""


def mount_of(path: Path, mounts: str = "/proc/mounts") -> tuple[str, str]:
    """Give the device and the kind of the file system that holds a path."""
    target = str(path.resolve())
    found = ("?", "?", "")
    for line in Path(mounts).read_text().splitlines():
        device, point, kind = line.split()[:3]
        point = point.replace("\\040", " ")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(found[2]):
            found = (device, kind, point)
    return found[0], found[1]


@contextmanager
def fresh_directory(parent: Path, *, keep: bool = False) -> Iterator[Path]:
    """Make a directory for one workload and take it away afterwards.

    Raises:
        NotADisk: it would lie in memory.
    """
    parent.mkdir(parents=True, exist_ok=True)
    device, kind = mount_of(parent)
    if kind in _MEMORY:
        raise NotADisk(
            f"{parent} is on {kind} ({device}), which is memory and not a disk: a commit there is "
            "not durable. Name a directory on a disk with --dir."
        )
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    try:
        yield directory
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


def remove(file: Path) -> None:
    """Delete a database and what lies beside it, so that the next round begins alike."""
    for path in file.parent.glob(file.name + "*"):
        path.unlink()


def machine(directory: Path) -> dict[str, object]:
    """Describe what the figures depend on."""
    device, kind = mount_of(directory)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "disk": f"{device} {kind}",
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "outlast": outlast.__version__,
        "commit": _commit(),
    }


def child_environment(**more: str) -> dict[str, str]:
    """Give the environment of a child process, which must find this package and ``outlast``."""
    assert outlast.__file__ is not None
    paths = [str(ROOT), str(Path(outlast.__file__).parent.parent)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


def spawn(program: str, *arguments: object, ledger: Path | None = None) -> subprocess.Popen[str]:
    """Start a child process that runs a program of :mod:`benchmarks.child`."""
    more = {} if ledger is None else {LEDGER: str(ledger)}
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.child", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(**more),
        cwd=ROOT,
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    """Name the code that was measured; a star says that it was changed since."""
    try:
        head = subprocess.run(
            ["git", "describe", "--always", "--dirty=*", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip()
