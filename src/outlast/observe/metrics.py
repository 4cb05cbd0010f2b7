"""The metrics of an engine, for Prometheus.

Theory of operation. Nothing is counted here: a scrape reads what the engine has counted of itself
(:mod:`outlast.engine.write.tally`) and asks the store how many there are. The store is asked at
most once in some seconds, however many scrape, and less often where its answer takes long; it
answers from indexes. A store that does not answer fails no scrape: then ``outlast_store_up`` is 0,
and what only it knows is left out.

Each engine has a registry of its own, so that several in one process do not mix. No label holds
what grows with use: no id, key or name of a step. Tasks are code, queues and shared budgets are
few; each is bounded besides.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from outlast import __version__
from outlast.engine.write.tally import Spread
from outlast.errors import OutlastError
from outlast.lifecycle import FINAL, Kind, State
from outlast.lifecycle.table import RULES
from outlast.store.protocol import BudgetRow, Census, WorkerRow
from outlast.store.webhooks import Webhook, WebhookState

if TYPE_CHECKING:
    from outlast.engine.engine import Engine

MEDIA: Final = CONTENT_TYPE_LATEST
KEPT_SECONDS: Final = 5.0
"""How long what the store has answered is shown again."""
SHARE: Final = 20
"""And at least so many times as long as the answer took: looking costs 5 % of a thread at most."""
SERIES_MAX: Final = 200
"""Queues, and budgets, that are shown each by itself."""


class Stock:
    """What the store says of itself, for a while.

    Args:
        engine: whose store it is.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._until = float("-inf")
        self.census: Census | None = None
        self.budgets: list[BudgetRow] = []
        self.workers: list[WorkerRow] = []
        self.webhooks: list[Webhook] = []
        self.seconds = 0.0

    def look(self) -> None:
        """Ask the store, unless it was asked just now."""
        with self._lock:
            begun = monotonic()
            if begun < self._until:
                return
            try:
                store = self._engine.store
                self.census = store.census()
                self.budgets = store.budgets()
                self.workers = store.workers(1_000)
                self.webhooks = store.webhooks.page()
            except OutlastError:
                self.census, self.budgets, self.workers, self.webhooks = None, [], [], []
            now = monotonic()
            self.seconds = now - begun
            self._until = now + max(KEPT_SECONDS, SHARE * self.seconds)


