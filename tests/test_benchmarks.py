"""Each workload once, in a tiny size; and the checks, which must be able to fail."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import apsw
import pytest

from benchmarks import __main__ as command
from benchmarks import (
    checks,
    cost,
    kill,
    limits,
    quiet,
    report,
    w1,
    w2,
    w3,
    w4,
    w5,
    w6,
    w7,
    w8,
    w9,
    w10,
)
from benchmarks.bench import Bench, percentile, url
from benchmarks.place import NotADisk, fresh_directory, mount_of
from benchmarks.tasks import chain
from servers.postgres import Server

TINY: dict[str, tuple[Any, dict[str, Any], set[str]]] = {
    "W1": (w1, {"executions": 12, "steps": 3}, {"executions_per_s", "steps_per_s", "wall_s"}),
    "W2": (w2, {"times": 8}, {"p50_ms", "p99_ms", "ratio"}),
    "W3": (w3, {"lengths": (20, 40), "resumed": 30}, {"steps_per_s", "flatness", "ratio"}),
    "W4": (w4, {"calls": 20}, {"wall_s", "ratio"}),
    "W5": (w5, {"executions": 20}, {"enqueue_per_s", "drain_per_s"}),
    "W6": (
        w6,
        {"executions": 6, "steps": 8, "milliseconds": 30.0},
        {"recover_s", "repeated", "repeated_recorded", "lost"},
    ),
    "W7": (
        w7,
        {"times": 1, "idle_seconds": 0.1},
        {"rss_mib", "cold_start_s", "import_ms", "installed_mib"},
    ),
    "W8": (w8, {"executions": (20,)}, {"kib_each", "park_per_s", "finish_per_s"}),
    "W10": (
        w10,
        {"pairs": 40, "connections": 4, "readers": 5, "listed": 60},
        {"pairs_per_s", "p99_ms", "cpu_us_a_pair", "page_ms"},
    ),
    "W9": (w9, {"filled": 50, "executions": 10, "times": 5, "turns": 1}, {"ratio"}),
}


def tiny(directory: Path) -> Bench:
    return Bench(directory, rounds=1, limit_scale=0.01)


@pytest.mark.parametrize("name", TINY)
def test_a_workload_runs_and_is_verified(name: str, tmp_path: Path) -> None:
    module, sizes, measures = TINY[name]
    result = module.run(tiny(tmp_path), **sizes)
    found = json.loads(json.dumps(result.as_json({"cores": 2})))
    assert found["verified"] is True
    assert measures <= found.keys()
    assert all(found[measure] >= 0 for measure in measures)
    assert found["limits"].keys() == report.LIMITS.keys()
    assert name in report.text([result], {})
    assert sizes.keys() == module.FULL.keys() == module.QUICK.keys()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", cost.WORKLOADS)
def test_each_phase_has_a_cost_by_thread(name: str, tmp_path: Path) -> None:
    found = cost.measured(name, 10, tmp_path)
    assert found and all(phase.startswith(name) for phase in found)
    for phase in found.values():
        assert phase.keys() == set(cost.PARTS)
        assert phase["loop"] > 0 and phase["journal"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["W1", "W2", "W3", "W4", "W5", "W6", "W8"])
def test_a_workload_runs_on_postgres(name: str, tmp_path: Path, postgres: Server) -> None:
    module, sizes, measures = TINY[name]
    processes = 2 if name in ("W1", "W5") else 1
    bench = Bench(tmp_path, rounds=1, limit_scale=0.01, server=postgres, processes=processes)
    result = module.run(bench, **sizes)
    about: dict[str, object] = {"server": str(postgres.installation)}
    found = json.loads(json.dumps(result.as_json(about)))
    assert found["verified"] is True
    assert measures <= found.keys()
    assert found["limits"].keys() == report.LIMITS.keys()
    assert name in report.text([result], about)


def test_several_processes_want_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["W1", "--processes", "2"]) == 1
    assert "--store postgres" in capsys.readouterr().err


def test_what_is_about_files_is_not_measured_on_a_server(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(["W9", "--store", "postgres"]) == 1
    assert "W9 is about files" in capsys.readouterr().err


@pytest.fixture
def done(tmp_path: Path) -> tuple[Path, dict[str, object]]:
    """A file in which 3 executions (and the one to warm up) have succeeded, and their results."""
    file = tmp_path / "done.db"
    _, values = asyncio.run(w1.timed(url(file), chain, True, 3, 2))
    return file, values


def spoil(file: Path, *statements: str) -> None:
    connection = apsw.Connection(str(file))
    guards = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
    for (name,) in guards.fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_good_file_passes(done: tuple[Path, dict[str, object]]) -> None:
    file, values = done
    assert "4 executions succeeded and 7 steps" in checks.verify(
        url(file), executions=4, steps=7, results=values
    )


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM transition WHERE kind = 'step' AND seq = 4", "recorded steps"),
        ("UPDATE execution SET state = 'failed' WHERE rowid_is_last", "executions by state"),
        ("DELETE FROM execution", "executions by state"),
        ("UPDATE transition SET payload = x'3939' WHERE kind = 'finish'", "the result of"),
        ("UPDATE execution SET attempt = attempt + 1", "does not fold"),
        ("UPDATE transition SET fence = 7 WHERE kind = 'start'", "defects"),
    ],
)
def test_a_spoilt_file_does_not(
    statement: str, said: str, done: tuple[Path, dict[str, object]]
) -> None:
    file, values = done
    spoil(file, statement.replace("rowid_is_last", "id = (SELECT max(id) FROM execution)"))
    with pytest.raises(checks.Unverified, match=said):
        checks.verify(url(file), executions=4, steps=7, results=values)


def test_a_repeated_recorded_step_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def claims_more(*given: Any, **options: Any) -> set[tuple[str, str]]:
        recorded = kill.killed_at(*given, **options)
        return recorded | {(id, f"slow#{number}") for id, _ in recorded for number in range(9)}

    monkeypatch.setattr(w6, "killed_at", claims_more)
    with pytest.raises(checks.Unverified, match="recorded steps ran again"):
        w6.run(tiny(tmp_path), executions=4, steps=8, milliseconds=30.0)


def test_a_lost_execution_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets_one(child: Any) -> dict[str, Any]:
        found = kill.wait_for_line(child)
        found["values"].popitem()
        return found

    monkeypatch.setattr(w6, "wait_for_line", forgets_one)
    with pytest.raises(checks.Unverified, match="1 acknowledged executions are lost"):
        w6.run(tiny(tmp_path), executions=4, steps=8, milliseconds=30.0)


def test_a_child_that_ends_before_its_kill_is_found(tmp_path: Path) -> None:
    with pytest.raises(checks.Unverified, match="ended before it was killed"):
        kill.killed_at(url(tmp_path / "a.db"), 10**9, "cold", url(tmp_path / "a.db"))


def test_a_failed_check_prints_an_error_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(bench: Bench, **sizes: object) -> report.Result:
        raise checks.Unverified("recorded steps: found 1, expected 2")

    monkeypatch.setattr(w4, "run", fail)
    assert command.main(["W4", "--json", "--dir", str(tmp_path)]) == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert "error: recorded steps: found 1, expected 2" in written.err


def test_a_result_without_checks_is_not_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(w4, "run", lambda bench, **sizes: report.Result("W4", "unchecked"))
    assert command.main(["W4", "--dir", str(tmp_path)]) == 1
    written = capsys.readouterr()
    assert (written.out, "nothing was checked" in written.err) == ("", True)


def test_the_last_line_is_one_json_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def some(bench: Bench, **sizes: object) -> report.Result:
        result = report.Result("W4", "made up")
        result.add(wall_s=0.5)
        result.check("two were counted")
        return result

    monkeypatch.setattr(w4, "run", some)
    assert command.main(["w4", "--json", "--dir", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["wall_s"], found["verified"], found["workload"]) == (0.5, True, "W4")


def test_a_workload_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["W77"]) == 1
    written = capsys.readouterr()
    assert (written.out, "W77" in written.err) == ("", True)


def test_memory_is_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.place.mount_of", lambda path: ("tmpfs", "tmpfs"))
    with pytest.raises(NotADisk, match="not durable"), fresh_directory(tmp_path / "bench"):
        raise AssertionError("it was not refused")
    monkeypatch.setattr("benchmarks.place.mount_of", lambda path: ("/dev/vda", "ext4"))
    with fresh_directory(tmp_path / "bench") as directory:
        assert directory.is_dir()
    assert not directory.exists()


def test_the_innermost_mount_holds_a_path(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/vda / ext4 rw 0 0\n/dev/vdb /data ext4 rw 0 0\n"
        "tmpfs /data/fast\\040one tmpfs rw 0 0\n"
    )
    found = [
        mount_of(Path(path), str(mounts))
        for path in ("/data2", "/data/x", "/data/fast one/x", "/data/fast")
    ]
    assert found == [
        ("/dev/vda", "ext4"),
        ("/dev/vdb", "ext4"),
        ("tmpfs", "tmpfs"),
        ("/dev/vdb", "ext4"),
    ]


def test_limits_are_measured_and_leave_nothing(tmp_path: Path) -> None:
    found = limits.measure(tmp_path, scale=0.01)
    assert found.keys() == report.LIMITS.keys()
    assert all(value > 0 for value in found.values())
    assert not list(tmp_path.iterdir())


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 201)]
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (100.0, 198.0)
    assert percentile([3.0], 0.99) == 3.0


def test_others_take_no_less_than_nothing() -> None:
    assert quiet.Others().cores() >= 0
