"""Several worker processes under one: started, started again when they die, and stopped together.

The supervisor runs no task and opens no store. Its children have process groups of their own, so
that Ctrl-C reaches each of them once, by way of it; and a pipe from it, by whose end they notice
that it was killed: then they stop at a safe point.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from outlast.cli.exits import OK

SUPERVISED: Final = "OUTLAST_SUPERVISED"
"""Set for a worker that ends when its standard input does."""
PLACE: Final = "OUTLAST_PLACE"
"""Which of the workers of one supervisor this is, from 1."""
BACK_OFF_SECONDS: Final = 0.5
BACK_OFF_SECONDS_MAX: Final = 30.0
STEADY_SECONDS: Final = 10.0
"""Who lived that long is started again at once."""
LOOK_SECONDS: Final = 0.05
END_SECONDS: Final = 10.0
"""How long one that was told to stop at once may take."""


@dataclass
class Place:
    """One of the processes.

    Attributes:
        number: from 1.
        tenant: whose executions it runs; None: as its command says.
        process: what runs there now; None while it waits to be started again.
        begun_at: when that was started.
        deaths: how often in a row one died early.
        again_at: when the next one starts.
    """

    number: int
    tenant: str | None = None
    process: subprocess.Popen[bytes] | None = None
    begun_at: float = 0.0
    deaths: int = 0
    again_at: float = 0.0


class Supervisor:
    """Keeps so many processes of one command.

    Args:
        command: what to run.
        count: how many of it.
        say: is told what happens, a line each.
        environment: of the processes; by default this one's.
        tenants: each has so many processes of its own; none: they are of the one that the command
            or the environment names.
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        say: Callable[[str], None],
        environment: Mapping[str, str] | None = None,
        tenants: Sequence[str] = (),
    ) -> None:
        self._command = list(command)
        self._say = say
        self._environment = {**(environment or os.environ), SUPERVISED: "1"}
        wanted = [tenant for tenant in tenants or (None,) for _ in range(count)]
        self.places = [Place(number, tenant) for number, tenant in enumerate(wanted, 1)]
        self.restarts = 0

    def run(self, stops: Callable[[], int]) -> int:
        """Keep them alive until somebody wants to stop; gives the exit code.

        The first wish has them stop at a safe point, the second one at once. One that ends with an
        error as soon as it is started first has something wrong that another start does not mend:
        then all are stopped, and its exit code is given.
        """
        code, told = OK, 0
        for place in self.places:
            self._start(place)
        while True:
            wishes = stops()
            if wishes > told:
                told = wishes
                self._signal(signal.SIGTERM)
            if told and not any(place.process for place in self.places):
                return code
            for place in self.places:
                ended = self._look(place, is_stopping=bool(told))
                if ended and not told:
                    code, told = ended, 1
                    self._signal(signal.SIGTERM)
            if told > 1:
                self._end()
                return code
            time.sleep(LOOK_SECONDS)

    def _start(self, place: Place) -> None:
        environment = {**self._environment, PLACE: str(place.number)}
        if place.tenant is not None:
            environment["OUTLAST_TENANT"] = place.tenant
        place.process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, env=environment, process_group=0
        )
        place.begun_at = time.monotonic()
        whose = "" if place.tenant is None else f" for {place.tenant}"
        self._say(f"worker {place.number} started{whose}, pid {place.process.pid}")

    def _look(self, place: Place, *, is_stopping: bool) -> int:
        """See to one of them; gives an exit code that ends them all, or 0."""
        now = time.monotonic()
        if place.process is None:
            if not is_stopping and now >= place.again_at:
                self.restarts += 1
                self._start(place)
            return 0
        code = place.process.poll()
        if code is None:
            return 0
        pid, lived = place.process.pid, now - place.begun_at
        _let_go(place)
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        if is_stopping:
            self._say(f"worker {place.number}, pid {pid}, ended {how}")
            return 0
        if code > 0 and not place.deaths and not self.restarts and lived < STEADY_SECONDS:
            self._say(f"worker {place.number}, pid {pid}, ended {how} as it began: all stop")
            return code
        place.deaths = 0 if lived >= STEADY_SECONDS else place.deaths + 1
        wait = min(BACK_OFF_SECONDS * 2**place.deaths / 2, BACK_OFF_SECONDS_MAX)
        wait = wait if place.deaths else 0.0
        place.again_at = now + wait
        self._say(f"worker {place.number}, pid {pid}, ended {how}; starts again in {wait:g} s")
        return 0

    def _signal(self, number: signal.Signals) -> None:
        for place in self.places:
            if place.process is not None and place.process.poll() is None:
                place.process.send_signal(number)

    def _end(self) -> None:
        """Wait for those that were told to stop at once, and kill who does not."""
        until = time.monotonic() + END_SECONDS
        for place in self.places:
            if place.process is None:
                continue
            try:
                place.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                place.process.kill()
                place.process.wait()
            _let_go(place)


def _let_go(place: Place) -> None:
    """Forget a process that has ended."""
    assert place.process is not None and place.process.stdin is not None
    place.process.stdin.close()
    place.process = None


def end_with_supervisor() -> None:
    """Stop this process at a safe point when its supervisor is gone; a thread waits for that."""
    if os.environ.get(SUPERVISED) != "1":
        return
    del os.environ[SUPERVISED]  # it is no business of what this process starts
    source = sys.stdin.fileno()

    def wait() -> None:
        while os.read(source, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="outlast-supervised", daemon=True).start()


def place_here() -> int:
    """Say which of the workers of one supervisor this process is, from 1."""
    said = os.environ.get(PLACE, "1")
    return int(said) if said.isdecimal() else 1


def own_command(words: Sequence[str], *, several: bool = False) -> list[str]:
    """Give the command that runs one of the processes: without ``--processes`` and ``--tenant``.

    Several tenants are named to the processes one by one, by the environment.
    """
    left_out = ("--processes", "--tenant") if several else ("--processes",)
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in left_out:
            skip = True
        elif not word.startswith(tuple(f"{option}=" for option in left_out)):
            kept.append(word)
    return [sys.executable, "-m", "outlast.cli", *kept]


__all__ = ["Supervisor", "end_with_supervisor", "own_command", "place_here"]
