"""What deploy/ has is what its programs take, and its commands do what they are there for."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import compose_spec
import helm_python
import kubernetes_validate
import pytest
import yaml
from helm_python import Chart

from outlast.cli.app import outlast

from .conftest import Terminal, request, until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "outlast"
KUBERNETES = ("1.27", kubernetes_validate.latest_version())
"""The oldest version that the chart asks for, and the newest that is known."""
TOKEN = "a token of twenty characters"

Manifest = dict[str, Any]


def parsed(words: list[str]) -> click.Context:
    """Parse a command line as the program does, and do nothing."""
    command: click.Command = outlast
    context = click.Context(outlast)
    rest = list(words)
    while isinstance(command, click.Group):
        found = command.get_command(context, rest.pop(0))
        assert found is not None, words
        command = found
    return command.make_context(command.name, rest)


# Docker


def test_the_dockerfile_is_in_order() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [linter, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_what_the_dockerfile_takes_is_there() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"'\.\[(.*?)\]'", text)
    assert set(extras.split(",")) == set(project["optional-dependencies"]) - {"dev", "pydantic"}
    sent = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0:1] == "!"
    }
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert copied == sent
    assert all((ROOT / name).exists() for name in sent)
    assert project["readme"] in copied and set(project["license-files"]) <= copied


# Compose


@pytest.fixture
def services() -> dict[str, Any]:
    """The services of the compose file, its merges done."""
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert isinstance(found, dict)
    return found


def test_the_compose_file_is_one() -> None:
    options = compose_spec.PyOptions(apply_merge=True)
    compose = options.from_yaml((DEPLOY / "compose.yaml").read_text())
    compose.validate()
    assert set(compose.service_names()) == {"postgres", "schema", "server", "worker"}


def test_the_compose_services_are_confined(services: dict[str, Any]) -> None:
    for name in ("schema", "server", "worker"):
        assert services[name]["read_only"] and services[name]["cap_drop"] == ["ALL"], name
    assert services["server"]["ports"] == ["127.0.0.1:7575:7575"]
    assert "ports" not in services["postgres"]


def test_what_compose_starts_serves_and_works(
    terminal: Terminal, postgres_url: str, services: dict[str, Any]
) -> None:
    shutil.copy(DEPLOY / "shop.py", terminal.directory)
    outside = {"OUTLAST_STORE": postgres_url, "OUTLAST_TOKEN": TOKEN}
    assert set(services["server"]["environment"]) == set(outside)
    for _ in range(2):
        assert terminal.run(*services["schema"]["command"], **outside).code == 0
    words = [*services["server"]["command"], "--port", "0"]
    refused = terminal.run(*words, **outside)
    assert refused.code == 2 and "outlast token create" in refused.err
    made = terminal.run("token", "create", "ops", "--role", "admin", "-o", "json", **outside)
    server = terminal.spawn(*words, **outside)
    (port,) = re.findall(r"http://0\.0\.0\.0:(\d+)", server.line_with("serving"))
    url = f"http://127.0.0.1:{port}"
    terminal.spawn(*services["worker"]["command"], **outside).line_with("serving")

    probe = services["server"]["healthcheck"]["test"]
    assert probe[:3] == ["CMD", "python3", "-c"]
    done = subprocess.run(
        [sys.executable, "-c", probe[3].replace("http://127.0.0.1:7575", url)], check=False
    )
    assert done.returncode == 0

    api = partial(request, url, made.json["token"])
    started = api("executions", {"task": "ship", "input": {"order": 7}})
    until(lambda: api(f"executions/{started['id']}/questions")["items"])
    api(f"executions/{started['id']}/answer", {"value": True})
    assert api(f"executions/{started['id']}/result?wait=20s")["result"] == "parcel 7 sent"


# systemd


@pytest.mark.parametrize("unit", ["outlast-server.service", "outlast-worker@.service"])
def test_a_unit_is_in_order(unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DEPLOY / "systemd" / unit).read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    program, *words = shlex.split(command)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text("")
    assert parsed(words).params["sources"] == ("app.py",)
    for name in re.findall(r"OUTLAST_\w+", text):
        assert name in (DEPLOY / "systemd" / "outlast.env").read_text(), name
    if os.access("/usr/bin/systemd-analyze", os.X_OK):
        here = shutil.which("outlast", path=Path(sys.executable).parent)
        assert here is not None
        (tmp_path / unit).write_text(text.replace(program, here))
        done = subprocess.run(
            ["/usr/bin/systemd-analyze", "verify", "--man=no", tmp_path / unit],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


# Kubernetes

VALUES: dict[str, Manifest] = {
    "defaults": {},
    "everything": {
        "app": {"entry": "shop.py", "files": {"shop.py": (DEPLOY / "shop.py").read_text()}},
        "image": {"repository": "outlast", "tag": "1", "pullSecrets": ["pull"]},
        "server": {"replicas": 2, "hosts": ["ops.example"], "origins": ["https://ops.example"]},
        "worker": {
            "queues": ["orders", "mail"],
            "capabilities": ["gpu"],
            "autoscaling": {"enabled": True},
        },
        "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "ops-tls"},
        "networkPolicy": {"from": {"app": "proxy"}},
        "serviceAccount": {"annotations": {"team": "ops"}},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "x", "operator": "Exists"}],
    },
    "little": {
        "schema": {"manage": False},
        "networkPolicy": {"enabled": False},
        "serviceAccount": {"create": False},
    },
}


@pytest.fixture(scope="module")
def chart() -> Iterator[Chart]:
    with Chart.load(CHART) as loaded:
        yield loaded


def rendered(chart: Chart, values: Manifest) -> list[Manifest]:
    texts = chart.render(values=values, name="demo", namespace="ns")
    return [
        document
        for name, text in texts.items()
        if name.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document is not None
    ]


def pods_of(manifests: list[Manifest]) -> list[Manifest]:
    return [one["spec"]["template"]["spec"] for one in manifests if "template" in one["spec"]]


def test_helm_finds_nothing_to_say() -> None:
    said = helm_python.chart.lint(CHART)
    assert said["errors"] == [] and said["messages"] == []


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_kubernetes_takes_what_the_chart_gives(chart: Chart, values: Manifest) -> None:
    manifests = rendered(chart, values)
    assert {"Deployment", "Service", "PodDisruptionBudget"} <= {one["kind"] for one in manifests}
    for manifest in manifests:
        for version in KUBERNETES:
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_the_commands_of_the_chart_are_commands(
    chart: Chart, values: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(DEPLOY / "shop.py", tmp_path)
    told = {}
    manifests = [one for one in rendered(chart, values) if "spec" in one]
    for pod in pods_of(manifests):
        (container,) = pod["containers"]
        told[container["name"]] = parsed([str(word) for word in container["args"]]).params
        assert container["envFrom"] == [{"secretRef": {"name": "outlast"}}]
    assert set(told) == {"server", "worker"} | ({"schema"} if "schema" not in values else set())
    assert told["server"]["unsafe_plain"] and told["server"]["sources"] == ("shop.py",)
    assert set(values.get("server", {}).get("hosts", ())) <= set(told["server"]["hosts"])
    assert told["worker"]["sources"] == ("shop.py",)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_the_pods_are_confined(chart: Chart, values: Manifest) -> None:
    for pod in pods_of([one for one in rendered(chart, values) if "spec" in one]):
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_probes_call_the_server_by_a_name_it_has(chart: Chart) -> None:
    (server,) = (
        pod["containers"][0]
        for pod in pods_of([one for one in rendered(chart, {}) if "spec" in one])
        if pod["containers"][0]["name"] == "server"
    )
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        call = server[probe]["httpGet"]
        assert call["httpHeaders"] == [{"name": "Host", "value": "localhost"}]
        assert call["path"] in {"/healthz", "/readyz"}


@pytest.mark.parametrize(
    "values",
    [
        {"worker": {"replicas": "two"}},
        {"worker": {"lease": "ten"}},
        {"graceSeconds": 1},
        {"unknown": 1},
        {"secret": ""},
        {"ingress": {"enabled": True}},
    ],
    ids=json.dumps,
)
def test_values_that_cannot_be_are_refused(chart: Chart, values: Manifest) -> None:
    with pytest.raises(helm_python.HelmError):
        chart.render(values=values, name="demo", namespace="ns")
