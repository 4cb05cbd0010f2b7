"""What a workload gives: figures, what they are compared with, as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Final

LIMITS: Final = {
    "commits_per_s": "commits/s of one row",
    "rows_100_per_s": "rows/s in commits of 100",
    "rows_1000_per_s": "rows/s in commits of 1,000",
    "fdatasync_us": "µs an fdatasync",
}
TARGETS: Final = {
    ("W1", "steps_per_s"): "≥ 20,000",
    ("W2", "p50_ms"): "≤ 0.8",
    ("W3", "steps_per_s"): "≥ 4,000",
    ("W4", "wall_s"): "≤ 0.1, children 0.3",
    ("W5", "enqueue_per_s"): "≥ 60,000",
    ("W5", "drain_per_s"): "≥ 10,000",
    ("W8", "kib_each"): "≤ 1",
    ("W8", "finish_per_s"): "≥ 5,000",
    ("W6", "repeated_recorded"): "0",
    ("W6", "lost"): "0",
    ("W7", "import_ms"): "≤ 120",
    ("W7", "version_ms"): "≤ 60",
    ("W9", "ratio"): "≥ 0.9",
    ("W10", "pairs_per_s"): "≥ 2,000",
    ("W10", "p99_ms"): "≤ 50",
    ("W10", "cpu_us_a_pair"): "≤ 400",
    ("W10", "page_ms"): "≤ 100",
}
SERVER_TARGETS: Final = {
    ("W1", "steps_per_s"): "≥ 8,000, two processes",
    ("W2", "p50_ms"): "≤ 2",
    ("W5", "enqueue_per_s"): "≥ 30,000",
    ("W5", "drain_per_s"): "≥ 5,000",
    ("W6", "repeated_recorded"): "0",
    ("W6", "lost"): "0",
}
"""Those on PostgreSQL."""
PEERS: Final = {
    ("W1", "executions_per_s"): "451, Restate 1.7",
    ("W1", "steps_per_s"): "2,256, Restate 1.7",
    ("W2", "p50_ms"): "3.6, DBOS on PostgreSQL",
    ("W2", "p99_ms"): "5.8, DBOS on PostgreSQL",
    ("W3", "steps_per_s"): "1,294, Absurd on PostgreSQL",
    ("W4", "wall_s"): "0.77, Restate (jobs, no steps: 0.29)",
    ("W5", "enqueue_per_s"): "6,840",
    ("W5", "drain_per_s"): "1,592",
    ("W8", "kib_each"): "3 to 64",
    ("W6", "recover_s"): "1.6, Restate",
    ("W6", "repeated"): "52, Restate (Temporal 7 in 31 s)",
    ("W7", "cold_start_s"): "0.4 to 1.0, DBOS",
    ("W7", "rss_mib"): "69, DBOS",
}
"""The best durable peer, from ``peers.md``: measured on a similar machine, not on this one."""
PEERS_NOTE: Final = (
    "Peers: the best durable one each, measured 2026-11-21 on a similar 2-core machine whose disk "
    "did 8,002 commits/s of one row; compare the order of magnitude."
)


@dataclass
class Figure:
    """One measure of one variant, with a sample a round.

    Attributes:
        measure: its name in the JSON.
        variant: what was varied; "" for the workload as it is defined.
        samples: one value a round.
    """

    measure: str
    variant: str
    samples: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The figure that counts."""
        return median(self.samples)

    def spread(self) -> dict[str, object]:
        """Give all there is, for the JSON."""
        return {
            "min": _round(min(self.samples)),
            "median": _round(self.median),
            "max": _round(max(self.samples)),
            "runs": [_round(one) for one in self.samples],
        }


@dataclass
class Result:
    """What a workload found.

    Attributes:
        name: W1 and so on.
        title: what it does, in a line.
        headline: the variant whose figures stand for the workload.
        figures: by variant and measure, in order.
        limits: those of the disk, measured before each round.
        checked: what was counted in the files, a sentence a kind of check; without any, there is
            nothing to report.
        notes: what a reader must know.
        busy: how many cores other processes took, a value a round.
    """

    name: str
    title: str
    headline: str = ""
    figures: dict[tuple[str, str], Figure] = field(default_factory=dict)
    limits: dict[str, Figure] = field(default_factory=dict)
    checked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    def add(self, variant: str = "", **measures: float) -> None:
        """Add one round's values."""
        for measure, value in measures.items():
            key = (variant, measure)
            self.figures.setdefault(key, Figure(measure, variant)).samples.append(value)

    def add_limits(self, found: dict[str, float]) -> None:
        """Add one round's limits of the disk."""
        for name, value in found.items():
            self.limits.setdefault(name, Figure(name, "")).samples.append(value)

    def limit(self, name: str) -> float:
        """Give a limit as it was measured before this round."""
        return self.limits[name].samples[-1]

    def check(self, sentence: str) -> None:
        """Note what was checked, once."""
        if sentence not in self.checked:
            self.checked.append(sentence)

    def as_json(self, machine: dict[str, object]) -> dict[str, object]:
        """Give the object for the last line."""
        found: dict[str, object] = {"workload": self.name, "title": self.title}
        variants: dict[str, dict[str, float]] = {}
        spread: dict[str, object] = {}
        for (variant, measure), figure in self.figures.items():
            value = _round(figure.median)
            if variant == self.headline:
                found[measure] = value
            if variant:
                variants.setdefault(variant, {})[measure] = value
            spread[f"{variant}.{measure}" if variant else measure] = figure.spread()
        return {
            **found,
            "verified": bool(self.checked),
            "variants": variants,
            "spread": spread,
            "limits": {name: figure.spread() for name, figure in self.limits.items()},
            "checked": self.checked,
            "notes": self.notes,
            "machine": machine,
            "others_cores": [_round(one) for one in self.busy],
        }

    def lines(self, machine: dict[str, object]) -> list[list[str]]:
        """Give the rows of the table."""
        rows = []
        targets = SERVER_TARGETS if "server" in machine else TARGETS
        for (variant, measure), figure in self.figures.items():
            key = (self.name, measure)
            rows.append(
                [
                    self.name,
                    variant,
                    measure,
                    _number(figure.median),
                    f"{_number(min(figure.samples))} - {_number(max(figure.samples))}",
                    targets.get(key, ""),
                    PEERS.get(key, ""),
                ]
            )
        return rows


BUSY: Final = 0.1
"""From how many cores for others on a result says so."""
HEADER: Final = ["", "variant", "measure", "median", "min - max", "target", "best peer"]


def text(results: list[Result], machine: dict[str, object]) -> str:
    """Write one table of all results, and below it what was checked."""
    parts = [", ".join(f"{name} {value}" for name, value in machine.items()), ""]
    parts += table([HEADER, *(line for result in results for line in result.lines(machine))])
    parts.append("")
    for result in results:
        parts.append(f"{result.name}  {result.title}")
        limits = ", ".join(
            f"{_number(figure.median)} {LIMITS[name]}" for name, figure in result.limits.items()
        )
        parts += [f"    limits: {limits}"] if limits else []
        parts += [f"    verified: {sentence}" for sentence in result.checked]
        parts += [f"    note: {note}" for note in result.notes]
        if max(result.busy, default=0.0) > BUSY:
            parts.append(f"    BUSY: others took up to {max(result.busy):.2f} cores meanwhile")
    return "\n".join([*parts, "", PEERS_NOTE])


def table(rows: list[list[str]]) -> list[str]:
    """Align rows of cells; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = {3, 4}
    lines = [
        "  ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def _round(value: float) -> float:
    """Keep six digits."""
    return float(f"{value:.6g}")
