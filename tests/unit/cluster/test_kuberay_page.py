"""docs/kubernetes.md says what the product does: every key of a cluster's file, and every right that is used."""

from __future__ import annotations

import re
from pathlib import Path

from cluster.kuberay.settings import ClusterSettings
from fleet.web.kubernetes import RESOURCES
from tests.support.cluster_manifests import cluster_named, rendered

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "kubernetes.md").read_text()


def section(heading: str) -> str:
    """The text below a heading."""
    return PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_every_key_of_the_file_is_documented_and_every_documented_one_exists() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", section("Keys of the file"), re.MULTILINE)

    assert documented == list(ClusterSettings.model_fields)


def test_rights_of_who_applies_cover_every_kind_that_is_rendered() -> None:
    listed = re.findall(r"\b[a-z]+s\b", section("Rights of who applies"))
    kinds = {m["kind"] for name in ("small", "gpu") for m in rendered(cluster_named(name))}

    assert {RESOURCES[kind][1] for kind in kinds} <= set(listed)
