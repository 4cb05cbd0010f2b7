"""Mistakes in ownership: fences, leases, outcomes that nobody knows."""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from campaigns.simulation.plants.plant import Patch, Plant, decide_module
from outlast.engine.cluster.membership import Membership
from outlast.engine.drive.worker import Worker
from outlast.lifecycle import Event, Kind
from outlast.lifecycle import decide as decide_function
from outlast.store.memory import MemoryStore
from outlast.store.memory.members import MemoryMembers
from outlast.store.protocol import Answer


def _unfenced_recoverer() -> list[Patch]:
    plain = decide_module._fence

    def fence(record: Any, event: Any) -> Any:
        number = plain(record, event)
        lost = event.kind in (Kind.WORKER_LOST, Kind.LEASE_EXPIRED)
        return record.fence if lost and number is not None else number

    return [(decide_module, "_fence", fence)]


def _unknown_taken_for_failed() -> list[Patch]:
    def claimed(self: Any, task: Any) -> None:
        self._claiming = None
        if self._more and self._open and self.free > 0:
            self.look()

    return [(Worker, "_claimed", claimed)]


def _stale_writes_stored() -> list[Patch]:
    plain = MemoryStore._write

    def write(self: Any, item: Any) -> Any:
        record = self._records.get(item.id)
        if record is not None and record.is_leased and item.fence < record.fence:
            # "It only adds a step's result": the last one to write is believed.
            row = item.rows[0]
            if row.kind is Kind.STEP and len(item.rows) == 1:
                event = Event(row.kind, row.actor, record.fence, record.nonce, row.key, row.digest,
                              row.data, row.payload)  # fmt: skip
                decision: Any = decide_function(record, event, row.at)
                twin = decide_module.applied(record, decision)
                self._put(twin, [decision.transition])
                return Answer()
        return plain(self, item)

    return [(MemoryStore, "_write", write)]


def _drops_without_rejoining() -> list[Patch]:
    from outlast.engine.engine import Engine

    def store_failed(self: Any, error: Any) -> None:
        for driver in list(self.worker.drivers.values()):
            driver.drop()

    return [(Engine, "_store_failed", store_failed)]


def _takeover_ignores_renewals() -> list[Patch]:
    plain = MemoryMembers.renew

    def renew(self: Any, worker: str, *given: Any, **more: Any) -> Any:
        before = self._rows.get(worker)
        renewal = plain(self, worker, *given, **more)
        if renewal is not None:
            row = self._rows[worker]
            self._rows[worker] = replace(row, expires_at=before.expires_at)
        return renewal

    return [(MemoryMembers, "renew", renew)]


def _watchdog_off() -> list[Patch]:
    def may_begin(self: Any) -> bool:
        return self._name is not None

    def expires_in(self: Any) -> float:
        return 1e9

    return [(Membership, "may_begin", may_begin), (Membership, "expires_in", expires_in)]


def _watchdog_off_unfenced() -> list[Patch]:
    return [*_watchdog_off(), *_stale_writes_stored()]


def _renewal_forgotten_under_load() -> list[Patch]:
    plain = Membership.beat

    def beat(self: Any) -> float:
        engine = self._renewed.__self__._engine
        if engine.worker.drivers:
            return float(self.lease_us / 3e6)
        return plain(self)

    return [(Membership, "beat", beat)]


def _lease_measured_from_the_answer() -> list[Patch]:
    plain = Membership._granted

    def granted(self: Any, lease_us: int, sent_at: float) -> None:
        plain(self, lease_us, self.now() + max(0.0, self.process.frozen_until / 1e6 - self.now()))

    return [(Membership, "_granted", granted)]


PLANTS: Final[dict[str, Plant]] = {
    "unfenced_recoverer": Plant(
        "the recoverer takes executions back without raising the fence",
        ("INV-5 fence",), _unfenced_recoverer,
    ),
    "stale_writes_stored": Plant(
        "the store takes a step's result also from a worker whose lease was taken over",
        ("INV-6 owner",), _stale_writes_stored,
    ),
    "claim_unknown": Plant(
        "a claim whose outcome is unknown is taken for none",
        ("INV-10 liveness", "reasons"), _unknown_taken_for_failed,
    ),
    "commit_unknown": Plant(
        "after a commit of unknown outcome the engine goes on under its old leases",
        ("INV-10 liveness", "reasons"), _drops_without_rejoining,
    ),
    "takeover_ignores_renewals": Plant(
        "a lease runs out so long after it began, however often it was renewed",
        ("lease taken",), _takeover_ignores_renewals,
    ),
    "watchdog_off": Plant(
        "an engine starts bodies although it could not renew its lease",
        ("lease watched",), _watchdog_off,
    ),
    "watchdog_off_unfenced": Plant(
        "the same, and the store takes a step's result from a worker that was taken over",
        ("INV-6 owner",), _watchdog_off_unfenced,
    ),
    "renewal_forgotten_under_load": Plant(
        "an engine does not renew its lease while it has something to run",
        ("lease kept",), _renewal_forgotten_under_load,
    ),
    "lease_measured_from_the_answer": Plant(
        "the watchdog measures from when the answer to a renewal came, not from its sending",
        ("lease watched",), _lease_measured_from_the_answer,
    ),
}  # fmt: skip
