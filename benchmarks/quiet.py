"""Whether anybody else uses the machine: on two cores, another busy process spoils every figure."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic, sleep
from typing import Final

QUIET_CORES: Final = 0.1
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Others:
    """What other processes take of the processors, from here on."""

    def __init__(self) -> None:
        self._began = monotonic()
        self._before = self._theirs()

    def cores(self) -> float:
        """Give how many cores they took so far, on average."""
        return max(0.0, self._theirs() - self._before) / max(0.01, monotonic() - self._began)

    def _theirs(self) -> float:
        """Seconds of all processors' time that this process and its ended children did not take."""
        fields = [int(one) for one in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
        mine = sum(os.times()[:4])
        return (user + nice + system + irq + softirq + steal) / _TICKS - mine


def wait(patience_seconds: float) -> None:
    """Wait until others are quiet, at most so long."""
    until = monotonic() + patience_seconds
    while monotonic() < until:
        others = Others()
        sleep(1.0)
        if others.cores() < QUIET_CORES:
            return
