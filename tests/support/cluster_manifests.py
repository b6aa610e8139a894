"""Clusters of the tests, and what is rendered of them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from cluster.kuberay.render import load_cluster, render
from cluster.kuberay.settings import ClusterSettings
from fleet.config.files import ConfigFiles, packaged_directory

RAY_KINDS = frozenset({"RayCluster", "RayService", "RayJob"})


def files() -> ConfigFiles:
    """The packaged config files."""
    return ConfigFiles(packaged_directory())


def document_of(name: str) -> dict[str, Any]:
    """A file of config/cluster as it stands."""
    return dict(files().document(f"cluster/{name}.yaml"))


def cluster_named(name: str, **changed: Any) -> ClusterSettings:
    """A packaged cluster with some keys replaced."""
    return load_cluster(name, files()).model_copy(update=changed)


def rendered(cluster: ClusterSettings) -> list[dict[str, Any]]:
    """All its objects."""
    return json.loads(_rendered(cluster.model_dump_json()))


@cache
def _rendered(cluster: str) -> str:
    return json.dumps(render(ClusterSettings.model_validate_json(cluster), files()))


def every_ray_object() -> list[dict[str, Any]]:
    """Each kind of object that the operator takes, of every packaged cluster and form."""
    found: list[dict[str, Any]] = []
    for name in ("small", "gpu"):
        kept = cluster_named(name, kind="cluster")
        for cluster in (cluster_named(name), kept, cluster_named(name, runs=None)):
            found += [m for m in rendered(cluster) if m["kind"] in RAY_KINDS]
    return found
