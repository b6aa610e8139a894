"""Names, labels and small parts that all objects of a cluster share. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from cluster.kuberay.settings import ClusterSettings, KeyOfSecret

Manifest = dict[str, Any]
Part = Literal[
    "namespace", "access", "config", "home", "head", "worker", "service", "log", "cache", "gcs", "graph", "network"
]  # fmt: skip

CLUSTER_LABEL, PART_LABEL = "swefleet.io/cluster", "swefleet.io/part"
FIELD_MANAGER = "swe-fleet"


def labels(cluster: ClusterSettings, part: Part) -> dict[str, str]:
    """Labels by which everything of one cluster is found, and told from what is not of it."""
    return {
        "app.kubernetes.io/name": "swe-fleet",
        "app.kubernetes.io/instance": cluster.name,
        "app.kubernetes.io/managed-by": "fleet",
        CLUSTER_LABEL: cluster.name,
        PART_LABEL: part,
    }


def metadata(
    cluster: ClusterSettings,
    name: str,
    part: Part,
    *,
    namespace: str | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """Metadata of an object in the cluster's namespace, or in another one."""
    found: Manifest = {"name": name, "namespace": namespace or cluster.namespace, "labels": labels(cluster, part)}
    return found | ({"annotations": dict(annotations)} if annotations else {})


def ray_pods(cluster: ClusterSettings) -> Manifest:
    """Selects the pods of Ray: head and workers."""
    parts = [{"key": PART_LABEL, "operator": "In", "values": ["head", "worker"]}]
    return {"matchLabels": {CLUSTER_LABEL: cluster.name}, "matchExpressions": parts}


def secret_env(name: str, source: KeyOfSecret) -> Manifest:
    """A variable out of a Secret."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": source.secret, "key": source.key}}}
