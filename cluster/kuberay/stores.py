"""Redis and Neo4j of the cluster's own, and the variables by which pods find whichever there is. Pure."""

from __future__ import annotations

from typing import Any, Literal

from cluster.kuberay.identity import PART_LABEL, Manifest, labels, metadata, secret_env
from cluster.kuberay.settings import ClusterSettings, ExistingNeo4j, ExistingRedis, OwnNeo4j, OwnRedis, StorageSettings

REDIS_PORT, BOLT_PORT = 6379, 7687
Store = Literal["log", "cache", "gcs"]
_STORES: tuple[Store, ...] = ("log", "cache", "gcs")
_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_REDIS_USER, _NEO4J_USER = 999, 7474

_CONFIG = {
    # The log is the truth: what it acknowledged is on the disk, and nothing is evicted (GL-20).
    "log": ("appendonly yes", "appendfsync always", "maxmemory-policy noeviction"),
    "cache": ("appendonly no", "maxmemory-policy allkeys-lru"),
    "gcs": ("appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction"),
}
# The password is written where only this container reads it, so that no list of processes shows it.
_START = (
    'umask 077; printf "requirepass %s\\nmasterauth %s\\n" "$REDIS_PASSWORD" "$REDIS_PASSWORD" '
    "> /run/redis/auth.conf; exec redis-server /etc/redis/redis.conf"
)
_PING = ["sh", "-c", 'test "$(REDISCLI_AUTH=$REDIS_PASSWORD redis-cli ping)" = PONG']


def store_env(cluster: ClusterSettings) -> list[Manifest]:
    """FLEET_REDIS_URL, FLEET_CACHE_URL and FLEET_NEO4J_*; passwords come from Secrets."""
    graph = cluster.graph
    uri = graph.uri if isinstance(graph, ExistingNeo4j) else f"bolt://{cluster.name}-graph:{BOLT_PORT}"
    return [
        secret_env("LOG_REDIS_PASSWORD", cluster.log.password),
        {"name": "FLEET_REDIS_URL", "value": _url(cluster, "log")},
        secret_env("CACHE_REDIS_PASSWORD", cluster.cache.password),
        {"name": "FLEET_CACHE_URL", "value": _url(cluster, "cache")},
        {"name": "FLEET_NEO4J_URI", "value": uri},
        {"name": "FLEET_NEO4J_USER", "value": graph.user if isinstance(graph, ExistingNeo4j) else "neo4j"},
        secret_env("FLEET_NEO4J_PASSWORD", graph.password),
    ]


def _url(cluster: ClusterSettings, store: Store) -> str:
    found: OwnRedis | ExistingRedis = getattr(cluster, store)
    # The kubelet puts the value of an earlier variable in the place of $(NAME).
    password = f"$({store.upper()}_REDIS_PASSWORD)"
    if isinstance(found, OwnRedis):
        return f"redis://:{password}@{cluster.name}-{store}:{REDIS_PORT}/0"
    scheme = "rediss" if found.tls else "redis"
    return f"{scheme}://{found.user or ''}:{password}@{found.host}:{found.port}/{found.database}"


def gcs_options(cluster: ClusterSettings) -> Manifest:
    """Where the head of Ray keeps its state, so that a new head goes on with it."""
    gcs = cluster.gcs
    address = f"{cluster.name}-gcs:{REDIS_PORT}" if isinstance(gcs, OwnRedis) else f"{gcs.host}:{gcs.port}"
    source = {"secretKeyRef": {"name": gcs.password.secret, "key": gcs.password.key}}
    return {"redisAddress": address, "redisPassword": {"valueFrom": source}}


def own_stores(cluster: ClusterSettings) -> list[Manifest]:
    """Objects of every store that is not there already."""
    found: list[Manifest] = []
    for store in _STORES:
        settings: OwnRedis | ExistingRedis = getattr(cluster, store)
        if isinstance(settings, OwnRedis):
            found += _redis(cluster, store, settings)
    return [*found, *(_neo4j(cluster, cluster.graph) if isinstance(cluster.graph, OwnNeo4j) else [])]


