"""What is wrong with a cluster as a whole: every problem by name, with what to do about it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cluster.kuberay.settings import ClusterSettings, ExistingRedis, OwnRedis, WorkerSettings
from fleet.config.settings import has_node

_SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|TOKEN|SECRET|API_?KEY|PRIVATE_?KEY|CREDENTIAL)", re.IGNORECASE)
_NAMES_A_VARIABLE = re.compile(r"_(env|file|path|reference)$")
_SECRET_URL = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_OURS = frozenset({"sandbox", "redis_url", "cache_url", "neo4j", "home", "config", "ports", "ray", "memory"})
_TOKEN_SINCE = (2, 52, 0)


def problems_of(cluster: ClusterSettings) -> list[dict[str, str]]:
    """Every problem as `{path, reason}`; empty for a cluster that can be rendered."""
    found = [*_groups(cluster), *_stores(cluster), *_places(cluster), *_front(cluster), *_secrets(cluster)]
    return [{"path": path, "reason": reason} for path, reason in found]


def _groups(cluster: ClusterSettings) -> Iterator[tuple[str, str]]:
    names = [group.name for group in cluster.workers]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield "workers", f"the group {name!r} stands twice; give each group a name of its own"
    for number, group in enumerate(cluster.workers):
        yield from ((f"workers.{number}.{path}", reason) for path, reason in _group(cluster, group))
    pools = {group.pool for group in cluster.workers}
    for pool in ("agents", "sandbox"):
        if pool not in pools:
            yield "workers", f"no group has the pool {pool!r}; its actors would wait for ever, so add a group with it"
    yield from _placement(cluster)
    if tuple(int(part) for part in cluster.ray_version.split(".")) < _TOKEN_SINCE:
        yield "ray_version", "token authentication needs Ray 2.52 or newer; use images with a newer one"


def _group(cluster: ClusterSettings, group: WorkerSettings) -> Iterator[tuple[str, str]]:
    if not group.least <= group.replicas <= group.most:
        yield "replicas", f"must be from {group.least} to {group.most} (min_replicas to max_replicas)"
    if cluster.autoscaler is None and not group.least == group.replicas == group.most:
        yield "max_replicas", "nobody adds workers without an autoscaler; set autoscaler, or leave min and max out"
    if cluster.autoscaler is None and group.idle_timeout_s is not None:
        yield "idle_timeout_s", "nobody takes idle workers away without an autoscaler; set autoscaler, or leave it out"
    if group.pool == "gpu" and group.gpus is None:
        yield "gpus", "the pool gpu needs a number of GPUs for each pod; set gpus: 1 or more"
    if group.pool != "gpu" and group.gpus is not None:
        yield "gpus", f"the pool {group.pool!r} uses no GPU; use pool: gpu, or leave gpus out"
    if "pool" in group.labels:
        yield "labels", "the label pool is that of the group's pool; leave it out"
    if group.pool == "gpu" and cluster.images.gpu is None:
        yield "pool", "there is no image for GPU workers; set images.gpu"
    for number, toleration in enumerate(group.tolerations):
        if (toleration.operator == "Equal") != (toleration.value is not None):
            yield f"tolerations.{number}", "Equal needs a value and Exists has none; correct operator or value"


def _placement(cluster: ClusterSettings) -> Iterator[tuple[str, str]]:
    given: object = cluster.fleet.get("placement", {})
    groups = [group.node_labels for group in cluster.workers]
    for kind, labels in given.items() if isinstance(given, Mapping) else ():
        # Forms that are wrong in themselves are told where fleet.yaml is made.
        is_whole = isinstance(labels, Mapping) and all(isinstance(value, str) for value in labels.values())
        if is_whole and not has_node(labels, groups):
            wanted = ", ".join(f"{key}={value}" for key, value in labels.items())
            yield (
                f"fleet.placement.{kind}",
                f"no group has the labels {wanted}; its actors would wait for ever, so give them to a group",
            )


def _stores(cluster: ClusterSettings) -> Iterator[tuple[str, str]]:
    if isinstance(cluster.log, OwnRedis) and cluster.log.storage is None:
        yield "log.storage", "the log is the truth and needs a volume; set log.storage.size"
    if isinstance(cluster.gcs, OwnRedis) and cluster.gcs.storage is None:
        yield "gcs.storage", "the state of Ray's head needs a volume to outlive it; set gcs.storage.size"
    if isinstance(cluster.gcs, ExistingRedis) and cluster.gcs.database != 0:
        yield "gcs.database", "Ray uses database 0 alone; give it a Redis whose database 0 is free"
    if isinstance(cluster.gcs, ExistingRedis) and (cluster.gcs.tls or cluster.gcs.user):
        yield "gcs", "TLS and users are not rendered for Ray's head; use a Redis inside of the cluster (kind: own)"
    places = {name: _server(getattr(cluster, name)) for name in ("log", "cache", "gcs")}
    for one, other in (("gcs", "log"), ("gcs", "cache"), ("cache", "log")):
        if places[one] is not None and places[one] == places[other]:
            yield one, f"is the same server as {other}; each needs settings of its own, so name another server"


def _server(store: OwnRedis | ExistingRedis) -> tuple[str, int] | None:
    return (store.host.lower(), store.port) if isinstance(store, ExistingRedis) else None


def _places(cluster: ClusterSettings) -> Iterator[tuple[str, str]]:
    yield from _blobs(cluster)
    if cluster.runs is not None and cluster.runs.namespace == cluster.namespace:
        yield "runs.namespace", "runs of agents need a namespace that holds nothing else; name another one"
    if cluster.runs is not None and cluster.images.toolbox is None:
        yield "images.toolbox", "runs as Jobs need an image; set images.toolbox, or leave runs out"
    if not cluster.network.api_server and (cluster.autoscaler or cluster.runs):
        yield (
            "network.api_server",
            (
                "the autoscaler and runs as Jobs ask the API server; give its addresses "
                "(kubectl get endpoints kubernetes), as 10.0.0.1/32"
            ),
        )


def _blobs(cluster: ClusterSettings) -> Iterator[tuple[str, str]]:
    kind, is_shared = blobs_of(cluster.fleet)
    if kind == "file" and cluster.home.kind == "node":
        said = (
            "and `shared` does not change that, since home.kind: node mounts nothing in common; " if is_shared else ""
        )
        yield (
            "fleet.blobs",
            (
                "blobs of kind file lie in the home of each node, and what one node wrote another would not find; "
                f"{said}set fleet.blobs: redis, fleet.blobs.kind: s3, or home.kind: shared"
            ),
        )
    if kind == "s3" and not cluster.network.egress:
        yield "network.egress", "pods have to reach the store of the blobs; give its addresses, as 10.0.0.9/32"


def blobs_of(fleet: Mapping[str, Any]) -> tuple[str, bool]:
    """Kind of the blobs as this fleet.yaml says it, and whether it says that the home is shared."""
    said = fleet.get("blobs", "file")
    if isinstance(said, Mapping):
        blobs: Mapping[str, Any] = said
        return str(blobs.get("kind", "file")), bool(blobs.get("shared", False))
    return str(said), False


def _front(cluster: ClusterSettings) -> Iterator[tuple[str, str]]:
    if cluster.network.rpc_namespaces and cluster.kind == "cluster":
        yield "network.rpc_namespaces", "only a RayService marks the pods that serve; set kind: service"
    if cluster.ingress is None:
        return
    if not cluster.ingress.host:
        yield "ingress.host", "without a host name there is no TLS; set the name under which people reach the fleet"
    if not cluster.ingress.tls_secret:
        yield (
            "ingress.tls_secret",
            ("without TLS the tokens of people travel in clear text; name a Secret of kind kubernetes.io/tls"),
        )


def _secrets(cluster: ClusterSettings) -> Iterator[tuple[str, str]]:
    for name, value in cluster.env.items():
        if _SECRET_NAME.search(name) or _SECRET_URL.search(value):
            yield f"env.{name}", "is a secret in clear text; put it into a Secret and name it under env_secrets"
        if name in cluster.env_secrets:
            yield f"env.{name}", "stands under env_secrets too; keep one of them"
    for name in sorted({*cluster.env, *cluster.env_secrets}):
        if name.startswith("RAY_REDIS") or name in {"REDIS_PASSWORD", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"}:
            yield f"env.{name}", "is set by the operator; leave it out (gcs and ray_token say the same)"
    for path, value in _leaves(cluster.fleet, "fleet"):
        key = path.rsplit(".", 1)[-1]
        is_named = isinstance(value, str) and value.startswith("secret://")
        is_secret = bool(_SECRET_NAME.search(key)) and not _NAMES_A_VARIABLE.search(key) and isinstance(value, str)
        if not is_named and (is_secret or (isinstance(value, str) and _SECRET_URL.search(value))):
            yield path, "is a secret in clear text; put it into a Secret and name it under env_secrets"
    for key in sorted(_OURS & cluster.fleet.keys()):
        yield f"fleet.{key}", "follows from the rest of this file; leave it out"


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        inner: Mapping[str, Any] = value
        for key, part in inner.items():
            yield from _leaves(part, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _leaves(part, f"{path}.{number}")
    else:
        yield path, value
