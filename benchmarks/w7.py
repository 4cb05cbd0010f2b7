"""W7: memory of an idle engine, cold start to the first result, import time, installed size."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Final

import outlast
from benchmarks import checks
from benchmarks.bench import Bench, percentile, url
from benchmarks.place import child_environment, spawn
from benchmarks.report import Result

FULL: Final = {"times": 7, "idle_seconds": 2.0}
QUICK: Final = {"times": 3, "idle_seconds": 1.0}
_IMPORT: Final = (
    "from time import perf_counter as now; began = now(); {}; print((now() - began) * 1e3)"
)
_NAMES: Final = "from outlast import Engine, task, step"


def run(bench: Bench, *, times: int, idle_seconds: float) -> Result:
    """Run the workload; each figure of a round is a median of several child processes."""
    result = Result("W7", "an idle engine, a cold start, the imports, the size")
    for _ in bench.each_round(result):
        for _, file in bench.files(["idle"]):
            result.add("", **_idle(result, file, idle_seconds))
        colds = []
        for _, file in bench.files(f"cold{number}" for number in range(times)):
            colds.append(_cold_start(file))
            result.check(checks.verify(url(file), executions=1, steps=1))
        result.add(
            cold_start_s=_median(colds),
            import_ms=_median([_import(_NAMES) for _ in range(times)]),
            import_bare_ms=_median([_import("import outlast") for _ in range(times)]),
            python_ms=_median([_wall([sys.executable, "-c", "pass"]) for _ in range(times)]),
        )
        command = _command()
        if command is not None:
            result.add(version_ms=_median([_wall([*command, "--version"]) for _ in range(times)]))
        result.add(installed_mib=_installed() / 2**20)
    if _command() is None:
        result.notes.append("outlast --version: the command is not there yet")
    result.notes.append(
        "python_ms is the bare interpreter, a part of cold_start_s and version_ms; "
        "installed_mib is outlast with all it requires"
    )
    return result


def _median(values: list[float]) -> float:
    return percentile(values, 0.5)


def _idle(result: Result, file: Path, seconds: float) -> dict[str, float]:
    """Give the memory and the share of a core that an engine takes with nothing to do."""
    child = spawn("idle", url(file), seconds)
    assert child.stdout is not None
    said = json.loads(child.stdout.readline())
    status = Path(f"/proc/{child.pid}/status").read_text().splitlines()
    rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    ended = json.loads(child.stdout.readline())
    checks.expect(child.wait() == 0, "the idle engine failed")
    child.stdout.close()
    checks.expect(said["value"] == 0, f"the result is wrong: {said['value']}")
    result.check(checks.verify(url(file), executions=1, steps=1))
    return {"rss_mib": rss / 1024, "idle_cpu_percent": ended["cpu"] / seconds * 100}


def _cold_start(file: Path) -> float:
    """Give the time from the start of a process until it says a first result."""
    began = perf_counter()
    child = spawn("cold", url(file))
    assert child.stdout is not None
    said = child.stdout.readline()
    seconds = perf_counter() - began
    checks.expect(child.wait() == 0 and json.loads(said)["value"] == 0, "a cold start failed")
    child.stdout.close()
    return seconds


def _import(statement: str) -> float:
    found = subprocess.run(
        [sys.executable, "-c", _IMPORT.format(statement)],
        capture_output=True,
        text=True,
        env=child_environment(),
        check=True,
    )
    return float(found.stdout)


def _wall(command: list[str]) -> float:
    began = perf_counter()
    subprocess.run(command, capture_output=True, env=child_environment(), check=True)
    return (perf_counter() - began) * 1e3


def _command() -> list[str] | None:
    """Give how the command is called here: as installed, else as a module; None without one."""
    script = Path(sys.executable).parent / "outlast"
    if script.exists():
        return [str(script)]
    for name in ("outlast.__main__", "outlast.cli.main"):
        if importlib.util.find_spec(name) is not None:
            return [sys.executable, "-m", name.removesuffix(".__main__")]
    return None


def _installed() -> int:
    """Give the bytes on the disk of this package and of what it needs to run, all through."""
    assert outlast.__file__ is not None
    total = _size(path for path in Path(outlast.__file__).parent.rglob("*") if path.is_file())
    for name in _requirements():
        files = metadata.distribution(name).files or []
        total += _size(Path(str(file.locate())) for file in files)
    return total


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.exists())


def _requirements() -> set[str]:
    """Name every distribution that outlast requires, also through others; no extras."""
    try:
        left = _required_by("outlast")
    except metadata.PackageNotFoundError:
        left = {"apsw", "msgspec", "rich"}
    found: set[str] = set()
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left |= _required_by(name)
    return found


def _required_by(name: str) -> set[str]:
    lines = metadata.requires(name) or []
    plain = [line.split(";")[0] for line in lines if "extra ==" not in line]
    found = (re.match(r"[\w.-]+", line) for line in plain)
    return {name[0] for name in found if name is not None}
