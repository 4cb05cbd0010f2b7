"""Run the workloads: ``python -m benchmarks all``, or one: ``python -m benchmarks W1 --json``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import Bench
from benchmarks.checks import Unverified
from benchmarks.place import DEFAULT, NotADisk, fresh_directory, machine
from benchmarks.report import Result, text
from servers.postgres import Server

WORKLOADS: Final = ("W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8", "W9", "W10")
FILES_ONLY: Final = ("W7", "W9", "W10")
"""What is about a file of SQLite: the size of an installation, and of a file."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; gives the exit code: 0, or 1 where a check failed."""
    given = _parser().parse_args(argv)
    names = [name.upper() for name in given.workload]
    names = list(WORKLOADS) if "ALL" in names else names
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        return _fail(f"there is no workload {unknown[0]}; there are {', '.join(WORKLOADS)} and all")
    served = given.store == "postgres"
    if served:
        names = [name for name in names if name not in FILES_ONLY or len(names) < len(WORKLOADS)]
    elif given.processes != 1:
        return _fail("a file has one engine: --processes asks for --store postgres")
    alone = [name for name in names if served and name in FILES_ONLY]
    if alone:
        return _fail(f"{alone[0]} is about files of SQLite; leave --store postgres away")
    try:
        with ExitStack() as stack:
            server = stack.enter_context(_server(given.dir)) if served else None
            results, about = _run_all(names, given, server)
    except (Unverified, NotADisk) as error:
        return _fail(str(error))
    unchecked = [result.name for result in results if not result.checked]
    if unchecked:
        return _fail(f"{', '.join(unchecked)}: nothing was checked")
    print(text(results, about))
    if given.json:
        objects = [result.as_json(about) for result in results]
        whole = objects[0] if len(objects) == 1 else {"workloads": objects, "machine": about}
        print(json.dumps(whole, ensure_ascii=False))
    return 0


def _run_all(
    names: Sequence[str], given: argparse.Namespace, server: Server | None
) -> tuple[list[Result], dict[str, object]]:
    results = []
    for name in names:
        print(f"{name} …", end=" ", flush=True, file=sys.stderr)
        module = import_module(f"benchmarks.{name.lower()}")
        sizes: dict[str, Any] = module.QUICK if given.quick else module.FULL
        with fresh_directory(given.dir, keep=given.keep) as directory:
            about = machine(directory)
            results.append(
                module.run(
                    Bench(
                        directory,
                        given.rounds,
                        patience_seconds=given.patience,
                        server=server,
                        processes=given.processes,
                    ),
                    **sizes,
                )
            )
        if server is not None:
            about |= {"server": str(server.installation), "processes": given.processes}
        print("done", flush=True, file=sys.stderr)
    return results, about


@contextmanager
def _server(parent: Path) -> Iterator[Server]:
    """Serve PostgreSQL from a directory on the disk that is measured.

    Raises:
        NotADisk: it would lie in memory.
    """
    with fresh_directory(parent) as directory:
        directory.chmod(0o755)  # root's servers run as somebody else
        with Server(parent=directory) as server:
            yield server


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("workload", nargs="+", help=f"{', '.join(WORKLOADS)}, or all")
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument(
        "--processes", type=int, default=1, help="how many run W1 and drain W5, on PostgreSQL"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is repeated")
    parser.add_argument("--dir", type=Path, default=DEFAULT, help="a directory on a real disk")
    parser.add_argument(
        "--patience",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="how long a round waits for other processes to leave the machine alone",
    )
    parser.add_argument("--keep", action="store_true", help="keep that directory")
    return parser


def _fail(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
