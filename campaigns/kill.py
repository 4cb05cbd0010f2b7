"""Kill the engine again and again, and check what is left: ``python -m campaigns.kill --help``.

A campaign is a row of files; each has a seed of its own, and some fifty lives. A violation prints
the seed of its file, which does the same again: ``--seed N --kills 1``, as far as what happens does
not hang on the clock (kills at named points do not).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import select
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from campaigns.audit import Violation
from campaigns.campaign import LIVES_PER_FILE, Campaign, Counts, Options
from campaigns.plants import PLANTS
from campaigns.zygote import ROOT

_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})
_HOPELESS: Final = 3
"""So many times the kills asked for, and a campaign goes on no more for the sake of a count."""


class Report(msgspec.Struct):
    """What a worker tells about one file: its counts, or what went wrong there."""

    seed: int
    counts: Counts
    broken: str | None = None
    rule: str | None = None
    directory: str | None = None


def file_system_of(path: Path, mounts: str = "/proc/mounts") -> str:
    """Give the kind of the file system that holds a path."""
    target, best = str(path.resolve()), ("", "?")
    for line in Path(mounts).read_text().splitlines():
        _, point, kind = line.split()[:3]
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def one_file(seed: int, options: Options) -> Report:
    """Run one file's campaign to its end, or to its first violation."""
    campaign = Campaign(seed, options)
    try:
        campaign.run()
    except Violation as violation:
        return Report(
            seed, campaign.counts, str(violation), violation.rule, str(campaign.directory)
        )
    return Report(seed, campaign.counts)


def work(pipe: int, seed: int, workers: int, options: Options) -> None:
    """Run file after file, and tell of each, until nobody reads any more."""
    gc.freeze()  # so that no child copies pages only to look for cycles
    while True:
        report = one_file(seed, options)
        os.write(pipe, msgspec.json.encode(report) + b"\n")
        seed += workers


def reports(seed: int, workers: int, options: Options) -> Iterator[Report]:
    """Give what the workers tell, as they tell it; closing it ends them."""
    pipes: dict[int, bytes] = {}
    pids: list[int] = []
    for worker in range(workers):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                for other in (read, *pipes):
                    os.close(other)
                work(write, seed + worker, workers, options)
            except BrokenPipeError:
                os._exit(0)
            finally:
                os._exit(3)
        os.close(write)
        pipes[read] = b""
        pids.append(pid)
    try:
        yield from _read(pipes)
    finally:
        for read in pipes:
            os.close(read)
        for pid in pids:
            os.waitpid(pid, 0)


def _read(pipes: dict[int, bytes]) -> Iterator[Report]:
    while True:
        ready, _, _ = select.select(list(pipes), [], [])
        for read in ready:
            data = os.read(read, 1 << 16)
            if not data:
                raise RuntimeError("a worker of the campaign died; see its message above")
            *lines, pipes[read] = (pipes[read] + data).split(b"\n")
            for line in lines:
                yield msgspec.json.decode(line, type=Report)


def campaign(
    *,
    least: Mapping[str, int],
    seed: int,
    workers: int,
    options: Options,
    seconds: float = float("inf"),
) -> tuple[Counts, list[Report]]:
    """Run files until each of these counts has come to so much, or there were far too many kills.

    What a kill meets hangs on how busy the machine is; how much must have been met does not. Gives
    the counts, and the violations; with one of these the campaign is over at once.
    """
    total, broken = Counts(), []
    until = time.monotonic() + seconds
    found = reports(seed, workers, options)
    try:
        for report in found:
            total.add(report.counts)
            if report.broken is not None:
                broken.append(report)
            done = all(reached(total, name) >= count for name, count in least.items())
            hopeless = total.kills >= _HOPELESS * least["kills"]
            if broken or done or hopeless or time.monotonic() > until:
                break
    finally:
        found.close()  # type: ignore[attr-defined]
    return total, broken


def reached(counts: Counts, name: str) -> int:
    """Give a count by its name: ``kills``, or of several one, ``checked:RULE``, ``points:NAME``."""
    head, _, one = name.partition(":")
    count = getattr(counts, head)
    return count.get(one, 0) if one else int(count)


def _count(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    try:
        reached(Counts(), name)
        return name, int(number)
    except (AttributeError, TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{text}: write COUNT=N, as kills_at_points=400") from None


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign as a command; the exit code is 1 where a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m campaigns.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=2_000, help="how many kills at least")
    parser.add_argument(
        "--least",
        type=_count,
        action="append",
        default=[],
        metavar="COUNT=N",
        help="go on until another count has come to so much, too",
    )
    parser.add_argument("--seed", type=int, default=1, help="the first file's seed")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--lives", type=int, default=LIVES_PER_FILE, help="lives of each file")
    parser.add_argument("--ending", choices=("mixed", "kill", "term"), default="mixed")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="put a planted bug in")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds until it hangs")
    parser.add_argument("--dir", type=Path, default=ROOT / ".crash", help="where; on a disk")
    parser.add_argument("--keep", action="store_true", help="keep the files of a violation")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    given.dir.mkdir(parents=True, exist_ok=True)
    kind = file_system_of(given.dir)
    if kind in _MEMORY:
        parser.error(f"{given.dir} is on {kind}, which is memory; name one on a disk with --dir")
    options = Options(given.dir, given.lives, given.ending, given.plant, given.keep, given.patience)
    began = time.monotonic()
    counts, broken = campaign(
        least={**dict(given.least), "kills": given.kills},
        seed=given.seed,
        workers=given.workers,
        options=options,
        seconds=given.seconds,
    )
    spent = time.monotonic() - began
    if given.json:
        said = {
            "counts": msgspec.to_builtins(counts),
            "seconds": round(spent, 1),
            "violations": msgspec.to_builtins(broken),
        }
        print(json.dumps(said))
    else:
        print(f"{counts.line()}; {spent:.1f} s", flush=True)
        for report in broken:
            print(f"BROKEN, seed {report.seed}: {report.broken}", file=sys.stderr)
            print(f"again: {_again(report.seed, given)}", file=sys.stderr)
    return 1 if broken else 0


def _again(seed: int, given: argparse.Namespace) -> str:
    """Write the command that does one file again, and keeps it."""
    plant = f" --plant {given.plant}" if given.plant else ""
    return (
        f"python -m campaigns.kill --seed {seed} --kills 1 --workers 1 --lives {given.lives} "
        f"--ending {given.ending}{plant} --keep"
    )


if __name__ == "__main__":
    sys.exit(main())
