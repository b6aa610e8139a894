"""Actors of a rendered cluster find nodes: the placement in its fleet.yaml and the labels of its groups agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.kuberay.render import load_cluster, render
from cluster.kuberay.settings import ClusterSettings
from fleet.config.settings import FleetSettings, has_node
from fleet.kernel.errors import ConfigError
from serve_apps import deployed
from tests.support.cluster_manifests import cluster_named, document_of, files, rendered


def placement_and_groups(cluster: ClusterSettings) -> tuple[dict[str, dict[str, str]], list[dict[str, str]]]:
    """What the actors are told, and the labels of each group of workers."""
    manifests = rendered(cluster)
    (told,) = [m for m in manifests if m["kind"] == "ConfigMap" and "fleet.yaml" in m["data"]]
    (ray,) = [m for m in manifests if m["kind"] in ("RayService", "RayCluster")]
    spec = ray["spec"].get("rayClusterConfig", ray["spec"])
    return yaml.safe_load(told["data"]["fleet.yaml"])["placement"], [g["labels"] for g in spec["workerGroupSpecs"]]


@pytest.mark.parametrize("name", ["small", "gpu"])
@pytest.mark.parametrize("kind", ["service", "cluster"])
def test_every_kind_of_actor_has_a_group(name: str, kind: str) -> None:
    placement, groups = placement_and_groups(cluster_named(name, kind=kind))
    assert FleetSettings.model_validate({"home": "/home", "placement": placement}).placement == placement
    assert {actor: has_node(wanted, groups) for actor, wanted in placement.items()} == dict.fromkeys(placement, True)
    assert placement["sandbox"] == {"pool": "sandbox"}
    assert placement["engine"] == {"pool": "gpu" if name == "gpu" else "agents"}


@pytest.mark.parametrize("name", ["small", "gpu"])
def test_applications_of_serve_are_there_and_have_nodes(name: str) -> None:
    (service,) = [m for m in rendered(cluster_named(name)) if m["kind"] == "RayService"]
    _, groups = placement_and_groups(cluster_named(name))
    for application in yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]:
        module, _, builder = application["import_path"].partition(":")
        assert module == deployed.__name__
        assert callable(getattr(deployed, builder))
        for deployment in application["deployments"]:
            assert has_node(deployment["ray_actor_options"]["label_selector"], groups)


def changed(folder: Path, **keys: Any) -> ClusterSettings:
    """The small cluster with these keys, from a file."""
    file = folder / "ours.yaml"
    file.write_text(yaml.safe_dump({**document_of("small"), **keys}))
    return load_cluster(str(file), files())


def workers(**first: Any) -> list[dict[str, Any]]:
    one, *rest = document_of("small")["workers"]
    return [{**one, **first}, *rest]


def test_labels_of_a_group_and_placement_of_the_site_are_kept(tmp_path: Path) -> None:
    placement = {"council": {"pool": "agents", "zone": "near"}}
    cluster = changed(tmp_path, workers=workers(labels={"zone": "near"}), fleet={"placement": placement})
    told, groups = placement_and_groups(cluster)
    assert groups[0] == {"pool": "agents", "zone": "near"}
    assert told["council"] == placement["council"]
    assert told["role"] == {"pool": "agents"}


@pytest.mark.parametrize(
    ("keys", "path", "mend"),
    [
        ({"fleet": {"placement": {"council": {"zone": "near"}}}}, "fleet.placement.council", "give them to a group"),
        ({"workers": workers(labels={"pool": "sandbox"})}, "workers.0.labels", "leave it out"),
        ({"workers": workers(labels={"a b": "c"})}, "workers.0.labels", "pattern"),
    ],
)
def test_label_that_no_group_has_is_refused_by_name(tmp_path: Path, keys: dict[str, Any], path: str, mend: str) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(tmp_path, **keys)
    assert path in caught.value.message
    assert mend in caught.value.message


def test_placement_of_a_wrong_form_is_refused_when_fleet_yaml_is_made(tmp_path: Path) -> None:
    for wrong in ({"cook": {"pool": "agents"}}, {"council": "agents"}, "agents"):
        with pytest.raises(ConfigError, match="placement"):
            render(changed(tmp_path, fleet={"placement": wrong}), files())
