"""Pods of Ray: the head, and the groups of workers. Probes and shared memory are added by the operator. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from cluster.kuberay.config_map import CONFIG_PLACE, HOME_PLACE, FleetConfig, config_volume
from cluster.kuberay.identity import CLUSTER_LABEL, Manifest, labels, metadata, secret_env
from cluster.kuberay.network import DASHBOARD_PORT, METRICS_PORT, SERVE_PORT
from cluster.kuberay.settings import ClusterSettings, Toleration, WorkerSettings
from cluster.kuberay.stores import store_env
from fleet.config.settings import PROXY_ENVIRONMENT

_USER = 1000
_HEAD_GRACE_S = 60


def head_group(cluster: ClusterSettings, config: FleetConfig) -> Manifest:
    """The head: GCS, dashboard and autoscaler; with no CPUs to offer, so that no actor is placed on it."""
    head = cluster.head
    ports = {"gcs": 6379, "dashboard": DASHBOARD_PORT, "client": 10001, "metrics": METRICS_PORT, "serve": SERVE_PORT}
    container = _container(cluster, "ray-head", cluster.images.head, ports, head.cpu, head.memory)
    pod = _pod(
        cluster, config, container, account="head", node_selector=head.node_selector, tolerations=head.tolerations,
        grace_s=_HEAD_GRACE_S, sees_api=cluster.autoscaler is not None,
    )  # fmt: skip
    return {
        "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},  # noqa: S104 - network policies guard it
        "template": {"metadata": _pod_metadata(cluster, config, "head"), "spec": pod},
    }


def worker_group(cluster: ClusterSettings, config: FleetConfig, group: WorkerSettings) -> Manifest:
    """Workers of one pool; actors find them by their labels (`placement` of fleet.yaml)."""
    image = cluster.images.gpu if group.pool == "gpu" else cluster.images.worker
    assert image is not None, "rules.py refuses a GPU group without an image"
    ports = {"metrics": METRICS_PORT, "serve": SERVE_PORT}
    container = _container(cluster, "ray-worker", image, ports, group.cpu, group.memory)
    # A head that comes back has to be waited for, longer than Ray does unless it is told to.
    container["env"].append({"name": "RAY_gcs_rpc_server_reconnect_timeout_s", "value": "600"})
    if group.gpus:
        for amounts in container["resources"].values():
            amounts[group.gpu_resource] = group.gpus
    asks_api = group.pool == "sandbox" and (cluster.runs is not None or bool(config.targets))
    pod = _pod(
        cluster, config, container, account="sandbox" if group.pool == "sandbox" else "worker",
        node_selector=group.node_selector, tolerations=group.tolerations, grace_s=group.grace_s, sees_api=asks_api,
    )  # fmt: skip
    if group.pool == "sandbox" and cluster.runs is None:
        _let_bubblewrap_work(pod)
    pod["topologySpreadConstraints"] = [_spread(cluster, group)]
    place = _pod_metadata(cluster, config, "worker")
    place["labels"] |= {"swefleet.io/group": group.name, "swefleet.io/pool": group.pool}
    found: Manifest = {
        "groupName": group.name,
        "replicas": group.replicas,
        "minReplicas": group.least,
        "maxReplicas": group.most,
        "labels": group.node_labels,
        "rayStartParams": {},
        "template": {"metadata": place, "spec": pod},
    }
    return found | ({"idleTimeoutSeconds": group.idle_timeout_s} if group.idle_timeout_s else {})


def home_claim(cluster: ClusterSettings) -> list[Manifest]:
    """The home that all pods share, where there is one."""
    if cluster.home.kind != "shared":
        return []
    spec: Manifest = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": cluster.home.size}}}
    if cluster.home.storage_class:
        spec["storageClassName"] = cluster.home.storage_class
    place = metadata(cluster, f"{cluster.name}-home", "home")
    return [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": place, "spec": spec}]


def _pod_metadata(cluster: ClusterSettings, config: FleetConfig, part: Literal["head", "worker"]) -> Manifest:
    return {"labels": labels(cluster, part), "annotations": {"swefleet.io/config-digest": config.digest}}


def _pod(
    cluster: ClusterSettings,
    config: FleetConfig,
    container: Manifest,
    *,
    account: str,
    node_selector: Mapping[str, str],
    tolerations: Sequence[Toleration],
    grace_s: int,
    sees_api: bool,
) -> Manifest:
    pod: Manifest = {
        "serviceAccountName": f"{cluster.name}-{account}",
        "automountServiceAccountToken": sees_api,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": _volumes(cluster, config),
    }
    if cluster.images.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in cluster.images.pull_secrets]
    if node_selector:
        pod["nodeSelector"] = dict(node_selector)
    if tolerations:
        pod["tolerations"] = [toleration.model_dump(exclude_none=True) for toleration in tolerations]
    return pod


def _container(
    cluster: ClusterSettings, name: str, image: str, ports: dict[str, int], cpu: str, memory: str
) -> Manifest:
    return {
        "name": name,
        "image": image,
        "env": _env(cluster),
        "ports": [{"name": key, "containerPort": port} for key, port in ports.items()],
        # Equal, so that memory that Ray plans with is there.
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "home", "mountPath": HOME_PLACE},
            {"name": "principals", "mountPath": f"{HOME_PLACE}/principals.json", "subPath": "principals.json",
             "readOnly": True},
            {"name": "config", "mountPath": CONFIG_PLACE, "readOnly": True},
        ],
    }  # fmt: skip


def _env(cluster: ClusterSettings) -> list[Manifest]:
    plain = {
        "FLEET_HOME": HOME_PLACE,
        "FLEET_CONFIG": CONFIG_PLACE,
        "RAY_USAGE_STATS_ENABLED": "0",
        **PROXY_ENVIRONMENT,
        "RAY_worker_niceness": "0",
        **dict(sorted(cluster.env.items())),
    }
    return [
        *({"name": name, "value": value} for name, value in plain.items()),
        *store_env(cluster),
        *(secret_env(name, source) for name, source in sorted(cluster.env_secrets.items())),
    ]


def _volumes(cluster: ClusterSettings, config: FleetConfig) -> list[Manifest]:
    home: Manifest = {"emptyDir": {"sizeLimit": cluster.home.size}}
    if cluster.home.kind == "shared":
        home = {"persistentVolumeClaim": {"claimName": f"{cluster.name}-home"}}
    item = {"key": cluster.principals.key, "path": "principals.json"}
    secret = {"secretName": cluster.principals.secret, "items": [item], "defaultMode": 0o440}
    return [{"name": "home", **home}, {"name": "principals", "secret": secret}, config_volume(cluster, config)]


def _let_bubblewrap_work(pod: Manifest) -> None:
    # It makes user namespaces and mounts /proc, which the runtime's default profile and masks forbid (docs/sandbox.md).
    pod["hostUsers"] = False
    pod["securityContext"]["seccompProfile"] = {"type": "Unconfined"}
    pod["containers"][0]["securityContext"]["procMount"] = "Unmasked"


def _spread(cluster: ClusterSettings, group: WorkerSettings) -> Manifest:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {CLUSTER_LABEL: cluster.name, "swefleet.io/group": group.name}},
    }
