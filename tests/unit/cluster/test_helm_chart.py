"""The chart of a cluster under the real helm: it makes the same objects as plain YAML does, and obeys its values."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from fleet.cli.app import app

pytestmark = [
    pytest.mark.wide,
    pytest.mark.skipif(shutil.which("helm") is None, reason="no helm here: install it"),
]
GOLDEN = Path(__file__).parents[2] / "golden" / "kuberay"
BEFORE_THE_CHART = {"Namespace", "ServiceAccount"}
"""Namespaces are made before a release goes into one, with what Kubernetes puts there itself."""


def helm(*argv: str) -> str:
    """What helm prints; it has to succeed."""
    done = subprocess.run(["helm", *argv], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(text: str) -> dict[tuple[str, str], Any]:
    """Every object by kind and name."""
    found = [document for document in yaml.safe_load_all(text) if document]
    return {(document["kind"], document["metadata"]["name"]): document for document in found}


def chart(folder: Path, cluster: str) -> str:
    """The folder of the chart of a shipped cluster."""
    done = CliRunner().invoke(app, ["cluster", "render", cluster, "--helm", "--out", str(folder / "chart")])
    assert done.exit_code == 0, done.output
    return str(folder / "chart")


@pytest.mark.parametrize("cluster", ["small", "gpu"])
def test_chart_is_clean_and_makes_the_objects_of_the_plain_manifest(tmp_path: Path, cluster: str) -> None:
    made = chart(tmp_path, cluster)
    assert "0 chart(s) failed" in helm("lint", made)
    rendered, plain = objects(helm("template", "fleet", made)), objects((GOLDEN / f"{cluster}.yaml").read_text())
    assert {kind for kind, _ in plain.keys() - rendered.keys()} <= BEFORE_THE_CHART
    assert rendered == {key: plain[key] for key in rendered}


def test_values_change_what_they_name_and_nothing_else(tmp_path: Path) -> None:
    made = chart(tmp_path, "small")
    before = objects(helm("template", "fleet", made))
    after = objects(helm("template", "fleet", made, "--set", "workers.sandbox.maxReplicas=7"))
    changed = [key for key in before if before[key] != after[key]]
    assert [kind for kind, _ in changed] == ["RayService"]
    assert '"maxReplicas": 7' in str(after[changed[0]]).replace("'", '"')
