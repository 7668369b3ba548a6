"""The dashboard and the alerts look at metrics that exist, and each alert tells what to do."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local.ports import SERVICES

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
SCRAPE = ROOT / "deploy/prometheus/prometheus.yml"
DASHBOARD = ROOT / "deploy/grafana/baza.json"
OPERATIONS = ROOT / "docs/operations.md"
OF_PROMETHEUS = {"up"}
PROMQL = {
    *("max", "min", "sum", "rate", "changes", "max_over_time", "histogram_quantile"),
    *("by", "on", "and", "group_left", "label_values"),
}
SHOW_METRICS = """
import importlib, sys
from prometheus_client import REGISTRY
for module in ("main", "worker"):
    importlib.import_module(f"services.{sys.argv[1]}.{module}")
for family in REGISTRY.collect():
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    for suffix in suffixes.get(family.type, [""]):
        print(family.name + suffix, *{label for s in family.samples for label in s.labels})
"""


@pytest.fixture(scope="module")
def exposed() -> set[str]:
    """Names of the metrics that the processes of a service have in /metrics."""
    shown = subprocess.run(
        [sys.executable, "-c", SHOW_METRICS, "scoring"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.split()[0] for line in shown.stdout.splitlines()} | OF_PROMETHEUS


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    assert group.keys() == {"name", "rules"}
    found: list[dict[str, Any]] = group["rules"]
    return found


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def expressions_of_panels() -> list[str]:
    return [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])
    ]


def metrics_in(expression: str) -> set[str]:
    """Names that are neither PromQL's own, nor labels, nor values."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|on|group_left)\s*\([^)]*\)", "", bare)
    return set(re.findall(r"[a-z_][a-z0-9_]*", bare)) - PROMQL


def test_alerts_and_panels_use_metrics_that_exist(exposed: set[str]) -> None:
    expressions = [rule["expr"] for rule in rules()] + expressions_of_panels()

    used = set().union(*map(metrics_in, expressions))

    assert len(used) > 20
    assert used - exposed == set()


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (a) (rate(x_total{b=~"$c"}[5m])) > 1', {"x_total"}),
        ("max(y) / on (instance) group_left () z >= 1", {"y", "z"}),
    ],
)
def test_names_are_found_in_expressions(expression: str, names: set[str]) -> None:
    assert metrics_in(expression) == names


def test_every_alert_is_whole_and_says_what_to_do() -> None:
    headings = set(re.findall(r"^#+ (\w+)$", OPERATIONS.read_text(), re.MULTILINE))

    for rule in rules():
        assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smh]", rule["for"])
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["expr"].count("(") == rule["expr"].count(")")
        assert rule["annotations"]["summary"]
        assert rule["alert"] in headings
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


def test_every_process_is_scraped() -> None:
    (job,) = yaml.safe_load(SCRAPE.read_text())["scrape_configs"]

    scraped = {
        (one["labels"]["service"], one["labels"]["process"]): one for one in job["static_configs"]
    }

    assert scraped.keys() == {(s, p) for s in SERVICES for p in ("api", "worker")}
    for (service, process), one in scraped.items():
        assert one["targets"] == [f"{service}-{process}:8000"]


def test_the_dashboard_fits_any_prometheus() -> None:
    loaded = dashboard()
    places = [panel["gridPos"] for panel in loaded["panels"]]

    assert {variable["name"] for variable in loaded["templating"]["list"]} == {
        "datasource",
        "service",
    }
    assert "${datasource}" in json.dumps(loaded["panels"])
    assert len({panel["id"] for panel in loaded["panels"]}) == len(loaded["panels"])
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert len({(place["x"], place["y"]) for place in places}) == len(places)
    assert {panel["type"] for panel in loaded["panels"]} == {"row", "stat", "timeseries"}
