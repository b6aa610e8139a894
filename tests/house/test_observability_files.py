"""Dashboard, alerts and the pages about them name what exists: metrics, labels, values, runbook sections."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from fleet.events.values import ParkCause
from fleet.kernel.errors import FleetError
from fleet.telemetry.catalogue import CATALOGUE, EXPORTED_PREFIX, Metric, exported_names, metrics_page

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cluster" / "observability"
SERIES = {name: metric for metric in CATALOGUE.values() for name in exported_names(metric)}
OF_RAY = frozenset({"WorkerId", "Component", "NodeAddress", "SessionName", "Version", "le"})
WORDS = frozenset(
    """
    sum max min avg count rate increase histogram_quantile absent by without and or unless on ignoring bool
    label_values
    """.split()  # noqa: SIM905 - words of PromQL
)


def dashboard() -> dict[str, Any]:
    return json.loads((FOLDER / "grafana-dashboard.json").read_text())


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    found = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


PANELS, RULES = panels(), rules()
EXPRESSIONS = [
    *[(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]],
    *[(rule["alert"], rule["expr"]) for rule in RULES],
]


def problems(expression: str) -> Iterator[str]:
    """What in a PromQL expression names nothing that exists."""
    if expression.count("(") != expression.count(")"):
        yield "brackets"
    known: list[Metric] = []
    for found in re.finditer(r"([a-zA-Z_]\w*)\s*(?:\{([^}]*)\})?", _plain(expression)):
        name, matchers = found[1], found[2] or ""
        if name in WORDS:
            continue
        metric = SERIES.get(name)
        if metric is None:
            yield f"metric {name}"
            continue
        known.append(metric)
        yield from _wrong_matchers(metric, matchers)
        if name.endswith("_bucket") and not re.search(r"\ble\b", expression):
            yield "buckets without le"
    labels = {label for metric in known for label in metric.labels} | OF_RAY
    for group in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", expression):
        yield from (f"label {each.strip()}" for each in group.split(",") if each.strip() not in labels)
    if not known:
        yield "no metric"


def _plain(expression: str) -> str:
    """Without groups of labels and ranges, which name no metric."""
    without = re.sub(r"\b(by|without)\s*\([^)]*\)", "", expression)
    return re.sub(r"\[[^\]]*\]|\b\d[\d.e]*\b", "", without)


def _wrong_matchers(metric: Metric, matchers: str) -> Iterator[str]:
    for label, _, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers):
        if label not in metric.labels and label not in OF_RAY:
            yield f"label {label} of {metric.name}"
        elif (metric.name, label) in VALUES:
            wrong = set(value.split("|")) - VALUES[metric.name, label]
            yield from (f"value {each} of {metric.name}.{label}" for each in sorted(wrong))


def codes(cls: type[FleetError] = FleetError) -> set[str]:
    """Every error code."""
    return {cls.code}.union(*(codes(child) for child in cls.__subclasses__()))


VALUES = {
    ("fleet_stories_parked_total", "cause"): set(get_args(ParkCause)),
    ("fleet_log_appends_total", "outcome"): {"stored", "duplicate"} | codes(),
    ("fleet_model_call_seconds", "outcome"): {"ok", "closed", "cancelled"} | codes(),
    ("fleet_ownership_taken_total", "cause"): {"new", "expired", "restart"},
    ("fleet_budget_marks_total", "mark"): {"warning", "exhausted"},
    ("fleet_approvals_pending", "age"): {"below_1h", "below_8h", "below_24h", "older"},
}


@pytest.mark.parametrize(("place", "expression"), EXPRESSIONS, ids=[f"{p}-{i}" for i, (p, _) in enumerate(EXPRESSIONS)])
def test_expression_names_metrics_labels_and_values_that_exist(place: str, expression: str) -> None:
    assert list(problems(expression)) == [], place


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("sum(ray_fleet_no_such_metric)", "metric ray_fleet_no_such_metric"),
        ("sum(fleet_dead_letters)", "metric fleet_dead_letters"),
        ("sum by (story) (ray_fleet_stories_open)", "label story"),
        ('ray_fleet_stories_open{story="a"}', "label story of fleet_stories_open"),
        ('ray_fleet_stories_parked_total{cause="tired"}', "value tired of fleet_stories_parked_total.cause"),
        ("sum(ray_fleet_dead_letters", "brackets"),
        ("rate(ray_fleet_step_seconds_bucket[5m])", "buckets without le"),
        ("1 > 0", "no metric"),
    ],
)
def test_wrong_expressions_are_found(expression: str, problem: str) -> None:
    assert problem in list(problems(expression))


def test_every_alert_has_a_severity_and_a_runbook_section() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    sections = re.findall(r"^### (\w+)$", page.split("## Runbook")[1], re.MULTILINE)
    assert [rule["alert"] for rule in RULES] == sections
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["runbook"] == f"docs/observability.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"]
        assert re.fullmatch(r"\d+m", rule.get("for", "5m"))
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert used <= set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))


def test_dashboard_is_one_that_grafana_imports() -> None:
    found = dashboard()
    assert found["uid"] == "swe-fleet"
    assert found["schemaVersion"] >= 39
    ids = [panel["id"] for panel in found["panels"]]
    assert len(ids) == len(set(ids))
    variables = {variable["name"] for variable in found["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(found["panels"])))
    assert used - variables <= {"__rate_interval", "__range", "__auto"}
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs))


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_page_of_metrics_is_the_catalogue() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics_page(), "run `python scripts/metrics.py`"


def sources() -> dict[str, str]:
    """The code that may tell anything."""
    files = [p for folder in ("fleet", "actors", "serve_apps") for p in (ROOT / folder).rglob("*.py")]
    return {str(p.relative_to(ROOT)): p.read_text() for p in files if "node_modules" not in p.parts}


SOURCES = sources()


def told_names() -> set[str]:
    """Every metric that code tells: text that looks like one, outside of the catalogue."""
    pattern = re.compile(r"""["'](fleet_[a-z0-9]+_[a-z0-9_]+)["']""")
    return {name for path, text in SOURCES.items() if "catalogue" not in path for name in pattern.findall(text)}


def test_code_tells_every_metric_of_the_catalogue_and_no_other() -> None:
    assert told_names() == CATALOGUE.keys()


def test_metrics_are_made_in_one_place() -> None:
    pattern = re.compile(
        r"^\s*(?:from ray\.util(?:\.metrics)? import .*metrics|import ray\.util\.metrics)", re.MULTILINE
    )
    assert [path for path, text in SOURCES.items() if pattern.search(text)] == ["fleet/remote/meter.py"]
    assert [path for path, text in SOURCES.items() if "from ray.util.metrics" in text] == []
    assert EXPORTED_PREFIX == "ray_"