class Metrics(Collector):
    """The metrics of one engine; any thread may ask for them.

    Args:
        engine: the engine; it need not be open yet, and may be closed by now.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stock = Stock(engine)
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """Write all metrics, as a scrape reads them."""
        return generate_latest(self.registry)

    @property
    def tenant(self) -> str:
        """The tenant whose engine it is."""
        return self._engine.tenant

    def describe(self) -> Iterator[Metric]:
        """Name nothing beforehand: registering must not ask a store that is not open yet."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Give all metrics as they are now."""
        stock = self._stock
        stock.look()
        facts = {"version": __version__, "python": platform.python_version()}
        facts["store"] = self._engine.url.partition(":")[0]
        yield InfoMetricFamily("outlast_build", "What runs here.", facts)
        yield _gauge("outlast_store_up", "Whether the store answers.", stock.census is not None)
        yield _gauge(
            "outlast_store_look_seconds", "How long the last look at the store took.", stock.seconds
        )
        if stock.census is not None:
            yield from _of_census(stock.census, self._engine.clock.now())
            yield from _of_budgets(stock.budgets)
            yield _of_workers(stock.workers)
            yield from _of_webhooks(stock.webhooks, self._engine.clock.now())
        yield from self._of_engine()
        yield from self._of_tally()

    def _of_engine(self) -> Iterator[Metric]:
        engine = self._engine
        if not engine.is_open:
            return
        worker = engine.worker
        yield _gauge(
            "outlast_slots", "How many executions this engine holds at most.", worker.slots
        )
        yield _gauge("outlast_slots_used", "How many it holds.", len(worker.drivers))
        yield _gauge(
            "outlast_warm_copies", "How many parked ones it keeps in memory.", len(worker.warm)
        )
        yield _gauge(
            "outlast_journal_items", "Items that wait for their commit.", engine.journal.backlog
        )
        fleet = engine.fleet
        left = None if fleet is None or fleet.membership is None else fleet.membership.expires_in()
        if left is not None:
            yield _gauge("outlast_lease_left_seconds", "What is left of this engine's lease.", left)

    def _of_tally(self) -> Iterator[Metric]:
        tally = self._engine.tally
        edges = dict(tally.edges)
        family = CounterMetricFamily(
            "outlast_transitions",
            "Transitions that this engine's store has committed, by the rule that they go by.",
            labels=("rule", "kind", "from", "to"),
        )
        for rule in RULES:
            labels = (rule.id, rule.kind, rule.source or "none", rule.target)
            family.add_metric(labels, edges.get((rule.kind, rule.source, rule.target), 0))
        yield family
        kinds: dict[Kind, int] = {}
        for (kind, _, _), count in edges.items():
            kinds[kind] = kinds.get(kind, 0) + count
        for name, text, sources in _DERIVED:
            yield _counter(name, text, sum(kinds.get(kind, 0) for kind in sources))
        yield _by_label(
            "outlast_executions_started", "Executions that were born.", "task", dict(tally.started)
        )
        ended = CounterMetricFamily(
            "outlast_executions_ended", "Executions that have ended.", labels=("task", "state")
        )
        for task, state in sorted(tally.ended):
            ended.add_metric((task, state), tally.ended[task, state])
        yield ended
        for name, text, spreads in (
            ("outlast_execution_duration_seconds", "From birth to end.", tally.lasted),
            ("outlast_execution_delay_seconds", "From birth to the code's start.", tally.delayed),
            ("outlast_step_duration_seconds", "Attempts of steps.", tally.steps),
        ):  # fmt: skip
            histogram = HistogramMetricFamily(name, text, labels=("task",))
            for task, spread in sorted(spreads.copy().items()):
                _fill(histogram, (task,), spread)
            yield histogram
        for name, text, one in (
            ("outlast_commit_duration_seconds", "Commits of the journal.", tally.commits),
            ("outlast_commit_items", "Items that one commit writes.", tally.batches),
            ("outlast_claim_duration_seconds", "Claims.", tally.claims),
            ("outlast_lease_renewal_seconds", "Renewals of the lease.", tally.renewals),
        ):
            histogram = HistogramMetricFamily(name, text)
            _fill(histogram, (), one)
            yield histogram
        yield _counter("outlast_claimed", "Executions that claims gave.", tally.claimed)
        yield _counter(
            "outlast_lease_renewal_failures", "Renewals that failed.", tally.late_renewals
        )
        refused = dict.fromkeys(("fenced", "moved", "unknown"), 0) | dict(tally.refused)
        yield _by_label(
            "outlast_refused",
            "Items that the store refused, by its word; unknown: the commit failed.",
            "refusal",
            refused,
        )


class HouseMetrics(Collector):
    """The metrics of all engines of one process, each with its tenant as a label.

    Args:
        each: gives those of each engine; asked at each scrape.
    """

    def __init__(self, each: Callable[[], Iterable[Metrics]]) -> None:
        self._each = each
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """Write all metrics, as a scrape reads them."""
        return generate_latest(self.registry)

    def describe(self) -> Iterator[Metric]:
        """Name nothing beforehand, as :meth:`Metrics.describe`."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Give all metrics as they are now: each family once, with the samples of all tenants."""
        families: dict[str, Metric] = {}
        for metrics in self._each():
            tenant = {"tenant": metrics.tenant}
            for family in metrics.collect():
                known = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                known.samples += [
                    sample._replace(labels={**tenant, **sample.labels}) for sample in family.samples
                ]
        return iter(families.values())


_DERIVED: Final = (
    ("outlast_step_retries", "Attempts of steps that failed and are tried again.",
     (Kind.ATTEMPT_FAILED,)),
    ("outlast_execution_retries", "Attempts of whole tasks that failed and are tried again.",
     (Kind.RETRY,)),
    ("outlast_takeovers", "Executions that were taken back from workers that died.",
     (Kind.WORKER_LOST, Kind.LEASE_EXPIRED)),
)  # fmt: skip


