"""Who may reach whom: everything is denied first, then what the fleet needs is named. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from cluster.kuberay.identity import CLUSTER_LABEL, PART_LABEL, Manifest, metadata, ray_pods
from cluster.kuberay.settings import ClusterSettings, ExistingNeo4j, ExistingRedis
from cluster.kuberay.stores import BOLT_PORT, REDIS_PORT

SERVE_PORT, DASHBOARD_PORT, METRICS_PORT = 8000, 8265, 8080
_STORES = (("log", REDIS_PORT), ("cache", REDIS_PORT), ("gcs", REDIS_PORT), ("graph", BOLT_PORT))


def network_policies(cluster: ClusterSettings, *, asks_api: bool = False) -> list[Manifest]:
    """Deny-all of both namespaces, then one policy for each thing that is allowed."""
    network = cluster.network
    everyone: Manifest = {}
    ray = _ray(cluster)
    found = [
        _policy(cluster, "deny-all", everyone, ingress=[], egress=[]),
        _policy(cluster, "dns", everyone, egress=[_to([_namespace(network.dns_namespace)], (53, "UDP"), (53, "TCP"))]),
        # GCS, dashboard and metrics of Ray are open to the pods of Ray alone: the token travels in plain HTTP.
        _policy(cluster, "ray", ray_pods(cluster), ingress=[{"from": [ray]}], egress=[{"to": [ray]}]),
        _policy(cluster, "operator", ray_pods(cluster), ingress=[
            _from([_namespace(network.operator_namespace)], DASHBOARD_PORT, SERVE_PORT),
        ]),
    ]  # fmt: skip
    if cluster.ingress:
        found.append(_policy(cluster, "front", ray_pods(cluster), ingress=[
            _from([_namespace(network.ingress_namespace)], SERVE_PORT),
        ]))  # fmt: skip
    if network.metrics_namespace:
        found.append(_policy(cluster, "metrics", ray_pods(cluster), ingress=[
            _from([_namespace(network.metrics_namespace)], METRICS_PORT),
        ]))  # fmt: skip
    found += [*_store_policies(cluster), *_outward(cluster, asks_api=asks_api)]
    return [*found, *([_runs(cluster)] if cluster.runs else [])]


def _store_policies(cluster: ClusterSettings) -> Iterable[Manifest]:
    for store, port in _STORES:
        settings = getattr(cluster, store)
        if isinstance(settings, ExistingRedis | ExistingNeo4j):
            there = settings.port if isinstance(settings, ExistingRedis) else urlsplit(settings.uri).port or BOLT_PORT
            rule = _to([_block(cidr) for cidr in settings.cidrs], (there, "TCP"))
            yield _policy(cluster, f"to-{store}", ray_pods(cluster), egress=[rule])
            continue
        pods = _labelled(cluster, store)
        yield _policy(cluster, f"to-{store}", ray_pods(cluster), egress=[_to([{"podSelector": pods}], (port, "TCP"))])
        yield _policy(cluster, store, pods, ingress=[_from([_ray(cluster)], port)])


def _outward(cluster: ClusterSettings, *, asks_api: bool) -> Iterable[Manifest]:
    network = cluster.network
    server = _to([_block(cidr) for cidr in network.api_server], (network.api_server_port, "TCP"))
    if cluster.autoscaler:
        yield _policy(cluster, "autoscaler", _labelled(cluster, "head"), egress=[server])
    if cluster.runs or asks_api:
        pool = {"matchLabels": {CLUSTER_LABEL: cluster.name, "swefleet.io/pool": "sandbox"}}
        yield _policy(cluster, "runs", pool, egress=[server])
    if network.egress:
        rule = _to([_block(cidr) for cidr in network.egress], (443, "TCP"))
        yield _policy(cluster, "outward", _labelled(cluster, "worker"), egress=[rule])


def _runs(cluster: ClusterSettings) -> Manifest:
    """No traffic into or out of a run; the sandbox starts none where this policy is missing (docs/sandbox.md)."""
    assert cluster.runs is not None
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(cluster, "swe-fleet-runs", "network", namespace=cluster.runs.namespace),
        "spec": {
            "podSelector": {"matchLabels": {PART_LABEL: "run"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": [],
        },
    }


def _policy(
    cluster: ClusterSettings,
    name: str,
    pods: Manifest,
    *,
    ingress: Sequence[Manifest] | None = None,
    egress: Sequence[Manifest] | None = None,
) -> Manifest:
    spec: Manifest = {"podSelector": pods, "policyTypes": []}
    for direction, key, rules in (("Ingress", "ingress", ingress), ("Egress", "egress", egress)):
        if rules is not None:
            spec["policyTypes"].append(direction)
            spec[key] = list(rules)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(cluster, f"{cluster.name}-{name}", "network"),
        "spec": spec,
    }


def _from(peers: list[Manifest], *ports: int) -> Manifest:
    return {"from": peers, "ports": [{"port": port, "protocol": "TCP"} for port in ports]}


def _to(peers: list[Manifest], *ports: tuple[int, str]) -> Manifest:
    return {"to": peers, "ports": [{"port": port, "protocol": protocol} for port, protocol in ports]}


def _ray(cluster: ClusterSettings) -> Manifest:
    return {"podSelector": ray_pods(cluster)}


def _labelled(cluster: ClusterSettings, part: str) -> Manifest:
    return {"matchLabels": {CLUSTER_LABEL: cluster.name, PART_LABEL: part}}


def _namespace(name: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _block(cidr: str) -> Manifest:
    return {"ipBlock": {"cidr": cidr}}


def ingress(cluster: ClusterSettings) -> list[Manifest]:
    """The HTTP front under its name, by TLS alone."""
    front = cluster.ingress
    if front is None:
        return []
    assert front.host, "rules.py refuses an ingress without it"
    assert front.tls_secret, "rules.py refuses an ingress without it"
    backend = {"service": {"name": f"{cluster.name}-serve-svc", "port": {"number": SERVE_PORT}}}
    spec: dict[str, Any] = {
        "ingressClassName": front.class_name,
        "tls": [{"hosts": [front.host], "secretName": front.tls_secret}],
        "rules": [
            {"host": front.host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}},
        ],
    }
    place = metadata(cluster, cluster.name, "service", annotations=front.annotations)
    return [{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": place, "spec": spec}]


def rpc_door(cluster: ClusterSettings, port: int) -> list[Manifest]:
    """The Service of gRPC, and who may call it; nothing where nobody may. Serve has no TLS there: it stays inside."""
    if not cluster.network.rpc_namespaces:
        return []
    # KubeRay gives this label to the pods of the RayCluster in charge that have a proxy of Serve.
    pods = {CLUSTER_LABEL: cluster.name, "ray.io/serve": "true"}
    service: Manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(cluster, f"{cluster.name}-rpc", "service"),
        "spec": {
            "type": "ClusterIP",
            "selector": pods,
            "ports": [{"name": "grpc", "port": port, "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"}],
        },
    }
    callers = [_namespace(name) for name in cluster.network.rpc_namespaces]
    return [service, _policy(cluster, "rpc", ray_pods(cluster), ingress=[_from(callers, port)])]


def disruption_budgets(cluster: ClusterSettings) -> list[Manifest]:
    """Of every group at most one pod is evicted at a time, while nodes are drained."""
    return [
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(cluster, f"{cluster.name}-{group.name}", "worker"),
            "spec": {
                "maxUnavailable": 1,
                "selector": {"matchLabels": {CLUSTER_LABEL: cluster.name, "swefleet.io/group": group.name}},
            },
        }
        for group in cluster.workers
    ]
