"""The dashboard, the alerts and the guide name metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from outlast import Engine, task
from outlast.engine.task.registry import TASKS as KNOWN
from outlast.observe.metrics import Metrics

from . import awaited

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD = DOCS / "observability" / "dashboard.json"
ALERTS = DOCS / "observability" / "alerts.yaml"
GUIDE = DOCS / "guides" / "observability.md"
ELSEWHERE = {"outlast_lease_left_seconds"}
"""What only an engine on a shared store shows."""
LABELS = {"state", "task", "queue", "rule", "kind", "from", "to", "refusal", "scope", "meter", "le"}


@task
async def idle() -> None:
    """Do nothing."""


KNOWN.pop(idle.name)


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:outlast|process)_[a-z_]+\b", text)) - {"process_"}


def family(name: str) -> str:
    return re.sub(r"_(bucket|sum|count|total|info)$", "", name)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    found: set[str] = set()
    directory = tmp_path_factory.mktemp("metrics")

    @awaited
    async def look() -> None:
        engine = Engine(f"sqlite:///{directory}/o.db", tasks=[idle])
        async with engine:
            await (await engine.astart(idle)).aresult()
            for one in text_string_to_metric_families(Metrics(engine).text().decode()):
                found.add(family(one.name))

    look()
    return found | ELSEWHERE


@pytest.mark.parametrize("path", [DASHBOARD, ALERTS, GUIDE], ids=lambda path: path.name)
def test_each_metric_that_is_named_is_there(path: Path, there: set[str]) -> None:
    named = {family(name) for name in names_in(path.read_text("utf-8"))}
    assert len(named) > 8
    assert named <= there


def test_the_guide_names_each_metric(there: set[str]) -> None:
    named = {family(name) for name in names_in(GUIDE.read_text("utf-8"))}
    ours = {name for name in there if name.startswith("outlast_")}
    assert ours <= named


def test_the_dashboard_can_be_read_and_groups_by_labels_that_there_are() -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    for panel in panels:
        for target in panel["targets"]:
            for group in re.findall(r"by \(([^)]*)\)", target["expr"]):
                assert set(re.split(r",\s*", group)) <= LABELS, target


def test_each_alert_says_what_to_do() -> None:
    (group,) = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    assert len(group["rules"]) >= 8
    for rule in group["rules"]:
        assert rule["alert"].startswith("Outlast") and rule["labels"]["severity"] in (
            "page",
            "ticket",
        )
        assert rule["annotations"]["summary"] and rule["annotations"]["do"]
        assert rule["expr"].count("(") == rule["expr"].count(")")