def _of_census(census: Census, now: int) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "outlast_executions", "Executions in the store, by state.", labels=("state",)
    )
    for state in State:
        states.add_metric((state,), census.states.get(state, 0))
    yield states
    open_ = sum(count for state, count in census.states.items() if state not in FINAL)
    yield _gauge("outlast_executions_open", "Executions that have not ended.", open_)
    queues = GaugeMetricFamily(
        "outlast_queue_executions",
        "Executions of a queue that wait for a worker, or are run.",
        labels=("queue", "state"),
    )
    ages = GaugeMetricFamily(
        "outlast_queue_head_seconds",
        "How long the next one of a queue has waited; a step of priority counts as a minute.",
        labels=("queue",),
    )
    for name, queue in sorted(census.queues.items())[:SERIES_MAX]:
        queues.add_metric((name, "queued"), queue.queued)
        queues.add_metric((name, "leased"), queue.leased)
        age = 0.0 if queue.turn_at is None else max(0, now - queue.turn_at) / 1e6
        ages.add_metric((name,), age)
    yield queues
    yield ages


def _of_budgets(budgets: list[BudgetRow]) -> Iterator[Metric]:
    labels = ("scope", "meter")
    limits = GaugeMetricFamily("outlast_budget_limit", "What may be spent.", labels=labels)
    spent = GaugeMetricFamily("outlast_budget_spent", "What was spent.", labels=labels)
    reserved = GaugeMetricFamily("outlast_budget_reserved", "What is set aside.", labels=labels)
    for budget in budgets[:SERIES_MAX]:
        place = (budget.scope, budget.meter)
        if budget.limit is not None:
            limits.add_metric(place, budget.limit / 1e6)
        spent.add_metric(place, budget.spent / 1e6)
        reserved.add_metric(place, budget.reserved / 1e6)
    yield from (limits, spent, reserved)


def _of_workers(workers: list[WorkerRow]) -> Metric:
    counts = {"active": 0, "draining": 0, "lost": 0, "left": 0}
    for row in workers:
        counts[row.state] = counts.get(row.state, 0) + 1
    family = GaugeMetricFamily(
        "outlast_workers", "Workers that the store knows, by state.", labels=("state",)
    )
    for state, count in counts.items():
        family.add_metric((state,), count)
    return family


def _of_webhooks(webhooks: list[Webhook], now: int) -> Iterator[Metric]:
    states = dict.fromkeys(map(str, WebhookState), 0)
    for row in webhooks:
        states[row.state] += 1
    family = GaugeMetricFamily(
        "outlast_webhooks", "Webhooks by filter, by state.", labels=("state",)
    )
    for state, count in states.items():
        family.add_metric((state,), count)
    yield family
    waiting = [row for row in webhooks if row.state is WebhookState.ACTIVE]
    yield _gauge(
        "outlast_webhook_pending",
        "Deliveries of active webhooks that wait.",
        sum(row.pending for row in waiting),
    )
    oldest = min((row.waiting_since or now for row in waiting), default=now)
    yield _gauge(
        "outlast_webhook_lag_seconds",
        "How long the oldest of them has waited.",
        max(0, now - oldest) / 1e6,
    )
    yield _gauge(
        "outlast_webhooks_failing",
        "Active webhooks whose receivers take nothing now.",
        sum(row.failing_since is not None for row in waiting),
    )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _by_label(name: str, text: str, label: str, counts: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label,))
    for value, count in sorted(counts.items()):
        family.add_metric((value,), count)
    return family


def _fill(family: HistogramMetricFamily, labels: tuple[str, ...], spread: Spread) -> None:
    """Write a spread: Prometheus wants each bucket to count those below it as well."""
    upto, buckets = 0, []
    counts, total = spread.fold()
    for bound, count in zip((*spread.bounds, float("inf")), counts, strict=True):
        upto += count
        buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), upto))
    family.add_metric(labels, buckets, sum_value=total / spread.scale)


__all__ = ["MEDIA", "HouseMetrics", "Metrics"]