def _redis(cluster: ClusterSettings, store: Store, redis: OwnRedis) -> list[Manifest]:
    name = f"{cluster.name}-{store}"
    lines = [
        f"port {REDIS_PORT}",
        "dir /data",
        'save ""',
        f"maxmemory {_bytes(redis.memory) * 3 // 4}",
        *_CONFIG[store],
    ]
    config = {"redis.conf": "\n".join([*lines, "include /run/redis/auth.conf"]) + "\n"}
    container: Manifest = {
        "name": "redis",
        "image": redis.image,
        "command": ["sh", "-c", _START],
        "env": [secret_env("REDIS_PASSWORD", redis.password)],
        "ports": [{"name": "redis", "containerPort": REDIS_PORT}],
        "resources": _resources(redis.cpu, redis.memory),
        "startupProbe": {"exec": {"command": _PING}, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 120},
        "readinessProbe": {"exec": {"command": _PING}, "periodSeconds": 5, "timeoutSeconds": 5},
        "livenessProbe": {"exec": {"command": _PING}, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
        "securityContext": _security(is_read_only=True),
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "config", "mountPath": "/etc/redis", "readOnly": True},
            {"name": "run", "mountPath": "/run/redis"},
        ],
    }
    volumes: list[Manifest] = [
        {"name": "config", "configMap": {"name": name}},
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        *([] if redis.storage else [{"name": "data", "emptyDir": {"sizeLimit": "1Gi"}}]),
    ]
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(cluster, name, store), "data": config}
    pod = _pod(cluster, container, volumes, user=_REDIS_USER)
    return [config_map, *_served(cluster, store, pod, redis.storage, port=REDIS_PORT)]


def _neo4j(cluster: ClusterSettings, graph: OwnNeo4j) -> list[Manifest]:
    probe = {"tcpSocket": {"port": BOLT_PORT}, "periodSeconds": 10}
    container: Manifest = {
        "name": "neo4j",
        "image": graph.image,
        "env": [
            secret_env("NEO4J_PASSWORD", graph.password),
            {"name": "NEO4J_AUTH", "value": "neo4j/$(NEO4J_PASSWORD)"},
            {"name": "NEO4J_server_memory_heap_initial__size", "value": graph.heap},
            {"name": "NEO4J_server_memory_heap_max__size", "value": graph.heap},
            {"name": "NEO4J_server_memory_pagecache_size", "value": graph.heap},
            {"name": "NEO4J_server_http_enabled", "value": "false"},
        ],
        "ports": [{"name": "bolt", "containerPort": BOLT_PORT}],
        "resources": _resources(graph.cpu, graph.memory),
        "startupProbe": {**probe, "failureThreshold": 60},
        "readinessProbe": probe,
        "livenessProbe": {**probe, "failureThreshold": 6},
        "securityContext": _security(is_read_only=False),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    return _served(cluster, "graph", _pod(cluster, container, [], user=_NEO4J_USER), graph.storage, port=BOLT_PORT)


def _served(
    cluster: ClusterSettings,
    store: Literal["log", "cache", "gcs", "graph"],
    pod: Manifest,
    storage: StorageSettings | None,
    *,
    port: int,
) -> list[Manifest]:
    """A StatefulSet of one pod, and the name under which it is found."""
    name, chosen = f"{cluster.name}-{store}", {"swefleet.io/cluster": cluster.name, PART_LABEL: store}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(cluster, name, store),
        "spec": {"clusterIP": "None", "selector": chosen, "ports": [{"name": store, "port": port, "targetPort": port}]},
    }
    spec: Manifest = {
        "serviceName": name,
        "replicas": 1,
        "selector": {"matchLabels": chosen},
        "template": {"metadata": {"labels": labels(cluster, store)}, "spec": pod},
    }
    if storage:
        spec["volumeClaimTemplates"] = [_claim(cluster, storage, store)]
        # The data outlives the StatefulSet: `fleet cluster delete --data` alone removes it.
        spec["persistentVolumeClaimRetentionPolicy"] = {"whenDeleted": "Retain", "whenScaled": "Retain"}
    stateful = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(cluster, name, store),
        "spec": spec,
    }
    return [service, stateful]


def _claim(cluster: ClusterSettings, storage: StorageSettings, store: Any) -> Manifest:
    spec: Manifest = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage.size}}}
    if storage.storage_class:
        spec["storageClassName"] = storage.storage_class
    return {"metadata": {"name": "data", "labels": labels(cluster, store)}, "spec": spec}


def _pod(cluster: ClusterSettings, container: Manifest, volumes: list[Manifest], *, user: int) -> Manifest:
    pod: Manifest = {
        "serviceAccountName": f"{cluster.name}-store",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 120,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    return pod | ({"volumes": volumes} if volumes else {})


def _resources(cpu: str, memory: str) -> Manifest:
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}


def _security(*, is_read_only: bool) -> Manifest:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": is_read_only,
        "capabilities": {"drop": ["ALL"]},
    }


def _bytes(amount: str) -> int:
    return int(amount[:-2]) * _UNITS[amount[-2:]]
